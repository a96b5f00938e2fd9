"""Forward and backward correction: where T comes from, and which matrix the losses use."""

import math

import pytest
import torch
from cases import CLASSES, ready
from formulas import softmax, true_T
from lab import Helper, make_batch, make_logits, make_run, make_task, value_and_grad

from nlbench.method import Task
from nlbench.ops.transition import estimate_T

# Classes without an example leave the helper network's T close to singular, which does not matter.
pytestmark = pytest.mark.filterwarnings("ignore:backward. the inverse of T")


@pytest.mark.parametrize("name", ["forward", "backward"])
def test_T_is_estimated_once_for_both_corrections(name):
    task = make_task(N=200, told={}, epochs=7)
    fitted = []

    def fit(run, key, loss, epochs):
        # "ce" is nlbench's own loss, which methods share.
        assert loss == "ce"
        fitted.append((key, epochs))
        return Helper(task).eval()

    method, run = CLASSES[name](task), make_run(task, fit=fit)
    method.prepare(run)
    # One key and length, so that one helper network is trained for both.
    assert fitted == [("warm-up", 7)]

    expected = estimate_T(softmax(Helper(task).logits.detach().double()))
    torch.testing.assert_close(method.T, expected, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(method.T.sum(1), torch.ones(10, dtype=torch.float64))

    longer = CLASSES[name](task, warmup_share=2.0)
    longer.prepare(run)
    assert fitted[1] == ("warm-up", 14)


@pytest.mark.parametrize("name", ["forward", "backward"])
def test_true_T_is_told_and_marked(name):
    T = true_T(10)
    task = make_task(told={"T": T})

    def fit(run, key, loss, epochs):
        raise AssertionError("no helper network is needed")

    method = CLASSES[name](task, T=True)
    assert method.told == ("T",)
    assert CLASSES[name].told == ()

    method.prepare(make_run(task, fit=fit))
    assert torch.equal(method.T, T)


def test_corrections_with_the_identity_are_cross_entropy():
    task = make_task(N=16, told={"T": torch.eye(10, dtype=torch.float64)})
    logits, batch = make_logits(16, 10, "early"), make_batch(task, torch.arange(16))
    ce = value_and_grad(ready("ce", {}, task), logits, batch)
    for name in ("forward", "backward"):
        got = value_and_grad(ready(name, {"T": True}, task), logits, batch)
        torch.testing.assert_close(got, ce, rtol=1e-10, atol=1e-14)


def test_backward_loss_goes_below_zero_by_a_known_amount():
    """0.6 on the diagonal of three classes: the inverse has rows (2, -0.5, -0.5)."""
    T = torch.full((3, 3), 0.2, dtype=torch.float64) + 0.4 * torch.eye(3, dtype=torch.float64)
    task = Task(1, 3, torch.tensor([0]), 6, 1, 1, privileged={"T": T})
    method = ready("backward", {"T": True}, task)

    torch.testing.assert_close(
        method.inverse[0], torch.tensor([2.0, -0.5, -0.5], dtype=torch.float64)
    )

    # With a gap of 20 the probability is clipped at 1e-7.
    for gap, log_p in (
        (12.0, -12.0 - math.log(2 + math.exp(-12.0))),
        (20.0, math.log(1e-7)),
    ):
        logits = torch.tensor([[0.0, 0.0, -gap]], dtype=torch.float64)
        loss, _ = value_and_grad(method, logits, make_batch(task, torch.tensor([0])))
        expected = 1.5 * math.log(2 + math.exp(-gap)) + 0.5 * log_p
        assert float(loss) == pytest.approx(expected, rel=1e-9)
        assert expected < -5


def test_backward_inverts_in_closed_form_for_symmetric_noise():
    C, rate = 10, 0.4
    b = rate / (C - 1)
    a = 1 - rate * C / (C - 1)
    T = a * torch.eye(C, dtype=torch.float64) + b
    method = ready("backward", {"T": True}, make_task(told={"T": T}))
    torch.testing.assert_close(
        method.inverse, (torch.eye(C, dtype=torch.float64) - b) / a, rtol=1e-12, atol=1e-14
    )


@pytest.mark.parametrize("rate", [0.9, 0.8999])  # singular, and nearly so
def test_backward_mixes_a_T_it_cannot_invert_well_and_says_so(rate):
    C = 10
    eye = torch.eye(C, dtype=torch.float64)
    T = (1 - rate * C / (C - 1)) * eye + rate / (C - 1)
    method = CLASSES["backward"](make_task(told={"T": T}), T=True, max_weight=50.0)

    with pytest.warns(
        UserWarning, match=r"above max_weight 50; 4% of the identity was mixed into T"
    ):
        method.prepare(make_run(method.task))

    # With a share m of the identity the inverse's rows sum to about 2 / m: 66 for 3%, 50 less a bit
    # for 4%.
    assert torch.equal(method.T, T)
    torch.testing.assert_close((0.96 * T + 0.04 * eye) @ method.inverse, eye, rtol=0, atol=1e-10)
    assert method.inverse.abs().sum(1).max() <= 50


def test_backward_leaves_a_good_T_alone(recwarn):
    T = true_T(10)
    method = ready("backward", {"T": True}, make_task(told={"T": T}))
    assert torch.equal(method.T, T)
    assert not [w for w in recwarn if "backward" in str(w.message)]
