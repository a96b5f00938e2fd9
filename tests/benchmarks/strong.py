"""Measure images per second of `ops.strong_augment`, and of the same views made one by one.

    python tests/benchmarks/strong.py [--data-dir DIR]

"One by one" is how nlbench made strong views before: torchvision's or Pillow's operations, called
for each image. The ways take turns on one thread. Seconds are those that the process had the
processor, so that other programs do not count. Without --data-dir the pictures are random and
smooth. A ratio is that of two turns which follow each other.
"""

import argparse
import itertools
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from older_views import auto_augment, rand_augment
from PIL import Image

from nlbench import hardware, ops
from nlbench.data import catalogue
from nlbench.data.places import Places
from nlbench.ops.policies import POLICIES

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
BATCH = 128
# The batches of a turn.
MANY, FEW = 20, 1
WANTED = 60_000


def pictures(data_dir):
    """Return CIFAR-10's training images, or random ones in their form: (N, 32, 32, 3) uint8."""
    if data_dir is not None:
        read = catalogue.open_dataset("cifar10", "", Places.of_user(data_dir), 0)
        return torch.from_numpy(np.array(read.train_images))
    coarse = np.random.default_rng(0).integers(0, 256, (5000, 8, 8, 3), np.uint8)
    smooth = [np.asarray(Image.fromarray(one).resize((32, 32))) for one in coarse]
    return torch.from_numpy(np.stack(smooth))


def one_by_one(kind, images, draws):
    """Return a function that makes the views of a batch as nlbench did before."""

    def batch(index):
        every = torch.arange(len(index))
        if kind == "autoaugment":
            planes = images[index].permute(0, 3, 1, 2).contiguous()
            changed, kept = auto_augment(planes, index, 0)
            changed = changed.permute(0, 2, 3, 1).contiguous()
            views = ops.augment(changed, every, draws[index], mean=MEAN, std=STD)
            return views * kept[:, None]

        cropped = ops.augment(images, index, draws, mean=(0.0,) * 3, std=(1 / 255,) * 3)
        planes = cropped.round().to(torch.uint8)
        changed = rand_augment(planes, index, 0, int(kind.removeprefix("randaugment-")))
        changed = changed.permute(0, 2, 3, 1).contiguous()
        return ops.augment(changed, every, None, mean=MEAN, std=STD)

    return batch


def in_one_pass(kind, images, draws, dtype):
    """Return `ops.strong_augment` with everything but the index filled in."""
    options = {"seed": 0, "mean": MEAN, "std": STD, "policy": POLICIES[kind], "dtype": dtype}

    def batch(index):
        return ops.strong_augment(images, index, draws, **options)

    return batch


def speed(way, batches):
    """Return the images per second of processor time in a turn."""
    begun = time.process_time()
    count = 0
    for index in batches:
        way(index)
        count += len(index)
    return count / (time.process_time() - begun)


def measure(kind, images, draws, rounds):
    """Return images per second by way, a value a round."""
    ways = {
        "one by one, float32": one_by_one(kind, images, draws),
        "one pass, float32": in_one_pass(kind, images, draws, torch.float32),
        "one pass, bfloat16": in_one_pass(kind, images, draws, torch.bfloat16),
    }
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    batches = itertools.cycle(order[: len(order) // BATCH * BATCH].split(BATCH))
    found = {name: [] for name in ways}
    # The first call imports what a way needs.
    for way in ways.values():
        way(order[:BATCH])
    for _ in range(rounds):
        for name, way in ways.items():
            count = FEW if name.startswith("one by one") else MANY
            found[name].append(speed(way, itertools.islice(batches, count)))
    return found


def main():
    """Time all kinds, and print a table in Markdown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", type=Path, help="the folder of CIFAR-10")
    parser.add_argument("--rounds", type=int, default=30)
    given = parser.parse_args()

    torch.set_num_threads(1)
    # A training has this setting, too.
    hardware.keep_freed_memory()
    images = pictures(given.data_dir)
    rng = torch.Generator().manual_seed(0)
    shifts = torch.randint(9, (len(images), 2), generator=rng)
    draws = torch.cat([shifts, torch.randint(2, (len(images), 1), generator=rng)], 1)

    machine = f"{hardware.processor()}, 1 thread, torch {torch.__version__}"
    print(f"{machine}, batches of {BATCH} of {len(images)} images 32x32x3\n")
    print("| views | way | images/s, median | range | times one by one, median |")
    print("| --- | --- | ---: | ---: | ---: |")
    for kind in POLICIES:
        found = measure(kind, images, draws, given.rounds)
        before = found["one by one, float32"]
        for name, values in found.items():
            ratio = statistics.median(a / b for a, b in zip(values, before, strict=True))
            shown = f"{min(values):,.0f} to {max(values):,.0f}"
            median = f"{statistics.median(values):,.0f}"
            print(f"| {kind} | {name} | {median} | {shown} | {ratio:.1f} |", flush=True)
    print(f"\nThe goal is {WANTED:,} images/s and 20 times one by one.")


if __name__ == "__main__":
    main()
