"""Dynamic instance-specific selection, DISC. Li et al., CVPR 2023, https://github.com/JackYFL/DISC.

Each example has two thresholds, one for its weak and one for its strong view: running averages of
the network's confidence in the example. At the end of an epoch the thresholds from before it sort
the examples by the probabilities that the epoch's forward passes gave:
- clean: the probability of the label is above the threshold in both views;
- hard: it is above the threshold in one view;
- purified: in neither, but the views' mean is sure enough of one class, which replaces the label.

In the next epoch CE learns from the clean examples and GCE from the hard ones, each a sum over the
batch divided by the batch's size. Mixup (nlbench.ops.disc) is added, as a mean over all selected
examples however few: weak views with weak ones, strong with strong, each with its own draws and its
own forward pass. (One other forward pass holds both views.) During the warm-up CE learns from all
examples. Given the same views, selection and losses are those of the authors' code, where also a
batch without a selected example makes no step.

Differences from that code:
- The losses of the two views are averaged, where the authors add them, so that the warm-up has the
  scale of `ce`. Their SGD at a learning rate of 0.1 with weight decay 1e-3 is 0.2 with 5e-4 here.
- The protocol's optimiser is used. Theirs has no momentum, and above 60% noise it is Adam.
- The views are the protocol's: a crop padded with black, and for the strong view AutoAugment and a
  cutout of half the side. Theirs are a crop padded with its reflection, then two operations of
  RandAugment at magnitude 5 and a grey square of 4 pixels (CIFAR-10; elsewhere 10, and 0.15 of the
  side). As published, a suite sets `augment: reflect-crop-flip`, `strong: randaugment-5` or `-10`.
- They store each example's prediction (N x C); here only the values that the selection reads.
- A single selected example is doubled for mixup, because batch norm refuses a batch of one.
- GCE has no clamp; theirs clamps p at 1e-7.
- CAP is 0.99, as at their commit a21e910. At others it is 0.90.
- The momentum is per epoch and does not scale (our choice). In a training much shorter than the
  authors' 200 epochs the thresholds stay low, and more labels pass for clean.
On data that are not images both views are alike, and no example is hard.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from nlbench.method import Batch, Method, Run, Task
from nlbench.ops.disc import Mixup, draw_mixup
from nlbench.ops.mixmatch import numpy_rng

# Authors' code. An example is purified above min(threshold + MARGIN, CAP).
MARGIN, CAP = 0.5, 0.99


class DISC(Method):
    # A batch without a selected example makes no step, and an epoch may have no other batches.
    trains_every_epoch = False
    mixes_inputs = True

    # (N, 2), of the weak and of the strong view.
    thresholds: Tensor
    # This epoch's predictions: the probability of the label and the highest probability, in each
    # view (N, 2); the highest probability of the views' mean, and its class.
    of_label: Tensor
    confidence: Tensor
    sureness: Tensor
    guess: Tensor
    # The selection, from the last epoch in which an example was seen. At first, all are clean.
    clean: Tensor
    hard: Tensor
    purified: Tensor
    # Which examples were in this epoch, since an epoch may hold only some of them.
    seen: Tensor

    def __init__(
        self,
        task: Task,
        # All defaults are from the authors' code. They set momentum and lam_h by the noise, which a
        # method does not know: momentum 0.95 for asymmetric noise and for 60 and 80%, lam_h 0.2 for
        # 60 and 80%. Elsewhere they use these.
        momentum: float = 0.99,
        lam_h: float = 1.0,  # weight of the hard examples
        q: float = 0.7,
        alpha: float = 5.0,  # of mixup's Beta(alpha, alpha)
        # 15 of 200 epochs for instance-dependent noise, which in their code is nlbench's
        # `instance-dependent-standardised`.
        warmup_share: float = 20 / 200,
    ):
        super().__init__(task)
        if not 0 < momentum < 1:
            raise ValueError(f"momentum must be in (0, 1), got {momentum}")
        if not 0 <= lam_h < math.inf:
            raise ValueError(f"lam_h must be finite and >= 0, got {lam_h}")
        if not 0 < q <= 1:
            raise ValueError(f"q must be in (0, 1], got {q}")
        if not 0 < alpha < math.inf:
            raise ValueError(f"alpha must be finite and above 0, got {alpha}")
        if not 0 <= warmup_share <= 1:
            raise ValueError(f"warmup_share must be in [0, 1], got {warmup_share}")

        self.momentum, self.lam_h, self.q, self.alpha = momentum, lam_h, q, alpha
        self.warmup = task.scaled(warmup_share, of=1) if warmup_share else 0
        self.begins = {"training on selected examples": self.warmup}
        N = task.num_train
        self.register_buffer("thresholds", torch.full((N, 2), 1 / N))
        self.register_buffer("of_label", torch.zeros(N, 2))
        self.register_buffer("confidence", torch.zeros(N, 2))
        self.register_buffer("sureness", torch.zeros(N))
        self.register_buffer("guess", torch.zeros(N, dtype=torch.int64))
        self.register_buffer("clean", torch.ones(N, dtype=torch.bool))
        for name in ("hard", "purified", "seen"):
            self.register_buffer(name, torch.zeros(N, dtype=torch.bool))

    def on_epoch_start(self, run: Run, epoch: int) -> None:
        self.seen.zero_()
        self.rng = numpy_rng(run.generator("mixup"))

    def batches(self, run: Run, epoch: int) -> Iterator[Batch | tuple[Batch, Mixup]]:
        """Yield batches in the warm-up, and then (batch, mixup of its selected examples)."""
        if epoch < self.warmup:
            yield from super().batches(run, epoch)
            return

        # The sets stay the same until the epoch ends, so they are read from the device once.
        # Reading them in the steps would make each step wait for it.
        order, size = run.order(), run.task.batch_size
        selected = (self.clean | self.hard | self.purified)[order].cpu()
        for index, flags in zip(order.split(size), selected.split(size), strict=True):
            yield run.batch(index), draw_mixup(flags, self.alpha, self.rng, order.device)

    def training_step(self, run: Run, batch: Batch, mixup: Mixup | None = None) -> Tensor:
        """Train on both views of the batch; return the (B, C) logits of the weak view."""
        views = batch.images, batch.strong(0)
        logits = run.networks[0](torch.cat(views))
        ce = F.cross_entropy(logits, batch.labels.repeat(2), reduction="none").view(2, -1)

        if mixup is None:
            run.backward_step(ce.mean())
        elif mixup.draws:
            sets = (self.clean, self.hard, self.purified)
            clean, hard, purified = (members[batch.index] for members in sets)
            gce = -torch.expm1(-self.q * ce) / self.q
            loss = (clean * ce + hard * (self.lam_h * gce)).mean()
            labels = torch.where(purified, self.guess[batch.index], batch.labels)
            run.backward_step(loss + mixup.loss(run.networks[0], views, labels))

        # Last, because the step reads the guesses of the epoch before.
        self.remember(logits.detach(), batch)
        return logits[: len(batch)]

    def remember(self, logits: Tensor, batch: Batch) -> None:
        """Store what the selection reads of `logits` (2B, C), the weak views before the strong."""
        probs = logits.softmax(1).to(self.of_label.dtype).unflatten(0, (2, -1))  # (2, B, C)
        own = probs.gather(2, batch.labels.expand(2, -1)[..., None])
        self.of_label[batch.index] = own.squeeze(2).T
        self.confidence[batch.index] = probs.amax(2).T
        self.sureness[batch.index], self.guess[batch.index] = probs.mean(0).max(1)
        self.seen[batch.index] = True

    def own_labels(self) -> Tensor:
        """Return (1 + p - next threshold) / 2 of the label, (N,), on average over the views."""
        above = (1 + (self.of_label - self.thresholds).mean(1)) / 2
        return torch.where(self.confidence[:, 0] > 0, above, torch.nan)

    def on_epoch_end(self, run: Run, epoch: int) -> None:
        """Select the examples of the next epoch, then move the thresholds."""
        above = self.of_label > self.thresholds
        bound = (self.thresholds.mean(1) + MARGIN).clamp(max=CAP)
        clean, hard = above.all(1), above[:, 0] ^ above[:, 1]
        purified = ~above.any(1) & (self.sureness > bound)
        for name, members in (("clean", clean), ("hard", hard), ("purified", purified)):
            flag = self.get_buffer(name)
            flag.copy_(torch.where(self.seen, members, flag))

        updated = self.momentum * self.thresholds + (1 - self.momentum) * self.confidence
        self.thresholds = torch.where(self.seen[:, None], updated, self.thresholds)
