"""Helper."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from nlbench import code_hash, streams
from nlbench.data import stratified
from nlbench.method import Batch, HelperLoss, Method, Run, Task
from nlbench.plan.protocol import Protocol
from nlbench.plan.spec import RunSpec, key_of
from nlbench.results.lock import hold
from nlbench.training import evaluate
from nlbench.training.checkpoint import Checkpoint, restore_state, state_of
from nlbench.training.context import Context, FitHeld
from nlbench.training.epoch import train_epoch
from nlbench.training.evaluate import predict_all
from nlbench.training.network import Network, Passes
from nlbench.training.run_state import RunState
from nlbench.training.setup import make_network, make_sgd


@dataclass
class Fits:
    """Helper networks a run used: seconds that training each took, whenever that was, and those spent in this run."""

    seconds: dict[str, float]
    now: float


class HelperMethod(Method):
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


def fit_helper(
    run: RunState,
    key: str,
    loss: HelperLoss,
    epochs: int,
    spec: RunSpec,
    context: Context,
    in_shape: tuple[int, ...],
    fits: Fits,
) -> nn.Module:
    """See Run.fit. Trains under the spec's protocol, stretched to `epochs`; or reads what an earlier run left."""
    protocol = spec.protocol.model_copy(
        update={
            "epochs": epochs,
            "schedule": spec.protocol.schedule.scaled(epochs / spec.protocol.epochs),
        }
    )
    identity, method_file = spec.identity(), context.methods[spec.method].path
    if loss == "ce":  # depends on no method: theirs to share
        identity = {k: v for k, v in identity.items() if k not in ("method", "params")}
    hashed = code_hash.code_hash(
        None if loss == "ce" else method_file, protocol.model, spec.condition.dataset
    )
    fit_key = key_of({**identity, "fit": key, "epochs": epochs, "code": hashed})
    path = context.store.root / "fits" / f"{fit_key}.pt"
    task = run.task
    network = make_network(spec, protocol, task.num_classes, in_shape, context, f"fit-{key}", Passes())
    entered = time.perf_counter()
    done = Checkpoint(context.store, path, fit_key, 0.0)
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
    run: RunState,
    key: str,
    loss: HelperLoss,
    protocol: Protocol,
    spec: RunSpec,
    context: Context,
    network: Network,
    done: Checkpoint,
) -> None:
    """Train a helper network and leave its best weights, and the seconds it took, in `done`."""
    task, device, epochs = run.task, run.task.device, protocol.epochs
    loss_of: Callable[[Tensor, Batch], Tensor] = _cross_entropy if loss == "ce" else loss
    seed = streams.derive(spec.seed, "fit", key)
    if run.val_images is not None and run.val_labels is not None:
        kept = torch.ones(task.num_train, dtype=torch.bool, device=device)
        held_images, held_labels = run.val_images, run.val_labels
    else:
        kept = torch.ones(task.num_train, dtype=torch.bool, device=device)
        (held,) = stratified.split(
            task.labels.cpu().numpy(), (round(0.1 * task.num_train),), streams.rng(seed, "holdout")
        )
        kept[held] = False
        held_images, held_labels = run.images.subset(held), task.labels[held]
    drawn = (run.epoch_size or task.num_train) * int(kept.sum()) // task.num_train  # an epoch, about
    steps = -(-drawn // task.batch_size)
    helper_task = Task(task.num_train, task.num_classes, task.labels, epochs, steps, task.batch_size, device)
    helper = HelperMethod(helper_task, loss_of, kept)
    sub = RunState(
        task=helper_task,
        seed=seed,
        networks=[network],
        images=run.images,
        schedule=protocol.factor,
        epoch_size=run.epoch_size,
    )
    sub.optimise(network.parameters(), lambda params: make_sgd(params, protocol), "network0")
    going = Checkpoint(context.store, done.path.with_suffix(".going.pt"), done.tag, context.checkpoint_seconds)
    best: dict[str, Any] = {"loss": float("inf"), "network": {}}
    seconds, first = 0.0, 0
    if (state := going.load()) is not None:
        restore_state(state, sub, helper)
        best, seconds, first = state["best"], state["seconds"], state["epoch"]
    held_batch = Batch(Tensor(), held_labels, torch.arange(len(held_labels), device=device), lambda index, k: Tensor())
    for epoch in range(first, epochs):
        begun = time.perf_counter()
        mean = train_epoch(sub, helper, epoch)
        held_loss = float(loss_of(predict_all(network, held_images), held_batch).mean())
        if held_loss < best["loss"]:
            weights = {name: value.detach().clone() for name, value in network.state_dict().items()}
            best = {"loss": held_loss, "network": weights}
        seconds += time.perf_counter() - begun
        context.on_fit(epoch, epochs, {"epoch": epoch, "loss": mean, "held_loss": held_loss})
        going.save_if_due(
            lambda: {**state_of(sub, helper), "best": best, "seconds": seconds, "epoch": epoch + 1}  # noqa: B023
        )
    if not best["network"]:
        bad = min(sub.bad_step, sub.step - 1)
        epoch = bad // helper_task.steps_per_epoch
        raise evaluate.Diverged(f"the loss of the helper network {key!r} is not finite", epoch, bad)
    done.save({"network": best["network"], "seconds": seconds})
    going.path.unlink(missing_ok=True)


def _cross_entropy(logits: Tensor, batch: Batch) -> Tensor:
    return functional.cross_entropy(logits, batch.labels)
