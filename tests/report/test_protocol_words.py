"""The protocol of a suite's runs in words."""

import pytest

from nlbench.plan.protocol import resolve
from nlbench.plan.schedules import SCHEDULE_KINDS
from nlbench.report import protocol

SCHEDULES = {
    "constant": ({}, "0.1 at a constant rate, "),
    "multistep": (
        {"milestones": [40.0, 80.0], "gamma": 0.1},
        "0.1 multiplied by 0.1 at epoch 40 and 80, ",
    ),
    "stages": (
        {"starts": [200.0, 240.0, 280.0], "rates": [0.2, 0.02, 0.002]},
        "0.1 then 0.2, 0.02 and 0.002 from epochs 200, 240 and 280 on, ",
    ),
    "cosine-restarts": (
        {"period": 10.0, "floor": 0.001},
        "0.1 on a cosine that restarts every 10 epochs, ",
    ),
    "one-cycle": ({}, "0.1 on one cycle up and down, "),
    "warmup-cosine": (
        {"warmup": 5.0, "floor": 1e-6},
        "0.1 with a warm-up of 5 epochs, then on a cosine down to 1e-06, ",
    ),
}


@pytest.mark.parametrize("kind", SCHEDULE_KINDS)
def test_every_schedule_has_its_words(kind):
    values, words = SCHEDULES[kind]
    run = resolve("cifar", "cifar10", {"lr": 0.1, "schedule": {"kind": kind, **values}})

    (sentence,) = protocol.in_words([run.model_dump()])

    assert f"SGD with learning rate {words}" in sentence


def test_a_narrow_memory_is_said_and_the_usual_one_is_not():
    for memory, ends in (("bfloat16", "soft labels kept in bfloat16."), ("float32", "float32.")):
        run = resolve("cifar", "cifar10", {"memory": memory, "precision": "float32"})
        (sentence,) = protocol.in_words([run.model_dump()])
        assert sentence.endswith(ends)
        assert ("soft labels" in sentence) == (memory != "float32")


def test_a_clip_is_said_and_its_absence_is_not():
    for bound, words in ((5.0, "weight decay 0.001, gradients clipped at norm 5, random"), (0, "")):
        run = resolve("cifar", "cifar10", {"clip_norm": bound})
        (sentence,) = protocol.in_words([run.model_dump()])
        assert words in sentence
        assert ("clipped" in sentence) == bool(bound)


def test_another_optimiser_is_named_without_a_momentum():
    run = resolve("cifar", "cifar10", {"optimiser": "adamw", "lr": 0.001, "layer_decay": 0.75})
    (sentence,) = protocol.in_words([run.model_dump()])
    assert "AdamW with learning rate 0.001 multiplied by 0.01" in sentence
    assert "times 0.75 for each layer below the classifier, weight decay" in sentence
    assert "SGD" not in sentence
    assert "momentum" not in sentence
