"""Was a run reproduced? The verdict on the numbers of two trainings, and its reasons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from nlbench.results.numbers import Difference, RunNumbers, first_difference
from nlbench.results.reproduced import Accuracies, Outcome
from nlbench.results.rounding import STANDARD_ERRORS, Apart, differing, tolerance


class Verdict(StrEnum):
    """What became of a run that was to be reproduced."""

    BITS = "reproduced bit for bit"
    WITHIN = "reproduced within the tolerance"
    DIFFERS = "not reproduced"
    UNTRIED = "could not be tried"


_OUTCOMES = {Verdict.BITS: Outcome.BITS, Verdict.WITHIN: Outcome.WITHIN}


@dataclass(frozen=True)
class Comparison:
    """The verdict on two trainings of a run.

    Attributes:
        detail: what was compared, or where the numbers differ and whether that is allowed.
        same_hardware: whether everything is the same that the rounding depends on.
        accuracies: those that were compared, where rounding may differ.
    """

    verdict: Verdict
    detail: str
    same_hardware: bool
    accuracies: Accuracies | None = None

    @property
    def outcome(self) -> Outcome | None:
        """What a note says of it; None for a run that was not reproduced."""
        return _OUTCOMES.get(self.verdict)


def compare(was: RunNumbers, now: RunNumbers) -> Comparison:
    """Compare the numbers of a record with those of a second training.

    On the same hardware and versions they must be the same, bit for bit. Otherwise the labels must
    be the same, and the accuracy after the last epoch must lie within the tolerance.
    """
    found = first_difference(was, now, complete=True)
    apart = differing(was.record.environment, now.record.environment)
    if found is None:
        detail = _what_was_compared(was) + _what_is_new(was, now)
        return Comparison(Verdict.BITS, detail, not apart)
    if not apart:
        detail = f"{_in_words(found)}; hardware and versions are the same"
        return Comparison(Verdict.DIFFERS, detail, True)
    return _within(was, now, f"{_in_words(found)}; {_changed(apart)}")


def _what_was_compared(run: RunNumbers) -> str:
    epochs = f"{len(run.history)} epoch{'s' * (len(run.history) != 1)}"
    return (
        f"{epochs} with {len(run.columns)} columns each, {len(run.arrays)} arrays of predictions, "
        f"{len(run.record.metrics)} metrics"
    )


def _what_is_new(was: RunNumbers, now: RunNumbers) -> str:
    """Name what only the second training has, because today's code measures more."""
    new = [name for name in now.columns if name not in was.columns]
    new += [name for name in now.arrays if name not in was.arrays]
    new += [name for name in now.record.metrics if name not in was.record.metrics]
    return f"; measured only now: {', '.join(dict.fromkeys(new))}" if new else ""


def _in_words(found: Difference) -> str:
    return f"first difference: {found.place}: {found.one} in the record, {found.other} now"


def _changed(apart: Sequence[Apart]) -> str:
    changes = [f"{other.name} {other.one} -> {other.other}" for other in apart]
    return f"hardware or versions differ ({'; '.join(changes)})"


def _within(was: RunNumbers, now: RunNumbers, about: str) -> Comparison:
    """Compare two trainings that may round differently.

    Args:
        about: in words, where they differ and why they may.
    """
    unequal = _other_data(was, now)
    if was.record.status != now.record.status:
        unequal = f"the run was {was.record.status}, and is {now.record.status} now"
    if unequal:
        return Comparison(Verdict.DIFFERS, f"{unequal}; {about}", False)

    old, new = was.record.metrics.get("last"), now.record.metrics.get("last")
    if old is None or new is None:
        return Comparison(Verdict.WITHIN, f"both trainings diverged; {about}", False)

    num_test = now.record.noise.get("num_test", 0)
    at_most = tolerance(old, new, num_test)
    detail = (
        f"last epoch {100 * old:.2f}% in the record, {100 * new:.2f}% now, where "
        f"{100 * at_most:.2f} points are allowed ({STANDARD_ERRORS} standard errors of a "
        f"difference on {num_test:,} test images); {about}"
    )
    verdict = Verdict.WITHIN if abs(old - new) <= at_most else Verdict.DIFFERS
    accuracies = Accuracies(recorded=old, again=new, at_most=at_most)
    return Comparison(verdict, detail, False, accuracies)


def _other_data(was: RunNumbers, now: RunNumbers) -> str:
    """Say what of the data differs: it is drawn from the seed, and no rounding may change it."""
    hashes = [run.record.noise.get("labels_hash") for run in (was, now)]
    if None not in hashes and hashes[0] != hashes[1]:
        return "the given labels are not the same"
    for name in ("train_index", "labels"):
        old, new = was.arrays.get(name), now.arrays.get(name)
        if old is None or new is None:
            continue
        if old.shape != new.shape or (old != new).any():
            return "the training images, or their given labels, are not the same"
    return ""
