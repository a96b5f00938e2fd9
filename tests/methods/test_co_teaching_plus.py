"""Co-teaching+: the exchange among disagreeing examples, against a plain re-implementation."""

import copy
import math

import lab
import pytest
import torch
from lab import in_float64, make_task, train

from nlbench import registry

CoTeachingPlus = registry.load_method(registry.method_files()["co-teaching-plus"])


def told(rate, **more):
    return make_task(told={"noise_rate": rate}, **more)


# ---- The re-implementation -----------------------------------------------------------------------


def cross_entropy(row, y):
    """Return the loss of one example, 0-d."""
    return torch.log(torch.exp(row - row.max()).sum()) + row.max() - row[y]


def plain_pick(losses, members, keep):
    """Return the members with the smallest losses, `keep` of them rounded down, at least one."""
    count = max(1, math.floor(keep * len(members) + 1e-9))
    return sorted(members, key=lambda b: losses[b].item())[:count]


def plain_training(run, networks, rate, ramp, switch, epochs, lr):
    """Train plainly; yield both picks, whether all examples agreed, and the networks' weights."""
    task = run.task
    velocity = [[torch.zeros_like(p) for p in net.parameters()] for net in networks]
    for epoch in range(epochs):
        run.begin_epoch(epoch)
        keep = 1 - rate * min(epoch / ramp, 1)
        for index in run.order().split(task.batch_size):
            images, labels = run.batch(index).images, task.labels[index].tolist()
            outputs = [network(images) for network in networks]
            losses = [[cross_entropy(z[b], y) for b, y in enumerate(labels)] for z in outputs]

            members = list(range(len(labels)))
            agreed = False
            if epoch >= switch:
                guesses = [z.argmax(1).tolist() for z in outputs]
                members = [b for b in members if guesses[0][b] != guesses[1][b]]
                agreed = not members
            if agreed:
                picks = [list(range(len(labels)))] * 2
            else:
                picks = [plain_pick(row, members, keep) for row in losses]

            for i in range(2):
                mean = sum(losses[i][b] for b in picks[1 - i]) / len(picks[1 - i])
                grads = torch.autograd.grad(mean, list(networks[i].parameters()))
                with torch.no_grad():
                    for k, p in enumerate(networks[i].parameters()):
                        velocity[i][k] = 0.9 * velocity[i][k] + grads[k]
                        p -= lr * velocity[i][k]
            weights = [[p.detach().clone() for p in net.parameters()] for net in networks]
            yield picks, agreed, members, weights


def test_ten_steps_before_and_after_the_switch():
    # Batches of 16, 16 and 8. The switch is at epoch 2 of 8.
    task = told(0.37, N=40, C=4, epochs=8, batch_size=16)
    networks = [lab.small_network(task, 3 + i).double() for i in range(2)]
    run = in_float64(lab.make_run(task, networks=copy.deepcopy(networks), lr=0.05))
    expected = list(plain_training(run, copy.deepcopy(networks), 0.37, 2, 2, 6, 0.05))

    run = in_float64(lab.make_run(task, networks=networks, lr=0.05))
    watch, after = lab.Watch(run), []
    method = CoTeachingPlus(task, ramp_share=0.25, switch_share=0.25)
    step = method.training_step

    def kept(run, batch):
        logits = step(run, batch)
        after.append([[p.detach().clone() for p in net.parameters()] for net in run.networks])
        assert torch.equal(logits, watch.logits[0])
        return logits

    method.training_step = kept
    method.prepare(run)
    train(method, run, range(6))

    assert len(after) == len(expected) == 18
    for at, (picks, _, _, weights) in enumerate(expected):
        for i in range(2):
            names, _, grads = watch.steps[2 * at + i]
            assert names == (f"network{i}",)
            assert grads[1 - i] is None
            assert grads[i].abs().sum(1).nonzero().squeeze(1).tolist() == sorted(picks[1 - i])
            torch.testing.assert_close(after[at][i], weights[i], rtol=1e-9, atol=1e-12)

    # Before the switch all take part, after it fewer, and the two picks are not the same.
    assert [len(members) for _, _, members, _ in expected[:6]] == [16, 16, 8] * 2
    assert any(0 < len(members) < 16 for _, _, members, _ in expected[6:8])
    assert any(set(picks[0]) != set(picks[1]) for picks, _, _, _ in expected[6:])


def test_networks_that_agree_on_a_batch_learn_from_all_of_it():
    task = told(0.5, N=16, epochs=2)
    method = CoTeachingPlus(task, switch_share=0.0)
    method.on_epoch_start(None, 1)
    z, losses = torch.randn(16, 10), torch.rand(16)
    for picked in method.picks(0, [z, 2 * z], [losses, losses]):
        assert picked.tolist() == list(range(16))


def test_a_pick_among_the_disagreeing_has_one_example_at_least():
    task = told(0.9, N=16, epochs=4)
    method = CoTeachingPlus(task, switch_share=0.25, ramp_share=0.25)
    method.on_epoch_start(None, 1)
    one = torch.zeros(4, 3)
    one[:, 0] = 1.0
    two = one.clone()
    two[2:, 1] = 2.0
    first, second = method.picks(1, [one, two], [torch.tensor([0.0, 0, 2, 1])] * 2)
    assert first.tolist() == second.tolist() == [3]
    # One epoch earlier every example takes part, and 0.1 of four is one.
    assert method.picks(0, [one, two], [torch.tensor([1.0, 0, 2, 1])] * 2)[0].tolist() == [1]


@pytest.mark.parametrize(
    ("epochs", "share", "switch"), [(200, 0.1, 20), (40, 0.1, 4), (4, 0.1, 1), (200, 0.0, 0)]
)
def test_the_switch_keeps_its_share_of_the_training(epochs, share, switch):
    assert CoTeachingPlus(told(0.4, epochs=epochs), switch_share=share).switch == switch


def test_the_switch_is_by_default_that_of_the_authors_code_for_cifar10():
    assert CoTeachingPlus(told(0.4, epochs=200)).switch == 20


def test_the_rate_that_is_told_can_be_scaled():
    method = CoTeachingPlus(told(0.4, epochs=200), rate_factor=0.5)
    method.on_epoch_start(None, 10)
    assert method.keep == pytest.approx(0.8, abs=1e-12)


@pytest.mark.parametrize(("epoch", "keep"), [(0, 1.0), (1, 0.96), (5, 0.8), (10, 0.6), (199, 0.6)])
def test_the_kept_share_follows_the_ramp(epoch, keep):
    method = CoTeachingPlus(told(0.4, epochs=200))
    method.on_epoch_start(None, epoch)
    assert method.keep == pytest.approx(keep, abs=1e-12)


def test_network_0_predicts():
    task = told(0.4)
    run = lab.make_run(task, 2)
    images = torch.randn(5, 6)
    for network in run.networks:
        network.eval()
    assert torch.equal(CoTeachingPlus(task).predict(run, images), run.networks[0](images))
    assert CoTeachingPlus.num_networks == 2
