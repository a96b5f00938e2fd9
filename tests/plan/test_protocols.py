"""Presets are as published, schedules are those of torch, and overrides change single values."""

import itertools
import math
import re
import warnings
from pathlib import Path

import pytest
import torch

from nlbench.errors import SuiteError
from nlbench.plan import presets
from nlbench.plan.protocol import resolve

CIFAR = ("cifar10", "cifar100", "cifar10n", "cifar100n")
ELR10 = {
    "epochs": 120,
    "schedule": {"kind": "multistep", "milestones": [40.0, 80.0], "gamma": 0.01},
}
ELR100 = {
    "epochs": 150,
    "schedule": {"kind": "multistep", "milestones": [80.0, 120.0], "gamma": 0.01},
}
STARTER = {
    "model": "resnet34",
    "lr": 0.1,
    "weight_decay": 5e-4,
    "epochs": 100,
    "val_fraction": 0.0,
    "augment": "crop-flip",
    "schedule": {"kind": "multistep", "milestones": [60.0], "gamma": 0.1},
}
ELR = {
    "model": "resnet34",
    "lr": 0.02,
    "weight_decay": 1e-3,
    "val_fraction": 0.1,
    "stratify": "clean",
    "augment": "crop-flip",
}
COSINE = {"epochs": 150, "schedule": {"kind": "cosine-restarts", "period": 10.0, "floor": 0.001}}
ONE_CYCLE = {"kind": "one-cycle", "rise": 0.3, "start_div": 25.0, "end_div": 1e4}
CPU = {
    "version": 2,
    "precision": "float32",
    "model": "cnn3_slim",
    "epochs": 14,
    "batch_size": 64,
    "lr": 0.05,
    "weight_decay": 5e-4,
    "subset": 26666,
    "augment": "none",
    "schedule": ONE_CYCLE,
}
FAST = {
    "model": "resnet9",
    "epochs": 30,
    "lr": 0.05,
    "weight_decay": 5e-4,
    "subset": 0,
    "val_fraction": 0.0,
    "augment": "crop-flip",
    "schedule": ONE_CYCLE,
}


def with_elrs_steps(values):
    """Add the length and the steps of ELR's authors, which differ for 100 classes."""
    return {
        "cifar10": values | ELR10,
        "cifar10n": values | ELR10,
        "cifar100": values | ELR100,
        "cifar100n": values | ELR100,
    }


# Preset -> dataset -> values.
EXPECTED = {
    "cifar": with_elrs_steps(ELR),
    "cifar-cosine": dict.fromkeys(CIFAR, ELR | COSINE),
    "cifarn": dict.fromkeys(CIFAR, STARTER),
    "cifarn-02": with_elrs_steps(STARTER | {"lr": 0.02}),
    "cifarn-val": dict.fromkeys(CIFAR, STARTER | {"val_fraction": 0.1, "stratify": "given"}),
    "cifar-cpu": dict.fromkeys(CIFAR, CPU),
    "cifar-fast": dict.fromkeys(CIFAR, FAST),
}
CLOTHING1M = {
    "model": "torchvision/resnet50",
    "weights": "imagenet",
    "epochs": 15,
    "lr": 0.002,
    "weight_decay": 1e-3,
    "batch_size": 64,
    "batches_per_epoch": 3000,
    "resize": 256,
    "crop": 224,
    "augment": "crop-flip",
    "schedule": {"kind": "multistep", "milestones": [7.0], "gamma": 0.1},
    "val_fraction": 0.0,
}
WEBVISION = {
    "epochs": 100,
    "lr": 0.02,
    "weight_decay": 5e-4,
    "batch_size": 32,
    "resize": 256,
    "crop": 227,
    "weights": "",
    "schedule": {"kind": "multistep", "milestones": [50.0], "gamma": 0.1},
    "augment": "crop-flip",
}
ANIMAL10N = {
    "model": "torchvision/vgg19_bn",
    "epochs": 100,
    "lr": 0.1,
    "momentum": 0.0,
    "weight_decay": 1e-3,
    "batch_size": 128,
    "augment": "flip",
    "weights": "",
    "resize": 0,
    "crop": 0,
    "val_fraction": 0.0,
    "schedule": {"kind": "multistep", "milestones": [50.0, 75.0], "gamma": 0.2},
}
IMAGES = {
    "epochs": 30,
    "batch_size": 64,
    "weight_decay": 5e-4,
    "val_fraction": 0.1,
    "augment": "crop-flip",
}
IMAGES_224 = IMAGES | {
    "model": "torchvision/resnet50",
    "weights": "imagenet",
    "resize": 256,
    "crop": 224,
    "lr": 0.01,
}
IMAGES_32 = IMAGES | {"model": "resnet18", "weights": "", "resize": 36, "crop": 32, "lr": 0.05}

# Preset -> its dataset and values.
ON_IMAGES = {
    "clothing1m": ("clothing1m", CLOTHING1M),
    "webvision-mini": ("webvision", WEBVISION | {"model": "timm/inception_resnet_v2"}),
    "webvision-mini-r50": ("webvision", WEBVISION | {"model": "torchvision/resnet50"}),
    "animal10n": ("animal10n", ANIMAL10N),
    "images-224": ("folder", IMAGES_224),
    "images-32": ("folder", IMAGES_32),
}


def test_the_page_names_the_presets_in_float32():
    page = (Path(__file__).parents[2] / "docs" / "protocols.md").read_text()
    # A sentence may break anywhere.
    words = " ".join(page.split())
    sentence = re.search(r"a tenth of the speed of float32\. (.*?) are in float32", words)
    in_float32 = {name for name, p in presets.PRESETS.items() if p.values["precision"] == "float32"}

    assert set(re.findall(r"`([\w-]+)`", sentence[1])) == in_float32
    # The page says of their threads what it says of them all.
    assert {presets.PRESETS[name].values["threads"] for name in in_float32} == {1}


@pytest.mark.parametrize("name", sorted(ON_IMAGES))
def test_presets_on_image_files(name):
    dataset, expected = ON_IMAGES[name]
    values = resolve(name, dataset).model_dump()
    expected = {
        "momentum": 0.9,
        "nesterov": False,
        "precision": "bfloat16",
        "version": 1,
        "subset": 0,
        **expected,
    }

    assert {key: values[key] for key in expected} == expected


@pytest.mark.parametrize("dataset", CIFAR)
@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_presets_are_the_published_protocols(name, dataset):
    values = resolve(name, dataset).model_dump()
    expected = {
        "momentum": 0.9,
        "batch_size": 128,
        "nesterov": False,
        "name": name,
        "precision": "bfloat16",
        "version": 1,
        **EXPECTED[name][dataset],
    }

    assert {key: values[key] for key in expected} == expected


def test_every_preset_is_complete_and_fixes_precision_and_threads():
    assert resolve("digits", "digits").precision == "float32"
    for name in presets.PRESETS:
        assert resolve(name, "digits").threads >= 1


def test_every_preset_says_on_which_hardware_its_precision_is_meant_to_run():
    expected = {"float32": "any CPU", "bfloat16": "GPUs that have it"}
    for name, preset in presets.PRESETS.items():
        precision = resolve(name, "digits").precision
        assert preset.line.endswith(f"({precision}: for {expected[precision]})"), name


def test_linear_is_full_batch_gradient_descent():
    from nlbench.data.datasets import gaussians

    protocol = resolve("linear", "gaussians")
    assert protocol.batch_size == gaussians.INFO.num_train - protocol.subset
    assert (protocol.momentum, protocol.weight_decay, protocol.val_fraction) == (0, 0, 0)
    assert [protocol.factor(epoch) for epoch in (0, 250, 499)] == [1, 1, 1]


def rates(schedule, lr, epochs, steps):
    """Return the learning rate of each step as a run sets it."""
    overrides = {"schedule": schedule, "lr": lr, "epochs": epochs}
    protocol = resolve("cifar", "cifar10", overrides)
    return [lr * protocol.factor(step / steps) for step in range(epochs * steps)]


def torch_rates(make, lr, epochs, steps, *, each_step=False):
    """Return the learning rate of each step as one of torch's schedulers sets it."""
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)
    scheduler = make(optimiser)
    found = []

    for _ in range(epochs):
        for _ in range(steps):
            found.append(optimiser.param_groups[0]["lr"])
            optimiser.step()
            if each_step:
                scheduler.step()
        if not each_step:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                scheduler.step()

    return found


def test_multistep_is_torchs():
    ours = rates({"kind": "multistep", "milestones": [3, 5], "gamma": 0.1}, 0.02, 8, 7)
    make = torch.optim.lr_scheduler.MultiStepLR
    theirs = torch_rates(lambda o: make(o, [3, 5], 0.1), 0.02, 8, 7)
    assert ours == pytest.approx(theirs, rel=1e-12)


def test_stages_have_the_rates_that_are_given():
    schedule = {"kind": "stages", "starts": [2.0, 3.5, 4.0], "rates": [0.2, 0.02, 0.0]}
    found = rates(schedule, 0.06, 5, 4)

    assert found == pytest.approx([0.06] * 8 + [0.2] * 6 + [0.02] * 2 + [0.0] * 4)

    longer = resolve("cifarn", "cifar10n", {"epochs": 100, "schedule": schedule}).schedule
    assert longer.scaled(2.0).starts == [4.0, 7.0, 8.0]
    assert longer.scaled(2.0).rates == longer.rates


def test_cosine_restarts_are_torchs():
    ours = rates({"kind": "cosine-restarts", "period": 4.0, "floor": 0.001}, 0.02, 12, 5)
    make = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts
    theirs = torch_rates(lambda o: make(o, T_0=4, eta_min=0.001), 0.02, 12, 5)
    assert ours == pytest.approx(theirs, rel=1e-12)
    # A restart comes in the moment that the floor would be reached.
    assert min(ours) > 0.001


@pytest.mark.parametrize("rise", [0.3, 0.5])
def test_one_cycle_is_torchs(rise):
    epochs, steps = 10, 20
    schedule = {"kind": "one-cycle", "rise": rise, "start_div": 25.0, "end_div": 1e4}
    ours = rates(schedule, 0.05, epochs, steps)

    def make(optimiser):
        return torch.optim.lr_scheduler.OneCycleLR(
            optimiser,
            max_lr=0.05,
            total_steps=epochs * steps,
            pct_start=rise,
            cycle_momentum=False,
        )

    theirs = torch_rates(make, 0.05, epochs, steps, each_step=True)

    # torch has the peak at step rise * total - 1, and the end at the last step. Ours are at `rise`
    # and at the end of the training, so that the two differ by about one step.
    assert ours[0] == pytest.approx(theirs[0]) == pytest.approx(0.05 / 25)
    assert max(ours) == pytest.approx(0.05, rel=1e-3)

    step = max(abs(b - a) for a, b in itertools.pairwise(theirs))
    assert max(abs(a - b) for a, b in zip(ours, theirs, strict=True)) < 1.5 * step
    assert ours[-1] < 0.05 / 100


@pytest.mark.parametrize(("start", "floor"), [(0.01, 0.0), (0.2, 0.001)])
def test_warmup_cosine_is_torchs(start, floor):
    warmup, epochs, steps = 2, 9, 5
    values = {"kind": "warmup-cosine", "warmup": warmup, "start": start, "floor": floor}
    ours = rates(values, 0.02, epochs, steps)

    def make(optimiser):
        first, rest = warmup * steps, (epochs - warmup) * steps
        schedulers = torch.optim.lr_scheduler
        line = schedulers.LinearLR(optimiser, start_factor=start, total_iters=first)
        cosine = schedulers.CosineAnnealingLR(optimiser, T_max=rest, eta_min=floor)
        return schedulers.SequentialLR(optimiser, [line, cosine], milestones=[first])

    with warnings.catch_warnings():
        # SequentialLR calls its parts in a way that torch itself has deprecated.
        warnings.simplefilter("ignore")
        theirs = torch_rates(make, 0.02, epochs, steps, each_step=True)
    assert ours == pytest.approx(theirs, rel=1e-9, abs=1e-12)
    assert max(ours) == ours[warmup * steps] == 0.02


def test_warmup_cosine_is_the_formula_within_steps_and_ends_at_its_floor():
    values = {"kind": "warmup-cosine", "warmup": 0.5, "start": 0.1, "floor": 0.002}
    factor = resolve("cifar", "cifar10", {"schedule": values, "lr": 0.02, "epochs": 4}).factor

    assert [factor(at) for at in (0.0, 0.25, 0.5)] == pytest.approx([0.1, 0.55, 1.0])
    for at in (1.0, 2.7, 3.99):
        cosine = math.cos(math.pi * (at - 0.5) / 3.5)
        assert factor(at) == pytest.approx((0.002 + 0.018 * (1 + cosine) / 2) / 0.02, rel=1e-14)
    # A step after the end of an epoch's plan has the rate of its end.
    assert factor(4.0) == factor(5.0) == pytest.approx(0.1)

    without = {**values, "warmup": 0.0}
    assert resolve("cifar", "cifar10", {"schedule": without}).factor(0.0) == 1.0


def test_constant_stays():
    assert rates({"kind": "constant"}, 0.3, 2, 3) == [0.3] * 6


def test_a_changed_length_takes_the_schedule_along():
    assert resolve("cifarn", "cifar10n", {"epochs": 50}).schedule.milestones == [30.0]
    assert resolve("cifar", "cifar100", {"epochs": 15}).schedule.milestones == [8.0, 12.0]
    assert resolve("cifar-cosine", "cifar10", {"epochs": 15}).schedule.period == 1.0

    warmup = {"kind": "warmup-cosine", "warmup": 5.0}
    assert resolve("cifar", "cifar10", {"schedule": warmup}).schedule.scaled(0.5).warmup == 2.5
    # A position that is given stays where it is.
    given = {"schedule": warmup, "epochs": 30}
    assert resolve("cifar", "cifar10", given).schedule.warmup == 5.0

    one_cycle = resolve("digits", "digits", {"epochs": 4})
    assert one_cycle.schedule == resolve("digits", "digits").schedule
    assert one_cycle.factor(1.2) == pytest.approx(1.0)


def test_positions_that_are_given_stay_as_given():
    given = {"epochs": 50, "schedule": {"milestones": [10, 20]}}
    assert resolve("cifarn", "cifar10n", given).schedule.milestones == [10, 20]


def test_a_single_value_of_the_schedule_can_be_changed():
    protocol = resolve("cifarn", "cifar10n", {"epochs": 50, "schedule": {"gamma": 0.5}})
    assert (protocol.schedule.gamma, protocol.schedule.milestones) == (0.5, [30.0])


def test_another_optimiser_leaves_out_the_momentum_of_the_preset():
    assert resolve("cifarn", "cifar10n").momentum == 0.9
    other = resolve("cifarn", "cifar10n", {"optimiser": "adamw"})
    assert (other.optimiser, other.momentum, other.nesterov) == ("adamw", 0.0, False)
    assert resolve("cifarn", "cifar10n", {"optimiser": "sgd"}) == resolve("cifarn", "cifar10n")


def test_another_model_leaves_out_the_arguments_of_the_presets():
    def args(**overrides):
        return resolve("vit-finetune", "folder:x", overrides).model_args

    assert args() == args(model="timm/vit_small_patch16_224.augreg_in21k") != {}
    assert args(model="cnn3") == {}
    assert args(model_args={"img_size": 96}) == {"drop_path_rate": 0.1, "img_size": 96}
    assert args(model="timm/test_vit", model_args={"img_size": 96}) == {"img_size": 96}


def test_presets_are_not_changed_by_overrides():
    before = resolve("cifarn", "cifar10n")
    resolve("cifarn", "cifar10n", {"epochs": 3, "schedule": {"gamma": 0.5}, "lr": 1.0})
    assert resolve("cifarn", "cifar10n") == before


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"lr": math.inf}, "lr: must be finite, got inf"),
        ({"lr": math.nan}, "lr: must be finite"),
        ({"lr": 0}, "lr: must be greater than 0"),
        ({"lr": "0.1"}, "lr: must be a number, got '0.1'"),
        ({"epochs": 1.5}, "epochs: must be an integer, got 1.5"),
        ({"epochs": True}, "epochs: must be an integer"),
        ({"epochs": 0}, "epochs: must be at least 1, got 0"),
        ({"batchsize": 3}, "batchsize: unknown key.*batch_size.*Did you mean 'batch_size'"),
        ({"precision": "float16"}, "precision: must be 'float32', 'bfloat16' or 'auto'"),
        ({"momentum": 1.0}, "momentum: must be less than 1"),
        ({"momentum": 0.0, "nesterov": True}, "nesterov: must be false where momentum is 0"),
        ({"optimiser": "adam"}, "optimiser: must be 'sgd', 'adamw' or 'adagrad'"),
        ({"optimizer": "adamw"}, "optimizer: unknown key.*Did you mean 'optimiser'"),
        (
            {"optimiser": "adamw", "momentum": 0.9},
            "momentum: must be 0 for adamw, which has betas of 0.9 and 0.999 in its place, got 0.9",
        ),
        (
            {"optimiser": "adagrad", "momentum": 0.9},
            "must be 0 for adagrad, which has none, got 0.9",
        ),
        ({"optimiser": "adamw", "nesterov": True}, "nesterov: must be false where momentum is 0"),
        ({"layer_decay": 0.0}, "layer_decay: must be greater than 0"),
        ({"layer_decay": 1.1}, "layer_decay: must be at most 1"),
        ({"model_args": {"img_size": None}}, "model_args.img_size"),
        ({"mean": [0.5], "std": [0.5, 0.5]}, "std: must have as many values as mean, which has 1"),
        ({"std": [0.5]}, "std: must have as many values as mean, which has 0"),
        ({"mean": [0.5], "std": [0.0]}, "std.0: must be greater than 0"),
        ({"mean": [0.5]}, "std: must have as many values as mean, which has 1"),
        (
            {"schedule": {"kind": "warmup-cosine", "warmup": 100.0}},
            "schedule.warmup: must be less than the 100 epochs, got 100",
        ),
        ({"schedule": {"kind": "warmup-cosine"}}, "schedule.warmup: is required"),
        ({"threads": 100_000}, "threads: must be at most"),
        ({"memory": "float8"}, "memory: must be 'float32', 'bfloat16' or 'float16', got 'float8'"),
        ({"memory": 16}, "memory: must be 'float32', 'bfloat16' or 'float16', got 16"),
        ({"clip_norm": -1.0}, "clip_norm: must be at least 0.0, got -1.0"),
        ({"clip_norm": math.inf}, "clip_norm: must be finite, got inf"),
        ({"clip_norm": "5"}, "clip_norm: must be a number, got '5'"),
        ({"clip_normm": 5.0}, "clip_normm: unknown key.*Did you mean 'clip_norm'"),
        (
            {"schedule": "cosine"},
            "schedule: must be a mapping with a kind: constant, multistep, stages, cosine-restarts",
        ),
        (
            {"schedule": {"kind": "onecycle"}},
            "schedule: unknown kind 'onecycle'.*Did you mean 'one-cycle'",
        ),
        ({"schedule": {"kind": "multistep"}}, "schedule.milestones: is required"),
        (
            {"schedule": {"kind": "stages", "starts": [4.0, 4.0], "rates": [0.1, 0.2]}},
            r"schedule.starts: must rise from one to the next, got \[4.0, 4.0\]",
        ),
        (
            {"schedule": {"kind": "stages", "starts": [4.0, 5.0], "rates": [0.1]}},
            "schedule.rates: must have a rate for each of the 2 starts",
        ),
        (
            {"schedule": {"kind": "stages", "starts": [4.0], "rates": [-0.1]}},
            "schedule.rates.0: must be at least 0",
        ),
        (
            {"schedule": {"period": 3.0}},
            "schedule.period: unknown key. It takes: kind, milestones, gamma",
        ),
        ({"schedule": {"milestones": [math.nan]}}, "schedule.milestones.0: must be finite"),
        ({"name": "x"}, "name: belongs to the preset"),
        ({"version": 7}, "version: belongs to the preset"),
    ],
)
def test_a_wrong_override_names_key_and_fix(overrides, message):
    with pytest.raises(SuiteError, match=message):
        resolve("cifarn", "cifar10n", overrides)


def test_all_problems_come_together():
    with pytest.raises(SuiteError) as caught:
        resolve("cifarn", "cifar10n", {"name": "x", "lr": -1, "epoch": 2})
    assert {line.partition(":")[0] for line in str(caught.value).splitlines()} == {
        "name",
        "lr",
        "epoch",
    }


def test_an_unknown_preset_is_guessed():
    message = r"unknown protocol 'cifar-cpus'.*There are: .*Did you mean 'cifar-cpu'"
    with pytest.raises(SuiteError, match=message):
        resolve("cifar-cpus", "cifar10n")
