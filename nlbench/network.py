"""A model as runs train it: under the protocol's precision, its passes counted, compiled or replayed where asked."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


class Passes:
    """Counts the images that networks, and copies that a method makes of them, see while `active`."""

    def __init__(self) -> None:
        self.images, self.active = 0, False

    def __deepcopy__(self, memo: Any) -> Passes:
        return self  # a teacher's passes cost what a network's do


class Network(nn.Module):
    """A model under the protocol's precision: images (B, ...) float32 -> logits (B, C) float32.

    Args:
        batch_size: the protocol's. What is compiled or captured is for whole batches in training mode; shorter ones,
            evaluation and what needs no gradient go through the model as it is.
        compiled: through torch.compile, which computes the same up to rounding.
        graphs: `replay` runs forward and backward pass as CUDA graphs: the same kernels, so the same results, without
            the time to launch them one by one. For networks on a GPU.
    """

    def __init__(
        self,
        body: nn.Module,
        precision: str,
        passes: Passes,
        *,
        batch_size: int = 0,
        compiled: bool = False,
        graphs: bool = False,
    ):
        super().__init__()
        self.body, self.precision, self.passes = body, precision, passes
        self.batch_size, self.compiled, self.graphs = batch_size, compiled, graphs
        self._graph = _Graph()

    def forward(self, images: Tensor) -> Tensor:
        if self.passes.active:
            self.passes.images += len(images)
        apply = _compiled() if self.compiled and self._is_step(images) else _plain
        return _logits(apply, self.body, self.precision, images)

    def replay(self, images: Tensor) -> Tensor:
        """As a call, for who goes backward through the result before the next one: a graph has one memory."""
        if self.compiled or not (self.graphs and self._is_step(images)):
            return self(images)
        if self._graph.replay is None:
            self._graph.replay = _capture(self, images)
        if self.passes.active:
            self.passes.images += len(images)
        return self._graph.replay(images)

    def _is_step(self, images: Tensor) -> bool:
        return self.training and len(images) == self.batch_size and torch.is_grad_enabled()


class _Graph:
    """A captured step, which belongs to the weights it was captured with: a copy of the network has none."""

    replay: Callable[[Tensor], Tensor] | None = None

    def __deepcopy__(self, memo: Any) -> _Graph:
        return _Graph()


def _logits(
    apply: Callable[..., Tensor], body: nn.Module, precision: str, images: Tensor, cache: bool = True
) -> Tensor:
    half = precision == "bfloat16"
    with torch.autocast(images.device.type, torch.bfloat16, enabled=half, cache_enabled=cache):
        return apply(body, images).float()


def _plain(body: nn.Module, images: Tensor) -> Tensor:
    return body(images)


@functools.cache
def _compiled() -> Callable[[nn.Module, Tensor], Tensor]:
    """`_plain`, compiled for each architecture and shape once a process: the networks of later runs share the code.

    The network is an argument, and torch takes its weights as inputs of what it compiles.
    """
    torch._dynamo.config.recompile_limit = 256  # architectures and shapes; at its limit torch would go on uncompiled
    return torch.compile(_plain, dynamic=False)


def _capture(network: Network, images: Tensor) -> Callable[[Tensor], Tensor]:
    """Forward and backward pass of whole batches as CUDA graphs; what rounds before the capture changed is put back."""

    class Step(nn.Module):  # what make_graphed_callables takes apart: a module, whose forward it replaces
        def __init__(self) -> None:
            super().__init__()
            self.body = network.body

        def forward(self, images: Tensor) -> Tensor:
            return _logits(_plain, self.body, network.precision, images, cache=False)

    before = [buffer.clone() for buffer in network.buffers()]
    with torch.random.fork_rng(devices=[images.device] if images.is_cuda else []):  # dropout draws
        step: Any = torch.cuda.make_graphed_callables(Step().train(), (images.clone(),))
    for buffer, value in zip(network.buffers(), before, strict=True):  # averages moved
        buffer.copy_(value)
    return step
