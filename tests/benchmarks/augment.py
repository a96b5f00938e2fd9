"""Images/s of `ops.augment` beside PIL transforms and torch's fancy indexing, in turn on one thread; no data needed.

python tests/benchmarks/augment.py
"""

import itertools
import statistics
import time

import torch
from PIL import Image
from torchvision import transforms

from nlbench import hardware, ops
from nlbench import hardware as hardware_

MEAN, STD, BATCH, N = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010), 128, 50_000
ROUNDS, IN_A_ROW = 60, 10


def pictures():
    rng = torch.Generator().manual_seed(0)
    images = torch.randint(256, (N, 32, 32, 3), dtype=torch.uint8, generator=rng)
    shifts, flips = torch.randint(9, (N, 2), generator=rng), torch.randint(2, (N, 1), generator=rng)
    return images, torch.cat([shifts, flips], 1), torch.randperm(N, generator=rng)


def pil(images):
    """A user's transforms, image by image; the draws are its own."""
    chain = transforms.Compose(
        [
            transforms.RandomCrop(32, padding=4),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )
    arrays = images.numpy()
    return lambda index: torch.stack([chain(Image.fromarray(arrays[i])) for i in index.tolist()])


def fancy(images, draws):
    """The whole batch by indexing a padded copy of the data set."""
    padded = torch.nn.functional.pad(images.permute(0, 3, 1, 2), (4, 4, 4, 4)).permute(0, 2, 3, 1).contiguous()
    mean, std, side = torch.tensor(MEAN), torch.tensor(STD), torch.arange(32)

    def batch(index):
        dy, dx, flip = draws[index].T
        x = torch.where(flip[:, None] == 1, 31 - side, side) + dx[:, None]
        picked = padded[index[:, None, None], (side + dy[:, None])[:, :, None], x[:, None, :]]
        return ((picked.float() / 255 - mean) / std).permute(0, 3, 1, 2)

    return batch


def main():
    torch.set_num_threads(1)
    hardware.keep_freed_memory()  # as in a training
    images, draws, order = pictures()
    ways = {"PIL transforms": pil(images), "torch indexing": fancy(images, draws)}
    for dtype in (torch.float32, torch.bfloat16):
        for form in (torch.channels_last, torch.contiguous_format):
            ways[f"ops.augment, {dtype}, {form}".replace("torch.", "")] = lambda index, dtype=dtype, form=form: (
                ops.augment(images, index, draws, mean=MEAN, std=STD, dtype=dtype, memory_format=form)
            )
    ours = ways["ops.augment, float32, channels_last"]
    torch.testing.assert_close(ways["torch indexing"](order[:BATCH]), ours(order[:BATCH]))
    seconds = {name: [] for name in ways}
    batches = itertools.cycle(order[: N // BATCH * BATCH].split(BATCH))  # each its own, so that none is found cached
    # Several in a row, so that what one way leaves of the caches does not weigh on the way after it.
    for r in range(ROUNDS):
        for name, way in ways.items():
            if r % 20 and name == "PIL transforms":
                continue
            for index in itertools.islice(batches, IN_A_ROW):
                begun = time.perf_counter()
                way(index)
                seconds[name].append(time.perf_counter() - begun)
    print(f"{hardware_.processor()}, 1 thread, torch {torch.__version__}, batches of {BATCH} of {N} images 32x32x3\n")
    print("| way | images/s, median | quartiles |\n| --- | ---: | ---: |")
    for name, values in seconds.items():
        slow, median, fast = (BATCH / q for q in reversed(statistics.quantiles(values, n=4)))
        print(f"| {name} | {median:,.0f} | {slow:,.0f} to {fast:,.0f} |")


if __name__ == "__main__":
    main()
