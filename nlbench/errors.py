"""Errors a user can cause. The command line prints their message alone, without a traceback."""

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

T = TypeVar("T")


class UserError(Exception):
    """What a user can cause and mend. The message names the file, key or argument, and the fix."""


class SuiteError(UserError):
    """A suite, a method or an option asks for something that cannot be. Holds every problem found, one a line."""


class DataError(UserError):
    """Data is there but cannot be used: truncated, wrong length or order, labels out of range, unsafe pickle."""


class DataMissing(DataError):
    """Data is not there. The message says where it was looked for and which file from which page goes where."""


class StoreError(UserError):
    """The record store cannot be read or written."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A sentence such as " Did you mean 'elr'?" for a near miss, else an empty string; appended to a message."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean {near[0]!r}?" if near else ""


def look_up(kind: str, name: str, known: Mapping[str, T]) -> T:
    """Return known[name]. Raises SuiteError that lists the known names and suggests the nearest one."""
    if name not in known:
        raise SuiteError(f"unknown {kind} {name!r}. There are: {', '.join(known)}.{did_you_mean(name, known)}")
    return known[name]


pass

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
