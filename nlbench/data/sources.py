"""Where data comes from: the directories, what is there, what to get from where, and fetching it."""

import hashlib
import itertools
import os
import queue
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import IO

import platformdirs

from nlbench import registry
from nlbench.data.base import Dataset, Found, Info, Source
from nlbench.errors import DataError, DataMissing

Progress = Callable[[int, int], None]  # (bytes done, bytes in all, 0 where the server does not say)

_CONNECT_SECONDS = 8.0  # name look-up included, which has no limit of its own
_STALL_SECONDS = 30.0  # without a byte
_CHUNK = 1 << 20


def data_dir(option: str | Path | None = None) -> Path:
    """Where data files lie: `option`, else NLBENCH_DATA, else a per-user directory."""
    chosen = option or os.environ.get("NLBENCH_DATA")
    return Path(chosen).expanduser() if chosen else platformdirs.user_data_path("nlbench", appauthor=False)


def cache_dir() -> Path:
    """Where decoded data is kept: NLBENCH_CACHE, else a per-user directory."""
    chosen = os.environ.get("NLBENCH_CACHE")
    return Path(chosen).expanduser() if chosen else platformdirs.user_cache_path("nlbench", appauthor=False)


@dataclass(frozen=True)
class Status:
    """Whether a dataset can be loaded, and from what."""

    info: Info
    sources: tuple[Source, ...]
    found: Found
    data_dir: Path

    @property
    def there(self) -> bool:
        return not self.found.missing


def status(name: str, data_dir: Path) -> Status:
    """What is there of dataset `name`. Raises SuiteError for an unknown name."""
    module = registry.dataset(name)
    return Status(module.INFO, module.SOURCES, module.find(data_dir), data_dir)


def open_dataset(name: str, path: str, data_dir: Path, cache_dir: Path, seed: int) -> Dataset:
    """A dataset read: from `path` where a suite names one (the dataset `folder`), else from the data directory.

    Raises: DataMissing when it is not there; DataError, naming the file, when it cannot be used.
    """
    dataset: Dataset = registry.dataset(name).load(Path(path) if path else data_dir, cache_dir, seed)
    return dataset


def advice(name: str, data_dir: Path) -> str:
    """In words: what is there or missing, where it was looked for, and which file from which page goes where."""
    found = status(name, data_dir)
    return explain(found.info, found.sources, found.found, data_dir)


def in_short(name: str, data_dir: Path) -> str:
    """A few words of what `advice` says at length."""
    found = status(name, data_dir)
    if found.there:
        return "there"
    return f"missing, see `nlbench data status {name}`" if found.sources else "wherever a suite says it is"


def require(info: Info, sources: Sequence[Source], found: Found, data_dir: Path) -> None:
    """Raises DataMissing with the advice unless everything is there."""
    if found.missing:
        raise DataMissing(explain(info, sources, found, data_dir))


def explain(info: Info, sources: Sequence[Source], found: Found, data_dir: Path) -> str:
    """The text of `advice`."""
    if not found.missing:
        folders = dict.fromkeys(str(path.parent) for path in found.paths)
        return f"{info.name}: there{', in ' + ' and '.join(folders) if folders else ', needs no files'}"
    if not sources:  # nothing to get: a folder of the user's own
        return f"{info.name}: " + "\n  ".join(found.missing)
    lines = [f"{info.name}: missing in {data_dir}: {'; '.join(found.missing)}"]
    if data_dir.is_dir():
        lines.append(f"  looked in {_looked(found, data_dir)}")
    else:
        lines.append("  there is no such folder; --data-dir or NLBENCH_DATA names another data directory")
    needed = [source for source in sources if source.file in found.needs]
    for (home, licence), group in itertools.groupby(needed, lambda source: (source.home, source.licence)):
        files = list(group)
        if len(files) > 1:  # all that is needed of one page, under one licence
            lines.append(f"  get from {home}{f' ({licence})' if licence else ''}, and put each as it is at")
            lines += [f"    {data_dir / source.goes_to}" for source in files]
            continue
        facts = ", ".join(fact for fact in (_megabytes(files[0].size), licence) if fact)
        lines.append(f"  get {files[0].file}{f' ({facts})' if facts else ''} from {home}")
        if files[0].goes_to.endswith("/"):
            lines.append(f"    and put it into {data_dir / files[0].goes_to}")
        else:
            lines.append(f"    and put it, as it is, at {data_dir / files[0].goes_to}")
    if any(source.url for source in needed):
        lines.append(f"  or let nlbench do it: nlbench data fetch {info.name}")
    return "\n".join(lines)


def _looked(found: Found, data_dir: Path) -> str:
    inner = [str(place.relative_to(data_dir)) for place in found.looked if place != data_dir]
    return f"it and in its folders {', '.join(inner)}" if inner else "it"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size else ""


def fetch(
    name: str, data_dir: Path, progress: Progress | None = None, say: Callable[[str], None] | None = None
) -> tuple[Path, ...]:
    """Download what is missing of dataset `name` into `data_dir`, and check it.

    A download that broke off goes on where it stopped. CIFAR's archives stay packed: they are read as they are, once.

    Args:
        progress: called with (bytes done, bytes in all) for each file.
        say: takes messages: sizes, licences. Default: standard error.
    Returns: the files the dataset is read from.
    Raises: DataMissing, carrying the advice, when there is no network, within seconds; DataError for a wrong checksum
        (the file is set aside) and a data directory that cannot be written; SuiteError for an unknown name.
    """
    say = say or (lambda message: print(message, file=sys.stderr))
    state = status(name, data_dir)
    if state.there:
        say(advice(name, data_dir))
        return state.found.paths
    for source in state.sources:
        if source.file not in state.found.needs:
            continue
        if not source.url:
            raise DataMissing(advice(name, data_dir))
        say(f"{source.file} ({_megabytes(source.size) or 'size unknown'}) from {source.url}")
        if source.licence:
            say(f"  licence: {source.licence}; see {source.home}")
        try:
            _download(source, data_dir / source.goes_to, progress or (lambda done, total: None))
        except (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError) as error:
            raise DataMissing(f"{source.url}: {_reason(error)}\n{advice(name, data_dir)}") from error
        except OSError as error:
            raise DataError(f"{error.filename or data_dir}: cannot be written ({error.strerror})") from error
    require(state.info, state.sources, registry.dataset(name).find(data_dir), data_dir)
    return registry.dataset(name).find(data_dir).paths


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"the server answers {error.code} {error.reason}"
    reason = getattr(error, "reason", error)
    return f"no connection ({reason or type(error).__name__})"


def _download(source: Source, target: Path, progress: Progress) -> None:
    """To `target`.part, going on where an earlier download stopped; renamed once its checksum is right."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.part")
    start = part.stat().st_size if part.exists() else 0
    try:
        with _open(source.url, start) as response:
            if response.status != 206:  # the server sends all of it
                start = 0
            total = start + int(response.headers.get("Content-Length") or 0)
            with part.open("ab" if start else "wb") as file:
                done = _copy(response, file, start, total, progress)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not start:  # 416: nothing is left to send, the part is as long as the file
            raise
        done = total = start
    if done < total:
        raise ConnectionError(f"broke off after {done} of {total} bytes; fetch again to go on from there")
    _verify(source, part)
    os.replace(part, target)


def _copy(response: HTTPResponse, file: IO[bytes], done: int, total: int, progress: Progress) -> int:
    progress(done, total)
    while chunk := response.read(_CHUNK):
        file.write(chunk)
        done += len(chunk)
        progress(done, total)
    return done


def _open(url: str, start: int) -> HTTPResponse:
    """Connects within _CONNECT_SECONDS. A thread waits for the name look-up, which cannot be given a limit."""
    headers = {"User-Agent": "nlbench"} | ({"Range": f"bytes={start}-"} if start else {})
    request = urllib.request.Request(url, headers=headers)
    answers: queue.Queue[HTTPResponse | Exception] = queue.Queue()

    def connect() -> None:
        try:
            answers.put(urllib.request.urlopen(request, timeout=_STALL_SECONDS))
        except Exception as error:  # handed over to the caller
            answers.put(error)

    threading.Thread(target=connect, daemon=True).start()
    try:
        answer = answers.get(timeout=_CONNECT_SECONDS)
    except queue.Empty:
        raise TimeoutError(f"no answer within {_CONNECT_SECONDS:g} seconds") from None
    if isinstance(answer, Exception):
        raise answer
    return answer


def _verify(source: Source, part: Path) -> None:
    for algorithm, expected in (("sha256", source.sha256), ("md5", source.md5)):
        if not expected:
            continue
        with part.open("rb") as file:
            got = hashlib.file_digest(file, algorithm).hexdigest()
        if got != expected:
            aside = part.with_name(f"{source.file}.bad-checksum")
            os.replace(part, aside)
            raise DataError(
                f"{source.url}: {algorithm} is {got}, must be {expected}; the file is set aside as {aside}. "
                f"Fetch again; if it stays so, the file on the server has changed: see {source.home}"
            )
