"""Compare a method's loss_and_grad with its loss."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from nlbench.conformance.snapshot import fingerprint, leaves
from nlbench.method import Batch, Method
from nlbench.training.seeding import seeded

# (factor on the logits, tolerance). With the large factor they are those of a network that is far
# surer. Late in training a loss may be a small difference of large numbers, of which float32 keeps
# few digits, hence the second tolerance.
_REGIMES = ((1.0, 1e-5), (12.0, 1e-3))


class FormComparison:
    """Call both forms on copies of the method, for the logits of the training.

    Attributes:
        compared: number of calls of loss_and_grad that were compared.
        difference: the first difference and where it was seen, or an empty string.
        uncopied: why the method cannot be copied, or an empty string. It is then not compared,
            because a comparison would change it.
    """

    def __init__(self) -> None:
        self.compared = 0
        self.difference = ""
        self.uncopied = ""

    def compare(
        self, cls: type[Method], method: Method, logits: Tensor, batch: Batch, now: str
    ) -> None:
        """Compare value, gradient and state of both forms. `now` is the place of the training."""
        for factor, tolerance in _REGIMES:
            try:
                fast, slow = copy.deepcopy(method), copy.deepcopy(method)
            except Exception as error:
                self.uncopied = (
                    f"it cannot be copied ({error}), and a comparison must not change it"
                )
                return

            z = (factor * logits.detach()).requires_grad_()
            seen = _compare_at(cls, fast, slow, z, batch, tolerance)
            if seen and not self.difference:
                times = "" if factor == 1 else f", logits times {factor:.0f}"
                self.difference = f"{now}{times}: {seen}"
        self.compared += 1


def _compare_at(
    cls: type[Method], fast: Method, slow: Method, z: Tensor, batch: Batch, tolerance: float
) -> str:
    """Describe the difference of both forms at the logits `z`, or return an empty string."""
    # Both forms may draw from the global generators.
    with seeded(0, "forms"):
        rows, dlogits = cls.loss_and_grad(fast, z.detach().clone(), batch.clone())  # type: ignore
    with seeded(0, "forms"):
        value = cls.loss(slow, z.clone(), batch.clone()).mean()

    # A loss that does not depend on the logits has no gradient.
    grad = torch.zeros_like(z)
    if value.requires_grad:
        grad = torch.autograd.grad(value, z, allow_unused=True, materialize_grads=True)[0]
    # The check `train` looks at values that are not finite.
    if not (value.isfinite() and grad.isfinite().all()):
        return ""

    seen = _outputs_differ(rows.detach(), dlogits.detach(), value.detach(), grad, tolerance)
    return seen or _states_differ(fast.state_dict(), slow.state_dict(), tolerance)


def _outputs_differ(
    rows: Tensor, dlogits: Tensor, value: Tensor, grad: Tensor, tolerance: float
) -> str:
    """Describe how per-example losses and their gradient differ from those of `loss`, or return "".

    Differences at rounding level are ignored: near probabilities of 0 and 1 the tolerance is that
    of a gradient of ordinary size.
    """
    if rows.shape != grad.shape[:1] or dlogits.shape != grad.shape:
        shapes = f"rows {tuple(rows.shape)} and dlogits {tuple(dlogits.shape)}"
        return f"{shapes}, where logits are {tuple(grad.shape)}"
    # Written with `not <=`, so that NaN counts as a difference.
    if not float((rows.mean() - value).abs()) <= tolerance * max(float(value.abs()), 1.0):
        return f"the mean of the rows is {float(rows.mean()):.7g}, the loss {float(value):.7g}"

    largest = float(grad.abs().max())
    gap = (dlogits - grad).abs()
    if float(gap.max()) <= tolerance * max(largest, 0.1 / len(rows)):
        return ""

    # A gradient that is wrong by a factor is the most common mistake.
    times = float((dlogits * grad).sum() / grad.square().sum()) if largest else 0.0
    if float((dlogits - times * grad).abs().max()) <= tolerance * abs(times) * largest:
        seen = f"dlogits is {times:.4g} times the gradient of the loss"
        # The gradient of the sum, where that of the mean was asked for.
        if round(times, 3) == len(rows):
            seen += ", which is the batch size: divide by it"
        return seen

    b, c = divmod(int(gap.argmax()), grad.shape[1])
    given, right = float(dlogits[b, c]), float(grad[b, c])
    return f"dlogits[{b}, {c}] is {given:.6g}, the gradient of the loss {right:.6g}"


def _states_differ(fast: Mapping[str, Any], slow: Mapping[str, Any], tolerance: float) -> str:
    one, other = dict(_leaves_of(fast)), dict(_leaves_of(slow))
    for path in {**one, **other}:
        if path not in one or path not in other or not _equal(one[path], other[path], tolerance):
            return f"{path} is not the same afterwards"
    return ""


def _leaves_of(state: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in state.items():
        yield from leaves(value, f"self.{name}")


def _equal(a: Any, b: Any, tolerance: float) -> bool:
    """Return whether two leaves are equal, tensors of floats up to the tolerance."""
    if not (isinstance(a, Tensor) and isinstance(b, Tensor)):
        return fingerprint(a) == fingerprint(b)
    if a.shape != b.shape or not a.is_floating_point() or not a.numel():
        return fingerprint(a) == fingerprint(b)

    # An entry near zero may be a small difference of large ones.
    allowed = tolerance * float(b.abs().max())
    return torch.allclose(a, b, rtol=tolerance, atol=allowed)
