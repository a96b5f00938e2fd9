"""The collector of a suite's problems. It alone turns a problem into text, with file and line."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from nlbench.errors import Problem, SuiteError


class Problems:
    """Collects every problem of a suite, so that all are reported at once.

    Args:
        source: the suite's file, or "suite" for a mapping.
        tree: the suite as ruamel read it, whose nodes know their lines. A plain mapping has none.
    """

    def __init__(self, source: str, tree: Any = None):
        self.source, self._tree = source, tree
        self.found: list[Problem] = []
        self._hints: list[str] = []

    def add(self, path: Sequence[str | int], message: str) -> None:
        """Add a problem of the value at `path`, from the top of the suite.

        Lines of `message` after the first are indented when they are printed.
        """
        self.found.append(Problem(tuple(path), message))

    def add_option(self, option: str, message: str) -> None:
        """Add a problem of the command line, for example of "--set epochs"."""
        self.found.append(Problem((), message, option))

    def add_hint(self, hint: str) -> None:
        """Add a line for the end of the message, for what helps with several problems."""
        if hint not in self._hints:
            self._hints.append(hint)

    def extend(self, found: Iterable[Problem]) -> None:
        """Add problems whose paths count from the top of the suite."""
        self.found += found

    def raise_if_any(self) -> None:
        """Raise SuiteError with a line for each problem that was added."""
        if self.found:
            raise self.error(self.found)

    def error(self, found: Sequence[Problem]) -> SuiteError:
        """Return the error that reports `found`, each problem once."""
        # Rows share the suite's protocol, so a wrong value in it is found once for each row.
        lines = [self._line(problem) for problem in found]
        return SuiteError("\n".join([*dict.fromkeys(lines), *self._hints]), found)

    def _line(self, problem: Problem) -> str:
        # Indented, the lines of a traceback cannot be mistaken for further problems.
        text = str(problem).replace("\n", "\n    ")
        if problem.option:
            return text

        number = self._line_number(problem.path)
        return f"{self.source}:{number}: {text}" if number else f"{self.source}: {text}"

    def _line_number(self, path: Sequence[str | int]) -> int:
        """Return the line, from 1, of the deepest part of `path` that the file has, else 0."""
        node, number = self._tree, 0
        for part in path:
            # A key that is missing in the file has no line, so its parent's is the best there is.
            try:
                number = node.lc.data[part][0] + 1
                node = node[part]
            except (AttributeError, KeyError, IndexError, TypeError):
                break
        return number
