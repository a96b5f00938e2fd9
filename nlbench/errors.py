"""Errors that a user can cause, and the words for them.

The command line prints the message of such an error alone, without a traceback.
"""

from __future__ import annotations

import difflib
import re
import signal
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

T = TypeVar("T")


class UserError(Exception):
    """A user can cause and mend it. The message names the file, key or argument, and the fix."""


class SuiteError(UserError):
    """A suite, a method or an option asks for something that cannot be done.

    Attributes:
        problems: what is wrong, where it is known key by key. The message then has a line for each.
    """

    def __init__(self, message: str = "", problems: Iterable[Problem] = ()):
        self.problems = tuple(problems)
        super().__init__(message or "\n".join(str(problem) for problem in self.problems))


class DataError(UserError):
    """Data is there but cannot be used.

    For example it is truncated, has another length or order, labels out of range, or an unsafe
    pickle.
    """


class DataMissing(DataError):
    """Data is not there.

    The message says where it was looked for, and which file from which page goes where.
    """


class MethodError(UserError):
    """A method is written, or does something, in a way that cannot give a true result.

    Attributes:
        what: what was found, and what is demanded.
        fix: the likely fix.
    """

    def __init__(self, what: str, fix: str):
        end = "" if what.endswith(("?", ".", "!")) else "."
        super().__init__(f"{what}{end} fix: {fix}")
        self.what, self.fix = what, fix

    def __reduce__(self) -> tuple[type[MethodError], tuple[str, str]]:
        return type(self), (self.what, self.fix)


class StoreError(UserError):
    """The record store cannot be read or written."""


class NlbenchWarning(UserWarning):
    """A warning of `nlbench.run`, `load` or `table`, which the command line prints as a line."""


class Terminated(KeyboardInterrupt):
    """A signal has asked nlbench to end, as Ctrl-C does.

    Attributes:
        signal: SIGTERM, SIGUSR1 or SIGHUP.
    """

    def __init__(self, number: signal.Signals):
        super().__init__(number.name)
        self.signal = number


class BudgetSpent(Exception):
    """The time that the user gave is over, and runs are left.

    Attributes:
        left: the number of these runs.
        was_of_use: whether any run has ended in this time or has come further, or other processes
            have held all that were left.
    """

    def __init__(self, left: int, was_of_use: bool):
        runs = "1 run is" if left == 1 else f"{left} runs are"
        super().__init__(f"the time of --budget is over and {runs} left")
        self.left, self.was_of_use = left, was_of_use


@dataclass(frozen=True)
class Problem:
    """One thing that a user has to mend.

    Attributes:
        path: keys and positions that lead to the value, from the top of what was checked.
        message: what is wrong and what is allowed, without the place.
        option: the command-line option that gave the value, for example "--set epochs". Then
            `path` is empty.
    """

    path: tuple[str | int, ...]
    message: str
    option: str = ""

    def under(self, *prefix: str | int) -> Problem:
        """Return the same problem, seen from further up."""
        return replace(self, path=(*prefix, *self.path))

    @property
    def place(self) -> str:
        """The path in words, for example "datasets.0.noise.rate", or the option."""
        return self.option or ".".join(str(part) for part in self.path)

    def __str__(self) -> str:
        return f"{self.place}: {self.message}" if self.place else self.message


# Characters that steer a terminal or reorder the text around them: the control characters but for
# the tab and the end of a line, other ends of lines, directions of writing, tags that nothing
# shows, and halves of characters. Joiners stay, because names in Persian and Hindi need them.
_UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069"
    "\ud800-\udfff\ufff9-\ufffb\U000e0000-\U000e007f]"
)


def printable(text: str) -> str:
    """Return a text as it may be printed, with escapes such as \\x1b for what steers a terminal.

    Names of files, classes and rows, and messages of methods, come from other people. Whatever the
    command line prints goes through this function.
    """
    return _UNPRINTABLE.sub(_escaped, text.replace("\r\n", "\n"))


def on_one_line(text: str) -> str:
    """Return a text with a space for ends of lines and for what `printable` escapes."""
    return re.sub(rf"(?:[\t\n]|{_UNPRINTABLE.pattern})+", " ", text)


def _escaped(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape", "backslashreplace").decode("ascii")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return " Did you mean 'elr'?" for a near miss, to append to a message, else ""."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean {near[0]!r}?" if near else ""


def look_up(kind: str, name: str, known: Mapping[str, T]) -> T:
    """Return known[name].

    Raises: SuiteError, which lists the known names and suggests the nearest one.
    """
    if name not in known:
        raise SuiteError(unknown_name(kind, name, known))
    return known[name]


def unknown_name(kind: str, name: object, known: Iterable[str]) -> str:
    """Return "unknown KIND NAME. There are: ...", with a guess at what was meant."""
    names = list(known)
    hint = did_you_mean(str(name), names)
    return f"unknown {kind} {name!r}. There are: {', '.join(names)}.{hint}"


def place_of_condition(name: str, titles: Sequence[str], suite: str) -> int:
    """Return the place of a condition in a suite's `titles`, given by its title or a part of it.

    Raises: SuiteError for a name that fits none or several.
    """
    if name in titles:
        return titles.index(name)
    found = [place for place, title in enumerate(titles) if name.lower() in title.lower()]
    if len(found) == 1:
        return found[0]
    if found:
        several = ", ".join(repr(titles[place]) for place in found)
        raise SuiteError(
            f"--condition {name!r} fits several of {suite}: {several}. Give the whole name"
        )
    raise SuiteError(
        f"--condition {name!r}: no such condition in {suite}. There are: {'; '.join(titles)}."
        f"{did_you_mean(name, titles)}"
    )


def unknown_key(key: object, takes: Mapping[str, str] | Iterable[str]) -> str:
    """Return "unknown key. It takes: ...", with a guess at what was meant.

    Args:
        takes: the known keys; of a mapping the values are shown, for example "lam (3.0)".
    """
    texts = takes.values() if isinstance(takes, Mapping) else takes
    known = ", ".join(texts) or "nothing"
    return f"unknown key. It takes: {known}.{did_you_mean(str(key), takes)}"


# pydantic's name of an error -> our words, which may name the limits of the field.
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


def in_words(detail: ErrorDetails) -> str:
    """Return one of the `errors()` of a ValidationError as a sentence, without its place."""
    kind, given = detail["type"], detail["input"]
    context: dict[str, Any] = detail.get("ctx", {})

    # pydantic marks a wrong key of a mapping, as opposed to its value, in this way.
    if detail["loc"] and detail["loc"][-1] == "[key]":
        return f"the key {given!r} must be text; put it in quotes"

    if kind == "union_tag_invalid":
        tags = [name.strip("'") for name in context["expected_tags"].split(", ")]
        return unknown_name("kind", context["tag"], tags)

    if kind == "literal_error":
        known = re.findall(r"'([^']*)'", context["expected"])
        words = f"must be {context['expected']}, got {shown(given)}"
        hint = did_you_mean(given, known) if isinstance(given, str) else ""
        if hint:
            words += f".{hint}"
        return words

    if kind in _WORDS:
        words = _WORDS[kind].format(**context)
    else:
        words = detail["msg"].replace("Input should be", "must be").removeprefix("Value error, ")

    # The given value would not help here: it is the mapping around the key, or an empty list.
    if kind in ("missing", "too_short"):
        return words
    return f"{words}, got {shown(given)}"


def shown(value: object) -> str:
    """Return a value as a message quotes it: its repr, shortened to 80 characters."""
    # Python refuses to write out integers of thousands of digits.
    try:
        # A reader of YAML knows an empty value as nothing, and not as None.
        text = "nothing" if value is None else repr(value)
    except ValueError:
        text = "a number of thousands of digits"
    return text if len(text) <= 80 else f"{text[:77]}..."
