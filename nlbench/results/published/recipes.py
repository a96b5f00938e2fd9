"""How the published numbers were trained, where their sources say it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from nlbench.results.published.records import Published


@dataclass(frozen=True)
class Recipe:
    """The training behind a published number. A value that was not found is None.

    Attributes:
        num_train: training examples: all of them, or those that a validation part left.
        schedule: a kind of nlbench.plan.schedules, or the source's own.
        warmup: how long the network that estimates T was trained, in lengths of the training.
        other: something about it that no run of nlbench has.
        clip_norm: the norm that gradients are clipped at; 0 where they are not.
    """

    epochs: int | None = None
    num_train: int | None = None
    lr: float | None = None
    weight_decay: float | None = None
    schedule: str | None = None
    optimiser: str | None = None
    other: str = ""
    warmup: float | None = None
    clip_norm: float | None = None


_STEPS, _RESTARTS = "multistep", "cosine-restarts"

# Training images of CIFAR: all, and the 90% that ELR trains on.
_ALL, _ELR_PART = 50_000, 45_000

_ROTATES = "it rotates images by up to 20 degrees"
_DREW_TWICE = "its two networks each drew their own noise and split"

_CIFARN = Recipe(100, _ALL, 0.1, 5e-4, _STEPS, "SGD")
_ELR = Recipe(120, _ELR_PART, 0.02, 1e-3, _STEPS, "SGD")
_ELR_PLUS = Recipe(200, _ELR_PART, 0.02, 5e-4, _STEPS, "SGD", _DREW_TWICE)

# From a method to its recipes on CIFAR-10(N) and on CIFAR-100(N).
# Source: KlemenVovk/noisy-labels, rescience/tables/hyperparameters34.tex and
# hyperparametersPreAct.tex. Trained on all 50,000 images (src/noisypy/configs/data/cifar10n.py,
# Split(1)).
_RESCIENCE = {
    "ce": (_CIFARN, _CIFARN),
    "elr": (
        Recipe(120, _ALL, 0.02, 1e-3, _RESTARTS, "SGD"),
        Recipe(150, _ALL, 0.02, 1e-3, _STEPS, "SGD"),
    ),
    "elr-plus": (
        Recipe(200, _ALL, 0.02, 5e-4, _STEPS, "SGD"),
        Recipe(250, _ALL, 0.02, 5e-4, _STEPS, "SGD"),
    ),
    "sop": (
        Recipe(120, _ALL, 0.02, 5e-4, _STEPS, "SGD"),
        Recipe(150, _ALL, 0.02, 5e-4, _STEPS, "SGD"),
    ),
    "sop-plus": (Recipe(300, _ALL, 0.02, 5e-4, "cosine", "SGD"),) * 2,
    "dividemix": (Recipe(300, _ALL, 0.02, 5e-4, _STEPS, "SGD"),) * 2,
    "pes-semi": (Recipe(300, _ALL, 0.02, 5e-4, "cosine", "SGD"),) * 2,
    "volminnet": (Recipe(80, _ALL, 0.01, 1e-4, _STEPS, "SGD"),) * 2,
    "cal": (Recipe(165, _ALL, 0.1, 5e-4, _STEPS, "SGD"),) * 2,
    "co-teaching": (Recipe(200, _ALL, 0.001, 0.0, "linear decay", "Adam"),) * 2,
    "co-teaching-plus": (Recipe(200, _ALL, 0.001, 0.0, "linear decay", "Adam"),) * 2,
}

# Tables in the README of a method, by their authors' code.
_READMES = {
    # PaulAlbert31/LabelNoiseCorrection, train.py and RunScripts.sh.
    "M-DYR README": Recipe(300, _ALL, 0.1, 1e-4, _STEPS, "SGD"),
    # google/mentornet, code/cifar_train_mentornet.py.
    "MentorNet README": Recipe(lr=0.1, weight_decay=2e-4, schedule=_STEPS, optimiser="SGD"),
    # LayneH/self-adaptive-training, scripts/cifar10/run_sat.sh and scripts/cifar100/run_sat.sh.
    "SAT README": Recipe(200, None, 0.1, 5e-4, "cosine", "SGD"),
}


def recipe(record: Published) -> Recipe:
    """Return what is known of how a number was trained, each with its source."""
    table, method = record.table, record.method
    small = record.dataset in ("cifar10", "cifar10n")

    if table.startswith("ELR Table"):
        return _elr(record, small)
    if table == "CIFAR-N Table 2":
        return _cifar_n(method)
    if table.startswith("ReScience"):
        return _rescience(table, method, small)

    if table == "epsilon-softmax Table 2":
        # cswjl/eps-softmax, main.py and datasets/transformers.py (commit 1b9efb5): no validation
        # part, cosine to 0.
        if small:
            return Recipe(120, _ALL, 0.01, 1e-4, "cosine", "SGD", clip_norm=5.0)
        return Recipe(200, _ALL, 0.1, 1e-5, "cosine", "SGD", _ROTATES, clip_norm=5.0)
    if table == "epsilon-softmax Table 5":
        # The paper, and main_real_world.py of its code (commit b23b43e), which clips gradients on
        # WebVision alone.
        if record.dataset == "clothing1m":
            return Recipe(epochs=10, lr=0.005, clip_norm=0.0)
        return Recipe(epochs=250, lr=0.4, clip_norm=5.0)
    if table == "SCELoss-Reproduce README":
        # HanxunH/SCELoss-Reproduce, train.py and README (commit c81fb33).
        epochs = 120 if small else 150
        return Recipe(epochs, None, 0.01, None, _STEPS, "SGD", clip_norm=5.0)
    return _READMES.get(table, Recipe())


def _elr(record: Published, small: bool) -> Recipe:
    """Return the recipe of a number in the ELR paper."""
    if record.table == "ELR Table 1" and record.method == "elr":
        # Paper, appendix, and the configs of shengliu66/ELR (commit 934af53): 45,000 training and
        # 5,000 validation images, 120 epochs, on CIFAR-100 150. The cosine line of the table is
        # config_cifar10.json, 150 epochs. How long it ran on CIFAR-100 is not known.
        if record.variant == "cosine schedule":
            return replace(_ELR, epochs=150 if small else None, schedule=_RESTARTS)
        return _ELR if small else replace(_ELR, epochs=150)

    if record.table == "ELR Table 5" and record.variant.startswith("2 networks"):
        # The code is that of Table 2.
        return Recipe(other=_DREW_TWICE)
    if record.table == "ELR Table 2" and record.method == "elr-plus":
        # shengliu66/ELR, ELR_plus/config_cifar10.json and config_cifar100.json. train.py builds two
        # data sets.
        return _ELR_PLUS if small else replace(_ELR_PLUS, epochs=250)
    return Recipe()


def _cifar_n(method: str) -> Recipe:
    """Return the recipe of a number in CIFAR-N Table 2.

    Starter code UCSC-REAL/cifar-10-100n (commit 49df7d8): 100 epochs on all 50,000 images. The
    paper describes that for all methods, but a reproduction (ReScience C 11(1), 2026) reaches
    several numbers only with the recipes of the methods' authors.
    """
    if method == "forward":
        # Appendix E.3, as KlemenVovk/noisy-labels quotes it, has 200 epochs before the 100 of
        # Forward-T. Those of Backward-T are not known.
        return replace(_CIFARN, warmup=2.0)
    if method in ("ce", "backward"):
        return _CIFARN
    return Recipe(num_train=_ALL)


def _rescience(table: str, method: str, small: bool) -> Recipe:
    """Return the recipe of a number in the ReScience paper."""
    if table == "ReScience comparison table" and method not in ("elr", "elr-plus", "dividemix"):
        # Section 3.4 of that paper: one recipe for all but these three.
        return _CIFARN
    if method not in _RESCIENCE:
        return Recipe()
    cifar10, cifar100 = _RESCIENCE[method]
    known = cifar10 if small else cifar100
    if "benchmark" in table:
        # There with Split(0.9).
        return replace(known, num_train=_ELR_PART)
    return known
