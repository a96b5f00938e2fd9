"""Errors a user can cause. The command line prints their message alone, without a traceback."""

import difflib
from collections.abc import Iterable


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
