"""What is wrong with a suite, in our words: YAML that keeps its lines, pydantic's findings, and a collector of both."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.reader import ReaderError

from nlbench.errors import SuiteError, did_you_mean

Where = Sequence[str | int]  # keys and positions, from the top of a suite

_WORDS = {
    "missing": "is required",
    "string_type": "must be text",
    "int_type": "must be an integer",
    "int_from_float": "must be an integer",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "finite_number": "must be finite",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "dict_type": "must be a mapping",
    "model_type": "must be a mapping",
    "model_attributes_type": "must be a mapping",
    "too_short": "must not be empty",
    "greater_than": "must be greater than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
}


def in_words(problem: Any) -> str:
    """One of the `errors()` of a pydantic ValidationError as a sentence without its place."""
    kind, context = problem["type"], problem.get("ctx", {})
    if problem["loc"] and problem["loc"][-1] == "[key]":
        return f"the key {problem['input']!r} must be text; put it in quotes"
    if kind == "union_tag_invalid":
        known = [name.strip("'") for name in context["expected_tags"].split(", ")]
        return f"unknown kind {context['tag']!r}. There are: {', '.join(known)}.{did_you_mean(context['tag'], known)}"
    if kind == "literal_error":
        known = re.findall(r"'([^']*)'", context["expected"])
        hint = did_you_mean(problem["input"], known) if isinstance(problem["input"], str) else ""
        return f"must be {context['expected']}, got {shown(problem['input'])}{hint and '.' + hint}"
    if kind in _WORDS:
        words = _WORDS[kind].format(**context)
    else:
        words = problem["msg"].replace("Input should be", "must be").removeprefix("Value error, ")
    return words if kind in ("missing", "too_short") else f"{words}, got {shown(problem['input'])}"


def shown(value: Any) -> str:
    """A value as a message quotes it."""
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


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
