"""The extractors by the names that `--model` takes."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from nlbench import models
from nlbench.data.base import ImageFiles, Images
from nlbench.embedding.embed import Extractor
from nlbench.embedding.parts import Parts
from nlbench.embedding.patches import Patches, Settings, learn, sample_index
from nlbench.embedding.pictures import squares
from nlbench.errors import SuiteError, did_you_mean

PATCHES = "patches"

# Pixels of a side to which pictures in files are resized unless the user says another size.
SIZE_OF_FILES = 32


def extractor(model: str, weights: str, settings: Settings, device: str) -> Extractor:
    """Return the extractor `model`.

    Args:
        weights: "imagenet", "none" or a file; "" for those that are published. `patches` has none.
        settings: of `patches`.
        device: of a published model, as torch names it, or "auto".
    Raises: SuiteError for an unknown name, and for weights that the model does not have.
    """
    if model == PATCHES:
        if weights:
            raise SuiteError(f"--weights {weights}: {PATCHES} has no weights; leave it out")
        if device not in ("auto", "cpu"):
            raise SuiteError(f"--device {device}: {PATCHES} works on the CPU; leave it out")
        return PatchExtractor(settings)
    if not models.is_reference(model) and model.partition("/")[0] not in models.EXTERNAL:
        others = ", ".join(f"{prefix}/NAME" for prefix in models.EXTERNAL)
        others += ", hf-hub:OWNER/NAME and local-dir:PATH"
        hint = did_you_mean(model, [PATCHES])
        raise SuiteError(f"unknown model {model!r}. There are: {PATCHES}, {others}.{hint}")

    for name, value in asdict(settings).items():
        if value != getattr(Settings(), name):
            raise SuiteError(
                f"--{name} {value}: is of {PATCHES}, and {model} has none; leave it out"
            )

    from nlbench.embedding.published import PublishedExtractor

    return PublishedExtractor(model, weights, _device(device))


def _device(name: str) -> torch.device:
    """Return a device by its name. Raises SuiteError where it is not there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        raise SuiteError(f"--device {name}: cannot be used here ({reason})") from None
    return device


class PatchExtractor:
    """The features of `nlbench.embedding.patches`, which need no weights."""

    def __init__(self, settings: Settings):
        self._settings = settings
        self._patches: Patches | None = None
        self.record: dict[str, Any] = {
            "model": PATCHES,
            "weights": "learned from the training images, without labels",
            "transform": asdict(settings),
        }

    def learn(self, images: Images, parts: Parts) -> float:
        """Learn from a sample of the training images, and return the seconds that it has taken.

        Raises: SuiteError for too small images.
        """

        def make() -> dict[str, np.ndarray]:
            index = sample_index(len(images), self._settings)
            try:
                return learn(self._squares(images, index), self._settings).arrays()
            except ValueError as error:
                raise SuiteError(f"{PATCHES}: {error}: --size 32") from None

        learned = parts.kept("extractor", make)
        self._patches = Patches.of_arrays(learned)
        return float(learned["seconds"])

    def __call__(self, images: Images, index: np.ndarray) -> np.ndarray:
        """Return the features (B, D) float32."""
        assert self._patches is not None, "learn() comes first"
        return self._patches(self._squares(images, index))

    def _squares(self, images: Images, index: np.ndarray) -> np.ndarray:
        size = self._settings.size
        if not size and isinstance(images, ImageFiles):
            size = SIZE_OF_FILES
        return squares(images, index, size)
