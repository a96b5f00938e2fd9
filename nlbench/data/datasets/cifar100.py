"""CIFAR-100 (Krizhevsky 2009) with its fine labels, from torchvision's files or from parquet."""

from pathlib import Path

from nlbench.data.base import Dataset, Found, Info, Source
from nlbench.data.formats import cifar
from nlbench.data.places import Places

INFO = Info(
    name="cifar100",
    title="CIFAR-100",
    num_classes=100,
    num_train=50_000,
    num_test=10_000,
    shape=(32, 32, 3),
    # The constants of ELR and CIFAR-N.
    mean=(0.5071, 0.4867, 0.4408),
    std=(0.2675, 0.2565, 0.2761),
    class_ids="cifar100",
    columns=("image", "label"),
)
IMAGES = Source(
    file="cifar-100-python.tar.gz",
    home="https://www.cs.toronto.edu/~kriz/cifar.html",
    url="https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
    md5="eb9058c3a382ffc7106e4002c42a8d85",
    size=169_001_437,
    goes_to="cifar-100-python.tar.gz",
)
SOURCES = (IMAGES,)
LAYOUT = cifar.Layout(
    name="cifar100",
    folder="cifar-100-python",
    archive=IMAGES.file,
    train=("train",),
    test=("test",),
    label_key="fine_labels",
    label_columns=("fine_label", "label"),
    # The last one as in the Hugging Face repository.
    places=("cifar100", "cifar-100", "cifar100/cifar100"),
    md5={"train": "16019d7e3df5f24257cddd939b257f8d", "test": "f0ef6b0ae62326f3e7ffdfab6717acfc"},
)


def find(data_dir: Path) -> Found:
    """Look for the images in any of their layouts."""
    return cifar.find(LAYOUT, data_dir)


def load(places: Places, seed: int) -> Dataset:
    """Read the 50,000 / 10,000 images."""
    return cifar.read(INFO, LAYOUT, SOURCES, places)
