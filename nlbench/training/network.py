"""A model as runs train it: under the protocol's precision, its passes counted, compiled or replayed where asked."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
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
            decided once. A network with hooks is never captured, and one of which a weight was exchanged or frozen, or
            a part set to another mode, since the last call of `train` is captured anew.
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

        The gradients lie in that memory too: they are to be cleared, set to None, before the next pass backward.
        Raises: RuntimeError for a network that CUDA cannot capture.
        """
        if self.compiled or not (self.graphs and self._is_step(images)):
            return self(images)
        if not self._graph.checked:
            if self._graph.of != (of := _relied_on(self)):
                self._graph.step = None  # frees its memory first
                self._graph.step, self._graph.of = _capture(self, images) if of else None, of
            self._graph.checked = True
        if self._graph.step is None:
            return self(images)
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

    step: Callable[[Tensor], Tensor] | None = None
    of: tuple[Any, ...] = ()  # what it relies on
    checked = False  # since the last call of `train`

    def __deepcopy__(self, memo: Any) -> _Graph:
        return _Graph()


def _relied_on(network: Network) -> tuple[Any, ...]:
    """What a captured step relies on: which weights and buffers there are, where, which are trained, and all modes.

    Nothing for a network that is not to be captured: one with hooks, which a replay would not call, or all frozen.
    """
    modules, weights = [*network.modules()], [*network.parameters()]
    hooks = (m._forward_hooks or m._forward_pre_hooks or m._backward_hooks or m._backward_pre_hooks for m in modules)
    if any(hooks) or any(w._backward_hooks for w in weights) or not any(w.requires_grad for w in weights):
        return ()
    tensors = ((id(t), t.data_ptr(), t.requires_grad) for t in (*weights, *network.buffers()))
    return (*tensors, *(m.training for m in modules))


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
    before = [buffer.clone() for buffer in network.buffers()]
    with torch.random.fork_rng(devices=[images.device] if images.is_cuda else []):  # dropout draws
        recorded = _Recorded(_Passage(network, images))
    for buffer, value in zip(network.buffers(), before, strict=True):  # averages moved
        buffer.copy_(value)
    return recorded


class _Passage:
    """Forward and backward pass of one batch, with inputs that stay where they are.

    Its results are those of `Network` to the last bit. In bfloat16 the weights of convolutions and linear layers, which
    only these layers may use, are rounded all at once, and their gradients widened, where autocast does it one by one.
    """

    def __init__(self, network: Network, images: Tensor):
        self.images = images.clone()
        self.weights = {name: w for name, w in network.body.named_parameters() if w.requires_grad}
        names = _cast_by_autocast(network.body) if network.precision == "bfloat16" else []
        trained = [name for name in names if name in self.weights]
        self._cast = {name: self.weights[name].detach().bfloat16().requires_grad_() for name in trained}
        self._used = [*{**self.weights, **self._cast}.values()]  # in the order of the weights
        self._body, self._precision = network.body, network.precision

    def forward(self) -> Tensor:
        if self._cast:
            with torch.no_grad():
                torch._foreach_copy_([*self._cast.values()], [self.weights[name] for name in self._cast])

        def apply(body: nn.Module, images: Tensor) -> Any:
            return torch.func.functional_call(body, self._cast, (images,))

        return _logits(apply, self._body, self._precision, self.images, cache=False)

    def backward(self, logits: Tensor, dlogits: Tensor) -> list[Tensor | None]:
        """Gradients of the weights, in their order and dtype; None of one that the pass does not use."""
        gradients = torch.autograd.grad(logits, self._used, dlogits, allow_unused=True)
        narrow = {i: g for i, g in enumerate(gradients) if g is not None and g.dtype == torch.bfloat16}
        wide = {i: torch.empty_like(g, dtype=torch.float32) for i, g in narrow.items()}
        if narrow:
            torch._foreach_copy_([*wide.values()], [*narrow.values()])
        return [wide.get(i, gradient) for i, gradient in enumerate(gradients)]


def _cast_by_autocast(body: nn.Module) -> list[str]:
    layers = {name: module for name, module in body.named_modules() if type(module) in (nn.Conv2d, nn.Linear)}
    return [f"{name}.{own}" for name, layer in layers.items() for own, _ in layer.named_parameters(recurse=False)]


class _Recorded:
    """A passage as two CUDA graphs on the current device.

    Not torch.cuda.make_graphed_callables, which keeps the captured autograd graph, and with it the stream that
    gradients are accumulated on: every replay then waits for it weight by weight, and warns of it.
    """

    def __init__(self, passage: _Passage):
        self._passage = passage  # the graphs go on using its memory
        self._forward, self._backward = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
        aside = _aside(torch.cuda.current_device())
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(3):  # libraries choose algorithms and take workspaces, which no capture may see
                logits = passage.forward()
                passage.backward(logits, torch.zeros_like(logits))
        torch.cuda.current_stream().wait_stream(aside)
        with _capturing(self._forward, stream=aside):
            logits = passage.forward()
        self._dlogits = torch.empty_like(logits)
        with _capturing(self._backward, pool=self._forward.pool(), stream=aside):
            self._gradients = passage.backward(logits, self._dlogits)
        self._logits = logits.detach()

    def __call__(self, images: Tensor) -> Tensor:
        logits: Tensor = _Replay.apply(self, images, *self._passage.weights.values())
        return logits

    def replay_forward(self, images: Tensor) -> Tensor:
        """Logits, in memory that the next replay writes to."""
        self._passage.images.copy_(images)
        self._forward.replay()
        return self._logits

    def replay_backward(self, dlogits: Tensor) -> list[Tensor | None]:
        """Gradients, in memory that the next replay writes to."""
        self._dlogits.copy_(dlogits)
        self._backward.replay()
        return self._gradients


@contextlib.contextmanager
def _capturing(graph: torch.cuda.CUDAGraph, **how: Any) -> Iterator[None]:
    try:
        with torch.cuda.graph(graph, **how):
            yield
    except RuntimeError as error:
        switch = "--no-cuda-graphs (cuda_graphs=False) trains without"
        raise RuntimeError(f"the network cannot be captured as a CUDA graph; {switch}: {error}") from error


class _Replay(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, recorded: _Recorded, images: Tensor, *weights: Tensor) -> Tensor:
        ctx.recorded = recorded
        return recorded.replay_forward(images).clone()  # a method may keep them

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dlogits: Tensor) -> tuple[Tensor | None, ...]:
        gradients = ctx.recorded.replay_backward(dlogits)
        return None, None, *(None if gradient is None else gradient.detach() for gradient in gradients)


@functools.cache
def _aside(device: int) -> torch.cuda.Stream:
    """The one stream that captures use: libraries keep a workspace for every stream they have seen."""
    return torch.cuda.Stream(device)
