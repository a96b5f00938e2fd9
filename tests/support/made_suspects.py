"""A store with made-up runs on CIFAR-10's labels, whose scores are known."""

import numpy as np
from made_stores import history_of, plan_of, record_of, spec_of

from nlbench.data.base import Dataset, Info
from nlbench.plan.spec import key_of
from nlbench.results.store import Store

CLASSES = ("=cat", "dog", "<b>owl</b>")
# Of eight training examples; numbers 1, 4 and 6 are labelled wrongly.
TRUE = np.array([0, 1, 2, 0, 1, 2, 0, 1])
GIVEN = np.array([0, 2, 2, 0, 0, 2, 1, 1])
SUITE = "made"

# Names that must stay text wherever they are shown.
HOSTILE = ["<script>alert(1)</script>", '"><img src=x onerror=1>', "a\x1b[2Jb", "$x$", "{{ 7*7 }}"]


def spec(method, seed, dataset):
    """Return the spec of a run."""
    return {**spec_of(method, seed), "dataset": dataset, "fingerprint": "f"}


def arrays_of(index, noise=0.0, seed=0):
    """Return the predictions of a run that sees the truth through some noise.

    Args:
        index: the examples that it was trained on.
    """
    index = np.asarray(index)
    given, true = GIVEN[index], TRUE[index]
    jitter = noise * np.random.default_rng(seed).standard_normal(len(index))
    margin = np.where(given == true, 2.0, -2.0) + 0.01 * index + jitter
    return {
        "test": np.zeros(4, "int16"),
        "train_index": index.astype("int32"),
        "labels": given.astype("int16"),
        "train": true.astype("int16"),
        "train_prob": (1 / (1 + np.exp(-margin))).astype("float32"),
        "train_loss": np.log1p(np.exp(-margin)).astype("float32"),
        "margin": margin.astype("float32"),
        "names": np.array([f"im/{i}.png" for i in index]),
        "class_names": np.array(CLASSES),
    }


def made_store(root, runs, dataset="cifar10", **noise):
    """Write a store with a plan of these runs, and return it.

    Args:
        runs: (row, seed) -> the arrays of its predictions.npz.
        noise: facts of each record about its labels; a function is called with the seed, and None
            leaves the fact out.
    """
    store = Store(root)
    store.require_writable()
    facts = {"labels_hash": "h", "num_train": 8, "num_test": 4, **noise}
    rows = list(dict.fromkeys(row for row, _ in runs))
    seeds = sorted({seed for _, seed in runs})
    plan = plan_of(SUITE, rows, seeds)
    plan["conditions"] = ["CIFAR-10"]
    plan["cells"] = []
    for (row, seed), arrays in runs.items():
        values = spec(row, seed, dataset)
        own = {name: fact(seed) if callable(fact) else fact for name, fact in facts.items()}
        own = {name: fact for name, fact in own.items() if fact is not None}
        store.write(record_of(values, noise=own), history_of(values), arrays)
        plan["cells"].append({"row": row, "condition": 0, "seed": seed, "key": key_of(values)})
    store.write_plan(plan)
    return store


def dataset(images, shape=(4, 4, 3)):
    """Return the dataset of these training images."""
    info = Info("cifar10", "CIFAR-10", 3, 8, 4, shape)
    return Dataset(info, images, images, np.zeros(4, np.int64), {}, "f")


def memory():
    """Return eight images of 4x4 pixels."""
    return dataset(np.arange(8 * 48, dtype=np.uint8).reshape(8, 4, 4, 3))
