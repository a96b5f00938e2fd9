"""The notes below a table: what was measured of the data, and what the marks mean."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

from nlbench.results.cells import (
    DAMAGED,
    MIXED,
    SIGN,
    STALE,
    UNKNOWN_CODE,
    Cell,
    Results,
    hardware_kind,
)
from nlbench.results.metrics import Metric
from nlbench.results.record import ClassFacts, NoiseFacts, RunRecord

BEST = (
    "best (oracle): highest test accuracy of any epoch. It uses the test labels, so it is an "
    "upper bound and not a result."
)
# By the name of the column that needs the note, in the order in which they are printed.
_OF_COLUMNS = {
    "clean-right": "clean right: share of the correctly labelled training examples that the final "
    "network predicts as labelled, without augmentation.",
    "memorised": "memorised: share of the wrongly labelled training examples that the final "
    "network predicts as labelled, without augmentation; lower is better.",
    "nets": "nets: number of networks.",
    "passes": "passes: forward passes for each training example and epoch, not counting helper "
    "networks.",
    "best": BEST,
    "labelwave": "LabelWave: test accuracy at the first epoch after which the number of changed "
    "predictions for training images rises, as a moving average over three epochs. It uses no "
    "label.",
    "labelwave-epoch": "LabelWave epoch: counted from 0, and no percentage.",
    "balanced": "balanced: mean over the classes of the share of their test images that is "
    "predicted right.",
    "macro-f1": "macro F1: mean of F1 over the classes of the test images.",
    "ece": "ECE: expected calibration error on the test images, with 15 bins of equal width; lower "
    "is better.",
    "nll": "NLL: mean negative log-likelihood of the true test labels, in nats and not in percent; "
    "lower is better.",
}


def of_columns(columns: Collection[str]) -> list[str]:
    """Explain the columns whose headings do not."""
    return [text for name, text in _OF_COLUMNS.items() if name in columns]


# ---- Notes about the data -----------------------------------------------------------------------


def of_condition(results: Results, condition: int) -> list[str]:
    """Describe the data of one condition, as its records measured it."""
    # A run that failed has measured nothing.
    records = [record for record in results.records_under(condition) if record.noise]
    if not records:
        return []
    facts = [record.noise for record in records]
    notes = [f"{results.conditions[condition]}: {_noise_rate(facts)}; {_sizes(facts)}."]

    counted = [record.classes for record in records if _are_counted(record.classes)]
    notes += [f"{results.conditions[condition]}: {text}." for text in _classes(counted)]
    odd = [text for record in records for text in record.classes.get("data_warnings", [])]
    notes += once(f"data: {text}." for text in odd)

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
            matrices.setdefault(str(told["T"]), []).append(method)

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


def without_labelwave(results: Results, condition: int) -> list[str]:
    """Name the rows whose finished runs have no LabelWave, so that nobody waits for it."""
    rows = []
    for row in results.rows:
        records = results.records_of(row.name, condition)
        done = [record for record in records if record.status == "done"]
        if done and all(record.metrics.get("labelwave") is None for record in done):
            rows.append(row.name)
    if not rows:
        return []
    return [f"Without LabelWave although done: {', '.join(rows)}. {_NO_LABELWAVE}."]


def fewer_than_ten_epochs(results: Results, condition: int) -> list[str]:
    """Say how many epochs `last 10 epochs` is the mean of, where there are fewer than ten."""
    counts = set()
    for record in results.records_under(condition):
        epochs = record.spec.get("protocol", {}).get("epochs")
        if isinstance(epochs, int) and epochs < 10:
            counts.add(epochs)
    if not counts:
        return []
    words = " or ".join(map(str, sorted(counts)))
    return [f"last 10 epochs: the runs have {words}, and it is the mean of all of them."]


def _are_counted(facts: ClassFacts) -> bool:
    """Tell whether classes have names and counts. Those of another version may lack some."""
    return all(facts.get(name) for name in ("names", "num_classes", "train", "test"))


def _classes(facts: Sequence[ClassFacts]) -> list[str]:
    """Return the number of classes, the first names, and how many examples each has in all runs.

    There is more than one text where the data was changed between runs.
    """
    train: dict[tuple[str, ...], list[int]] = {}
    test: dict[tuple[str, ...], list[int]] = {}
    for fact in facts:
        names = tuple(fact["names"])
        train.setdefault(names, []).extend(fact["train"])
        test.setdefault(names, []).extend(fact["test"])

    texts = []
    for names in sorted(train):
        more = ", ..." if len(names) > 5 else ""
        texts.append(
            f"{len(names)} classes ({', '.join(names[:5])}{more}), each with "
            f"{_range(train[names])} training and {_range(test[names])} test examples"
        )
    return texts


def _range(counts: Sequence[int]) -> str:
    low, high = min(counts), max(counts)
    return f"{low}" if low == high else f"{low} to {high}"


def _noise_rate(facts: Sequence[NoiseFacts]) -> str:
    train_rates, full_rates = [], []
    for fact in facts:
        train, full = fact.get("noise_rate_train"), fact.get("noise_rate_full")
        if train is None or full is None:
            return "noise rate unknown (this dataset has no true labels)"
        train_rates.append(train)
        full_rates.append(full)

    # All runs under one condition have the same kind of noise.
    drawn = "the same for all seeds"
    if facts[0].get("redrawn"):
        drawn = "drawn anew for each seed"
    known = {fact["num_known"] for fact in facts if fact.get("num_known")}
    if known:
        number = " or ".join(str(count) for count in sorted(known))
        return (
            f"measured noise rate {_span(train_rates)} of the {number} training labels whose true "
            "label is known; right and memorised labels are counted among these alone"
        )
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
    sizes = set()
    for fact in facts:
        sizes.add((fact.get("num_train", 0), fact.get("num_val", 0), fact.get("num_test", 0)))
    parts = []
    for train, val, test in sorted(sizes):
        names = [f"{train} training"]
        if val:
            names.append(f"{val} validation")
        parts.append(f"{', '.join(names)}, {test} test examples")
    return "; ".join(parts)


# ---- Notes about a metric -----------------------------------------------------------------------

# Why finished runs may lack a metric, by its name in METRICS.
_NEEDS_TRUE_LABELS = ("memorised", "clean-right", "targets")
_NO_LABELWAVE = (
    "LabelWave needs four epochs, and steps that return their predictions for training examples"
)
_LACKING = {
    "memorised": "no training label is wrong, as far as is known",
    "clean-right": "no training label is right, as far as is known",
    "targets": "no method here keeps targets",
    "selected": "the protocol holds out no validation part (val_fraction)",
    "val": "the protocol holds out no validation part (val_fraction)",
    "selected-clean": "the dataset has no validation part with true labels",
    "top5": "there are five classes or fewer",
    "ilsvrc12": "the dataset has no such test images",
    "ilsvrc12-top5": "the dataset has no such test images",
    "single": "no method here has several networks",
    "labelwave": _NO_LABELWAVE,
    "labelwave-epoch": _NO_LABELWAVE,
}


def never_measured(results: Results, metric: Metric) -> list[str]:
    """Say why no finished run has a value of this metric, so that nobody waits for one."""
    notes = []
    for condition, title in enumerate(results.conditions):
        done = [record for record in results.records_under(condition) if record.status == "done"]
        if not done or any(record.metrics.get(metric.key) is not None for record in done):
            continue
        why = _LACKING.get(metric.name, "no run has measured it")
        unknown = all(record.noise.get("noise_rate_train") is None for record in done)
        if metric.name in _NEEDS_TRUE_LABELS and unknown:
            why = "the true training labels are unknown"
        notes.append(f"{title}: {metric.heading} cannot be measured here: {why}.")
    return notes


# ---- Notes about marks in cells -----------------------------------------------------------------


# What the signs of a record say of its run; `training.signs` finds them.
SIGNS = {
    "one-class": "predicts one class only after the last epoch",
    "mostly-one-class": "predicted one class only in more than half of the epochs",
    "never-learned": "predicts no better than the most frequent class",
    "constant-loss": "had the same loss in every epoch",
    "not-finite": "has outputs that are not finite",
}
_OF_SEVERAL = {"predicts": "predict", "has": "have"}


def of_signs(records: Sequence[RunRecord]) -> list[str]:
    """Say how many runs of one cell show which sign of a training that did not work."""
    notes = []
    for sign, words in SIGNS.items():
        count = sum(sign in record.method.get("signs", []) for record in records)
        if count:
            verb, _, rest = words.partition(" ")
            if count > 1:
                verb = _OF_SEVERAL.get(verb, verb)
            runs = f"run{'s' * (len(records) != 1)}"
            notes.append(f"{count} of {len(records)} {runs} {verb} {rest}")
    return notes


def of_marks(results: Results, name: str = "") -> list[str]:
    """Explain the marks that cells of these results have, and name methods with own optimisers.

    Args:
        name: of the results, for notes on single rows, where a table is of two suites.
    """
    of_name = f" of {name}" if name else ""
    records = results.all_records()
    notes = [*of_optimisers(records), *of_code(results), *of_hardware(records)]
    for condition, title in enumerate(results.conditions):
        for row in results.rows:
            signs = of_signs(results.records_of(row.name, condition))
            notes += [f"{SIGN} {row.name}{of_name} on {title}: {text}." for text in signs]
    notes += _of_unfinished(results)
    return [*notes, *of_instructions(records), *of_damage(results)]


def of_optimisers(records: Sequence[RunRecord]) -> list[str]:
    """Name the methods that do not use the protocol's optimiser."""
    own = [record.spec["method"] for record in records if record.method.get("own_optimisers")]
    if not own:
        return []
    return [f"Methods that replace the protocol's optimiser: {', '.join(once(own))}."]


def _cells(results: Results) -> list[Cell]:
    """Return all cells, of `last`: every finished run has it, and marks are the same for all."""
    cells = []
    for row in results.rows:
        for condition in range(len(results.conditions)):
            cells.append(results.cell(row.name, condition, "last"))
    return cells


def of_code(results: Results) -> list[str]:
    """Explain the marks of runs that other or unknown code made, where cells have them."""
    marks = "".join(cell.marks for cell in _cells(results))
    notes = []
    if STALE in marks:
        notes.append(
            f"{STALE} made by another version of the code; `nlbench run --stale rerun` trains "
            "it again."
        )
    if UNKNOWN_CODE in marks:
        notes.append(
            f"{UNKNOWN_CODE} code not found, so it is unknown whether it has changed; give "
            "--methods-dir."
        )
    return notes


def of_hardware(records: Sequence[RunRecord]) -> list[str]:
    """Explain the mark of runs of several kinds of devices, where these runs are such."""
    if len(set(map(hardware_kind, records))) < 2:
        return []
    return [f"{MIXED} contains or compares runs of different precision or device class."]


def _of_unfinished(results: Results) -> list[str]:
    """Explain what cells say of runs that are missing, failed or diverged."""
    cells = _cells(results)
    notes = []
    if any(cell.failed for cell in cells):
        notes.append("! number of runs that failed or diverged; no mean contains them.")
    if any(len(cell.values) < cell.planned for cell in cells):
        notes.append("(n/m) n of m seeds are done. A cell with - has none yet.")
    return notes


# Keys of a record's environment on which the rounding of its numbers depends, in words.
_ROUNDING = {
    "device_name": "device",
    "cpu_capability": "CPU instructions of torch",
    "kernels": "CPU instructions of nlbench's kernels",
    "mkldnn": "oneDNN",
    "torch": "torch",
}


def of_instructions(records: Sequence[RunRecord]) -> list[str]:
    """Say on what the runs were made, where that is not the same for all of them."""
    done = [record for record in records if record.status == "done"]
    parts = []
    for key, words in _ROUNDING.items():
        counts: dict[str, int] = {}
        # Two rows may be the same run. Runs of two stores are not, also if they have one key.
        for record in {id(record): record for record in done}.values():
            value = str(record.environment.get(key, "not recorded"))
            counts[value] = counts.get(value, 0) + 1
        if len(counts) > 1:
            listed = [f"{value} ({count})" for value, count in sorted(counts.items())]
            parts.append(f"{words}: {', '.join(listed)}")

    if not parts:
        return []
    return [
        "These runs were made on different processors or versions. Between them a run of one seed "
        "ends differently, by some points, and p-values change (number of runs in brackets): "
        f"{'; '.join(parts)}."
    ]


# At most so many damaged files are named; the others are counted.
MOST_NAMED = 5


def of_damage(results: Results) -> list[str]:
    """Name the files that are damaged, and count the records that cannot be checked."""
    unusable, beside = [], []
    unchecked = 0
    for files in results.all_files():
        if files.record is None:
            unusable += [damage.text for damage in files.damage]
        else:
            beside += [damage.text for damage in files.damage]
            unchecked += not files.checked

    notes = []
    if unusable:
        notes.append(
            f"{DAMAGED} number of records that are damaged; no mean contains them, and "
            f"`nlbench run` trains them again: {_named(unusable)}."
        )
    if beside:
        notes.append(f"Damaged files, on which no number in this table depends: {_named(beside)}.")
    if unchecked:
        records = "1 record has" if unchecked == 1 else f"{unchecked} records have"
        notes.append(
            f"{records} no checksum, as nlbench 0.1 wrote them: a change of their numbers since "
            "would not be noticed."
        )
    return notes


def _named(texts: Sequence[str]) -> str:
    named = "; ".join(texts[:MOST_NAMED])
    if len(texts) > MOST_NAMED:
        named += f"; and {len(texts) - MOST_NAMED} more"
    return named


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
