"""Versions of what lies in a store, and the way from an earlier version to the present one.

A file states its version as a number. Version 1 is that of the files that state none. Whoever
changes the form of a file raises its number and adds a migration, so that stores are read on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from nlbench.errors import StoreError

# From a version to the function that brings the values of it to the next version.
Migrations = Mapping[int, Callable[[dict[str, Any]], dict[str, Any]]]


class LaterVersion(StoreError):
    """A later version of nlbench wrote a file. The file is whole, and stays as it is."""


def brought_up(
    values: dict[str, Any], what: str, version: int, migrations: Migrations, name: str = "schema"
) -> dict[str, Any]:
    """Return the values of a file as the present version has them; `values` may be changed.

    Args:
        what: the file in words, for example "the record 1f3a".
        version: the present one.
        name: the key that states the version of `values`.
    Raises: LaterVersion; ValueError for a version that is none.
    """
    found = values.get(name, 1)
    if not isinstance(found, int) or isinstance(found, bool) or found < 1:
        raise ValueError(f"{name} must be a number from 1 on, got {found!r}")
    if found > version:
        raise LaterVersion(
            f"{what} was written by a later version of nlbench ({name} {found}, this version reads "
            f"up to {version}); update nlbench"
        )

    while found < version:
        values = migrations[found](values)
        found += 1
    return values
