"""The split of losses by two Gaussians, against Bayes by hand."""

import math

import numpy as np
import pytest
import torch

from nlbench.ops.gaussian_mixture import posterior


def test_posterior_is_that_of_the_lower_of_two_gaussians():
    rng = np.random.default_rng(0)
    low, high = rng.normal(0.1, 0.05, 300), rng.normal(2.0, 0.3, 200)
    losses = torch.from_numpy(np.concatenate([low, high]))
    w = posterior(losses, torch.Generator().manual_seed(0))

    assert w.dtype == torch.float32
    assert (w[:300] > 0.5).all()
    assert (w[300:] < 0.5).all()
    assert torch.equal(w, posterior(losses, torch.Generator().manual_seed(0)))

    # Bayes by hand with the moments of the two groups, which the mixture finds where they are so
    # far apart.
    x = (losses - losses.min()) / (losses.max() - losses.min())

    def weighted_density(part, x):
        variance = part.var(unbiased=False) + 5e-4
        return len(part) * torch.exp(-((x - part.mean()) ** 2) / (2 * variance)) / variance.sqrt()

    a, b = weighted_density(x[:300], x), weighted_density(x[300:], x)
    torch.testing.assert_close(w.double(), a / (a + b), rtol=0, atol=0.02)


@pytest.mark.parametrize(
    "losses",
    [torch.full((9,), 0.7), torch.tensor([1.0, math.nan, 2.0]), torch.tensor([math.inf, 1])],
)
def test_losses_without_a_fit_keep_everything(losses):
    assert torch.equal(posterior(losses, torch.Generator()), torch.ones(len(losses)))
