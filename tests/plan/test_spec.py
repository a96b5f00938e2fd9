"""Conditions, run specs and their keys."""

import json
import math
from dataclasses import replace

import pytest

from nlbench.plan.protocol import Protocol, resolve
from nlbench.plan.rebuild import rebuild
from nlbench.plan.schedules import Constant, OneCycle
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


# A further value of every key of a protocol. The code of a record does not cover protocol.py, so a
# value that changes a number must change the key.
OTHER_VALUES = {
    "name": "linear", "version": 2, "model": "cnn3", "model_args": {"img_size": 32}, "epochs": 3,
    "batch_size": 64, "optimiser": "adamw", "lr": 0.01, "layer_decay": 0.9, "momentum": 0.5,
    "nesterov": True, "weight_decay": 0.1, "clip_norm": 1.0, "schedule": Constant(kind="constant"),
    "augment": "flip", "strong": "randaugment-5", "resize": 40, "crop": 32, "mean": [0.5],
    "std": [0.25], "weights": "imagenet", "batches_per_epoch": 3, "val_fraction": 0.1, "subset": 50,
    "preprocess": "weights", "stratify": "clean", "precision": "bfloat16", "compile": True,
    "threads": 2, "memory": "bfloat16",
}  # fmt: skip


def test_every_value_of_a_protocol_is_in_the_key():
    # `RunSpec.decoding` is in the key in its place; see above.
    assert {*OTHER_VALUES, "exact_decode"} == set(Protocol.model_fields)
    keys = {name: key(**by(**{name: value})) for name, value in OTHER_VALUES.items()}
    assert key() not in keys.values()
    assert len(set(keys.values())) == len(keys)

    # These values are refused alone.
    also = {"optimiser": {"momentum": 0.0}, "mean": {"std": [0.25]}, "std": {"mean": [0.5]}}
    for name, value in OTHER_VALUES.items():
        changed = replace(SPEC, **by(**{name: value}, **also.get(name, {})))
        again = rebuild(json.loads(json.dumps(changed.identity()))).protocol
        assert getattr(again, name) == value


def test_values_that_are_left_out_of_the_key_are_those_of_the_first_versions():
    """With another default, runs that leave the key out would have the keys of others."""
    first = {
        "compile": False, "strong": "autoaugment", "clip_norm": 0.0, "optimiser": "sgd",
        "layer_decay": 1.0, "model_args": {}, "mean": [], "std": [], "preprocess": "dataset",
        "memory": "float32",
    }  # fmt: skip
    values = SPEC.protocol.model_dump(mode="json")
    left_out = values.keys() - SPEC.protocol.identity().keys() - {"exact_decode"}
    assert {name: values[name] for name in left_out} == first


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
