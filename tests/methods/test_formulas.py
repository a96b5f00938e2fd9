"""The losses that are one formula: ce, mae, bootstrap, gce, sl, forward and backward.

The references are the papers' general forms in float64, differentiated by autograd, and values that
the authors' own codes computed.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from cases import CLASSES, ready
from formulas import clipped, one_hot, ref_ce, softmax, true_T
from lab import make_batch, make_logits, make_task, no_views, value_and_grad
from official import needs_vectors, official_examples, official_values

from nlbench.method import Batch, Task


def ref_mae(z, y):
    return (softmax(z) - one_hot(y, z.shape[1])).abs().sum(1) / 2


def ref_bootstrap(z, y, b, soft):
    p = clipped(z)
    own = p if soft else (softmax(z) == softmax(z).amax(1, keepdim=True)).double()
    return -((b * one_hot(y, z.shape[1]) + (1 - b) * own) * p.log()).sum(1)


def ref_gce(z, y, q):
    p_y = (softmax(z) * one_hot(y, z.shape[1])).sum(1)
    return (1 - p_y**q) / q


def ref_truncated(z, y, weights, q=0.7, k=0.5):
    return weights * (ref_gce(z, y, q) - (1 - k**q) / q)


def ref_sl(z, y, alpha, beta, log_zero):
    log_label = (1 - one_hot(y, z.shape[1])) * log_zero
    return alpha * ref_ce(z, y) - beta * (clipped(z, 1e-7, 1.0) * log_label).sum(1)


def ref_forward(z, y, T):
    noisy = torch.einsum("bi,ij->bj", clipped(z), T)
    return -(noisy.log() * one_hot(y, z.shape[1])).sum(1)


def ref_backward(z, y, T):
    loss_of_each_label = -clipped(z).log()
    corrected = torch.linalg.solve(T, loss_of_each_label.T).T
    return (corrected * one_hot(y, z.shape[1])).sum(1)


@dataclass
class Formula:
    name: str
    reference: Any
    params: dict[str, Any] = field(default_factory=dict)
    bounds: tuple[float, ...] = ()  # of the clamps in it

    def __str__(self):
        return f"{self.name}{self.params or ''}"


CLIP = (1e-7, 1 - 1e-7)
LN_1E_4 = math.log(1e-4)
FORMULAS = [
    Formula("ce", ref_ce),
    Formula("mae", ref_mae),
    Formula("bootstrap", lambda z, y: ref_bootstrap(z, y, 0.8, soft=False), {}, CLIP),
    Formula("bootstrap", lambda z, y: ref_bootstrap(z, y, 0.95, soft=True), {"kind": "soft"}, CLIP),
    Formula(
        "bootstrap",
        lambda z, y: ref_bootstrap(z, y, 0.5, soft=True),
        {"kind": "soft", "soft_b": 0.5},
        CLIP,
    ),
    Formula("gce", lambda z, y: ref_gce(z, y, 0.7)),
    Formula("gce", lambda z, y: ref_gce(z, y, 1.0), {"q": 1.0}),
    Formula("gce", lambda z, y, index: ref_truncated(z, y, index % 3 > 0), {"truncate": True}),
    Formula("sl", lambda z, y: ref_sl(z, y, 0.1, 1.0, LN_1E_4), {}, (1e-7,)),
    Formula(
        "sl",
        lambda z, y: ref_sl(z, y, 6.0, 0.1, -4.0),
        {"alpha": 6.0, "beta": 0.1, "log_zero": -4.0},
        (1e-7,),
    ),
    Formula("forward", lambda z, y: ref_forward(z, y, true_T(z.shape[1])), {"T": True}, CLIP),
    Formula("backward", lambda z, y: ref_backward(z, y, true_T(z.shape[1])), {"T": True}, CLIP),
]


def far_from_clamps(logits, bounds, dtype):
    """Mark rows whose clamp masks are the same in `dtype`.

    In float32 a probability near 1e-7 carries an error of 1e-5 of itself at these logits, and one
    near 1 an error of 1e-7.
    """
    p = softmax(logits)
    near = torch.zeros(len(p), dtype=torch.bool)

    for bound in bounds:
        in_float32 = 1e-4 * bound if bound < 0.5 else 2e-7
        margin = 1e-12 if dtype == torch.float64 else in_float32
        near |= ((p - bound).abs() < margin).any(1)
    return ~near


# float64 is the same formula in another order. float32 rounds logits of up to 50 to 4e-6, and so
# each probability.
@pytest.mark.parametrize(
    ("dtype", "rtol", "atol"), [(torch.float64, 1e-9, 1e-12), (torch.float32, 1e-4, 1e-6)], ids=str
)
@pytest.mark.parametrize("stage", ["early", "late"])
@pytest.mark.parametrize("C", [10, 100])
@pytest.mark.parametrize("formula", FORMULAS, ids=str)
def test_loss_and_gradient_match_the_formula(formula, C, stage, dtype, rtol, atol):
    task = make_task(N=80, C=C, told={"T": true_T(C)})
    index = torch.randperm(80, generator=torch.Generator().manual_seed(4))[:64]
    logits = make_logits(64, C, stage)
    # Late, four are surer than 1 - 1e-7, two of them of their label.
    if stage == "late":
        logits[:4] = -math.log((C - 1) / 5e-8)
        logits[torch.arange(4), torch.tensor([0, 1, *task.labels[index[2:4]]])] = 0.0

    logits = logits.to(dtype).double()
    keep = far_from_clamps(logits, formula.bounds, dtype)
    assert keep.sum() > 50

    logits, batch = logits[keep], make_batch(task, index[keep])
    method = ready(formula.name, formula.params, task)
    if formula.params.get("truncate"):
        method.weights.copy_(torch.arange(80) % 3 > 0)
    z = logits.clone().requires_grad_()
    index = [batch.index] if formula.params.get("truncate") else []
    losses = formula.reference(z, batch.labels, *index)
    (expected,) = torch.autograd.grad(losses.mean(), z)
    loss, grad = value_and_grad(method, logits.to(dtype), batch)

    torch.testing.assert_close(loss.double(), losses.mean().detach(), rtol=rtol, atol=atol)
    torch.testing.assert_close(grad.double(), expected, rtol=rtol, atol=atol)


@pytest.mark.parametrize("C", [10, 100])
@pytest.mark.parametrize(
    ("name", "params", "weight"),
    [
        ("ce", {}, lambda p: torch.ones_like(p)),
        ("gce", {}, lambda p: p**0.7),
        ("gce", {"truncate": True}, lambda p: p**0.7 * (torch.arange(len(p)) % 2)),
        ("sl", {}, lambda p: 0.1 + 9.210340371976182 * p),
        ("mae", {}, lambda p: p),
    ],
)
def test_label_losses_are_one_weight_on_the_gradient_of_ce(name, params, weight, C):
    logits = make_logits(32, C, "early")
    task = make_task(N=32, C=C)
    method = ready(name, params, task)
    if "truncate" in params:
        method.weights.copy_(torch.arange(32) % 2)
    _, grad = value_and_grad(method, logits, make_batch(task, torch.arange(32)))
    p, Y = softmax(logits), one_hot(task.labels, C)
    p_y = (p * Y).sum(1)

    torch.testing.assert_close(grad * 32, weight(p_y)[:, None] * (p - Y), rtol=1e-10, atol=1e-14)


# Their one-hot labels are float32 before they are clipped, so that their log 0 is rounded to
# float32.
LOG_ZERO = float(np.log(np.float32(1e-4)))
OFFICIAL = [
    ("sl", {"alpha": 0.1, "beta": 1.0, "log_zero": LOG_ZERO}, "sl_alpha0.1_beta1.0", (10,)),
    ("sl", {"alpha": 6.0, "beta": 0.1, "log_zero": LOG_ZERO}, "sl_alpha6.0_beta0.1", (100,)),
    ("gce", {"q": 0.7}, "gce_q0.7", (10, 100)),
    ("gce", {"truncate": True}, "gce_truncated_q0.7_k0.5_weights0everythird", (10, 100)),
    ("mae", {}, "mae", (10, 100)),
]


@pytest.mark.parametrize("stage", ["early", "late"])
def test_the_gradients_of_examples_equal_the_authors(stage):
    for at in official_examples("losses", stage):
        logits = torch.tensor([at["logits"]], dtype=torch.float64)
        labels = torch.tensor([at["label"]])
        task = Task(1, 10, labels, 6, 1, 1)
        method = CLASSES["sl"](task, alpha=0.1, beta=1.0, log_zero=LOG_ZERO)
        batch = Batch(logits, labels, torch.arange(1), no_views)
        _, grad = value_and_grad(method, logits, batch)
        expected = at["gradients"]["sl_alpha0.1_beta1.0"]
        torch.testing.assert_close(grad[0].tolist(), expected, rtol=0, atol=1e-11)


@needs_vectors
@pytest.mark.parametrize("stage", ["early", "late"])
@pytest.mark.parametrize(
    ("name", "params", "key", "C"), [(*case, C) for *case, sizes in OFFICIAL for C in sizes]
)
def test_label_losses_equal_the_authors(name, params, key, C, stage):
    values = official_values(f"C{C}/{stage}/")
    logits, labels = values["logits"], values["labels"]
    B = len(labels)
    method = CLASSES[name](Task(B, C, labels, 6, 1, B), **params)
    if "truncate" in params:
        method.weights.copy_(torch.arange(B) % 3 > 0)
    loss, grad = value_and_grad(method, logits, Batch(logits, labels, torch.arange(B), no_views))
    # Their untruncated GCE clamps p_y at 1e-7, ours does not: below it the loss differs by at most
    # 1e-7 ** q / q.
    clamped = torch.zeros(B, dtype=torch.bool)
    if key == "gce_q0.7":
        clamped = softmax(logits)[torch.arange(B), labels] < 1.1e-6

    assert (~clamped).sum() >= 3
    bound = float(clamped.double().mean()) * 1.1e-6**0.7 / 0.7
    torch.testing.assert_close(loss, values[f"{key}/loss"], rtol=0, atol=1e-12 + bound)
    torch.testing.assert_close(grad[~clamped], values[f"{key}/grad"][~clamped], rtol=0, atol=1e-12)


def test_soft_bootstrap_differentiates_through_its_own_prediction():
    logits, task = make_logits(16, 10, "early"), make_task(N=16)
    method, batch = ready("bootstrap", {"kind": "soft"}, task), make_batch(task, torch.arange(16))
    _, grad = value_and_grad(method, logits, batch)
    # Cross entropy and nothing else.
    detached = 0.95 * (softmax(logits) - one_hot(task.labels, 10)) / 16
    assert (grad - detached).abs().max() > 1e-4


def test_mae_is_gce_at_q_1():
    logits, task = make_logits(16, 10, "late"), make_task(N=16)
    batch = make_batch(task, torch.arange(16))
    mae = value_and_grad(ready("mae", {}, task), logits, batch)
    gce = value_and_grad(ready("gce", {"q": 1.0}, task), logits, batch)
    torch.testing.assert_close(mae, gce, rtol=1e-12, atol=1e-15)
