"""DivideMix. Li, Socher & Hoi, ICLR 2020, arXiv:2002.07394.

Trains two networks. After a warm-up by cross entropy, each epoch fits a mixture of two Gaussians to
each network's losses. The probability w that an example belongs to the lower one splits the
examples, and each network learns by MixMatch (nlbench.ops.mixmatch) on the split of the OTHER one.
Examples with w above the threshold are labelled: their target is the given label with weight w and
the network's own prediction with 1 - w. The others' target is guessed by both networks. The loss is
CE on the labelled part, plus lambda_u times the squared error on the unlabelled part, plus
KL(uniform || mean prediction), which keeps one class from taking all. Summed logits predict.

Constants are those of the authors' code, LiJunnan1992/DivideMix. Warm-up and ramp keep their share
of the training. Differences from that code:
- The protocol's optimiser and batch size are used, also in the warm-up, whose batches are twice as
  large there. Their loop runs one epoch more than its number of epochs, 301 for 300; as published,
  a suite sets 301.
- On Clothing1M and WebVision, where lambda_u is 0, their code does not pass the mixed unlabelled
  half through the network. Here batch norm and the KL term always see both halves.
- The losses are always those of this epoch. For 90% noise, the authors average five epochs.
- Both networks see the same two augmentations of an example.
- Where a split leaves fewer than two examples on a side, or all losses are equal, the network that
  would learn from it has an epoch of warm-up.
"""

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from nlbench.method import Batch, Method, Run, Task
from nlbench.ops import mixmatch
from nlbench.ops.gaussian_mixture import posterior
from nlbench.ops.uniform import divergence_from_uniform

WarmUpStep = tuple[int, Batch]  # see DivideMix.batches
MixMatchStep = tuple[int, Batch, Batch, float, np.random.Generator]


class DivideMix(Method):
    num_networks = 2
    mixes_inputs = True
    clean: Tensor

    def __init__(
        self,
        task: Task,
        # Authors; CIFAR-10 20%: 0, CIFAR-100 90%: 150 (both theirs). CIFAR-N: 0 (a reproduction).
        lambda_u: float = 25.0,
        threshold: float = 0.5,  # authors; CIFAR-100 90%: 0.6
        temperature: float = 0.5,  # authors
        alpha: float = 4.0,  # authors
        warmup_share: float = 10 / 300,  # authors, CIFAR-10; CIFAR-100: 30 of 300 epochs
        ramp_share: float = 16 / 300,  # authors
        # Authors: true for asymmetric noise. Subtracts the mean entropy in the warm-up's loss.
        penalty: bool = False,
    ):
        super().__init__(task)
        if not 0 <= lambda_u < math.inf:
            raise ValueError(f"lambda_u must be finite and >= 0, got {lambda_u}")
        if not 0 <= threshold < 1:
            raise ValueError(f"threshold must be in [0, 1), got {threshold}")
        for name, value in (("temperature", temperature), ("alpha", alpha)):
            if not 0 < value < math.inf:
                raise ValueError(f"{name} must be finite and above 0, got {value}")
        for name, share in (("warmup_share", warmup_share), ("ramp_share", ramp_share)):
            if not 0 <= share <= 1:
                raise ValueError(f"{name} must be in [0, 1], got {share}")

        self.lambda_u, self.threshold = lambda_u, threshold
        self.temperature, self.alpha = temperature, alpha
        self.warmup = task.scaled(warmup_share, of=1) if warmup_share else 0
        self.ramp, self.penalty = ramp_share * task.epochs, penalty
        self.begins = {"MixMatch": self.warmup}
        # w of each example, by each network.
        self.register_buffer("clean", torch.ones(2, task.num_train))

    def on_epoch_start(self, run: Run, epoch: int) -> None:
        """Let each network judge, after the warm-up, which examples of this epoch are clean."""
        if epoch < self.warmup:
            return

        part = run.part()
        seen = slice(None) if part is None else part
        for i, network in enumerate(run.networks):
            logits = run.predict_train(network, part)
            losses = F.cross_entropy(logits, run.task.labels[seen], reduction="none")
            self.clean[i, seen] = posterior(losses, run.generator(f"mixture{i}"))

    def batches(self, run: Run, epoch: int) -> Iterator[WarmUpStep | MixMatchStep]:
        """Yield all steps of network 0, then all of network 1.

        A step of the warm-up is (network, batch). A step of MixMatch is (network, labelled batch,
        unlabelled batch, weight of the unlabelled loss, generator of the mixing draws).
        """
        size = run.task.batch_size
        for i in range(2):
            rng = mixmatch.numpy_rng(run.generator(f"plan{i}"))
            mixing = mixmatch.numpy_rng(run.generator(f"mix{i}"))
            order = run.order()
            if i == 1:
                order = order[torch.from_numpy(rng.permutation(len(order)))]

            is_clean = self.clean[1 - i, order] > self.threshold
            labelled, unlabelled = order[is_clean], order[~is_clean]
            if epoch < self.warmup or min(len(labelled), len(unlabelled)) < 2:
                for index in order.split(size):
                    yield i, run.batch(index)
                continue

            # The authors' number of steps, which is one too many where the size divides n.
            steps = len(labelled) // size + 1
            parts = mixmatch.chunks(labelled, size)
            others = mixmatch.cycle(unlabelled, size, rng)
            for step, (index, other) in enumerate(zip(parts, others, strict=False)):
                position = epoch + step / steps
                lam = self.lambda_u * mixmatch.linear_ramp(position, self.warmup, self.ramp)
                yield i, run.batch(index, 0, 1), run.batch(other, 0, 1), lam, mixing

    def training_step(
        self,
        run: Run,
        i: int,
        batch: Batch,
        unlabelled: Batch | None = None,
        lam: float = 0.0,
        rng: np.random.Generator | None = None,
    ) -> None:
        """Train network `i`, by MixMatch if there is an unlabelled batch, else as in the warm-up.

        Args:
            lam: weight of the loss of the unlabelled batch.
            rng: of the mixing draws.
        """
        own, other = run.networks[i].train(), run.networks[1 - i].eval()
        if unlabelled is None or rng is None:
            run.backward_step(self.warmup_loss(own(batch.images), batch.labels), f"network{i}")
            return

        x = [batch.view(0), batch.view(1)]
        u = [unlabelled.view(0), unlabelled.view(1)]
        with torch.no_grad():
            w = self.clean[1 - i, batch.index, None]
            labels = F.one_hot(batch.labels, run.task.num_classes)
            guess = mixmatch.mean_prediction(*map(own, u), *map(other, u))
            refined = w * labels + (1 - w) * mixmatch.mean_prediction(*map(own, x))

            # Both views of an example have the same target.
            soft = (refined, refined, guess, guess)
            targets = torch.cat([mixmatch.sharpen(t, self.temperature) for t in soft])
            inputs, mixed = mixmatch.mix(torch.cat(x + u), targets, self.alpha, rng)

        logits = own(inputs)
        ce, squared = mixmatch.semi_supervised_losses(logits, mixed, 2 * len(batch))
        loss = ce + lam * squared + divergence_from_uniform(logits.log_softmax(1))
        run.backward_step(loss, f"network{i}")

    def warmup_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the cross entropy, 0-d, minus the mean entropy if the penalty is on."""
        log_p = logits.log_softmax(1)
        negative_entropy = (log_p.exp() * log_p).sum(1).mean()
        return F.nll_loss(log_p, labels) + (negative_entropy if self.penalty else 0.0)

    def own_labels(self) -> Tensor:
        """Return w, (N,), on average over the networks."""
        return self.clean.mean(0)

    def predict(self, run: Run, images: Tensor) -> Tensor:
        return run.networks[0](images) + run.networks[1](images)
