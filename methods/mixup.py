"""mixup. Zhang, Cisse, Dauphin & Lopez-Paz, ICLR 2018, arXiv:1710.09412.

Trains on l * x + (1 - l) * x[perm] with the loss l * CE(y) + (1 - l) * CE(y[perm]). Each batch has
one l ~ Beta(a, a) and one permutation; there is no max(l, 1 - l). This is as in the authors' code,
facebookresearch/mixup-cifar10, except that the draws of l come from the run's seed, which does not
reach them there. There are no online counts, because the logits belong to mixed images.
"""

import math

import numpy as np
import torch
from torch.nn import functional as F

from nlbench.method import Batch, Method, Run, Task


class Mixup(Method):
    mixes_inputs = True

    def __init__(
        self,
        task: Task,
        a: float = 1.0,  # default of the authors' code, which is for CIFAR-10
    ):
        super().__init__(task)
        if not 0 < a < math.inf:
            raise ValueError(f"a must be finite and above 0, got {a}")
        self.a = a

    def on_epoch_start(self, run: Run, epoch: int) -> None:
        generator = run.generator("mixup")
        # One permutation of all examples. A batch takes its own from the ranks of its examples, so
        # that no step has to copy a permutation to the device.
        self.rank = torch.randperm(self.task.num_train, generator=generator).to(self.task.device)
        self.rng = np.random.default_rng(int(torch.randint(2**63 - 1, (), generator=generator)))

    def training_step(self, run: Run, batch: Batch) -> None:
        """Train on the batch mixed with itself."""
        share = self.rng.beta(self.a, self.a)
        perm = self.rank[batch.index].argsort()
        logits = run.networks[0](share * batch.images + (1 - share) * batch.images[perm])

        own = F.cross_entropy(logits, batch.labels)
        other = F.cross_entropy(logits, batch.labels[perm])
        run.backward_step(share * own + (1 - share) * other)
