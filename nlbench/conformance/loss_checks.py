"""The checks of `nlbench check` about a loss: its scale, its extremes, and what it trains.

They are in the list of `checks.CHECKS`, behind the others.
"""

from __future__ import annotations

import contextlib
import copy
import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nlbench.conformance.advice import Failed, Skipped
from nlbench.conformance.checks import check
from nlbench.conformance.lab import Lab
from nlbench.conformance.outcome import some
from nlbench.conformance.trial import BATCH, C, Trial
from nlbench.conformance.watch import SURE, Watch
from nlbench.method import Method, Run


@check("scale", "train")
def has_a_mean_loss(lab: Lab) -> None:
    """its gradient does not grow with the batch: a mean over examples, and no sum"""
    ratio = _growth_of_loss(lab)
    # A sum that is divided by the protocol's batch size is as good as a mean. Only a trial with
    # another batch size tells it from a sum.
    if ratio is None or _is_of_a_sum(ratio):
        ratio = _growth_in_a_step(lab)
    if _is_of_a_sum(ratio):
        raise Failed(
            f"the gradient of an example is {ratio:.2f} times as large in a batch of {2 * BATCH} "
            f"as in one of {BATCH}, where that of a mean is 0.5 times as large\n"
            'fix: leave out reduction="sum" and .sum() over the examples: return the (B,) '
            "losses, or their .mean()"
        )


def _is_of_a_sum(growth: float) -> bool:
    # Not everything above: a helper network that was trained otherwise may lead to any number.
    return 0.9 < growth < 1.1


def _growth_of_loss(lab: Lab) -> float | None:
    """Return the factor on an example's gradient, from half of a batch to the whole.

    None for a method that does not use the default step with its `loss`.
    """
    if lab.cls.training_step is not Method.training_step or lab.cls.loss is Method.loss:
        return None
    watch = lab.train().watch
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2 * BATCH, C, generator=generator)
    norms = []
    # A loss may need what a training step prepares. The trials tell then.
    with contextlib.suppress(Exception):
        for rows in (BATCH, 2 * BATCH):
            method = copy.deepcopy(watch.method)
            z = logits[:rows].clone().requires_grad_()
            batch = watch.run.batch(watch.run.order()[:rows]).clone()
            loss = lab.cls.loss(method, z, batch).mean()
            (gradient,) = torch.autograd.grad(loss, z)
            norms.append(float(gradient[:BATCH].norm(dim=1).mean()))
    if len(norms) < 2 or not norms[0] > 0:
        return None
    return norms[1] / norms[0]


def _growth_in_a_step(lab: Lab) -> float:
    """Return the largest factor on an example's gradient in the first step, over the networks."""
    usual = lab.train().watch.row_gradients
    double = lab.attempt(Trial(batch=2 * BATCH, epochs=1)).watch.row_gradients
    largest = 0.0
    for i, (rows, norm) in usual.items():
        more_rows, its_norm = double.get(i, (0, 0.0))
        # A method may choose the size of its batches itself.
        if norm and more_rows == 2 * rows:
            largest = max(largest, its_norm / norm)
    return largest


@check("pairs", "train")
def keeps_examples_apart(lab: Lab) -> None:
    """its loss gives an example's logits a gradient that no other example of the batch changes"""
    if lab.cls.couples_examples:
        raise Skipped("it says that its loss couples the examples of a batch (couples_examples)")
    if lab.cls.loss is Method.loss and lab.cls.loss_and_grad is None:
        raise Skipped("it has no loss that could be called with other logits")

    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(_PAIRED, C, generator=generator)
    try:
        alone = _row_gradients(lab, logits)
        again = _row_gradients(lab, logits)
        changed = [_row_gradients(lab, logits, j) for j in range(_PAIRED)]
    # A loss may need what a training step prepares. It is then not judged here.
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise Skipped(f"its loss cannot be called outside of a step ({reason})") from None
    if not torch.equal(alone, again):
        raise Skipped("its loss draws random numbers, so two calls give different gradients")

    for j, gradients in enumerate(changed):
        others = torch.arange(_PAIRED) != j
        moved = (gradients - alone)[others].norm(dim=1)
        usual = float(alone[others].norm(dim=1).max())
        # Sums of float32 in another order differ by less.
        if float(moved.max()) > 1e-4 * usual + 1e-9:
            i = int(others.nonzero()[int(moved.argmax())])
            raise Failed(
                f"in a batch of {_PAIRED}, other logits and another label of example {j} change "
                f"the gradient of example {i} by {float(moved.max()):.2g} (the largest of an "
                f"example is {usual:.2g})\n"
                "fix: a tensor (B, 1) was combined with one of (B,): use .squeeze(1); if the loss "
                "is meant to couple the examples of a batch, set `couples_examples = True` in "
                "the class"
            )


# So many examples are in the batch of the check `pairs`.
_PAIRED = 8


def _row_gradients(lab: Lab, logits: Tensor, other: int | None = None) -> Tensor:
    """Return the gradient (B, C) of B times the mean loss, of a copy of the trained method.

    Args:
        logits: (B, C), for the first B training examples.
        other: the position of an example that gets other logits and another label, if any.
    """
    watch = lab.train().watch
    method = copy.deepcopy(watch.method)
    batch = watch.run.batch(torch.arange(len(logits))).clone()
    z = logits.clone()
    if other is not None:
        batch.labels[other] = (batch.labels[other] + 1) % C
        z[other] = -2 * z[other].flip(0)

    if lab.cls.loss is Method.loss:
        assert lab.cls.loss_and_grad is not None
        _, dlogits = lab.cls.loss_and_grad(method, z, batch)  # type: ignore[call-arg, arg-type]
        return dlogits.detach() * len(z)
    loss = lab.cls.loss(method, z.requires_grad_(), batch).mean()
    (gradient,) = torch.autograd.grad(loss, z)
    return gradient * len(z)


@check("extremes", "train")
def is_finite_at_extreme_logits(lab: Lab) -> None:
    """loss and gradient are finite where all logits are equal, and where they are 120 and -120"""
    places = {"equal": "all logits are 0", "sure": "one logit is 120 and the others are -120"}
    for kind in ("equal", "sure"):
        seen = lab.attempt(Trial(logits=kind, epochs=1)).watch.not_finite
        if seen is not None and seen.kind in ("loss", "gradient"):
            raise Failed(
                f"where {places[kind]}, {seen.message}\n"
                "fix: use log_softmax or logsumexp in place of softmax().log(), clamp before a "
                "logarithm, a root or a division, and not after it"
            )


@check("softmax", "build")
def takes_the_softmax_once(lab: Lab) -> None:
    """its loss takes the softmax of the logits once"""
    if lab.cls.loss is Method.loss:
        raise Skipped("it has no loss that could be called with other logits")
    try:
        right, wrong = (_loss_at(lab, shift) for shift in (0, 1))
    # A loss may need what a training step prepares. It is then not judged here.
    except Exception:
        raise Skipped("its loss cannot be called outside of a step") from None

    # Cross entropy of probabilities: a softmax of 0 and 1.
    high = math.log(math.e + C - 1)
    if _near(right, high - 1) and _near(wrong, high):
        raise Failed(
            f"for sure and right logits the loss is {right:.4f}, and {wrong:.4f} for wrong ones: "
            "these are the values of a cross entropy that gets probabilities\n"
            "fix: F.cross_entropy takes the softmax itself: give it the logits"
        )
    if _near(right, -SURE) and _near(wrong, SURE):
        raise Failed(
            f"for sure and right logits the loss is {right:.0f}, and {wrong:.0f} for wrong ones: "
            "it takes no softmax\n"
            "fix: F.nll_loss gets log_softmax(logits); F.cross_entropy gets the logits"
        )


def _loss_at(lab: Lab, shift: int) -> float:
    """Return the loss of a copy of the trained method at logits that are sure of label + shift."""
    # Of a training that failed, too: a loss without a softmax may be why.
    watch = lab.attempt().watch
    method = copy.deepcopy(watch.method)
    batch = watch.run.batch(watch.run.order()[:BATCH]).clone()
    sure = F.one_hot((batch.labels + shift) % C, C) * (2 * SURE) - SURE
    logits = sure.to(torch.float32).requires_grad_()
    loss: Tensor = lab.cls.loss(method, logits, batch)
    return float(loss.detach().mean())


def _near(value: float, wanted: float) -> bool:
    return abs(value - wanted) < 1e-3


@check("parameters", "train")
def trains_its_parameters(lab: Lab) -> None:
    """each of its parameters that gets a gradient has a registered optimiser"""
    outcome = lab.train()
    watch = outcome.watch
    run, begun, ended = watch.run, outcome.begun[0], outcome.states[max(outcome.states)]
    known = {id(parameter) for parameter in _optimised(run)}

    for name, parameter in watch.method.named_parameters():
        if kind := watch.own_steps.get(id(parameter)):
            raise Failed(
                f"self.{name}: is trained by an optimiser ({kind}) that is not registered: no "
                "checkpoint holds its state, and no schedule sets its learning rate\n"
                f"fix: in prepare, run.optimise([self.{name}], lambda p: torch.optim.{kind}(p, "
                'lr=0.1), "own"); run.backward_step(loss) then steps it'
            )

    forgotten = []
    for name, parameter in watch.method.named_parameters():
        path = f"self.{name}"
        # An average of other weights changes too, without an optimiser.
        if id(parameter) in known or parameter.grad is None or begun.get(path) != ended.get(path):
            continue
        forgotten.append((path, parameter))
    if forgotten:
        path, _ = forgotten[0]
        names = some([path for path, _ in forgotten])
        raise Failed(
            f"{names}: gets a gradient, and no registered optimiser trains it, so it keeps its "
            "first value\n"
            f"fix: in prepare, run.optimise([{path}], lambda p: torch.optim.SGD(p, lr=0.1), "
            '"own"); of a network that is not to be trained, .requires_grad_(False)'
        )


def _optimised(run: Run) -> list[nn.Parameter]:
    found = []
    for optimiser in run.optimisers.values():  # type: ignore[attr-defined]
        for group in optimiser.param_groups:
            found += group["params"]
    return found


@check("modes", "train")
def trains_in_training_mode(lab: Lab) -> None:
    """its networks are in training mode while they are trained"""
    for (epoch, i), modes in sorted(lab.train().watch.modes.items()):
        if modes == {False}:
            raise Failed(
                f"in epoch {epoch}, run.networks[{i}] was trained in evaluation mode: batch norm "
                "and dropout do not train\n"
                f"fix: call run.networks[{i}].train() after .eval(); run.predict_train(network) "
                "restores the mode itself"
            )


@check("memory", "train")
def addresses_memories_by_index(lab: Lab) -> None:
    """a step changes the rows of its own examples, which are batch.index, in what it remembers"""
    for name, places in lab.train().watch.memory.strays.items():
        # A single step may be chance.
        if len(places) > 1:
            raise Failed(
                f"{name} has a row for each training example, and a step changed rows of other "
                f"examples than its own ({places[0]}; {len(places)} steps)\n"
                f"fix: address it by the position in the training set: {name}[batch.index] = ..."
            )


@check("device", "train")
def keeps_tensors_on_one_device(lab: Lab) -> None:
    """it combines only tensors that lie on one device, also on a GPU"""
    refuse_mixed_devices(lab.train().watch)


def refuse_mixed_devices(watch: Watch) -> None:
    """Raise Failed for the first operation of a training that would mix CPU and GPU."""
    assert watch.placement is not None
    for place, tensor in watch.placement.mixed.items():
        named = [name for name, value in vars(watch.method).items() if value is tensor]
        name = f"self.{named[0]}" if named else "a tensor"
        fix = "make it with device=task.device, or with device=logits.device in a step"
        if named:
            fix = (
                f'keep it with self.register_buffer("{named[0]}", ...) in the constructor, which '
                "moves it with the method"
            )
        raise Failed(
            f"{place}\n{name} was made on the CPU, and is combined here with what lies on the "
            f"device of the run: on a GPU this fails\nfix: {fix}"
        )
