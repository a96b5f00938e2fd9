"""Small CIFARs in every layout, and the real files where this machine has them."""

import io
import pickle
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import PIL
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from folders import TEST_DATA
from PIL import Image

from nlbench.data import cache
from nlbench.data.datasets import cifar10, cifar10n, cifar100, cifar100n
from nlbench.data.formats import cifar, cifar_parquet
from nlbench.data.places import Places
from nlbench.files import short_hash

REAL = TEST_DATA / "data"


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Return the folder with the real CIFAR-10 images and CIFAR-N labels, or skip."""
    if not REAL.is_dir():
        pytest.skip(f"the real data is not at {REAL}; NLBENCH_TEST_DATA names another folder")
    return REAL


@dataclass
class SmallCifar:
    """Hold images and labels of a CIFAR that fits into a test, and write them in each layout."""

    layout: object
    images: np.ndarray  # (n_train + n_test, 32, 32, 3) uint8
    labels: np.ndarray
    num_train: int

    @property
    def train(self):
        """Return training images and labels."""
        return self.images[: self.num_train], self.labels[: self.num_train]

    @property
    def test(self):
        """Return test images and labels."""
        return self.images[self.num_train :], self.labels[self.num_train :]

    def batches(self) -> dict[str, bytes]:
        """Return the files of the official layout: name -> content."""
        layout = self.layout
        train_parts = np.array_split(np.arange(self.num_train), len(layout.train))
        test_part = np.arange(self.num_train, len(self.labels))
        names = (*layout.train, layout.test[0])

        contents = {}
        for name, index in zip(names, (*train_parts, test_part), strict=True):
            contents[name] = batch(self.images[index], self.labels[index], layout.label_key)

        return contents

    def write_batches(self, place: Path) -> Path:
        """Write the official layout below `place` and return its folder."""
        folder = place / self.layout.folder
        folder.mkdir(parents=True)
        for name, content in self.batches().items():
            (folder / name).write_bytes(content)
        return folder

    def write_parquet(
        self, place: Path, form="PNG", image="img", label="label", shards=1, struct=True
    ) -> None:
        """Write both parts as parquet; `image` and `label` name the columns."""
        place.mkdir(parents=True, exist_ok=True)
        for part, (images, labels) in (("train", self.train), ("test", self.test)):
            for i, index in enumerate(np.array_split(np.arange(len(labels)), shards)):
                column = image_column([encode(images[j], form) for j in index], struct)
                table = pa.table({image: column, label: pa.array(labels[index])})
                pq.write_table(table, place / f"{part}-{i:05d}-of-{shards:05d}.parquet")


def image_column(encoded: list[bytes], struct: bool) -> pa.Array:
    """Return a column of encoded images, plain or as Hugging Face's struct of bytes and path."""
    if not struct:
        return pa.array(encoded, pa.binary())
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    return pa.array([{"bytes": content, "path": None} for content in encoded], kind)


def batch(images: np.ndarray, labels: np.ndarray, label_key: str) -> bytes:
    """Pickle one batch file with the keys, as bytes, and the order of the official files."""
    pixels = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
    content = {b"data": pixels, label_key.encode(): labels.tolist(), b"filenames": [b"a.png"]}
    return pickle.dumps(content, protocol=2)


def encode(image: np.ndarray, form: str) -> bytes:
    """Encode an (H, W, 3) or (H, W) uint8 image in PIL's format `form`."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, form)
    return buffer.getvalue()


def small(layout, num_classes: int, num_train: int, num_test: int) -> SmallCifar:
    """Draw random images whose labels run through all classes in a mixed order."""
    n = num_train + num_test
    images = np.random.default_rng(0).integers(0, 256, (n, 32, 32, 3), np.uint8)
    return SmallCifar(layout, images, np.arange(n) * 7 % num_classes, num_train)


@pytest.fixture
def small10(monkeypatch) -> SmallCifar:
    """Return 40 / 20 images, and let cifar10 and cifar10n expect so many."""
    for module in (cifar10, cifar10n):
        monkeypatch.setattr(module, "INFO", replace(module.INFO, num_train=40, num_test=20))
    return small(cifar10.LAYOUT, 10, 40, 20)


@pytest.fixture
def small100(monkeypatch) -> SmallCifar:
    """Return 200 / 100 images, and let cifar100 and cifar100n expect so many."""
    for module in (cifar100, cifar100n):
        monkeypatch.setattr(module, "INFO", replace(module.INFO, num_train=200, num_test=100))
    return small(cifar100.LAYOUT, 100, 200, 100)


@pytest.fixture
def encode_image():
    """Give test files, which cannot import this one, the function `encode`."""
    return encode


@pytest.fixture(scope="session")
def real_places(real_data, request, tmp_path_factory) -> Places:
    """Return the real data with a cache that is kept between test runs.

    Decoding 60,000 images takes long. The cache's name changes with the code and the library that
    decode. nlbench's own cache does the rest: an entry belongs to the size and time of the files,
    and of two test workers only one decodes.
    """
    # pytest -p no:cacheprovider leaves no folder that outlives the test run.
    if not hasattr(request.config, "cache"):
        return Places(real_data, tmp_path_factory.getbasetemp() / "real-cifar")

    sources = []
    for module in (cifar10, cifar, cifar_parquet, cache):
        sources.append(Path(module.__file__).read_bytes())

    version = short_hash(PIL.__version__.encode(), *sources)
    return Places(real_data, request.config.cache.mkdir(f"real-cifar-{version}"))


@pytest.fixture(scope="session")
def real_cifar10(real_places):
    """Return the real CIFAR-10."""
    return cifar10.load(real_places, 0)


@pytest.fixture(scope="session")
def real_cifar10n(real_places):
    """Return the real CIFAR-10 with its human labels."""
    return cifar10n.load(real_places, 0)
