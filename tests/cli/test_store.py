"""The commands `verify` and `repair`: what they print, and their exit statuses."""

import json
import os
import socket

import pytest
from made_stores import dead_process, made_store, plan_of, spec_of, temporary_of

from nlbench.plan.spec import key_of


@pytest.fixture
def store(place):
    return made_store(place / "results")


@pytest.fixture
def record(store):
    """Return the path of one record."""
    return store.run_dir(key_of(spec_of("ce", 0))) / "record.json"


def damage(record):
    record.write_text(record.read_text().replace('"last": 0.375', '"last": 0.9'))


def test_verify_counts_first_and_ends_with_0_where_nothing_is_wrong(cli, store):
    result = cli("verify", "results")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "results: 4 runs: 4 done; 0 helper networks",
        "s: 4 runs: 4 done",
        "found: nothing wrong",
    ]


def test_verify_says_what_to_do_and_ends_with_1(cli, store, record):
    damage(record)
    store.write_plan(plan_of("s", ("ce", "elr"), (0, 1, 2)))
    (record.parent / "lock").write_text("another-host 12\n")
    result = cli("verify", "results")

    # It may be running on that host.
    assert "results: 4 runs: 3 done, 1 running; 0 helper networks" in result.stdout
    assert "s: 6 runs: 3 done, 1 running, 2 missing; `nlbench run s.yaml --out results` " in (
        result.stdout
    )
    assert result.exit_code == 0

    (record.parent / "lock").unlink()
    result = cli("verify", "results")
    assert result.exit_code == 1
    assert "found: damage 1" in result.stdout
    path = f"results/runs/{record.parent.name}/record.json"
    assert f"{path}: it was changed after it was written" in result.stdout
    assert "`nlbench repair results` sets the whole run aside, to be trained again" in result.stdout


def test_verify_ends_with_2_where_there_are_no_records(refused):
    assert "no such folder" in refused("verify", "nowhere")
    assert "no such folder" in refused("repair", "nowhere")


def test_json_has_every_file_for_scripts(cli, record):
    damage(record)
    (record.parent / "checkpoint.pt.corrupt-1").touch()
    result = cli("verify", "results", "--format", "json")
    values = json.loads(result.stdout)

    assert result.exit_code == 1
    assert values["found"] == {"damage": 1, "disagreement": 0, "leftover": 0}
    assert values["runs"]["done"] == 3
    assert values["runs"]["unusable"] == 1
    assert values["suites"][0]["command"] == "nlbench run s.yaml --out results"
    assert values["findings"][0]["run"] == record.parent.name
    assert values["findings"][0]["kind"] == "damage"
    assert values["set_aside"] == [
        str(record.parent.relative_to(record.parents[3])) + "/checkpoint.pt.corrupt-1"
    ]


def test_repair_says_what_it_does_and_what_to_run_again(cli, record):
    damage(record)
    would = cli("repair", "results", "--dry-run")
    assert would.exit_code == 0
    assert "results: 3 files would be set aside, 0 leftovers would be removed" in would.stdout
    assert record.exists()

    result = cli("repair", "results")
    assert result.exit_code == 0
    assert "results: 3 files set aside, 0 leftovers removed" in result.stdout
    assert "set aside: results/runs/" in result.stdout
    assert "again in s: 1 run; `nlbench run s.yaml --out results`" in result.stdout
    assert f"  ce, seed 0 [{record.parent.name}]" in result.stdout
    assert not record.exists()

    assert cli("repair", "results").stdout == "results: nothing to repair\n"
    assert cli("verify", "results").exit_code == 0


def test_repair_ends_with_1_where_something_is_left(cli, record):
    (record.parent / "history.csv").unlink()
    result = cli("repair", "results")
    assert result.exit_code == 1
    assert "left as it is: results/runs/" in result.stdout
    assert "--again" in result.stdout
    assert cli("repair", "results", "--again").exit_code == 0

    values = json.loads(cli("repair", "results", "--format", "json").stdout)
    assert values["set_aside"] == values["left"] == []


def test_a_long_list_is_cut(cli, store):
    for number in range(60):
        (store.root / "suites" / f"x-{number:02}.json").write_text("{}")
    result = cli("verify", "results")
    assert "and 10 more; --format json lists all" in result.stdout


def test_the_next_run_of_a_suite_removes_what_a_killed_process_left(cli, place):
    """Also where nothing is left to train, which is when nobody takes the locks of the runs."""
    cli("run", "trial.yaml")
    out = place / "results"
    pid = dead_process()
    for folder in out.glob("runs/*"):
        (folder / "checkpoint.pt").write_bytes(b"state")
        os.utime(folder / "checkpoint.pt", (1, 1))
        (folder / "lock").write_text(f"{socket.gethostname()} {pid}\n")
        temporary_of(folder / "checkpoint.pt", pid).touch()
    temporary_of(out / "suites" / "trial.json", pid).touch()
    temporary_of(out / "fits" / f"{'0' * 16}.pt", pid).touch()

    found = json.loads(cli("verify", "results", "--format", "json").stdout)["found"]
    assert found == {"damage": 0, "disagreement": 0, "leftover": 8}
    # To count the runs changes nothing.
    assert cli("run", "trial.yaml", "--dry-run").exit_code == 0
    assert cli("verify", "results").exit_code == 1

    assert cli("run", "trial.yaml").exit_code == 0
    result = cli("verify", "results")
    assert (result.exit_code, result.stdout.splitlines()[-1]) == (0, "found: nothing wrong")
