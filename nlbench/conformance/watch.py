"""Watch: observe a method while it trains, without changing the training.

The watch is around the hooks of a method, in a subclass that is trained instead of it. There is
none when the clean labels or the test set are varied (`Trial.watched` is false then): its further
frames would hide a method that reads the variables of its callers.
"""

from __future__ import annotations

import contextlib
import functools
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from nlbench.conformance import snapshot
from nlbench.conformance.forms import FormComparison
from nlbench.conformance.memory import MemoryRows, unsaved
from nlbench.conformance.parts import PartsComparison
from nlbench.conformance.placement import Placement
from nlbench.conformance.read_only import ReadOnly
from nlbench.conformance.snapshot import Snapshot
from nlbench.conformance.trial import Trial
from nlbench.method import Batch, Method, Run, Schedule, Task
from nlbench.training.epoch import drawn_ahead
from nlbench.training.run_state import RunState

# exp(-2 * 120) is 0 in float32, so each probability is 0 or 1.
SURE = 120.0


class Stop(BaseException):
    """End a training at the beginning of an epoch, as a kill would, after its checkpoint."""


@dataclass(frozen=True)
class NotFinite:
    """The first value that was not finite: a "loss", "gradient", "parameter" or "output"."""

    kind: str
    message: str


# ---- Observations -------------------------------------------------------------------------------


class Watch:
    """The observations of one training.

    Attributes:
        trial: how the training departs from the usual one.
        stop_at: the epoch at whose beginning the training is stopped. It may be one that the
            training does not reach.
        module: the name of the method's module, if its file was executed again, else "".
        task, method, run: of the training, as soon as they exist.
        not_finite: the first value that was not finite, or None.
        losses: (epoch, step, loss) of each backward_step.
        begun: epoch -> everything that was held at its beginning.
        ended: epoch -> the state of networks and method at its end.
        stepped: names of the optimisers that were stepped.
        used: epoch -> the examples in its batches.
        read_only: notices writes to labels, images, index and logits.
        forms: compares loss_and_grad with loss.
        parts: compares the terms of gradient_parts with the gradient, where they are recorded.
        memory: notices rows of a memory that a step changes though they are not its examples'.
        placement: notices tensors that would lie on another device; None for most trials, as it
            takes time.
        unsaved: epoch -> fingerprints of the memories that no checkpoint holds, as its steps begin.
        modes: (epoch, i) -> the modes of network i in its forward passes with a gradient.
        own_steps: id of a parameter -> the kind of the optimiser that stepped it in a training
            step and was never registered.
        row_gradients: i -> of the first step, the number of rows of the output of network i, and
            the mean norm of the gradient by a row.

    Args:
        files: the files of the method.
    """

    def __init__(self, trial: Trial, stop_at: int = -1, files: Sequence[Path] = ()):
        self.trial = trial
        self.stop_at = stop_at
        self.module = ""

        self.task: Task | None = None
        self.method: Method
        self.run: RunState

        self.not_finite: NotFinite | None = None
        self.losses: list[tuple[int, int, float]] = []
        self.begun: dict[int, Snapshot] = {}
        self.ended: dict[int, Snapshot] = {}
        self.stepped: set[str] = set()
        self.used: dict[int, set[int]] = {}
        self.read_only = ReadOnly(self.now)
        self.forms = FormComparison()
        self.parts = PartsComparison()
        self.memory = MemoryRows()
        self.placement = Placement(files) if trial in (Trial(), Trial(gradients=True)) else None
        self.unsaved: dict[int, dict[str, str]] = {}
        self.modes: dict[tuple[int, int], set[bool]] = {}
        self.row_gradients: dict[int, tuple[int, float]] = {}
        self.own_steps: dict[int, str] = {}

    def __deepcopy__(self, memo: dict[int, object]) -> Watch:
        # A method may copy a network, and with it the hooks that lead here.
        return self

    def now(self) -> str:
        """Return the place of the training, for example "epoch 0, step 3"; empty before it."""
        run = getattr(self, "run", None)
        return "" if run is None else f"epoch {run.epoch}, step {run.step}"

    def around(
        self, hook: str, *tensors: tuple[str, Tensor], batches: Sequence[Any] = ()
    ) -> AbstractContextManager[Any]:
        """Notice what the method's hook writes to though it may only read it."""
        stack = contextlib.ExitStack()
        stack.enter_context(self.read_only.around(hook, self.task, tensors, batches))
        if self.placement is not None:
            stack.enter_context(self.placement)
        return stack

    def listen_to(self, run: RunState) -> None:
        """Observe a run's batches, its losses, its optimisers' steps and its networks' outputs.

        Replaces three methods of this one run. A listener for single steps would cost time in every
        training, and only this module needs one.
        """
        self.run = run
        # What they call is unchanged, so a method that is watched trains with the same numbers.
        make_batch, take_step, register = run.batch, run.backward_step, run.optimise

        def batch(index: Tensor, *views: int) -> Batch:
            made = make_batch(index, *views)
            self.read_only.remember(made)
            if self.placement is not None:
                self.placement.of_run([made.images, made.labels, made.index])
            return made

        def backward_step(
            loss: Tensor, *names: str, through: tuple[Tensor, Tensor] | None = None
        ) -> None:
            # A loss of another shape is refused below, by torch.
            value = float(loss.detach()) if loss.numel() == 1 else 0.0
            if not math.isfinite(value):
                self._note("loss", f"the loss is {value}")
            take_step(loss, *names, through=through)

            self.losses.append((run.epoch, run.step, value))
            # The first one explains those that follow.
            if self.not_finite is None:
                self._look_at_parameters(value)

        def optimise(
            params: Iterable[Any],
            factory: Callable[[Iterable[Any]], torch.optim.Optimizer] | None,
            name: str,
            schedule: Schedule | None = None,
        ) -> torch.optim.Optimizer:
            optimiser = register(params, factory, name, schedule)
            self._count_steps(name, optimiser)
            return optimiser

        run.batch = batch  # type: ignore[method-assign]
        run.backward_step = backward_step  # type: ignore[method-assign]
        run.optimise = optimise  # type: ignore[method-assign]

        # The networks' own optimisers are registered already.
        for name, optimiser in run.optimisers.items():
            self._count_steps(name, optimiser)
        for i, network in enumerate(run.networks):
            network.register_forward_hook(functools.partial(self._look_at_output, i))
            if self.placement is not None:
                self.placement.moved(network)

    @contextlib.contextmanager
    def noting_own_optimisers(self) -> Iterator[None]:
        """Note the parameters that an optimiser steps which the run does not have."""

        def note(optimiser: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
            if any(optimiser is known for known in self.run.optimisers.values()):
                return
            for group in optimiser.param_groups:
                for parameter in group["params"]:
                    self.own_steps.setdefault(id(parameter), type(optimiser).__name__)

        handle = register_optimizer_step_post_hook(note)
        try:
            yield
        finally:
            handle.remove()

    def _count_steps(self, name: str, optimiser: torch.optim.Optimizer) -> None:
        optimiser.register_step_post_hook(lambda *_: self.stepped.add(name))

    def _look_at_output(self, i: int, network: nn.Module, args: Any, logits: Tensor) -> None:
        # A copy that the method has made of the network has this hook, too.
        if network is not self.run.networks[i]:
            return
        if not logits.isfinite().all():
            self._note("output", f"the output of run.networks[{i}] is not finite")
        if not logits.requires_grad:
            return

        if self.trial.gradients:
            self.parts.listen_to(logits)
        self.modes.setdefault((self.run.epoch, i), set()).add(network.training)
        if self.run.epoch == self.run.step == 0 and i not in self.row_gradients:
            logits.register_hook(functools.partial(self._measure, i))

    def _measure(self, i: int, dlogits: Tensor) -> None:
        norm = float(dlogits.detach().norm(dim=1).mean())
        self.row_gradients.setdefault(i, (len(dlogits), norm))

    def set_outputs(self) -> None:
        """Let the networks give the outputs that the trial asks for, with the same gradients."""
        for network in self.run.networks:
            network.register_forward_hook(functools.partial(_given_outputs, self.trial.logits))

    def _look_at_parameters(self, loss: float) -> None:
        """Note the first gradient, else the first parameter, that is not finite."""
        named = list(self._parameters())
        grads = [(path, p.grad) for path, p in named if p.grad is not None]

        # One norm over all values is much faster than a look at each of them.
        values = [value.detach() for _, value in [*grads, *named]]
        if nn.utils.get_total_norm(values).isfinite():
            return

        for path, grad in grads:
            if not grad.isfinite().all():
                after = f"while the loss was ({loss:.6g})"
                self._note("gradient", f"the gradient of {path} is not finite, {after}")
        for path, parameter in named:
            if not parameter.isfinite().all():
                self._note("parameter", f"the parameter {path} is not finite")

    def _parameters(self) -> Iterator[tuple[str, Tensor]]:
        for i, network in enumerate(self.run.networks):
            for name, parameter in network.named_parameters():
                yield f"run.networks[{i}].{name}", parameter
        for name, parameter in self.method.named_parameters():
            yield f"self.{name}", parameter

    def _note(self, kind: str, message: str) -> None:
        if self.not_finite is None:
            self.not_finite = NotFinite(kind, f"{self.now()}: {message}")


def _given_outputs(kind: str, network: nn.Module, args: Any, logits: Tensor) -> Tensor:
    # It is 0, and has the gradient of the output.
    zero = logits - logits.detach()
    if kind == "equal":
        return zero
    best = logits.detach().argmax(1, keepdim=True)
    return zero + torch.full_like(zero, -SURE).scatter(1, best, SURE).detach()


# ---- The subclass that is trained ---------------------------------------------------------------


class _Watched(Method):
    """The hooks of a method with a watch around each of them."""

    # Set on the subclass that watched_class() makes.
    _watch: Watch
    _cls: type[Method]

    def __init__(self, task: Task, **params: Any):
        self._watch.task = task
        if self._watch.placement is not None:
            self._watch.placement.of_run([task.labels])
            self._watch.placement.made_on_host(_shared_tensors(self._cls))
        with self._watch.around("__init__"):
            # The method's own constructor takes the hyperparameters.
            self._cls.__init__(self, task, **params)
        self._watch.method = self
        if self._watch.placement is not None and "_modules" in vars(self):
            self._watch.placement.moved(self)

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        with self._watch.around("loss", ("logits", logits), batches=(batch,)):
            return super().loss(logits, batch)

    def prepare(self, run: Run) -> None:
        assert isinstance(run, RunState)
        self._watch.listen_to(run)
        with self._watch.around("prepare"):
            super().prepare(run)

    def on_epoch_start(self, run: Run, epoch: int) -> None:
        watch = self._watch
        if epoch == watch.stop_at:
            raise Stop
        # After prepare, which may copy the networks.
        if epoch == 0 and watch.trial.logits:
            watch.set_outputs()

        # Taken before the hook, which a resumed training runs, too.
        watch.begun[epoch] = snapshot.take(run, self)
        if watch.module:
            watch.begun[epoch] |= snapshot.take_shared(type(self), sys.modules[watch.module])
        with watch.around("on_epoch_start"):
            super().on_epoch_start(run, epoch)
        watch.unsaved[epoch] = unsaved(self)

    def batches(self, run: Run, epoch: int) -> Iterator[Any]:
        # The harness draws batches ahead for image files only, and the examples of a trial are
        # arrays.
        yield from drawn_ahead(super().batches(run, epoch), self._watch.trial.ahead)

    def training_step(self, run: Run, *item: Any) -> Tensor | None:
        watch = self._watch
        watch.memory.before(self)
        watch.parts.begin_step()
        with watch.around("training_step", batches=item), watch.noting_own_optimisers():
            logits = super().training_step(run, *item)
        watch.memory.after(self, item, watch.now())

        # No batch is used after its step.
        watch.read_only.forget_batches()
        for batch in item:
            if isinstance(batch, Batch):
                watch.used.setdefault(run.epoch, set()).update(batch.index.tolist())
        return logits

    def gradient_parts(self, logits: Tensor, batch: Batch) -> Mapping[str, Tensor] | None:
        watch = self._watch
        with watch.around("gradient_parts", ("logits", logits), batches=(batch,)):
            parts = super().gradient_parts(logits, batch)
        watch.read_only.forget_batches()
        watch.parts.compare(parts, logits, watch.now())
        return parts

    def own_labels(self) -> Tensor | None:
        with self._watch.around("own_labels"):
            return super().own_labels()

    def on_epoch_end(self, run: Run, epoch: int) -> None:
        watch = self._watch
        with watch.around("on_epoch_end"):
            super().on_epoch_end(run, epoch)

        networks = [network.state_dict() for network in run.networks]
        watch.ended[epoch] = snapshot.take_state(networks, self.state_dict())
        # An evaluation by the harness follows. This one comes before it.
        if watch.trial.twice:
            evaluation_mode(run, self)
            with torch.no_grad():
                self.predict(run, random_images(watch.run, 30))

    def predict(self, run: Run, images: Tensor) -> Tensor:
        with self._watch.around("predict", ("images", images)):
            return super().predict(run, images)


def _shared_tensors(cls: type[Method]) -> Iterator[Tensor]:
    """Yield the tensors that a method's module and classes hold, which no run moves to a GPU."""
    owners: list[Any] = [sys.modules[cls.__module__]]
    owners += cls.__mro__[: cls.__mro__.index(Method)]
    for owner in owners:
        for value in vars(owner).values():
            parts = value.values() if isinstance(value, dict) else value
            for part in parts if isinstance(value, list | tuple | dict) else (value,):
                if isinstance(part, Tensor):
                    yield part


def _loss_and_grad(self: _Watched, logits: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    watch, cls = self._watch, self._cls
    if watch.trial.forms:
        watch.forms.compare(cls, self, logits, batch, watch.now())
    with watch.around("loss_and_grad", ("logits", logits), batches=(batch,)):
        result: tuple[Tensor, Tensor] = cls.loss_and_grad(self, logits, batch)  # type: ignore
        return result


def watched_class(cls: type[Method], watch: Watch) -> type[Method]:
    """Return a subclass of a method, of the same name, with a watch around each of its hooks."""
    members: dict[str, Any] = {"_watch": watch, "_cls": cls, "__qualname__": cls.__qualname__}
    # The default training step looks whether a method has this one.
    if cls.loss_and_grad is not None:
        members["loss_and_grad"] = _loss_and_grad
    return type(cls.__name__, (_Watched, cls), members)


# ---- For evaluations of the checks --------------------------------------------------------------


def evaluation_mode(run: Run, method: Method) -> None:
    """Put the method and the run's networks into evaluation mode."""
    method.eval()
    for network in run.networks:
        network.eval()


def random_images(run: RunState, count: int) -> Tensor:
    """Return normally distributed images of the shape that the run's networks take."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, *run.images.shape, generator=generator)
