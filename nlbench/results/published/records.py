"""Published numbers with their sources, and when a measured one may be compared with one of them. Without torch.

published.csv holds a line per table cell of a source, under the source's own ids; a cell that could not be sourced is
absent. Means and standard deviations are percent. A difference is taken only where everything that is known to move the
number agrees; what a source does not say counts as unknown, never as equal.
"""

from __future__ import annotations

import csv
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nlbench.errors import SuiteError, did_you_mean

# The sources' ids -> nlbench's names. An id that is not here is the same in both, or has no counterpart and stays.
NAMES: dict[str, dict[str, str]] = {
    "method": {
        "cores": "cores2",  # the first phase; cores-star is the second, semi-supervised one
        "pes-semi": "pes",
        "els": "gls",  # label smoothing, a positive rate
        "negative-ls": "gls",
        "elr-plus-ablation": "elr-plus",
    },
    "model": {
        "resnet34-cifar": "resnet34",
        "preactresnet18": "preact_resnet18",
        "resnet34-imagenet-stem": "torchvision/resnet34",
        "resnet50": "torchvision/resnet50",
        "resnet50-imagenet": "torchvision/resnet50",  # from ImageNet weights, see PRETRAINED
        "vgg19-bn": "torchvision/vgg19_bn",
        "inceptionresnetv2": "timm/inception_resnet_v2",
    },
    "dataset": {"webvision-mini": "webvision"},
}
PRETRAINED = {"resnet50-imagenet"}
WEB = {"clothing1m", "webvision", "animal10n"}  # their own labels are the noisy ones: `real` in the sources

SELECTIONS = {
    "last": "last epoch",
    "last10": "last 10 epochs",
    "best": "best (oracle)",
    "noisy-val": "selected on noisy labels",
    "clean-val": "selected on clean labels",
    "": "epoch not stated",
}


@dataclass(frozen=True)
class Published:
    """One cell of a source's table."""

    table: str
    source: str
    dataset: str
    noise: str  # sym-R, asym-R, a label set, real, real+clean or clean
    noise_definition: str  # symmetric or symmetric-inclusive where the source says so
    architecture: str
    method: str
    variant: str  # what tells a source's rows of one method apart
    metric: str  # top1 or top5
    selection: str  # a key of SELECTIONS
    mean: float
    std: float | None
    std_kind: str  # population or sample where the source says so
    seeds: int | None
    note: str

    @classmethod
    def read(cls, line: Mapping[str, str]) -> Published:
        numbers = {
            "mean": float(line["mean"]),
            "std": float(line["std"]) if line["std"] else None,
            "seeds": int(line["seeds"]) if line["seeds"] else None,
        }
        return cls(**{**line, **numbers})  # type: ignore[arg-type]

    def name(self, what: str) -> str:
        """nlbench's name of the method, model or dataset."""
        own = self.architecture if what == "model" else getattr(self, what)
        if what == "method" and self.variant == "1 network, no mixup, no weight averaging":
            return "elr"  # ELR Table 5's row without any part of ELR+
        return NAMES[what].get(own, own)

    @property
    def sample_std(self) -> float | None:
        """A population std as the sample std that it implies; one of an unknown kind as it stands."""
        if self.std is not None and self.std_kind == "population" and self.seeds and self.seeds > 1:
            return self.std * math.sqrt(self.seeds / (self.seeds - 1))
        return self.std

    def text(self, plus_minus: str = "±") -> str:
        return f"{self.mean:.2f}" + (f"{plus_minus}{self.std:.2f}" if self.std is not None else "")


@functools.cache
def load() -> tuple[Published, ...]:
    """All of them, in the order of the file."""
    with open(Path(__file__).with_name("published.csv"), encoding="utf-8", newline="") as file:
        return tuple(map(Published.read, csv.DictReader(file)))


def select(
    *, dataset: str | None = None, method: str | None = None, noise: str | None = None, model: str | None = None
) -> list[Published]:
    """Those of a dataset, method, noise and model, named as in nlbench or as in the sources.

    Raises: SuiteError for a name that no record has, with a guess at what was meant.
    """
    names: dict[str, tuple[str | None, Callable[[Published], set[str]]]] = {
        "dataset": (dataset, lambda r: {r.dataset, r.name("dataset")}),
        "method": (method, lambda r: {r.method, r.name("method")}),
        "noise": (noise, lambda r: {r.noise, r.noise.partition("-")[0], r.noise_definition} - {""}),
        "model": (model, lambda r: {r.architecture, r.name("model")}),
    }
    found = list(load())
    for option, (asked, of) in names.items():
        if asked is None:
            continue
        known = dict.fromkeys(name for record in load() for name in sorted(of(record)))
        if asked not in known:
            raise SuiteError(
                f"--{option} {asked}: no published number has it. There are: {', '.join(known)}."
                f"{did_you_mean(asked, known)}"
            )
        found = [record for record in found if asked in of(record)]
    if not found:
        given = ", ".join(f"--{option} {asked}" for option, (asked, _) in names.items() if asked is not None)
        raise SuiteError(f"no published number has all of {given}")
    return found


CIFARN_WARNINGS = (
    "CIFAR-N Table 2 reports the best epoch on the test set: its rows stand beside the best epoch here, never beside "
    "the last one.",
    "CIFAR-N Table 2's CE row is unexplained: best over epochs, an independent re-run (ReScience C 11(1), 2026) is 3.7 "
    "to 6.2 points above it and the authors' own starter code 3.9 to 6.3. So will a correct CE run be: no progress.",
)


def remarks_on(records: Sequence[Published]) -> list[str]:
    """Each remark once, with the methods that it is about where it is not about all of them."""
    about: dict[str, dict[str, None]] = {}
    for record in records:
        for remark in filter(None, record.note.split("; ")):
            about.setdefault(remark, {})[record.name("method")] = None
    everything = {record.name("method") for record in records}
    return [
        remark if methods.keys() == everything else f"{remark} ({', '.join(methods)})"
        for remark, methods in about.items()
    ]


def sources(records: Sequence[Published]) -> list[str]:
    """A line per (table, source) in the order of their first record: where from, what kind of std, its remarks."""
    grouped: dict[tuple[str, str], list[Published]] = {}
    for record in records:
        grouped.setdefault((record.table, record.source), []).append(record)
    lines = []
    for (table, source), found in grouped.items():
        stds = {r.std_kind for r in found if r.std is not None}
        kinds = {
            "": "estimator of its std unknown",
            "population": "its std is the population std; tests use the sample std that this implies",
            "sample": "",
        }
        remarks = [kinds[kind] for kind in sorted(stds)]
        remarks += remarks_on(found)
        ran = sorted({r.seeds for r in found if r.seeds})
        runs = f"{', '.join(map(str, ran))} runs" if ran else "number of runs not stated"
        lines.append(f"{table}: {source}; " + "; ".join([runs, *filter(None, remarks)]) + ".")
    return lines
