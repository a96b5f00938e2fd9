"""Damaged and hostile stores: each command prints a table, or an error with a message.

Records and plans of a stranger may be whole in themselves, with keys and checksums that fit. So
most changes here are made before these are computed.
"""

import contextlib
import functools
import io
import itertools
import json
import shutil
import zlib

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from mutations import (
    EXAMPLES,
    READ,
    as_json,
    changed,
    changed_members,
    changed_value,
    changes,
    outcome,
    value_changes,
)

import nlbench
from nlbench import code_hash, registry
from nlbench.cli import results as commands
from nlbench.data import cache
from nlbench.errors import StoreError, UserError
from nlbench.plan.spec import key_of
from nlbench.results import agreement, lock, merge, numbers, reproduced, state_files, verify
from nlbench.results import table as tables
from nlbench.results.cells import Results
from nlbench.results.integrity import checksum_of, with_checksums
from nlbench.results.plan_file import with_checksum
from nlbench.results.record import RunRecord
from nlbench.results.store import Store
from nlbench.training.checkpoint import Checkpoint

SPEC = {
    "schema": 1,
    "method": "ce",
    "params": {"b": 0.5},
    "dataset": "digits",
    "labels": "clean",
    "noise": {"kind": "symmetric", "rate": 0.4},
    "fingerprint": "0123456789abcdef",
    "protocol": {"name": "digits", "model": "digits_cnn", "crop": 0, "epochs": 2},
    "seed": 0,
    "told": {"noise_rate": 0.2, "T": "sha256:0123456789abcdef"},
}
RECORD = {
    "status": "done",
    "spec": SPEC,
    "metrics": {"last": 0.5, "best": 0.6, "best_epoch": 1, "memorised": None, "selected": 0.5},
    "noise": {
        "asked_rate": 0.4, "noise_rate_full": 0.4, "noise_rate_train": 0.41, "noise_rate_val": None,
        "labels_hash": "0", "estimated_rate": 0.2, "num_train": 9, "num_val": 1, "num_test": 4,
        "variant": "JPEG", "checksums": {"x": "md5:1"},
    },
    "timing": {"prepare": 0.1, "fits": 0.0, "train": 1.0, "evaluate": 0.1},
    "environment": {"device": "cpu", "device_name": "A", "precision": "float32", "torch": "2"},
    "method": {
        "told": ["noise_rate"], "told_noise_rate": 0.2, "networks": 2, "own_optimisers": ["x"],
        "forward_passes": 1.0, "signs": ["one-class"],
    },
    "code": "c",
    "classes": {
        "num_classes": 2, "names": ["cat", "dog"], "train": [4, 5], "test": [2, 2],
        "data_warnings": ["odd"],
    },
    "warnings": ["w"],
    "error": {"message": "ValueError: x", "epoch": 0, "step": 1, "traceback": "t"},
}  # fmt: skip


def plan(suite, keys):
    """Return the plan of two rows and two seeds whose runs have these keys."""
    cells = []
    for (row, seed), key in zip(itertools.product(("ce", "elr"), (0, 1)), keys, strict=True):
        cells.append({"row": row, "condition": 0, "seed": seed, "key": key})
    return {
        "schema": 1,
        "suite": suite,
        "track": "identical",
        "protocol": "digits",
        "notes": ["a note"],
        "tries": False,
        "rows": [
            {"row": row, "method": row, "told": ["noise_rate"], "networks": 1}
            for row in ("ce", "elr")
        ],
        "conditions": ["Digits symmetric 0.4"],
        "seeds": [0, 1],
        "cells": cells,
        "method_files": {"mine": "/nowhere/mine.py"},
    }


def sound_record(method, seed):
    """Return the values of a whole record."""
    spec = {**SPEC, "method": method, "seed": seed}
    return {**RECORD, "spec": spec, "key": key_of(spec)}


def place(out, values, content=None):
    """Write a record under the key of its spec, and return the key."""
    try:
        key = key_of(values["spec"])
        values = with_checksums({**values, "key": key}, {})
    except (KeyError, TypeError, ValueError, AttributeError):
        key = "0" * 16
    folder = out / "runs" / key
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "record.json").write_bytes(as_json(values) if content is None else content)
    return key


def fresh(out):
    """Make a store of four runs and two plans, and return the keys of the runs."""
    shutil.rmtree(out, ignore_errors=True)
    (out / "suites").mkdir(parents=True)
    keys = []
    for method, seed in itertools.product(("ce", "elr"), (0, 1)):
        keys.append(place(out, sound_record(method, seed)))
    for suite in ("s", "t"):
        (out / "suites" / f"{suite}.json").write_bytes(as_json(with_checksum(plan(suite, keys))))
    return keys


# Looked up once: which methods there are does not depend on a store.
METHODS = registry.method_files()


def use(out):
    """Do with a store what the commands do that read it; each error is one for a user."""
    store = Store(out)
    calls = [
        lambda: _table(store),
        lambda: _table(store, details=True, against="elr"),
        lambda: _table(store, fmt="csv", published=True),
        lambda: _table(store, "s", fmt="latex"),
        lambda: nlbench.load(out),
        lambda: verify.verify(store),
        lambda: merge.merge(out, Store(out.parent / "empty"), dry_run=True),
        lambda: _agreement(store),
        lambda: _show(out),
    ]
    refused = None
    for call in calls:
        try:
            call()
        except UserError as error:
            refused = error
    if refused is not None:
        raise refused


def _table(store, suite=None, **options):
    tables.render_suites(store, suite, methods=METHODS, **options)


def _agreement(store):
    plans = store.plans()
    sides = [Results(plans[name], store, METHODS) for name in ("s", "t") if name in plans]
    if len(sides) == 2:
        agreement.between(*sides)
        agreement.with_published(sides[0])


def _show(out):
    with contextlib.redirect_stdout(io.StringIO()):
        for key in Store(out).run_keys():
            with contextlib.suppress(UserError):
                commands._show_record(key, out)
        # A key that begins several runs lists them.
        commands._show_record("", out)


@pytest.fixture(autouse=True)
def _hash_once(monkeypatch):
    """Hash the code of a method, model and dataset once, because that takes most of the time."""
    monkeypatch.setattr(code_hash, "code_hash", functools.cache(code_hash.code_hash))


QUICKLY = {"suppress_health_check": [HealthCheck.too_slow], "deadline": None}


def test_the_valid_store_is_read(tmp_path):
    fresh(tmp_path)
    text = nlbench.table(tmp_path, details=True)
    assert "| ce [told noise_rate]" in text
    assert outcome(lambda: nlbench.load(tmp_path)) == READ


def test_a_record_with_odd_values_is_read_or_refused_with_a_message(tmp_path):
    out = tmp_path / "results"
    first, *others = fresh(out)
    shutil.rmtree(out / "runs" / first)
    sound = sound_record("ce", 0)

    @settings(max_examples=EXAMPLES // 2, **QUICKLY)
    @given(value_changes(), changes(2))
    def check(made, of_bytes):
        if made[0][1] % 4 == 0:
            key = place(out, sound, changed(as_json(sound), of_bytes))
        else:
            key = place(out, changed_value(sound, made))
        suite = with_checksum(plan("s", [key, *others]))
        (out / "suites" / "s.json").write_bytes(as_json(suite))
        outcome(lambda: use(out))
        shutil.rmtree(out / "runs" / key)

    check()


def test_a_plan_with_odd_values_is_read_or_refused_with_a_message(tmp_path):
    out = tmp_path / "results"
    keys = fresh(out)
    path = out / "suites" / "s.json"
    whole = path.read_bytes()

    @settings(max_examples=EXAMPLES // 2, **QUICKLY)
    @given(value_changes(), changes(2))
    def check(made, of_bytes):
        if made[0][1] % 4 == 0:
            path.write_bytes(changed(whole, of_bytes))
        else:
            values = changed_value(plan("s", keys), made)
            path.write_bytes(as_json(with_checksum(values)))
        outcome(lambda: use(out))

    check()


def test_a_lock_with_any_content_is_held_by_somebody_or_nobody(tmp_path):
    path = tmp_path / "lock"
    with lock.hold(path):
        valid = path.read_bytes()

    @settings(max_examples=EXAMPLES, **QUICKLY)
    @given(changes())
    def check(made):
        path.write_bytes(changed(valid, made))

        def read():
            lock.is_held(path)
            lock.holder_of(path)
            with lock.hold(path):
                pass

        outcome(read)

    check()


def test_a_history_and_predictions_that_fit_their_checksums(tmp_path):
    """Verify and compare a run whose files somebody has changed together with its record."""
    store = Store(tmp_path)
    record = RunRecord.from_values(sound_record("ce", 0))
    history = [{"epoch": i, "loss": 1.5, "test_accuracy": 0.5, "seconds": 1.0} for i in range(2)]
    arrays = {"test": np.array([0, 1]), "labels": np.array([1, 1]), "test_prob": np.ones((2, 3))}
    store.write(record, history, arrays)
    folder = store.run_dir(record.key)
    whole = {name: (folder / name).read_bytes() for name in ("history.csv", "predictions.npz")}

    @settings(max_examples=EXAMPLES, **QUICKLY)
    @given(changes())
    def check(made):
        name = list(whole)[made[0][2] % 2]
        members = name == "predictions.npz" and made[0][2] % 3
        content = (changed_members if members else changed)(whole[name], made)
        for other, unchanged in whole.items():
            (folder / other).write_bytes(content if other == name else unchanged)
        paths = {other: folder / other for other in whole}
        values = with_checksums(sound_record("ce", 0), paths)
        (folder / "record.json").write_bytes(as_json(values))

        def read():
            verify.check_one(tmp_path, record.key)
            try:
                numbers.read_numbers(folder, record)
            except ValueError as error:
                # Its callers make messages of it.
                raise StoreError(str(error)) from error

        outcome(read)

    check()


def test_a_note_of_a_reproduction_with_odd_values(tmp_path):
    [key, *_] = fresh(tmp_path)
    path = tmp_path / "runs" / key / reproduced.NOTE
    sound = {
        "schema": 1, "key": key, "record": "sha256:0", "files": {"history.csv": "sha256:0"},
        "code": "c", "outcome": "bit for bit", "date": "2026-01-01T00:00:00Z",
        "compared": {"epochs": 2, "columns": ["loss"], "arrays": ["test"], "metrics": ["last"]},
        "accuracies": {"recorded": 0.5, "again": 0.5, "at_most": 0.1},
        "environment": {"device": "cpu"},
    }  # fmt: skip
    store = Store(tmp_path)

    @settings(max_examples=EXAMPLES, **QUICKLY)
    @given(value_changes(), changes(2))
    def check(made, of_bytes):
        values = changed_value(sound, made)
        content = as_json({**values, "checksum": checksum_of(values)})
        path.write_bytes(changed(content, of_bytes) if made[0][1] % 4 == 0 else content)

        def read():
            _table(store, "s")
            verify.check_one(tmp_path, key)

        outcome(read)

    check()


# ---- Checkpoints and the cache ------------------------------------------------------------------


def archive_of(state):
    """Return the bytes of a file of torch.save."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def test_a_checkpoint_whose_checksum_fits_is_read_or_set_aside(tmp_path):
    path = tmp_path / "runs" / "k" / "checkpoint.pt"
    path.parent.mkdir(parents=True)
    tag = {"run": "k", "code": "c"}
    state = {"tag": tag, "epoch": 1, "network": {"w": torch.zeros(3)}, "history": [{"a": 1.0}]}
    valid = archive_of(state)

    @settings(max_examples=EXAMPLES, **QUICKLY)
    @given(changes())
    def check(made):
        change = changed_members if made[0][2] % 2 else changed
        # An archive has at least an end, behind which the checksum is written.
        content = change(valid, made).rjust(2, b"\0")
        with path.open("wb") as file:
            state_files.write_with_checksum(file, lambda out: out.write(content))
        assert not content.endswith(b"\0\0") or state_files.damage_of(path) == ""
        outcome(lambda: Checkpoint(Store(tmp_path), path, tag).load())
        for other in path.parent.iterdir():
            other.unlink()

    check()


def test_a_damaged_entry_of_the_cache_is_made_again(tmp_path):
    source = tmp_path / "source"
    source.write_text("x")

    def read():
        return cache.cached(tmp_path, "x", [source], lambda: ({"a": torch.arange(3).numpy()}, {}))

    read()
    [entry] = [folder for folder in tmp_path.iterdir() if folder.is_dir()]
    whole = {path.name: path.read_bytes() for path in entry.iterdir()}

    @settings(max_examples=EXAMPLES, **QUICKLY)
    @given(changes())
    def check(made):
        for name, content in whole.items():
            (entry / name).write_bytes(changed(content, made) if name != "meta.json" else content)
        if made[0][2] % 2:
            damaged = changed(whole["a.npy"], made)
            (entry / "a.npy").write_bytes(damaged)
            # The checksum of the array fits, as in an entry that somebody else made.
            meta = json.loads(whole["meta.json"])["value"]
            meta["arrays"]["a"] = f"{zlib.crc32(damaged):08x}"
            cache.write_json(entry / "meta.json", meta)
        else:
            (entry / "meta.json").write_bytes(changed(whole["meta.json"], made))
        cache._checked.clear()
        outcome(read)
        for folder in tmp_path.glob("x-*.damaged-*"):
            shutil.rmtree(folder)
        if not entry.is_dir():
            entry.mkdir()

    check()


def test_every_record_that_is_read_can_be_written_again(tmp_path):
    store = Store(tmp_path)
    record = RunRecord.from_values(sound_record("ce", 0))
    store.write(record, [])
    assert store.read(record.key) == record
