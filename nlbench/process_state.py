"""What a method can change in its process besides its own run: find it, and put it back.

Three kinds are told apart:

- *settings* of torch, such as the default dtype. They decide what a protocol computes. They are
  compared and put back after loading the method, before and after every epoch, and after the run.
- *surroundings*, such as the working directory and the environment. They are compared and put back
  after loading the method and after the run.
- *code and streams*: functions and classes of torch, NumPy, nlbench and Python that were replaced,
  and standard streams that were closed. The run has then not computed what the protocol says, so it
  fails.

Global random generators are no part of it: nlbench draws from its own streams.
"""

from __future__ import annotations

import builtins
import contextlib
import ctypes
import fcntl
import functools
import gc
import inspect
import os
import random
import resource
import signal
import sys
import types
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, TypeGuard

import numpy as np
import torch

# ---- Settings and surroundings -------------------------------------------------------------------


class Part(NamedTuple):
    """A part of the process's state.

    Attributes:
        name: what a message calls it.
        get: returns its value, which can be compared.
        put: puts such a value back, or None where that cannot be done.
        reported: whether a change is worth a message.
    """

    name: str
    get: Callable[[], Any]
    put: Callable[[Any], object] | None
    reported: bool = True


def _flag(name: str, module: Any, attribute: str) -> Part:
    return Part(
        name,
        lambda: getattr(module, attribute),
        lambda value: setattr(module, attribute, value),
    )


def _put_deterministic(value: tuple[bool, bool]) -> None:
    torch.use_deterministic_algorithms(value[0], warn_only=value[1])


def _autocast() -> tuple[Any, ...]:
    devices = ("cpu", "cuda")
    enabled = [torch.is_autocast_enabled(device) for device in devices]
    dtypes = [torch.get_autocast_dtype(device) for device in devices]
    return (*enabled, *dtypes, torch.is_autocast_cache_enabled())


def _put_autocast(value: tuple[Any, ...]) -> None:
    for i, device in enumerate(("cpu", "cuda")):
        torch.set_autocast_enabled(device, value[i])
        torch.set_autocast_dtype(device, value[2 + i])
    torch.set_autocast_cache_enabled(value[4])


# Smaller than the smallest normal float32, so it is 0 where denormal numbers are flushed.
_DENORMAL = torch.tensor([1e-40])


def _flushes_denormals() -> bool:
    return bool((_DENORMAL * 1.0 == 0).item())


@functools.cache
def _libm() -> Any:
    return ctypes.CDLL(None)


def _rounding() -> int:
    return int(_libm().fegetround()) if hasattr(_libm(), "fegetround") else 0


def _hooks() -> tuple[dict[Any, Any], ...]:
    """Return the hooks that every module and every optimiser calls."""
    # torch.optim deletes the name of this module of its own.
    module, optimizer = torch.nn.modules.module, sys.modules["torch.optim.optimizer"]
    names = [
        "_global_forward_hooks",
        "_global_forward_pre_hooks",
        "_global_backward_hooks",
        "_global_backward_pre_hooks",
        "_global_parameter_registration_hooks",
        "_global_module_registration_hooks",
        "_global_buffer_registration_hooks",
    ]
    found = [getattr(module, name, {}) for name in names]
    for name in ("_global_optimizer_pre_hooks", "_global_optimizer_post_hooks"):
        found.append(getattr(optimizer, name, {}))
    return tuple(found)


def _put_hooks(value: tuple[dict[Any, Any], ...]) -> None:
    for hooks, before in zip(_hooks(), value, strict=True):
        hooks.clear()
        hooks.update(before)


def _modes() -> tuple[int, int]:
    return torch._C._len_torch_function_stack(), torch._C._len_torch_dispatch_stack()


def _put_modes(value: tuple[int, int]) -> None:
    while torch._C._len_torch_function_stack() > value[0]:
        torch._C._pop_torch_function_stack()
    while torch._C._len_torch_dispatch_stack() > value[1]:
        torch._C._pop_torch_dispatch_stack(None)


def _tf32() -> tuple[Any, ...]:
    # torch refuses to mix its old and its new names of these, so the old ones alone are used.
    return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32


def _put_tf32(value: tuple[Any, ...]) -> None:
    torch.set_float32_matmul_precision(value[0])
    torch.backends.cudnn.allow_tf32 = value[1]


def _attention() -> tuple[bool, ...]:
    cuda = torch.backends.cuda
    return (
        cuda.flash_sdp_enabled(),
        cuda.mem_efficient_sdp_enabled(),
        cuda.math_sdp_enabled(),
        cuda.cudnn_sdp_enabled(),
    )


def _put_attention(value: tuple[bool, ...]) -> None:
    cuda = torch.backends.cuda
    cuda.enable_flash_sdp(value[0])
    cuda.enable_mem_efficient_sdp(value[1])
    cuda.enable_math_sdp(value[2])
    cuda.enable_cudnn_sdp(value[3])


def _put_default_device(value: torch.device) -> None:
    torch.set_default_device(None if value == torch.device("cpu") else value)


@functools.cache
def _settings() -> tuple[Part, ...]:
    """Return the settings that decide what a protocol computes."""
    backends = torch.backends
    cudnn, mkldnn, matmul = backends.cudnn, backends.mkldnn, backends.cuda.matmul
    return (
        Part("torch's modes of functions", _modes, _put_modes),
        Part("torch's default device", torch.get_default_device, _put_default_device),
        Part("torch's default dtype", torch.get_default_dtype, torch.set_default_dtype),
        Part("the number of torch's threads", torch.get_num_threads, torch.set_num_threads),
        Part("the gradient mode", torch.is_grad_enabled, torch.set_grad_enabled),
        Part("the inference mode", torch.is_inference_mode_enabled, None),
        Part("autocast", _autocast, _put_autocast),
        Part(
            "torch's deterministic algorithms",
            lambda: (
                torch.are_deterministic_algorithms_enabled(),
                torch.is_deterministic_algorithms_warn_only_enabled(),
            ),
            _put_deterministic,
        ),
        Part("the precision of float32 products", _tf32, _put_tf32),
        Part("the flushing of denormal numbers", _flushes_denormals, torch.set_flush_denormal),
        Part("the rounding of floating-point numbers", _rounding, _put_rounding),
        Part("torch's anomaly mode", torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly),
        Part("the kernels for attention", _attention, _put_attention),
        Part("the hooks of all modules and optimisers", _copies_of_hooks, _put_hooks),
        _flag("torch.backends.cudnn.enabled", cudnn, "enabled"),
        _flag("torch.backends.cudnn.benchmark", cudnn, "benchmark"),
        _flag("torch.backends.cudnn.deterministic", cudnn, "deterministic"),
        _flag("torch.backends.mkldnn.enabled", mkldnn, "enabled"),
        _flag("torch.backends.mkldnn.deterministic", mkldnn, "deterministic"),
        _flag("torch.backends.opt_einsum.enabled", backends.opt_einsum, "enabled"),
        _flag(
            "reduced precision of bfloat16 products",
            matmul,
            "allow_bf16_reduced_precision_reduction",
        ),
        _flag(
            "reduced precision of float16 products",
            matmul,
            "allow_fp16_reduced_precision_reduction",
        ),
        Part("NumPy's handling of errors", np.geterr, lambda value: np.seterr(**value)),
    )


def _put_rounding(value: int) -> None:
    _libm().fesetround(value)


def _copies_of_hooks() -> tuple[dict[Any, Any], ...]:
    return tuple(dict(hooks) for hooks in _hooks())


# ---- Surroundings --------------------------------------------------------------------------------

# Signals whose handlers Python lets a program set.
_SIGNALS = [one for one in signal.Signals if one not in (signal.SIGKILL, signal.SIGSTOP)]

# Variables that imports of libraries set, and that change nothing.
_IGNORED_VARIABLES = (
    "KMP_",
    "TORCHINDUCTOR_",
    "_TORCHINDUCTOR_",
    "TRITON_",
    "CUDA_MODULE_LOADING",
    "PYTEST_",
)


def _environment() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if not k.startswith(_IGNORED_VARIABLES)}


def _put_environment(value: dict[str, str]) -> None:
    for name in set(_environment()) - set(value):
        del os.environ[name]
    os.environ.update(value)


def _recursion_limit() -> int:
    # torch.compile raises it. A higher limit than Python's own changes nothing.
    return min(sys.getrecursionlimit(), 1000)


def _handlers() -> dict[str, Any]:
    return {number.name: signal.getsignal(number) for number in _SIGNALS}


def _put_handlers(value: dict[str, Any]) -> None:
    for name, handler in value.items():
        number = signal.Signals[name]
        if handler is not None and signal.getsignal(number) is not handler:
            with contextlib.suppress(OSError, ValueError):
                signal.signal(number, handler)


def _cwd() -> str:
    try:
        return os.getcwd()
    except FileNotFoundError:
        return "(removed)"


def _umask() -> int:
    value = os.umask(0)
    os.umask(value)
    return value


def _timer() -> bool:
    return signal.getitimer(signal.ITIMER_REAL)[0] > 0


def _limits() -> tuple[tuple[int, int], ...]:
    kinds = resource.RLIMIT_AS, resource.RLIMIT_NOFILE, resource.RLIMIT_FSIZE, resource.RLIMIT_CPU
    return tuple(resource.getrlimit(kind) for kind in kinds)


def _trace() -> tuple[Any, Any]:
    return sys.gettrace(), sys.getprofile()


def _streams() -> tuple[Any, ...]:
    return sys.stdin, sys.stdout, sys.stderr


def _put_streams(value: tuple[Any, ...]) -> None:
    sys.stdin, sys.stdout, sys.stderr = value


def _put_list(target: list[Any], value: list[Any]) -> None:
    target[:] = value


def _affinity() -> set[int]:
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()


@functools.cache
def _surroundings() -> tuple[Part, ...]:
    """Return what surrounds a training in its process."""
    return (
        Part("the standard streams of sys", _streams, _put_streams),
        Part("the environment variables", _environment, _put_environment),
        Part("the working directory", _cwd, os.chdir),
        Part("the handlers of signals", _handlers, _put_handlers),
        Part("an alarm", _timer, lambda value: signal.setitimer(signal.ITIMER_REAL, 0)),
        Part(
            "the blocked signals",
            lambda: signal.pthread_sigmask(signal.SIG_BLOCK, []),
            lambda value: signal.pthread_sigmask(signal.SIG_SETMASK, value),
        ),
        Part("the mask of new files", _umask, os.umask),
        Part("the limits of resources", _limits, None),
        Part("the priority", lambda: os.getpriority(os.PRIO_PROCESS, 0), None),
        Part(
            "the allowed cores",
            _affinity,
            lambda value: os.sched_setaffinity(0, value) if value else None,
        ),
        Part("the recursion limit", _recursion_limit, sys.setrecursionlimit),
        Part("the garbage collector", gc.isenabled, lambda on: gc.enable() if on else gc.disable()),
        Part("sys.settrace or sys.setprofile", _trace, _put_trace),
        Part("sys.excepthook", lambda: sys.excepthook, lambda f: setattr(sys, "excepthook", f)),
        # Many libraries add to these two when they are imported, and methods to find their helpers.
        Part("sys.path", lambda: list(sys.path), lambda v: _put_list(sys.path, v), reported=False),
        Part(
            "the filters of warnings",
            lambda: list(warnings.filters),
            lambda value: _put_list(warnings.filters, value),  # type: ignore[arg-type]
            reported=False,
        ),
        Part("Python's random numbers", random.getstate, random.setstate, reported=False),
    )


def _put_trace(value: tuple[Any, Any]) -> None:
    sys.settrace(value[0])
    sys.setprofile(value[1])


# ---- Code ----------------------------------------------------------------------------------------

# Modules whose functions and classes a training relies on, with all that were imported below them.
_WITH_PARTS = (
    "nlbench",
    "numpy",
    "torch.autograd",
    "torch.amp",
    "torch.fft",
    "torch.linalg",
    "torch.nn",
    "torch.optim",
    "torch.random",
    "torch.special",
    "torch.utils.data",
)

# The method's own files, and parts that no training uses.
_LEFT_OUT = (
    "nlbench.cli",
    "nlbench.methods",
    "numpy.f2py",
    "numpy.testing",
    "numpy.typing",
    "numpy._typing",
    "numpy.ma",
    "numpy.polynomial",
    "torch.utils.data.datapipes",
    "torch.nn.quantized",
    "torch.nn.qat",
    "torch.nn.intrinsic",
    "torch.nn.quantizable",
    "torch.nn.attention",
)

# Further modules, of which only these themselves are watched.
_SINGLE = (
    "builtins",
    "copy",
    "functools",
    "itertools",
    "json",
    "math",
    "os",
    "random",
    "time",
    "torch",
    "torch._C",
    "torch._C._nn",
    "torch._C._VariableFunctions",
    "torch._tensor",
    "torch.functional",
)

# Values of other types, such as flags, caches and counters, are changed by their own modules.
_WATCHED = (
    types.FunctionType,
    types.BuiltinFunctionType,
    types.MethodDescriptorType,
    types.WrapperDescriptorType,
    types.GetSetDescriptorType,
    types.ModuleType,
    property,
    staticmethod,
    classmethod,
    type,
    type(functools.cache(len)),
    torch.dtype,
    float,
)

_MISSING = object()

# The parts of torch that wrap its other functions while they are used.
_WRAPPING = tuple(
    os.path.join(torch.__path__[0], part) for part in ("_dynamo/", "_compile.py", "optim/")
)

# The name of a function or class that is another one, and what puts the old one back.
_Change = tuple[str, Callable[[], object]]


def _is_watched_module(name: str) -> bool:
    if name in _SINGLE:
        return True

    def below(roots: tuple[str, ...]) -> bool:
        return name in roots or name.startswith(tuple(f"{root}." for root in roots))

    return below(_WITH_PARTS) and not below(_LEFT_OUT)


class _Owner(NamedTuple):
    """A module or class, and its functions and classes as they were.

    Attributes:
        names: of all its attributes.
        values: its functions, classes and modules. They are kept, so that no other object can get
            the identity of one of them.
    """

    owner: Any
    name: str
    names: frozenset[str]
    values: dict[str, Any]


class _Code:
    """The functions and classes of the watched modules, as they are when this is made."""

    def __init__(self) -> None:
        self._owners: dict[int, _Owner] = {}
        self._modules: dict[str, types.ModuleType] = {}
        self._innards: dict[int, tuple[Any, ...]] = {}
        for name, module in list(sys.modules.items()):
            if isinstance(module, types.ModuleType) and _is_watched_module(name):
                self._modules[name] = module
                self._add(module, name)

    def _add(self, owner: Any, name: str) -> None:
        if id(owner) in self._owners:
            return
        values = {key: value for key, value in vars(owner).items() if isinstance(value, _WATCHED)}
        self._owners[id(owner)] = _Owner(owner, name, frozenset(vars(owner)), values)

        module = owner.__name__ if isinstance(owner, types.ModuleType) else owner.__module__
        for key, value in values.items():
            if isinstance(value, types.FunctionType):
                self._innards[id(value)] = _innards(value)
            elif isinstance(value, type) and (value.__module__ == module or key == "TensorBase"):
                self._add(value, f"{name}.{key}")

    def changes(self) -> Iterator[_Change]:
        """Yield what has been replaced since."""
        for name, module in self._modules.items():
            if sys.modules.get(name) is not module:
                yield name, functools.partial(sys.modules.__setitem__, name, module)
        for one in self._owners.values():
            yield from self._replaced(one)
            yield from self._hiding(one)

    def _replaced(self, one: _Owner) -> Iterator[_Change]:
        now = vars(one.owner)
        for key, value in one.values.items():
            found = now.get(key, _MISSING)
            name = f"{one.name}.{key}"
            if found is not value:
                if not _wraps(found, value):
                    yield name, functools.partial(setattr, one.owner, key, value)
                continue
            innards = self._innards.get(id(value))
            if innards is not None and innards != _innards(value):
                # A class inherits it under several names.
                name = f"{value.__module__}.{value.__qualname__}"
                yield name, functools.partial(_put_innards, value, innards)

    def _hiding(self, one: _Owner) -> Iterator[_Change]:
        """Yield new functions that hide what was used before: of a base class, or of Python."""
        now = vars(one.owner)
        if len(now) == len(one.names):
            return
        bases = one.owner.__mro__[1:] if isinstance(one.owner, type) else (builtins,)
        for key in now.keys() - one.names:
            found = now[key]
            hidden = [base for base in bases if key in vars(base)]
            if not hidden or not isinstance(found, types.FunctionType):
                continue
            # torch.compile puts a wrapper of the inherited function into each optimiser.
            if not any(_wraps(found, self._value(base, key)) for base in hidden):
                yield f"{one.name}.{key}", functools.partial(delattr, one.owner, key)

    def _value(self, owner: Any, key: str) -> Any:
        """Return an attribute of a module or class as it was."""
        if id(owner) in self._owners:
            return self._owners[id(owner)].values.get(key, _MISSING)
        return vars(owner)[key]


def _innards(function: types.FunctionType) -> tuple[Any, ...]:
    return function.__code__, function.__defaults__, function.__kwdefaults__


def _put_innards(function: types.FunctionType, innards: tuple[Any, ...]) -> None:
    function.__code__, function.__defaults__, function.__kwdefaults__ = innards


def _wraps(found: Any, value: Any) -> bool:
    """Return whether torch itself has wrapped the function, as it does with an optimiser's step."""
    # A wrapper is itself wrapped anew around the innermost function.
    originals = [value, inspect.unwrap(value)] if callable(value) else [value]
    waiting, seen = [found], set()
    while waiting:
        one = waiting.pop()
        code = getattr(one, "__code__", None)
        if id(one) in seen or not str(getattr(code, "co_filename", "")).startswith(_WRAPPING):
            continue

        # torch.compile wraps Module.__init__ without a mark, and some functions twice.
        seen.add(id(one))
        inner = [getattr(one, "__wrapped__", None), *_closed_over(one)]
        if any(part is original for part in inner for original in originals):
            return True
        waiting += inner
    return False


def _closed_over(function: Any) -> Iterator[Any]:
    for cell in function.__closure__ or ():
        # A cell is empty until its variable is first set.
        with contextlib.suppress(ValueError):
            yield cell.cell_contents


class _Known:
    """The code that is taken for the right one, as far as it is known.

    Attributes:
        fresh: whether nothing but nlbench has run since.
    """

    code: _Code | None = None
    fresh = False


def remember_code() -> None:
    """Take the functions and classes as they are now for the right ones, for the next `Guard`.

    Processes that are forked afterwards need not look for them again.
    """
    _Known.code, _Known.fresh = _Code(), True


def _code() -> _Code:
    """Return the functions and classes as they are now."""
    # Comparing takes a third of the time of looking for all of them anew.
    code = _Known.code
    if code is None or not (_Known.fresh or next(code.changes(), None) is None):
        code = _Known.code = _Code()
    _Known.fresh = False
    return code


# ---- Data ----------------------------------------------------------------------------------------


def _checksum(array: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(array).data)


def _can_change(array: object) -> TypeGuard[np.ndarray]:
    """Return whether a method could write to this array. It cannot where a file is only mapped."""
    base = array
    while isinstance(base, np.ndarray):
        if isinstance(base, np.memmap) and base.mode in ("r", "c"):
            return False
        base = base.base
    return isinstance(array, np.ndarray) and array.size > 0 and array.dtype != object


# ---- Standard streams ----------------------------------------------------------------------------

_STREAMS = {1: "standard output", 2: "standard error"}


class _Files:
    """The files of standard output and standard error, and copies to put them back."""

    def __init__(self) -> None:
        self._copies = {number: self._copy(number) for number in _STREAMS}
        self._which = {number: self._identity(number) for number in _STREAMS}
        self._objects = {1: sys.stdout, 2: sys.stderr}

    @staticmethod
    def _copy(number: int) -> int:
        # Far from the numbers that a loop over the first files would close.
        try:
            return fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, 200)
        except OSError:
            return -1

    @staticmethod
    def _identity(number: int) -> tuple[int, int] | None:
        try:
            stat = os.fstat(number)
        except OSError:
            return None
        return stat.st_dev, stat.st_ino

    def changes(self) -> Iterator[str]:
        """Yield the names of the streams that are closed or lead elsewhere."""
        for number, name in _STREAMS.items():
            closed = getattr(self._objects[number], "closed", False)
            if closed or self._identity(number) != self._which[number]:
                yield name

    def put_back(self) -> None:
        """Open again what was closed, as far as possible, and forget the copies."""
        for number, copy in self._copies.items():
            if copy < 0:
                continue
            with contextlib.suppress(OSError):
                if self._identity(number) != self._which[number]:
                    os.dup2(copy, number)
                if getattr(self._objects[number], "closed", False):
                    name = "stdout" if number == 1 else "stderr"
                    setattr(sys, name, open(number, "w", closefd=False))  # noqa: SIM115
                os.close(copy)


# ---- The guard of one run ------------------------------------------------------------------------


class ProcessChanged(RuntimeError):
    """A method has changed its process in a way that leaves the run without a valid result."""


class Guard:
    """Compares the process with what it was when the `with` block began.

    After the block everything is as before, as far as it can be put back.

    Attributes:
        messages: what was found and put back, in words. Each part is named once.

    Args:
        method: the method's name.
        data: arrays that nobody may write to, by name.
    """

    def __init__(self, method: str, data: Mapping[str, object]):
        self.messages: list[str] = []
        self._method = method
        self._noted: set[str] = set()
        # Whether the code was compared last, and nothing but nlbench has run since.
        self._compared = False
        self._data = {name: value for name, value in data.items() if _can_change(value)}

    def __deepcopy__(self, memo: dict[int, object]) -> Guard:
        # There is one process, whatever copies of a run's networks and hooks are made.
        return self

    def __enter__(self) -> Guard:
        self._code = _code()
        self._files = _Files()
        self._before = [(part, part.get()) for part in _settings()]
        self._settings = self._before
        self._surroundings = [(part, part.get()) for part in _surroundings()]
        self._checksums = {name: _checksum(array) for name, array in self._data.items()}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: types.TracebackType | None,
    ) -> None:
        self._put_back(self._before, "")
        self._put_back(self._surroundings, "")
        if not self._compared:
            changes = list(self._code.changes())
            for _, put in changes:
                with contextlib.suppress(Exception):
                    put()
            # What was replaced may well be the cause of another error.
            if changes and error is not None and not isinstance(error, ProcessChanged):
                error.add_note(f"the method has replaced {_listed(changes)}")
        self._files.put_back()

    def accept_settings(self) -> None:
        """Take the settings as they are now for the right ones until the block ends."""
        self._settings = [(part, part.get()) for part in _settings()]

    def is_settled(self) -> bool:
        """Return whether the settings are those that `settle` would put back."""
        return all(part.get() == value for part, value in self._settings)

    def settle(self, where: str, *, all_parts: bool = False) -> None:
        """Put back the settings that have changed, and note them in `messages`.

        Args:
            where: the hook that has changed them, or another part of the method.
            all_parts: the surroundings, too.
        """
        self._put_back(self._settings, where)
        if all_parts:
            self._put_back(self._surroundings, where)

    def require_unchanged(self) -> None:
        """Raise ProcessChanged where code, data or streams are not what they were."""
        self._compared = False
        changes = list(self._code.changes())
        if changes:
            raise ProcessChanged(
                f"the method {self._method} has replaced {_listed(changes)}, so its numbers are "
                f"not those of the protocol. fix: define functions of its own"
            )
        for name, array in self._data.items():
            if _checksum(array) != self._checksums[name]:
                raise ProcessChanged(
                    f"the method {self._method} has written to {name}, which must stay as they "
                    f"are. fix: work on a copy, and keep it in a buffer"
                )
        closed = " and ".join(self._files.changes())
        if closed:
            raise ProcessChanged(
                f"the method {self._method} has closed or redirected {closed} of its process. "
                f"fix: leave the standard streams open"
            )
        self._compared = True

    def _put_back(self, parts: list[tuple[Part, Any]], where: str) -> None:
        """Put back what has changed. A message is noted if `where` says what has changed it."""
        for part, value in parts:
            # A part may be in a state that cannot even be read.
            try:
                found = part.get()
                if found == value:
                    continue
                if part.put is not None:
                    part.put(value)
                back = part.put is not None and part.get() == value
            except Exception:
                found, back = "(unreadable)", False
            if where and part.reported and part.name not in self._noted:
                self._noted.add(part.name)
                self._note(part, value, found, where, back)

    def _note(self, part: Part, value: Any, found: Any, where: str, back: bool) -> None:
        values = f" ({value} -> {found})" if isinstance(value, _SHOWN) else ""
        end = "; it was put back" if back else "; it cannot be put back"
        self.messages.append(
            f"the method {self._method} changed {part.name}{_which(value, found)}{values} in "
            f"{where}{end}"
        )


def _listed(changes: list[_Change]) -> str:
    """Return the names of what was replaced, at most five of them."""
    names = sorted({name for name, _ in changes})
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more


# Values that a message can show.
_SHOWN = (bool, int, float, str, torch.dtype, torch.device)


def _which(value: Any, found: Any) -> str:
    """Return which entries of a mapping have changed, in words; empty for other values."""
    if not (isinstance(value, dict) and isinstance(found, dict)):
        return ""
    names = [str(k) for k in {**value, **found} if value.get(k, _MISSING) != found.get(k, _MISSING)]
    return f" ({', '.join(sorted(names)[:5])})"
