"""`--sort`, `--columns`, `--group-by` and `--for paper`, and JSON, on suites of a few numbers."""

import csv
import html
import io
import itertools
import json
import math
import re
import statistics
from types import SimpleNamespace

import pytest
from made_tables import DIVERGED, FAILED, renamed, suite

from nlbench import registry
from nlbench.errors import SuiteError
from nlbench.results import json_table, paper
from nlbench.results import table as tables
from nlbench.results.store import Store

TWO_BY_TWO = (("Digits", 0.2), ("Digits", 0.4), ("CIFAR-10", 0.2), ("CIFAR-10", 0.4))


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path)


def render(store, plan, **options):
    return tables.render(plan, store, methods=registry.method_files(), **options)


def rows(text):
    """Return the first cells of the lines of Markdown tables."""
    found = [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("| ")]
    return [name for name in found if name != "method" and not name.startswith("--")]


def cells(text, row):
    """Return the cells of the first line of a row, without its name."""
    line = next(line for line in text.splitlines() if line.startswith(f"| {row} "))
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


def one_condition(store, **changes):
    """Four rows, of which one diverged once and one has no value."""
    values = {
        "ce": [[0.60, 0.62, 0.61]],
        "elr": [[0.90, 0.91, DIVERGED]],
        "gce": [[0.80, 0.81, 0.82]],
        "mae": [[FAILED, DIVERGED, FAILED]],
        "sl": [[0.70, 0.71, 0.72]],
    }
    return suite(store, {**values, **changes})


# ---- --sort -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"sort": "last"}, ["gce", "sl", "ce", "elr", "mae"]),
        ({"sort": "last", "ascending": False}, ["gce", "sl", "ce", "elr", "mae"]),
        ({"sort": "last", "ascending": True}, ["ce", "sl", "gce", "elr", "mae"]),
        ({"sort": "minus"}, ["gce", "sl", "ce", "elr", "mae"]),
        ({"sort": "method", "ascending": False}, ["sl", "mae", "gce", "elr", "ce"]),
        ({"sort": "Digits SYMMETRIC 0.4"}, ["gce", "sl", "ce", "elr", "mae"]),
    ],
)
def test_rows_are_sorted_and_those_with_lost_runs_are_last(store, options, expected):
    text = render(store, one_condition(store), **options)

    assert rows(text) == expected
    if options["sort"] != "method":
        named = "runs are missing, failed or damaged, or have no such value: elr, mae."
        assert f"Placed after complete rows, because {named}" in text


def test_the_note_says_by_what_the_rows_are_sorted(store):
    plan = one_condition(store)
    assert "- Sorted by last epoch, highest first." in render(store, plan, sort="last")
    assert "- Sorted by name, Z first." in render(store, plan, sort="method", ascending=False)
    assert "Sorted" not in render(store, plan)


def test_a_metric_of_which_less_is_better_has_the_lowest_first(store):
    plan = suite(store, {"ce": [[0.1, 0.2]], "elr": [[0.3, 0.4]]}, final_wrong_memorised=0.5)
    for key in (cell["key"] for cell in plan["cells"] if cell["row"] == "ce"):
        run = store.read(key)
        run.metrics["final_wrong_memorised"] = 0.9
        store.write(run, [])

    assert rows(render(store, plan, sort="memorised")) == ["elr", "ce"]
    assert rows(render(store, plan, sort="memorised", ascending=False)) == ["ce", "elr"]


@pytest.mark.parametrize("ascending", [None, True, False])
def test_rows_with_equal_values_keep_the_order_of_the_suite(store, ascending):
    equal = [[0.5, 0.5]]
    plan = suite(store, {"sl": equal, "ce": equal, "gce": equal, "elr": equal})
    for column in ("last", "best", "nets", "passes"):
        text = render(store, plan, sort=column, ascending=ascending)
        assert rows(text) == ["sl", "ce", "gce", "elr"]


def test_a_table_of_several_conditions_is_sorted_by_one_of_them(store):
    plan = suite(
        store,
        {"ce": [[0.1], [0.9]], "elr": [[0.2], [0.8]], "gce": [[0.3], [None]]},
        (("Digits", 0.2), ("Digits", 0.4)),
    )
    text = render(store, plan, sort="Digits symmetric 0.4")
    # The second table, of the differences to ce, has the same order.
    assert rows(text) == ["ce", "elr", "gce", "elr", "gce"]
    assert "- Sorted by last epoch on Digits symmetric 0.4, highest first. Placed" in text
    assert rows(render(store, plan, sort="Digits symmetric 0.2"))[:3] == ["gce", "elr", "ce"]

    with pytest.raises(SuiteError, match=r'--sort last: s has 2 datasets and noises.*"Digits sym'):
        render(store, plan, sort="last")
    with pytest.raises(SuiteError, match=r"--sort lst: s has no such column.*Did you mean 'last'"):
        render(store, plan, sort="lst")
    # Where each condition has a table of its own, each has its own order.
    text = render(store, plan, sort="last", group_by="dataset,noise")
    assert rows(text) == ["gce", "elr", "ce", "ce", "elr", "gce"]


def test_sorting_needs_what_it_names(store):
    plan = suite(store, {"elr": [[0.1]], "gce": [[0.2]]})
    with pytest.raises(SuiteError, match=r"--sort minus: the suite has no row `ce`.*elr, gce"):
        render(store, plan, sort="minus")
    for ascending, name in ((True, "--ascending"), (False, "--descending")):
        with pytest.raises(SuiteError, match=f"{name}: .*give --sort COLUMN"):
            render(store, plan, ascending=ascending)


@pytest.mark.parametrize("fmt", ["md", "latex", "html", "csv", "json"])
def test_every_format_has_the_order(store, fmt):
    text = render(store, one_condition(store), sort="last", fmt=fmt, metric="last")
    places = [text.rindex(f"{before}{name}{after}") for name, before, after in _marked(fmt)]
    assert places == sorted(places)


def _marked(fmt):
    around = {
        "md": ("| ", " "),
        "latex": ("    ", " &"),
        "html": (">", "</th>"),
        "csv": ("0.4,", ","),
        "json": ('"row": "', '"'),
    }
    return [(name, *around[fmt]) for name in ("gce", "sl", "ce", "elr", "mae")]


# ---- --group-by ---------------------------------------------------------------------------------


def four_conditions(store):
    return suite(store, {"ce": [[0.1]] * 4, "elr": [[0.2], [0.3], [0.4], [None]]}, TWO_BY_TWO)


@pytest.mark.parametrize(
    ("group_by", "titles", "headings"),
    [
        ("dataset", ["Digits", "CIFAR-10"], ["symmetric 0.2", "symmetric 0.4", "nets"]),
        ("noise", ["symmetric 0.2", "symmetric 0.4"], ["Digits", "CIFAR-10", "nets"]),
    ],
)
def test_a_table_for_each_dataset_or_noise(store, group_by, titles, headings):
    text = render(store, four_conditions(store), group_by=group_by, metric="last")

    found = [line for line in text.splitlines() if line.startswith("**")]
    assert [line.split(";")[0] for line in found] == [f"**s: {title}" for title in titles]
    assert cells(text, "method") == headings


def test_a_table_for_each_dataset_and_noise(store):
    text = render(store, four_conditions(store), group_by="dataset,noise")
    assert text.count("| method") == 4
    assert cells(text, "method")[0] == "last epoch"
    assert "**s: CIFAR-10 symmetric 0.4; test accuracy in %" in text


def test_every_cell_is_in_one_table_of_each_grouping(store):
    plan = four_conditions(store)
    for group_by in ("dataset", "noise", "dataset,noise", None):
        text = render(store, plan, group_by=group_by, metric="last")
        lines = [line for line in text.splitlines() if line.startswith("| elr")]
        shown = list(itertools.chain(*(line.strip("|").split("|")[1:-1] for line in lines)))
        assert sorted(cell.strip() for cell in shown) == ["-", "20.00", "30.00", "40.00"]


def test_html_has_a_heading_above_the_noises_of_each_dataset(store):
    text = render(store, four_conditions(store), fmt="html", metric="last")
    for dataset in ("Digits", "CIFAR-10"):
        assert '<th scope="colgroup" colspan="2" style="text-align: center' in text
        assert f">{dataset}</th>" in text
    assert text.count(">symmetric 0.2</th>") == 2
    # With one dataset the whole names fit.
    one = suite(store, {"ce": [[0.1], [0.2]]}, TWO_BY_TWO[:2])
    assert "colgroup" not in render(store, one, fmt="html")


def without_runs(plan, *conditions):
    """Let the records of these conditions be missing."""
    for cell in plan["cells"]:
        if cell["condition"] in conditions:
            cell["key"] = "0" * 16
    return plan


def test_before_any_run_a_condition_is_grouped_by_its_name(store):
    # Nothing is known of it but its title.
    plan = without_runs(four_conditions(store), 0, 1, 2, 3)
    text = render(store, plan, group_by="dataset", metric="last")

    assert "**s: Digits symmetric 0.2;" in text
    assert "**s: CIFAR-10 symmetric 0.2;" in text


@pytest.mark.parametrize("fmt", ["md", "latex", "html"])
def test_a_condition_without_runs_is_named_and_not_shown(store, fmt):
    plan = without_runs(four_conditions(store), 1, 3)
    text = " ".join(html.unescape(render(store, plan, metric="last", fmt=fmt)).split())

    table, note = text.split("Not shown, because none of their runs has ended: ")
    assert note.startswith("Digits symmetric 0.4, CIFAR-10 symmetric 0.4.")
    assert "symmetric 0.2" in table
    assert "symmetric 0.4" not in table
    # What is missing is counted over the whole suite.
    assert "1 of the suite's 5 runs is missing" in note


def test_rows_are_not_sorted_by_a_condition_that_is_not_shown(store):
    plan = without_runs(four_conditions(store), 1, 3)
    message = "--sort digits symmetric 0.4: none of the runs of Digits symmetric 0.4 has ended"

    with pytest.raises(SuiteError, match=message):
        render(store, plan, metric="last", sort="digits symmetric 0.4")


def test_a_program_gets_the_conditions_without_runs_as_well(store):
    plan = without_runs(four_conditions(store), 1, 3)

    assert "s,Digits symmetric 0.4,elr,elr,,last,,,0,1," in render(store, plan, fmt="csv")


@pytest.mark.parametrize(
    "options",
    [
        {"group_by": "dataset", "details": True},
        {"group_by": "dataset", "columns": ("last",)},
        {"group_by": "dataset", "published": True},
        {"group_by": "dataset", "fmt": "csv"},
        {"group_by": "dataset", "fmt": "json"},
        {"purpose": "paper", "fmt": "csv"},
        {"purpose": "paper", "fmt": "json"},
        {"purpose": "paper", "details": True},
        {"purpose": "paper", "published": True},
        {"purpose": "paper", "against": "elr"},
        {"details": True, "fmt": "json"},
    ],
)
def test_options_without_an_effect_are_refused(store, options):
    names = {"group_by": "group-by", "purpose": "for"}
    pattern = "|".join(names.get(name, name) for name in options if name != "fmt")
    with pytest.raises(SuiteError, match=rf"--({pattern}).*exclude each other"):
        render(store, four_conditions(store), **options)


def test_an_unknown_grouping_is_refused(store):
    with pytest.raises(SuiteError, match=r"--group-by: unknown grouping 'datset'.*'dataset'"):
        render(store, four_conditions(store), group_by="datset")


# ---- --columns ----------------------------------------------------------------------------------


@pytest.mark.parametrize("fmt", ["csv", "json"])
def test_columns_choose_the_metrics_of_data(store, fmt):
    text = render(store, one_condition(store), fmt=fmt, columns=("best", "last"))
    if fmt == "csv":
        found = [line["metric"] for line in csv.DictReader(io.StringIO(text))]
    else:
        metrics = json.loads(text)["suites"][0]["conditions"][0]["metrics"]
        found = [metric["metric"] for metric in metrics]
    assert list(dict.fromkeys(found)) == ["last", "best"]

    with pytest.raises(SuiteError, match=f"--columns minus and --format {fmt} exclude"):
        render(store, one_condition(store), fmt=fmt, columns=("last", "minus"))


# ---- --for paper --------------------------------------------------------------------------------

# The two best are 0.1 points apart, and the third is 20 points below them.
APART = {
    "ce": [[0.600, 0.612, 0.603, 0.607, 0.609]],
    "elr": [[0.900, 0.912, 0.903, 0.907, 0.909]],
    "gce": [[0.901, 0.910, 0.906, 0.905, 0.908]],
}


def test_the_best_rows_are_bold(store):
    text = render(store, suite(store, APART), purpose="paper")

    assert cells(text, "elr") == ["**90.62±0.48**"]
    assert cells(text, "gce") == ["**90.60±0.34**"]
    assert cells(text, "ce") == ["60.62±0.48"]


def test_the_caption_has_protocol_seeds_and_test(store):
    text = " ".join(render(store, suite(store, APART), purpose="paper").split())

    assert "**Test accuracy after the last epoch in %, mean ± sample std over 5 seeds.**" in text
    assert (
        "Bold: the best mean of a column, and the next best ones before the first that can be told"
        in text
    )
    assert "(Tukey's test with seeds as blocks and equal spreads; 5% for any false" in text
    assert "Protocol digits (digits_cnn, 30 epochs, batch size 128), track identical" in text


@pytest.mark.parametrize(
    ("lost", "shown"), [(DIVERGED, "(4/5, !1)"), (FAILED, "(4/5, !1)"), (None, "(4/5)")]
)
def test_a_row_that_lost_a_run_is_never_bold(store, lost, shown):
    values = [[0.950, 0.952, 0.953, 0.951, lost]]
    text = render(store, suite(store, {**APART, "sl": values}), purpose="paper")

    assert cells(text, "sl") == [f"95.15±0.13 {shown}"]
    assert cells(text, "elr")[0].startswith("**")
    assert "A mean of fewer runs than planned is never bold." in " ".join(text.split())


def test_a_row_with_a_run_that_did_not_learn_is_never_bold(store):
    # Its seeds spread so widely that no test tells it from the best row.
    plan = suite(store, {**APART, "backward": [[0.950, 0.100, 0.952, 0.100, 0.951]]})
    for cell in plan["cells"]:
        run = store.read(cell["key"])
        if run.metrics["last"] == 0.1:
            run.method["signs"] = ["one-class"]
            store.write(run, [])
    text = render(store, plan, purpose="paper")

    assert cells(text, "backward") == ["61.06±46.61§"]
    assert cells(text, "elr")[0].startswith("**")
    assert "A row with § is never bold." in " ".join(text.split())


def test_a_row_below_one_that_is_told_apart_is_not_bold(store):
    # Its seeds spread so widely that it is tied with all rows.
    values = {**APART, "forward": [[0.900, 0.200, 0.905, 0.300, 0.500]]}
    text = render(store, suite(store, values), purpose="paper", columns=("last", "ties"))

    (letters_of_best,) = cells(text, "elr")[1:]
    assert set(cells(text, "forward")[1]) & set(letters_of_best)
    assert cells(text, "ce")[0] == "60.62±0.48"
    assert cells(text, "forward")[0].startswith("56.10")
    assert cells(text, "elr")[0].startswith("**")
    assert cells(text, "gce")[0].startswith("**")


def test_a_caption_names_no_rule_that_its_table_does_not_need(store):
    text = render(store, suite(store, APART), purpose="paper")

    assert "never bold" not in text


def test_with_one_seed_nothing_is_bold_and_the_caption_says_why(store):
    one_seed = {row: [values[0][:1]] for row, values in APART.items()}
    text = render(store, suite(store, one_seed), purpose="paper")
    table = [line for line in text.splitlines() if line.startswith("|")]

    assert not any("**" in line for line in table)
    assert "Nothing is bold for Digits symmetric 0.4: its rows cannot be tested." in " ".join(
        text.split()
    )


def test_where_less_is_better_the_lowest_is_bold(store):
    plan = suite(store, APART)
    for cell in plan["cells"]:
        run = store.read(cell["key"])
        run.metrics["final_wrong_memorised"] = run.metrics["last"]
        store.write(run, [])
    text = render(store, plan, purpose="paper", columns=("last", "memorised", "minus"))

    assert cells(text, "ce")[1] == "**60.62±0.48**"
    assert not cells(text, "elr")[1].startswith("**")
    assert cells(text, "elr")[2].startswith("+30.00±0.00")


def test_a_paper_has_the_columns_of_each_dataset_under_one_heading(store):
    values = {row: value * 4 for row, value in APART.items()}
    plan = suite(store, values, TWO_BY_TWO, networks={"elr": 2})
    latex = render(store, plan, purpose="paper", fmt="latex")

    assert r"& \multicolumn{2}{c}{Digits} & \multicolumn{2}{c}{CIFAR-10} &  \\" in latex
    assert r"\cmidrule(lr){2-3} \cmidrule(lr){4-5}" in latex
    assert (
        "method & symmetric 0.2 & symmetric 0.4 & symmetric 0.2 & symmetric 0.4 & networks" in latex
    )
    assert latex.count(r"\textbf{90.62$\pm$0.48}") == 4
    assert latex.count(r"\begin{table}") == 1
    grouped = render(store, plan, purpose="paper", fmt="latex", group_by="dataset")
    assert grouped.count(r"\begin{table}") == 2
    assert r"\caption[{Digits: test accuracy" in grouped


def test_rows_that_are_not_shown_still_count_in_the_tests(store):
    text = render(store, suite(store, APART), purpose="paper", only=("elr", "gce"))
    assert rows(text) == ["elr", "gce"]
    assert "The tests also cover 1 row that is not shown." in " ".join(text.split())


# ---- JSON ---------------------------------------------------------------------------------------


def test_json_has_every_number_unrounded(store):
    plan = one_condition(store, gce=[[0.80, 0.81, 0.8234567891]])
    (found,) = json.loads(render(store, plan, fmt="json"))["suites"]
    (condition,) = found["conditions"]
    last = next(metric for metric in condition["metrics"] if metric["metric"] == "last")
    by_row = {cell["row"]: cell for cell in last["cells"]}

    assert (condition["dataset"], condition["noise"]) == ("Digits", "symmetric 0.4")
    assert [row["row"] for row in found["rows"]] == ["ce", "elr", "gce", "mae", "sl"]
    gce = by_row["gce"]
    assert gce["values"] == {"0": 0.80, "1": 0.81, "2": 0.8234567891}
    assert gce["mean"] == statistics.fmean(gce["values"].values())
    assert gce["std"] == statistics.stdev(gce["values"].values())
    assert gce["minus_reference"]["mean"] == pytest.approx(0.2 + 0.0034567891 / 3)
    assert {key: by_row["elr"][key] for key in ("n", "planned", "diverged", "failed")} == {
        "n": 2,
        "planned": 3,
        "diverged": 1,
        "failed": 0,
    }
    mae = by_row["mae"]
    assert (mae["mean"], mae["std"], mae["missing"], mae["failed"]) == (None, None, 3, 2)
    assert mae["letters"] == ""
    assert last["comparison"]["sentence"]
    assert found["notes"]


def test_json_is_one_document_for_all_suites_and_has_no_number_that_json_lacks(store):
    for name in ("one", "two"):
        plan = suite(store, {"ce": [[0.5]], "elr": [[0.6]]}, name=name)
        store.write_plan(plan)
    text = tables.render_suites(store, None, methods=registry.method_files(), fmt="json")

    def refused(name):
        raise AssertionError(name)

    found = json.loads(text, parse_constant=refused)
    assert (found["format"], found["schema"]) == ("nlbench-table", 1)
    assert [one["suite"] for one in found["suites"]] == ["one", "two"]
    assert text.isascii()
    assert json.loads(json_table.document([{"inf": math.inf, "nan": math.nan}]))["suites"] == [
        {"inf": None, "nan": None}
    ]


# ---- Names --------------------------------------------------------------------------------------

HOSTILE = [
    "<script>alert(1)</script>",
    "a|b",
    "$x$",
    "_x_",
    "R&D; 50% #1 ~ ^ \\ {z}",
    "[10pt]",
    "a\x1b[2Jb\u202ec\x00",
    "\N{HEBREW LETTER SHIN}\N{HEBREW LETTER LAMED}",
    "=1+1",
    "x" * 300,
]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_changes_no_shape_of_a_table(store, name):
    plan = renamed(suite(store, APART), "elr", name)
    plain = suite(store, APART)
    for fmt in ("md", "latex", "html"):
        for purpose in (None, "paper"):
            options = {"fmt": fmt, "purpose": purpose, "columns": ("last", "minus")}
            text = render(store, plan, **options)
            usual = render(store, plain, **options)
            for sign in ("<table", "<th", "<td", r"\begin", r" \\" + "\n", "\n| "):
                assert text.count(sign) == usual.count(sign), (fmt, purpose, sign)
            assert not re.search(r"(?<!\\)<script", text)
            assert "\x1b" not in text
            assert "\u202e" not in text


@pytest.mark.parametrize("name", HOSTILE)
def test_data_formats_have_the_name_itself(store, name):
    plan = renamed(suite(store, APART), "elr", name)
    (found,) = json.loads(render(store, plan, fmt="json"))["suites"]
    assert found["rows"][1]["row"] == name

    lines = list(csv.DictReader(io.StringIO(render(store, plan, fmt="csv"))))
    assert lines[1]["row"].removeprefix("'") == name


def test_the_tables_are_the_same_every_time(store):
    plan = four_conditions(store)
    for options in ({"fmt": "json"}, {"fmt": "html"}, {"purpose": "paper"}, {"fmt": "csv"}):
        assert render(store, plan, **options) == render(store, plan, **options)


# ---- What the sentences of several conditions need ----------------------------------------------


def flat(text):
    return " ".join(text.split())


def test_tests_and_the_error_of_the_test_set_are_named_once_for_all_conditions(store):
    wild = [0.2, 0.9, 0.5, 0.8, 0.3]
    values = {row: [*of * 2] for row, of in APART.items()}
    plan = suite(store, values, (("Digits", 0.2), ("Digits", 0.4)))
    # elr minus ce is the same for every seed.
    assert flat(render(store, plan)).endswith("- p: paired t test over seeds.")
    only = {row: of * 2 for row, of in APART.items() if row != "gce"}
    same = flat(render(store, suite(store, only, (("Digits", 0.2), ("Digits", 0.4)))))
    assert same.endswith("it needs differences that are not all the same.")

    values["elr"] = [[0.901, 0.912, 0.903, 0.907, 0.909]] * 2
    plan = suite(store, values, (("Digits", 0.2), ("Digits", 0.4)))
    text = flat(render(store, plan))
    assert (
        "- In words: rows are told apart by Tukey's test with one spread for all rows and" in text
    )
    assert "5% for any false difference in a column if the rows spread alike, up to 13%" in text
    assert "set, one standard error for the best row: 9.5 points over 10 test examples. It" in text
    assert "p: paired t test over seeds, Holm-corrected for the 2 tests of each column." in text

    values["sl"] = [[0.895, 0.899, 0.893, 0.897, 0.900], wild]
    plan = suite(store, values, (("Digits", 0.2), ("Digits", 0.4)))
    text = flat(render(store, plan))
    assert "Tukey's test with one spread for all rows and seeds as blocks (Digits symmetric" in text
    assert (
        "0.2); a paired t test of each pair, with Holm's correction (Digits symmetric 0.4)" in text
    )

    # A better best row has another error.
    values = {row: of * 3 for row, of in APART.items()}
    values["gce"] = [*APART["gce"] * 2, [0.95, 0.951, 0.949, 0.95, 0.952]]
    plan = suite(store, values, TWO_BY_TWO[:3])
    text = flat(render(store, plan))
    same = "9.5 points over 10 test examples (Digits symmetric 0.2, Digits symmetric 0.4); 7."
    assert same in text


def test_one_seed_has_no_p_values_and_says_so(store):
    values = {row: [of[0][:1]] * 2 for row, of in APART.items()}
    text = flat(render(store, suite(store, values, (("Digits", 0.2), ("Digits", 0.4)))))
    assert "p: paired t test over seeds; it needs two seeds that both rows have." in text
    assert "told apart by" not in text


# ---- Conditions ---------------------------------------------------------------------------------


def test_a_condition_chooses_among_the_suites_of_a_store(store):
    rates = (("Digits", 0.2), ("Digits", 0.25))
    for name, conditions in (("both", rates), ("one", rates[1:])):
        values = {"ce": [[0.6]] * len(conditions), "elr": [[0.9]] * len(conditions)}
        plan = suite(store, values, name=name, conditions=conditions)
        store.write_plan({"schema": 1, **plan})

    def shown(*names):
        text = tables.render_suites(store, None, methods={}, conditions=names)
        return re.findall(r"\*\*(\w+): (.*?);", text)

    # This title is a part of the other one, and a whole name all the same.
    assert shown("Digits symmetric 0.2") == [("both", "Digits symmetric 0.2")]
    assert shown("0.25") == [("both", "Digits symmetric 0.25"), ("one", "Digits symmetric 0.25")]
    with pytest.raises(SuiteError, match="no such condition in both and one"):
        shown("0.3")
    with pytest.raises(SuiteError, match="fits several of both"):
        shown("digits")


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        (
            [(0, "last"), (0, "best")],
            "for last epoch; paired t tests with Holm's correction for best",
        ),
        ([(0, "last"), (1, "last")], "for Digits; paired t tests with Holm's correction for CIFAR"),
        (
            [(0, "last"), (1, "best")],
            "for Digits, last epoch; paired t tests with Holm's correction",
        ),
    ],
)
def test_a_caption_says_which_column_has_which_test(columns, words):
    analyses = []
    for (condition, metric), adjust in zip(columns, ("tukey", "holm"), strict=True):
        row = SimpleNamespace(tied=("a",))
        analysis = SimpleNamespace(metric=metric, adjust=adjust, rows=[row], level=0.95)
        analyses.append((condition, analysis))
    results = SimpleNamespace(conditions=["Digits", "CIFAR-10"], rows=[], all_rows=[])

    assert words in paper._of_bold(results, analyses)[0]
