"""Memories in bfloat16 or float16, whose rows are computed in float32 and rounded at random.

A running average in so few bits would get stuck where a step is smaller than half the distance of
two numbers. Stochastic rounding takes the upper neighbour with the probability that leaves the
expected value as it is, so that small steps add up.

The random bits are a hash of seed, count and element. So a training that is resumed draws the same
ones, on a CPU and on a GPU alike, and no draw shifts another.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from nlbench.ops import losses
from nlbench.ops.checks import require, require_device

R = TypeVar("R")

NARROW = (torch.bfloat16, torch.float16)

# Stored bits of the fraction, and the smallest step between two values. float32 cannot hold the
# steps between the smallest values of bfloat16 where the machine flushes them to zero.
_FORMATS = {torch.bfloat16: (7, 2.0**-126), torch.float16: (10, 2.0**-24)}

# Of float32: the bits of the exponent.
_EXPONENT = 0x7F800000


# ---- For methods ---------------------------------------------------------------------------------


def widened(values: Tensor) -> Tensor:
    """Return values in bfloat16 or float16 as float32, others unchanged."""
    return values.float() if values.dtype in NARROW else values


# ---- For ops -------------------------------------------------------------------------------------


def on_rows(
    op: str,
    logits: Tensor,
    index: Tensor,
    targets: Tensor,
    rounding: Tensor,
    step: Callable[[Tensor, Tensor], R],
) -> R:
    """Take a step on the rows `index` of a narrow memory, in float32, and write them back rounded.

    Args:
        op:       the op's name in errors.
        logits:   [B, C].
        index:    [B] int64 in [0, N), no repeats.
        targets:  [N, C] bfloat16 or float16, contiguous. Rows `index` are UPDATED IN PLACE.
        rounding: [2] int64, the random stream: a seed, and how many steps have been rounded. The
                  latter is UPDATED IN PLACE.
        step:     step(positions, rows) updates rows [B, C] float32 in place, and returns the
                  result. A position that is no row of the memory is -1.

    Returns: what `step` returns.
    Raises:  as `elr_loss`; neither the targets nor the rounding has been written then.
    """
    losses.check_logits(op, logits)
    losses.check_memory(op, logits, index, targets, NARROW)
    require(op, "rounding", rounding, (torch.int64,), (2,))
    require_device(op, "rounding", rounding, logits.device, "logits")
    if index.is_cpu and not torch.compiler.is_compiling():
        losses.check_index(op, index, len(targets))

    # On a GPU nothing waits for a look at the index. Its kernel reports a position of -1.
    places = index.clamp(0, max(len(targets) - 1, 0))
    positions = torch.arange(len(index), device=index.device)
    positions = torch.where(places == index, positions, -1)

    rows = targets[places].float()
    result = step(positions, rows)

    draws = uniform(rounding, places, rows.shape[1])
    targets.index_copy_(0, places, rounded(rows, targets.dtype, draws))
    rounding[1] += 1
    return result


def rounded(values: Tensor, dtype: torch.dtype, draws: Tensor) -> Tensor:
    """Round each value to one of its two neighbours, to the upper one with a probability.

    The probability is the value's distance from the lower neighbour, divided by the neighbours'
    distance. So a value that the dtype holds stays as it is, as do NaN and infinities.

    Args:
        values: float32.
        dtype:  bfloat16 or float16. Where bfloat16 is below 2^-119, its neighbours are multiples of
                2^-126.
        draws:  float32 in [0, 1), of the shape of values.
    """
    bits, least = _FORMATS[dtype]
    size = values.abs()
    # The power of two at or below a size is what its exponent says. Divided by it, a size is exact.
    power = (size.view(torch.int32) & _EXPONENT).view(torch.float32)
    distance = (power * 2.0**-bits).clamp(min=least)

    units = size / distance
    below = units.floor()
    # A comparison is False as 0 and True as 1.
    units = below + (draws < units - below)
    result = torch.copysign(units * distance, values).to(dtype)
    return torch.where(values.isfinite(), result, values.to(dtype))


# ---- Random bits ---------------------------------------------------------------------------------


def _signed(value: int) -> int:
    """Return the int64 with the bits of an unsigned number, as torch takes it."""
    return value - (1 << 64) if value >> 63 else value


_GOLDEN = _signed(0x9E3779B97F4A7C15)
_FIRST = _signed(0xBF58476D1CE4E5B9)
_SECOND = _signed(0x94D049BB133111EB)


def uniform(rounding: Tensor, index: Tensor, C: int) -> Tensor:
    """Return draws [B, C] float32 in [0, 1), multiples of 2^-24.

    A draw belongs to (seed, count, row, column), and depends on nothing else.

    Args:
        rounding: [2] int64, seed and count.
        index:    [B] int64, the rows.
        C:        number of columns.
    """
    stream = _mixed(_mixed(rounding[0]) + rounding[1] * _GOLDEN)
    rows = _mixed(stream + index * _GOLDEN)
    columns = torch.arange(C, device=index.device) * _GOLDEN
    bits = _mixed(rows[:, None] + columns)
    return _shifted(bits, 40).float() * 2.0**-24


def _mixed(z: Tensor) -> Tensor:
    """Return SplitMix64's finaliser of int64 numbers, whose products wrap around.

    Source: Steele, Lea and Flood, OOPSLA 2014; constants of Vigna's splitmix64.c.
    """
    z = (z ^ _shifted(z, 30)) * _FIRST
    z = (z ^ _shifted(z, 27)) * _SECOND
    return z ^ _shifted(z, 31)


def _shifted(z: Tensor, bits: int) -> Tensor:
    """Shift the 64 bits to the right and fill with zeros; torch's shift would copy the sign."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)
