"""Two networks of cross entropy that predict together. Liu et al., NeurIPS 2020, arXiv:2007.00151.

A control experiment for ELR+, which has two networks: what ELR+ gains over this method comes from
its other parts. The two networks share the labels and nothing else. Each has its own initial
weights, order of batches and augmentation, and neither sees the other. The mean of their logits
predicts, as in the authors' code, shengliu66/ELR. Network 0 is the network that `ce` trains, unless
the network itself draws random numbers, as dropout does.
"""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from nlbench.method import Batch, Method, Run


class Ensemble(Method):
    num_networks = 2

    def batches(self, run: Run, epoch: int) -> Iterator[tuple[Batch, Batch]]:
        """Yield (batch of network 0, batch of network 1).

        The batches of network 1 are in another order, and it trains on their view 1.
        """
        order, size = run.order(), run.task.batch_size
        generator = run.generator("order of network 1")
        again = torch.randperm(len(order), generator=generator).to(order.device)
        for first, second in zip(order.split(size), order[again].split(size), strict=True):
            yield run.batch(first), run.batch(second, 1)

    def training_step(self, run: Run, first: Batch, second: Batch) -> Tensor:
        """Train each network on its batch; return the (B, C) logits of network 0."""
        logits = run.networks[0](first.images)
        run.backward_step(F.cross_entropy(logits, first.labels), "network0")

        other_logits = run.networks[1](second.view(1))
        run.backward_step(F.cross_entropy(other_logits, second.labels), "network1")
        return logits

    def predict(self, run: Run, images: Tensor) -> Tensor:
        return (run.networks[0](images) + run.networks[1](images)) / 2
