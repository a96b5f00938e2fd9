"""The notes below a table: what was measured of the data, and what the marks mean."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from nlbench.results.cells import MIXED, STALE, Results, hardware_kind
from nlbench.results.record import NoiseFacts, RunRecord

BEST = (
    "best (oracle): highest test accuracy of any epoch. It uses the test labels, so it is an "
    "upper bound and not a result."
)
SHARES = (
    "clean right: share of the correctly labelled training examples that the final network "
    "predicts as labelled, without augmentation. memorised: the same for the wrongly labelled "
    "ones; lower is better."
)
COUNTS = (
    "nets: number of networks. passes: forward passes for each training example and epoch, not "
    "counting helper networks."
)


# ---- Notes about the data -----------------------------------------------------------------------


def of_condition(results: Results, condition: int) -> list[str]:
    """Describe the data of one condition, as its records measured it."""
    # A run that failed has measured nothing.
    records = [record for record in results.records_under(condition) if record.noise]
    if not records:
        return []
    facts = [record.noise for record in records]
    notes = [f"{results.conditions[condition]}: {_noise_rate(facts)}; {_sizes(facts)}."]

    estimates = set()
    variants = set()
    for fact in facts:
        estimate, variant = fact.get("estimated_rate"), fact.get("variant")
        if estimate:
            estimates.add(estimate)
        if variant:
            variants.add(variant)

    # The published estimate is not used where a suite gives its own.
    own = [record for record in records if "noise_rate" in record.spec.get("told", {})]
    if estimates and not own and any("noise_rate" in row.told for row in results.rows):
        given = ", ".join(f"{100 * rate:g}%" for rate in sorted(estimates))
        notes.append(
            f"told noise_rate: the methods are given a published estimate, {given}; the rate of "
            "this dataset cannot be measured."
        )
    notes += _told_by_suite(records)
    if any(record.metrics.get("selected_clean") is not None for record in records):
        notes.append(
            "selected on clean val: test accuracy at the epoch that is best on a validation set "
            "with true labels."
        )
    if variants:
        notes.append(
            f"The images are a {', '.join(sorted(variants))} copy, not the official pixels: "
            "small differences from numbers on the official images may come from that."
        )
    return notes


def _told_by_suite(records: Sequence[RunRecord]) -> list[str]:
    """Describe the privileged information that a suite gave itself, and to which methods."""
    rates: dict[str, list[float]] = {}
    methods: dict[str, list[str]] = {}
    matrices: dict[str, list[str]] = {}
    for record in records:
        told, method = record.spec.get("told", {}), record.spec["method"]
        rate = record.method.get("told_noise_rate")
        # A run that failed was told nothing.
        if "noise_rate" in told and rate is not None:
            source = "the suite's own estimate"
            if told["noise_rate"] == "estimate":
                source = "an estimate from the given labels, made by a helper network"
            rates.setdefault(source, []).append(rate)
            methods.setdefault(source, []).append(method)
        if "T" in told:
            matrices.setdefault(told["T"], []).append(method)

    notes = []
    for source, values in rates.items():
        given_to = ", ".join(once(methods[source]))
        notes.append(
            f"told noise_rate: {given_to} got {source}, {_span(values)}, and not a measured rate."
        )
    for digest, names in matrices.items():
        notes.append(
            f"told T: {', '.join(once(names))} got the suite's own matrix ({digest[:15]}), and "
            "not the measured one."
        )
    return notes


def _noise_rate(facts: Sequence[NoiseFacts]) -> str:
    train_rates, full_rates = [], []
    for fact in facts:
        train, full = fact["noise_rate_train"], fact["noise_rate_full"]
        if train is None or full is None:
            return "noise rate unknown (this dataset has no true labels)"
        train_rates.append(train)
        full_rates.append(full)

    # All runs under one condition have the same kind of noise.
    drawn = "the same for all seeds"
    if facts[0]["redrawn"]:
        drawn = "drawn anew for each seed"
    return (
        f"measured noise rate {_span(train_rates)} of the training labels "
        f"({_span(full_rates)} of all labels), {drawn}"
    )


def _span(rates: Sequence[float]) -> str:
    low, high = f"{100 * min(rates):.2f}%", f"{100 * max(rates):.2f}%"
    if low == high:
        return low
    return f"{low} to {high}"


def _sizes(facts: Sequence[NoiseFacts]) -> str:
    sizes = {(fact["num_train"], fact["num_val"], fact["num_test"]) for fact in facts}
    parts = []
    for train, val, test in sorted(sizes):
        names = [f"{train} training"]
        if val:
            names.append(f"{val} validation")
        parts.append(f"{', '.join(names)}, {test} test examples")
    return "; ".join(parts)


# ---- Notes about marks in cells -----------------------------------------------------------------


def of_marks(results: Results) -> list[str]:
    """Explain the marks that cells of these results have, and name methods with own optimisers."""
    records = results.all_records()
    # The marks of a cell are the same for every metric, and every finished run has `last`.
    stale = failed = missing = False
    for row in results.rows:
        for condition in range(len(results.conditions)):
            cell = results.cell(row.name, condition, "last")
            stale = stale or STALE in cell.marks
            failed = failed or cell.failed > 0
            missing = missing or len(cell.values) < cell.planned

    notes = []
    own = []
    for record in records:
        if record.method.get("own_optimisers"):
            own.append(record.spec["method"])
    if own:
        notes.append(f"Methods that replace the protocol's optimiser: {', '.join(once(own))}.")
    if stale:
        notes.append(
            f"{STALE} made by another version of the code; `nlbench run --stale rerun` trains "
            "it again."
        )
    if len(set(map(hardware_kind, records))) > 1:
        notes.append(f"{MIXED} contains or compares runs of different precision or device class.")
    if failed:
        notes.append("! number of runs that failed or diverged; no mean contains them.")
    if missing:
        notes.append("(n/m) n of m seeds are done; - none is done yet.")
    return notes


def once(texts: Iterable[str]) -> list[str]:
    """Return each text once, in the order of the first."""
    return list(dict.fromkeys(texts))


@dataclass
class Keys:
    """Short keys in cells for texts in the notes: the n-th new text gets the n-th key."""

    keys: Sequence[str]
    texts: list[str] = field(default_factory=list)

    def of(self, text: str) -> str:
        """Return the key of a text. When the keys run out, the last one gets a number."""
        if text not in self.texts:
            self.texts.append(text)
        place = self.texts.index(text)
        if place < len(self.keys):
            return self.keys[place]
        return f"{self.keys[-1]}{place}"
