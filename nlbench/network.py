"""A model as runs train it: under the protocol's precision, its passes counted, compiled or replayed where asked."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


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
            the time to launch them one by one. For networks on a GPU. What Python decides in the forward pass is
            decided once. A network with hooks is never captured, and one whose weights were exchanged or frozen since
            the last call of `train` is captured anew.
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
        """As a call, for who goes backward through the result before the next one: a graph has one memory.

        Raises: RuntimeError for a network that CUDA cannot capture.
        """
        if not (self.graphs and self._is_step(images)) or self.compiled or _has_hooks(self.body):
            return self(images)
        if not self._graph.checked and self._graph.of != (of := _weights(self.body)):
            self._graph.step, self._graph.of = _capture(self, images), of
        self._graph.checked = True
        if self.passes.active:
            self.passes.images += len(images)
        return self._graph.step(images)

    def train(self, mode: bool = True) -> Network:
        self._graph.checked = False
        return super().train(mode)

    def _is_step(self, images: Tensor) -> bool:
        return self.training and len(images) == self.batch_size and torch.is_grad_enabled()


class _Graph:
    """A captured step, which belongs to the weights it was captured with: a copy of the network has none."""

    step: Callable[[Tensor], Tensor]
    of: tuple[Any, ...] = ()  # the weights
    checked = False  # since the last call of `train`

    def __deepcopy__(self, memo: Any) -> _Graph:
        return _Graph()


def _weights(body: nn.Module) -> tuple[Any, ...]:
    """Where a network's weights and buffers lie, and which of them are trained: what a captured step relies on."""
    return tuple((t.data_ptr(), t.requires_grad) for t in (*body.parameters(), *body.buffers()))


def _has_hooks(body: nn.Module) -> bool:
    return any(
        m._forward_hooks or m._forward_pre_hooks or m._backward_hooks or m._backward_pre_hooks for m in body.modules()
    )


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
    step = functools.partial(_logits, _plain, network.body, network.precision, cache=False)
    before = [buffer.clone() for buffer in network.buffers()]
    with torch.random.fork_rng(devices=[images.device] if images.is_cuda else []):  # dropout draws
        try:
            replay = _record(step, [w for w in network.body.parameters() if w.requires_grad], images)
        except RuntimeError as error:
            raise RuntimeError(
                f"the network cannot be captured as a CUDA graph; --no-cuda-graphs trains without: {error}"
            ) from error
    for buffer, value in zip(network.buffers(), before, strict=True):  # averages moved
        buffer.copy_(value)
    return replay


def _record(
    step: Callable[[Tensor], Tensor], weights: list[nn.Parameter], images: Tensor
) -> Callable[[Tensor], Tensor]:
    """`step` and its backward pass to `weights` as two CUDA graphs on the current device.

    Not torch.cuda.make_graphed_callables, which keeps the captured autograd graph, and with it the streams that
    gradients are accumulated on: every replay then waits for them weight by weight, and warns of it.
    """
    images, aside = images.clone(), torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(3):  # libraries choose algorithms and take workspaces, which no capture may see
            logits = step(images)
            torch.autograd.grad(logits, weights, torch.zeros_like(logits), allow_unused=True)
    torch.cuda.current_stream().wait_stream(aside)
    forward, backward = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
    with torch.cuda.graph(forward):
        logits = step(images)
    dlogits = torch.empty_like(logits)
    with torch.cuda.graph(backward, pool=forward.pool()):
        gradients = torch.autograd.grad(logits, weights, dlogits, allow_unused=True)
    logits = logits.detach()

    class Replay(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, given: Tensor, *weights: Tensor) -> Tensor:
            images.copy_(given)
            forward.replay()
            return logits.detach()

        @staticmethod
        @once_differentiable
        def backward(ctx: Any, given: Tensor) -> tuple[Tensor | None, ...]:
            dlogits.copy_(given)
            backward.replay()
            return None, *(None if g is None else g.detach() for g in gradients)

    return lambda given: Replay.apply(given, *weights)
