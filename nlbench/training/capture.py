"""Captures of CUDA graphs: their stream, an error that helps, and a recorder of whole steps."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch
from torch import Tensor

Step = Callable[[], None]


@contextlib.contextmanager
def capturing(graph: torch.cuda.CUDAGraph, what: str, switch: str, **how: Any) -> Iterator[None]:
    """Capture what a `with` block gives the GPU, in a graph.

    Args:
        what: is captured, in words.
        switch: the option that trains without this capture.
        how: further arguments of `torch.cuda.graph`.
    Raises: RuntimeError for what CUDA cannot capture.
    """
    try:
        with torch.cuda.graph(graph, **how):
            yield
    except RuntimeError as error:
        raise RuntimeError(
            f"{what} cannot be captured as a CUDA graph; {switch} trains without: {error}"
        ) from error


@functools.cache
def aside(device: int) -> torch.cuda.Stream:
    """Return the stream for all captures. Libraries keep a workspace for every stream they see."""
    return torch.cuda.Stream(device)


@contextlib.contextmanager
def on_stream_of_captures(device: int) -> Iterator[None]:
    """Let the stream of captures do the work of a `with` block, in order with the current one.

    In the first passes libraries choose algorithms and allocate workspaces, for each stream. That
    must not happen during a capture.
    """
    stream, current = aside(device), torch.cuda.current_stream(device)
    stream.wait_stream(current)
    with torch.cuda.stream(stream):
        yield
    current.wait_stream(stream)


def layout_of(tensor: Tensor) -> tuple[object, ...]:
    """Return what a capture relies on of a tensor: which it is, and how it lies in which memory."""
    # Another Parameter may lie in the same memory, and its gradient would then go to the old one.
    which = id(tensor), tensor.requires_grad
    where = tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride()
    return *which, *where


# ---- Recorders ----------------------------------------------------------------------------------


class Recorder(Protocol):
    """Takes a step in such a way that it can be taken again without Python."""

    def rehearse(self, step: Step) -> None:
        """Take a step, so that libraries make what a recording must not make."""

    def record(self, step: Step) -> Step:
        """Take a step, and return a function that does to the device's memory what it did."""


class CudaRecorder:
    """Records steps as CUDA graphs on a device, which is the current one."""

    def __init__(self, device: torch.device):
        self._device = torch.cuda.current_device() if device.index is None else device.index

    def rehearse(self, step: Step) -> None:
        """Take a step on the stream of captures."""
        with on_stream_of_captures(self._device):
            step()

    def record(self, step: Step) -> Step:
        """Capture a step and replay it. Raises RuntimeError for one that CUDA cannot capture."""
        graph = torch.cuda.CUDAGraph()
        texts = "the whole training step", "a run without --whole-steps (whole_steps=False)"
        with capturing(graph, *texts, stream=aside(self._device)):
            step()
        # A capture does nothing yet to the device's memory.
        graph.replay()
        return graph.replay
