"""Values that the authors' own code computed, if their file is there."""

import numpy as np
import pytest
import torch
from folders import TEST_DATA

VECTORS = TEST_DATA / "vectors" / "official-losses.npz"
needs_vectors = pytest.mark.skipif(not VECTORS.exists(), reason=f"{VECTORS} is not there")


def official_values(prefix: str) -> dict[str, torch.Tensor]:
    """Return the arrays whose names begin with `prefix`, by the rest of their names."""
    with np.load(VECTORS) as file:
        names = [name for name in file.files if name.startswith(prefix)]
        assert names, f"{VECTORS} has nothing that begins with {prefix}"
        return {name.removeprefix(prefix): torch.from_numpy(file[name]) for name in names}
