"""Protocol."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, ValidationError, ValidationInfo, field_validator

from nlbench.errors import SuiteError, did_you_mean, in_words
from nlbench.plan.presets import PRESETS
from nlbench.plan.schedules import SCHEDULE_KINDS, FrozenModel, Schedule


def merge_values(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` on top of `base`; of a schedule single values, unless `over` names its kind and so gives it whole."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        if isinstance(old, dict) and isinstance(value, dict) and "kind" not in value:
            merged[key] = {**old, **value}
        else:
            merged[key] = value
    return merged


FIXED_KEYS = ("name", "version")  # of the preset


class Protocol(FrozenModel):
    """A fully resolved protocol. SGD is the optimiser of all of them."""

    name: str
    version: int
    model: str
    epochs: int = Field(ge=1, le=1_000_000)
    batch_size: int = Field(ge=2, le=1_000_000)  # the last, shorter batch of an epoch is kept
    lr: float = Field(gt=0)
    momentum: float = Field(ge=0, lt=1)
    nesterov: bool = False
    weight_decay: float = Field(ge=0)
    schedule: Schedule
    # crop-flip: pixels: 4 zero pixels around, a random crop, a random flip; files: a random crop of the resized image,
    # a random flip. flip: a random flip alone, of a file's centre.
    augment: Literal["crop-flip", "flip", "none"]
    resize: int = Field(default=0, ge=0, le=4096)  # short side of files' images in pixels; 0 leaves them as they are
    crop: int = Field(default=0, ge=0, le=4096)  # side of what a network sees of a file; 0: the dataset is no files
    weights: str = ""  # what networks start from: "" random, "imagenet", "sha256:..." of a file
    batches_per_epoch: int = Field(default=0, ge=0, le=10_000_000)  # balanced by given label; 0: every example once
    val_fraction: float = Field(default=0.0, ge=0, lt=1)  # of all training images, held out with their noisy labels
    subset: int = Field(default=0, ge=0)  # training images kept, stratified; 0 keeps all
    stratify: Literal["clean", "given"] = "given"  # the labels that split and subset keep in proportion
    # auto is bfloat16 on hardware that has it, else float32; a run's key holds the one it stands for.
    precision: Literal["float32", "bfloat16", "auto"]
    compile: bool = False  # full batches of a training through torch.compile: the same up to rounding
    threads: int = Field(
        ge=1, le=1024
    )  # CPU threads of a run: part of the numbers, since they change the order of sums

    @field_validator("nesterov")
    @classmethod
    def _has_momentum(cls, value: bool, info: ValidationInfo) -> bool:
        if value and info.data.get("momentum") == 0:
            raise ValueError("must be false where momentum is 0")
        return value

    def factor(self, position: float) -> float:
        """Return the factor on the learning rate at `position`, in epochs with fractions."""
        return self.schedule.factor(position, self.epochs, self.lr)

    def identity(self) -> dict[str, Any]:
        """Return the values as plain data, as a run's key hashes them."""
        values = self.model_dump(mode="json")

        # Added in version 0.2. Left out when false, so that existing run keys do not change.
        if not self.compile:
            del values["compile"]
        return values


def resolve(name: str, dataset: str, overrides: dict[str, Any] | None = None) -> Protocol:
    """The protocol `name` on `dataset`, with `overrides`; a `schedule` without its `kind` changes single values of it.

    A changed `epochs` scales the schedule's positions, unless the overrides set those too.

    Raises SuiteError for an unknown name or key, a wrong type or a value out of range; a problem a line.
    """
    if name not in PRESETS:
        raise SuiteError(unknown(name))
    _, values, per_dataset = PRESETS[name]
    preset = {**values, **per_dataset.get(dataset, {}), "name": name}
    given = dict(overrides or {})
    problems = [f"{key}: belongs to the preset and cannot be overridden" for key in FIXED_KEYS if key in given]
    given = {key: value for key, value in given.items() if key not in FIXED_KEYS}
    schedule = given.get("schedule")
    own_positions = isinstance(schedule, dict) and not {"kind", "milestones", "period"}.isdisjoint(schedule)
    if isinstance(schedule, dict) and "kind" not in schedule:
        given["schedule"] = {**preset["schedule"], **schedule}
    try:
        protocol = Protocol.model_validate({**preset, **given})
    except ValidationError as error:
        problems += explain(error)
    if problems:
        raise SuiteError("\n".join(problems))
    if protocol.epochs != preset["epochs"] and not own_positions:
        ratio = protocol.epochs / preset["epochs"]
        protocol = protocol.model_copy(update={"schedule": protocol.schedule.scaled(ratio)})
    return protocol


def unknown(name: str) -> str:
    """What to say of a protocol that is none."""
    return f"unknown protocol {name!r}. There are: {', '.join(PRESETS)}.{did_you_mean(name, PRESETS)}"


def explain(error: ValidationError) -> list[str]:
    """A pydantic error about a Protocol in our words, a line per problem: "key: what is wrong"."""
    lines = []
    for problem in error.errors():
        # pydantic puts the chosen schedule's kind into the path; a reader of the suite knows no such key.
        path = [str(part) for part in problem["loc"] if part not in (*SCHEDULE_KINDS, "[key]")]
        message = in_words(problem)
        if problem["type"] == "extra_forbidden":
            model = Protocol if len(path) == 1 else SCHEDULE_KINDS[str(problem["loc"][-2])]
            known = [key for key in model.model_fields if key not in FIXED_KEYS]
            message = f"unknown key. It takes: {', '.join(known)}.{did_you_mean(path[-1], known)}"
        elif path == ["schedule"] and problem["type"] != "union_tag_invalid":
            message = f"must be a mapping with a kind: {', '.join(SCHEDULE_KINDS)}"
        lines.append(f"{'.'.join(path)}: {message}")
    return lines
