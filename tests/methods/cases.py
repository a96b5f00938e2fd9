"""The settings and the refused values of each method, as data for the tests of every method.

A method file is tested with its defaults because it is in the folder. The entries of this file are
tested in addition, so a new method needs none.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import lab
import torch
from torch import nn

from nlbench import registry
from nlbench.method import Method


@dataclass
class Case:
    """A method with a setting, and the training that shows the setting at work.

    Attributes:
        params: hyperparameters other than the defaults.
        task: arguments of `lab.make_task`.
        network: makes a network of a task and a seed.
        images: makes the training examples of a task.
        validation: whether there is a validation part.
        epoch_size: number of examples in an epoch; 0 for all.
        stops: the epochs at which the training is stopped and resumed.
        reached: says of a method at the end of its training whether it came to the part that a
            resume could break.
    """

    name: str
    params: dict[str, Any] = field(default_factory=dict)
    task: dict[str, Any] = field(default_factory=dict)
    network: Callable[[Any, int], nn.Module] = lab.small_network
    images: Callable[[Any], lab.Examples] | None = None
    validation: bool = True
    epoch_size: int = 0
    stops: tuple[int, ...] = (1, 3, 5)
    reached: Callable[[Method], bool] = lambda method: True

    def __str__(self) -> str:
        epoch = f" epochs of {self.epoch_size}" if self.epoch_size else ""
        return f"{self.name}{self.params or ''}{epoch}{'' if self.validation else ' no validation'}"

    @property
    def cls(self) -> type[Method]:
        return CLASSES[self.name]

    def make_method(self, task):
        return self.cls(task, **self.params)

    def make_task(self, **changes):
        """Make a task that has the privileged information which this setting declares, no other."""
        declared = self.make_method(lab.make_task(told={})).told
        arguments = {**self.task, **changes}
        C = arguments.get("C", 10)
        known = {"T": 0.6 * torch.eye(C, dtype=torch.float64) + 0.4 / C, "noise_rate": 0.4}
        told = {name: known[name] for name in declared}
        return lab.make_task(**{"told": told, **arguments})

    def start(self, seed=3):
        """Make a method and a run that are ready to train.

        Args:
            seed: of the initial weights.
        """
        task = self.make_task()
        torch.manual_seed(seed)
        method = self.make_method(task)
        networks = [self.network(task, seed + i) for i in range(method.num_networks)]
        run = lab.make_run(
            task,
            networks=networks,
            validation=self.validation,
            epoch_size=self.epoch_size,
            schedule=lambda position: 1.0 - position / 20,
            images=self.images(task) if self.images else None,
        )
        method.prepare(run)
        return method, run


FILES = {
    name: file
    for name, file in registry.method_files().items()
    if file.module.startswith("nlbench.methods.")
}
CLASSES: dict[str, type[Method]] = {
    name: registry.load_method(file) for name, file in FILES.items()
}


def ready(name, params, task):
    """Make a method as it is when training begins."""
    method = CLASSES[name](task, **params)
    run = lab.make_run(task, validation=True)
    method.prepare(run)
    method.on_epoch_start(run, 0)
    return method


# ---- What some cases need ------------------------------------------------------------------------


def hinted(task):
    """Examples that tell the label of two in three, so that there is something to split."""
    examples = lab.Examples(task.num_train, 7)
    hint = torch.zeros(task.num_train, 6)
    hint[torch.arange(task.num_train), task.labels % 6] = 2.0
    hint[::3] = hint[::3].roll(1, 1)
    examples.rows = 0.3 * examples.rows + hint
    return examples


class Wrapped(nn.Module):
    """A network as training builds it, around the model."""

    def __init__(self, body):
        super().__init__()
        self.body = body

    def forward(self, images):
        return self.body(images)


def small_cnn(task, seed=3):
    torch.manual_seed(seed)
    return Wrapped(
        nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1, bias=False),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Conv2d(4, 8, 3, padding=1, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(8 * 9, task.num_classes),
        )
    )


def hinted_pictures(task):
    """3x3 images that tell the label of two in three."""
    examples = lab.Examples(task.num_train, 7, (1, 3, 3))
    hint = 3.0 * nn.functional.one_hot(task.labels % 9, 9).float()
    hint[::3] = hint[::3].roll(1, 1)
    examples.rows = 0.3 * examples.rows + hint.view(-1, 1, 3, 3)
    return examples


def pes(**params):
    """PES with all three phases, two epochs each, in eight epochs of a convolutional network."""
    phases = {"t1_share": 2 / 8, "t2_share": 2 / 8, "ramp_share": 2 / 8}
    return Case(
        "pes",
        {**phases, **params},
        {"N": 50, "C": 4, "epochs": 8},
        small_cnn,
        hinted_pictures,
        stops=(1, 2, 3, 4, 5, 7),
        reached=lambda m: 2 <= m.kept.sum() <= 48,
    )


def learnt_noise(method):
    """Whether u grew from about 1e-8."""
    return method.u.abs().max() > 1e-7


def moved(method):
    """Whether the targets left the given labels."""
    one_hot = nn.functional.one_hot(method.task.labels, method.task.num_classes)
    return not torch.equal(method.targets, one_hot.to(method.targets.dtype))


# ---- Settings ------------------------------------------------------------------------------------

SETTINGS = [
    Case("agce", {"a": 4.0, "q": 0.2}),
    Case("alr", reached=moved),
    Case("alr", {"warmup_share": 0.0}, reached=moved),
    Case("anl", {"gamma": 0.5}),
    Case("aul", {"a": 3.0, "q": 0.1}),
    Case("backward", {"T": True}),
    Case("bootstrap", {"kind": "soft"}),
    Case("cal", {"warmup_share": 1 / 6}, reached=lambda m: m.lbar.abs().sum() > 0),
    Case("cal", epoch_size=20),
    Case("cdr", {"ramp_share": 0.5}),
    Case("co-teaching", {"ramp_share": 0.5}, reached=lambda m: m.keep < 1),
    Case(
        "co-teaching-plus",
        {"ramp_share": 0.5, "switch_share": 2 / 6},
        reached=lambda m: m.keep < 1,
    ),
    Case("cores2", reached=lambda m: not m.kept.all()),
    Case("d2l", {"before": "ce", "warmup_share": 0.0}, {"epochs": 8}),
    # The last batch of an epoch is one example; its two views are what batch norm sees.
    Case("disc", {"momentum": 0.9}, {"N": 33}, reached=lambda m: m.hard.any() and m.clean.any()),
    # An example that is not in an epoch keeps its place among the clean, hard or purified ones.
    Case("disc", {"momentum": 0.9}, epoch_size=20, reached=lambda m: m.hard.any()),
    Case(
        "dividemix",
        {"warmup_share": 2 / 6, "ramp_share": 0.5},
        {"N": 50, "C": 4},
        images=hinted,
        stops=(1, 2, 3, 5),
        reached=lambda m: 2 <= (m.clean[0] > m.threshold).sum() <= 48,
    ),
    Case("dividemix", {"warmup_share": 4 / 6, "penalty": True}, {"N": 50, "C": 4}, images=hinted),
    Case("elr-plus", {"ema": False}),
    Case("elr-plus", {"networks": 1}),
    Case("elr-plus", {"mixup_a": 0.0}),
    Case("elr-plus", {"lam": 0.0}),
    Case("elr-plus", {"networks": 1, "mixup_a": 0.0, "ema": False}),
    Case("elr-plus", {"networks": 1, "ema": False}),
    Case("elr-plus", {"mixup_a": 0.0, "ema": False}),
    Case(
        "elr-plus",
        {"beta": 0.9, "lam": 7.0, "lam_ramp_share": 0.8, "ema_ramp_share": 0.3, "mixup_a": 1.5},
    ),
    Case("elr-plus", {"weigh_labels": "yes"}),
    Case("eps-softmax", {"alpha": 1.0, "m": 0.0}),
    # The best network of four epochs of warm-up, two epochs of the divergence.
    Case("f-divergence", {"divergence": "kl"}, reached=lambda m: m.best_accuracy >= 0),
    Case("f-divergence", {"divergence": "jensen-shannon", "warmup_share": 0.0}),
    Case("f-divergence", {"divergence": "jeffrey"}, validation=False),
    Case("forward", {"T": True}),
    Case("gce", {"truncate": True}),
    Case("gce", {"truncate": True}, validation=False),
    Case("gce", {"truncate": True, "k": 0.15, "every_share": 1.0}),
    Case("gce", {"q": 0.3}),
    Case("gls", {"rate": 0.8}),
    Case("gls", {"rate": -1.0}),
    Case("gjs", {"pi": 0.1}),
    Case(
        "incv",
        {"rounds": 2, "warmup_share": 2 / 6},
        {"N": 50},
        reached=lambda m: 0 < m.selected.sum() < 50,
    ),
    Case("incv", {"symmetric": False}, epoch_size=20),
    Case("jocor", {"ramp_share": 0.5}, reached=lambda m: m.keep < 1),
    Case("js", {"pi": 0.1}),
    Case("logit-clip", {"norm": 2.5, "official": True}),
    Case(
        "m-dyr",
        {"warmup_share": 2 / 6},
        images=hinted,
        reached=lambda m: m.table.max() > m.table.min(),
    ),
    Case("m-dyr", {"warmup_share": 2 / 6}, epoch_size=20),
    Case("m-dyr", {"kind": "m-dyr-s", "warmup_share": 2 / 6}),
    Case("m-dyr", {"kind": "md-dyr-sh", "warmup_share": 2 / 6, "cooling_share": 2 / 6}),
    Case("mentornet", reached=lambda m: m.threshold > 0),
    Case("nce-agce", {"alpha": 10.0, "beta": 0.1, "a": 1.8, "q": 3.0}),
    Case("joint-optim", {"first_share": 4 / 6, "average_share": 2 / 6}, reached=moved),
    Case("joint-optim", {"first_share": 4 / 6}, epoch_size=20, reached=moved),
    Case("nce-rce", {"alpha": 10.0, "beta": 0.1}),
    Case("pencil", reached=lambda m: m.u.remainder(10).any()),
    Case("pencil", {"compatibility": "paper", "first_share": 0.0}),
    Case("peer", {"ramp": "cifar100-sparse"}),
    pes(),
    pes(renew="stage"),
    Case(
        "pls",
        {"threshold": 0.5},
        {"N": 50, "C": 4, "epochs": 8},
        images=hinted,
        reached=lambda m: m.noisy.any() and m.weights.min() < 0.5,
    ),
    Case("pls", {"warmup_share": 0.0}, epoch_size=20),
    # The selection, its filling up, and both heads in epochs of 16 + 17 examples.
    Case(
        "promix",
        {"warmup_share": 1 / 6, "tau": 0.4, "ramp_share": 0.5, "late_share": 0.5},
        {"N": 33, "C": 4},
        images=hinted,
        reached=lambda m: not m.selected.all(),
    ),
    Case("promix", {"rho": 0.2, "official": True, "penalty": True}, epoch_size=20),
    Case("sam", {"base": "gce", "adaptive": True, "rho": 2.0}),
    Case("sam", {"base": "selc"}, reached=moved),
    Case("sat", reached=moved),
    Case("sat", {"warmup_share": 0.0}, reached=moved),
    Case("selc", reached=moved),
    Case("selc", {"warmup_share": 0.0}, reached=moved),
    Case("sl", {"alpha": 6.0, "beta": 0.1, "log_zero": -4.0}),
    Case("sop", reached=learnt_noise),
    Case("sop-plus", reached=learnt_noise),
    Case(
        "ssr",
        {"k": 10, "theta_r": 0.6},
        {"N": 50, "C": 4},
        images=hinted,
        reached=lambda m: 2 <= m.clean.sum() <= 48 and (m.corrected != m.task.labels).any(),
    ),
    Case("ssr", {"lam": 1.0, "k": 10}, reached=lambda m: 2 <= m.clean.sum() <= 38),
    Case("ssr", {"lam": 1.0, "k": 5}, epoch_size=20),
    Case(
        "unicon",
        {"warmup_share": 2 / 6, "ramp_share": 0.5},
        {"N": 50, "C": 4},
        images=hinted,
        stops=(1, 2, 3, 5),
        reached=lambda m: 2 <= m.labelled.sum() <= 48,
    ),
    Case("unicon", {"warmup_share": 0.5, "penalty": True}, {"C": 4}, epoch_size=20, images=hinted),
    Case("volminnet", {"T_optimiser": "adam"}),
]

# Further settings whose losses must be finite, of trainings that need not go well.
EXTREME = [
    Case("gls", {"rate": -8.0}),
    Case("mixup", {"a": 1e-300}),
    Case("mixup", {"a": 1e-6}),
    Case("mixup", {"a": 1e15}),
    Case("mixup", {"a": 1e300}),
    Case("volminnet", {"init": -800.0}),
    Case("volminnet", {"init": 3.0}),
]

_with_defaults = {case.name for case in SETTINGS if not case.params}
CASES = [Case(name) for name in CLASSES if name not in _with_defaults] + SETTINGS

# ---- What the class itself says ------------------------------------------------------------------

# The privileged information and the number of networks with the default hyperparameters.
DECLARED: dict[str, tuple[tuple[str, ...], int]] = {
    "ael": ((), 1),
    "agce": ((), 1),
    "alr": ((), 1),
    "anl": ((), 1),
    "aul": ((), 1),
    "backward": ((), 1),
    "bootstrap": ((), 1),
    "cal": ((), 1),
    "cdr": (("noise_rate",), 1),
    "ce": ((), 1),
    "co-teaching": (("noise_rate",), 2),
    "co-teaching-plus": (("noise_rate",), 2),
    "cores2": ((), 1),
    "d2l": ((), 1),
    "disc": ((), 1),
    "dividemix": ((), 2),
    "elr": ((), 1),
    "elr-plus": ((), 2),
    "ema": ((), 1),
    "ensemble": ((), 2),
    "eps-softmax": ((), 1),
    "f-divergence": ((), 1),
    "forward": ((), 1),
    "gce": ((), 1),
    "gjs": ((), 1),
    "gls": ((), 1),
    "incv": ((), 2),
    "jocor": (("noise_rate",), 2),
    "joint-optim": ((), 2),
    "js": ((), 1),
    "logit-clip": ((), 1),
    "m-dyr": ((), 1),
    "mae": ((), 1),
    "mentornet": ((), 1),
    "mixup": ((), 1),
    "nce-agce": ((), 1),
    "nce-rce": ((), 1),
    "peer": ((), 1),
    "pencil": ((), 1),
    "pes": ((), 1),
    "pls": ((), 1),
    "promix": ((), 2),
    "sam": ((), 1),
    "sat": ((), 1),
    "selc": ((), 1),
    "sl": ((), 1),
    "sop": ((), 1),
    "sop-plus": ((), 1),
    "ssr": ((), 1),
    "t-revision": ((), 1),
    "unicon": ((), 2),
    "volminnet": ((), 1),
}
# The losses of these are nowhere below 0, whatever the logits are.
NEVER_NEGATIVE = {
    "ael", "agce", "anl", "aul", "bootstrap", "cdr", "ce", "co-teaching", "co-teaching-plus",
    "disc", "ema", "ensemble", "eps-softmax", "forward", "gjs", "incv", "jocor", "joint-optim",
    "js", "logit-clip", "m-dyr", "mae", "mentornet", "mixup", "nce-agce", "nce-rce", "pencil",
    "pls", "promix", "sam", "sat", "selc", "sl", "t-revision", "unicon",
}  # fmt: skip

# ---- Refused values ------------------------------------------------------------------------------

# A value out of range, and how the message goes on after "NAME must be ". Values that are not
# finite and values that are not among those of a Literal are refused for every hyperparameter
# anyway.
REFUSED: dict[str, list[tuple[str, Any, str]]] = {
    "ael": [("a", 0.0, "finite and above 0")],
    "agce": [
        ("a", 0.0, "finite and above 0"),
        ("q", -0.5, "finite and above 0"),
    ],
    "alr": [
        ("alpha", 1.0, "in [0, 1)"),
        ("lam_e", -0.1, "finite and >= 0"),
        ("warmup_share", 1.5, "in [0, 1]"),
    ],
    "anl": [
        ("alpha", -1.0, "finite and >= 0"),
        ("beta", -1.0, "finite and >= 0"),
        ("delta", -1e-5, "finite and >= 0"),
        ("gamma", -0.5, "finite and >= 0"),
    ],
    "aul": [
        ("a", 1.0, "finite and above 1"),
        ("q", 0.0, "finite and above 0"),
    ],
    "backward": [
        ("max_weight", 1.0, "finite and above 1"),
        ("percentile", 101.0, "in (0, 100]"),
        ("warmup_share", 0.0, "finite and above 0"),
    ],
    "bootstrap": [
        ("soft_b", 1.1, "in [0, 1]"),
        ("hard_b", -0.1, "in [0, 1]"),
    ],
    "cal": [
        ("first_alpha", -0.1, "finite and >= 0"),
        ("alpha", -0.1, "finite and >= 0"),
        ("prior_scale", -1.0, "finite and >= 0"),
        ("threshold", 0.1, "finite and <= 0"),
        ("warmup_share", 1.1, "in [0, 1]"),
        ("ramp_share", 0.0, "in (0, 1]"),
        ("distil_share", 0.0, "in (0, 1]"),
    ],
    "cdr": [
        ("rate_factor", -0.1, "finite and >= 0"),
        ("ramp_share", 1.1, "in [0, 1]"),
    ],
    "co-teaching": [
        ("ramp_share", 0.0, "in (0, 1]"),
        ("ramp_share", 1.1, "in (0, 1]"),
        ("rate_factor", -0.1, "finite and >= 0"),
    ],
    "co-teaching-plus": [
        ("ramp_share", 0.0, "in (0, 1]"),
        ("rate_factor", -0.1, "finite and >= 0"),
        ("switch_share", 1.1, "in [0, 1]"),
    ],
    "cores2": [
        ("beta", -0.1, "finite and >= 0"),
        ("warmup_share", 1.1, "in [0, 1]"),
        ("ramp_share", 0.0, "in (0, 1]"),
        ("sieve_share", -0.1, "in [0, 1]"),
    ],
    "d2l": [
        ("alpha", -0.1, "finite and >= 0"),
        ("beta", -0.1, "finite and >= 0"),
        ("warmup_share", 1.1, "in [0, 1]"),
    ],
    "disc": [
        ("momentum", 1.0, "in (0, 1)"),
        ("momentum", 0.0, "in (0, 1)"),
        ("lam_h", -0.5, "finite and >= 0"),
        ("q", 0.0, "in (0, 1]"),
        ("q", 1.5, "in (0, 1]"),
        ("alpha", 0.0, "finite and above 0"),
        ("warmup_share", 1.5, "in [0, 1]"),
        ("warmup_share", -0.1, "in [0, 1]"),
    ],
    "dividemix": [
        ("lambda_u", -1.0, "finite and >= 0"),
        ("threshold", 1.0, "in [0, 1)"),
        ("temperature", 0.0, "finite and above 0"),
        ("alpha", 0.0, "finite and above 0"),
        ("warmup_share", 1.1, "in [0, 1]"),
        ("ramp_share", -0.1, "in [0, 1]"),
    ],
    "elr": [
        ("beta", 1.0, "in [0, 1)"),
        ("beta", -0.1, "in [0, 1)"),
        ("lam", -1.0, "finite and >= 0"),
    ],
    "elr-plus": [
        ("beta", 1.0, "in [0, 1)"),
        ("beta", -0.1, "in [0, 1)"),
        ("lam", -1.0, "finite and >= 0"),
        ("networks", 3, "1 or 2"),
        ("networks", 0, "1 or 2"),
        ("mixup_a", -1.0, "finite and >= 0"),
        ("ema_decay", 1.0, "in [0, 1)"),
        ("ema_ramp_share", -0.1, "in [0, 1]"),
        ("lam_ramp_share", 1.1, "in [0, 1]"),
    ],
    "ema": [
        ("decay", 1.0, "in [0, 1)"),
        ("decay", -0.1, "in [0, 1)"),
        ("ramp_share", 0.0, "in (0, 1]"),
        ("ramp_share", 1.5, "in (0, 1]"),
    ],
    "eps-softmax": [
        ("alpha", -0.1, "finite and >= 0"),
        ("beta", -0.1, "finite and >= 0"),
        ("m", -1.0, "finite and >= 0"),
    ],
    "f-divergence": [
        ("warmup_share", 1.1, "in [0, 1]"),
        ("warmup_share", -0.1, "in [0, 1]"),
    ],
    "forward": [
        ("percentile", 0.0, "in (0, 100]"),
        ("warmup_share", -1.0, "finite and above 0"),
    ],
    "gce": [
        ("q", 0.0, "in (0, 1]"),
        ("q", 1.1, "in (0, 1]"),
        ("k", 1.0, "in (0, 1)"),
        ("start_share", 0.0, "in (0, 1]"),
        ("every_share", 1.1, "in (0, 1]"),
    ],
    "gjs": [
        ("pi", 0.0, "in (0, 1)"),
        ("pi", 1.0, "in (0, 1)"),
    ],
    "gls": [
        ("rate", 1.0, "finite and below 1"),
        ("rate", 1.5, "finite and below 1"),
    ],
    "incv": [
        ("rounds", 0, ">= 1"),
        ("selection_share", 0.0, "in (0, 1]"),
        ("ramp_share", 1.1, "in (0, 1]"),
        ("warmup_share", 0.0, "in (0, 1]"),
    ],
    "jocor": [
        ("lam", -0.1, "in [0, 1)"),
        ("lam", 1.0, "in [0, 1)"),
        ("ramp_share", 0.0, "in (0, 1]"),
        ("ramp_share", 1.1, "in (0, 1]"),
        ("rate_factor", -0.1, "finite and >= 0"),
    ],
    "js": [
        ("pi", 0.0, "in (0, 1)"),
        ("pi", 1.0, "in (0, 1)"),
    ],
    "logit-clip": [("norm", 0.0, "finite and above 0")],
    "m-dyr": [
        ("alpha", 0.0, "finite and above 0"),
        ("reg", -0.1, "finite and >= 0"),
        ("warmup_share", -0.1, "in [0, 1]"),
        ("dynamic_share", 0.0, "in (0, 1]"),
        ("cooling_share", 1.1, "in (0, 1]"),
    ],
    "mentornet": [
        ("percentile", 0.0, "in (0, 1]"),
        ("decay", 1.0, "in [0, 1)"),
        ("gamma", 0.0, "finite and above 0"),
        ("early_dropout", 1.0, "in [0, 1)"),
        ("late_dropout", -0.1, "in [0, 1)"),
        ("dropout_share", 1.1, "in [0, 1]"),
    ],
    "joint-optim": [
        ("alpha", -0.1, "finite and >= 0"),
        ("beta", -0.1, "finite and >= 0"),
        ("first_share", 0.0, "in (0, 1]"),
        ("start_share", 1.1, "in (0, 1]"),
        ("average_share", 0.0, "in (0, 1]"),
    ],
    "mixup": [
        ("a", 0.0, "finite and above 0"),
        ("a", -1.0, "finite and above 0"),
    ],
    "nce-agce": [
        ("alpha", -1.0, "finite and >= 0"),
        ("beta", -0.1, "finite and >= 0"),
        ("a", 0.0, "finite and above 0"),
        ("q", 0.0, "finite and above 0"),
    ],
    "nce-rce": [
        ("alpha", -0.1, "finite and >= 0"),
        ("beta", -0.1, "finite and >= 0"),
    ],
    "pencil": [
        ("alpha", -0.1, "finite and >= 0"),
        ("beta", -0.1, "finite and >= 0"),
        ("lam", -1.0, "finite and >= 0"),
        ("first_share", -0.1, "in [0, 1]"),
        ("second_share", 1.1, "in [0, 1]"),
    ],
    "pes": [
        ("lambda_u", -1.0, "finite and >= 0"),
        ("temperature", 0.0, "finite and above 0"),
        ("alpha", -4.0, "finite and above 0"),
        ("late_alpha", 0.0, "finite and above 0"),
        ("refine_lr", 0.0, "finite and above 0"),
        ("t1_share", 1.5, "in [0, 1]"),
        ("t2_share", -0.5, "in [0, 1]"),
        ("ramp_share", 2.0, "in [0, 1]"),
        ("max_weight", 0.5, "finite and >= 1"),
    ],
    "pls": [
        ("threshold", 1.0, "in [0, 1)"),
        ("threshold", -0.1, "in [0, 1)"),
        ("sharpening", 0.0, "finite and above 0"),
        ("temperature", 0.0, "finite and above 0"),
        ("alpha", 0.0, "finite and above 0"),
        ("warmup_share", 1.1, "in [0, 1]"),
    ],
    "promix": [
        ("rho", 0.0, "in (0, 1]"),
        ("tau", 1.1, "in (0, 1]"),
        ("a", -0.1, "finite and >= 0"),
        ("b", -0.1, "finite and >= 0"),
        ("beta", -0.1, "finite and >= 0"),
        ("temperature", 0.0, "finite and above 0"),
        ("alpha", 0.0, "finite and above 0"),
        ("warmup_share", 1.1, "in [0, 1]"),
        ("ramp_share", -0.1, "in [0, 1]"),
        ("late_share", 1.1, "in [0, 1]"),
    ],
    "sam": [
        ("rho", -0.1, "finite and >= 0"),
    ],
    "sat": [
        ("momentum", 1.0, "in [0, 1)"),
        ("warmup_share", -0.1, "in [0, 1]"),
    ],
    "selc": [
        ("momentum", -0.1, "in [0, 1)"),
        ("warmup_share", 1.5, "in [0, 1]"),
    ],
    "sl": [
        ("alpha", -1.0, "finite and >= 0"),
        ("beta", -1.0, "finite and >= 0"),
        ("log_zero", 0.0, "finite and below 0"),
    ],
    "sop": [
        ("lr_u", -1.0, "finite and >= 0"),
        ("lr_v", -0.5, "finite and >= 0"),
    ],
    "sop-plus": [
        ("lr_u", -1.0, "finite and >= 0"),
        ("lr_v", -1.0, "finite and >= 0"),
        ("lam_consistency", -1.0, "finite and >= 0"),
        ("lam_balance", -1.0, "finite and >= 0"),
    ],
    "ssr": [
        ("lam", -0.1, "finite and >= 0"),
        ("theta_r", 1.1, "in [0, 1]"),
        ("theta_s", -0.1, "in [0, 1]"),
        ("k", 0, ">= 1"),
        ("alpha", 0.0, "finite and above 0"),
    ],
    "t-revision": [
        ("warmup_share", 0.0, "finite and above 0"),
        ("weighted_share", -1.0, "finite and above 0"),
        ("percentile", 0.0, "in (0, 100]"),
        ("revision_lr", 0.0, "finite and above 0"),
        ("revision_decay", -0.1, "finite and >= 0"),
    ],
    "unicon": [
        ("lambda_u", -1.0, "finite and >= 0"),
        ("lambda_c", -0.1, "finite and >= 0"),
        ("temperature", 0.0, "finite and above 0"),
        ("contrast_temperature", 0.0, "finite and above 0"),
        ("alpha", 0.0, "finite and above 0"),
        ("warmup_share", -0.1, "in [0, 1]"),
        ("ramp_share", 1.1, "in [0, 1]"),
    ],
    "volminnet": [
        ("lam", -1.0, "finite and >= 0"),
        ("T_lr", 0.0, "finite and above 0"),
        ("T_momentum", 1.0, "in [0, 1)"),
        ("first_drop_share", 0.0, "in (0, 1]"),
        ("second_drop_share", 1.5, "in (0, 1]"),
    ],
}
