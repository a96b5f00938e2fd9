"""The protocols that a suite can name. A preset is one entry here, with its source above it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Preset:
    """A protocol as published, or as set up for nlbench.

    Attributes:
        description: one line for `nlbench list`.
        hardware: on which its precision is meant to run, as `nlbench list` says it.
        values: those of `Protocol` but the name. Raise `version` when a value changes, because a
            run's key has the version in it.
        per_dataset: dataset -> the values that differ on it.
    """

    description: str
    hardware: str
    values: Mapping[str, object]
    per_dataset: Mapping[str, Mapping[str, object]] = field(default_factory=dict)

    @property
    def line(self) -> str:
        """Return version, description, precision and hardware in one line."""
        version, precision = self.values["version"], self.values["precision"]
        return f"v{version}: {self.description} ({precision}: for {self.hardware})"

    def on(self, dataset: str) -> dict[str, Any]:
        """Return the preset's values on a dataset, whatever its imbalance ("cifar100@exp-0.1")."""
        return {**self.values, **self.per_dataset.get(dataset.partition("@")[0], {})}


# --- Values that several presets share ---------------------------------------------------------
# Sections and tables of the papers' codes are gathered in docs/protocols.md.

# All CPUs compute in float32 at the speed of their vector instructions.
_ANY_CPU = "any CPU"
# Without instructions for bfloat16 it is emulated, at a tenth of float32's speed on AVX2.
# `hardware.has_bfloat16` knows which hardware has them.
_GPU = "GPUs that have it"

_ONE_CYCLE = {"kind": "one-cycle"}


def _steps(*milestones: float, gamma: float) -> dict[str, object]:
    """Return a schedule that multiplies the learning rate by gamma at each milestone."""
    return {"kind": "multistep", "milestones": list(milestones), "gamma": gamma}


_SGD: dict[str, object] = {
    "momentum": 0.9,
    "batch_size": 128,
    "precision": "bfloat16",
    "threads": 2,
}

_ADAGRAD: dict[str, object] = {
    **_SGD,
    "optimiser": "adagrad",
    "momentum": 0.0,
    "weight_decay": 0.0,
}

# shengliu66/ELR: ResNet-34, lr 0.02, weight decay 1e-3, batch 128, 45,000 / 5,000 images split by
# clean class, noisy validation labels.
_CIFAR: dict[str, object] = {
    **_SGD,
    "version": 1,
    "model": "resnet34",
    "lr": 0.02,
    "weight_decay": 1e-3,
    "augment": "crop-flip",
    "val_fraction": 0.1,
    "stratify": "clean",
}
_ELR_10: dict[str, object] = {"epochs": 120, "schedule": _steps(40.0, 80.0, gamma=0.01)}
_ELR_100: dict[str, object] = {"epochs": 150, "schedule": _steps(80.0, 120.0, gamma=0.01)}
_ON_100_CLASSES = {"cifar100": _ELR_100, "cifar100n": _ELR_100}

# UCSC-REAL/cifar-10-100n: ResNet-34, lr 0.1, weight decay 5e-4, 100 epochs, x0.1 after 60, all
# 50,000 labels.
_CIFARN: dict[str, object] = {
    **_SGD,
    "version": 1,
    "model": "resnet34",
    "epochs": 100,
    "lr": 0.1,
    "weight_decay": 5e-4,
    "schedule": _steps(60.0, gamma=0.1),
    "augment": "crop-flip",
}

# shengliu66/ELR, ELR_plus/config_webvision.json: lr 0.02, weight decay 5e-4, batch 32, x0.1 at 50
# of 100 epochs.
_WEBVISION: dict[str, object] = {
    **_SGD,
    "version": 1,
    "epochs": 100,
    "lr": 0.02,
    "batch_size": 32,
    "weight_decay": 5e-4,
    "resize": 256,
    "crop": 227,
    "schedule": _steps(50.0, gamma=0.1),
    "augment": "crop-flip",
}

# Our own: no recipe is published for a user's images. 10% of the given labels are held out, to
# select by. One thread, because the processes that decode images need the other cores.
_IMAGES: dict[str, object] = {
    **_SGD,
    "version": 1,
    "epochs": 30,
    "batch_size": 64,
    "weight_decay": 5e-4,
    "schedule": _ONE_CYCLE,
    "augment": "crop-flip",
    "val_fraction": 0.1,
    "threads": 1,
}

# --- The presets -------------------------------------------------------------------------------

PRESETS: dict[str, Preset] = {
    # Our own. One thread: so small a network gains nothing from a second one, and loses much where
    # a core is busy.
    "digits": Preset(
        "scikit-learn's digits, small CNN, 40 epochs: seconds a run",
        _ANY_CPU,
        {
            "version": 1,
            "model": "digits_cnn",
            "epochs": 40,
            "batch_size": 128,
            "lr": 0.05,
            "momentum": 0.9,
            "weight_decay": 5e-4,
            "schedule": _ONE_CYCLE,
            "augment": "none",
            "precision": "float32",
            "threads": 1,
        },
    ),
    # Our own. A batch holds all 500 examples, so that an epoch is a step. lr: about a quarter of
    # where gradient descent on cross entropy stops being stable. epochs: until the classifier has
    # memorised nearly all of 40% wrong labels.
    "linear": Preset(
        "full-batch gradient descent on a linear classifier, 500 steps on gaussians: a second a "
        "run",
        _ANY_CPU,
        {
            "version": 1,
            "model": "linear",
            "epochs": 500,
            "batch_size": 500,
            "lr": 1.0,
            "momentum": 0.0,
            "weight_decay": 0.0,
            "schedule": {"kind": "constant"},
            "augment": "none",
            "precision": "float32",
            "threads": 1,
        },
    ),
    # giorgiop/loss-correction, models.py and experiment.py (Patrini et al., CVPR 2017): network,
    # epochs, batches of 128, Adagrad at Keras' default of 0.01, 10% of the labels held out, and
    # no augmentation.
    "mnist": Preset(
        "the Forward paper's code for MNIST: two dense layers of 128, Adagrad, 40 epochs",
        _ANY_CPU,
        {
            **_ADAGRAD,
            "version": 1,
            "model": "mnist_mlp",
            "epochs": 40,
            "lr": 0.01,
            "schedule": {"kind": "constant"},
            "augment": "none",
            "val_fraction": 0.1,
            "precision": "float32",
            "threads": 1,
        },
    ),
    # The same sources, LSTMModel, with Adagrad at 0.001. The precision is ours.
    "imdb": Preset(
        "the Forward paper's code for IMDB: an LSTM of 512, Adagrad, 50 epochs",
        _GPU,
        {
            **_ADAGRAD,
            "version": 1,
            "model": "imdb_lstm",
            "epochs": 50,
            "lr": 0.001,
            "schedule": {"kind": "constant"},
            "augment": "none",
            "val_fraction": 0.1,
        },
    ),
    # Our own: on the short texts of docs/your-own-texts.md cross entropy memorises nearly all wrong
    # labels. With a learning rate of 0.1 it memorised less than half of them.
    "texts": Preset(
        "texts of your own: a small LSTM, 30 epochs",
        _ANY_CPU,
        {
            **_SGD,
            "version": 1,
            "model": "lstm",
            "epochs": 30,
            "batch_size": 64,
            "lr": 0.5,
            "weight_decay": 0.0,
            "clip_norm": 1.0,
            "schedule": _ONE_CYCLE,
            "augment": "none",
            "val_fraction": 0.1,
            "precision": "float32",
            "threads": 1,
        },
    ),
    # Our own, for frozen features of some 10,000 images or more, with some hundred numbers each.
    "features": Preset(
        "frozen features of a pretrained network: two hidden layers of 256, 20 epochs",
        _ANY_CPU,
        {
            "version": 1,
            "model": "mlp",
            "epochs": 20,
            "batch_size": 256,
            "lr": 0.05,
            "momentum": 0.9,
            "weight_decay": 0.0,
            "schedule": _ONE_CYCLE,
            "augment": "none",
            "precision": "float32",
            "threads": 1,
        },
    ),
    # Our own. docs/benchmarks/features-search.md has the search, by cross entropy alone.
    "cifar10n-features": Preset(
        "CIFAR-10N on features by `nlbench embed`: one hidden layer of 512, 8 epochs",
        _ANY_CPU,
        {
            "version": 1,
            "model": "mlp-width=512-depth=1",
            "epochs": 8,
            "batch_size": 256,
            "lr": 0.4,
            "momentum": 0.9,
            "weight_decay": 5e-4,
            "schedule": _ONE_CYCLE,
            "augment": "none",
            "precision": "float32",
            "threads": 1,
        },
    ),
    # Our own, for tables of some hundred to 100,000 rows. docs/protocols.md has what cross entropy
    # memorises with it.
    "tabular": Preset(
        "a table of your own: two hidden layers of 256, 200 epochs: seconds a run for some hundred "
        "rows",
        _ANY_CPU,
        {
            "version": 1,
            "model": "mlp",
            "epochs": 200,
            "batch_size": 32,
            "lr": 0.02,
            "momentum": 0.9,
            "weight_decay": 0.0,
            "schedule": _ONE_CYCLE,
            "augment": "none",
            "precision": "float32",
            "threads": 1,
        },
    ),
    # shengliu66/ELR: 120 epochs on CIFAR-10, 150 on CIFAR-100.
    "cifar": Preset(
        "ELR's split and schedule: ResNet-34, 45,000 / 5,000, x0.01 twice",
        _GPU,
        {**_CIFAR, **_ELR_10},
        _ON_100_CLASSES,
    ),
    # shengliu66/ELR, config_cifar10.json.
    "cifar-cosine": Preset(
        "cifar with ELR's cosine schedule: warm restarts every 10 epochs, 150 epochs",
        _GPU,
        {
            **_CIFAR,
            "epochs": 150,
            "schedule": {"kind": "cosine-restarts", "period": 10.0, "floor": 0.001},
        },
    ),
    # UCSC-REAL/cifar-10-100n.
    "cifarn": Preset(
        "the CIFAR-N leaderboard's: ResNet-34, lr 0.1, 100 epochs, no validation part",
        _GPU,
        _CIFARN,
    ),
    # Our own, for methods that were tuned at 0.02: a learning rate of 0.1 hurts them.
    "cifarn-02": Preset(
        "cifarn with lr 0.02 and the schedule of cifar",
        _GPU,
        {**_CIFARN, "lr": 0.02, **_ELR_10},
        _ON_100_CLASSES,
    ),
    # The split of the 2022 challenge on CIFAR-N.
    "cifarn-val": Preset(
        "cifarn with 10% held out by noisy label",
        _GPU,
        {**_CIFARN, "val_fraction": 0.1},
    ),
    # Our own. Chosen so that cross entropy memorises within 3 minutes on one core with AVX2: the
    # search is in docs/benchmarks/cifar-cpu-search.md. Version 1 was cnn3, 20,000 images and 20
    # epochs in bfloat16, which takes hours where bfloat16 is emulated.
    "cifar-cpu": Preset(
        "for machines without a GPU: cnn3_slim, 26,666 images, 14 epochs, where CE memorises and "
        "takes at most 3 minutes on one core with AVX2",
        _ANY_CPU,
        {
            **_SGD,
            "version": 2,
            "model": "cnn3_slim",
            "epochs": 14,
            "batch_size": 64,
            "lr": 0.05,
            "weight_decay": 5e-4,
            "schedule": _ONE_CYCLE,
            "augment": "none",
            "subset": 26666,
            "precision": "float32",
            "threads": 1,
        },
    ),
    # Our own: a tenth of the work of cifarn. How it was chosen is in docs/protocols.md.
    "cifar-fast": Preset(
        "for a GPU in a hurry: resnet9, all 50,000 images, 30 epochs",
        _GPU,
        {
            **_SGD,
            "version": 1,
            "model": "resnet9",
            "epochs": 30,
            "lr": 0.05,
            "weight_decay": 5e-4,
            "schedule": _ONE_CYCLE,
            "augment": "crop-flip",
        },
    ),
    # shengliu66/ELR, ELR_plus/config_clothing1m.json, the only complete public recipe. Its balanced
    # subset is drawn once; here it is drawn anew for each epoch, the same for all methods.
    "clothing1m": Preset(
        "ELR+'s recipe: ResNet-50 from ImageNet weights, 15 epochs of 3,000 batches balanced by "
        "given label",
        _GPU,
        {
            **_SGD,
            "version": 1,
            "model": "torchvision/resnet50",
            "weights": "imagenet",
            "epochs": 15,
            "lr": 0.002,
            "batch_size": 64,
            "batches_per_epoch": 3000,
            "weight_decay": 1e-3,
            "resize": 256,
            "crop": 224,
            "schedule": _steps(7.0, gamma=0.1),
            "augment": "crop-flip",
        },
    ),
    # shengliu66/ELR, ELR_plus/config_webvision.json.
    "webvision-mini": Preset(
        "ELR+'s recipe: InceptionResNetV2 from scratch, 227 pixels, 100 epochs",
        _GPU,
        {**_WEBVISION, "model": "timm/inception_resnet_v2"},
    ),
    # The same recipe with the network of later papers.
    "webvision-mini-r50": Preset(
        "webvision-mini with a ResNet-50, as later papers use it",
        _GPU,
        {**_WEBVISION, "model": "torchvision/resnet50"},
    ),
    # pxiangwu/PLC: SGD without momentum, weight decay 1e-3, batch 128, divided by 5 at 50 and 75.
    "animal10n": Preset(
        "PLC's recipe: VGG-19 with batch norm from scratch, flips only, 100 epochs",
        _GPU,
        {
            **_SGD,
            "version": 1,
            "model": "torchvision/vgg19_bn",
            "epochs": 100,
            "lr": 0.1,
            "momentum": 0.0,
            "weight_decay": 1e-3,
            "schedule": _steps(50.0, 75.0, gamma=0.2),
            "augment": "flip",
        },
    ),
    # Our own. The weights were trained on images of 224 pixels.
    "images-224": Preset(
        "a folder of your own: ResNet-50 from ImageNet weights, 224 pixels, 30 epochs",
        _GPU,
        {
            **_IMAGES,
            "model": "torchvision/resnet50",
            "weights": "imagenet",
            "resize": 256,
            "crop": 224,
            "lr": 0.01,
        },
    ),
    # facebookresearch/mae. FINETUNE.md for ViT-Large, and the defaults of main_finetune.py: layer
    # decay, weight decay, and lr as 1e-3 x batch / 256. These defaults alone: warm-up, floor, and
    # drop path 0.1, for which FINETUNE.md has 0.2 with ViT-Large. Ours: the weights (Steiner et
    # al., arXiv:2106.10270), crops and flips alone, and all that our presets for images share.
    "vit-finetune": Preset(
        "a folder of your own: ViT-S/16 from ImageNet-21k weights, AdamW with layer decay, 30 "
        "epochs",
        _GPU,
        {
            **_IMAGES,
            "model": "timm/vit_small_patch16_224.augreg_in21k",
            "model_args": {"drop_path_rate": 0.1},
            "weights": "pretrained",
            "preprocess": "weights",
            "optimiser": "adamw",
            "lr": 2.5e-4,
            "layer_decay": 0.75,
            "momentum": 0.0,
            "weight_decay": 0.05,
            "schedule": {"kind": "warmup-cosine", "warmup": 5.0, "floor": 1e-6},
        },
    ),
    # facebookresearch/mae, FINETUNE.md and main_linprobe.py: length, warm-up, no weight decay, and
    # lr as 0.1 x batch / 256, on features that are normalised without a scale of their own. Ours:
    # SGD in place of LARS, whose batches hold 16,384 images.
    "linear-probe": Preset(
        "a linear classifier on frozen features, which a file holds: 90 epochs",
        _ANY_CPU,
        {
            "version": 1,
            "model": "linear",
            "epochs": 90,
            "batch_size": 256,
            "lr": 0.1,
            "momentum": 0.9,
            "weight_decay": 0.0,
            "schedule": {"kind": "warmup-cosine", "warmup": 10.0},
            "augment": "none",
            "precision": "float32",
            "threads": 1,
        },
    ),
    # Our own. From scratch, because no ImageNet weights fit the CIFAR form of a ResNet.
    "images-32": Preset(
        "a folder of your own, shrunk to 32 pixels: ResNet-18 in its CIFAR form from scratch, 30 "
        "epochs",
        _GPU,
        {**_IMAGES, "model": "resnet18", "resize": 36, "crop": 32, "lr": 0.05},
    ),
}
