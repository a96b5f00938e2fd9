"""The Python interface: `nlbench.run`, `load` and `table`, its names, errors and warnings."""

import json
import re
import subprocess
import sys
import textwrap
import warnings

import numpy as np
import pandas as pd
import pytest
from trial import FAILING

import nlbench
from nlbench import api, executors, hardware
from nlbench.executors import Choice, progress
from nlbench.plan.shards import Shard
from nlbench.results.store import Store

SUITE = {
    "name": "trial",
    "protocol": "digits",
    "datasets": [{"name": "digits", "noise": {"kind": "symmetric", "rate": 0.4}}],
    "methods": {
        "ce": {},
        "soft": {"method": "bootstrap", "kind": "soft"},
        "hard": {"method": "bootstrap", "kind": "hard"},
    },
    "seeds": [0],
    "overrides": {"epochs": 1},
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Return a store with the three runs of the suite."""
    out = tmp_path_factory.mktemp("api") / "results"
    nlbench.run(SUITE, out=out, progress=False)
    return out


# ---- Names ---------------------------------------------------------------------------------------


def test_public_names_are_offered_for_completion_and_exist():
    assert {"run", "load", "table", "method", "ops"} <= set(dir(nlbench))
    assert {"SuiteError", "DataError", "DataMissing", "StoreError"} <= set(dir(nlbench))
    for name in nlbench.__all__:
        assert getattr(nlbench, name) is not None

    assert issubclass(nlbench.DataMissing, nlbench.UserError)
    assert re.fullmatch(r"\d+\.\d+.*", nlbench.__version__)


def test_importing_nlbench_imports_little():
    code = "import sys, nlbench; dir(nlbench); print([n for n in sys.modules if 'pandas' in n])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert found.stdout == "[]\n"


# ---- Arguments -----------------------------------------------------------------------------------

# What is given, the error, and what its message says.
REFUSED = [
    ({"only": "ce"}, TypeError, r"only must be a list.*Write only=\['ce'\]"),
    ({"only": "ce, soft"}, TypeError, r"Write only=\['ce', 'soft'\]"),
    ({"only": 5}, TypeError, "only must be a list"),
    ({"only": ["ce", 3]}, TypeError, "and 3 is no text"),
    ({"only": []}, ValueError, "only is empty"),
    ({"only": ["cee"]}, nlbench.SuiteError, "only cee: no such row.*Did you mean 'ce'"),
    ({"conditions": "worst"}, TypeError, r"conditions must be.*Write conditions=\['worst'\]"),
    ({"conditions": []}, ValueError, "conditions is empty"),
    (
        {"conditions": ["worst"]},
        nlbench.SuiteError,
        "'worst': no such condition in trial. There are: Digits",
    ),
    ({"seeds": 0}, TypeError, r"seeds must be a list of integers, got 0. Write seeds=\[0\]"),
    ({"seeds": "0"}, TypeError, "seeds must be a list of integers, got '0'"),
    ({"seeds": ["0"]}, TypeError, "and one is '0'"),
    ({"seeds": [0.5]}, TypeError, "and one is 0.5"),
    ({"seeds": [True]}, TypeError, "and one is True"),
    ({"seeds": [-1]}, ValueError, "and one is -1"),
    ({"seeds": []}, ValueError, "seeds is empty"),
    ({"jobs": "x"}, ValueError, "jobs must be an integer from 1 on, or \"auto\", got 'x'"),
    ({"jobs": 0}, ValueError, "jobs must be an integer from 1 on"),
    ({"jobs": 1.5}, TypeError, "jobs must be an integer from 1 on"),
    ({"jobs": [2]}, TypeError, r"jobs must be .*got \[2\]"),
    ({"stale": "foo"}, ValueError, 'stale must be "keep" or "rerun"'),
    ({"stale": "reruns"}, ValueError, "Did you mean 'rerun'"),
    ({"stale": None}, TypeError, "stale must be"),
    ({"overrides": ["epochs=2"]}, TypeError, "overrides must be a mapping"),
    ({"overrides": {3: 1}}, TypeError, "overrides has the key 3"),
    ({"overrides": {"a.b": 1}}, ValueError, r'write overrides=\{"a": \{"b": 1\}\}'),
    ({"overrides": {"epoch": 1}}, nlbench.SuiteError, r'^overrides\["epoch"\].*mean .epochs'),
    ({"device": 0}, TypeError, 'Write device="cuda:0"'),
    ({"device": None}, TypeError, "device must be a text"),
    ({"device": "gpu"}, nlbench.SuiteError, "^device gpu: must be auto"),
    ({"data_dir": 3}, TypeError, "data_dir must be the path"),
    ({"methods_dir": ["a"]}, TypeError, "methods_dir must be the path"),
    ({"methods_dir": "nowhere"}, nlbench.SuiteError, "from methods_dir or NLBENCH_METHODS"),
    ({"out": None}, TypeError, "out must be the path"),
    ({"out": ""}, ValueError, "out must be the path"),
    ({"checkpoint_seconds": "x"}, TypeError, "checkpoint_seconds must be a number"),
    ({"checkpoint_seconds": -1}, ValueError, "checkpoint_seconds must be a number"),
    ({"checkpoint_seconds": float("nan")}, ValueError, "checkpoint_seconds must be a number"),
    ({"cuda_graphs": "no"}, TypeError, "cuda_graphs must be True, False or None"),
    ({"whole_steps": "no"}, TypeError, "whole_steps must be True or False"),
    ({"progress": 1}, TypeError, "progress must be True or False"),
    ({"seed": 0}, TypeError, "nlbench.run has no argument seed.*Did you mean seeds"),
    ({"epochs": 2}, TypeError, "A value of the protocol is given as overrides"),
]


@pytest.mark.parametrize(("given", "error", "pattern"), REFUSED, ids=str)
def test_a_wrong_argument_is_refused_by_its_name(tmp_path, given, error, pattern):
    with pytest.raises(error, match=pattern) as raised:
        nlbench.run(SUITE, **{"out": tmp_path / "results", **given})

    # Options are for the command line.
    assert "--" not in str(raised.value)
    assert not (tmp_path / "results").exists()


def test_a_suite_of_another_type_and_arguments_without_names_are_refused():
    with pytest.raises(TypeError, match="suite must be the path of a suite file"):
        nlbench.run(3)
    with pytest.raises(TypeError, match="given by name, for example out='results'"):
        nlbench.run(SUITE, "results")


def test_numbers_of_numpy_make_the_same_runs(trained):
    frame = nlbench.run(
        SUITE,
        out=trained,
        only=("ce",),
        seeds=np.arange(1),
        overrides={"epochs": np.int64(1)},
        progress=False,
    )

    assert list(frame["row"]) == ["ce"]
    assert set(frame.index) <= set(nlbench.load(trained).index)


@pytest.mark.parametrize(
    ("given", "error", "pattern"),
    [
        ({"suite": "tria"}, nlbench.SuiteError, "'tria'.*Did you mean 'trial'"),
        ({"suite": 3}, TypeError, "suite must be a text"),
        ({"fmt": "pdf"}, ValueError, "fmt must be"),
        ({"format": "md"}, TypeError, "no argument format.*Did you mean fmt"),
        ({"metric": "lst"}, nlbench.SuiteError, "^metric lst: unknown"),
        ({"against": "c"}, nlbench.SuiteError, "^against c: no such row"),
        ({"details": 1}, TypeError, "details must be True or False"),
        (
            {"fmt": "csv", "purpose": "paper"},
            nlbench.SuiteError,
            '^purpose and fmt="csv" exclude each other',
        ),
        (
            {"purpose": "paper", "against": "ce"},
            nlbench.SuiteError,
            r'^purpose and against exclude .* as in columns=\["last", "minus"\]',
        ),
        (
            {"group_by": "noise", "details": True},
            nlbench.SuiteError,
            "^details and group_by exclude each other",
        ),
        ({"ascending": False}, nlbench.SuiteError, "^ascending=False: there is nothing to order"),
    ],
    ids=str,
)
def test_a_wrong_argument_of_table_is_refused_by_its_name(trained, given, error, pattern):
    with pytest.raises(error, match=pattern):
        nlbench.table(trained, **given)


@pytest.mark.parametrize(("given", "error"), [(3, TypeError), (None, TypeError), ("", None)])
def test_a_key_is_a_text_that_begins_one_run(trained, given, error):
    with pytest.raises(error or nlbench.StoreError, match=r"key (must be a text|'' begins 3 runs)"):
        nlbench.load_weights(given, trained)


# ---- Results -------------------------------------------------------------------------------------


def test_load_names_the_rows(trained):
    by_row = nlbench.load(trained).reset_index().set_index("row")

    assert set(by_row.index) == {"ce", "soft", "hard"}
    assert by_row.loc["soft", "params"]["kind"] == "soft"


def test_load_of_a_store_without_its_plan_names_the_methods(tmp_path, trained):
    (tmp_path / "merged").mkdir()
    (tmp_path / "merged" / "runs").symlink_to(trained / "runs")

    assert set(nlbench.load(tmp_path / "merged")["row"]) == {"ce", "bootstrap"}


@pytest.mark.parametrize(
    ("place", "pattern"),
    [
        ("nowhere", "nowhere: there is no such folder"),
        ("results/runs", "holds no records.*Did you mean '.*/results'"),
        ("", "holds no records.*Did you mean '.*/results'"),
        ("results/suites/trial.json", "is a file"),
    ],
)
def test_load_of_what_is_no_store_is_an_error(trained, place, pattern):
    with pytest.raises(nlbench.StoreError, match=pattern):
        nlbench.load(trained.parent / place)


def test_a_store_without_a_finished_run_gives_an_empty_frame(tmp_path):
    (tmp_path / "runs").mkdir()
    frame = nlbench.load(tmp_path)

    assert len(frame) == 0
    assert list(frame[frame["status"] == "done"]["last"]) == []


def test_frames_can_be_written_as_parquet(tmp_path, trained):
    pytest.importorskip("pyarrow")
    for number, frame in enumerate([nlbench.load(trained), nlbench.run(SUITE, out=trained)]):
        # A selection of lines whose method has no hyperparameters.
        for part in (frame, frame[frame["row"] == "ce"]):
            path = tmp_path / f"{number}-{len(part)}.parquet"
            part.to_parquet(path)
            read = pd.read_parquet(path)

            assert list(read.index) == list(part.index)
            assert list(read["last"]) == list(part["last"])
            assert [json.loads(text) for text in read["params"]] == list(part["params"])
        assert isinstance(frame["params"].iloc[0], dict)


def test_table_returns_what_the_command_prints(trained, capsys):
    text = nlbench.table(trained, suite="trial")

    assert text.startswith("**trial: Digits symmetric 0.4")
    assert "| soft " in text
    assert capsys.readouterr() == ("", "")
    assert nlbench.table(trained, fmt="csv").startswith("suite,condition,row")


def test_conditions_are_named_by_their_titles_or_parts_of_them(tmp_path):
    rates = [{"name": "digits", "noise": {"kind": "symmetric", "rate": r}} for r in (0.2, 0.4)]
    suite = {**SUITE, "datasets": rates, "methods": {"ce": {}}}

    frame = nlbench.run(suite, out=tmp_path, conditions=["0.4"], progress=False)

    assert list(frame["noise_rate_train"].round(1)) == [0.4]
    assert len(nlbench.load(tmp_path)) == 1
    # The plan has both, so that the other one can follow.
    assert "Digits symmetric 0.2" in nlbench.table(tmp_path)
    shown = nlbench.table(tmp_path, conditions=["symmetric 0.4"])
    assert shown.startswith("**trial: Digits symmetric 0.4;")
    assert "0.2" not in shown
    assert "runs are missing" not in shown

    with pytest.raises(nlbench.SuiteError, match="condition 'symmetric' fits several of trial"):
        nlbench.run(suite, out=tmp_path, conditions=["symmetric"], progress=False)
    with pytest.raises(nlbench.SuiteError, match=r"condition '0\.6': no such condition in trial"):
        nlbench.table(tmp_path, conditions=["0.6"])


def test_a_tuned_suite_is_not_narrowed_to_a_condition(tmp_path):
    tuned = {"track": "tuned", "tuning": {"tries": 2, "seed": 9, "protocol": {"lr": [0.1, 0.2]}}}
    with pytest.raises(nlbench.SuiteError, match="a tuned suite chooses its settings for all"):
        nlbench.run({**SUITE, **tuned}, out=tmp_path, conditions=["0.4"], progress=False)


# ---- Progress and warnings -----------------------------------------------------------------------


def test_progress_is_shown_and_can_be_switched_off(tmp_path, capsys):
    nlbench.run(SUITE, out=tmp_path / "a", only=["ce"])
    assert "[1/1] ce · Digits symmetric 0.4 · seed 0: " in capsys.readouterr().err

    nlbench.run(SUITE, out=tmp_path / "b", only=["ce"], progress=False)
    assert capsys.readouterr() == ("", "")


def test_an_estimate_names_arguments_of_python(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(hardware, "cores", lambda: 8)
    monkeypatch.setattr(progress, "LONG_SECONDS", -1.0)
    nlbench.run(SUITE, out=tmp_path)
    printed = capsys.readouterr().err
    assert "it would take less time with:\n  jobs=3 trains 3 runs at the same time" in printed
    assert '\n  only=["ce", "soft"] trains two of 3 methods\n' in printed
    assert "--" not in printed


def test_failed_runs_and_lost_rows_are_warned_of(tmp_path):
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "failing.py").write_text(FAILING)
    options = {"out": tmp_path / "results", "methods_dir": tmp_path / "own", "progress": False}
    failing = {**SUITE, "methods": {"ce": {}, "failing": {}}}

    with pytest.warns(nlbench.NlbenchWarning, match="1 of 2 runs failed.*failing, seed 0") as found:
        frame = nlbench.run(failing, **options)
    assert list(frame["status"]) == ["done", "failed"]
    # The warning names the line of this file, where a user can act.
    assert found[0].filename == __file__

    with pytest.warns(nlbench.NlbenchWarning, match="held a suite 'trial' with failing"):
        nlbench.run({**SUITE, "methods": {"ce": {}}}, **options)


def test_runs_that_leave_the_table_for_other_settings_are_warned_of(tmp_path):
    options = {"out": tmp_path, "progress": False}
    one = {**SUITE, "methods": {"ce": {}}}
    nlbench.run(one, **options)
    before = nlbench.load(tmp_path)
    changed = {**one, "overrides": {**one.get("overrides", {}), "lr": 0.02}}

    with pytest.warns(
        nlbench.NlbenchWarning, match=r"with another protocol\.lr, and 1 of its runs"
    ):
        nlbench.run(changed, **options)

    assert set(before.index) < set(nlbench.load(tmp_path).index)
    # Nothing is lost when nothing has changed.
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        nlbench.run(changed, **options)


def test_records_of_other_code_are_warned_of(tmp_path, trained):
    frame = nlbench.load(trained)
    record = Store(trained).read(frame.index[0])
    Store(tmp_path).write(record.model_copy(update={"code": "other"}), [])
    only = [frame["row"].iloc[0]]

    with pytest.warns(nlbench.NlbenchWarning) as found:
        nlbench.run(SUITE, out=tmp_path, only=only, progress=False)

    texts = [str(each.message) for each in found]
    assert 'older version of the code. stale="rerun" trains it again.' in " ".join(texts)


def test_a_suite_without_a_fault_gives_no_warning(trained):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        nlbench.run(SUITE, out=trained, progress=False)
        nlbench.load(trained)
        nlbench.table(trained)


# ---- Starting ahead ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "begun"),
    [
        ({}, False),
        ({"overrides": {"epochs": 2}}, True),
        ({"seeds": [0, 1]}, True),
        ({"stale": "rerun"}, True),
        ({"shard": Shard(1, 2, leftovers=False)}, False),
    ],
)
def test_nothing_is_started_ahead_of_a_suite_that_is_done(
    tmp_path, trained, monkeypatch, options, begun
):
    started = []
    monkeypatch.setattr(executors, "started_ahead", started.append)
    # The file has another name than its suite.
    (tmp_path / "other.v2.yaml").write_text("name: trial\n")
    for suite in (SUITE, tmp_path / "other.v2.yaml"):
        started.clear()
        api.started_ahead(suite, out=trained, executor=Choice(), **options)
        assert bool(started) == begun


# ---- Types ---------------------------------------------------------------------------------------


@pytest.mark.nightly
def test_a_type_checker_knows_the_interface(tmp_path):
    pytest.importorskip("mypy")
    (tmp_path / "u.py").write_text(
        textwrap.dedent(
            """\
            import nlbench

            frame = nlbench.run("quick", only=["ce"])
            text: str = nlbench.table("results")
            version: str = nlbench.__version__
            nlbench.run("quick", jobs="x")
            """
        )
    )
    command = [sys.executable, "-m", "mypy", "u.py"]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert "u.py:6: error:" in found.stdout
    assert found.stdout.count("error:") == 1, found.stdout
