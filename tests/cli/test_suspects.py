"""The commands `suspects` and `relabel`, from their arguments to their files."""

import csv

import pytest

from nlbench.suspects import dataset, listing


def lines_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_list_is_printed(cli, trained):
    result = cli("suspects", trained, "--method", "ce", "--top", "2")

    assert result.exit_code == 0
    assert "the most suspicious training labels, by\nmargin of ce" in result.stdout
    table = [line for line in result.stdout.splitlines() if line.startswith("|")]
    assert len(table) == 4


def test_the_list_is_written_and_never_overwritten(cli, refused, trained, place):
    result = cli("suspects", trained, "--to", "list.csv")

    assert result.exit_code == 0
    assert result.stdout == ""
    lines = lines_of(place / "list.csv")
    assert tuple(lines[0]) == listing.COLUMNS
    assert len(lines) == 1397
    assert {line["rows"] for line in lines} == {"2"}

    before = (place / "list.csv").read_bytes()
    message = refused("suspects", trained, "--to", "list.csv")
    assert "list.csv: is there already, and labels may have been confirmed in it" in message
    assert (place / "list.csv").read_bytes() == before


def test_page_and_grid_have_the_pictures_of_the_data(cli, trained, place):
    arguments = ("--to", "page.html", "--grid", "grid.png", "--top", "3", "--quality")
    assert cli("suspects", trained, *arguments[:-1]).exit_code == 0

    assert (place / "page.html").read_text().count("data:image/png") == 3
    assert (place / "grid.png").read_bytes().startswith(b"\x89PNG")


def test_quality_is_measured_against_the_true_labels(cli, trained):
    result = cli("suspects", trained, "--quality", "--format", "csv", "--score", "margin")

    lines = [
        line
        for line in csv.DictReader(result.stdout.splitlines())
        if line["probabilities"] == "in-sample" and line["by"] == "margin"
    ]
    assert [line["row"] for line in lines] == ["ce", "gce", "all rows"]
    # One epoch on digits tells wrong labels from right ones better than chance.
    for line in lines:
        assert float(line["average_precision"]) > float(line["noise_rate"]) + 0.1


def test_a_page_may_have_the_quality_below_the_lists(cli, trained, place):
    cli("suspects", trained, "--to", "page.html", "--top", "1", "--quality")

    assert "Against the true labels" in (place / "page.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--method", "elr"), "unknown row 'elr'. There are: ce, gce."),
        (("--suite", "tril"), "unknown suite"),
        (("--condition", "0.2"), "no such condition in trial. There are: Digits symmetric 0.4."),
        (("--seed", "7"), "--seed 7: no run has it; there are: 0"),
        (("--top", "0"), "--top '0': must be all or a number from 1 on"),
        (("--top", "ten"), "--top 'ten': must be all or a number from 1 on"),
        (("--score", "own"), "--score own: no run of ce, gce has it"),
        (("--to", "list.xls"), "--to list.xls: end the name with .csv, .html or .md"),
        (("--to", "no/list.csv"), "--to no/list.csv: there is no folder no"),
        (("--grid", "grid.txt"), "--grid grid.txt: its suffix must be one of"),
        (("--quality", "--grid", "g.png"), "--quality and --grid exclude each other"),
    ],
)
def test_what_cannot_be_done_is_refused(refused, trained, arguments, message):
    assert message in refused("suspects", trained, *arguments)


def test_a_folder_without_records_is_refused(refused, place):
    assert "there is no such folder" in refused("suspects", "nowhere")


def test_data_that_is_not_there_costs_only_the_pictures(cli, refused, trained, place, monkeypatch):
    def gone(labelling, where):
        raise dataset.DataError("the data are gone")

    monkeypatch.setattr(dataset, "open_data", gone)

    result = cli("suspects", trained, "--to", "page.html", "--top", "3")
    assert result.exit_code == 0
    assert "No pictures: the data are gone" in result.stderr
    assert "No pictures: the data are gone" in (place / "page.html").read_text()

    assert "the data are gone" in refused("suspects", trained, "--grid", "grid.png")
    assert "the data are gone" in refused("suspects", trained, "--quality")
    assert not (place / "grid.png").exists()


def test_a_list_is_relabelled(cli, trained, place):
    cli("suspects", trained, "--method", "ce", "--to", "all.csv")
    lines = lines_of(place / "all.csv")
    for line in lines[:10]:
        line["confirmed"] = line["suggested"]
    with (place / "mine.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, listing.COLUMNS)
        writer.writeheader()
        writer.writerows(lines)

    result = cli("relabel", "all.csv", "--confirmed", "mine.csv", "--to", "new.csv")

    assert result.exit_code == 0
    expected = "new.csv: 1,397 labels, of which 10 are changed and 0 confirmed as they were; 1,387"
    assert result.stdout.startswith(expected)
    new = {line["index"]: line["label"] for line in lines_of(place / "new.csv")}
    assert new == {line["index"]: line["confirmed"] or line["given"] for line in lines}


def test_a_refusal_to_relabel_is_a_message(refused, trained, place):
    (place / "list.csv").write_text("index,label\n0,a\n1,b\n")
    (place / "mine.csv").write_text("index,confirmed\n2,a\n")

    message = refused("relabel", "list.csv", "--confirmed", "mine.csv", "--to", "new.csv")

    assert "mine.csv:2: list.csv has no image with the index '2'" in message
    assert not (place / "new.csv").exists()
    assert "no-list.csv" in refused(
        "relabel", "no-list.csv", "--confirmed", "mine.csv", "--to", "n.csv"
    )
