"""MentorNet PD, a predefined curriculum. Jiang et al., ICML 2018, arXiv:1712.05055.

The loss of an example is its cross entropy l times a weight v. With e, the share of the training
that is over, in whole percent:
- e <= 18: v is 1;
- then v is 1 where l <= m, else 0 (self-paced learning);
- e >= 90: v = 1 - (l - m) / gamma, clipped to [0, 1] (SPCL).
m is a running percentile of the losses: in each step m <- decay * m + (1 - decay) * the percentile
of the batch's losses, from 0. Then a random share of the batch, half of it for the first 17% of the
training and 5% after, gets weight 0 (example dropout). The batch's loss is the mean of l * v over
all of its examples, also those of weight 0. No gradient passes through v.

The authors train a small network, the mentor, to give these weights from (l, l - m, e). PD is known
in closed form, so here it is computed and no mentor is needed. Curriculum and constants are those
of the authors' code, google/mentornet. Its "epochs" are percents, too: e is 100 * step / steps,
rounded down. So 18, 90 and 17 are their shares in a training of any length. With their option
fixed_epoch_after_burn_in e would stay at 18; it is off by default, and their commands switch it on
for MentorNet DD alone. Differences from that code:
- Their weight decay is multiplied by the mean weight of the batch. Here it is the protocol's, which
  is the same for all methods.
- The label embedding of the mentor, which always gets label 0, is left out.
- MentorNet DD, which learns its weights from clean labels, is left out.
- The percentile is the nearest rank, as TensorFlow 1's default.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from nlbench.method import Batch, Method, Run, Task
from nlbench.ops.mixmatch import on_device

# Authors' code, in percent of the training: the last at which all weights are 1, the first of SPCL.
BURN_IN, SPCL = 18, 90


class MentorNet(Method):
    # The threshold and the dropout belong to the batch.
    couples_examples = True

    threshold: Tensor

    def __init__(
        self,
        task: Task,
        # Authors' code. Their published commands misspell the flag that sets it, so that all of
        # them ran with this value.
        percentile: float = 0.7,
        decay: float = 0.5,  # authors' code, the student program
        gamma: float = 1.0,  # authors' code
        early_dropout: float = 0.5,  # authors' commands, PD
        late_dropout: float = 0.05,  # authors' commands, PD
        dropout_share: float = 0.17,  # authors' commands, PD: how long early_dropout holds
    ):
        super().__init__(task)
        if not 0 < percentile <= 1:
            raise ValueError(f"percentile must be in (0, 1], got {percentile}")
        if not 0 <= decay < 1:
            raise ValueError(f"decay must be in [0, 1), got {decay}")
        if not 0 < gamma < math.inf:
            raise ValueError(f"gamma must be finite and above 0, got {gamma}")
        for name, rate in (("early_dropout", early_dropout), ("late_dropout", late_dropout)):
            if not 0 <= rate < 1:
                raise ValueError(f"{name} must be in [0, 1), got {rate}")
        if not 0 <= dropout_share <= 1:
            raise ValueError(f"dropout_share must be in [0, 1], got {dropout_share}")

        self.percentile, self.decay, self.gamma = percentile, decay, gamma
        self.early_dropout, self.late_dropout = early_dropout, late_dropout
        self.dropout_percent = round(100 * dropout_share)
        self.begins = {"the curriculum": math.ceil((BURN_IN + 1) * task.epochs / 100)}
        self.register_buffer("threshold", torch.zeros(()))

    def batches(self, run: Run, epoch: int) -> Iterator[tuple[Batch, Tensor, int]]:
        """Yield (batch, which of its examples stay (B,) bool, percent of the training)."""
        generator = run.generator("dropout")
        parts = run.order().split(run.task.batch_size)
        for step, index in enumerate(parts):
            percent = math.floor(100 * (epoch + step / len(parts)) / run.task.epochs)
            early = percent < self.dropout_percent
            rate = self.early_dropout if early else self.late_dropout

            # At least one example stays, so that every batch can have a gradient.
            count = max(1, int(len(index) * (1 - rate) + 1e-9))
            stays = torch.zeros(len(index), dtype=torch.bool)
            stays[torch.randperm(len(index), generator=generator)[:count]] = True
            yield run.batch(index), on_device(stays, index.device), percent

    def training_step(self, run: Run, batch: Batch, stays: Tensor, percent: int) -> Tensor:
        """Train on the weighted losses of the batch, and return its (B, C) logits."""
        logits = run.networks[0](batch.images)
        losses = F.cross_entropy(logits, batch.labels, reduction="none")
        weights = self.weights(losses.detach(), percent) * stays
        run.backward_step((losses * weights).mean())
        return logits

    def weights(self, losses: Tensor, percent: int) -> Tensor:
        """Move the threshold, in place, and return the curriculum's weights, (B,).

        Args:
            losses: (B,), without a graph.
            percent: the share of the training that is over.
        """
        rank = round((len(losses) - 1) * self.percentile)
        quantile = losses.sort().values[rank]
        self.threshold.mul_(self.decay).add_((1 - self.decay) * quantile)

        above = losses - self.threshold
        if percent <= BURN_IN:
            return torch.ones_like(losses)
        if percent < SPCL:
            return (above <= 0).to(losses.dtype)
        return (1 - above / self.gamma).clamp(0, 1)
