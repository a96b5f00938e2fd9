"""The variants that are timed: the fused kernels, and what a user would write instead."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from nlbench import ops

OPS = ("elr",)
DTYPES = ("float32", "bfloat16", "float16")

# The authors' values for CIFAR-10. No timing depends on them.
BETA, LAM = 0.7, 3.0

# The memory is float32 for every dtype of the logits, as in the authors' code.
TARGET_BYTES = 4


class Shape(NamedTuple):
    """Rows of a batch, and classes."""

    B: int
    C: int

    def __str__(self) -> str:
        return f"{self.B}x{self.C}"


# Classes of CIFAR-10, CIFAR-100, Clothing1M, mini-WebVision, and ImageNet at two batch sizes.
SHAPES = [
    Shape(128, 10),
    Shape(128, 100),
    Shape(64, 14),
    Shape(32, 50),
    Shape(1024, 1000),
    Shape(4096, 1000),
]


# ---- The data ------------------------------------------------------------------------------------


class Workload:
    """The tensors that all variants of one shape and dtype share.

    Attributes:
        logits: (B, C) in `dtype`, a leaf that requires grad.
        targets: (num_examples, C) float32, the memory, as after five epochs.
        batches: (labels (B,), index (B,)) of each batch of an epoch. A smaller last one is left
            out.
    """

    def __init__(self, shape: Shape, dtype: torch.dtype, device: torch.device, num_examples: int):
        self.shape = shape
        self.dtype = dtype
        self.num_examples = num_examples

        generator = torch.Generator().manual_seed(0)
        logits = 2 * torch.randn(shape, generator=generator)
        # It requires grad for each variant, so that all pay the same fixed cost of autograd's
        # engine.
        self.logits = logits.to(device, dtype).requires_grad_()
        seen = (2 * torch.randn(num_examples, shape.C, generator=generator)).softmax(1)
        # What a memory of zeros holds after the same prediction in five epochs.
        self.targets = seen.mul_(1 - BETA**5).to(device)

        order = torch.randperm(num_examples, generator=generator)
        labels = torch.randint(shape.C, (num_examples,), generator=generator)
        self.batches: list[tuple[Tensor, Tensor]] = []
        for end in range(shape.B, num_examples + 1, shape.B):
            part = slice(end - shape.B, end)
            self.batches.append((labels[part].to(device), order[part].to(device)))

    def epochs(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (labels, index) of one batch after another, epoch after epoch, without end."""
        return itertools.cycle(self.batches)


# ---- The variants --------------------------------------------------------------------------------


# Takes (labels, index), and does forward and backward of one step.
Call = Callable[[Tensor, Tensor], Any]


def official_elr(logits: Tensor, labels: Tensor, index: Tensor, targets: Tensor) -> Tensor:
    """Compute the loss of ELR in plain PyTorch, with the authors' operations in their order.

    Updates `targets` in place.
    """
    # In bfloat16 the upper bound of the clamp would round to 1, and the loss become infinite.
    z = logits.to(torch.promote_types(logits.dtype, torch.float32))
    q = z.softmax(1).clamp(1e-4, 1 - 1e-4)
    seen = q.detach()
    targets[index] = BETA * targets[index] + (1 - BETA) * (seen / seen.sum(1, keepdim=True))
    agreement = (targets[index] * q).sum(1)
    return F.cross_entropy(z, labels) + LAM * (1 - agreement).log().mean()


def _autograd(work: Workload) -> Call:
    def call(labels: Tensor, index: Tensor) -> Tensor:
        loss = ops.elr_loss(work.logits, labels, index, work.targets, beta=BETA, lam=LAM)
        loss.backward()
        return loss

    return call


def _step(work: Workload) -> Call:
    def call(labels: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        logits = work.logits.detach()
        return ops.elr_step(logits, labels, index, work.targets, beta=BETA, lam=LAM)

    return call


def _step_backward(work: Workload) -> Call:
    step = _step(work)

    def call(labels: Tensor, index: Tensor) -> Tensor:
        losses, dlogits = step(labels, index)
        work.logits.backward(dlogits)
        return losses

    return call


def _eager(work: Workload, loss_of: Callable[..., Tensor] = official_elr) -> Call:
    def call(labels: Tensor, index: Tensor) -> Tensor:
        loss = loss_of(work.logits, labels, index, work.targets)
        loss.backward()
        return loss

    return call


def _compile(work: Workload) -> Call:
    # Shapes are static and the number of threads is an option, so that what was compiled for one
    # shape or number of threads is not used for another.
    options: dict[str, Any] = {}
    if work.logits.is_cpu:
        options["cpp.threads"] = torch.get_num_threads()
    compiled = torch.compile(official_elr, fullgraph=True, dynamic=False, options=options)
    return _eager(work, compiled)


class Variant(NamedTuple):
    """One way to compute a step, and its description in the report."""

    meaning: str
    build: Callable[[Workload], Call]


VARIANTS = {
    "autograd": Variant("loss = ops.elr_loss(logits, ...); loss.backward()", _autograd),
    "step+backward": Variant(
        "rows, d = ops.elr_step(logits.detach(), ...); logits.backward(d)", _step_backward
    ),
    "step": Variant("ops.elr_step alone: loss and gradient, without the autograd engine", _step),
    "eager": Variant("the authors' operations in plain PyTorch, loss.backward()", _eager),
    "compile": Variant("torch.compile of those, loss.backward()", _compile),
}

# The variants that others are compared with.
BASES = ("eager", "compile")


# ---- Checking them -------------------------------------------------------------------------------


def disagreement(name: str, call: Call, work: Workload) -> str:
    """Describe how a variant's loss, gradient or targets differ from the formula in float64.

    Calls it for the first batch, and restores the targets. Returns "" if the variant agrees.
    """
    labels, index = work.batches[0]
    before = work.targets[index]
    work.logits.grad = None
    result = call(labels, index)
    if name == "step":
        loss, gradient = result
    else:
        assert work.logits.grad is not None
        loss, gradient = result, work.logits.grad
    after = work.targets[index]

    # All variants start from the same targets.
    work.targets[index] = before

    exact = work.logits.detach().double().requires_grad_()
    exact_targets = before.double()
    # `exact_targets` are those of this batch alone, in its order.
    every_row = torch.arange(len(index), device=index.device)
    exact_loss = official_elr(exact, labels, every_row, exact_targets)
    exact_loss.backward()
    assert exact.grad is not None

    # A gradient is rounded to the dtype of the logits. If a probability is on the clamp's bound,
    # float32 may see it off the bound, which moves an entry by up to 1e-3 of the largest.
    rounding = max(1e-3, 2 * torch.finfo(work.dtype).eps)
    for what, got, want, allowed in (
        ("loss", loss.detach().double().mean(), exact_loss.detach(), 1e-4),
        ("gradient", gradient.double(), exact.grad, rounding),
        ("targets", after.double(), exact_targets, 1e-4),
    ):
        difference = float((got - want).abs().max() / want.abs().max())
        # Written with `not <=`, so that NaN counts as a difference.
        if not difference <= allowed:
            off = f"{what} off by {difference:.1e} of its largest entry"
            return f"wrong, so not timed: {off}, {allowed:.0e} is allowed"
    return ""
