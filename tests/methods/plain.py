"""Plain trainings, which the tests of methods compare with those of nlbench."""

import copy

import torch


class PlainSGD:
    """A copy of a network, trained by SGD with momentum 0.9 that is written out."""

    def __init__(self, network, lr=0.1):
        self.network, self.lr = copy.deepcopy(network), lr
        self.velocity = [torch.zeros_like(w) for w in self.network.parameters()]

    def gradients(self, loss):
        """Return the gradient of `loss` to each parameter."""
        return list(torch.autograd.grad(loss, list(self.network.parameters())))

    def step(self, gradients):
        """Move the parameters."""
        for w, v, g in zip(self.network.parameters(), self.velocity, gradients, strict=True):
            v.mul_(0.9).add_(g)
            w.data.sub_(self.lr * v)


def assert_same_network(ours, plain, tolerance=1e-11):
    """Check that all weights and averages of two networks are equal, up to rounding in float64."""
    theirs = plain.state_dict()
    for name, value in ours.state_dict().items():
        torch.testing.assert_close(value, theirs[name], rtol=0, atol=tolerance)
