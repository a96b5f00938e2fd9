"""Downloads, from a server on this machine."""

import contextlib
import errno
import hashlib
import http.server
import re
import socket
import threading
import time
from dataclasses import replace

import pytest

from nlbench.data import fetch
from nlbench.data.datasets import cifar10n, cifar100n
from nlbench.errors import DataError, DataMissing

# About a megabyte, so that a download has several steps.
CONTENT = bytes(range(256)) * 4000


class Handler(http.server.BaseHTTPRequestHandler):
    """Serve CONTENT, from the place that is asked for, up to the server's `stop_after`."""

    def do_GET(self):
        server = self.server
        start = 0
        if server.ranges and "Range" in self.headers:
            start = int(re.findall(r"bytes=(\d+)-", self.headers["Range"])[0])

        server.requests.append(start)
        time.sleep(server.delay)
        if start >= len(CONTENT):
            self.send_error(416)
            return

        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        self.wfile.write(CONTENT[start : server.stop_after])

    def log_message(self, *args):
        """Print nothing."""


@pytest.fixture
def server(monkeypatch):
    """Run a server in a thread, and ask it without the proxy that a machine may have."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.ranges, server.stop_after, server.requests = True, None, []
    server.delay = 0.0
    server.url = f"http://127.0.0.1:{server.server_address[1]}/CIFAR-10_human.pt"
    often = {"poll_interval": 0.01}
    threading.Thread(target=server.serve_forever, kwargs=often, daemon=True).start()

    yield server

    server.shutdown()
    server.server_close()


@pytest.fixture
def data(small10, tmp_path):
    """Return a folder that has the images and no label file."""
    small10.write_parquet(tmp_path)
    return tmp_path


def serve(monkeypatch, url, content=CONTENT):
    """Make `url` the home of the label file, with the digests of `content`."""
    source = replace(
        cifar10n.SOURCES[1],
        url=url,
        md5=hashlib.md5(content).hexdigest(),
        sha256=hashlib.sha256(content).hexdigest(),
    )
    monkeypatch.setattr(cifar10n, "SOURCES", (cifar10n.SOURCES[0], source))
    return source


def test_fetch(server, data, monkeypatch):
    serve(monkeypatch, server.url)
    steps, reported = [], []

    def step(done, total):
        steps.append((done, total))

    paths = fetch.fetch("cifar10n", data, step, reported.append)
    target = data / "cifar-n" / "CIFAR-10_human.pt"

    assert paths[-1] == target
    assert target.read_bytes() == CONTENT
    assert [path.name for path in target.parent.iterdir()] == [target.name]
    assert steps[0] == (0, len(CONTENT))
    assert steps[-1] == (len(CONTENT), len(CONTENT))
    assert "CC BY-NC 4.0" in "\n".join(reported)
    assert "MB" in "\n".join(reported)

    # Nothing is asked for a second time.
    fetch.fetch("cifar10n", data, report=reported.append)
    assert server.requests == [0]


def test_messages_go_to_standard_error(server, data, monkeypatch, capsys):
    serve(monkeypatch, server.url)
    fetch.fetch("cifar10n", data)
    out, err = capsys.readouterr()
    assert out == ""
    assert "CC BY-NC" in err


def test_a_broken_download_continues_where_it_stopped(server, data, monkeypatch):
    serve(monkeypatch, server.url)
    server.stop_after = 300_000

    with pytest.raises(DataMissing, match=r"fetch again to go on|IncompleteRead"):
        fetch.fetch("cifar10n", data, report=lambda _: None)

    # The part that arrived is kept, and only the rest is asked for.
    part = data / "cifar-n" / "CIFAR-10_human.pt.part"
    assert part.read_bytes() == CONTENT[: len(part.read_bytes())]
    assert 0 < part.stat().st_size <= 300_000

    start, server.stop_after = part.stat().st_size, None
    fetch.fetch("cifar10n", data, report=lambda _: None)

    assert server.requests == [0, start]
    assert (data / "cifar-n" / "CIFAR-10_human.pt").read_bytes() == CONTENT


def test_a_server_that_cannot_resume_sends_all_of_it(server, data, monkeypatch):
    serve(monkeypatch, server.url)
    (data / "cifar-n").mkdir()
    (data / "cifar-n" / "CIFAR-10_human.pt.part").write_bytes(CONTENT[:1000])
    server.ranges = False
    fetch.fetch("cifar10n", data, report=lambda _: None)
    assert (data / "cifar-n" / "CIFAR-10_human.pt").read_bytes() == CONTENT


def test_a_part_that_is_already_whole(server, data, monkeypatch):
    serve(monkeypatch, server.url)
    (data / "cifar-n").mkdir()
    (data / "cifar-n" / "CIFAR-10_human.pt.part").write_bytes(CONTENT)
    fetch.fetch("cifar10n", data, report=lambda _: None)
    assert (data / "cifar-n" / "CIFAR-10_human.pt").read_bytes() == CONTENT


def test_wrong_checksum_sets_the_file_aside(server, data, monkeypatch):
    serve(monkeypatch, server.url, b"what was published")
    message = r"sha256 is .*, must be .*CIFAR-10_human\.pt\.bad-checksum"
    with pytest.raises(DataError, match=message):
        fetch.fetch("cifar10n", data, report=lambda _: None)
    (aside,) = (data / "cifar-n").iterdir()
    assert aside.name == "CIFAR-10_human.pt.bad-checksum"
    assert cifar10n.find(data).missing


def test_no_connection_fails_within_seconds_with_the_advice(data, monkeypatch):
    # Nobody listens at the port of a socket that was closed.
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        serve(monkeypatch, f"http://127.0.0.1:{closed.getsockname()[1]}/x")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    before = time.monotonic()

    with pytest.raises(DataMissing) as caught:
        fetch.fetch("cifar10n", data, report=lambda _: None)
    assert time.monotonic() - before < 10

    for word in (
        "no connection",
        "get CIFAR-10_human.pt",
        cifar10n.SOURCES[1].home,
        str(data / "cifar-n"),
    ):
        assert word in str(caught.value)


def test_a_server_that_never_answers(data, monkeypatch):
    monkeypatch.setattr(fetch, "CONNECT_SECONDS", 0.3)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        serve(monkeypatch, f"http://127.0.0.1:{silent.getsockname()[1]}/x")
        with pytest.raises(DataMissing, match=r"no answer within 0\.3 seconds"):
            fetch.fetch("cifar10n", data, report=lambda _: None)


def test_two_that_fetch_at_once_download_once(server, data, monkeypatch):
    serve(monkeypatch, server.url)
    server.delay = 0.3
    ends, reported = [], []

    def fetch_it():
        ends.append(fetch.fetch("cifar10n", data, report=reported.append))

    both = [threading.Thread(target=fetch_it) for _ in range(2)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()

    target = data / "cifar-n" / "CIFAR-10_human.pt"
    assert len(ends) == 2
    assert target.read_bytes() == CONTENT
    assert [path.name for path in target.parent.iterdir()] == [target.name]
    assert server.requests == [0]
    assert "another process downloads CIFAR-10_human.pt; waiting for it" in reported


def test_a_disk_that_is_too_small_is_said_before_the_download(server, data, monkeypatch):
    serve(monkeypatch, server.url)
    usage = fetch.shutil.disk_usage(data)
    monkeypatch.setattr(fetch.shutil, "disk_usage", lambda path: usage._replace(free=500_000))
    message = r"the rest of CIFAR-10_human\.pt needs 1\.0 MB, and 0\.5 MB are free; make room"
    with pytest.raises(DataError, match=message):
        fetch.fetch("cifar10n", data, report=lambda _: None)


def test_a_disk_that_fills_up_keeps_the_part_and_says_so(server, data, monkeypatch):
    serve(monkeypatch, server.url)

    def full(response, file, *rest):
        file.write(response.read(1000))
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(fetch, "_copy", full)
    message = (
        r"CIFAR-10_human\.pt: cannot be written \(No space left on device\); make room and fetch"
    )
    with pytest.raises(DataError, match=message):
        fetch.fetch("cifar10n", data, report=lambda _: None)
    monkeypatch.undo()

    serve(monkeypatch, server.url)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    fetch.fetch("cifar10n", data, report=lambda _: None)
    assert server.requests == [0, 1000]
    assert (data / "cifar-n" / "CIFAR-10_human.pt").read_bytes() == CONTENT


def test_page_that_is_gone(server, data, monkeypatch):
    serve(monkeypatch, server.url)
    (data / "cifar-n").mkdir()
    monkeypatch.setattr(Handler, "do_GET", lambda self: self.send_error(404))
    with pytest.raises(DataMissing, match="answers 404"):
        fetch.fetch("cifar10n", data, report=lambda _: None)


def test_data_directory_that_cannot_be_written(server, data, monkeypatch):
    serve(monkeypatch, server.url)
    (data / "cifar-n").write_text("a file in the way")
    with pytest.raises(DataError, match="cannot be written") as caught:
        fetch.fetch("cifar10n", data, report=lambda _: None)
    assert not isinstance(caught.value, DataMissing)


def test_nothing_to_fetch(tmp_path):
    reported = []
    assert fetch.fetch("digits", tmp_path, report=reported.append) == ()
    assert reported == ["digits: there, needs no files"]


def test_every_source_says_where_it_comes_from_and_goes_to():
    for source in (*cifar10n.SOURCES, *cifar100n.SOURCES):
        assert source.home.startswith("https://")
        assert source.url.startswith("https://")
        assert source.url.endswith(source.file)
        assert source.goes_to.endswith(source.file)
        assert len(source.md5) == 32
    assert all("CC BY-NC" in s.licence for s in (cifar10n.SOURCES[1], cifar100n.SOURCES[1]))


class Endless(Handler):
    """Send more than the file has, without saying how much."""

    def do_GET(self):
        self.server.requests.append(0)
        self.send_response(200)
        if self.server.announced:
            self.send_header("Content-Length", str(self.server.announced))
        self.end_headers()
        # The client leaves when it has enough.
        with contextlib.suppress(OSError):
            for _ in range(200):
                self.wfile.write(CONTENT)


@pytest.mark.parametrize("announced", [0, 1 << 50])
@pytest.mark.parametrize("known", [True, False])
def test_a_download_that_never_ends_stops_at_the_files_size(
    server, data, monkeypatch, announced, known
):
    server.RequestHandlerClass, server.announced = Endless, announced
    serve(monkeypatch, server.url)
    size = len(CONTENT) if known else 0
    source = replace(cifar10n.SOURCES[1], size=size)
    monkeypatch.setattr(cifar10n, "SOURCES", (cifar10n.SOURCES[0], source))
    monkeypatch.setattr(fetch, "MOST_BYTES", 5_000_000)

    what = rf"sends more than the {size or 5_000_000:,} bytes that the file has"
    if announced:
        # Nothing is written for a file that no disk can hold.
        what = "bytes that the file has|needs .*, and .* are free"
    with pytest.raises(DataError, match=what):
        fetch.fetch("cifar10n", data, report=lambda _: None)
    folder = data / "cifar-n"
    assert not folder.exists() or list(folder.iterdir()) == []


def test_a_header_of_the_server_that_is_no_number_is_no_size():
    for text in ("", "x", "-5", "1e9", "9" * 40):
        response = type("Response", (), {"headers": {"Content-Length": text}})
        assert fetch._announced(response) == 0
    assert fetch._announced(type("Response", (), {"headers": {}})) == 0


def test_what_the_server_says_is_shown_without_control_characters(capsys):
    fetch._print_to_stderr("x\x1b[2J")
    assert capsys.readouterr().err == "x\\x1b[2J\n"
