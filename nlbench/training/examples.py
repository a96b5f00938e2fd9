"""The outputs that are kept of each training example, with or without true labels."""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from nlbench.data.base import ImageFiles
from nlbench.method import Batch
from nlbench.training.evaluate import rows_of
from nlbench.training.run_data import RunData


class Counter(Protocol):
    """Looks at the logits that training steps return."""

    def add(self, logits: Tensor, batch: Batch) -> None:
        """Count logits (B, C) of a batch, without waiting for the GPU."""

    def state_dict(self) -> dict[str, Tensor]:
        """Return what a checkpoint holds of it."""

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore what `state_dict` returned."""


class GivenLosses:
    """Sums up the loss and the margin of each example's given label over the training steps.

    The loss is the cross entropy. The margin is the logit of the given label minus the largest
    other logit, so that it is negative where another class is predicted. Both are those of the
    augmented images that the steps have seen, before each step. So they cost no further forward
    pass.

    Args:
        labels: (N,) int64, the given labels.
    """

    def __init__(self, labels: Tensor):
        self._labels = labels
        # Loss, margin and number. In float64, so that the order of many small terms does not
        # matter.
        self._sums = torch.zeros(len(labels), 3, dtype=torch.float64, device=labels.device)

    def add(self, logits: Tensor, batch: Batch) -> None:
        """Add the losses and margins of logits (B, C)."""
        labels, logits = self._labels[batch.index], logits.double()
        losses = functional.cross_entropy(logits, labels, reduction="none")
        own = labels[:, None]
        others = logits.scatter(1, own, -math.inf).amax(1)
        margins = logits.gather(1, own).squeeze(1) - others
        terms = torch.stack([losses, margins, torch.ones_like(losses)], 1)
        self._sums.index_add_(0, batch.index, terms)

    def mean(self) -> np.ndarray | None:
        """Return the mean loss of each example, (N,) float32.

        NaN for an example that was never counted; None if no step returned logits.
        """
        return self._mean(0)

    def margin(self) -> np.ndarray | None:
        """Return the mean margin of each example, (N,) float32. As `mean`, where there is none."""
        return self._mean(1)

    def _mean(self, column: int) -> np.ndarray | None:
        sums = self._sums.cpu().numpy()
        total, number = sums[:, column], sums[:, 2]
        if not number.any():
            return None
        with np.errstate(invalid="ignore"):
            mean: np.ndarray = (total / np.where(number > 0, number, np.nan)).astype("float32")
        return mean

    def state_dict(self) -> dict[str, Tensor]:
        """Return what a checkpoint holds of it."""
        return {"sums": self._sums}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore what `state_dict` returned."""
        self._sums.copy_(state["sums"])


# ---- Arrays --------------------------------------------------------------------------------------

# Significant bits of the further numbers for each example. The others are zeros, which take hardly
# any room in a compressed file.
BITS = 12


def rounded(values: np.ndarray) -> np.ndarray:
    """Return float32 numbers rounded to 12 significant bits, which is a part in 4,000."""
    mantissas, exponents = np.frexp(values)
    return np.ldexp(np.round(mantissas * 2**BITS), exponents - BITS).astype("float32")


def example_arrays(
    logits: Tensor, labels: Tensor, losses: GivenLosses, data: RunData
) -> dict[str, np.ndarray]:
    """Return the arrays of predictions.npz that have an entry for each training example.

        train        int16, the predicted classes
        train_prob   float32, the predicted probability of the given label
        train_loss   float32, the mean loss of the given label over the training; absent if the
                     method's steps return no logits
        margin       float32, likewise, the mean margin of the given label, `rounded`
        names        text, the files of the images, relative to the training part; absent where
                     images are no files
        class_names  text, (C,) instead, the classes by number; absent where they have no names

    Args:
        logits: (N, C) of the method after the last epoch, on images without augmentation.
        labels: (N,) int64, the given labels.
    """
    probs = []
    size = rows_of(logits)
    for part, given in zip(logits.split(size), labels.split(size), strict=True):
        probs.append(part.double().softmax(1).gather(1, given[:, None])[:, 0])
    arrays = {
        "train": logits.argmax(1).cpu().numpy().astype("int16"),
        "train_prob": torch.cat(probs).cpu().numpy().astype("float32"),
    }
    mean, margin = losses.mean(), losses.margin()
    if mean is not None:
        arrays["train_loss"] = mean
    if margin is not None:
        arrays["margin"] = rounded(margin)

    if isinstance(data.train_images, ImageFiles):
        # Names that are no UTF-8 stay as they are: surrogates stand for their bytes.
        names = [name.decode("utf-8", "surrogateescape") for name in data.train_images.names]
        arrays["names"] = np.array(names)
    if data.info.class_names:
        arrays["class_names"] = np.array(data.info.class_names)
    return arrays
