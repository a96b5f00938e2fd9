"""What `nlbench check` looks at: short trainings of a method in the real harness, with a watch around its hooks."""

from __future__ import annotations

import collections
import contextlib
import copy
import dataclasses
import functools
import hashlib
import importlib.util
import itertools
import random
import re
import sys
import traceback
import types
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nlbench import evaluate, protocols, registry
from nlbench.data import noise as noises
from nlbench.data.base import Info
from nlbench.data.loader import RunData
from nlbench.errors import SuiteError, did_you_mean
from nlbench.method import Batch, Method, Run, Task
from nlbench.records import Store
from nlbench.suite import RunSpec, _typed, build_method
from nlbench.train import Context, _seeded, train

N, C, BATCH, EPOCHS = 70, 10, 16, 4  # five steps an epoch, the last of six examples
_CPU = torch.device("cpu")


class Failed(Exception):
    """A method does not hold to a check. The message says what was seen, where, and the likely fix."""


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """One thread, no warnings, and the caller's generators as they were."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with warnings.catch_warnings(), _seeded(0, "check"):
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.set_num_threads(before)


# --- the data ------------------------------------------------------------------------------------------------------


def _data(
    *,
    classes: int,
    num: int,
    val: bool,
    pixels: bool,
    clean: bool,
    permuted: bool,
    other_test: bool,
    permuted_test: bool,
    told: Any,
) -> RunData:
    """Examples around a centre per class, 30% of them with a wrong label. Made anew each time: a copy that is kept is
    one more place where a method could find clean labels.
    """
    rng = np.random.default_rng(0)
    shape = (16, 16, 3) if pixels else (1, 8, 8)
    centres = rng.normal(size=(classes, *shape))

    def images(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        values = centres[labels] + 0.5 * rng.normal(size=(len(labels), *shape))
        return (128 + 50 * values).clip(0, 255).astype(np.uint8) if pixels else values.astype(np.float32)

    def given(labels: np.ndarray) -> np.ndarray:
        wrong = rng.random(len(labels)) < (0.0 if clean else 0.3)
        return np.where(wrong, (labels + rng.integers(1, classes, len(labels))) % classes, labels)

    true = rng.permutation(num) % classes
    labels, train_images = given(true), images(true, rng)
    val_true = rng.integers(0, classes, 20)
    val_labels, val_images = given(val_true), images(val_true, rng)
    test_rng = np.random.default_rng(2 if other_test else 1)
    test_labels = test_rng.integers(0, classes, 40)
    test_images = images(test_labels, test_rng)
    if permuted_test:
        test_labels = test_rng.permutation(test_labels)
    mixed = rng.permutation(true) if permuted else true
    rate, T = (noises.noise_rate(mixed, labels), noises.transition_matrix(mixed, labels, classes))
    if "noise_rate" in told:  # declared, so it stays what it is
        rate = noises.noise_rate(true, labels)
    if "T" in told:
        T = noises.transition_matrix(true, labels, classes)
    mean, std = ((0.5,) * 3, (0.25,) * 3) if pixels else ((), ())
    return RunData(
        info=Info("check", "made-up examples", classes, num, 40, shape, mean=mean, std=std),
        train_images=train_images,
        labels=labels,
        clean_labels=mixed,
        val_images=val_images if val else None,
        val_labels=val_labels if val else None,
        test_images=test_images,
        test_labels=test_labels,
        train_index=np.arange(num),
        val_index=np.arange(num, num + 20) if val else np.arange(0),
        noise_rate_full=rate,
        noise_rate_train=rate,
        noise_rate_val=0.3 if val else None,
        labels_hash="",
        T=T,
        variant="",
        warnings=(),
        checksums={},
    )


# --- what an object holds ------------------------------------------------------------------------------------------

_MODULE_OWN = {*vars(nn.Module()), "_backward_hooks", "_forward_hooks_with_kwargs"}


_GENERATORS = torch.Generator | np.random.Generator | np.random.RandomState | random.Random
_LEAVES = Tensor | np.ndarray | np.generic | bool | int | float | str | bytes
_DATA = _LEAVES | _GENERATORS | Mapping | list | tuple | set | collections.deque | nn.Module
_FUNCTIONS = types.FunctionType | types.MethodType | types.BuiltinFunctionType | functools.partial


def leaves(value: Any, path: str, seen: set[int] | None = None) -> Iterator[tuple[str, Any]]:
    """(path, leaf) of all tensors, arrays, numbers, texts and generators that can be reached from `value`."""
    seen = set() if seen is None else seen
    if value is None or isinstance(value, _LEAVES):
        yield path, value
        return
    if isinstance(value, Task | Run | Batch | type | types.ModuleType | _FUNCTIONS):
        return
    if id(value) in seen:
        return
    seen.add(id(value))
    parts: list[tuple[str, Any]] = []
    if isinstance(value, torch.Generator):
        yield path, value.get_state()
    elif isinstance(value, np.random.Generator):
        yield path, repr(value.bit_generator.state)
    elif isinstance(value, random.Random | np.random.RandomState):
        yield path, repr(value.getstate() if isinstance(value, random.Random) else value.get_state())
    elif isinstance(value, torch.optim.Optimizer):
        parts = [(path, value.state_dict())]
    elif isinstance(value, Mapping):
        parts = [(f"{path}[{key!r}]", part) for key, part in value.items()]
    elif isinstance(value, list | tuple | collections.deque):
        parts = [(f"{path}[{i}]", part) for i, part in enumerate(value)]
    elif isinstance(value, set | frozenset):
        yield path, repr(sorted(map(repr, value)))
    elif isinstance(value, nn.Module):
        own = {name: part for name, part in vars(value).items() if name not in _MODULE_OWN}
        parts = [
            (f"{path}.{name}", part)
            for name, part in {**value._parameters, **value._buffers, **value._modules, **own}.items()
        ]
    elif hasattr(value, "__dict__"):
        parts = [(f"{path}.{name}", part) for name, part in vars(value).items()]
    for name, part in parts:
        yield from leaves(part, name, seen)


def shared(cls: type[Method], module: types.ModuleType) -> dict[str, str]:
    """What the method's class, its module and the classes in it hold, by path; no checkpoint does."""
    held = {name: value for name, value in vars(module).items() if not name.startswith("__")}
    inside = [value for value in held.values() if isinstance(value, type) and value.__module__ == module.__name__]
    for owner in [*inside, *cls.__mro__[cls.__mro__.index(Method) - 1 :: -1]]:  # what a class sets hides its parent's
        held |= {f"{owner.__name__}.{k}": v for k, v in vars(owner).items() if not k.startswith(("__", "_abc_"))}
    own = {k: v for k, v in held.items() if isinstance(v, _DATA) or type(v).__module__ == module.__name__}
    return {path: _print(leaf) for name, value in own.items() for path, leaf in leaves(value, name)}


def _print(leaf: Any) -> str:
    """A fingerprint of a leaf, for numbers and short text the value itself."""
    if isinstance(leaf, Tensor):
        leaf = leaf.detach().cpu().float().numpy() if leaf.dtype == torch.bfloat16 else leaf.detach().cpu().numpy()
    if isinstance(leaf, np.ndarray | np.generic):
        array = np.ascontiguousarray(leaf)
        if array.size == 1:
            return repr(array.item())
        return f"{array.dtype} {array.shape} {hashlib.sha256(array.tobytes()).hexdigest()}"
    return repr(leaf)


def shot(run: Run, method: Method) -> dict[str, str]:
    """Everything that method and networks hold, by path."""
    held = {path: _print(leaf) for path, leaf in leaves(method, "self")}
    for i, network in enumerate(run.networks):
        held |= {path: _print(leaf) for path, leaf in leaves(network, f"run.networks[{i}]")}
    return {path: text for path, text in held.items() if not re.fullmatch(r"run\.networks\[\d+\]\.passes\..*", path)}


def _state(networks: list[dict[str, Any]], method: dict[str, Any]) -> dict[str, str]:
    """What a checkpoint holds of networks and method, by path."""
    named = [(f"run.networks[{i}].{name}", value) for i, state in enumerate(networks) for name, value in state.items()]
    named += [(f"self.{name}", value) for name, value in method.items()]
    return {path: _print(leaf) for root, value in named for path, leaf in leaves(value, root)}


# --- trainings -----------------------------------------------------------------------------------------------------


class _Stop(BaseException):
    """Stands for a kill at the end of an epoch, once its checkpoint is written."""


@dataclass
class Watch:
    """Looks on while a method trains; changes nothing but task.labels, which it puts right."""

    stop_at: int = -1
    twice: bool = False  # evaluate once more in each epoch
    ahead: int = 0  # draw the plan's items so many steps ahead
    forms: bool = False  # compare loss_and_grad with loss
    module: str = ""  # the name under which the method's file was executed again
    method: Any = None
    run: Any = None
    bad: str = ""  # the first value that was not finite
    losses: list[tuple[int, int, float]] = field(default_factory=list)  # epoch, step, loss of each backward_step
    begun: dict[int, dict[str, str]] = field(default_factory=dict)  # all that was held as an epoch began
    ended: dict[int, dict[str, str]] = field(default_factory=dict)  # the state as it ended
    written: dict[str, str] = field(default_factory=dict)  # what was written to though it is read only -> where
    stepped: set[str] = field(default_factory=set)  # optimisers
    used: dict[int, set[int]] = field(default_factory=dict)  # epoch -> examples in its batches
    compared: int = 0  # calls of loss_and_grad
    uncopied: str = ""  # why there are none
    unlike_loss: str = ""  # the first of them that differed from loss
    _batches: list[tuple[str, Any, str, Tensor]] = field(default_factory=list)

    def at(self) -> str:
        return "" if self.run is None else f"epoch {self.run.epoch}, step {self.run.step}"

    @contextlib.contextmanager
    def hook(self, name: str, *things: tuple[str, Tensor], batches: tuple[Any, ...] = ()) -> Iterator[None]:
        """Compare what is read only before and after the method's hook `name`."""
        known = {id(owner) for _, owner, _, _ in self._batches}
        for batch in batches:
            if isinstance(batch, Batch) and id(batch) not in known:
                self._remember(batch)
        task = self.method.task if hasattr(self.method, "task") else None
        labels = None if task is None else task.labels.clone()
        kept = [(label, tensor, tensor.detach().clone()) for label, tensor in things]
        yield
        for label, tensor, old in kept:
            self._compare(name, label, tensor.detach(), old)
        for label, owner, attribute, old in self._batches:
            self._compare(name, label, getattr(owner, attribute), old)
        if task is not None and labels is not None:
            self._compare(name, "task.labels", task.labels, labels)
            task.labels = task.labels.copy_(labels) if task.labels.shape == labels.shape else labels

    def compare_forms(self, cls: type[Method], method: Method, logits: Tensor, batch: Batch) -> None:
        """loss_and_grad against loss, on copies, for these logits and for those of a network that is far surer."""
        # Late in training a loss may be a small difference of large numbers, of which float32 keeps some digits.
        for factor, tolerance in ((1.0, 1e-5), (12.0, 1e-3)):
            try:
                fast, slow = copy.deepcopy(method), copy.deepcopy(method)
            except Exception as error:  # whatever it holds that cannot be copied
                self.uncopied = f"it cannot be copied ({error}), and is not to be changed by a comparison"
                return
            z = (factor * logits.detach()).requires_grad_()
            with _seeded(0, "forms"):
                rows, dlogits = cls.loss_and_grad(fast, z.detach().clone(), _copied(batch))  # type: ignore
            with _seeded(0, "forms"):
                value = cls.loss(slow, z.clone(), _copied(batch)).mean()
            grad = torch.zeros_like(z)
            if value.requires_grad:
                grad = torch.autograd.grad(value, z, allow_unused=True, materialize_grads=True)[0]
            if not (value.isfinite() and grad.isfinite().all()):
                continue
            seen = _gap_of_forms(rows.detach(), dlogits.detach(), value.detach(), grad, tolerance)
            seen = seen or _gap_of_states(fast.state_dict(), slow.state_dict(), tolerance)
            if seen and not self.unlike_loss:
                times = "" if factor == 1 else f", logits times {factor:.0f}"
                self.unlike_loss = f"{self.at()}{times}: {seen}"
        self.compared += 1

    def _compare(self, hook: str, label: str, now: Tensor, old: Tensor) -> None:
        if now.shape == old.shape and torch.equal(now.nan_to_num(), old.nan_to_num()):
            return
        seen = f"shape {tuple(old.shape)} became {tuple(now.shape)}"
        if now.shape == old.shape:
            i = (now.nan_to_num() != old.nan_to_num()).nonzero()[0].tolist()
            seen = f"at {i}: {old[tuple(i)].item():.6g} became {now[tuple(i)].item():.6g}"
        self.written.setdefault(label, f"in `{hook}`, {self.at()}: {seen}" if self.at() else f"in `{hook}`: {seen}")

    def _remember(self, batch: Batch) -> None:
        self._batches += [
            (f"batch.{name}", batch, name, getattr(batch, name).clone()) for name in ("images", "labels", "index")
        ]

    def begin(self, run: Run) -> None:
        """Listen to a run: its batches, its optimisers' steps, its losses and its networks' outputs."""
        self.run = run
        batch, backward_step, optimise = run.batch, run.backward_step, run.optimise

        def remembered(index: Tensor, *views: int) -> Batch:
            made = batch(index, *views)
            self._remember(made)
            return made

        def checked(loss: Tensor, *names: str, through: Any = None) -> None:
            value = float(loss.detach()) if loss.numel() == 1 else 0.0
            if not np.isfinite(value):
                self.note(f"the loss is {value}")
            backward_step(loss, *names, through=through)
            self.losses.append((run.epoch, run.step, value))
            if not self.bad:
                self._look_at_parameters(value)

        def counted(params: Any, factory: Any, name: str, schedule: Any = None) -> torch.optim.Optimizer:
            optimiser = optimise(params, factory, name, schedule)
            optimiser.register_step_post_hook(lambda *_: self.stepped.add(name))
            return optimiser

        run.batch, run.backward_step, run.optimise = remembered, checked, counted  # type: ignore[method-assign]
        for name, optimiser in run._optimisers.items():
            optimiser.register_step_post_hook(lambda *_, name=name: self.stepped.add(name))
        for i, network in enumerate(run.networks):
            network.register_forward_hook(functools.partial(_look, self.note, i))

    def _parameters(self) -> Iterator[tuple[str, Tensor]]:
        for i, network in enumerate(self.run.networks):
            yield from ((f"run.networks[{i}].{name}", p) for name, p in network.named_parameters())
        yield from ((f"self.{name}", p) for name, p in self.method.named_parameters())

    def _look_at_parameters(self, loss: float) -> None:
        named = list(self._parameters())
        grads = [(path, p.grad) for path, p in named if p.grad is not None]
        if nn.utils.get_total_norm([value.detach() for _, value in [*grads, *named]]).isfinite():
            return
        for path, grad in grads:
            if not grad.isfinite().all():
                self.note(f"the gradient of {path} is not finite, while the loss was ({loss:.6g})")
        for path, parameter in named:
            if not parameter.isfinite().all():
                self.note(f"the parameter {path} is not finite")

    def note(self, what: str) -> None:
        self.bad = self.bad or f"{self.at()}: {what}"


def _copied(batch: Batch) -> Batch:
    return Batch(batch.images.clone(), batch.labels.clone(), batch.index.clone(), batch._views, batch._strong)


def _gap_of_forms(rows: Tensor, dlogits: Tensor, value: Tensor, grad: Tensor, tolerance: float) -> str:
    """What tells (rows, dlogits) from a loss's value and gradient; empty where nothing does. Nor may rounding: where
    probabilities are nearly 0 and 1, what is left of a value or a row's gradient is as good as that of a usual size.
    """
    if rows.shape != grad.shape[:1] or dlogits.shape != grad.shape:
        return f"rows {tuple(rows.shape)} and dlogits {tuple(dlogits.shape)}, where logits are {tuple(grad.shape)}"
    if not float((rows.mean() - value).abs()) <= tolerance * max(float(value.abs()), 1.0):
        return f"the mean of the rows is {float(rows.mean()):.7g}, the loss {float(value):.7g}"
    largest = float(grad.abs().max())
    gap = (dlogits - grad).abs()
    if float(gap.max()) <= tolerance * max(largest, 0.1 / len(rows)):
        return ""
    times = float((dlogits * grad).sum() / grad.square().sum()) if largest else 0.0
    if float((dlogits - times * grad).abs().max()) <= tolerance * abs(times) * largest:
        why = ", which is the batch size: divide by it" if round(times, 3) == len(rows) else ""
        return f"dlogits is {times:.4g} times the gradient of the loss{why}"
    b, c = divmod(int(gap.argmax()), grad.shape[1])
    return f"dlogits[{b}, {c}] is {float(dlogits[b, c]):.6g}, the gradient of the loss {float(grad[b, c]):.6g}"


def _gap_of_states(fast: Mapping[str, Any], slow: Mapping[str, Any], tolerance: float) -> str:
    one, other = (dict(leaf for k, v in state.items() for leaf in leaves(v, f"self.{k}")) for state in (fast, slow))
    for path in {**one, **other}:
        a, b = one.get(path), other.get(path)
        if isinstance(a, Tensor) and isinstance(b, Tensor) and a.shape == b.shape and a.is_floating_point():
            same = torch.allclose(a, b, rtol=tolerance, atol=tolerance * float(b.abs().max()) if b.numel() else 0.0)
        else:
            same = path in one and path in other and _print(a) == _print(b)
        if not same:
            return f"{path} is not the same afterwards"
    return ""


def _look(note: Callable[[str], None], i: int, network: nn.Module, args: Any, logits: Tensor) -> None:
    if not logits.isfinite().all():
        note(f"the output of run.networks[{i}] is not finite")


def _watched(cls: type[Method], watch: Watch) -> type[Method]:
    """The method with a watch around each of its hooks."""

    class Watched(cls):  # type: ignore[valid-type, misc]
        def __init__(self, task: Task, **params: Any):
            watch.method = types.SimpleNamespace(task=task)
            with watch.hook("__init__"):
                cls.__init__(self, task, **params)
            watch.method = self

        def loss(self, logits: Tensor, batch: Batch) -> Tensor:
            with watch.hook("loss", ("logits", logits), batches=(batch,)):
                return cls.loss(self, logits, batch)

        if cls.loss_and_grad is not None:

            def loss_and_grad(self, logits: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
                if watch.forms:
                    watch.compare_forms(cls, self, logits, batch)
                with watch.hook("loss_and_grad", ("logits", logits), batches=(batch,)):
                    rows: tuple[Tensor, Tensor] = cls.loss_and_grad(self, logits, batch)  # type: ignore
                    return rows

        def prepare(self, run: Run) -> None:
            watch.begin(run)
            with watch.hook("prepare"):
                cls.prepare(self, run)

        def on_epoch_start(self, run: Run, epoch: int) -> None:
            if epoch == watch.stop_at:
                raise _Stop
            watch.begun[epoch] = shot(run, self)
            if watch.module:
                watch.begun[epoch] |= shared(type(self), sys.modules[watch.module])
            with watch.hook("on_epoch_start"):
                cls.on_epoch_start(self, run, epoch)

        def batches(self, run: Run, epoch: int) -> Iterator[Any]:
            drawn: collections.deque[Any] = collections.deque()
            for item in cls.batches(self, run, epoch):
                drawn.append(item)
                if len(drawn) > watch.ahead:
                    yield drawn.popleft()
            yield from drawn

        def training_step(self, run: Run, *item: Any) -> Tensor | None:
            with watch.hook("training_step", batches=item):
                logits = cls.training_step(self, run, *item)
            watch._batches.clear()
            for batch in item:
                if isinstance(batch, Batch):
                    watch.used.setdefault(run.epoch, set()).update(batch.index.tolist())
            return logits

        def on_epoch_end(self, run: Run, epoch: int) -> None:
            with watch.hook("on_epoch_end"):
                cls.on_epoch_end(self, run, epoch)
            watch.ended[epoch] = _state([network.state_dict() for network in run.networks], self.state_dict())
            if watch.twice:
                evaluation_mode(run, self)
                with torch.no_grad():
                    self.predict(run, torch.randn(30, *run._images.shape, generator=torch.Generator().manual_seed(0)))

        def predict(self, run: Run, images: Tensor) -> Tensor:
            with watch.hook("predict", ("images", images)):
                return cls.predict(self, run, images)

    Watched.__name__, Watched.__qualname__ = cls.__name__, cls.__qualname__
    return Watched


def evaluation_mode(run: Run, method: Method) -> None:
    method.eval()
    for network in run.networks:
        network.eval()


@dataclass
class Training:
    """How a training went.

    Attributes:
        problem: empty for one that ended well; else what happened, where, and the likely fix.
        rows: of the history, without what a clock says; `predictions`: fingerprints of all logits that were scored.
        states: epoch -> what a checkpoint holds as it ended.
        resumed: the epochs it went on at.
    """

    watch: Watch
    problem: str = ""
    rows: list[dict[str, Any]] = field(default_factory=list)
    states: dict[int, dict[str, str]] = field(default_factory=dict)
    losses: list[tuple[int, int, float]] = field(default_factory=list)
    begun: dict[int, dict[str, str]] = field(default_factory=dict)
    predictions: dict[str, np.ndarray] = field(default_factory=dict)
    resumed: list[int] = field(default_factory=list)
    warned: list[str] = field(default_factory=list)


class Lab:
    """The method, and the trainings of it that were asked for so far."""

    def __init__(self, file: registry.MethodFile, params: dict[str, Any], folder: Path):
        self.file, self.given, self.folder = file, params, folder
        self._trained: dict[tuple[Any, ...], Training] = {}

    @functools.cached_property
    def cls(self) -> type[Method]:
        return registry.load_method(self.file)

    @functools.cached_property
    def params(self) -> dict[str, Any]:
        """The given hyperparameters in their types. Raises SuiteError."""
        try:
            takes = registry.hyperparameters(self.cls)
        except SuiteError:
            return self.given  # its own check says so
        values = {}
        for name, value in self.given.items():
            if name not in takes:
                known = ", ".join(takes) or "nothing"
                raise SuiteError(
                    f"--set {name}: {self.file.name} has no such hyperparameter. It takes: {known}."
                    f"{did_you_mean(name, takes)}"
                )
            try:
                values[name] = _typed(value, takes[name].annotation)
            except ValueError as error:
                raise SuiteError(f"--set {name}: {error}") from None
        return values

    def build(self, classes: int = C) -> Method:
        labels = torch.arange(N) % classes
        told = {"noise_rate": 0.3, "T": torch.eye(classes, dtype=torch.float64) * 0.7 + 0.3 / classes}
        method: Method = build_method(self.cls, self.params, Task(N, classes, labels, EPOCHS, 5, BATCH, _told=told))
        return method

    @functools.cached_property
    def told(self) -> tuple[str, ...]:
        return tuple(self.build().told)

    def training(self, **how: Any) -> Training:
        """One that ended well; see `train`. Raises Failed."""
        training = self.train(**how)
        if training.problem:
            raise Failed(training.problem)
        return training

    def train(self, **how: Any) -> Training:
        """Train in the harness, once for each way `how`: the arguments of `_train`."""
        key = tuple(sorted(how.items()))
        if key not in self._trained:
            self._trained[key] = self._train(len(self._trained), **how)
        return self._trained[key]

    def _train(
        self,
        number: int,
        *,
        classes: int = C,
        num: int = N,
        epochs: int = EPOCHS,
        seed: int = 0,
        val: bool = False,
        pixels: bool = False,
        clean: bool = False,  # right labels only, and no weight decay: what changes a weight is the loss
        permuted: bool = False,  # the clean labels
        other_test: bool = False,
        permuted_test: bool = False,  # the test labels
        watched: bool = True,  # else the method's file as it is, and states from the checkpoints
        twice: bool = False,  # evaluate twice an epoch
        ahead: int = 0,  # the plan's items are drawn so many steps before they are used
        forms: bool = False,  # loss_and_grad is compared with loss
        fresh: bool = False,  # the method's file is executed again, as in a new process
        stops: bool = False,  # stopped after each epoch, and continued in fresh objects, of a file executed again
        again: int = 0,  # a repetition, under another state of the global generators
    ) -> Training:
        values: dict[str, Any] = {"epochs": epochs, "batch_size": BATCH, **({"weight_decay": 0.0} if clean else {})}
        if pixels:
            values |= {"augment": "crop-flip", "precision": "bfloat16"}
        protocol = protocols.resolve("digits", "digits", values).model_dump(mode="json")
        spec = RunSpec(self.file.name, self.file.name, self.params, "check", "clean", None, "", protocol, seed)
        result = Training(Watch())
        store = Store(self.folder / str(number), result.warned.append)
        for part in range(1, epochs + 1) if stops else [epochs]:
            watch = Watch(stop_at=part if part < epochs else -1, twice=twice, ahead=ahead, forms=forms)
            result.watch = watch
            data = _data(
                classes=classes, num=num, val=val, pixels=pixels, clean=clean, permuted=permuted,
                other_test=other_test, permuted_test=permuted_test, told=self.told,
            )  # fmt: skip
            seeds = again, "check", number, part
            with self._module(watch, watched, stops or fresh) as file, _seeded(*seeds), _scores() as scores:
                context = Context(
                    store,
                    _CPU,
                    {self.file.name: file},
                    0.0 if stops or not watched else 1e9,
                    on_epoch=functools.partial(
                        _keep_epoch, result, store.run_dir(spec.key) / "checkpoint.pt", watched, scores
                    ),
                    on_resume=lambda epoch, epochs: result.resumed.append(epoch),
                )
                try:
                    record = train(spec, data, context)
                except _Stop:
                    pass
                except Exception as error:
                    result.problem = self._explain(error, watch)
                else:
                    if record.status != "done":
                        result.problem = _diverged(str((record.error or {})["message"]), watch)
            result.losses += watch.losses
            result.begun |= {epoch: shot for epoch, shot in watch.begun.items() if epoch not in result.begun}
            result.states |= watch.ended
            if result.problem:
                return result
        with np.load(store.run_dir(spec.key) / "predictions.npz") as arrays:
            result.predictions = {name: arrays[name] for name in ("test", "train")}
        if watched and watch.bad:
            result.problem = _diverged("", watch)
        return result

    @contextlib.contextmanager
    def _module(self, watch: Watch, watched: bool, fresh: bool) -> Iterator[registry.MethodFile]:
        """The method's file as the harness shall see it."""
        if not watched:
            yield self.file
        elif fresh:
            with _executed_again(self.file) as own:
                watch.module = "" if own is None else own.__module__
                with self._watched_module(watch, own or self.cls) as file:
                    yield file
        else:
            with self._watched_module(watch, self.cls) as file:
                yield file

    @contextlib.contextmanager
    def _watched_module(self, watch: Watch, own: type[Method]) -> Iterator[registry.MethodFile]:
        cls = _watched(own, watch)
        module = types.ModuleType(f"nlbench_check_{id(watch)}")
        cls.__module__ = module.__name__
        setattr(module, cls.__name__.lstrip("_"), cls)
        sys.modules[module.__name__] = module
        try:
            yield registry.MethodFile(self.file.name, self.file.path, module.__name__)
        finally:
            del sys.modules[module.__name__]

    def _explain(self, error: BaseException, watch: Watch) -> str:
        """An error of the method: in which hook, on which line, when; and the likely fix."""
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in frames if Path(frame.filename).resolve() == self.file.path.resolve()]
        message = f"{type(error).__name__}: {error}"
        when = f"in {watch.at()}" if watch.begun else "before epoch 0"
        if own:
            spot = f"{self.file.path.name}:{own[-1].lineno}: {own[-1].line}"
            return f"`{own[0].name}` raised {when}\n{spot}\n{message}{_hint(message)}"
        line = next((f.line for f in reversed(frames) if Path(f.filename).parent == Path(registry.__file__).parent), "")
        return f"the harness raised {when}, at `{line}`\n{message}{_hint(message)}"


_executions = itertools.count()


@contextlib.contextmanager
def _executed_again(file: registry.MethodFile) -> Iterator[type[Method] | None]:
    """The method's class as a new process would find it: its file executed under a name of its own, then forgotten.

    None where it cannot be executed twice in a process.
    """
    name = f"{file.module or file.path.stem}__{next(_executions)}"  # beside the original, for its relative imports
    try:
        try:
            spec = importlib.util.spec_from_file_location(name, file.path)
            if spec is None or spec.loader is None:
                raise ImportError(f"not a Python file: {file.path}")
            sys.modules[name] = module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            cls = registry.load_method(dataclasses.replace(file, module=name))
        except (Exception, SystemExit):  # whatever executing it raises
            cls = None
        yield cls
    finally:
        for other in [key for key in sys.modules if key == name or key.startswith(f"{name}.")]:
            del sys.modules[other]


@contextlib.contextmanager
def _scores() -> Iterator[list[str]]:
    """Fingerprints of all logits that are scored from here on. A watch around `predict` would be a frame in its way."""
    seen: list[str] = []
    accuracies = evaluate.accuracies

    def noted(logits: Tensor, labels: Tensor) -> dict[str, float]:
        seen.append(_print(logits))
        return accuracies(logits, labels)

    vars(evaluate)["accuracies"] = noted
    try:
        yield seen
    finally:
        vars(evaluate)["accuracies"] = accuracies


def _keep_epoch(
    result: Training, checkpoint: Path, watched: bool, scores: list[str], epoch: int, epochs: int, row: Any
) -> None:
    kept = {k: v for k, v in row.items() if k not in ("seconds", "images_per_second")}
    result.rows.append({**kept, "predictions": tuple(scores)})
    scores.clear()
    if not watched and epoch > 0:
        state = torch.load(checkpoint, weights_only=True)
        result.states[epoch - 1] = _state(state["networks"], state["method"])


def _diverged(message: str, watch: Watch) -> str:
    seen = watch.bad or message
    if "loss is" in seen:
        fix = "use log_softmax or logsumexp in place of softmax().log(), and guard divisions and means of nothing"
    elif "gradient" in seen:
        fix = (
            "a square root, a power or a norm has an infinite slope at 0, and torch.where passes NaN from the branch "
            "that was not taken: clamp before, not after"
        )
    else:
        fix = "look at the step before: its loss was finite, its update was not"
    return f"{seen}\nfix: {fix}"


_HINTS = {
    r"not told|'noise_rate'|KeyError: 'T'": "what a method may be told it declares: told = ('noise_rate',) or ('T',)",
    r"has neither loss nor training_step": "define loss(self, logits, batch), or the whole training_step",
    r"networks: define predict": "with num_networks = 2, define predict(self, run, images), which says how they vote",
    r"(Missing|Unexpected) key\(s\) in state_dict|size mismatch for": (
        "a state is restored right after prepare(): register buffers and modules in the constructor or in prepare, "
        "always with the same names and shapes"
    ),
    r"None": "run.validate() is None where the protocol holds out no validation part",
    r"before Module\.__init__|__init__\(\) call": "call super().__init__(task) first",
    r"grad can be implicitly created only for scalar|does not require grad": (
        "backward_step takes a 0-d loss that depends on a network's output"
    ),
    r"modified by an inplace operation": "do not write into logits or batch.images; make a copy",
}


def _hint(message: str) -> str:
    return next((f"\nfix: {fix}" for pattern, fix in _HINTS.items() if re.search(pattern, message)), "")


def difference(one: Training, other: Training, ignore: tuple[str, ...] = ()) -> str:
    """What differed first, in words; empty where all is the same bit for bit."""
    for (epoch, step, a), (_, _, b) in zip(one.losses, other.losses, strict=False):
        if a != b and not (np.isnan(a) and np.isnan(b)):
            values = f"{a:.6g} and {b:.6g}" if f"{a:.6g}" != f"{b:.6g}" else f"{a!r} and {b!r}"
            return f"first difference: the loss of epoch {epoch}, step {step}: {values}"
    if len(one.losses) != len(other.losses):
        return f"first difference: {len(one.losses)} and {len(other.losses)} calls of backward_step"
    for row, other_row in zip(one.rows, other.rows, strict=False):
        epoch = row["epoch"]
        a, b = row["loss"], other_row["loss"]
        if a != b:
            return f"first difference: the mean loss of epoch {epoch}: {a!r} and {b!r}"
        if names := unlike(one.states.get(epoch, {}), other.states.get(epoch, {})):
            return f"first difference: the state after epoch {epoch}: {some(names)}"
        if names := [k for k in row if not k.startswith(("online_", *ignore)) and row[k] != other_row.get(k)]:
            return f"first difference: {some(names)} of epoch {epoch}"
    for name, predicted in one.predictions.items():
        if not name.startswith(ignore) and (wrong := int((predicted != other.predictions[name]).sum())):
            return f"first difference: {wrong} of {len(predicted)} predicted classes on the {name} examples"
    return ""


def unlike(one: dict[str, str], other: dict[str, str]) -> list[str]:
    return [path for path in {**one, **other} if one.get(path) != other.get(path)]


def some(names: list[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
