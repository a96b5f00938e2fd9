"""The parts that a training consists of: task, method, images, networks, optimisers."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from nlbench import hardware, models, registry
from nlbench.build import build_method
from nlbench.data.decode import Geometry
from nlbench.data.noise.matrix_files import read_matrix
from nlbench.errors import DataError
from nlbench.files import digest
from nlbench.method import Method, Task
from nlbench.plan.protocol import Protocol
from nlbench.plan.spec import ESTIMATE, RunSpec, Told
from nlbench.training.context import RunOptions
from nlbench.training.images import TrainingImages, images_of
from nlbench.training.network import Network, Passes
from nlbench.training.optimisers import optimiser_of
from nlbench.training.run_data import RunData
from nlbench.training.run_state import RunState
from nlbench.training.seeding import seeded


@contextlib.contextmanager
def machine_settings(protocol: Protocol, device: torch.device) -> Iterator[None]:
    """Set number of threads, determinism and current device within a `with` block."""
    hardware.keep_freed_memory()
    threads = torch.get_num_threads()
    deterministic = torch.backends.cudnn.deterministic

    # A CUDA graph is captured on the current device.
    current = torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()

    torch.set_num_threads(protocol.threads)
    # With one seed, cuDNN must give the same numbers again. This cost no time where we measured it.
    torch.backends.cudnn.deterministic = True
    try:
        with current:
            yield
    finally:
        torch.set_num_threads(threads)
        torch.backends.cudnn.deterministic = deterministic


def normalised(data: RunData, protocol: Protocol) -> RunData:
    """Return the data with the protocol's mean and standard deviation, where it has them."""
    if not protocol.mean:
        return data
    info = replace(data.info, mean=tuple(protocol.mean), std=tuple(protocol.std))
    return replace(data, info=info)


def own_tensor(array: np.ndarray, device: torch.device) -> Tensor:
    """Return a copy on the device, so that a method that writes to it harms no other run."""
    return torch.tensor(array, device=device)


def make_task(
    data: RunData,
    labels: Tensor,
    protocol: Protocol,
    device: torch.device,
    told: Mapping[str, Told],
) -> Task:
    """Return the task with all privileged information; building the method withholds most of it.

    Args:
        labels: (N,) int64 on the device. The task gets a copy.
        told: what the suite gives, in place of what was measured. A noise rate that is still to be
            estimated is left out.
    Raises: ValueError for epochs of more examples than there are; DataError for the file of a
        matrix that has changed.
    """
    num_train = len(labels)
    # 0 if the protocol sets no number of batches. Then an epoch has all examples.
    epoch_size = protocol.batches_per_epoch * protocol.batch_size
    if epoch_size > num_train:
        raise ValueError(
            f"protocol: batches_per_epoch x batch_size is {epoch_size}, "
            f"more than the {num_train} training examples"
        )

    # If the true labels are unknown, a method that asks for the rate gets the published estimate.
    privileged: dict[str, Any] = {}
    if data.noise_rate_train is not None:
        privileged["noise_rate"] = data.noise_rate_train
    elif data.info.estimated_noise_rate:
        privileged["noise_rate"] = data.info.estimated_noise_rate
    if data.T is not None:
        privileged["T"] = torch.tensor(data.T)

    if "noise_rate" in told:
        rate = told["noise_rate"].identity
        privileged.pop("noise_rate", None)
        if rate != ESTIMATE:
            privileged["noise_rate"] = rate
    if "T" in told:
        privileged["T"] = torch.tensor(_own_matrix(told["T"], data.info.num_classes))

    return Task(
        num_train=num_train,
        num_classes=data.info.num_classes,
        labels=labels.clone(),
        epochs=protocol.epochs,
        steps_per_epoch=-(-(epoch_size or num_train) // protocol.batch_size),
        batch_size=protocol.batch_size,
        device=device,
        privileged=privileged,
    )


def _own_matrix(told: Told, num_classes: int) -> np.ndarray:
    """Read the suite's transition matrix (C, C). Raises DataError where it has changed since."""
    path = Path(told.path)
    matrix = read_matrix(path, num_classes)
    # The run's key holds the digest, so another content would be another run.
    if f"sha256:{digest(path, 'sha256')}" != told.identity:
        raise DataError(f"{path}: has changed since the suite was read; start again")
    return matrix


def make_method(spec: RunSpec, options: RunOptions, task: Task) -> Method:
    """Build the run's method. Draws in its constructor come from their own stream."""
    with seeded(spec.seed, "method"):
        cls = registry.load_method(options.methods[spec.method])
        method: Method = build_method(cls, spec.params, task)
        return method.to(task.device)


class Scored(NamedTuple):
    """A part of the data that the method is evaluated on: images and labels (n,) int64."""

    images: TrainingImages
    labels: Tensor


def geometry_of(spec: RunSpec) -> Geometry:
    """Return the sizes to which a run's image files are decoded."""
    return Geometry(spec.protocol.resize, spec.protocol.crop, scaled=bool(spec.decoding))


def scored_parts(data: RunData, geometry: Geometry, device: torch.device) -> dict[str, Scored]:
    """Return the parts that are evaluated after each epoch, by name.

    "test" is the test set, "val" the noisy validation part if there is one. Further ones are of the
    dataset.
    """
    parts = {"test": (data.test_images, data.test_labels), **data.scored}
    if data.val_images is not None and data.val_labels is not None:
        parts["val"] = data.val_images, data.val_labels

    scored = {}
    for name, (source, labels) in parts.items():
        images = images_of(source, data.info, device, "none", geometry)
        scored[name] = Scored(images, own_tensor(labels, device))
    return scored


def make_state(
    spec: RunSpec,
    data: RunData,
    options: RunOptions,
    task: Task,
    num_networks: int,
    scored: dict[str, Scored],
    fit: Callable[..., nn.Module],
) -> RunState:
    """Return the state of a run before its first epoch, with new networks and their optimisers.

    Args:
        scored: as `scored_parts` gives it; of these, methods may use the validation part.
        fit: trains a helper network.
    """
    protocol = spec.protocol
    images = images_of(
        data.train_images,
        data.info,
        task.device,
        protocol.augment,
        geometry_of(spec),
        protocol.strong,
    )

    # Shared by all networks, and by their copies, so that a method's whole cost is counted.
    passes = Passes()
    networks: list[nn.Module] = []
    for i in range(num_networks):
        networks.append(make_network(spec, options, task, images.shape, f"init{i}", passes))

    validation = scored.get("val")
    state = RunState(
        task=task,
        seed=spec.seed,
        networks=networks,
        images=images,
        schedule=protocol.factor,
        val_images=validation.images if validation else None,
        val_labels=validation.labels if validation else None,
        epoch_size=protocol.batches_per_epoch * protocol.batch_size,
        fit=fit,
        passes=passes,
    )
    state.clip_norm = protocol.clip_norm
    # Of float features and texts there is no strong view, and so no version.
    state.gives_strong = bool(spec.strong_views) or not data.info.mean
    factory = optimiser_of(protocol, networks)
    for i, network in enumerate(networks):
        state.optimise(network.parameters(), factory, f"network{i}")
    return state


def make_network(
    spec: RunSpec,
    options: RunOptions,
    task: Task,
    shape: tuple[int, ...],
    stream: str,
    passes: Passes,
) -> Network:
    """Return a new network on the task's device, in training mode.

    Weights that no file gives are drawn from the stream `stream` of the run's seed, on the CPU, so
    that they are the same for every device.

    Args:
        shape: (C, H, W) of an image, or (L, vocabulary) of a text.
        passes: counts the images that the network sees.
    """
    protocol = spec.protocol
    with seeded(spec.seed, stream):
        weights = spec.weights_path or protocol.weights
        body = models.build(
            protocol.model, task.num_classes, shape, weights=weights, args=protocol.model_args
        )

    network = Network(
        body,
        protocol.precision,
        passes,
        batch_size=protocol.batch_size,
        compiled=protocol.compile,
        graphs=uses_graphs(options, protocol),
    )
    return network.to(task.device).to(memory_format=torch.channels_last)


def uses_whole_steps(options: RunOptions, protocol: Protocol) -> bool:
    """Return whether whole default training steps are captured, where the method allows it.

    On a GPU alone, and only with a network that may be captured, as in `uses_graphs`.
    """
    if options.device.type != "cuda" or not options.whole_steps:
        return False
    return options.cuda_graphs is True or models.is_repeatable(protocol.model)


def uses_graphs(options: RunOptions, protocol: Protocol) -> bool:
    """Return whether steps are replayed as CUDA graphs: on a GPU, without torch.compile.

    By default only steps of our own models are.
    """
    if options.device.type != "cuda" or protocol.compile:
        return False
    if options.cuda_graphs is not None:
        return options.cuda_graphs
    return models.is_repeatable(protocol.model)
