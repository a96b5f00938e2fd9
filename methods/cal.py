"""Covariance-assisted learning, CAL. Zhu et al., CVPR 2021, arXiv:2012.11854.

Two trainings from new weights. Both have the loss of CORES2,

    CE - alpha(e) * sum_k pi_k (-log(p_k + 1e-5)),      CE = -log(p_y + 1e-8).

1. A helper network learns by it, with pi_k proportional to the square root of the share of label k.
   From its predictions each example gets a distilled label: the given one where CE minus the mean
   of -log(p_k + 1e-8) over all k is below -8, else the predicted class.
2. The run itself learns by it, with pi_k the share of label k, minus a covariance term,

       sum_i P(i) sum_j mean over the batch's n in i of  u_j(n) (l_j(n) - lbar_ij).

   i is a distilled label and P(i) its share, j a given label. l_j = -log(p_j + 1e-5). u_j(n) is 1
   where n is given label j and 0 elsewhere, minus its mean over all examples of distilled label i.
   lbar_ij is the mean of l_j over the examples of i in the epoch before, 0 in the first epoch. The
   gradient passes through l_j alone.
alpha(e) is 0 for 10 of 100 epochs, then rises linearly for 30 epochs.

Equations and constants, the square root and the two floors among them, are those of the authors'
code, UCSC-REAL/CAL. Differences from that code:
- The learning rate is not divided by 1 + alpha(e): on the identical track the protocol's optimiser
  and schedule are used, as for `cores2`. Step 1 is as long as there until it distils, 66 of 100
  epochs, with the schedule stretched to that length.
- The predictions that distil are made after step 1, without augmentation; there they are those of
  its 66th epoch of training. Where the protocol has no validation part, step 1 does not train on
  10% of the examples (see Run.fit).
- The last epoch counts. There the weights with the highest accuracy on the test set are kept.
- u is kept as a table of means (C, C), and not as two tensors (C, C, N).
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from nlbench.method import Batch, Method, Run, Task

# Authors' code: added to p, of the label and of all classes, inside the logarithms.
FLOOR, PEER_FLOOR = 1e-8, 1e-5


class CAL(Method):
    # The covariance term takes means over the batch's examples of a distilled label.
    couples_examples = True

    distilled: Tensor
    means: Tensor
    shares: Tensor
    lbar: Tensor
    sums: Tensor
    counts: Tensor

    def __init__(
        self,
        task: Task,
        # All defaults are from the authors' code, for CIFAR-10.
        first_alpha: float = 2.0,  # at the end of the ramp, in step 1; CIFAR-100: 1
        alpha: float = 1.0,  # the same of step 2
        prior_scale: float = 1.0,  # factor on pi, in both steps; CIFAR-100: 10
        threshold: float = -8.0,
        warmup_share: float = 10 / 100,
        ramp_share: float = 30 / 100,
        distil_share: float = 66 / 100,
    ):
        super().__init__(task)
        positive = {"first_alpha": first_alpha, "alpha": alpha, "prior_scale": prior_scale}
        for name, value in positive.items():
            if not 0 <= value < math.inf:
                raise ValueError(f"{name} must be finite and >= 0, got {value}")
        if not -math.inf < threshold <= 0:
            raise ValueError(f"threshold must be finite and <= 0, got {threshold}")
        if not 0 <= warmup_share <= 1:
            raise ValueError(f"warmup_share must be in [0, 1], got {warmup_share}")
        for name, share in (("ramp_share", ramp_share), ("distil_share", distil_share)):
            if not 0 < share <= 1:
                raise ValueError(f"{name} must be in (0, 1], got {share}")

        self.first_alpha, self.alpha, self.threshold = first_alpha, alpha, threshold
        self.warmup = task.scaled(warmup_share, of=1) if warmup_share else 0
        self.ramp = task.scaled(ramp_share, of=1)
        self.length = task.scaled(distil_share, of=1)
        self.begins = {"the confidence term": self.warmup + 1}

        C = task.num_classes
        shares = torch.bincount(task.labels, minlength=C).double() / task.num_train
        self.prior = prior_scale * shares
        self.first_prior = prior_scale * shares.sqrt() / shares.sqrt().sum()
        self.register_buffer("distilled", task.labels.clone())
        # means[i, j] is the share of given label j among the examples of distilled label i.
        for name in ("means", "lbar", "sums"):
            self.register_buffer(name, torch.zeros(C, C, dtype=torch.float64))
        for name in ("shares", "counts"):
            self.register_buffer(name, torch.zeros(C, dtype=torch.float64))

    def alpha_at(self, epoch: int, highest: float) -> float:
        """Return alpha(e), which ends at `highest`."""
        return highest * min(max(epoch - self.warmup, 0) / self.ramp, 1.0)

    def prepare(self, run: Run) -> None:
        """Train the helper network, and distil the labels."""
        network = run.fit("cal", self.first_loss, self.length, keep="last", paced=True)
        logits = run.predict_train(network)
        ahead = -(logits.softmax(1) + FLOOR).log()
        gap = ahead.gather(1, run.task.labels[:, None]).squeeze(1) - ahead.mean(1)
        trusted = gap < self.threshold
        self.distilled.copy_(torch.where(trusted, run.task.labels, logits.argmax(1)))

        C = run.task.num_classes
        members = F.one_hot(self.distilled, C).double()
        given = F.one_hot(run.task.labels, C).double()
        sizes = members.sum(0)
        self.means.copy_(members.T @ given / sizes.clamp(min=1)[:, None])
        self.shares.copy_(sizes / run.task.num_train)

    def first_loss(self, logits: Tensor, batch: Batch, epoch: int) -> Tensor:
        """Return the loss of step 1, 0-d."""
        alpha = self.alpha_at(epoch, self.first_alpha)
        return confident_loss(logits, batch.labels, self.first_prior, alpha)

    def training_step(self, run: Run, batch: Batch) -> Tensor:
        """Take a step of step 2, and return the (B, C) logits."""
        logits = run.forward(run.networks[0], batch.images)
        alpha = self.alpha_at(run.epoch, self.alpha)
        loss = confident_loss(logits, batch.labels, self.prior, alpha)
        run.backward_step(loss - self.covariance(logits, batch))
        return logits

    def covariance(self, logits: Tensor, batch: Batch) -> Tensor:
        """Return the covariance term, 0-d, and count the losses for the next epoch."""
        i, C = self.distilled[batch.index], logits.shape[1]
        losses = -(logits.softmax(1) + PEER_FLOOR).log()
        own = losses.detach().double()
        self.sums.index_add_(0, i, own)
        self.counts.index_add_(0, i, torch.ones_like(own[:, 0]))

        u = F.one_hot(batch.labels, C) - self.means.to(losses.dtype)[i]
        centred = losses - self.lbar.to(losses.dtype)[i]
        # Each example weighs P(i), divided by the number of the batch's examples of i.
        sizes = F.one_hot(i, C).sum(0)
        weights = (self.shares.to(losses.dtype) / sizes.clamp(min=1))[i]
        return (weights * (u * centred).sum(1)).sum()

    def on_epoch_end(self, run: Run, epoch: int) -> None:
        """Take the means of this epoch for the next one. A class without an example keeps its."""
        means = self.sums / self.counts.clamp(min=1)[:, None]
        self.lbar.copy_(torch.where(self.counts[:, None] > 0, means, self.lbar))
        self.sums.zero_()
        self.counts.zero_()

    def own_labels(self) -> Tensor:
        """Return the distilled labels, (N, C) one-hot."""
        return F.one_hot(self.distilled, self.task.num_classes).double()


def confident_loss(logits: Tensor, labels: Tensor, prior: Tensor, alpha: float) -> Tensor:
    """Return mean of CE - alpha * sum_k prior_k (-log(p_k + PEER_FLOOR)), 0-d."""
    p = logits.softmax(1)
    ce = -(p.gather(1, labels[:, None]).squeeze(1) + FLOOR).log()
    # A matrix product would be computed in bfloat16 under autocast.
    peer = -((p + PEER_FLOOR).log() * prior.to(p.dtype)).sum(1)
    return (ce - alpha * peer).mean()
