"""Run the checks in a process of their own, which a method may end, stop or spoil.

`results` is for the command: it starts `python -m nlbench.conformance.apart` and reads what that
reports, line by line, through a pipe.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from nlbench.conformance.result import Result
from nlbench.errors import SuiteError

_START_SECONDS = 120.0
_NO_END = "fix: a method must not end the process: raise a ValueError that says what is wrong"


def results(
    source: str | Path,
    *,
    params: Mapping[str, Any] | None = None,
    methods_dir: str | Path | None = None,
    only: Sequence[str] = (),
    patience: float = 120.0,
) -> Iterator[Result]:
    """Run the checks in another process, and yield each result as soon as it is known.

    If the process ends, or makes no progress for too long, the check in progress fails, and those
    behind it are skipped.

    Args:
        source, params, methods_dir, only: as in `runner.results`.
        patience: seconds without a sign of the process, after which it is ended.
    Raises: SuiteError, as `runner.results` does.
    """
    folder = None if methods_dir is None else str(methods_dir)
    order = {
        "source": str(source),
        "params": dict(params or {}),
        "methods_dir": folder,
        "only": list(only),
    }
    read, write = os.pipe()
    command = [sys.executable, "-m", "nlbench.conformance.apart", str(write), json.dumps(order)]
    # A session of its own, so that it can be ended together with what a method has started.
    process = subprocess.Popen(command, pass_fds=[write], start_new_session=True)
    os.close(write)
    try:
        with open(read, encoding="utf-8") as reports:
            yield from _follow(process, reports, patience)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _follow(process: subprocess.Popen[bytes], reports: TextIO, patience: float) -> Iterator[Result]:
    """Yield the results that a process reports, and how it ended if that was too soon."""
    # The checks that have not ended, each as [name, claim].
    left = [["import", "the checks can be started"]]
    for report in _reports(reports, patience):
        kind, value = report
        if kind == "checks":
            left = value
        elif kind == "result":
            left = [one for one in left if one[0] != value["name"]]
            yield Result(**value)
        elif kind == "error":
            raise SuiteError(value)
        elif kind == "broken":
            raise RuntimeError(f"nlbench check itself failed:\n{value}")
        elif kind == "interrupted":
            yield from _ended_early(left, f"the method raised KeyboardInterrupt\n{_NO_END}")
            return
        elif kind == "done":
            return
        elif kind == "silent":
            why = (
                f"nothing has happened for {patience:.0f} seconds, so the process was ended\n"
                "fix: look for a loop that does not end, a wait, or a question to the user; "
                "--patience SECONDS waits longer"
            )
            yield from _ended_early(left, why)
            return

    process.wait()
    yield from _ended_early(left, _how_it_ended(process.returncode))


def _reports(reports: TextIO, patience: float) -> Iterator[tuple[str, Any]]:
    """Yield what a process reports; at last ("silent", None) if it reports nothing for too long."""
    # The pipe is read without a buffer: a line in a buffer would not wake the selector.
    handle, rest = reports.fileno(), b""
    with selectors.DefaultSelector() as selector:
        selector.register(handle, selectors.EVENT_READ)
        # Until the first report, torch is imported.
        wait = max(patience, _START_SECONDS)
        while True:
            if not selector.select(wait):
                yield "silent", None
                return
            wait = patience
            if not (piece := os.read(handle, 65536)):
                return
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                kind, value = json.loads(line)
                yield kind, value


def _ended_early(left: Sequence[Sequence[str]], why: str) -> Iterator[Result]:
    for i, (name, claim) in enumerate(left):
        if i == 0:
            yield Result(name, claim, "FAIL", why)
        else:
            yield Result(name, claim, "skipped", "cannot be judged: the process has ended")


def _how_it_ended(status: int) -> str:
    """Describe the end of a process before its last check."""
    if status >= 0:
        return f"the method ended the process with exit status {status}\n{_NO_END}"
    name = signal.Signals(-status).name
    if -status == signal.SIGKILL:
        return (
            f"the process was killed ({name}): by the system, which it left without memory, or by "
            f"the method\n{_NO_END}"
        )
    return (
        f"the process crashed ({name})\n"
        "fix: look for compiled code that gets wrong shapes, an endless recursion, and os.abort()"
    )


# ---- The other process --------------------------------------------------------------------------


def main(handle: int, order: Mapping[str, Any]) -> None:
    """Run the checks, and report them to the file descriptor `handle`."""
    from nlbench.conformance import runner

    def report(kind: str, value: Any = None) -> None:
        # Written at once and without a Python file, which a method could close.
        os.write(handle, (json.dumps([kind, value]) + "\n").encode())

    try:
        found = runner.results(
            order["source"],
            params=order["params"],
            methods_dir=order["methods_dir"],
            only=order["only"],
            on_checks=lambda checks: report("checks", [[one.name, one.claim] for one in checks]),
            on_progress=lambda: report("progress"),
        )
        for result in found:
            report("result", vars(result))
    except SuiteError as error:
        report("error", str(error))
    # Ctrl-C reaches the other process alone, so this one is the method's.
    except KeyboardInterrupt:
        report("interrupted")
    except Exception:
        report("broken", traceback.format_exc())
    else:
        report("done")


if __name__ == "__main__":
    main(int(sys.argv[1]), json.loads(sys.argv[2]))
