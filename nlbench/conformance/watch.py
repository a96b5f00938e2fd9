"""Watch."""

from __future__ import annotations

import collections
import contextlib
import copy
import functools
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nlbench.conformance.snapshot import copied_state, leaves, print, shared, shot
from nlbench.method import Batch, Method, Task
from nlbench.training.run_state import RunState
from nlbench.training.seeding import seeded

# --- trainings -----------------------------------------------------------------------------------------------------


class Stop(BaseException):
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
            with seeded(0, "forms"):
                rows, dlogits = cls.loss_and_grad(fast, z.detach().clone(), batch.clone())  # type: ignore
            with seeded(0, "forms"):
                value = cls.loss(slow, z.clone(), batch.clone()).mean()
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

    def begin(self, run: RunState) -> None:
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
        for name, optimiser in run.optimisers.items():
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
            same = path in one and path in other and print(a) == print(b)
        if not same:
            return f"{path} is not the same afterwards"
    return ""


def _look(note: Callable[[str], None], i: int, network: nn.Module, args: Any, logits: Tensor) -> None:
    if not logits.isfinite().all():
        note(f"the output of run.networks[{i}] is not finite")


def watched_training(cls: type[Method], watch: Watch) -> type[Method]:
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

        def prepare(self, run: RunState) -> None:
            watch.begin(run)
            with watch.hook("prepare"):
                cls.prepare(self, run)

        def on_epoch_start(self, run: RunState, epoch: int) -> None:
            if epoch == watch.stop_at:
                raise Stop
            watch.begun[epoch] = shot(run, self)
            if watch.module:
                watch.begun[epoch] |= shared(type(self), sys.modules[watch.module])
            with watch.hook("on_epoch_start"):
                cls.on_epoch_start(self, run, epoch)

        def batches(self, run: RunState, epoch: int) -> Iterator[Any]:
            drawn: collections.deque[Any] = collections.deque()
            for item in cls.batches(self, run, epoch):
                drawn.append(item)
                if len(drawn) > watch.ahead:
                    yield drawn.popleft()
            yield from drawn

        def training_step(self, run: RunState, *item: Any) -> Tensor | None:
            with watch.hook("training_step", batches=item):
                logits = cls.training_step(self, run, *item)
            watch._batches.clear()
            for batch in item:
                if isinstance(batch, Batch):
                    watch.used.setdefault(run.epoch, set()).update(batch.index.tolist())
            return logits

        def on_epoch_end(self, run: RunState, epoch: int) -> None:
            with watch.hook("on_epoch_end"):
                cls.on_epoch_end(self, run, epoch)
            watch.ended[epoch] = copied_state([network.state_dict() for network in run.networks], self.state_dict())
            if watch.twice:
                evaluation_mode(run, self)
                with torch.no_grad():
                    self.predict(run, torch.randn(30, *run.images.shape, generator=torch.Generator().manual_seed(0)))

        def predict(self, run: RunState, images: Tensor) -> Tensor:
            with watch.hook("predict", ("images", images)):
                return cls.predict(self, run, images)

    Watched.__name__, Watched.__qualname__ = cls.__name__, cls.__qualname__
    return Watched


def evaluation_mode(run: RunState, method: Method) -> None:
    method.eval()
    for network in run.networks:
        network.eval()
