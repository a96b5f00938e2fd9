"""Yaml lines."""

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
    """Text that is not one YAML document: `str()` says why, line and column (from 1, or 0) say where."""

    def __init__(self, message: str, line: int = 0, column: int = 0):
        super().__init__(message)
        self.line, self.column = line, column


def parse_yaml(text: str) -> Any:
    """YAML 1.2 as ruamel's containers, which know their lines. Raises NotYaml."""
    try:
        return YAML(typ="rt").load(text)
    except DuplicateKeyError as error:
        mark = error.problem_mark
        key = re.search(r'duplicate key "?([^"\s]+)"?', str(error.problem))
        raise NotYaml(
            f"duplicate key {key.group(1) if key else ''!r}; keep one", mark.line + 1, mark.column + 1
        ) from None
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        words = f"not valid YAML: {error.problem or error.context}"
        if "\\t" in words:
            words += "; indent with spaces, not with tabs"
        elif error.context_mark and error.context_mark.line != mark.line:
            words += f", in what begins in line {error.context_mark.line + 1}"
        raise NotYaml(words, mark.line + 1, mark.column + 1) from None
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        column = error.position - text.rfind("\n", 0, error.position)
        raise NotYaml(f"not valid YAML: the character {chr(error.character)!r} is not allowed", line, column) from None
    except (YAMLError, ValueError, RecursionError) as error:  # a date such as 2020-13-45, or lists in lists without end
        raise NotYaml(f"not valid YAML: {str(error).partition(chr(10))[0]}") from None


def read_yaml(path: Path) -> Any:
    """A suite file's mapping. Raises SuiteError with line and column."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SuiteError(f"{path}: cannot be read ({error.strerror})") from None
    try:
        tree = parse_yaml(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise SuiteError(f"{path}:{line}: not UTF-8 text (byte 0x{data[error.start]:02x}); save it as UTF-8") from None
    except NotYaml as error:
        spot = f":{error.line}:{error.column}" if error.line else ""
        raise SuiteError(f"{path}{spot}: {error}") from None
    if not isinstance(tree, dict):
        got = "the file is empty" if tree is None else f"this is {shown(plain(tree))}"
        raise SuiteError(f"{path}: a suite is a mapping with name, protocol, datasets, methods and seeds; {got}")
    return tree


def plain(node: Any) -> Any:
    """ruamel's containers and scalars as Python's own."""
    if isinstance(node, Mapping):
        return {plain(k): plain(v) for k, v in node.items()}
    if isinstance(node, list | tuple):
        return [plain(v) for v in node]
    if isinstance(node, bool) or node is None:
        return node
    for kind in (int, float, str):
        if isinstance(node, kind):
            return kind(node)
    return node
