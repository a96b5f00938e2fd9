"""Everything a method may see: its Task, a Batch, the Run, and the base class Method."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from nlbench import streams
from nlbench.data import stratified

Schedule = Callable[[float], float]  # position in epochs, fractions included -> factor on the learning rate


@dataclass
class Task:
    """What a method knows when it is built.

    Attributes:
        num_train: N, examples in the training part; `index` counts in [0, N).
        num_classes: C.
        labels: (N,) int64, the given, possibly wrong labels of the training part. Read only.
        epochs: length of the training.
        steps_per_epoch: batches an epoch in the protocol's own plan.
        batch_size: the protocol's.
        device: where networks and batches are.
    """

    num_train: int
    num_classes: int
    labels: Tensor
    epochs: int
    steps_per_epoch: int
    batch_size: int
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    _told: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def noise_rate(self) -> float:
        """Fraction of wrong labels in the training part; only for a method that declares it in `told`.

        As measured; where nobody knows the true labels, the dataset's published estimate.
        """
        return self._tell("noise_rate")

    @property
    def T(self) -> Tensor:
        """(C, C) float64, measured T[i, j] = P(noisy j | clean i); only for a method that declares it in `told`."""
        return self._tell("T")

    def _tell(self, name: str) -> Any:
        if name not in self._told:
            raise AttributeError(f"this method was not told {name}: declare it with `told = ({name!r},)`")
        return self._told[name]

    def scaled(self, epochs: float, of: float) -> int:
        """A constant that its paper states in epochs, at the same share of this training.

        `task.scaled(40, of=200)` is 40 in a training of 200 epochs, 8 in one of 40; at least 1, at most `epochs`.
        """
        return min(self.epochs, max(1, round(epochs * self.epochs / of)))


class Batch:
    """Some training examples.

    Attributes:
        labels: (B,) int64, the given labels.
        index: (B,) int64, positions in the training part, without repeats.
    """

    def __init__(
        self,
        images: Tensor | Callable[[], Tensor],
        labels: Tensor,
        index: Tensor,
        views: Callable[[Tensor, int], Tensor],
        strong: Callable[[Tensor, int], Tensor] | None = None,
    ):
        self._images, self.labels, self.index = images, labels, index
        self._views, self._strong = views, strong or views

    @property
    def images(self) -> Tensor:
        """(B, ...) float, augmented and normalised: view 0. Images that are files may still be waited for here."""
        if not isinstance(self._images, Tensor):
            self._images = self._images()
        return self._images

    def view(self, k: int) -> Tensor:
        """The same examples under the k-th augmentation draw of this epoch; view(0) is `images`."""
        return self.images if k == 0 else self._views(self.index, k)

    def strong(self, k: int = 0) -> Tensor:
        """The same examples under the k-th strong draw of this epoch: the protocol's crop and flip, AutoAugment's
        CIFAR-10 policy, and cutout of half the side. Examples that are no uint8 images come as they are.
        """
        return self._strong(self.index, k)

    def __len__(self) -> int:
        return len(self.index)


HelperLoss = Literal["ce"] | Callable[[Tensor, Batch], Tensor]


class Run:
    """What a method may touch of the harness. Built by `nlbench.training`; holds no clean label and no test image.

    Attributes:
        task: the method's Task.
        networks: `num_networks` networks, (B, ...) -> (B, C) float32 logits under the protocol's precision.
        epoch, step: counted from 0; `step` counts batches over the whole run.
    """

    def __init__(
        self,
        *,
        task: Task,
        seed: int,
        networks: list[nn.Module],
        images: Any,
        schedule: Schedule,
        val_images: Any = None,
        val_labels: Tensor | None = None,
        fit: Callable[[Run, str, HelperLoss, int], nn.Module] | None = None,
        epoch_size: int = 0,
    ):
        self.task, self.networks = task, networks
        self.epoch, self.step = 0, 0
        self._seed, self._images, self._schedule = seed, images, schedule
        self._val_images, self._val_labels, self._fit = val_images, val_labels, fit
        self._optimisers: dict[str, torch.optim.Optimizer] = {}
        self._replaced: set[str] = set()  # names that were registered again
        self._schedules: dict[str, Schedule] = {}
        self._base_rates: dict[str, list[float]] = {}
        self._taken: dict[str, int] = {}  # steps of each optimiser in this epoch
        self._epoch_size = epoch_size
        self._views: dict[int | str, Tensor] = {}  # augmentation draws of this epoch, by view
        self._views_epoch = -1
        self._losses: list[tuple[int, Tensor]] = []  # (step, loss) since the last look at them
        self._bad_step = _NEVER  # the first whose loss was not finite

    def generator(self, name: str) -> torch.Generator:
        """A CPU generator from (seed, name, epoch). The same name in the same epoch starts the same stream again."""
        generator = torch.Generator()
        generator.manual_seed(streams.derive(self._seed, "method", name, self.epoch))
        return generator

    def order(self) -> Tensor:
        """int64 on the device: this epoch's order of the training examples, the same for every method.

        All N of them; where the protocol gives an epoch fewer, that many, balanced by given label, drawn anew.
        """
        rng = streams.rng(self._seed, "order", self.epoch)
        if self._epoch_size:
            order = stratified.balanced(self.task.labels.cpu().numpy(), self._epoch_size, rng)
        else:
            order = rng.permutation(self.task.num_train)
        return torch.from_numpy(order).to(self.task.device)

    def batch(self, index: Tensor, *views: int) -> Batch:
        """The training examples at `index` (B,) int64, augmented by this epoch's draws, which belong to the example.

        Args:
            views: those that will be looked at, by default view 0. Any can be; files of these are decoded ahead.
        """
        begun = {k: self._images.request(index, self._draws(k)) for k in views or (0,)}

        def view(index: Tensor, k: int) -> Tensor:
            return begun.pop(k)() if k in begun else self._augmented(index, k)

        return Batch(lambda: view(index, 0), self.task.labels[index], index, view, self._strengthened)

    def _augmented(self, index: Tensor, view: int) -> Tensor:
        return self._images.augmented(index, self._draws(view))

    def _strengthened(self, index: Tensor, view: int) -> Tensor:
        seed = streams.derive(self._seed, "augment", self.epoch, f"policy{view}")
        return self._images.strong(index, self._draws(f"strong{view}"), seed)

    def _draws(self, view: int | str) -> Tensor:
        if self._views_epoch != self.epoch:
            self._views, self._views_epoch = {}, self.epoch
        if view not in self._views:
            self._views[view] = self._images.draws(streams.rng(self._seed, "augment", self.epoch, view))
        return self._views[view]

    def optimise(
        self,
        params: Iterable[Any],
        factory: Callable[[Iterable[Any]], torch.optim.Optimizer],
        name: str,
        schedule: Schedule | None = None,
    ) -> torch.optim.Optimizer:
        """Register `factory(params)` under `name`: scheduled, checkpointed, stepped by `backward_step`.

        The harness registers the networks' own optimisers as "network0", "network1", ... before `prepare`;
        registering a name again replaces it, which the record says and tables mark. `schedule` maps the position in
        epochs to a factor on the learning rates the factory set; the default is the protocol's schedule. An optimiser's
        position within an epoch counts its own steps, so that two networks trained one after the other each go through
        the whole schedule.
        """
        optimiser = factory(params)
        if name in self._optimisers:
            self._replaced.add(name)
        self._optimisers[name] = optimiser
        self._schedules[name] = schedule or self._schedule
        self._base_rates[name] = [float(group["lr"]) for group in optimiser.param_groups]
        return optimiser

    def backward_step(self, loss: Tensor, *names: str, through: tuple[Tensor, Tensor] | None = None) -> None:
        """Zero the gradients, differentiate, set the learning rates and step the optimisers `names` (default: all).

        Args:
            loss: 0-d; its mean over the epoch is reported, and where it is not finite the run ends as diverged.
            through: (logits, dlogits), a gradient that is known already: the backward pass starts at `logits`.
        """
        chosen = [name for name in self._optimisers if not names or name in names]
        unknown = set(names) - set(chosen)
        if unknown:
            raise ValueError(f"backward_step: no optimiser {sorted(unknown)}; registered: {list(self._optimisers)}")
        for name in chosen:
            self._optimisers[name].zero_grad(set_to_none=True)
        if through is None:
            loss.backward()
        else:
            through[0].backward(through[1])
        for name in chosen:
            taken = self._taken.get(name, 0)
            position = self.epoch + min(taken / self.task.steps_per_epoch, 1.0)
            self._taken[name] = taken + 1
            optimiser, factor = self._optimisers[name], self._schedules[name](position)
            for group, base in zip(optimiser.param_groups, self._base_rates[name], strict=True):
                group["lr"] = base * factor
            optimiser.step()
        self._losses.append((self.step, loss.detach().reshape(1)))  # looked at once an epoch: no waiting for the device

    def _begin_epoch(self, epoch: int) -> None:
        self.epoch, self._taken = epoch, {}

    def _take_loss(self) -> float:
        """Mean loss since the last call; sets `_bad_step` where one was not finite."""
        if not self._losses:
            return 0.0
        steps, losses = zip(*self._losses, strict=True)
        self._losses = []
        values, total = torch.cat(losses).tolist(), 0.0
        for step, value in zip(steps, values, strict=True):
            total += value  # one after the other, as sum() does in some versions of Python and not in others
            if not math.isfinite(value):
                self._bad_step = min(self._bad_step, step)
        return total / len(values)

    def part(self) -> Tensor | None:
        """(n,) int64 ascending positions of the examples in this epoch's order; None where they are all there."""
        return self.order().sort().values if self._epoch_size else None

    @torch.no_grad()
    def predict_train(self, network: nn.Module, index: Tensor | None = None) -> Tensor:
        """(N, C) float32 logits of `network` on the training examples, evaluation mode, no augmentation.

        Args:
            index: (n,) positions, of which alone it is then (n, C).
        """
        images = self._images if index is None else self._images.subset(index.cpu().numpy())
        return predict_all(network, images)

    def validate(self, network: nn.Module) -> float | None:
        """Accuracy in [0, 1] of `network` on the noisy labels of the validation part, or None where there is none."""
        if self._val_images is None or self._val_labels is None:
            return None
        predicted = predict_all(network, self._val_images).argmax(1)
        return float((predicted == self._val_labels).float().mean())

    def fit(self, key: str, loss: HelperLoss, epochs: int) -> nn.Module:
        """Train a helper network from fresh weights; it is in evaluation mode when returned.

        Keeps the weights with the lowest validation loss: on the protocol's validation part, else on 10% of the
        training examples held out from this fit. Kept beside the records under `key` together with all that its
        result depends on; its seconds count for each run that uses it.

        Args:
            loss: "ce", cross entropy with the given labels, whose result all methods with this `key` and length share;
                or a function of (logits, batch), whose result belongs to this method and its hyperparameters. It may
                look at the logits and at batch.labels alone.
        """
        if self._fit is None:
            raise RuntimeError("this run cannot fit helper networks")
        return self._fit(self, key, loss, epochs)


_NEVER = 2**62


def predict_all(network: Callable[[Tensor], Tensor], images: Any, batch_size: int = 500) -> Tensor:
    """(N, C) logits over all of `images`, evaluation mode; a module's mode is put back afterwards."""
    training = network.training if isinstance(network, nn.Module) else False
    if isinstance(network, nn.Module):
        network.eval()
    with torch.no_grad():
        logits = torch.cat([network(images.plain(i, i + batch_size)) for i in range(0, len(images), batch_size)])
    if isinstance(network, nn.Module):
        network.train(training)
    return logits


class Method(nn.Module):
    """A method: a loss, and where it needs more, any part of a training.

    The keyword arguments after `task` are the hyperparameters a suite may set; their annotations give the types and
    the constructor raises ValueError for a value out of range. State with a row per training example is a buffer
    indexed by `batch.index`; a buffer named `targets` (N, C) is scored against the clean labels.

    Attributes:
        told: what the method is given that it could not know: "noise_rate", "T". Tables mark it. A constructor may
            set it on the instance when it depends on a hyperparameter.
        num_networks: networks the harness builds and optimises.
    """

    told: tuple[str, ...] = ()
    num_networks: int = 1

    def __init__(self, task: Task):
        super().__init__()
        self.task = task

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """0-d, or (B,) rows that are then averaged. `logits` (B, C) float32."""
        raise TypeError(f"{type(self).__name__} has neither loss nor training_step")

    # Optional fast form, used when present: (rows (B,), dlogits (B, C), the gradient of the rows' mean).
    loss_and_grad: Callable[[Tensor, Batch], tuple[Tensor, Tensor]] | None = None

    def prepare(self, run: Run) -> None:
        """Before epoch 0, and again before a resume: estimate T, register optimisers, make teachers."""

    def on_epoch_start(self, run: Run, epoch: int) -> None:
        """Mixture fits, pruning, label refresh."""

    def batches(self, run: Run, epoch: int) -> Iterator[Any]:
        """The epoch's plan: what `training_step` gets, a tuple or a single item. Default: run.order(), once.

        Items may be drawn a few steps ahead of their step, so that files are decoded in time: a plan must not depend on
        what the steps of its own epoch change.
        """
        for index in run.order().split(run.task.batch_size):
            yield run.batch(index)

    def training_step(self, run: Run, *item: Any) -> Tensor | None:
        """One whole step. Returns the logits of the item's first Batch for the online counts, or None."""
        batch: Batch = item[0]
        network = run.networks[0]
        logits = getattr(network, "replay", network)(batch.images)  # backward_step follows: nobody calls in between
        if self.loss_and_grad is not None:
            rows, dlogits = self.loss_and_grad(logits.detach(), batch)
            run.backward_step(rows.mean(), through=(logits, dlogits))
        else:
            loss = self.loss(logits, batch)
            run.backward_step(loss.mean())
        return logits

    def on_epoch_end(self, run: Run, epoch: int) -> None:
        """Momentum averages, label memories."""

    def predict(self, run: Run, images: Tensor) -> Tensor:
        """(B, C) logits in evaluation mode. Default: the first network; with two, a method says how they vote."""
        if len(run.networks) > 1:
            raise TypeError(f"{type(self).__name__} has {len(run.networks)} networks: define predict()")
        return run.networks[0](images)
