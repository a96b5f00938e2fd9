"""PES (semi), progressive early stopping. Bai, Yang, Han, Yang, Li, Mao, Niu & Liu, NeurIPS 2021, arXiv:2106.15853.

Late layers memorise wrong labels sooner than early ones. So: T1 epochs of cross entropy; then the late layers start
afresh and train alone for T2 epochs, with Adam, on features that stopped early. From then on each epoch keeps the
examples whose label the network predicts, and learns by MixMatch (nlbench.ops.mixmatch) from them, with class-balanced
cross entropy, and from the others as unlabelled: lambda_u times the squared error to the sharpened mean prediction of
two views. Each batch is shared by both kinds as in the authors' PES_semi.py.

What starts afresh (`renew`): the classifier, which is the last part of the network that has weights, or with "stage"
the last stage too: of the network's blocks and layers in order, the run at its end in which all convolutions are as
wide as the last one. That is the blocks of the last width of a residual network, and the last convolution and the dense
layers of the small ones; where all convolutions are of one width, it is the classifier alone. The weights are those of
reset_parameters. The layers before are frozen, but their batch norm goes on using and averaging the batch.

Here, not in that code: T2 lies inside the length of the training; the split is predicted without augmentation; the
renewed weights learn again after T2 (there no optimiser holds them any more), and the protocol's optimiser has kept its
momentum of the old ones, which dies out in some ten steps. T3 and the variant without MixMatch are left out. Where
fewer than two examples are kept, or fewer than two are not, the epoch is one of cross entropy with all labels.
"""

import copy
import math
from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nlbench.method import Batch, Method, Run, Task
from nlbench.ops import mixmatch


class PES(Method):
    kept: Tensor
    class_weights: Tensor

    def __init__(
        self,
        task: Task,
        lambda_u: float = 5.0,  # authors, CIFAR-10N; CIFAR-100N: 75
        temperature: float = 0.5,  # authors
        alpha: float = 4.0,  # authors
        late_alpha: float = 0.75,  # authors, in the second half of the training
        t1_share: float = 20 / 300,  # authors, CIFAR-10; CIFAR-100: 35 of 300
        t2_share: float = 5 / 300,  # authors
        refine_lr: float = 1e-4,  # authors, Adam's, constant
        ramp_share: float = 16 / 300,  # of lambda_u, after T2; authors
        max_weight: float = 3.0,  # of a class in the balanced cross entropy; authors
        renew: Literal["stage", "classifier"] = "classifier",  # authors, PES_noisylabels.py; their PES_cs.py: stage
    ):
        super().__init__(task)
        if not 0 <= lambda_u < math.inf:
            raise ValueError(f"lambda_u must be finite and >= 0, got {lambda_u}")
        positive = {"temperature": temperature, "alpha": alpha, "late_alpha": late_alpha, "refine_lr": refine_lr}
        for name, value in positive.items():
            if not 0 < value < math.inf:
                raise ValueError(f"{name} must be finite and above 0, got {value}")
        for name, share in (("t1_share", t1_share), ("t2_share", t2_share), ("ramp_share", ramp_share)):
            if not 0 <= share <= 1:
                raise ValueError(f"{name} must be in [0, 1], got {share}")
        if not 1 <= max_weight < math.inf:
            raise ValueError(f"max_weight must be finite and >= 1, got {max_weight}")
        if renew not in ("stage", "classifier"):
            raise ValueError(f"renew must be 'stage' or 'classifier', got {renew!r}")
        self.lambda_u, self.temperature, self.max_weight = lambda_u, temperature, max_weight
        self.alpha, self.late_alpha, self.refine_lr, self.renew = alpha, late_alpha, refine_lr, renew
        self.t1 = task.scaled(t1_share, of=1) if t1_share else 0
        self.start = self.t1 + (task.scaled(t2_share, of=1) if t2_share else 0)  # of MixMatch
        self.ramp = ramp_share * task.epochs
        self.register_buffer("kept", torch.ones(task.num_train, dtype=torch.bool))
        self.register_buffer("class_weights", torch.ones(task.num_classes))

    def prepare(self, run: Run) -> None:
        self._late = late_parts(run.networks[0], self.renew)
        params = [p for part in self._late for p in part.parameters()]
        run.optimise(params, lambda p: torch.optim.Adam(p, lr=self.refine_lr), "refine", lambda position: 1.0)

    def on_epoch_start(self, run: Run, epoch: int) -> None:
        if epoch == self.t1 < self.start:
            start_afresh(self._late, run.generator("renew"))
        run.networks[0].requires_grad_(not self._refines(epoch))
        for part in self._late:
            part.requires_grad_(True)
        if epoch >= self.start:
            seen = run.part()
            rows = slice(None) if seen is None else seen
            labels, C = run.task.labels[rows], run.task.num_classes
            kept = run.predict_train(run.networks[0], seen).argmax(1) == labels
            self.kept[rows] = kept
            counts = labels[kept].bincount(minlength=C).double()
            balanced = counts[counts > 0].mean() / counts
            self.class_weights.copy_(torch.where(counts > 0, balanced.clamp(max=self.max_weight), 0.0))

    def _refines(self, epoch: int) -> bool:
        return self.t1 <= epoch < self.start

    def batches(self, run: Run, epoch: int) -> Iterator[Any]:
        order = run.order()
        kept, others = order[self.kept[order]], order[~self.kept[order]]
        if epoch < self.start or min(len(kept), len(others)) < 2:
            yield from super().batches(run, epoch)
            return
        rng, mixing = (mixmatch.numpy_rng(run.generator(name)) for name in ("plan", "mix"))
        steps, size = run.task.steps_per_epoch, run.task.batch_size
        num_others = max(2, min(size // 2, size * len(others) // len(order)))  # of a batch; at most half, authors
        streams = [mixmatch.cycle(kept, max(2, size - num_others), rng), mixmatch.cycle(others, num_others, rng)]
        for step in range(steps):
            lam = self.lambda_u * mixmatch.linear_ramp(epoch + step / steps, self.start, self.ramp)
            yield *(run.batch(next(stream), 0, 1) for stream in streams), lam, mixing

    def training_step(self, run: Run, batch: Batch, *semi: Any) -> Tensor | None:
        network = run.networks[0]
        if not semi:
            logits = network(batch.images)
            loss = F.cross_entropy(logits, batch.labels)
            run.backward_step(loss, "refine" if self._refines(run.epoch) else "network0")
            return logits
        others, lam, rng = semi
        views = [batch.view(0), batch.view(1), others.view(0), others.view(1)]
        with torch.no_grad():
            guess = mixmatch.sharpen(mixmatch.mean_prediction(*map(network, views[2:])), self.temperature)
            labels = F.one_hot(batch.labels, run.task.num_classes).to(guess.dtype)
            alpha = self.alpha if 2 * run.epoch < run.task.epochs else self.late_alpha
            inputs, mixed = mixmatch.mix(torch.cat(views), torch.cat([labels, labels, guess, guess]), alpha, rng)
        ce, squared = mixmatch.semi_supervised_losses(network(inputs), mixed, 2 * len(batch), self.class_weights)
        run.backward_step(ce + lam * squared, "network0")
        return None


def parts_of(module: nn.Module) -> list[nn.Module]:
    """The blocks and layers of a network, in order; a Sequential in it is no part, but what it holds is."""
    parts: list[nn.Module] = []
    for child in module.children():
        parts += parts_of(child) if isinstance(child, nn.Sequential) else [child]
    return parts


def late_parts(network: nn.Module, renew: str) -> list[nn.Module]:
    """The parts of `network` that start afresh; see the docstring of this file."""
    parts = [part for part in parts_of(getattr(network, "body", network)) if next(part.parameters(), None) is not None]
    widths = [max((m.out_channels for m in part.modules() if isinstance(m, nn.Conv2d)), default=0) for part in parts]
    last = [width for width in widths if width][-1:]
    before = [i for i, width in enumerate(widths) if width and [width] != last]
    if renew == "classifier" or not before:
        return parts[-1:]
    first = next(i for i in range(before[-1] + 1, len(parts)) if widths[i])
    return parts[first:]


def start_afresh(parts: list[nn.Module], generator: torch.Generator) -> None:
    """Weights as at the start of a training, drawn on the CPU whatever the device."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(generator.initial_seed())
        for part in parts:
            fresh = copy.deepcopy(part).cpu()
            for module in fresh.modules():
                if callable(reset := getattr(module, "reset_parameters", None)):
                    reset()
            part.load_state_dict(fresh.state_dict())
