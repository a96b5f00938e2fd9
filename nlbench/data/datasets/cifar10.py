"""CIFAR-10 (Krizhevsky 2009), from torchvision's files or from parquet."""

from pathlib import Path

from nlbench.data.base import Dataset, Found, Info, Source
from nlbench.data.formats import cifar
from nlbench.data.places import Places

INFO = Info(
    name="cifar10",
    title="CIFAR-10",
    num_classes=10,
    num_train=50_000,
    num_test=10_000,
    shape=(32, 32, 3),
    # The constants of ELR, DivideMix and CIFAR-N. The pixels' own deviation is .2470 .2435 .2616;
    # this one is kept because most published numbers used it. It only rescales the input.
    mean=(0.4914, 0.4822, 0.4465),
    std=(0.2023, 0.1994, 0.2010),
    class_ids="cifar10",
    columns=("image", "label"),
)
IMAGES = Source(
    file="cifar-10-python.tar.gz",
    home="https://www.cs.toronto.edu/~kriz/cifar.html",
    url="https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
    md5="c58f30108f718f92721af3b95e74349a",
    size=170_498_071,
    goes_to="cifar-10-python.tar.gz",
)
SOURCES = (IMAGES,)
LAYOUT = cifar.Layout(
    name="cifar10",
    folder="cifar-10-batches-py",
    archive=IMAGES.file,
    train=("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5"),
    test=("test_batch",),
    label_key="labels",
    label_columns=("label",),
    # The last one as in the Hugging Face repository.
    places=("cifar10", "cifar-10", "cifar10/plain_text"),
    md5={
        "data_batch_1": "c99cafc152244af753f735de768cd75f",
        "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "634d18415352ddfa80567beed471001a",
        "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
        "test_batch": "40351d587109b95175f43aff81a1287e",
        # The parquet copy whose images are JPEG: known, but not the official pixels.
        "train-00000-of-00001.parquet": "8afd62faedc7517c7d926bb17b44ced1",
        "test-00000-of-00001.parquet": "bdf9f4886895de65f4ff99c6c5024dd3",
    },
)


def find(data_dir: Path) -> Found:
    """Look for the images in any of their layouts."""
    return cifar.find(LAYOUT, data_dir)


def load(places: Places, seed: int) -> Dataset:
    """Read the 50,000 / 10,000 images."""
    return cifar.read(INFO, LAYOUT, SOURCES, places)
