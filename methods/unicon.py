"""UNICON. Karim et al., CVPR 2022, arXiv:2203.14542.

Code of the authors: nazmul-karim170/UNICON-Noisy-Label. Two networks. After a warm-up by cross
entropy, each epoch begins with a split. d of an example is the Jensen-Shannon divergence between
its given label and the mean prediction of both networks, and S is the share of examples whose d is
below the mean. In each given class the S * N / C examples of smallest d are labelled.

Then the networks learn one after the other by MixMatch (nlbench.ops.mixmatch). Predictions for
targets are those of two weak views; what is mixed and learnt from are two strong views. The target
of a labelled example is the given label with weight w (1 where d < 0.5, else 1 - d) and the
network's own prediction with 1 - w; that of an unlabelled one is the mean prediction of both
networks. Both are sharpened. The loss is CE on the labelled part, plus lambda_u times the squared
error on the unlabelled part, plus KL(uniform || mean prediction), plus lambda_c times SimCLR's loss
on projections of the unlabelled strong views. A batch has B labelled and B / (2 S) unlabelled
examples. The networks predict by summed logits.

Constants are those of the authors' code. Differences from it:
- One split an epoch serves both networks, from predictions in evaluation mode. There, d is computed
  again after the first network has learnt, which is then in training mode.
- A class with fewer than S * N / C examples is labelled as a whole. There, the places that it
  leaves empty add training image 0 that many times.
- A branch for a mean above 0.7 is left out: d is at most log 2 = 0.693.
- The projection is SimCLR's (arXiv:2002.05709), 128 outputs; the authors' is unknown to us.
- The protocol's optimiser, batch size and strong view are used. Their learning rate rises again
  after epoch 280 of 351.
- Where a split leaves fewer than two examples on a side, the epoch is one of warm-up.
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nlbench.method import Batch, Method, Run, Task
from nlbench.ops import mixmatch
from nlbench.ops.features import with_features
from nlbench.ops.small_loss import smallest_per_class
from nlbench.ops.unicon import contrast_of, label_divergence, projection, targets
from nlbench.ops.uniform import divergence_from_uniform, negative_entropy


class UNICON(Method):
    num_networks = 2
    mixes_inputs = True
    divergence: Tensor
    labelled: Tensor

    def __init__(
        self,
        task: Task,
        # All values are the authors'.
        lambda_u: float = 30.0,
        lambda_c: float = 0.025,
        temperature: float = 0.5,  # of sharpening
        contrast_temperature: float = 0.05,
        alpha: float = 4.0,  # of mixup's Beta(alpha, alpha)
        warmup_share: float = 10 / 351,  # CIFAR-100: 30 of 351 epochs
        ramp_share: float = 16 / 351,  # of lambda_u, after the warm-up
        penalty: bool = False,  # true for asymmetric noise; subtracts the entropy in the warm-up
    ):
        super().__init__(task)
        for name, value in (("lambda_u", lambda_u), ("lambda_c", lambda_c)):
            if not 0 <= value < math.inf:
                raise ValueError(f"{name} must be finite and >= 0, got {value}")
        names = ("temperature", "contrast_temperature", "alpha")
        for name, value in zip(names, (temperature, contrast_temperature, alpha), strict=True):
            if not 0 < value < math.inf:
                raise ValueError(f"{name} must be finite and above 0, got {value}")
        for name, share in (("warmup_share", warmup_share), ("ramp_share", ramp_share)):
            if not 0 <= share <= 1:
                raise ValueError(f"{name} must be in [0, 1], got {share}")

        self.lambda_u, self.lambda_c, self.alpha = lambda_u, lambda_c, alpha
        self.temperature, self.contrast_temperature = temperature, contrast_temperature
        self.warmup = task.scaled(warmup_share, of=1) if warmup_share else 0
        self.ramp, self.penalty = ramp_share * task.epochs, penalty
        self.begins = {"MixMatch": self.warmup}
        self.register_buffer("divergence", torch.zeros(task.num_train))  # d
        self.register_buffer("labelled", torch.ones(task.num_train, dtype=torch.bool))
        self.share = 1.0  # S of this epoch

    def prepare(self, run: Run) -> None:
        """Give each network its projection, trained as the protocol trains the network."""
        C = run.task.num_classes
        self.projections = nn.ModuleList(projection(network, C) for network in run.networks)
        for i, head in enumerate(self.projections):
            run.optimise(head.parameters(), None, f"head{i}")

    def on_epoch_start(self, run: Run, epoch: int) -> None:
        """Split the examples of this epoch, after the warm-up."""
        if epoch < self.warmup:
            return
        part, C = run.part(), run.task.num_classes
        seen = slice(None) if part is None else part
        labels = run.task.labels[seen]
        logits = [run.predict_train(network, part).double() for network in run.networks]
        d = label_divergence(mixmatch.mean_prediction(*logits), labels)
        below = int((d < d.mean()).sum())
        self.share = below / len(d)
        self.divergence[seen] = d.to(self.divergence.dtype)
        self.labelled[seen] = smallest_per_class(d, labels, below // C, C)

    def batches(self, run: Run, epoch: int) -> Iterator[tuple[Any, ...]]:
        """Yield all steps of network 0, then all of network 1.

        A step is (network, batch), or with MixMatch (network, labelled batch, unlabelled batch,
        weight of the unlabelled loss, generator of the mixing draws).
        """
        size = run.task.batch_size
        for i in range(2):
            rng = mixmatch.numpy_rng(run.generator(f"plan{i}"))
            mixing = mixmatch.numpy_rng(run.generator(f"mix{i}"))
            order = run.order()
            if i == 1:
                order = order[mixmatch.permutation(len(order), rng, order.device)]

            labelled, others = order[self.labelled[order]], order[~self.labelled[order]]
            if epoch < self.warmup or min(len(labelled), len(others)) < 2:
                yield from ((i, run.batch(index)) for index in mixmatch.chunks(order, size))
                continue

            # The authors' number of steps, which is one too many where the size divides n.
            steps = len(labelled) // size + 1
            unlabelled = mixmatch.cycle(others, max(2, int(size / (2 * self.share))), rng)
            for step, index in enumerate(mixmatch.chunks(labelled, size)):
                ramp = mixmatch.linear_ramp(epoch + step / steps, self.warmup, self.ramp)
                x, u = run.batch(index, 0, 1), run.batch(next(unlabelled), 0, 1)
                yield i, x, u, self.lambda_u * ramp, mixing

    def training_step(
        self,
        run: Run,
        i: int,
        batch: Batch,
        others: Batch | None = None,
        lam: float = 0.0,
        rng: np.random.Generator | None = None,
    ) -> None:
        """Train network `i` on a step of `batches`: without `others`, on one of the warm-up."""
        own = run.networks[i].train()
        if others is None or rng is None:
            logits = own(batch.images)
            penalty = negative_entropy(logits) if self.penalty else 0.0
            run.backward_step(F.cross_entropy(logits, batch.labels) + penalty, f"network{i}")
            return

        other, d = run.networks[1 - i].eval(), self.divergence[batch.index, None]
        x, u = (batch.view(0), batch.view(1)), (others.view(0), others.view(1))
        soft = targets(own, other, x, u, batch.labels, d, self.temperature)
        x, u = (batch.strong(0), batch.strong(1)), (others.strong(0), others.strong(1))
        first, second = (with_features(own, images)[1] for images in u)
        contrast = contrast_of(self.projections[i], first, second, self.contrast_temperature)

        inputs, mixed = mixmatch.mix(torch.cat([*x, *u]), soft, self.alpha, rng)
        logits = own(inputs)
        ce, squared = mixmatch.semi_supervised_losses(logits, mixed, 2 * len(batch))
        regulariser = divergence_from_uniform(logits.log_softmax(1))
        loss = ce + lam * squared + self.lambda_c * contrast + regulariser
        run.backward_step(loss, f"network{i}", f"head{i}")

    def own_labels(self) -> Tensor:
        """Return 1 - d / log 2, (N,), with d of the last split."""
        return (1 - self.divergence / math.log(2)).clamp(0, 1)

    def predict(self, run: Run, images: Tensor) -> Tensor:
        return run.networks[0](images) + run.networks[1](images)
