"""`nlbench run --shard`: what each task of a job array trains, prints and ends with."""

import re

import pytest
from trial import SUITE

FOUR = (
    SUITE.replace("trial", "four")
    .replace("seeds: [0]", "seeds: [0, 1]")
    .replace("epochs: 1", "epochs: 1, subset: 200")
)
TUNED = """\
name: tuned
protocol: digits
track: tuned
tuning: {tries: 2, protocol: {lr: [0.05, 0.1]}}
datasets:
  - {name: digits, noise: {kind: symmetric, rate: 0.4}}
methods: {ce: {}}
seeds: [0]
overrides: {epochs: 1, subset: 200, val_fraction: 0.1}
"""


@pytest.fixture
def shard(cli, place):
    """Return shard("1/2", ...), which runs one shard of a suite of four runs."""
    (place / "four.yaml").write_text(FOUR)

    def call(which, *options, suite="four.yaml"):
        return cli("run", suite, "--out", "store", "--shard", which, *options)

    return call


def trained(result):
    """Return the runs that a command has reported, as (row, seed)."""
    return re.findall(r"(?m)^\[\d+/\d+\] (\w+) .* seed (\d+):", result.stderr)


def test_shards_train_the_suite_and_the_last_one_prints_the_table(shard, cli):
    first = shard("1/2", "--no-leftovers")
    assert first.exit_code == 0, first.stderr
    # A table with holes is not printed.
    assert first.stdout == ""
    assert "shard 1/2: 2 of its 2 runs to do\n" in first.stderr
    assert "shard 1/2 has ended; 2 of 4 runs of four have no record yet." in first.stderr
    assert "`nlbench table store` shows what is there" in first.stderr
    # This very command would leave them again.
    assert "the same command trains them" not in first.stderr
    assert "or this one without --no-leftovers" in first.stderr

    second = shard("2/2", "--no-leftovers")
    assert second.exit_code == 0
    assert len(trained(first)) == len(trained(second)) == 2
    assert not set(trained(first)) & set(trained(second))
    assert second.stdout == cli("table", "store").stdout
    assert second.stdout.startswith("**four: ")

    # Whoever asks later gets the table, too.
    assert shard("1/2").stdout == second.stdout


def test_a_shard_trains_what_others_have_left(shard):
    only = shard("2/2")
    assert only.exit_code == 0
    assert "shard 2/2: 2 of its 2 runs to do; then those of 2 in other shards" in (only.stderr)
    assert len(set(trained(only))) == 4
    assert only.stdout.startswith("**four: ")


def test_runs_that_others_train_are_not_waited_for(shard, place):
    from nlbench import api

    sweep = api.prepare(place / "four.yaml", out=place / "store", device="cpu")
    held = sweep.specs[0].key
    with sweep.store.lock(held) as mine:
        assert mine
        result = shard("1/1")
    assert result.exit_code == 0
    assert len(trained(result)) == 3
    assert "waiting" not in result.stderr
    assert "1 of 4 runs of four have no record yet" in result.stderr
    assert len(trained(shard("1/1"))) == 1


def test_dry_run_counts_the_shard(shard, cli):
    assert cli("run", "four.yaml", "--out", "store", "--only", "gce").exit_code == 0
    counted = shard("1/2", "--dry-run").stdout
    assert "four: 4 runs: 2 done, 2 missing, 0 failed, 0 diverged; 2 to do" in counted
    assert "shard 1/2: 1 of its 2 runs to do; then those of 1 in other shards" in counted
    assert (
        "shard 1/2: 1 of its 2 runs to do\n" in shard("1/2", "--dry-run", "--no-leftovers").stdout
    )


def test_a_failed_run_is_tried_again_by_its_own_shard_alone(shard, place):
    (place / "failing.yaml").write_text(FOUR.replace("ce: {}", "failing: {}", 1))
    options = ("--methods-dir", "own")
    both = [shard(which, *options, suite="failing.yaml") for which in ("1/2", "2/2")]

    # The first has trained everything. Each shard answers for its own failures.
    assert [result.exit_code for result in both] == [1, 1]
    assert sorted(trained(both[0])) == [
        ("failing", "0"),
        ("failing", "1"),
        ("gce", "0"),
        ("gce", "1"),
    ]
    assert [row for row, _ in trained(both[1])] == ["failing"]
    assert "1 of 4 runs failed or diverged" in both[1].stderr


def test_shards_of_a_tuned_suite_share_the_tries_and_then_the_runs(shard, place):
    (place / "tuned.yaml").write_text(TUNED)
    first = shard("1/2", "--no-leftovers", suite="tuned.yaml")
    # There is more to do for the same command.
    assert first.exit_code == 75, first.stderr
    assert "[1/1] ce#" in first.stderr
    assert first.stdout == ""
    assert "1 of 2 runs of tuned#tries have no record yet, and the tries choose" in first.stderr

    second = shard("2/2", suite="tuned.yaml")
    assert second.exit_code == 0, second.stderr
    assert second.stdout.startswith("**tuned: ")
    assert "Tuned: every row had 2 tries" in second.stdout


@pytest.mark.parametrize(
    ("options", "pattern"),
    [
        (["--shard", "0/2"], "shards are counted from 1"),
        (["--shard", "3/2"], "of 2 shards the last is 2/2"),
        (["--shard", "1/2", "--debug"], "--debug and --shard exclude each other"),
        (["--shard", "1/2", "--executor", "ray"], "--shard and --executor ray exclude each other"),
        (["--no-leftovers"], "--no-leftovers is for --shard"),
    ],
)
def test_options_that_cannot_be_are_refused(refused, options, pattern):
    assert re.search(pattern, refused("run", "trial.yaml", *options))
