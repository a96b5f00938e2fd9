"""Search for the values of the preset cifar-cpu, by trainings of cross entropy alone.

    python tests/benchmarks/cifar_cpu_search.py --data-dir DIR --isa avx2 --out FILE.csv \\
        cnn3:20000:20:128:0.05 conv32p-conv64p-dense256:15000:12:64:0.05:0

A try is NETWORK:IMAGES:EPOCHS:BATCH:LR, and then :WEIGHT_DECAY if it is not 5e-4. A network is one
of `nlbench list models`, or a chain of the layers in `LAYERS`. Each try trains on the worst labels
of CIFAR-10N, and, if it has memorised enough of the wrong ones, on the clean labels. All of them
use SGD with momentum 0.9, one cycle of the learning rate, one thread, float32, and no augmentation.
A line is added to the file after each try, and a try that has one is left out.

The loop is a short one and not that of `nlbench run`: it evaluates once, at the end. The column
`run` adds what an evaluation after each epoch and the start of a process cost. All seconds are
those that the processor spent, so that other programs do not count.
"""

import argparse
import csv
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

# What the three libraries call AVX2. They read it when they are loaded.
AVX2 = {
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "ATEN_CPU_CAPABILITY": "avx2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    "NLBENCH_ISA": "avx2",
}

LAYERS = """convN: 3x3 convolution, batch norm, ReLU. convNp: the same, with a 2x2 max-pool
after the convolution. convNs: with stride 2. patchN: 4x4 convolution with stride 2, batch norm,
ReLU. patchNp: the same with a max-pool. res: a residual pair of convolutions. pool: 2x2 max-pool.
max: the largest value of each channel. denseN: linear, ReLU. The classifier follows by itself."""

# The first of the seeds that the suite does not use.
SEED = 100
# Below that share the clean labels are not tried: the preset asks for 0.9.
ENOUGH = 0.85


@dataclass(frozen=True)
class Try:
    """The values of one try."""

    network: str
    images: int
    epochs: int
    batch: int
    lr: float
    weight_decay: float = 5e-4

    @classmethod
    def parse(cls, text: str) -> "Try":
        """Read NETWORK:IMAGES:EPOCHS:BATCH:LR[:WEIGHT_DECAY]."""
        network, images, epochs, batch, lr, *decay = text.split(":")
        return cls(network, int(images), int(epochs), int(batch), float(lr), *map(float, decay))


@dataclass(frozen=True)
class Found:
    """What a try has given. Shares are in [0, 1], seconds are those of the processor.

    Attributes:
        parameters: of the network.
        memorised: share of the wrong labels that the trained network predicts.
        worst, clean: test accuracy after training on these labels; clean is nan if not trained.
        training: seconds of all steps on the worst labels.
        evaluation: seconds of predicting the test images once.
        start: seconds from the start of the process to the first step.
        run: seconds of a run with an evaluation after each epoch.
    """

    parameters: int
    memorised: float
    worst: float
    clean: float
    training: float
    evaluation: float
    start: float
    run: float
    isa: str
    seed: int


COLUMNS = [field.name for field in (*fields(Try), *fields(Found))]


def main(arguments: Sequence[str] | None = None) -> None:
    """Train what the file has no line of."""
    parser = argparse.ArgumentParser(epilog=LAYERS)
    parser.add_argument("tries", nargs="+", type=Try.parse)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--isa", choices=["avx2", "native"], default="native")
    parser.add_argument("--seed", type=int, default=SEED)
    chosen = parser.parse_args(arguments)

    if chosen.isa == "avx2" and any(os.environ.get(name) != to for name, to in AVX2.items()):
        # The libraries have to find the variables before Python imports them.
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **AVX2})

    # Not at the top of the file, because it imports torch.
    from cifar_cpu_trial import Trials

    trials = Trials(chosen.data_dir, chosen.seed)
    for values in chosen.tries:
        if values in done(chosen.out):
            continue
        found = Found(**trials.run(values, ENOUGH), isa=chosen.isa, seed=chosen.seed)
        append(chosen.out, values, found)
        print(values, found, flush=True)


def done(path: Path) -> set[Try]:
    """Return the tries that the file has a line of."""
    if not path.exists():
        return set()
    names = [field.name for field in fields(Try)]
    with path.open(newline="") as file:
        return {Try.parse(":".join(row[name] for name in names)) for row in csv.DictReader(file)}


def append(path: Path, values: Try, found: Found) -> None:
    """Add a line, and the head of the table to a new file."""
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if new:
            writer.writeheader()
        rounded = {}
        for name, value in {**asdict(values), **asdict(found)}.items():
            rounded[name] = f"{value:.4g}" if isinstance(value, float) else value
        writer.writerow(rounded)


if __name__ == "__main__":
    main()
