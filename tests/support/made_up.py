"""Runs that nobody has trained, as a store holds them, for tests of what reads records."""

import csv

import numpy as np

from nlbench.plan.spec import key_of
from nlbench.results.record import RunRecord

ENVIRONMENT = {
    "torch": "2.1",
    "numpy": "2.0",
    "device": "cpu",
    "device_name": "A",
    "cpu_capability": "AVX2",
    "kernels": "avx2",
    "mkldnn": True,
    "ops": "cpp",
    "precision": "float32",
    "threads": 1,
    "compile": False,
}
EPOCHS = (
    {"epoch": 0, "loss": 2.5, "test_accuracy": 0.5, "seconds": 1.0},
    {"epoch": 1, "loss": 1.5, "test_accuracy": 0.75, "seconds": 2.0},
)
ARRAYS = {"test": [1, 2, 0, 1], "train_index": [0, 1], "labels": [1, 0]}


def spec_of(method="ce", seed=0):
    """Return the identity of a run on digits."""
    return {
        "schema": 1,
        "method": method,
        "params": {},
        "dataset": "digits",
        "labels": "clean",
        "noise": None,
        "fingerprint": "f",
        "protocol": {"name": "digits", "model": "digits_cnn"},
        "seed": seed,
    }


def record_of(method="ce", seed=0, **parts):
    """Return the record of a run. `environment` is on top of ENVIRONMENT, the others replace."""
    spec = spec_of(method, seed)
    measured = {
        "noise": {"labels_hash": "l", "num_test": 400},
        "timing": {"train": 3.0},
        "method": {"told": [], "networks": 1, "forward_passes": 1.0},
    }
    # A run that failed has measured nothing.
    if parts.get("status") == "failed":
        measured = {key: {} for key in measured}
    values = {
        "key": key_of(spec),
        "status": "done",
        "spec": spec,
        "metrics": {"last": 0.75, "best": 0.75},
        "code": "c",
        **measured,
        **parts,
    }
    values["environment"] = {**ENVIRONMENT, **parts.get("environment", {})}
    return RunRecord(**values)


def write_run(store, method="ce", seed=0, *, history=EPOCHS, arrays=ARRAYS, **parts):
    """Write a made-up run, and return its key."""
    record = record_of(method, seed, **parts)
    store.write(record, list(history), {name: np.array(a) for name, a in arrays.items()})
    return record.key


def plan_of(keys, *, name="s", rows=("ce",), seeds=(0,), **values):
    """Return a plan of one condition. `keys` has the key of each row and seed."""
    cells = []
    for seed in seeds:
        for row in rows:
            cells.append({"row": row, "condition": 0, "seed": seed, "key": keys[row, seed]})
    return {
        "schema": 1,
        "suite": name,
        "track": "identical",
        "protocol": "digits",
        "notes": [],
        "tries": False,
        "rows": [{"row": r, "method": r, "told": [], "networks": 1} for r in rows],
        "conditions": ["Digits"],
        "seeds": list(seeds),
        "cells": cells,
        "method_files": {},
        **values,
    }


def rewrite(store, key, *, history=None, arrays=None, **parts):
    """Write a run again with other values, so that its checksums fit.

    Args:
        history: gets the epochs as they were, with texts as values, and changes them.
        arrays: likewise, the arrays by name.
        parts: fields of the record.
    """
    folder = store.run_dir(key)
    with open(folder / "history.csv", newline="") as file:
        epochs = list(csv.DictReader(file))
    with np.load(folder / "predictions.npz") as file:
        predictions = {name: file[name] for name in file.files}
    if history is not None:
        history(epochs)
    if arrays is not None:
        arrays(predictions)
    record = store.read(key).model_copy(update=parts)
    store.write(record, epochs, predictions)
