"""A Hugging Face hub on this machine, with as much of its interface as the real client asks for."""

import contextlib
import hashlib
import http.server
import io
import json
import re
import threading
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from huggingface_hub import constants
from PIL import Image


@dataclass
class Repository:
    """A dataset's commits, and the branches and tags that point to them.

    Attributes:
        commits: commit -> file -> content.
        gated: whether its files ask for a token.
    """

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    gated: bool = False

    def commit(self, files, branch="main"):
        """Add a commit with these files, let a branch point to it, and return its name."""
        names = [f"{name}\0{hashlib.sha1(content).hexdigest()}" for name, content in files.items()]
        name = hashlib.sha1("\n".join([branch, *names]).encode()).hexdigest()
        self.commits[name] = dict(files)
        self.refs[branch] = name
        return name


class FakeHub:
    """The server. `requests` holds each request as "METHOD path"."""

    def __init__(self):
        self.repositories: dict[str, Repository] = {}
        self.requests: list[str] = []
        self.break_after = 0
        self.status = 0
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self.server.hub = self
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def repository(self, name) -> Repository:
        """Return a repository, which is made where there is none."""
        return self.repositories.setdefault(name, Repository())

    def downloads(self):
        """Return the files whose content was asked for."""
        return [line for line in self.requests if line.startswith("GET /datasets/")]


@contextlib.contextmanager
def serving():
    """Run a hub in a thread."""
    hub = FakeHub()
    often = {"poll_interval": 0.01}
    threading.Thread(target=hub.server.serve_forever, kwargs=often, daemon=True).start()
    try:
        yield hub
    finally:
        hub.server.shutdown()
        hub.server.server_close()


def use(hub, monkeypatch, home):
    """Let the client in this process ask this hub and nothing else, and keep its cache in a folder.

    The client reads its environment when it is imported.
    """
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    template = f"{hub.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    values = {
        "ENDPOINT": hub.url,
        "HUGGINGFACE_CO_URL_TEMPLATE": template,
        "HF_HOME": str(home),
        "HF_HUB_CACHE": str(home / "hub"),
        "HF_HUB_OFFLINE": False,
        "HF_TOKEN_PATH": str(home / "token"),
    }
    for name, value in values.items():
        monkeypatch.setattr(constants, name, value)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self.answer()

    def do_GET(self):
        self.answer()

    def log_message(self, *args):
        """Print nothing."""

    def answer(self):
        hub = self.server.hub
        path = urlsplit(self.path).path
        hub.requests.append(f"{self.command} {unquote(path)}")
        if hub.status:
            self.reply(hub.status, b"{}")
            return

        of_api = re.fullmatch(r"/api/datasets/([^/]+/[^/]+)(?:/(revision|refs)/?(.*))?", path)
        of_file = re.fullmatch(r"/datasets/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        if path == "/api/datasets":
            self.reply(200, json.dumps([{"id": name} for name in hub.repositories]).encode())
        elif not (of_api or of_file):
            self.reply(404, b"{}")
        elif (of_api or of_file)[1] not in hub.repositories:
            # The hub does not say whether a private repository is there.
            self.reply(401, b"{}", {"X-Error-Code": "RepoNotFound"})
        elif of_api and of_api[2] == "refs":
            self.reply(200, json.dumps(_refs(hub.repositories[of_api[1]])).encode())
        elif of_api:
            self.about(of_api[1], unquote(of_api[3] or "main"))
        else:
            self.file(of_file[1], unquote(of_file[2]), unquote(of_file[3]))

    def about(self, name, revision):
        """Say which commit a revision is, and which files it has."""
        repository = self.server.hub.repositories[name]
        commit = repository.refs.get(revision, revision)
        if commit not in repository.commits:
            self.reply(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
            return
        siblings = []
        for file, content in repository.commits[commit].items():
            lfs = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
            lfs["pointerSize"] = 130
            siblings.append({"rfilename": file, "size": len(content), "blobId": "0", "lfs": lfs})
        about = {"id": name, "sha": commit, "siblings": siblings, "tags": [], "downloads": 0}
        about |= {"likes": 0, "private": False}
        self.reply(200, json.dumps(about).encode())

    def file(self, name, commit, file):
        """Send a file, from the place that is asked for, as far as the hub's `break_after`."""
        hub = self.server.hub
        repository = hub.repositories[name]
        if repository.gated and "Authorization" not in self.headers:
            self.reply(401, b"{}", {"X-Error-Code": "GatedRepo"})
            return
        commit = repository.refs.get(commit, commit)
        content = repository.commits.get(commit, {}).get(file)
        if content is None:
            self.reply(404, b"{}", {"X-Error-Code": "EntryNotFound"})
            return

        begin = 0
        if "Range" in self.headers:
            begin = int(re.findall(r"bytes=(\d+)-", self.headers["Range"])[0])
            hub.requests[-1] += f" from {begin}"
        headers = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": commit}
        if begin:
            headers["Content-Range"] = f"bytes {begin}-{len(content) - 1}/{len(content)}"
        self.reply(206 if begin else 200, content[begin:], headers, cut=hub.break_after)

    def reply(self, status, content, headers=None, cut=0):
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if cut and len(content) > cut:
            # As a connection that breaks in the middle of a file.
            self.wfile.write(content[:cut])
            self.server.hub.break_after = 0
            self.close_connection = True
            return
        self.wfile.write(content)


def _refs(repository):
    branches = [
        {"name": name, "ref": f"refs/heads/{name}", "targetCommit": commit}
        for name, commit in repository.refs.items()
        if not name.startswith("refs/")
    ]
    return {"branches": branches, "converts": [], "tags": []}


# ---- Files ---------------------------------------------------------------------------------------


def pictures(labels, seed=0, side=12):
    """Return one PNG for each label. Its brightness tells the label, so that it can be learned."""
    random = np.random.default_rng(seed)
    encoded = []
    for label in labels:
        pixels = random.integers(0, 60, (side, side, 3)) + 60 * max(int(label), 0)
        buffer = io.BytesIO()
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(buffer, "PNG")
        encoded.append(buffer.getvalue())
    return encoded


def parquet(columns, classes=None):
    """Return a parquet file as the library `datasets` writes it.

    Args:
        columns: name -> values. Bytes become an image.
        classes: column -> the names of its classes.
    """
    features, arrays = {}, {}
    for name, values in columns.items():
        if isinstance(values[0], bytes):
            features[name] = {"_type": "Image"}
            kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
            arrays[name] = pa.array([{"bytes": value, "path": None} for value in values], kind)
            continue
        arrays[name] = pa.array(values)
        features[name] = {"dtype": str(arrays[name].type), "_type": "Value"}
        if name in (classes or {}):
            features[name] = {"names": list(classes[name]), "_type": "ClassLabel"}

    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    table = pa.table(arrays).replace_schema_metadata(metadata)
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()
