"""The ops against independent references, the authors' own values, and what a caller can get wrong."""

import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision.transforms.functional as VF
from hypothesis import given, settings
from hypothesis import strategies as st
from marks import needs_gpu
from PIL import Image
from torch import library

from nlbench import ops
from nlbench.ops import extension, images, losses
from nlbench.ops import reference as torch_ops

VECTORS = Path(__file__).parents[2] / "shared" / "vectors" / "official-losses.npz"
BETA, LAM = 0.7, 3.0

needs_extension = pytest.mark.skipif(bool(ops.why_no_extension()), reason=f"no extension: {ops.why_no_extension()}")


@pytest.fixture(params=["cpp", "torch"])
def backend(request, monkeypatch):
    """Runs a test once with the compiled kernels and once with the torch reference in their place."""
    if request.param == "cpp" and ops.why_no_extension():
        pytest.skip(ops.why_no_extension())
    if request.param == "torch":
        monkeypatch.setattr(losses, "core", None)
        monkeypatch.setattr(images, "core", None)
        monkeypatch.setattr(extension, "_warned", {extension._why_torch(torch.device("cpu"))})
    return request.param


# --- ELR: the formula in float64, with autograd doing the calculus -----------------------------------------------


def elr_by_autograd(logits, labels, index, targets, beta=BETA, lam=LAM):
    """(rows, gradient of their mean, targets afterwards), all float64."""
    z = logits.detach().double().requires_grad_()
    memory = targets.double().clone()
    q = torch.clamp(torch.softmax(z, dim=1), 1e-4, 1 - 1e-4)
    with torch.no_grad():
        memory[index] = beta * memory[index] + (1 - beta) * q / q.sum(dim=1, keepdim=True)
    agreement = torch.einsum("bc,bc->b", memory[index], q)
    rows = F.cross_entropy(z, labels, reduction="none") + lam * torch.log(1 - agreement)
    if len(rows):
        rows.mean().backward()
    return rows.detach(), torch.zeros_like(z) if z.grad is None else z.grad, memory


def elr_inputs(B, C, stage, dtype=torch.float32, seed=0):
    """Early: small logits, targets that begin to fill. Late: a confident model whose targets agree with it."""
    rng = torch.Generator().manual_seed(seed)
    N = B + 5
    logits = torch.randn(B, C, generator=rng, dtype=torch.float64)
    index = torch.randperm(N, generator=rng)[:B]
    targets = torch.rand(N, C, generator=rng, dtype=torch.float64)
    targets *= 0.3 / targets.sum(1, keepdim=True)
    if stage == "late":
        logits *= 12
        targets[index] = logits.softmax(1)
    labels = torch.randint(C, (B,), generator=rng)
    return logits.to(dtype), labels, index, targets.to(torch.promote_types(dtype, torch.float32))


def off_the_bounds(logits, by=1e-6):
    """Rows without a probability within `by` of a clamp's bound, where rounding decides whether a gradient passes."""
    p = logits.double().softmax(1)
    near = ((p - 1e-4).abs() < by) | ((p - (1 - 1e-4)).abs() < by)
    keep = ~near.any(1)
    assert keep.any()
    return keep


def close(got, want, tol):
    """Within `tol` of the largest entry of `want`."""
    scale = float(want.abs().max()) if want.numel() else 0.0
    torch.testing.assert_close(got.double(), want, rtol=0, atol=tol * scale)


SIZES = [(1, 10), (7, 2), (7, 10), (128, 10), (128, 100), (33, 101), (33, 1000)]


# One step from the same targets. Late in training 1 - <t, q> is about 1e-4, so float64 loses four of its sixteen
# digits, as the reference does: each rounding of 1e-16 counts as 1e-12, and which ones meet depends on the processor's
# exponential. float32 logits do not lose four of seven, because sums and products are float64.
@pytest.mark.parametrize(("dtype", "tol"), [(torch.float64, 4e-12), (torch.float32, 5e-7)])
@pytest.mark.parametrize("stage", ["early", "late"])
@pytest.mark.parametrize(("B", "C"), SIZES)
def test_elr_matches_the_formula(backend, B, C, stage, dtype, tol):
    logits, labels, index, targets = elr_inputs(B, C, stage, dtype)
    want_rows, want_grad, want_targets = elr_by_autograd(logits, labels, index, targets)
    rows, dlogits = ops.elr_step(logits, labels, index, targets, beta=BETA, lam=LAM)
    keep = off_the_bounds(logits)
    close(rows, want_rows, tol)
    close(dlogits[keep], want_grad[keep], tol)
    close(targets, want_targets, tol)
    assert rows.dtype == dlogits.dtype == dtype


@pytest.mark.skipif(not VECTORS.exists(), reason=f"{VECTORS} is not there")
@pytest.mark.parametrize(("dtype", "tol"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
@pytest.mark.parametrize("stage", ["early", "late"])
@pytest.mark.parametrize("C", [10, 100])
def test_elr_follows_the_authors_code_over_four_steps(backend, C, stage, dtype, tol):
    data = np.load(VECTORS)
    [name] = {key.split("/")[2] for key in data.files if key.startswith(f"C{C}/{stage}/elr_")}
    beta, lam = (float(part.lstrip("betalm")) for part in name.split("_")[1:])
    targets = torch.zeros(40, C, dtype=dtype)
    for step in range(4):
        of = {key: torch.from_numpy(data[f"C{C}/{stage}/{name}/step{step}/{key}"]) for key in
              ("logits", "labels", "index", "loss", "grad", "targets_after")}  # fmt: skip
        logits = of["logits"].to(dtype).requires_grad_()
        loss = ops.elr_loss(logits, of["labels"], of["index"], targets, beta=beta, lam=lam)
        loss.backward()
        keep = off_the_bounds(of["logits"])
        close(loss.detach(), of["loss"], tol)
        close(logits.grad[keep], of["grad"][keep], tol)
        close(targets, of["targets_after"], tol)


def test_elr_targets_in_float32_stay_good_over_many_visits(backend):
    logits, labels, index, targets = elr_inputs(128, 10, "late")
    targets.zero_()
    memory = targets.double()
    for _ in range(20):
        want_rows, want_grad, memory = elr_by_autograd(logits, labels, index, memory)
        rows, dlogits = ops.elr_step(logits, labels, index, targets, beta=BETA, lam=LAM)
    keep = off_the_bounds(logits)
    # Now the targets agree with the model, and their rounding to float32 shows where 1 - <t, q> is small.
    close(rows, want_rows, 1e-5)
    close(dlogits[keep], want_grad[keep], 5e-5)
    close(targets, memory, 5e-7)


def test_elr_clamp_passes_gradient_at_its_bound(backend):
    C = 10_000  # equal logits: every probability is 1e-4, the lower bound itself
    for dtype in (torch.float32, torch.float64):
        targets = torch.zeros(1, C, dtype=dtype)
        targets[0, 0] = 1.0
        _, dlogits = ops.elr_step(
            torch.zeros(1, C, dtype=dtype), torch.tensor([1]), torch.tensor([0]), targets, beta=0.5, lam=1.0
        )
        t0, rest = 0.5 + 0.5e-4, 0.5e-4
        s = (t0 + (C - 1) * rest) * 1e-4
        want = 1e-4 + 1e-4 / (1 - s) * (s - t0)  # 1e-4 if the clamp held the gradient back
        assert float(dlogits[0, 0]) == pytest.approx(want, rel=1e-5)


def test_elr_saturated_row_gets_cross_entropy_alone(backend):
    logits = torch.tensor([[40.0, 0.0, 0.0], [0.0, 0.1, 0.2]])
    targets = torch.full((2, 3), 1 / 3)
    labels, index = torch.tensor([1, 2]), torch.tensor([0, 1])
    _, dlogits = ops.elr_step(logits, labels, index, targets, beta=BETA, lam=LAM)
    torch.testing.assert_close(dlogits[0], torch.tensor([0.5, -0.5, 0.0]))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_elr_half_logits_are_widened_first(backend, dtype):
    logits, labels, index, targets = elr_inputs(33, 10, "late", dtype)
    wide_targets = targets.clone()
    wide_rows, wide_grad = ops.elr_step(logits.float(), labels, index, wide_targets, beta=BETA, lam=LAM)
    rows, dlogits = ops.elr_step(logits, labels, index, targets, beta=BETA, lam=LAM)
    assert rows.dtype == torch.float32
    assert dlogits.dtype == dtype
    assert torch.equal(rows, wide_rows)
    assert torch.equal(targets, wide_targets)
    # The torch reference rounds once from float64, so a tie may fall the other way.
    torch.testing.assert_close(dlogits, wide_grad.to(dtype), rtol=torch.finfo(dtype).eps, atol=1e-7)


@pytest.mark.parametrize("logits_dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("targets_dtype", [torch.float32, torch.float64])
def test_elr_mixed_dtypes(backend, logits_dtype, targets_dtype):
    logits, labels, index, targets = elr_inputs(33, 10, "early", logits_dtype)
    targets = targets.to(targets_dtype)
    want_rows, want_grad, want_targets = elr_by_autograd(logits, labels, index, targets)
    rows, dlogits = ops.elr_step(logits, labels, index, targets, beta=BETA, lam=LAM)
    assert (rows.dtype, dlogits.dtype, targets.dtype) == (logits_dtype, logits_dtype, targets_dtype)
    keep = off_the_bounds(logits)
    close(rows, want_rows, 5e-7)
    close(dlogits[keep], want_grad[keep], 5e-7)
    close(targets, want_targets, 5e-7)


@needs_extension
@settings(max_examples=300, deadline=None)
@given(
    B=st.integers(0, 9), C=st.integers(1, 40), scale=st.sampled_from([0.0, 0.1, 1.0, 12.0, 300.0]),
    beta=st.floats(0, 0.999), lam=st.floats(0, 20), seed=st.integers(0, 2**31),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    targets_dtype=st.sampled_from([torch.float32, torch.float64]),
)  # fmt: skip
def test_elr_kernel_equals_the_torch_reference(B, C, scale, beta, lam, seed, dtype, targets_dtype):
    rng = torch.Generator().manual_seed(seed)
    N = B + 3
    logits = (torch.randn(B, C, generator=rng, dtype=torch.float64) * scale).to(dtype)
    labels = torch.randint(C, (B,), generator=rng)
    index = torch.randperm(N, generator=rng)[:B]
    targets = torch.rand(N, C, generator=rng).softmax(1).to(targets_dtype)
    guarded = torch.full((N + 2, C), 7.0, dtype=targets_dtype)  # a row more at each end, which nothing may write to
    guarded[1:-1] = targets
    rows, dlogits = ops.elr_step(logits, labels, index, guarded[1:-1], beta=beta, lam=lam)
    want_rows, want_dlogits = torch_ops.elr_step(logits, labels, index, targets, beta, lam, 1 / max(B, 1))
    near = off_the_bounds_or_none(logits)
    rtol = 1e-11 if dtype == torch.float64 else 1e-5
    torch.testing.assert_close(rows, want_rows, rtol=rtol, atol=rtol * max(1.0, lam))
    torch.testing.assert_close(dlogits[~near], want_dlogits[~near], rtol=rtol, atol=rtol * max(1.0, lam) * 0.1)
    torch.testing.assert_close(guarded[1:-1], targets, rtol=1e-6, atol=1e-7)
    assert (guarded[[0, -1]] == 7).all()


def off_the_bounds_or_none(logits):
    p = logits.double().softmax(1)
    return (((p - 1e-4).abs() < 1e-6) | ((p - (1 - 1e-4)).abs() < 1e-6)).any(1)


# --- ELR: as a torch function ------------------------------------------------------------------------------------


def test_elr_updates_targets_at_index_only(backend):
    logits, labels, index, targets = elr_inputs(7, 10, "early")
    before, logits_before = targets.clone(), logits.clone()
    ops.elr_step(logits, labels, index, targets, beta=BETA, lam=LAM)
    rest = torch.ones(len(targets), dtype=torch.bool)
    rest[index] = False
    assert torch.equal(targets[rest], before[rest])
    assert (targets[index] != before[index]).any(1).all()
    assert torch.equal(logits, logits_before)


def test_elr_reductions_and_their_gradients(backend):
    logits, labels, index, targets = elr_inputs(7, 10, "early", torch.float64)
    weight = torch.randn(7, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    want_rows, want_grad, _ = elr_by_autograd(logits, labels, index, targets)

    def run(reduction, finish):
        z = logits.clone().requires_grad_()
        value = ops.elr_loss(z, labels, index, targets.clone(), beta=BETA, lam=LAM, reduction=reduction)
        finish(value).backward()
        return value.detach(), z.grad

    for reduction, value, grad, finish in [
        ("mean", want_rows.mean(), want_grad, lambda loss: loss),
        ("mean", want_rows.mean(), -3 * want_grad, lambda loss: -3 * loss),
        ("sum", want_rows.sum(), 7 * want_grad, lambda loss: loss),
        ("none", want_rows, 7 * want_grad * weight[:, None], lambda rows: (rows * weight).sum()),
    ]:
        got_value, got_grad = run(reduction, finish)
        torch.testing.assert_close(got_value, value, rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(got_grad, grad, rtol=1e-12, atol=1e-14)


def test_elr_step_agrees_with_elr_loss(backend):
    logits, labels, index, targets = elr_inputs(128, 10, "early")
    copy = targets.clone()
    rows, dlogits = ops.elr_step(logits.requires_grad_(), labels, index, targets, beta=BETA, lam=LAM)
    loss = ops.elr_loss(logits, labels, index, copy, beta=BETA, lam=LAM)
    loss.backward()
    assert torch.equal(loss, rows.mean())
    assert torch.equal(logits.grad, dlogits)
    assert torch.equal(targets, copy)
    assert not rows.requires_grad
    assert not dlogits.requires_grad


def test_elr_without_gradient(backend):
    logits, labels, index, targets = elr_inputs(7, 10, "early")
    with torch.no_grad():
        loss = ops.elr_loss(logits.clone().requires_grad_(), labels, index, targets.clone(), beta=BETA, lam=LAM)
    assert not loss.requires_grad
    with torch.inference_mode():
        again = ops.elr_loss(logits, labels, index, targets.clone(), beta=BETA, lam=LAM)
    assert torch.equal(loss, again)


def test_elr_gives_no_second_derivative(backend):
    logits, labels, index, targets = elr_inputs(7, 10, "early")
    loss = ops.elr_loss(logits.requires_grad_(), labels, index, targets, beta=BETA, lam=LAM)
    [grad] = torch.autograd.grad(loss, logits, create_graph=True)
    with pytest.raises(RuntimeError, match="does not require grad"):
        grad.sum().backward()


def test_elr_under_autocast(backend):
    images_ = torch.randn(32, 6, generator=torch.Generator().manual_seed(0))
    layer = torch.nn.Linear(6, 10)
    labels, index, targets = torch.arange(32) % 10, torch.arange(32), torch.zeros(32, 10)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = layer(images_)
        loss = ops.elr_loss(logits, labels, index, targets, beta=BETA, lam=LAM)
    assert logits.dtype == torch.bfloat16
    assert loss.dtype == torch.float32
    want, _, _ = elr_by_autograd(logits, labels, index, torch.zeros(32, 10))
    close(loss.detach(), want.mean(), 5e-7)
    loss.backward()
    assert layer.weight.grad.isfinite().all()


def test_elr_copies_strided_inputs(backend):
    logits, labels, index, targets = elr_inputs(33, 10, "early")
    copy = targets.clone()
    want = ops.elr_step(logits, labels, index, copy, beta=BETA, lam=LAM)
    strided = (logits.t().contiguous().t(), labels.repeat_interleave(2)[::2], index.repeat_interleave(3)[::3])
    assert not any(tensor.is_contiguous() for tensor in strided)
    got = ops.elr_step(*strided, targets, beta=BETA, lam=LAM)
    assert torch.equal(got[0], want[0])
    assert torch.equal(got[1], want[1])
    assert torch.equal(targets, copy)


def test_elr_tells_autograd_that_targets_changed(backend):
    logits, labels, index, targets = elr_inputs(7, 10, "early")
    scale = torch.ones(10, requires_grad=True)
    product = (targets * scale).sum()  # saves targets for its backward pass
    ops.elr_step(logits, labels, index, targets, beta=BETA, lam=LAM)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        product.backward()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_elr_bad_logits_spoil_their_row_alone(backend, value):
    logits, labels, index, targets = elr_inputs(5, 10, "early")
    logits[2] = value if value < 0 else logits[2]  # a row of -inf; one infinite or missing logit in the other cases
    logits[2, 3] = value
    clean = logits.clone()
    clean[2] = 0
    clean_targets = targets.clone()
    want_rows, want_dlogits = ops.elr_step(clean, labels, index, clean_targets, beta=BETA, lam=LAM)
    rows, dlogits = ops.elr_step(logits, labels, index, targets, beta=BETA, lam=LAM)
    others = [0, 1, 3, 4]
    assert torch.equal(rows[others], want_rows[others])
    assert torch.equal(dlogits[others], want_dlogits[others])
    rest = torch.ones(len(targets), dtype=torch.bool)
    rest[index[2]] = False
    assert torch.equal(targets[rest], clean_targets[rest])
    assert rows[2].isnan()
    assert dlogits[2].isnan().all()
    assert targets[index[2]].isnan().all()


def test_elr_impossible_class_is_no_fault(backend):
    logits = torch.tensor([[0.0, 1.0, float("-inf")]])
    targets = torch.zeros(1, 3)
    rows, dlogits = ops.elr_step(logits, torch.tensor([1]), torch.tensor([0]), targets, beta=BETA, lam=LAM)
    want, grad, _ = elr_by_autograd(logits, torch.tensor([1]), torch.tensor([0]), torch.zeros(1, 3))
    close(rows, want, 5e-7)
    close(dlogits, grad, 5e-7)


def test_elr_empty_batch(backend):
    logits = torch.zeros(0, 10, requires_grad=True)
    none, targets = torch.zeros(0, dtype=torch.int64), torch.rand(5, 10)
    before = targets.clone()
    rows, dlogits = ops.elr_step(logits, none, none, targets, beta=BETA, lam=LAM)
    assert (rows.shape, dlogits.shape) == ((0,), (0, 10))
    assert ops.elr_loss(logits, none, none, targets, beta=BETA, lam=LAM, reduction="sum") == 0
    assert ops.elr_loss(logits, none, none, targets, beta=BETA, lam=LAM, reduction="none").shape == (0,)
    with pytest.raises(ValueError, match="elr_loss: the mean of an empty batch is undefined"):
        ops.elr_loss(logits, none, none, targets, beta=BETA, lam=LAM)
    assert torch.equal(targets, before)


# --- ELR: what a caller can get wrong ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"logits": [[0.0]]}, TypeError, "logits must be a tensor, got list"),
        (
            {"logits": torch.zeros(4, 3, dtype=torch.int64)},
            TypeError,
            "logits must be float32 or float64 or bfloat16 or float16 of shape [B, C], got int64 of shape [4, 3]",
        ),
        ({"logits": torch.zeros(12)}, ValueError, "of shape [B, C], got float32 of shape [12]"),
        (
            {"labels": torch.zeros(4, dtype=torch.int32)},
            TypeError,
            "labels must be int64 of shape [4], got int32 of shape [4]",
        ),
        (
            {"labels": torch.zeros(4, 1, dtype=torch.int64)},
            ValueError,
            "labels must be int64 of shape [4], got int64 of shape [4, 1]",
        ),
        ({"index": torch.zeros(4)}, TypeError, "index must be int64 of shape [4], got float32 of shape [4]"),
        ({"index": torch.arange(3)}, ValueError, "index must be int64 of shape [4], got int64 of shape [3]"),
        (
            {"targets": torch.zeros(6, 3, dtype=torch.float16)},
            TypeError,
            "targets must be float32 or float64 of shape [N, 3], got float16 of shape [6, 3]",
        ),
        (
            {"targets": torch.zeros(6, 4)},
            ValueError,
            "targets must be float32 or float64 of shape [N, 3], got float32 of shape [6, 4]",
        ),
        (
            {"targets": torch.zeros(3, 6).t()},
            ValueError,
            "targets must be contiguous (it is updated in place, and a copy would take the update), got strides [1, 6]",
        ),
        ({"targets": torch.zeros(6, 3, requires_grad=True)}, ValueError, "targets must not require a gradient"),
        ({"targets": torch.zeros(6, 3, device="meta")}, ValueError, "targets must be on cpu as logits is, got meta"),
        ({"labels": torch.zeros(4, dtype=torch.int64, device="meta")}, ValueError, "labels must be on cpu as logits"),
        ({"beta": 1}, ValueError, "beta must be in [0, 1), got 1"),
        ({"beta": -0.1}, ValueError, "beta must be in [0, 1), got -0.1"),
        ({"beta": float("nan")}, ValueError, "beta must be in [0, 1), got nan"),
        ({"beta": "0.7"}, TypeError, "beta must be a number, got str"),
        ({"lam": -1.0}, ValueError, "lam must be finite and >= 0, got -1.0"),
        ({"lam": float("inf")}, ValueError, "lam must be finite and >= 0, got inf"),
        ({"lam": None}, TypeError, "lam must be a number, got NoneType"),
        ({"reduction": "max"}, ValueError, "reduction must be 'mean', 'sum' or 'none', got 'max'"),
        ({"labels": torch.tensor([0, 3, 1, 1])}, IndexError, "labels must be in [0, 3), got 3 at position 1"),
        ({"labels": torch.tensor([0, 1, 1, -1])}, IndexError, "labels must be in [0, 3), got -1 at position 3"),
        ({"index": torch.tensor([0, 1, 6, 2])}, IndexError, "index must be in [0, 6), got 6 at position 2"),
        ({"index": torch.tensor([-1, 1, 2, 3])}, IndexError, "index must be in [0, 6), got -1 at position 0"),
        (
            {"index": torch.tensor([4, 1, 2, 4])},
            IndexError,
            "index must not repeat within a batch, got 4 again at position 3",
        ),
    ],
)
def test_elr_refuses(backend, change, error, message):
    given = {
        "logits": torch.zeros(4, 3), "labels": torch.tensor([0, 1, 2, 0]), "index": torch.tensor([3, 1, 0, 5]),
        "targets": torch.full((6, 3), 0.25), "beta": BETA, "lam": LAM, **change,
    }  # fmt: skip
    targets = given["targets"]
    tensors = [given.pop(name) for name in ("logits", "labels", "index", "targets")]
    with pytest.raises(error) as caught:
        ops.elr_loss(*tensors, **given)
    assert str(caught.value).startswith("elr_loss: ")
    assert message in str(caught.value)
    if "targets" not in change:
        assert (targets == 0.25).all()  # nothing is written before everything is checked


def test_elr_step_names_itself(backend):
    with pytest.raises(ValueError, match=r"^elr_step: beta must be in \[0, 1\), got 2$"):
        ops.elr_step(torch.zeros(1, 2), torch.tensor([0]), torch.tensor([0]), torch.zeros(1, 2), beta=2, lam=1)
    with pytest.raises(IndexError, match=r"^elr_step: labels must be in \[0, 2\), got 2 at position 0$"):
        ops.elr_step(torch.zeros(1, 2), torch.tensor([2]), torch.tensor([0]), torch.zeros(1, 2), beta=0.5, lam=1)


@settings(max_examples=200, deadline=None)
@given(values=st.lists(st.integers(0, 60), max_size=80))
def test_elr_finds_every_repeated_index(values):
    B = len(values)
    labels, index = torch.zeros(B, dtype=torch.int64), torch.tensor(values, dtype=torch.int64)
    repeats = [b for b in range(B) if values[b] in values[:b]]
    logits, targets = torch.zeros(B, 2), torch.zeros(61, 2)
    if not repeats:
        ops.elr_step(logits, labels, index, targets, beta=BETA, lam=LAM)
        return
    with pytest.raises(IndexError, match=f"got {values[repeats[0]]} again at position {repeats[0]}$"):
        ops.elr_step(logits, labels, index, targets, beta=BETA, lam=LAM)


# --- ELR: torch.compile ------------------------------------------------------------------------------------------


def test_elr_ops_pass_opcheck():
    logits, labels, index, targets = elr_inputs(7, 10, "early")
    library.opcheck(torch.ops.nlbench.elr_step.default, (logits, labels, index, targets, BETA, LAM, True))
    for value in (torch.tensor(2.0), torch.rand(7)):
        library.opcheck(
            torch.ops.nlbench.attach_grad.default, (logits.clone().requires_grad_(), value, torch.rand(7, 10))
        )


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_elr_compiled_equals_eager(reduction):
    logits, labels, index, targets = elr_inputs(33, 10, "early")
    layer = torch.nn.Linear(10, 10)

    def step(targets):
        rows = ops.elr_loss(layer(logits), labels, index, targets, beta=BETA, lam=LAM, reduction=reduction)
        return rows.mean() * 2

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


# --- augment -----------------------------------------------------------------------------------------------------

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
FORMATS = [torch.channels_last, torch.contiguous_format]
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


def pictures(N, H, W, padding, seed=0):
    rng = torch.Generator().manual_seed(seed)
    pixels = torch.randint(256, (N, H, W, 3), generator=rng, dtype=torch.uint8)
    shifts = torch.randint(2 * padding + 1, (N, 2), generator=rng)
    return pixels, torch.cat([shifts, torch.randint(2, (N, 1), generator=rng)], 1)


def augment_by_torchvision(pixels, index, draws, padding):
    out = []
    for i in index.tolist():
        picture = Image.fromarray(pixels[i].numpy())
        if draws is not None:
            dy, dx, flip = draws[i].tolist()
            picture = VF.crop(VF.pad(picture, [padding]), dy, dx, picture.height, picture.width)
            picture = VF.hflip(picture) if flip else picture
        out.append(VF.normalize(VF.to_tensor(picture), MEAN, STD))
    return torch.stack(out)


@pytest.mark.parametrize(("H", "W", "padding"), [(32, 32, 4), (5, 7, 0), (6, 3, 2), (3, 2, 5), (1, 1, 1)])
@pytest.mark.parametrize("drawn", [True, False])
def test_augment_equals_torchvision(backend, H, W, padding, drawn):
    pixels, draws = pictures(40, H, W, padding)
    draws[:8] = torch.tensor([[y, x, f] for y in (0, 2 * padding) for x in (0, 2 * padding) for f in (0, 1)])
    index = torch.cat([torch.arange(8), torch.tensor([39, 20, 20, 8])])
    out = ops.augment(pixels, index, draws if drawn else None, mean=MEAN, std=STD, padding=padding)
    want = augment_by_torchvision(pixels, index, draws if drawn else None, padding)
    assert out.dtype == torch.float32
    assert out.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(out, want)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_augment_dtypes(backend, dtype):
    pixels, draws = pictures(9, 8, 8, 4)
    index = torch.arange(9)
    out = ops.augment(pixels, index, draws, mean=MEAN, std=STD, dtype=dtype)
    want = ops.augment(pixels, index, draws, mean=MEAN, std=STD)
    assert out.dtype == dtype
    if dtype == torch.float64:
        torch.testing.assert_close(out, want.double(), rtol=1e-6, atol=1e-6)
        plain = ops.augment(pixels, index, None, mean=MEAN, std=STD, dtype=dtype).permute(0, 2, 3, 1)
        exact = (pixels.double() / 255 - torch.tensor(MEAN, dtype=dtype)) / torch.tensor(STD, dtype=dtype)
        torch.testing.assert_close(plain, exact, rtol=1e-15, atol=1e-15)
    else:
        assert torch.equal(out, want.to(dtype))


def augment_by_numpy(pixels, index, draws, padding):
    """(B, 3, H, W) float64, by padding each image whole."""
    out = []
    for i in index.tolist():
        picture = pixels[i].numpy().astype(np.float64)
        if draws is not None:
            dy, dx, flip = draws[i].tolist()
            padded = np.pad(picture, ((padding, padding), (padding, padding), (0, 0)))
            picture = padded[dy : dy + picture.shape[0], dx : dx + picture.shape[1]]
            picture = picture[:, ::-1] if flip else picture
        out.append(((picture / 255 - MEAN) / STD).transpose(2, 0, 1))
    return torch.from_numpy(np.stack(out))


@pytest.mark.parametrize(("H", "W", "padding"), [(32, 32, 4), (5, 7, 0), (7, 5, 4), (3, 2, 9), (2, 9, 3), (1, 1, 1)])
@pytest.mark.parametrize("drawn", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", FORMATS)
def test_augment_equals_numpy_in_float64(backend, H, W, padding, drawn, dtype, form):
    pixels, draws = pictures(40, H, W, padding)
    draws = draws if drawn else None
    index = torch.tensor([39, 20, 20, 8, *range(12)])
    chosen = {"padding": padding, "dtype": dtype, "memory_format": form}
    out = ops.augment(pixels, index, draws, mean=MEAN, std=STD, **chosen)
    want = augment_by_numpy(pixels, index, draws, padding)
    assert out.dtype == dtype
    assert out.is_contiguous(memory_format=form)
    if dtype == torch.float64:
        assert torch.equal(out, want)
        return
    # Three operations in float32, on numbers below 1 but for the last, before the one rounding to `dtype`.
    atol = 3 * 2**-24 / min(STD)
    torch.testing.assert_close(out.double(), want, rtol=torch.finfo(dtype).eps / 2, atol=atol)


@needs_extension
@settings(max_examples=200, deadline=None)
@given(
    B=st.integers(0, 6), H=st.integers(1, 9), W=st.integers(1, 9), padding=st.integers(0, 12),
    seed=st.integers(0, 2**31), dtype=st.sampled_from(DTYPES), form=st.sampled_from(FORMATS), drawn=st.booleans(),
)  # fmt: skip
def test_augment_kernel_equals_the_torch_reference(B, H, W, padding, seed, dtype, form, drawn):
    pixels, draws = pictures(4, H, W, padding, seed)
    draws = draws if drawn else None
    index = torch.randint(4, (B,), generator=torch.Generator().manual_seed(seed))
    out = ops.augment(pixels, index, draws, mean=MEAN, std=STD, padding=padding, dtype=dtype, memory_format=form)
    assert out.is_contiguous(memory_format=form)
    table = images._table(MEAN, STD, dtype, torch.device("cpu"))
    assert torch.equal(out, torch_ops.augment(pixels, index, draws, table, padding, form == FORMATS[1]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_augment_formats_hold_the_same_values(backend, dtype):
    pixels, draws = pictures(9, 6, 5, 4)
    index = torch.tensor([3, 0, 8, 3])
    for chosen in (draws, None):
        last, contiguous = (
            ops.augment(pixels, index, chosen, mean=MEAN, std=STD, dtype=dtype, memory_format=form) for form in FORMATS
        )
        assert (last.stride(), contiguous.stride()) == ((90, 1, 15, 3), (90, 30, 5, 1))
        assert torch.equal(last, contiguous)


@needs_extension
@pytest.mark.parametrize("form", FORMATS)
def test_augment_threads_do_not_show(form):
    pixels, draws = pictures(300, 32, 32, 4)
    index = torch.randperm(300, generator=torch.Generator().manual_seed(1))
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(ops.augment(pixels, index, draws, mean=MEAN, std=STD, memory_format=form))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def test_augment_looks_at_the_draws_of_its_batch_alone(backend):
    pixels, draws = pictures(6, 4, 4, 4)
    want = ops.augment(pixels, torch.tensor([1, 2]), draws, mean=MEAN, std=STD)
    draws[5] = 99
    strided = torch.tensor([1, 0, 2, 0])[::2]
    assert torch.equal(ops.augment(pixels, strided, draws, mean=MEAN, std=STD), want)


def test_augment_empty_batch(backend):
    pixels, draws = pictures(6, 4, 5, 4)
    for rows in (draws, None):
        out = ops.augment(pixels, torch.zeros(0, dtype=torch.int64), rows, mean=MEAN, std=STD)
        assert out.shape == (0, 3, 4, 5)


@pytest.mark.parametrize("drawn", [True, False])
@pytest.mark.parametrize("form", FORMATS)
def test_augment_op_passes_opcheck_and_compiles(drawn, form):
    pixels, draws = pictures(6, 4, 5, 4)
    chosen = draws if drawn else None
    table = torch.rand(3, 256)
    arguments = pixels, torch.tensor([1, 3]), chosen, table, 4, form == torch.contiguous_format
    library.opcheck(torch.ops.nlbench.augment.default, arguments)

    def batch(index):
        return ops.augment(pixels, index, chosen, mean=MEAN, std=STD, memory_format=form) + 1

    compiled = torch.compile(batch, backend="aot_eager", fullgraph=True)
    for index in (torch.arange(5), torch.tensor([4, 4])):
        assert torch.equal(compiled(index), batch(index))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            {"images": torch.zeros(6, 4, 4, 3)},
            TypeError,
            "images must be uint8 of shape [N, H, W, 3], got float32 of shape [6, 4, 4, 3]",
        ),
        (
            {"images": torch.zeros(6, 3, 4, 4, dtype=torch.uint8)},
            ValueError,
            "images must be uint8 of shape [N, H, W, 3], got uint8 of shape [6, 3, 4, 4]",
        ),
        (
            {"images": torch.zeros(6, 3, 4, 4, dtype=torch.uint8).permute(0, 2, 3, 1)},
            ValueError,
            "images must be contiguous (it would be copied whole for each batch), got strides [48, 4, 1, 16]",
        ),
        ({"index": torch.zeros(2)}, TypeError, "index must be int64 of shape [B], got float32 of shape [2]"),
        ({"index": torch.tensor([0, 6])}, IndexError, "index must be in [0, 6), got 6 at position 1"),
        ({"index": torch.tensor([-1])}, IndexError, "index must be in [0, 6), got -1 at position 0"),
        (
            {"draws": torch.zeros(2, 3, dtype=torch.int64)},
            ValueError,
            "draws must be int64 of shape [6, 3], got int64 of shape [2, 3]",
        ),
        ({"draws": torch.zeros(6, 3)}, TypeError, "draws must be int64 of shape [6, 3], got float32"),
        ({"draws": torch.zeros(3, 6, dtype=torch.int64).t()}, ValueError, "draws must be contiguous"),
        (
            {"draws": torch.tensor([[9, 0, 0]] * 6)},
            ValueError,
            "draws must have dy and dx in [0, 8] and flip in {0, 1}, got [9, 0, 0] in row 2",
        ),
        ({"draws": torch.tensor([[0, -1, 0]] * 6)}, ValueError, "got [0, -1, 0] in row 2"),
        ({"draws": torch.tensor([[0, 0, 2]] * 6)}, ValueError, "got [0, 0, 2] in row 2"),
        ({"draws": torch.zeros(6, 3, dtype=torch.int64, device="meta")}, ValueError, "draws must be on cpu as images"),
        ({"mean": (0.5, 0.5)}, ValueError, "mean must be three finite numbers, got [0.5, 0.5]"),
        ({"std": (0.5, 0.5, 0.0)}, ValueError, "std must be three positive numbers, got [0.5, 0.5, 0.0]"),
        ({"padding": -1}, ValueError, "padding must be >= 0, got -1"),
        ({"padding": 4.0}, TypeError, "padding must be an int, got float"),
        ({"dtype": torch.int32}, TypeError, "dtype must be one of torch.float32"),
        (
            {"memory_format": torch.preserve_format},
            ValueError,
            "memory_format must be torch.channels_last or torch.contiguous_format, got torch.preserve_format",
        ),
    ],
)
def test_augment_refuses(backend, change, error, message):
    pixels, draws = pictures(6, 4, 4, 4)
    arguments = {"images": pixels, "index": torch.tensor([2, 0]), "draws": draws, "mean": MEAN, "std": STD, **change}
    with pytest.raises(error) as caught:
        ops.augment(arguments.pop("images"), arguments.pop("index"), arguments.pop("draws"), **arguments)
    assert str(caught.value).startswith("augment: ")
    assert message in str(caught.value)


# --- which code runs ---------------------------------------------------------------------------------------------


@needs_extension
def test_backend_names_the_code_that_runs():
    assert ops.backend("cpu") == ops.backend(torch.device("cpu")) == "cpp"
    assert ops.backend("cuda:0") == ("torch" if ops.why_no_cuda() else "cuda")
    assert bool(ops.cuda_architectures()) != bool(ops.why_no_cuda())
    assert ops.cpu_isa() in ("portable", "avx2", "avx512")
    assert ops.why_no_extension() == ""
    assert len(bytes.fromhex(ops.source_hash())) == 32


def test_without_the_extension_the_reference_runs_and_says_so_once():
    script = """
import sys, warnings
sys.modules["nlbench._core"] = None  # as if it had not been built
import torch
from nlbench import ops
assert (ops.backend("cpu"), ops.source_hash()) == ("torch", "")
assert "nlbench._core" in ops.why_no_extension()
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    for _ in range(2):
        ops.elr_loss(torch.zeros(2, 3), torch.tensor([0, 1]), torch.tensor([0, 1]), torch.zeros(4, 3), beta=0.7, lam=3)
        ops.augment(torch.zeros(2, 4, 4, 3, dtype=torch.uint8), torch.tensor([0]), None, mean=[0, 0, 0], std=[1, 1, 1])
[warning] = caught
assert ops.why_no_extension() in str(warning.message), warning
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


@needs_gpu
def test_elr_and_augment_on_a_gpu():
    logits, labels, index, targets = elr_inputs(128, 10, "late")
    on_gpu = [tensor.cuda() for tensor in (logits, labels, index, targets)]
    want_rows, want_dlogits = torch_ops.elr_step(logits, labels, index, targets, BETA, LAM, 1 / 128)
    pixels, draws = pictures(9, 8, 8, 4)
    with warnings.catch_warnings(record=True):
        rows, dlogits = ops.elr_step(*on_gpu, beta=BETA, lam=LAM)
        out = ops.augment(pixels.cuda(), torch.arange(9).cuda(), draws.cuda(), mean=MEAN, std=STD)
    torch.testing.assert_close(rows.cpu(), want_rows)
    torch.testing.assert_close(dlogits.cpu(), want_dlogits)
    torch.testing.assert_close(on_gpu[3].cpu(), targets)
    assert torch.equal(out.cpu(), ops.augment(pixels, torch.arange(9), draws, mean=MEAN, std=STD))
