"""Conditions, run specs and their keys."""

import json
import math
from dataclasses import replace

import pytest

from nlbench.plan.protocol import resolve
from nlbench.plan.rebuild import rebuild
from nlbench.plan.schedules import OneCycle
from nlbench.plan.spec import Condition, RunSpec, key_of

CONDITION = Condition("digits", "clean", {"kind": "symmetric", "rate": 0.4})
SPEC = RunSpec(
    row="elr",
    method="elr",
    params={"beta": 0.7, "lam": 3.0},
    condition=CONDITION,
    fingerprint="abc",
    protocol=resolve("digits", "digits", {"epochs": 2}),
    seed=0,
)


def key(**changes):
    """Return the key of SPEC with these fields changed."""
    return replace(SPEC, **changes).key


def under(**changes):
    """Change the condition of SPEC."""
    return {"condition": replace(CONDITION, **changes)}


def by(**changes):
    """Change the protocol of SPEC."""
    return {"protocol": SPEC.protocol.model_copy(update=changes)}


def test_a_key_is_the_same_in_every_version():
    """Pin the keys.

    With other keys no record in any store would be found again. Raise SCHEMA instead of changing a
    literal here.
    """
    identity = {
        "schema": 1,
        "method": "elr",
        "params": {"beta": 0.7, "lam": 3.0},
        "dataset": "digits",
        "labels": "clean",
        "noise": {"kind": "symmetric", "rate": 0.4},
        "fingerprint": "abc",
        "protocol": {
            "name": "digits",
            "version": 1,
            "epochs": 2,
            "precision": "float32",
            "threads": 1,
            "schedule": {"kind": "one-cycle", "rise": 0.3},
        },
        "seed": 0,
    }

    assert key_of(identity) == "b721643852ae79dd"
    assert key_of({"a": 1, "b": [1.5, None, "ä"]}) == "c1f22e448cc0c959"
    # Version 0.1 gave this key, too.
    assert key() == "1b4af786faa46be7"


def test_a_clip_is_part_of_the_key_and_its_absence_is_not():
    assert "clip_norm" not in SPEC.identity()["protocol"]
    assert key(**by(clip_norm=0.0)) == "1b4af786faa46be7"
    assert key(**by(clip_norm=5.0)) not in (key(), key(**by(clip_norm=4.0)))


def test_a_narrow_memory_is_part_of_the_key_and_the_usual_one_is_not():
    assert "memory" not in SPEC.identity()["protocol"]
    assert key(**by(memory="float32")) == "1b4af786faa46be7"
    assert len({key(), key(**by(memory="bfloat16")), key(**by(memory="float16"))}) == 3


def test_an_identity_is_plain_data_and_leaves_out_a_compile_that_is_false():
    identity = SPEC.identity()
    assert json.loads(json.dumps(identity)) == identity
    assert "compile" not in identity["protocol"]
    assert replace(SPEC, **by(compile=True)).identity()["protocol"]["compile"] is True


def test_an_identity_has_the_version_of_strong_views_where_they_are_used():
    assert "strong_views" not in SPEC.identity()
    using = replace(SPEC, strong_views=2)
    assert using.identity() == {**SPEC.identity(), "strong_views": 2}
    assert using.key != key()
    assert rebuild(using.identity()) == replace(using, row="elr")
    assert rebuild(SPEC.identity()).strong_views == 0


def test_an_identity_has_the_version_of_decoding_where_pictures_are_scaled():
    """Exact decoding keeps the keys that runs had before there was another one."""
    exact = replace(SPEC, **by(exact_decode=True))
    assert exact.identity() == SPEC.identity()

    scaled = replace(SPEC, decoding=2)
    assert scaled.identity() == {**SPEC.identity(), "decoding": 2}
    assert scaled.key != key()
    assert rebuild(scaled.identity()) == replace(scaled, row="elr")
    assert rebuild(SPEC.identity()).decoding == 0


def test_what_cannot_change_a_result_is_not_in_the_key():
    assert key(params={"lam": 3.0, "beta": 0.7}) == key()
    assert key(row="another name") == key()
    assert key(weights_path="/somewhere/else") == key()
    for name in ("title", "noise_path", "data_path"):
        assert key(**under(**{name: "another"})) == key()


def test_a_condition_is_its_dataset_labels_and_noise():
    """Compare without title and paths, so that records are found wherever the files lie."""
    same = replace(
        CONDITION, noise={"rate": 0.4, "kind": "symmetric"}, title="Digits", data_path="/x"
    )

    assert {CONDITION: 1}[same] == 1
    for other in (
        {"dataset": "cifar10"},
        {"labels": "worst"},
        {"noise": None},
        {"noise": {"kind": "symmetric"}},
    ):
        assert replace(CONDITION, **other) != CONDITION


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "alr"},
        {"params": {"beta": 0.7, "lam": 3.1}},
        {"params": {"beta": 0.9, "lam": 3.0}},
        under(dataset="cifar10"),
        under(labels="worst"),
        under(noise={"kind": "symmetric", "rate": 0.2}),
        under(noise={"kind": "pair-flip", "rate": 0.4}),
        under(noise=None),
        {"fingerprint": "abd"},
        {"seed": 1},
        by(name="cifar"),
        by(version=2),
        by(epochs=3),
        by(precision="bfloat16"),
        by(threads=2),
        by(weights="sha256:0"),
        by(schedule=OneCycle(kind="one-cycle", rise=0.31)),
    ],
)
def test_what_can_change_a_result_is_in_the_key(changes):
    assert key(**changes) != key()


def test_a_key_takes_no_number_that_json_has_not():
    with pytest.raises(ValueError, match="JSON"):
        key_of({"lam": math.nan})
