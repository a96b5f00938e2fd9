"""Joint optimisation of weights and labels. Tanaka et al., CVPR 2018, arXiv:1803.11364.

Trains two networks, one after the other.
1. The first learns from soft labels t, one-hot at first, by

       mean of -sum_k t_k log p_k + alpha * KL(prior || mean p) + beta * mean of H(p)

   with a uniform prior and means over the batch. The code's term is -sum_k log(mean p_k) / C, which
   has the same gradient. From a certain epoch on t is, after each epoch, the mean of the
   predictions that the last epochs' training steps gave for the example.
2. The second starts from new weights and learns from the final t by cross entropy. It predicts.

Constants are those of the authors' code, DaikiTanaka-UT/JointOptimization, and lengths are shares
of its 200 + 120 epochs. Differences from it:
- On the identical track the networks have the protocol's learning rate. The authors' is constant
  and high in the first step (0.08 for 70% symmetric noise, 0.03 for 40% asymmetric), since a low
  one lets the network learn wrong labels before they change. In the second step the protocol's
  schedule starts anew, so that it runs over the epochs of that step.
- The mean runs over an example's last visits, which are its last epochs where epochs hold all
  examples.
- The authors set alpha and beta by the noise, and their validation labels are clean. Here the last
  epoch counts, with one pair of constants for all noise. Values for other noise are unknown.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from nlbench import ops
from nlbench.method import Batch, Method, Run, Task
from nlbench.ops.uniform import divergence_from_uniform


class JointOptim(Method):
    num_networks = 2
    # The mean prediction of the batch is part of the loss.
    couples_examples = True

    targets: Tensor
    recent: Tensor
    visits: Tensor

    def __init__(
        self,
        task: Task,
        # Authors, CIFAR-10 with 70% symmetric noise; with 40% asymmetric noise: 0.8.
        alpha: float = 1.2,
        # Authors, CIFAR-10 with 70% symmetric noise; with 40% asymmetric noise: 0.4.
        beta: float = 0.8,
        # Authors: 200 epochs before 120 of the second network.
        first_share: float = 200 / 320,
        # Authors: the labels change from epoch 70 on.
        start_share: float = 70 / 320,
        # Authors: the predictions of 10 epochs are averaged.
        average_share: float = 10 / 320,
    ):
        super().__init__(task)
        for name, value in (("alpha", alpha), ("beta", beta)):
            if not 0 <= value < math.inf:
                raise ValueError(f"{name} must be finite and >= 0, got {value}")
        shares = {
            "first_share": first_share,
            "start_share": start_share,
            "average_share": average_share,
        }
        for name, share in shares.items():
            if not 0 < share <= 1:
                raise ValueError(f"{name} must be in (0, 1], got {share}")

        self.alpha, self.beta = alpha, beta
        self.first = task.scaled(first_share, of=1)
        self.start = task.scaled(start_share, of=1)
        self.begins = {"label correction": self.start, "the second network": self.first}
        N, C = task.num_train, task.num_classes
        self.add_memory("targets", task.labels)
        # The predictions of an example's last visits, in a ring, and its number of visits.
        visits = task.scaled(average_share, of=1)
        self.register_buffer("recent", torch.zeros(N, visits, C, dtype=task.memory))
        self.register_buffer("visits", torch.zeros(N, dtype=torch.int64))
        self.own = 0

    def prepare(self, run: Run) -> None:
        """Let the second network have the whole schedule in the epochs of its own."""
        if self.first < run.task.epochs:
            run.restart_schedule("network1", self.first)

    def on_epoch_start(self, run: Run, epoch: int) -> None:
        self.own = int(epoch >= self.first)

    # The network that trains, 0 or 1, is saved as extra state, not as a buffer: reading a buffer
    # that lies on a GPU would make every step wait for the device.
    def get_extra_state(self) -> Tensor:
        return torch.tensor(self.own)

    def set_extra_state(self, state: Tensor) -> None:
        self.own = int(state)

    def training_step(self, run: Run, batch: Batch) -> Tensor:
        """Train the network of this epoch; return its (B, C) logits."""
        logits = run.forward(run.networks[self.own], batch.images)
        targets = ops.widened(self.targets[batch.index])
        if self.own == 1:
            loss = F.cross_entropy(logits, targets)
        else:
            loss = self.joint_loss(logits, targets)
            self.remember(logits.detach().softmax(1), batch.index)
        run.backward_step(loss, f"network{self.own}")
        return logits

    def joint_loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of the first network, 0-d, for logits and soft labels (B, C)."""
        log_p = logits.log_softmax(1)
        entropy = -(log_p.exp() * log_p).sum(1).mean()
        prior = divergence_from_uniform(log_p)
        return F.cross_entropy(logits, targets) + self.alpha * prior + self.beta * entropy

    def remember(self, p: Tensor, index: Tensor) -> None:
        """Keep the predictions p (B, C) of the examples at `index`, in place of their oldest."""
        self.recent[index, self.visits[index] % self.recent.shape[1]] = p.to(self.recent.dtype)
        self.visits[index] += 1

    def on_epoch_end(self, run: Run, epoch: int) -> None:
        """Set the soft labels of the examples that have been visited."""
        if not self.start <= epoch + 1 <= self.first:
            return

        count = self.visits.clamp(max=self.recent.shape[1])
        dtype = torch.promote_types(self.recent.dtype, torch.float32)
        means = self.recent.sum(1, dtype=dtype) / count.clamp(min=1)[:, None]
        self.targets.copy_(torch.where(count[:, None] > 0, means, self.targets))

    def predict(self, run: Run, images: Tensor) -> Tensor:
        return run.networks[self.own](images)
