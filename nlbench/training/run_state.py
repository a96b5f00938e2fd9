"""The state of a run during training.

Methods see it through the interface `method.Run`; the rest of it is for nlbench alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from nlbench import streams
from nlbench.contract import returned
from nlbench.data import stratified
from nlbench.errors import MethodError
from nlbench.method import Batch, HelperLoss, Run, Schedule, Task
from nlbench.training.evaluate import predict_all
from nlbench.training.images import TrainingImages
from nlbench.training.network import Network, Passes
from nlbench.training.pulse import Pulse

Factory = Callable[[Iterable[Any]], torch.optim.Optimizer]

# A step number that no run reaches, so that the first bad step is a minimum.
NO_BAD_STEP = 2**62

# In place of a strong view that the run's key says nothing about.
_STRONG_UNSEEN = (
    "batch.strong was called, and this run's key has no version of strong views, because nlbench "
    "did not find the call in the method's code"
)
_STRONG_FIX = (
    "call batch.strong(k) in a function of the method's class, and hand the view on to the code "
    "that uses it"
)


class RunState(Run):
    """The implementation of `Run`, with the images, optimisers and losses that it works on.

    Attributes (besides those of `Run`):
        seed: the run's seed. All draws come from streams of this seed.
        images: the training images, augmented as the protocol says.
        val_images: the images of the validation part, or None.
        val_labels: (n,) int64, the noisy labels of the validation part, or None.
        epoch_size: number of examples in an epoch, or 0 for all.
        clip_norm: the protocol's bound on the norm of the gradients, or 0 for none.
        optimisers: registered optimisers by name.
        replaced: names of optimisers that were registered a second time.
        passes: counts the images that the networks see in the steps.
        pulse: reports the steps. To nobody, until it is replaced.
        settle: called after a hook, with the hook's name, to put back what it has changed in the
            process. Does nothing until it is replaced.
        bad_step: the first step whose loss was not finite, or NO_BAD_STEP. Set by `take_loss`.
        steps_taken: the number of steps of each optimiser in this epoch, by name.
        stepping: whether `backward_step` is stepping optimisers at this moment.
        losses: (step, loss (1,)) of each `backward_step` since the last call of `take_loss`.
        settled: returns whether the process has the settings that `settle` would put back.
        skipping: whether batches are drawn that no step will use, so that none is decoded.
        put_off: None, or a list that `backward_step` adds the names of optimisers to, in place of
            stepping them.
        gives_strong: whether batches may be asked for strong views. A run whose key does not have
            their version must not use them, since its record would not say how they were made.

    Args:
        schedule: the protocol's factor on the learning rate.
        fit: trains a helper network, with the arguments of `Run.fit`; None if helper networks
            cannot be trained here.
    """

    seed: int
    images: TrainingImages
    val_images: TrainingImages | None
    val_labels: Tensor | None
    epoch_size: int
    clip_norm: float
    optimisers: dict[str, torch.optim.Optimizer]
    replaced: set[str]
    passes: Passes
    pulse: Pulse
    settle: Callable[[str], None]
    bad_step: int
    steps_taken: dict[str, int]
    stepping: bool
    losses: list[tuple[int, Tensor]]
    settled: Callable[[], bool]
    skipping: bool
    put_off: list[str] | None
    gives_strong: bool

    def __init__(
        self,
        *,
        task: Task,
        seed: int,
        networks: list[nn.Module],
        images: TrainingImages,
        schedule: Schedule,
        val_images: TrainingImages | None = None,
        val_labels: Tensor | None = None,
        fit: Callable[..., nn.Module] | None = None,
        epoch_size: int = 0,
        passes: Passes | None = None,
    ):
        self.task = task
        self.networks = networks
        self.epoch = 0
        self.step = 0

        self.seed = seed
        self.images = images
        self.val_images = val_images
        self.val_labels = val_labels
        self.epoch_size = epoch_size
        self.clip_norm = 0.0
        self.optimisers = {}
        self._factory: Factory | None = None
        self.replaced = set()
        self.passes = passes or Passes()
        self.pulse = Pulse()
        self.settle = lambda hook: None
        self.settled = lambda: True
        self.skipping = False
        self.put_off = None
        self.bad_step = NO_BAD_STEP
        self.gives_strong = True
        self._fit = fit

        self.steps_taken = {}
        self.stepping = False

        # By name of the optimiser: its schedule, and the learning rates of its parameter groups
        # before any schedule.
        self._schedule = schedule
        self._schedules: dict[str, Schedule] = {}
        self._base_rates: dict[str, list[float]] = {}

        # Augmentation draws of the epoch `_draws_epoch`, by view.
        self._draws: dict[int | str, Tensor] = {}
        self._draws_epoch = -1
        # The strong views that batches of this epoch were asked for.
        self._strong_views: set[int] = set()

        self.losses = []

        # What a method has added to these later is its own.
        self._names = {id(owner): frozenset(vars(owner)) for owner in (self, task)}

    # ---- Examples -------------------------------------------------------------------------------

    def order(self) -> Tensor:
        # The generator is a stream of this epoch: a resumed run draws the same order, and no draw
        # of a method can shift it.
        rng = streams.rng(self.seed, "order", self.epoch)
        if self.epoch_size:
            order = stratified.balanced(self.task.labels.cpu().numpy(), self.epoch_size, rng)
        else:
            order = rng.permutation(self.task.num_train)
        return torch.from_numpy(order).to(self.task.device)

    def part(self) -> Tensor | None:
        return self.order().sort().values if self.epoch_size else None

    def batch(self, index: Tensor, *views: int) -> Batch:
        # Image files are decoded from here on, while earlier batches are trained on. Views that the
        # method does not name are decoded only if it looks at them, and strong views in advance
        # once it has looked at one.
        requested: dict[int, Callable[[], Tensor]] = {}
        requested_strong: dict[int, Callable[[], Tensor]] = {}
        if not self.skipping:
            views, strong_views = views or (0,), tuple(sorted(self._strong_views))
            found = self.images.request_views(
                index, [self.draws(k) for k in views], [self._strong_draws(k) for k in strong_views]
            )
            requested = dict(zip(views, found[0], strict=True))
            requested_strong = dict(zip(strong_views, found[1], strict=True))

        def view(index: Tensor, k: int) -> Tensor:
            if k in requested:
                return requested.pop(k)()
            return self.images.augmented(index, self.draws(k))

        def strong(index: Tensor, k: int) -> Tensor:
            if not self.gives_strong:
                raise MethodError(_STRONG_UNSEEN, _STRONG_FIX)
            # The following batches of this epoch will probably be asked for it, too.
            self._strong_views.add(k)
            if k in requested_strong:
                return requested_strong.pop(k)()
            return self.images.strong(index, *self._strong_draws(k))

        labels = self.task.labels[index]
        return Batch(lambda: view(index, 0), labels, index, view, strong)

    def _strong_draws(self, view: int) -> tuple[Tensor, int]:
        """Return what the images take for a strong view: draws, and the seed of its policy."""
        seed = streams.derive(self.seed, "augment", self.epoch, f"policy{view}")
        return self.draws(f"strong{view}"), seed

    def draws(self, view: int | str) -> Tensor:
        """Return this epoch's augmentation draws of a view, one for each training example."""
        # Drawn for all examples at once: a draw belongs to an example and not to its place in a
        # batch, so a method with other batches sees the same augmented images.
        if self._draws_epoch != self.epoch:
            self._draws, self._draws_epoch = {}, self.epoch
        if view not in self._draws:
            rng = streams.rng(self.seed, "augment", self.epoch, view)
            self._draws[view] = self.images.draws(rng)
        return self._draws[view]

    # ---- Random numbers -------------------------------------------------------------------------

    def generator(self, name: str) -> torch.Generator:
        generator = torch.Generator()
        generator.manual_seed(streams.derive(self.seed, "method", name, self.epoch))
        return generator

    # ---- Networks and optimisers ----------------------------------------------------------------

    def optimise(
        self,
        params: Iterable[Any],
        factory: Factory | None,
        name: str,
        schedule: Schedule | None = None,
    ) -> torch.optim.Optimizer:
        if factory is None:
            assert self._factory is not None
            factory = self._factory
        # The first one that is registered is the protocol's, for the first network.
        self._factory = self._factory or factory
        optimiser = factory(params)
        if name in self.optimisers:
            self.replaced.add(name)

        self.optimisers[name] = optimiser
        self._schedules[name] = schedule or self._schedule
        self._base_rates[name] = [float(group["lr"]) for group in optimiser.param_groups]
        return optimiser

    def restart_schedule(self, name: str, start: int) -> None:
        epochs = self.task.epochs
        if name not in self.optimisers:
            known = list(self.optimisers)
            raise ValueError(f"restart_schedule: no optimiser {name!r}; registered: {known}")
        if not 0 <= start < epochs:
            raise ValueError(f"restart_schedule: start must be in [0, {epochs}), got {start}")

        whole, stretch = self._schedule, epochs / (epochs - start)
        self._schedules[name] = lambda position: whole(max(0.0, position - start) * stretch)

    def forward(self, network: nn.Module, images: Tensor) -> Tensor:
        # A method may have a network that nlbench did not make.
        if isinstance(network, Network):
            return network.replay(images)
        logits: Tensor = network(images)
        return logits

    def backward_step(
        self, loss: Tensor, *names: str, through: tuple[Tensor, Tensor] | None = None
    ) -> None:
        chosen = [name for name in self.optimisers if not names or name in names]
        unknown = set(names) - set(chosen)
        if unknown:
            known = list(self.optimisers)
            raise ValueError(f"backward_step: no optimiser {sorted(unknown)}; registered: {known}")
        loss = returned.loss_of_step(loss, through)

        for name in chosen:
            self.optimisers[name].zero_grad(set_to_none=True)
        # An op with a step form has computed the gradient already, so autograd need not go through
        # the loss.
        if through is None:
            loss.backward()
        else:
            logits, dlogits = through
            logits.backward(dlogits)

        if self.put_off is None:
            self.step_optimisers(chosen)
        else:
            self.put_off += chosen

        # Read back once per epoch. Reading it here would make every step wait for the GPU.
        self.losses.append((self.step, loss.detach().reshape(1)))

    def step_optimisers(self, names: Iterable[str]) -> None:
        """Step these optimisers, with clipped gradients and the rates of their schedules."""
        self.stepping = True
        try:
            for name in names:
                self.count_step(name)
                if self.clip_norm:
                    self._clip(self.optimisers[name])
                self.optimisers[name].step()
        finally:
            self.stepping = False

    def _clip(self, optimiser: torch.optim.Optimizer) -> None:
        """Scale the gradients of all parameters of an optimiser to the norm `clip_norm` at most."""
        weights = [weight for group in optimiser.param_groups for weight in group["params"]]
        # It decides on the device whether to scale, so that it can be a part of a captured step.
        nn.utils.clip_grad_norm_(weights, self.clip_norm)

    def count_step(self, name: str) -> None:
        """Set the learning rates for the next step of an optimiser, and count that step."""
        # Each optimiser has a count, because a method may step one more often than another. With
        # more steps than in the default plan, the rate stays at that of the epoch's end.
        taken = self.steps_taken.get(name, 0)
        self.steps_taken[name] = taken + 1

        groups, rates = self.optimisers[name].param_groups, self._rates(name, taken)
        for group, rate in zip(groups, rates, strict=True):
            group["lr"] = rate

    def rates_of_epoch(self, name: str) -> tuple[float, ...] | None:
        """Return an optimiser's learning rates, one a group, or None if they change in the epoch.

        In the default plan of this epoch, that is.
        """
        found = {self._rates(name, taken) for taken in range(self.task.steps_per_epoch)}
        return found.pop() if len(found) == 1 else None

    def _rates(self, name: str, taken: int) -> tuple[float, ...]:
        """Return an optimiser's learning rates after so many of its steps in this epoch."""
        position = self.epoch + min(taken / self.task.steps_per_epoch, 1.0)
        factor = self._schedules[name](position)
        return tuple(base * factor for base in self._base_rates[name])

    def fit(self, key: str, loss: HelperLoss, epochs: int, **choices: Any) -> nn.Module:
        if self._fit is None:
            raise RuntimeError("this run cannot fit helper networks")
        return self._fit(self, key, loss, epochs, **choices)

    # ---- Predictions ----------------------------------------------------------------------------

    @torch.no_grad()
    def predict_train(self, network: nn.Module, index: Tensor | None = None) -> Tensor:
        images = self.images if index is None else self.images.subset(index.cpu().numpy())
        return predict_all(network, images)

    def validate(self, network: nn.Module) -> float | None:
        if self.val_images is None or self.val_labels is None:
            return None
        predicted = predict_all(network, self.val_images).argmax(1)
        return float((predicted == self.val_labels).float().mean())

    # ---- For the training loop ------------------------------------------------------------------

    @property
    def examples_per_epoch(self) -> int:
        """The number of training examples in this run's epochs."""
        return self.epoch_size or self.task.num_train

    def unsaved(self) -> dict[str, Any]:
        """Return what steps may depend on and `state_dict` does not hold."""
        found: dict[str, Any] = {
            "replaced": sorted(self.replaced),
            "rates": self._base_rates,
            "schedules": self._schedules,
        }
        for owner in (self, self.task):
            known = self._names[id(owner)]
            for name, value in vars(owner).items():
                if name not in known and name != "_names":
                    found[f"{type(owner).__name__}.{name}"] = value
        return found

    def begin_epoch(self, epoch: int) -> None:
        """Set the epoch. The schedules go on at its beginning."""
        self.epoch = epoch
        self.steps_taken = {}
        self._strong_views.clear()

    def take_loss(self) -> float:
        """Return the mean loss since the last call, 0 if there was none.

        Sets `bad_step` if one of the losses was not finite.
        """
        if not self.losses:
            return 0.0

        steps, losses = zip(*self.losses, strict=True)
        self.losses = []
        values = torch.cat(losses).tolist()

        # Add one by one: since Python 3.12 sum() compensates rounding, so recorded losses would
        # depend on the Python version.
        total = 0.0
        for step, value in zip(steps, values, strict=True):
            total += value
            if not math.isfinite(value):
                self.bad_step = min(self.bad_step, step)
        return total / len(values)

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint holds of networks, optimisers and counts."""
        return {
            "networks": [network.state_dict() for network in self.networks],
            "optimisers": {name: one.state_dict() for name, one in self.optimisers.items()},
            "step": self.step,
            "passes": self.passes.images,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned, into networks and optimisers of the same names."""
        for network, weights in zip(self.networks, state["networks"], strict=True):
            network.load_state_dict(weights)
        for name, optimiser in self.optimisers.items():
            optimiser.load_state_dict(state["optimisers"][name])
        self.step = state["step"]
        self.passes.images = state["passes"]
