"""The page of `nlbench report`: what stands in it, and that names of other people stay names."""

import base64
import hashlib
import html
import json
import re
from html.parser import HTMLParser

import made_tables
import pytest
from made_stores import made_store, plan_of, rewritten, spec_of, write_run
from made_tables import DIVERGED, FAILED

from nlbench.errors import StoreError, SuiteError
from nlbench.figures import KINDS, Kind
from nlbench.plan.spec import key_of
from nlbench.report import curves, markup, page, pictures
from nlbench.results.store import Store

HOSTILE = "<script>alert(1)</script>|$x_y$&amp;\x1b[31m\u202eend'\""

# Elements that have no end tag.
VOID = {"meta", "input", "link", "br", "img", "hr"}


class Reader(HTMLParser):
    """Reads a page: its elements, its ids, its text, and the ends that do not fit."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.ids, self.words, self.wrong, self.open = [], [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.ids += [value for name, value in attrs if name == "id"]

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("script", "style"):
            self.words.append(data)

    @property
    def text(self):
        """The text of the page, with a space for each run of white space."""
        return " ".join("".join(self.words).split())

    def of(self, tag):
        """Return the attributes of each element of this tag."""
        return [attributes for name, attributes in self.elements if name == tag]


def data_of(text):
    """Return the data that a page embeds."""
    return json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1])


@pytest.fixture(autouse=True)
def without_figures(monkeypatch):
    """Draw no figures: they take most of the time, and the tests of figures look at them."""
    monkeypatch.setattr(pictures, "KINDS", {})


@pytest.fixture
def store(tmp_path):
    return made_store(tmp_path / "results", seeds=(0, 1, 2))


@pytest.fixture
def plain(store):
    """Return the page of a store whose six runs are done, as text and as read."""
    text = page.render(store)
    return text, Reader(text)


def test_a_page_is_sound_html_with_one_id_each(plain):
    _, read = plain

    assert not read.wrong
    assert not read.open
    assert len(set(read.ids)) == len(read.ids)


def test_every_link_within_the_page_leads_somewhere(plain):
    _, read = plain

    inner = [a["href"][1:] for a in read.of("a") if a.get("href", "").startswith("#")]
    assert len(inner) > 10
    assert set(inner) <= set(read.ids)


def test_nothing_is_loaded(plain):
    text, read = plain

    loading = {"link", "img", "iframe", "object", "embed", "audio", "video", "source", "base"}
    assert not loading & {tag for tag, _ in read.elements}
    for _, attributes in read.elements:
        assert not {"src", "srcset", "action", "background", "poster"} & set(attributes)
        assert not any(name.startswith("on") for name in attributes)
    assert "@import" not in text
    assert "url(http" not in text


def test_the_policy_allows_the_own_script_alone(plain):
    text, read = plain

    policy = next(m["content"] for m in read.of("meta") if "http-equiv" in m)
    assert policy.startswith("default-src 'none'; ")
    scripts = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    assert len(scripts) == 1
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy


def test_the_same_store_gives_the_same_page(store, plain):
    assert page.render(Store(store.root)) == plain[0]


def test_the_page_shows_the_words_and_the_numbers(plain):
    _, read = plain

    # The last epochs of seeds 0, 1 and 2 are 37.5, 47.5 and 57.5%.
    assert "47.50±10.00" in read.text
    for words in ("cannot be told apart", "sample standard deviation", "3 seeds", "How to cite"):
        assert words in read.text
    assert "6 of 6 runs done" in read.text
    assert "@software{nlbench" in read.text


def test_every_figure_is_drawn_or_named(store, monkeypatch):
    monkeypatch.setattr(pictures, "KINDS", KINDS)

    text = page.render(store)

    read = Reader(text)
    assert not read.wrong
    assert len(set(read.ids)) == len(read.ids)
    # A page does not choose the two conditions that a figure of two compares.
    kinds = [name for name, kind in KINDS.items() if not kind.two_sides]
    left_out = [kind for kind in kinds if f"{kind}: " in read.text]
    assert "gradient" in left_out
    assert "epochs" not in left_out
    assert text.count("<figure>") == len(kinds) - len(left_out)


def test_figures_of_many_conditions_and_bytes_are_left_out_with_the_command(store, monkeypatch):
    drawn = []

    def draw(kind, results, options):
        drawn.append(options.condition)
        return "x" * 1000

    plan = plan_of("many", ("ce",), (0, 1, 2))
    plan["conditions"] = [f"Digits {place}" for place in range(5)]
    cells = []
    for cell in plan["cells"]:
        cells += [{**cell, "condition": place} for place in range(5)]
    store.write_plan({**plan, "cells": cells})
    monkeypatch.setattr(pictures, "KINDS", {"epochs": KINDS["epochs"], "cost": KINDS["cost"]})
    monkeypatch.setattr(pictures, "svg", str)
    monkeypatch.setattr(Kind, "draw", draw)
    monkeypatch.setattr(pictures, "MOST_BYTES", 3500)

    read = Reader(page.render(store, "many"))

    assert drawn == [0, 1, 2, 0]
    last = "nlbench plot epochs results --suite many --condition 'Digits 4'"
    assert f"epochs: 2 more conditions; {last} draws the last one." in read.text
    assert "cost: to keep the page small; nlbench plot cost results" in read.text


def test_a_cell_leads_to_its_runs_with_everything_about_them(store, plain):
    text, read = plain

    assert "#cell-0-0-1" in [a.get("href") for a in read.of("a")]
    found = data_of(text)
    cell = next(cell for cell in found["suites"][0]["cells"] if cell["row"] == 1)
    assert [seed for seed, _, _ in cell["runs"]] == [0, 1, 2]
    run = found["runs"][key_of(spec_of("elr", 2))]
    assert found["pool"][run["method"]] == "elr"
    assert found["pool"][run["protocol"]]["model"] == "digits_cnn"
    assert found["pool"][run["environment"]]["device"] == "cpu"
    # In tenths of a percent.
    assert run["curves"]["test_accuracy"] == [700, 575]
    assert run["metrics"]["last"] == 0.575
    assert found["suites"][0]["command"] == "nlbench run s.yaml"


@pytest.fixture
def lost(tmp_path):
    """Return the page of a suite whose highest mean lost a seed, and whose third row lacks one."""
    store = Store(tmp_path / "results")
    values = {
        "mae": [[0.97, 0.98, 0.97, 0.96, DIVERGED]],
        "gce": [[0.96, 0.97, 0.96, 0.95, None]],
        "ce": [[0.90, 0.91, 0.92, 0.90, 0.91]],
        "elr": [[0.95, 0.94, 0.96, 0.95, 0.94]],
        "sce": [[FAILED] * 5],
    }
    store.write_plan(made_tables.suite(store, values))
    return page.render(Store(store.root))


def _board(text):
    """Return the lines of a leaderboard: class, name, and attributes and text by column."""
    found = []
    rows = re.findall(r"<tr data-row=\"(\w+)\"(.*?)</tr>", text, re.DOTALL)
    for name, line in rows:
        cells = {}
        for column, attributes, inside in re.findall(
            r'<td data-c="([\w-]+)"([^>]*)>(.*?)</td>', line, re.DOTALL
        ):
            cells[column] = attributes, Reader(f"<td>{inside}</td>").text
        found.append((name, 'class="best"' in line.partition(">")[0], cells))
    return found


def test_a_row_that_lost_a_seed_comes_after_the_others_without_a_test(lost):
    board = _board(lost)

    assert [name for name, _, _ in board] == ["elr", "ce", "mae", "gce", "sce"]
    assert [name for name, best, _ in board if best] == ["elr"]
    mae = next(cells for name, _, cells in board if name == "mae")
    attributes, text = mae["last"]
    assert "!1" in text
    assert "data-after" in attributes
    attributes, text = mae["minus"]
    assert text == "+6.25 (!1)"
    assert "data-after" in attributes
    assert mae["ties"][1] == mae["minus-best"][1] == "-"
    elr = next(cells for name, _, cells in board if name == "elr")
    assert "data-after" not in elr["last"][0] + elr["minus"][0]
    assert re.search(r"\[.*\] p", elr["minus"][1])


def test_nothing_is_tested_against_a_baseline_that_lost_a_seed(tmp_path):
    store = Store(tmp_path / "results")
    values = {"ce": [[0.90, 0.91, 0.92, DIVERGED]], "elr": [[0.95, 0.94, 0.96, 0.95]]}
    store.write_plan(made_tables.suite(store, values))

    board = _board(page.render(Store(store.root)))

    assert [name for name, _, _ in board] == ["elr", "ce"]
    assert board[0][2]["minus"][1] == "+4.00 (!1)"


def test_the_page_says_what_bold_and_each_interval_means(plain):
    _, read = plain

    for words in (
        "Rows in bold are the one with the best mean",
        "The interval is for this difference alone; p is for all differences to ce together",
        "An interval that ends at 0 says that the row is not the best",
        "share a letter with the best mean, and be bold, although its interval ends at 0",
    ):
        assert words in read.text, words


def test_p_and_letters_that_disagree_are_explained(tmp_path):
    store = Store(tmp_path / "results")
    # The spread of gce hides in the table's one spread what ce and elr show seed by seed.
    values = {
        "ce": [[0.90, 0.91, 0.92, 0.90, 0.91]],
        "elr": [[0.91, 0.92, 0.93, 0.91, 0.93]],
        "gce": [[0.95, 0.90, 0.89, 0.94, 0.92]],
    }
    plan = made_tables.suite(store, values)
    store.write_plan(plan)

    assert "p and letters disagree for elr beside ce" in page.render(Store(store.root))


def test_each_row_has_the_level_of_its_method(lost):
    levels = {name: cells["trust"][1] for name, _, cells in _board(lost)}

    # No method is called sce.
    expected = {"elr": "authors", "ce": "plain", "mae": "plain", "gce": "plain", "sce": "-"}
    assert levels == expected
    for words in ("implemented, plain (equal to a plain re-implementation), authors", "no level"):
        assert words in Reader(lost).text


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "No run has ended yet. The command that trains what is missing is listed below."),
        (FAILED, "No run has ended with a result: 4 failed or diverged."),
    ],
)
def test_a_page_without_results_says_what_to_do(tmp_path, value, words):
    store = Store(tmp_path / "results")
    plan = made_tables.suite(store, {"ce": [[value] * 2], "elr": [[value] * 2]})
    if value is None:
        for place, cell in enumerate(plan["cells"]):
            cell["key"] = f"{place:016x}"
    store.write_plan(plan)

    text = page.render(Store(store.root))

    assert words in Reader(text).text
    assert "no row can be ranked" not in text


def test_a_metric_that_is_no_share_is_in_its_unit(store):
    for seed, nats in ((0, 1.0), (1, 2.0), (2, 3.0)):
        folder = store.run_dir(key_of(spec_of("ce", seed)))
        rewritten(folder, lambda values, nats=nats: values["metrics"].update(nll=nats))

    read = Reader(page.render(Store(store.root)))

    assert "2.00±1.00" in read.text
    assert "200.00±100.00" not in read.text
    nll = [e for tag, e in read.elements if tag == "td" and e.get("data-c") == "nll"]
    assert {e.get("data-v") for e in nll} == {"2.0", None}


def test_the_sentence_counts_what_a_running_suite_lacks(tmp_path):
    store = made_store(tmp_path, seeds=(0, 1))
    store.write_plan(plan_of("s", ("ce", "elr"), (0, 1, 2)))

    with store.lock(key_of(spec_of("ce", 2))):
        read = Reader(page.render(Store(tmp_path)))

    assert "Not complete. s: 4 of 6 runs are done, 1 is being trained." in read.text
    assert "6 runs: 4 done, 1 running, 1 missing." in read.text
    assert "nlbench run s.yaml --out results" in read.text


def test_a_condition_without_runs_is_named_and_has_no_column(store):
    plan = plan_of("s", ("ce", "elr"), (0, 1, 2))
    further = []
    for number, cell in enumerate(plan["cells"]):
        further.append({**cell, "condition": 1, "key": f"{number:016x}"})
    plan["conditions"].append("Digits without a run")
    store.write_plan({**plan, "cells": [*plan["cells"], *further]})
    read = Reader(page.render(store))

    assert "Not shown, because none of their runs has ended: Digits without a run." in read.text
    assert "1 combination of dataset and noise, 6 of 12 runs done" in read.text


def test_failed_and_diverged_runs_are_named_with_their_messages(tmp_path):
    store = made_store(tmp_path, seeds=(0, 1, 2))
    error = {"message": "ValueError: <b>bold</b>", "traceback": "SECRET"}
    write_run(store, "elr", 1, status="failed", metrics={}, error=error)
    write_run(store, "elr", 2, status="diverged", metrics={}, error={"message": "not finite"})

    text = page.render(Store(tmp_path))

    read = Reader(text)
    assert "6 runs: 4 done, 1 diverged, 1 failed." in read.text
    assert "ValueError: <b>bold</b>" in read.text
    assert "not finite" in read.text
    assert "(1/3, !2)" in read.text
    # A traceback names folders, and `nlbench show` prints it.
    assert "SECRET" not in text


def test_a_damaged_record_is_counted(tmp_path):
    store = made_store(tmp_path)
    (store.run_dir(key_of(spec_of("ce", 0))) / "record.json").write_text("{}")

    read = Reader(page.render(Store(tmp_path)))

    assert "4 runs: 3 done, 1 damaged." in read.text


def test_hostile_names_stay_text(tmp_path):
    store = made_store(tmp_path, seeds=(0, 1))
    plan = store.plan("s")
    plan["conditions"] = [HOSTILE]
    plan["notes"] = [HOSTILE]
    plan["rows"][1]["row"] = HOSTILE
    for cell in plan["cells"]:
        if cell["row"] == "elr":
            cell["row"] = HOSTILE
    store.write_plan(plan)
    write_run(store, "elr", 1, status="failed", metrics={}, error={"message": HOSTILE})
    for seed in (0, 1):
        folder = store.run_dir(key_of(spec_of("ce", seed)))
        rewritten(folder, lambda values: values["warnings"].append(HOSTILE))

    text = page.render(Store(tmp_path))

    read = Reader(text)
    assert not read.wrong
    assert len(read.of("script")) == 2
    assert "alert(1)</script>" not in text
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "<script>alert(1)</script>|$x_y$&amp;\\x1b[31m\\u202eend'\"" in read.text
    shown = data_of(text)["suites"][0]
    assert shown["rows"][1] == HOSTILE.replace("\x1b", "\\x1b").replace("\u202e", "\\u202e")


def test_a_name_that_is_not_utf8_can_be_written(tmp_path):
    store = made_store(tmp_path)
    folder = store.run_dir(key_of(spec_of("ce", 0)))
    rewritten(folder, lambda values: values["warnings"].append("a\udcff.png"))

    assert "a\\\\udcff.png" in page.render(Store(tmp_path)).encode().decode()


def test_a_suite_can_be_chosen(tmp_path):
    store = made_store(tmp_path)
    store.write_plan(plan_of("other", ("ce",), (0, 1)))

    both, one = page.render(store), page.render(store, "other")

    assert "Results of 2 suites" in both
    assert [suite["name"] for suite in data_of(one)["suites"]] == ["other"]
    with pytest.raises(SuiteError, match=r"unknown suite of .* 'othr'"):
        page.render(store, "othr")


def test_a_folder_without_results_is_refused(tmp_path):
    with pytest.raises(StoreError, match="has no results"):
        page.render(Store(tmp_path))


def test_runs_without_epoch_metrics_have_no_curves(store):
    key = key_of(spec_of("ce", 0))
    (store.run_dir(key) / "history.csv").unlink()

    assert "curves" not in data_of(page.render(Store(store.root)))["runs"][key]


# ---- Curves --------------------------------------------------------------------------------------


def write_history(folder, epochs, value="0.5"):
    lines = [f"{epoch},{value},{epoch / 1000}" for epoch in range(epochs)]
    text = "\n".join(["epoch,loss,test_accuracy", *lines, ""])
    (folder / "history.csv").write_text(text)


def test_long_curves_keep_the_first_and_the_last_epoch(tmp_path):
    write_history(tmp_path, 1000)

    found = curves.read_curves(tmp_path)

    assert len(found["epoch"]) == curves.MOST_POINTS
    assert (found["epoch"][0], found["epoch"][-1]) == (0, 999)
    assert found["test_accuracy"][-1] == 0.999
    steps = {b - a for a, b in zip(found["epoch"], found["epoch"][1:], strict=False)}
    assert steps <= {16, 17}


@pytest.mark.parametrize("value", ["nan", "inf", "", "text"])
def test_a_value_that_is_no_number_is_left_out(tmp_path, value):
    write_history(tmp_path, 2, value)

    found = curves.read_curves(tmp_path)

    assert "loss" not in found
    assert curves.of_one_run(found) == {"test_accuracy": [0, 1]}


def test_memorisation_is_the_mean_over_runs_of_one_length():
    def run(*values):
        return {"epoch": [0.0, 1.0][: len(values)], "online_wrong_true": list(values)}

    means = curves.mean_of([run(0.2, None), run(0.4, 0.5)])

    assert means == {"epoch": [0, 1], "online_wrong_true": [300, 500]}
    assert curves.mean_of([run(0.2), run(0.4, 0.5)]) == {}
    assert curves.mean_of([]) == {}


# ---- Markup --------------------------------------------------------------------------------------


def test_a_note_has_code_and_links_and_nothing_else():
    shown = markup.note("`nlbench run a` of <b>x</b>, see https://example.org/a.html.")

    assert shown == (
        "<code>nlbench run a</code> of &lt;b&gt;x&lt;/b&gt;, see "
        '<a href="https://example.org/a.html">https://example.org/a.html</a>.'
    )


@pytest.mark.parametrize("text", ["</script><script>", "<!--", "]]>", "\u2028", "\ud800", "&lt;"])
def test_embedded_data_is_data(text):
    embedded = str(markup.data({"a": [text]}))

    assert not set("<>&\u2028") & set(embedded)
    assert json.loads(embedded)["a"][0] in (text, text.encode("unicode_escape").decode())
    assert html.unescape(embedded) == embedded
