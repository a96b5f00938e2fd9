"""Generalised cross entropy, also truncated. Zhang & Sabuncu, NeurIPS 2018, arXiv:1805.07836.

The loss is (1 - p_y^q) / q. With `truncate`, examples with p_y <= k are pruned: a refresh sets
their weight to 0 until the next one. The mean is still taken over the whole batch.

No code of the authors is known. Constants and schedule follow the most used reproduction,
AlanChou/Truncated-Loss. Differences from it:
- The best network so far, which prunes, is chosen on the noisy validation part and never on test
  data. Where a protocol has no validation part, the current network prunes.
- The pruning network predicts in evaluation mode on images without augmentation.
- The network in training is never replaced. The reproduction has a slip there (main.py): in an
  epoch with a refresh it trains a copy of the current network, loaded from disk. The optimiser does
  not hold that copy, so the weights do not move in such an epoch.
- The epochs of the refreshes scale with the length of the training.
- Where no example would remain, the weights stay as they are.
"""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nlbench.method import Batch, Method, Run, Task


class GCE(Method):
    capturable = True

    weights: Tensor
    best_accuracy: Tensor

    def __init__(
        self,
        task: Task,
        # Truncated-Loss, every dataset. It says that it keeps the paper's values.
        q: float = 0.7,
        truncate: bool = False,  # the paper's first form; true: its second
        k: float = 0.5,  # Truncated-Loss, every dataset
        # First refresh: epoch 40 of 120, CIFAR-10; CIFAR-100: 80 of 150.
        start_share: float = 1 / 3,
        # Then every 10 epochs of 120.
        every_share: float = 1 / 12,
    ):
        super().__init__(task)
        if not 0 < q <= 1:
            raise ValueError(f"q must be in (0, 1], got {q}")
        if not 0 < k < 1:
            raise ValueError(f"k must be in (0, 1), got {k}")
        for name, share in (("start_share", start_share), ("every_share", every_share)):
            if not 0 < share <= 1:
                raise ValueError(f"{name} must be in (0, 1], got {share}")

        self.q, self.k, self.truncate = q, k, truncate
        self.start = task.scaled(start_share, of=1)
        self.every = task.scaled(every_share, of=1)
        if truncate:
            self.begins = {"pruning": max(self.start, 2) - 1}
            # Ones at first. An untrained network has p_y of about 1/C, so truncating by it would
            # leave no gradient at all.
            self.register_buffer("weights", torch.ones(task.num_train))
            self.register_buffer("best_accuracy", torch.tensor(-1.0, dtype=torch.float64))

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        log_p = -F.cross_entropy(logits, batch.labels, reduction="none")
        # expm1, because the gradient of p_y ** q is NaN where p_y underflows to 0.
        losses = -torch.expm1(self.q * log_p) / self.q
        if self.truncate:
            losses = self.weights[batch.index] * (losses - (1 - self.k**self.q) / self.q)
        return losses.mean()

    def prepare(self, run: Run) -> None:
        if self.truncate and run.validate(run.networks[0]) is not None:
            self.best: nn.Module = copy.deepcopy(run.networks[0]).requires_grad_(False)

    def on_epoch_start(self, run: Run, epoch: int) -> None:
        """Refresh the weights, in the epochs of the schedule."""
        # The schedule counts epochs from 1. Before epoch 2 the network has learnt nothing.
        number = epoch + 1
        if not self.truncate or number < max(self.start, 2):
            return
        if (number - self.start) % self.every != 0:
            return

        logits = run.predict_train(self.best if hasattr(self, "best") else run.networks[0])
        p = logits.softmax(1).gather(1, self.task.labels[:, None]).squeeze(1)
        kept = p > self.k
        # A condition in Python would make the host wait for the device.
        self.weights.copy_(torch.where(kept.any(), kept, self.weights))

    def own_labels(self) -> Tensor | None:
        """Return the weights (N,) of the last refresh, 0 for an example that is pruned."""
        return self.weights if self.truncate else None

    def on_epoch_end(self, run: Run, epoch: int) -> None:
        """Keep the network if it is the best so far on the validation part."""
        if hasattr(self, "best"):
            accuracy = run.validate(run.networks[0])
            if accuracy is not None and accuracy > self.best_accuracy:
                self.best_accuracy.fill_(accuracy)
                self.best.load_state_dict(run.networks[0].state_dict())
