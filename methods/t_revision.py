"""T-Revision. Xia et al., NeurIPS 2019, arXiv:1906.00189.

Three trainings, one after the other:
1. A helper network learns by cross entropy, and T is estimated from it (nlbench.ops.transition).
2. It goes on by importance weighting: the cross entropy of an example is weighted by
   beta = p_y / (p T)_y, through which no gradient passes.
3. The run itself begins with the weights of step 2, and an Adam with a constant, very small
   learning rate trains them together with dT, a correction of T that starts at 0. Now beta uses T +
   dT, and the gradient passes through it. In use T + dT is clamped at 0, and its rows are divided
   by their sums.
Steps 1 and 2 keep the weights of the epoch with the highest accuracy on noisy labels that they do
not train on, in step 2 that of the argmax of p T. The network predicts by p. All three steps count
in the cost. Equations and constants are those of the authors' code, xiaoboxia/T-Revision.
Differences from that code:
- There the loop over a batch adds dT once more for each example, so that example i sees T + i dT;
  its vectorised version gives dT no gradient at all. Here one dT holds for the batch and gets its
  gradient, as the paper means it. Clamping and dividing are ours; the paper has no constraint.
- Step 1 is SGD at 0.01 without momentum there, and step 2 SGD at 0.01 for 200 epochs. Here both
  have the protocol's optimiser and schedule, and step 2 its length.
- The code divides column j of the estimated T by the sum of row j, a slip; here rows have sum 1.
- Where the denominator of beta falls below 1e-7 of p_y it is held there, so that beta is finite.
Replacing the network's optimiser is part of the method; tables mark it.
"""

import math
from typing import Literal

import torch
from torch import Tensor, nn

from nlbench.method import Batch, Method, Run, Task
from nlbench.ops.transition import estimate_T

# log p_i - log p_y is cut off here, where beta is below 1e-30 anyway.
GAP = 80.0
FLOOR = 1e-7


class TRevision(Method):
    first_T: Tensor

    def __init__(
        self,
        task: Task,
        # Authors' code, CIFAR-10; CIFAR-100: 15 of 200 epochs.
        warmup_share: float = 20 / 200,
        # Authors' code: step 2 is as long as step 3.
        weighted_share: float = 1.0,
        # Authors' code: percentile; argmax for CIFAR-100.
        anchor: Literal["auto", "percentile", "argmax"] = "auto",
        percentile: float = 97.0,  # authors' code
        revision_lr: float = 5e-7,  # authors' code, Adam's
        revision_decay: float = 1e-4,  # authors' code, Adam's weight decay
    ):
        super().__init__(task)
        shares = {"warmup_share": warmup_share, "weighted_share": weighted_share}
        for name, share in shares.items():
            if not 0 < share < math.inf:
                raise ValueError(f"{name} must be finite and above 0, got {share}")
        if anchor not in ("auto", "percentile", "argmax"):
            raise ValueError(f"anchor must be 'auto', 'percentile' or 'argmax', got {anchor!r}")
        if not 0 < percentile <= 100:
            raise ValueError(f"percentile must be in (0, 100], got {percentile}")
        if not 0 < revision_lr < math.inf:
            raise ValueError(f"revision_lr must be finite and above 0, got {revision_lr}")
        if not 0 <= revision_decay < math.inf:
            raise ValueError(f"revision_decay must be finite and >= 0, got {revision_decay}")

        self.warmup, self.weighted = (
            max(1, round(share * task.epochs)) for share in shares.values()
        )
        self.anchor, self.percentile = anchor, percentile
        self.lr, self.decay = revision_lr, revision_decay
        C = task.num_classes
        self.register_buffer("first_T", torch.eye(C, dtype=torch.float64))
        self.dT = nn.Parameter(torch.zeros(C, C, dtype=torch.float64))

    @property
    def T(self) -> Tensor:
        """(C, C) float64, the revised transition matrix so far."""
        return self.revised().detach()

    def revised(self) -> Tensor:
        """Return T + dT, clamped at 0 and with rows of sum 1, (C, C) float64."""
        T = (self.first_T + self.dT).clamp(min=0)
        return T / T.sum(1, keepdim=True)

    def prepare(self, run: Run) -> None:
        """Train the helper network in two steps, and register the optimiser of the revision."""
        estimator = run.fit("warm-up", "ce", self.warmup, keep="best-accuracy")
        probs = run.predict_train(estimator).double().softmax(1)
        self.first_T.copy_(estimate_T(probs, anchor=self.anchor, percentile=self.percentile))

        weighted = run.fit(
            "weighted",
            self.weighted_loss,
            self.weighted,
            keep="best-accuracy",
            scores=self.noisy_posterior,
            start=estimator,
        )
        run.networks[0].load_state_dict(weighted.state_dict())

        def adam(params):
            return torch.optim.Adam(params, lr=self.lr, weight_decay=self.decay)

        params = [*run.networks[0].parameters(), self.dT]
        run.optimise(params, adam, "network0", lambda position: 1.0)

    def noisy_posterior(self, logits: Tensor) -> Tensor:
        """Return p T, (n, C) float64, with T as it was estimated."""
        return logits.double().softmax(1) @ self.first_T

    def weighted_loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Return the loss of step 2, (B,), with T as it was estimated."""
        log_p = logits.log_softmax(1)
        weights = importance(log_p.detach(), batch.labels, self.first_T)
        return -weights * own(log_p, batch.labels)

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        log_p = logits.log_softmax(1)
        weights = importance(log_p, batch.labels, self.revised())
        return -(weights * own(log_p, batch.labels)).mean()


def own(log_p: Tensor, labels: Tensor) -> Tensor:
    """Return log p_y of each example, (B,)."""
    return log_p.gather(1, labels[:, None]).squeeze(1)


def importance(log_p: Tensor, labels: Tensor, T: Tensor) -> Tensor:
    """Return beta = p_y / (p T)_y of each example, (B,), from log p (B, C) and T (C, C)."""
    columns = T.T[labels].to(log_p.dtype)  # (B, C), T[:, y] of each example
    ratios = (log_p - own(log_p, labels)[:, None]).clamp(max=GAP).exp()
    return 1 / (columns * ratios).sum(1).clamp(min=FLOOR)
