"""Stores with made-up runs whose files agree with each other."""

import itertools
import json
import subprocess
import sys

import numpy as np

from nlbench import files
from nlbench.plan.spec import key_of
from nlbench.results.integrity import with_checksums
from nlbench.results.record import RunRecord
from nlbench.results.store import Store
from nlbench.results.summary import summarise

TRAIN, TEST = 6, 4


def spec_of(method, seed):
    """Return the spec of a run of two epochs."""
    return {
        "method": method,
        "params": {},
        "dataset": "digits",
        "labels": "clean",
        "noise": None,
        "protocol": {"name": "digits", "model": "digits_cnn", "epochs": 2},
        "seed": seed,
    }


def history_of(spec):
    """Return the epoch metrics of a run."""
    first = 0.5 + 0.1 * spec["seed"]
    return [
        {"epoch": 0, "loss": 1.5, "test_accuracy": first, "val_accuracy": 0.25},
        {"epoch": 1, "loss": 0.5, "test_accuracy": first - 0.125, "val_accuracy": 0.5},
    ]


def record_of(spec, **changes):
    """Return the record of a run that is done, with some of its parts changed."""
    values = {
        "key": key_of(spec),
        "status": "done",
        "spec": spec,
        "metrics": summarise(history_of(spec), ("test", "val")),
        "noise": {"num_train": TRAIN, "num_test": TEST},
        "timing": {},
        "environment": {"device": "cpu", "precision": "float32"},
        "method": {"told": [], "networks": 1},
        "code": "c",
    }
    return RunRecord(**{**values, **changes})


def predictions_of(spec):
    """Return the predictions of a run."""
    return {
        "test": np.arange(TEST, dtype="int16") + spec["seed"],
        "train_index": np.arange(TRAIN, dtype="int32"),
        "labels": np.zeros(TRAIN, "int16"),
    }


def write_run(store, method, seed, **changes):
    """Write a run, and return its folder."""
    spec = spec_of(method, seed)
    store.write(record_of(spec, **changes), history_of(spec), predictions_of(spec))
    return store.run_dir(key_of(spec))


def plan_of(name, methods, seeds):
    """Return a plan with a cell for each method and seed."""
    cells = []
    for row, seed in itertools.product(methods, seeds):
        key = key_of(spec_of(row, seed))
        cells.append({"row": row, "condition": 0, "seed": seed, "key": key})
    return {
        "schema": 1,
        "suite": name,
        "track": "identical",
        "protocol": "digits",
        "notes": [],
        "tries": False,
        "rows": [{"row": r, "method": r, "told": [], "networks": 1} for r in methods],
        "conditions": ["Digits"],
        "seeds": list(seeds),
        "cells": cells,
        "command": f"nlbench run {name}.yaml",
    }


def made_store(root, methods=("ce", "elr"), seeds=(0, 1)):
    """Write a store with a suite `s`, all of whose runs are done."""
    store = Store(root)
    store.require_writable()
    for method, seed in itertools.product(methods, seeds):
        write_run(store, method, seed)
    store.write_plan(plan_of("s", methods, seeds))
    return store


def rewritten(folder, change):
    """Change the values of a record, and give it right checksums again.

    Args:
        change: called with the values of record.json.
    """
    path = folder / "record.json"
    values = json.loads(path.read_text())
    values.pop("checksums")
    change(values)
    present = [name for name in ("history.csv", "predictions.npz") if (folder / name).exists()]
    values = with_checksums(values, {name: folder / name for name in present})
    path.write_text(json.dumps(values, indent=1, sort_keys=True))


def dead_process():
    """Return the number of a process that has ended."""
    program = "import os; print(os.getpid())"
    return int(subprocess.check_output([sys.executable, "-S", "-c", program]))


def temporary_of(path, pid):
    """Return the temporary name that a process of this host would have used for `path`."""
    _, place, end = files.temporary_name(path).name.removesuffix(".tmp").rsplit("-", 2)
    return path.with_name(f".{path.name}.{pid}-{place}-{end}.tmp")


def contents(root):
    """Return the bytes of every file below a folder, by its path."""
    found = {}
    for path in sorted(root.rglob("*")):
        if path.is_file():
            found[str(path.relative_to(root))] = path.read_bytes()
    return found
