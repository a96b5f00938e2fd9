"""Open the images that `nlbench embed` is asked for, and read them by their positions."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from nlbench.data import catalogue, decode
from nlbench.data.base import Dataset, ImageFiles, Images, Info, is_vector
from nlbench.data.decode import Geometry
from nlbench.data.places import FolderOptions, Places
from nlbench.errors import SuiteError, unknown_name

# Images that are turned into pictures at once.
_CHUNK = 4096


@dataclass(frozen=True)
class Asked:
    """A dataset as a user names it.

    Attributes:
        name: of the dataset.
        path: its folder, or owner/name on a hub; "" for a dataset of the data directory.
    """

    name: str
    path: str

    @classmethod
    def of(cls, text: str) -> Asked:
        """Read cifar10n, FOLDER, folder:FOLDER or another dataset and its path behind a colon.

        Raises: SuiteError for what is neither a dataset nor a folder, and for a dataset that needs
            a path and has none.
        """
        known = catalogue.dataset_files()
        name, colon, path = text.partition(":")
        if name in known and (colon or not _is_located(name)):
            return cls(name, path)
        folder = Path(text).expanduser()
        if folder.is_dir():
            return cls("folder", str(folder))
        if name in known:
            _require_pictures(catalogue.dataset(name).INFO)
            raise SuiteError(f"{name} needs a path behind a colon: {name}:PATH")
        if "/" in text:
            raise SuiteError(f"{text}: no such folder, and no dataset of that name")
        raise SuiteError(f"{unknown_name('dataset', text, known)} Or name a folder of pictures")

    def open(self, places: Places, test_share: float) -> Dataset:
        """Read the dataset.

        Pixels (N, C, H, W) float32 from 0 to 1, as those of MNIST, become (N, H, W, 3) uint8.

        Raises: DataMissing, DataError where it cannot be read; SuiteError where it has no pictures.
        """
        _require_pictures(catalogue.dataset(self.name).INFO)
        options = FolderOptions(test_share=test_share) if test_share else None
        if test_share and not self.path:
            raise SuiteError(f"--test-share is for folders; {self.name} has a test part of its own")
        data = catalogue.open_dataset(self.name, self.path, places, 0, options)
        # What the hub has is known only when it has been read.
        _require_pictures(data.info)
        return replace(
            data,
            train_images=_as_pictures(data.train_images),
            test_images=_as_pictures(data.test_images),
        )


def _is_located(name: str) -> bool:
    return catalogue.dataset(name).INFO.located_by == "suite"


def _require_pictures(info: Info) -> None:
    """Raise SuiteError for a dataset of texts or of vectors of features."""
    # A text has one length, and a picture has two sides.
    if len(info.shape) == 1:
        raise SuiteError(
            f"dataset {info.name} holds texts, which have no pictures; a suite trains on them as "
            "they are"
        )
    if is_vector(info):
        raise SuiteError(
            f"dataset {info.name} holds no pictures, but features, which need no embedding"
        )


def _as_pictures(images: Images) -> Images:
    """Return pixels (N, 1 or 3, H, W) float32 from 0 to 1 as (N, H, W, 3) uint8, others as is."""
    if isinstance(images, ImageFiles) or images.dtype == np.uint8:
        return images
    N, _, H, W = images.shape
    pictures = np.empty((N, H, W, 3), np.uint8)
    for start in range(0, N, _CHUNK):
        pixels = images[start : start + _CHUNK].transpose(0, 2, 3, 1)
        # A grey level stands in all three channels.
        pictures[start : start + _CHUNK] = np.rint(255 * pixels)
    return pictures


def squares(images: Images, index: np.ndarray, size: int) -> np.ndarray:
    """Read images as (B, H, W, 3) uint8: whole arrays, or the centres of resized files.

    Args:
        size: pixels of a side. Files are resized so that the short side has it, and cut to a
            square. Arrays are resized likewise; with 0 they stay as they are.
    Raises: DataError, naming the file.
    """
    if isinstance(images, ImageFiles):
        geometry = Geometry(resize=size, crop=size, grey_bits=images.grey_bits, scaled=True)
        paths = [images.path(int(i)) for i in index]
        return np.concatenate(decode.request(paths, geometry, None).take())

    found = np.array(images[index])
    if not size or found.shape[1:3] == (size, size):
        return found
    import torch
    from torchvision.transforms.v2 import functional as F

    pixels = torch.from_numpy(found).permute(0, 3, 1, 2)
    resized = F.center_crop(F.resize(pixels, [size], antialias=True), [size])
    return np.ascontiguousarray(resized.permute(0, 2, 3, 1).numpy())
