"""Schedules."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class FrozenModel(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Constant(FrozenModel):
    """The learning rate stays."""

    kind: Literal["constant"]

    def factor(self, position: float, epochs: int, lr: float) -> float:
        return 1.0

    def scaled(self, ratio: float) -> Constant:
        return self


class MultiStep(FrozenModel):
    """Times gamma from each milestone on (positions in epochs, as torch's MultiStepLR counts them)."""

    kind: Literal["multistep"]
    milestones: list[float]
    gamma: float = Field(gt=0, le=1)

    def factor(self, position: float, epochs: int, lr: float) -> float:
        return self.gamma ** sum(position >= milestone for milestone in self.milestones)

    def scaled(self, ratio: float) -> MultiStep:
        return self.model_copy(update={"milestones": [m * ratio for m in self.milestones]})


class CosineRestarts(FrozenModel):
    """Half a cosine from lr to `floor` every `period` epochs, stepped once an epoch (CosineAnnealingWarmRestarts)."""

    kind: Literal["cosine-restarts"]
    period: float = Field(gt=0)
    floor: float = Field(ge=0)  # a learning rate, not a factor

    def factor(self, position: float, epochs: int, lr: float) -> float:
        part = (math.floor(position) % self.period) / self.period
        return (self.floor + (lr - self.floor) * (1 + math.cos(math.pi * part)) / 2) / lr

    def scaled(self, ratio: float) -> CosineRestarts:
        return self.model_copy(update={"period": self.period * ratio})


class OneCycle(FrozenModel):
    """A cosine from lr / start_div up to lr over the share `rise`, then down to lr / (start_div * end_div), each step.

    OneCycleLR of torch with its momentum left alone (Smith & Topin 2019, arXiv:1708.07120).
    """

    kind: Literal["one-cycle"]
    rise: float = Field(default=0.3, gt=0, lt=1)
    start_div: float = Field(default=25.0, ge=1)
    end_div: float = Field(default=1e4, ge=1)

    def factor(self, position: float, epochs: int, lr: float) -> float:
        part = min(position / epochs, 1.0)
        low, end = 1 / self.start_div, 1 / (self.start_div * self.end_div)
        if part < self.rise:
            return low + (1 - low) * (1 - math.cos(math.pi * part / self.rise)) / 2
        return end + (1 - end) * (1 + math.cos(math.pi * (part - self.rise) / (1 - self.rise))) / 2

    def scaled(self, ratio: float) -> OneCycle:
        return self


SCHEDULE_KINDS: dict[str, type[BaseModel]] = {
    "constant": Constant,
    "multistep": MultiStep,
    "cosine-restarts": CosineRestarts,
    "one-cycle": OneCycle,
}
Schedule = Annotated[Constant | MultiStep | CosineRestarts | OneCycle, Field(discriminator="kind")]
