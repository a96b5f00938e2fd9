"""The split of losses by two Gaussians. Li, Socher & Hoi, ICLR 2020, arXiv:2002.07394.

As in the authors' code, LiJunnan1992/DivideMix, for `dividemix` and `pls`.
"""

import warnings

import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from torch import Tensor


def posterior(losses: Tensor, generator: torch.Generator) -> Tensor:
    """Return the probability, (N,) float32, that each loss belongs to the lower of two Gaussians.

    Args:
        losses: (N,), of one network. Where they are all equal, or not finite, the result is 1.
    """
    span = losses.max() - losses.min()
    if not (span.isfinite() and span > 0):
        return torch.ones_like(losses, dtype=torch.float32)

    scaled = ((losses - losses.min()) / span).double().cpu().numpy()[:, None]
    seed = int(torch.randint(2**31, (), generator=generator))
    # The settings are the authors'.
    mixture = GaussianMixture(2, max_iter=10, tol=1e-2, reg_covar=5e-4, random_state=seed)
    with warnings.catch_warnings():
        # The authors stop after ten iterations, whether the fit has converged or not.
        warnings.simplefilter("ignore", ConvergenceWarning)
        w = mixture.fit(scaled).predict_proba(scaled)[:, mixture.means_.argmin()]
    return torch.from_numpy(w).to(losses.device, torch.float32)
