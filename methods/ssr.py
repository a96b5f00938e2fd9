"""Sample selection and relabelling, SSR and SSR+. Feng et al., BMVC 2022, arXiv:2111.11288.

Before each epoch, also the first, the network in evaluation mode sees a weakly augmented view of
each training example. From its predictions and features, the inputs of the last linear layer:
1. Relabelling: y' is the predicted class where its probability is above theta_r, else the given
   label.
2. Selection: the k nearest examples by the cosine of the features, the example itself among them,
   vote for their y'. The votes for a class are divided by its share of all y'. An example is clean
   if its y' has at least theta_s times the votes of the class that has most.

Each step learns from a batch of clean examples, drawn from a list in which each class is repeated
up to the largest one. The two strong views of these B examples are mixed, all 2B with one another:
with one l ~ Beta(alpha, alpha) and max(l, 1 - l), by cross entropy with the mixed y'. An epoch has
as many steps as for other methods. SSR+ (lam: 1) adds, for a batch of all examples,

    lam * mean of -cos(h(f(strong view)), f(weak view)),

without gradient through the weak view. f and h each have two linear layers with batch norm and ReLU
between them, trained by the protocol's optimiser.

Equations and constants are those of the authors' code, MrChenFeng/SSR_BMVC2022. As there, a class
without a clean example is left out. Differences from that code:
- Its loaders leave out the last batch of a pass if it is shorter. Here it counts.
- With lam: 0 it still passes all examples through the network, which batch norm counts. Here SSR
  has no such passes.
- An example that comes several times in an epoch has the same two views each time.
- Where no example is clean, which its loaders refuse, all are.
- A batch of one example has no consistency term, since batch norm refuses it.
"""

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from nlbench.method import Batch, Method, Run, Task
from nlbench.ops import mixmatch
from nlbench.ops.features import new_head, perceptron, with_features
from nlbench.ops.neighbours import votes_of_neighbours

# Authors' code: the widths of f and h.
HIDDEN, OUTPUT = 256, 128


class SSR(Method):
    # Images are mixed with others of the batch.
    couples_examples = True
    mixes_inputs = True

    corrected: Tensor
    clean: Tensor
    votes: Tensor

    def __init__(
        self,
        task: Task,
        # All values are from the authors' code.
        lam: float = 0.0,  # SSR; SSR+: 1
        theta_r: float = 0.9,  # CIFAR-100 with 50 to 90% noise: 0.8; Clothing1M: 0.99
        theta_s: float = 1.0,
        k: int = 200,
        alpha: float = 4.0,  # of Beta(alpha, alpha)
    ):
        super().__init__(task)
        if not 0 <= lam < math.inf:
            raise ValueError(f"lam must be finite and >= 0, got {lam}")
        for name, theta in (("theta_r", theta_r), ("theta_s", theta_s)):
            if not 0 <= theta <= 1:
                raise ValueError(f"{name} must be in [0, 1], got {theta}")
        if k < 1:
            raise ValueError(f"k must be >= 1, got {k}")
        if not 0 < alpha < math.inf:
            raise ValueError(f"alpha must be finite and above 0, got {alpha}")

        self.lam, self.theta_r, self.theta_s = lam, theta_r, theta_s
        self.k, self.alpha = k, alpha
        N, C = task.num_train, task.num_classes
        self.register_buffer("corrected", task.labels.clone())
        self.register_buffer("clean", torch.ones(N, dtype=torch.bool))
        # The neighbours' votes, divided by their sum. Before the first epoch: the given labels.
        self.register_buffer("votes", F.one_hot(task.labels, C).float())

    def prepare(self, run: Run) -> None:
        if not self.lam:
            return
        network = run.networks[0]
        self.projector = new_head(network, run.task.num_classes, HIDDEN, OUTPUT)
        self.predictor = perceptron(OUTPUT, HIDDEN, OUTPUT).to(next(network.parameters()))
        heads = [*self.projector.parameters(), *self.predictor.parameters()]
        run.optimise(heads, None, "heads")

    def on_epoch_start(self, run: Run, epoch: int) -> None:
        """Relabel and select the examples of this epoch."""
        C, part = run.task.num_classes, run.part()
        index = torch.arange(run.task.num_train, device=run.task.device) if part is None else part
        logits, features = self.look(run, index)

        confidence, guess = logits.softmax(1).max(1)
        labels = torch.where(confidence > self.theta_r, guess, run.task.labels[index])
        sizes = F.one_hot(labels, C).sum(0)
        counts = votes_of_neighbours(features, labels, C, self.k)
        votes = counts.double() / sizes.clamp(min=1)
        own = votes.gather(1, labels[:, None]).squeeze(1)
        clean = own / votes.amax(1) >= self.theta_s

        self.corrected[index] = labels
        self.clean[index] = clean if clean.any() else torch.ones_like(clean)
        self.votes[index] = (votes / votes.sum(1, keepdim=True)).to(self.votes.dtype)

    @torch.no_grad()
    def look(self, run: Run, index: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits (n, C) and features (n, F) of a weak view of the examples at `index`."""
        network = run.networks[0].eval()
        found = []
        for rows in index.split(run.task.batch_size):
            found.append(with_features(network, run.batch(rows, 1).view(1)))
        network.train()
        logits, features = zip(*found, strict=True)
        return torch.cat(logits), torch.cat(features)

    def batches(
        self, run: Run, epoch: int
    ) -> Iterator[tuple[Batch, Batch | None, np.random.Generator]]:
        """Yield (batch of clean examples, batch of all examples or None, mixup's generator)."""
        rng = mixmatch.numpy_rng(run.generator("plan"))
        mixing = mixmatch.numpy_rng(run.generator("mixup"))
        order, size = run.order(), run.task.batch_size
        clean = order[self.clean[order]]
        rows = mixmatch.balanced(clean.cpu(), self.corrected[clean].cpu(), rng)
        parts = mixmatch.cycle(rows.to(order.device), size, rng)
        for index in mixmatch.chunks(order, size):
            own = run.batch(next(parts))
            consistent = self.lam and len(index) > 1
            yield own, run.batch(index) if consistent else None, mixing

    def training_step(
        self, run: Run, batch: Batch, everything: Batch | None, rng: np.random.Generator
    ) -> None:
        """Train on two strong views of the clean `batch`, and on `everything`."""
        views = torch.cat([batch.strong(0), batch.strong(1)])
        labels = self.corrected[batch.index].repeat(2)
        targets = F.one_hot(labels, run.task.num_classes).to(views.dtype)
        inputs, mixed = mixmatch.mix(views, targets, self.alpha, rng)

        loss = F.cross_entropy(run.networks[0](inputs), mixed)
        if everything is not None:
            loss = loss - self.lam * self.agreement(run, everything)
        run.backward_step(loss)

    def agreement(self, run: Run, batch: Batch) -> Tensor:
        """Return the mean of cos(h(f(strong view)), f(weak view)) over the batch, 0-d."""
        with torch.no_grad():
            _, weak = with_features(run.networks[0], batch.view(0))
        _, strong = with_features(run.networks[0], batch.strong(2))
        with torch.autocast(weak.device.type, enabled=False):
            target = self.projector(weak).detach()
            guess = self.predictor(self.projector(strong))
        return F.cosine_similarity(guess, target, dim=1).mean()

    def own_labels(self) -> Tensor:
        """Return the neighbours' votes, (N, C)."""
        return self.votes
