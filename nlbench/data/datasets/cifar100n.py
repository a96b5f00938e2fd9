"""CIFAR-100N (Wei et al., ICLR 2022): CIFAR-100 under one worker's fine label for each image."""

from dataclasses import replace
from pathlib import Path

from nlbench.data.base import Dataset, Found, Source
from nlbench.data.datasets import cifar100
from nlbench.data.formats import cifar_n
from nlbench.data.places import Places

LABELS = cifar_n.LabelFile(
    file="CIFAR-100_human.pt",
    sets={"clean": "clean_label", "noisy": "noisy_label"},
    known_bad={
        1_600_879: "is the file of the 2022 challenge with wrong coarse labels, corrected in March "
        "2023"
    },
)
INFO = replace(cifar100.INFO, name="cifar100n", title="CIFAR-100N", label_sets=tuple(LABELS.sets))
SOURCES = (
    cifar100.IMAGES,
    Source(
        file=LABELS.file,
        home=cifar_n.HOME,
        url=f"{cifar_n.FILES}/CIFAR-100_human.pt",
        md5="a67b45c1d7992051865b5c755bd68bb1",
        sha256="bd2d80409754d420292d622e15e25248ba21e37d27429efac49c8da723f44394",
        size=1_000_959,
        goes_to="cifar-n/CIFAR-100_human.pt",
        licence=cifar_n.LICENCE,
    ),
)


def find(data_dir: Path) -> Found:
    """Look for the images and the label file."""
    return cifar_n.find(LABELS, cifar100.LAYOUT, data_dir)


def load(places: Places, seed: int) -> Dataset:
    """Read CIFAR-100 with its two label sets."""
    return cifar_n.read(INFO, LABELS, cifar100.LAYOUT, SOURCES, places)
