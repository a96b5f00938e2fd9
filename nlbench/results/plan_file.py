"""Check the plans of a store, OUT/suites/NAME.json: which record belongs to which cell."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from nlbench.errors import shown
from nlbench.plan.spec import SCHEMA
from nlbench.results.integrity import checksum_of

CHECKSUM = "checksum"


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
    # Plans of nlbench 0.1 have neither.
    method_files: dict[str, str] = {}
    checksum: str = ""


def with_checksum(plan: Mapping[str, Any]) -> dict[str, Any]:
    """Return a plan with its checksum."""
    values = {key: value for key, value in plan.items() if key != CHECKSUM}
    return {**values, CHECKSUM: checksum_of(values)}


def check_plan(values: Mapping[str, Any], name: str) -> None:
    """Raise ValueError with the reason where these are not the values of the plan `name`."""
    schema = values.get("schema", 1)
    if isinstance(schema, int) and schema > SCHEMA:
        raise ValueError(f"a later version of nlbench wrote it (schema {schema}); update nlbench")
    if CHECKSUM in values and values != with_checksum(values):
        raise ValueError("it was changed after it was written (its checksum does not fit)")
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


def _disagreements(plan: _Plan) -> Iterator[str]:
    """Yield where the cells are not one for each row, condition and seed."""
    rows = [row.row for row in plan.rows]
    for what, values in (("rows", rows), ("seeds", plan.seeds)):
        if len(set(values)) < len(values):
            yield f"{what} has an entry twice"

    found = set()
    for number, cell in enumerate(plan.cells):
        place = cell.row, cell.condition, cell.seed
        if cell.row not in rows:
            yield f"cells.{number} names the row {cell.row!r}, which the plan does not have"
        if cell.condition >= len(plan.conditions):
            yield f"cells.{number} names condition {cell.condition}, which the plan does not have"
        if cell.seed not in plan.seeds:
            yield f"cells.{number} names seed {cell.seed}, which the plan does not have"
        if place in found:
            yield f"cells.{number} is the second one of row {cell.row!r} and seed {cell.seed}"
        found.add(place)

    wanted = itertools.product(rows, range(len(plan.conditions)), plan.seeds)
    for row, condition, seed in wanted:
        if (row, condition, seed) not in found:
            title = plan.conditions[condition]
            yield f"it has no cell of row {row!r}, {title!r}, seed {seed}"
