"""Robust f-divergence measures. Wei & Liu, ICLR 2021, arXiv:2011.03687.

Maximises the f-divergence between the joint distribution of prediction and label and the product of
their own distributions. With v = p_y, and v' the probability that the network gives to a label y2
for an image x1, both drawn independently, the loss is -mean g(v) + mean h(v'):

    divergence        g(v)                     h(v')
    total-variation   tanh(v) / 2              tanh(v') / 2
    jensen-shannon    log 2 - log(1 + e^-v)    v' + log(1 + e^-v') - log 2
    pearson           v                        v'^2 / 4 + v'
    kl                v                        exp(v' - 1)
    jeffrey           v                        v' + v'^2 / 4 + v'^3 / 16

These are the five of the authors' list, as in their code,
weijiaheng/Robust-f-divergence-measures, where v is a probability and not an unbounded value as in
the theory. Training begins with the cross entropy -log(p_y + 1e-5). It goes on from the network
with the best accuracy on the noisy validation part or, without such a part, from the current one.

Differences from the authors' code:
- Both parts share the protocol's epochs, optimiser and schedule, in the authors' proportion. They
  train the second part anew at a lower rate, and lose the momentum after each epoch.
- They draw x1 and y2 anew in each step. Here an epoch has one order of all examples for each.
- They leave out the last batch of an epoch if that is not full, and keep the epoch with the largest
  divergence on noisy validation data. Here, as for all methods, the last epoch counts.
- Left out is the correction by a transition matrix, whose effect they call negligible.
"""

import copy
import math
from collections.abc import Iterator
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nlbench.method import Batch, Method, Run, Task
from nlbench.ops.peers import floored_ce, with_peers

Divergence = Literal["total-variation", "jensen-shannon", "pearson", "kl", "jeffrey"]


class FDivergence(Method):
    best_accuracy: Tensor

    def __init__(
        self,
        task: Task,
        # The first of the authors' list. Which one the table of CIFAR-N has is not known.
        divergence: Divergence = "total-variation",
        warmup_share: float = 240 / 340,  # authors' code, CIFAR-10
    ):
        super().__init__(task)
        if divergence not in get_args(Divergence):
            known = list(get_args(Divergence))
            raise ValueError(f"divergence must be one of {known}, got {divergence!r}")
        if not 0 <= warmup_share <= 1:
            raise ValueError(f"warmup_share must be in [0, 1], got {warmup_share}")

        self.divergence = divergence
        self.warmup = task.scaled(warmup_share, of=1) if warmup_share else 0
        self.begins = {"the divergence": self.warmup}
        self.register_buffer("best_accuracy", torch.tensor(-1.0, dtype=torch.float64))

    def prepare(self, run: Run) -> None:
        if self.warmup and run.validate(run.networks[0]) is not None:
            self.best: nn.Module = copy.deepcopy(run.networks[0]).requires_grad_(False)

    def on_epoch_start(self, run: Run, epoch: int) -> None:
        """Go on from the best network, in the first epoch after the warm-up."""
        if epoch == self.warmup and hasattr(self, "best"):
            run.networks[0].load_state_dict(self.best.state_dict())

    def batches(self, run: Run, epoch: int) -> Iterator[Any]:
        """Yield the default batches; after the warm-up each with independent images and labels."""
        if epoch < self.warmup:
            yield from super().batches(run, epoch)
            return

        task, rng = self.task, run.generator("peers")
        for index, images, labels in with_peers(run.order(), task.num_train, task.batch_size, rng):
            yield run.batch(index), run.batch(images), task.labels[labels]

    def training_step(
        self, run: Run, batch: Batch, other: Batch | None = None, labels: Tensor | None = None
    ) -> Tensor:
        """Train on a batch, or on it and independent images and labels; return its logits."""
        network = run.networks[0]
        logits = network(batch.images)
        if other is None or labels is None:
            run.backward_step(floored_ce(logits, batch.labels))
            return logits

        joint = _g(self.divergence, _at(logits, batch.labels)).mean()
        product = _h(self.divergence, _at(network(other.images), labels)).mean()
        run.backward_step(product - joint)
        return logits

    def on_epoch_end(self, run: Run, epoch: int) -> None:
        """Keep the network of the warm-up that is the best so far on the validation part."""
        if epoch < self.warmup and hasattr(self, "best"):
            accuracy = run.validate(run.networks[0])
            if accuracy is not None and accuracy > self.best_accuracy:
                self.best_accuracy.fill_(accuracy)
                self.best.load_state_dict(run.networks[0].state_dict())


def _at(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the probability of each label, (B, 1)."""
    return logits.softmax(1).gather(1, labels[:, None])


def _g(divergence: str, v: Tensor) -> Tensor:
    if divergence == "total-variation":
        return v.tanh() / 2
    if divergence == "jensen-shannon":
        return math.log(2) - F.softplus(-v)
    return v


def _h(divergence: str, v: Tensor) -> Tensor:
    if divergence == "total-variation":
        return v.tanh() / 2
    if divergence == "jensen-shannon":
        return v + F.softplus(-v) - math.log(2)
    if divergence == "kl":
        return (v - 1).exp()
    cubic = v**3 / 16 if divergence == "jeffrey" else 0.0
    return v + v**2 / 4 + cubic
