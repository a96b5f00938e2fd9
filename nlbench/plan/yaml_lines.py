"""YAML 1.2 that keeps its line numbers, and errors that name line and column."""

from __future__ import annotations

import re
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import CollectionEndEvent, CollectionStartEvent, Event, ScalarEvent
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError

from nlbench.errors import SuiteError, shown


class NotYaml(Exception):
    """Text that is not one YAML document.

    Attributes:
        line, column: where, from 1; 0 where unknown.
    """

    def __init__(self, message: str, line: int = 0, column: int = 0):
        super().__init__(message)
        self.line, self.column = line, column


# No suite comes near these. A short text can stand for billions of values by aliases of aliases.
_MOST_CHARACTERS = 300_000
_MOST_VALUES = 100_000
_MOST_LEVELS = 50
_MOST_MERGES = 1000


def parse_yaml(text: str) -> object:
    """Return `text` as ruamel's containers, which know their lines. Raises NotYaml."""
    if len(text) > _MOST_CHARACTERS:
        raise NotYaml(f"too long for a suite: {len(text):,} characters")
    try:
        _check_steps(text)
        _check_size(YAML(typ="rt").compose(text))
        return YAML(typ="rt").load(text)
    except NotYaml:
        raise
    except MarkedYAMLError as error:
        raise _not_yaml(error) from None
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        column = error.position - text.rfind("\n", 0, error.position)
        message = f"not valid YAML: the character {chr(error.character)!r} is not allowed"
        raise NotYaml(message, line, column) from None
    except RecursionError:
        raise NotYaml("not valid YAML: lists or mappings are nested too deeply") from None
    # For example a date such as 2020-13-45.
    except (YAMLError, ValueError) as error:
        first_line = str(error).partition("\n")[0]
        raise NotYaml(f"not valid YAML: {first_line}") from None
    # ruamel raises almost anything for a tag that does not fit its value, such as `!!int` without a
    # number.
    except Exception as error:
        tag = re.search(r"!\S*", text)
        hint = f"; the tag {tag[0]!r} may not fit its value: leave it out" if tag else ""
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise NotYaml(f"not valid YAML: {reason}{hint}") from None


def _check_steps(text: str) -> None:
    """Refuse what ruamel would take minutes for, while it is scanned. Raises NotYaml."""
    levels = merges = 0
    for event in YAML(typ="rt").parse(text):
        if isinstance(event, CollectionStartEvent) and event.flow_style:
            levels += 1
        elif isinstance(event, CollectionEndEvent):
            levels = max(0, levels - 1)
        elif isinstance(event, ScalarEvent) and event.value == "<<":
            merges += 1
        # Each word between brackets is looked at once for each level.
        if levels > _MOST_LEVELS:
            raise _at(event, f"lists or mappings are nested more than {_MOST_LEVELS} levels deep")
        if merges > _MOST_MERGES:
            raise _at(event, f"more than {_MOST_MERGES:,} merges (<<)")


def _check_size(root: Node | None) -> None:
    """Refuse what is small as text and immense as values, before values are made of it.

    Raises: NotYaml.
    """
    # The number of values that a node stands for, with its aliases followed; 0 while it is counted.
    sizes: dict[int, int] = {}

    def size(node: Node, level: int) -> int:
        if level > _MOST_LEVELS:
            raise _at(node, f"lists or mappings are nested more than {_MOST_LEVELS} levels deep")
        if id(node) in sizes:
            if not sizes[id(node)]:
                raise _at(node, "an alias (*) stands for the value that it is in")
            return sizes[id(node)]

        sizes[id(node)] = 0
        total = 1
        for child in _children(node):
            total += size(child, level + 1)
            if total > _MOST_VALUES:
                raise _at(node, f"its aliases (*) stand for more than {_MOST_VALUES:,} values")
        sizes[id(node)] = total
        return total

    if root is not None:
        size(root, 0)


def _children(node: Node) -> list[Node]:
    if isinstance(node, SequenceNode):
        return list(node.value)
    if not isinstance(node, MappingNode):
        return []

    found = []
    for key, value in node.value:
        # ruamel takes exponential time for keys in keys.
        if not isinstance(key, ScalarNode):
            raise _at(
                key,
                "a key is a list or a mapping; keys are words, such as `epochs: 2`. Is a value "
                "missing its quotes?",
            )
        found += [key, value]
    return found


def _at(node: Node | Event, message: str) -> NotYaml:
    return NotYaml(message, node.start_mark.line + 1, node.start_mark.column + 1)


def _not_yaml(error: MarkedYAMLError) -> NotYaml:
    """Return an error of ruamel that knows its place, in our words."""
    mark = error.problem_mark or error.context_mark
    if isinstance(error, DuplicateKeyError):
        key = re.search(r'duplicate key "?([^"\s]+)"?', str(error.problem))
        message = f"duplicate key {key.group(1) if key else ''!r}; keep one"
        return NotYaml(message, mark.line + 1, mark.column + 1)

    message = f"not valid YAML: {error.problem or error.context}"
    if "\\t" in message:
        message += "; indent with spaces, not with tabs"
    elif error.context_mark and error.context_mark.line != mark.line:
        message += f", in what begins in line {error.context_mark.line + 1}"
    return NotYaml(message, mark.line + 1, mark.column + 1)


def read_yaml(path: Path) -> dict[object, object]:
    """Return the mapping in a suite file. Raises SuiteError with line and column."""
    try:
        size = path.stat().st_size
        # A character takes up to four bytes.
        if size > 4 * _MOST_CHARACTERS:
            raise SuiteError(f"{path}: {size:,} bytes is too long for a suite; is it another file?")
        data = path.read_bytes()
    except OSError as error:
        raise SuiteError(f"{path}: cannot be read ({error.strerror})") from None

    try:
        # Some editors begin a file with a byte-order mark.
        tree = parse_yaml(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        what = f"not UTF-8 text (byte 0x{data[error.start]:02x}); save it as UTF-8"
        raise SuiteError(f"{path}:{line}: {what}") from None
    except NotYaml as error:
        spot = f":{error.line}:{error.column}" if error.line else ""
        raise SuiteError(f"{path}{spot}: {error}") from None

    if not isinstance(tree, dict):
        got = "the file is empty" if tree is None else f"this is {_shown(tree)}"
        needs = "a suite is a mapping with name, protocol, datasets, methods and seeds"
        raise SuiteError(f"{path}: {needs}; {got}")
    return tree


def _shown(tree: object) -> str:
    try:
        return shown(plain(tree))
    except NotYaml as error:
        return str(error)


def plain(node: object) -> Any:
    """Return ruamel's containers and scalars as Python's own.

    Raises: NotYaml for aliases that stand for too many values or for themselves, and for a key
        that is a list or a mapping.
    """
    return _Plain().of(node, 0)


class _Plain:
    """Converts values, and counts them."""

    def __init__(self) -> None:
        self._count = 0

    def of(self, node: object, level: int) -> Any:
        """Return a value that is `level` containers deep."""
        self._count += 1
        if self._count > _MOST_VALUES:
            raise NotYaml(f"its aliases (*) stand for more than {_MOST_VALUES:,} values")
        # A list that contains itself never ends.
        if level > _MOST_LEVELS:
            raise NotYaml(f"lists or mappings are nested more than {_MOST_LEVELS} levels deep")

        if isinstance(node, Mapping):
            return {self._key(k, level): self.of(v, level + 1) for k, v in node.items()}
        if isinstance(node, list | tuple):
            return [self.of(v, level + 1) for v in node]
        # First, because a bool is an int as well.
        if isinstance(node, bool) or node is None:
            return node
        # ruamel keeps the way a value was written in subclasses of these.
        for kind in (int, float, str):
            if isinstance(node, kind):
                return kind(node)
        return node

    def _key(self, key: object, level: int) -> Any:
        if isinstance(key, Mapping | list | tuple | Set):
            raise NotYaml(
                "a key is a list or a mapping; keys are words, such as `epochs: 2`. Is a value "
                "missing its quotes?"
            )
        return self.of(key, level + 1)
