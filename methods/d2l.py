"""D2L, dimensionality-driven learning. Ma et al., ICML 2018, arXiv:1806.02612.

At the start of each epoch the local intrinsic dimensionality (LID) of the network's features is
estimated. While a network learns, it falls; it rises when the network begins to fit wrong labels.
The turning point is the first epoch whose LID exceeds the mean of the five before by more than two
of their standard deviations, and comes after a warm-up and these five. From then on the labels are

    a y + (1 - a) z,    a = exp(-(epoch / epochs) * LID / (lowest LID so far)),

with z the class that the network predicts, and the loss is their cross entropy with p clipped at
1e-7. Without a turning point the labels stay as they are.

LID is the mean over 1,280 random examples, in batches of 128, of -k / sum_j log(r_j / r_k + 1e-8),
with r_1 to r_k the distances to the k = 20 nearest of the same batch. The features are the inputs
of the last linear layer, in evaluation mode and without augmentation. Examples whose distances are
all alike have no LID and are left out.

Constants are those of the authors' code, xingjunm/dimensionality-driven-learning. Differences:
- Before the turning point that code has used symmetric cross entropy (`sl`) since October 2019; the
  paper has cross entropy, `before: ce`.
- At the turning point the code loads a checkpoint, which it has overwritten in every epoch; so it
  goes back to the network as it is. The same happens here.
- The warm-up is a share of the training. The five epochs are measurements and do not scale, so in
  a training of few epochs the turning point comes late.
"""

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from nlbench.method import Batch, Method, Run, Task
from nlbench.ops.features import keeping_features

# Authors' code.
WINDOW, DEVIATIONS = 5, 2.0
SAMPLES, BATCH, NEIGHBOURS = 1280, 128, 20
CLIP, TINY = 1e-7, 1e-8
LOG_ZERO = math.log(1e-4)  # as in `sl`


class D2L(Method):
    lids: Tensor
    turned: Tensor

    def __init__(
        self,
        task: Task,
        # Authors' code; the paper: ce.
        before: Literal["sce", "ce"] = "sce",
        alpha: float = 0.1,  # authors' code, CIFAR-10, of cross entropy in sce; CIFAR-100: 6
        beta: float = 1.0,  # authors' code, CIFAR-10, of the reverse one; CIFAR-100: 0.1
        # Authors' code, CIFAR-10: 40 of 120 epochs; CIFAR-100: 60 of 200.
        warmup_share: float = 40 / 120,
    ):
        super().__init__(task)
        if before not in ("sce", "ce"):
            raise ValueError(f"before must be 'sce' or 'ce', got {before!r}")
        for name, value in (("alpha", alpha), ("beta", beta)):
            if not 0 <= value < math.inf:
                raise ValueError(f"{name} must be finite and >= 0, got {value}")
        if not 0 <= warmup_share <= 1:
            raise ValueError(f"warmup_share must be in [0, 1], got {warmup_share}")

        self.before, self.alpha, self.beta = before, alpha, beta
        self.warmup = task.scaled(warmup_share, of=1) if warmup_share else 0
        self.begins = {"the search for the turning point": self.warmup + WINDOW}
        # Of an epoch to come, and of one that has none, it is 0.
        self.register_buffer("lids", torch.zeros(task.epochs, dtype=torch.float64))
        self.register_buffer("turned", torch.tensor(False))
        # a of this epoch; None before the turning point.
        self.share: float | None = None

    # `share` is saved as extra state, so that no step has to read a buffer from the device.
    def get_extra_state(self) -> Tensor:
        return torch.tensor(-1.0 if self.share is None else self.share, dtype=torch.float64)

    def set_extra_state(self, state: Tensor) -> None:
        self.share = None if state < 0 else float(state)

    def on_epoch_start(self, run: Run, epoch: int) -> None:
        """Estimate the LID, look for the turning point, and set a."""
        N = run.task.num_train
        drawn = torch.randperm(N, generator=run.generator("lid"))[:SAMPLES]
        self.lids[epoch] = dimensionality(features(run, drawn.to(run.task.device)))
        lids = self.lids[: epoch + 1].tolist()
        if not self.turned and is_turning_point(lids, self.warmup):
            self.turned.fill_(True)
        if self.turned:
            known = [lid for lid in lids if lid > 0]
            expansion = lids[-1] / min(known) if lids[-1] > 0 else 1.0
            self.share = math.exp(-epoch / run.task.epochs * expansion)

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        one_hot = F.one_hot(batch.labels, logits.shape[1]).to(logits.dtype)
        if self.share is None:
            ce = F.cross_entropy(logits, batch.labels, reduction="none")
            if self.before == "ce":
                return ce
            p = logits.softmax(1).clamp(CLIP, 1.0)
            reverse = -LOG_ZERO * (p * (1 - one_hot)).sum(1)
            return self.alpha * ce + self.beta * reverse

        guess = F.one_hot(logits.argmax(1), logits.shape[1]).to(logits.dtype)
        target = self.share * one_hot + (1 - self.share) * guess
        log_p = logits.softmax(1).clamp(CLIP, 1 - CLIP).log()
        return -(target * log_p).sum(1)


def is_turning_point(lids: list[float], warmup: int) -> bool:
    """Return whether the last of these LIDs, one for each epoch so far, rises above those before.

    It does not in the warm-up and the WINDOW after it, and where one of the LIDs is unknown.
    """
    if len(lids) <= warmup + WINDOW or min(lids[-WINDOW - 1 :]) <= 0:
        return False
    window = torch.tensor(lids[-WINDOW - 1 : -1], dtype=torch.float64)
    limit = window.mean() + DEVIATIONS * window.std(correction=0)
    return lids[-1] > float(limit)


def features(run: Run, index: Tensor) -> Tensor:
    """Return the inputs of the network's last linear layer for the examples at `index`, (n, F).

    Of a network without one: its outputs.
    """
    with keeping_features(run.networks[0]) as kept:
        run.predict_train(run.networks[0], index)
    return torch.cat([x.detach().flatten(1) for x in kept])


def dimensionality(x: Tensor) -> float:
    """Return the mean LID of the rows of x (n, F), estimated in batches; 0 if no row has one."""
    found = []
    for rows in x.double().split(BATCH):
        k = min(NEIGHBOURS, len(rows) - 1)
        if k < 2:
            continue
        distances = torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist")
        # The nearest is the example itself, at distance 0.
        nearest = distances.sort(1).values[:, 1 : k + 1]
        sums = (nearest / nearest[:, -1:] + TINY).log().sum(1)
        lids = -k / sums
        found.append(lids[lids.isfinite() & (sums < 0)])
    every = torch.cat(found) if found else x.new_zeros(0)
    return float(every.mean()) if len(every) else 0.0
