"""Privileged information that a suite gives itself: what it may be, and which runs it makes."""

import json

import numpy as np
import pytest
from layouts import write_image

from nlbench.data.places import Places
from nlbench.errors import SuiteError
from nlbench.plan.expand import expand
from nlbench.plan.spec import ESTIMATE
from nlbench.plan.suite_file import read_suite

NOISE = {"kind": "symmetric", "rate": 0.4}


@pytest.fixture
def matrix(tmp_path):
    """Write a transition matrix of ten classes, and return its path."""
    path = tmp_path / "T.csv"
    np.savetxt(path, 0.7 * np.eye(10) + 0.03, delimiter=",")
    return path


@pytest.fixture
def plan(tmp_path):
    """Return plan(methods, **entry), which expands a suite on digits that lies in tmp_path."""

    def make(methods, *entries, **entry):
        datasets = list(entries) or [{"name": "digits", "noise": NOISE, **entry}]
        content = {
            "name": "t", "protocol": "digits", "datasets": datasets, "methods": methods,
            "seeds": [0],
        }  # fmt: skip
        path = tmp_path / "t.yaml"
        path.write_text(json.dumps(content))
        suite, problems = read_suite(path)
        return expand(suite, problems, places=Places(tmp_path / "no-data", tmp_path / "cache"))

    return make


def by_row(made):
    """Return the one run of each row."""
    return {spec.row: spec for spec in made.specs}


def test_an_estimate_is_told_to_the_methods_that_need_it_and_changes_their_keys_only(plan):
    methods = {"ce": {}, "co-teaching": {}, "jocor": {}, "forward": {"T": True}}
    measured, given = by_row(plan(methods)), by_row(plan(methods, noise_rate=0.25))

    changed = {row for row in methods if measured[row].key != given[row].key}
    assert changed == {"co-teaching", "jocor"}
    assert given["jocor"].identity()["told"] == {"noise_rate": 0.25}
    assert "told" not in measured["jocor"].identity()


def test_a_matrix_counts_by_its_content(plan, matrix, tmp_path):
    methods = {"forward": {"T": True}, "backward": {}, "other": {"method": "forward", "T": True}}
    given = by_row(plan(methods, transition="T.csv"))

    told = given["forward"].told["T"]
    assert (told.path, given["backward"].told) == (str(matrix), {})
    assert given["forward"].key == given["other"].key

    # Another place is the same run, and another content is another one.
    copy = tmp_path / "more" / "copy.csv"
    copy.parent.mkdir()
    copy.write_bytes(matrix.read_bytes())
    assert by_row(plan(methods, transition=str(copy)))["forward"].key == given["forward"].key
    np.savetxt(matrix, 0.6 * np.eye(10) + 0.04, delimiter=",")
    assert by_row(plan(methods, transition="T.csv"))["forward"].key != given["forward"].key


def test_a_row_may_give_its_own(plan, matrix):
    methods = {
        "co-teaching": {"noise_rate": 0.2},
        "jocor": {"per_dataset": {"digits": {"noise_rate": ESTIMATE}}},
        "forward": {"T": "T.csv"},
        "backward": {"T": True},
    }
    specs = by_row(plan(methods, noise_rate=0.5))

    assert specs["co-teaching"].told["noise_rate"].identity == 0.2
    assert specs["jocor"].told["noise_rate"].identity == ESTIMATE
    # The path is no hyperparameter: it switches on `T: true`.
    assert specs["forward"].params["T"] is True
    assert specs["forward"].told["T"].path == str(matrix)
    assert specs["backward"].told == {}
    assert plan(methods).told == {
        "co-teaching": ["noise_rate"], "jocor": ["noise_rate"], "forward": ["T"], "backward": ["T"],
    }  # fmt: skip


def test_two_estimates_on_one_dataset_are_two_columns(plan):
    entry = {"name": "digits", "noise": NOISE}
    made = plan({"co-teaching": {}}, {**entry, "noise_rate": 0.1}, {**entry, "noise_rate": 0.3})
    assert [condition.title for condition in made.conditions] == [
        "Digits symmetric 0.4",
        "Digits symmetric 0.4 (told noise_rate 0.3)",
    ]


@pytest.mark.parametrize("wrong", [25, 1, -0.1, "25%", "guess", True, None, [0.2], float("nan")])
def test_an_estimate_that_cannot_be_one(plan, wrong):
    said = r"noise_rate: must be your estimate .*25% is written as 0.25\), or estimate; got"
    with pytest.raises(SuiteError, match=rf"t.yaml:1: datasets.0.{said}"):
        plan({"ce": {}}, noise_rate=wrong)
    with pytest.raises(SuiteError, match=rf"methods.co-teaching.{said}"):
        plan({"co-teaching": {"noise_rate": wrong}})


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("no.csv", r"there is no file .*no\.csv"),
        ("square.csv", r"square\.csv: T must be 10 x 10, got shape \(2, 2\)"),
        ("sums.csv", "each row of T must add up to 1"),
        (".", "there is no file"),
        ("", "must be .*the file of a transition matrix, got ''"),
        (3, "must be .*the file of a transition matrix, got 3"),
        ("a\0b.csv", "holds a NUL character"),
        ("x" * 300, "not a path that can be read"),
        ("~nobody-of-this-name/T.csv", "the home folder is unknown here"),
    ],
)
def test_a_matrix_that_cannot_be_used(plan, tmp_path, value, said):
    np.savetxt(tmp_path / "square.csv", np.eye(2), delimiter=",")
    np.savetxt(tmp_path / "sums.csv", 0.5 * np.eye(10), delimiter=",")

    with pytest.raises(SuiteError, match=rf"(?s)datasets.0.transition: .*{said}"):
        plan({"forward": {"T": True}}, transition=value)
    with pytest.raises(SuiteError, match=rf"(?s)methods.forward.T: .*{said}"):
        plan({"forward": {"T": value}})


def test_a_value_that_is_refused_is_not_missing_as_well(plan, tmp_path):
    for part in ("train", "test"):
        for label in ("ant", "bee"):
            write_image(tmp_path / "f" / part / label / "0.png")
    methods = {
        "co-teaching": {},
        "jocor": {"noise_rate": 30},
        "forward": {"T": True},
        "backward": {"T": "gone.csv"},
    }
    with pytest.raises(SuiteError) as caught:
        plan(methods, {"name": "folder", "path": "f", "noise_rate": 25, "transition": "no.csv"})

    message = str(caught.value)
    assert message.count("must be your estimate") == message.count("there is no file") == 2
    assert "needs to be told" not in message


def test_a_method_that_needs_no_noise_rate_does_not_take_one(plan):
    with pytest.raises(SuiteError, match=r"methods.elr.noise_rate: unknown key. It takes: beta"):
        plan({"elr": {"noise_rate": 0.2}})
