"""Features of models of timm and torchvision: what the last linear layer of each would see."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
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

# Images at once.
_BATCH = 32

# The networks are built with so many classes, and their classifier is thrown away.
_CLASSES = 2

# Pixels of a side where a model of timm says nothing.
_SIDE = 224

Transform = Callable[[Image.Image], Tensor]


class PublishedExtractor:
    """A network with its own transform, in evaluation mode."""

    def __init__(self, model: str, weights: str, device: torch.device):
        """Build the network, and download its weights on first use.

        Args:
            weights: "imagenet", "none" or a file.
        Raises: SuiteError for an unknown model, and for weights that it does not have.
        """
        models.check(model)
        given = "" if weights == "none" else weights
        # The weights of `none` are drawn, and the parts of an interrupted call must fit together.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            if model.startswith("torchvision/"):
                built: tuple[nn.Module, Transform, Any] = _torchvision(model, given)
            else:
                built = _timm(model, given)
        self._network, self._transform, words = built
        self._network.eval().to(device)
        self._device = device
        self.record: dict[str, Any] = {
            "model": model,
            "weights": _weights(model, given),
            "transform": words,
        }

    def learn(self, images: Images, parts: Parts) -> None:
        """Learn nothing: the weights are published."""

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


def _picture(images: Images, i: int) -> Image.Image:
    if isinstance(images, ImageFiles):
        return decode.open_image(images.path(i), images.grey_bits)
    return Image.fromarray(images[i])


def _weights(model: str, given: str) -> dict[str, str]:
    """Return what the record says of the weights: where they are from, and their sha256."""
    if not given:
        return {"file": "none"}
    file = models.cached_weights(model, given) if given == "imagenet" else Path(given)
    sha256 = digest(file, "sha256") if file is not None else "unknown"
    return {"file": models.weights_file(model, given), "sha256": sha256}


def _timm(model: str, weights: str) -> tuple[nn.Module, Transform, dict[str, Any]]:
    """Return a network of timm without its classifier, its transform, and this in words."""
    from timm import get_pretrained_cfg
    from timm.data import create_transform, resolve_model_data_config

    known = get_pretrained_cfg(model.partition("/")[2], allow_unregistered=True)
    shape = tuple(known.input_size) if known is not None else (3, _SIDE, _SIDE)
    network: Any = models.build(model, _CLASSES, shape, weights=weights)
    network.reset_classifier(0)
    config = resolve_model_data_config(network)
    transform: Transform = create_transform(**config, is_training=False)
    # With lists for tuples, as JSON has them.
    return network, transform, json.loads(json.dumps(config))


def _torchvision(model: str, weights: str) -> tuple[nn.Module, Transform, str]:
    """Return a network of torchvision without its classifier, its transform, and this in words."""
    from torchvision.models import get_model_weights

    published = list(get_model_weights(model.partition("/")[2]))
    if not published:
        raise SuiteError(f"model {model}: torchvision has no weights of it, and no transform")
    # IMAGENET1K_V1 comes first, and `imagenet` means these weights.
    transform = published[0].transforms()
    side = transform.crop_size[0]
    network = models.build(model, _CLASSES, (3, side, side), weights=weights)

    linear = [name for name, part in network.named_modules() if isinstance(part, nn.Linear)]
    if not linear:
        raise SuiteError(f"model {model}: has no linear classifier whose input could be taken")
    owner, _, name = linear[-1].rpartition(".")
    setattr(network.get_submodule(owner), name, nn.Identity())
    return network, transform, " ".join(str(transform).split())
