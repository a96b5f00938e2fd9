"""When a measured number may be compared with a published one.

A difference is taken only where everything agrees that is known to move the number. What a source
does not say counts as unknown, never as equal.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from nlbench.results.metrics import Reported
from nlbench.results.published.recipes import recipe
from nlbench.results.published.records import PRETRAINED, WEB, Published, load

# ---- Forms of a method --------------------------------------------------------------------------

Params = Mapping[str, Any]


def _with_or_without(flag: object, word: str) -> str:
    return word if flag else f"no {word}"


def _gce(params: Params) -> str:
    return "truncated" if params["truncate"] else "untruncated"


def _loss_correction(params: Params) -> str:
    return "T given" if params["T"] else "T estimated"


def _gls(params: Params) -> str:
    if params["rate"] == 0:
        return "rate 0"
    if params["rate"] > 0:
        return "positive rate"
    return "negative rate"


def _elr_plus(params: Params) -> str:
    parts = [f"{params['networks']} networks"]
    if params["networks"] == 1:
        parts = ["1 network"]
    parts.append(_with_or_without(params["mixup_a"], "mixup"))
    parts.append(_with_or_without(params["ema"], "weight averaging"))
    if not params["lam"]:
        parts.append("no regulariser")
    return ", ".join(parts)


def _anl(params: Params) -> str:
    return "ANL-FL" if params["gamma"] else "ANL-CE"


def _ssr(params: Params) -> str:
    return "SSR+" if params["lam"] else "SSR"


# Methods whose hyperparameters make several methods of one, and the form in words. A function
# raises KeyError where the record of a run does not have the hyperparameter.
FORMS: dict[str, Callable[[Params], str]] = {
    "bootstrap": lambda params: str(params["kind"]),
    "gce": _gce,
    "forward": _loss_correction,
    "backward": _loss_correction,
    "gls": _gls,
    "elr-plus": _elr_plus,
    "anl": _anl,
    "f-divergence": lambda params: str(params["divergence"]),
    "m-dyr": lambda params: str(params["kind"]),
    # DD, which learns from clean labels, is left out of the method.
    "mentornet": lambda _: "PD",
    "ssr": _ssr,
}

# The form in a source, by the source's name of the method, alone or with the table. A source that
# does not say which form it ran is not here.
_FORMS_OF_SOURCES: dict[str | tuple[str, str], str] = {
    "els": "positive rate",
    "negative-ls": "negative rate",
    "elr-plus": "2 networks, mixup, weight averaging",
    "anl-ce": "ANL-CE",
    "m-dyr-h": "m-dyr-h",
    "md-dyr-sh": "md-dyr-sh",
    "mentornet-pd": "PD",
    "ssr": "SSR",
    "ssr-plus": "SSR+",
    # Appendix E.3.
    ("CIFAR-N Table 2", "forward"): "T estimated",
    ("CIFAR-N Table 2", "backward"): "T estimated",
    # Its config.py.
    ("epsilon-softmax Table 2", "gce"): "untruncated",
    ("epsilon-softmax Table 5", "gce"): "untruncated",
}


def form(record: Published) -> str | None:
    """Return which form of its method a source ran, in the words of FORMS; None where unknown."""
    if record.method == "elr-plus-ablation":
        return record.variant
    of_table = _FORMS_OF_SOURCES.get((record.table, record.method))
    return of_table or _FORMS_OF_SOURCES.get(record.method)


# ---- Definitions of noise -----------------------------------------------------------------------

_FLIP_BACK = "asymmetric with flips taken back"

# What `asymmetric` is in the code behind a table, for CIFAR-10 and for CIFAR-100. In
# shengliu66/ELR (issue 16), cswjl/eps-softmax (datasets/data_method1) and
# HanxunH/SCELoss-Reproduce, dogs are chosen after cats were turned into dogs.
_ASYMMETRIC = {
    # On CIFAR-100 its code flips within blocks, but its numbers look like the milder swap: unknown.
    "ELR Table 1": (_FLIP_BACK, ""),
    "ELR official README": (_FLIP_BACK, ""),
    "ELR Table 2": (_FLIP_BACK, ""),
    "epsilon-softmax Table 2": (_FLIP_BACK, "asymmetric-block"),
    "SCELoss-Reproduce README": (_FLIP_BACK, "asymmetric-block"),
}


def definition(record: Published) -> str:
    """Return the kind of noise in nlbench's words.

    Empty where the source does not say it, and for labels that are not drawn.
    """
    copied = record.note.startswith("copied")
    if record.noise.startswith("asym-") and not copied and record.table in _ASYMMETRIC:
        cifar10, cifar100 = _ASYMMETRIC[record.table]
        return cifar10 if record.dataset == "cifar10" else cifar100
    return record.noise_definition


@functools.cache
def by_names() -> dict[tuple[str, str, str], list[Published]]:
    """Return the published numbers by nlbench's names of the method and dataset, and by noise."""
    found: dict[tuple[str, str, str], list[Published]] = {}
    for record in load():
        names = (record.name("method"), record.name("dataset"), record.noise)
        found.setdefault(names, []).append(record)
    return found


# ---- Comparing ----------------------------------------------------------------------------------


class Differences(NamedTuple):
    """Reasons against comparing, in words: known differences, and properties not known."""

    known: list[str]
    unknown: list[str]


class _Pair(NamedTuple):
    """One property of the measured and of the published number; None where it is not known."""

    what: str
    here: object
    there: object


@dataclass(frozen=True)
class MeasuredSetting:
    """The data and the training of a measured cell. A value that its records lack is None.

    Attributes:
        noise: as the sources name it; empty for a noise that none of them has.
        definition: the kind of noise.
        num_train: how many training examples there were.
    """

    method: str
    dataset: str
    noise: str
    definition: str
    params: Params = field(default_factory=dict)
    protocol: Mapping[str, Any] = field(default_factory=dict)
    num_train: int | None = None

    @classmethod
    def of(cls, spec: Mapping[str, Any], facts: Mapping[str, Any]) -> MeasuredSetting:
        """Read the setting from a record's spec and noise facts, of any version."""
        dataset = str(spec.get("dataset", ""))
        labels = str(spec.get("labels") or "clean")
        noise = spec.get("noise")
        name, kind = "", ""
        if isinstance(noise, Mapping):
            kind = str(noise.get("kind", ""))
            name = _source_name(kind, noise.get("rate"))
        elif not noise:
            name = "real" if dataset in WEB else labels
            if labels == "clean":
                # The clean labels of CIFAR-N are the official labels.
                dataset = {"cifar10n": "cifar10", "cifar100n": "cifar100"}.get(dataset, dataset)

        num_train = facts.get("num_train")
        return cls(
            method=str(spec.get("method", "")),
            dataset=dataset,
            noise=name,
            definition=kind,
            params=_mapping(spec.get("params")),
            protocol=_mapping(spec.get("protocol")),
            num_train=num_train if isinstance(num_train, int) else None,
        )

    @property
    def schedule(self) -> str | None:
        """The kind of the learning rate's schedule, as `Recipe` has it."""
        schedule = _mapping(self.protocol.get("schedule"))
        kind = schedule.get("kind")
        if kind == "cosine-restarts":
            # With one period it never restarts.
            period, epochs = schedule.get("period"), self.protocol.get("epochs")
            if isinstance(period, int | float) and isinstance(epochs, int) and period >= epochs:
                return "cosine"
        return kind

    @property
    def _clip(self) -> str | None:
        """How gradients are clipped, in words. The value is left out of records where it is 0."""
        return _clip(self.protocol.get("clip_norm", 0.0)) if self.protocol else None

    @property
    def _optimiser(self) -> str | None:
        """The optimiser's name. Records leave it out where it is SGD."""
        if not self.protocol:
            return None
        name = str(self.protocol.get("optimiser", "sgd"))
        return {"sgd": "SGD", "adamw": "AdamW", "adagrad": "Adagrad"}.get(name, name)

    @property
    def form(self) -> str | None:
        """Return the form of the method that was run.

        It is None where the record does not have it, and for a method with one form.
        """
        try:
            return FORMS[self.method](self.params)
        except (KeyError, TypeError):
            return None

    def records(self, test_set: str = "") -> list[Published]:
        """Return the published numbers of this method on this data, of any network and epoch.

        Args:
            test_set: a test set that is not the dataset's own, and that sources list as a dataset:
                "ilsvrc12".
        """
        if test_set and self.dataset != "webvision":
            return []
        wanted = (self.method, test_set or self.dataset, self.noise)
        form_here = self.form

        found = []
        for record in by_names().get(wanted, ()):
            if form_here is None or form(record) in (None, form_here):
                found.append(record)
        return found

    def reported(self, kind: Reported) -> list[Published]:
        """Return those of `records` that measure the same, at an epoch chosen by the same rule."""
        found = []
        for record in self.records(kind.test_set):
            if (record.metric, record.selection) == (kind.measure, kind.selection):
                found.append(record)
        return found

    def differences(self, record: Published) -> Differences:
        """Return what speaks against comparing this setting with a published number."""
        known, not_there, not_here = [], [], []
        for what, here, there in [*self._required(record), *self._optional(record)]:
            if there is None:
                not_there.append(f"{what}: not known of the source")
            elif here is None:
                not_here.append(f"{what}: not in the record here")
            elif here != there:
                known.append(f"{what}: {_shown(here)} here, {_shown(there)} there")

        other = recipe(record).other
        if other:
            known.append(other)
        return Differences(known, not_there + not_here)

    def _required(self, record: Published) -> list[_Pair]:
        """Return the properties that speak against comparing also where one is not known."""
        theirs = recipe(record)
        noise = _Pair("noise", "", definition(record))
        if record.noise.startswith(("sym-", "asym-", "instance-")):
            # Noise that is drawn has a definition, even where the source does not say it.
            noise = _Pair("noise", self.definition, definition(record) or None)
        network: str | None = record.name("model")
        if record.architecture == "unknown":
            network = None

        pairs = [
            noise,
            _Pair("network", self.protocol.get("model"), network),
            _Pair("epochs", self.protocol.get("epochs"), theirs.epochs),
            _Pair("training images", self.num_train, theirs.num_train),
        ]
        if self.method in FORMS:
            pairs.append(_Pair("form of the method", self.form, form(record)))
        if self.form == "T estimated":
            share = self.params.get("warmup_share")
            pairs.append(_Pair("trainings before, to estimate T", share, theirs.warmup))
        if network == "torchvision/resnet50":
            # It is not known what a user's own file of weights contains.
            weights = self.protocol.get("weights", "")
            here = {"": "without", "imagenet": "with"}.get(weights)
            there = "without"
            if record.architecture in PRETRAINED:
                there = "with"
            pairs.append(_Pair("ImageNet weights", here, there))
        return pairs

    def _optional(self, record: Published) -> list[_Pair]:
        """Return the properties that count only where both are known.

        A source that states its epochs and its split rarely keeps the rest to itself.
        """
        theirs = recipe(record)
        pairs = [
            _Pair("learning rate", self.protocol.get("lr"), theirs.lr),
            _Pair("weight decay", self.protocol.get("weight_decay"), theirs.weight_decay),
            _Pair("schedule", self.schedule, theirs.schedule),
            _Pair("optimiser", self._optimiser, theirs.optimiser),
            _Pair("gradients", self._clip, _clip(theirs.clip_norm)),
        ]
        return [pair for pair in pairs if None not in pair]


def _source_name(kind: str, rate: object) -> str:
    """Return the sources' name of a drawn noise; empty where they have none."""
    families = {"symmetric": "sym", "asymmetric": "asym", "instance": "instance"}
    family = families.get(kind.partition("-")[0])
    if family is None or not isinstance(rate, int | float):
        return ""
    return f"{family}-{rate:g}"


def _mapping(value: object) -> Mapping[str, Any]:
    if isinstance(value, Mapping):
        return value
    return {}


def _clip(norm: object) -> str | None:
    """Say at which norm gradients are clipped; None where that is not known."""
    if not isinstance(norm, int | float):
        return None
    return f"clipped at norm {norm:g}" if norm else "not clipped"


def _shown(value: object) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:g}"
    return str(value)


def nearest(records: Iterable[Published], setting: MeasuredSetting) -> list[Published]:
    """Return the numbers whose setting is most similar: at most three, two if none is comparable.

    A number that several sources print counts once, as the first of them in the file.
    """
    ranked: list[tuple[tuple[int, int], Published]] = []
    printed: set[tuple[tuple[int, int], float, float | None]] = set()
    for record in records:
        known, unknown = setting.differences(record)
        rank = len(known), len(unknown)
        if (rank, record.mean, record.std) not in printed:
            printed.add((rank, record.mean, record.std))
            ranked.append((rank, record))

    if not ranked:
        return []
    best = min(rank for rank, _ in ranked)

    # Numbers that cannot be compared are shown to give an idea, and two are enough for that.
    most = 2
    if best == (0, 0):
        most = 3
    return [record for rank, record in ranked if rank == best][:most]
