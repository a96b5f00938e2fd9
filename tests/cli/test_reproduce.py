"""`nlbench reproduce` and `nlbench merge`: what they print, and their exit statuses."""

import shutil

import pytest
from made_up import rewrite, write_run

from nlbench.results.store import Store


@pytest.fixture
def out(trained, place):
    """Return a copy of a store with two runs, and their store object."""
    shutil.copytree(trained, place / "results")
    return Store(place / "results")


# ---- reproduce -----------------------------------------------------------------------------------


def test_reproduce_draws_trains_and_compares(cli, out):
    result = cli("reproduce", out.root, "--sample", 1, "--device", "cpu")

    assert result.exit_code == 0, result.output
    assert "1 finished run of" in result.stderr
    assert "drawn with --seed 0: " in result.stderr
    first, last = result.stdout.splitlines()
    assert ": reproduced bit for bit: " in first
    assert last == "1 run: 1 reproduced bit for bit; 1 noted in the store"


def test_a_difference_ends_with_status_1(cli, out):
    def change(history):
        history[0]["test_accuracy"] = "0.99"

    key, other = out.run_keys()
    rewrite(out, key, history=change)
    (out.run_dir(other) / "history.csv").unlink()
    result = cli("reproduce", out.root, key[:6], other, "--device", "cpu")

    assert result.exit_code == 1
    assert "not reproduced: first difference: epoch 0, test_accuracy: 0.99" in result.stdout
    assert "could not be tried: " in result.stdout
    assert result.stdout.endswith("2 runs: 1 not reproduced, 1 could not be tried\n")


def test_what_cannot_be_tried_ends_with_status_2(cli, out):
    for key in out.run_keys():
        (out.run_dir(key) / "predictions.npz").unlink()
    result = cli("reproduce", out.root)

    assert result.exit_code == 2
    assert "predictions.npz: it is missing" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sample", "0"], "--sample '0': must be all or a number from 1 on"),
        (["--sample", "many"], "--sample 'many': must be all"),
        (["abc", "--sample", "1"], "--sample and KEY exclude each other"),
        (["abc", "--suite", "trial"], "--suite and KEY exclude each other"),
        (["zzz"], "key 'zzz' begins no run"),
        (["--suite", "trail"], "Did you mean 'trial'?"),
        (["--device", "cuda:99"], "--device cuda:99"),
        (["--from", "no-such.yaml"], "unknown suite 'no-such.yaml'"),
        (["--methods-dir", "nothing"], "nothing: not a folder of method files"),
        (["--jobs", "0"], "--jobs '0'"),
    ],
)
def test_a_wrong_call_is_refused_before_anything_is_trained(refused, out, arguments, message):
    assert message in refused("reproduce", out.root, *arguments)


def test_a_folder_without_runs_is_refused(refused, place):
    assert "there is no such folder" in refused("reproduce", place / "nothing")


# ---- merge ---------------------------------------------------------------------------------------


def test_merge_says_what_it_has_done(cli, out, place):
    result = cli("merge", out.root, "--out", place / "mine", "--dry-run")
    assert result.exit_code == 0
    assert "runs: 2 would be added" in result.stdout
    assert not (place / "mine").exists()

    result = cli("merge", out.root, "--out", place / "mine")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("runs: 2 added, 0 there already with the same numbers")
    assert "suites: 1 added or extended" in result.stdout
    assert cli("table", place / "mine").stdout == cli("table", out.root).stdout
    assert cli("verify", place / "mine").exit_code == 0


def test_merge_names_what_differs_and_what_is_damaged(cli, place):
    ours, theirs = Store(place / "results"), Store(place / "theirs")
    key = write_run(ours)
    write_run(theirs, metrics={"last": 0.7, "best": 0.75}, environment={"torch": "2.2"})
    damaged = write_run(theirs, seed=1)
    (theirs.run_dir(damaged) / "history.csv").unlink()
    result = cli("merge", theirs.root)

    assert result.exit_code == 1
    assert f"{key} (ce · digits · seed 0): metrics.last: 0.75 here, 0.7 there" in result.stdout
    assert "torch 2.1 here, 2.2 there" in result.stdout
    assert "left out: history.csv: it is missing" in result.stdout
    assert "(1 of ours kept, 0 replaced), 1 left out" in result.stdout
    assert cli("merge", theirs.root, "--take", "theirs").exit_code == 1
    assert ours.read(key).metrics["last"] == 0.7


def test_merge_refuses_what_is_no_other_store(refused, out, place):
    assert "there is no such folder" in refused("merge", place / "nothing")
    assert "is the store itself" in refused("merge", out.root)
