"""The sampler `optuna` of the tuned track."""

import sys

import numpy as np
import pytest

import nlbench
from nlbench import api
from nlbench.errors import SuiteError
from nlbench.results.store import Store


def suite(**tuning):
    """Return a small suite whose tries Optuna proposes."""
    values = {"lr": [0.001, 0.01, 0.05, 0.1], "weight_decay": [0.0, 1e-3, 1e-2]}
    return {
        "name": "t",
        "track": "tuned",
        "protocol": "digits",
        "overrides": {"val_fraction": 0.2, "epochs": 2, "subset": 200},
        "tuning": {"tries": 5, "sampler": "optuna", "protocol": values, **tuning},
        "datasets": [{"name": "digits", "noise": {"kind": "symmetric", "rate": 0.4}}],
        "methods": {"ce": {}, "elr": {"search": {"lam": [1.0, 3.0]}}},
        "seeds": [0, 1],
    }


def test_optuna_is_named_where_it_is_missing(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "optuna", None)

    with pytest.raises(
        SuiteError, match=r"sampler: optuna needs .* pip install 'nlbench\[optuna\]'"
    ):
        api.prepare(suite(), out=tmp_path)


def test_every_row_gets_as_many_different_tries_and_the_best_is_run(tmp_path):
    pytest.importorskip("optuna")
    first = api.prepare(suite(), out=tmp_path)
    # Three of five tries need no accuracy of others.
    assert sorted({spec.row for spec in first.specs}) == [
        f"{row}#{i}" for row in ("ce", "elr") for i in range(3)
    ]

    frame = nlbench.run(suite(), out=tmp_path)
    assert sorted(frame["row"]) == ["ce"] * 2 + ["elr"] * 2

    store = Store(tmp_path)
    tried = {"ce": {}, "elr": {}}
    for cell in store.plans()["t#tries"]["cells"]:
        record = store.read(cell["key"])
        values = record.spec["protocol"]["lr"], record.spec["protocol"]["weight_decay"]
        setting = (*values, *record.spec["params"].values())
        tried[cell["row"].partition("#")[0]][setting] = record.metrics["val_last"]

    for row, accuracies in tried.items():
        assert len(accuracies) == 5
        lr, *_ = max(accuracies, key=accuracies.get)
        keys = frame.index[frame["row"] == row]
        assert {store.read(key).spec["protocol"]["lr"] for key in keys} == {lr}

    # What is done is found again, and nothing is left to train.
    again = api.prepare(suite(), out=tmp_path)
    assert not again.plan.tries
    assert again.state.todo == []


def proposals(sizes, tries, accuracy, seed=0):
    """Return all places that are tried where a place has this accuracy."""
    from nlbench.plan import optuna_tries

    known = []
    while True:
        places = optuna_tries.places(sizes, tries, known, np.random.default_rng(seed))
        if len(known) == len(places):
            return places
        known = [accuracy(place) for place in places]


def test_tries_that_were_made_are_proposed_again_first():
    pytest.importorskip("optuna")
    from nlbench.plan import optuna_tries

    known, before = [], []
    for _ in range(6):
        rng = np.random.default_rng(3)
        places = optuna_tries.places([3, 4, 2], 9, known, rng)
        assert places[: len(before)] == before
        before, known = places, [place / 24 for place in places]


@pytest.mark.parametrize("diverged", [False, True])
def test_a_grid_that_is_as_large_as_the_tries_is_tried_in_full(diverged):
    pytest.importorskip("optuna")
    accuracy = (lambda place: -np.inf) if diverged else (lambda place: place / 6)

    assert sorted(proposals([2, 3], 6, accuracy)) == list(range(6))


def test_later_tries_are_better_than_random_ones():
    pytest.importorskip("optuna")
    # The accuracy is the share of four coordinates that are right, out of 4^4 settings.
    right = (2, 0, 3, 1)

    def accuracy(place):
        return np.mean(np.array(np.unravel_index(place, (4, 4, 4, 4))) == right)

    later = []
    for seed in range(3):
        places = proposals([4] * 4, 30, accuracy, seed)
        later += [accuracy(place) for place in places[15:]]

    # A random setting has a quarter of its coordinates right; 45 of them stay below 0.38.
    assert np.mean(later) > 0.4
