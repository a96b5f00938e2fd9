"""Cross entropy with averaged weights: its ramp, plain loops, and the prediction."""

import copy
import math

import pytest
import torch
from lab import in_float64, make_run, make_task, train
from torch import nn

from nlbench import registry
from nlbench.method import Task

FILES = registry.method_files()
EMA, CE = (registry.load_method(FILES[name]) for name in ("ema", "ce"))


def long_task(epochs, steps_per_epoch):
    return Task(10, 2, torch.zeros(10, dtype=torch.int64), epochs, steps_per_epoch, 10)


def test_the_ramp_has_the_authors_numbers():
    method = EMA(long_task(200, 352))
    assert method.ramp == 40_000
    assert method.decay_at(0) == pytest.approx(0.0067, abs=5e-5)
    assert method.decay_at(17_599) == pytest.approx(0.21, abs=0.005)
    # Steps are counted from 1 in the authors' code, and its argument is one more.
    assert method.decay_at(0) == pytest.approx(0.997 * math.exp(-5 * (1 - 2 / 40_000) ** 2), 1e-12)
    assert method.decay_at(39_997) < 0.997
    for step in (39_998, 40_000, 70_399):
        assert method.decay_at(step) == 0.997

    # The authors train CIFAR-100 for 250 epochs, with a ramp of as many steps.
    assert EMA(long_task(250, 352), ramp_share=40_000 / (250 * 352)).ramp == 40_000


@pytest.mark.parametrize(
    ("epochs", "steps", "share", "ramp"),
    [
        (40, 11, 40_000 / 70_400, 250),
        (120, 352, 40_000 / 70_400, 24_000),
        (6, 3, 1.0, 18),
        (1, 1, 0.1, 1),
    ],
)
def test_the_ramp_scales_with_the_training(epochs, steps, share, ramp):
    method = EMA(long_task(epochs, steps), decay=0.9, ramp_share=share)
    assert method.ramp == ramp
    for step in (0, ramp // 2, ramp - 1, 2 * ramp):
        missing = max(ramp - (step + 2), 0) / ramp
        assert method.decay_at(step) == pytest.approx(
            0.9 / math.exp(5 * missing * missing), rel=1e-12
        )


def assert_equal(a, b):
    """Check that two networks have the same state, bit for bit."""
    first, second = a.state_dict(), b.state_dict()
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def double_run(task):
    return in_float64(make_run(task))


def test_ten_steps_against_a_plain_re_implementation():
    task = make_task(N=40, epochs=5, batch_size=20)
    # The second run gives the same order and augmentations.
    run, source = double_run(task), double_run(task)
    network = copy.deepcopy(run.networks[0])
    velocity = {name: torch.zeros_like(p) for name, p in network.named_parameters()}
    average = {name: value.clone() for name, value in network.state_dict().items()}
    # The ramp takes 8 of the 10 steps.
    method = EMA(task, ramp_share=0.8)
    method.prepare(run)
    step = 0

    for epoch in range(5):
        train(method, run, [epoch])
        source.begin_epoch(epoch)
        for index in source.order().split(20):
            logits = network(source.batch(index).images)
            loss = 0.0
            for z, y in zip(logits, task.labels[index], strict=True):
                loss = loss + (torch.logsumexp(z, 0) - z[y]) / 20

            network.zero_grad()
            loss.backward()
            with torch.no_grad():
                for name, p in network.named_parameters():
                    velocity[name] = 0.9 * velocity[name] + p.grad
                    p -= 0.1 * velocity[name]
            # The buffers of batch normalisation are averaged too; its count of batches is copied.
            d = 0.997 * math.exp(-5 * (1 - min(step + 2, 8) / 8) ** 2)
            for name, value in network.state_dict().items():
                if value.is_floating_point():
                    average[name] = d * average[name] + (1 - d) * value
                else:
                    average[name] = value.clone()
            step += 1

        assert method.average.state_dict().keys() == average.keys()
        for name, value in method.average.state_dict().items():
            torch.testing.assert_close(value, average[name], rtol=1e-10, atol=1e-12)
        for name, value in run.networks[0].state_dict().items():
            torch.testing.assert_close(value, network.state_dict()[name], rtol=1e-10, atol=1e-12)

    assert int(method.average[1].num_batches_tracked) == 10
    assert not torch.allclose(average["0.weight"], network[0].weight)


def test_the_network_in_training_is_that_of_cross_entropy():
    task = make_task()
    runs = []
    for cls in (EMA, CE):
        run, method = make_run(task), cls(task)
        method.prepare(run)
        train(method, run, range(3))
        runs.append(run)

    assert_equal(runs[0].networks[0], runs[1].networks[0])


def test_the_average_predicts_in_evaluation_mode_and_sees_no_training_batch():
    task = make_task()
    run, method = make_run(task), EMA(task, decay=0.9)
    method.prepare(run)
    passes = []
    method.average.register_forward_hook(lambda *_: passes.append(method.average.training))
    train(method, run, range(6))

    assert passes == []
    # An evaluation puts the method in this mode first.
    method.eval()
    rows = torch.randn(7, 6)
    norm = method.average[1]

    with torch.no_grad():
        got = method.predict(run, rows)
        hidden = (method.average[0](rows) - norm.running_mean) / (
            norm.running_var + norm.eps
        ).sqrt()
        expected = method.average[3]((hidden * norm.weight + norm.bias).relu())
        own = run.networks[0].eval()(rows)

    assert passes == [False]
    torch.testing.assert_close(got, expected)
    assert not torch.allclose(got, own)
    # The statistics began at 0 and were averaged too.
    assert norm.running_mean.abs().sum() > 0
    for p in method.parameters():
        assert not p.requires_grad


def test_without_decay_the_average_is_the_network():
    task = make_task()
    run, method = make_run(task), EMA(task, decay=0.0)
    method.prepare(run)
    train(method, run, range(2))
    assert_equal(method.average, run.networks[0])


def test_networks_without_batch_norm_have_an_average():
    task = make_task()
    run, method = make_run(task, networks=[nn.Linear(6, 10)]), EMA(task)
    method.prepare(run)
    train(method, run, range(2))
    assert method.average.weight.isfinite().all()
