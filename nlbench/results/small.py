"""Leave out what makes a store large, for one that goes into a repository with its code."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import IO

from nlbench.files import write_atomic
from nlbench.results.integrity import (
    HISTORY,
    PREDICTIONS,
    RECORD,
    json_bytes,
    listed_files,
    read_object,
    with_checksums,
)
from nlbench.results.numbers import read_arrays

# What predictions.npz has beside the predicted classes, with a value or more for each image. The
# labels and positions follow from the data and the seed.
LEFT_OUT = frozenset(
    {
        *("train_prob", "train_loss", "margin", "own_score", "own_label", "names"),
        *("labels", "train_index", "val_index", "test_labels"),
        *("train_probs", "val_probs", "test_probs"),
    }
)


def shrink(folder: Path) -> None:
    """Take the arrays of `LEFT_OUT` out of a run's predictions.npz, and mend its checksums.

    The record keeps its time, by which a later merge tells which of two runs is newer. A run
    without checksums, or without predictions, stays as it is.

    Args:
        folder: of a whole run.
    Raises: ValueError for a predictions.npz that cannot be read.
    """
    values = read_object(folder / RECORD)
    if PREDICTIONS not in listed_files(values):
        return
    arrays = read_arrays(folder / PREDICTIONS)
    kept = {name: array for name, array in arrays.items() if name not in LEFT_OUT}
    if len(kept) == len(arrays):
        return

    # Imported here, because tables read records and do without NumPy.
    import numpy as np

    def write(file: IO[bytes]) -> None:
        # `numpy.load` reads this as it reads its own compressed files, which are a fifth larger.
        with zipfile.ZipFile(file, "w", zipfile.ZIP_BZIP2) as archive:
            for name, array in kept.items():
                with archive.open(f"{name}.npy", "w") as member:
                    np.lib.format.write_array(member, array, allow_pickle=False)

    write_atomic(folder / PREDICTIONS, write)
    state = (folder / RECORD).stat()
    del values["checksums"]
    files = {name: folder / name for name in (HISTORY, PREDICTIONS) if (folder / name).exists()}
    content = json_bytes(with_checksums(values, files))
    write_atomic(folder / RECORD, lambda file: file.write(content))
    os.utime(folder / RECORD, ns=(state.st_atime_ns, state.st_mtime_ns))
