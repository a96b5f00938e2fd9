"""Presets."""

from __future__ import annotations

from typing import Any


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
