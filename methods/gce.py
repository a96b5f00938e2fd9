"""Generalised cross entropy, (1 - p_y^q) / q, and its truncated form. Zhang & Sabuncu, NeurIPS 2018, arXiv:1805.07836.

No code of the authors is known; constants and schedule follow the most used reproduction, AlanChou/Truncated-Loss.
With `truncate`, examples with p_y <= k are pruned: their weight is 0 from one refresh to the next, and the mean stays
over the whole batch. What differs from that reproduction: the best network so far is chosen on the noisy validation
part, never on test data, and where a protocol holds none out the current network prunes; pruning predicts in evaluation
mode without augmentation (there: on augmented images); the network in training is never replaced by the best one; the
epochs of the refreshes scale with the length of the training; and where no example would remain, the weights stay.
"""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nlbench.method import Batch, Method, Run, Task


class GCE(Method):
    weights: Tensor
    best_accuracy: Tensor

    def __init__(
        self,
        task: Task,
        q: float = 0.7,  # every dataset, Truncated-Loss, which says it keeps the paper's values
        truncate: bool = False,
        k: float = 0.5,  # the same
        start_share: float = 1 / 3,  # first refresh: epoch 40 of 120, CIFAR-10; CIFAR-100: 80 of 150
        every_share: float = 1 / 12,  # then every 10 epochs of 120
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
        self.start, self.every = task.scaled(start_share, of=1), task.scaled(every_share, of=1)
        if truncate:
            # Ones at first: truncating an untrained network, whose p_y is about 1/C, would leave no gradient at all.
            self.register_buffer("weights", torch.ones(task.num_train))
            self.register_buffer("best_accuracy", torch.tensor(-1.0, dtype=torch.float64))

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        log_p = -F.cross_entropy(logits, batch.labels, reduction="none")
        rows = -torch.expm1(self.q * log_p) / self.q  # p_y ** q by autograd is NaN where p_y underflows
        if self.truncate:
            rows = self.weights[batch.index] * (rows - (1 - self.k**self.q) / self.q)
        return rows.mean()

    def prepare(self, run: Run) -> None:
        if self.truncate and run.validate(run.networks[0]) is not None:
            self.best: nn.Module = copy.deepcopy(run.networks[0]).requires_grad_(False)

    def on_epoch_start(self, run: Run, epoch: int) -> None:
        number = epoch + 1  # the schedule counts epochs from 1; before epoch 2 there is nothing learnt to prune by
        if self.truncate and number >= max(self.start, 2) and (number - self.start) % self.every == 0:
            logits = run.predict_train(self.best if hasattr(self, "best") else run.networks[0])
            p = logits.softmax(1).gather(1, self.task.labels[:, None]).squeeze(1)
            kept = p > self.k
            if kept.any():
                self.weights.copy_(kept)

    def on_epoch_end(self, run: Run, epoch: int) -> None:
        if hasattr(self, "best"):
            accuracy = run.validate(run.networks[0])
            if accuracy is not None and accuracy > self.best_accuracy:
                self.best_accuracy.fill_(accuracy)
                self.best.load_state_dict(run.networks[0].state_dict())
