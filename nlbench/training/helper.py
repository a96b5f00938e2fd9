"""Helper networks, which a method has trained with `run.fit` before or during its own training."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import math
import time
from collections.abc import Callable, Iterator
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from nlbench import code_hash, streams
from nlbench.data import stratified
from nlbench.method import Batch, HelperLoss, Method, Run, Task
from nlbench.plan.protocol import Protocol
from nlbench.plan.spec import RunSpec, key_of
from nlbench.results.lock import hold
from nlbench.results.store import Store
from nlbench.training.checkpoint import Checkpoint
from nlbench.training.context import At, FitHeld, Listener, RunOptions
from nlbench.training.epoch import train_epoch
from nlbench.training.evaluate import Diverged, predict_all
from nlbench.training.images import TrainingImages
from nlbench.training.network import Passes
from nlbench.training.optimisers import optimiser_of
from nlbench.training.pulse import Pulse, current
from nlbench.training.run_state import RunState
from nlbench.training.saver import Saver
from nlbench.training.setup import make_network

POLL_SECONDS = 0.5
KEEPS = ("best", "best-accuracy", "last")


@dataclasses.dataclass(frozen=True)
class Wanted:
    """The helper network that a method asks for. The attributes are the arguments of `Run.fit`."""

    key: str
    loss: HelperLoss
    epochs: int
    examples: Tensor | None = None
    held_out: Tensor | None = None
    keep: Literal["best", "best-accuracy", "last"] = "best"
    scores: Callable[[Tensor], Tensor] | None = None
    paced: bool = False
    start: nn.Module | None = None

    def __post_init__(self) -> None:
        if self.keep not in KEEPS:
            raise ValueError(f"run.fit: keep must be one of {list(KEEPS)}, got {self.keep!r}")
        if self.scores is not None:
            self._check_scores()
        if self.paced and self.loss == "ce":
            raise ValueError('run.fit: paced is for a loss of your own, but the loss is "ce"')
        for name in ("examples", "held_out"):
            index = getattr(self, name)
            if index is None:
                continue
            if index.dtype != torch.int64:
                raise ValueError(
                    f"run.fit: {name} must be positions, int64, got {index.dtype}; "
                    "of a mask take mask.nonzero().squeeze(1)"
                )
            if not len(index):
                raise ValueError(f"run.fit: {name} holds no position; leave it out to use all")

    def _check_scores(self) -> None:
        if self.keep != "best-accuracy":
            raise ValueError(
                f'run.fit: scores is for keep="best-accuracy", but keep is {self.keep!r}'
            )
        # A result for "ce" is shared by all methods, and its key does not know their functions.
        if self.loss == "ce":
            raise ValueError('run.fit: scores is for a loss of your own, but the loss is "ce"')

    def changes(self) -> dict[str, Any]:
        """Return, for a key, the choices that are not the defaults."""
        found: dict[str, Any] = {}
        for name in ("examples", "held_out"):
            index = getattr(self, name)
            if index is not None:
                positions = index.cpu().to(torch.int64).numpy().tobytes()
                found[name] = hashlib.sha256(positions).hexdigest()[:16]
        if self.keep != "best":
            found["keep"] = self.keep
        if self.paced:
            found["paced"] = True
        # A function of the method's own, as the loss is. Its code and hyperparameters are in a key.
        if self.scores is not None:
            found["scores"] = True
        if self.start is not None:
            found["start"] = digest_of_weights(self.start)
        return found

    def loss_at(self, epoch: int) -> Callable[[Tensor, Batch], Tensor]:
        """Return the loss of an epoch, a function of (logits, batch)."""
        if self.loss == "ce":
            return _cross_entropy
        if self.paced:
            return functools.partial(_paced, self.loss, epoch)
        return self.loss

    def rank(self, epoch: int, loss: float, accuracy: float) -> float:
        """Return how much the weights after `epoch` are preferred, from what the validation found.

        Weights that diverged have the lowest rank, -inf, and are never kept.
        """
        if not math.isfinite(loss):
            return -math.inf
        if self.keep == "last":
            return float(epoch)
        return accuracy if self.keep == "best-accuracy" else -loss


class HelperNetworks:
    """Trains the helper networks of one run, or reads what an earlier run has left in the store.

    Attributes:
        seconds: the training time of each helper network that was used, by its key, whenever it
            was trained.
        seconds_now: the time spent on training helper networks in this process.
    """

    def __init__(self, spec: RunSpec, options: RunOptions, store: Store, listener: Listener):
        self.seconds: dict[str, float] = {}
        self.seconds_now = 0.0
        self._spec = spec
        self._options = options
        self._store = store
        self._listener = listener

    def fit(
        self, state: RunState, key: str, loss: HelperLoss, epochs: int, **choices: Any
    ) -> nn.Module:
        """Return a helper network in evaluation mode; see `Run.fit`.

        It is trained under the run's protocol, with the schedule stretched to `epochs`.

        Raises: FitHeld if another process trains it and the options say not to wait; Diverged.
        """
        # The network is made anew even where the result exists: only its weights are in the store.
        entered = time.perf_counter()
        spec, images = self._spec, state.images
        network = make_network(
            spec, self._options, state.task, images.shape, f"fit-{key}", Passes()
        )

        wanted = Wanted(key, loss, epochs, **choices)
        if wanted.start is not None:
            begin_with(network, wanted.start)
        fit_key = self._fit_key(wanted)
        path = self._store.root / "fits" / f"{fit_key}.pt"
        result = Checkpoint(self._store, path, {"helper": fit_key, "state": "trained"})

        # Another process may be training it, or may have done so while this one waited.
        while (saved := result.load()) is None:
            with hold(path.with_suffix(".lock"), leftovers=f".{fit_key}*.tmp") as mine:
                if mine and not path.exists():
                    self._train(state, wanted, network, result)
                    self.seconds_now += time.perf_counter() - entered
            if not mine:
                if not self._options.wait:
                    raise FitHeld
                time.sleep(POLL_SECONDS)

        network.load_state_dict(saved["network"])
        self.seconds[fit_key] = saved["seconds"]
        return network.eval()

    def _report(self, at: At) -> None:
        self._listener.on_step(self._spec, at)

    def _fit_key(self, wanted: Wanted) -> str:
        """Return the name of the result in the store: a hash of everything that it depends on."""
        spec = self._spec
        identity = spec.identity()
        method_file = self._options.methods[spec.method].path

        # A helper network with the common loss depends on no method, so all methods share it. One
        # with another loss depends on the code and the hyperparameters of its method.
        shared = wanted.loss == "ce"
        if shared:
            del identity["method"], identity["params"]
            identity.pop("told", None)
            identity.pop("strong_views", None)
        code = code_hash.code_hash(
            None if shared else method_file, spec.protocol.model, spec.condition.dataset
        )
        asked = {"fit": wanted.key, "epochs": wanted.epochs, **wanted.changes()}
        return key_of({**identity, **asked, "code": code})

    def _train(
        self, state: RunState, wanted: Wanted, network: nn.Module, result: Checkpoint
    ) -> None:
        """Train a helper network, and save the weights kept and the seconds it took in `result`."""
        epochs = wanted.epochs
        protocol = stretched(self._spec.protocol, epochs)
        # It depends on the run's seed and the key alone, so that methods that share the network get
        # the same one.
        seed = streams.derive(self._spec.seed, "fit", wanted.key)

        # ---- What it is trained on, and validated on ------------------------------------------
        kept, held_images, held_labels = hold_out(state, seed, wanted)
        task = helper_task(state, epochs, int(kept.sum()))
        method = HelperMethod(task, wanted.loss_at, kept)
        own = RunState(
            task=task,
            seed=seed,
            networks=[network],
            images=state.images,
            schedule=protocol.factor,
            epoch_size=state.epoch_size,
        )
        own.clip_norm = protocol.clip_norm
        own.gives_strong = state.gives_strong
        own.pulse = Pulse("helper network", self._report, self._listener, epochs)
        own.optimise(network.parameters(), optimiser_of(protocol, [network]), "network0")

        # ---- Where it goes on ------------------------------------------------------------------
        best: dict[str, Any] = {"rank": -math.inf, "network": {}}
        seconds, first = 0.0, 0
        going = Checkpoint(
            self._store,
            result.path.with_suffix(".going.pt"),
            {**result.tag, "state": "in training"},
            self._options.checkpoint_seconds,
        )
        saver = Saver(going, self._options, self._listener, own.pulse)
        if (saved := saver.load()) is not None:
            method.load_state_dict(saved["method"])
            own.load_state_dict(saved)
            best, seconds, first = saved["best"], saved["seconds"], saved["epoch"]

        # ---- Epochs ----------------------------------------------------------------------------
        with current(own.pulse), saver:
            for epoch in range(first, epochs):
                parts = {"method": method.state_dict(), **own.state_dict()}
                parts |= {"best": best, "seconds": seconds, "epoch": epoch}
                saver.begin_epoch(epoch, parts)

                began = time.perf_counter()
                mean = train_epoch(own, method, epoch, saver=saver)
                held_loss, accuracy = loss_and_accuracy(
                    network, wanted, epoch, held_images, held_labels
                )
                rank = wanted.rank(epoch, held_loss, accuracy)
                if rank > best["rank"]:
                    best = {"rank": rank, "network": _copy_of_weights(network)}
                seconds += time.perf_counter() - began + saver.take_earlier_seconds()

                metrics = {"epoch": epoch, "loss": mean, "held_loss": held_loss}
                self._listener.on_fit(self._spec, epoch, epochs, metrics)
            saver.close()

        # ---- Result ----------------------------------------------------------------------------
        # No epoch had a finite loss on the held-out labels.
        if not best["network"]:
            step = min(own.bad_step, own.step - 1)
            message = f"the loss of the helper network {wanted.key!r} is not finite"
            raise Diverged(message, step // task.steps_per_epoch, step)
        result.save({"network": best["network"], "seconds": seconds})
        going.path.unlink(missing_ok=True)


class HelperMethod(Method):
    """Trains with a given loss on the examples that are not held out.

    Args:
        loss_at: returns the loss of an epoch, a function of (logits, batch).
        kept: (N,) bool, false for the examples that are held out.
    """

    def __init__(
        self, task: Task, loss_at: Callable[[int], Callable[[Tensor, Batch], Tensor]], kept: Tensor
    ):
        super().__init__(task)
        self._loss_at, self._given, self._kept = loss_at, loss_at(0), kept

    def on_epoch_start(self, run: Run, epoch: int) -> None:
        self._given = self._loss_at(epoch)

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        return self._given(logits, batch)

    def batches(self, run: Run, epoch: int) -> Iterator[Batch]:
        order = run.order()
        for index in order[self._kept[order]].split(run.task.batch_size):
            yield run.batch(index)


def stretched(protocol: Protocol, epochs: int) -> Protocol:
    """Return the protocol for a training of `epochs` epochs, with its schedule stretched."""
    schedule = protocol.schedule.scaled(epochs / protocol.epochs)
    return protocol.model_copy(update={"epochs": epochs, "schedule": schedule})


def helper_task(state: RunState, epochs: int, num_kept: int) -> Task:
    """Return the task of a helper network that trains on `num_kept` of the run's examples."""
    task = state.task
    # An epoch has about the share of its examples that is not held out.
    drawn = state.examples_per_epoch * num_kept // task.num_train
    return Task(
        num_train=task.num_train,
        num_classes=task.num_classes,
        labels=task.labels,
        epochs=epochs,
        steps_per_epoch=-(-drawn // task.batch_size),
        batch_size=task.batch_size,
        device=task.device,
    )


def hold_out(state: RunState, seed: int, wanted: Wanted) -> tuple[Tensor, TrainingImages, Tensor]:
    """Return a mask (N,) bool of the examples to train on, and images and labels to validate on.

    Validation is on the examples that are wanted for it, or on the validation part or, if there is
    none, on 10% of the training examples. The mask leaves them out. Labels are the given ones.
    """
    task = state.task
    kept = torch.ones(task.num_train, dtype=torch.bool, device=task.device)
    if wanted.examples is not None:
        kept.zero_()
        kept[wanted.examples] = True

    if wanted.held_out is not None:
        kept[wanted.held_out] = False
        if not kept.any():
            raise ValueError("run.fit: held_out holds all examples, so that none is trained on")
        held_images = state.images.subset(wanted.held_out.cpu().numpy())
        return kept, held_images, task.labels[wanted.held_out]
    if state.val_images is not None and state.val_labels is not None:
        return kept, state.val_images, state.val_labels

    rng = streams.rng(seed, "holdout")
    sizes = (round(0.1 * task.num_train),)
    (held,) = stratified.split(task.labels.cpu().numpy(), sizes, rng)
    kept[held] = False
    return kept, state.images.subset(held), task.labels[held]


def loss_and_accuracy(
    network: nn.Module, wanted: Wanted, epoch: int, images: TrainingImages, labels: Tensor
) -> tuple[float, float]:
    """Return mean loss and accuracy of a network in training, on images without augmentation.

    Raises: ValueError if `wanted.scores` does not return scores (n, C).
    """
    logits = predict_all(network, images)

    # The loss may depend on logits and labels alone. So the batch holds no images, and its index
    # holds no positions of training examples.
    index = torch.arange(len(labels), device=labels.device)
    batch = Batch(Tensor(), labels, index, lambda index, k: Tensor())
    loss = float(wanted.loss_at(epoch)(logits, batch).mean())

    scores = logits if wanted.scores is None else wanted.scores(logits)
    if scores.shape != logits.shape:
        raise ValueError(
            f"run.fit: scores must return {tuple(logits.shape)}, as the logits have, "
            f"but returned {tuple(scores.shape)}"
        )
    return loss, float((scores.argmax(1) == labels).double().mean())


def begin_with(network: nn.Module, start: nn.Module) -> None:
    """Copy the weights of `start` to `network`.

    Raises: ValueError for a `start` with other weights than `network` has.
    """
    try:
        network.load_state_dict(start.state_dict())
    except RuntimeError as error:
        raise ValueError(
            "run.fit: start must be one of run.networks or a network that run.fit returned, "
            f"but its weights do not fit the protocol's model: {error}"
        ) from error


def digest_of_weights(network: nn.Module) -> str:
    """Return 16 hex digits that stand for the weights and averages of a network."""
    digest = hashlib.sha256()
    for name, value in network.state_dict().items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def _copy_of_weights(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in network.state_dict().items()}


def _paced(loss: Callable[..., Tensor], epoch: int, logits: Tensor, batch: Batch) -> Tensor:
    return loss(logits, batch, epoch)


def _cross_entropy(logits: Tensor, batch: Batch) -> Tensor:
    return functional.cross_entropy(logits, batch.labels)
