"""Records and epoch metrics as tables with one type for each column."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from nlbench.files import read_regular
from nlbench.results import frame
from nlbench.results.integrity import HISTORY, located

if TYPE_CHECKING:
    import pandas as pd

    from nlbench.results.store import Store


def records(
    store: Store, plans: Mapping[str, Mapping[str, Any]], *, everything: bool
) -> frame.Records:
    """Return a line for each record, with the suites, rows and conditions that it belongs to.

    Args:
        everything: takes records of no plan, too.
    """
    import pandas as pd

    places = _places(plans)
    lines = []
    for key in store.run_keys():
        record = store.read(key) if everything or key in places else None
        if record is not None:
            place = places.get(key, {"suite": [], "row": [record.spec["method"]], "condition": []})
            texts = {name: ", ".join(values) for name, values in place.items()}
            lines.append({**texts, **_plain(record.columns())})
    found = frame.of_records(lines).reset_index()
    for name in found.columns:
        # A column without any value would have no type.
        if found[name].isna().all():
            found[name] = pd.to_numeric(found[name]).astype("float64")
    return found


def _plain(line: Mapping[str, Any]) -> dict[str, Any]:
    """Return a line with lists as text. An empty list in each line would have no type."""
    found = {}
    for name, value in line.items():
        found[name] = ", ".join(map(str, value)) if isinstance(value, list) else value
    return found


def _places(plans: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, list[str]]]:
    """Return the names of suites, rows and conditions of each run, by key."""
    places: dict[str, dict[str, list[str]]] = {}
    for suite, plan in plans.items():
        for cell in plan["cells"]:
            place = places.setdefault(cell["key"], {"suite": [], "row": [], "condition": []})
            condition = plan["conditions"][cell["condition"]]
            for name, text in (("suite", suite), ("row", cell["row"]), ("condition", condition)):
                if text not in place[name]:
                    place[name].append(text)
    return places


def epochs(store: Store, keys: Iterable[str]) -> pd.DataFrame:
    """Return a line for each epoch of these runs, with the columns of history.csv.

    A history that cannot be read is left out.
    """
    import pandas as pd

    lines: list[dict[str, Any]] = []
    for key in keys:
        try:
            text = read_regular(located(store.run_dir(key), HISTORY)).decode()
            read = csv.DictReader(io.StringIO(text, newline=""), strict=True)
            own = [{"key": key, **_numbers(epoch)} for epoch in read]
        except (OSError, ValueError, csv.Error, TypeError):
            continue
        lines += own
    found = pd.DataFrame(lines, columns=None if lines else ["key", "epoch"])
    return found.astype({"epoch": "int64"}) if lines else found


def _numbers(epoch: Mapping[str, str]) -> dict[str, float | None]:
    return {name: float(text) if text else None for name, text in epoch.items()}
