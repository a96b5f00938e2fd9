"""What is wrong with a suite, in our words: YAML that keeps its lines, pydantic's findings, and a collector of both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nlbench.errors import SuiteError

Where = Sequence[str | int]  # keys and positions, from the top of a suite


class Problems:
    """Collects every problem of a suite, each with file, line and key."""

    def __init__(self, source: str, tree: Any = None):
        self.source, self._tree, self.lines = source, tree, list[str]()

    def add(self, path: Where, message: str) -> None:
        """`message` may have several lines: those after the first belong to it and are indented."""
        place = ".".join(str(part) for part in path)
        line = self._line(path)
        head = f"{self.source}:{line}: " if line else f"{self.source}: "
        self.lines.append(f"{head}{place}: {_indented(message)}" if place else head + _indented(message))

    def add_option(self, option: str, message: str) -> None:
        """A problem of the command line, for example of "--set epochs"."""
        self.lines.append(f"{option}: {_indented(message)}")

    def _line(self, path: Where) -> int:
        node, line = self._tree, 0
        for part in path:
            try:
                line = node.lc.data[part][0] + 1
                node = node[part]
            except (AttributeError, KeyError, IndexError, TypeError):
                break
        return line

    def raise_if_any(self) -> None:
        if self.lines:
            raise SuiteError("\n".join(dict.fromkeys(self.lines)))


def _indented(message: str) -> str:
    return message.replace("\n", "\n    ")
