"""ONE run, read top to bottom: RunSpec -> RunRecord. The only training loop."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import platform
import random
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from nlbench import code, evaluate, hardware, models, ops, registry, streams
from nlbench.data import noise as noises
from nlbench.data import strata
from nlbench.data.decode import Geometry
from nlbench.data.loader import RunData, images_of
from nlbench.method import _NEVER, Batch, HelperLoss, Method, Run, Task, predict_all
from nlbench.network import Network, Passes
from nlbench.protocols import Protocol
from nlbench.records import RunRecord, Store, hold, write_atomic
from nlbench.suite import RunSpec, build_method, key_of

OnEpoch = Callable[[int, int, dict[str, Any]], None]  # epoch from 0, epochs, its row of the history


@dataclass
class Fits:
    """Helper networks a run used: seconds that training each took, whenever that was, and those spent in this run."""

    seconds: dict[str, float]
    now: float


@dataclass(frozen=True)
class Context:
    """Where a run runs; nothing of it changes a result."""

    store: Store
    device: torch.device
    methods: dict[str, registry.MethodFile]
    checkpoint_seconds: float = 10.0  # a checkpoint at the first end of an epoch after so long
    on_epoch: OnEpoch = lambda epoch, epochs, row: None
    on_fit: OnEpoch = lambda epoch, epochs, row: None
    on_resume: Callable[[int, int], None] = lambda epoch, epochs: None  # epoch it goes on at, from 0
    wait: bool = True  # for a helper network that another process trains; else FitHeld is raised
    cuda_graphs: bool | None = None  # of the default training step, on a GPU; None: where the model is one of ours
    jobs: int = 1  # runs that are trained at once on the device, for the record


class FitHeld(Exception):
    """Another process trains a helper network that this run needs: the run can be tried again later."""


def train(spec: RunSpec, data: RunData, context: Context) -> RunRecord:
    """Train, evaluate and record one run, from its checkpoint where there is one.

    A loss that is not finite gives a record with status "diverged". Errors of the method are raised.
    """
    protocol = Protocol.model_validate(spec.protocol)
    hardware.keep_freed_memory()
    cudnn = torch.backends.cudnn
    before = torch.get_num_threads(), cudnn.deterministic
    torch.set_num_threads(protocol.threads)
    cudnn.deterministic = True  # the same seed, the same numbers; it cost nothing where it was measured
    # A CUDA graph is captured on the current device, and kernels' own launches leave it current.
    current = torch.cuda.device(context.device) if context.device.type == "cuda" else contextlib.nullcontext()
    try:
        with current:
            return _train(spec, data, context, protocol)
    finally:
        torch.set_num_threads(before[0])
        cudnn.deterministic = before[1]


def _train(spec: RunSpec, data: RunData, context: Context, protocol: Protocol) -> RunRecord:
    device, store = context.device, context.store
    file = context.methods[spec.method]
    code_hash = code.code_hash(file.path, protocol.model)
    info = data.info
    geometry = Geometry(protocol.resize, protocol.crop)
    images = images_of(data.train_images, info, device, protocol.augment, geometry)
    labels = _copy(data.labels, device)
    clean_labels = None if data.clean_labels is None else _copy(data.clean_labels, device)
    # What is scored after each epoch: the test set, the noisy validation part, a dataset's further ones.
    parts = {"test": (data.test_images, data.test_labels), **data.scored}
    if data.val_images is not None and data.val_labels is not None:
        parts["val"] = data.val_images, data.val_labels
    scored = {
        name: (images_of(source, info, device, "none", geometry), _copy(true, device))
        for name, (source, true) in parts.items()
    }
    epoch_size = protocol.batches_per_epoch * protocol.batch_size
    if epoch_size > len(labels):
        raise ValueError(
            f"protocol: batches_per_epoch x batch_size is {epoch_size}, more than the {len(labels)} training examples"
        )
    seen = epoch_size or len(labels)  # examples an epoch

    told = {"noise_rate": data.noise_rate_train, "T": None if data.T is None else torch.tensor(data.T)}
    if data.noise_rate_train is None and info.estimated_noise_rate:
        told["noise_rate"] = info.estimated_noise_rate
    task = Task(
        num_train=len(labels),
        num_classes=info.num_classes,
        labels=labels.clone(),
        epochs=protocol.epochs,
        steps_per_epoch=-(-seen // protocol.batch_size),
        batch_size=protocol.batch_size,
        device=device,
        _told={name: value for name, value in told.items() if value is not None},
    )
    with _seeded(spec.seed, "method"):
        method: Method = build_method(registry.load_method(file), spec.params, task).to(device)
    in_shape = images.shape
    passes = Passes()
    networks: list[nn.Module] = [
        _network(spec, protocol, info.num_classes, in_shape, context, f"init{i}", passes)
        for i in range(method.num_networks)
    ]
    run = Run(
        task=task,
        seed=spec.seed,
        networks=networks,
        images=images,
        schedule=protocol.factor,
        val_images=scored["val"][0] if "val" in scored else None,
        val_labels=scored["val"][1] if "val" in scored else None,
        epoch_size=epoch_size,
        fit=lambda run, key, loss, epochs: _fit(run, key, loss, epochs, spec, context, in_shape, fits),
    )
    fits = Fits({}, 0.0)
    for i, network in enumerate(networks):
        run.optimise(network.parameters(), lambda params: _sgd(params, protocol), f"network{i}")
    history: list[dict[str, Any]] = []
    seconds = {"prepare": 0.0, "fits": 0.0, "train": 0.0, "evaluate": 0.0}
    memorisation = None if clean_labels is None else evaluate.Memorisation(labels, clean_labels)
    try:
        begun = time.perf_counter()
        with _seeded(spec.seed, "prepare"), warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            method.prepare(run)
        said = tuple(str(warning.message) for warning in caught if issubclass(warning.category, UserWarning))
        data = dataclasses.replace(data, warnings=tuple(dict.fromkeys([*data.warnings, *said])))

        checkpoint = _Checkpoint(
            store, store.run_dir(spec.key) / "checkpoint.pt", code_hash, context.checkpoint_seconds
        )
        seconds["prepare"] = time.perf_counter() - begun - fits.now
        seconds["fits"] = sum(fits.seconds.values())
        first = 0
        if (state := checkpoint.load()) is not None:
            _restore(state, run, method)
            passes.images = state["passes"]
            history, seconds, first = state["history"], state["seconds"], state["epoch"]
            context.on_resume(first, protocol.epochs)

        for epoch in range(first, protocol.epochs):
            begun = time.perf_counter()
            passes.active = True
            loss = _train_epoch(run, method, epoch, spec.seed, memorisation)
            passes.active = False
            if run._bad_step != _NEVER:
                raise evaluate.Diverged("the loss is not finite", epoch, run._bad_step)
            online = memorisation.take() if memorisation else {}
            if device.type == "cuda":
                torch.cuda.synchronize(device)  # so that the time below is the epoch's
            trained = time.perf_counter()
            method.eval()
            predict = _predictor(method, run)
            row: dict[str, Any] = {"epoch": epoch, "loss": loss}
            try:
                for name, (part_images, true) in scored.items():
                    accuracies, guessed = evaluate.score(predict, part_images, true)
                    row |= {f"{name}_{metric}": value for metric, value in accuracies.items()}
                    if name == "test":
                        predicted = guessed
            except ArithmeticError as error:
                raise evaluate.Diverged(str(error), epoch, run.step - 1) from None
            row |= {f"online_{name}": value for name, value in online.items()}
            if clean_labels is not None and (targets := _targets(method)) is not None:
                row["target_accuracy"] = evaluate.target_accuracy(targets, clean_labels)
            now = time.perf_counter()
            row |= {"seconds": trained - begun, "images_per_second": seen / (trained - begun)}
            history.append(row)
            seconds["train"] += trained - begun
            seconds["evaluate"] += now - trained
            context.on_epoch(epoch, protocol.epochs, row)
            if epoch + 1 < protocol.epochs:
                checkpoint.save_if_due(
                    lambda: {
                        **_state(run, method),
                        "history": history,
                        "seconds": seconds,
                        "passes": passes.images,
                        "epoch": epoch + 1,  # noqa: B023
                    }
                )
    except evaluate.Diverged as error:
        record = _record(spec, run, method, data, code_hash, history, seconds, context, protocol, diverged=error)
        store.write(record, history)
        return record
    if not torch.equal(task.labels, labels):
        raise RuntimeError("the method wrote to task.labels, which is read only: keep corrected labels in a buffer")

    record = _record(spec, run, method, data, code_hash, history, seconds, context, protocol)
    record.method["forward_passes"] = passes.images / (seen * protocol.epochs)
    if len(networks) > 1:  # so that an ensemble is not compared with one network unawares
        singles = [evaluate.score(network, *scored["test"])[0]["accuracy"] for network in networks]
        record.metrics |= {"single_mean": sum(singles) / len(singles), "single_best": max(singles)}
    predictions = {
        "test": predicted.cpu().numpy().astype("int16"),
        "train_index": data.train_index.astype("int32"),
        "labels": data.labels.astype("int16"),
    }
    if memorisation is not None:  # a million images are not predicted for nothing
        train_predicted = predict_all(predict, images).argmax(1)
        memorisation.count(train_predicted, torch.arange(len(labels), device=device))
        record.metrics.update({f"final_{name}": value for name, value in memorisation.take().items()})
        predictions["train"] = train_predicted.cpu().numpy().astype("int16")
    T = getattr(method, "T", None)
    if isinstance(T, Tensor) and T.shape == (info.num_classes, info.num_classes):
        predictions["T"] = T.detach().double().cpu().numpy()
        if data.T is not None:
            record.method["T_mean_absolute_error"] = float(abs(predictions["T"] - data.T).mean())
    store.write(record, history, predictions)
    return record


def _train_epoch(run: Run, method: Method, epoch: int, seed: int, memorisation: evaluate.Memorisation | None) -> float:
    """One epoch of the method's own plan. Returns the mean loss of its steps."""
    run._begin_epoch(epoch)
    with _seeded(seed, "epoch", epoch):
        method.train()
        for network in run.networks:
            network.train()
        method.on_epoch_start(run, epoch)
        for item in _ahead(method.batches(run, epoch), run._images.ahead):
            item = item if isinstance(item, tuple) else (item,)
            logits = method.training_step(run, *item)
            if logits is not None and memorisation is not None:
                memorisation.add(logits.detach(), _first_batch(item))
            run.step += 1
        method.on_epoch_end(run, epoch)
    ops.check_faults(run.task.device)
    return run._take_loss()


def _ahead(items: Iterator[Any], count: int) -> Iterator[Any]:
    """The same items, each drawn `count` items before it is given: what it must wait for has begun by then."""
    drawn: collections.deque[Any] = collections.deque()
    for item in items:
        drawn.append(item)
        if len(drawn) > count:
            yield drawn.popleft()
    yield from drawn


def _first_batch(item: tuple[Any, ...]) -> Batch:
    for part in item:
        if isinstance(part, Batch):
            return part
    raise TypeError("training_step returned logits, but its item holds no Batch they could belong to: return None")


class _Helper(Method):
    """A helper network's training: the loss it was given, on the examples that are not held out."""

    def __init__(self, task: Task, loss: Callable[[Tensor, Batch], Tensor], kept: Tensor):
        super().__init__(task)
        self._given, self._kept = loss, kept

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        return self._given(logits, batch)

    def batches(self, run: Run, epoch: int) -> Iterator[Batch]:
        order = run.order()
        for index in order[self._kept[order]].split(run.task.batch_size):
            yield run.batch(index)


def _fit(
    run: Run,
    key: str,
    loss: HelperLoss,
    epochs: int,
    spec: RunSpec,
    context: Context,
    in_shape: tuple[int, ...],
    fits: Fits,
) -> nn.Module:
    """See Run.fit. Trains under the spec's protocol, stretched to `epochs`; or reads what an earlier run left."""
    protocol = Protocol.model_validate(spec.protocol)
    protocol = protocol.model_copy(
        update={"epochs": epochs, "schedule": protocol.schedule.scaled(epochs / protocol.epochs)}
    )
    identity, method_file = spec.identity(), context.methods[spec.method].path
    if loss == "ce":  # depends on no method: theirs to share
        identity = {k: v for k, v in identity.items() if k not in ("method", "params")}
    hashed = code.code_hash(None if loss == "ce" else method_file, protocol.model)
    fit_key = key_of({**identity, "fit": key, "epochs": epochs, "code": hashed})
    path = context.store.root / "fits" / f"{fit_key}.pt"
    task = run.task
    network = _network(spec, protocol, task.num_classes, in_shape, context, f"fit-{key}", Passes())
    entered = time.perf_counter()
    done = _Checkpoint(context.store, path, fit_key, 0.0)
    while (state := done.load()) is None:
        with hold(path.with_suffix(".lock"), leftovers=f".{fit_key}*.tmp") as mine:
            if mine and not path.exists():
                _train_fit(run, key, loss, protocol, spec, context, network, done)
                fits.now += time.perf_counter() - entered
        if not mine:
            if not context.wait:
                raise FitHeld
            time.sleep(0.5)
    network.load_state_dict(state["network"])
    fits.seconds[fit_key] = state["seconds"]
    return network.eval()


def _train_fit(
    run: Run,
    key: str,
    loss: HelperLoss,
    protocol: Protocol,
    spec: RunSpec,
    context: Context,
    network: Network,
    done: _Checkpoint,
) -> None:
    """Train a helper network and leave its best weights, and the seconds it took, in `done`."""
    task, device, epochs = run.task, run.task.device, protocol.epochs
    loss_of: Callable[[Tensor, Batch], Tensor] = _cross_entropy if loss == "ce" else loss
    seed = streams.derive(spec.seed, "fit", key)
    if run._val_images is not None and run._val_labels is not None:
        kept = torch.ones(task.num_train, dtype=torch.bool, device=device)
        held_images, held_labels = run._val_images, run._val_labels
    else:
        kept = torch.ones(task.num_train, dtype=torch.bool, device=device)
        (held,) = strata.split(task.labels.cpu().numpy(), (round(0.1 * task.num_train),), streams.rng(seed, "holdout"))
        kept[held] = False
        held_images, held_labels = run._images.subset(held), task.labels[held]
    drawn = (run._epoch_size or task.num_train) * int(kept.sum()) // task.num_train  # an epoch, about
    steps = -(-drawn // task.batch_size)
    helper_task = Task(task.num_train, task.num_classes, task.labels, epochs, steps, task.batch_size, device)
    helper = _Helper(helper_task, loss_of, kept)
    sub = Run(
        task=helper_task,
        seed=seed,
        networks=[network],
        images=run._images,
        schedule=protocol.factor,
        epoch_size=run._epoch_size,
    )
    sub.optimise(network.parameters(), lambda params: _sgd(params, protocol), "network0")
    going = _Checkpoint(context.store, done.path.with_suffix(".going.pt"), done.tag, context.checkpoint_seconds)
    best: dict[str, Any] = {"loss": float("inf"), "network": {}}
    seconds, first = 0.0, 0
    if (state := going.load()) is not None:
        _restore(state, sub, helper)
        best, seconds, first = state["best"], state["seconds"], state["epoch"]
    held_batch = Batch(Tensor(), held_labels, torch.arange(len(held_labels), device=device), lambda index, k: Tensor())
    for epoch in range(first, epochs):
        begun = time.perf_counter()
        mean = _train_epoch(sub, helper, epoch, seed, None)
        held_loss = float(loss_of(predict_all(network, held_images), held_batch).mean())
        if held_loss < best["loss"]:
            weights = {name: value.detach().clone() for name, value in network.state_dict().items()}
            best = {"loss": held_loss, "network": weights}
        seconds += time.perf_counter() - begun
        context.on_fit(epoch, epochs, {"epoch": epoch, "loss": mean, "held_loss": held_loss})
        going.save_if_due(
            lambda: {**_state(sub, helper), "best": best, "seconds": seconds, "epoch": epoch + 1}  # noqa: B023
        )
    if not best["network"]:
        bad = min(sub._bad_step, sub.step - 1)
        epoch = bad // helper_task.steps_per_epoch
        raise evaluate.Diverged(f"the loss of the helper network {key!r} is not finite", epoch, bad)
    done.save({"network": best["network"], "seconds": seconds})
    going.path.unlink(missing_ok=True)


def _cross_entropy(logits: Tensor, batch: Batch) -> Tensor:
    return functional.cross_entropy(logits, batch.labels)


class _Checkpoint:
    """A state file that is whole or not there, and that is only read back under the code that wrote it."""

    def __init__(self, store: Store, path: Path, tag: str, every_seconds: float):
        self.path, self.tag, self._store = path, tag, store
        self._every, self._saved = every_seconds, time.monotonic()

    def save(self, state: dict[str, Any]) -> None:
        write_atomic(self.path, lambda file: torch.save({**state, "tag": self.tag}, file))
        self._saved = time.monotonic()

    def save_if_due(self, state: Callable[[], dict[str, Any]]) -> None:
        if time.monotonic() - self._saved >= self._every:
            self.save(state())

    def load(self) -> dict[str, Any] | None:
        if not self.path.exists():
            return None
        try:
            state = torch.load(self.path, map_location="cpu", weights_only=True)
        except Exception as error:  # whatever a damaged file makes torch raise, the answer is the same
            self._store.set_aside(self.path, f"corrupt checkpoint ({type(error).__name__})")
            return None
        if not isinstance(state, dict) or state.get("tag") != self.tag:
            self._store.set_aside(self.path, "checkpoint of other code or of another run")
            return None
        return state


def _state(run: Run, method: Method) -> dict[str, Any]:
    return {
        "method": method.state_dict(),
        "networks": [network.state_dict() for network in run.networks],
        "optimisers": {name: optimiser.state_dict() for name, optimiser in run._optimisers.items()},
        "step": run.step,
    }


def _restore(state: dict[str, Any], run: Run, method: Method) -> None:
    method.load_state_dict(state["method"])
    for network, weights in zip(run.networks, state["networks"], strict=True):
        network.load_state_dict(weights)
    for name, optimiser in run._optimisers.items():
        optimiser.load_state_dict(state["optimisers"][name])
    run.step = state["step"]


def _copy(array: Any, device: torch.device) -> Tensor:
    """A tensor of a run's own: what a method did to it would otherwise reach the runs after it."""
    return torch.tensor(array, device=device)


def _sgd(params: Any, protocol: Protocol) -> torch.optim.Optimizer:
    return torch.optim.SGD(
        params,
        lr=protocol.lr,
        momentum=protocol.momentum,
        nesterov=protocol.nesterov,
        weight_decay=protocol.weight_decay,
        fused=True,
    )


def _network(
    spec: RunSpec,
    protocol: Protocol,
    num_classes: int,
    in_shape: tuple[int, ...],
    context: Context,
    stream: str,
    passes: Passes,
) -> Network:
    """A fresh network; what no file gives it is drawn from the seed's own stream, on the CPU whatever the device."""
    with _seeded(spec.seed, stream):
        body = models.build(protocol.model, num_classes, in_shape, weights=spec.weights_path or protocol.weights)
    network = Network(
        body,
        protocol.precision,
        passes,
        batch_size=protocol.batch_size,
        compiled=protocol.compile,
        graphs=_graphs(context, protocol),
    )
    return network.to(context.device).to(memory_format=torch.channels_last)


class _seeded:
    """Within it the global generators of torch, NumPy and Python come from the stream; afterwards they are as before.

    A method should draw from run.generator; scikit-learn, dropout and habit draw from these.
    """

    def __init__(self, seed: int, *names: str | int):
        self._value = streams.derive(seed, *names)
        self._fork = torch.random.fork_rng()

    def __enter__(self) -> None:
        self._fork.__enter__()
        self._before = np.random.get_state(), random.getstate()  # noqa: NPY002
        torch.default_generator.manual_seed(self._value)  # torch.manual_seed is slow where there is no GPU
        if torch.cuda.is_available():
            torch.cuda.manual_seed_all(self._value)
        np.random.seed(self._value % 2**32)  # noqa: NPY002
        random.seed(self._value)

    def __exit__(self, *error: Any) -> None:
        np.random.set_state(self._before[0])  # noqa: NPY002
        random.setstate(self._before[1])
        self._fork.__exit__(*error)


def _predictor(method: Method, run: Run) -> Callable[[Tensor], Tensor]:
    for network in run.networks:
        network.eval()
    return lambda images: method.predict(run, images)


def _targets(method: Method) -> Tensor | None:
    targets = getattr(method, "targets", None)
    shape = (method.task.num_train, method.task.num_classes)
    return targets if isinstance(targets, Tensor) and targets.shape == shape else None


def _record(
    spec: RunSpec,
    run: Run,
    method: Method,
    data: RunData,
    code_hash: str,
    history: list[dict[str, Any]],
    seconds: dict[str, float],
    context: Context,
    protocol: Protocol,
    diverged: evaluate.Diverged | None = None,
) -> RunRecord:
    error = None
    if diverged is not None:
        error = {"message": str(diverged), "epoch": diverged.epoch, "step": diverged.step}
    return RunRecord(
        key=spec.key,
        status="done" if diverged is None else "diverged",
        spec=spec.identity(),
        metrics=_metrics(history) if diverged is None else {},
        noise=noise_facts(spec, data),
        timing=dict(seconds),
        environment={
            **environment(context, protocol),
            "weights": models.weights_file(protocol.model, protocol.weights),
        },
        method={
            "told": list(method.told),
            "networks": len(run.networks),
            "own_optimisers": sorted(run._replaced),
        },
        code=code_hash,
        warnings=list(data.warnings),
        error=error,
    )


def _metrics(history: list[dict[str, Any]]) -> dict[str, Any]:
    last = {k: v for k, v in history[-1].items() if k.startswith("online_") or k == "target_accuracy"}
    return {**evaluate.summarise(history), **last}


def failed(spec: RunSpec, error: BaseException, context: Context) -> RunRecord:
    """The record of a run that raised."""
    protocol = Protocol.model_validate(spec.protocol)
    return RunRecord(
        key=spec.key,
        status="failed",
        spec=spec.identity(),
        metrics={},
        noise={},
        timing={},
        environment=environment(context, protocol),
        method={},
        code=code.code_hash(context.methods[spec.method].path, protocol.model),
        error={
            "message": f"{type(error).__name__}: {error}",
            "traceback": "".join(traceback.format_exception(error)) if error.__traceback__ else "",
        },
    )


def noise_facts(spec: RunSpec, data: RunData) -> dict[str, Any]:
    """What was asked of the labels and what they are, as measured."""
    return {
        "asked_rate": (spec.noise or {}).get("rate"),
        "redrawn": spec.noise is not None and noises.KINDS[spec.noise["kind"]].redrawn,
        "noise_rate_full": data.noise_rate_full,
        "noise_rate_train": data.noise_rate_train,
        "noise_rate_val": data.noise_rate_val,
        "labels_hash": data.labels_hash,
        # What a method that asks for the rate is told where nobody can measure it.
        "estimated_rate": data.info.estimated_noise_rate if data.noise_rate_train is None else None,
        "num_train": len(data.labels),
        "num_val": 0 if data.val_labels is None else len(data.val_labels),
        "num_test": len(data.test_labels),
        "variant": data.variant,
        "checksums": data.checksums,
    }


def _graphs(context: Context, protocol: Protocol) -> bool:
    """Whether steps are replayed: on a GPU, and not what torch.compile has made.

    By default only of our own models: in these Python decides nothing from step to step, which a graph would not see.
    """
    if context.device.type != "cuda" or protocol.compile:
        return False
    return "/" not in protocol.model if context.cuda_graphs is None else context.cuda_graphs


def environment(context: Context, protocol: Protocol) -> dict[str, Any]:
    """Versions, hardware and the code that ran."""
    device = context.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else processor()
    return {
        "nlbench": version("nlbench"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": version("numpy"),
        "platform": platform.platform(terse=True),
        "device": device.type,
        "device_name": name,
        "threads": protocol.threads,
        "precision": protocol.precision,
        "compile": protocol.compile,
        "cuda_graphs": _graphs(context, protocol),
        "jobs": context.jobs,
        "ops": ops.backend(device),
    }


def processor() -> str:
    """The CPU's name as the system gives it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
