"""ONE run, read top to bottom: RunSpec -> RunRecord. The only training loop."""

from __future__ import annotations

import contextlib
import dataclasses
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from nlbench import code_hash as code
from nlbench import hardware, registry
from nlbench.build import build_method
from nlbench.data.decode import Geometry
from nlbench.method import Method, Task
from nlbench.plan.protocol import Protocol
from nlbench.plan.spec import RunSpec
from nlbench.results.record import RunRecord
from nlbench.training import evaluate
from nlbench.training.checkpoint import Checkpoint, restore_state, state_of
from nlbench.training.context import Context
from nlbench.training.epoch import train_epoch
from nlbench.training.evaluate import predict_all
from nlbench.training.helper import Fits, fit_helper
from nlbench.training.images import images_of
from nlbench.training.network import Passes
from nlbench.training.record import make_record
from nlbench.training.run_data import RunData
from nlbench.training.run_state import NO_BAD_STEP, RunState
from nlbench.training.seeding import seeded
from nlbench.training.setup import make_network, make_sgd, own_tensor


def train(spec: RunSpec, data: RunData, context: Context) -> RunRecord:
    """Train, evaluate and record one run, from its checkpoint where there is one.

    A loss that is not finite gives a record with status "diverged". Errors of the method are raised.
    """
    protocol = spec.protocol
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
    code_hash = code.code_hash(file.path, protocol.model, spec.condition.dataset)
    info = data.info
    geometry = Geometry(protocol.resize, protocol.crop)
    images = images_of(data.train_images, info, device, protocol.augment, geometry)
    labels = own_tensor(data.labels, device)
    clean_labels = None if data.clean_labels is None else own_tensor(data.clean_labels, device)
    # What is scored after each epoch: the test set, the noisy validation part, a dataset's further ones.
    parts = {"test": (data.test_images, data.test_labels), **data.scored}
    if data.val_images is not None and data.val_labels is not None:
        parts["val"] = data.val_images, data.val_labels
    scored = {
        name: (images_of(source, info, device, "none", geometry), own_tensor(true, device))
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
        privileged={name: value for name, value in told.items() if value is not None},
    )
    with seeded(spec.seed, "method"):
        method: Method = build_method(registry.load_method(file), spec.params, task).to(device)
    in_shape = images.shape
    passes = Passes()
    networks: list[nn.Module] = [
        make_network(spec, protocol, info.num_classes, in_shape, context, f"init{i}", passes)
        for i in range(method.num_networks)
    ]
    run = RunState(
        task=task,
        seed=spec.seed,
        networks=networks,
        images=images,
        schedule=protocol.factor,
        val_images=scored["val"][0] if "val" in scored else None,
        val_labels=scored["val"][1] if "val" in scored else None,
        epoch_size=epoch_size,
        fit=lambda run, key, loss, epochs: fit_helper(run, key, loss, epochs, spec, context, in_shape, fits),
    )
    fits = Fits({}, 0.0)
    for i, network in enumerate(networks):
        run.optimise(network.parameters(), lambda params: make_sgd(params, protocol), f"network{i}")
    history: list[dict[str, Any]] = []
    seconds = {"prepare": 0.0, "fits": 0.0, "train": 0.0, "evaluate": 0.0}
    memorisation = None if clean_labels is None else evaluate.Memorisation(labels, clean_labels)
    try:
        begun = time.perf_counter()
        with seeded(spec.seed, "prepare"), warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            method.prepare(run)
        said = tuple(str(warning.message) for warning in caught if issubclass(warning.category, UserWarning))
        data = dataclasses.replace(data, warnings=tuple(dict.fromkeys([*data.warnings, *said])))

        checkpoint = Checkpoint(store, store.run_dir(spec.key) / "checkpoint.pt", code_hash, context.checkpoint_seconds)
        seconds["prepare"] = time.perf_counter() - begun - fits.now
        seconds["fits"] = sum(fits.seconds.values())
        first = 0
        if (state := checkpoint.load()) is not None:
            restore_state(state, run, method)
            passes.images = state["passes"]
            history, seconds, first = state["history"], state["seconds"], state["epoch"]
            context.on_resume(first, protocol.epochs)

        for epoch in range(first, protocol.epochs):
            begun = time.perf_counter()
            passes.active = True
            loss = train_epoch(run, method, epoch, memorisation)
            passes.active = False
            if run.bad_step != NO_BAD_STEP:
                raise evaluate.Diverged("the loss is not finite", epoch, run.bad_step)
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
                        **state_of(run, method),
                        "history": history,
                        "seconds": seconds,
                        "passes": passes.images,
                        "epoch": epoch + 1,  # noqa: B023
                    }
                )
    except evaluate.Diverged as error:
        record = make_record(spec, run, method, data, code_hash, history, seconds, context, protocol, diverged=error)
        store.write(record, history)
        return record
    if not torch.equal(task.labels, labels):
        raise RuntimeError("the method wrote to task.labels, which is read only: keep corrected labels in a buffer")

    record = make_record(spec, run, method, data, code_hash, history, seconds, context, protocol)
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


def _predictor(method: Method, run: RunState) -> Callable[[Tensor], Tensor]:
    for network in run.networks:
        network.eval()
    return lambda images: method.predict(run, images)


def _targets(method: Method) -> Tensor | None:
    targets = getattr(method, "targets", None)
    shape = (method.task.num_train, method.task.num_classes)
    return targets if isinstance(targets, Tensor) and targets.shape == shape else None
