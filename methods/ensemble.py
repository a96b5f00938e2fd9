"""Two networks of cross entropy that predict together, a part of ELR+. Liu et al., NeurIPS 2020, arXiv:2007.00151.

A control: what ELR+ gains over this comes from its other parts, not from having two networks. They share the labels and
nothing else: each has its own initial weights, order of batches and augmentation, and neither sees the other. The mean
of their raw logits predicts, as in the authors' code, shengliu66/ELR. Network 0 is, but for random draws in the network
itself such as dropout's, the very network that `ce` trains.
"""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from nlbench.method import Batch, Method, Run


class Ensemble(Method):
    num_networks = 2

    def batches(self, run: Run, epoch: int) -> Iterator[tuple[Batch, Batch]]:
        order, size = run.order(), run.task.batch_size
        again = torch.randperm(len(order), generator=run.generator("order of network 1")).to(order.device)
        for first, second in zip(order.split(size), order[again].split(size), strict=True):
            yield run.batch(first), run.batch(second, 1)

    def training_step(self, run: Run, first: Batch, second: Batch) -> Tensor:
        logits = run.networks[0](first.images)
        run.backward_step(F.cross_entropy(logits, first.labels), "network0")
        own = run.networks[1](second.view(1))
        run.backward_step(F.cross_entropy(own, second.labels), "network1")
        return logits

    def predict(self, run: Run, images: Tensor) -> Tensor:
        return (run.networks[0](images) + run.networks[1](images)) / 2
