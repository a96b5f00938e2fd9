"""Dynamic instance-specific selection, DISC. Li, Han, Shan & Chen, CVPR 2023, https://github.com/JackYFL/DISC.

Each example has a threshold for its weak view and one for its strong view, running averages of the network's
confidence. At the end of an epoch, by the probabilities that its forward passes gave, an example is clean where that of
its label is above the threshold in both views and hard where it is in one; one that is neither is purified, that is,
takes the argmax of the views' mean prediction as its label, where that is sure enough. The thresholds as they were
before the epoch decide, and then take the epoch's confidence in. In the next epoch CE learns from the clean examples
and GCE from the hard ones, each a sum over the batch divided by its size; beside them stands mixup, as a mean over all
selected examples however few, weak views with weak and strong with strong, with draws and a forward pass of their own
(its other forward pass holds both views). In the warm-up CE learns from everything. All this is as in the authors'
code, and so is that a batch of which nothing is selected makes no step.

What differs. Where the authors add the losses of the two views, this takes their mean, half of it all, so that the
warm-up has the scale of `ce`: their SGD at a learning rate of 0.1 with weight decay 1e-3 is 0.2 with 5e-4 here. That
optimiser (without momentum; Adam above 60% noise) is not taken over, since the protocol's serves every method. They
keep each example's prediction, N x C; here only what the selection reads of it. A single selected example goes through
mixup's passes twice, which leaves its loss as it is, because batch norm refuses a single row of features. GCE is
without their clamp of p at 1e-7. CAP is 0.99 at their commit a21e910 and 0.90 at others. The momentum is per epoch and
does not scale (our choice): in a training much shorter than the authors' 200 epochs the thresholds stay low and more
labels pass for clean. On data that are no images both views are alike and no example is hard.
"""

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from nlbench.method import Batch, Method, Run, Task

MARGIN, CAP = 0.5, 0.99  # purified: above min(threshold + MARGIN, CAP), authors' code


class DISC(Method):
    seen: Tensor
    thresholds: Tensor
    of_label: Tensor
    confidence: Tensor
    sureness: Tensor
    guess: Tensor
    clean: Tensor
    hard: Tensor
    purified: Tensor

    def __init__(
        self,
        task: Task,
        # The authors set momentum and lam_h by the noise, which no method knows: 0.95 for asymmetric noise and for 60
        # and 80%, lam_h 0.2 for 60 and 80%. These are what they use elsewhere, all from their code.
        momentum: float = 0.99,
        lam_h: float = 1.0,  # weight of the hard examples
        q: float = 0.7,
        alpha: float = 5.0,  # of mixup's Beta(alpha, alpha)
        warmup_share: float = 20 / 200,  # instance-dependent noise: 15 of 200
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
        N = task.num_train
        self.register_buffer("thresholds", torch.full((N, 2), 1 / N))  # weak, strong
        # This epoch's predictions: probability of the label, the highest one; highest of the views' mean, its class.
        self.register_buffer("of_label", torch.zeros(N, 2))
        self.register_buffer("confidence", torch.zeros(N, 2))
        self.register_buffer("sureness", torch.zeros(N))
        self.register_buffer("guess", torch.zeros(N, dtype=torch.int64))
        self.register_buffer("clean", torch.ones(N, dtype=torch.bool))  # until its first epoch has said otherwise
        for name in ("hard", "purified"):  # all three by the last epoch in which the example was seen
            self.register_buffer(name, torch.zeros(N, dtype=torch.bool))
        self.register_buffer("seen", torch.zeros(N, dtype=torch.bool))  # in this epoch, which may be a part of them

    def on_epoch_start(self, run: Run, epoch: int) -> None:
        self.seen.zero_()
        self.rng = np.random.default_rng(int(torch.randint(2**62, (), generator=run.generator("mixup"))))

    def training_step(self, run: Run, batch: Batch) -> Tensor:
        views = batch.images, batch.strong(0)
        logits = run.networks[0](torch.cat(views))
        ce = F.cross_entropy(logits, batch.labels.repeat(2), reduction="none").view(2, -1)
        if run.epoch < self.warmup:
            run.backward_step(ce.mean())
        else:
            self.selective_step(run, batch, views, ce)
        self.remember(logits.detach(), batch)  # last, since the step reads the guesses of the epoch before
        return logits[: len(batch)]

    def selective_step(self, run: Run, batch: Batch, views: tuple[Tensor, Tensor], ce: Tensor) -> None:
        clean, hard, purified = (flags[batch.index] for flags in (self.clean, self.hard, self.purified))
        rows = (clean | hard | purified).nonzero().squeeze(1)  # waits for the device
        if len(rows) == 0:
            return
        gce = -torch.expm1(-self.q * ce) / self.q
        loss = (clean * ce + hard * (self.lam_h * gce)).mean()
        labels = torch.where(purified, self.guess[batch.index], batch.labels)
        rows = rows.repeat(2) if len(rows) == 1 else rows
        weak, strong = (self.mixup_loss(run, view[rows], labels[rows]) for view in views)
        run.backward_step(loss + (weak + strong) / 2)

    def remember(self, logits: Tensor, batch: Batch) -> None:
        probs = logits.softmax(1).to(self.of_label.dtype).unflatten(0, (2, -1))
        self.of_label[batch.index] = probs.gather(2, batch.labels.expand(2, -1)[..., None]).squeeze(2).T
        self.confidence[batch.index] = probs.amax(2).T
        self.sureness[batch.index], self.guess[batch.index] = probs.mean(0).max(1)
        self.seen[batch.index] = True

    def mixup_loss(self, run: Run, images: Tensor, labels: Tensor) -> Tensor:
        # The authors take max(share, 1 - share), which a random permutation makes the same.
        share = float(self.rng.beta(self.alpha, self.alpha))
        other = torch.from_numpy(self.rng.permutation(len(images))).to(images.device)
        logits = run.networks[0](share * images + (1 - share) * images[other])
        return share * F.cross_entropy(logits, labels) + (1 - share) * F.cross_entropy(logits, labels[other])

    def on_epoch_end(self, run: Run, epoch: int) -> None:
        above = self.of_label > self.thresholds
        bound = (self.thresholds.mean(1) + MARGIN).clamp(max=CAP)
        purified = ~above.any(1) & (self.sureness > bound)
        sets = {"clean": above.all(1), "hard": above[:, 0] ^ above[:, 1], "purified": purified}
        for name, members in sets.items():
            self.get_buffer(name).copy_(torch.where(self.seen, members, self.get_buffer(name)))
        updated = self.momentum * self.thresholds + (1 - self.momentum) * self.confidence
        self.thresholds = torch.where(self.seen[:, None], updated, self.thresholds)
