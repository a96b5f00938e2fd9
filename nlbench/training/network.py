"""A model as runs train it: in the protocol's precision, and compiled or replayed if asked.

Replaying means that forward and backward pass of a batch are captured once as CUDA graphs, and then
repeated without the time that Python and the launches of single kernels take.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from nlbench.training.capture import aside, capturing, layout_of, on_stream_of_captures
from nlbench.training.held import NotHeld

# ---- The network of a run -----------------------------------------------------------------------


class Passes(NotHeld):
    """Counts the images that networks see while `active`."""

    def __init__(self) -> None:
        self.images = 0
        self.active = False

    def __deepcopy__(self, memo: dict[int, object]) -> Passes:
        # A teacher is a copy of a network, and its forward passes cost as much.
        return self


class Network(nn.Module):
    """A model in the protocol's precision: images (B, ...) -> logits (B, C) float32.

    Compiled code and captured graphs are for whole batches in training mode. Shorter batches,
    evaluation, and passes without gradient go through the model as it is.

    Args:
        body: the model.
        precision: "float32" or "bfloat16".
        passes: counts the images that the network sees. Copies of the network share it.
        batch_size: the protocol's.
        compiled: use torch.compile, which computes the same up to rounding.
        graphs: let `replay` use CUDA graphs, which run the same kernels, so the results are the
            same. The network has to be on a GPU. Decisions that Python code takes in the forward
            pass are taken once, at the capture. A network with hooks is never captured. It is
            captured again if, at a call of `train`, another weight, mode or frozen part is found.
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
        self.body = body
        self.precision = precision
        self.passes = passes
        self.batch_size = batch_size
        self.compiled = compiled
        self.graphs = graphs
        self._graph = _Graph()

    def forward(self, images: Tensor) -> Tensor:
        # Images and not calls: a call with half a batch costs half as much.
        if self.passes.active:
            self.passes.images += len(images)
        # Code that was compiled without hooks would not call them.
        compiles = self.compiled and self._is_step(images) and not has_hooks(self.body)
        apply = _compiled() if compiles else _plain
        return _logits(apply, self.body, self.precision, images, cache=not self._graph.in_whole)

    def replay(self, images: Tensor) -> Tensor:
        """Like calling the network, but through a captured CUDA graph if possible.

        Call backward on the result before the next replay, because the graph reuses its buffers.
        Gradients lie in these buffers, too: set them to None before the next backward pass.

        Raises: RuntimeError for a network that CUDA cannot capture.
        """
        replays = self.graphs or self._graph.in_whole
        if self.compiled or not (replays and self._is_step(images)):
            return self(images)

        # Looking through all modules and weights takes time, so it is done after a call of `train`
        # only, which every epoch begins with.
        graph = self._graph
        if not graph.checked:
            found = relied_on(self)
            if graph.relied_on != found:
                # Free the memory of the old graph before the capture of the new one.
                graph.step = None
                if found:
                    capture = _Taken if graph.in_whole else _capture
                    graph.step = capture(self, images)
                graph.relied_on = found
            graph.checked = True

        if graph.step is None:
            return self(images)
        if self.passes.active:
            self.passes.images += len(images)
        return graph.step(images)

    def join_whole_step(self, joins: bool) -> None:
        """Say whether a whole step is captured of which the passes are a part, see `whole_step`.

        They are then the passes that a graph of the network has, and no such graph is captured.
        """
        if joins != self._graph.in_whole:
            self._graph = _Graph()
            self._graph.in_whole = joins

    @property
    def memory(self) -> object:
        """Return what holds the memory that captured passes work on."""
        return self._graph.step

    def train(self, mode: bool = True) -> Network:
        # A method may have changed the network since the capture; see `relied_on`.
        self._graph.checked = False
        return super().train(mode)

    def _is_step(self, images: Tensor) -> bool:
        # Compiled code and graphs are made for one shape, and a graph also for one mode.
        return self.training and len(images) == self.batch_size and torch.is_grad_enabled()


# ---- What a captured step depends on ------------------------------------------------------------


class _Graph(NotHeld):
    """A captured step. It belongs to the weights of one network, so a copy of that has none.

    Attributes:
        step: images -> logits; None if nothing is captured.
        relied_on: `relied_on` the network at the capture.
        checked: whether that has been compared since the last call of `train`.
        in_whole: whether a whole step is captured, of which `step` is a part.
    """

    step: Callable[[Tensor], Tensor] | None = None
    relied_on: tuple[object, ...] = ()
    checked = False
    in_whole = False

    def __deepcopy__(self, memo: dict[int, object]) -> _Graph:
        return _Graph()


def relied_on(network: Network) -> tuple[object, ...]:
    """Return everything that a captured step relies on.

    That is which weights and buffers there are, their memory, which of them are trained, and the
    modes of all modules. Empty for a network that must not be captured: one with hooks, which a
    replay would not call, or one that is frozen.
    """
    modules, weights = [*network.modules()], [*network.parameters()]
    if has_hooks(network):
        return ()
    if any(weight._backward_hooks for weight in weights):
        return ()
    if not any(weight.requires_grad for weight in weights):
        return ()

    found: list[object] = [layout_of(tensor) for tensor in (*weights, *network.buffers())]
    found += [module.training for module in modules]
    return tuple(found)


def has_hooks(network: nn.Module) -> bool:
    """Return whether a hook of a method, or of anybody else, looks at a module of the network."""
    for module in network.modules():
        if module._forward_hooks or module._forward_pre_hooks:
            return True
        if module._backward_hooks or module._backward_pre_hooks:
            return True
    return False


# ---- Forward passes -----------------------------------------------------------------------------


def _logits(
    apply: Callable[[nn.Module, Tensor], Tensor],
    body: nn.Module,
    precision: str,
    images: Tensor,
    cache: bool = True,
) -> Tensor:
    """Return the logits float32 of `apply(body, images)`, computed in the precision.

    Args:
        cache: let autocast keep rounded weights for their further uses in this pass.
    """
    half = precision == "bfloat16"
    # Logits are float32 in both precisions, because losses and target memories need the digits.
    with torch.autocast(images.device.type, torch.bfloat16, enabled=half, cache_enabled=cache):
        return apply(body, images).float()


def _plain(body: nn.Module, images: Tensor) -> Tensor:
    return body(images)


@functools.cache
def _compiled() -> Callable[[nn.Module, Tensor], Tensor]:
    """Return `_plain`, compiled.

    torch compiles it once per process for each architecture and shape. The network is an argument,
    so its weights are inputs of the compiled code, and the networks of later runs share it.
    """
    # The limit counts architectures and shapes. Beyond it torch would go on without compiling.
    torch._dynamo.config.recompile_limit = 256
    return torch.compile(_plain, dynamic=False)


# ---- Capturing and replaying --------------------------------------------------------------------


def _capture(network: Network, images: Tensor) -> Callable[[Tensor], Tensor]:
    """Capture forward and backward pass of whole batches as CUDA graphs.

    Leaves the network's buffers and the random generators as they were.
    """
    # The passes before the capture draw random numbers for dropout, and they change the averages of
    # batch normalisation.
    before = [buffer.clone() for buffer in network.buffers()]
    with torch.random.fork_rng(devices=[images.device] if images.is_cuda else []):
        recorded = _Recorded(_Passage(network, images))
    for buffer, value in zip(network.buffers(), before, strict=True):
        buffer.copy_(value)
    return recorded


class _Passage:
    """Forward and backward pass of one batch, with inputs that keep their memory.

    The results are those of `Network` to the last bit. In bfloat16 it rounds the weights of all
    convolutions and linear layers at once, and widens their gradients at once, where autocast does
    so one by one. No other layers may use these weights.
    """

    def __init__(self, network: Network, images: Tensor):
        self.images = images.clone()
        self.weights = {name: w for name, w in network.body.named_parameters() if w.requires_grad}
        names = _cast_by_autocast(network.body) if network.precision == "bfloat16" else []
        trained = [name for name in names if name in self.weights]
        # A weight that is frozen is not among them: autocast rounds it in the captured pass.
        self._cast = {}
        for name in trained:
            self._cast[name] = self.weights[name].detach().bfloat16().requires_grad_()
        # The order is that of the weights; a rounded copy takes the place of its weight.
        self._used = [*{**self.weights, **self._cast}.values()]
        self._body, self._precision = network.body, network.precision

    def forward(self) -> Tensor:
        if self._cast:
            with torch.no_grad():
                wide: list[Tensor] = [self.weights[name] for name in self._cast]
                torch._foreach_copy_([*self._cast.values()], wide)

        def apply(body: nn.Module, images: Tensor) -> Tensor:
            return torch.func.functional_call(body, self._cast, (images,))

        # Autocast must not cache rounded weights during a capture. torch's own
        # make_graphed_callables refuses that, too.
        return _logits(apply, self._body, self._precision, self.images, cache=False)

    def backward(self, logits: Tensor, dlogits: Tensor) -> list[Tensor | None]:
        """Return the gradients of the weights, in their order; None for one that is not used."""
        gradients = torch.autograd.grad(logits, self._used, dlogits, allow_unused=True)
        widened: list[Tensor | None] = list(gradients)
        narrow, wide = [], []
        for i, gradient in enumerate(gradients):
            if gradient is not None and gradient.dtype == torch.bfloat16:
                narrow.append(gradient)
                wide.append(torch.empty_like(gradient, dtype=torch.float32))
                widened[i] = wide[-1]
        if narrow:
            torch._foreach_copy_(wide, narrow)
        return widened


def _cast_by_autocast(body: nn.Module) -> list[str]:
    """Return the names of the weights that autocast rounds to bfloat16."""
    names = []
    for path, module in body.named_modules():
        if type(module) in (nn.Conv2d, nn.Linear):
            names += [f"{path}.{name}" for name, _ in module.named_parameters(recurse=False)]
    return names


class _Recorded:
    """A passage as two CUDA graphs on the current device.

    torch.cuda.make_graphed_callables would keep the captured autograd graph, and with it the stream
    that gradients are accumulated on. Every replay would then wait for that stream weight by
    weight, and warn of it.
    """

    def __init__(self, passage: _Passage):
        # The graphs go on using the passage's memory.
        self._passage = passage
        self._forward, self._backward = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()

        device = torch.cuda.current_device()
        with on_stream_of_captures(device):
            for _ in range(3):
                logits = passage.forward()
                passage.backward(logits, torch.zeros_like(logits))

        texts = "the network", "--no-cuda-graphs (cuda_graphs=False)"
        with capturing(self._forward, *texts, stream=aside(device)):
            logits = passage.forward()
        self._dlogits = torch.empty_like(logits)
        with capturing(self._backward, *texts, pool=self._forward.pool(), stream=aside(device)):
            self._gradients = passage.backward(logits, self._dlogits)
        self._logits = logits.detach()

    def __call__(self, images: Tensor) -> Tensor:
        logits: Tensor = _Replay.apply(self, images, *self._passage.weights.values())
        return logits

    def replay_forward(self, images: Tensor) -> Tensor:
        """Return the logits, in memory that the next replay writes to."""
        self._passage.images.copy_(images)
        self._forward.replay()
        return self._logits

    def replay_backward(self, dlogits: Tensor) -> list[Tensor | None]:
        """Return the gradients, in memory that the next replay writes to."""
        self._dlogits.copy_(dlogits)
        self._backward.replay()
        return self._gradients


class _Taken:
    """A passage as a part of a whole step, which is captured together with the rest of it.

    The autograd graph of a forward pass ends with its backward pass. Otherwise it would hold the
    nodes that accumulate the gradients of the weights. They belong to the stream of captures, and a
    later pass on another stream would use them, wait for each of them, and warn of it.
    """

    def __init__(self, network: Network, images: Tensor):
        self._passage = _Passage(network, images)
        self._logits: Tensor | None = None

    def __call__(self, images: Tensor) -> Tensor:
        logits: Tensor = _Replay.apply(self, images, *self._passage.weights.values())
        return logits

    def replay_forward(self, images: Tensor) -> Tensor:
        """Return the logits of a forward pass."""
        self._passage.images = images
        # An autograd function has no gradients where it computes.
        with torch.enable_grad():
            logits = self._passage.forward()
        self._logits = logits
        return logits.detach()

    def replay_backward(self, dlogits: Tensor) -> list[Tensor | None]:
        """Return the gradients of a backward pass. Raises RuntimeError for a second one."""
        logits, self._logits = self._logits, None
        if logits is None:
            raise RuntimeError(
                "a whole step goes backward through its network once; a run without --whole-steps "
                "(whole_steps=False) may do so more often"
            )
        return self._passage.backward(logits, dlogits)


class _Replay(torch.autograd.Function):
    """Replays the forward pass and, in the backward pass, the captured backward pass."""

    @staticmethod
    def forward(ctx: Any, recorded: _Recorded | _Taken, images: Tensor, *weights: Tensor) -> Tensor:
        ctx.recorded = recorded
        # A copy, because a method may keep the logits.
        return recorded.replay_forward(images).clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dlogits: Tensor) -> tuple[Tensor | None, ...]:
        gradients = ctx.recorded.replay_backward(dlogits)
        of_weights = [None if gradient is None else gradient.detach() for gradient in gradients]
        return None, None, *of_weights
