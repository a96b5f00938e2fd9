"""Measure images per second of `ops.augment`, PIL transforms and torch's fancy indexing.

    python tests/benchmarks/augment.py

The ways take turns on one thread. No data is needed: the pictures are random.
"""

import itertools
import statistics
import time

import torch
from PIL import Image
from torchvision import transforms

from nlbench import hardware, ops

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
BATCH, N = 128, 50_000
ROUNDS, IN_A_ROW = 60, 10
# PIL is some hundred times slower than the others, so it has a turn only every so many rounds.
PIL_EVERY = 20


def pictures():
    """Return random images, the shifts and flips of each, and an order of the images."""
    rng = torch.Generator().manual_seed(0)
    images = torch.randint(256, (N, 32, 32, 3), dtype=torch.uint8, generator=rng)
    shifts = torch.randint(9, (N, 2), generator=rng)
    flips = torch.randint(2, (N, 1), generator=rng)
    return images, torch.cat([shifts, flips], 1), torch.randperm(N, generator=rng)


def pil(images):
    """Return a user's transforms, image by image, with draws of their own."""
    chain = transforms.Compose(
        [
            transforms.RandomCrop(32, padding=4),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )
    arrays = images.numpy()

    def batch(index):
        return torch.stack([chain(Image.fromarray(arrays[i])) for i in index.tolist()])

    return batch


def fancy(images, draws):
    """Return a function that indexes a padded copy of the dataset, a whole batch at once."""
    padded = torch.nn.functional.pad(images.permute(0, 3, 1, 2), (4, 4, 4, 4))
    padded = padded.permute(0, 2, 3, 1).contiguous()
    mean, std, side = torch.tensor(MEAN), torch.tensor(STD), torch.arange(32)

    def batch(index):
        dy, dx, flip = draws[index].T
        y = side + dy[:, None]
        x = torch.where(flip[:, None] == 1, 31 - side, side) + dx[:, None]
        picked = padded[index[:, None, None], y[:, :, None], x[:, None, :]]
        return ((picked.float() / 255 - mean) / std).permute(0, 3, 1, 2)

    return batch


def ours(images, draws, dtype, memory_format):
    """Return `ops.augment` with everything but the index filled in."""
    options = {"mean": MEAN, "std": STD, "dtype": dtype, "memory_format": memory_format}

    def batch(index):
        return ops.augment(images, index, draws, **options)

    return batch


def all_ways(images, draws):
    """Return the functions that are compared, by their names in the table."""
    ways = {"PIL transforms": pil(images), "torch indexing": fancy(images, draws)}
    for dtype in (torch.float32, torch.bfloat16):
        for form in (torch.channels_last, torch.contiguous_format):
            name = f"ops.augment, {dtype}, {form}".replace("torch.", "")
            ways[name] = ours(images, draws, dtype, form)
    return ways


def timed(ways, order):
    """Return the seconds of each batch, by way."""
    seconds = {name: [] for name in ways}
    # Every call gets another batch, so that none finds its images in the cache.
    batches = itertools.cycle(order[: N // BATCH * BATCH].split(BATCH))
    # A way has several calls in a row, because the first finds the caches as another way left them.
    for r in range(ROUNDS):
        for name, way in ways.items():
            if r % PIL_EVERY and name == "PIL transforms":
                continue
            for index in itertools.islice(batches, IN_A_ROW):
                begun = time.perf_counter()
                way(index)
                seconds[name].append(time.perf_counter() - begun)
    return seconds


def main():
    """Check that the ways agree, time them, and print a table in Markdown."""
    torch.set_num_threads(1)
    # A training has this setting, too.
    hardware.keep_freed_memory()
    images, draws, order = pictures()
    ways = all_ways(images, draws)
    indexed = ways["torch indexing"](order[:BATCH])
    augmented = ways["ops.augment, float32, channels_last"](order[:BATCH])
    torch.testing.assert_close(indexed, augmented)

    seconds = timed(ways, order)

    machine = f"{hardware.processor()}, 1 thread, torch {torch.__version__}"
    print(f"{machine}, batches of {BATCH} of {N} images 32x32x3\n")
    print("| way | images/s, median | quartiles |\n| --- | ---: | ---: |")
    for name, values in seconds.items():
        fast, median, slow = statistics.quantiles(values, n=4)
        quartiles = f"{BATCH / slow:,.0f} to {BATCH / fast:,.0f}"
        print(f"| {name} | {BATCH / median:,.0f} | {quartiles} |")


if __name__ == "__main__":
    main()
