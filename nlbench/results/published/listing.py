"""`nlbench published`: the published numbers by themselves."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import fields
from operator import attrgetter
from typing import Literal

from nlbench.results import formats
from nlbench.results.published import comparable, records
from nlbench.results.published.records import Published


def render(
    numbers: Sequence[Published], fmt: Literal["md", "csv"] = "md", width: int | None = None
) -> str:
    """Return one line for each number, with the sources below.

    The CSV text has all fields, and the sources' own names.

    Args:
        width: wraps the sources below the table at words.
    """
    if fmt == "csv":
        return _csv(numbers)
    return _markdown(numbers, width)


def _csv(numbers: Sequence[Published]) -> str:
    # The same columns and names as in published.csv, so that lines can be found there.
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = [field.name for field in fields(Published)]
    writer.writerow(names)
    writer.writerows(map(attrgetter(*names), numbers))
    return text.getvalue()


def _markdown(numbers: Sequence[Published], width: int | None) -> str:
    keys = records.numbered(numbers)
    lines = []
    for record in numbers:
        method = record.name("method")
        if record.variant:
            method += f" ({record.variant})"
        elif record.method != method:
            # Several names of the sources may be forms of one method.
            method += f" ({record.method})"
        selection = records.SELECTIONS[record.selection]
        if record.metric == "top5":
            selection += ", top-5"
        line = [
            method,
            record.name("dataset"),
            f"{record.noise} {comparable.definition(record)}".rstrip(),
            record.name("model"),
            selection,
            record.text(),
            str(record.seeds or "-"),
            f"[{keys[record.table, record.source]}]",
        ]
        lines.append(line)

    headings = ["method", "dataset", "noise", "network", "epoch", "accuracy", "runs", "source"]
    title = f"Published numbers: {len(numbers)}, test accuracy in %, mean±std as printed"
    notes = [f"[{i}] {line}" for i, line in enumerate(records.sources(numbers), 1)]
    return formats.markdown(title, headings, lines, notes, width=width)
