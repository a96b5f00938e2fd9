"""The measured tables: the committed records, and the pages that are printed from them."""

import json
import re

import committed
import pytest

from nlbench.results.store import Store
from nlbench.results.table import narrowed
from nlbench.results.verify import verify

PLACES = [
    pytest.param(page, command, printed, id=f"{page.name}: {command}")
    for page in committed.PAGES
    for command, printed in committed.places(page)
]

FIGURES = [
    pytest.param(command, figure, id=figure.name)
    for page in committed.PAGES
    for command, figure in committed.figures(page)
]

# Suites and conditions of which every cell has five seeds. Of other suites there are fewer runs.
COMPLETE = (
    ("cifar10n-cpu", "CIFAR-10N worst"),
    ("cifar10n-cpu-aggregate", "CIFAR-10N aggregate"),
    ("cifar10n-cpu-aug", "CIFAR-10N worst"),
    ("cifar10n-cpu-decay", "CIFAR-10N worst"),
    ("cifar10n-cpu-random1", "CIFAR-10N random1"),
    ("cifar10n-cpu-tuned", "CIFAR-10N worst"),
    ("cifar10n-features", "cifar10n-features worst"),
)


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """Return a folder with the committed records, as a fresh clone has them."""
    folder = tmp_path_factory.mktemp("clone")
    committed.copy_records(folder)
    return folder


@pytest.mark.parametrize(("page", "command", "printed"), PLACES)
def test_the_pages_hold_what_their_commands_print(clone, page, command, printed):
    again = "`python tests/support/committed.py` prints it again"

    assert committed.printed(command, clone) == printed, f"{page.name}: {command}: {again}"


@pytest.mark.parametrize(("command", "figure"), FIGURES)
def test_the_figures_show_what_their_commands_draw(clone, tmp_path, command, figure):
    committed.draw(command, clone, tmp_path / "again.svg")

    # Curves differ in their last digits from one version of matplotlib to the next. Words do not.
    assert texts(tmp_path / "again.svg") == texts(figure)


@pytest.mark.parametrize("page", committed.PAGES, ids=lambda page: page.name)
def test_every_figure_stands_above_the_command_that_draws_it(page):
    shown = re.findall(r"\]\(([^)]*figures/results-[^)]+\.svg)\)", page.read_text())

    assert shown
    assert [page.parent / path for path in shown] == [path for _, path in committed.figures(page)]


def texts(figure):
    """Return the words and numbers of an SVG."""
    return re.findall(r"<text[^>]*>([^<]+)</text>", figure.read_text())


def test_every_record_is_as_it_was_written(clone):
    report = verify(Store(clone / "results"))

    assert report.findings == []
    assert report.unknown == []


def test_the_records_are_small_and_complete_by_themselves(clone):
    files = committed.records()
    names = {path.rpartition("/")[2] for path in files if path.startswith("results/runs/")}

    assert names == {"record.json", "history.csv", "predictions.npz"}
    assert sum((clone / path).stat().st_size for path in files) < 20e6
    for path in files:
        if path.endswith("record.json"):
            record = json.loads((clone / path).read_text())
            assert record["spec"]["fingerprint"]
            assert record["environment"].keys() >= {"processor", "kernels", "torch", "nlbench"}
            # A path of the machine that trained it would say nothing to others.
            assert "/home/" not in json.dumps(record)


@pytest.mark.parametrize(("suite", "condition"), COMPLETE)
def test_every_cell_of_the_main_tables_has_five_seeds(clone, suite, condition):
    store = Store(clone / "results")
    seeds = {}
    for cell in narrowed(store.plan(suite), [condition])["cells"]:
        record = store.read(cell["key"])
        assert record is not None, f"{suite}: {cell['row']}, seed {cell['seed']}"
        assert record.status in ("done", "diverged")
        seeds.setdefault(cell["row"], set()).add(cell["seed"])

    assert set(map(len, seeds.values())) == {5}


@pytest.mark.parametrize(
    ("command", "printed"),
    [
        ("nlbench table results", "**{suite}: "),
        ("nlbench verify results", "found: nothing wrong"),
        ("nlbench report results", "report.html"),
    ],
)
def test_a_fresh_clone_shows_its_records(clone, command, printed):
    text = committed.printed(command, clone)

    suites = [name for name in Store(clone / "results").plan_names() if "#" not in name]
    assert len(suites) >= 8
    for suite in suites:
        assert printed.format(suite=suite) in text
    if "report" in command:
        page = (clone / "report.html").read_text()
        assert all(f">{suite}<" in page for suite in suites)
