"""Ask the Hugging Face hub which files a dataset has, and download them into the hub's own cache.

Only parquet files are downloaded. No code of a repository is downloaded or executed.
"""

from __future__ import annotations

import errno
import importlib.util
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import TYPE_CHECKING, TypeVar

from nlbench.data.cache import read_json, write_json
from nlbench.data.missing import megabytes
from nlbench.data.places import HUB
from nlbench.errors import DataError, DataMissing, did_you_mean, on_one_line, printable
from nlbench.files import digest

if TYPE_CHECKING:
    from huggingface_hub import DatasetInfo

T = TypeVar("T")

# The branch with the parquet files that the hub itself makes of datasets in other formats.
CONVERTED = "refs/convert/parquet"

# The limit for an answer about a repository.
_ANSWER_SECONDS = 15.0

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class ParquetFile:
    """What the hub says of a file.

    Attributes:
        size: in bytes; 0 where the hub does not say it.
        sha256: "" for a small file, which the hub keeps in git.
    """

    size: int
    sha256: str = ""


@dataclass(frozen=True)
class Snapshot:
    """A dataset's repository at one commit.

    Attributes:
        repository: "owner/name".
        commit: 40 hex digits.
        files: all its parquet files, by their names.
    """

    repository: str
    commit: str
    files: Mapping[str, ParquetFile]

    @property
    def words(self) -> str:
        """The snapshot as messages name it."""
        return f"{HUB}:{self.repository} at {self.commit[:12]}"


class _NoAnswer(Exception):
    """The hub cannot be asked, or does not answer."""


def require_repository(repository: str) -> None:
    """Raise DataError unless the text has the form owner/name."""
    if not _REPOSITORY.fullmatch(repository):
        raise DataError(
            f"{repository!r}: a dataset of the hub is named as owner/name, for example "
            f"uoft-cs/cifar10; its page has the name in its address"
        )


def home() -> Path:
    """Return HF_HOME, the folder that holds the hub's cache."""
    return Path(_client().constants.HF_HOME)


def named(text: str) -> tuple[str, str] | None:
    """Return repository and revision of "hf:owner/name@revision"; None for any other text.

    The revision may be left out, and is "" then.
    Raises: DataError where the form is not owner/name.
    """
    if not text.startswith(f"{HUB}:"):
        return None
    repository, _, revision = text.removeprefix(f"{HUB}:").partition("@")
    require_repository(repository)
    return repository, revision


# ---- Which commit --------------------------------------------------------------------------------


def snapshot(repository: str, revision: str, cache_dir: Path) -> Snapshot:
    """Return the commit of a revision and the parquet files that it has.

    The hub is asked, except for a commit whose files are known. Where it cannot be asked, the
    commit is the one that it named last, as a line on standard error says.

    Args:
        revision: a branch, a tag or a commit. "" is the default branch or, where that has no
            parquet files, CONVERTED.
        cache_dir: keeps what the hub said.
    Raises: DataMissing where there is no such repository or revision, and where the hub cannot be
        asked and nothing is known; DataError for a repository without parquet files.
    """
    require_repository(repository)
    memory = _Memory(cache_dir, repository)
    if _COMMIT.fullmatch(revision):
        known = memory.snapshot(revision)
        if known is not None:
            return known

    try:
        found = _asked(repository, revision)
    except _NoAnswer as error:
        last = memory.last(revision) or _in_hub_cache(repository, revision)
        if last is None:
            raise DataMissing(_offline(repository, revision, str(error))) from error
        if last.commit != revision:
            _report(
                f"{last.words}: the hub could not be asked ({error}), so this is the commit that "
                f"{revision or 'the default branch'} had when it was asked last"
            )
        return last
    memory.keep(found, revision)
    return found


def _asked(repository: str, revision: str) -> Snapshot:
    """Ask the hub. Raises _NoAnswer, DataMissing or DataError."""
    found = _listed(repository, revision)
    if found.files:
        return found
    if revision:
        raise DataError(
            f"{found.words}: has no parquet files. The hub makes such files of many datasets: they "
            f"are at `revision: {CONVERTED}`"
        )
    with suppress(DataMissing):
        found = _listed(repository, CONVERTED)
    if not found.files:
        raise DataError(
            f"{found.words}: has no parquet files, and the hub has made none of it. Code of a "
            f"repository is never executed: download the dataset by its own instructions, and read "
            f"it as a `folder`"
        )
    return found


def _listed(repository: str, revision: str) -> Snapshot:
    """Return what the hub says of a revision."""
    client = _client()

    def ask() -> DatasetInfo:
        api = client.HfApi(endpoint=client.constants.ENDPOINT)
        found: DatasetInfo = api.dataset_info(
            repository, revision=revision or None, files_metadata=True, timeout=_ANSWER_SECONDS
        )
        return found

    info = _answer(ask, repository, revision)
    files = {}
    for sibling in info.siblings or ():
        name = PurePosixPath(sibling.rfilename)
        # A name must not lead out of the cache.
        if name.suffix == ".parquet" and not name.is_absolute() and ".." not in name.parts:
            sha256 = sibling.lfs.sha256 if sibling.lfs else ""
            files[str(name)] = ParquetFile(sibling.size or 0, sha256 or "")
    if not _COMMIT.fullmatch(info.sha or ""):
        raise DataError(f"{HUB}:{repository}: the hub names no commit, but {info.sha!r}")
    return Snapshot(repository, str(info.sha), files)


# ---- What is remembered of the hub's answers -----------------------------------------------------


class _Memory:
    """The hub's answers about one repository, as files in the cache."""

    def __init__(self, cache_dir: Path, repository: str) -> None:
        self.repository = repository
        self.folder = cache_dir / "hub" / repository.replace("/", "--")

    def snapshot(self, commit: str) -> Snapshot | None:
        """Return what is known of a commit."""
        try:
            listed = read_json(self.folder / f"{commit}.json")
            files = {str(name): ParquetFile(int(size), str(sha)) for name, size, sha in listed}
        except (OSError, ValueError, TypeError):
            return None
        return Snapshot(self.repository, commit, files)

    def last(self, revision: str) -> Snapshot | None:
        """Return the commit that the hub named last for a revision."""
        try:
            commit = str(read_json(self.folder / "revisions.json")[revision])
        except (OSError, ValueError, TypeError, KeyError):
            return None
        return self.snapshot(commit)

    def keep(self, found: Snapshot, revision: str) -> None:
        """Write down an answer. It is needed without network only, so failing is no error."""
        listed = [[name, file.size, file.sha256] for name, file in found.files.items()]
        with suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True)
            write_json(self.folder / f"{found.commit}.json", listed)
            try:
                revisions = dict(read_json(self.folder / "revisions.json"))
            except (OSError, ValueError, TypeError):
                revisions = {}
            write_json(self.folder / "revisions.json", {**revisions, revision: found.commit})


def _in_hub_cache(repository: str, revision: str) -> Snapshot | None:
    """Return a snapshot that another program has downloaded, if its names say that it is whole."""
    home = Path(_client().constants.HF_HUB_CACHE) / f"datasets--{repository.replace('/', '--')}"
    commit = revision
    if not _COMMIT.fullmatch(revision):
        try:
            commit = (home / "refs" / (revision or "main")).read_text(encoding="utf-8").strip()
        except (OSError, ValueError):
            return None

    folder = home / "snapshots" / commit
    files = {}
    for path in sorted(folder.rglob("*.parquet")):
        # Only train-00000-of-00003 says how many files there are. That all are there is checked
        # when they are read.
        if "-of-" not in path.name:
            return None
        if path.is_file():
            name = path.relative_to(folder).as_posix()
            files[name] = ParquetFile(path.stat().st_size)
    return Snapshot(repository, commit, files) if files else None


# ---- The files -----------------------------------------------------------------------------------


def download(found: Snapshot, names: Sequence[str]) -> dict[str, Path]:
    """Return the path of each of a snapshot's files, after downloading those that are not there.

    They lie in the hub's cache, HF_HOME. The client goes on with a file whose connection broke. A
    process that is killed leaves the whole files, and the next one gets the rest.

    Raises: DataMissing where they cannot be downloaded; DataError for a file with another content
        than the hub says.
    """
    client = _client()
    missing = [name for name in names if _there(client, found, name) is None]
    if missing:
        size = megabytes(sum(found.files[name].size for name in missing))
        count = f"{len(missing)} file{'s' * (len(missing) != 1)}"
        _report(f"{found.words}: downloading {count}{size and ', '}{size}")
    for name in missing:
        _fetch(client, found, name)
    return {name: _require_there(client, found, name) for name in names}


def _there(client: ModuleType, found: Snapshot, name: str) -> Path | None:
    """Return the path of a file in the cache; None where it is not there, or not whole."""
    path = _in_cache(client, found, name)
    size = found.files[name].size
    return None if path is None or (size and path.stat().st_size != size) else path


def _in_cache(client: ModuleType, found: Snapshot, name: str) -> Path | None:
    """Return the path of a file in the cache, whole or not; None where it is not there."""
    cache = client.constants.HF_HUB_CACHE
    path = client.try_to_load_from_cache(
        found.repository, name, cache_dir=cache, revision=found.commit, repo_type="dataset"
    )
    # The client remembers in its cache, with an object that is no path, that a file does not exist.
    return Path(path) if isinstance(path, str) and Path(path).is_file() else None


def _require_there(client: ModuleType, found: Snapshot, name: str) -> Path:
    path = _there(client, found, name)
    if path is None:
        raise DataMissing(f"{found.words}: {name} has gone from the hub's cache; run it again")
    return path


def _fetch(client: ModuleType, found: Snapshot, name: str) -> None:
    """Download one file, and check it."""

    def get() -> str:
        # A file of the wrong length in the cache would else be taken for whole.
        path: str = client.hf_hub_download(
            found.repository,
            name,
            repo_type="dataset",
            revision=found.commit,
            cache_dir=client.constants.HF_HUB_CACHE,
            endpoint=client.constants.ENDPOINT,
            force_download=_in_cache(client, found, name) is not None,
        )
        return path

    try:
        path = Path(_answer(get, found.repository, found.commit))
    except _NoAnswer as error:
        raise DataMissing(
            f"{_offline(found.repository, found.commit, str(error))} {name} is missing; files that "
            f"have come whole are kept."
        ) from error

    expected = found.files[name].sha256
    if expected and digest(path, "sha256") != expected:
        # Gone, so that no program takes it for the file.
        path.resolve().unlink()
        raise DataError(
            f"{found.words}: what came of {name} has another sha256 than the hub says, and was not "
            f"kept; run it again"
        )


def overview(cache_dir: Path) -> list[str]:
    """Return a line for each commit that is known: how many of its files are in the hub's cache."""
    lines: list[str] = []
    if importlib.util.find_spec("huggingface_hub") is None:
        return lines
    for path in sorted((cache_dir / "hub").glob("*--*/*.json")):
        known = None
        if _COMMIT.fullmatch(path.stem):
            known = _Memory(cache_dir, path.parent.name.replace("--", "/", 1)).snapshot(path.stem)
        if known is None:
            continue
        client = _client()
        there = sum(_there(client, known, name) is not None for name in known.files)
        lines.append(
            f"{known.repository} at {known.commit}: {there} of {len(known.files)} files are in "
            f"{client.constants.HF_HUB_CACHE}"
        )
    return lines


# ---- Errors --------------------------------------------------------------------------------------


def _client() -> ModuleType:
    """Return the package huggingface_hub. Raises DataMissing where it is not installed."""
    try:
        import huggingface_hub
        import huggingface_hub.constants
        import huggingface_hub.errors
    except ModuleNotFoundError:
        raise DataMissing(
            f"{HUB}: datasets of the Hugging Face hub need the package huggingface_hub, which is "
            f"not installed: pip install 'nlbench[hub]'"
        ) from None
    return huggingface_hub


def _answer(ask: Callable[[], T], repository: str, revision: str) -> T:
    """Return what `ask` returns, with errors of the client as ours.

    Raises: DataMissing where the hub answers and refuses; DataError where a file cannot be written;
        _NoAnswer.
    """
    client = _client()
    errors, page = client.errors, f"{client.constants.ENDPOINT}/datasets/{repository}"
    name = f"{HUB}:{repository}"
    try:
        return ask()
    except errors.GatedRepoError as error:
        raise DataMissing(
            f"{name}: its owners give access to those who accept their terms. Accept them at "
            f"{page}, then log in with `hf auth login`, or set HF_TOKEN"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise DataMissing(
            f"{name}: there is no such dataset at {client.constants.ENDPOINT}, or it is private: "
            f"then log in with `hf auth login`, or set HF_TOKEN.{_similar(client, repository)}"
        ) from error
    except errors.RevisionNotFoundError as error:
        similar = _similar_revision(client, repository, revision)
        raise DataMissing(f"{name}: has no revision {revision!r}.{similar}") from error
    except errors.HfHubHTTPError as error:
        if getattr(error.response, "status_code", 500) in (401, 403):
            raise DataMissing(
                f"{name}: the hub refuses access ({_first_line(error)}). Log in with `hf auth "
                f"login`, or set HF_TOKEN to a token that is valid and may read {page}"
            ) from error
        raise _NoAnswer(_first_line(error)) from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
            raise DataError(
                f"{error.filename or client.constants.HF_HUB_CACHE}: cannot be written "
                f"({error.strerror}); HF_HOME names another folder for the hub's cache"
            ) from error
        raise _NoAnswer(_first_line(error)) from error
    # By its version the client raises what httpx or requests raise where there is no connection.
    except Exception as error:
        raise _NoAnswer(_first_line(error)) from error


def _first_line(error: BaseException) -> str:
    """Return what went wrong in a line. The client's own errors name the reason as their cause."""
    while type(error).__name__ == "LocalEntryNotFoundError" and error.__cause__ is not None:
        error = error.__cause__
    text = str(error).strip().partition("\n")[0]
    return on_one_line(text[:200]).rstrip(".") or type(error).__name__


def _similar(client: ModuleType, repository: str) -> str:
    """Return " Did you mean ...?" with a dataset of a similar name, or ""."""
    api = client.HfApi(endpoint=client.constants.ENDPOINT)
    try:
        found = api.list_datasets(search=repository.partition("/")[2], limit=30)
        return did_you_mean(repository, [info.id for info in found])
    # It only helps, so that nothing that goes wrong here matters.
    except Exception:
        return ""


def _similar_revision(client: ModuleType, repository: str, revision: str) -> str:
    """Name the branches and tags of a repository, or return ""."""
    api = client.HfApi(endpoint=client.constants.ENDPOINT)
    try:
        refs = api.list_repo_refs(repository, repo_type="dataset")
        names = [ref.name for ref in (*refs.branches, *refs.tags)]
    # It only helps, so that nothing that goes wrong here matters.
    except Exception:
        return ""
    return f" It has: {', '.join(names[:20])}.{did_you_mean(revision, names)}"


def _offline(repository: str, revision: str, reason: str) -> str:
    """Say that the hub cannot be asked, and what to do."""
    at = f" at {revision[:12]}" if revision else ""
    home = _client().constants.HF_HOME
    return (
        f"{HUB}:{repository}{at}: the hub cannot be asked ({reason}), and {home} does not hold "
        f"all of it. Where there is network, run `nlbench data fetch SUITE.yaml`; then give this "
        f"machine the same folders with HF_HOME and NLBENCH_CACHE, and HF_HUB_OFFLINE=1, with "
        f"which the hub is never asked."
    )


def _report(message: str) -> None:
    print(printable(message), file=sys.stderr)
