"""What holds for each loss of nlbench.ops: formula, autograd, dtypes, bad values, torch.compile."""

import pytest
import torch
from forms import ALPHA, BETA, FORMS, LAM, LAM_E, SIZES, Soft, close, make_given, off_the_bounds
from torch import library

from nlbench import ops

forms = pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
updating = pytest.mark.parametrize(
    "form", [form for form in FORMS if form.updates], ids=lambda form: form.name
)


def others(targets, index):
    rest = torch.ones(len(targets), dtype=torch.bool)
    rest[index] = False
    return rest


# ---- The formulas --------------------------------------------------------------------------------

# One step from the same targets. Late in training 1 - <t, q> is about 1e-4, so float64 loses four
# of its sixteen digits, as the reference does: each rounding of 1e-16 counts as 1e-12, and which
# ones meet depends on the processor's exponential. float32 logits do not lose four of seven digits,
# because sums and products are float64.
TOLERANCES = [
    (torch.float64, 4e-12, 4e-12),
    (torch.float32, 5e-7, 5e-7),
    (torch.bfloat16, 5e-7, 5e-3),
]


@pytest.mark.parametrize(("dtype", "tol", "grad_tol"), TOLERANCES, ids=lambda value: str(value))
@pytest.mark.parametrize("stage", ["early", "late"])
@pytest.mark.parametrize(("B", "C"), SIZES)
@forms
def test_a_step_matches_the_formula(backend, form, B, C, stage, dtype, tol, grad_tol):
    given = make_given(B, C, stage, dtype)
    want_losses, want_grad, want_targets = form.formula(given)
    losses, dlogits = form.step(given)
    keep = off_the_bounds(given.logits)

    assert keep.any() or C == 1
    close(losses, want_losses, tol)
    # Where prediction and target agree the gradient vanishes, but its rounding does not.
    floor = {torch.float64: 1e-15, torch.float32: 1e-9, torch.bfloat16: 1e-9}[dtype]
    atol = grad_tol * float(want_grad.abs().max()) + floor

    torch.testing.assert_close(dlogits[keep].double(), want_grad[keep], rtol=0, atol=atol)
    close(given.targets, want_targets, tol)
    assert losses.dtype == torch.promote_types(dtype, torch.float32)
    assert dlogits.dtype == dtype


@pytest.mark.parametrize("logits_dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("targets_dtype", [torch.float32, torch.float64])
@forms
def test_dtypes_of_logits_and_targets_may_differ(backend, form, logits_dtype, targets_dtype):
    given = make_given(33, 10, "early", logits_dtype)
    given.targets, given.soft = given.targets.to(targets_dtype), given.soft.to(targets_dtype)
    given.mixed = given.mixed.to(targets_dtype)
    want_losses, want_grad, want_targets = form.formula(given)
    losses, dlogits = form.step(given)
    keep = off_the_bounds(given.logits)
    close(losses, want_losses, 5e-7)
    close(dlogits[keep], want_grad[keep], 5e-7)
    close(given.targets, want_targets, 5e-7)

    assert (losses.dtype, dlogits.dtype) == (logits_dtype, logits_dtype)
    assert given.targets.dtype == targets_dtype


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@forms
def test_half_logits_are_widened_first(backend, form, dtype):
    given = make_given(33, 10, "late", dtype)
    wide = given.copied().with_logits(given.logits.float())
    (wide_losses, wide_grad), (losses, dlogits) = form.step(wide), form.step(given)

    assert losses.dtype == torch.float32
    assert dlogits.dtype == dtype
    assert torch.equal(losses, wide_losses)
    assert torch.equal(given.targets, wide.targets)

    # The torch reference rounds once from float64, so a tie may fall the other way.
    rtol = torch.finfo(dtype).eps
    torch.testing.assert_close(dlogits, wide_grad.to(dtype), rtol=rtol, atol=1e-7)


# ---- As torch functions --------------------------------------------------------------------------


@updating
def test_only_the_targets_of_the_batch_change(backend, form):
    given = make_given(7, 10)
    before, logits_before = given.targets.clone(), given.logits.clone()
    form.step(given)
    rest = others(given.targets, given.index)
    assert torch.equal(given.targets[rest], before[rest])
    assert (given.targets[given.index] != before[given.index]).any(1).all()
    assert torch.equal(given.logits, logits_before)


def test_the_loss_of_elr_plus_writes_to_no_argument(backend):
    given = make_given(7, 10)
    before = [t.clone() for t in (given.logits, given.soft, given.mixed)]
    Soft.step(given)
    after = (given.logits, given.soft, given.mixed)
    assert all(torch.equal(a, b) for a, b in zip(after, before, strict=True))


@forms
def test_reductions_and_their_gradients(backend, form):
    given = make_given(7, 10, dtype=torch.float64)
    weight = torch.randn(7, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    want, want_grad, _ = form.formula(given)

    def run(reduction, finish):
        z = given.logits.clone().requires_grad_()
        value = form.loss(given.copied().with_logits(z), reduction)
        finish(value).backward()
        return value.detach(), z.grad

    for reduction, value, grad, finish in [
        ("mean", want.mean(), want_grad, lambda loss: loss),
        ("mean", want.mean(), -3 * want_grad, lambda loss: -3 * loss),
        ("sum", want.sum(), 7 * want_grad, lambda loss: loss),
        ("none", want, 7 * want_grad * weight[:, None], lambda losses: (losses * weight).sum()),
    ]:
        got_value, got_grad = run(reduction, finish)
        torch.testing.assert_close(got_value, value, rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(got_grad, grad, rtol=1e-12, atol=1e-14)


@forms
def test_the_step_agrees_with_the_loss(backend, form):
    given = make_given(128, 10)
    given.logits.requires_grad_()
    copy = given.copied()
    losses, dlogits = form.step(given)
    loss = form.loss(copy)
    loss.backward()

    assert torch.equal(loss, losses.mean())
    assert torch.equal(given.logits.grad, dlogits)
    assert torch.equal(given.targets, copy.targets)
    assert not losses.requires_grad
    assert not dlogits.requires_grad


@forms
def test_without_a_gradient(backend, form):
    given = make_given(7, 10)
    with torch.no_grad():
        loss = form.loss(given.copied().with_logits(given.logits.clone().requires_grad_()))
    assert not loss.requires_grad
    with torch.inference_mode():
        assert torch.equal(form.loss(given.copied()), loss)


@forms
def test_there_is_no_second_derivative(backend, form):
    given = make_given(7, 10)
    loss = form.loss(given.with_logits(given.logits.requires_grad_()))
    [grad] = torch.autograd.grad(loss, given.logits, create_graph=True)
    with pytest.raises(RuntimeError, match="does not require grad"):
        grad.sum().backward()


@forms
def test_autocast_does_not_coarsen_the_loss(backend, form):
    given = make_given(32, 10)
    layer = torch.nn.Linear(10, 10)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = layer(given.logits)
        loss = form.loss(given.copied().with_logits(logits))

    assert logits.dtype == torch.bfloat16
    assert loss.dtype == torch.float32

    want, _, _ = form.formula(given.copied().with_logits(logits))
    close(loss.detach(), want.mean(), 5e-7)
    loss.backward()

    assert layer.weight.grad.isfinite().all()


@forms
def test_inputs_with_strides_are_copied(backend, form):
    given = make_given(33, 10)
    strided = given.copied()
    for name in ("logits", "soft", "mixed"):
        setattr(strided, name, getattr(given, name).t().contiguous().t())
    strided.labels = given.labels.repeat_interleave(2)[::2]
    strided.index = given.index.repeat_interleave(3)[::3]

    for name in ("logits", "soft", "mixed", "labels", "index"):
        assert not getattr(strided, name).is_contiguous()

    want, got = form.step(given), form.step(strided)
    assert torch.equal(got[0], want[0])
    assert torch.equal(got[1], want[1])
    assert torch.equal(strided.targets, given.targets)


@updating
def test_autograd_learns_that_the_targets_changed(backend, form):
    given = make_given(7, 10)
    scale = torch.ones(10, requires_grad=True)
    # The product saves the targets for its backward pass.
    product = (given.targets * scale).sum()
    form.step(given)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        product.backward()


# ---- Values that are not usual -------------------------------------------------------------------


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("C", [3, 10, 40])
@forms
def test_bad_logits_affect_their_row_alone(backend, form, C, value):
    given = make_given(5, C)
    clean = given.copied().with_logits(given.logits.clone())
    # A row of -inf; in the other cases a single logit is infinite or missing.
    if value < 0:
        given.logits[2] = value
    given.logits[2, 1] = value
    (losses, dlogits), (want_losses, want_dlogits) = form.step(given), form.step(clean)
    rows = [0, 1, 3, 4]

    assert torch.equal(losses[rows], want_losses[rows])
    assert torch.equal(dlogits[rows], want_dlogits[rows])
    assert losses[2].isnan()
    assert dlogits[2].isnan().all()

    rest = others(given.targets, given.index[2:3])
    assert torch.equal(given.targets[rest], clean.targets[rest])
    assert given.targets[given.index[2]].isnan().all() == form.updates


@forms
def test_an_impossible_class_is_no_fault(backend, form):
    given = make_given(2, 3)
    given.logits = torch.tensor([[0.0, 1.0, float("-inf")], [0.0, 1.0, 2.0]])
    given.labels = torch.tensor([1, 2])
    given.soft = torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]])
    given.targets = torch.tensor([[0.2, 0.1, 0.0]] * len(given.targets))
    losses, dlogits = form.step(given)

    assert losses.isfinite().all()
    assert dlogits.isfinite().all()

    # The formulas have 0 * infinity there, so they see a probability that is only very small.
    nearly = torch.where(given.logits.isinf(), -200.0, given.logits)
    given.targets = torch.tensor([[0.2, 0.1, 0.0]] * len(given.targets))
    want_losses, want_grad, _ = form.formula(given.with_logits(nearly))
    close(losses, want_losses, 5e-7)
    close(dlogits, want_grad, 5e-7)


@forms
def test_an_empty_batch(backend, form):
    given = make_given(0, 10)
    given.logits.requires_grad_()
    before = given.targets.clone()
    losses, dlogits = form.step(given)

    assert (losses.shape, dlogits.shape) == ((0,), (0, 10))
    assert form.loss(given, "sum") == 0
    assert form.loss(given, "none").shape == (0,)
    with pytest.raises(ValueError, match=r"_loss.*: the mean of an empty batch is undefined"):
        form.loss(given)
    assert torch.equal(given.targets, before)


# ---- Torch.compile -------------------------------------------------------------------------------


def test_ops_pass_opcheck():
    g = make_given(7, 10)
    of = torch.ops.nlbench
    memory = (g.logits, g.labels, g.index, g.targets)
    library.opcheck(of.elr_step.default, (*memory, BETA, LAM, True))
    library.opcheck(of.elr_step_soft.default, (g.logits, g.soft, g.mixed, LAM, True))
    library.opcheck(of.alr_step.default, (g.logits, g.index, g.targets, ALPHA, LAM_E, True))
    library.opcheck(of.update_targets.default, (g.logits, g.index, g.targets, 0.7, False))
    for value in (torch.tensor(2.0), torch.rand(7)):
        arguments = (g.logits.clone().requires_grad_(), value, torch.rand(7, 10))
        library.opcheck(of.attach_grad.default, arguments)


@pytest.mark.parametrize("reduction", ["mean", "none"])
@forms
def test_compiled_equals_eager(form, reduction):
    given = make_given(33, 10)
    layer = torch.nn.Linear(10, 10)

    def step(memory):
        ops.update_targets(given.logits, given.index, memory, beta=0.7, clamp=True)
        now = given.with_logits(layer(given.logits))
        now.targets = memory
        return form.loss(now, reduction).mean() * 2

    results = []
    for run in (step, torch.compile(step, backend="aot_eager", fullgraph=True)):
        layer.zero_grad()
        memory = given.targets.clone()
        loss = run(memory)
        loss.backward()
        results.append((loss.detach(), layer.weight.grad.clone(), memory))

    for eager, compiled in zip(*results, strict=True):
        torch.testing.assert_close(compiled, eager, rtol=1e-6, atol=1e-7)
    assert not torch.equal(results[1][2], given.targets)
