"""Run the checks in a process of their own, which a method may end, stop or spoil."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from nlbench import child
from nlbench.conformance import runner
from nlbench.conformance.result import Result
from nlbench.errors import UserError


def results(
    source: str | Path,
    *,
    params: Mapping[str, Any] | None = None,
    methods_dir: str | Path | None = None,
    only: Sequence[str] = (),
    patience: float = 300.0,
) -> Iterator[Result]:
    """Run the checks in another process, and yield each result as soon as it is known.

    If the process ends, or a check takes too long, that check fails, and those behind it are
    skipped.

    Args:
        source, params, methods_dir, only: as in `runner.results`.
        patience: seconds after which a check is ended.
    Raises: SuiteError, as `runner.results` does.
    """
    chosen = runner.with_needed(only)
    path = runner.find_method(source, methods_dir).path
    run = functools.partial(
        runner.results, source, params=params, methods_dir=methods_dir, only=only
    )
    ended = 0
    try:
        for result in child.stream_apart(run, patience, str(path), passed=(UserError,)):
            ended += 1
            yield result
    except child.ChildEnded as error:
        in_progress, *others = chosen[ended:]
        fix = _FIX_OF_A_LOOP if str(error).startswith("does not end") else _FIX
        yield Result(in_progress.name, in_progress.claim, "FAIL", f"the method {error}\n{fix}")
        for check in others:
            message = f"cannot be judged: the process ended in `{in_progress.name}`"
            yield Result(check.name, check.claim, "skipped", message)


_FIX = "fix: a method must not end its process; raise a ValueError for what is wrong"
_FIX_OF_A_LOOP = (
    "fix: is there a loop that never ends? If the check is only slow, --patience SECONDS waits "
    "longer"
)
