"""ELR+. Liu, Niles-Weed, Razavian & Fernandez-Granda, NeurIPS 2020, arXiv:2007.00151, section 4.3.

ELR with mixup, weight averaging and two networks: each trains on mixed examples, and its targets are running averages
of what the averaged copy of the other predicts for the unmixed ones. Each part has a switch. Formula and order are of
the authors' code on one GPU, shengliu66/ELR, ELR_plus: targets are updated without a clamp; the networks train one
after the other, an epoch each; averaged copies stay in training mode, average no batch statistics, and do not predict;
with 100 classes the targets weigh the mixed labels. What differs: both networks see one split and one label per example
(there each loader drew its own, which tells a network of a second label); ramps are shares of the training; a copy
starts as its network (there from other random weights); a trailing batch of one example, which batch norm may refuse,
joins the batch before; mixed labels that the targets rule out wholly stay as they are; and the weight averaging is that
of CIFAR, not of Clothing1M and WebVision. Online counts are of the averaged copies' predictions for unmixed examples.
"""

import copy
import math
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from nlbench import ops
from nlbench.method import Method, Run, Task


class ELRPlus(Method):
    def __init__(
        self,
        task: Task,
        beta: float = 0.7,  # authors, CIFAR-10; CIFAR-100: 0.9
        lam: float = 3.0,  # authors, CIFAR-10; CIFAR-100: 7; 0 leaves teachers and targets without effect
        # Whether the targets weigh the mixed labels; auto: with 100 classes, as the authors' code, unless lam is 0.
        weigh_labels: Literal["auto", "yes", "no"] = "auto",
        networks: Literal[1, 2] = 2,  # authors; 1: its own averaged copy teaches it
        mixup_a: float = 1.0,  # authors, CIFAR-10 and CIFAR-100; 0: no mixup
        ema: bool = True,  # authors; false: the other network itself teaches
        ema_decay: float = 0.997,  # authors, CIFAR-10 and CIFAR-100; each step, so not scaled
        # Ramps in steps of the whole: authors' 40,000 of 200 * 352, CIFAR-10; of 250 * 352, CIFAR-100.
        ema_ramp_share: float = 40_000 / (200 * 352),
        lam_ramp_share: float = 0.0,  # authors, CIFAR-10; CIFAR-100: 40,000 of 250 * 352
    ):
        super().__init__(task)
        for name, value in (("beta", beta), ("ema_decay", ema_decay)):
            if not 0 <= value < 1:
                raise ValueError(f"{name} must be in [0, 1), got {value}")
        for name, value in (("lam", lam), ("mixup_a", mixup_a)):
            if not 0 <= value < math.inf:
                raise ValueError(f"{name} must be finite and >= 0, got {value}")
        for name, value in (("ema_ramp_share", ema_ramp_share), ("lam_ramp_share", lam_ramp_share)):
            if not 0 <= value <= 1:
                raise ValueError(f"{name} must be in [0, 1], got {value}")
        if weigh_labels not in ("auto", "yes", "no"):
            raise ValueError(f"weigh_labels must be 'auto', 'yes' or 'no', got {weigh_labels!r}")
        if networks not in (1, 2):
            raise ValueError(f"networks must be 1 or 2, got {networks}")
        self.beta, self.lam, self.mixup_a, self.num_networks = beta, lam, mixup_a, networks
        self.weighs = weigh_labels == "yes" or (weigh_labels == "auto" and task.num_classes == 100 and lam > 0)
        self.ema_decay = ema_decay if ema else 0.0  # at 0 a copy has its network's weights
        steps = task.epochs * task.steps_per_epoch
        self.ema_ramp, self.lam_ramp = round(ema_ramp_share * steps), round(lam_ramp_share * steps)
        for name in ("targets", "targets1")[:networks]:
            self.register_buffer(name, torch.zeros(task.num_train, task.num_classes))

    def prepare(self, run: Run) -> None:
        self.teachers = nn.ModuleList(copy.deepcopy(network).requires_grad_(False) for network in run.networks)

    def batches(self, run: Run, epoch: int) -> Iterator[tuple[Any, ...]]:
        """All steps of network 0, then of network 1: (batch, network, global step, weight of mixup, permutation)."""
        N, device = run.task.num_train, run.task.device
        for k in range(self.num_networks):
            order = run.order()
            if k == 1:
                order = order[torch.randperm(len(order), generator=run.generator("order of network 1")).to(device)]
            parts = list(order.split(run.task.batch_size))
            if len(parts) > 1 and len(parts[-1]) == 1:
                parts[-2:] = [torch.cat(parts[-2:])]
            draws = run.generator(f"mixup of network {k}")
            # A permutation of all examples gives each batch its own by rank: no copy to the device at each step.
            rank = torch.randperm(N, generator=draws).to(device)
            rng = np.random.default_rng(int(torch.randint(2**63 - 1, (), generator=draws)))
            for i, index in enumerate(parts):
                share = rng.beta(self.mixup_a, self.mixup_a) if self.mixup_a else 1.0
                step = epoch * len(parts) + i  # the same for both networks
                yield run.batch(index, k), k, step, max(share, 1 - share), rank[index].argsort()

    def training_step(self, run: Run, *item: Any) -> Tensor:
        batch, k, step, share, perm = item

        def mixed(rows: Tensor) -> Tensor:
            return share * rows + (1 - share) * rows[perm] if share < 1 else rows

        network, images = run.networks[k], batch.view(k)
        logits = network(mixed(images))
        with torch.no_grad():
            taught = self.teachers[k - 1](images)  # by the other's copy; a single network's own
        targets = self.get_buffer(("targets", "targets1")[k])
        ops.update_targets(taught, batch.index, targets, beta=self.beta, clamp=False)
        t = targets[batch.index]
        labels, t = mixed(torch.zeros_like(t).scatter_(1, batch.labels[:, None], 1.0)), mixed(t)
        if self.weighs:
            weighed = labels * t
            total = weighed.sum(1, keepdim=True)
            labels = torch.where(total > 0, weighed / total, labels)
        rows, dlogits = ops.elr_step_soft(logits.detach(), labels, t, lam=self.lam * ramp(step, self.lam_ramp))
        run.backward_step(rows.mean(), f"network{k}", through=(logits, dlogits))
        with torch.no_grad():
            weights, average = list(network.parameters()), list(self.teachers[k].parameters())
            torch._foreach_lerp_(average, weights, 1 - self.decay(step))
        return taught

    def decay(self, step: int) -> float:
        """The past's weight in the averaged weights, once the step is done."""
        return self.ema_decay * ramp(step + 1, self.ema_ramp)

    def predict(self, run: Run, images: Tensor) -> Tensor:
        return sum(network(images) for network in run.networks) / len(run.networks)


def ramp(step: int, length: int) -> float:
    """exp(-5) at step 0, 1 from `length` on."""
    return math.exp(-5 * (1 - min(step, length) / length) ** 2) if length else 1.0
