"""CIFAR-10 and CIFAR-100 on disk: find a copy in any layout, and read it into one Dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from nlbench.data.base import Dataset, Found, Info, Source, fingerprint
from nlbench.data.cache import Facts, cached
from nlbench.data.formats import cifar_batches, cifar_parquet
from nlbench.data.missing import require
from nlbench.data.noise.label_files import check_labels
from nlbench.data.places import Places
from nlbench.errors import DataError
from nlbench.files import digest, short_hash


@dataclass(frozen=True)
class Layout:
    """The names of the files of one CIFAR.

    Attributes:
        name: of the decoded copy, which cifar10 and cifar10n share.
        folder: torchvision's folder, also inside the archive.
        train, test: the files in the folder, in the canonical order of the images.
        label_key: the key of the labels in these files.
        label_columns: the columns of parquet files that hold them, best first.
        image_columns: likewise those of the images.
        places: folders of the data directory that belong to this dataset alone.
        md5: of published copies, by file name.
    """

    name: str
    folder: str
    archive: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    label_key: str
    label_columns: tuple[str, ...]
    places: tuple[str, ...]
    md5: Mapping[str, str]
    image_columns: tuple[str, ...] = cifar_parquet.IMAGE_COLUMNS


@dataclass(frozen=True)
class Copy:
    """One copy of the images on disk.

    Attributes:
        form: "folder", "archive" or "parquet".
        missing: what it lacks, in words.
    """

    form: str
    train: tuple[Path, ...]
    test: tuple[Path, ...]
    missing: tuple[str, ...] = ()

    @property
    def files(self) -> tuple[Path, ...]:
        """Return all files, each once, because one archive may hold both parts."""
        return tuple(dict.fromkeys((*self.train, *self.test)))


def find(layout: Layout, data_dir: Path) -> Found:
    """Look for the images. Takes the first whole copy; the official pixels come before parquet."""
    looked = tuple(place for place, _ in _places(layout, data_dir))
    copy = _copy(layout, data_dir)
    if copy is None:
        what = f"{layout.folder}/, {layout.archive}, or train-*.parquet with test-*.parquet"
        missing = f"the images ({what}){_what_instead(layout, data_dir)}"
        return Found((), looked, (missing,), (layout.archive,))
    needs = (layout.archive,) if copy.missing else ()
    return Found(copy.files, looked, copy.missing, needs)


def read(info: Info, layout: Layout, sources: Sequence[Source], places: Places) -> Dataset:
    """Read the images and true labels. They are decoded once, into the cache.

    Raises: DataMissing when they are not there; DataError, naming the file, when they cannot be
        used.
    """
    require(info, sources, find(layout, places.data_dir), places.data_dir)
    copy = _copy(layout, places.data_dir)
    # Without a copy, `require` has raised.
    assert copy is not None

    name = layout.name
    if places.image_column or places.label_column:
        layout = _with_columns(layout, copy, places)
        name += f"-{short_hash(f'{places.image_column}|{places.label_column}'.encode())}"
    arrays, facts = cached(places.cache_dir, name, copy.files, lambda: _decode(copy, layout, info))
    return Dataset(
        info=info,
        train_images=arrays["train_images"],
        test_images=arrays["test_images"],
        test_labels=arrays["test_labels"],
        label_sets={"clean": arrays["train_labels"]},
        fingerprint=facts["fingerprint"],
        variant=facts["variant"],
        warnings=(*facts["warnings"], *_beside(copy, layout)),
        checksums=facts["checksums"],
    )


def _with_columns(layout: Layout, copy: Copy, places: Places) -> Layout:
    """Return the layout with the columns that a suite names. Raises DataError."""
    if copy.form != "parquet":
        raise DataError(
            f"{copy.train[0].parent}: holds no parquet files, and only these have columns; leave "
            f"out `image` and `label` in the suite's dataset entry"
        )
    return replace(
        layout,
        image_columns=(places.image_column,) if places.image_column else layout.image_columns,
        label_columns=(places.label_column,) if places.label_column else layout.label_columns,
    )


# ---- What lies there in place of it, or beside it ------------------------------------------------


def _what_instead(layout: Layout, data_dir: Path) -> str:
    """Say which file looks like the images and is not read, or return an empty text."""
    stem = layout.archive.removesuffix("-python.tar.gz")
    other_versions = [f"{stem}-binary.tar.gz", f"{stem}-matlab.tar.gz", f"{stem}-binary"]
    other_versions += [f"{stem}-batches-bin", f"{stem}-batches-mat", f"{stem}-matlab"]
    for place, _ in _places(layout, data_dir):
        for name in other_versions:
            if (place / name).exists():
                return f"; {place / name} is another version, and the one for Python is read"
        for name in (f"{layout.archive}.part", f"{layout.archive}.crdownload"):
            if (place / name).exists():
                return f"; {place / name} is an unfinished download"
        if place.name != layout.folder and (place / layout.train[0]).is_file():
            first = place / layout.train[0]
            return f"; {first} is there: put it and the others into a folder {layout.folder}"
    return ""


def _beside(copy: Copy, layout: Layout) -> list[str]:
    """Return a warning for batches that do not belong to the dataset."""
    if copy.form != "folder":
        return []
    folder = copy.train[0].parent
    known = {*layout.train, *layout.test}
    begin = layout.train[0].rstrip("0123456789")
    extra = sorted(path.name for path in folder.glob(f"{begin}*") if path.name not in known)
    return (
        [f"{folder}: {', '.join(extra)} is not read; it is no part of the dataset"] if extra else []
    )


# ---- Which copy ----------------------------------------------------------------------------------


def _places(layout: Layout, data_dir: Path) -> list[tuple[Path, bool]]:
    """Return the folders to search, each with whether it belongs to this dataset alone."""
    # Own folders first: a copy there is certainly this dataset's.
    places = [(data_dir / place, True) for place in layout.places]
    return [*places, (data_dir, False)]


def _copy(layout: Layout, data_dir: Path) -> Copy | None:
    """Return the first whole copy, else the first one that lacks something, else None."""
    places = _places(layout, data_dir)

    # Parquet comes last, because its images may be JPEGs.
    copies = [_folder(layout, place) for place, _ in places]
    copies += [_archive(layout, place) for place, _ in places]
    copies += [_parquet(layout, place, own) for place, own in places]

    incomplete = None
    for copy in copies:
        if copy is not None and not copy.missing:
            return copy
        incomplete = incomplete or copy
    return incomplete


def _folder(layout: Layout, place: Path) -> Copy | None:
    folder = place if place.name == layout.folder else place / layout.folder
    if not folder.is_dir():
        return None
    train = tuple(folder / name for name in layout.train)
    test = tuple(folder / name for name in layout.test)
    missing = tuple(f"{path.name} in {folder}" for path in train + test if not path.is_file())
    return Copy("folder", train, test, missing)


def _archive(layout: Layout, place: Path) -> Copy | None:
    path = place / layout.archive
    if not path.is_file():
        return None
    return Copy("archive", (path,), (path,))


def _parquet(layout: Layout, place: Path, own: bool) -> Copy | None:
    train, missing_train = cifar_parquet.shards(place, "train")
    test, missing_test = cifar_parquet.shards(place, "test")
    if not train and not test:
        return None

    # In a shared folder the files may be another dataset's. The label column tells.
    first = (train or test)[0]
    if not own and not cifar_parquet.has_column(first, layout.label_columns[0]):
        return None
    return Copy("parquet", train, test, missing_train + missing_test)


# ---- Decoding it ---------------------------------------------------------------------------------

# Images and labels.
_Part = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class _Decoded:
    """The content of a copy: both parts, the md5 of its files, and how the pixels differ."""

    train: _Part
    test: _Part
    digests: dict[str, str]
    variant: str = ""


def _decode(copy: Copy, layout: Layout, info: Info) -> tuple[dict[str, np.ndarray], Facts]:
    """Decode and check a copy. Returns what the cache keeps: arrays by name, and facts."""
    decode = _decode_parquet if copy.form == "parquet" else _decode_batches
    try:
        decoded = decode(copy, layout, info)
    except OSError as error:
        raise DataError(f"{error.filename}: cannot be read ({error.strerror})") from error

    # Checked before it is cached, so that the cache holds nothing wrong.
    train_images, train_labels = decoded.train
    test_images, test_labels = decoded.test
    _check(decoded.train, info, info.num_train, copy.train, "training")
    _check(decoded.test, info, info.num_test, copy.test, "test")

    digests = decoded.digests
    warnings = []

    # An unpublished copy may be right. It is used, and every record keeps the warning.
    unknown = [name for name, md5 in digests.items() if layout.md5.get(name) != md5]
    if unknown:
        names = ", ".join(unknown)
        warnings.append(f"unknown checksum of {names}: not a published copy of {info.title}")

    arrays = {
        "train_images": train_images,
        "train_labels": train_labels,
        "test_images": test_images,
        "test_labels": test_labels,
    }
    facts = {
        # The order of the arrays is part of every run's key.
        "fingerprint": fingerprint(train_images, test_images, train_labels, test_labels),
        "variant": decoded.variant,
        "checksums": {name: f"md5:{md5}" for name, md5 in digests.items()},
        "warnings": warnings,
    }
    return arrays, facts


def _decode_parquet(copy: Copy, layout: Layout, info: Info) -> _Decoded:
    columns, images, shape = layout.label_columns, layout.image_columns, info.shape
    train_images, train_labels, train_jpeg = cifar_parquet.decode(
        copy.train, columns, shape, images
    )
    test_images, test_labels, test_jpeg = cifar_parquet.decode(copy.test, columns, shape, images)
    variant = ""
    if train_jpeg or test_jpeg:
        variant = "JPEG"

    return _Decoded(
        train=(train_images, train_labels),
        test=(test_images, test_labels),
        digests={path.name: digest(path, "md5") for path in copy.files},
        variant=variant,
    )


def _decode_batches(copy: Copy, layout: Layout, info: Info) -> _Decoded:
    names = layout.train + layout.test
    if copy.form == "archive":
        contents = cifar_batches.from_archive(copy.train[0], layout.folder, names)
        place = f"{copy.train[0]}: "
    else:
        contents = cifar_batches.from_folder(copy.files)
        place = f"{copy.train[0].parent}/"

    def part(files: tuple[str, ...]) -> _Part:
        images, labels = [], []
        for name in files:
            batch = cifar_batches.decode(contents[name], place + name, layout.label_key, info.shape)
            images.append(batch[0])
            labels.append(batch[1])
        return np.concatenate(images), np.concatenate(labels)

    digests = {name: digest(contents[name], "md5") for name in names}
    seen: dict[str, str] = {}
    for name, md5 in digests.items():
        other = seen.setdefault(md5, name)
        if other != name:
            raise DataError(f"{place}{name}: has the same content as {other}; get the files again")
    return _Decoded(part(layout.train), part(layout.test), digests)


def _check(part: _Part, info: Info, expected: int, files: tuple[Path, ...], name: str) -> None:
    """Raise DataError unless the part has the right number of images, and all classes."""
    images, labels = part
    where = ", ".join(map(str, files))
    if len(images) != expected:
        raise DataError(
            f"{where}: {len(images)} {name} images, {info.title} has {expected}; "
            f"get the files again"
        )
    check_labels(labels, expected, info.num_classes, where)

    present = len(np.unique(labels))
    if present < info.num_classes:
        raise DataError(
            f"{where}: only {present} of {info.num_classes} classes among the {name} labels; "
            f"is this {info.title}?"
        )
