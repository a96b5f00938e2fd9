"""The commands that print records: `table` and `show`."""

import json
import re

import pytest


@pytest.mark.parametrize("form", ["md", "csv", "latex"])
def test_table_in_each_form(cli, trained, form):
    expected = {"md": "| gce ", "csv": ",gce,", "latex": r"\begin{tabular}"}

    result = cli("table", trained, "--suite", "trial", "--format", form)

    assert (result.exit_code, result.stderr) == (0, "")
    assert expected[form] in result.stdout


@pytest.mark.parametrize(
    ("arguments", "pattern"),
    [
        (
            ["nowhere"],
            "nowhere: has no results of any suite; `nlbench run SUITE --out nowhere` makes them",
        ),
        (["STORE", "--suite", "trail"], "'trail'.*There are: trial.*Did you mean 'trial'"),
        (["STORE", "--metric", "lst"], "--metric lst.*Did you mean 'last'"),
        (["STORE", "--against", "cee"], "--against cee.*Did you mean 'ce'"),
        (["STORE", "--format", "htm"], "latex.*html|html.*latex"),
    ],
)
def test_a_refused_table_says_why(refused, trained, arguments, pattern):
    words = [trained if word == "STORE" else word for word in arguments]
    message = refused("table", *words)
    assert re.search(pattern, message), message


def test_show_prints_one_record(cli, refused, trained):
    key = next(trained.glob("runs/*")).name

    record = json.loads(cli("show", key[:8], "--out", trained).stdout)
    assert record["key"] == key
    assert record["noise"]["noise_rate_full"] == pytest.approx(0.4, abs=0.01)

    # No key begins with "zzz" and all begin with "". Either way the keys are listed.
    for wrong in ("zzz", ""):
        message = refused("show", wrong, "--out", trained)
        assert re.search(rf"{key}  \w+ · digits symmetric 0.4 · seed 0 · done", message)
    assert "nowhere: there is no such folder" in refused("show", key, "--out", "nowhere")
