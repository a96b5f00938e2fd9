"""What `nlbench verify` can find in a store."""

from __future__ import annotations

import shlex
from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from nlbench.results.plan_file import Origin


class Trouble(StrEnum):
    """The kinds of what is wrong, by name."""

    DAMAGE = "damage"
    DISAGREEMENT = "disagreement"
    LEFTOVER = "leftover"


class Remedy(StrEnum):
    """What `nlbench repair` does about it, by name."""

    # Sets the file aside.
    FILE = "file"
    # Likewise; with --again the whole run, whose record is still used.
    FILE_OR_RUN = "file, or the run with --again"
    # Sets all files of the run aside, because its record cannot be used.
    RUN = "run"
    # Does the same with --again, and nothing without, because the record is still used.
    AGAIN = "run with --again"
    REMOVE = "remove"
    # Nothing: a later version of nlbench is needed.
    UPDATE = "update nlbench"


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        key: of the run that it belongs to; empty for a plan and a helper network.
    """

    trouble: Trouble
    path: Path
    reason: str
    remedy: Remedy
    key: str = ""

    def advice(self, out: Path) -> str:
        """Return what to do about it, in the store `out`."""
        repair = f"`nlbench repair {shlex.quote(str(out))}"
        again = "the whole run aside, to be trained again"
        return {
            Remedy.FILE: f"{repair}` sets it aside",
            Remedy.FILE_OR_RUN: f"the record is still used; {repair}` sets the file aside, and "
            f"with --again {again}",
            Remedy.RUN: f"{repair}` sets {again}",
            Remedy.AGAIN: f"the record is still used; {repair} --again` sets {again}",
            Remedy.REMOVE: f"the next `nlbench run` of its suite removes it, or {repair}`",
            Remedy.UPDATE: "update nlbench",
        }[self.remedy]


class Condition(StrEnum):
    """The condition of a run, by name."""

    DONE = "done"
    DIVERGED = "diverged"
    FAILED = "failed"
    # It has a record that cannot be used.
    UNUSABLE = "unusable"
    # A process trains it now.
    RUNNING = "running"
    # It has a checkpoint, and no record yet.
    BEGUN = "begun"
    # Its folder holds neither.
    MISSING = "missing"


@dataclass
class RunReport:
    """What was found in the folder of one run.

    Attributes:
        origin: what the record says of the run's method, seed and data.
        checked: whether the record has checksums.
    """

    key: str
    condition: Condition
    origin: Origin | None = None
    checked: bool = True
    findings: list[Finding] = field(default_factory=list)
    set_aside: list[Path] = field(default_factory=list)
    unknown: list[Path] = field(default_factory=list)


@dataclass
class SuiteReport:
    """How complete a suite is.

    Attributes:
        runs: how many different runs its plan has.
        conditions: how many of them are done, and so on; the rest is missing.
        command: trains what is lacking.
    """

    name: str
    runs: int
    conditions: Counter[Condition]
    command: str

    @property
    def missing(self) -> int:
        """The number of runs that have neither a record nor a checkpoint."""
        known = self.conditions.total() - self.conditions[Condition.MISSING]
        return self.runs - known

    @property
    def lacks(self) -> int:
        """The number of runs that `command` trains."""
        kinds = (Condition.BEGUN, Condition.FAILED, Condition.UNUSABLE)
        return self.missing + sum(self.conditions[kind] for kind in kinds)


@dataclass
class Report:
    """What was found in a store.

    Attributes:
        conditions: how many runs with a folder are done, and so on.
        unchecked: runs whose records have no checksums: nlbench 0.1 wrote them.
        helpers, helpers_begun: helper networks that are trained, and those in training.
        in_no_suite: runs with a record that no plan names.
        set_aside: files that were set aside earlier, of which nothing is read.
        unknown: files that are not nlbench's.
    """

    root: Path
    conditions: Counter[Condition] = field(default_factory=Counter)
    unchecked: int = 0
    helpers: int = 0
    helpers_begun: int = 0
    in_no_suite: int = 0
    suites: list[SuiteReport] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    set_aside: list[Path] = field(default_factory=list)
    unknown: list[Path] = field(default_factory=list)

    def of(self, trouble: Trouble) -> list[Finding]:
        """Return the findings of one kind."""
        return [finding for finding in self.findings if finding.trouble is trouble]
