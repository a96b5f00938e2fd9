"""The lines of a table that `relabel` corrects are those that `suspects` has listed.

Each row has its own number as a feature and as the length of its text, by which the tests find it
without what nlbench says about rows.
"""

import csv
import random

import numpy as np
import pytest

from nlbench.data import catalogue
from nlbench.data.places import Places
from nlbench.plan.suite_file import read_suite

CLASSES = ("ant", "bee", "fly")
PROTOCOLS = {"features": "tabular", "text": "texts"}
SUITE = """\
name: table
protocol: {protocol}
overrides: {{epochs: 1}}
datasets:
  - {{name: {name}, path: table.csv, label: kind, {options}}}
methods: {{ce: {{}}}}
seeds: [0]
"""
ROWS = 90


def rows_of(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def write_rows(path, rows):
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)


@pytest.fixture
def table(place):
    """Write a table with test rows in between, and with an index in another order than its rows."""
    rng = random.Random(0)
    index = list(range(ROWS))
    rng.shuffle(index)
    rows = [["index", "text", "number", "part", "kind", "note"]]
    for i in range(ROWS):
        # A line break in a cell, so that lines and rows differ.
        text = "\n".join(["word"] * (i + 1))
        part = "test" if i % 3 == 1 else "train"
        rows.append([index[i], text, i, part, CLASSES[rng.randrange(3)], f"note, {i}"])
    write_rows(place / "table.csv", rows)
    return place / "table.csv"


def train(cli, place, name, options):
    """Train on the table, and list the suspects. Returns what was said about them."""
    suite = SUITE.format(name=name, options=options, protocol=PROTOCOLS[name])
    (place / "table.yaml").write_text(suite)
    if "split" not in options:
        # A column that parts the rows would be refused.
        header, *rows = rows_of(place / "table.csv")
        rows = [[*row[:3], "", *row[4:]] for row in rows]
        write_rows(place / "table.csv", [header, *rows])
    assert cli("run", "table.yaml", "--out", "store").exit_code == 0
    result = cli("suspects", "store", "--to", "list.csv")
    assert result.exit_code == 0
    return result.stderr


def numbers(place, name, options):
    """Return the number of each training row, which is its row in the table."""
    suite, _ = read_suite(place / "table.yaml")
    (entry,) = suite.datasets

    def opened(dataset):
        places = Places.of_user()
        return catalogue.open_dataset(dataset, place / "table.csv", places, 0, entry.folder_options)

    part = opened(entry.id)
    if name == "text":
        return (part.train_images > 0).sum(1) - 1
    # Standardised values are in the order of the numbers, which are all there without imbalance.
    whole = opened(name)
    ordered = np.sort(np.concatenate([whole.train_images, whole.test_images])[:, 0, 0, 0])
    assert len(ordered) == ROWS
    return np.searchsorted(ordered, part.train_images[:, 0, 0, 0])


def confirm(place, change=lambda line: None):
    """Confirm another class in every fourth line, and return the indices of these examples."""
    with (place / "list.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    for line in lines[::4]:
        line["confirmed"] = other(line["given"])
    for line in lines:
        change(line)
    with (place / "mine.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, lines[0])
        writer.writeheader()
        writer.writerows(lines)
    return [int(line["index"]) for line in lines[::4]]


def other(name):
    return CLASSES[(CLASSES.index(name) + 1) % 3]


RELABEL = ("relabel", "table.csv", "--confirmed", "mine.csv", "--to", "new.csv", "--label", "kind")


def corrected(table):
    """Return the rows of the new table with another label. Nothing else may differ."""
    (header, *before), (_, *after) = rows_of(table), rows_of(table.with_name("new.csv"))
    column = header.index("kind")
    # Not a byte of another line differs, be it the end of the line.
    raw = [table.read_bytes().split(b"\n"), table.with_name("new.csv").read_bytes().split(b"\n")]
    lines = sum(old != new for old, new in zip(*raw, strict=True))
    changed = []
    for i, (old, new) in enumerate(zip(before, after, strict=True)):
        if old != new:
            old[column] = other(old[column])
            changed.append(i)
        assert old == new
    assert lines == len(changed)
    return changed


FEATURES = "features: [number]"


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("features", f"{FEATURES}, test_share: 0.3"),
        ("features", f"{FEATURES}, split: part"),
        ("features", f"{FEATURES}, test_share: 0.3, imbalance: {{kind: exp, ratio: 0.3}}"),
        ("text", "test_share: 0.3"),
        ("text", "split: part"),
        ("text", "split: part, imbalance: {kind: step, ratio: 0.5}"),
    ],
)
def test_the_confirmed_rows_of_a_table_are_corrected_and_no_others(
    cli, place, table, name, options
):
    train(cli, place, name, options)
    index = confirm(place)
    result = cli(*RELABEL)

    assert result.exit_code == 0, result.stderr
    expected = sorted(numbers(place, name, options)[index].tolist())
    assert expected != sorted(index)
    assert corrected(table) == expected


def test_the_list_says_what_index_and_row_count_under_an_imbalance(cli, place, table):
    said = train(
        cli, place, "features", f"{FEATURES}, split: part, imbalance: {{kind: exp, ratio: 0.3}}"
    )

    assert "`index` counts the" in said
    assert "training examples that the imbalance keeps, and `row` all of the data" in said
    result = cli("suspects", "store", "--top", "2")
    assert "| row |" in result.stdout.replace(" " * 2, " ")


def test_a_table_whose_rows_are_unknown_is_not_corrected(cli, refused, place, table):
    train(cli, place, "features", f"{FEATURES}, test_share: 0.3")
    (place / "list.csv").unlink()
    table.rename(place / "moved.csv")

    said = cli("suspects", "store", "--to", "list.csv").stderr
    assert "their rows are unknown, so that `nlbench relabel` can correct no table" in said

    table.with_name("moved.csv").rename(table)
    confirm(place)
    message = refused(*RELABEL)
    assert (
        "mine.csv:2: column 'row' is 'unknown', so nobody knows which row of table.csv" in message
    )
    assert "--from SUITE.yaml" in message
    assert not (place / "new.csv").exists()


@pytest.mark.parametrize("header", ["index", "", "number"])
def test_a_list_of_an_earlier_version_corrects_no_table(cli, refused, place, table, header):
    train(cli, place, "features", f"{FEATURES}, test_share: 0.3")
    rows = rows_of(table)
    rows[0][0] = header
    write_rows(table, rows)
    confirm(place, lambda line: line.pop("row"))

    message = refused(*RELABEL)
    assert "mine.csv: has no column 'row'. Its 'index' counts the training examples" in message


def test_a_table_whose_columns_are_called_by_numbers_has_a_header(cli, place, table):
    rows = rows_of(table)
    rows[0] = ["0", "1", "2", "part", "kind", "note"]
    write_rows(table, rows)
    train(cli, place, "features", 'features: ["2"], split: part')
    index = confirm(place)

    assert cli(*RELABEL).exit_code == 0
    there = [i for i, row in enumerate(rows[1:]) if row[3] == "train"]
    assert corrected(table) == sorted(there[i] for i in index)


def test_rows_of_a_dataset_with_an_imbalance_are_positions_without_it(tmp_path):
    places = Places(tmp_path, tmp_path)
    whole = catalogue.open_dataset("digits", "", places, 0)
    part = catalogue.open_dataset("digits@exp-0.1", "", places, 0)

    assert whole.rows is None
    assert len(part.rows) == part.info.num_train < whole.info.num_train
    assert (part.train_images == whole.train_images[part.rows]).all()
    assert set(part.label_sets) == set(whole.label_sets)
