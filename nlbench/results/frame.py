"""Records as a pandas DataFrame that can be written to files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

# The columns that a frame has before the first run has ended.
FIRST_COLUMNS = (
    "row",
    "status",
    "method",
    "dataset",
    "labels",
    "noise",
    "seed",
    "protocol",
    "model",
    "params",
    "last",
)


class Records(pd.DataFrame):
    """A DataFrame with a line for each record, indexed by key."""

    @property
    def _constructor(self) -> type[Records]:
        # What pandas makes of this frame, for example a selection of its lines, is one, too.
        return Records

    def to_parquet(self, *args: Any, **kwargs: Any) -> Any:
        """Write as `pandas.DataFrame.to_parquet` does, with dicts as JSON text.

        Parquet has one type for each column, and no type for a dict without entries.
        """
        plain = pd.DataFrame(self)
        for name in plain.columns:
            if any(isinstance(value, Mapping) for value in plain[name]):
                plain = plain.assign(**{name: plain[name].map(_as_text)})
        return plain.to_parquet(*args, **kwargs)


def of_records(lines: Sequence[Mapping[str, Any]]) -> Records:
    """Return a frame of these lines, each of which has a `key`."""
    if not lines:
        return Records(columns=list(FIRST_COLUMNS), index=pd.Index([], name="key"))
    texts = [
        {_encodable(name): _encodable(value) for name, value in line.items()} for line in lines
    ]
    return Records(texts).set_index("key")


def _encodable(value: Any) -> Any:
    """Return a text as UTF-8 can hold it, which pandas asks for.

    The name of a file need not be UTF-8, and stands in messages.
    """
    if not isinstance(value, str):
        return value
    return value.encode("utf-8", "backslashreplace").decode("utf-8")


def _as_text(value: object) -> object:
    if not isinstance(value, Mapping):
        return value
    return json.dumps(value, sort_keys=True)
