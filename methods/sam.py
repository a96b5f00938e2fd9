"""Sharpness-aware minimisation (SAM) of a loss. Foret et al., ICLR 2021, arXiv:2010.01412.

Why it resists label noise: Baek, Kolter & Raghunathan, ICLR 2024, arXiv:2405.03676. A step looks
for a point near the weights where the loss is worse, and goes down by the gradient there:
1. g is the gradient of the batch's loss at the weights w.
2. e = rho g / (|g| + 1e-12), with the norm over all weights of the network. With `adaptive`, as in
   ASAM (Kwon et al., ICML 2021, arXiv:2102.11600), e = rho w^2 g / (| |w| g | + 1e-12).
3. The protocol's optimiser steps from w with the gradient at w + e on the same batch. Weight decay
   is part of that step, and not of g.
So a step costs two forward and two backward passes. Batch norm averages its statistics in the first
one only. The steps are those of the customary code, davda54/sam, which is not the authors'; code of
the paper on label noise was not found.

`base` is the loss: a method of this benchmark that is nothing but a loss of one network, with its
own defaults. Where it keeps state for each example, as ELR does, both passes see the state from
before the step, and the state of the first pass remains.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from nlbench.method import Batch, Method, Run, Task
from nlbench.methods.ael import AEL
from nlbench.methods.agce import AGCE
from nlbench.methods.alr import ALR
from nlbench.methods.aul import AUL
from nlbench.methods.bootstrap import Bootstrap
from nlbench.methods.ce import CE
from nlbench.methods.elr import ELR
from nlbench.methods.eps_softmax import EpsSoftmax
from nlbench.methods.gce import GCE
from nlbench.methods.gls import GLS
from nlbench.methods.js import JS
from nlbench.methods.logit_clip import LogitClip
from nlbench.methods.mae import MAE
from nlbench.methods.nce_agce import NCEAGCE
from nlbench.methods.nce_rce import NCERCE
from nlbench.methods.sat import SAT
from nlbench.methods.selc import SELC
from nlbench.methods.sl import SL
from nlbench.ops.gradients import loss_with_gradients

# Another loss is one more entry here and in `Base`.
BASES: dict[str, type[Method]] = {
    "ael": AEL, "agce": AGCE, "alr": ALR, "aul": AUL, "bootstrap": Bootstrap, "ce": CE, "elr": ELR,
    "eps-softmax": EpsSoftmax, "gce": GCE, "gls": GLS, "js": JS, "logit-clip": LogitClip,
    "mae": MAE, "nce-agce": NCEAGCE, "nce-rce": NCERCE, "sat": SAT, "selc": SELC, "sl": SL,
}  # fmt: skip
Base = Literal[
    "ael", "agce", "alr", "aul", "bootstrap", "ce", "elr", "eps-softmax", "gce", "gls", "js",
    "logit-clip", "mae", "nce-agce", "nce-rce", "sat", "selc", "sl",
]  # fmt: skip
TINY = 1e-12  # davda54/sam


class SAM(Method):
    def __init__(
        self,
        task: Task,
        # Ours: the loss of the baseline.
        base: Base = "ce",
        # SAM's paper and davda54/sam; the latter advises 2 with `adaptive`.
        rho: float = 0.05,
        adaptive: bool = False,  # SAM's paper; true: ASAM's
    ):
        super().__init__(task)
        if base not in BASES:
            raise ValueError(f"base must be one of {', '.join(map(repr, BASES))}, got {base!r}")
        if not 0 <= rho < math.inf:
            raise ValueError(f"rho must be finite and >= 0, got {rho}")

        self.rho, self.adaptive = rho, adaptive
        self.base = BASES[base](task)
        self.begins, self.couples_examples = self.base.begins, self.base.couples_examples

    @property
    def targets(self) -> Tensor | None:
        """The soft labels of the base, if it has any."""
        return getattr(self.base, "targets", None)

    def own_labels(self) -> Tensor | None:
        return self.base.own_labels()

    def prepare(self, run: Run) -> None:
        self.base.prepare(run)

    def on_epoch_start(self, run: Run, epoch: int) -> None:
        self.base.on_epoch_start(run, epoch)

    def on_epoch_end(self, run: Run, epoch: int) -> None:
        self.base.on_epoch_end(run, epoch)

    def training_step(self, run: Run, batch: Batch) -> Tensor:
        """Step with the gradient at the worst point nearby; return the (B, C) logits at w."""
        network = run.networks[0]
        weights = [w for w in network.parameters() if w.requires_grad]
        before = self.rows(batch.index)
        logits = network(batch.images)
        loss = self.base.loss(logits, batch).mean()
        gradients = torch.autograd.grad(loss, weights)
        after = self.rows(batch.index)

        self.put_back(batch.index, before)
        old = [w.detach().clone() for w in weights]
        with torch.no_grad():
            for w, e in zip(weights, self.shifts(old, gradients), strict=True):
                w.add_(e)
        with statistics_frozen(network):
            nearby = self.base.loss(network(batch.images), batch).mean()
        gradients = torch.autograd.grad(nearby, weights)
        with torch.no_grad():
            for w, value in zip(weights, old, strict=True):
                w.copy_(value)
        self.put_back(batch.index, after)

        run.backward_step(loss_with_gradients(loss, weights, gradients))
        return logits

    def shifts(self, weights: list[Tensor], gradients: tuple[Tensor, ...]) -> list[Tensor]:
        """Return e for each of the weights."""
        scales = [w.abs() if self.adaptive else torch.ones_like(w) for w in weights]
        scaled = [s * g for s, g in zip(scales, gradients, strict=True)]
        norm = torch.linalg.vector_norm(torch.cat([x.flatten() for x in scaled]))
        factor = self.rho / (norm + TINY)
        return [factor * s * x for s, x in zip(scales, scaled, strict=True)]

    def rows(self, index: Tensor) -> list[Tensor]:
        """Return a copy of the state that the base keeps of the examples at `index` (B,)."""
        return [state[index] for state in self.states()]

    def put_back(self, index: Tensor, rows: list[Tensor]) -> None:
        for state, value in zip(self.states(), rows, strict=True):
            state[index] = value

    def states(self) -> list[Tensor]:
        """Return the buffers of the base that have one row for each example."""
        N = self.task.num_train
        return [buffer for buffer in self.base.buffers() if buffer.shape[:1] == (N,)]


@contextmanager
def statistics_frozen(network: nn.Module) -> Iterator[None]:
    """Let batch norm keep its averages, while it still uses the statistics of the batch."""
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
