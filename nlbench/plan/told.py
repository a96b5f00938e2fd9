"""Privileged information that a suite gives itself: a noise rate, and a transition matrix T.

A dataset's entry gives it to all methods that declare it. A row may give another value, to itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from nlbench.data.base import Info
from nlbench.errors import DataError, shown
from nlbench.files import digest, user_path
from nlbench.plan.problems import Problems
from nlbench.plan.spec import ESTIMATE, REFUSED, Condition, Told
from nlbench.plan.suite_file import DatasetEntry

# The names of privileged information, and the key that gives it in a dataset's entry.
KEYS = {"noise_rate": "noise_rate", "T": "transition"}


def told_value(name: str, value: object, info: Info, base: Path) -> Told:
    """Check a value of the suite for the privileged information `name`.

    Args:
        base: the folder that the path of a matrix counts from.
    Raises: ValueError, saying what the value must be.
    """
    if name == "noise_rate":
        return Told(_noise_rate(value))

    if not isinstance(value, str) or not value:
        raise ValueError(f"must be the file of a transition matrix, got {shown(value)}")
    from nlbench.data.noise.matrix_files import read_matrix

    path = user_path(base.absolute(), value)
    try:
        if not path.is_file():
            raise ValueError(f"there is no file {path}")
        read_matrix(path, info.num_classes)
        return Told(f"sha256:{digest(path, 'sha256')}", str(path))
    except DataError as error:
        raise ValueError(str(error)) from None
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from None


def _noise_rate(value: object) -> float | str:
    if value == ESTIMATE:
        return ESTIMATE

    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    # Written as a chain, because NaN is in no interval.
    if is_number and 0 <= value < 1:  # type: ignore[operator]
        return float(value)  # type: ignore[arg-type]
    raise ValueError(
        f"must be your estimate of the share of wrong labels, a number from 0 to below 1 (25% is "
        f"written as 0.25), or {ESTIMATE}; got {shown(value)}"
    )


def told_by_entry(
    entry: DatasetEntry, info: Info, where: tuple[str | int, ...], base: Path, problems: Problems
) -> dict[str, Told]:
    """Return what a dataset's entry gives, by the name of the information."""
    told = {}
    for name, key in KEYS.items():
        value = getattr(entry, key)
        if key not in entry.model_fields_set:
            continue
        try:
            told[name] = told_value(name, value, info, base)
        except ValueError as error:
            problems.add([*where, key], str(error))
            told[name] = REFUSED
    return told


def told_to(
    row: str,
    declared: Mapping[str, tuple[str, ...]],
    own: Mapping[str, Mapping[str, Told]],
    condition: Condition,
    info: Info,
    problems: Problems,
) -> dict[str, Told]:
    """Return what the suite tells a row under a condition.

    Reports information that the row's method declares, and that is neither given nor measured.

    Args:
        declared: what the method declares, by dataset.
        own: what the row itself gives, by dataset. It counts before that of the dataset's entry.
    """
    given = {**condition.told, **own.get(condition.dataset, {})}
    told = {}
    for name in declared.get(condition.dataset, ()):
        if name in given:
            told[name] = given[name]
        elif not _is_measured(name, info):
            problems.add(["methods", row], _unknown(name, info))
    return told


def _is_measured(name: str, info: Info) -> bool:
    """Return whether nlbench can measure the information, or has a published estimate of it."""
    if "clean" in info.label_sets or info.partly_clean:
        return True
    return name == "noise_rate" and bool(info.estimated_noise_rate)


def _unknown(name: str, info: Info) -> str:
    why = f"needs to be told {name}, which is unknown: {info.title} has no true training labels"
    if name == "noise_rate":
        return (
            f"{why}. Give your estimate in the dataset's entry, for example `noise_rate: 0.2`, or "
            f"let it be estimated from the labels: `noise_rate: {ESTIMATE}`"
        )
    return (
        f"{why}. Give a matrix of your own in the dataset's entry, for example `transition: T.csv`,"
        " or take a method that estimates T"
    )
