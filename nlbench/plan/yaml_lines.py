"""YAML 1.2 that keeps its line numbers, and errors that name line and column."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError, YAMLError
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


def parse_yaml(text: str) -> object:
    """Return `text` as ruamel's containers, which know their lines. Raises NotYaml."""
    try:
        return YAML(typ="rt").load(text)
    except MarkedYAMLError as error:
        raise _not_yaml(error) from None
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        column = error.position - text.rfind("\n", 0, error.position)
        message = f"not valid YAML: the character {chr(error.character)!r} is not allowed"
        raise NotYaml(message, line, column) from None
    # For example a date such as 2020-13-45, or lists nested without end.
    except (YAMLError, ValueError, RecursionError) as error:
        first_line = str(error).partition("\n")[0]
        raise NotYaml(f"not valid YAML: {first_line}") from None


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
        got = "the file is empty" if tree is None else f"this is {shown(plain(tree))}"
        needs = "a suite is a mapping with name, protocol, datasets, methods and seeds"
        raise SuiteError(f"{path}: {needs}; {got}")
    return tree


def plain(node: object) -> Any:
    """Return ruamel's containers and scalars as Python's own."""
    if isinstance(node, Mapping):
        return {plain(k): plain(v) for k, v in node.items()}
    if isinstance(node, list | tuple):
        return [plain(v) for v in node]
    # First, because a bool is an int as well.
    if isinstance(node, bool) or node is None:
        return node
    # ruamel keeps the way a value was written in subclasses of these.
    for kind in (int, float, str):
        if isinstance(node, kind):
            return kind(node)
    return node
