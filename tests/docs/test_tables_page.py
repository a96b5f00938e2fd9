"""The lists of columns in docs/tables.md."""

import re

from pages import DOCS

from nlbench.results import csv_table
from nlbench.results.one_condition import heading_of
from nlbench.results.view import COLUMNS

TEXT = (DOCS / "tables.md").read_text(encoding="utf-8")


def section(name):
    """Return the text below a heading of the page."""
    return TEXT.partition(f"\n## {name}\n")[2].partition("\n## ")[0]


def test_the_page_explains_every_column():
    _, *listed = re.findall(r"(?m)^\| `([\w-]+)` \| (.+?) \| .+ \|$", section("Columns"))

    assert listed == [(column, heading_of(column, "ce")) for column in COLUMNS]


def test_the_page_names_the_columns_of_csv():
    listed = re.findall(r"`(\w+)`", section("CSV").partition("The columns are ")[2])

    assert listed == [*csv_table._COLUMNS, *csv_table._PUBLISHED_COLUMNS]
