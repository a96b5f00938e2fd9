"""Measure how fast one core decodes photographs, in turn in one process.

    python tests/benchmarks/decode.py [--rounds 15] [--pictures 12]

The photographs are scikit-learn's two, and scikit-image's where it is installed: sections of 420
pixels and more, resized to the sizes of the table and encoded as JPEGs of quality 80 to 92. Each is
resized to 256 pixels on the short side, cropped at random to 224 or 227 and flipped, as in a
training. Speeds are of the processor's time of this process, and a ratio is that of two ways in the
same round. The differences are those of values of 0 to 255 from a picture that is decoded in full.
A reserve of 2 scales less: to at least twice 256 pixels, as Pillow's `thumbnail` does. On a GPU
torchvision's hardware decoder is measured as well: by the clock, in batches, with resizing and
cropping there.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from PIL import Image
from torchvision.io import ImageReadMode, decode_jpeg
from torchvision.transforms.v2 import functional as F

from nlbench import hardware
from nlbench.data import decode, jpeg
from nlbench.data.decode import Geometry

SIZES = (
    *((400, 300), (500, 375), (640, 480), (683, 512), (800, 600)),
    *((1024, 768), (1366, 1024), (1600, 1200)),
)
RESIZE, CROPS = 256, (224, 227)
BEFORE = "before"
# Names of functions of skimage.data whose pictures come with the package.
MORE = ("astronaut", "coffee", "chelsea", "rocket")

# Takes paths and draws (n, 3) or (2, n, 3).
Way = Callable[[list[str], np.ndarray], object]


def photographs() -> list[Image.Image]:
    """Return all photographs that the installed packages have."""
    from sklearn.datasets import load_sample_images

    found = list(load_sample_images().images)
    with contextlib.suppress(ImportError):
        from skimage import data

        found += [getattr(data, name)() for name in MORE]
    return [Image.fromarray(picture[:, :, :3]) for picture in found]


def write(folder: Path, size: tuple[int, int], count: int) -> list[str]:
    """Write `count` sections of the photographs in one size, and return their paths."""
    rng = np.random.default_rng(0)
    pictures = photographs()
    paths = []
    for i in range(count):
        whole = pictures[i % len(pictures)]
        width = int(rng.integers(min(420, whole.width), whole.width + 1))
        height = min(width * 3 // 4, whole.height)
        width = height * 4 // 3
        left = int(rng.integers(0, whole.width - width + 1))
        top = int(rng.integers(0, whole.height - height + 1))

        section = whole.crop((left, top, left + width, top + height))
        path = folder / f"{size[0]}-{i}.jpg"
        section.resize(size, Image.Resampling.LANCZOS).save(path, quality=int(rng.integers(80, 93)))
        paths.append(str(path))
    return paths


# ---- The ways to decode --------------------------------------------------------------------------


def before(paths: list[str], draws: np.ndarray, crop: int) -> np.ndarray:
    """Decode as nlbench did before scaled decoding: by Pillow, in full, with copies."""
    out = np.empty((len(paths), 3, crop, crop), np.uint8)
    for i, (path, draw) in enumerate(zip(paths, draws, strict=True)):
        image = F.resize(F.pil_to_tensor(decode.open_image(path)), [RESIZE], antialias=True)
        out[i] = cut(image, draw, crop).numpy()
    return out


def cut(image: torch.Tensor, draw: np.ndarray, crop: int) -> torch.Tensor:
    """Return the square of an image (3, H, W) that a draw (3,) says."""
    top, left = (int(draw[k] * (image.shape[1 + k] - crop + 1)) for k in (0, 1))
    square = image[:, top : top + crop, left : left + crop]
    return square.flip(2) if draw[2] >= 0.5 else square


def by_torchvision(paths: list[str], draws: np.ndarray, crop: int) -> np.ndarray:
    """Decode in full by torchvision, without a look at orientation or mode."""
    out = np.empty((len(paths), 3, crop, crop), np.uint8)
    for i, (path, draw) in enumerate(zip(paths, draws, strict=True)):
        data = torch.from_numpy(np.fromfile(path, np.uint8))
        whole = decode_jpeg(data, mode=ImageReadMode.RGB)
        out[i] = cut(F.resize(whole, [RESIZE], antialias=True), draw, crop).numpy()
    return out


def on_gpu(paths: list[str], draws: np.ndarray, crop: int) -> torch.Tensor:
    """Decode a batch by the GPU's decoder, and resize and crop it there."""
    data = [torch.from_numpy(np.fromfile(path, np.uint8)) for path in paths]
    whole = decode_jpeg(data, mode=ImageReadMode.RGB, device="cuda")
    squares = []
    for image, draw in zip(whole, draws, strict=True):
        squares.append(cut(F.resize(image, [RESIZE], antialias=True), draw, crop))
    batch = torch.stack(squares)
    torch.cuda.synchronize()
    return batch


def ways(crop: int) -> dict[str, Way]:
    """Return the ways to make one view of each picture, the present one first."""
    exact, scaled = Geometry(RESIZE, crop), Geometry(RESIZE, crop, scaled=True)
    found: dict[str, Way] = {
        BEFORE: lambda paths, draws: before(paths, draws, crop),
        "exact, Pillow": without_simplejpeg(exact),
        "exact, torchvision": lambda paths, draws: by_torchvision(paths, draws, crop),
        "scaled, Pillow": without_simplejpeg(scaled),
        "scaled, reserve of 2": lambda paths, draws: with_reserve(paths, scaled, draws),
    }
    if jpeg.agrees(1):
        found["exact, simplejpeg"] = lambda paths, draws: decode.decode(paths, exact, draws)
        found["scaled, simplejpeg"] = lambda paths, draws: decode.decode(paths, scaled, draws)
    return found


def without_simplejpeg(geometry: Geometry) -> Way:
    """Return a way that decodes by Pillow alone."""

    def way(paths: list[str], draws: np.ndarray) -> object:
        with mock.patch.object(jpeg, "agrees", return_value=False):
            return decode.decode(paths, geometry, draws)

    return way


def with_reserve(paths: list[str], geometry: Geometry, draws: np.ndarray) -> np.ndarray:
    """Decode as nlbench would if the resizing after a scaled decoding always halved the sides."""
    scale_of = jpeg.scale_of
    with mock.patch.object(jpeg, "scale_of", lambda image, least: scale_of(image, 2 * least)):
        return decode.decode(paths, geometry, draws)


def ways_of_two(crop: int) -> dict[str, Way]:
    """Return the ways to make two views of each picture, which most strong methods train on."""
    scaled = Geometry(RESIZE, crop, scaled=True)
    return {
        BEFORE: lambda paths, draws: [before(paths, view, crop) for view in draws],
        "scaled, of one decoding": lambda paths, draws: decode.decode_views(paths, scaled, draws),
    }


# ---- Measuring -----------------------------------------------------------------------------------


def measure(
    found: dict[str, Way], paths: list[str], draws: np.ndarray, rounds: int
) -> dict[str, list[float]]:
    """Return the images/s of each way, a value for each round, after one that is not counted."""
    speeds: dict[str, list[float]] = {name: [] for name in found}
    for i in range(rounds + 1):
        for name, way in found.items():
            begun = time.process_time()
            way(paths, draws)
            if i:
                speeds[name].append(len(paths) / (time.process_time() - begun))
    return speeds


def differences(
    found: dict[str, Way], paths: list[str], draws: np.ndarray, crop: int
) -> dict[str, tuple[float, int]]:
    """Return how far each way is from decoding in full: (mean, largest) of the values' levels."""
    exact = decode.decode(paths, Geometry(RESIZE, crop), draws).astype(int)
    apart = {}
    for name, way in found.items():
        images = np.asarray(way(paths, draws))
        # The ways that are no longer nlbench's have the channels first.
        if images.shape != exact.shape:
            images = images.transpose(0, 2, 3, 1)
        levels = abs(images.astype(int) - exact)
        apart[name] = float(levels.mean()), int(levels.max())
    return apart


def lines(rounds: int, count: int) -> Iterator[str]:
    """Measure, and yield the lines of the tables in Markdown."""
    yield f"{hardware.processor()}, one core, torch {torch.__version__}"
    yield f"simplejpeg: {'used' if jpeg.agrees(1) else 'not installed'}"
    yield ""
    columns = "images/s, median | times before, median | range"
    yield f"| size, kB | crop, views | way | {columns} | mean difference | largest |"
    yield "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: |"
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        for size in SIZES:
            paths = write(Path(folder), size, count)
            weight = statistics.mean(Path(path).stat().st_size for path in paths) / 1000
            draws = rng.random((2, count, 3), np.float32)
            what = f"{size[0]}x{size[1]}, {weight:.0f}"
            for crop in CROPS:
                found = ways(crop)
                apart = differences(found, paths, draws[0], crop)
                speeds = measure(found, paths, draws[0], rounds)
                yield from rows(f"{what} | {crop}, 1", speeds, apart)

            speeds = measure(ways_of_two(CROPS[0]), paths, draws, rounds)
            yield from rows(f"{what} | {CROPS[0]}, 2", speeds, {})

            if torch.cuda.is_available():
                yield from gpu_rows(paths, draws[0], rounds)


def rows(
    what: str, speeds: dict[str, list[float]], apart: dict[str, tuple[float, int]]
) -> Iterator[str]:
    """Yield a line of the table for each way, without differences where they are not known."""
    for name, values in speeds.items():
        ratios = [a / b for a, b in zip(values, speeds[BEFORE], strict=True)]
        spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
        median = statistics.median(values)
        speed = f"{median:.0f} | {statistics.median(ratios):.2f} | {spread}"
        levels = " | "
        if name in apart:
            levels = f"{apart[name][0]:.2f} | {apart[name][1]}"
        yield f"| {what} | {name} | {speed} | {levels} |"


def gpu_rows(paths: list[str], draws: np.ndarray, rounds: int) -> Iterator[str]:
    """Yield a line on the GPU's decoder, in batches of 64, and on its distance from the CPU's."""
    batch = [paths[i % len(paths)] for i in range(64)]
    drawn = draws[np.arange(64) % len(paths)]
    exact = decode.decode(batch, Geometry(RESIZE, CROPS[0]), drawn)
    wanted = exact.transpose(0, 3, 1, 2).astype(int)
    apart = abs(on_gpu(batch, drawn, CROPS[0]).cpu().numpy().astype(int) - wanted)
    seconds = []
    for _ in range(rounds):
        begun = time.perf_counter()
        on_gpu(batch, drawn, CROPS[0])
        seconds.append(time.perf_counter() - begun)
    speed = len(batch) / statistics.median(seconds)
    name = torch.cuda.get_device_name()
    levels = f"{apart.mean():.2f} | {apart.max()}"
    yield f"| {name} | {CROPS[0]}, 1 | its decoder | {speed:.0f} | | | {levels} |"


def main() -> None:
    """Read the command line and print the report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--pictures", type=int, default=12)
    given = parser.parse_args()

    # A decoding process has one thread, too.
    torch.set_num_threads(1)
    for line in lines(given.rounds, given.pictures):
        print(line, flush=True)


if __name__ == "__main__":
    main()
