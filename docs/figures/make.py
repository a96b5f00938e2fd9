"""Train the runs behind docs/figures.md, and draw its pictures into this folder.

    python docs/figures/make.py STORE

Runs that STORE has already are not trained again. The picture of ranks is of made-up numbers,
because average ranks need several datasets.
"""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1] / "tests" / "support"))

LINEAR = ("--suite", "early-learning-linear", "--only", "ce,elr")
DIGITS = ("--suite", "figures", "--condition", "0.4")
PICTURES = (
    ("epochs", *DIGITS),
    ("memorisation", *LINEAR),
    ("gradient", *LINEAR),
    ("noise-rate", "--suite", "figures"),
    ("transition", *DIGITS),
    ("cost", *DIGITS),
    ("differences", "--suite", "figures", "--condition", "0.6"),
)


def nlbench(*arguments: object) -> None:
    """Run a command, and stop if it fails."""
    subprocess.run(["nlbench", *map(str, arguments)], check=True)


def main() -> None:
    """Train and draw."""
    store = Path(sys.argv[1])
    nlbench("run", HERE / "digits.yaml", "--out", store)
    linear = ("early-learning-linear", "--only", "ce,elr", "--record-gradients")
    nlbench("run", *linear, "--out", store)
    for kind, *options in PICTURES:
        nlbench("plot", kind, store, *options, "--to", HERE / f"{kind}.svg")

    from made_figures import write_results

    names = ("A", "B", "C", "D", "E", "F", "G")
    datasets = [(f"dataset {name}", f"made-up-{name}", 0.0) for name in names]
    rows = [f"method-{number}" for number in range(1, 7)]
    write_results(store / "made-up", rows=rows, conditions=datasets, suite="made up")
    nlbench("plot", "ranks", store / "made-up", "--to", HERE / "ranks.svg")


if __name__ == "__main__":
    main()
