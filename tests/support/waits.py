"""Which operators make the host wait for a GPU."""

import torch

NAMES = (
    "_local_scalar_dense",
    "nonzero",
    "masked_select",
    "_unique",
    "_unique2",
    "unique_dim",
    "bincount",
    "equal",
)


def waits(func, args):
    """Return whether an operator reads a value, or has a result whose shape depends on values."""
    # An operator in place has the same name with an underscore at its end.
    name = func.name().partition("::")[2].partition(".")[0].rstrip("_")
    if name in NAMES:
        return True
    # It selects by a mask.
    if name not in ("index", "index_put"):
        return False
    return any(index is not None and index.dtype == torch.bool for index in args[1])
