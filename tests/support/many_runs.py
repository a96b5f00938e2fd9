"""A store of 2,000 runs that nobody has trained: what a report of a large sweep is made of.

    python tests/support/many_runs.py FOLDER

Two suites of 1,000 runs each, `many-images` on digits and `many-points` on gaussians: 20 methods,
five kinds of noise, ten seeds, 100 epochs. Methods differ by what they memorise. Among the runs are
failed, diverged, missing and stale ones, and runs of two devices.
"""

import itertools
import json
import math
import random
import sys
from pathlib import Path

from large_store import made_up_predictions, made_up_record, write_files

from nlbench import api, code_hash
from nlbench.results.store import Store

EPOCHS = 100
SEEDS = 10

METHODS = (
    *("alr", "backward", "bootstrap", "ce", "co-teaching", "cores2", "elr", "ema"),
    *("ensemble", "forward", "gce", "gls", "jocor", "mae", "mixup", "nce-rce", "sat", "sl", "sop"),
    "volminnet",
)
NOISES = (
    *(("symmetric", rate) for rate in (0.2, 0.4, 0.6)),
    *(("pair-flip", rate) for rate in (0.2, 0.4)),
)
# gaussians has two classes, so that a rate of one half would leave nothing to learn.
FLIPS = tuple(("symmetric", rate) for rate in (0.1, 0.2, 0.3, 0.4, 0.45))

SUITES = (
    ("many-images", "digits", "digits", "digits_cnn", NOISES),
    ("many-points", "linear", "gaussians", "linear", FLIPS),
)

# How many of 1,000 runs are not done, and how many were made by other code.
MISSING, FAILED, DIVERGED, STALE = 12, 6, 9, 40

MESSAGE = "RuntimeError: CUDA out of memory. Tried to allocate 2.00 GiB (GPU 0; 15.78 GiB in all)"


def suite_text(name, protocol, dataset, noises):
    """Return a suite of 1,000 runs."""
    conditions = []
    for kind, rate in noises:
        conditions.append(f"  - {{name: {dataset}, noise: {{kind: {kind}, rate: {rate}}}}}")
    return "\n".join(
        [
            f"name: {name}",
            f"protocol: {protocol}",
            "datasets:",
            *conditions,
            "methods:",
            *(f"  {method}: {{}}" for method in METHODS),
            f"seeds: {list(range(SEEDS))}",
            f"overrides: {{epochs: {EPOCHS}}}",
            "",
        ]
    )


def history_of(method, rate, seed):
    """Return epoch metrics of a run that learns, and memorises wrong labels as its method does."""
    rng = random.Random(f"{method} {rate} {seed}")
    # From methods that withstand wrong labels to those that learn them by heart.
    memory = METHODS.index(method) / (len(METHODS) - 1)
    top = 0.98 - 0.1 * rate + rng.gauss(0, 0.004)
    history = []
    for epoch in range(EPOCHS):
        learned = 1 - math.exp(-(epoch + 1) / 6)
        memorised = memory / (1 + math.exp(-(epoch - 50) / 9))
        accuracy = top * learned - 0.9 * rate * memorised + rng.gauss(0, 0.006)
        wrong_true = max(0.0, learned * (1 - memorised) * top)
        wrong_memorised = min(1 - wrong_true, memorised + 0.02)
        history.append(
            {
                "epoch": epoch,
                "loss": 2.3 * (1 - learned) + 0.4 * rate + abs(rng.gauss(0, 0.02)),
                "test_accuracy": min(1.0, max(0.1, accuracy)),
                "test_top5": min(1.0, max(0.5, accuracy + 0.1)),
                "online_clean_right": min(1.0, learned * 0.99),
                "online_wrong_true": wrong_true,
                "online_wrong_memorised": wrong_memorised,
                "online_wrong_other": 1 - wrong_true - wrong_memorised,
                "seconds": 0.1 + rng.random() / 100,
                "images_per_second": 10_000.0,
            }
        )
    return history


def _record_of(spec, code, history, rng):
    """Return the record of a run that is done, whose final shares are those of its last epoch."""
    record = made_up_record(spec, code, history, rng)
    shares = {}
    for name, value in history[-1].items():
        if name.startswith("online_"):
            shares[name.replace("online", "final")] = value
    seconds = sum(line["seconds"] for line in history)
    # Every fourth seed was trained on another device.
    changes = {"device_name": "made up"}
    if spec.seed % 4 == 3:
        changes = {"device_name": "another made-up device", "cpu_capability": "AVX512"}
    return record.model_copy(
        update={
            "metrics": {**record.metrics, **shares},
            "timing": {**record.timing, "train": seconds},
            "environment": {**record.environment, **changes},
        }
    )


def _not_done(record, status):
    """Return the record of the same run as one that has failed or diverged."""
    error = {"message": MESSAGE, "traceback": f"Traceback (most recent call last):\n{MESSAGE}"}
    if status == "diverged":
        error = {"message": "the loss is not finite in epoch 3, step 12", "epoch": 3, "step": 12}
    return record.model_copy(
        update={"status": status, "metrics": {}, "classes": {}, "error": error}
    )


def write_many_runs(folder):
    """Write two suite files and the store FOLDER/results with their 2,000 runs; return the store.

    As many runs are missing, failed, diverged and stale as MISSING and the other numbers say.
    """
    store = Store(folder / "results")
    store.require_writable()
    predictions = [made_up_predictions(seed) for seed in range(4)]
    for name, protocol, dataset, model, noises in SUITES:
        rng = random.Random(name)
        path = folder / f"{name}.yaml"
        path.write_text(suite_text(name, protocol, dataset, noises))
        sweep = api.prepare(path, out=store.root)
        plan = {**sweep.plan.as_json(), "method_files": {}, "command": f"nlbench run {name}.yaml"}
        store.write_plan(plan)
        codes = {}
        kinds = {spec.condition.noise_kind for spec in sweep.plan.specs}
        for method, kind in itertools.product(METHODS, kinds):
            path = sweep.methods[method].path
            codes[method, kind] = code_hash.code_hash(path, model, dataset, kind)

        specs = list(sweep.plan.specs)
        chosen = rng.sample(range(len(specs)), MISSING + FAILED + DIVERGED + STALE)
        states = ["missing"] * MISSING + ["failed"] * FAILED + ["diverged"] * DIVERGED
        of_spec = dict(zip(chosen, [*states, *["stale"] * STALE], strict=True))
        for number, spec in enumerate(specs):
            state = of_spec.get(number, "done")
            if state == "missing":
                continue
            history = history_of(spec.method, spec.condition.noise["rate"], spec.seed)
            code = "0" * 16 if state == "stale" else codes[spec.method, spec.condition.noise_kind]
            record = _record_of(spec, code, history, rng)
            if state in ("failed", "diverged"):
                record, history = _not_done(record, state), []
            write_files(store, record, history, rng.choice(predictions))
    return store


def main():
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True)
    store = write_many_runs(folder)
    runs = list((store.root / "runs").iterdir())
    states = [json.loads((run / "record.json").read_text())["status"] for run in runs]
    print(store.root, {state: states.count(state) for state in sorted(set(states))})


if __name__ == "__main__":
    main()
