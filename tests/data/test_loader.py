"""What a run trains on: noise first, then disjoint parts of exact size, and images on the device."""

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nlbench import streams
from nlbench.data import stratified
from nlbench.data.base import Dataset
from nlbench.data.datasets import cifar10, digits
from nlbench.data.noise.label_files import labels_hash
from nlbench.data.noise.resolve import apply
from nlbench.data.places import Places
from nlbench.errors import DataError
from nlbench.training.images import Images
from nlbench.training.run_data import RunData, prepare

NOISE = {"kind": "symmetric", "rate": 0.4}


@pytest.fixture
def dataset():
    """103 training images of three classes; every image holds its own position."""
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
    return all(
        np.array_equal(getattr(a, f.name), getattr(b, f.name))
        for f in fields(RunData)
        if f.name != "info"
    )


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
    run = prepare(
        dataset, seed=3, noise=NOISE, val_fraction=val_fraction, subset=subset, stratify=stratify
    )
    given_labels = apply(NOISE, dataset.clean_labels, dataset.info, 3)
    num_val = {0.0: 0, 0.1: 10, 0.5: 52}[val_fraction]  # 51.5 goes to the even number

    assert (run.num_val, run.num_train) == (num_val, subset or 103 - num_val)

    parts = np.concatenate([run.train_index, run.val_index])
    assert len(np.unique(parts)) == len(parts)
    np.testing.assert_array_equal(run.train_images[:, 0, 0, 0], run.train_index)
    np.testing.assert_array_equal(run.labels, given_labels[run.train_index])
    np.testing.assert_array_equal(run.clean_labels, dataset.clean_labels[run.train_index])
    if num_val:
        np.testing.assert_array_equal(run.val_images[:, 0, 0, 0], run.val_index)
        np.testing.assert_array_equal(run.val_labels, given_labels[run.val_index])

    strata_of = {"clean": dataset.clean_labels, "given": given_labels}[stratify]
    whole = np.bincount(strata_of, minlength=3)

    for index in (run.train_index, run.val_index):
        assert (
            abs(np.bincount(strata_of[index], minlength=3) - len(index) * whole / 103) < 2
        ).all()


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
    first, again, other = (prepare(dataset, seed=seed, **settings_) for seed in (0, 0, 1))

    assert equal(first, again)
    assert not np.array_equal(first.train_index, other.train_index)
    assert not np.array_equal(first.labels, other.labels)


def test_split_by_clean_labels_is_the_same_for_every_noise(dataset):
    a, b = (
        prepare(dataset, seed=0, noise={**NOISE, "rate": r}, val_fraction=0.1) for r in (0.2, 0.6)
    )
    np.testing.assert_array_equal(a.train_index, b.train_index)


def test_noise_is_the_same_with_and_without_a_validation_part(dataset):
    whole, part = (prepare(dataset, seed=0, noise=NOISE, val_fraction=f) for f in (0.0, 0.1))
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
    with pytest.raises(DataError, match="102 labels"):
        prepare(dataset, seed=0, noise={"kind": "file", "path": str(tmp_path / "x.npy"), "key": ""})


def test_test_images_among_the_training_images_are_a_leak(dataset):
    with pytest.raises(RuntimeError, match="same memory"):
        prepare(replace(dataset, test_images=dataset.train_images[5:14]), seed=0)


def test_an_overlapping_split_is_a_leak(dataset, monkeypatch):
    monkeypatch.setattr(
        stratified, "split", lambda labels, sizes, rng: [np.arange(size) for size in sizes]
    )

    with pytest.raises(RuntimeError, match="overlap"):
        prepare(dataset, seed=0, val_fraction=0.1)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 30), min_size=1, max_size=8), st.floats(0, 1))
def test_allocated_shares_are_exact_and_in_proportion(counts, share):
    total = int(share * sum(counts))
    shares = stratified.allocate(np.array(counts), total)

    assert shares.sum() == total
    assert (shares <= counts).all()
    assert (abs(shares - total * np.array(counts) / max(sum(counts), 1)) < 1).all()


def test_more_than_there_is():
    with pytest.raises(ValueError, match="cannot take 4 of 3"):
        stratified.allocate(np.array([1, 2]), 4)


def test_real_cifar10n_of_a_cpu_protocol(real_cifar10n):
    run = prepare(real_cifar10n, seed=0, labels="worst", subset=20_000, stratify="given")
    assert run.noise_rate_full == 0.40208
    assert run.num_train == 20_000
    assert abs(run.noise_rate_train - 0.40208) < 0.01

    whole = np.bincount(real_cifar10n.label_sets["worst"])
    assert (abs(np.bincount(run.labels) - 0.4 * whole) < 1).all()


# --- images ---------------------------------------------------------------------------------------


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (7, 32, 32, 3), np.uint8)


def normalised(image):
    """(H, W, 3) uint8 -> (3, H, W) float64."""
    return ((image / 255.0 - np.array(cifar10.INFO.mean)) / np.array(cifar10.INFO.std)).transpose(
        2, 0, 1
    )


def test_plain_images_are_normalised(pixels):
    images = Images(pixels, cifar10.INFO, "cpu", augment="crop-flip")
    assert len(images) == 7

    batch = images.plain(2, 5)
    assert batch.dtype == torch.float32
    np.testing.assert_allclose(
        batch, np.stack([normalised(image) for image in pixels[2:5]]), atol=1e-5
    )
    assert images.plain(5, 500).shape == (2, 3, 32, 32)


def test_augmented_images_are_crops_and_flips_by_their_rows(pixels):
    images = Images(pixels, cifar10.INFO, "cpu", augment="crop-flip")
    draws = images.draws(np.random.default_rng(0))
    batch = images.augmented(torch.tensor([6, 0, 3]), draws)

    for got, i in zip(batch, (6, 0, 3), strict=True):
        dy, dx, flip = draws[i].tolist()
        padded = np.pad(pixels[i], ((4, 4), (4, 4), (0, 0)))
        crop = padded[dy : dy + 32, dx : dx + 32]
        np.testing.assert_allclose(got, normalised(crop[:, ::-1] if flip else crop), atol=1e-5)


def test_draws():
    images = Images(np.zeros((3000, 4, 4, 3), np.uint8), cifar10.INFO, "cpu", augment="crop-flip")
    draws = images.draws(np.random.default_rng(0))

    assert draws.dtype == torch.int64
    assert draws.shape == (3000, 3)
    assert [len(column.unique()) for column in draws.T] == [9, 9, 2]
    assert draws.min() == 0
    assert draws.max(0).values.tolist() == [8, 8, 1]
    assert torch.equal(draws, images.draws(np.random.default_rng(0)))


def test_without_augmentation_there_is_nothing_to_draw(pixels):
    images = Images(pixels, cifar10.INFO, "cpu", augment="none")
    draws = images.draws(np.random.default_rng(0))
    assert draws.numel() == 0
    assert torch.equal(images.augmented(torch.tensor([1, 2]), draws), images.plain(1, 3))


def test_float_features_are_used_as_they_are(tmp_path):
    data = digits.load(Places(tmp_path, tmp_path), 0)
    images = Images(data.train_images, data.info, "cpu", augment="crop-flip")
    draws = images.draws(np.random.default_rng(0))

    assert draws.numel() == 0

    index = torch.tensor([5, 2])
    np.testing.assert_array_equal(images.augmented(index, draws), data.train_images[[5, 2]])
    np.testing.assert_array_equal(images.plain(1390, 2000), data.train_images[1390:])


def test_memory_maps_are_used_in_place(tmp_path, pixels, recwarn):
    np.save(tmp_path / "x.npy", pixels)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    images = Images(mapped, cifar10.INFO)

    assert images.data.data_ptr() == mapped.ctypes.data
    assert not [w for w in recwarn if "writable" in str(w.message)]


def test_other_arrays_are_refused():
    with pytest.raises(TypeError, match="uint8 or float32, got float64"):
        Images(np.zeros((2, 1, 8, 8)), digits.INFO)
