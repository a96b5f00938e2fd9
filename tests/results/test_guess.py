"""Whether a suite seems to be done is read from its name and the store's files."""

import json

import pytest

from nlbench import api
from nlbench.plan import shards
from nlbench.plan.shards import Shard
from nlbench.results.guess import name_of_suite, seems_done


@pytest.fixture
def root(tmp_path):
    """Return a store in which the runs of seed 0 have records, of both plans."""
    (tmp_path / "suites").mkdir()
    for name in ("quick", "quick+epochs=3"):
        cells = []
        for row in ("ce", "elr"):
            for seed in (0, 1):
                key = f"{len(name):04d}{row}{seed}"
                cells.append({"row": row, "seed": seed, "key": key, "condition": 0})
                if seed == 0:
                    (tmp_path / "runs" / key).mkdir(parents=True)
                    (tmp_path / "runs" / key / "record.json").write_text("{}")
        plan = {"cells": cells, "conditions": ["Digits clean", "Digits worst"]}
        (tmp_path / "suites" / f"{name}.json").write_text(json.dumps(plan))
    return tmp_path


def test_it_is_done_when_each_run_that_was_asked_for_has_a_record(root):
    assert not seems_done(root, "quick")
    assert seems_done(root, "quick", seeds=[0])
    assert seems_done(root, "quick", rows=["ce"], seeds=[0])
    assert not seems_done(root, "quick", rows=["ce"], seeds=[0, 1])
    assert seems_done(root, "quick+epochs=3", seeds=[0])
    assert not seems_done(root, "quick", conditions=["clean"])
    assert seems_done(root, "quick", seeds=[0], conditions=["clean"])
    assert not seems_done(root, "quick", seeds=[0], conditions=["aggregate"])
    # The plan lacks this seed, and this row, so their runs are to be trained.
    assert not seems_done(root, "quick", seeds=[0, 7])
    assert not seems_done(root, "quick", rows=["ce", "new"], seeds=[0])

    (root / "runs" / "0005ce0" / "record.json").unlink()
    assert not seems_done(root, "quick", seeds=[0])
    assert seems_done(root, "quick", rows=["elr"], seeds=[0])
    # Another plan, which has all of them.
    assert seems_done(root, "quick+epochs=3", seeds=[0])


def test_of_a_shard_without_leftovers_its_own_runs_count(root, monkeypatch):
    done_by_first = lambda cells, count: [cells[::2], cells[1::2]]  # noqa: E731
    monkeypatch.setattr(shards, "divide", done_by_first)
    assert seems_done(root, "quick", shard=Shard(1, 2, leftovers=False))
    assert not seems_done(root, "quick", shard=Shard(2, 2, leftovers=False))
    # It trains what the other one has not.
    assert not seems_done(root, "quick", shard=Shard(1, 2))


def test_the_runs_of_a_shard_are_those_of_the_sweep(tmp_path):
    digits = [{"kind": "symmetric", "rate": rate} for rate in (0.2, 0.4)]
    suite = {
        "name": "trial",
        "track": "identical",
        "protocol": "digits",
        "datasets": [{"name": "digits", "noise": digits}],
        "methods": {"ce": {}, "gce": {}, "elr": {}},
        "seeds": [0, 1],
    }
    plan = api.prepare(suite, out=tmp_path).plan
    (tmp_path / "suites").mkdir()
    (tmp_path / "suites" / "trial.json").write_text(json.dumps(plan.as_json()))

    for number, specs in enumerate(shards.divide(plan.specs, 3), start=1):
        assert not seems_done(tmp_path, "trial", shard=Shard(number, 3, leftovers=False))
        for spec in specs:
            (tmp_path / "runs" / spec.key).mkdir(parents=True)
            (tmp_path / "runs" / spec.key / "record.json").write_text("{}")
        assert seems_done(tmp_path, "trial", shard=Shard(number, 3, leftovers=False))


def test_what_cannot_be_read_is_not_done(root):
    assert not seems_done(root / "elsewhere", "quick", seeds=[0])
    assert not seems_done(root, "other", seeds=[0])
    assert not seems_done(root, "n" * 300, seeds=[0])
    for damaged in ("", "[]", '{"cells": 3}', '{"cells": [{"row": "ce"}]}', '{"cells": [3]}'):
        (root / "suites" / "quick.json").write_text(damaged)
        assert not seems_done(root, "quick", seeds=[0])


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("name: bar\n", "bar"),
        ("# name: one\nprotocol: digits\nname:  'my.suite-2'  # ours\n", "my.suite-2"),
        ("datasets:\n  - {name: digits}\n    name: digits\nname: bar\n", "bar"),
        ("{name: bar}\n", ""),
        ("\0", ""),
    ],
)
def test_the_name_of_a_suite_is_read_from_its_file(tmp_path, monkeypatch, text, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "foo.v2.yaml").write_text(text)
    assert name_of_suite("foo.v2.yaml") == name
    assert name_of_suite(tmp_path / "foo.v2.yaml") == name


def test_a_suite_has_its_name_wherever_it_comes_from(tmp_path):
    assert name_of_suite("quick") == "quick"
    assert name_of_suite({"name": "bar"}) == "bar"
    assert name_of_suite({}) == ""
    for nothing in ("there-is-none", tmp_path, "n" * 5000):
        assert name_of_suite(nothing) == ""
    (tmp_path / "latin.yaml").write_bytes(b"name: \xe9\n")
    assert name_of_suite(tmp_path / "latin.yaml") == ""
