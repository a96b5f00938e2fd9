"""The learning rate's schedules. `factor` is what the base learning rate is multiplied by."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from itertools import pairwise
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator


class FrozenModel(BaseModel):
    """Finite values without unknown keys, which cannot be changed after they are made."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Constant(FrozenModel):
    """The learning rate stays as it is."""

    kind: Literal["constant"]

    def factor(self, position: float, epochs: int, lr: float) -> float:
        """Return 1.

        Args:
            position: in epochs, with fractions.
            epochs: of the whole training.
            lr: the base learning rate.
        """
        return 1.0

    def scaled(self, ratio: float) -> Constant:
        """Return the schedule for a training that is `ratio` times as long."""
        return self


class MultiStep(FrozenModel):
    """The learning rate is multiplied by gamma at each milestone, in epochs.

    The same as torch's MultiStepLR.
    """

    kind: Literal["multistep"]
    milestones: list[float]
    gamma: float = Field(gt=0, le=1)

    def factor(self, position: float, epochs: int, lr: float) -> float:
        """Return gamma to the power of the number of milestones that lie behind."""
        return self.gamma ** sum(position >= milestone for milestone in self.milestones)

    def scaled(self, ratio: float) -> MultiStep:
        """Return the schedule with its milestones moved by `ratio`."""
        return self.model_copy(update={"milestones": [m * ratio for m in self.milestones]})


class Stages(FrozenModel):
    """The learning rate is one of `rates` from each of `starts` on, in epochs.

    Before the first it is the base learning rate. Unlike that of MultiStep it may rise, and be 0.

    Attributes:
        rates: learning rates, not factors; one for each of `starts`.
    """

    kind: Literal["stages"]
    starts: list[float] = Field(min_length=1)
    rates: list[Annotated[float, Field(ge=0)]]

    @field_validator("starts")
    @classmethod
    def _rise(cls, values: list[float]) -> list[float]:
        if any(later <= earlier for earlier, later in pairwise(values)):
            raise ValueError("must rise from one to the next")
        return values

    @field_validator("rates")
    @classmethod
    def _one_each(cls, values: list[float], info: ValidationInfo) -> list[float]:
        starts = info.data.get("starts")
        if starts is not None and len(values) != len(starts):
            raise ValueError(f"must have a rate for each of the {len(starts)} starts")
        return values

    def factor(self, position: float, epochs: int, lr: float) -> float:
        """Return the factor of the last stage that has begun."""
        begun = sum(position >= start for start in self.starts)
        return self.rates[begun - 1] / lr if begun else 1.0

    def scaled(self, ratio: float) -> Stages:
        """Return the schedule with its stages moved by `ratio`."""
        return self.model_copy(update={"starts": [start * ratio for start in self.starts]})


class CosineRestarts(FrozenModel):
    """Half a cosine from the base learning rate to `floor` every `period` epochs.

    Changes once per epoch. The same as torch's CosineAnnealingWarmRestarts.

    Attributes:
        floor: a learning rate, not a factor.
    """

    kind: Literal["cosine-restarts"]
    period: float = Field(gt=0)
    floor: float = Field(ge=0)

    def factor(self, position: float, epochs: int, lr: float) -> float:
        """Return the factor of the epoch that `position` is in."""
        part = (math.floor(position) % self.period) / self.period
        return (self.floor + (lr - self.floor) * (1 + math.cos(math.pi * part)) / 2) / lr

    def scaled(self, ratio: float) -> CosineRestarts:
        """Return the schedule with as many restarts in a training `ratio` times as long."""
        return self.model_copy(update={"period": self.period * ratio})


class OneCycle(FrozenModel):
    """A cosine up to the base learning rate, then one down to nearly 0.

    The first rises from lr / start_div over the share `rise` of the training, the second falls to
    lr / (start_div * end_div). Changes with every step. The same as torch's OneCycleLR that leaves
    the momentum alone (Smith & Topin 2019, arXiv:1708.07120).
    """

    kind: Literal["one-cycle"]
    rise: float = Field(default=0.3, gt=0, lt=1)
    start_div: float = Field(default=25.0, ge=1)
    end_div: float = Field(default=1e4, ge=1)

    def factor(self, position: float, epochs: int, lr: float) -> float:
        """Return the factor at `position` of `epochs`."""
        part = min(position / epochs, 1.0)
        low, end = 1 / self.start_div, 1 / (self.start_div * self.end_div)

        if part < self.rise:
            return low + (1 - low) * (1 - math.cos(math.pi * part / self.rise)) / 2
        fallen = (part - self.rise) / (1 - self.rise)
        return end + (1 - end) * (1 + math.cos(math.pi * fallen)) / 2

    def scaled(self, ratio: float) -> OneCycle:
        """Return the same schedule, whose positions are shares of the training."""
        return self


class WarmupCosine(FrozenModel):
    """A straight line up to the base learning rate, then half a cosine down to `floor`.

    Changes with every step. The same as torch's SequentialLR of LinearLR and CosineAnnealingLR, and
    as timm's cosine schedule with `t_in_epochs` off.

    Attributes:
        warmup: the length of the line in epochs, with fractions. 0 leaves it out.
        start: the factor that the line begins with.
        floor: a learning rate, not a factor.
    """

    kind: Literal["warmup-cosine"]
    warmup: float = Field(ge=0)
    start: float = Field(default=0.01, gt=0, le=1)
    floor: float = Field(default=0.0, ge=0)

    def factor(self, position: float, epochs: int, lr: float) -> float:
        """Return the factor at `position` of `epochs`. A warm-up as long as that never falls."""
        if position < self.warmup:
            return self.start + (1 - self.start) * position / self.warmup
        if self.warmup >= epochs:
            return 1.0

        part = min((position - self.warmup) / (epochs - self.warmup), 1.0)
        low = self.floor / lr
        return low + (1 - low) * (1 + math.cos(math.pi * part)) / 2

    def scaled(self, ratio: float) -> WarmupCosine:
        """Return the schedule with its warm-up stretched by `ratio`."""
        return self.model_copy(update={"warmup": self.warmup * ratio})


SCHEDULE_KINDS: dict[str, type[BaseModel]] = {
    "constant": Constant,
    "multistep": MultiStep,
    "stages": Stages,
    "cosine-restarts": CosineRestarts,
    "one-cycle": OneCycle,
    "warmup-cosine": WarmupCosine,
}
Schedule = Annotated[
    Constant | MultiStep | Stages | CosineRestarts | OneCycle | WarmupCosine,
    Field(discriminator="kind"),
]


def factor_of(schedule: Schedule, epochs: int, lr: float) -> Callable[[float], float]:
    """Return the factor on the learning rate as a function of the position, in epochs.

    Args:
        epochs: of the whole training.
        lr: the base learning rate.
    """
    return functools.partial(schedule.factor, epochs=epochs, lr=lr)
