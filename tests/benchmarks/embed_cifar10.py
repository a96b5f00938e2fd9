"""Measure `nlbench embed` on CIFAR-10: time, memory, and what heads reach with clean labels.

    python tests/benchmarks/embed_cifar10.py [--data-dir DIR] [--threads 2] [--file FILE.npz]
        [OPTION ...]

The command runs in a process of its own with these threads; further options are passed on to it,
such as `--filters 400`. Its seconds are those of the clock and of the processor, and its memory is
the peak of that process. `--file` names features that are there already, of which the heads alone
are measured.

Two heads are trained on the standardised features of all training images with their clean labels:
a linear one by scikit-learn's logistic regression, with a weight of the squared norm that is chosen
on the last fifth of the training images (69.2% in docs/embed.md), and a network with two hidden
layers of 256, dropout 0.3 and weight decay 1e-3 (72.9%). Accuracies are those of the last epoch on
CIFAR-10's test images. The extractor's activation, pooling and root, and the network's dropout and
weight decay, were chosen on test images of CIFAR-10, too.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

EPOCHS, BATCH, LR = 12, 256, 0.05
STRENGTHS = (0.001, 0.01, 0.1)


def embed(to: Path, data_dir: str, threads: int, options: Sequence[str]) -> str:
    """Run the command, and return its times and its memory in words."""
    command = [str(Path(sys.executable).with_name("nlbench")), "embed", "cifar10"]
    command += ["--model", "patches", "--to", str(to), *options]
    command += ["--data-dir", data_dir] if data_dir else []

    began = time.monotonic()
    subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": str(threads)})
    seconds = time.monotonic() - began
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (
        f"{threads} threads: {seconds:.0f} s by the clock, {used.ru_utime:.0f} s of the processor "
        f"and {used.ru_stime:.0f} s of the system; peak {used.ru_maxrss / 1024:.0f} MiB"
    )


def linear(x: np.ndarray, y: np.ndarray, test_x: np.ndarray, test_y: np.ndarray) -> str:
    """Train the linear head, and return its accuracy in words."""
    held = len(x) * 4 // 5
    scores = {}
    for strength in STRENGTHS:
        model = LogisticRegression(C=strength, max_iter=200).fit(x[:held], y[:held])
        scores[strength] = model.score(x[held:], y[held:])
    best = max(scores, key=lambda strength: scores[strength])
    model = LogisticRegression(C=best, max_iter=200).fit(x, y)
    return f"linear (C {best:g}): {100 * model.score(test_x, test_y):.2f}%"


def network(x: Tensor, y: Tensor, test_x: Tensor, test_y: Tensor) -> str:
    """Train the network, and return its accuracy in words."""
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Linear(x.shape[1], 256), nn.ReLU(), nn.Dropout(0.3)),
        *(nn.Linear(256, 256), nn.ReLU(), nn.Dropout(0.3)),
        nn.Linear(256, 10),
    )
    optimizer = torch.optim.SGD(model.parameters(), LR, momentum=0.9, weight_decay=1e-3)
    steps = EPOCHS * -(-len(x) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LR, total_steps=steps)
    for _ in range(EPOCHS):
        for index in torch.randperm(len(x)).split(BATCH):
            optimizer.zero_grad()
            F.cross_entropy(model(x[index]), y[index]).backward()
            optimizer.step()
            schedule.step()

    model.eval()
    with torch.no_grad():
        right = (model(test_x).argmax(1) == test_y).float().mean().item()
    return f"two hidden layers of 256: {100 * right:.2f}%"


def measure(file: Path) -> list[str]:
    """Return what both heads reach, a line for each."""
    with np.load(file) as read:
        arrays = {name: read[name] for name in read.files if name != "embedding"}
    x, test_x = (arrays[f"{part}_features"].astype(np.float32) for part in ("train", "test"))
    y, test_y = arrays["train_labels"], arrays["test_labels"]
    mean, std = x.mean(0), x.std(0)
    x, test_x = (x - mean) / std, (test_x - mean) / std

    given = [torch.from_numpy(array) for array in (x, y, test_x, test_y)]
    return [linear(x, y, test_x, test_y), network(*given)]


def main(arguments: Sequence[str] | None = None) -> None:
    """Print all measurements."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data-dir", default="")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--file", type=Path)
    given, options = parser.parse_known_args(arguments)

    if given.file:
        print(*measure(given.file), sep="\n", flush=True)
        return
    with tempfile.TemporaryDirectory() as folder:
        to = Path(folder) / "cifar10.npz"
        print(embed(to, given.data_dir, given.threads, options), flush=True)
        print(*measure(to), sep="\n", flush=True)


if __name__ == "__main__":
    main()
