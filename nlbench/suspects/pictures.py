"""Draw training images: small ones for a page, and a grid of them."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nlbench.data.base import Dataset, ImageFiles
from nlbench.errors import DataError, SuiteError, printable
from nlbench.files import write_new
from nlbench.suspects.listing import agreements, file_of, shown_score, suggested_of, title_of
from nlbench.suspects.ranking import Ranking

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL import Image

# Pixels of the longer side of a picture on a page, and in a grid.
SIZE = 96

# Columns of the grid, and the inches of one cell.
_COLUMNS, _WIDE, _HIGH = 8, 1.25, 1.75
# Characters of a name under a picture. More would run into the next one.
_MOST = 16

GRID_SUFFIXES = (".png", ".pdf", ".svg")
# What the grid shows where nobody says how many.
IN_GRID = 40
# More would make a figure that takes minutes.
MOST_IN_GRID = 400


def require_pictures(data: Dataset) -> None:
    """Raise DataError for a dataset whose examples are no pictures."""
    shape = data.info.shape
    if not isinstance(data.train_images, ImageFiles) and _channels(shape) == 0:
        raise DataError(f"{data.info.title}: its examples of shape {shape} are no pictures")


def _channels(shape: Sequence[int]) -> int:
    """Return how many colours images of this shape have; 0 for what is no image."""
    if len(shape) != 3:
        return 0
    if shape[2] == 3:
        return 3
    return shape[0] if shape[0] in (1, 3) and min(shape[1:]) > 1 else 0


def picture(data: Dataset, index: int, size: int = SIZE) -> Image.Image:
    """Return a training image, at most `size` pixels wide and high.

    Args:
        index: its position in the dataset's training part.
    Raises: DataError for a file that cannot be decoded.
    """
    from PIL import Image

    # Lists without pictures do without torch.
    from nlbench.data import decode

    images = data.train_images
    if isinstance(images, ImageFiles):
        image = decode.open_image(images.path(index), images.grey_bits)
    else:
        image = Image.fromarray(_as_bytes(np.asarray(images[index])))
    if max(image.size) > size:
        image.thumbnail((size, size))
    return image


def _as_bytes(values: np.ndarray) -> np.ndarray:
    """Return one example as (H, W) or (H, W, 3) uint8. Features are in [0, 1]."""
    if values.dtype == np.uint8:
        return values
    scaled = np.clip(255 * values, 0, 255).round().astype(np.uint8)
    return scaled[0] if len(scaled) == 1 else np.moveaxis(scaled, 0, 2)


def data_uri(image: Image.Image) -> str:
    """Return a picture as text that a page holds itself."""
    file = io.BytesIO()
    image.save(file, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


# ---- The grid ------------------------------------------------------------------------------------


def check_grid(path: Path) -> None:
    """Raise SuiteError where no grid can be written to `path`."""
    if path.suffix.lower() not in GRID_SUFFIXES:
        raise SuiteError(f"--grid {path}: its suffix must be one of {', '.join(GRID_SUFFIXES)}")


def write_grid(ranking: Ranking, data: Dataset, top: int | None, path: Path) -> None:
    """Draw the most suspicious examples with their labels, and write them to a new file.

    Args:
        top: how many; None for IN_GRID. More than MOST_IN_GRID are not drawn.
    Raises: DataError for examples that are no pictures, and for a file that cannot be decoded.
    """
    figure = grid(ranking, data, min(top or IN_GRID, MOST_IN_GRID))
    form = path.suffix.lower().removeprefix(".")
    write_new(path, lambda file: figure.savefig(file, format=form, dpi=150))


def grid(ranking: Ranking, data: Dataset, top: int) -> Figure:
    """Return the most suspicious examples with given and suggested labels as a figure."""
    from matplotlib.figure import Figure

    require_pictures(data)
    shown = [int(i) for i in ranking.order[:top]]
    rows = -(-len(shown) // _COLUMNS)
    figure = Figure(figsize=(_COLUMNS * _WIDE, rows * _HIGH + 0.5), layout="constrained")
    # A dollar sign in a name is no formula.
    figure.suptitle(printable(title_of(ranking)), fontsize=8, parse_math=False, wrap=True)

    axes = figure.subplots(rows, _COLUMNS, squeeze=False).ravel()
    for place, axis in enumerate(axes):
        axis.set_axis_off()
        if place >= len(shown):
            continue
        i = shown[place]
        image = picture(data, int(ranking.examples.index[i]), 2 * SIZE)
        small = max(image.size) < SIZE
        grey = {"cmap": "gray", "vmin": 0, "vmax": 255} if image.mode == "L" else {}
        axis.imshow(np.asarray(image), interpolation="nearest" if small else "antialiased", **grey)
        axis.set_title(_caption(ranking, i), fontsize=6, parse_math=False)
    return figure


def _caption(ranking: Ranking, i: int) -> str:
    """Return what stands above a picture."""
    labelling, examples = ranking.labelling, ranking.examples
    name = Path(file_of(ranking, i)).name or f"no. {examples.index[i]}"
    given = labelling.in_words(int(examples.given[i]))
    suggested = suggested_of(ranking, i) or "none"
    numbers = f"{agreements(ranking, i)[0]} runs, {shown_score(ranking, i)}"
    lines = [name, f"given: {given}", f"suggested: {suggested}", numbers]
    return "\n".join(_short(printable(line)) for line in lines)


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _MOST + 6 else text[: _MOST + 5] + "…"
