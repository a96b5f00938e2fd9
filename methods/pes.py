"""Progressive early stopping, PES (semi). Bai et al., NeurIPS 2021, arXiv:2106.15853.

Late layers memorise wrong labels sooner than early ones. The training therefore has three phases:
1. T1 epochs of cross entropy.
2. T2 epochs in which only the late layers train, from new weights and with Adam. The early layers
   are frozen, so their features come from a training that stopped early. Their batch norm still
   uses and averages the statistics of the batch.
3. MixMatch (nlbench.ops.mixmatch) in all other epochs. Each keeps the examples whose label the
   network predicts and learns from them by class-balanced cross entropy. The others are unlabelled:
   their loss is lambda_u times the squared error to the sharpened mean prediction of two views.
   Batches are shared between both kinds as in the authors' code, tmllab/PES, PES_semi.py.

`renew` names the late layers: with "classifier" the last layer that has weights, with "stage" also
the layers before it whose convolutions are as wide as the last one (nlbench.ops.pes).

Differences from PES_semi.py:
- T2 lies inside the length of the training.
- An epoch of MixMatch has as many steps as one of cross entropy: 391 on CIFAR, theirs has 390.
- The split is predicted without augmentation.
- The renewed weights learn again after T2; there no optimiser holds them any more. The protocol's
  optimiser still has its momentum of the old weights, which fades in about ten steps.
- T3 and the variant without MixMatch are left out.
- Where a split leaves fewer than two examples on a side, the epoch is one of cross entropy.
"""

import functools
import math
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from nlbench.method import Batch, Method, Run, Task
from nlbench.ops import mixmatch
from nlbench.ops.pes import balanced_weights, late_parts, start_afresh


class PES(Method):
    mixes_inputs = True
    kept: Tensor
    class_weights: Tensor

    def __init__(
        self,
        task: Task,
        lambda_u: float = 5.0,  # authors, CIFAR-10N; CIFAR-100N: 75
        temperature: float = 0.5,  # authors
        alpha: float = 4.0,  # authors
        late_alpha: float = 0.75,  # authors; replaces alpha in the second half of the training
        t1_share: float = 20 / 300,  # authors, CIFAR-10; CIFAR-100: 35 of 300 epochs
        t2_share: float = 5 / 300,  # authors
        refine_lr: float = 1e-4,  # authors, Adam's, constant
        ramp_share: float = 16 / 300,  # authors; of lambda_u, after T2
        max_weight: float = 3.0,  # authors; of a class in the balanced cross entropy
        # Authors, PES_noisylabels.py; their PES_cs.py: stage.
        renew: Literal["stage", "classifier"] = "classifier",
    ):
        super().__init__(task)
        if not 0 <= lambda_u < math.inf:
            raise ValueError(f"lambda_u must be finite and >= 0, got {lambda_u}")
        positive = (temperature, alpha, late_alpha, refine_lr)
        names = ("temperature", "alpha", "late_alpha", "refine_lr")
        for name, value in zip(names, positive, strict=True):
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
        params = [p for layer in self._late for p in layer.parameters()]
        adam = functools.partial(torch.optim.Adam, lr=self.refine_lr)
        run.optimise(params, adam, "refine", lambda position: 1.0)

    def on_epoch_start(self, run: Run, epoch: int) -> None:
        """Renew and freeze the layers of this phase; in the last one, split the examples."""
        if epoch == self.t1 < self.start:
            start_afresh(self._late, run.generator("renew"))
        run.networks[0].requires_grad_(not self._refines(epoch))
        for layer in self._late:
            layer.requires_grad_(True)
        if epoch < self.start:
            return

        part = run.part()
        seen = slice(None) if part is None else part
        labels, C = run.task.labels[seen], run.task.num_classes
        kept = run.predict_train(run.networks[0], part).argmax(1) == labels
        self.kept[seen] = kept
        self.class_weights.copy_(balanced_weights(labels[kept], C, self.max_weight))

    def own_labels(self) -> Tensor:
        """Return which examples the last split has kept, (N,) of 0 and 1."""
        return self.kept.double()

    def _refines(self, epoch: int) -> bool:
        return self.t1 <= epoch < self.start

    def batches(self, run: Run, epoch: int) -> Iterator[Batch | tuple[Any, ...]]:
        """Yield batches; in the last phase (kept batch, other batch, its weight, mixing draws)."""
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
        """Train on a step of `batches`; return the (B, C) logits, or None of mixed images."""
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

        logits, weights = network(inputs), self.class_weights
        ce, squared = mixmatch.semi_supervised_losses(logits, mixed, 2 * len(batch), weights)
        run.backward_step(ce + lam * squared, "network0")
        return None
