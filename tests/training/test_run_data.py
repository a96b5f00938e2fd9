"""What a run trains on: noise comes first, then disjoint parts of exact sizes."""

from dataclasses import fields, replace

import numpy as np
import pytest

from nlbench import streams
from nlbench.data import stratified
from nlbench.data.base import Dataset
from nlbench.data.datasets import cifar10
from nlbench.data.noise.label_files import labels_hash
from nlbench.data.noise.resolve import apply
from nlbench.errors import DataError
from nlbench.training.run_data import RunData, prepare

NOISE = {"kind": "symmetric", "rate": 0.4}


@pytest.fixture
def dataset():
    """Return 103 training images of three classes; every pixel of an image is its position."""
    info = replace(cifar10.INFO, num_classes=3, num_train=103, num_test=9, shape=(4, 4, 3))
    clean = streams.rng(0, "test").permutation(np.repeat([0, 1, 2], [50, 33, 20]))
    images = np.broadcast_to(np.arange(112, dtype=np.uint8)[:, None, None, None], (112, 4, 4, 3))
    return Dataset(
        info=info,
        train_images=images[:103].copy(),
        test_images=images[103:].copy(),
        test_labels=np.arange(9) % 3,
        label_sets={"clean": clean, "shifted": (clean + (np.arange(103) % 2)) % 3},
        fingerprint="",
    )


def equal(a: RunData, b: RunData) -> bool:
    """Compare all that a run trains on, array by array."""
    names = {field.name for field in fields(RunData)} - {"info"}
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in names)


def test_nothing_cut_out_nothing_copied(dataset):
    run = prepare(dataset, seed=0, labels="shifted")

    assert run.train_images is dataset.train_images
    assert run.val_images is run.val_labels is run.noise_rate_val is None
    assert (run.num_train, run.num_val, run.num_test) == (103, 0, 9)
    np.testing.assert_array_equal(run.train_index, np.arange(103))
    np.testing.assert_array_equal(run.labels, dataset.label_sets["shifted"])
    assert run.noise_rate_full == run.noise_rate_train == 51 / 103
    assert run.labels_hash == labels_hash(dataset.label_sets["shifted"])


@pytest.mark.parametrize("stratify", ["clean", "given"])
@pytest.mark.parametrize(
    ("val_fraction", "subset"), [(0.1, 0), (0.1, 40), (0.0, 40), (0.5, 51), (0.0, 103)]
)
def test_parts_are_exact_disjoint_and_belong_together(dataset, stratify, val_fraction, subset):
    parts = {"val_fraction": val_fraction, "subset": subset, "stratify": stratify}
    run = prepare(dataset, seed=3, noise=NOISE, **parts)
    given_labels = apply(NOISE, dataset.clean_labels, dataset.info, 3)

    # Half of 103 is rounded to the even number.
    num_val = {0.0: 0, 0.1: 10, 0.5: 52}[val_fraction]
    assert (run.num_val, run.num_train) == (num_val, subset or 103 - num_val)

    both = np.concatenate([run.train_index, run.val_index])
    assert len(np.unique(both)) == len(both)
    np.testing.assert_array_equal(run.train_images[:, 0, 0, 0], run.train_index)
    np.testing.assert_array_equal(run.labels, given_labels[run.train_index])
    np.testing.assert_array_equal(run.clean_labels, dataset.clean_labels[run.train_index])
    if num_val:
        np.testing.assert_array_equal(run.val_images[:, 0, 0, 0], run.val_index)
        np.testing.assert_array_equal(run.val_labels, given_labels[run.val_index])

    # Each part has the class shares of the whole, up to one example for each of two draws.
    strata = {"clean": dataset.clean_labels, "given": given_labels}[stratify]
    whole = np.bincount(strata, minlength=3)
    for index in (run.train_index, run.val_index):
        counts = np.bincount(strata[index], minlength=3)
        assert (abs(counts - len(index) * whole / 103) < 2).all()


def test_measured_rates_and_matrix_are_of_their_parts(dataset):
    run = prepare(dataset, seed=1, noise=NOISE, val_fraction=0.2)
    given_labels = apply(NOISE, dataset.clean_labels, dataset.info, 1)
    wrong = given_labels != dataset.clean_labels

    assert run.noise_rate_full == wrong.mean()
    assert run.noise_rate_train == wrong[run.train_index].mean()
    assert run.noise_rate_val == wrong[run.val_index].mean()
    assert run.labels_hash == labels_hash(given_labels)

    counts = np.zeros((3, 3))
    np.add.at(counts, (run.clean_labels, run.labels), 1)

    np.testing.assert_allclose(run.T, counts / counts.sum(1, keepdims=True))


def test_everything_follows_the_seed_and_nothing_else(dataset):
    settings_ = {"noise": NOISE, "val_fraction": 0.1, "subset": 50}
    first = prepare(dataset, seed=0, **settings_)
    again = prepare(dataset, seed=0, **settings_)
    other = prepare(dataset, seed=1, **settings_)

    assert equal(first, again)
    assert not np.array_equal(first.train_index, other.train_index)
    assert not np.array_equal(first.labels, other.labels)


def test_split_by_clean_labels_is_the_same_for_every_noise(dataset):
    low = prepare(dataset, seed=0, noise={**NOISE, "rate": 0.2}, val_fraction=0.1)
    high = prepare(dataset, seed=0, noise={**NOISE, "rate": 0.6}, val_fraction=0.1)
    np.testing.assert_array_equal(low.train_index, high.train_index)


def test_noise_is_the_same_with_and_without_a_validation_part(dataset):
    whole = prepare(dataset, seed=0, noise=NOISE, val_fraction=0.0)
    part = prepare(dataset, seed=0, noise=NOISE, val_fraction=0.1)
    assert whole.labels_hash == part.labels_hash
    np.testing.assert_array_equal(whole.labels[part.train_index], part.labels)


def test_labels_of_a_run_are_copies(dataset):
    for labels in ("clean", "shifted"):
        run = prepare(dataset, seed=0, labels=labels)
        run.labels[:] = run.clean_labels[:] = run.test_labels[:] = 0
    assert dataset.clean_labels.any()
    assert dataset.label_sets["shifted"].any()
    assert dataset.test_labels.any()


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"labels": "shiftet"}, "no label set 'shiftet'.*Did you mean 'shifted'"),
        ({"labels": "shifted", "noise": NOISE}, "exclude each other"),
        ({"stratify": "noisy"}, "stratify must be one of clean, given"),
        ({"val_fraction": 1.0}, r"val_fraction must be in \[0, 1\)"),
        ({"val_fraction": 0.999}, "leaves no training example"),
        ({"subset": 104}, r"subset must be in \[0, 103\], got 104"),
        ({"subset": 100, "val_fraction": 0.1}, r"subset must be in \[0, 93\], got 100: 10 of 103"),
        ({"subset": -1}, "subset must be in"),
    ],
)
def test_impossible_settings(dataset, settings_, message):
    with pytest.raises(ValueError, match=message):
        prepare(dataset, seed=0, **settings_)


def test_noise_file_of_the_wrong_length(dataset, tmp_path):
    np.save(tmp_path / "x.npy", np.zeros(102, int))
    noise = {"kind": "file", "path": str(tmp_path / "x.npy"), "key": ""}
    with pytest.raises(DataError, match="102 labels"):
        prepare(dataset, seed=0, noise=noise)


def test_test_images_among_the_training_images_are_a_leak(dataset):
    with pytest.raises(RuntimeError, match="same memory"):
        prepare(replace(dataset, test_images=dataset.train_images[5:14]), seed=0)


def test_an_overlapping_split_is_a_leak(dataset, monkeypatch):
    def overlapping(labels, sizes, rng):
        return [np.arange(size) for size in sizes]

    monkeypatch.setattr(stratified, "split", overlapping)

    with pytest.raises(RuntimeError, match="overlap"):
        prepare(dataset, seed=0, val_fraction=0.1)


# --- true labels of a part ------------------------------------------------------------------------


@pytest.fixture
def partly(dataset):
    """Return the dataset with the true labels of every second image alone, and all of them."""
    clean = dataset.label_sets["clean"]
    known = np.where(np.arange(103) % 2 == 0, clean, -1)
    given = {"given": dataset.label_sets["shifted"]}
    return replace(dataset, label_sets=given, partly_clean=known), clean


def test_the_noise_is_measured_where_the_true_labels_are_known(partly):
    dataset, clean = partly
    run = prepare(dataset, seed=0, labels="given", val_fraction=0.2)

    known = run.clean_labels >= 0
    assert run.num_known == known.sum() == (run.train_index % 2 == 0).sum()
    assert (run.clean_labels[known] == clean[run.train_index][known]).all()
    # `shifted` shifts the labels at odd positions, whose true labels are unknown here.
    assert run.noise_rate_train == run.noise_rate_val == run.noise_rate_full == 0
    assert np.array_equal(run.T, np.eye(3))


def test_the_split_does_not_look_at_a_part_of_the_true_labels(partly):
    dataset, _ = partly
    unknown = replace(dataset, partly_clean=None)
    for stratify in ("clean", "given"):
        options = {"seed": 0, "labels": "given", "val_fraction": 0.2, "stratify": stratify}
        run, other = prepare(dataset, **options), prepare(unknown, **options)
        assert np.array_equal(run.train_index, other.train_index)
        assert (other.clean_labels, other.num_known) == (None, 0)


def test_no_T_is_measured_where_a_class_has_no_known_true_label(partly):
    dataset, _ = partly
    known = np.where(dataset.partly_clean == 1, -1, dataset.partly_clean)
    run = prepare(replace(dataset, partly_clean=known), seed=0, labels="given")
    assert run.T is None
    assert run.noise_rate_train == 0

    nothing = np.full(103, -1)
    run = prepare(replace(dataset, partly_clean=nothing), seed=0, labels="given")
    assert run.noise_rate_train is run.T is None


def test_no_noise_is_drawn_on_a_part_of_the_true_labels(partly):
    with pytest.raises(ValueError, match="no noise can be drawn"):
        prepare(partly[0], seed=0, noise=NOISE)
