"""Commands that look after a folder of records: `verify` and `repair`."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nlbench.cli.app import app, examples, guarded, say, warn

if TYPE_CHECKING:
    from nlbench.results.findings import Condition, Finding, Report
    from nlbench.results.repair import Repaired

# So many files of each kind are printed; JSON has all of them.
MOST_LISTED = 50

# Between two reports on the progress, in a terminal.
_SECONDS = 5.0

Folder = Annotated[Path, typer.Argument(help="The folder that holds the records.")]


class Format(StrEnum):
    text = "text"
    json = "json"


FormatOption = Annotated[
    Format, typer.Option("--format", help="Lines to read, or JSON with every file.")
]


# ---- verify --------------------------------------------------------------------------------------


@app.command(
    epilog=examples(
        "nlbench verify results",
        "nlbench verify results --format json > report.json",
    )
)
@guarded
def verify(out: Folder = Path("results"), format_: FormatOption = Format.text) -> None:
    """Check every file of a folder of records, and say what each suite still lacks.

    Nothing is changed. Exit status: 0 nothing is wrong; 1 a file is damaged, files disagree, or a
    killed process has left something; 2 there are no records.
    """
    from nlbench.results import verify as verifying
    from nlbench.results.store import Store

    report = verifying.verify(Store(out, warn), _Progress())
    if format_ is Format.json:
        _print_json(_as_json(report))
    else:
        say(*_lines(report))
    if report.findings:
        raise typer.Exit(1)


class _Progress:
    """Says now and then in a terminal how many runs were checked."""

    def __init__(self) -> None:
        self._said = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if sys.stderr.isatty() and now - self._said > _SECONDS and done < total:
            warn(f"{done:,} of {total:,} runs are checked")
            self._said = now


def _lines(report: Report) -> Iterable[str]:
    from nlbench.results.findings import Condition, Trouble

    counts = _counts(report.conditions)
    runs = report.conditions.total() - report.conditions[Condition.MISSING]
    helpers = _count(report.helpers, "helper network")
    yield f"{report.root}: {_count(runs, 'run')}: {', '.join(counts) or 'none'}; {helpers}"
    for suite in report.suites:
        parts = _counts(suite.conditions)
        if suite.missing:
            parts.append(f"{suite.missing:,} missing")
        line = f"{suite.name}: {_count(suite.runs, 'run')}: {', '.join(parts)}"
        yield line + (f"; `{suite.command}` trains what it lacks" if suite.lacks else "")
    if report.in_no_suite:
        yield f"{_count(report.in_no_suite, 'record')} in no suite"
    if report.unchecked:
        yield f"{_count(report.unchecked, 'record')} without checksums (nlbench 0.1 wrote them)"

    found = [f"{one} {len(report.of(one)):,}" for one in Trouble if report.of(one)]
    yield f"found: {', '.join(found) or 'nothing wrong'}"
    for trouble in Trouble:
        yield from _cut(
            [f"{f.path}: {f.reason}; {f.advice(report.root)}" for f in report.of(trouble)]
        )
    if report.set_aside:
        yield f"set aside earlier, and not read: {_count(len(report.set_aside), 'file')}"
        yield from _cut([f"  {path}" for path in report.set_aside])
    if report.unknown:
        yield f"not of nlbench, and left alone: {_count(len(report.unknown), 'file')}"
        yield from _cut([f"  {path}" for path in report.unknown])


def _counts(conditions: Counter[Condition]) -> list[str]:
    """Return how many runs are done, and so on, without those that are missing."""
    from nlbench.results.findings import Condition

    shown = [one for one in Condition if conditions[one] and one is not Condition.MISSING]
    return [f"{conditions[one]:,} {one}" for one in shown]


def _cut(lines: list[str]) -> Iterable[str]:
    yield from lines[:MOST_LISTED]
    if len(lines) > MOST_LISTED:
        yield f"  and {len(lines) - MOST_LISTED} more; --format json lists all"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _as_json(report: Report) -> dict[str, Any]:
    from nlbench.results.findings import Condition, Trouble

    return {
        "store": str(report.root),
        "runs": {one.value: report.conditions[one] for one in Condition},
        "unchecked": report.unchecked,
        "in_no_suite": report.in_no_suite,
        "helper_networks": {"trained": report.helpers, "begun": report.helpers_begun},
        "suites": [
            {
                "name": suite.name,
                "runs": suite.runs,
                **{one.value: suite.conditions[one] for one in Condition},
                "missing": suite.missing,
                "command": suite.command,
            }
            for suite in report.suites
        ],
        "found": {one.value: len(report.of(one)) for one in Trouble},
        "findings": [_finding(one, report.root) for one in report.findings],
        "set_aside": [str(path) for path in report.set_aside],
        "unknown": [str(path) for path in report.unknown],
    }


def _finding(one: Finding, root: Path) -> dict[str, str]:
    return {
        "kind": one.trouble.value,
        "path": str(one.path),
        "reason": one.reason,
        "run": one.key,
        "advice": one.advice(root),
    }


def _print_json(value: object) -> None:
    import json

    print(json.dumps(value, indent=1))


# ---- repair --------------------------------------------------------------------------------------


@app.command(
    epilog=examples(
        "nlbench repair results --dry-run",
        "nlbench repair results",
        "nlbench repair results --again",
    )
)
@guarded
def repair(
    out: Folder = Path("results"),
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be done.")
    ] = False,
    again: Annotated[
        bool,
        typer.Option(
            "--again",
            help="Also set aside runs whose record can be used, but whose history.csv or "
            "predictions.npz is damaged or disagrees with it. They are trained again then.",
        ),
    ] = False,
    format_: FormatOption = Format.text,
) -> None:
    """Set damaged files aside, remove what killed processes left, and say what to run again.

    No result is deleted: a file that is set aside gets a name such as record.json.corrupt-1. Exit
    status: 0 nothing is left to repair; 1 something is, and is named; 2 there are no records.
    """
    from nlbench.results import repair as repairing
    from nlbench.results.store import Store

    # What the store would warn of is in the report.
    store = Store(out)
    done = repairing.repair(store, again=again, dry_run=dry_run, progress=_Progress())
    commands = repairing.commands(store, done.again)
    if format_ is Format.json:
        _print_json(_repaired_as_json(done, commands, out))
    else:
        say(*_lines_of_repair(done, commands, out, dry_run))
    if done.held or done.left:
        raise typer.Exit(1)


def _lines_of_repair(
    done: Repaired, commands: dict[str, tuple[list[str], str]], out: Path, dry_run: bool
) -> Iterable[str]:
    aside, removed = ("set aside", "removed")
    if dry_run:
        aside, removed = ("would be set aside", "would be removed")
    files, leftovers = _count(len(done.set_aside), "file"), _count(len(done.removed), "leftover")
    if done.set_aside or done.removed or done.left or done.held:
        yield f"{out}: {files} {aside}, {leftovers} {removed}"
    else:
        yield f"{out}: nothing to repair"
    yield from _cut([f"{aside}: {path}: {reason}" for path, reason in done.set_aside])
    yield from _cut([f"{removed}: {path}: {what}" for path, what in done.removed])
    yield from _cut([f"left as it is: {f.path}: {f.reason}; {f.advice(out)}" for f in done.left])
    if done.held:
        keys = ", ".join(done.held)
        yield f"left as they are, because another process trains them: {keys}"
    for suite, (runs, command) in commands.items():
        yield f"to be trained again in {suite}: {_count(len(runs), 'run')}; `{command}`"
        yield from _cut([f"  {run}" for run in runs])
    alone = len(done.again) - len({run for runs, _ in commands.values() for run in runs})
    if alone > 0:
        yield f"{_count(alone, 'run')} set aside in no suite: run the suite that they came from"


def _repaired_as_json(
    done: Repaired, commands: dict[str, tuple[list[str], str]], out: Path
) -> dict[str, Any]:
    return {
        "store": str(out),
        "set_aside": [{"path": str(path), "reason": reason} for path, reason in done.set_aside],
        "removed": [{"path": str(path), "what": what} for path, what in done.removed],
        "left": [_finding(one, out) for one in done.left],
        "held": done.held,
        "again": done.again,
        "commands": {suite: command for suite, (_, command) in commands.items()},
    }
