"""Small CIFARs in every layout, and the real files where they are."""

import io
import pickle
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import PIL
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from nlbench.data import cache
from nlbench.data.datasets import cifar10, cifar10n, cifar100, cifar100n
from nlbench.data.formats import cifar, cifar_parquet
from nlbench.data.places import Places
from nlbench.files import short_hash

REAL = Path(__file__).resolve().parents[3] / "shared" / "data"


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with the real CIFAR-10 images and CIFAR-N labels."""
    if not REAL.is_dir():
        pytest.skip(f"the real data is not at {REAL}")
    return REAL


@dataclass
class SmallCifar:
    """Images and labels of a CIFAR that fits into a test, and writers for each layout."""

    layout: object
    images: np.ndarray  # (n_train + n_test, 32, 32, 3) uint8
    labels: np.ndarray
    num_train: int

    @property
    def train(self):
        return self.images[: self.num_train], self.labels[: self.num_train]

    @property
    def test(self):
        return self.images[self.num_train :], self.labels[self.num_train :]

    def batches(self) -> dict[str, bytes]:
        """Contents of the files of the official layout."""
        layout = self.layout
        parts = list(
            zip(
                layout.train,
                np.array_split(np.arange(self.num_train), len(layout.train)),
                strict=True,
            )
        )
        parts.append((layout.test[0], np.arange(self.num_train, len(self.labels))))
        return {name: batch(self.images[i], self.labels[i], layout.label_key) for name, i in parts}

    def write_batches(self, place: Path) -> Path:
        folder = place / self.layout.folder
        folder.mkdir(parents=True)
        for name, content in self.batches().items():
            (folder / name).write_bytes(content)
        return folder

    def write_parquet(
        self, place: Path, form="PNG", image="img", label="label", shards=1, struct=True
    ) -> None:
        place.mkdir(parents=True, exist_ok=True)
        for part, (images, labels) in (("train", self.train), ("test", self.test)):
            for i, rows in enumerate(np.array_split(np.arange(len(labels)), shards)):
                encoded = [encode(images[row], form) for row in rows]
                values = (
                    [{"bytes": content, "path": None} for content in encoded] if struct else encoded
                )
                kind = (
                    pa.struct([("bytes", pa.binary()), ("path", pa.string())])
                    if struct
                    else pa.binary()
                )
                table = pa.table({image: pa.array(values, kind), label: pa.array(labels[rows])})
                pq.write_table(table, place / f"{part}-{i:05d}-of-{shards:05d}.parquet")


def batch(images: np.ndarray, labels: np.ndarray, label_key: str) -> bytes:
    rows = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
    return pickle.dumps(
        {b"data": rows, label_key.encode(): labels.tolist(), b"filenames": [b"a.png"]}, protocol=2
    )


def encode(image: np.ndarray, form: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, form)
    return buffer.getvalue()


def small(layout, num_classes: int, num_train: int, num_test: int) -> SmallCifar:
    n = num_train + num_test
    images = np.random.default_rng(0).integers(0, 256, (n, 32, 32, 3), np.uint8)
    return SmallCifar(layout, images, np.arange(n) * 7 % num_classes, num_train)


@pytest.fixture
def small10(monkeypatch) -> SmallCifar:
    """cifar10 and cifar10n expect 40 / 20 images."""
    for module in (cifar10, cifar10n):
        monkeypatch.setattr(module, "INFO", replace(module.INFO, num_train=40, num_test=20))
    return small(cifar10.LAYOUT, 10, 40, 20)


@pytest.fixture
def small100(monkeypatch) -> SmallCifar:
    """cifar100 and cifar100n expect 200 / 100 images."""
    for module in (cifar100, cifar100n):
        monkeypatch.setattr(module, "INFO", replace(module.INFO, num_train=200, num_test=100))
    return small(cifar100.LAYOUT, 100, 200, 100)


@pytest.fixture
def encode_image():
    return encode


@pytest.fixture(scope="session")
def real_places(real_data, request, tmp_path_factory) -> Places:
    """The real data, and a cache that stays between test runs: decoding 60,000 images takes long.

    Its name changes with the code and the library that decode. nlbench's own cache sees to the
    rest: an entry belongs to the size and time of the files, and two test workers decode once.
    """
    if not hasattr(request.config, "cache"):  # pytest -p no:cacheprovider
        return Places(real_data, tmp_path_factory.getbasetemp() / "real-cifar")
    sources = [
        Path(module.__file__).read_bytes() for module in (cifar10, cifar, cifar_parquet, cache)
    ]
    version = short_hash(PIL.__version__.encode(), *sources)
    return Places(real_data, request.config.cache.mkdir(f"real-cifar-{version}"))


@pytest.fixture(scope="session")
def real_cifar10(real_places):
    return cifar10.load(real_places, 0)


@pytest.fixture(scope="session")
def real_cifar10n(real_places):
    return cifar10n.load(real_places, 0)
