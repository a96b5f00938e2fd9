"""What the commands say of a store with damaged files, and `nlbench forget`."""

import itertools
import json
import os
import shutil

import pytest

from nlbench.plan.spec import key_of
from nlbench.results.record import RunRecord
from nlbench.results.store import Store

VALUES = {("ce", 0): 0.5, ("ce", 1): 0.7, ("elr", 0): 0.8, ("elr", 1): 0.8}


@pytest.fixture
def out(place):
    """Return a store with two suites, s and t, of four made-up runs each. They share two."""
    store = Store(place / "results")
    for suite, rows in (("s", ("ce", "elr")), ("t", ("ce", "gce"))):
        cells = []
        for row, seed in itertools.product(rows, (0, 1)):
            key = write(store, row, seed, VALUES.get((row, seed), 0.6))
            cells.append({"row": row, "condition": 0, "seed": seed, "key": key})
        store.write_plan(
            {
                "schema": 1,
                "suite": suite,
                "track": "identical",
                "protocol": "digits",
                "notes": [],
                "tries": False,
                "rows": [{"row": r, "method": r, "told": [], "networks": 1} for r in rows],
                "conditions": ["Digits"],
                "seeds": [0, 1],
                "cells": cells,
            }
        )
    return place / "results"


def write(store, method, seed, last):
    """Write the files of a run, and return its key."""
    spec = {
        "method": method,
        "params": {},
        "dataset": "digits",
        "labels": "clean",
        "noise": None,
        "protocol": {"name": "digits", "model": "digits_cnn"},
        "seed": seed,
    }
    environment = {"device": "cpu", "device_name": "A", "precision": "float32", "torch": "2"}
    record = RunRecord(
        key=key_of(spec),
        status="done",
        spec=spec,
        metrics={"last": last},
        noise={},
        timing={},
        environment=environment,
        method={"told": [], "networks": 1, "forward_passes": 1.0},
        code="c",
    )
    store.write(record, [{"epoch": 0, "test_accuracy": last}], {"test": [1, 2]})
    return record.key


def key_in(out, row, seed):
    """Return the key of a run in the suite s."""
    plan = json.loads((out / "suites" / "s.json").read_text())
    found = [c["key"] for c in plan["cells"] if (c["row"], c["seed"]) == (row, seed)]
    return found[0]


def replace(path, old, new):
    """Change a text file as a person with an editor does."""
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


DAMAGE = {
    "edited": lambda path, other: replace(path, '"last": 0.5', '"last": 0.9'),
    "one digit": lambda path, other: replace(path, "0.5", "0.6"),
    "percent": lambda path, other: replace(path, '"last": 0.5', '"last": 17.5'),
    "text": lambda path, other: replace(path, '"last": 0.5', '"last": "0.5"'),
    "NaN": lambda path, other: replace(path, '"last": 0.5', '"last": NaN'),
    "empty environment": lambda path, other: path.write_text(
        json.dumps({**json.loads(path.read_text()), "environment": {}})
    ),
    "cut": lambda path, other: path.write_bytes(path.read_bytes()[:200]),
    "empty": lambda path, other: path.write_bytes(b""),
    "zeros": lambda path, other: path.write_bytes(bytes(500)),
    "another run's": lambda path, other: shutil.copy(other, path),
    "FIFO": lambda path, other: [path.unlink(), os.mkfifo(path)],
    "folder": lambda path, other: [path.unlink(), path.mkdir()],
    "device": lambda path, other: [path.unlink(), path.symlink_to("/dev/zero")],
    "loop": lambda path, other: [path.unlink(), path.symlink_to(path)],
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_record_is_named_by_every_command_and_in_no_mean(cli, out, damage):
    key = key_in(out, "ce", 0)
    path = out / "runs" / key / "record.json"
    other = out / "runs" / key_in(out, "elr", 0) / "record.json"
    DAMAGE[damage](path, other)

    table = cli("table", out, "--suite", "s")
    assert "| ce     | 70.00 (1/2, ?1)* |" in table.stdout
    assert f"runs/{key}/record.json: " in table.stdout
    assert str(path) in table.stderr

    csv = cli("table", out, "--suite", "s", "--format", "csv").stdout
    assert ",ce,ce,,last,0.7,,1,2,0," in csv

    shown = cli("show", key, "--out", out)
    assert shown.exit_code == 2
    assert str(path) in shown.stderr

    agreement = cli("agreement", "s", "t", "--out", out)
    assert str(path) in agreement.stderr


@pytest.mark.parametrize("name", ["history.csv", "predictions.npz"])
@pytest.mark.parametrize("damage", ["removed", "cut", "another run's", "FIFO"])
def test_a_damaged_file_beside_a_record_is_named_by_every_command(cli, out, name, damage):
    key = key_in(out, "ce", 0)
    path = out / "runs" / key / name
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-1])
    elif damage == "another run's":
        path.write_bytes(b"epoch,test_accuracy\n0,0.9\n")
    else:
        path.unlink()
    if damage == "FIFO":
        os.mkfifo(path)

    table = cli("table", out, "--suite", "s")
    assert "| ce     |    60.00±14.14* |" in table.stdout or "60.00±14.14*" in table.stdout
    assert f"runs/{key}/{name}: " in table.stdout
    assert str(path) in table.stderr
    shown = cli("show", key, "--out", out)
    assert (shown.exit_code, str(path) in shown.stderr) == (0, True)


def test_a_damaged_plan_is_named_and_the_other_tables_are_printed(cli, refused, out):
    replace(out / "suites" / "s.json", '"row": "ce"', '"row": "elr"')

    table = cli("table", out)
    assert table.exit_code == 2
    assert "**t: " in table.stdout
    assert "**s: " not in table.stdout
    assert "s.json: damaged plan: it was changed after it was written" in table.stderr
    assert "`nlbench run` of its suite writes it again" in table.stderr

    assert "s.json: damaged plan" in refused("table", out, "--suite", "s")
    assert cli("table", out, "--suite", "t").exit_code == 0


# ---- forget -------------------------------------------------------------------------------------


def test_forget_drops_a_plan_and_no_record(cli, out):
    runs = sorted((out / "runs").rglob("*"))
    would = cli("forget", "t", "--out", out, "--dry-run")
    assert would.exit_code == 0
    assert "t: would be dropped. Its 4 records stay in" in would.stdout
    assert "2 of them are in no other suite" in would.stdout
    assert (out / "suites" / "t.json").exists()

    result = cli("forget", "t", "--out", out)
    assert "t: dropped. Its 4 records stay in" in result.stdout
    assert "rename" in result.stdout
    assert sorted((out / "runs").rglob("*")) == runs
    assert "**t: " not in cli("table", out).stdout

    # What the command says undoes it.
    (out / "suites" / "t.json.forgotten-1").rename(out / "suites" / "t.json")
    assert "**t: " in cli("table", out).stdout


def test_a_damaged_plan_can_be_forgotten(cli, out):
    (out / "suites" / "t.json").write_text("{")
    result = cli("forget", "t", "--out", out)

    assert result.exit_code == 0
    assert "All records stay. Which of them no suite has is unknown" in result.stdout
    assert not (out / "suites" / "t.json").exists()


def test_forget_names_the_suites_that_there_are(refused, out):
    message = refused("forget", "x", "--out", out)
    assert "unknown suite of" in message
    assert "There are: s, t" in message
    assert "unknown suite" in refused("forget", "../suites/s", "--out", out)
    assert "no such folder" in refused("forget", "s", "--out", "nowhere")
