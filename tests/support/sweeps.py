"""Small sweeps for tests: their suites, their results, and listeners made of functions."""

import csv
import textwrap

import numpy as np

from nlbench import api
from nlbench.executors.base import Listener

NOISY_DIGITS = {"name": "digits", "noise": {"kind": "symmetric", "rate": 0.4}}
METHOD_HEADER = '''"""A test's method."""

import os
import signal
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from nlbench.method import Method, Task


'''


def suite(methods, seeds=(0,)):
    """Return a suite of these rows on noisy digits."""
    return {
        "name": "t",
        "protocol": "digits",
        "datasets": [NOISY_DIGITS],
        "methods": methods,
        "seeds": list(seeds),
    }


def sweep(out, methods, *, seeds=(0,), methods_dir=None, **overrides):
    """Return a prepared sweep of these rows on noisy digits, in the store `out`."""
    overrides = {"epochs": 2, **overrides}
    return api.prepare(
        suite(methods, seeds),
        out=out,
        overrides=overrides,
        device="cpu",
        methods_dir=methods_dir,
    )


def history(store, key):
    """Return the metrics of each epoch, as in history.csv, without those of the clock."""
    with open(store.run_dir(key) / "history.csv", newline="") as file:
        epochs = list(csv.DictReader(file))

    for epoch in epochs:
        del epoch["seconds"], epoch["images_per_second"]
    return epochs


def predictions(store, key):
    """Return the bytes of the arrays of predictions.npz, by name."""
    with np.load(store.run_dir(key) / "predictions.npz") as file:
        return {name: file[name].tobytes() for name in file.files}


def outcome(sw):
    """Return everything of each run that must not depend on when or how it was trained."""
    result = {}
    for spec in sw.specs:
        record = sw.store.read(spec.key)
        arrays = predictions(sw.store, spec.key)
        epochs = history(sw.store, spec.key)
        facts = record.metrics, record.method, record.noise
        result[spec.row, spec.seed] = *facts, epochs, arrays
    return result


def method_file(folder, name, body):
    """Write a method file with this body into `folder`, and return the folder."""
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.py").write_text(METHOD_HEADER + textwrap.dedent(body))
    return folder


def listener(**hooks):
    """Return a Listener with these functions as its hooks, for example on_epoch=..."""
    made = Listener()
    for name, hook in hooks.items():
        assert hasattr(Listener, name), name
        setattr(made, name, hook)
    return made
