"""Protocols: named, versioned presets of everything that is the same for every method of a suite.

They are chosen by how plain cross entropy trains and memorises, and frozen; a changed value is a new version.
No torch here: listing and tables read protocols.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from nlbench.errors import SuiteError, did_you_mean
from nlbench.problems import in_words


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Constant(_Strict):
    """The learning rate stays."""

    kind: Literal["constant"]

    def factor(self, position: float, epochs: int, lr: float) -> float:
        return 1.0

    def scaled(self, ratio: float) -> Constant:
        return self


class MultiStep(_Strict):
    """Times gamma from each milestone on (positions in epochs, as torch's MultiStepLR counts them)."""

    kind: Literal["multistep"]
    milestones: list[float]
    gamma: float = Field(gt=0, le=1)

    def factor(self, position: float, epochs: int, lr: float) -> float:
        return self.gamma ** sum(position >= milestone for milestone in self.milestones)

    def scaled(self, ratio: float) -> MultiStep:
        return self.model_copy(update={"milestones": [m * ratio for m in self.milestones]})


class CosineRestarts(_Strict):
    """Half a cosine from lr to `floor` every `period` epochs, stepped once an epoch (CosineAnnealingWarmRestarts)."""

    kind: Literal["cosine-restarts"]
    period: float = Field(gt=0)
    floor: float = Field(ge=0)  # a learning rate, not a factor

    def factor(self, position: float, epochs: int, lr: float) -> float:
        part = (math.floor(position) % self.period) / self.period
        return (self.floor + (lr - self.floor) * (1 + math.cos(math.pi * part)) / 2) / lr

    def scaled(self, ratio: float) -> CosineRestarts:
        return self.model_copy(update={"period": self.period * ratio})


class OneCycle(_Strict):
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


_KINDS: dict[str, type[BaseModel]] = {
    "constant": Constant,
    "multistep": MultiStep,
    "cosine-restarts": CosineRestarts,
    "one-cycle": OneCycle,
}
_FIXED = ("name", "version")  # of the preset
Schedule = Annotated[Constant | MultiStep | CosineRestarts | OneCycle, Field(discriminator="kind")]


class Protocol(_Strict):
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
        """Factor on the learning rate at `position`, in epochs with fractions."""
        return self.schedule.factor(position, self.epochs, self.lr)


def _elr_schedule(first: float, second: float) -> dict[str, Any]:
    return {"kind": "multistep", "milestones": [first, second], "gamma": 0.01}


# Sources: section and table of the papers' codes as gathered in docs/protocols.md.
_SGD: dict[str, Any] = {"momentum": 0.9, "batch_size": 128, "precision": "bfloat16", "threads": 2}
_CIFAR: dict[str, Any] = {
    # shengliu66/ELR: ResNet-34, lr 0.02, wd 1e-3, batch 128, 45,000 / 5,000 by clean class, validation labels noisy.
    **_SGD, "version": 1, "model": "resnet34", "lr": 0.02, "weight_decay": 1e-3,
    "augment": "crop-flip", "val_fraction": 0.1, "stratify": "clean",
}  # fmt: skip
_CIFARN: dict[str, Any] = {
    # UCSC-REAL/cifar-10-100n: ResNet-34, lr 0.1, wd 5e-4, 100 epochs, x0.1 after 60, all 50,000 labels.
    **_SGD, "version": 1, "model": "resnet34", "epochs": 100, "lr": 0.1, "weight_decay": 5e-4,
    "schedule": {"kind": "multistep", "milestones": [60.0], "gamma": 0.1}, "augment": "crop-flip",
}  # fmt: skip

_WEBVISION: dict[str, Any] = {
    # shengliu66/ELR, ELR_plus/config_webvision.json: lr 0.02, wd 5e-4, batch 32, x0.1 at 50 of 100 epochs.
    **_SGD, "version": 1, "epochs": 100, "lr": 0.02, "batch_size": 32, "weight_decay": 5e-4, "resize": 256, "crop": 227,
    "schedule": {"kind": "multistep", "milestones": [50.0], "gamma": 0.1}, "augment": "crop-flip",
}  # fmt: skip
_IMAGES: dict[str, Any] = {
    # Our own: nobody has published a recipe for your images. 10% of the given labels are held out, to select by.
    **_SGD, "version": 1, "epochs": 30, "batch_size": 64, "weight_decay": 5e-4, "schedule": {"kind": "one-cycle"},
    "augment": "crop-flip", "val_fraction": 0.1,
    "threads": 1,  # the processes that decode need the cores
}  # fmt: skip

# name -> (one line, values, values that differ for a dataset)
PRESETS: dict[str, tuple[str, dict[str, Any], dict[str, dict[str, Any]]]] = {
    "digits": (
        "scikit-learn's digits, small CNN, 40 epochs: seconds a run",
        {
            "version": 1, "model": "digits_cnn", "epochs": 40, "batch_size": 128, "lr": 0.05, "momentum": 0.9,
            "weight_decay": 5e-4, "schedule": {"kind": "one-cycle"}, "augment": "none", "precision": "float32",
            "threads": 1,  # so small a network gains nothing from a second, and loses much where a core is busy
        },
        {},
    ),
    "linear": (
        "full-batch gradient descent on a linear classifier, 500 steps on gaussians: a second a run",
        {
            # Our own. A batch holds all 500 examples, so that an epoch is a step. lr: about a quarter of where gradient
            # descent on cross entropy stops being stable. epochs: until it has memorised nearly all of 40% wrong.
            "version": 1, "model": "linear", "epochs": 500, "batch_size": 500, "lr": 1.0, "momentum": 0.0,
            "weight_decay": 0.0, "schedule": {"kind": "constant"}, "augment": "none", "precision": "float32",
            "threads": 1,
        },
        {},
    ),
    "cifar": (
        "ELR's split and schedule: ResNet-34, 45,000 / 5,000, x0.01 twice",
        {**_CIFAR, "epochs": 120, "schedule": _elr_schedule(40.0, 80.0)},
        {"cifar100": {"epochs": 150, "schedule": _elr_schedule(80.0, 120.0)},
         "cifar100n": {"epochs": 150, "schedule": _elr_schedule(80.0, 120.0)}},
    ),
    "cifar-cosine": (
        "cifar with ELR's cosine schedule: warm restarts every 10 epochs, 150 epochs",
        {**_CIFAR, "epochs": 150, "schedule": {"kind": "cosine-restarts", "period": 10.0, "floor": 0.001}},
        {},
    ),
    "cifarn": ("the CIFAR-N leaderboard's: ResNet-34, lr 0.1, 100 epochs, no validation part", _CIFARN, {}),
    "cifarn-02": (
        "cifarn with lr 0.02 and the schedule of cifar",
        {**_CIFARN, "lr": 0.02, "epochs": 120, "schedule": _elr_schedule(40.0, 80.0)},
        {"cifar100": {"epochs": 150, "schedule": _elr_schedule(80.0, 120.0)},
         "cifar100n": {"epochs": 150, "schedule": _elr_schedule(80.0, 120.0)}},
    ),
    "cifarn-val": ("cifarn with 10% held out by noisy label", {**_CIFARN, "val_fraction": 0.1}, {}),
    "cifar-cpu": (
        "for machines without a GPU: cnn3, 20,000 images, 20 epochs, in the regime where CE memorises",
        {
            **_SGD, "version": 1, "model": "cnn3", "epochs": 20, "lr": 0.05, "weight_decay": 5e-4,
            "schedule": {"kind": "one-cycle"}, "augment": "none", "subset": 20000, "threads": 1,
        },
        {},
    ),
    "cifar-fast": (
        "for a GPU in a hurry: resnet9, all 50,000 images, 30 epochs",
        {
            **_SGD, "version": 1, "model": "resnet9", "epochs": 30, "lr": 0.05, "weight_decay": 5e-4,
            "schedule": {"kind": "one-cycle"}, "augment": "crop-flip",
        },
        {},
    ),
    "clothing1m": (
        "ELR+'s recipe: ResNet-50 from ImageNet weights, 15 epochs of 3,000 batches balanced by given label",
        {
            # shengliu66/ELR, ELR_plus/config_clothing1m.json, the only complete public recipe. Its balanced subset is
            # drawn once; here anew for each epoch, the same for all methods.
            **_SGD, "version": 1, "model": "torchvision/resnet50", "weights": "imagenet", "epochs": 15, "lr": 0.002,
            "batch_size": 64, "batches_per_epoch": 3000, "weight_decay": 1e-3, "resize": 256, "crop": 224,
            "schedule": {"kind": "multistep", "milestones": [7.0], "gamma": 0.1}, "augment": "crop-flip",
        },
        {},
    ),
    "webvision-mini": (
        "ELR+'s recipe: InceptionResNetV2 from scratch, 227 pixels, 100 epochs",
        {**_WEBVISION, "model": "timm/inception_resnet_v2"},
        {},
    ),
    "webvision-mini-r50": (
        "webvision-mini with a ResNet-50, as later papers use it",
        {**_WEBVISION, "model": "torchvision/resnet50"},
        {},
    ),
    "animal10n": (
        "PLC's recipe: VGG-19 with batch norm from scratch, flips only, 100 epochs",
        {
            # pxiangwu/PLC: SGD without momentum, wd 1e-3, batch 128, divided by 5 at 50 and 75.
            **_SGD, "version": 1, "model": "torchvision/vgg19_bn", "epochs": 100, "lr": 0.1, "momentum": 0.0,
            "weight_decay": 1e-3, "schedule": {"kind": "multistep", "milestones": [50.0, 75.0], "gamma": 0.2},
            "augment": "flip",
        },
        {},
    ),
    "images-224": (
        "a folder of your own: ResNet-50 from ImageNet weights, 224 pixels, 30 epochs",
        {**_IMAGES, "model": "torchvision/resnet50", "weights": "imagenet", "resize": 256, "crop": 224, "lr": 0.01},
        {},
    ),
    "images-32": (
        "a folder of your own, shrunk to 32 pixels: ResNet-18 in its CIFAR form from scratch, 30 epochs",
        {**_IMAGES, "model": "resnet18", "resize": 36, "crop": 32, "lr": 0.05},
        {},
    ),
}  # fmt: skip


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
    problems = [f"{key}: belongs to the preset and cannot be overridden" for key in _FIXED if key in given]
    given = {key: value for key, value in given.items() if key not in _FIXED}
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
        path = [str(part) for part in problem["loc"] if part not in (*_KINDS, "[key]")]
        message = in_words(problem)
        if problem["type"] == "extra_forbidden":
            model = Protocol if len(path) == 1 else _KINDS[str(problem["loc"][-2])]
            known = [key for key in model.model_fields if key not in _FIXED]
            message = f"unknown key. It takes: {', '.join(known)}.{did_you_mean(path[-1], known)}"
        elif path == ["schedule"] and problem["type"] != "union_tag_invalid":
            message = f"must be a mapping with a kind: {', '.join(_KINDS)}"
        lines.append(f"{'.'.join(path)}: {message}")
    return lines
