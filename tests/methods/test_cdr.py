"""CDR: which weights are critical, and ten steps against a plain training."""

import pytest
import torch
from cases import CLASSES
from formulas import ref_ce
from lab import in_float64, make_run, make_task
from plain import PlainSGD, assert_same_network
from torch import nn


def ref_gradients(weights, gradients, keep):
    """Return the masked gradients, with all |g w| sorted in a list."""
    sizes = []
    for w, g in zip(weights, gradients, strict=True):
        if w.dim() in (2, 4):
            sizes += (w * g).abs().flatten().tolist()
    sizes.sort(reverse=True)
    limit = sizes[max(1, int(keep * len(sizes))) - 1]
    result = []
    for w, g in zip(weights, gradients, strict=True):
        if w.dim() in (2, 4):
            critical = (w * g).abs() >= limit
            result.append(keep * g * critical)
        else:
            result.append(g)
    return result


def small_cnn():
    """Convolution (4 dimensions), linear layers (2), batch norm and biases (1)."""
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Unflatten(1, (1, 2, 3)), nn.Conv2d(1, 4, 2), nn.BatchNorm2d(4), nn.ReLU(),
        nn.Flatten(), nn.Linear(8, 4),
    )  # fmt: skip


@pytest.mark.parametrize("rate", [0.2, 0.8])
def test_ten_steps_equal_a_plain_training(rate):
    task = make_task(N=23, C=4, batch_size=9, epochs=4, told={"noise_rate": rate})
    method = CLASSES["cdr"](task)
    run = in_float64(make_run(task, lr=0.1, networks=[small_cnn()]))
    plain, taken = PlainSGD(run.networks[0]), 0
    method.prepare(run)

    for epoch in range(4):
        run.begin_epoch(epoch)
        method.on_epoch_start(run, epoch)
        for index in run.order().split(9):
            if taken == 10:
                break
            taken += 1
            batch = run.batch(index)
            logits = method.training_step(run, batch)
            z = plain.network(batch.images)
            torch.testing.assert_close(logits.detach(), z.detach(), rtol=0, atol=1e-12)
            loss = ref_ce(z, task.labels[index]).mean()
            torch.testing.assert_close(float(run.losses[-1][1]), float(loss), rtol=0, atol=1e-12)
            weights = [w.detach() for w in plain.network.parameters()]
            plain.step(ref_gradients(weights, plain.gradients(loss), 1 - rate))

    assert taken == 10
    assert_same_network(run.networks[0], plain.network)


def test_the_share_of_critical_weights():
    """Of 10 weights in two layers the 6 with the largest |g w| learn, wherever they lie."""
    task = make_task(told={"noise_rate": 0.4})
    method = CLASSES["cdr"](task)
    method.on_epoch_start(None, 0)
    critical_gradients = method.training_step.__globals__["critical_gradients"]
    weights = [torch.arange(1.0, 6).reshape(1, 5), torch.ones(3), -torch.arange(6.0, 11).view(5, 1)]
    gradients = (torch.ones(1, 5), torch.ones(3), torch.ones(5, 1))
    first, bias, second = critical_gradients(weights, gradients, method.keep)

    torch.testing.assert_close(first, torch.tensor([[0, 0, 0, 0, 0.6]]))
    torch.testing.assert_close(second, torch.full((5, 1), 0.6))
    assert torch.equal(bias, torch.ones(3))

    # At least one weight is critical, and a network without such weights is trained as it is.
    first, _, second = critical_gradients(weights, gradients, 0.01)
    assert (first != 0).sum() + (second != 0).sum() == 1
    assert torch.equal(critical_gradients(weights[1:2], gradients[1:2], 0.5)[0], torch.ones(3))


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({}, [0.6, 0.6, 0.6, 0.6, 0.6]),
        ({"rate_factor": 2.0}, [0.2] * 5),
        ({"rate_factor": 3.0}, [0.0] * 5),
        ({"ramp_share": 0.6}, [1.0, 0.8, 0.6, 0.6, 0.6]),
        ({"ramp_share": 0.1}, [0.6] * 5),
    ],
)
def test_the_share_of_each_epoch(params, expected):
    method = CLASSES["cdr"](make_task(epochs=5, told={"noise_rate": 0.4}), **params)
    found = []
    for epoch in range(5):
        method.on_epoch_start(None, epoch)
        found.append(method.keep)
    assert found == pytest.approx(expected)
