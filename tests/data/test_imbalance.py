"""Class-imbalanced subsets, compared with what LDAM's authors print for CIFAR."""

import numpy as np
import pytest

import nlbench
from nlbench import code_hash
from nlbench.data import catalogue, imbalance
from nlbench.data.base import Dataset, Info
from nlbench.data.imbalance import Imbalance
from nlbench.data.places import Places
from nlbench.errors import SuiteError
from nlbench.plan.presets import PRESETS

# As kaidic/LDAM-DRW has them for CIFAR-10, which its paper and many later ones show.
EXP_100 = [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]


def test_counts_are_those_of_ldam():
    assert Imbalance("exp", 0.01).counts(50_000, 10) == EXP_100
    assert sum(Imbalance("exp", 0.01).counts(50_000, 100)) == 10_847
    assert Imbalance("step", 0.1).counts(50_000, 10) == [5000] * 5 + [500] * 5
    # Their code lists no middle class for an odd number of classes. Here it is a small one.
    assert Imbalance("step", 0.5).counts(300, 3) == [100, 50, 50]
    assert Imbalance("exp", 1e-9).counts(100, 2) == [50, 1]


def made(given=None, clean=True, redrawn=False):
    """Return a dataset of 4 classes with 100 examples each, whose only feature is their number."""
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.arange(400) % 4)
    sets = {"given": labels if given is None else given}
    if clean:
        sets["clean"] = labels
    info = Info("made", "Made", 4, 400, 4, (1, 1, 1), tuple(sets), redrawn=redrawn)
    images = np.arange(400, dtype=np.float32).reshape(400, 1, 1, 1)
    return Dataset(info, images, images[:4], np.arange(4), sets, "abc")


def numbers(data):
    return data.train_images[:, 0, 0, 0].astype(int)


def test_examples_and_labels_stay_together_and_in_order():
    data = made(given=np.arange(400) % 4)
    part = imbalance.subset(data, Imbalance("exp", 0.1))
    kept = numbers(part)
    assert (np.diff(kept) > 0).all()
    assert (np.bincount(part.clean_labels) == [100, 46, 21, 10]).all()
    for name, labels in part.label_sets.items():
        assert (labels == data.label_sets[name][kept]).all()
    assert part.info.num_train == len(kept) == 177
    assert part.info.title == "Made exp 0.1"
    assert part.test_images is data.test_images


def test_given_labels_decide_where_the_true_ones_are_unknown():
    data = made(clean=False, given=np.arange(400) % 4)
    part = imbalance.subset(data, Imbalance("step", 0.2))
    assert (np.bincount(part.label_sets["given"]) == [100, 100, 20, 20]).all()


def test_a_smaller_ratio_keeps_some_of_the_same_examples():
    large, small = (imbalance.subset(made(), Imbalance("exp", ratio)) for ratio in (0.5, 0.05))
    assert set(numbers(small)) < set(numbers(large))


def test_fingerprints_differ_by_imbalance_and_by_the_labels_that_decide():
    found = {
        imbalance.subset(data, Imbalance(kind, ratio)).fingerprint
        for data in (made(), made(clean=False, given=np.arange(400) % 4))
        for kind, ratio in (("exp", 0.1), ("exp", 0.2), ("step", 0.1))
    }
    assert len(found) == 6
    again = imbalance.subset(made(), Imbalance("exp", 0.1)).fingerprint
    assert again in found


def test_a_class_that_lacks_examples_keeps_all_and_is_named():
    labels = np.array([0] * 20 + [1] * 130 + [2] * 125 + [3] * 125)
    part = imbalance.subset(made(clean=False, given=labels), Imbalance("exp", 0.5))
    assert (np.bincount(part.label_sets["given"]) == [20, 79, 62, 50]).all()
    assert part.warnings == (
        "Made: imbalance exp 0.5: classes with fewer examples than it gives them keep all: "
        "class 0 20 of 100",
    )


def test_the_name_of_a_dataset_says_it_all(tmp_path):
    for ratio in (0.01, 1 / 3, 1e-5):
        name = "digits" + Imbalance("exp", ratio).suffix
        assert imbalance.parse(name) == ("digits", Imbalance("exp", ratio))
    for name in ("folder:my@home", "folder:x@exp-1.2.3", "folder:x@exp-e"):
        assert imbalance.parse(name) == (name, None)

    places = Places(tmp_path, tmp_path)
    one, other = (catalogue.open_dataset("digits@exp-0.1", "", places, seed) for seed in (0, 1))
    # The examples differ with the seed, as those of digits do, and nothing else.
    assert one.fingerprint == other.fingerprint
    assert one.info.num_train == pytest.approx(565, abs=3)


def test_presets_and_the_code_hash_know_the_dataset_below():
    cifar = PRESETS["cifar"]
    assert cifar.on("cifar100@exp-0.01") == cifar.on("cifar100") != cifar.on("cifar10")
    plain = code_hash.hashed_files(None, "linear", "digits")
    more = set(code_hash.hashed_files(None, "linear", "digits@exp-0.1")) - set(plain)
    assert [file.name for file in more] == ["imbalance.py"]
    assert "digits.py" in {file.name for file in plain}


def test_a_suite_has_a_dataset_with_equal_and_with_unequal_classes(tmp_path):
    noise = {"kind": "symmetric", "rate": 0.4}
    plain = {"name": "digits", "noise": noise}
    suite = {
        "name": "unequal",
        "protocol": "digits",
        "datasets": [plain, {**plain, "imbalance": {"kind": "exp", "ratio": 0.1}}],
        "methods": {"ce": {}},
        "seeds": [0],
    }
    frame = nlbench.run(suite, out=tmp_path / "out", overrides={"epochs": 1})
    assert list(frame["dataset"]) == ["digits", "digits@exp-0.1"]
    assert list(frame["status"]) == ["done", "done"]
    assert len(list((tmp_path / "out" / "runs").iterdir())) == 2


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"kind": "exp", "ratio": 1.0}, r"imbalance\.ratio: must be less than 1"),
        ({"kind": "exp", "ratio": 0.0}, r"imbalance\.ratio: must be greater than 0"),
        ({"kind": "linear", "ratio": 0.1}, r"imbalance\.kind"),
        ({"kind": "exp"}, r"imbalance\.ratio: is required"),
        ({"kind": "exp", "ratio": 0.1, "rato": 1}, r"rato: unknown key\. It takes: kind, ratio\."),
    ],
)
def test_wrong_values_are_refused(given, words):
    suite = {
        "name": "unequal",
        "protocol": "digits",
        "datasets": [{"name": "digits", "imbalance": given}],
        "methods": {"ce": {}},
        "seeds": [0],
    }
    with pytest.raises(SuiteError, match=words):
        nlbench.run(suite, out="unused")
