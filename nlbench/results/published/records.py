"""The published numbers with their sources, read from published.csv.

The file has one line for each cell of a source's table, under the source's own names. A cell whose
source could not be found is left out. Means and standard deviations are in percent.
"""

from __future__ import annotations

import csv
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nlbench.errors import SuiteError, did_you_mean

# From the sources' names to nlbench's. A name that is not here is the same in both, or nlbench has
# nothing like it, and then the source's name is kept.
NAMES: dict[str, dict[str, str]] = {
    "method": {
        # The first phase. The second, semi-supervised one is cores-star.
        "cores": "cores2",
        "pes-semi": "pes",
        # Label smoothing with a positive rate.
        "els": "gls",
        "negative-ls": "gls",
        "elr-plus-ablation": "elr-plus",
        "anl-ce": "anl",
        "ce-eps-mae": "eps-softmax",
        "f-div": "f-divergence",
        "iterative-cv": "incv",
        "m-dyr-h": "m-dyr",
        "md-dyr-sh": "m-dyr",
        # MentorNet DD, which learns from clean labels, is mentornet-dd.
        "mentornet-pd": "mentornet",
        "peer-loss": "peer",
        "ssr-plus": "ssr",
    },
    "model": {
        "resnet34-cifar": "resnet34",
        "preactresnet18": "preact_resnet18",
        "resnet34-imagenet-stem": "torchvision/resnet34",
        "resnet50": "torchvision/resnet50",
        # Begins with ImageNet weights, see PRETRAINED.
        "resnet50-imagenet": "torchvision/resnet50",
        "vgg19-bn": "torchvision/vgg19_bn",
        "inceptionresnetv2": "timm/inception_resnet_v2",
    },
    "dataset": {"webvision-mini": "webvision"},
}
PRETRAINED = {"resnet50-imagenet"}

# Datasets whose own labels are the noisy ones. Sources call these labels `real`.
WEB = {"clothing1m", "webvision", "animal10n"}

# How the epoch of a number was chosen.
SELECTIONS = {
    "last": "last epoch",
    "last10": "last 10 epochs",
    "best": "best (oracle)",
    "noisy-val": "selected on noisy labels",
    "clean-val": "selected on clean labels",
    "": "epoch not stated",
}

# A table that needs warnings beside it.
CIFARN = "CIFAR-N Table 2"
CIFARN_WARNINGS = (
    "CIFAR-N Table 2 reports the best epoch on the test set. Its numbers are shown beside the best "
    "epoch here, never beside the last one.",
    "CIFAR-N Table 2's number for CE is unexplained: at the best epoch, an independent re-run "
    "(ReScience C 11(1), 2026) is 3.7 to 6.2 points above it, and the authors' own starter code "
    "3.9 to 6.3. A correct run of CE is above it, too, and that is no progress.",
)

# In a line about a source: what is known of the estimator of its standard deviations.
_STD_KINDS = {
    "": "not stated whether its std is of the sample or the population",
    "population": "its std is the population std; tests use the sample std that it implies",
    "sample": "",
}


@dataclass(frozen=True)
class Published:
    """One cell of a source's table.

    Attributes:
        noise: sym-RATE, asym-RATE, another kind with its rate, a label set, real, real+clean or
            clean.
        noise_definition: symmetric, symmetric-inclusive or pair-flip where the source says so.
        variant: distinguishes several lines of one method in one table.
        metric: top1 or top5.
        selection: a key of SELECTIONS.
        std_kind: population or sample where the source says so.
        note: remarks, separated by "; ".
    """

    table: str
    source: str
    dataset: str
    noise: str
    noise_definition: str
    architecture: str
    method: str
    variant: str
    metric: str
    selection: str
    mean: float
    std: float | None
    std_kind: str
    seeds: int | None
    note: str

    @classmethod
    def read(cls, line: Mapping[str, str]) -> Published:
        """Read one line of the file."""
        numbers = {
            "mean": float(line["mean"]),
            "std": float(line["std"]) if line["std"] else None,
            "seeds": int(line["seeds"]) if line["seeds"] else None,
        }
        return cls(**{**line, **numbers})  # type: ignore[arg-type]

    def name(self, what: str) -> str:
        """Return nlbench's name of the method, model or dataset."""
        if what == "method" and self.variant == "1 network, no mixup, no weight averaging":
            # The line of ELR Table 5 without any part of ELR+.
            return "elr"
        own = self.architecture if what == "model" else getattr(self, what)
        return NAMES[what].get(own, own)

    @property
    def sample_std(self) -> float | None:
        """The sample std that a population std implies. A std of unknown kind is not changed."""
        if self.std is None or self.std_kind != "population":
            return self.std
        if self.seeds is None or self.seeds < 2:
            return self.std
        return self.std * math.sqrt(self.seeds / (self.seeds - 1))

    def text(self) -> str:
        """Return mean±std as the source prints them."""
        if self.std is None:
            return f"{self.mean:.2f}"
        return f"{self.mean:.2f}±{self.std:.2f}"


@functools.cache
def load() -> tuple[Published, ...]:
    """Return all published numbers, in the order of the file."""
    path = Path(__file__).with_name("published.csv")
    with open(path, encoding="utf-8", newline="") as file:
        return tuple(map(Published.read, csv.DictReader(file)))


def select(
    *,
    dataset: str | None = None,
    method: str | None = None,
    noise: str | None = None,
    model: str | None = None,
) -> list[Published]:
    """Return the numbers that have all the given names, of nlbench or of the sources.

    Raises: SuiteError for a name that no number has, with a suggestion.
    """
    asked = {"dataset": dataset, "method": method, "noise": noise, "model": model}
    found = list(load())
    given = []
    for option, name in asked.items():
        if name is None:
            continue
        given.append(f"--{option} {name}")
        names_of = _NAMES_OF[option]

        # In the order of the file, each name once.
        known: dict[str, None] = {}
        for record in load():
            known |= dict.fromkeys(sorted(names_of(record)))
        if name not in known:
            raise SuiteError(
                f"--{option} {name}: no published number has it. There are: {', '.join(known)}."
                f"{did_you_mean(name, known)}"
            )
        found = [record for record in found if name in names_of(record)]

    if not found:
        raise SuiteError(f"no published number has all of {', '.join(given)}")
    return found


def _noise_names(record: Published) -> set[str]:
    return {record.noise, record.noise.partition("-")[0], record.noise_definition} - {""}


# From an option to the names that a number has for it.
_NAMES_OF: dict[str, Callable[[Published], set[str]]] = {
    "dataset": lambda record: {record.dataset, record.name("dataset")},
    "method": lambda record: {record.method, record.name("method")},
    "noise": _noise_names,
    "model": lambda record: {record.architecture, record.name("model")},
}


# ---- Sources ------------------------------------------------------------------------------------


def _by_source(records: Sequence[Published]) -> dict[tuple[str, str], list[Published]]:
    grouped: dict[tuple[str, str], list[Published]] = {}
    for record in records:
        grouped.setdefault((record.table, record.source), []).append(record)
    return grouped


def numbered(records: Sequence[Published]) -> dict[tuple[str, str], int]:
    """Return a number from 1 on for each (table, source), in the order of `sources`."""
    return {key: number for number, key in enumerate(_by_source(records), 1)}


def sources(records: Sequence[Published]) -> list[str]:
    """Describe each (table, source), in the order of their first record."""
    lines = []
    for (table, source), found in _by_source(records).items():
        seeds = set()
        kinds = set()
        for record in found:
            if record.seeds:
                seeds.add(record.seeds)
            if record.std is not None:
                kinds.add(record.std_kind)

        remarks = ["number of runs not stated"]
        if seeds:
            remarks = [f"{', '.join(map(str, sorted(seeds)))} runs"]
        remarks += [_STD_KINDS[kind] for kind in sorted(kinds)]
        remarks += remarks_on(found)
        lines.append(f"{table}: {source}; {'; '.join(filter(None, remarks))}.")
    return lines


def remarks_on(records: Sequence[Published]) -> list[str]:
    """Return each remark once, with the methods it is about unless it is about all of them."""
    about: dict[str, dict[str, None]] = {}
    for record in records:
        for remark in filter(None, record.note.split("; ")):
            about.setdefault(remark, {})[record.name("method")] = None

    everything = {record.name("method") for record in records}
    remarks = []
    for remark, methods in about.items():
        if methods.keys() == everything:
            remarks.append(remark)
        else:
            remarks.append(f"{remark} ({', '.join(methods)})")
    return remarks
