"""Co-teaching+. Yu et al., ICML 2019, arXiv:1901.04215.

Co-teaching (methods/co_teaching.py) for the first epochs. Then only the examples of a batch on
which the two networks predict different classes take part: each network picks the fraction 1 - f(e)
of them on which its own cross entropy is smallest, and the other one takes its step on that pick.
Where the networks agree on the whole batch, both learn from all of it by cross entropy, as in the
authors' code, xingruiyu/coteaching_plus. f(e) is that of Co-teaching, and its tau is told.

Differences from that code, all of which mend a slip:
- Cross entropy gets logits. There it gets the softmax of the logits after the switch and takes the
  softmax again, so that gradients nearly vanish.
- The loss is the mean over the picked examples. There it is divided by their number once more,
  which Adam hides, and a 0/1 gate meant for the first 5000 steps scales it by the share of examples
  on which the networks differ.
- A pick never has fewer than one example. There an empty pick before the switch is the whole batch.
And by the protocol, as for `co-teaching`: SGD with the protocol's schedule replaces Adam, the ramp
ends at epoch T_k (there at T_k - 1, with training from epoch 1), and network 0 predicts.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from nlbench.method import Batch, Method, Run, Task
from nlbench.ops.small_loss import smallest


class CoTeachingPlus(Method):
    told = ("noise_rate",)
    num_networks = 2

    def __init__(
        self,
        task: Task,
        # Authors' code: T_k = 10 of 200 epochs.
        ramp_share: float = 10 / 200,
        # Authors' code. tau as a multiple of the noise rate that the method is told.
        rate_factor: float = 1.0,
        # The epochs of Co-teaching. Authors' code, CIFAR-10; CIFAR-100: 5 of 200 epochs, MNIST and
        # News: 0, Tiny-ImageNet: 100.
        switch_share: float = 20 / 200,
    ):
        super().__init__(task)
        if not 0 < ramp_share <= 1:
            raise ValueError(f"ramp_share must be in (0, 1], got {ramp_share}")
        if not 0 <= rate_factor < math.inf:
            raise ValueError(f"rate_factor must be finite and >= 0, got {rate_factor}")
        if not 0 <= switch_share <= 1:
            raise ValueError(f"switch_share must be in [0, 1], got {switch_share}")

        self.switch = task.scaled(switch_share, of=1) if switch_share else 0
        self.ramp, self.rate_factor = task.scaled(ramp_share, of=1), rate_factor
        # In epoch 0 no small loss is left out.
        self.begins = {
            "the selection of small losses": 1,
            "the selection by disagreement": self.switch,
        }
        self.keep = 1.0

    def on_epoch_start(self, run: Run, epoch: int) -> None:
        """Set the fraction of examples that this epoch keeps."""
        self.keep = 1 - self.rate_factor * self.task.noise_rate * min(epoch / self.ramp, 1)

    def training_step(self, run: Run, batch: Batch) -> Tensor:
        """Let each network train on the other's pick; return the (B, C) logits of network 0."""
        logits = [network(batch.images) for network in run.networks]
        losses = [F.cross_entropy(z, batch.labels, reduction="none") for z in logits]
        first, second = self.picks(run.epoch, logits, losses)

        run.backward_step(losses[0][second].mean(), "network0")
        run.backward_step(losses[1][first].mean(), "network1")
        return logits[0]

    def picks(
        self, epoch: int, logits: list[Tensor], losses: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Return the positions in the batch that network 0 picks, and those that network 1 picks.

        Args:
            logits: (B, C) of each network.
            losses: (B,) of each network.
        """
        if epoch < self.switch:
            return smallest(losses[0], self.keep), smallest(losses[1], self.keep)

        differ = (logits[0].argmax(1) != logits[1].argmax(1)).nonzero().squeeze(1)
        if not len(differ):
            everything = torch.arange(len(losses[0]), device=differ.device)
            return everything, everything
        first, second = (smallest(own[differ], self.keep) for own in losses)
        return differ[first], differ[second]

    def predict(self, run: Run, images: Tensor) -> Tensor:
        return run.networks[0](images)
