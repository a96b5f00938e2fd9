"""Comparable."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from nlbench.results.published.recipes import recipe
from nlbench.results.published.records import PRETRAINED, WEB, Published, load

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
