"""The checks of `nlbench check` about what a method only reports: its own labels and gradients.

They are in the list of `checks.CHECKS`, behind the others.
"""

from __future__ import annotations

from nlbench.conformance import snapshot
from nlbench.conformance.advice import Failed, Skipped
from nlbench.conformance.checks import check
from nlbench.conformance.lab import Lab
from nlbench.conformance.loss_checks import refuse_mixed_devices
from nlbench.conformance.outcome import difference, some
from nlbench.conformance.snapshot import unlike
from nlbench.conformance.trial import BATCH, Trial
from nlbench.method import Method


@check("own-labels", "train")
def reports_its_labels(lab: Lab) -> None:
    """own_labels gives soft labels (N, C) or trust (N,) from 0 to 1, and leaves no trace"""
    outcome = lab.train()
    if lab.cls.own_labels is Method.own_labels and outcome.watch.method.own_labels() is None:
        raise Skipped("it has no own_labels, and no buffer `targets` (N, C)")

    # The training goes on without an opinion that cannot be kept, and notes it. The other trial is
    # that of `batch-of-one`, with another number of examples.
    for trial in (Trial(), Trial(num=4 * BATCH + 1)):
        for note in lab.attempt(trial).notes:
            if note.startswith("method: own_labels"):
                raise Failed(f"{note.removeprefix('method: ')}\n{_OWN_FIX}")

    run, method = outcome.watch.run, outcome.watch.method
    before = snapshot.take(run, method)
    try:
        method.own_labels()
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise Failed(lab.explain(error)) from None
    if changed := unlike(before, snapshot.take(run, method)):
        raise Failed(
            f"own_labels changed {some(changed)}\n"
            "fix: it only reports: compute what it returns in on_epoch_end or in a step, and "
            "return it unchanged"
        )


_OWN_FIX = (
    "fix: return one soft label for each training example, (num_train, num_classes), or how far "
    "each given label is trusted, (num_train,) from 0 to 1, or None; of corrected classes, "
    "F.one_hot(classes, self.task.num_classes)"
)


@check("gradient-parts", "repeat")
def reports_its_gradients(lab: Lab) -> str:
    """gradient_parts gives the terms of each example's gradient, (B, C), and leaves no trace"""
    if lab.cls.gradient_parts is Method.gradient_parts:
        raise Skipped("it has no gradient_parts")

    outcome = lab.attempt(_RECORDED)
    if outcome.problem:
        raise Failed(f"with --record-gradients, while it is fine without:\n{outcome.problem}")
    if written := outcome.watch.read_only.written:
        lines = [f"{label} was written to {where}" for label, where in written.items()]
        raise Failed("\n".join([*lines, "fix: work on a copy, .clone()"]))
    if seen := difference(lab.train(), outcome):
        raise Failed(
            f"with --record-gradients it trains differently\n{seen}\n"
            "fix: gradient_parts only reports: it may read what the step has kept, and must "
            "neither change it nor draw random numbers"
        )
    refuse_mixed_devices(outcome.watch)

    parts = outcome.watch.parts
    if parts.not_finite:
        raise Failed(f"{parts.not_finite}\nfix: use log_softmax, and clamp before a division")
    # With a step of its own, nobody else knows which loss it has minimised.
    own_step = lab.cls.training_step is not Method.training_step
    if parts.difference and not own_step and not lab.cls.couples_examples:
        raise Failed(
            f"{parts.difference}\n"
            "fix: return the derivative of each term of an example's own loss by its logits, so "
            "that the terms add up to that of the loss"
        )
    if not parts.named:
        return "it has returned no terms"
    return ""


_RECORDED = Trial(gradients=True)
