"""JoCoR: the joint loss, the examples it keeps, and its steps, re-implemented plainly."""

import math

import lab
import pytest
import torch
from lab import in_float64, make_logits, make_task, train
from torch import nn

from nlbench import registry

JoCoR = registry.load_method(registry.method_files()["jocor"])


def told(rate, **more):
    return make_task(told={"noise_rate": rate}, **more)


def log_softmax(row):
    return row - row.max() - torch.log(torch.exp(row - row.max()).sum())


def plain_rows(one, two, labels, lam):
    """Compute the losses example by example and class by class.

    (1 - lam) (CE_1 + CE_2) + lam (KL(p1 || p2) + KL(p2 || p1))
    """
    rows = []

    for b, y in enumerate(labels.tolist()):
        log_p, log_q = log_softmax(one[b]), log_softmax(two[b])
        forth, back = 0.0, 0.0
        for k in range(len(log_p)):
            forth = forth + torch.exp(log_p[k]) * (log_p[k] - log_q[k])
            back = back + torch.exp(log_q[k]) * (log_q[k] - log_p[k])
        rows.append((1 - lam) * (-log_p[y] - log_q[y]) + lam * (forth + back))
    return torch.stack(rows)


# ---- The loss ------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["early", "late"])
@pytest.mark.parametrize("lam", [0.0, 0.1, 0.65, 0.9])
@pytest.mark.parametrize(("B", "C"), [(1, 10), (7, 2), (13, 33)])
def test_the_joint_loss_is_the_formula(B, C, lam, stage):
    labels = torch.randint(C, (B,), generator=torch.Generator().manual_seed(B))
    method = JoCoR(told(0.4, C=C), lam=lam)
    logits = [make_logits(B, C, stage, seed).requires_grad_() for seed in (1, 2)]
    expected = plain_rows(*logits, labels, lam)
    expected_grads = torch.autograd.grad(expected.mean(), logits)
    rows = method.joint_loss(*logits, labels)
    grads = torch.autograd.grad(rows.mean(), logits)

    torch.testing.assert_close(rows, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(grads, expected_grads, rtol=1e-12, atol=1e-12)

    # The reference gets the numbers that float32 holds, so that only the arithmetic differs.
    single = [z.detach().float().requires_grad_() for z in logits]
    wide = [z.detach().double().requires_grad_() for z in single]
    expected = plain_rows(*wide, labels, lam)
    expected_grads = torch.autograd.grad(expected.mean(), wide)
    rows = method.joint_loss(*single, labels)
    grads = torch.autograd.grad(rows.mean(), single)

    assert rows.dtype == torch.float32
    torch.testing.assert_close(rows.double(), expected, rtol=1e-5, atol=1e-6)
    for grad, other in zip(grads, expected_grads, strict=True):
        torch.testing.assert_close(grad.double(), other, rtol=1e-4, atol=1e-6)


def test_both_networks_learn_from_both_divergences():
    """At lam near 1 each network's gradient is that of the sum of both KL divergences.

    With p = (1/2, 1/2) and q = (4/5, 1/5), and z the logit of class 0:

        d KL(p||q) / dz_p = p (1 - p) log(p0 q1 / (q0 p1)) = -log(4) / 4
        d KL(q||p) / dz_p = p0 - q0 = -0.3
    """
    lam = 1 - 1e-9
    one = torch.zeros(1, 2, dtype=torch.float64, requires_grad=True)
    two = torch.tensor([[math.log(4.0), 0.0]], dtype=torch.float64, requires_grad=True)
    rows = JoCoR(told(0.4, C=2), lam=lam).joint_loss(one, two, torch.tensor([0]))
    to_one, to_two = torch.autograd.grad(rows.sum(), (one, two))

    # The sum of both divergences is that of (p - q) log(p / q) over the classes.
    assert rows[0].item() == pytest.approx(0.3 * math.log(4), abs=1e-8)
    assert float(to_one[0, 0]) == pytest.approx(-math.log(4) / 4 - 0.3, abs=1e-8)
    assert float(to_two[0, 0]) == pytest.approx(0.8 * 0.2 * math.log(4) + 0.3, abs=1e-8)


# ---- The steps -----------------------------------------------------------------------------------


def weights_of(networks):
    """Return the weights of several networks in one list."""
    return list(nn.ModuleList(networks).parameters())


def plain_jocor(task, run, networks, lam, rate, ramp, epochs, schedule, lr):
    """Yield each step's pick (positions in the batch), its loss, and the weights after it."""
    # The authors have one optimiser over both networks.
    weights = weights_of(networks)
    velocity = [torch.zeros_like(weight) for weight in weights]

    for epoch in range(epochs):
        run.begin_epoch(epoch)
        for step, index in enumerate(run.order().split(task.batch_size)):
            images, labels = run.batch(index).images, task.labels[index]
            rows = plain_rows(networks[0](images), networks[1](images), labels, lam)
            forget = rate if epoch >= ramp else rate * epoch / ramp
            count = math.floor((1 - forget) * len(index))
            pick = sorted(range(len(index)), key=rows.tolist().__getitem__)[:count]
            loss = rows[pick].sum() / count

            grads = torch.autograd.grad(loss, weights)
            with torch.no_grad():
                for i, grad in enumerate(grads):
                    velocity[i] = 0.9 * velocity[i] + grad
                    weights[i] -= lr * schedule(epoch + step / task.steps_per_epoch) * velocity[i]
            yield pick, loss.item(), [weight.detach().clone() for weight in weights]


@pytest.mark.parametrize("scale", [1.0, 12.0])
@pytest.mark.parametrize(("lam", "factor"), [(0.9, 1.0), (0.1, 0.5)])
def test_ten_steps_of_joint_training(lam, factor, scale):
    def schedule(position):
        return 1.0 - 0.05 * position

    def start():
        networks = [lab.small_network(task, 3 + i).double() for i in range(2)]
        with torch.no_grad():
            for network in networks:
                network[-1].weight.mul_(scale)
        run = lab.make_run(task, networks=networks, schedule=schedule, lr=0.05)
        return in_float64(run), networks

    # Batches of 16, 16 and 8.
    task = told(0.37, N=40, epochs=8, batch_size=16)
    expected = list(plain_jocor(task, *start(), lam, 0.37 * factor, 2, 4, schedule, 0.05))
    assert len(expected) == 12

    run, networks = start()
    watch, weights = lab.Watch(run), []
    method = JoCoR(task, lam=lam, ramp_share=0.25, rate_factor=factor)
    step = method.training_step

    def kept(run, batch):
        logits = step(run, batch)
        weights.append([weight.detach().clone() for weight in weights_of(networks)])
        # A step returns the logits of network 0, in the order of the batch.
        assert torch.equal(logits, watch.logits[0])
        return logits

    method.training_step = kept
    method.prepare(run)
    train(method, run, range(4))

    for (names, loss, grads), after, (pick, their_loss, their_weights) in zip(
        watch.steps, weights, expected, strict=True
    ):
        assert names == ("network0", "network1")
        # Both networks learn from the same examples.
        for grad in grads:
            assert grad.abs().sum(1).nonzero().squeeze(1).tolist() == sorted(pick)
        assert float(loss) == pytest.approx(their_loss, rel=1e-11)
        torch.testing.assert_close(after, their_weights, rtol=1e-9, atol=1e-12)

    # The forgotten share is 0, then half of 0.37 * factor, then all of it.
    if factor == 1:
        counts = [16, 16, 8, 13, 13, 6, 10, 10, 5, 10, 10, 5]
    else:
        counts = [16, 16, 8, 14, 14, 7, 13, 13, 6, 13, 13, 6]
    assert [len(pick) for pick, _, _ in expected] == counts


@pytest.mark.parametrize(
    ("epochs", "params", "expected"),
    [
        # The ramp takes T_k = 10 epochs of 200, the same share of another length, and one at least.
        (200, {}, {0: 1.0, 1: 0.96, 5: 0.8, 9: 0.64, 10: 0.6, 11: 0.6, 199: 0.6}),
        (40, {}, {0: 1.0, 1: 0.8, 2: 0.6, 39: 0.6}),
        (10, {}, {0: 1.0, 1: 0.6, 9: 0.6}),
        (20, {"ramp_share": 0.5}, {0: 1.0, 5: 0.8, 10: 0.6, 19: 0.6}),
        # The authors' factor for asymmetric noise on CIFAR-100.
        (200, {"rate_factor": 0.5}, {0: 1.0, 5: 0.9, 10: 0.8}),
        (200, {"rate_factor": 0.0}, {0: 1.0, 5: 1.0, 10: 1.0}),
    ],
)
def test_the_kept_share_follows_the_ramp(epochs, params, expected):
    method = JoCoR(told(0.4, epochs=epochs), **params)
    for epoch, keep in expected.items():
        method.on_epoch_start(None, epoch)
        assert method.keep == pytest.approx(keep, abs=1e-12)


@pytest.mark.parametrize(
    ("rate", "factor", "B", "count"),
    [
        # (1 - 0.8) * 10 is 1.9999999999999996 in floating point, and still two are kept.
        (0.8, 1.0, 10, 2),
        # The authors' code rounds 9.6 down.
        (0.4, 1.0, 16, 9),
        (0.0, 1.0, 7, 7),
        # 0.16 of an example: a pick is never empty.
        (0.99, 1.0, 16, 1),
        (0.6, 3.0, 16, 1),
        (0.4, 1.0, 1, 1),
    ],
)
def test_how_many_are_kept(rate, factor, B, count):
    task = told(rate, N=B, batch_size=B)
    run = lab.make_run(task, networks=[nn.Linear(6, 10) for _ in range(2)])
    watch = lab.Watch(run)
    train(JoCoR(task, rate_factor=factor), run, range(2))
    # Epoch 1 forgets the whole share, as T_k is 1.
    _, loss, grads = watch.steps[1]
    assert loss.isfinite()
    assert len(grads) == 2
    for grad in grads:
        assert int((grad.abs().sum(1) > 0).sum()) == count


# ---- State, arguments, prediction ----------------------------------------------------------------


def test_the_rate_is_told_and_read_only_when_training():
    assert JoCoR.told == ("noise_rate",)
    assert JoCoR.num_networks == 2
    method = JoCoR(make_task(told={}))
    with pytest.raises(AttributeError, match="not told noise_rate"):
        method.on_epoch_start(None, 1)


def test_network_0_predicts():
    task = told(0.4)
    run = lab.make_run(task, 2)
    images = torch.randn(5, 6)
    for network in run.networks:
        network.eval()
    assert torch.equal(JoCoR(task).predict(run, images), run.networks[0](images))


def test_one_optimiser_a_network_is_as_good_as_one_for_both():
    """SGD treats each weight alone, so splitting the authors' one optimiser changes nothing."""
    task = told(0.4)
    split, joint = lab.make_run(task, 2), lab.make_run(task, 2)
    train(JoCoR(task), split, range(3))
    joint.optimise(
        weights_of(joint.networks), lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9), "both"
    )
    step = joint.backward_step
    joint.backward_step = lambda loss, *names: step(loss, "both")
    train(JoCoR(task), joint, range(3))

    for a, b in zip(weights_of(split.networks), weights_of(joint.networks), strict=True):
        assert torch.equal(a, b)
