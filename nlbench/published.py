"""Published numbers with their sources, and when a measured one may be compared with one of them. Without torch.

published.csv holds a line per table cell of a source, under the source's own ids; a cell that could not be sourced is
absent. Means and standard deviations are percent. A difference is taken only where everything that is known to move the
number agrees; what a source does not say counts as unknown, never as equal.
"""

from __future__ import annotations

import csv
import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

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
Reported = tuple[str, str, str]  # metric, a key of SELECTIONS, the test set where it is not the data's own

# A measured metric (tables.METRICS) -> what a source must have reported for the two to be the same thing.
MEASURES: dict[str, Reported] = {
    "last": ("top1", "last", ""),
    "last10": ("top1", "last10", ""),
    "best": ("top1", "best", ""),
    "selected": ("top1", "noisy-val", ""),
    "selected-clean": ("top1", "clean-val", ""),
    "top5": ("top5", "last", ""),
    "ilsvrc12": ("top1", "last", "ilsvrc12"),  # what mini-WebVision trains is also tested there
    "ilsvrc12-top5": ("top5", "last", "ilsvrc12"),
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


# --- what the sources trained -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Recipe:
    """How a record was trained, where it is known; what is None was not found.

    Attributes:
        num_train: training examples: all of them, or what a validation part left.
        warmup: how long the network that estimates T was trained, in lengths of the training.
        other: something about it that no run of nlbench has.
    """

    epochs: int | None = None
    num_train: int | None = None
    lr: float | None = None
    weight_decay: float | None = None
    schedule: str | None = None  # a kind of nlbench.protocols, or the source's own
    optimiser: str | None = None
    other: str = ""
    warmup: float | None = None


_STEPS, _RESTARTS = "multistep", "cosine-restarts"
_ALL, _ELR_PART = 50_000, 45_000  # of CIFAR's training images: all, and ELR's 90%
_CIFARN = Recipe(100, _ALL, 0.1, 5e-4, _STEPS, "SGD")
_ELR = Recipe(120, _ELR_PART, 0.02, 1e-3, _STEPS, "SGD")
_ELR_PLUS = Recipe(200, _ELR_PART, 0.02, 5e-4, _STEPS, "SGD", "its two networks each drew their own noise and split")
# KlemenVovk/noisy-labels, rescience/tables/hyperparameters34.tex and hyperparametersPreAct.tex: method -> CIFAR-10(N),
# CIFAR-100(N). Trained on all 50,000 images (src/noisypy/configs/data/cifar10n.py, Split(1)).
_RESCIENCE = {
    "ce": (_CIFARN, _CIFARN),
    "elr": (Recipe(120, _ALL, 0.02, 1e-3, _RESTARTS, "SGD"), Recipe(150, _ALL, 0.02, 1e-3, _STEPS, "SGD")),
    "elr-plus": (Recipe(200, _ALL, 0.02, 5e-4, _STEPS, "SGD"), Recipe(250, _ALL, 0.02, 5e-4, _STEPS, "SGD")),
    "sop": (Recipe(120, _ALL, 0.02, 5e-4, _STEPS, "SGD"), Recipe(150, _ALL, 0.02, 5e-4, _STEPS, "SGD")),
    "sop-plus": (Recipe(300, _ALL, 0.02, 5e-4, "cosine", "SGD"),) * 2,
    "dividemix": (Recipe(300, _ALL, 0.02, 5e-4, _STEPS, "SGD"),) * 2,
    "pes-semi": (Recipe(300, _ALL, 0.02, 5e-4, "cosine", "SGD"),) * 2,
    "volminnet": (Recipe(80, _ALL, 0.01, 1e-4, _STEPS, "SGD"),) * 2,
    "cal": (Recipe(165, _ALL, 0.1, 5e-4, _STEPS, "SGD"),) * 2,
    "co-teaching": (Recipe(200, _ALL, 0.001, 0.0, "linear decay", "Adam"),) * 2,
    "co-teaching-plus": (Recipe(200, _ALL, 0.001, 0.0, "linear decay", "Adam"),) * 2,
}


def recipe(record: Published) -> Recipe:
    """What is known of how a record was trained: one table, each line with its source."""
    table, method = record.table, record.method
    small = record.dataset in ("cifar10", "cifar10n")
    if table == "ELR Table 1" and method == "elr":
        # Paper, appendix, and the configs of shengliu66/ELR (commit 934af53): 45,000 / 5,000, 120 epochs, CIFAR-100
        # 150; the cosine row is config_cifar10.json, 150 epochs. How long cosine ran on CIFAR-100 is not known.
        if record.variant == "cosine schedule":
            return replace(_ELR, epochs=150 if small else None, schedule=_RESTARTS)
        return _ELR if small else replace(_ELR, epochs=150)
    if table == "ELR Table 5" and record.variant.startswith("2 networks"):
        return Recipe(other=_ELR_PLUS.other)  # the same code
    if table == "ELR Table 2" and method == "elr-plus":
        # shengliu66/ELR, ELR_plus/config_cifar10.json and config_cifar100.json; train.py builds two data sets.
        return _ELR_PLUS if small else replace(_ELR_PLUS, epochs=250)
    if table == "CIFAR-N Table 2":
        # Starter code UCSC-REAL/cifar-10-100n (commit 49df7d8): 100 epochs, all 50,000. The paper describes that for
        # all rows; a reproduction (ReScience C 11(1), 2026) reaches several of them only with their authors' recipes.
        # Appendix E.3, as KlemenVovk/noisy-labels quotes it, has 200 epochs before Forward-T's 100; Backward-T's are
        # not known.
        if method == "forward":
            return replace(_CIFARN, warmup=2.0)
        return _CIFARN if method in ("ce", "backward") else Recipe(num_train=_ALL)
    if table == "ReScience comparison table" and method not in ("elr", "elr-plus", "dividemix"):
        return _CIFARN  # section 3.4 of that paper: one recipe for all but these three
    if table.startswith("ReScience") and method in _RESCIENCE:
        known = _RESCIENCE[method][0 if small else 1]
        return replace(known, num_train=_ELR_PART) if "benchmark" in table else known  # there Split(0.9)
    if table == "epsilon-softmax Table 2":
        # cswjl/eps-softmax main.py (commit 1b9efb5): no validation part, cosine to 0.
        clipped = "it clips gradients"
        if small:
            return Recipe(120, _ALL, 0.01, 1e-4, "cosine", "SGD", clipped)
        return Recipe(200, _ALL, 0.1, 1e-5, "cosine", "SGD", clipped)
    if table == "epsilon-softmax Table 5":  # the paper
        return Recipe(epochs=10, lr=0.005) if record.dataset == "clothing1m" else Recipe(epochs=250, lr=0.4)
    if table == "SCELoss-Reproduce README":  # HanxunH/SCELoss-Reproduce train.py and README (commit c81fb33)
        return Recipe(120 if small else 150, None, 0.01, None, _STEPS, "SGD", "it clips gradients")
    return Recipe()


# Hyperparameters of ours that make another method of one, in words; KeyError where a run's record does not hold them.
FORMS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "bootstrap": lambda p: str(p["kind"]),
    "gce": lambda p: "truncated" if p["truncate"] else "untruncated",
    "forward": lambda p: "T given" if p["T"] else "T estimated",
    "backward": lambda p: "T given" if p["T"] else "T estimated",
    "gls": lambda p: "positive rate" if p["rate"] > 0 else "negative rate" if p["rate"] < 0 else "rate 0",
    "elr-plus": lambda p: (
        f"{p['networks']} network{'s' * (p['networks'] > 1)}, {'' if p['mixup_a'] else 'no '}mixup, "
        f"{'' if p['ema'] else 'no '}weight averaging{'' if p['lam'] else ', no regulariser'}"
    ),
}
_FORMS_THERE = {  # by a source's id, alone or with its table; a source that does not say is not here
    "els": "positive rate",
    "negative-ls": "negative rate",
    "elr-plus": "2 networks, mixup, weight averaging",
    ("CIFAR-N Table 2", "forward"): "T estimated",  # appendix E.3
    ("CIFAR-N Table 2", "backward"): "T estimated",
    ("epsilon-softmax Table 2", "gce"): "untruncated",  # its config.py
    ("epsilon-softmax Table 5", "gce"): "untruncated",
}


def form(record: Published) -> str | None:
    """Which form of a method with several a record is of, in the words of FORMS; None where the source does not say."""
    if record.method == "elr-plus-ablation":
        return record.variant
    return _FORMS_THERE.get((record.table, record.method)) or _FORMS_THERE.get(record.method)


_FLIP_BACK = "asymmetric with flips taken back"
# What `asymmetric` is in the code behind a table: CIFAR-10, CIFAR-100. Dogs are chosen after cats were turned into dogs
# in shengliu66/ELR (issue 16), cswjl/eps-softmax (datasets/data_method1) and HanxunH/SCELoss-Reproduce.
_ASYMMETRIC = {
    "ELR Table 1": (_FLIP_BACK, ""),  # its code has blocks, its numbers look like the milder swap: unknown
    "ELR official README": (_FLIP_BACK, ""),
    "ELR Table 2": (_FLIP_BACK, ""),
    "epsilon-softmax Table 2": (_FLIP_BACK, "asymmetric-block"),
    "SCELoss-Reproduce README": (_FLIP_BACK, "asymmetric-block"),
}


def definition(record: Published) -> str:
    """The noise in nlbench's words; empty where the source does not say, and for labels that are not drawn."""
    copied = record.note.startswith("copied")
    if record.noise.startswith("asym-") and not copied and record.table in _ASYMMETRIC:
        return _ASYMMETRIC[record.table][0 if record.dataset == "cifar10" else 1]
    return record.noise_definition


# --- comparing ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Setting:
    """What a measured cell was trained on and how; what a record does not hold is None."""

    method: str
    dataset: str
    noise: str  # as the sources name it; empty for a noise that none of them has
    definition: str
    params: Mapping[str, Any] = field(default_factory=dict)
    protocol: Mapping[str, Any] = field(default_factory=dict)
    num_train: int | None = None

    @classmethod
    def of(cls, spec: Mapping[str, Any], facts: Mapping[str, Any]) -> Setting:
        """From a record's spec and noise facts, whatever they hold."""
        dataset, labels = str(spec.get("dataset", "")), str(spec.get("labels") or "clean")
        noise = spec.get("noise")
        name, kind = "", ""
        if isinstance(noise, Mapping):
            kind, rate = str(noise.get("kind", "")), noise.get("rate")
            family = {"symmetric": "sym", "asymmetric": "asym"}.get(kind.partition("-")[0])
            name = f"{family}-{rate:g}" if family and isinstance(rate, int | float) else ""
        elif not noise:
            name = "real" if dataset in WEB else labels
            if labels == "clean":
                dataset = {"cifar10n": "cifar10", "cifar100n": "cifar100"}.get(dataset, dataset)
        train = facts.get("num_train")
        return cls(
            method=str(spec.get("method", "")),
            dataset=dataset,
            noise=name,
            definition=kind,
            params=_mapping(spec.get("params")),
            protocol=_mapping(spec.get("protocol")),
            num_train=train if isinstance(train, int) else None,
        )

    @property
    def schedule(self) -> str | None:
        return _mapping(self.protocol.get("schedule")).get("kind")

    @property
    def form(self) -> str | None:
        """Which form of its method was run; None where the record does not hold it, or where there is but one."""
        try:
            return FORMS[self.method](self.params)
        except (KeyError, TypeError):
            return None

    def records(self, test_set: str = "") -> list[Published]:
        """Every published number of this method on this data, whatever network and epoch it is of.

        Args:
            test_set: another than the data's own, which sources list as a dataset: "ilsvrc12".
        """
        if test_set and self.dataset != "webvision":
            return []
        return [
            r
            for r in load()
            if (r.name("method"), r.name("dataset"), r.noise) == (self.method, test_set or self.dataset, self.noise)
            and (self.form is None or form(r) in (None, self.form))
        ]

    def differences(self, record: Published) -> tuple[list[str], list[str]]:
        """What stands against comparing: (what is known to differ, what is not known), in words."""
        theirs = recipe(record)
        drawn = record.noise.startswith(("sym-", "asym-"))
        network = None if record.architecture == "unknown" else record.name("model")
        pairs: list[tuple[str, Any, Any]] = [
            ("noise", self.definition if drawn else "", definition(record) or (None if drawn else "")),
            ("network", self.protocol.get("model"), network),
            ("epochs", self.protocol.get("epochs"), theirs.epochs),
            ("training images", self.num_train, theirs.num_train),
        ]
        if self.method in FORMS:
            pairs.append(("form of the method", self.form, form(record)))
        if self.form == "T estimated":
            pairs.append(("trainings before, to estimate T", self.params.get("warmup_share"), theirs.warmup))
        if network == "torchvision/resnet50":
            # What a file of the user's holds is not known.
            ours = {"": "without", "imagenet": "with"}.get(self.protocol.get("weights", ""))
            there = "with" if record.architecture in PRETRAINED else "without"
            pairs.append(("ImageNet weights", ours, there))
        # Only where both are known: a source that gives epochs and split seldom hides the rest.
        optional = [
            ("learning rate", self.protocol.get("lr"), theirs.lr),
            ("weight decay", self.protocol.get("weight_decay"), theirs.weight_decay),
            ("schedule", self.schedule, theirs.schedule),
            ("optimiser", "SGD" if self.protocol else None, theirs.optimiser),
        ]
        pairs += [pair for pair in optional if None not in pair]
        known = [
            f"{what}: {_shown(a)} here, {_shown(b)} there" for what, a, b in pairs if None not in (a, b) and a != b
        ]
        unknown = [f"{what}: not known of the source" for what, a, b in pairs if b is None]
        unknown += [f"{what}: not in the record here" for what, a, b in pairs if a is None and b is not None]
        if theirs.other:
            known.append(theirs.other)
        return known, unknown


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _shown(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}" if isinstance(value, float) else str(value)


def nearest(records: Iterable[Published], setting: Setting) -> list[Published]:
    """Those that agree with the setting best: at most three, and two where nothing can be compared.

    One number that several sources print counts once, as the first of them in the file.
    """
    ranked: list[tuple[tuple[int, int], Published]] = []
    for record in records:
        known, unknown = setting.differences(record)
        rank = len(known), len(unknown)
        if not any(rank == other and (record.mean, record.std) == (r.mean, r.std) for other, r in ranked):
            ranked.append((rank, record))
    best = min((rank for rank, _ in ranked), default=None)
    return [record for rank, record in ranked if rank == best][: 3 if best == (0, 0) else 2]


@dataclass(frozen=True)
class Welch:
    """A measured mean minus a published one, in points.

    Attributes:
        se: standard error of the difference; None where it cannot be tested, and so are df and p.
        df: degrees of freedom after Welch and Satterthwaite.
        p: two-sided.
    """

    difference: float
    se: float | None = None
    df: float | None = None
    p: float | None = None


def welch(mean: float, std: float | None, n: int, record: Published) -> Welch:
    """Of a measured mean and sample std over n seeds, in percent. Testable with both stds and two runs at least."""
    difference = mean - record.mean
    s2, n2 = record.sample_std, record.seeds
    if std is None or s2 is None or n2 is None or min(n, n2) < 2 or std == s2 == 0:
        return Welch(difference)
    a, b = std**2 / n, s2**2 / n2
    se, df = math.sqrt(a + b), (a + b) ** 2 / (a**2 / (n - 1) + b**2 / (n2 - 1))
    from scipy.special import stdtr  # Student's t, without the rest of scipy.stats

    return Welch(difference, se, df, float(2 * stdtr(df, -abs(difference) / se)))


CIFARN_WARNINGS = (
    "CIFAR-N Table 2 reports the best epoch on the test set: its rows stand beside the best epoch here, never beside "
    "the last one.",
    "CIFAR-N Table 2's CE row is unexplained: best over epochs, an independent re-run (ReScience C 11(1), 2026) is 3.7 "
    "to 6.2 points above it and the authors' own starter code 3.9 to 6.3. So will a correct CE run be: no progress.",
)


def _remarks(records: Sequence[Published]) -> list[str]:
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
        remarks += _remarks(found)
        ran = sorted({r.seeds for r in found if r.seeds})
        runs = f"{', '.join(map(str, ran))} runs" if ran else "number of runs not stated"
        lines.append(f"{table}: {source}; " + "; ".join([runs, *filter(None, remarks)]) + ".")
    return lines
