"""The command `compare`, from the records of a store to what it prints."""

import json
import re

import made_tables
import pytest
from scipy import stats

from nlbench.results.store import Store

ELR = [0.90, 0.93, 0.92, 0.90, 0.91]
GCE = [0.89, 0.90, 0.90, 0.88, 0.90]
CE = [0.70, 0.71, 0.70, 0.69, 0.71]


def write_suite(folder, name, values):
    store = Store(folder)
    store.write_plan({"schema": 1, **made_tables.suite(store, values, name=name)})


@pytest.fixture
def out(place):
    """Return a store with the suite s of three rows."""
    write_suite(place / "results", "s", {"ce": [CE], "elr": [ELR], "gce": [GCE]})
    return place / "results"


def compared(text):
    """Return the cells of each line of a printed table by the line's name."""
    found = {}
    for line in text.splitlines():
        if line.startswith("| "):
            name, *cells = (cell.strip() for cell in line.strip("|").split("|"))
            found[name] = cells
    return found


def test_two_rows_are_compared_seed_by_seed(cli, out):
    result = cli("compare", "elr", "gce", "--out", out, "--power", "0.5")
    assert (result.exit_code, result.stderr) == (0, "")

    expected = stats.ttest_rel(ELR, GCE)
    low, high = (100 * end for end in expected.confidence_interval())
    interval, p = f"{low:+.2f} to {high:+.2f}", f"{expected.pvalue:.3f}"
    correlation = f"{stats.pearsonr(ELR, GCE).statistic:.2f}"
    assert compared(result.stdout)["paired t"] == ["+1.80", interval, p, "5", correlation]
    p_of_welch = stats.ttest_ind(ELR, GCE, equal_var=False).pvalue
    assert compared(result.stdout)["Welch's t"][2:] == [f"{p_of_welch:.3f}", "5", "-"]

    text = " ".join(result.stdout.split())
    assert text.startswith(
        "**elr minus gce: Digits symmetric 0.4; test accuracy after the last epoch, in points; "
        "suite s**"
    )
    words = f"elr is better than gce by 1.80 points (95% interval: {low:.2f} to {high:.2f})"
    assert words in text
    assert "As one of the 3 pairs of the table" in text
    # statsmodels: TTestPower().solve_power(nobs=5, power=0.8) * 0.83666 is 1.41.
    assert "With five seeds a true difference of 1.4 points is found with probability 0.8" in text
    # TTestPower().solve_power(0.5 / 0.83666, power=0.8) is 23.9 seeds.
    assert "For 0.50 points it needs 24 seeds." in text


@pytest.mark.parametrize(
    ("rows", "words"),
    [(("elr", "gce"), "elr is better than gce"), (("gce", "elr"), "gce is worse than elr")],
)
def test_the_words_alone_are_one_sentence(cli, out, rows, words):
    result = cli("compare", *rows, "--out", out, "--format", "words")

    assert (result.exit_code, result.stderr) == (0, "")
    low, high = (100 * end for end in stats.ttest_rel(ELR, GCE).confidence_interval())
    assert " ".join(result.stdout.split()) == (
        f"- Digits symmetric 0.4, test accuracy after the last epoch: {words} by 1.80 points "
        f"(95% interval: {low:.2f} to {high:.2f})."
    )


def test_json_has_the_same_numbers_unrounded(cli, out):
    result = cli("compare", "gce", "elr", "--out", out, "--format", "json", "--power", "0.5")
    assert (result.exit_code, result.stderr) == (0, "")
    (found,) = json.loads(result.stdout)

    expected = stats.ttest_rel(GCE, ELR)
    assert found["paired"]["mean"] == pytest.approx(-0.018)
    assert found["paired"]["p"] == pytest.approx(expected.pvalue)
    assert found["paired"]["high"] == pytest.approx(expected.confidence_interval().high)
    assert found["names"] == ["gce", "elr"]
    assert (found["a"]["n"], found["pairs"], found["adjust"]) == (5, 3, "tukey")
    assert (found["power"]["needed"], found["power"]["seeds"]) == (24, 5)
    assert found["sentence"].startswith("gce is worse than elr by 1.80 points")


def test_rows_of_two_folders_are_compared(cli, out, place):
    write_suite(place / "other", "t", {"elr": [[value - 0.02 for value in ELR]]})

    result = cli("compare", "elr", "elr", "--out", out, "--out-b", "other", "--suite-b", "t")
    assert (result.exit_code, result.stderr) == (0, "")
    text = " ".join(result.stdout.split())
    assert "suites s and t" in text
    assert "elr of s is better than elr of t by 2.00 points" in text


def test_the_folders_tell_two_suites_of_one_name_apart(cli, out, place):
    write_suite(place / "other", "s", {"sl": [[value - 0.02 for value in ELR]]})

    # The suite of A is found by A alone, because B is in another folder.
    result = cli("compare", "elr", "sl", "--out", out, "--out-b", "other", "--format", "words")
    assert (result.exit_code, result.stderr) == (0, "")
    text = " ".join(result.stdout.split())
    assert f"elr of s in {out} is better than sl of s in other by 2.00 points" in text


def test_the_same_folder_given_twice_is_one_suite(refused, out, place):
    message = refused("compare", "elr", "elr", "--out", out, "--out-b", out / ".." / out.name)
    assert "elr: compared with itself" in message


@pytest.mark.parametrize(
    ("words", "pattern"),
    [
        ("elr gcee", r"no suite of .* has\s+them.*Rows\s+there\s+are: ce, elr,\s+gce.*'gce'"),
        ("elr elr --suite s", "compared with itself"),
        ("elr gce --suite r", "unknown suite of .* 'r'"),
        ("elr gce --metric lst", "--metric lst: unknown.*Did you mean 'last'"),
        ("elr gce --metric nll", "elr has no value of NLL: its five finished runs did not"),
        ("elr gce --condition 0.2", "--condition '0.2': no such condition in s"),
        ("elr gce --power 0", "--power 0: give a difference above 0, such as 0.5"),
        ("elr gce --out nowhere", "nowhere: has no results of any suite"),
    ],
)
def test_a_refusal_names_what_was_given(refused, out, words, pattern):
    given = words.split()
    if "--out" not in given:
        given += ["--out", out]
    message = refused("compare", *given)
    assert re.search(pattern, message, re.DOTALL), message
