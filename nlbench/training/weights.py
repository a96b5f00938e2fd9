"""The weights of a run's final networks: saved beside its record, and loaded to classify images."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nlbench import models
from nlbench.data.base import ImageFiles, Info
from nlbench.data.decode import Geometry
from nlbench.errors import StoreError, UserError
from nlbench.files import refuse_bomb, write_atomic
from nlbench.plan.spec import RunSpec
from nlbench.results.schema import Migrations, brought_up
from nlbench.results.store import Store
from nlbench.training.evaluate import accuracies, predict_all
from nlbench.training.images import TrainingImages, images_of
from nlbench.training.network import Network
from nlbench.training.run_data import RunData
from nlbench.training.run_state import RunState
from nlbench.training.setup import Scored

FILE = "weights.pt"

# The version of its content.
VERSION = 1
MIGRATIONS: Migrations = {}


def save_weights(
    store: Store, spec: RunSpec, data: RunData, code: str, state: RunState, test: Scored
) -> None:
    """Write the final networks to weights.pt in the run's folder, whole or not at all.

    torch.load reads it with weights_only=True: a dictionary of tensors and plain data. Its
    `test_accuracy` is that of `Trained.probabilities`, the mean of the networks' probabilities. A
    method that predicts in another way, for example by averaged weights, has another accuracy in
    its record.
    """
    networks = [network.body for network in state.networks if isinstance(network, Network)]
    info, protocol, files = data.info, spec.protocol, data.train_images
    probs = mean_probabilities(state.networks, test.images)
    content = {
        "version": VERSION,
        "key": spec.key,
        "code": code,
        "model": protocol.model,
        "model_args": protocol.model_args,
        "num_classes": info.num_classes,
        "class_names": list(info.class_names),
        "in_shape": list(state.images.shape),
        "mean": list(info.mean),
        "std": list(info.std),
        "resize": protocol.resize,
        "crop": protocol.crop,
        "scaled": bool(spec.decoding),
        "grey_bits": files.grey_bits if isinstance(files, ImageFiles) else 0,
        "test_accuracy": accuracies(probs, test.labels)["accuracy"],
        "networks": [_on_cpu(network.state_dict()) for network in networks],
    }
    path = store.run_dir(spec.key) / FILE
    store.require_ready()
    write_atomic(path, lambda file: torch.save(content, file))


def _on_cpu(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().cpu().contiguous() for name, value in weights.items()}


def mean_probabilities(networks: Sequence[nn.Module], images: TrainingImages) -> Tensor:
    """Return the mean of the networks' probabilities, (n, C) float32."""
    total = torch.zeros(())
    for network in networks:
        total = total.to(images_device(network)) + predict_all(network, images).softmax(1)
    return total / len(networks)


def images_device(network: nn.Module) -> torch.device:
    """Return the device of a network's weights."""
    return next(network.parameters()).device


@dataclass(frozen=True)
class Trained:
    """The networks of a run that is done.

    Attributes:
        class_names: the classes by number; empty where the dataset does not name them.
        networks: in evaluation mode on the CPU, images (B, C, H, W) float32 or texts
            (B, L) int64 -> logits (B, C).
        test_accuracy: on the run's test images, in [0, 1].
    """

    class_names: tuple[str, ...]
    networks: tuple[nn.Module, ...]
    test_accuracy: float
    _info: Info
    _geometry: Geometry

    def probabilities(self, images: Sequence[str | Path] | np.ndarray) -> np.ndarray:
        """Return the probability of each class, (n, C) float32.

        Args:
            images: files; for a dataset in memory, an array as the dataset has it.
        Raises: DataError for a file that cannot be decoded.
        """
        source: np.ndarray | ImageFiles
        if isinstance(images, np.ndarray):
            source = images
        else:
            names = [os.fsencode(os.path.abspath(image)) for image in images]
            source = ImageFiles(Path("/"), np.array(names, dtype="S"))
        if len(source) == 0:
            return np.zeros((0, self._info.num_classes), np.float32)

        shown = images_of(source, self._info, torch.device("cpu"), "none", self._geometry)
        with torch.no_grad():
            probs: np.ndarray = mean_probabilities(self.networks, shown).numpy()
        return probs


def load_trained(store: Store, key: str) -> Trained:
    """Return the networks that a run with `--save-weights` has left.

    Args:
        key: the run's key.
    Raises: StoreError for a run without weights, for weights of another training, and for a file
        that cannot be read.
    """
    record = store.read(key)
    path = store.run_dir(key) / FILE
    if record is None or not path.is_file():
        raise StoreError(
            f"{path}: there are no weights of this run; train it with "
            "--save-weights, which keeps those of the runs that are trained then"
        )
    # A damaged file can make torch raise almost any exception.
    try:
        refuse_bomb(path)
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        content = brought_up(content, str(path), VERSION, MIGRATIONS, "version")
        trained_by = content["key"], content["code"]
        networks = [_rebuilt(content, weights) for weights in content["networks"]]
    except UserError:
        raise
    except Exception as error:
        raise StoreError(f"{path}: not readable weights ({type(error).__name__})") from None
    if trained_by != (key, record.code):
        raise StoreError(
            f"{path}: these weights are not of the training that the record describes; train it "
            "again with --stale rerun --save-weights"
        )

    # Only the shape of a text has two numbers, the second of which is the vocabulary.
    shape = content["in_shape"]
    vocabulary = shape[1] if len(shape) == 2 else 0
    info = Info(
        name="", title="", num_classes=content["num_classes"], num_train=0, num_test=0, shape=(),
        mean=tuple(content["mean"]), std=tuple(content["std"]), vocabulary=vocabulary,
    )  # fmt: skip
    # Weights that were saved before there was another way to decode have no such value.
    scaled = bool(content.get("scaled", False))
    return Trained(
        tuple(content["class_names"]),
        tuple(networks),
        content["test_accuracy"],
        info,
        Geometry(content["resize"], content["crop"], content["grey_bits"], scaled),
    )


def _rebuilt(content: Mapping[str, Any], weights: Mapping[str, Tensor]) -> nn.Module:
    # Building draws weights, and the caller's random numbers must stay as they are.
    with torch.random.fork_rng(devices=[]):
        # Weights that were saved before a model could have arguments have no such value.
        model = models.build(
            content["model"],
            content["num_classes"],
            tuple(content["in_shape"]),
            args=content.get("model_args", {}),
        )
    model.load_state_dict(weights)
    return model.eval()
