"""Check the plans of a store, OUT/suites/NAME.json: which record belongs to which cell."""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from nlbench.errors import shown
from nlbench.plan.spec import SCHEMA as KEY_SCHEMA
from nlbench.results.integrity import checksum_of
from nlbench.results.record import RunRecord
from nlbench.results.schema import Migrations, brought_up

CHECKSUM = "checksum"

# The version of a plan's form. Plans of version 1 do not state it. Their `schema` is the version of
# what the keys of runs are hashes of.
VERSION = 1
MIGRATIONS: Migrations = {}


class _Part(BaseModel):
    # A plan of a later version may have more keys.
    model_config = ConfigDict(extra="ignore", strict=True)


class _Row(_Part):
    row: str
    method: str
    told: list[str]
    networks: Annotated[int, Field(ge=1)]


class _Cell(_Part):
    row: str
    condition: Annotated[int, Field(ge=0)]
    seed: int
    key: Annotated[str, Field(pattern="^[0-9a-f]{16}$")]


class _Plan(_Part):
    """What tables and other commands read of a plan; see `Plan.as_json`."""

    suite: str
    track: str
    protocol: str
    notes: list[str]
    tries: bool
    rows: list[_Row]
    conditions: list[str]
    seeds: list[int]
    cells: list[_Cell]
    # Plans of nlbench 0.1 have none of these.
    method_files: dict[str, str] = {}
    command: str = ""
    checksum: str = ""


def stated(plan: Mapping[str, Any]) -> dict[str, Any]:
    """Return a plan that states the version of its form, except version 1."""
    return {**plan, "version": VERSION} if VERSION > 1 else dict(plan)


def with_checksum(plan: Mapping[str, Any]) -> dict[str, Any]:
    """Return a plan with its checksum."""
    values = {key: value for key, value in plan.items() if key != CHECKSUM}
    return {**values, CHECKSUM: checksum_of(values)}


def check_plan(values: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the plan `name` as the present version has it; `values` may be changed.

    Raises: LaterVersion; ValueError with the reason where these are not the values of that plan.
    """
    if CHECKSUM in values and values != with_checksum(values):
        raise ValueError("it was changed after it was written (its checksum does not fit)")
    what = f"the plan of the suite {name!r}"
    # A plan of other keys has another form as well.
    brought_up(values, what, KEY_SCHEMA, {})
    values = brought_up(values, what, VERSION, MIGRATIONS, "version")
    try:
        plan = _Plan.model_validate(values)
    except ValidationError as error:
        detail = error.errors()[0]
        place = ".".join(map(str, detail["loc"]))
        if detail["type"] == "missing":
            raise ValueError(f"it has no {place}, so another version may have written it") from None
        raise ValueError(f"{place} cannot be {shown(detail['input'])}") from None

    if plan.suite != name:
        raise ValueError(f"it is the plan of the suite {plan.suite!r}")
    reason = next(_disagreements(plan), "")
    if reason:
        raise ValueError(reason)
    return values


def command_of(plan: Mapping[str, Any], out: Path) -> str:
    """Return the command that trains the runs which a plan still lacks in the store `out`."""
    # Plans of earlier versions do not say it. Their names begin with that of the suite.
    suite = plan["suite"].partition("+")[0].removesuffix("#tries")
    command = plan.get("command") or f"nlbench run {shlex.quote(suite)}"
    return f"{command} --out {shlex.quote(str(out))}"


class Origin(NamedTuple):
    """What the record of a run says of its method, its seed and its data."""

    method: str
    seed: object
    data: list[object]


def origin_of(record: RunRecord) -> Origin:
    """Return what a record says of its run's method, seed and data."""
    spec = record.spec
    data = [spec.get(name) for name in ("dataset", "labels", "noise")]
    return Origin(str(spec.get("method")), spec.get("seed"), data)


def wrong_cell(plan: Mapping[str, Any], origin_of: Callable[[str], Origin | None]) -> str:
    """Return which cell names a run of another row, seed or condition; else an empty string.

    Args:
        origin_of: returns the origin of the run with a key; None for one without a record.
    """
    methods = {row["row"]: row["method"] for row in plan["rows"]}
    data: dict[int, list[object]] = {}
    for cell in plan["cells"]:
        origin = origin_of(cell["key"])
        if origin is None:
            continue
        # All runs under one condition have the same data and labels.
        common = data.setdefault(cell["condition"], origin.data)
        own = origin.method, origin.seed, origin.data
        if own == (methods[cell["row"]], cell["seed"], common):
            continue
        return (
            f"its cell of row {cell['row']!r}, {plan['conditions'][cell['condition']]!r}, seed "
            f"{cell['seed']} names the run {cell['key']}, which is of method {origin.method}, "
            f"{origin.data[0]}, seed {origin.seed}"
        )
    return ""


def _disagreements(plan: _Plan) -> Iterator[str]:
    """Yield where the cells are not one for each row, condition and seed."""
    rows = [row.row for row in plan.rows]
    for what, values in (("rows", rows), ("seeds", plan.seeds)):
        if len(set(values)) < len(values):
            yield f"{what} has an entry twice"

    known, seeds, found = set(rows), set(plan.seeds), set()
    for number, cell in enumerate(plan.cells):
        place = cell.row, cell.condition, cell.seed
        if cell.row not in known:
            yield f"cells.{number} names the row {cell.row!r}, which the plan does not have"
        if cell.condition >= len(plan.conditions):
            yield f"cells.{number} names condition {cell.condition}, which the plan does not have"
        if cell.seed not in seeds:
            yield f"cells.{number} names seed {cell.seed}, which the plan does not have"
        if place in found:
            yield f"cells.{number} is the second one of row {cell.row!r} and seed {cell.seed}"
        found.add(place)

    wanted = itertools.product(rows, range(len(plan.conditions)), plan.seeds)
    for row, condition, seed in wanted:
        if (row, condition, seed) not in found:
            title = plan.conditions[condition]
            yield f"it has no cell of row {row!r}, {title!r}, seed {seed}"
