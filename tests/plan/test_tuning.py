"""The tuned track: every row gets as many tries.

For each dataset the setting that is best on noisy validation labels is run.
"""

import pytest

import nlbench
from nlbench import api
from nlbench.errors import SuiteError
from nlbench.results import table as tables
from nlbench.results.store import Store


def suite(**changes):
    """Return a small suite of the tuned track, with some keys changed."""
    base = {
        "name": "t",
        "track": "tuned",
        "protocol": "digits",
        "overrides": {"val_fraction": 0.2, "epochs": 2, "subset": 200},
        "tuning": {"tries": 3, "protocol": {"lr": [0.001, 0.01, 0.05]}},
        "datasets": [{"name": "digits", "noise": {"kind": "symmetric", "rate": [0.2, 0.4]}}],
        "methods": {"ce": {}, "elr": {"search": {"lam": [1.0, 3.0], "beta": [0.7, 0.9]}}},
        "seeds": [0, 1],
    }
    return {**base, **changes}


def test_every_row_gets_as_many_tries_and_the_best_on_validation_labels_is_run(tmp_path):
    tries = api.prepare(suite(), out=tmp_path)
    assert tries.plan.tries

    tried = {}
    for spec in tries.specs:
        tried.setdefault(spec.row, []).append(spec)

    # Each row has three tries, and each try has a run on either noise.
    assert set(tried) == {"ce#0", "ce#1", "ce#2", "elr#0", "elr#1", "elr#2"}
    assert {len(specs) for specs in tried.values()} == {2}
    assert {spec.seed for spec in tries.specs} == {1000}

    # The table of the tries says which values each of them has, and by what they are compared.
    for row, (spec, _) in tried.items():
        values = {"lr": spec.protocol.lr, **({} if row.startswith("ce") else spec.params)}
        of_row = [note for note in tries.plan.notes if note.startswith(f"{row}: ")]
        assert len(of_row) == 1
        assert dict(part.split(" ") for part in of_row[0][len(row) + 2 : -1].split(", ")) == {
            key: str(value) for key, value in values.items()
        }

    # The tries of a row differ from each other.
    settings = {(spec.protocol.lr, *spec.params.values()) for spec in tries.specs}
    assert len(settings) == 6

    frame = nlbench.run(suite(), out=tmp_path)
    assert (frame["status"] == "done").all()
    assert sorted(frame["row"].tolist()) == ["ce"] * 4 + ["elr"] * 4

    store = Store(tmp_path)
    shown = tables.render(store.plans()["t#tries"], store, metric="val")
    assert "ce#0: lr 0.001." in shown
    first = [store.read(spec.key).metrics["val_last"] for spec in tried["ce#0"]]
    assert all(f"{100 * value:.2f}" in shown for value in first)
    final = api.prepare(suite(), out=tmp_path)

    assert not final.plan.tries
    assert final.state.todo == []

    for method in ("ce", "elr"):
        means = {}
        for row, specs in tried.items():
            if row.startswith(method):
                results = [store.read(spec.key).metrics["val_last"] for spec in specs]
                means[row] = sum(results) / len(results)

        best = tried[max(means, key=means.get)][0]
        for spec in final.specs:
            if spec.row == method:
                assert (spec.params, spec.protocol) == (best.params, best.protocol)

    assert "every row had 3 tries" in final.plan.notes[0]
    assert store.plans()["t"]["track"] == "tuned"


def test_a_try_that_diverged_has_lost(tmp_path):
    methods = {"ce": {}}
    changed = suite(methods=methods, tuning={"tries": 2, "protocol": {"lr": [0.01, 1e12]}})
    frame = nlbench.run(changed, out=tmp_path)

    assert len(frame) == 4
    for key in frame.index:
        assert Store(tmp_path).read(key).spec["protocol"]["lr"] == 0.01

    statuses = nlbench.load(tmp_path)["status"]
    assert sorted(statuses.unique()) == ["diverged", "done"]


FRAGILE = '''\
"""A method that fails while BREAK is in the environment."""
import os

from torch.nn import functional as F

from nlbench.method import Method


class Fragile(Method):
    def loss(self, logits, batch):
        if "BREAK" in os.environ:
            raise OSError("on purpose")
        return F.cross_entropy(logits, batch.labels)
'''


def test_a_try_that_failed_is_tried_again_and_nothing_is_chosen_meanwhile(tmp_path, monkeypatch):
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "fragile.py").write_text(FRAGILE)
    changed = suite(methods={"fragile": {}}, tuning={"tries": 2, "protocol": {"lr": [0.01, 0.05]}})
    monkeypatch.setenv("BREAK", "1")
    frame = nlbench.run(changed, out=tmp_path / "out", methods_dir=tmp_path / "m")

    assert set(frame["status"]) == {"failed"}

    monkeypatch.delenv("BREAK")
    frame = nlbench.run(changed, out=tmp_path / "out", methods_dir=tmp_path / "m")

    assert set(frame["status"]) == {"done"}
    assert set(frame["row"]) == {"fragile"}


def test_where_every_try_is_lost_the_row_is_named(tmp_path):
    changed = suite(methods={"ce": {}}, tuning={"tries": 2, "protocol": {"lr": [1e13, 1e12]}})
    with pytest.raises(SuiteError, match=r"methods\.ce: every try on digits diverged"):
        nlbench.run(changed, out=tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"tuning": {"tries": 4, "protocol": {"lr": [0.1]}}},
            r"methods\.ce: its grid has 1 settings, fewer than the 4",
        ),
        ({"overrides": {"epochs": 2}}, r"holds out no validation part.*val_fraction"),
        ({"seeds": [0, 1000]}, r"tuning\.seed: 1000 is one of the suite's seeds"),
        ({"tuning": None}, r"tuning: is required by the track tuned"),
        ({"tuning": {"tries": 1}}, r"tuning\.tries: must be at least 2, got 1"),
        ({"track": "identical"}, r"tuning: only the track tuned takes it"),
        (
            {"methods": {"elr": {"search": {"lam": [1.0, -1.0, 2.0]}}}},
            r"methods\.elr\.lam: must be finite and >= 0, got -1",
        ),
        (
            {"methods": {"elr": {"search": {"lamb": [1.0, 2.0]}}}},
            r"methods\.elr\.lamb: unknown key.*'lam'",
        ),
        (
            {"tuning": {"tries": 2, "protocol": {"lr": [0.1, "x"]}}},
            r"methods\.ce\.protocol\.lr: must be a number, got 'x'",
        ),
        (
            {"methods": {"ce": {"protocol": {"lr": 0.1}}}},
            r"methods\.ce\.protocol: only the track as-published",
        ),
    ],
)
def test_what_cannot_be_is_said_before_anything_trains(tmp_path, changes, message):
    with pytest.raises(SuiteError, match=message):
        api.prepare(suite(**changes), out=tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_search_belongs_to_the_tuned_track(tmp_path):
    changed = suite(track="identical")
    del changed["tuning"]
    with pytest.raises(SuiteError, match=r"methods\.elr\.search: only the track tuned searches"):
        api.prepare(changed, out=tmp_path)
