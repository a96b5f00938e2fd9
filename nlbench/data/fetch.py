"""Download the files of a dataset. A download that broke off goes on where it stopped."""

from __future__ import annotations

import errno
import os
import queue
import re
import shutil
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import IO

from nlbench.data import catalogue
from nlbench.data.base import Source
from nlbench.data.missing import megabytes, require
from nlbench.errors import DataError, DataMissing, printable
from nlbench.files import digest, flock, sync

# A function of the bytes done and the bytes in all, 0 where the server does not give the size.
Progress = Callable[[int, int], None]

# The limit for connecting. It includes the name look-up, for which no limit can be set.
CONNECT_SECONDS = 8.0

# The limit for the next byte, once connected.
STALL_SECONDS = 30.0

_CHUNK_BYTES = 1 << 20

# The limit for a file whose size neither nlbench nor the server says.
MOST_BYTES = 20 << 30


def fetch(
    name: str,
    data_dir: Path,
    progress: Progress | None = None,
    report: Callable[[str], None] | None = None,
) -> tuple[Path, ...]:
    """Download what is missing of dataset `name` into `data_dir`, and check it.

    CIFAR's archives stay packed: they are read as they are, once.

    Args:
        progress: called with (bytes done, bytes in all) for each file.
        report: called with messages: sizes, licences. Default: print to standard error.
    Returns: the files that the dataset is read from.
    Raises: DataMissing, with advice, when there is no connection within seconds; DataError for a
        wrong checksum (the file is set aside) and a data directory that cannot be written;
        SuiteError for an unknown name.
    """
    if report is None:
        report = _print_to_stderr
    if progress is None:
        progress = _ignore_progress

    state = catalogue.status(name, data_dir)
    if state.there:
        report(catalogue.advice(name, data_dir))
        return state.found.paths

    # Often only some are missing: CIFAR-10N has the images of CIFAR-10.
    for source in state.sources:
        if source.file not in state.found.needs:
            continue
        if not source.url:
            raise DataMissing(catalogue.advice(name, data_dir))
        report(f"{source.file} ({megabytes(source.size) or 'size unknown'}) from {source.url}")
        if source.licence:
            report(f"  licence: {source.licence}; see {source.home}")

        try:
            _download(source, data_dir / source.goes_to, progress, report)
        # Failures of server and network. Any other OSError comes from writing the file.
        except (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError) as error:
            reason = f"{source.url}: {_reason(error)}"
            raise DataMissing(f"{reason}\n{catalogue.advice(name, data_dir)}") from error
        except OSError as error:
            place = error.filename or data_dir / source.goes_to
            again = ""
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                again = "; make room and fetch again: it goes on where it stopped"
            raise DataError(f"{place}: cannot be written ({error.strerror}){again}") from error

    state = catalogue.status(name, data_dir)
    require(state.info, state.sources, state.found, data_dir)
    return state.found.paths


# ---- Messages ------------------------------------------------------------------------------------


def _print_to_stderr(message: str) -> None:
    print(printable(message), file=sys.stderr)


def _ignore_progress(done: int, total: int) -> None:
    pass


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"the server answers {error.code} {error.reason}"
    reason = getattr(error, "reason", error)
    return f"no connection ({reason or type(error).__name__})"


# ---- One file ------------------------------------------------------------------------------------


def _download(
    source: Source, target: Path, progress: Progress, report: Callable[[str], None]
) -> None:
    """Download to `target`.part, from where an earlier one stopped, and rename it when whole."""
    target.parent.mkdir(parents=True, exist_ok=True)

    # The part stays when the download breaks off, and the next fetch continues it.
    part = target.with_name(f"{target.name}.part")
    with _alone(part, report) as file:
        # Another process may have fetched it while this one waited.
        if target.exists():
            part.unlink()
            return
        _fill(source, part, file, progress)

        # Only a file that is whole and right gets its name.
        sync(file)
        _verify(source, part)
        os.replace(part, target)


def _fill(source: Source, part: Path, file: IO[bytes], progress: Progress) -> None:
    """Append what a partial download lacks to `file`, which is `part` and open.

    Raises: ConnectionError where the server stops too early; DataError where it sends too much.
    """
    start = os.fstat(file.fileno()).st_size
    try:
        with _open(source.url, start) as response:
            # 206 is a part of the file. Any other server ignored the range and sends all of it.
            if response.status != 206:
                start = 0
                file.truncate(0)
            total = start + _announced(response)
            most = source.size or total or MOST_BYTES
            _require_space(part, total - start)
            done = _copy(response, file, start, total, progress, most)
    except urllib.error.HTTPError as error:
        # 416: nothing is left to send, because the part is as long as the file.
        if error.code != 416 or not start:
            raise
        done = total = most = start

    if done > most:
        # It can never become the file, so the next download must not go on from it.
        part.unlink()
        raise DataError(
            f"{source.url}: sends more than the {most:,} bytes that the file has, so it is another "
            f"one; it was not kept. Fetch again; if it stays so, see {source.home}"
        )
    if done < total:
        raise ConnectionError(
            f"broke off after {done} of {total} bytes; fetch again to go on from there"
        )


@contextmanager
def _alone(part: Path, report: Callable[[str], None]) -> Iterator[IO[bytes]]:
    """Open a partial download to append to it, while no other process does.

    On a file system without locks two processes may write at once. The checksum then finds it.
    """
    while True:
        with part.open("ab") as file:
            if flock(file, wait=False) == "busy":
                report(f"another process downloads {part.stem}; waiting for it")
                flock(file, wait=True)
            # While this process waited, the other one may have given the file its final name.
            if not part.exists() or not os.path.samestat(part.stat(), os.fstat(file.fileno())):
                continue
            try:
                yield file
            finally:
                # Without a connection nothing has come, and nothing is to be continued.
                with suppress(OSError):
                    file.flush()
                if not os.fstat(file.fileno()).st_size:
                    part.unlink(missing_ok=True)
            return


def _require_space(part: Path, size: int) -> None:
    """Raise DataError where the rest of a download does not fit the disk."""
    free = shutil.disk_usage(part.parent).free
    if size > free:
        raise DataError(
            f"{part.parent}: the rest of {part.stem} needs {megabytes(size)}, and "
            f"{megabytes(free) or '0 MB'} are free; make room and fetch again, or name another "
            "folder with --data-dir"
        )


def _announced(response: HTTPResponse) -> int:
    """Return how many bytes the server says that it sends; 0 where it does not say so."""
    length = response.headers.get("Content-Length") or ""
    return int(length) if re.fullmatch(r"\d{1,18}", length.strip()) else 0


def _copy(
    response: HTTPResponse, file: IO[bytes], done: int, total: int, progress: Progress, most: int
) -> int:
    """Copy the response to the file, and stop where that has more than `most` bytes.

    Returns: the bytes that the file has then.
    """
    progress(done, total)
    while done <= most and (chunk := response.read(_CHUNK_BYTES)):
        file.write(chunk)
        done += len(chunk)
        progress(done, total)
    return done


def _open(url: str, start: int) -> HTTPResponse:
    """Connect, and ask for the bytes from `start` on.

    Raises: TimeoutError after CONNECT_SECONDS; what urlopen raises.
    """
    headers = {"User-Agent": "nlbench"}
    if start:
        headers["Range"] = f"bytes={start}-"
    request = urllib.request.Request(url, headers=headers)
    answers: queue.Queue[HTTPResponse | Exception] = queue.Queue()

    def connect() -> None:
        try:
            answers.put(urllib.request.urlopen(request, timeout=STALL_SECONDS))
        except Exception as error:
            answers.put(error)

    # The name look-up takes no limit, so it runs in a thread that is given up when it is too slow.
    threading.Thread(target=connect, daemon=True).start()
    try:
        answer = answers.get(timeout=CONNECT_SECONDS)
    except queue.Empty:
        raise TimeoutError(f"no answer within {CONNECT_SECONDS:g} seconds") from None
    if isinstance(answer, Exception):
        raise answer
    return answer


def _verify(source: Source, part: Path) -> None:
    """Raise DataError and set the file aside unless its known checksums are right."""
    for algorithm, expected in (("sha256", source.sha256), ("md5", source.md5)):
        if not expected:
            continue
        got = digest(part, algorithm)
        if got != expected:
            # Kept, so that a person can look at it, but under a name that no dataset reads.
            aside = part.with_name(f"{source.file}.bad-checksum")
            os.replace(part, aside)
            raise DataError(
                f"{source.url}: {algorithm} is {got}, must be {expected}; the file is set aside as "
                f"{aside}. Fetch again; if it stays so, the file on the server has changed: "
                f"see {source.home}"
            )
