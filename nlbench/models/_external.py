"""Models of torchvision and timm under our interface."""

import contextlib
import fnmatch
import http.client
import importlib
import os
import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlparse

import torch
from torch import Tensor, nn

from nlbench.errors import SuiteError, did_you_mean
from nlbench.models._weights import refusal

# Arguments of timm's and torchvision's functions that are no part of an architecture, or that the
# data decides. Files that they name would be in no key.
_RESERVED = {"num_classes", "in_chans", "features_only", "exportable", "scriptable", "cache_dir"}
_RESERVED |= {"checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay", "pretrained_strict"}
_RESERVED |= {"pretrained", "weights", "weights_backbone"}

# The same weights as safetensors, by timm's name of the pickled file.
_SAFER_FILES = {
    "pytorch_model.bin": "model.safetensors",
    "open_clip_pytorch_model.bin": "open_clip_model.safetensors",
}


def check(package: str, name: str) -> None:
    """Check that `package` has an image classifier `name`, without building it.

    Args:
        package: "torchvision" or "timm".
    Raises: SuiteError otherwise.
    """
    known = _names(package)
    base, dot, tag = name.partition(".")
    if package == "timm" and dot and base in known:
        if tag not in tags(base):
            options = [f"timm/{base}.{other}" for other in tags(base)]
            hint = did_you_mean(f"timm/{name}", options)
            raise SuiteError(
                f"unknown model 'timm/{name}': timm has no weights {tag!r} of {base}. There are: "
                f"{', '.join(options) or 'none'}.{hint}"
            )
        return
    if name not in known:
        hint = did_you_mean(f"{package}/{name}", [f"{package}/{other}" for other in known])
        raise SuiteError(
            f"unknown model '{package}/{name}': {package} has {len(known)} models, "
            f"none of that name.{hint}"
        )


def build(
    package: str,
    name: str,
    num_classes: int,
    in_shape: tuple[int, ...],
    *,
    published: bool = False,
    args: Mapping[str, object],
) -> nn.Module:
    """Build the model with a classifier for `num_classes`.

    Args:
        published: start from the ImageNet weights that the package publishes, and download them on
            first use. The classifier has new weights unless it has exactly their classes.
        args: further arguments of the model.
    Raises: ValueError where the model cannot take examples of this shape or such arguments, or has
        no such weights; SuiteError where they cannot be downloaded.
    """
    if reserved := sorted(_RESERVED & args.keys()):
        raise ValueError(f"model_args must not have {', '.join(reserved)}, which nlbench sets")
    builder = _torchvision if package == "torchvision" else _timm
    try:
        with _weights_only():
            model = builder(name, num_classes, in_shape, published, args)
    except TypeError as error:
        # An error about something else than the arguments is no error of the suite.
        if not args:
            raise
        raise ValueError(f"does not take these model_args: {error}") from error
    # URLError and the errors of huggingface_hub are OSErrors.
    except (OSError, http.client.HTTPException) as error:
        raise _unreachable(package, name, error) from error
    except pickle.UnpicklingError as error:
        raise _unsafe(package, name, error) from error
    _try(model, num_classes, in_shape)
    return model


def fetch(package: str, name: str) -> None:
    """Download the published ImageNet weights into the package's cache, unless they are there.

    Raises: SuiteError where that fails.
    """
    try:
        with _weights_only():
            if package == "torchvision":
                torchvision_weights(name).get_state_dict(check_hash=True)
            else:
                _published_timm(name)
    except (OSError, http.client.HTTPException) as error:
        raise _unreachable(package, name, error) from error
    except pickle.UnpicklingError as error:
        raise _unsafe(package, name, error) from error
    # timm raises RuntimeError for a model without weights.
    except (ValueError, RuntimeError) as error:
        raise SuiteError(f"model {package}/{name}: {error}") from error


# ---- Layers --------------------------------------------------------------------------------------


def distances(model: Any) -> dict[str, int]:
    """Return how far each weight of a model of timm is from its classifier, in layers, by name.

    The layers are those of timm's `param_groups_layer_decay`, which follows BEiT's.
    """
    from timm.models import group_parameters

    layers = group_parameters(model, model.group_matcher(coarse=False), reverse=True)
    last = max(layers.values())
    # What belongs to no layer is part of the classifier.
    return {name: last - layers.get(name, last) for name, _ in model.named_parameters()}


def undecayed(model: Any) -> set[str]:
    """Return the names of the weights that a model of timm asks not to decay."""
    patterns = model.no_weight_decay()
    found = set()
    for name, _ in model.named_parameters():
        if any(fnmatch.fnmatch(name, pattern) for pattern in patterns):
            found.add(name)
    return found


# ---- Published weights ---------------------------------------------------------------------------


@contextlib.contextmanager
def _weights_only() -> Iterator[None]:
    """Have torch.load read tensors alone within the block, whoever calls it.

    torchvision asks for whole pickles, which could run code.
    """
    # torch refuses to read anything where both are set.
    names = ("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD")
    before = {name: os.environ.pop(name) for name in names if name in os.environ}
    os.environ[names[0]] = "1"
    try:
        yield
    finally:
        del os.environ[names[0]]
        os.environ.update(before)


def _unsafe(package: str, name: str, error: pickle.UnpicklingError) -> SuiteError:
    return SuiteError(
        f"the file of the ImageNet weights of {package}/{name} in {_cache(package)} "
        f"{refusal(error)}; remove "
        "the file there, so that it is downloaded again"
    )


def _unreachable(package: str, name: str, error: Exception) -> SuiteError:
    return SuiteError(
        f"the ImageNet weights of {package}/{name} are not in {_cache(package)} and cannot be "
        f"downloaded: {error}\n"
        f"on a machine with network `nlbench run SUITE --prepare` gets them; or get "
        f"{weights_file(package, name)} and put it there, or name the file itself: "
        "overrides: {weights: PATH}, or --set weights=PATH"
    )


def _cache(package: str) -> str:
    if package == "torchvision":
        return f"{torch.hub.get_dir()}/checkpoints"
    return "the cache of huggingface_hub (HF_HOME)"


def weights_file(package: str, name: str) -> str:
    """Return where the published weights come from.

    torchvision's file names end in the first digits of the sha256.
    """
    if package == "torchvision":
        return str(torchvision_weights(name).url)
    config = timm_config(name)
    if config.hf_hub_id:
        return f"model.safetensors of https://huggingface.co/{config.hf_hub_id}"
    return str(config.url)


def cached_file(package: str, name: str) -> Path | None:
    """Return the file of the published weights in the package's cache; None if it is not there."""
    if package == "torchvision":
        return _in_torch_hub(torchvision_weights(name).url)

    config = timm_config(name)
    if config is None or config.custom_load:
        return None
    if not config.hf_hub_id:
        return _in_torch_hub(config.url) if config.url else None

    from huggingface_hub import try_to_load_from_cache

    repository, _, revision = config.hf_hub_id.partition("@")
    file = config.hf_hub_filename or "pytorch_model.bin"
    # timm prefers the form that holds no pickle, where the repository has it.
    for name_there in (_SAFER_FILES.get(file, file), file):
        found = try_to_load_from_cache(repository, name_there, revision=revision or None)
        if isinstance(found, str):
            return Path(found)
    return None


def _in_torch_hub(url: str) -> Path | None:
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(url).path).name
    return path if path.is_file() else None


def tags(name: str) -> list[str]:
    """Return the tags of the weights that timm publishes of a model."""
    names = _import_timm().list_pretrained(f"{name}.*")
    return [found.partition(".")[2] for found in names]


def timm_config(name: str) -> Any:
    """Return timm's entry of the weights of NAME or NAME.TAG, or None for a model without any."""
    return _import_timm().get_pretrained_cfg(name)


def torchvision_weights(name: str) -> Any:
    """Return torchvision's entry of the weights IMAGENET1K_V1."""
    from torchvision import models

    weights = models.get_model_weights(name)
    # Papers mean these weights. The later ones were published years after most papers.
    if "IMAGENET1K_V1" not in weights.__members__:
        raise ValueError("torchvision has no IMAGENET1K_V1 weights for it")
    return weights["IMAGENET1K_V1"]


# ---- The two packages ----------------------------------------------------------------------------


def _names(package: str) -> list[str]:
    if package == "torchvision":
        from torchvision import models

        return models.list_models(module=models)
    names: list[str] = _import_timm().list_models()
    return names


def _torchvision(
    name: str,
    num_classes: int,
    in_shape: tuple[int, ...],
    pretrained: bool,
    args: Mapping[str, object],
) -> nn.Module:
    from torchvision import models

    if in_shape[0] != 3:
        raise ValueError(
            f"torchvision models take 3 channels, got {in_shape[0]}; "
            f"timm/{name} may take any number"
        )

    options: dict[str, Any] = {}
    if name in ("googlenet", "inception_v3"):
        # With their extra heads a forward pass in training returns a tuple, and no method here has
        # a loss for them.
        options = {"aux_logits": False, "init_weights": True, "transform_input": pretrained}
    options |= args
    model = models.get_model(name, weights=None, num_classes=num_classes, **options)
    if pretrained:
        state = model.state_dict()
        # The published classifier is for ImageNet's classes. All other tensors fit.
        full = models.get_model(name, weights=torchvision_weights(name)).state_dict()
        for key, own in state.items():
            if full[key].shape == own.shape:
                state[key] = full[key]
        model.load_state_dict(state)
    return model


def _timm(
    name: str,
    num_classes: int,
    in_shape: tuple[int, ...],
    pretrained: bool,
    args: Mapping[str, object],
) -> nn.Module:
    if pretrained:
        return _published_timm(name, num_classes=num_classes, in_chans=in_shape[0], **args)
    model: nn.Module = _import_timm().create_model(
        name, pretrained=False, num_classes=num_classes, in_chans=in_shape[0], **args
    )
    return model


def _published_timm(name: str, **options: object) -> nn.Module:
    """Build a model of timm with its published weights, and download them on first use."""
    file = cached_file("timm", name)
    # Named by its path, a file is read without asking a server whether there is a later one. A node
    # may have no network.
    overlay = None if file is None else {"file": str(file)}
    model: nn.Module = _import_timm().create_model(
        name, pretrained=True, pretrained_cfg_overlay=overlay, **options
    )
    return model


def _import_timm() -> ModuleType:
    try:
        return importlib.import_module("timm")
    except ModuleNotFoundError as error:
        # A timm that is there, but lacks a module, is not called missing.
        if error.name != "timm":
            raise
        raise SuiteError(
            "timm models need timm, which is not installed: pip install 'nlbench[timm]'"
        ) from None


def _try(model: nn.Module, num_classes: int, in_shape: tuple[int, ...]) -> None:
    """Raise ValueError unless the model takes images of `in_shape`.

    So a run is refused before its first step could fail.
    """
    training = model.training
    # Dropout draws no random numbers then, and batch norm keeps its statistics.
    model.eval()
    try:
        with torch.no_grad():
            logits = model(torch.zeros(1, *in_shape))
    # An architecture may raise any error inside.
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"cannot take examples of shape {tuple(in_shape)}: {reason}") from error
    if not isinstance(logits, Tensor) or logits.shape != (1, num_classes):
        raise ValueError(f"is not a classifier with {num_classes} outputs")
    model.train(training)
