"""Follow docs/suspects.md as its readers do."""

import csv

import pytest
from pages import DOCS, blocks, follow, shell

from nlbench.suspects import listing
from nlbench.suspects.scores import SCORES

PAGE = DOCS / "suspects.md"


@pytest.mark.story
def test_every_command_of_the_page_works_and_prints_what_it_says(tmp_path):
    script = next(b for b in blocks(DOCS / "your-own-data.md") if b.path == "make_shapes.py")
    (tmp_path / "make_shapes.py").write_text(script.text)

    follow(PAGE, tmp_path, shell(tmp_path, NLBENCH_WORKERS="0"))

    assert (tmp_path / "suspects.html").read_text().count("data:image/png") > 10
    # What the person has confirmed is in the new list, which the last suite has trained on.
    with (tmp_path / "mine.csv").open() as file:
        confirmed = {line["file"]: line["confirmed"] for line in csv.DictReader(file)}
    with (tmp_path / "new.csv").open() as file:
        new = {line["path"]: line["label"] for line in csv.DictReader(file)}
    found = {file: label for file, label in confirmed.items() if label}
    assert len(found) == 30
    assert {file: new[file] for file in found} == found


def test_the_page_names_every_column_and_score():
    text = PAGE.read_text()
    for name in (*listing.COLUMNS, *SCORES):
        assert f"`{name}`" in text, name
