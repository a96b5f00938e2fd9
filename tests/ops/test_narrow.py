"""Memories in bfloat16 and float16: the rounding, its random bits, and the steps that use it."""

import numpy as np
import pytest
import torch
from forms import BETA, LAM

from nlbench import ops
from nlbench.ops import narrow

DTYPES = (torch.bfloat16, torch.float16)

# Bits of the fraction that the dtype stores.
FRACTION = {torch.bfloat16: 7, torch.float16: 10}


def rounding(seed=0, count=0):
    return torch.tensor([seed, count])


def neighbours(value, dtype):
    """Return the largest multiple of the dtype's step at or below `value`, and the next, as floats.

    Python's own floats and frexp, which share nothing with the bits that the code looks at.
    """
    _, exponent = np.frexp(value)
    smallest = -24 if dtype == torch.float16 else -126
    step = 2.0 ** max(int(exponent) - 1 - FRACTION[dtype], smallest)
    below = float(np.floor(value / step)) * step
    return below, below + step


def draws(n, seed=0):
    return narrow.uniform(rounding(seed), torch.arange(n), 1)[:, 0]


# --- Random bits ----------------------------------------------------------------------------------


def splitmix(z):
    """Return SplitMix64's finaliser in NumPy's unsigned numbers."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def test_the_bits_are_those_of_splitmix_in_unsigned_numbers():
    golden, (seed, count) = np.uint64(0x9E3779B97F4A7C15), (2**62 - 5, 12345)
    rows = np.array([0, 1, 7, 10**12])
    with np.errstate(over="ignore"):
        stream = splitmix(splitmix(np.uint64(seed)) + np.uint64(count) * golden)
        row = splitmix(stream + rows.astype("uint64") * golden)
        bits = splitmix(row[:, None] + np.arange(5).astype("uint64") * golden)
    expected = (bits >> np.uint64(40)).astype("float64") / 2**24

    found = narrow.uniform(rounding(seed, count), torch.from_numpy(rows), 5)
    assert found.dtype == torch.float32
    assert np.array_equal(found.double().numpy(), expected)


def test_draws_are_uniform_and_uncorrelated_between_seeds_counts_rows_and_columns():
    base = narrow.uniform(rounding(), torch.arange(1000), 100).double()
    assert base.min() >= 0
    assert base.max() < 1
    # Standard errors of the mean and of a share of 100,000 uniform draws.
    assert abs(base.mean() - 0.5) < 4 * (1 / 12) ** 0.5 / 100_000**0.5
    shares = torch.histc(base, 16, 0, 1) / 100_000
    assert (shares - 1 / 16).abs().max() < 4 * (15 / 256 / 100_000) ** 0.5

    others = [
        narrow.uniform(rounding(1), torch.arange(1000), 100),
        narrow.uniform(rounding(0, 1), torch.arange(1000), 100),
        narrow.uniform(rounding(), torch.arange(1000, 2000), 100),
        base.roll(1, 0),
        base.roll(1, 1),
    ]
    for other in others:
        correlation = torch.corrcoef(torch.stack([base.flatten(), other.double().flatten()]))[0, 1]
        assert abs(correlation) < 4 / 100_000**0.5


def test_a_draw_does_not_depend_on_the_rest_of_the_batch():
    whole = narrow.uniform(rounding(3, 8), torch.arange(50), 7)
    part = narrow.uniform(rounding(3, 8), torch.tensor([31, 4]), 7)
    assert torch.equal(part, whole[[31, 4]])


# --- Rounding -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", [0.3, -0.7, 1 / 3, 0.9999, 1e-4, 3e-6, 123.4])
def test_the_mean_of_many_roundings_is_the_value_and_each_is_a_neighbour(value, dtype):
    value = float(np.float32(value))
    n = 200_000
    found = narrow.rounded(torch.full((n,), value), dtype, draws(n)).double()

    below, above = neighbours(abs(value), dtype)
    sign = np.sign(value)
    assert set(found.tolist()) == {sign * below, sign * above}
    # A rounding is a coin with two values, so this is the standard error of the mean.
    share = (abs(value) - below) / (above - below)
    error = (above - below) * (share * (1 - share) / n) ** 0.5
    assert abs(float(found.mean()) - value) < 4 * error


@pytest.mark.parametrize("dtype", DTYPES)
def test_values_that_the_dtype_holds_stay_as_they_are(dtype):
    values = [
        0.0,
        -0.0,
        1.0,
        0.5,
        -0.75,
        2.0**-14,
        3 * 2.0**-24,
        65280.0,
        *(k / 64 for k in range(64)),
    ]
    exact = torch.tensor(values)
    assert torch.equal(exact.to(dtype).float(), exact)

    for draw in (0.0, 0.5, 1 - 2.0**-24):
        found = narrow.rounded(exact, dtype, torch.full_like(exact, draw))
        assert torch.equal(found.view(torch.int16), exact.to(dtype).view(torch.int16))


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_not_finite_stays_as_it_is(dtype):
    values = torch.tensor([torch.nan, torch.inf, -torch.inf])
    found = narrow.rounded(values, dtype, torch.full((3,), 0.5))
    assert found.isnan().tolist() == [True, False, False]
    assert found[1:].tolist() == [torch.inf, -torch.inf]


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_long_average_stays_unbiased_where_the_nearest_neighbour_gets_stuck(dtype):
    n, steps, beta, p = 400, 1000, 0.99, 0.3
    memory, nearest, exact = torch.zeros(n, 1, dtype=dtype), torch.zeros((), dtype=dtype), 0.0
    state = rounding()
    for _ in range(steps):
        average = beta * memory.float() + (1 - beta) * p
        memory = narrow.rounded(average, dtype, narrow.uniform(state, torch.arange(n), 1))
        state[1] += 1
        nearest = (beta * nearest.float() + (1 - beta) * p).to(dtype)
        exact = beta * exact + (1 - beta) * p

    values = memory.double()
    assert abs(values.mean() - exact) < 4 * values.std() / n**0.5
    # A step is (1 - beta) times what is missing. Where this is less than half the distance of two
    # numbers, the nearest one is the old one.
    distance = 2.0 ** (-2 - FRACTION[dtype])
    assert abs(float(nearest) - exact) > 20 * distance


# --- Steps ----------------------------------------------------------------------------------------


def example(dtype, B=9, N=40, C=7):
    rng = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(B, C, generator=rng)
    labels = torch.randint(C, (B,), generator=rng)
    index = torch.randperm(N, generator=rng)[:B]
    targets = torch.rand(N, C, generator=rng).softmax(1).to(dtype)
    return logits, labels, index, targets


def forms(logits, labels, index):
    """Return each op as a function of (targets, rounding), and its update in float64."""
    z = logits.double()
    p = z.softmax(1)
    q = p.clamp(1e-4, 1 - 1e-4)
    elr = {"beta": BETA, "lam": LAM}
    alr = {"alpha": BETA, "lam_e": 0.1}
    update = {"beta": BETA, "clamp": False}

    def one(op, *arguments, **constants):
        def call(targets, rounding):
            return op(*arguments, targets, **constants, rounding=rounding)

        return call

    return {
        "elr_loss": (one(ops.elr_loss, logits, labels, index, **elr), q / q.sum(1, keepdim=True)),
        "elr_step": (one(ops.elr_step, logits, labels, index, **elr), q / q.sum(1, keepdim=True)),
        "alr_loss": (one(ops.alr_loss, logits, index, **alr), p),
        "alr_step": (one(ops.alr_step, logits, index, **alr), p),
        "update_targets": (one(ops.update_targets, logits, index, **update), p),
    }


OPS = ("elr_loss", "elr_step", "alr_loss", "alr_step", "update_targets")


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_an_op_averages_in_float32_and_then_rounds(op, dtype):
    logits, labels, index, targets = example(dtype)
    old, state = targets.clone(), rounding(5, 3)
    call, predicted = forms(logits, labels, index)[op]
    call(targets, state)

    average = BETA * old[index].double() + (1 - BETA) * predicted
    u = narrow.uniform(rounding(5, 3), index, old.shape[1]).double()
    expected = torch.empty_like(average)
    close = torch.zeros_like(average, dtype=torch.bool)
    for place in np.ndindex(*average.shape):
        value = float(average[place])
        below, above = neighbours(value, dtype)
        share = (value - below) / (above - below)
        expected[place] = above if u[place] < share else below
        # float32's own rounding decides where the draw is so close to the share.
        close[place] = abs(float(u[place]) - share) < 1e-2

    assert close.double().mean() < 0.1
    assert torch.equal(targets[index].double()[~close], expected[~close])
    assert ((targets[index].double() - expected).abs() <= 2.0**-7).all()
    others = torch.ones(len(old), dtype=torch.bool)
    others[index] = False
    assert torch.equal(targets[others], old[others])
    assert state.tolist() == [5, 4]


@pytest.mark.parametrize("op", OPS)
def test_losses_and_gradients_are_those_of_wide_targets_with_the_same_rows(op):
    if op == "update_targets":
        pytest.skip("it has no loss")
    logits, labels, index, targets = example(torch.bfloat16)
    logits.requires_grad_(op.endswith("loss"))
    call, _ = forms(logits, labels, index)[op]

    def values(found):
        if op.endswith("step"):
            return found
        return found, torch.autograd.grad(found, logits)[0]

    wide = values(call(targets.float(), None))
    for one, other in zip(values(call(targets, rounding())), wide, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_momentum_of_one_leaves_the_targets_bit_for_bit(dtype):
    logits, _, index, targets = example(dtype)
    old = targets.clone()
    ops.alr_step(logits, index, targets, alpha=1.0, lam_e=0.0, rounding=rounding())
    assert torch.equal(targets, old)


def test_a_row_that_is_not_finite_reaches_its_own_target_alone():
    logits, labels, index, targets = example(torch.bfloat16)
    logits[2] = torch.nan
    ops.elr_step(logits, labels, index, targets, beta=BETA, lam=LAM, rounding=rounding())
    assert targets.isnan().any(1).nonzero().flatten().tolist() == [int(index[2])]


def test_an_empty_batch_changes_nothing():
    _, _, _, targets = example(torch.bfloat16)
    old, none = targets.clone(), torch.zeros(0, dtype=torch.int64)
    ops.elr_step(torch.zeros(0, 7), none, none, targets, beta=0.7, lam=3.0, rounding=rounding())
    assert torch.equal(targets, old)


def test_in_a_compiled_function_the_step_is_the_same():
    logits, labels, index, targets = example(torch.bfloat16)
    other = targets.clone()

    @torch.compile(backend="eager", fullgraph=True)
    def step(targets, state):
        return ops.elr_step(logits, labels, index, targets, beta=0.7, lam=3.0, rounding=state)

    state, own = rounding(1), rounding(1)
    losses, _ = step(targets, state)
    expected, _ = ops.elr_step(logits, labels, index, other, beta=0.7, lam=3.0, rounding=own)
    assert torch.equal(losses, expected)
    assert torch.equal(targets, other)
    assert torch.equal(state, own)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            {"targets": torch.zeros(40, 7)},
            TypeError,
            "targets must be bfloat16 or float16 of shape [N, 7], got float32 of shape [40, 7]",
        ),
        (
            {"rounding": torch.zeros(3, dtype=torch.int64)},
            ValueError,
            "rounding must be int64 of shape [2], got int64 of shape [3]",
        ),
        (
            {"rounding": torch.zeros(2)},
            TypeError,
            "rounding must be int64 of shape [2], got float32 of shape [2]",
        ),
        ({"rounding": 3}, TypeError, "rounding must be a tensor, got int"),
        (
            {"index": torch.arange(9) + 35},
            IndexError,
            "index must be in [0, 40), got 40 at position 5",
        ),
        (
            {"index": torch.tensor([0, 1, 2, 3, 4, 5, 6, 7, 3])},
            IndexError,
            "index must not repeat within a batch, got 3 again at position 8",
        ),
        (
            {"labels": torch.full((9,), 7)},
            IndexError,
            "labels must be in [0, 7), got 7 at position 0",
        ),
        ({"beta": 1.0}, ValueError, "beta must be in [0, 1), got 1.0"),
    ],
)
def test_what_is_wrong_is_named_and_nothing_has_been_written(change, error, message):
    logits, labels, index, targets = example(torch.bfloat16)
    state = rounding()
    given = {"labels": labels, "index": index, "targets": targets, "beta": 0.7, "rounding": state}
    given |= change
    old = given["targets"].clone()

    with pytest.raises(error) as raised:
        ops.elr_step(logits, **given, lam=3.0)
    assert str(raised.value) == f"elr_step: {message}"
    assert torch.equal(given["targets"], old)
    assert state.tolist() == [0, 0]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_gpu_draws_and_rounds_the_same(dtype):
    values = torch.rand(1000, 10, generator=torch.Generator().manual_seed(0))
    index = torch.arange(1000)
    u = narrow.uniform(rounding(4, 2), index, 10)
    on_gpu = narrow.uniform(rounding(4, 2).cuda(), index.cuda(), 10)
    assert torch.equal(on_gpu.cpu(), u)
    found = narrow.rounded(values.cuda(), dtype, on_gpu)
    assert torch.equal(found.cpu(), narrow.rounded(values, dtype, u))
