"""Find operations that would mix CPU and GPU, in a training on the CPU.

A tensor that a method makes without saying where lies on the CPU. On a GPU, combining it with
logits or labels is an error. Here everything lies on the CPU, so it is noted where each tensor
comes from: "host" tensors were made by the method without a device; those "of the run" are the
run's own, and what is computed from them. Of others nothing is known, and nothing is said.
"""

from __future__ import annotations

import linecache
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

# torch itself moves the values from one device to the other.
_ACROSS = {"copy_", "to", "type_as", "set_", "__set__"}
_TO_HOST = {"cpu", "numpy", "tolist", "item"}
_MOVES = {"cpu", "cuda", "to", "type_as"}
_TORCH = str(Path(torch.__file__).parent)


class Placement(TorchFunctionMode):
    """Note which tensors a method makes on the CPU, and where it combines them with the run's.

    It can be entered again while it is active.

    Attributes:
        mixed: "FILE:LINE: CODE" of each operation that would fail on a GPU -> the host tensor.

    Args:
        files: the files of the method.
    """

    def __init__(self, files: Iterable[Path]):
        super().__init__()
        self.mixed: dict[str, Tensor] = {}
        self._files = {str(path) for path in files}
        self._host = WeakTensorKeyDictionary()
        self._of_run = WeakTensorKeyDictionary()
        self._depth = 0

    def __enter__(self) -> Placement:
        if self._depth == 0:
            super().__enter__()
        self._depth += 1
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._depth -= 1
        if self._depth == 0:
            super().__exit__(kind, error, trace)

    def made_on_host(self, tensors: Iterable[Any]) -> None:
        """Note tensors that were made when nothing was watching, as those of a module are."""
        for tensor in tensors:
            if isinstance(tensor, Tensor) and not isinstance(tensor, nn.Parameter):
                self._host[tensor] = True

    def of_run(self, tensors: Iterable[Tensor]) -> None:
        """Note tensors that lie on the device of the run."""
        for tensor in tensors:
            self._host.pop(tensor, None)
            self._of_run[tensor] = True

    def moved(self, module: nn.Module) -> None:
        """Note that `module.to(device)` is called, for its parameters and buffers."""
        self.of_run([*module.parameters(), *module.buffers()])

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        name = getattr(func, "__name__", "")
        # Moved to where it is already, a tensor is returned as it is. On a GPU there would be two.
        if name in _MOVES and result is args[0] and not self._is_called_by_torch():
            result = result.view_as(result)
        given = [*_tensors(args), *_tensors(kwargs.values())]
        host = [tensor for tensor in given if tensor in self._host]
        of_run = any(tensor in self._of_run for tensor in given)

        if name in _TO_HOST:
            place = "host"
        elif device := _device(name, args, kwargs):
            place = device
        elif of_run:
            place = "run"
            if host and self._fails(name, args, host):
                self._note(host)
        elif not given:
            # The harness makes tensors too, and moves them itself.
            place = "host" if self._line() is not None else ""
        else:
            place = "host" if len(host) == len(given) else ""

        for tensor in _tensors((result,)):
            # What was changed in place stays where it is.
            if not any(tensor is other for other in given):
                self._put(tensor, place)
        return result

    def _put(self, tensor: Tensor, place: str) -> None:
        if place == "run":
            self._of_run[tensor] = True
        elif place == "host":
            self._host[tensor] = True

    def _fails(self, name: str, args: tuple[Any, ...], host: list[Tensor]) -> bool:
        """Return whether this operation of host tensors and others fails on a GPU."""
        if name in _ACROSS:
            return False
        # Positions on the CPU may index a tensor on a GPU, and not the other way round.
        if name in ("__getitem__", "__setitem__"):
            positions = _tensors(args[1:2])
            return args[0] in self._host and any(one in self._of_run for one in positions)
        # A single value may lie on the CPU.
        return any(tensor.dim() > 0 for tensor in host)

    def _note(self, host: list[Tensor]) -> None:
        frame = self._line()
        if frame is not None:
            path, number = frame.f_code.co_filename, frame.f_lineno
            line = linecache.getline(path, number).strip()
            largest = max(host, key=lambda tensor: tensor.dim())
            self.mixed.setdefault(f"{Path(path).name}:{number}: {line}", largest)

    def _is_called_by_torch(self) -> bool:
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and frame.f_code.co_filename == __file__:
            frame = frame.f_back
        return frame is not None and frame.f_code.co_filename.startswith(_TORCH)

    def _line(self) -> FrameType | None:
        """Return the frame of the method's file that called torch; None if other code called it."""
        frame: FrameType | None = sys._getframe(1)
        while frame is not None:
            path = frame.f_code.co_filename
            if path in self._files:
                return frame
            if path != __file__ and not path.startswith(_TORCH):
                return None
            frame = frame.f_back
        return None


def _device(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """Return "host" or "run", where an operation says on which device its result lies; else "".

    A method that takes the device from the task or from a tensor gets that of the run.
    """
    if name == "cuda":
        return "run"
    given = kwargs.get("device")
    if given is None and name == "to":
        given = next((arg for arg in args[1:] if isinstance(arg, str | torch.device)), None)
    if given is None:
        return ""
    return "host" if given == "cpu" and isinstance(given, str) else "run"


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    """Yield the tensors within arguments, also those in lists and tuples."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)
