"""Search for the number of epochs of the suite cifar10n-cpu-aug, by cross entropy alone.

    python tests/benchmarks/cifar_cpu_lengths.py --data-dir DIR --isa avx2 --out FILE.csv \\
        [28 56 84 112]

Each number of epochs is one training of cross entropy on the worst labels of CIFAR-10N with the
preset cifar-cpu and random crops and flips. A line is added to the file after each training, and a
number that has one is left out.

The rule was written down before the first training, and knows of no method but cross entropy. The
numbers are tried in ascending order. The first one at which cross entropy ends by predicting at
least 90% of the wrong labels is taken. If no number reaches that, the one with most of them is
taken, and the suite says how many it memorises.
"""

import argparse
import csv
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from cifar_cpu_search import AVX2, ENOUGH, SEED, Try

# Twice to eight times the epochs of cifar-cpu. Eight times are over a quarter of an hour a run.
LENGTHS = (28, 56, 84, 112)
COLUMNS = ("epochs", "memorised", "worst", "training", "run", "isa", "seed")


def main(arguments: Sequence[str] | None = None) -> None:
    """Train with the numbers that the file has no line of, and print the chosen one."""
    parser = argparse.ArgumentParser()
    parser.add_argument("epochs", nargs="*", type=int, default=LENGTHS)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--isa", choices=["avx2", "native"], default="native")
    parser.add_argument("--seed", type=int, default=SEED)
    chosen = parser.parse_args(arguments)

    if chosen.isa == "avx2" and any(os.environ.get(name) != to for name, to in AVX2.items()):
        # The libraries have to find the variables before Python imports them.
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **AVX2})

    # Not at the top of the file, because they import torch.
    from cifar_cpu_trial import Trials

    from nlbench.plan import protocol

    preset = protocol.resolve("cifar-cpu", "cifar10n")
    trials = Trials(chosen.data_dir, chosen.seed, "crop-flip")
    for epochs in sorted(chosen.epochs):
        known = lines(chosen.out)
        if max(known.values(), default=0.0) >= ENOUGH:
            break
        if epochs in known:
            continue
        values = Try(
            preset.model, preset.subset, epochs, preset.batch_size, preset.lr, preset.weight_decay
        )
        # A share that no training reaches: the clean labels are not trained on.
        found = trials.run(values, enough=2.0)
        append(chosen.out, {**found, "epochs": epochs, "isa": chosen.isa, "seed": chosen.seed})
    print("chosen:", best(lines(chosen.out)))


def best(known: dict[int, float]) -> int:
    """Return the number of epochs that the rule takes, from number -> share memorised."""
    enough = [epochs for epochs, share in known.items() if share >= ENOUGH]
    return min(enough) if enough else max(known, key=lambda epochs: known[epochs])


def lines(path: Path) -> dict[int, float]:
    """Return the share of memorised labels for each number of epochs that the file has."""
    if not path.exists():
        return {}
    with path.open(newline="") as file:
        return {int(row["epochs"]): float(row["memorised"]) for row in csv.DictReader(file)}


def append(path: Path, found: dict[str, object]) -> None:
    """Add a line, and the head of the table to a new file."""
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n", extrasaction="ignore")
        if new:
            writer.writeheader()
        rounded = {}
        for name, value in found.items():
            rounded[name] = f"{value:.4g}" if isinstance(value, float) else value
        writer.writerow(rounded)


if __name__ == "__main__":
    main()
