"""The protocol's bound on the norm of gradients, against its equation in float64."""

import math
from unittest import mock

import lab
import pytest
import torch
from sweeps import method_file
from sweeps import sweep as sweep_in
from torch import nn
from torch.nn import functional as F

from nlbench.training.run_state import RunState

LR, MOMENTUM, TINY = 0.1, 0.9, 1e-6


def gradients_of(weights, loss):
    return [g.clone() for g in torch.autograd.grad(loss, weights, retain_graph=True)]


def clipped(gradients, bound):
    """Return gradients as Pascanu et al. (arXiv:1211.5063) clip them, with torch's guard."""
    squares = sum(float((g**2).sum()) for g in gradients)
    factor = min(1.0, bound / (math.sqrt(squares) + TINY))
    return [factor * g for g in gradients]


class Reference:
    """SGD with momentum on copies of weights, and clipped gradients."""

    def __init__(self, weights, bound):
        self.bound = bound
        self.weights = [w.detach().clone() for w in weights]
        self.momenta = None

    def step(self, gradients):
        gradients = clipped(gradients, self.bound)
        if self.momenta is None:
            self.momenta = [g.clone() for g in gradients]
        else:
            pairs = zip(self.momenta, gradients, strict=True)
            self.momenta = [MOMENTUM * m + g for m, g in pairs]
        for w, m in zip(self.weights, self.momenta, strict=True):
            w -= LR * m

    def agrees_with(self, weights):
        pairs = zip(self.weights, weights, strict=True)
        return all(torch.allclose(a, b, rtol=0, atol=1e-12) for a, b in pairs)


def make_run(bound, num_networks=1):
    run = lab.in_float64(lab.make_run(lab.make_task(N=40), num_networks, lr=LR))
    run.clip_norm = bound
    run.begin_epoch(0)
    return run


def loss_of(run, network, scale):
    images, labels = run.images.rows[:8], run.task.labels[:8]
    return scale * F.cross_entropy(network(images), labels)


# A bound below the norm of every step, and one between those of the steps.
@pytest.mark.parametrize(("bound", "clips"), [(0.05, [True] * 4), (5.0, [False, True] * 2)])
def test_steps_are_those_of_the_equation(bound, clips):
    run = make_run(bound)
    weights = [*run.networks[0].parameters()]
    reference = Reference(weights, bound)

    for step, clip in enumerate(clips):
        loss = loss_of(run, run.networks[0], (1.0, 100.0)[step % 2])
        gradients = gradients_of(weights, loss)
        norm = math.sqrt(sum(float((g**2).sum()) for g in gradients))
        assert (norm > bound) == clip

        run.backward_step(loss)
        reference.step(gradients)
        assert reference.agrees_with(weights)


def test_a_gradient_below_the_bound_keeps_its_bits():
    plain, bounded = make_run(0.0), make_run(1e6)
    for run in (plain, bounded):
        for _ in range(3):
            run.backward_step(loss_of(run, run.networks[0], 1.0))
    pairs = zip(plain.networks[0].parameters(), bounded.networks[0].parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_without_a_bound_gradients_are_not_touched():
    run = make_run(0.0)
    with mock.patch.object(nn.utils, "clip_grad_norm_", side_effect=AssertionError):
        run.backward_step(loss_of(run, run.networks[0], 100.0))


def test_each_optimiser_is_clipped_by_the_norm_of_its_own_parameters():
    run = make_run(0.05, num_networks=2)
    own = nn.Parameter(torch.tensor([3.0, -4.0], dtype=torch.float64))
    run.optimise([own], lambda p: torch.optim.SGD(p, lr=LR, momentum=MOMENTUM), "own")
    sets = [[*network.parameters()] for network in run.networks] + [[own]]
    references = [Reference(weights, 0.05) for weights in sets]

    for _ in range(3):
        losses = [loss_of(run, network, 10.0) for network in run.networks] + [(own**2).sum()]
        for reference, weights, loss in zip(references, sets, losses, strict=True):
            reference.step(gradients_of(weights, loss))
        run.backward_step(sum(losses))
        for reference, weights in zip(references, sets, strict=True):
            assert reference.agrees_with(weights)


def test_all_groups_of_an_optimiser_count_together():
    run = make_run(0.05)
    parts = [nn.Parameter(torch.full((2,), v, dtype=torch.float64)) for v in (1.0, 20.0)]
    groups = [{"params": [part]} for part in parts]
    run.optimise(groups, lambda p: torch.optim.SGD(p, lr=LR, momentum=MOMENTUM), "own")
    reference = Reference(parts, 0.05)

    loss = sum((part**2).sum() for part in parts)
    reference.step(gradients_of(parts, loss))
    run.backward_step(loss, "own")
    assert reference.agrees_with(parts)


def test_the_step_form_of_an_op_is_clipped_too():
    run = make_run(0.05)
    weights = [*run.networks[0].parameters()]
    reference = Reference(weights, 0.05)
    logits = run.networks[0](run.images.rows[:8])
    dlogits = torch.full_like(logits, 3.0) * torch.arange(logits.shape[1])
    reference.step(gradients_of(weights, (logits * dlogits).sum()))

    run.backward_step(logits.detach().sum(), through=(logits, dlogits))
    assert reference.agrees_with(weights)


# --- Whole runs -----------------------------------------------------------------------------------


def test_networks_and_helper_networks_of_a_run_have_the_bound_of_its_protocol(tmp_path):
    body = """
        class Own(Method):
            def prepare(self, run):
                run.fit("own", "ce", 2)

            def loss(self, logits, batch):
                return F.cross_entropy(logits, batch.labels)
    """
    folder = method_file(tmp_path / "m", "own", body)
    bounds = {}

    class Noting(RunState):
        def step_optimisers(self, names):
            bounds.setdefault(self.task.epochs, set()).add(self.clip_norm)
            super().step_optimisers(names)

    with (
        mock.patch("nlbench.training.setup.RunState", Noting),
        mock.patch("nlbench.training.helper.RunState", Noting),
    ):
        options = {"seeds": (0,), "methods_dir": folder, "epochs": 1, "clip_norm": 0.25}
        sw = sweep_in(tmp_path / "out", {"own": {}}, **options)
        sw.run()
    assert sw.failures() == []
    # The run has one epoch, and its helper network two.
    assert bounds == {1: {0.25}, 2: {0.25}}
