"""The scripts of tests/benchmarks run, their clocks are right, and both loops train alike."""

import re

import decode
import numpy as np
import parts
import pytest
import scaling
import strong
import torch
import training
from straightforward import EagerELR
from torch import nn

from nlbench import hardware, registry
from nlbench.build import build_method
from nlbench.data import decode as decoding
from nlbench.method import Batch, Task
from nlbench.plan import protocol as protocols

CPU = torch.device("cpu")


def elr(labels, C):
    """Return nlbench's ELR with the authors' values for CIFAR-10."""
    task = Task(len(labels), C, labels, epochs=2, steps_per_epoch=4, batch_size=16)
    method = registry.load_method(registry.method_files([])["elr"])
    return build_method(method, {"beta": 0.7, "lam": 3.0}, task)


@pytest.mark.parametrize("C", [10, 101])
def test_both_elrs_are_the_same_loss(C):
    """Compare losses, gradients and tables over two epochs, then the networks' weights."""
    rng = torch.Generator().manual_seed(C)
    inputs = torch.randn(60, 6, generator=rng)
    labels = torch.randint(C, (60,), generator=rng)
    ours, eager = elr(labels, C), EagerELR(60, C)
    networks = [nn.Linear(6, C), nn.Linear(6, C)]
    networks[1].load_state_dict(networks[0].state_dict())
    optimisers = [torch.optim.SGD(network.parameters(), lr=0.5) for network in networks]

    first_epoch = []
    for epoch in range(2):
        # The last batch has 12 examples instead of 16.
        for index in torch.randperm(60, generator=rng).split(16):
            batch = Batch(inputs[index], labels[index], index, lambda index, k: inputs[index])
            logits = [network(inputs[index]) for network in networks]

            losses, gradient = ours.loss_and_grad(logits[0].detach(), batch)
            logits[0].backward(gradient)

            logits[1].retain_grad()
            loss = eager(index.tolist(), logits[1], labels[index])
            loss.backward()

            torch.testing.assert_close(losses.mean(), loss.detach(), rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(gradient, logits[1].grad, rtol=1e-4, atol=1e-6)
            if epoch == 0:
                first_epoch.append((losses.mean(), loss.detach()))

            for optimiser in optimisers:
                optimiser.step()
                optimiser.zero_grad()

    means = torch.tensor(first_epoch).mean(0)
    torch.testing.assert_close(means[0], means[1], rtol=1e-4, atol=1e-5)
    # Every example has a target, so the comparison below looks at all of them.
    assert eager.target.abs().sum(1).min() > 0
    torch.testing.assert_close(ours.targets, eager.target, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(networks[0].weight, networks[1].weight, rtol=1e-3, atol=1e-5)


@pytest.fixture(scope="module")
def measured():
    """Measure cnn3 on 96 random pictures: three batches of 32 an epoch, one round."""
    values = {"model": "cnn3", "epochs": 3, "batch_size": 32, "precision": "float32", "threads": 1}
    protocol = protocols.resolve("cifarn-02", "cifar10", values)
    spec, data = training.prepared(training.read(None, 96), protocol)
    return spec, data, training.measure(spec, data, CPU, rounds=1, workers=1)


@pytest.mark.nightly
def test_parts_of_a_step_sum_to_the_epoch(measured):
    result = measured[2]
    assert tuple(result.seconds) == ("augment", "forward", "backward", "optimiser", "loss", "other")
    assert min(result.seconds.values()) > 0
    assert sum(result.shares.values()) == pytest.approx(1)
    assert sum(result.seconds.values()) == pytest.approx(result.epochs, rel=0.02, abs=0.005)
    assert result.steps == 3
    # The time of a part that is called otherwise than the clock expects would be in `other`.
    assert sum(result.shares[part] for part in parts.FREE) > 0.5


@pytest.mark.nightly
def test_both_loops_train(measured):
    result = measured[2]
    assert len(result.ours) == len(result.theirs) == len(result.ratios) == 1
    assert result.ratios[0] == result.ours[0] / result.theirs[0] > 0
    assert result.losses[0] == pytest.approx(result.losses[1], rel=0.3)


@pytest.mark.nightly
def test_a_step_reads_nothing_from_tensors(measured):
    waits = measured[2].waits
    assert (waits.steps, waits.reads, waits.synchronisations) == (2, 0, 0)


def test_reads_are_counted():
    weight = nn.Parameter(torch.ones(2))
    optimiser = torch.optim.SGD([weight])
    waits = parts.Waits(CPU, most=4)

    waits.start()
    for _ in range(6):
        weight.grad = torch.ones(2)
        weight.sum().item()
        optimiser.step()
    waits.stop()

    assert waits.steps == waits.reads > 0


def test_the_clock_leaves_no_trace():
    def there():
        return [getattr(owner, name) for _, owner, name in parts.PLACES]

    before, clock = there(), parts.Clock(CPU)
    with clock.running():
        for now, then in zip(there(), before, strict=True):
            assert now is not then
        # This belongs to no epoch, so it is not counted.
        torch.ones(1, requires_grad=True).backward()

    assert there() == before
    assert clock.take() == dict.fromkeys(parts.PARTS, 0.0)


@pytest.mark.nightly
def test_training_prints_a_block_of_markdown(measured, capsys, monkeypatch):
    spec, data, result = measured
    monkeypatch.setattr(training, "prepared", lambda dataset, protocol: (spec, data))
    monkeypatch.setattr(training, "measure", lambda *args, **options: result)
    monkeypatch.setattr(training, "matrix_peak", lambda device, dtype: 1e12)
    monkeypatch.setattr(hardware, "has_bfloat16", lambda device: False)

    training.main(["--images", "96", "--precision", "bfloat16"])
    printed = capsys.readouterr().out

    assert printed.startswith("This hardware has no bfloat16 instructions")

    shares = list(map(float, re.findall(r"^\| \w+ \| (\d+\.\d+)% \|", printed, re.M)))
    assert len(shares) == 6
    assert sum(shares) == pytest.approx(100, abs=0.1)

    rest = r"^Everything but forward, backward and optimiser: \d+\.\d% of a step\.$"
    assert re.search(rest, printed, re.M)
    assert "Numbers that the host read from tensors: 0.00 a step (2 steps profiled)." in printed


def test_flops_of_a_linear_model():
    """Count backward as twice forward, less the gradient of the images, which is not computed."""
    forward = 2 * 3 * 4 * 4 * 10
    assert parts.flops_per_image("linear", 10, (3, 4, 4)) == 2 * forward


@pytest.mark.nightly
def test_scaling_prints_its_tables(capsys, monkeypatch):
    monkeypatch.setattr(scaling, "SHAPES", ((50_000, 10), (100_000, 100)))
    scaling.main(["--images", "64", "--epochs", "4", "--repeats", "1"])
    printed = capsys.readouterr().out

    assert printed.count("Line: ") == 4
    shapes = re.findall(r"^\| (\d+ x \d+) *\|", printed, re.M)
    assert shapes == ["1 x 1", "2 x 1", "2 x 2", "50000 x 10", "100000 x 100"]

    # 4 bytes of float32 for each entry of the table, and next to nothing else.
    slope = float(re.findall(r"MB \+ (\d+\.\d+) bytes an entry", printed)[0])
    assert slope == pytest.approx(4, abs=0.4)


def test_strong_views_are_measured_both_ways():
    images = strong.pictures(None)[:200]
    draws = torch.full((200, 3), 4).clamp(max=torch.tensor([8, 8, 1]))
    for kind in ("autoaugment", "randaugment-5"):
        found = strong.measure(kind, images, draws, rounds=1)
        assert [len(values) for values in found.values()] == [1, 1, 1]
        assert min(found["one pass, float32"]) > min(found["one by one, float32"]) > 0


@pytest.mark.parametrize("size", [(400, 300), (300, 401), (800, 600)])
def test_exact_decoding_gives_the_pixels_of_before(tmp_path, size):
    """The benchmark has what nlbench did before it had another way to decode."""
    paths = decode.write(tmp_path, size, 4)
    draws = np.random.default_rng(0).random((4, 3), np.float32)
    wanted = decode.before(paths, draws, 227)
    np.testing.assert_array_equal(decode.by_torchvision(paths, draws, 227), wanted)
    exact = decoding.decode(paths, decoding.Geometry(256, 227), draws)
    np.testing.assert_array_equal(exact.transpose(0, 3, 1, 2), wanted)
    assert len({image.tobytes() for image in exact}) == 4


def test_the_benchmark_of_decoding_prints_each_way(tmp_path):
    paths = decode.write(tmp_path, (400, 300), 2)
    draws = np.random.default_rng(0).random((2, 2, 3), np.float32)
    ways, two = decode.ways(224), decode.ways_of_two(224)
    apart = decode.differences(ways, paths, draws[0], 224)
    cases = (ways, draws[0], apart, "0.00 | 0"), (two, draws, {}, " | ")
    for found, drawn, levels, end in cases:
        speeds = decode.measure(found, paths, drawn, rounds=1)
        lines = list(decode.rows("what", speeds, levels))
        assert len(lines) == len(found)
        assert lines[0].startswith("| what | before |")
        assert lines[0].endswith(f"| 1.00 | 1.00 to 1.00 | {end} |")


def test_a_reserve_scales_less_and_is_nearer_to_exact_decoding(tmp_path):
    draws = np.random.default_rng(0).random((2, 3), np.float32)
    ways = decode.ways(224)
    for size, scaled, reserved in (((683, 512), True, False), ((1366, 1024), True, True)):
        apart = decode.differences(ways, decode.write(tmp_path, size, 2), draws, 224)
        assert apart["before"] == apart["exact, torchvision"] == apart["exact, Pillow"] == (0, 0)
        assert (apart["scaled, Pillow"] > (1, 40)) == scaled
        assert (apart["scaled, reserve of 2"] > (0, 0)) == reserved
        assert apart["scaled, reserve of 2"] < (1, 20)
