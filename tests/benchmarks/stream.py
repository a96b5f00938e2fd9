"""Measure how fast a folder of images is decoded, and how fast a ResNet-50 learns from it.

    python tests/benchmarks/stream.py FOLDER [--images 50000] [--seconds 60]

Writes FOLDER once: JPEGs of 320x256 to 400x256, noise upon smooth colours, 2,000 different ones
under 25 names each, which a decoder cannot know. Then reads an epoch in batches of 64 (resize 256,
random crop 224, flip) without a network, and times a ResNet-50's steps on ready batches. Memory is
that of all processes: the sum of the memory that each has alone (PSS of /proc).
"""

import argparse
import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from nlbench import models
from nlbench.data import decode
from nlbench.data.base import Info
from nlbench.data.formats import image_lists
from nlbench.training.images import FileImages

DIFFERENT = 2000
BATCH = 64
# Memory is read every so many images, because reading it takes time, too.
LOOK_EVERY = 20 * BATCH


def write(folder: Path, count: int) -> list[str]:
    """Write `count` images, unless they exist, and return their names."""
    rng = np.random.default_rng(0)
    names = [f"{i // 1000:03}/{i:06}.jpg" for i in range(count)]
    for i, name in enumerate(names):
        path = folder / name
        if path.exists():
            continue

        path.parent.mkdir(parents=True, exist_ok=True)
        # A link needs no space, and a decoder has the same work with it.
        if i >= DIFFERENT:
            os.link(folder / names[i % DIFFERENT], path)
            continue

        coarse = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        large = coarse.resize((320 + i % 81, 256), Image.Resampling.BICUBIC)
        smooth = np.asarray(large, np.int16)
        noisy = (smooth + rng.integers(-20, 21, smooth.shape)).clip(0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(path, quality=85)
    return names


def memory() -> float:
    """Return the memory of this process and its children in MB."""
    total, parents = 0, {os.getpid()}
    # In ascending order a process comes after its parent.
    for entry in sorted(int(p.name) for p in Path("/proc").iterdir() if p.name.isdecimal()):
        try:
            stat = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
            if entry not in parents and int(stat[1]) not in parents:
                continue
            parents.add(entry)
            rollup = Path(f"/proc/{entry}/smaps_rollup").read_text()
        except (OSError, ValueError):
            # The process has ended in between, or belongs to another user.
            continue
        total += int(rollup.partition("Pss:")[2].split()[0])
    return total / 1024


def opened(folder: Path, names: list[str]) -> FileImages:
    """Return the images as a training reads them."""
    info = Info(
        "bench",
        "bench",
        14,
        len(names),
        0,
        (),
        mean=image_lists.IMAGENET_MEAN,
        std=image_lists.IMAGENET_STD,
    )
    files = image_lists.image_files(folder, names)
    geometry = decode.Geometry(256, 224)
    return FileImages(files, info, torch.device("cpu"), "crop-flip", geometry)


def decoding(images: FileImages, count: int, seconds: float) -> float:
    """Decode an epoch, or as much as `seconds` allow; print the memory, return images/s."""
    draws = images.draws(np.random.default_rng(0))
    order = torch.from_numpy(np.random.default_rng(1).permutation(count))
    before = memory()
    # The workers need the other cores.
    torch.set_num_threads(1)
    batches, seen = iter(order.split(BATCH)), 0
    read: list[float] = []

    # The workers start with the first batches, which are not timed.
    ahead = [images.request(next(batches), draws) for _ in range(images.ahead + 1)]
    for waiting in ahead[:2]:
        waiting()
    ahead = ahead[2:]

    begun = time.perf_counter()
    for index in batches:
        ahead.append(images.request(index, draws))
        seen += len(ahead.pop(0)())
        if seen % LOOK_EVERY == 0:
            read.append(memory())
        if time.perf_counter() - begun > seconds:
            break
    decoded = seen / (time.perf_counter() - begun)

    after = f"{read[0]:.0f} MB after 1,280 images, at most {max(read):.0f} MB in {seen}"
    print(f"memory: {before:.0f} MB before, {after}")
    return decoded


def step_seconds(name: str) -> float:
    """Return the median of three training steps of a model on one batch, after one to warm up."""
    network = models.build(name, 14, (3, 224, 224)).to(memory_format=torch.channels_last)
    optimiser = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, fused=True)
    batch = torch.randn(BATCH, 3, 224, 224).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(14, (BATCH,))

    times = []
    for _ in range(4):
        begun = time.perf_counter()
        optimiser.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            logits = network(batch)
        torch.nn.functional.cross_entropy(logits.float(), labels).backward()
        optimiser.step()
        times.append(time.perf_counter() - begun)
    return sorted(times[1:])[1]


def lines(options: argparse.Namespace) -> Iterator[str]:
    """Measure, and yield the lines of the report."""
    names = write(options.folder, options.images)
    sizes = [(options.folder / name).stat().st_size for name in names[:DIFFERENT]]
    size = np.mean(sizes) / 1000
    yield f"{len(names)} images, {size:.0f} kB each on average; {decode.workers()} worker processes"

    images = opened(options.folder, names)
    decoded = decoding(images, len(names), options.seconds)
    yield f"decoding alone: {decoded:.0f} images/s"

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    for name in ("torchvision/resnet50", "torchvision/resnet18"):
        step = step_seconds(name)
        speed = f"{BATCH / step:.1f} images/s in training, bfloat16"
        yield f"{name}: {speed}; decoding is {decoded * step / BATCH:.0f} x that"


def main() -> None:
    """Read the command line and print the report."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--seconds", type=float, default=60)
    for line in lines(parser.parse_args()):
        print(line)


if __name__ == "__main__":
    main()
