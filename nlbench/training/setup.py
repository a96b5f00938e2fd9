"""Setup."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nlbench import models
from nlbench.plan.protocol import Protocol
from nlbench.plan.spec import RunSpec
from nlbench.training.context import Context
from nlbench.training.network import Network, Passes
from nlbench.training.seeding import seeded


def own_tensor(array: Any, device: torch.device) -> Tensor:
    """A tensor of a run's own: what a method did to it would otherwise reach the runs after it."""
    return torch.tensor(array, device=device)


def make_sgd(params: Any, protocol: Protocol) -> torch.optim.Optimizer:
    return torch.optim.SGD(
        params,
        lr=protocol.lr,
        momentum=protocol.momentum,
        nesterov=protocol.nesterov,
        weight_decay=protocol.weight_decay,
        fused=True,
    )


def make_network(
    spec: RunSpec,
    protocol: Protocol,
    num_classes: int,
    in_shape: tuple[int, ...],
    context: Context,
    stream: str,
    passes: Passes,
) -> Network:
    """A fresh network; what no file gives it is drawn from the seed's own stream, on the CPU whatever the device."""
    with seeded(spec.seed, stream):
        body = models.build(protocol.model, num_classes, in_shape, weights=spec.weights_path or protocol.weights)
    network = Network(
        body,
        protocol.precision,
        passes,
        batch_size=protocol.batch_size,
        compiled=protocol.compile,
        graphs=uses_graphs(context, protocol),
    )
    return network.to(context.device).to(memory_format=torch.channels_last)


def uses_graphs(context: Context, protocol: Protocol) -> bool:
    """Whether steps are replayed: on a GPU, and not what torch.compile has made.

    By default only of our own models: in these Python decides nothing from step to step, which a graph would not see.
    """
    if context.device.type != "cuda" or protocol.compile:
        return False
    return "/" not in protocol.model if context.cuda_graphs is None else context.cuda_graphs
