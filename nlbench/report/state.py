"""What a suite still lacks: runs that are missing, failed or made by older code."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nlbench.results import notes
from nlbench.results.cells import MIXED, SIGN, STALE, UNKNOWN_CODE
from nlbench.results.leftovers import CHECKPOINT, LOCK
from nlbench.results.lock import is_held
from nlbench.results.plan_file import command_of

if TYPE_CHECKING:
    from nlbench.results.cells import Results
    from nlbench.results.store import Store

# What a page calls the folder of records: another one has other people's copies of it.
FOLDER = Path("results")

# Runs that are not done are listed up to this number.
MOST_LISTED = 200


@dataclass(frozen=True)
class NotDone:
    """A run of a plan that has no result, and why."""

    row: str
    condition: str
    seed: int
    what: str
    message: str = ""


@dataclass(frozen=True)
class State:
    """How complete a suite is.

    Attributes:
        runs: how many different runs the plan has.
        counts: how many of them are done, failed, and so on, by name.
        not_done: the runs without a result, in the order of the plan.
        older: cells that other code made, and cells whose code is not known.
        notes: sentences about damage, marks and different hardware.
        command: trains what is lacking.
    """

    runs: int
    counts: Mapping[str, int]
    not_done: list[NotDone]
    older: list[str]
    unknown: list[str]
    notes: list[str]
    command: str

    @property
    def done(self) -> int:
        """The number of runs that are done."""
        return self.counts.get("done", 0)

    @property
    def running(self) -> int:
        """The number of runs that a process trains at this moment."""
        return self.counts.get("running", 0)

    @property
    def open(self) -> int:
        """The number of runs that have not ended."""
        return sum(self.counts.get(name, 0) for name in ("running", "begun", "missing"))

    @property
    def in_words(self) -> str:
        """The counts in words, for example "48 done, 2 missing"."""
        return ", ".join(f"{count:,} {name}" for name, count in self.counts.items() if count)


def of_suite(plan: Mapping[str, Any], results: Results, store: Store) -> State:
    """Look at every run of a plan."""
    # Two rows may be the same run, which is counted once.
    by_key: dict[str, tuple[str, str]] = {}
    not_done = []
    for cell in plan["cells"]:
        key = cell["key"]
        if key not in by_key:
            by_key[key] = _condition(store, key)
        what, message = by_key[key]
        if what != "done":
            title = plan["conditions"][cell["condition"]]
            not_done.append(NotDone(cell["row"], title, cell["seed"], what, message))

    order = ("done", "diverged", "failed", "damaged", "running", "begun", "missing")
    found = Counter(what for what, _ in by_key.values())
    return State(
        runs=len(by_key),
        counts={name: found[name] for name in order},
        not_done=not_done,
        older=_marked(results, STALE),
        unknown=_marked(results, UNKNOWN_CODE),
        notes=_notes(results),
        command=command_of(plan, FOLDER),
    )


def _condition(store: Store, key: str) -> tuple[str, str]:
    """Return what is the matter with a run, and the message of its error."""
    folder = store.run_dir(key)
    files = store.check(key)
    if files is None:
        if is_held(folder / LOCK):
            return "running", ""
        return ("begun" if (folder / CHECKPOINT).exists() else "missing"), ""
    if files.record is None:
        return "damaged", "; ".join(damage.reason for damage in files.damage)
    return files.record.status, files.record.error_message


def _marked(results: Results, mark: str) -> list[str]:
    """Return the cells with a mark, in words. A row with it everywhere is named once."""
    found = []
    every = 0
    for row in results.rows:
        places = []
        for condition, title in enumerate(results.conditions):
            if mark in results.cell(row.name, condition, "last").marks:
                places.append(title)
        if len(places) == len(results.conditions):
            found.append(row.name)
            every += 1
        elif places:
            found.append(f"{row.name} on {', '.join(places)}")
    return ["all rows"] if every == len(results.rows) > 1 else found


def _notes(results: Results) -> list[str]:
    """Return the notes below a table that say what is wrong, each without its mark."""
    found = []
    for note in notes.of_marks(results):
        if note.startswith((SIGN, MIXED)):
            found.append(note[1:].strip())
    return [*found, *notes.of_instructions(results.all_records()), *notes.of_damage(results)]
