"""Stores of a whole suite from a few numbers, to print tables of."""

import itertools

from nlbench.code_hash import code_hash
from nlbench.plan.spec import key_of
from nlbench.registry import method_files
from nlbench.results.record import RunRecord

# What stands in place of a value for a run that ended without one.
DIVERGED, FAILED = "diverged", "failed"


def suite(store, values, conditions=(("Digits", 0.4),), networks=None, name="s", **metrics):
    """Write the runs of a suite and return its plan.

    Args:
        values: {row: [a list of the values of `last`, one for each seed, for each condition]};
            DIVERGED or FAILED in place of a value, None for a run that is not done.
        conditions: dataset and rate of the symmetric noise of each condition.
        metrics: further metrics, the same for every run that is done.
    """
    rows = list(values)
    seeds = range(max(len(one) for of_row in values.values() for one in of_row))
    cells = []
    for row, c, seed in itertools.product(rows, range(len(conditions)), seeds):
        value = values[row][c][seed]
        key = "0" * 16
        if value is not None:
            run = _record(row, seed, value, conditions[c], metrics)
            store.write(run, [])
            key = run.key
        cells.append({"row": row, "condition": c, "seed": seed, "key": key})
    return {
        "suite": name,
        "track": "identical",
        "protocol": "digits",
        "rows": [
            {"row": row, "method": row, "told": [], "networks": (networks or {}).get(row, 1)}
            for row in rows
        ],
        "conditions": [f"{dataset} symmetric {rate:g}" for dataset, rate in conditions],
        "seeds": list(seeds),
        "cells": cells,
        "notes": [],
        "method_files": {},
        "command": "nlbench run s",
        "tries": False,
    }


def renamed(plan, old, new):
    """Give a row of a plan another name; its runs stay."""
    for entry in (*plan["rows"], *plan["cells"]):
        if entry["row"] == old:
            entry["row"] = new
    return plan


def _record(row, seed, value, condition, metrics):
    dataset, rate = condition
    name = dataset.lower().replace("-", "")
    spec = {
        "method": row,
        "seed": seed,
        "params": {},
        "dataset": name,
        "labels": "clean",
        "noise": {"kind": "symmetric", "rate": rate},
        "protocol": {
            "name": "digits",
            "version": 1,
            "model": "digits_cnn",
            "epochs": 30,
            "batch_size": 128,
        },
    }
    done = isinstance(value, float)
    kind = spec["noise"]["kind"]
    measured = {"last": value, "best": value, "last10": value, **metrics} if done else {}
    files = method_files()
    return RunRecord(
        key=key_of(spec),
        status="done" if done else value,
        spec=spec,
        metrics=measured,
        noise={"num_train": 90, "num_val": 0, "num_test": 10} if done else {},
        timing={},
        environment={"device": "cpu", "precision": "float32"},
        method={"told": [], "networks": 1, "forward_passes": 1.0},
        code=code_hash(files[row].path, "digits_cnn", name, kind) if row in files else "c",
    )
