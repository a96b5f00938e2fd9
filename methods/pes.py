"""Progressive early stopping, PES (semi). Bai et al., NeurIPS 2021, arXiv:2106.15853.

Late layers memorise wrong labels sooner than early ones. The training therefore has three phases:
1. T1 epochs of cross entropy.
2. T2 epochs in which only the late layers train, from new weights and with Adam. The early layers
   are frozen, so their features come from a training that stopped early.
3. MixMatch (nlbench.ops.mixmatch) in all other epochs. Each keeps the examples whose label the
   network predicts and learns from them by class-balanced cross entropy. The others are unlabelled:
   their loss is lambda_u times the squared error to the sharpened mean prediction of two views.
   Batches are shared between both kinds as in the authors' code, tmllab/PES, PES_semi.py.

`renew` names the late layers. With "classifier" it is the last part of the network that has
weights; with "stage" also the last stage. A part is a block or layer of the network, and the last
stage is the longest run of parts at the end whose convolutions are all as wide as the last one. In
a residual network those are the blocks of the last width, in the small networks the last
convolution and the dense layers. Where all convolutions have one width, "stage" is the classifier
alone. The new weights are those of reset_parameters. Batch norm in the frozen layers continues to
use the statistics of the batch and to average them.

Differences from PES_semi.py:
- T2 lies inside the length of the training.
- An epoch of MixMatch has as many steps as one of cross entropy. On CIFAR with batches of 128 these
  are 391, while the authors round down, to 390.
- The split is predicted without augmentation.
- The renewed weights learn again after T2; there no optimiser holds them any more. The protocol's
  optimiser still has its momentum of the old weights, which fades in about ten steps.
- T3 and the variant without MixMatch are left out.
- Where fewer than two examples are kept, or fewer than two are not, the epoch is one of cross
  entropy with all labels.
"""

import copy
import math
from collections.abc import Iterator
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nlbench.method import Batch, Method, Run, Task
from nlbench.ops import mixmatch

MixMatchStep = tuple[Batch, Batch, float, np.random.Generator]  # see PES.batches


class PES(Method):
    kept: Tensor
    class_weights: Tensor

    def __init__(
        self,
        task: Task,
        lambda_u: float = 5.0,  # authors, CIFAR-10N; CIFAR-100N: 75
        temperature: float = 0.5,  # authors
        alpha: float = 4.0,  # authors
        # Authors. Replaces alpha in the second half of the training.
        late_alpha: float = 0.75,
        # Authors, CIFAR-10; CIFAR-100: 35 of 300 epochs.
        t1_share: float = 20 / 300,
        t2_share: float = 5 / 300,  # authors
        refine_lr: float = 1e-4,  # authors, Adam's, constant
        # Authors. The ramp of lambda_u, after T2.
        ramp_share: float = 16 / 300,
        # Authors. The limit for the weight of a class in the balanced cross entropy.
        max_weight: float = 3.0,
        # Authors, PES_noisylabels.py; their PES_cs.py: stage.
        renew: Literal["stage", "classifier"] = "classifier",
    ):
        super().__init__(task)
        if not 0 <= lambda_u < math.inf:
            raise ValueError(f"lambda_u must be finite and >= 0, got {lambda_u}")
        positive = {
            "temperature": temperature,
            "alpha": alpha,
            "late_alpha": late_alpha,
            "refine_lr": refine_lr,
        }
        for name, value in positive.items():
            if not 0 < value < math.inf:
                raise ValueError(f"{name} must be finite and above 0, got {value}")
        shares = {"t1_share": t1_share, "t2_share": t2_share, "ramp_share": ramp_share}
        for name, share in shares.items():
            if not 0 <= share <= 1:
                raise ValueError(f"{name} must be in [0, 1], got {share}")
        if not 1 <= max_weight < math.inf:
            raise ValueError(f"max_weight must be finite and >= 1, got {max_weight}")
        if renew not in ("stage", "classifier"):
            raise ValueError(f"renew must be 'stage' or 'classifier', got {renew!r}")

        self.lambda_u, self.temperature, self.max_weight = lambda_u, temperature, max_weight
        self.alpha, self.late_alpha = alpha, late_alpha
        self.refine_lr, self.renew = refine_lr, renew
        self.t1 = task.scaled(t1_share, of=1) if t1_share else 0
        # The first epoch of MixMatch.
        self.start = self.t1 + (task.scaled(t2_share, of=1) if t2_share else 0)
        self.ramp = ramp_share * task.epochs
        self.begins = {"MixMatch": self.start}
        if t2_share:
            self.begins = {"the training of late layers": self.t1, **self.begins}
        self.register_buffer("kept", torch.ones(task.num_train, dtype=torch.bool))
        self.register_buffer("class_weights", torch.ones(task.num_classes))

    def prepare(self, run: Run) -> None:
        """Find the late layers and give them an Adam, with a constant learning rate."""
        self._late = late_parts(run.networks[0], self.renew)
        params = [p for part in self._late for p in part.parameters()]

        def adam(p):
            return torch.optim.Adam(p, lr=self.refine_lr)

        run.optimise(params, adam, "refine", lambda position: 1.0)

    def on_epoch_start(self, run: Run, epoch: int) -> None:
        """Renew and freeze layers as the phase wants it; in the last phase split the examples."""
        if epoch == self.t1 < self.start:
            start_afresh(self._late, run.generator("renew"))
        run.networks[0].requires_grad_(not self._refines(epoch))
        for part in self._late:
            part.requires_grad_(True)
        if epoch >= self.start:
            self.split(run)

    def split(self, run: Run) -> None:
        """Keep the examples of this epoch whose label the network predicts; weigh the classes."""
        part = run.part()
        seen = slice(None) if part is None else part
        labels, C = run.task.labels[seen], run.task.num_classes
        kept = run.predict_train(run.networks[0], part).argmax(1) == labels
        self.kept[seen] = kept

        counts = labels[kept].bincount(minlength=C).double()
        balanced = counts[counts > 0].mean() / counts
        weights = torch.where(counts > 0, balanced.clamp(max=self.max_weight), 0.0)
        self.class_weights.copy_(weights)

    def own_labels(self) -> Tensor:
        """Return which examples the last split has kept, (N,) of 0 and 1."""
        return self.kept.double()

    def _refines(self, epoch: int) -> bool:
        return self.t1 <= epoch < self.start

    def batches(self, run: Run, epoch: int) -> Iterator[Batch | MixMatchStep]:
        """Yield batches, or in the last phase the steps of MixMatch.

        Such a step is (batch of kept examples, batch of the others, weight of the loss of the
        others, generator of the mixing draws).
        """
        order = run.order()
        kept, others = order[self.kept[order]], order[~self.kept[order]]
        if epoch < self.start or min(len(kept), len(others)) < 2:
            yield from super().batches(run, epoch)
            return

        rng = mixmatch.numpy_rng(run.generator("plan"))
        mixing = mixmatch.numpy_rng(run.generator("mix"))
        steps, size = run.task.steps_per_epoch, run.task.batch_size
        # The others have their share of the batch, but at most half of it, as in the authors' code.
        num_others = max(2, min(size // 2, size * len(others) // len(order)))
        kept_parts = mixmatch.cycle(kept, max(2, size - num_others), rng)
        other_parts = mixmatch.cycle(others, num_others, rng)
        for step in range(steps):
            lam = self.lambda_u * mixmatch.linear_ramp(epoch + step / steps, self.start, self.ramp)
            kept_batch = run.batch(next(kept_parts), 0, 1)
            yield kept_batch, run.batch(next(other_parts), 0, 1), lam, mixing

    def training_step(
        self,
        run: Run,
        batch: Batch,
        others: Batch | None = None,
        lam: float = 0.0,
        rng: np.random.Generator | None = None,
    ) -> Tensor | None:
        """Train by cross entropy, or by MixMatch where there is a batch of the others.

        Args:
            lam: weight of the loss of the others.
            rng: of the mixing draws.
        Returns: the (B, C) logits of a cross entropy step; None for MixMatch, which mixes images.
        """
        network = run.networks[0]
        if others is None or rng is None:
            logits = network(batch.images)
            loss = F.cross_entropy(logits, batch.labels)
            run.backward_step(loss, "refine" if self._refines(run.epoch) else "network0")
            return logits

        views = [batch.view(0), batch.view(1), others.view(0), others.view(1)]
        with torch.no_grad():
            predicted = mixmatch.mean_prediction(*map(network, views[2:]))
            guess = mixmatch.sharpen(predicted, self.temperature)
            labels = F.one_hot(batch.labels, run.task.num_classes).to(guess.dtype)
            targets = torch.cat([labels, labels, guess, guess])
            alpha = self.alpha if 2 * run.epoch < run.task.epochs else self.late_alpha
            inputs, mixed = mixmatch.mix(torch.cat(views), targets, alpha, rng)

        ce, squared = mixmatch.semi_supervised_losses(
            network(inputs), mixed, 2 * len(batch), self.class_weights
        )
        run.backward_step(ce + lam * squared, "network0")
        return None


def parts_of(module: nn.Module) -> list[nn.Module]:
    """List the blocks and layers of a network in order, with each Sequential taken apart."""
    parts: list[nn.Module] = []
    for child in module.children():
        parts += parts_of(child) if isinstance(child, nn.Sequential) else [child]
    return parts


def late_parts(network: nn.Module, renew: str) -> list[nn.Module]:
    """Return the parts of `network` that get new weights; see the docstring of this file."""
    parts = []
    for part in parts_of(getattr(network, "body", network)):
        if next(part.parameters(), None) is not None:
            parts.append(part)

    # The width of a part is that of its widest convolution, 0 without one.
    widths = [0] * len(parts)
    for i, part in enumerate(parts):
        for module in part.modules():
            if isinstance(module, nn.Conv2d):
                widths[i] = max(widths[i], module.out_channels)

    last = [width for width in widths if width][-1:]
    before = [i for i, width in enumerate(widths) if width and [width] != last]
    if renew == "classifier" or not before:
        return parts[-1:]

    # The stage begins with the first convolution after the last one of another width.
    first = next(i for i in range(before[-1] + 1, len(parts)) if widths[i])
    return parts[first:]


def start_afresh(parts: list[nn.Module], generator: torch.Generator) -> None:
    """Give `parts` new weights, in place, as at the start of a training.

    They are drawn on the CPU, so that they do not depend on the device.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(generator.initial_seed())
        for part in parts:
            fresh = copy.deepcopy(part).cpu()
            for module in fresh.modules():
                reset = getattr(module, "reset_parameters", None)
                if callable(reset):
                    reset()
            part.load_state_dict(fresh.state_dict())
