"""Principal components of features."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# With so many features or examples an exact decomposition takes minutes. The randomised one of
# scikit-learn (Halko, Martinsson and Tropp, SIAM Review 2011) finds the same leading components.
_EXACT = 1000
# Its passes over the data. With fewer the last components are less exact.
_PASSES = 7


@dataclass(frozen=True)
class Principal:
    """A projection of standardised features on their first principal components.

    Attributes:
        mean, std: (F,) float32 of each feature. A constant one has the std 1.
        axes: (F, D) float32, orthonormal columns in the order of their variance.
    """

    mean: np.ndarray
    std: np.ndarray
    axes: np.ndarray

    @classmethod
    def of(cls, features: np.ndarray, dims: int, seed: int) -> Principal:
        """Learn the components of features (N, F) float32: at most `dims`, F or N - 1 of them."""
        # Imported here, because it takes longer than all else at the start.
        from sklearn.decomposition import PCA

        mean, std = features.mean(0, dtype=np.float64), features.std(0, dtype=np.float64)
        # A feature that is constant up to rounding would become noise.
        std = np.where(std > 1e-6 * std.max(), std, 1.0)
        scaled = ((features - mean) / std).astype(np.float32)

        N, width = scaled.shape
        kept = max(1, min(dims, N - 1, width))
        solver = "full" if min(N, width) <= _EXACT else "randomized"
        found = PCA(kept, svd_solver=solver, iterated_power=_PASSES, random_state=seed).fit(scaled)
        axes = np.ascontiguousarray(found.components_.T, np.float32)
        return cls(mean.astype(np.float32), std.astype(np.float32), axes)

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Return the components (N, D) float32 of features (N, F)."""
        found: np.ndarray = ((features - self.mean) / self.std) @ self.axes
        return found
