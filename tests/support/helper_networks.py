"""Helper networks for runs of the laboratory: small, in float64, and trained by nlbench's code."""

from pathlib import Path

import lab
import torch
from sweeps import listener

from nlbench import registry, streams
from nlbench.plan.protocol import resolve
from nlbench.plan.spec import Condition, RunSpec
from nlbench.results.store import Store
from nlbench.training import helper
from nlbench.training.context import RunOptions
from nlbench.training.helper import HelperNetworks

SEED = 0
# Their learning rate falls after a third of the training, and there is weight decay.
PROTOCOL = resolve("cifar", "cifar10", {"lr": 0.05})


def made_network(spec, options, task, shape, stream, passes):
    """Stand in for `make_network`: return a small network with the weights of this stream."""
    return lab.small_network(task, streams.derive(SEED, stream) % 10_000).double()


def helpers_in(root: Path, monkeypatch, method="ce", **hooks):
    """Return the HelperNetworks of a run whose store is `root`, with these hooks as listener.

    A checkpoint is written after each epoch.
    """
    monkeypatch.setattr(helper, "make_network", made_network)
    condition = Condition("cifar10", "clean", {"kind": "symmetric", "rate": 0.4})
    spec = RunSpec("row", method, {}, condition, "f", PROTOCOL, SEED)
    options = RunOptions(
        devices=(torch.device("cpu"),),
        data_dir=root,
        methods=registry.method_files([]),
        checkpoint_seconds=0,
    )
    return HelperNetworks(spec, options, Store(root), listener(**hooks))


def run_with(fit, task, **choices):
    """Make a run in float64 with a validation part, whose helper networks `fit` trains."""
    run = lab.in_float64(lab.make_run(task, validation=True, fit=fit, **choices))
    run.val_images.rows = run.val_images.rows.double()
    return run


class PlainFit:
    """A plain training of a helper network, for comparison.

    Attributes:
        network: in training; the weights that are kept are in `kept` after `train`.
        accuracies: those on the validation part after each epoch.
    """

    def __init__(self, run, key, epochs, network):
        self.run, self.network, self.epochs = run, network, epochs
        self.task, self.accuracies, self.kept = run.task, [], None
        # The batches belong to the seed of the helper network.
        self.own = lab.make_run(run.task, seed=streams.derive(SEED, "fit", key), images=run.images)

    def train(self, loss_of, scores_of):
        """Train by SGD with momentum; the first weights with the highest accuracy are kept.

        `loss_of` (logits, labels) returns the losses of a batch, and `scores_of` (logits) what the
        predicted labels are the largest of.
        """
        params = list(self.network.parameters())
        velocity = [torch.zeros_like(p) for p in params]
        for epoch in range(self.epochs):
            self.own.begin_epoch(epoch)
            self.network.train()
            batches = self.own.order().split(self.task.batch_size)
            for step, index in enumerate(batches):
                z = self.network(self.own.batch(index).images)
                loss = loss_of(z, self.task.labels[index]).mean()
                grads = torch.autograd.grad(loss, params)
                self._step(params, grads, velocity, self._rate(epoch + step / len(batches)))

            self.network.eval()
            with torch.no_grad():
                scores = scores_of(self.network(self.run.val_images.rows))
            right = int((scores.argmax(1) == self.run.val_labels).sum())
            if not self.accuracies or right > max(self.accuracies):
                state = self.network.state_dict()
                self.kept = {name: value.clone() for name, value in state.items()}
            self.accuracies.append(right)

    def _rate(self, position):
        # The protocol's milestones are at 40 and 80 of 120 epochs.
        share = position / self.epochs
        return 0.05 * 0.01 ** ((share >= 40 / 120) + (share >= 80 / 120))

    def _step(self, params, grads, velocity, rate):
        with torch.no_grad():
            for p, g, v in zip(params, grads, velocity, strict=True):
                v.mul_(0.9).add_(g + 1e-3 * p)
                p.sub_(rate * v)
