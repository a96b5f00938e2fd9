"""CIFAR-10N (Wei et al., ICLR 2022): CIFAR-10 under the labels of three workers for each image."""

from dataclasses import replace
from pathlib import Path

from nlbench.data.base import Dataset, Found, Source
from nlbench.data.datasets import cifar10
from nlbench.data.formats import cifar_n
from nlbench.data.places import Places

# random1 to random3 are the workers' labels, and aggregate is their majority. worst is a wrong
# label wherever one of the workers is wrong; the papers call it worst, the file worse.
LABELS = cifar_n.LabelFile(
    file="CIFAR-10_human.pt",
    sets={
        "clean": "clean_label",
        "aggregate": "aggre_label",
        "random1": "random_label1",
        "random2": "random_label2",
        "random3": "random_label3",
        "worst": "worse_label",
    },
)
INFO = replace(cifar10.INFO, name="cifar10n", title="CIFAR-10N", label_sets=tuple(LABELS.sets))
SOURCES = (
    cifar10.IMAGES,
    Source(
        file=LABELS.file,
        home=cifar_n.HOME,
        url=f"{cifar_n.FILES}/CIFAR-10_human.pt",
        md5="96644db5574813cae939af5f7f2a0aec",
        sha256="873e69c39cb9b5e97fb6bae2d60bb59b38a5cbc31d2b868f7903dcb2b9dd2310",
        size=2_401_007,
        goes_to="cifar-n/CIFAR-10_human.pt",
        licence=cifar_n.LICENCE,
    ),
)


def find(data_dir: Path) -> Found:
    """Look for the images and the label file."""
    return cifar_n.find(LABELS, cifar10.LAYOUT, data_dir)


def load(places: Places, seed: int) -> Dataset:
    """Read CIFAR-10 with its six label sets."""
    return cifar_n.read(INFO, LABELS, cifar10.LAYOUT, SOURCES, places)
