"""The protocol of a training, which is everything but the method; and from presets to protocols."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, ValidationInfo, field_validator

from nlbench.errors import Problem, SuiteError, in_words, unknown_key, unknown_name
from nlbench.plan.presets import PRESETS
from nlbench.plan.schedules import SCHEDULE_KINDS, FrozenModel, Schedule, WarmupCosine, factor_of

# Keys of a preset that nothing may override.
FIXED_KEYS = ("name", "version")

# Keys that came after runs had been made without them, with the value that those runs had. The
# identity leaves it out, so that their keys do not change. The values are not read from the fields
# below, because another default must give other keys.
_LATER: dict[str, object] = {
    "compile": False,
    "strong": "autoaugment",
    "clip_norm": 0.0,
    "optimiser": "sgd",
    "layer_decay": 1.0,
    "model_args": {},
    "mean": [],
    "std": [],
    # A run's protocol has no other.
    "preprocess": "dataset",
    "memory": "float32",
}

# What belongs to SGD alone.
_OF_SGD: dict[str, object] = {"momentum": 0.0, "nesterov": False}

# What an argument of a model can be.
ModelArgument = bool | int | float | str | list[int | float | str]

# Keys that place a schedule in a training, or choose another one. A schedule with one of them in
# the overrides is meant for the number of epochs there.
_POSITIONS = {"kind", "milestones", "period", "starts", "warmup"}


def merge_values(base: Mapping[str, object], over: Mapping[str, object]) -> dict[str, object]:
    """Return `base` with the values of `over` on top.

    Two schedules are merged value by value, unless the one in `over` names its kind.
    """
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        # Another kind has other keys, so it replaces the old schedule whole.
        if isinstance(old, dict) and isinstance(value, dict) and "kind" not in value:
            merged[key] = {**old, **value}
        else:
            merged[key] = value
    return merged


# --- The protocol ------------------------------------------------------------------------------


class Protocol(FrozenModel):
    """A fully resolved protocol.

    Every value that can change a number is in `identity`, so that this file is no part of the code
    that records are the hash of: what a value does is in files that are.

    Attributes:
        model_args: further arguments of a model of torchvision or timm, for example img_size.
        batch_size: the last, shorter batch of an epoch is kept.
        optimiser: "sgd", "adagrad", or "adamw", which has betas of 0.9 and 0.999, decays weights
            apart from the gradient, and decays neither biases nor the weights of normalisation; see
            `training.optimisers`.
        momentum, nesterov: of SGD. With the others they must be 0 and false.
        layer_decay: the learning rate of a layer is lr x layer_decay ^ (its distance from the
            classifier). 1 gives all layers the same. For models of timm alone, which say in which
            order their layers come.
        clip_norm: before each step of an optimiser, the gradients of all its weights together are
            scaled down to this L2 norm, if theirs is larger. 0 leaves them as they are.
        augment: "crop-flip" for arrays of pixels: a random crop after padding with 4 zero pixels,
            and a random flip; for image files: a random crop of the resized image, and a random
            flip. "reflect-crop-flip", for arrays: the same, padded with the reflection of the
            image, by an eighth of its side. "flip": a random flip alone, of the centre of a file.
            "none".
        strong: the strong augmentation, for methods that ask for one: "autoaugment" with a cutout
            of half the side, as SOP's authors have it; "randaugment-5" or "randaugment-10", as
            DISC's authors have it on CIFAR-10 and on other data. See `Batch.strong`.
        resize: short side of image files in pixels; 0 leaves them as they are.
        crop: side of the part of an image file that a network sees; 0 where the dataset has no
            image files.
        exact_decode: whether image files are decoded in full before they are resized. Otherwise a
            JPEG with at least twice `resize` pixels on the short side is decoded to a half, a
            quarter or an eighth of its sides, which is faster and gives other pixels. They differ
            most at two and four times `resize`, where nothing is left to resize: by 4.2 of 255 in
            the mean and 92 at edges (photographs, docs/your-own-data.md). It says nothing about
            datasets that are no image files.
        mean, std: per channel, of images scaled to [0, 1], in place of the dataset's own. Empty
            for those.
        preprocess: "weights" takes those of mean, std, resize and crop that are empty or 0 from the
            published weights, as their package says them; sizes for image files alone. A run's
            protocol has "dataset" and the numbers.
        weights: what networks start from: "" for random weights; "imagenet"; "pretrained" for those
            that a model's name says, `timm/NAME.TAG`, `hf-hub:OWNER/NAME` or `local-dir:PATH`; or a
            file. In a run's protocol a file is named by its digest, "sha256:...", and the latter
            two are timm/NAME with a file.
        batches_per_epoch: batches of an epoch that are balanced by given label; 0 trains on every
            example once.
        val_fraction: part of all training images that is held out, with the noisy labels.
        subset: training images to keep, stratified; 0 keeps all.
        stratify: the labels whose proportions the split and the subset keep.
        precision: "auto" is bfloat16 on hardware that has it, else float32. A run's protocol never
            has "auto", but the precision of the run.
        memory: the dtype of the soft labels that methods keep of each example, (N, C). A method
            that cannot keep them in bfloat16 or float16 is refused.
        compile: whether full batches of a training go through torch.compile. The results are the
            same up to rounding.
        threads: CPU threads of a run. They are part of the key, because they change the order in
            which sums are taken.
    """

    name: str
    version: int
    model: str
    model_args: dict[str, ModelArgument] = Field(default_factory=dict)
    epochs: int = Field(ge=1, le=1_000_000)
    # Batch norm refuses a batch of one example.
    batch_size: int = Field(ge=2, le=1_000_000)
    optimiser: Literal["sgd", "adamw", "adagrad"] = "sgd"
    lr: float = Field(gt=0)
    layer_decay: float = Field(default=1.0, gt=0, le=1)
    momentum: float = Field(ge=0, lt=1)
    nesterov: bool = False
    weight_decay: float = Field(ge=0)
    clip_norm: float = Field(default=0.0, ge=0)
    schedule: Schedule
    augment: Literal["crop-flip", "reflect-crop-flip", "flip", "none"]
    strong: Literal["autoaugment", "randaugment-5", "randaugment-10"] = "autoaugment"
    resize: int = Field(default=0, ge=0, le=4096)
    crop: int = Field(default=0, ge=0, le=4096)
    exact_decode: bool = False
    mean: list[float] = Field(default_factory=list)
    # Validated also where only mean is given.
    std: list[Annotated[float, Field(gt=0)]] = Field(default_factory=list, validate_default=True)
    preprocess: Literal["dataset", "weights"] = "dataset"
    weights: str = ""
    batches_per_epoch: int = Field(default=0, ge=0, le=10_000_000)
    val_fraction: float = Field(default=0.0, ge=0, lt=1)
    subset: int = Field(default=0, ge=0)
    stratify: Literal["clean", "given"] = "given"
    precision: Literal["float32", "bfloat16", "auto"]
    memory: Literal["float32", "bfloat16", "float16"] = "float32"
    compile: bool = False
    threads: int = Field(ge=1, le=1024)

    @field_validator("momentum")
    @classmethod
    def _is_of_sgd(cls, value: float, info: ValidationInfo) -> float:
        optimiser = info.data.get("optimiser")
        if value and optimiser == "adamw":
            raise ValueError("must be 0 for adamw, which has betas of 0.9 and 0.999 in its place")
        if value and optimiser == "adagrad":
            raise ValueError("must be 0 for adagrad, which has none")
        return value

    @field_validator("nesterov")
    @classmethod
    def _has_momentum(cls, value: bool, info: ValidationInfo) -> bool:
        # torch refuses it too, but only when the first run starts.
        if value and info.data.get("momentum") == 0:
            raise ValueError("must be false where momentum is 0")
        return value

    @field_validator("std")
    @classmethod
    def _one_each(cls, values: list[float], info: ValidationInfo) -> list[float]:
        mean = info.data.get("mean")
        if mean is not None and len(values) != len(mean):
            raise ValueError(f"must have as many values as mean, which has {len(mean)}")
        return values

    @property
    def factor(self) -> Callable[[float], float]:
        """The factor on the learning rate at a position, in epochs with fractions."""
        return factor_of(self.schedule, self.epochs, self.lr)

    def identity(self) -> dict[str, object]:
        """Return the values as plain data, as a run's key hashes them."""
        values = self.model_dump(mode="json")
        for name, earlier in _LATER.items():
            if values[name] == earlier:
                del values[name]
        # `RunSpec.decoding` says it, so that the keys of runs with exact decoding are those that
        # they had before there was another one.
        del values["exact_decode"]
        return values


# --- From a preset to a protocol ---------------------------------------------------------------


def resolve(name: str, dataset: str, overrides: Mapping[str, object] | None = None) -> Protocol:
    """Return the protocol `name` on `dataset`, with `overrides`.

    A `schedule` in the overrides that does not name its `kind` changes single values of the
    preset's. Changing `epochs` scales the schedule's positions, unless the overrides set those too.
    Another `optimiser` leaves out what the preset says of its own, and another `model` the
    preset's `model_args`.

    Raises: SuiteError for an unknown name; with `problems` for every unknown key, wrong type or
        value out of range.
    """
    if name not in PRESETS:
        raise SuiteError(unknown_name("protocol", name, PRESETS))
    preset: dict[str, Any] = {"name": name, **PRESETS[name].on(dataset)}
    given = dict(overrides or {})
    if given.get("optimiser", "sgd") != "sgd" and "optimiser" not in preset:
        preset |= _OF_SGD
    if given.get("model", preset["model"]) != preset["model"]:
        preset.pop("model_args", None)

    problems = []
    for key in FIXED_KEYS:
        if key in given:
            del given[key]
            problems.append(Problem((key,), "belongs to the preset and cannot be overridden"))

    schedule = given.get("schedule")
    sets_positions = isinstance(schedule, dict) and not _POSITIONS.isdisjoint(schedule)
    try:
        protocol = Protocol.model_validate(merge_values(preset, given))
    except ValidationError as error:
        problems += _problems_of(error)
    if problems:
        raise SuiteError(problems=problems)

    # A preset's milestones are meant for the preset's number of epochs.
    if protocol.epochs != preset["epochs"] and not sets_positions:
        ratio = protocol.epochs / preset["epochs"]
        protocol = protocol.model_copy(update={"schedule": protocol.schedule.scaled(ratio)})

    schedule = protocol.schedule
    if isinstance(schedule, WarmupCosine) and schedule.warmup >= protocol.epochs:
        message = f"must be less than the {protocol.epochs} epochs, got {schedule.warmup:g}"
        raise SuiteError(problems=[Problem(("schedule", "warmup"), message)])
    return protocol


def _problems_of(error: ValidationError) -> list[Problem]:
    """Return pydantic's findings about a Protocol as problems, in our words."""
    problems = []
    for detail in error.errors():
        # pydantic puts the chosen schedule's kind into the path. The suite has no such key.
        path = [part for part in detail["loc"] if part not in (*SCHEDULE_KINDS, "[key]")]

        if detail["type"] == "extra_forbidden":
            model = Protocol if len(path) == 1 else SCHEDULE_KINDS[str(detail["loc"][-2])]
            known = [key for key in model.model_fields if key not in FIXED_KEYS]
            message = unknown_key(path[-1], known)
        elif path == ["schedule"] and detail["type"] != "union_tag_invalid":
            message = f"must be a mapping with a kind: {', '.join(SCHEDULE_KINDS)}"
        else:
            message = in_words(detail)
        problems.append(Problem(tuple(path), message))
    return problems
