"""The commands `report` and `publish`: what they write, and what they say."""

import pytest
from made_stores import made_store

from nlbench.report import pictures


@pytest.fixture(autouse=True)
def without_figures(monkeypatch):
    """Draw no figures, which take most of the time."""
    monkeypatch.setattr(pictures, "KINDS", {})


@pytest.fixture
def results(tmp_path):
    made_store(tmp_path / "results")
    return tmp_path / "results"


def test_report_writes_one_file(cli, results, tmp_path):
    to = tmp_path / "new" / "page.html"

    result = cli("report", results, "--to", to)

    assert (result.exit_code, result.stderr) == (0, "")
    assert f"{to}: written" in result.stdout
    assert to.read_text().startswith("<!doctype html>")


def test_report_refuses_what_it_cannot_write(cli, results, tmp_path):
    (tmp_path / "file").write_text("")

    for to, message in ((tmp_path, "is a folder; name a file"), ("file/x.html", "cannot be")):
        result = cli("report", results, "--to", tmp_path / to)
        assert result.exit_code == 2
        assert message in result.stderr


def test_report_writes_no_page_under_the_name_of_another_format(cli, results, tmp_path):
    to = tmp_path / "page.pdf"
    refused = cli("report", results, "--to", to)

    assert refused.exit_code == 2
    assert "page.pdf: the name must end in .html or .htm" in " ".join(refused.output.split())
    assert not to.exists()


def test_report_names_a_folder_without_results(cli, tmp_path):
    result = cli("report", tmp_path / "nothing", "--to", tmp_path / "x.html")

    assert result.exit_code == 2
    assert "has no results" in result.stderr
    assert not (tmp_path / "x.html").exists()


def test_publish_says_how_to_upload_and_uploads_nothing(cli, results, tmp_path):
    folder = tmp_path / "my public"

    result = cli("publish", results, folder)

    assert (result.exit_code, result.stderr) == (0, "")
    assert "4 records" in result.stdout
    assert "Nothing was uploaded." in result.stdout
    assert f"hf upload OWNER/NAME '{folder}' . --repo-type dataset" in result.stdout
    assert "--license" in result.stdout


def test_publish_says_that_a_changed_card_stays(cli, results, tmp_path):
    cli("publish", results, tmp_path / "public")
    (tmp_path / "public" / "README.md").write_text("mine")

    result = cli("publish", results, tmp_path / "public", "--license", "mit")

    assert "README.md was changed by hand and stays" in result.stdout
    assert "names no licence" not in result.stdout
