"""DivideMix. Li, Socher & Hoi, ICLR 2020, arXiv:2002.07394.

Two networks. After a warm-up by cross entropy, each epoch fits a mixture of two Gaussians to each network's losses; the
posterior w of the lower one splits the examples, and each network then learns by MixMatch (nlbench.ops.mixmatch) on the
OTHER one's split. Examples with w above the threshold keep their label as far as w says so and take the network's own
prediction for the rest; the others take what both networks guess. The loss is CE on the first, lambda_u times the
squared error on the others, and KL(uniform || mean prediction), which keeps a class from taking all. The networks
predict by summed logits.

Constants as in the authors' code, LiJunnan1992/DivideMix; warm-up and ramp keep their share of the training. Here, not
there: the protocol's optimiser and batch size; losses are always those of this epoch (for 90% noise theirs averages
five, and a method cannot know that); both networks see the same two augmentations of an example. Where a split leaves
fewer than two examples on a side, or all losses are equal, the epoch is one of warm-up for the network that it is for.
"""

import math
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from torch import Tensor
from torch.nn import functional as F

from nlbench.method import Batch, Method, Run, Task
from nlbench.ops import mixmatch


class DivideMix(Method):
    num_networks = 2
    clean: Tensor

    def __init__(
        self,
        task: Task,
        lambda_u: float = 25.0,  # authors; CIFAR-10 20%: 0, CIFAR-100 90%: 150 (theirs); CIFAR-N: 0 (a reproduction)
        threshold: float = 0.5,  # authors; CIFAR-100 90%: 0.6
        temperature: float = 0.5,  # authors
        alpha: float = 4.0,  # authors
        warmup_share: float = 10 / 300,  # authors, CIFAR-10; CIFAR-100: 30 of 300
        ramp_share: float = 16 / 300,  # authors
        penalty: bool = False,  # authors: true for asymmetric noise; less the mean entropy in the warm-up's loss
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
        self.lambda_u, self.threshold, self.temperature, self.alpha = lambda_u, threshold, temperature, alpha
        self.warmup = task.scaled(warmup_share, of=1) if warmup_share else 0
        self.ramp, self.penalty = ramp_share * task.epochs, penalty
        self.register_buffer("clean", torch.ones(2, task.num_train))  # w, by each network

    def on_epoch_start(self, run: Run, epoch: int) -> None:
        part = run.part()
        rows = slice(None) if part is None else part
        for i, network in enumerate(run.networks if epoch >= self.warmup else []):
            logits = run.predict_train(network, part)
            losses = F.cross_entropy(logits, run.task.labels[rows], reduction="none")
            self.clean[i, rows] = posterior(losses, run.generator(f"mixture{i}"))

    def batches(self, run: Run, epoch: int) -> Iterator[tuple[Any, ...]]:
        for i in range(2):
            rng, mixing = (mixmatch.numpy_rng(run.generator(f"{name}{i}")) for name in ("plan", "mix"))
            size = run.task.batch_size
            order = run.order()
            if i == 1:
                order = order[torch.from_numpy(rng.permutation(len(order)))]
            kept = self.clean[1 - i, order] > self.threshold
            labelled, unlabelled = order[kept], order[~kept]
            if epoch < self.warmup or min(len(labelled), len(unlabelled)) < 2:
                for index in order.split(size):
                    yield i, run.batch(index)
                continue
            parts = mixmatch.chunks(labelled, size)
            for step, (index, other) in enumerate(zip(parts, mixmatch.cycle(unlabelled, size, rng), strict=False)):
                ramp = mixmatch.linear_ramp(epoch + step / len(parts), self.warmup, self.ramp)
                yield i, run.batch(index, 0, 1), run.batch(other, 0, 1), self.lambda_u * ramp, mixing

    def training_step(self, run: Run, i: int, batch: Batch, *semi: Any) -> None:
        own, other = run.networks[i].train(), run.networks[1 - i].eval()
        if not semi:
            log_p = own(batch.images).log_softmax(1)
            negative_entropy = (log_p.exp() * log_p).sum(1).mean()
            loss = F.nll_loss(log_p, batch.labels) + (negative_entropy if self.penalty else 0.0)
            run.backward_step(loss, f"network{i}")
            return
        unlabelled, lam, rng = semi
        x, u = ([part.view(0), part.view(1)] for part in (batch, unlabelled))
        with torch.no_grad():
            w = self.clean[1 - i, batch.index, None]
            labels = F.one_hot(batch.labels, run.task.num_classes)
            guess = mixmatch.mean_prediction(*map(own, u), *map(other, u))
            refined = w * labels + (1 - w) * mixmatch.mean_prediction(*map(own, x))
            targets = [mixmatch.sharpen(t, self.temperature) for t in (refined, refined, guess, guess)]
            inputs, mixed = mixmatch.mix(torch.cat(x + u), torch.cat(targets), self.alpha, rng)
        logits = own(inputs)
        ce, squared = mixmatch.semi_supervised_losses(logits, mixed, 2 * len(batch))
        run.backward_step(ce + lam * squared + divergence_from_uniform(logits), f"network{i}")

    def predict(self, run: Run, images: Tensor) -> Tensor:
        return run.networks[0](images) + run.networks[1](images)


def posterior(losses: Tensor, generator: torch.Generator) -> Tensor:
    """(N,) float32 probability that each of `losses` (N,) belongs to the lower of two Gaussians; ones without a fit."""
    span = losses.max() - losses.min()
    if not (span.isfinite() and span > 0):
        return torch.ones_like(losses, dtype=torch.float32)
    scaled = ((losses - losses.min()) / span).double().cpu().numpy()[:, None]
    seed = int(torch.randint(2**31, (), generator=generator))
    mixture = GaussianMixture(2, max_iter=10, tol=1e-2, reg_covar=5e-4, random_state=seed)  # authors
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # ten iterations are meant to be all
        w = mixture.fit(scaled).predict_proba(scaled)[:, mixture.means_.argmin()]
    return torch.from_numpy(w).to(losses.device, torch.float32)


def divergence_from_uniform(logits: Tensor) -> Tensor:
    """KL(uniform || mean over b of softmax(logits)), 0-d; finite where a class's mean probability underflows."""
    M, C = logits.shape
    log_mean = logits.log_softmax(1).logsumexp(0) - math.log(M)
    return -math.log(C) - log_mean.mean()
