"""Peer loss with cross entropy. Liu & Guo, ICML 2020, arXiv:1910.03231.

The loss is CE(x, y) - alpha(e) CE(x1, y2), where the images x1 and the labels y2 come from two
other batches, drawn independently. The second term punishes a network that says the same of all
images. CE is -log(p_y + 1e-5), which bounds it. alpha rises with the epoch e.

Weights, floor and the two separate passes are those of the authors' code,
weijiaheng/Multi-class-Peer-Loss-functions. Differences from it:
- It draws x1 and y2 anew in each step. Here an epoch has one order of all examples for each.
- It leaves out the last batch of an epoch if that is not full.
- It keeps the epoch with the best accuracy on noisy validation data. Here, as for all methods, the
  last epoch counts.
- Left out is its own recipe for SGD, in which the learning rate is divided by 1 + alpha(e) and the
  momentum is lost after each epoch, because all methods share the protocol's optimiser.
"""

from collections.abc import Iterator
from typing import Literal, get_args

import numpy as np
from torch import Tensor

from nlbench.method import Batch, Method, Run, Task
from nlbench.ops.peers import floored_ce, with_peers

Ramp = Literal["cifar10-uniform", "cifar10-sparse", "cifar100-uniform", "cifar100-sparse"]
# The number of epochs, and pieces (first alpha, last alpha, epochs), which may be longer.
RAMPS: dict[str, tuple[int, list[tuple[float, float, int]]]] = {
    "cifar10-uniform": (
        300,
        [(0, 0, 20), (0, 0.1, 20), (1, 2, 50), (2, 2.5, 50), (2.5, 3.3, 100), (3.3, 5, 100)],
    ),
    "cifar10-sparse": (
        300,
        [(0, 0, 20), (0, 1, 20), (1, 2, 50), (2, 5, 50), (5, 10, 100), (10, 20, 100)],
    ),
    "cifar100-uniform": (250, [(0, 0, 100), (0.95, 0.95, 150)]),
    "cifar100-sparse": (250, [(0, 0, 110), (0, 2, 20), (2, 10, 70), (10, 20, 50)]),
}


class Peer(Method):
    def __init__(
        self,
        task: Task,
        # Authors' code, by dataset and noise. An epoch has the alpha of the epoch of theirs that
        # lies at the same share of the training.
        ramp: Ramp = "cifar10-uniform",
    ):
        super().__init__(task)
        if ramp not in RAMPS:
            raise ValueError(f"ramp must be one of {list(get_args(Ramp))}, got {ramp!r}")

        length, pieces = RAMPS[ramp]
        by_epoch = np.concatenate([np.linspace(*piece) for piece in pieces])
        theirs = np.arange(task.epochs) * length // task.epochs
        self.alphas: list[float] = by_epoch[theirs].tolist()
        first = int(np.argmax(by_epoch[theirs] > 0)) if any(self.alphas) else task.epochs
        self.begins = {"the peer term": first}

    def batches(self, run: Run, epoch: int) -> Iterator[tuple[Batch, Batch, Tensor]]:
        """Yield each batch of the epoch with the images and the labels of its peer term."""
        task, rng = self.task, run.generator("peers")
        for index, images, labels in with_peers(run.order(), task.num_train, task.batch_size, rng):
            yield run.batch(index), run.batch(images), task.labels[labels]

    def training_step(self, run: Run, batch: Batch, other: Batch, labels: Tensor) -> Tensor:
        """Train on the batch and its peer term; return the logits (B, C) of the batch."""
        network = run.networks[0]
        logits = network(batch.images)
        peer = floored_ce(network(other.images), labels)
        run.backward_step(floored_ce(logits, batch.labels) - self.alphas[run.epoch] * peer)
        return logits
