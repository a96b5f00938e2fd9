"""Search for the images and epochs of the suite cifar10n-cpu-aug, by cross entropy alone.

    python tests/benchmarks/cifar_cpu_lengths.py --data-dir DIR --isa avx2 --out FILE.csv \\
        [26666:28 26666:56 13333:84 10000:112 6667:168]

A try is IMAGES:EPOCHS: one training of cross entropy on the worst labels of CIFAR-10N with the
preset cifar-cpu and random crops and flips. A line is added to the file after each training, and a
try that has one is left out.

The rule was written down before the first training, and knows of no method but cross entropy. The
tries are made in their order, from many images to few. The first one after which cross entropy
predicts at least 90% of the wrong labels is taken. If none reaches that, the one with most of them
is taken, and the suite says how many it memorises. The tries with fewer images were added when
cross entropy had memorised 30% after 56 epochs of all images.
"""

import argparse
import csv
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from cifar_cpu_search import AVX2, ENOUGH, SEED, Try

# The last three have as many steps, three times those of cifar-cpu.
TRIES = ("26666:28", "26666:56", "13333:84", "10000:112", "6667:168")
COLUMNS = ("images", "epochs", "memorised", "worst", "training", "run", "isa", "seed")


def main(arguments: Sequence[str] | None = None) -> None:
    """Train the tries that the file has no line of, and print the chosen one."""
    parser = argparse.ArgumentParser()
    parser.add_argument("tries", nargs="*", default=TRIES)
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
    for text in chosen.tries:
        known = lines(chosen.out)
        if max(known.values(), default=0.0) >= ENOUGH:
            break
        if text in known:
            continue
        images, epochs = map(int, text.split(":"))
        values = Try(
            preset.model, images, epochs, preset.batch_size, preset.lr, preset.weight_decay
        )
        # A share that no training reaches: the clean labels are not trained on.
        found = trials.run(values, enough=2.0)
        facts = {"images": images, "epochs": epochs, "isa": chosen.isa, "seed": chosen.seed}
        append(chosen.out, {**found, **facts})
    print("chosen:", best(lines(chosen.out)))


def best(known: dict[str, float]) -> str:
    """Return the try that the rule takes, from try -> share memorised, in the order of tries."""
    enough = [text for text, share in known.items() if share >= ENOUGH]
    return enough[0] if enough else max(known, key=lambda text: known[text])


def lines(path: Path) -> dict[str, float]:
    """Return the share of memorised labels of each try that the file has."""
    if not path.exists():
        return {}
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {f"{row['images']}:{row['epochs']}": float(row["memorised"]) for row in rows}


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
