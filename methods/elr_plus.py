"""ELR+. Liu et al., NeurIPS 2020, arXiv:2007.00151, section 4.3.

ELR with mixup, weight averaging and two networks. Each network trains on mixed examples. Its
targets are running averages of what the teacher, the averaged copy of the other network, predicts
for the same examples unmixed; the online counts use these predictions. Each part can be switched
off. The networks predict by the mean of their logits.

Formula and order are those of the authors' code on one GPU, shengliu66/ELR, ELR_plus: the targets
are updated without a clamp; the networks train one after the other, an epoch each; the averaged
copies stay in training mode, do not average batch statistics, and do not predict; with 100 classes
the targets weigh the mixed labels.

Differences from that code:
- Both networks see one split and one label per example. There each loader draws its own, which lets
  a network learn about a second label.
- Ramps are shares of the training. As there, both count from the first step: the regulariser's
  position is s + 1 at step s, counted from 0, and the average's is s + 2.
- An averaged copy starts as its network. There it starts from other random weights.
- A trailing batch of one example joins the one before. Mixed labels that the targets rule out stay.
- With two GPUs, as their file for WebVision asks for, the authors' teachers are copies that are
  renewed once an epoch, and one of them predicts in place of its network.
"""

import math
from collections.abc import Iterator
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from nlbench import ops
from nlbench.method import Batch, Method, Run, Task
from nlbench.ops.averages import exponential_ramp, follow, frozen_copies
from nlbench.ops.mixmatch import chunks

Step = tuple[Batch, int, int, float, Tensor]  # see ELRPlus.batches


class ELRPlus(Method):
    def __init__(
        self,
        task: Task,
        beta: float = 0.7,  # authors, CIFAR-10; CIFAR-100: 0.9
        # Authors, CIFAR-10; CIFAR-100: 7. With 0, teachers and targets have no effect.
        lam: float = 3.0,
        # Whether the targets weigh the mixed labels. Auto: with 100 classes, as in the authors'
        # code, unless lam is 0.
        weigh_labels: Literal["auto", "yes", "no"] = "auto",
        # Authors. With 1, the network's own averaged copy is the teacher.
        networks: Literal[1, 2] = 2,
        # Authors, CIFAR-10 and CIFAR-100. With 0, there is no mixup.
        mixup_a: float = 1.0,
        # Authors. When false, the other network itself is the teacher.
        ema: bool = True,
        # Authors, CIFAR-10 and CIFAR-100. Applies at each step, so it does not scale.
        ema_decay: float = 0.997,
        # Both ramps are shares of all steps. Authors: 40,000 steps of 200 * 352, CIFAR-10; of
        # 250 * 352, CIFAR-100. With 0, as for Clothing1M and WebVision, there is no ramp: the
        # average is the mean of all steps until the decay is reached.
        ema_ramp_share: float = 40_000 / (200 * 352),
        # Authors, CIFAR-10; CIFAR-100: 40,000 steps of 250 * 352.
        lam_ramp_share: float = 0.0,
    ):
        super().__init__(task)
        for name, value in (("beta", beta), ("ema_decay", ema_decay)):
            if not 0 <= value < 1:
                raise ValueError(f"{name} must be in [0, 1), got {value}")
        for name, value in (("lam", lam), ("mixup_a", mixup_a)):
            if not 0 <= value < math.inf:
                raise ValueError(f"{name} must be finite and >= 0, got {value}")
        shares = {"ema_ramp_share": ema_ramp_share, "lam_ramp_share": lam_ramp_share}
        for name, value in shares.items():
            if not 0 <= value <= 1:
                raise ValueError(f"{name} must be in [0, 1], got {value}")
        if weigh_labels not in ("auto", "yes", "no"):
            raise ValueError(f"weigh_labels must be 'auto', 'yes' or 'no', got {weigh_labels!r}")
        if networks not in (1, 2):
            raise ValueError(f"networks must be 1 or 2, got {networks}")

        self.beta, self.lam, self.mixup_a, self.num_networks = beta, lam, mixup_a, networks
        self.mixes_inputs = mixup_a > 0
        as_authors = weigh_labels == "auto" and task.num_classes == 100 and lam > 0
        self.weighs = weigh_labels == "yes" or as_authors
        # With a decay of 0 an averaged copy has its network's weights.
        self.ema_decay = ema_decay if ema else 0.0
        steps = task.epochs * task.steps_per_epoch
        self.ema_ramp = max(1, round(ema_ramp_share * steps)) if ema_ramp_share else 0
        self.lam_ramp = round(lam_ramp_share * steps)
        for name in ("targets", "targets1")[:networks]:
            self.register_buffer(name, torch.zeros(task.num_train, task.num_classes))

    def prepare(self, run: Run) -> None:
        self.teachers = frozen_copies(run.networks)

    def batches(self, run: Run, epoch: int) -> Iterator[Step]:
        """Yield all steps of network 0, then all of network 1.

        A step is (batch, network, global step, weight of mixup, permutation (B,) of the batch).
        """
        N, device = run.task.num_train, run.task.device
        for k in range(self.num_networks):
            order = run.order()
            if k == 1:
                shuffle = run.generator("order of network 1")
                order = order[torch.randperm(len(order), generator=shuffle).to(device)]
            parts = chunks(order, run.task.batch_size)

            draws = run.generator(f"mixup of network {k}")
            # One permutation of all examples. A batch takes its own from the ranks of its examples,
            # so that no step has to copy a permutation to the device.
            rank = torch.randperm(N, generator=draws).to(device)
            rng = np.random.default_rng(int(torch.randint(2**63 - 1, (), generator=draws)))
            for i, index in enumerate(parts):
                share = rng.beta(self.mixup_a, self.mixup_a) if self.mixup_a else 1.0
                # Both networks count the same steps.
                step = epoch * len(parts) + i
                yield run.batch(index, k), k, step, max(share, 1 - share), rank[index].argsort()

    def training_step(
        self, run: Run, batch: Batch, k: int, step: int, share: float, perm: Tensor
    ) -> Tensor:
        """Train network `k`; return its teacher's (B, C) logits for the unmixed examples.

        The other arguments are those that `batches` yields.
        """

        def mixed(values: Tensor) -> Tensor:
            return share * values + (1 - share) * values[perm] if share < 1 else values

        network, images = run.networks[k], batch.view(k)
        logits = network(mixed(images))

        # The teacher is the other network's copy; a single network has its own copy as its teacher.
        with torch.no_grad():
            taught = self.teachers[k - 1](images)
        targets = self.get_buffer(("targets", "targets1")[k])
        ops.update_targets(taught, batch.index, targets, beta=self.beta, clamp=False)

        t = targets[batch.index]
        one_hot = torch.zeros_like(t).scatter_(1, batch.labels[:, None], 1.0)
        labels, t = mixed(one_hot), mixed(t)
        if self.weighs:
            weighed = labels * t
            total = weighed.sum(1, keepdim=True)
            labels = torch.where(total > 0, weighed / total, labels)

        # The authors count steps from 1.
        lam = self.lam * exponential_ramp(step + 1, self.lam_ramp)
        losses, dlogits = ops.elr_step_soft(logits.detach(), labels, t, lam=lam)
        run.backward_step(losses.mean(), f"network{k}", through=(logits, dlogits))

        follow(self.teachers[k], network, self.decay(step))
        return taught

    def own_labels(self) -> Tensor:
        """Return the targets, (N, C), on average over the networks."""
        names = ("targets", "targets1")[: self.num_networks]
        return torch.stack([self.get_buffer(name) for name in names]).mean(0)

    def decay(self, step: int) -> float:
        """Return the weight of the past in the averaged weights after `step`, counted from 0."""
        # The authors count steps from 1, and add 1 to the count here.
        count = step + 2
        if self.ema_ramp:
            return self.ema_decay * exponential_ramp(count, self.ema_ramp)
        return min(1 - 1 / count, self.ema_decay)

    def predict(self, run: Run, images: Tensor) -> Tensor:
        return sum(network(images) for network in run.networks) / len(run.networks)
