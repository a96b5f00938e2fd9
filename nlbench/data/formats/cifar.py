"""CIFAR-10 and CIFAR-100 on disk: which layout lies where, and how it becomes one Dataset."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nlbench.data.base import Dataset, Found, Info, Source, fingerprint
from nlbench.data.cache import cached
from nlbench.data.formats import cifar_batches, cifar_parquet
from nlbench.data.missing import require
from nlbench.data.noise.label_files import check_labels
from nlbench.data.places import Places
from nlbench.errors import DataError
from nlbench.files import digest


@dataclass(frozen=True)
class Layout:
    """How the files of one CIFAR are called."""

    name: str  # of the decoded copy, which cifar10 and cifar10n share
    folder: str  # torchvision's, also inside the archive
    archive: str
    train: tuple[str, ...]  # files in the folder, in the canonical order of the images
    test: tuple[str, ...]
    label_key: str  # in these files
    label_columns: tuple[str, ...]  # of parquet files, best first
    places: tuple[str, ...]  # folders of the data directory that are this dataset's own
    md5: Mapping[str, str]  # by file name, of published copies


@dataclass(frozen=True)
class Copy:
    """One copy of the images on disk."""

    form: str  # "folder", "archive" or "parquet"
    train: tuple[Path, ...]
    test: tuple[Path, ...]
    missing: tuple[str, ...] = ()

    @property
    def files(self) -> tuple[Path, ...]:
        return tuple(dict.fromkeys((*self.train, *self.test)))


def find(layout: Layout, data_dir: Path) -> Found:
    """Where the images are: the first whole copy, those with the official pixels before parquet."""
    looked = tuple(place for place, _ in _places(layout, data_dir))
    copy = _copy(layout, data_dir)
    if copy is None:
        what = f"{layout.folder}/, {layout.archive}, or train-*.parquet with test-*.parquet"
        return Found((), looked, (f"the images ({what})",), (layout.archive,))
    return Found(copy.files, looked, copy.missing, (layout.archive,) if copy.missing else ())


def read(info: Info, layout: Layout, sources: Sequence[Source], places: Places) -> Dataset:
    """The images and true labels, decoded once into the cache.

    Raises: DataMissing when they are not there; DataError, naming the file, when they cannot be used.
    """
    require(info, sources, find(layout, places.data_dir), places.data_dir)
    copy = _copy(layout, places.data_dir)
    assert copy is not None
    arrays, facts = cached(places.cache_dir, layout.name, copy.files, lambda: _decode(copy, layout, info))
    return Dataset(
        info=info,
        train_images=arrays["train_images"],
        test_images=arrays["test_images"],
        test_labels=arrays["test_labels"],
        label_sets={"clean": arrays["train_labels"]},
        fingerprint=facts["fingerprint"],
        variant=facts["variant"],
        warnings=tuple(facts["warnings"]),
        checksums=facts["checksums"],
    )


def _places(layout: Layout, data_dir: Path) -> list[tuple[Path, bool]]:
    """Folders to look in, and whether a folder is this dataset's own."""
    return [(data_dir / place, True) for place in layout.places] + [(data_dir, False)]


def _copy(layout: Layout, data_dir: Path) -> Copy | None:
    places = _places(layout, data_dir)
    copies = [_folder(layout, place) for place, _ in places]
    copies += [_archive(layout, place) for place, _ in places]
    copies += [_parquet(layout, place, own) for place, own in places]
    found = [copy for copy in copies if copy is not None]
    return next((copy for copy in found if not copy.missing), found[0] if found else None)


def _folder(layout: Layout, place: Path) -> Copy | None:
    folder = place if place.name == layout.folder else place / layout.folder
    if not folder.is_dir():
        return None
    train, test = (tuple(folder / name for name in names) for names in (layout.train, layout.test))
    return Copy("folder", train, test, tuple(f"{path.name} in {folder}" for path in train + test if not path.is_file()))


def _archive(layout: Layout, place: Path) -> Copy | None:
    path = place / layout.archive
    return Copy("archive", (path,), (path,)) if path.is_file() else None


def _parquet(layout: Layout, place: Path, own: bool) -> Copy | None:
    train, missing_train = cifar_parquet.shards(place, "train")
    test, missing_test = cifar_parquet.shards(place, "test")
    if not train and not test:
        return None
    # In a folder that is not this dataset's own, the label column says whose files these are.
    if not own and not cifar_parquet.has_column((train or test)[0], layout.label_columns[0]):
        return None
    return Copy("parquet", train, test, missing_train + missing_test)


def _decode(copy: Copy, layout: Layout, info: Info) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    decode = _decode_parquet if copy.form == "parquet" else _decode_batches
    try:
        train, test, digests, variant = decode(copy, layout, info)
    except OSError as error:
        raise DataError(f"{error.filename}: cannot be read ({error.strerror})") from error
    _check(*train, info, info.num_train, copy.train, "training")
    _check(*test, info, info.num_test, copy.test, "test")
    unknown = [name for name, md5 in digests.items() if layout.md5.get(name) != md5]
    facts = {
        "fingerprint": fingerprint(train[0], test[0], train[1], test[1]),
        "variant": variant,
        "checksums": {name: f"md5:{md5}" for name, md5 in digests.items()},
        "warnings": [f"unknown checksum of {', '.join(unknown)}: not a published copy of {info.title}"] * bool(unknown),
    }
    names = ("train_images", "train_labels", "test_images", "test_labels")
    return dict(zip(names, (*train, *test), strict=True)), facts


_Part = tuple[np.ndarray, np.ndarray]  # images, labels


def _decode_parquet(copy: Copy, layout: Layout, info: Info) -> tuple[_Part, _Part, dict[str, str], str]:
    *train, train_jpeg = cifar_parquet.decode(copy.train, layout.label_columns, info.shape)
    *test, test_jpeg = cifar_parquet.decode(copy.test, layout.label_columns, info.shape)
    digests = {path.name: digest(path, "md5") for path in copy.files}
    return (train[0], train[1]), (test[0], test[1]), digests, "JPEG" if train_jpeg or test_jpeg else ""


def _decode_batches(copy: Copy, layout: Layout, info: Info) -> tuple[_Part, _Part, dict[str, str], str]:
    names = layout.train + layout.test
    if copy.form == "archive":
        contents = cifar_batches.from_archive(copy.train[0], layout.folder, names)
        place = f"{copy.train[0]}: "
    else:
        contents = cifar_batches.from_folder(copy.files)
        place = f"{copy.train[0].parent}/"

    def part(files: tuple[str, ...]) -> _Part:
        batches = [cifar_batches.decode(contents[n], place + n, layout.label_key, info.shape) for n in files]
        return np.concatenate([images for images, _ in batches]), np.concatenate([labels for _, labels in batches])

    digests = {name: digest(contents[name], "md5") for name in names}
    return part(layout.train), part(layout.test), digests, ""


def _check(
    images: np.ndarray, labels: np.ndarray, info: Info, expected: int, files: tuple[Path, ...], part: str
) -> None:
    where = ", ".join(str(path) for path in files)
    if len(images) != expected:
        raise DataError(f"{where}: {len(images)} {part} images, {info.title} has {expected}; get the files again")
    check_labels(labels, expected, info.num_classes, where)
    present = len(np.unique(labels))
    if present < info.num_classes:
        raise DataError(
            f"{where}: only {present} of {info.num_classes} classes among the {part} labels; is this {info.title}?"
        )
