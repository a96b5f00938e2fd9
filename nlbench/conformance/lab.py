"""Lab: the trainings that the checks look at, of one method in the real harness."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import math
import re
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
from nlbench.conformance.advice import FIX_IF_NOT_FINITE, Failed
from nlbench.conformance.made_up_data import make_data
from nlbench.conformance.outcome import CLOCK, KEPT, Outcome
from nlbench.conformance.snapshot import fingerprint, leaves, take_state
from nlbench.conformance.trial import BATCH, EPOCHS, C, N, Trial
from nlbench.conformance.watch import Stop, Watch, watched_class
from nlbench.contract import advice
from nlbench.contract.strong import uses_strong_views
from nlbench.errors import MethodError, SuiteError, did_you_mean
from nlbench.method import Method, Task
from nlbench.plan.spec import STRONG_VIEWS, Condition, RunSpec
from nlbench.results.record import RunRecord
from nlbench.results.store import Store
from nlbench.training import evaluate
from nlbench.training.context import EpochMetrics, Listener, RunOptions
from nlbench.training.seeding import seeded
from nlbench.training.train import train

USUAL = Trial()

# No training of a check takes so long, so no checkpoint is written.
_NEVER = 1e9


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Use one thread and show no warnings; leave the caller's random generators as they were."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with warnings.catch_warnings(), seeded(0, "check"):
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.set_num_threads(threads)


class Lab:
    """One method, and the outcomes of the trials that checks have asked for.

    Args:
        params: the hyperparameters from the command line; the others keep their defaults.
        folder: an empty folder for the records.
    """

    def __init__(self, file: registry.MethodFile, params: dict[str, Any], folder: Path):
        self.file = file
        self.given = params
        self._folder = folder
        self._outcomes: dict[Trial, Outcome] = {}

    # ---- The method -----------------------------------------------------------------------------

    @functools.cached_property
    def cls(self) -> type[Method]:
        """The method's class. Raises SuiteError if the file cannot be imported."""
        return registry.load_method(self.file)

    @functools.cached_property
    def params(self) -> dict[str, Any]:
        """The given hyperparameters in their types. Raises SuiteError."""
        try:
            known = registry.hyperparameters(self.cls)
        except SuiteError:
            # The check `hyperparameters` reports it.
            return self.given

        values = {}
        for name, value in self.given.items():
            if name not in known:
                names = ", ".join(known) or "nothing"
                raise SuiteError(
                    f"--set {name}: {self.file.name} has no such hyperparameter. "
                    f"It takes: {names}.{did_you_mean(name, known)}"
                )

            try:
                values[name] = typed_value(value, known[name].annotation)
            except ValueError as error:
                raise SuiteError(f"--set {name}: {error}") from None
        return values

    def build(self, classes: int = C) -> Method:
        """Build the method on a task like that of the usual trial. Raises what it raises."""
        T = torch.eye(classes, dtype=torch.float64) * 0.7 + 0.3 / classes
        task = Task(
            num_train=N,
            num_classes=classes,
            labels=torch.arange(N) % classes,
            epochs=EPOCHS,
            steps_per_epoch=-(-N // BATCH),
            batch_size=BATCH,
            privileged={"noise_rate": 0.3, "T": T},
        )
        return build_method(self.cls, self.params, task)

    @functools.cached_property
    def told(self) -> tuple[str, ...]:
        """The privileged information that the method declares."""
        return tuple(self.build().told)

    # ---- Trials ---------------------------------------------------------------------------------

    def train(self, trial: Trial = USUAL) -> Outcome:
        """Return the outcome of a trial that ended well. Raises Failed for one that did not."""
        outcome = self.attempt(trial)
        if outcome.problem:
            raise Failed(outcome.problem)
        return outcome

    def attempt(self, trial: Trial = USUAL) -> Outcome:
        """Return the outcome of a trial, which may have a problem. Each trial is trained once."""
        if trial not in self._outcomes:
            self._outcomes[trial] = self._train_all_parts(trial, len(self._outcomes))
        return self._outcomes[trial]

    def _train_all_parts(self, trial: Trial, number: int) -> Outcome:
        outcome = Outcome(Watch(trial))
        name = self.file.name

        spec = RunSpec(
            row=name,
            method=name,
            params=self.params,
            condition=Condition("check", "clean", None),
            fingerprint="",
            protocol=trial.protocol(),
            seed=trial.seed,
            strong_views=STRONG_VIEWS if uses_strong_views(self.cls) else 0,
        )
        store = Store(self._folder / str(number), outcome.warnings.append)

        # Each part goes on from the checkpoint of the part before it.
        first = 1 if trial.stops else trial.epochs
        for last in range(first, trial.epochs + 1):
            watch = Watch(trial, stop_at=last, files=[self.file.path])
            # Each training begins with another state of the global generators, because its numbers
            # must not depend on them.
            stream = seeded(trial.again, "check", number, last)
            outcome.problem = self._train_part(spec, store, watch, outcome, stream)
            outcome.add(watch)
            if outcome.problem:
                return outcome

        with np.load(store.run_dir(spec.key) / "predictions.npz") as arrays:
            kept = [name for name in KEPT if name in arrays.files]
            outcome.predictions = {name: arrays[name] for name in kept}
        # A parameter that is not finite need not show in the losses.
        if trial.watched:
            outcome.problem = _not_finite(outcome.watch)
        return outcome

    def _train_part(
        self, spec: RunSpec, store: Store, watch: Watch, outcome: Outcome, stream: seeded
    ) -> str:
        """Train until the end or until the watch stops it. Return the problem, or an empty string.

        Args:
            stream: sets the global random generators for the time of the training.
        """
        trial = watch.trial
        data = make_data(trial, self.told)
        with self._method_file(watch) as file, stream, _scored_logits() as logits_seen:
            path = store.run_dir(spec.key) / "checkpoint.pt"
            keeper = _Keeper(outcome, path, trial, logits_seen)
            options = RunOptions(
                devices=(torch.device("cpu"),),
                data_dir=self._folder,
                methods={file.name: file},
                # A training that is stopped goes on from its checkpoint, and without a watch the
                # states are read from checkpoints. Other trainings need none.
                checkpoint_seconds=0.0 if trial.stops or not trial.watched else _NEVER,
                record_gradients=trial.gradients,
            )
            try:
                record = train(spec, data, options, store, keeper)
            except Stop:
                return ""
            # The user's own Ctrl-C. Whatever else ends the training is the method's.
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                return self.explain(error, watch)

        outcome.notes += record.warnings
        if record.status == "done":
            return ""
        return _not_finite(watch) or _message_of(record)

    # ---- The method's file ----------------------------------------------------------------------

    @contextlib.contextmanager
    def _method_file(self, watch: Watch) -> Iterator[registry.MethodFile]:
        """Yield the method file that is trained: with a watch, or as it is."""
        trial = watch.trial
        if not trial.watched:
            yield self.file
        elif trial.fresh or trial.stops:
            with _executed_again(self.file) as own:
                if own is not None:
                    watch.module = own.__module__
                with self._watched_file(own or self.cls, watch) as file:
                    yield file
        else:
            with self._watched_file(self.cls, watch) as file:
                yield file

    @contextlib.contextmanager
    def _watched_file(self, own: type[Method], watch: Watch) -> Iterator[registry.MethodFile]:
        """Yield a method file whose module holds the watched class alone."""
        # The registry loads a method from a module, so the watched class gets one of its own.
        cls = watched_class(own, watch)
        module = types.ModuleType(f"nlbench_check_{id(watch)}")
        cls.__module__ = module.__name__
        # Only a public class is taken for a method.
        setattr(module, cls.__name__.lstrip("_"), cls)
        sys.modules[module.__name__] = module
        try:
            yield registry.MethodFile(self.file.name, self.file.path, module.__name__)
        finally:
            del sys.modules[module.__name__]

    # ---- Errors ---------------------------------------------------------------------------------

    def explain(self, error: BaseException, watch: Watch | None = None) -> str:
        """Describe an error of the method: the hook, the line, the time, and the likely fix."""
        frames = traceback.extract_tb(error.__traceback__)
        path = self.file.path.resolve()
        own = [frame for frame in frames if Path(frame.filename).resolve() == path]
        when = "before epoch 0"
        if watch is not None and watch.begun:
            when = f"in {watch.now()}"
        message = f"{type(error).__name__}: {error}".rstrip(": ")
        line = (own[-1].line or "") if own else ""
        if fix := advice.fix_for(message, line):
            message += f"\nfix: {fix}"
        if watch is not None and "through the graph a second time" in message:
            message += _where_graphs_are_kept(watch, path)
        # What a hook returned is wrong, so no line of the harness is of interest.
        if isinstance(error, MethodError):
            message = f"{error.what}\nfix: {error.fix}"
            if not own:
                return f"{when}: {message}"

        # The first frame in the file is the hook, and the last one is the line that failed.
        if own:
            spot = f"{self.file.path.name}:{own[-1].lineno}: {own[-1].line}"
            return f"`{own[0].name}` raised {when}\n{spot}\n{message}"

        # The last line of nlbench, above those of torch.
        package = Path(registry.__file__).parent
        lines = []
        for frame in frames:
            place = Path(frame.filename)
            if package in place.parents and place.parent != Path(__file__).parent:
                lines.append(frame.line)
        return f"the harness raised {when}, at `{lines[-1]}`\n{message}"


def _where_graphs_are_kept(watch: Watch, path: Path) -> str:
    """Return the lines of the file that store a value with a graph, below the words for them."""
    spots = []
    lines = path.read_text(encoding="utf-8").splitlines()
    for name in sorted(graphs_kept(watch.method)):
        assigned = re.compile(rf"self\.{name}\b[^=]*(?<![=!<>])=(?!=)|self\.{name}\.\w+_?\(")
        for number, line in enumerate(lines, 1):
            if assigned.search(line) and "register_buffer" not in line:
                spots.append(f"\n  self.{name}: {path.name}:{number}: {line.strip()}")
    return "\nit is kept here:" + "".join(spots) if spots else ""


def graphs_kept(method: Method) -> set[str]:
    """Return the names of a method's attributes that hold the graph of a step."""
    names = set()
    for place, leaf in leaves(method, "self"):
        is_tensor = isinstance(leaf, Tensor) and not isinstance(leaf, torch.nn.Parameter)
        if is_tensor and leaf.grad_fn is not None:
            names.add(re.split(r"[.\[]", place)[1])
    return names


_executions = itertools.count()


@contextlib.contextmanager
def _executed_again(file: registry.MethodFile) -> Iterator[type[Method] | None]:
    """Execute the method's file once more, as a new process does, and yield its class.

    Yields None if the file cannot be executed twice in a process. Its module is removed afterwards.
    """
    # A name beside that of the original, so that relative imports work.
    name = f"{registry.module_name(file)}__{next(_executions)}"
    cls: type[Method] | None = None
    try:
        # Whatever the file raises: the trial then trains the class that is loaded already.
        with contextlib.suppress(Exception, SystemExit):
            registry.execute(file.path, name)
            cls = registry.load_method(dataclasses.replace(file, module=name))
        yield cls
    finally:
        # A package has imported its modules anew.
        for other in list(sys.modules):
            if other == name or other.startswith(f"{name}."):
                del sys.modules[other]


@contextlib.contextmanager
def _scored_logits() -> Iterator[list[str]]:
    """Yield a list that collects the fingerprints of all logits that are scored.

    Replaces the function that scores them: a watch around `predict` would add a frame between the
    harness and the method, and hide a method that reads its callers' variables.
    """
    scored: list[str] = []
    accuracies = evaluate.accuracies

    def noting_accuracies(logits: Tensor, labels: Tensor) -> dict[str, float]:
        scored.append(fingerprint(logits))
        return accuracies(logits, labels)

    vars(evaluate)["accuracies"] = noting_accuracies
    try:
        yield scored
    finally:
        vars(evaluate)["accuracies"] = accuracies


class _Keeper(Listener):
    """Keep the metrics of each epoch and, without a watch, the states that checkpoints hold."""

    def __init__(self, outcome: Outcome, checkpoint: Path, trial: Trial, scored: list[str]):
        self._outcome = outcome
        self._checkpoint = checkpoint
        self._trial = trial
        self._scored = scored

    def on_epoch(self, spec: RunSpec, epoch: int, epochs: int, metrics: EpochMetrics) -> None:
        kept = {name: value for name, value in metrics.items() if name not in CLOCK}
        self._outcome.history.append({**kept, "predictions": tuple(self._scored)})
        self._scored.clear()

        # The checkpoint of this epoch is written after this call.
        if not self._trial.watched and epoch > 0:
            state = torch.load(self._checkpoint, weights_only=True)
            self._outcome.states[epoch - 1] = take_state(state["networks"], state["method"])


def _not_finite(watch: Watch) -> str:
    """Describe the first value that was not finite, with the likely fix; empty if there is none."""
    seen = watch.not_finite
    if seen is None:
        return ""
    fix = FIX_IF_NOT_FINITE[seen.kind]
    values = [value for _, _, value in watch.losses if math.isfinite(value)]
    # The loss of most methods is bounded below by a number near 0.
    if values and values[-1] < min(values[0], -1000.0):
        fix = (
            f"the loss is negative and falls, from {values[0]:.3g} to {values[-1]:.3g}: is its "
            "sign right?"
        )
    return f"{seen.message}\nfix: {fix}"


def _message_of(record: RunRecord) -> str:
    return record.error["message"] if record.error else record.status
