"""Made-up results of several rows, seeds and conditions, for tests of figures.

    python tests/support/made_figures.py FOLDER [--rows 25]

writes a store to look at.
"""

import argparse
import itertools
import math
from pathlib import Path

import numpy as np
from made_up import record_of, spec_of

from nlbench.plan.spec import key_of
from nlbench.results.cells import Results
from nlbench.results.store import Store
from nlbench.results.summary import summarise

ROWS = ("ce", "elr", "gce", "mae", "forward")
# Title, dataset, noise rate.
CONDITIONS = (("Digits symmetric 0.4", "digits", 0.4),)
_WORDS = (
    "ce elr gce mae forward backward bootstrap-hard bootstrap-soft sl alr nce-rce mixup sop "
    "co-teaching dividemix elr-plus disc ema gls cores2 jocor volminnet peer agce selc"
)
NAMES = tuple(_WORDS.split())
GRADIENTS = (
    "gradient_ce_clean",
    "gradient_ce_wrong",
    "gradient_regulariser_clean",
    "gradient_regulariser_wrong",
)


def history_of(place, seed, epochs, rate=0.4, columns=()):
    """Return epoch metrics of a row that learns, and then memorises the less the later it is.

    Args:
        columns: names of further columns, such as those of gradients.
    """
    rng = np.random.default_rng([place, seed])
    history = []
    for epoch in range(epochs):
        t = (epoch + 1) / epochs
        memorised = 0.9 * t**3 / (1 + place)
        learned = 1 - math.exp(-6 * t)
        jitter = 0.01 * rng.standard_normal(2)
        true = learned * (1 - memorised) * 0.95
        test = learned * (0.97 - 0.6 * rate * memorised) + jitter[0] - 0.01 * place
        line = {
            "epoch": epoch,
            "loss": 2 - learned,
            "test_accuracy": min(0.999, max(0.05, test)),
            "online_clean_right": min(1.0, max(0.0, learned * 0.96 + jitter[1])),
            "online_wrong_true": true,
            "online_wrong_memorised": memorised,
            "online_wrong_other": 1 - true - memorised,
        }
        for number, column in enumerate(columns):
            line[column] = 0.3 * (-1) ** number * math.exp(-(1 + number) * t) + 0.02 * jitter[0]
        history.append({**line, "seconds": 1.0 + place, "images_per_second": 1000.0})
    return history


def matrices_of(place, seed, classes=10, rate=0.4):
    """Return arrays with an estimate of T and the true one."""
    rng = np.random.default_rng([place, seed, 1])
    true = np.full((classes, classes), rate / (classes - 1))
    np.fill_diagonal(true, 1 - rate)
    estimate = np.abs(true + 0.03 * rng.standard_normal(true.shape))
    return {"T": estimate / estimate.sum(1, keepdims=True), "T_true": true}


def write_results(
    folder,
    *,
    rows=ROWS,
    conditions=CONDITIONS,
    seeds=(0, 1, 2),
    epochs=4,
    statuses=None,
    missing=(),
    columns=(),
    arrays=None,
    labels=None,
    without=(),
    empty=None,
    devices=None,
    fingerprints=None,
    suite="s",
):
    """Write a store, and return its Results.

    Args:
        statuses: (row, seed) -> "diverged" or "failed", of all conditions.
        missing: (row, seed) of runs that are not in the store.
        columns: further columns of history.csv.
        arrays: (place of the row, seed) -> arrays for predictions.npz.
        labels: row -> the name that the plan gives it, for names that no method has.
        devices, fingerprints: row -> the name of the machine, the hash of the data.
        without: beginnings of the columns that history.csv lacks.
        empty: row -> the beginning of the columns that have no value in any epoch.
    """
    store = Store(folder)
    store.require_writable()
    cells = []
    named = labels or {}
    for number, (_, dataset, rate) in enumerate(conditions):
        for place, row in enumerate(rows):
            for seed in seeds:
                spec = spec_of("m" + str(place), seed)
                noise = {"kind": "symmetric", "rate": rate} if rate else None
                spec |= {"dataset": dataset, "noise": noise}
                spec["fingerprint"] = (fingerprints or {}).get(row, "f")
                spec["protocol"] = {**spec["protocol"], "epochs": epochs}
                key = key_of(spec)
                name = named.get(row, row)
                cells.append({"row": name, "condition": number, "seed": seed, "key": key})
                if (row, seed) in missing:
                    continue
                status = (statuses or {}).get((row, seed), "done")
                history = history_of(place, seed + 100 * number, epochs, rate, columns)
                history = [
                    {
                        name: value
                        for name, value in epoch.items()
                        if not name.startswith(tuple(without))
                    }
                    for epoch in history
                ]
                blank = (empty or {}).get(row)
                for epoch, name in itertools.product(history, list(history[0])):
                    if blank and name.startswith(blank):
                        epoch[name] = None
                record = record_of(
                    seed=seed,
                    key=key,
                    spec=spec,
                    status=status,
                    metrics={} if status != "done" else summarise(history, ("test",)),
                    noise={"noise_rate_train": rate, "num_test": 400, "asked_rate": rate},
                    environment={"device_name": (devices or {}).get(row, "A")},
                    timing={"train": (3.0 + seed / 10) * (1 + place), "prepare": 0.5, "fits": 0},
                    method={"told": [], "networks": 1, "forward_passes": 1.0 + place % 3},
                )
                found = arrays(place, seed) if arrays else {}
                store.write(record, history, {"test": np.zeros(400, "int16"), **found})

    plan = {
        "schema": 1,
        "suite": suite,
        "track": "identical",
        "protocol": "digits",
        "notes": [],
        "tries": False,
        "rows": [
            {"row": named.get(row, row), "method": f"m{place}", "told": [], "networks": 1}
            for place, row in enumerate(rows)
        ],
        "conditions": [title for title, _, _ in conditions],
        "seeds": list(seeds),
        "cells": cells,
        "method_files": {},
    }
    store.write_plan(plan)
    return Results(store.plan(suite), store, {})


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=25)
    given = parser.parse_args()
    sets = ("Digits", "digits"), ("CIFAR-10", "cifar10"), ("SVHN", "svhn"), ("Cars", "cars")
    write_results(
        given.folder / "ranks",
        rows=NAMES[: given.rows],
        conditions=[(title, dataset, 0.0) for title, dataset in (*sets, ("Flowers", "flowers"))],
    )
    rates = [("Digits", "digits", 0.0)]
    rates += [(f"Digits symmetric {rate:g}", "digits", rate) for rate in (0.2, 0.4, 0.6, 0.8)]
    write_results(
        given.folder / "rates",
        rows=NAMES[: given.rows],
        conditions=rates,
        seeds=range(5),
        epochs=60,
        statuses={("gce", 1): "diverged", ("mae", 0): "failed"},
        missing=[("sl", 2), ("sl", 3)],
        columns=GRADIENTS,
        arrays=matrices_of,
    )


if __name__ == "__main__":
    main()
