"""The protocols of a suite's rows, with every problem reported at the key that caused it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from nlbench.data.base import Info
from nlbench.errors import Problem, SuiteError
from nlbench.plan.fit import misfits, read_weights
from nlbench.plan.presets import PRESETS
from nlbench.plan.problems import Problems
from nlbench.plan.protocol import Protocol, merge_values, resolve
from nlbench.plan.references import followed
from nlbench.plan.spec import STAND_IN
from nlbench.plan.suite_file import Suite


class RowProtocol(NamedTuple):
    """The protocol of a row on a dataset.

    Attributes:
        protocol: fully resolved. Its weights are named by their digest.
        weights_path: the file of those weights, else "".
        weights_name: where that file comes from, if it is from the hub.
    """

    protocol: Protocol
    weights_path: str
    weights_name: str


@dataclass(frozen=True)
class RowProtocols:
    """Resolves the protocols of a suite's rows.

    Attributes:
        base: the folder of the suite's file.
        settings: protocol values from the command line, over the suite's own.
        auto_precision: returns the precision of "auto" on the device of the runs.
        problems: collects what is wrong.
    """

    suite: Suite
    base: Path
    settings: Mapping[str, object]
    auto_precision: Callable[[], str]
    problems: Problems

    def on(self, infos: Mapping[str, Info]) -> dict[tuple[str, str], RowProtocol]:
        """Return (row, dataset) -> protocol, for every row on each dataset in `infos`.

        Where something is wrong, the entry is missing and the problem reported.
        """
        found = {}
        for row in self.suite.methods:
            for dataset, info in infos.items():
                resolved = self._of(row, dataset, info)
                if resolved is not None:
                    found[row, dataset] = resolved
        return found

    def epochs(self, row: str, infos: Mapping[str, Info]) -> dict[str, int]:
        """Return the epochs of a row's trainings by dataset, and report nothing.

        Where a protocol has a problem, the entry is missing.
        """
        silent = replace(self, problems=Problems(self.problems.source))
        found = {}
        for dataset, info in infos.items():
            protocol = silent._resolve(self.settings, row, dataset, info)
            if protocol is not None:
                found[dataset] = protocol.epochs
        return found

    def report(self, problem: Problem, row: str, dataset: str) -> None:
        """Report a problem of a key of a row's protocol, where its value was given."""
        self._report(problem, self.settings, row, dataset)

    def _of(self, row: str, dataset: str, info: Info) -> RowProtocol | None:
        # Check the suite's own values first, so that an error in the file is not blamed on --set.
        protocol = self._resolve({}, row, dataset, info)
        if protocol is not None and self.settings:
            protocol = self._resolve(self.settings, row, dataset, info)

        # With a stand-in nothing that depends on the dataset can be checked.
        if protocol is None or info.name == STAND_IN:
            return None

        # Paths on the command line count from the working directory.
        base = Path() if "model" in self.settings else self.base
        try:
            protocol, weights_name = followed(protocol, info, base)
        except SuiteError as error:
            for problem in error.problems:
                self._report(problem, self.settings, row, dataset)
            return None

        base = Path() if "weights" in self.settings else self.base
        found = misfits(protocol, info, base)
        for problem in found:
            self._report(problem, self.settings, row, dataset)
        if found:
            return None

        weights = read_weights(protocol, base)
        changes = {"weights": weights.identity}
        if protocol.precision == "auto":
            changes["precision"] = self.auto_precision()
        return RowProtocol(protocol.model_copy(update=changes), weights.path, weights_name)

    def _resolve(
        self, settings: Mapping[str, object], row: str, dataset: str, info: Info
    ) -> Protocol | None:
        """Resolve the suite's own values with `settings` on top."""
        entry = self.suite.methods[row]
        own = merge_values(self.suite.overrides, entry.own_protocol(dataset))
        # An unknown protocol has been reported already. Values are checked on another one.
        name = self.suite.protocol if self.suite.protocol in PRESETS else "digits"
        try:
            return resolve(name, info.name, merge_values(own, settings))
        except SuiteError as error:
            for problem in error.problems:
                self._report(problem, settings, row, dataset)
            return None

    def _report(
        self, problem: Problem, settings: Mapping[str, object], row: str, dataset: str
    ) -> None:
        """Report the problem of a protocol's key where its value was given."""
        key = problem.path[0]
        if key in settings:
            self.problems.add_option(f"--set {problem.place}", problem.message)
            return

        entry = self.suite.methods[row]
        if key in entry.per_dataset.get(dataset, {}).get("protocol", {}):
            problem = problem.under("methods", row, "per_dataset", dataset, "protocol")
        elif key in entry.protocol:
            problem = problem.under("methods", row, "protocol")
        elif key in self.suite.overrides:
            problem = problem.under("overrides")
        else:
            # The preset's own value does not fit this dataset.
            problem = Problem(("protocol",), str(problem))
        self.problems.extend([problem])
