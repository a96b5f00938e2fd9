"""What `nlbench check` looks at: short trainings of a method in the real harness, with a watch around its hooks."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import sys
import traceback
import types
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nlbench import registry
from nlbench.build import build_method, typed_value
from nlbench.conformance.advice import Failed, hint
from nlbench.conformance.compare import Training
from nlbench.conformance.made_up_data import BATCH, EPOCHS, C, N, make_data
from nlbench.conformance.snapshot import copied_state, print
from nlbench.conformance.watch import Stop, Watch, watched_training
from nlbench.errors import SuiteError, did_you_mean
from nlbench.method import Method, Task
from nlbench.plan import protocol as protocols
from nlbench.plan.spec import Condition, RunSpec
from nlbench.results.store import Store
from nlbench.training import evaluate
from nlbench.training.context import Context
from nlbench.training.seeding import seeded
from nlbench.training.train import train

_CPU = torch.device("cpu")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """One thread, no warnings, and the caller's generators as they were."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with warnings.catch_warnings(), seeded(0, "check"):
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.set_num_threads(before)


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
                values[name] = typed_value(value, takes[name].annotation)
            except ValueError as error:
                raise SuiteError(f"--set {name}: {error}") from None
        return values

    def build(self, classes: int = C) -> Method:
        labels = torch.arange(N) % classes
        told = {"noise_rate": 0.3, "T": torch.eye(classes, dtype=torch.float64) * 0.7 + 0.3 / classes}
        task = Task(N, classes, labels, EPOCHS, 5, BATCH, privileged=told)
        method: Method = build_method(self.cls, self.params, task)
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
        protocol = protocols.resolve("digits", "digits", values)
        condition = Condition("check", "clean", None)
        spec = RunSpec(self.file.name, self.file.name, self.params, condition, "", protocol, seed)
        result = Training(Watch())
        store = Store(self.folder / str(number), result.warned.append)
        for part in range(1, epochs + 1) if stops else [epochs]:
            watch = Watch(stop_at=part if part < epochs else -1, twice=twice, ahead=ahead, forms=forms)
            result.watch = watch
            data = make_data(
                classes=classes, num=num, val=val, pixels=pixels, clean=clean, permuted=permuted,
                other_test=other_test, permuted_test=permuted_test, told=self.told,
            )  # fmt: skip
            seeds = again, "check", number, part
            with self._module(watch, watched, stops or fresh) as file, seeded(*seeds), _scores() as scores:
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
                except Stop:
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
        cls = watched_training(own, watch)
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
            return f"`{own[0].name}` raised {when}\n{spot}\n{message}{hint(message)}"
        line = next(
            (f.line for f in reversed(frames) if Path(registry.__file__).parent in Path(f.filename).parents), ""
        )
        return f"the harness raised {when}, at `{line}`\n{message}{hint(message)}"


_executions = itertools.count()


@contextlib.contextmanager
def _executed_again(file: registry.MethodFile) -> Iterator[type[Method] | None]:
    """The method's class as a new process would find it: its file executed under a name of its own, then forgotten.

    None where it cannot be executed twice in a process.
    """
    name = f"{file.module or file.path.stem}__{next(_executions)}"  # beside the original, for its relative imports
    try:
        try:
            registry.execute(file.path, name)
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
        seen.append(print(logits))
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
        result.states[epoch - 1] = copied_state(state["networks"], state["method"])


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
