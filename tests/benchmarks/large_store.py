"""Make up a store of many runs, and measure what the commands need for it.

    python tests/benchmarks/large_store.py FOLDER [--runs 100000] [--suites 20]

Writes FOLDER/NAME.yaml and FOLDER/results once: suites of equal size on digits, whose records are
as `nlbench run` writes them, with epoch metrics and predictions, but with made-up numbers. Then
runs `nlbench run --dry-run` and `nlbench table` of the first suite, `nlbench table` of all, and
`nlbench verify`, and prints the seconds and the highest memory of each. The files are in the page
cache then, so that the seconds are those of the program and not of the disk.
"""

import argparse
import io
import itertools
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from nlbench import api, code_hash
from nlbench.results.integrity import with_checksums
from nlbench.results.record import RunRecord
from nlbench.results.store import Store
from nlbench.results.summary import summarise

METHODS = ("ce", "gce", "elr", "mixup", "nce-rce", "alr", "gls", "bootstrap", "sop", "ema")
RATES = (0.1, 0.2, 0.3, 0.4, 0.45)
KINDS = ("symmetric", "pair-flip")

EPOCHS = 20
TRAIN, TEST = 1397, 400

SHARES = ("clean_right", "wrong_true", "wrong_memorised", "wrong_other")


def suite_text(name, seeds, lr):
    """Return a suite of len(METHODS) * 10 * `seeds` runs."""
    noises = [f"{{kind: {kind}, rate: {rate}}}" for kind in KINDS for rate in RATES]
    return "\n".join(
        [
            f"name: {name}",
            "protocol: digits",
            "datasets:",
            *(f"  - {{name: digits, noise: {noise}}}" for noise in noises),
            "methods:",
            *(f"  {method}: {{}}" for method in METHODS),
            f"seeds: {list(range(seeds))}",
            f"overrides: {{epochs: {EPOCHS}, lr: {lr}}}",
            "",
        ]
    )


def made_up_history(rng, epochs=EPOCHS):
    """Return epoch metrics that look like those of a run on digits."""
    history, accuracy = [], 0.2
    for epoch in range(epochs):
        accuracy = min(0.99, accuracy + rng.random() * 0.08 - 0.02)
        line = {"epoch": epoch, "loss": 2 * rng.random(), "test_accuracy": accuracy}
        line["test_top5"] = min(1.0, accuracy + 0.1)
        line |= {f"online_{share}": rng.random() for share in SHARES}
        history.append({**line, "seconds": rng.random(), "images_per_second": 1000 * rng.random()})
    return history


def made_up_predictions(seed):
    """Return the bytes of a predictions.npz."""
    rng, file = np.random.default_rng(seed), io.BytesIO()
    np.savez_compressed(
        file,
        test=rng.integers(0, 10, TEST).astype("int16"),
        train_index=np.arange(TRAIN, dtype="int32"),
        labels=rng.integers(0, 10, TRAIN).astype("int16"),
        train=rng.integers(0, 10, TRAIN).astype("int16"),
        train_prob=rng.random(TRAIN, dtype="float32"),
    )
    return file.getvalue()


def made_up_record(spec, code, history, rng):
    """Return the record of a run that is done."""
    metrics = summarise(history, ("test",)) | {f"final_{share}": rng.random() for share in SHARES}
    return RunRecord(
        key=spec.key,
        status="done",
        spec=spec.identity(),
        metrics=metrics,
        noise={
            "asked_rate": spec.condition.noise["rate"],
            "redrawn": True,
            "noise_rate_full": spec.condition.noise["rate"],
            "noise_rate_train": spec.condition.noise["rate"],
            "noise_rate_val": None,
            "labels_hash": f"{rng.getrandbits(64):016x}",
            "estimated_rate": None,
            "num_train": TRAIN,
            "num_val": 0,
            "num_test": TEST,
            "variant": "",
            "checksums": {},
        },
        timing={part: rng.random() for part in ("prepare", "fits", "train", "evaluate")},
        environment={
            "nlbench": "0.1.0",
            "python": "3.11.7",
            "torch": "2.14.1",
            "numpy": "2.4.6",
            "platform": "Linux",
            "device": "cpu",
            "device_name": "made up",
            "threads": 1,
            "precision": "float32",
            "compile": False,
            "cuda_graphs": False,
            "jobs": 1,
            "ops": "cpp",
            "processor": "made up",
            "kernels": "avx2",
            "cpu_capability": "AVX2",
            "mkldnn": True,
            "weights": "",
        },
        method={"told": [], "networks": 1, "own_optimisers": [], "forward_passes": 1.0},
        code=code,
        classes={"num_classes": 10, "names": [], "train": [139] * 10, "test": [40] * 10},
    )


def write_files(store, record, history, predictions):
    """Write the files of a run as the store has them, without waiting for the disk.

    Args:
        record: a RunRecord.
        history: its epoch metrics; of a run that is not done, none.
        predictions: the bytes of its predictions.npz.
    """
    folder = store.run_dir(record.key)
    folder.mkdir()
    files = {}
    if history:
        files = {
            "history.csv": folder / "history.csv",
            "predictions.npz": folder / "predictions.npz",
        }
        lines = [
            ",".join(history[0]),
            *(",".join(map(repr, line.values())) for line in history),
            "",
        ]
        files["history.csv"].write_bytes("\r\n".join(lines).encode())
        files["predictions.npz"].write_bytes(predictions)
    values = with_checksums(record.as_json(), files)
    (folder / "record.json").write_text(json.dumps(values, indent=1, sort_keys=True) + "\n")
    (folder / "lock").touch()


def write_run(store, spec, code, rng, predictions):
    """Write a run that is done."""
    history = made_up_history(rng)
    write_files(store, made_up_record(spec, code, history, rng), history, predictions)


def write_store(folder, runs, suites, damaged=0):
    """Write `suites` suite files and a store with all their runs, and return the store.

    Args:
        damaged: so many records are changed after they were written.
    """
    store = Store(folder / "results")
    store.require_writable()
    rng = random.Random(0)
    predictions = [made_up_predictions(seed) for seed in range(16)]
    keys = []
    for number in range(suites):
        seeds = max(1, runs // suites // (len(METHODS) * len(KINDS) * len(RATES)))
        path = folder / f"large-{number}.yaml"
        path.write_text(suite_text(path.stem, seeds, round(0.01 + 0.001 * number, 3)))
        sweep = api.prepare(path, out=store.root)
        plan = {**sweep.plan.as_json(), "method_files": {}, "command": sweep.command}
        store.write_plan(plan)
        codes = {}
        for name, kind in itertools.product(METHODS, KINDS):
            path = sweep.methods[name].path
            codes[name, kind] = code_hash.code_hash(path, "digits_cnn", "digits", kind)
        for spec in sweep.plan.specs:
            code = codes[spec.method, spec.condition.noise_kind]
            write_run(store, spec, code, rng, rng.choice(predictions))
            keys.append(spec.key)

    for key in rng.sample(keys, damaged):
        path = store.run_dir(key) / "record.json"
        path.write_text(path.read_text().replace('"last": 0.', '"last": 0.9', 1))
    return store


# What a process had before it became the command does not count: its parent has imported torch.
_PROGRAM = """
import resource, sys
from nlbench.cli import main
place, sys.argv = sys.argv[1], sys.argv[2:]
try:
    main()
finally:
    (line,) = [line for line in open("/proc/self/status") if line.startswith("VmHWM")]
    workers = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    open(place, "w").write(f"{line.split()[1]} {workers}")
"""


def measure(folder, *command):
    """Run a command, and return its seconds, its memory in MB, its status and its output.

    Returns: a dictionary. `cpu` are the seconds of all its processes together, and `worker` is the
        memory of the largest of the processes that it starts.
    """
    before = time.perf_counter()
    place = folder / "memory"
    child = subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, place, "nlbench", *map(str, command)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    output = child.stdout.read()
    _, status, usage = os.wait4(child.pid, 0)
    memory, worker = (int(kilobytes) / 1000 for kilobytes in place.read_text().split())
    return {
        "seconds": time.perf_counter() - before,
        "cpu": usage.ru_utime + usage.ru_stime,
        "memory": memory,
        "worker": worker,
        "status": os.waitstatus_to_exitcode(status),
        "output": output,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--suites", type=int, default=20)
    given = parser.parse_args()

    out = given.folder / "results"
    if not out.exists():
        given.folder.mkdir(parents=True, exist_ok=True)
        before = time.perf_counter()
        write_store(given.folder, given.runs, given.suites)
        print(f"written in {time.perf_counter() - before:.0f} s", flush=True)

    suite = given.folder / "large-0.yaml"
    for command in (
        ("run", suite, "--out", out, "--dry-run"),
        ("table", out, "--suite", "large-0"),
        ("table", out, "--suite", "large-0", "--details"),
        ("table", out),
        ("verify", out),
    ):
        found = measure(given.folder, *command)
        words = " ".join(map(str, command)).replace(str(given.folder), "FOLDER")
        numbers = f"{found['seconds']:7.1f} s (CPU {found['cpu']:.1f} s) {found['memory']:6.0f} MB"
        if found["worker"]:
            numbers += f" (worker {found['worker']:.0f} MB)"
        first = found["output"].partition("\n")[0][:60]
        print(f"{numbers}  status {found['status']}  {words}  | {first}", flush=True)


if __name__ == "__main__":
    main()
