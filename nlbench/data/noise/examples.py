"""The training examples that a file of labels must fit."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nlbench.data.base import Dataset, ImageFiles, Info


@dataclass(frozen=True)
class Examples:
    """The training examples of a dataset, as far as they are known when a label file is read.

    Attributes:
        info: sizes and classes.
        names: the names of the image files, in the order of the training examples. Empty for
            images in memory, which have none. None where they are not known yet.
        root: the folder of the image files.
        clean: the true labels (N,); None where they are not known.
    """

    info: Info
    names: tuple[str, ...] | None = None
    root: Path = Path()
    clean: np.ndarray | None = None

    @classmethod
    def unread(cls, info: Info) -> Examples:
        """Return what is known of a dataset before it is read."""
        # Images with a shape are in memory.
        return cls(info, () if info.shape else None)

    @classmethod
    def of(cls, dataset: Dataset) -> Examples:
        """Return the training examples of a dataset that was read."""
        images = dataset.train_images
        if not isinstance(images, ImageFiles):
            return cls(dataset.info, (), clean=dataset.clean_labels)
        names = tuple(os.fsdecode(name) for name in images.names)
        return cls(dataset.info, names, images.root, dataset.clean_labels)
