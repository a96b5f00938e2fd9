"""Dynamic instance-specific selection, DISC. Li, Han, Shan & Chen, CVPR 2023, https://github.com/JackYFL/DISC.

Each example has a threshold for its weak view and one for its strong view, running averages of the network's
confidence. It is clean where the probability of its label is above the threshold in both views and hard where it is in
one. One that is neither is purified, that is, takes the views' mean prediction as its label, where that is sure
enough. CE learns from the clean ones, GCE from the hard ones and mixup from all three; in the warm-up CE learns from
everything.

Our choices, where the sources we have are silent: both views go through the network in one pass; a batch updates the
thresholds before they select from it, in the warm-up too (they would start to select at 1/N otherwise); the threshold
of a purified example is the mean of its own two; CE and GCE see both views; mixup mixes the selected examples of both
views with each other, one l and one permutation a batch; and each term is a mean over all rows of both views, 0 for
those outside its set, so that CE keeps the scale of `ce` and a batch of which nothing is selected moves no weight but
by momentum and weight decay. The momentum is per epoch and does not scale: in a training much shorter than the
authors' 200 epochs the thresholds stay low and more labels pass for clean. On data that are no images both views are
alike and no example is hard. Not taken over: the authors' optimiser (SGD without momentum, or Adam at high noise),
since the protocol's serves every method.
"""

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from nlbench.method import Batch, Method, Run, Task

MARGIN, CAP = 0.5, 0.99  # purified: above min(threshold + MARGIN, CAP), authors' code


class DISC(Method):
    thresholds: Tensor

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
        self.register_buffer("thresholds", torch.full((task.num_train, 2), 1 / task.num_train))  # weak, strong

    def divide(self, probs: Tensor, batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Update the thresholds by `probs` (2, B, C), weak and strong; (B,) clean, hard, purified, and the guesses."""
        confidence = probs.amax(2).T
        thresholds = self.momentum * self.thresholds[batch.index] + (1 - self.momentum) * confidence
        self.thresholds[batch.index] = thresholds
        of_label = probs.gather(2, batch.labels.expand(2, -1)[..., None]).squeeze(2).T
        above = of_label > thresholds  # (B, 2)
        clean = above.all(1)
        hard = above.any(1) & ~clean
        sure, guess = probs.mean(0).max(1)
        purified = ~above.any(1) & (sure > (thresholds.mean(1) + MARGIN).clamp(max=CAP))
        return clean, hard, purified, guess

    def on_epoch_start(self, run: Run, epoch: int) -> None:
        self.rng = np.random.default_rng(int(torch.randint(2**62, (), generator=run.generator("mixup"))))

    def training_step(self, run: Run, batch: Batch) -> Tensor:
        images = torch.cat([batch.images, batch.strong(0)])
        logits = run.networks[0](images)
        clean, hard, purified, guess = self.divide(logits.detach().softmax(1).unflatten(0, (2, len(batch))), batch)
        ce = F.cross_entropy(logits, batch.labels.repeat(2), reduction="none")
        if run.epoch < self.warmup:
            loss = ce.mean()
        else:
            gce = -torch.expm1(-self.q * ce) / self.q
            loss = (clean.repeat(2) * ce + hard.repeat(2) * (self.lam_h * gce)).mean()
            # Waits for the device: rows that nobody selected would count in the batch norm of the mixed ones.
            rows = (clean | hard | purified).repeat(2).nonzero().squeeze(1)
            if len(rows):
                labels = torch.where(purified, guess, batch.labels).repeat(2)
                loss = loss + self.mixup_loss(run, images[rows], labels[rows]) * len(rows) / len(images)
        run.backward_step(loss)
        return logits[: len(batch)]

    def mixup_loss(self, run: Run, images: Tensor, labels: Tensor) -> Tensor:
        share = float(self.rng.beta(self.alpha, self.alpha))
        other = torch.from_numpy(self.rng.permutation(len(images))).to(images.device)
        logits = run.networks[0](share * images + (1 - share) * images[other])
        return share * F.cross_entropy(logits, labels) + (1 - share) * F.cross_entropy(logits, labels[other])
