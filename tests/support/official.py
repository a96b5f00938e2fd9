"""Values that the authors' own code computed: a few here, and many where their file is there."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from folders import TEST_DATA

VECTORS = TEST_DATA / "vectors" / "official-losses.npz"
needs_vectors = pytest.mark.skipif(not VECTORS.exists(), reason=f"{VECTORS} is not there")


# Single examples of ten classes from that file, so that some of it is compared everywhere. A
# gradient is that of the example's own loss, and not of the mean over a batch.
EXAMPLES = Path(__file__).with_name("authors_examples.json")


def official_examples(name: str, stage: str) -> Any:
    """Return the examples called `name`, "early" or "late" in a training."""
    return json.loads(EXAMPLES.read_text())[stage][name]


def official_values(prefix: str) -> dict[str, torch.Tensor]:
    """Return the arrays whose names begin with `prefix`, by the rest of their names."""
    with np.load(VECTORS) as file:
        names = [name for name in file.files if name.startswith(prefix)]
        assert names, f"{VECTORS} has nothing that begins with {prefix}"
        return {name.removeprefix(prefix): torch.from_numpy(file[name]) for name in names}
