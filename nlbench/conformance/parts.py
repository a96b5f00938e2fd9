"""Compare what `gradient_parts` returns with the gradient of the step before it."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

# Both are float32. A kernel may add up in another order than autograd.
_TOLERANCE = 1e-3


class PartsComparison:
    """Keep the gradients of a step, and compare the terms with them.

    Attributes:
        named: the names of all terms that were seen.
        compared: how often the sum of the terms was compared with a gradient.
        difference: the first difference and where it was seen, or an empty string.
        not_finite: the first term that was not finite and where, or an empty string.
    """

    def __init__(self) -> None:
        self.named: set[str] = set()
        self.compared = 0
        self.difference = ""
        self.not_finite = ""
        # Of this step: the outputs of a network, and the gradients of its loss by them.
        self._gradients: list[tuple[Tensor, Tensor]] = []

    def begin_step(self) -> None:
        """Forget the gradients of the step before."""
        self._gradients.clear()

    def listen_to(self, output: Tensor) -> None:
        """Keep the gradient of an output (B, C) of a network, once it is known."""
        values = output.detach().clone()
        output.register_hook(lambda gradient: self._gradients.append((values, gradient.clone())))

    def compare(self, parts: object, logits: Tensor, now: str) -> None:
        """Compare the terms for logits (B, C) with the gradient of this step.

        The sum is compared only if one gradient is there, and it is that of these logits.
        """
        # The harness says what is wrong with anything else.
        if not isinstance(parts, Mapping) or not parts:
            return
        terms = {name: part for name, part in parts.items() if isinstance(part, Tensor)}
        if len(terms) < len(parts) or any(part.shape != logits.shape for part in terms.values()):
            return
        self.named |= {str(name) for name in terms}
        for name, part in terms.items():
            if not part.isfinite().all() and not self.not_finite:
                self.not_finite = f"{now}: the term {name!r} is not finite"
        # Nothing can be said of their sum.
        if self.not_finite:
            return

        if len(self._gradients) != 1:
            return
        values, gradient = self._gradients[0]
        if values.shape != logits.shape or not values.equal(logits):
            return
        self.compared += 1
        total = sum(part.double() for part in terms.values())
        assert isinstance(total, Tensor)
        seen = _difference(total, len(logits) * gradient.double())
        if seen and not self.difference:
            self.difference = f"{now}: {seen}"


def _difference(total: Tensor, gradient: Tensor) -> str:
    """Describe how the sum of the terms differs from B times the gradient of the mean loss."""
    largest = float(gradient.abs().max())
    gap = (total - gradient).abs()
    if float(gap.max()) <= _TOLERANCE * max(largest, 0.1):
        return ""

    # Terms that are wrong by a factor are the most common mistake.
    times = float((total * gradient).sum() / gradient.square().sum()) if largest else 0.0
    if times and float((total - times * gradient).abs().max()) <= _TOLERANCE * abs(times) * largest:
        seen = f"together the terms are {times:.4g} times the gradient of the examples' losses"
        if abs(times * len(total) - 1) < _TOLERANCE:
            seen += ", which is one over the batch size: do not divide by it"
        return seen

    b, c = divmod(int(gap.argmax()), gradient.shape[1])
    given, right = float(total[b, c]), float(gradient[b, c])
    return (
        f"the terms add up to {given:.6g} at [{b}, {c}], where the gradient of that example's loss "
        f"is {right:.6g}"
    )
