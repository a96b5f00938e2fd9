"""ProMix. Xiao et al., IJCAI 2023, arXiv:2207.10276, https://github.com/Justherozen/ProMix.

Two networks train at the same time, each with a second, "pseudo" head on its features. After a
warm-up by cross entropy, a network selects before each epoch the rho * N / C examples of smallest
loss in each given class, and in each step those whose label it predicts with p > tau. At the end of
the training, batches with fewer than 90% selected are filled up to that by examples of which both
networks predict the same class with p > tau, the surest first; their label is the guess below.

From the selected examples both heads learn

    CE(weak view) + w * (CE(strong view) + mixup + FMix),    w = min(1, epoch / 50).

The pseudo head also learns from the others, with the weight beta of at most 0.1: CE(weak view) +
w * CE(strong view) to the primary head's prediction, sharpened. pi, a running mean of the
predictions of the selected, and another one of the others correct for unequal classes: losses take
logits + a log pi, the guess is the argmax of logits - b log pi, and so are the sharpened targets.
The networks predict by the mean logits of their primary heads.

Constants are those of the authors' code (Train_promix.py, run.sh). Differences from it:
- A line that should cap beta switches it off at twice the ramp. Here it stays, unless `official`.
- In the warm-up with penalty the authors clamp the logits at 1e-12 from below. Here they do not.
- The protocol's optimiser and batch size are used. A trailing batch, which they drop, is used too.
- The strong view is that of the protocol. Theirs is RandAugment(3, 5), then crop and flip.
- The masks are those of FMix's paper, see nlbench.ops.fmix.
- Where no example of a batch is selected, or all are, the terms without examples are left out; in
  their code the loss is then NaN. A single selected example is mixed with itself.
The momentum of pi is per step and does not scale. rho was chosen for each rate of noise.
"""

import functools
import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nlbench.method import Batch, Method, Run, Task
from nlbench.ops import mixmatch
from nlbench.ops.features import new_head, with_features
from nlbench.ops.promix import Losses, View
from nlbench.ops.small_loss import smallest_per_class
from nlbench.ops.uniform import negative_entropy

MOMENTUM = 0.9999  # authors' code, of pi


class ProMix(Method):
    num_networks = 2
    mixes_inputs = True
    selected: Tensor
    pi: Tensor

    def __init__(
        self,
        task: Task,
        # All values are the authors'. For CIFAR-10 and CIFAR-100 with 20% symmetric noise: 0.7.
        rho: float = 0.5,
        tau: float = 0.99,  # CIFAR-100: 0.95
        a: float = 0.8,  # CIFAR-100: 0.5
        b: float = 0.8,  # CIFAR-100: 0.5
        beta: float = 0.1,
        temperature: float = 0.5,
        alpha: float = 4.0,  # of mixup's Beta(alpha, alpha)
        warmup_share: float = 10 / 601,  # CIFAR-100: 30 of 601 epochs
        ramp_share: float = 50 / 601,
        late_share: float = 250 / 601,  # of the last epochs, which fill up batches
        official: bool = False,  # beta falls to 0 at twice the ramp, as in the authors' code
        penalty: bool = False,  # true for asymmetric noise; subtracts the entropy in the warm-up
    ):
        super().__init__(task)
        for name, value in (("rho", rho), ("tau", tau)):
            if not 0 < value <= 1:
                raise ValueError(f"{name} must be in (0, 1], got {value}")
        for name, value in (("a", a), ("b", b), ("beta", beta)):
            if not 0 <= value < math.inf:
                raise ValueError(f"{name} must be finite and >= 0, got {value}")
        for name, value in (("temperature", temperature), ("alpha", alpha)):
            if not 0 < value < math.inf:
                raise ValueError(f"{name} must be finite and above 0, got {value}")
        shares = {"warmup_share": warmup_share, "ramp_share": ramp_share, "late_share": late_share}
        for name, share in shares.items():
            if not 0 <= share <= 1:
                raise ValueError(f"{name} must be in [0, 1], got {share}")

        self.rho, self.beta, self.official, self.penalty = rho, beta, official, penalty
        self.losses, self.ramp = Losses(tau, a, b, temperature, alpha), ramp_share * task.epochs
        self.warmup = task.scaled(warmup_share, of=1) if warmup_share else 0
        late = task.scaled(late_share, of=1) if late_share else 0
        self.late = max(self.warmup, task.epochs - late)
        self.begins = {"selection": self.warmup, "label guessing": self.late}
        N, C = task.num_train, task.num_classes
        # By network: the selection by loss, and pi of the selected and of the others.
        self.register_buffer("selected", torch.ones(2, N, dtype=torch.bool))
        self.register_buffer("pi", torch.full((2, 2, C), 1 / C))

    def prepare(self, run: Run) -> None:
        """Give each network its pseudo head, trained as the protocol trains the network."""
        C = run.task.num_classes
        self.pseudo = nn.ModuleList(new_head(network, C, C) for network in run.networks)
        for k, head in enumerate(self.pseudo):
            run.optimise(head.parameters(), None, f"head{k}")

    def on_epoch_start(self, run: Run, epoch: int) -> None:
        """Select the examples of smallest loss, after the warm-up."""
        if epoch < self.warmup:
            return
        part, C = run.part(), run.task.num_classes
        seen = slice(None) if part is None else part
        labels = run.task.labels[seen]
        # Rounding errors must not make a whole number one more.
        count = max(1, math.ceil(self.rho * len(labels) / C - 1e-9))
        for k, network in enumerate(run.networks):
            losses = F.cross_entropy(run.predict_train(network, part), labels, reduction="none")
            self.selected[k, seen] = smallest_per_class(losses, labels, count, C)

    def batches(self, run: Run, epoch: int) -> Iterator[tuple[Batch, np.random.Generator]]:
        """Yield (batch, generator of the mixing draws)."""
        rng = mixmatch.numpy_rng(run.generator("mix"))
        for index in mixmatch.chunks(run.order(), run.task.batch_size):
            yield run.batch(index), rng

    def training_step(self, run: Run, batch: Batch, rng: np.random.Generator) -> Tensor:
        """Train both networks; return the (B, C) logits of network 0 for the weak view."""
        weak = [self.both_heads(run, k, batch.images) for k in range(2)]
        terms: list[Tensor] = []
        if run.epoch < self.warmup:
            for logits, _ in weak:
                terms.append(F.cross_entropy(logits, batch.labels))
                terms += [negative_entropy(logits)] if self.penalty else []
        else:
            z, fills = [primary.detach() for primary, _ in weak], run.epoch >= self.late
            for k in range(2):
                both, log_pi = functools.partial(self.both_heads, run, k), self.pi[k].log()
                mine = z[k], z[1 - k], self.selected[k, batch.index]
                chosen, labels = self.losses.choose(*mine, batch.labels, log_pi, fills)
                strong = both(batch.strong(0))
                seen = View(batch.images, weak[k], strong, chosen, labels, log_pi)
                terms += self.losses.terms(both, seen, self.weights(run.epoch), rng)
                self.follow(k, z[k].softmax(1), chosen)
        if terms:
            run.backward_step(torch.stack(terms).sum())
        return weak[0][0]

    def both_heads(self, run: Run, k: int, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits (B, C) of network k's primary head, and of its pseudo head."""
        logits, features = with_features(run.networks[k], images)
        with torch.autocast(images.device.type, enabled=False):
            return logits, self.pseudo[k](features)

    def follow(self, k: int, p: Tensor, chosen: Tensor) -> None:
        """Move pi of network k towards the means of p (B, C) of both kinds of examples."""
        for kind, members in enumerate((chosen, ~chosen)):
            if members.any():
                mean = p[members].mean(0).to(self.pi.dtype)
                self.pi[k, kind].lerp_(mean, 1 - MOMENTUM)

    def weights(self, epoch: int) -> tuple[float, float]:
        """Return w and beta of an epoch."""
        w, rising = (mixmatch.linear_ramp(epoch, 0, n * self.ramp) for n in (1, 2))
        # Rounding may leave a ramp just below its end.
        return w, 0.0 if self.official and rising > 1 - 1e-9 else self.beta * rising

    def own_labels(self) -> Tensor:
        """Return which examples the last selection by loss took, (N,), on average over networks."""
        return self.selected.double().mean(0)

    def predict(self, run: Run, images: Tensor) -> Tensor:
        return (run.networks[0](images) + run.networks[1](images)) / 2
