"""Features of models of timm and torchvision: what the last linear layer of each would see."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from nlbench import models
from nlbench.data import decode
from nlbench.data.base import ImageFiles, Images
from nlbench.embedding.parts import Parts
from nlbench.errors import SuiteError
from nlbench.files import digest
from nlbench.models import Reference

# Images at once.
_BATCH = 32

# The networks are built with so many classes, and their classifier is thrown away.
_CLASSES = 2

_FOLDER = (
    "put its config.json and model.safetensors, from a machine with network, into a folder, and "
    "name that: --model local-dir:PATH"
)

Transform = Callable[[Image.Image], Tensor]


class PublishedExtractor:
    """A network with its own transform, in evaluation mode."""

    def __init__(self, model: str, weights: str, device: torch.device):
        """Build the network, and download its weights on first use.

        Args:
            model: torchvision/NAME, timm/NAME, timm/NAME.TAG, hf-hub:OWNER/NAME or local-dir:PATH.
            weights: "imagenet", "none" or a file; "" for those that are published.
        Raises: SuiteError for an unknown model, and for weights that it does not have.
        """
        name, given, args = model, weights, {}
        reference = None
        if models.is_reference(model):
            if weights:
                raise SuiteError(f"--weights {weights}: {model} has its own weights; leave it out")
            with _fix(_FOLDER):
                reference = models.look_up(model, Path())
            name, given, args = reference.model, str(reference.file), dict(reference.args)
        models.check(name)
        if given == "none":
            given = ""
        elif not given:
            # A tag names published weights; without one they are those on ImageNet.
            given = "pretrained" if "." in name else "imagenet"

        with _fix(_file_fix(name, given)):
            found = _build(name, given, args, _config_beside(reference))
        self._network = found.network.eval().to(device)
        self._transform = found.transform
        self._device = device
        self.record: dict[str, Any] = {
            "model": reference.origin or model if reference else model,
            "weights": _weights(name, given),
            "transform": found.words,
        }

    def learn(self, images: Images, parts: Parts) -> float:
        """Learn nothing in no time: the weights are published."""
        return 0.0

    def __call__(self, images: Images, index: np.ndarray) -> np.ndarray:
        """Return the features (B, D) float32 of the images at these positions."""
        batches = []
        # Pillow decodes and resizes without holding Python's lock, so that threads help.
        with ThreadPoolExecutor(max(1, decode.workers())) as pool:
            for start in range(0, len(index), _BATCH):
                chosen = index[start : start + _BATCH]
                pixels = pool.map(lambda i: self._transform(_picture(images, int(i))), chosen)
                batch = torch.stack(list(pixels)).to(self._device)
                with torch.inference_mode():
                    batches.append(self._network(batch).flatten(1).float().cpu())
        found: np.ndarray = torch.cat(batches).numpy()
        return found


@contextlib.contextmanager
def _fix(words: str) -> Iterator[None]:
    """Within a `with` block, end an error about a failed download with a fix of this command.

    Args:
        words: the fix; "" leaves all errors as they are. Theirs is for a suite.
    """
    try:
        yield
    except SuiteError as error:
        if not words or not isinstance(error.__cause__, OSError | HTTPException):
            raise
        reason = str(error).partition("\n")[0]
        raise SuiteError(f"{reason}\n{words}") from error


def _file_fix(model: str, weights: str) -> str:
    """Return in words how published weights are had without network; "" for others."""
    try:
        where = models.weights_file(model, weights)
    # A model may have none, which is refused when it is built.
    except (ValueError, AttributeError):
        return ""
    if weights not in models.PUBLISHED:
        return ""
    return f"get {where} on a machine with network, and name the file: --weights FILE"


def _picture(images: Images, i: int) -> Image.Image:
    if isinstance(images, ImageFiles):
        return decode.open_image(images.path(i), images.grey_bits)
    return Image.fromarray(images[i])


def _weights(model: str, given: str) -> dict[str, str]:
    """Return what the record says of the weights: where they are from, and their sha256."""
    if not given:
        return {"file": "none"}
    file = models.cached_weights(model, given) if given in models.PUBLISHED else Path(given)
    sha256 = digest(file, "sha256") if file is not None else "unknown"
    return {"file": models.weights_file(model, given), "sha256": sha256}


# ---- The two packages ----------------------------------------------------------------------------


@dataclass(frozen=True)
class _Found:
    """A network without its classifier, its transform, and this transform as JSON has it."""

    network: nn.Module
    transform: Transform
    words: Any


def _build(model: str, weights: str, args: dict[str, Any], about: dict[str, Any]) -> _Found:
    """Build a model of either package. See `_timm` for the arguments."""
    # Weights that are `none` are drawn, and the parts of an interrupted call must fit together.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if model.startswith("torchvision/"):
            return _torchvision(model, weights)
        return _timm(model, weights, args, about)


def _config_beside(reference: Reference | None) -> dict[str, Any]:
    """Return what the configuration beside the weights of a reference says of their transform."""
    if reference is None:
        return {}
    # `look_up` has read the same file, and has refused one that is none of timm's.
    read = json.loads((reference.file.parent / "config.json").read_text(encoding="utf-8"))
    found: dict[str, Any] = read.get("pretrained_cfg", read)
    return found


def _timm(model: str, weights: str, args: dict[str, Any], about: dict[str, Any]) -> _Found:
    """Build a model of timm.

    Args:
        about: its `pretrained_cfg`; empty for the one that timm knows.
    """
    from timm import get_pretrained_cfg
    from timm.data import create_transform, resolve_data_config

    known = get_pretrained_cfg(model.partition("/")[2])
    if not about and known is not None:
        about = known.to_dict()
    config = resolve_data_config({}, pretrained_cfg=about)
    network: Any = models.build(
        model, _CLASSES, tuple(config["input_size"]), weights=weights, args=args
    )
    network.reset_classifier(0)
    transform: Transform = create_transform(**config, is_training=False)
    # With lists for tuples, as JSON has them.
    return _Found(network, transform, json.loads(json.dumps(config)))


def _torchvision(model: str, weights: str) -> _Found:
    from torchvision.models import get_model_weights

    published = list(get_model_weights(model.partition("/")[2]))
    # IMAGENET1K_V1 comes first, and `imagenet` means these weights.
    transform = published[0].transforms()
    side = transform.crop_size[0]
    network = models.build(model, _CLASSES, (3, side, side), weights=weights)

    linear = [name for name, part in network.named_modules() if isinstance(part, nn.Linear)]
    if not linear:
        raise SuiteError(f"model {model}: has no linear classifier whose input could be taken")
    owner, _, name = linear[-1].rpartition(".")
    setattr(network.get_submodule(owner), name, nn.Identity())
    return _Found(network, transform, " ".join(str(transform).split()))
