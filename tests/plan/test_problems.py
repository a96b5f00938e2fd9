"""Problems are values with a path, and become text in one place."""

import pytest

from nlbench.build import problem_of
from nlbench.errors import Problem, SuiteError
from nlbench.plan.problems import Problems
from nlbench.plan.yaml_lines import parse_yaml

TEXT = """\
datasets:
  - name: digits
    noise: {rate: 2}
methods:
  elr:
    lam: -1
"""


@pytest.fixture
def problems():
    """Collect the problems of a suite's text."""
    return Problems("trial.yaml", parse_yaml(TEXT))


def lines(problems):
    """Return the lines of the error that the problems become."""
    with pytest.raises(SuiteError) as caught:
        problems.raise_if_any()
    return str(caught.value).splitlines()


def test_a_problem_is_seen_from_further_up():
    problem = Problem(("rate",), "must be in [0, 1]").under("noise").under("datasets", 0)
    assert problem == Problem(("datasets", 0, "noise", "rate"), "must be in [0, 1]")
    assert str(problem) == "datasets.0.noise.rate: must be in [0, 1]"


def test_a_problem_has_the_line_of_the_deepest_key_that_is_there(problems):
    problems.add(["methods", "elr", "lam"], "must be >= 0")
    problems.add(["methods", "elr", "beta"], "is missing")
    problems.add(["datasets", 0, "noise"], "is wrong")
    problems.add(["seeds"], "is required")

    assert lines(problems) == [
        "trial.yaml:6: methods.elr.lam: must be >= 0",
        "trial.yaml:5: methods.elr.beta: is missing",
        "trial.yaml:3: datasets.0.noise: is wrong",
        "trial.yaml: seeds: is required",
    ]


def test_an_option_has_neither_file_nor_line(problems):
    problems.add_option("--set lr", "must be a number")
    assert lines(problems) == ["--set lr: must be a number"]


def test_the_same_line_is_printed_once_and_further_lines_are_indented(problems):
    for _ in range(2):
        problems.add(["methods"], "cannot be imported\nTraceback")
    assert lines(problems) == ["trial.yaml:4: methods: cannot be imported", "    Traceback"]


def test_an_error_keeps_the_problems_it_reports(problems):
    problems.raise_if_any()
    problems.extend([Problem(("name",), "is required")])
    with pytest.raises(SuiteError) as caught:
        problems.raise_if_any()
    assert caught.value.problems == (Problem(("name",), "is required"),)


@pytest.mark.parametrize(
    ("message", "path", "rest"),
    [
        ("lam must be >= 0", ("lam",), "must be >= 0"),
        ("must be below lam", ("lam",), "must be below lam"),
        ("beta must be below lam", ("beta",), "must be below lam"),
        ("lambda must be >= 0", (), "lambda must be >= 0"),
        ("something else", (), "something else"),
    ],
)
def test_a_constructor_s_error_belongs_to_the_value_that_it_names(message, path, rest):
    assert problem_of(ValueError(message), ["lam", "beta"]) == Problem(path, rest)
