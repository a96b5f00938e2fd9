"""The optimiser of a protocol, and the learning rate and weight decay of each layer in it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nlbench import models
from nlbench.plan.protocol import Protocol
from nlbench.training.network import Network

# Loshchilov & Hutter (arXiv:1711.05101) and torch's defaults. Ours: no protocol changes them.
ADAM_BETAS = (0.9, 0.999)
ADAM_EPS = 1e-8
# Keras' small number, since the codes that use Adagrad here are for Keras.
ADAGRAD_EPS = 1e-7


def optimiser_of(
    protocol: Protocol, networks: Sequence[nn.Module]
) -> Callable[[Iterable[Any]], torch.optim.Optimizer]:
    """Return a function that makes the protocol's optimiser for parameters, or for groups of them.

    SGD and Adagrad decay all weights. AdamW decays neither biases and weights of normalisation,
    which are the tensors with one dimension, nor those that a model of timm names in
    `no_weight_decay`, such as the embeddings of positions; timm does the same. Learning rate and
    weight decay that a group sets itself count in place of the protocol's.

    Args:
        networks: have their layers' learning rates from `layer_decay`. Parameters of no network, as
            those of a method's own layers, have the classifier's.
    """
    common: dict[str, Any] = {
        "lr": protocol.lr,
        "weight_decay": protocol.weight_decay,
        "fused": True,
    }
    if protocol.optimiser == "sgd":
        make: Callable[..., torch.optim.Optimizer] = functools.partial(
            torch.optim.SGD, momentum=protocol.momentum, nesterov=protocol.nesterov, **common
        )
        if protocol.layer_decay == 1:
            return make
    elif protocol.optimiser == "adagrad":
        # torch has no fused form of it for GPUs.
        make = functools.partial(torch.optim.Adagrad, eps=ADAGRAD_EPS, **{**common, "fused": False})
    else:
        make = functools.partial(torch.optim.AdamW, betas=ADAM_BETAS, eps=ADAM_EPS, **common)

    # By id, because tensors are compared by value. The networks keep their weights for the run.
    factors: dict[int, float] = {}
    undecayed: set[int] = set()
    for network in networks:
        if protocol.layer_decay != 1:
            factors |= _layer_factors(network, protocol.layer_decay)
        if protocol.optimiser == "adamw":
            undecayed |= _undecayed(network)

    def factory(params: Iterable[Any]) -> torch.optim.Optimizer:
        groups = []
        for group in _as_groups(params):
            # A group with its own weight decay has it for all of its weights.
            decays = protocol.optimiser != "adamw" or "weight_decay" in group
            kept: set[int] = set()
            if not decays:
                kept = {id(weight) for weight in group["params"] if weight.ndim <= 1} | undecayed
            groups += _split(group, protocol.lr, factors, kept)
        return make(groups)

    return factory


def _as_groups(params: Iterable[Any]) -> list[dict[str, Any]]:
    """Return parameters, or groups of them, as groups with lists of parameters."""
    given = list(params)
    if not any(isinstance(part, Mapping) for part in given):
        return [{"params": given}]

    groups = []
    for group in given:
        weights = group["params"]
        groups.append({**group, "params": [weights] if isinstance(weights, Tensor) else [*weights]})
    return groups


def _split(
    group: Mapping[str, Any], lr: float, factors: Mapping[int, float], undecayed: set[int]
) -> list[dict[str, Any]]:
    """Divide a group into those with the same learning rate and the same weight decay.

    Args:
        lr: the learning rate of groups that set none.
        factors: id of a parameter -> the factor on its learning rate, where that is not 1.
        undecayed: the ids of parameters without weight decay.
    """
    found: dict[tuple[float, bool], dict[str, Any]] = {}
    for weight in group["params"]:
        kind = factors.get(id(weight), 1.0), id(weight) in undecayed
        if kind not in found:
            part = {**group, "lr": group.get("lr", lr) * kind[0], "params": []}
            if kind[1]:
                part["weight_decay"] = 0.0
            found[kind] = part
        found[kind]["params"].append(weight)
    return list(found.values())


def _layer_factors(network: nn.Module, layer_decay: float) -> dict[int, float]:
    """Return the factor on the learning rate of each weight of a network, by the weight's id."""
    body = _body(network)
    distances = models.distances(body)
    return {id(w): layer_decay ** distances[name] for name, w in body.named_parameters()}


def _undecayed(network: nn.Module) -> set[int]:
    body = _body(network)
    names = models.undecayed(body)
    return {id(weight) for name, weight in body.named_parameters() if name in names}


def _body(network: nn.Module) -> nn.Module:
    return network.body if isinstance(network, Network) else network
