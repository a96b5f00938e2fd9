"""Dynamic bootstrapping with a beta mixture, M-DYR. Arazo et al., ICML 2019, arXiv:1904.11238.

After a warm-up by mixup, a mixture of two beta distributions is fitted before each epoch to the
losses of all examples. B of an example is the posterior probability of the higher component at its
present loss, that is, how probably its label is wrong. With images mixed in pairs (an example and
its partner', from a random permutation of the batch) and l ~ Beta(32, 32), the loss is, by `kind`:
- m-dyr-h ("M-DYR-H"): images mixed with l and 1 - l;
      l * mean[(1-B) CE(y) + B CE(z)] + (1-l) * mean[(1-B') CE(y') + B' CE(z')],
  where z is the predicted class of the unmixed image.
- m-dyr-s: images as above; both brackets have weight 1/2, and CE(z) is CE to the softmax.
- md-dyr-sh ("MD-DYR-SH"): images mixed with weights proportional to 1 - B and 1 - B'. For the first
  5 of 300 epochs the loss is l CE(y) + (1-l) CE(y'). Then it is that of m-dyr-s, with the logits
  inside the softmax divided by a temperature that falls from 1 to 0.001 over 89 of 300 epochs.
To it is added reg * sum_k (1/C) log((1/C) / batch mean of p_k), but not where the loss is mixup's.
Everything is from the authors' code, PaulAlbert31/LabelNoiseCorrection: B from a table of 100
points that is held at its maximum to the right of it, losses scaled by their 5th and 95th
percentiles, ten steps of EM by moments. As there, a step has two more passes of the unmixed batch:
one in training mode for z, which batch norm counts, and one in evaluation mode for the losses, in
m-dyr-h after the pass of the mixed batch and else before it. The row M-DYR-SH of ELR's Table 2 has
in each column the better of m-dyr-h and md-dyr-sh.

Differences from that code:
- The mixture's losses are without augmentation. Where all are equal, B is 1/2.
- In variant s their regulariser takes C = 10, here C.
"""

import math
from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nlbench.method import Batch, Method, Run, Task
from nlbench.ops.beta_mixture import posterior_table, scaled
from nlbench.ops.mixmatch import numpy_rng, permutation
from nlbench.ops.uniform import divergence_from_uniform

# Authors' code: the size of the table, and the bounds of B.
POINTS, B_MIN = 100, 1e-4


class MDYR(Method):
    mixes_inputs = True
    table: Tensor
    bounds: Tensor
    wrong: Tensor

    def __init__(
        self,
        task: Task,
        # The row of ELR's tables. All other values are from the authors' code and scripts.
        kind: Literal["m-dyr-h", "m-dyr-s", "md-dyr-sh"] = "m-dyr-h",
        alpha: float = 32.0,  # of Beta(alpha, alpha)
        reg: float = 1.0,
        warmup_share: float = 105 / 300,
        dynamic_share: float = 5 / 300,  # of md-dyr-sh
        cooling_share: float = 89 / 300,  # of md-dyr-sh
    ):
        super().__init__(task)
        if kind not in ("m-dyr-h", "m-dyr-s", "md-dyr-sh"):
            raise ValueError(f"kind must be 'm-dyr-h', 'm-dyr-s' or 'md-dyr-sh', got {kind!r}")
        if not 0 < alpha < math.inf:
            raise ValueError(f"alpha must be finite and above 0, got {alpha}")
        if not 0 <= reg < math.inf:
            raise ValueError(f"reg must be finite and >= 0, got {reg}")
        if not 0 <= warmup_share <= 1:
            raise ValueError(f"warmup_share must be in [0, 1], got {warmup_share}")
        for name, share in (("dynamic_share", dynamic_share), ("cooling_share", cooling_share)):
            if not 0 < share <= 1:
                raise ValueError(f"{name} must be in (0, 1], got {share}")

        self.kind, self.alpha, self.reg = kind, alpha, reg
        self.warmup = task.scaled(warmup_share, of=1) if warmup_share else 0
        dynamic = task.scaled(dynamic_share, of=1) if kind == "md-dyr-sh" else 0
        self.start = self.warmup + dynamic
        self.begins = {"the mixture": self.warmup, "the correction of labels": self.start}
        self.cooling = task.scaled(cooling_share, of=1)
        self.register_buffer("table", torch.full((POINTS,), 0.5, dtype=torch.float64))
        # The 5th percentile of the losses, raised a little, and the 95th.
        self.register_buffer("bounds", torch.tensor([0.0, 1.0], dtype=torch.float64))
        # B of each example at the last fit.
        self.register_buffer("wrong", torch.full((task.num_train,), 0.5, dtype=torch.float64))

    def on_epoch_start(self, run: Run, epoch: int) -> None:
        """Fit the mixture to the losses of the network as it is now."""
        if epoch < self.warmup:
            return
        part = run.part()
        seen = slice(None) if part is None else part
        logits = run.predict_train(run.networks[0], part)
        losses = F.cross_entropy(logits, run.task.labels[seen], reduction="none").double()

        low, high = losses.quantile(0.05), losses.quantile(0.95)
        self.bounds.copy_(torch.stack([low + 1e-5, high]))
        kept = losses[(losses >= low) & (losses <= high)]
        self.table.copy_(posterior_table(scaled(kept, self.bounds), POINTS))
        self.wrong[seen] = self.look_up(losses)

    def look_up(self, losses: Tensor) -> Tensor:
        """Return B of losses (n,), (n,) float64."""
        position = (POINTS * scaled(losses.double(), self.bounds)).long()
        return self.table[position].clamp(B_MIN, 1 - B_MIN)

    def batches(self, run: Run, epoch: int) -> Iterator[tuple[Batch, float, Tensor]]:
        """Yield (batch, l, the partners' positions in the batch)."""
        rng = numpy_rng(run.generator("mixup"))
        for index in run.order().split(run.task.batch_size):
            share = float(rng.beta(self.alpha, self.alpha))
            yield run.batch(index), share, permutation(len(index), rng, index.device)

    def training_step(self, run: Run, batch: Batch, share: float, partner: Tensor) -> None:
        """Train on the mixed batch."""
        network, x, y = run.networks[0], batch.images, batch.labels
        if run.epoch < self.warmup:
            log_p = network(share * x + (1 - share) * x[partner]).log_softmax(1)
            run.backward_step(mixup_loss(log_p, y, y[partner], share))
            return

        with torch.no_grad():
            guess = network(x) if run.epoch >= self.start else None

        # In m-dyr-h, batch norm counts the mixed images before the losses are taken.
        late = self.kind == "m-dyr-h"
        B = torch.empty(0) if late else self.present(network, batch)
        own = torch.full_like(y, share, dtype=x.dtype)
        if self.kind == "md-dyr-sh":
            own = (1 - B) / ((1 - B) + (1 - B[partner]))
        own = own.view(-1, *[1] * (x.ndim - 1))
        log_p = network(own * x + (1 - own) * x[partner]).log_softmax(1)
        B = self.present(network, batch) if late else B

        if guess is None:
            run.backward_step(mixup_loss(log_p, y, y[partner], share))
            return
        target, other = self.target(guess, run.epoch), B[partner]
        ours = (1 - B) * F.nll_loss(log_p, y, reduction="none") - B * (target * log_p).sum(1)
        theirs = (1 - other) * F.nll_loss(log_p, y[partner], reduction="none")
        theirs = theirs - other * (target[partner] * log_p).sum(1)
        weight = share if self.kind == "m-dyr-h" else 0.5
        loss = weight * ours.mean() + (1 - weight) * theirs.mean()
        run.backward_step(loss + self.reg * divergence_from_uniform(log_p))

    @torch.no_grad()
    def present(self, network: nn.Module, batch: Batch) -> Tensor:
        """Return B of a batch at the present losses, (B,); those are taken in evaluation mode."""
        network.eval()
        losses = F.cross_entropy(network(batch.images), batch.labels, reduction="none")
        network.train()
        return self.look_up(losses).to(batch.images.dtype)

    def target(self, logits: Tensor, epoch: int) -> Tensor:
        """Return what the correction aims at, (B, C), from the logits of the unmixed batch."""
        if self.kind == "m-dyr-h":
            return F.one_hot(logits.argmax(1), logits.shape[1]).to(logits.dtype)
        temperature = 1.0
        if self.kind == "md-dyr-sh":
            steps = max(self.cooling - 1, 1)
            temperature -= 0.999 * min((epoch - self.start) / steps, 1.0)
        return (logits / temperature).softmax(1)

    def own_labels(self) -> Tensor:
        """Return 1 - B of the last fit, (N,)."""
        return 1 - self.wrong


def mixup_loss(log_p: Tensor, labels: Tensor, others: Tensor, share: float) -> Tensor:
    """Return the loss of mixup, 0-d, from log p (B, C) of the mixed images."""
    return share * F.nll_loss(log_p, labels) + (1 - share) * F.nll_loss(log_p, others)
