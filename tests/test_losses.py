"""ELR+ and ALR: their ops against the formulas in float64, the authors' own values, and what a caller can get wrong."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import library

from nlbench import ops
from nlbench.ops import extension, losses

VECTORS = Path(__file__).parents[2] / "shared" / "vectors" / "official-losses.npz"
ALPHA, LAM_E, LAM = 0.9, 0.3, 3.0
needs_vectors = pytest.mark.skipif(not VECTORS.exists(), reason=f"{VECTORS} is not there")


@pytest.fixture(params=["compiled", "torch"])
def backend(request, monkeypatch):
    """Runs a test once with the compiled kernels and once with the torch reference in their place."""
    if request.param == "compiled" and ops.why_no_extension():
        pytest.skip(ops.why_no_extension())
    if request.param == "torch":
        monkeypatch.setattr(losses, "core", None)
        monkeypatch.setattr(extension, "_warned", {extension._why_torch(torch.device("cpu"))})
    return request.param


# --- the formulas in float64, with autograd doing the calculus ---------------------------------------------------


def soft_by_autograd(logits, soft_labels, mixed_targets, lam=LAM):
    z = logits.detach().double().requires_grad_()
    q = torch.softmax(z, 1).clamp(1e-4, 1 - 1e-4)
    agreement = torch.einsum("bc,bc->b", mixed_targets.double(), q)
    rows = (
        -torch.einsum("bc,bc->b", soft_labels.double(), z - z.logsumexp(1, keepdim=True)) + lam * (1 - agreement).log()
    )
    rows.mean().backward()
    return rows.detach(), z.grad


def alr_by_autograd(logits, index, targets, alpha=ALPHA, lam_e=LAM_E):
    z = logits.detach().double().requires_grad_()
    log_p = z - z.logsumexp(1, keepdim=True)
    memory = targets.double().clone()
    memory[index] = alpha * memory[index] + (1 - alpha) * log_p.detach().exp()
    rows = -(memory[index] * log_p).sum(1) - lam_e * (log_p.exp() * log_p).sum(1)
    rows.mean().backward()
    return rows.detach(), z.grad, memory


def inputs(B, C, stage, dtype=torch.float32, seed=0):
    """(logits, soft labels, mixed targets, index, targets). Late: a confident model whose targets agree with it."""
    rng = torch.Generator().manual_seed(seed)
    logits = torch.randn(B, C, generator=rng, dtype=torch.float64)
    labels = torch.randint(C, (2, B), generator=rng)
    soft = 0.8 * F.one_hot(labels[0], C).double() + 0.2 * F.one_hot(labels[1], C)
    index = torch.randperm(B + 5, generator=rng)[:B]
    targets = torch.rand(B + 5, C, generator=rng, dtype=torch.float64)
    targets /= targets.sum(1, keepdim=True)
    mixed = 0.3 * targets[index]
    if stage == "late":
        logits *= 12
        mixed = logits.softmax(1)
        targets[index] = mixed
    wide = torch.promote_types(dtype, torch.float32)
    return logits.to(dtype), soft.to(wide), mixed.to(wide), index, targets.to(wide)


def off_the_bounds(logits, by=1e-6):
    p = logits.double().softmax(1)
    return ~(((p - 1e-4).abs() < by) | ((p - (1 - 1e-4)).abs() < by)).any(1)


def close(got, want, tol):
    """Within `tol` of the largest entry of `want`."""
    scale = float(want.abs().max()) if want.numel() else 0.0
    torch.testing.assert_close(got.double(), want, rtol=0, atol=tol * scale)


SIZES = [(1, 1), (1, 10), (7, 2), (128, 10), (33, 17), (33, 101), (9, 1000)]
# Late in training 1 - <t, q> is about 1e-4, which costs four of the sixteen digits of float64.
DTYPES = [(torch.float64, 1e-11), (torch.float32, 2e-6), (torch.bfloat16, 5e-3)]


@pytest.mark.parametrize(("dtype", "tol"), DTYPES)
@pytest.mark.parametrize("stage", ["early", "late"])
@pytest.mark.parametrize(("B", "C"), SIZES)
def test_soft_elr_matches_the_formula(backend, B, C, stage, dtype, tol):
    logits, soft, mixed, _, _ = inputs(B, C, stage, dtype)
    rows, dlogits = ops.elr_step_soft(logits, soft, mixed, lam=LAM)
    want_rows, want_grad = soft_by_autograd(logits, soft, mixed)
    keep = off_the_bounds(logits)
    close(rows, want_rows, min(tol, 2e-6))
    close(dlogits[keep], want_grad[keep], tol)
    assert (rows.dtype, dlogits.dtype) == (torch.promote_types(dtype, torch.float32), dtype)


@pytest.mark.parametrize(("dtype", "tol"), DTYPES)
@pytest.mark.parametrize("stage", ["early", "late"])
@pytest.mark.parametrize(("B", "C"), SIZES)
def test_alr_matches_the_formula(backend, B, C, stage, dtype, tol):
    logits, _, _, index, targets = inputs(B, C, stage, dtype)
    want_rows, want_grad, want_targets = alr_by_autograd(logits, index, targets)
    rows, dlogits = ops.alr_step(logits, index, targets, alpha=ALPHA, lam_e=LAM_E)
    close(rows, want_rows, min(tol, 2e-6))
    torch.testing.assert_close(dlogits.double(), want_grad, rtol=0, atol=tol * float(want_grad.abs().max()) + 1e-9)
    close(targets, want_targets, min(tol, 5e-7))


@pytest.mark.parametrize("clamp", [True, False])
@pytest.mark.parametrize(("dtype", "tol"), [(torch.float64, 1e-13), (torch.float32, 5e-7), (torch.float16, 5e-7)])
@pytest.mark.parametrize("stage", ["early", "late"])
@pytest.mark.parametrize(("B", "C"), SIZES)
def test_update_targets_matches_the_formula(backend, B, C, stage, dtype, tol, clamp):
    logits, _, _, index, targets = inputs(B, C, stage, dtype)
    p = logits.double().softmax(1)
    q = p.clamp(1e-4, 1 - 1e-4)
    want = targets.double().clone()
    want[index] = 0.7 * want[index] + 0.3 * (q / q.sum(1, keepdim=True) if clamp else p)
    before, logits_before = targets.clone(), logits.clone()
    assert ops.update_targets(logits, index, targets, beta=0.7, clamp=clamp) is None
    close(targets, want, tol)
    assert torch.equal(logits, logits_before)
    rest = torch.ones(len(targets), dtype=torch.bool)
    rest[index] = False
    assert torch.equal(targets[rest], before[rest])


# --- values that the authors' own code computed ------------------------------------------------------------------


@needs_vectors
@pytest.mark.parametrize(("dtype", "tol"), [(torch.float64, 1e-12), (torch.float32, 2e-6)])
@pytest.mark.parametrize("stage", ["early", "late"])
@pytest.mark.parametrize("C", [10, 100])
def test_elr_plus_follows_the_authors_code(backend, C, stage, dtype, tol):
    data = np.load(VECTORS)
    [name] = {key.split("/")[2] for key in data.files if key.startswith(f"C{C}/{stage}/elrplus_")}
    beta, lam = (float(part.lstrip("betalm")) for part in name.split("_")[1:])
    targets = torch.zeros(40, C, dtype=dtype)
    for step in range(2):
        prefix = f"C{C}/{stage}/{name}/step{step}/"
        of = {key.removeprefix(prefix): torch.from_numpy(data[key]) for key in data.files if key.startswith(prefix)}
        ops.update_targets(of["teacher_logits"].to(dtype), of["index"], targets, beta=beta, clamp=False)
        weight, order = float(of["mix_weight"]), of["mix_index"]
        one_hot, rows = F.one_hot(of["labels"], C).to(dtype), targets[of["index"]]
        soft, mixed = (weight * x + (1 - weight) * x[order] for x in (one_hot, rows))
        if C == 100:  # the authors reweight the labels by the target's belief in them, for this class count alone
            soft = soft * mixed / (soft * mixed).sum(1, keepdim=True)
        logits = of["logits"].to(dtype).requires_grad_()
        loss = ops.elr_loss_soft(logits, soft, mixed, lam=lam)
        loss.backward()
        keep = off_the_bounds(of["logits"])
        close(loss.detach(), of["loss"], tol)
        close(logits.grad[keep], of["grad"][keep], tol)
        close(targets, of["targets_after"], tol)


# --- special cases -----------------------------------------------------------------------------------------------


def test_soft_elr_with_one_hot_labels_is_elr(backend):
    logits, _, _, index, targets = inputs(33, 10, "late", torch.float64)
    labels = torch.arange(33) % 10
    rows, dlogits = ops.elr_step(logits, labels, index, targets, beta=0.7, lam=LAM)
    soft_rows, soft_dlogits = ops.elr_step_soft(logits, F.one_hot(labels, 10).double(), targets[index], lam=LAM)
    torch.testing.assert_close(soft_rows, rows, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(soft_dlogits, dlogits, rtol=1e-8, atol=1e-10)


def test_alr_warmup_is_cross_entropy_and_leaves_the_targets(backend):
    logits, _, _, index, _ = inputs(33, 10, "late")
    labels = torch.arange(38) % 10
    targets = F.one_hot(labels, 10).float()
    before = targets.clone()
    rows, dlogits = ops.alr_step(logits, index, targets, alpha=1.0, lam_e=0.0)
    z = logits.clone().requires_grad_()
    want = F.cross_entropy(z, labels[index], reduction="none")
    want.mean().backward()
    assert torch.equal(targets, before)
    torch.testing.assert_close(rows, want.detach(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(dlogits, z.grad, rtol=1e-5, atol=1e-8)


def test_an_impossible_class_costs_nothing_without_a_label(backend):
    logits = torch.tensor([[0.0, 1.0, float("-inf")], [0.0, 1.0, 2.0]])
    soft = torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]])
    rows, dlogits = ops.elr_step_soft(logits, soft, torch.zeros(2, 3), lam=LAM)
    want = -(logits[0, :2].log_softmax(0) * 0.5).sum()
    torch.testing.assert_close(rows[0], want)
    assert dlogits.isfinite().all()
    targets = soft.clone()
    rows, dlogits = ops.alr_step(logits, torch.tensor([0, 1]), targets, alpha=1.0, lam_e=LAM_E)
    assert rows.isfinite().all()
    assert dlogits.isfinite().all()
    rows, _ = ops.elr_step_soft(logits, torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, 1.0]]), torch.zeros(2, 3), lam=LAM)
    assert rows[0] == float("inf")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("C", [3, 40])
def test_bad_logits_spoil_their_row_alone(backend, value, C):
    logits, soft, mixed, index, targets = inputs(5, C, "early")
    clean = logits.clone()
    logits[2, 1] = value
    others = [0, 1, 3, 4]

    def soft_step(z):
        return (*ops.elr_step_soft(z, soft, mixed, lam=LAM), None)

    def alr_step(z):
        memory = targets.clone()
        return (*ops.alr_step(z, index, memory, alpha=ALPHA, lam_e=LAM_E), memory)

    for step in (soft_step, alr_step):
        (rows, dlogits, memory), (want_rows, want_dlogits, want_memory) = step(logits), step(clean)
        assert torch.equal(rows[others], want_rows[others])
        assert torch.equal(dlogits[others], want_dlogits[others])
        assert rows[2].isnan()
        assert dlogits[2].isnan().all()
        if memory is not None:
            assert memory[index[2]].isnan().all()
            assert torch.equal(memory[index[others]], want_memory[index[others]])


def test_empty_batches(backend):
    none, targets = torch.zeros(0, dtype=torch.int64), torch.rand(5, 10)
    before, logits, soft = targets.clone(), torch.zeros(0, 10, requires_grad=True), torch.zeros(0, 10)
    for rows, dlogits in (
        ops.elr_step_soft(logits, soft, soft, lam=LAM),
        ops.alr_step(logits, none, targets, alpha=ALPHA, lam_e=LAM_E),
    ):
        assert (rows.shape, dlogits.shape) == ((0,), (0, 10))
    ops.update_targets(logits, none, targets, beta=0.7, clamp=True)
    assert torch.equal(targets, before)
    assert ops.elr_loss_soft(logits, soft, soft, lam=LAM, reduction="sum") == 0
    with pytest.raises(ValueError, match="alr_loss: the mean of an empty batch is undefined"):
        ops.alr_loss(logits, none, targets, alpha=ALPHA, lam_e=LAM_E)


# --- as torch functions ------------------------------------------------------------------------------------------


def soft_form(targets):
    def loss(z, soft, mixed, index, reduction="mean"):
        return ops.elr_loss_soft(z, soft, mixed, lam=LAM, reduction=reduction)

    return loss


def alr_form(targets):
    def loss(z, soft, mixed, index, reduction="mean"):
        return ops.alr_loss(z, index, targets, alpha=ALPHA, lam_e=LAM_E, reduction=reduction)

    return loss


forms = pytest.mark.parametrize("form", [soft_form, alr_form])


@forms
def test_reductions_and_their_gradients(backend, form):
    logits, soft, mixed, index, targets = inputs(7, 10, "early", torch.float64)
    weight = torch.randn(7, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def run(reduction, finish):
        z = logits.clone().requires_grad_()
        value = form(targets.clone())(z, soft, mixed, index, reduction)
        finish(value).backward()
        return value.detach(), z.grad

    rows, _ = run("none", torch.sum)
    mean, mean_grad = run("mean", lambda loss: -3 * loss)
    total, total_grad = run("sum", lambda loss: loss)
    _, weighted_grad = run("none", lambda rows: (rows * weight).sum())
    torch.testing.assert_close(mean, rows.mean())
    torch.testing.assert_close(total, rows.sum())
    torch.testing.assert_close(mean_grad, -3 / 7 * total_grad)
    torch.testing.assert_close(weighted_grad, weight[:, None] * total_grad)


@forms
def test_without_gradient_and_under_autocast(backend, form):
    logits, soft, mixed, index, targets = inputs(7, 10, "early")
    with torch.no_grad():
        loss = form(targets.clone())(logits.clone().requires_grad_(), soft, mixed, index)
    assert not loss.requires_grad
    with torch.inference_mode():
        assert torch.equal(loss, form(targets.clone())(logits, soft, mixed, index))
    layer = torch.nn.Linear(10, 10)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = layer(logits)
        loss = form(targets.clone())(out, soft, mixed, index)
    assert (out.dtype, loss.dtype) == (torch.bfloat16, torch.float32)
    loss.backward()
    assert layer.weight.grad.isfinite().all()


@forms
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_compiled_equals_eager(form, reduction):
    logits, soft, mixed, index, targets = inputs(33, 10, "early")
    layer = torch.nn.Linear(10, 10)

    def step(memory):
        ops.update_targets(logits, index, memory, beta=0.7, clamp=True)
        return form(memory)(layer(logits), soft, mixed, index, reduction).mean() * 2

    results = []
    for run in (step, torch.compile(step, backend="aot_eager", fullgraph=True)):
        layer.zero_grad()
        memory = targets.clone()
        loss = run(memory)
        loss.backward()
        results.append((loss.detach(), layer.weight.grad.clone(), memory))
    for eager, compiled in zip(*results, strict=True):
        torch.testing.assert_close(compiled, eager, rtol=1e-6, atol=1e-7)
    assert not torch.equal(results[1][2], targets)


def test_ops_pass_opcheck():
    logits, soft, mixed, index, targets = inputs(7, 10, "early")
    library.opcheck(torch.ops.nlbench.elr_step_soft.default, (logits, soft, mixed, LAM, True))
    library.opcheck(torch.ops.nlbench.alr_step.default, (logits, index, targets, ALPHA, LAM_E, True))
    library.opcheck(torch.ops.nlbench.update_targets.default, (logits, index, targets, 0.7, False))


# --- what a caller can get wrong ---------------------------------------------------------------------------------

SOFT = {"logits": torch.zeros(4, 3), "soft_labels": torch.zeros(4, 3), "mixed_targets": torch.zeros(4, 3), "lam": LAM}
MEMORY = {"logits": torch.zeros(4, 3), "index": torch.tensor([3, 1, 0, 5]), "targets": torch.full((6, 3), 0.25)}


@pytest.mark.parametrize(
    ("op", "given", "change", "error", "message"),
    [
        ("elr_loss_soft", SOFT, {"soft_labels": torch.zeros(4, 2)}, ValueError,
         "soft_labels must be float32 or float64 of shape [4, 3], got float32 of shape [4, 2]"),
        ("elr_loss_soft", SOFT, {"soft_labels": torch.zeros(4, dtype=torch.int64)}, TypeError,
         "soft_labels must be float32 or float64 of shape [4, 3], got int64 of shape [4]"),
        ("elr_loss_soft", SOFT, {"mixed_targets": torch.zeros(4, 3, dtype=torch.float64)}, TypeError,
         "mixed_targets must be float32 of shape [4, 3], got float64 of shape [4, 3]"),
        ("elr_loss_soft", SOFT, {"mixed_targets": torch.zeros(4, 3, device="meta")}, ValueError,
         "mixed_targets must be on cpu as logits is, got meta"),
        ("elr_loss_soft", SOFT, {"soft_labels": torch.zeros(4, 3, requires_grad=True)}, ValueError,
         "soft_labels must not require a gradient"),
        ("elr_loss_soft", SOFT, {"lam": -1.0}, ValueError, "lam must be finite and >= 0, got -1.0"),
        ("elr_loss_soft", SOFT, {"reduction": "max"}, ValueError, "reduction must be 'mean', 'sum' or 'none'"),
        ("alr_loss", MEMORY | {"alpha": 0.9, "lam_e": 0.1}, {"alpha": 1.1}, ValueError,
         "alpha must be in [0, 1], got 1.1"),
        ("alr_loss", MEMORY | {"alpha": 0.9, "lam_e": 0.1}, {"lam_e": float("nan")}, ValueError,
         "lam_e must be finite and >= 0, got nan"),
        ("alr_loss", MEMORY | {"alpha": 0.9, "lam_e": 0.1}, {"index": torch.tensor([0, 1, 6, 2])}, IndexError,
         "index must be in [0, 6), got 6 at position 2"),
        ("alr_step", MEMORY | {"alpha": 0.9, "lam_e": 0.1}, {"index": torch.tensor([4, 1, 2, 4])}, IndexError,
         "index must not repeat within a batch, got 4 again at position 3"),
        ("alr_loss", MEMORY | {"alpha": 0.9, "lam_e": 0.1}, {"targets": torch.zeros(3, 6).t()}, ValueError,
         "targets must be contiguous"),
        ("update_targets", MEMORY | {"beta": 0.7, "clamp": True}, {"beta": 1.0}, ValueError,
         "beta must be in [0, 1), got 1.0"),
        ("update_targets", MEMORY | {"beta": 0.7, "clamp": True}, {"clamp": 1}, TypeError,
         "clamp must be a bool, got int"),
        ("update_targets", MEMORY | {"beta": 0.7, "clamp": True}, {"index": torch.tensor([-1, 1, 2, 3])}, IndexError,
         "index must be in [0, 6), got -1 at position 0"),
    ],
)  # fmt: skip
def test_ops_refuse(backend, op, given, change, error, message):
    with pytest.raises(error) as caught:
        getattr(ops, op)(**(given | change))
    assert str(caught.value).startswith(f"{op}: ")
    assert message in str(caught.value)
    assert (MEMORY["targets"] == 0.25).all()  # nothing is written before everything is checked


def test_no_class_at_all_is_refused():
    """An empty row has no softmax; the kernels would leave its loss unwritten."""
    labels, index = torch.zeros(3, dtype=torch.int64), torch.arange(3)
    for step in (
        lambda z, t: ops.elr_step(z, labels, index, t, beta=0.7, lam=3.0),
        lambda z, t: ops.elr_step_soft(z, t[:3], t[:3], lam=3.0),
        lambda z, t: ops.alr_step(z, index, t, alpha=0.9, lam_e=0.1),
        lambda z, t: ops.update_targets(z, index, t, beta=0.7, clamp=True),
    ):
        with pytest.raises(ValueError, match="logits must have at least one class"):
            step(torch.empty(3, 0), torch.empty(6, 0))


def test_a_loss_scaler_reaches_the_gradient_of_float16_logits_before_it_is_rounded():
    torch.manual_seed(0)
    B, C = 1024, 10
    z = (torch.randn(B, C) * 3).half()
    labels, index, targets = torch.randint(0, C, (B,)), torch.arange(B), torch.full((B, C), 0.09)
    gradients = []
    for logits in (z.clone().requires_grad_(), z.float().requires_grad_()):
        (ops.elr_loss(logits, labels, index, targets.clone(), beta=0.7, lam=3.0) * 65536).backward()
        gradients.append(logits.grad.float())
    half, full = gradients
    torch.testing.assert_close(half, full, rtol=1e-3, atol=1e-4)
