"""Variants."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from nlbench import ops

BETA, LAM = 0.7, 3.0  # the authors' values for CIFAR-10; no timing depends on them
OPS = ("elr",)
DTYPES = ("float32", "bfloat16", "float16")
PICTURES = (".png", ".pdf", ".svg")
TARGET_BYTES = 4  # the memory is float32 whatever the logits are, as the authors' is
NUM_EXAMPLES = 50_000  # CIFAR's training set


class Shape(NamedTuple):
    B: int
    C: int

    def __str__(self) -> str:
        return f"{self.B}x{self.C}"


# Classes of CIFAR-10, CIFAR-100, Clothing1M, mini-WebVision, and ImageNet at two batch sizes.
SHAPES = [Shape(128, 10), Shape(128, 100), Shape(64, 14), Shape(32, 50), Shape(1024, 1000), Shape(4096, 1000)]

Call = Callable[[Tensor, Tensor], Any]  # (labels, index) -> anything; forward and backward of one step


class Cell:
    """What all variants of one shape and dtype share: logits, memory and batches. The memory is warm from the start."""

    def __init__(self, shape: Shape, dtype: torch.dtype, device: torch.device, num_examples: int):
        self.shape, self.dtype, self.num_examples = shape, dtype, num_examples
        generator = torch.Generator().manual_seed(0)
        # A leaf that requires grad, so that every variant pays the same fixed cost of the autograd engine.
        self.logits = (2 * torch.randn(shape, generator=generator)).to(device, dtype).requires_grad_()
        seen = (2 * torch.randn(num_examples, shape.C, generator=generator)).softmax(1)
        self.targets = seen.mul_(1 - BETA**5).to(device)  # after five visits
        order = torch.randperm(num_examples, generator=generator)
        labels = torch.randint(shape.C, (num_examples,), generator=generator)
        ends = range(shape.B, num_examples + 1, shape.B)
        self.batches = [(labels[end - shape.B : end].to(device), order[end - shape.B : end].to(device)) for end in ends]

    def epochs(self) -> Iterator[tuple[Tensor, Tensor]]:
        """(labels, index), batch after batch of an epoch's order, again and again."""
        return itertools.cycle(self.batches)


def official_elr(logits: Tensor, labels: Tensor, index: Tensor, targets: Tensor) -> Tensor:
    """ELR in plain PyTorch, with the operations of the authors' code in their order, on float32 or wider.

    Half types are widened first: in bfloat16 the upper bound of the clamp rounds to 1, and the loss becomes infinite.
    """
    z = logits.to(torch.promote_types(logits.dtype, torch.float32))
    q = z.softmax(1).clamp(1e-4, 1 - 1e-4)
    seen = q.detach()
    targets[index] = BETA * targets[index] + (1 - BETA) * (seen / seen.sum(1, keepdim=True))
    agreement = (targets[index] * q).sum(1)
    return F.cross_entropy(z, labels) + LAM * (1 - agreement).log().mean()


def _autograd(cell: Cell) -> Call:
    def call(labels: Tensor, index: Tensor) -> Tensor:
        loss = ops.elr_loss(cell.logits, labels, index, cell.targets, beta=BETA, lam=LAM)
        loss.backward()
        return loss

    return call


def _step_backward(cell: Cell) -> Call:
    def call(labels: Tensor, index: Tensor) -> Tensor:
        rows, dlogits = ops.elr_step(cell.logits.detach(), labels, index, cell.targets, beta=BETA, lam=LAM)
        cell.logits.backward(dlogits)
        return rows

    return call


def _step(cell: Cell) -> Call:
    def call(labels: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        return ops.elr_step(cell.logits.detach(), labels, index, cell.targets, beta=BETA, lam=LAM)

    return call


def _eager(cell: Cell, loss_of: Callable[..., Tensor] = official_elr) -> Call:
    def call(labels: Tensor, index: Tensor) -> Tensor:
        loss = loss_of(cell.logits, labels, index, cell.targets)
        loss.backward()
        return loss

    return call


def _compile(cell: Cell) -> Call:
    # Shapes are static and the number of threads is written down: what one shape or thread count compiled is never
    # taken for another.
    options: dict[str, Any] = {"cpp.threads": torch.get_num_threads()} if cell.logits.is_cpu else {}
    return _eager(cell, torch.compile(official_elr, fullgraph=True, dynamic=False, options=options))


class Variant(NamedTuple):
    meaning: str
    build: Callable[[Cell], Call]


VARIANTS = {
    "autograd": Variant("loss = ops.elr_loss(logits, ...); loss.backward()", _autograd),
    "step+backward": Variant("rows, d = ops.elr_step(logits.detach(), ...); logits.backward(d)", _step_backward),
    "step": Variant("ops.elr_step alone: loss and gradient, without the autograd engine", _step),
    "eager": Variant("the authors' operations in plain PyTorch, loss.backward()", _eager),
    "compile": Variant("torch.compile of those, loss.backward()", _compile),
}
BASES = ("eager", "compile")


def first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def short_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
