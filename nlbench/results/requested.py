"""Which numbers has a run kept only because somebody asked for them?"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import NamedTuple

from nlbench.files import open_regular
from nlbench.results.integrity import HISTORY, PREDICTIONS, located

# A line with the names of columns is not longer.
_LONGEST_LINE = 100_000


class Requested(NamedTuple):
    """What a run has kept with `--save-probabilities` and with `--record-gradients`.

    Probabilities of few examples count, too, although they are always kept.
    """

    probabilities: bool
    gradients: bool


def kept_on_request(folder: Path) -> Requested:
    """Return which of these numbers the files of a run have; none where a file cannot be read."""
    return Requested(has_probabilities(folder), has_gradients(folder))


def has_probabilities(folder: Path) -> bool:
    """Return whether the run in `folder` has the probabilities of its training images."""
    # A file that somebody made can make zipfile raise almost any exception.
    try:
        with (
            open_regular(located(folder, PREDICTIONS)) as file,
            zipfile.ZipFile(file) as archive,
        ):
            return "train_probs.npy" in archive.namelist()
    except Exception:
        return False


def has_gradients(folder: Path) -> bool:
    """Return whether the run in `folder` has recorded the terms of its gradients."""
    try:
        with open_regular(located(folder, HISTORY)) as file:
            names = file.readline(_LONGEST_LINE).split(b",")
    except OSError:
        return False
    return any(name.startswith(b"gradient_") for name in names)
