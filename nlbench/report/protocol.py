"""The protocol of a suite's runs in words."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

_TRACKS = {
    "identical": "one protocol and one setting of each method, the same for all conditions",
    "tuned": "every row, cross entropy included, had the same number of tries on a seed of its own",
    "as-published": "each method has the recipe of its authors",
}

_SCHEDULES = {
    "constant": "at a constant rate",
    "multistep": "multiplied by {gamma} at epoch {milestones}",
    "stages": "then {rates} from epochs {starts} on",
    "cosine-restarts": "on a cosine that restarts every {period} epochs",
    "one-cycle": "on one cycle up and down",
    "warmup-cosine": "with a warm-up of {warmup} epochs, then on a cosine down to {floor}",
}

_OPTIMISERS = {"sgd": "SGD", "adamw": "AdamW", "adagrad": "Adagrad"}

_AUGMENTATIONS = {
    "crop-flip": "random crops and flips",
    "reflect-crop-flip": "random crops of the reflected image, and flips",
    "flip": "random flips",
    "none": "no augmentation",
}


def track(name: str) -> str:
    """Return how fair the comparison is, in words; empty for a track of a later version."""
    return _TRACKS.get(name, "")


def in_words(protocols: Iterable[Mapping[str, Any]]) -> list[str]:
    """Describe the protocols of a suite's runs in sentences; none where no run has ended."""
    distinct = {json.dumps(one, sort_keys=True): one for one in protocols}
    if not distinct:
        return []
    values = list(distinct.values())
    if len(values) == 1:
        return [_sentence(values[0])]

    names = sorted({name for one in values for name in one})
    differing = [name for name in names if len({json.dumps(one.get(name)) for one in values}) > 1]
    return [
        f"The runs have {len(values)} protocols, which differ in {', '.join(differing)}. The "
        "details of each run show its own. The first one: " + _sentence(values[0])
    ]


def _sentence(values: Mapping[str, Any]) -> str:
    """Describe one protocol. Whatever it does not say is left out."""
    parts = [f"Network {values.get('model', 'unknown')}"]
    if values.get("weights"):
        parts.append("from published weights")
    if "epochs" in values:
        parts.append(f"{values['epochs']} epochs")
    if "batch_size" in values:
        parts.append(f"batches of {values['batch_size']}")
    parts += _optimisation(values)
    if "augment" in values:
        parts.append(_AUGMENTATIONS.get(str(values["augment"]), str(values["augment"])))
    if values.get("val_fraction"):
        parts.append(f"a share of {_text(values['val_fraction'])} of the training images held out")
    if values.get("precision"):
        parts.append(f"precision {values['precision']}")
    if values.get("memory", "float32") != "float32":
        parts.append(f"soft labels kept in {values['memory']}")
    return f"{', '.join(parts)}."


def _optimisation(values: Mapping[str, Any]) -> list[str]:
    """Describe what makes the steps."""
    parts = []
    name = _OPTIMISERS.get(str(values.get("optimiser", "sgd")), str(values.get("optimiser")))
    if "lr" in values:
        rate = f"learning rate {_text(values['lr'])} {_schedule(values)}".rstrip()
        parts.append(f"{name} with {rate}")
    if values.get("layer_decay", 1) != 1:
        parts.append(f"times {_text(values['layer_decay'])} for each layer below the classifier")
    if "momentum" in values and name == "SGD":
        parts.append(f"momentum {_text(values['momentum'])}")
    if "weight_decay" in values:
        parts.append(f"weight decay {_text(values['weight_decay'])}")
    if values.get("clip_norm"):
        parts.append(f"gradients clipped at norm {_text(values['clip_norm'])}")
    return parts


def _schedule(values: Mapping[str, Any]) -> str:
    schedule = values.get("schedule")
    if not isinstance(schedule, Mapping):
        return ""
    texts = {str(name): _text(value) for name, value in schedule.items()}
    for name, value in schedule.items():
        if isinstance(value, list):
            *others, last = map(_text, value)
            texts[str(name)] = f"{', '.join(others)} and {last}" if others else last
    try:
        return _SCHEDULES.get(texts.get("kind", ""), "").format_map(texts)
    # A schedule of another version may lack a value.
    except KeyError:
        return ""


def _text(value: object) -> str:
    """Return a number without superfluous digits. A record of another version may have a text."""
    return f"{value:g}" if isinstance(value, int | float) else str(value)
