"""The masks of FMix, SimCLR's loss and the smallest of each class, against loops."""

import cmath
import math

import numpy as np
import pytest
import torch
from lab import make_logits

from nlbench.ops import fmix
from nlbench.ops.contrast import simclr_loss
from nlbench.ops.small_loss import smallest_per_class
from nlbench.ops.uniform import negative_entropy

# ---- Masks ---------------------------------------------------------------------------------------


def plain_mask(height, width, rng):
    """Return share and mask, with the inverse Fourier transform as a sum."""
    share, columns = rng.beta(1.0, 1.0), width // 2 + 1
    normal = rng.standard_normal((2, height, columns))
    picture = np.zeros((height, width))

    for u in range(height):
        fy = min(u, height - u) / height
        for v in range(columns):
            frequency = max(math.sqrt(fy**2 + (v / width) ** 2), 1 / max(height, width))
            value = complex(normal[0, u, v], normal[1, u, v]) / frequency**3
            # Every other column stands for its mirror image, too.
            weight = 1 if v == 0 or 2 * v == width else 2
            for y in range(height):
                for x in range(width):
                    turn = cmath.exp(2j * math.pi * (u * y / height + v * x / width))
                    picture[y, x] += weight * (value * turn).real

    number = share * height * width
    number = math.ceil(number) if rng.random() > 0.5 else math.floor(number)
    ranked = sorted(np.ndindex(height, width), key=lambda place: -picture[place])
    mask = np.zeros((height, width))
    for place in ranked[:number]:
        mask[place] = 1
    return share, mask


@pytest.mark.parametrize(
    ("shape", "size"),
    [((3, 6, 5), (6, 5)), ((1, 4, 4), (4, 4)), ((7,), (1, 7)), ((1, 1, 1), (1, 1))],
)
def test_a_mask_equals_one_from_sums(shape, size):
    ours, theirs = np.random.default_rng(3), np.random.default_rng(3)
    shares = []
    for _ in range(6):
        share, mask = fmix.draw_mask(torch.Size(shape), ours)
        expected, plain = plain_mask(*size, theirs)
        assert share == pytest.approx(expected, rel=1e-15)
        np.testing.assert_array_equal(mask.numpy(), plain)
        shares.append(share)
    assert len(set(shares)) == 6


def test_masks_are_connected_regions():
    """Neighbours are alike far more often than by chance, which is half of the time."""
    rng, alike = np.random.default_rng(0), []
    for _ in range(50):
        share, mask = fmix.draw_mask(torch.Size((3, 32, 32)), rng)
        assert abs(float(mask.mean()) - share) < 1 / 1024
        if 0.3 < share < 0.7:
            alike += [float((mask[1:] == mask[:-1]).double().mean())]
            alike += [float((mask[:, 1:] == mask[:, :-1]).double().mean())]
    assert len(alike) > 20
    assert np.mean(alike) > 0.9


# ---- SimCLR --------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.05, 0.5])
@pytest.mark.parametrize("B", [2, 5])
def test_simclr_equals_loops(B, temperature):
    z = make_logits(2 * B, 3, "early", seed=B).requires_grad_()
    total = 0.0
    for i in range(2 * B):
        weights = []
        for k in range(2 * B):
            cosine = (z[i] * z[k]).sum() / (z[i] ** 2).sum().sqrt() / (z[k] ** 2).sum().sqrt()
            weights.append(torch.exp(cosine / temperature))
        others = sum(weights[k] for k in range(2 * B) if k != i)
        partner = i + B if i < B else i - B
        total = total - torch.log(weights[partner] / others) / (2 * B)

    loss = simclr_loss(z[:B], z[B:], temperature)
    torch.testing.assert_close(loss, total, rtol=1e-12, atol=1e-12)
    ours, theirs = torch.autograd.grad(loss, z, retain_graph=True), torch.autograd.grad(total, z)
    torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-12)


# ---- The rest ------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 3, 100])
def test_the_smallest_of_each_class_equal_loops(count):
    rng = np.random.default_rng(count)
    # Few values, so that there are equal ones; class 4 has one example, and class 2 none.
    labels = rng.choice([0, 1, 3], 40)
    labels[7] = 4
    values = rng.integers(0, 6, 40) / 2
    expected = set()
    for k in range(5):
        members = [i for i in range(40) if labels[i] == k]
        expected |= set(sorted(members, key=lambda i: (values[i], i))[:count])

    found = smallest_per_class(torch.from_numpy(values), torch.from_numpy(labels), count, 5)
    assert found.dtype == torch.bool
    assert set(found.nonzero().flatten().tolist()) == expected


@pytest.mark.parametrize("stage", ["early", "late"])
def test_the_negative_entropy_equals_loops(stage):
    z = make_logits(6, 4, stage).requires_grad_()
    p = torch.exp(z) / torch.exp(z).sum(1, keepdim=True)
    expected = sum(p[b, k] * torch.log(p[b, k]) for b in range(6) for k in range(4)) / 6
    value = negative_entropy(z)
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-12)
    ours, theirs = (
        torch.autograd.grad(value, z, retain_graph=True),
        torch.autograd.grad(expected, z),
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-12)
