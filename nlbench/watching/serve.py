"""What the process of a logger does: it calls the logger as another process asks it to."""

from __future__ import annotations

import os
import pickle
import signal
import sys
import threading
from collections.abc import Callable
from typing import IO, Any

from nlbench.errors import UserError
from nlbench.watching import choice
from nlbench.watching.channel import in_words

# How long the logger may take to write what it has, when the process of the command has ended.
_ORPHAN_SECONDS = 20.0


def main() -> None:
    """Serve the requests that arrive on standard input, until it is closed."""
    # These are for the process of the command, which closes standard input when it ends.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)

    # What the packages print must not get between the answers.
    with os.fdopen(os.dup(0), "rb") as requests, os.fdopen(os.dup(1), "wb") as answers:
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.dup2(2, 1)
        # Written line by line, so that it is there if the process dies.
        sys.stdout = sys.stderr
        _serve(requests, answers)
    # Not by the functions of `atexit`, which may wait for the network for good.
    os._exit(0)


def _serve(requests: IO[bytes], answers: IO[bytes]) -> None:
    logger: Any = None
    while True:
        try:
            call, values = pickle.load(requests)
        except EOFError:
            break

        if call == "open":
            answer = _answer(_open, *values)
            if answer[0] == "done":
                logger, answer = answer[1], ("done", None)
        else:
            answer = _answer(getattr(logger, call), *values)
        if call == "close":
            logger = None
        try:
            pickle.dump(answer, answers)
            answers.flush()
        except OSError:
            # Nobody reads it any more. The logger is closed below.
            break

    # The command was killed, and the logger shall know that its runs go on no more.
    if logger is not None:
        timer = threading.Timer(_ORPHAN_SECONDS, os._exit, (1,))
        timer.daemon = True
        timer.start()
        _answer(logger.close)


def _answer(function: Callable[..., Any], *values: Any) -> tuple[str, Any]:
    """Return what a function returns, or its error in words."""
    try:
        value = function(*values)
    except UserError as error:
        return "refused", str(error)
    except BaseException as error:
        return "error", in_words(error)
    return "done", value


def _open(name: str, value: str, out: Any) -> Any:
    return choice.load(name).open_logger(value, out)
