"""Read the weights of a model from a user's file."""

import pickle
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nlbench.errors import SuiteError
from nlbench.files import refuse_bomb

# The keys under which training codes store the state dict.
_INSIDE = ("state_dict", "model", "model_state_dict", "net")
# The prefixes that wrappers put before all names.
_PREFIXES = ("module.", "model.", "backbone.")


def load(model: nn.Module, path: Path) -> None:
    """Copy a file's tensors into `model`, in place.

    Tensors of a classifier for other classes keep their drawn values. Reads .pth and .pt by
    torch.load(weights_only=True), and .safetensors.

    Raises: SuiteError for a file that cannot be read or is no state dict of this model.
    """
    given = _tensors(path)
    own = model.state_dict()
    fitting = {}
    for name, value in given.items():
        if name in own and own[name].shape == value.shape:
            fitting[name] = value

    # Only the classifier, the layer of the last weight and bias, may be missing.
    needed = [name for name, value in own.items() if value.is_floating_point()]
    lacking = [name for name in needed if name not in fitting]
    classifier = {name.rpartition(".")[0] for name in needed[-2:]}
    wrong = [name for name in lacking if name.rpartition(".")[0] not in classifier]
    if wrong:
        raise SuiteError(
            f"{path}: no weights of this model: of its {len(needed)} tensors {len(lacking)} are "
            f"not there in their shape, first {wrong[0]} {tuple(own[wrong[0]].shape)}; "
            f"the file holds {', '.join(list(given)[:3])}, ..."
        )

    # A part that both have, the classifier aside, must not have more tensors in the file. Otherwise
    # the weights of a deeper model of the same family would be accepted.
    parts = {name.partition(".")[0] for name in own}
    parts -= {name.partition(".")[0] for name in classifier}
    beyond = [name for name in given if name not in own and name.partition(".")[0] in parts]
    if beyond:
        raise SuiteError(
            f"{path}: weights of a larger model: this one has no {beyond[0]} "
            f"({len(beyond)} such tensors)"
        )
    model.load_state_dict({**own, **fitting})


# ---- Reading -------------------------------------------------------------------------------------


def refusal(error: pickle.UnpicklingError) -> str:
    """Say why torch.load(weights_only=True) has refused a file.

    torch itself advises to read the file without this protection.
    """
    found = re.search(r"GLOBAL (\S+) (?:was not an allowed global|whose module)", str(error))
    if found is None:
        return "cannot be read as weights (it is truncated, damaged or no file of torch.save)"
    return f"holds more than tensors: its pickle asks for {found[1]}, and nothing in it was run"


def _tensors(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a file by name, without the prefixes of wrappers."""
    try:
        if path.suffix == ".safetensors":
            # Not at the top of the file, because safetensors need not be installed.
            from safetensors.torch import load_file

            read: Any = load_file(path)
        else:
            refuse_bomb(path)
            # weights_only, because any other pickle could run code.
            read = torch.load(path, map_location="cpu", weights_only=True)
    except ModuleNotFoundError:
        raise SuiteError(f"{path}: reading it needs safetensors: pip install safetensors") from None
    except pickle.UnpicklingError as error:
        fix = "save model.state_dict() with torch.save"
        raise SuiteError(f"{path}: {refusal(error)}; {fix}") from None
    # The two readers raise many kinds of errors for a file of another format.
    except Exception as error:
        first = str(error).partition("\n")[0] or type(error).__name__
        raise SuiteError(f"{path}: cannot be read as weights ({first})") from error

    for key in _INSIDE:
        if isinstance(read, dict) and isinstance(read.get(key), dict):
            read = read[key]
    if not isinstance(read, dict) or not any(isinstance(value, Tensor) for value in read.values()):
        raise SuiteError(f"{path}: holds no tensors by name, which weights are")

    tensors = {str(name): value for name, value in read.items() if isinstance(value, Tensor)}
    for prefix in _PREFIXES:
        # A wrapper adds its prefix to every name. A prefix of some names is a part of the model.
        if all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
    return tensors
