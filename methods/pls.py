"""Pseudo-loss selection, PLS. Albert et al., WACV 2023, arXiv:2210.04578.

Trains by mixup in a warm-up. After it, before each epoch:
1. A mixture of two Gaussians is fitted to the cross entropies of all examples with their given
   labels. An example is noisy if it belongs to the higher one with a probability above `threshold`.
2. From the second such epoch on, another one is fitted to the noisy examples' pseudo-losses, the
   cross entropies with their pseudo-labels of the epoch before. The weight w of a noisy example is
   the probability of the lower component. All other weights are 1.
A step gives each example a pseudo-label: the mean prediction for two weak views, in training mode
and without gradient, to the power `sharpening`, divided by its sum. The target t of a noisy example
is its pseudo-label, that of another its given label. Images are mixed in pairs (an example and its
partner', from a permutation of the batch) with l ~ Beta(alpha, alpha), max(l, 1 - l). The loss is

    l sum(w CE(t)) / sum(w) + (1 - l) sum(w' CE(t')) / sum(w')
    + sum_k (1/C) log((1/C) / mean over the batch of p_k)
    - mean over i of sum_j m_ij log s_ij / sum_j m_ij;

in the warm-up the first line, with w = 1. s_i is the softmax over the batch of cos(z_i, z~_j)
divided by `temperature`. z projects the features of mixed images, and z~ those of strong views.
Row i of m is l M_i + (1 - l) M_i', with M_ij = w_i w_j [c_i = c_j] + (1 - w_i)^2 [i = j] and c the
top class of the mixed target. So a trusted example is drawn to those of its class, and another one
to its own strong view. The features are the inputs of the last linear layer. The projection is
linear, and trained by the protocol's optimiser.

Equations and constants are those of the authors' code, PaulAlbert31/PLS. Differences from it:
- Strong views are the protocol's. Theirs are SimCLR's: a resized crop, jitter of colours, grey.
- Where fewer than three examples are noisy, their weights are 1. There they keep old ones.
- If all weights of a batch are 0, its first term is 0. There it is not defined.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from nlbench.method import Batch, Method, Run, Task
from nlbench.ops.features import new_head, with_features
from nlbench.ops.gaussian_mixture import posterior
from nlbench.ops.mixmatch import mean_prediction, numpy_rng, permutation
from nlbench.ops.uniform import divergence_from_uniform

# Authors' code, of the projection.
WIDTH = 128


class PLS(Method):
    # Images are mixed with others of the batch, and compared with them.
    couples_examples = True
    mixes_inputs = True

    guesses: Tensor
    noisy: Tensor
    weights: Tensor

    def __init__(
        self,
        task: Task,
        # All values are from the authors' code, for CIFAR-100.
        threshold: float = 0.95,  # with 80% noise: 0.5
        sharpening: float = 2.0,
        temperature: float = 0.2,
        alpha: float = 1.0,  # of Beta(alpha, alpha)
        warmup_share: float = 30 / 200,
    ):
        super().__init__(task)
        if not 0 <= threshold < 1:
            raise ValueError(f"threshold must be in [0, 1), got {threshold}")
        positive = {"sharpening": sharpening, "temperature": temperature, "alpha": alpha}
        for name, value in positive.items():
            if not 0 < value < math.inf:
                raise ValueError(f"{name} must be finite and above 0, got {value}")
        if not 0 <= warmup_share <= 1:
            raise ValueError(f"warmup_share must be in [0, 1], got {warmup_share}")

        self.threshold, self.sharpening = threshold, sharpening
        self.temperature, self.alpha = temperature, alpha
        self.warmup = task.scaled(warmup_share, of=1) if warmup_share else 0
        self.begins = {"pseudo-labels": self.warmup, "their weights": self.warmup + 1}
        N, C = task.num_train, task.num_classes
        # The pseudo-labels of an example's last step.
        self.register_buffer("guesses", F.one_hot(task.labels, C).float())
        self.register_buffer("noisy", torch.zeros(N, dtype=torch.bool))
        self.register_buffer("weights", torch.ones(N))

    def prepare(self, run: Run) -> None:
        self.projection = new_head(run.networks[0], run.task.num_classes, WIDTH)
        run.optimise(self.projection.parameters(), None, "projection")

    def on_epoch_start(self, run: Run, epoch: int) -> None:
        """Find the noisy examples and their weights."""
        if epoch < self.warmup:
            return
        part = run.part()
        seen = slice(None) if part is None else part
        logits = run.predict_train(run.networks[0], part)
        losses = F.cross_entropy(logits, run.task.labels[seen], reduction="none")
        noisy = 1 - posterior(losses, run.generator("noisy")) > self.threshold

        weights = torch.ones_like(self.weights[seen])
        if epoch > self.warmup and noisy.sum() > 2:
            guesses = self.guesses[seen][noisy].to(logits.dtype)
            pseudo_losses = F.cross_entropy(logits[noisy], guesses, reduction="none")
            trust = posterior(pseudo_losses, run.generator("pseudo-losses"))
            weights[noisy] = trust.to(weights.dtype)
        self.noisy[seen], self.weights[seen] = noisy, weights

    def batches(self, run: Run, epoch: int) -> Iterator[tuple[Batch, float, Tensor]]:
        """Yield (batch, l, the partners' positions in the batch)."""
        rng = numpy_rng(run.generator("mixup"))
        views = (0,) if epoch < self.warmup else (0, 1)
        for index in run.order().split(run.task.batch_size):
            drawn = float(rng.beta(self.alpha, self.alpha))
            partner = permutation(len(index), rng, index.device)
            yield run.batch(index, *views), max(drawn, 1 - drawn), partner

    def training_step(self, run: Run, batch: Batch, share: float, partner: Tensor) -> None:
        """Train on the mixed batch."""
        network, x = run.networks[0], batch.images
        target = F.one_hot(batch.labels, run.task.num_classes).to(x.dtype)
        w = torch.ones_like(target[:, 0])
        if run.epoch >= self.warmup:
            w = self.weights[batch.index].to(x.dtype)
            guess = self.guess(run, batch)
            target = torch.where(self.noisy[batch.index, None], guess, target)

        logits, features = with_features(network, share * x + (1 - share) * x[partner])
        loss = share * weighted(logits, target, w)
        loss = loss + (1 - share) * weighted(logits, target[partner], w[partner])
        if run.epoch >= self.warmup:
            loss = loss + divergence_from_uniform(logits.log_softmax(1))
            M = pairs((share * target + (1 - share) * target[partner]).argmax(1), w)
            m = share * M + (1 - share) * M[partner]
            _, others = with_features(network, batch.strong(0))
            loss = loss + self.contrast(features, others, m)
        run.backward_step(loss)

    @torch.no_grad()
    def guess(self, run: Run, batch: Batch) -> Tensor:
        """Return the pseudo-labels of a batch, (B, C), and keep them."""
        network = run.networks[0]
        p = mean_prediction(network(batch.view(0)), network(batch.view(1))) ** self.sharpening
        guess = p / p.sum(1, keepdim=True)
        self.guesses[batch.index] = guess.to(self.guesses.dtype)
        return guess

    def contrast(self, features: Tensor, others: Tensor, m: Tensor) -> Tensor:
        """Return the last term, 0-d, of features (B, F) of mixed images and of strong views."""
        with torch.autocast(m.device.type, enabled=False):
            z, other = F.normalize(self.projection(features)), F.normalize(self.projection(others))
            similarities = z @ other.T / self.temperature
        return F.cross_entropy(similarities, m / m.sum(1, keepdim=True))

    def own_labels(self) -> Tensor:
        """Return the pseudo-labels of noisy examples and the given labels of others, (N, C)."""
        given = F.one_hot(self.task.labels, self.task.num_classes).to(self.guesses.dtype)
        return torch.where(self.noisy[:, None], self.guesses, given)


def weighted(logits: Tensor, target: Tensor, w: Tensor) -> Tensor:
    """Return the mean of the cross entropies with `target` (B, C), weighted by w (B,), 0-d."""
    losses = F.cross_entropy(logits, target, reduction="none")
    return (w * losses).sum() / w.sum().clamp(min=1e-12)


def pairs(classes: Tensor, w: Tensor) -> Tensor:
    """Return M (B, B) of the examples' classes (B,) and weights (B,)."""
    same = (classes[:, None] == classes).to(w.dtype)
    return w[:, None] * w * same + torch.diag((1 - w) ** 2)
