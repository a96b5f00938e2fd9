"""The protocol of a row on a dataset, with every problem reported at the key that caused it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nlbench.data.base import Info
from nlbench.errors import Problem, SuiteError
from nlbench.plan.fit import misfits, read_weights
from nlbench.plan.presets import PRESETS
from nlbench.plan.problems import Problems
from nlbench.plan.protocol import Protocol, merge_values, resolve
from nlbench.plan.spec import STAND_IN
from nlbench.plan.suite_file import MethodEntry, Suite


@dataclass(frozen=True)
class RowProtocols:
    """Resolves the protocols of a suite's rows.

    Attributes:
        base: the folder of the suite's file.
        settings: protocol values from the command line, over the suite's own.
        problems: collects what is wrong.
    """

    suite: Suite
    base: Path
    settings: Mapping[str, Any]
    problems: Problems

    def of(
        self, row: str, entry: MethodEntry, dataset: str, info: Info
    ) -> tuple[Protocol, str] | None:
        """Resolve the row's protocol on a dataset.

        Returns: the protocol, with its weights named by their digest, and the path of the weights'
            file, if there is one; or None after a problem.
        """
        own = merge_values(self.suite.overrides, entry.own_protocol(dataset))

        # Check the suite's own values first, so that an error in the file is not blamed on --set.
        protocol = self._resolve(own, {}, row, entry, dataset, info)
        if protocol is not None and self.settings:
            protocol = self._resolve(own, self.settings, row, entry, dataset, info)

        # With a stand-in nothing that depends on the dataset can be checked.
        if protocol is None or info.name == STAND_IN:
            return None

        # Paths on the command line count from the working directory.
        base = Path() if "weights" in self.settings else self.base
        found = misfits(protocol, info, base)
        for problem in found:
            self._report(problem, self.settings, row, entry, dataset)
        if found:
            return None

        weights = read_weights(protocol, base)
        return protocol.model_copy(update={"weights": weights.identity}), weights.path

    def _resolve(
        self,
        own: Mapping[str, Any],
        settings: Mapping[str, Any],
        row: str,
        entry: MethodEntry,
        dataset: str,
        info: Info,
    ) -> Protocol | None:
        # An unknown protocol has been reported already. Values are checked on another one.
        name = self.suite.protocol if self.suite.protocol in PRESETS else "digits"
        try:
            return resolve(name, info.name, merge_values(own, settings))
        except SuiteError as error:
            for problem in error.problems:
                self._report(problem, settings, row, entry, dataset)
            return None

    def _report(
        self,
        problem: Problem,
        settings: Mapping[str, Any],
        row: str,
        entry: MethodEntry,
        dataset: str,
    ) -> None:
        """Report the problem of a protocol's key where its value was given."""
        key = problem.path[0]
        if key in settings:
            self.problems.add_option(f"--set {problem.place}", problem.message)
            return

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
