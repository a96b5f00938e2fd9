"""Two Gaussians: the moments that were asked for, drawn anew for each seed, in the range of ELR's Theorem 1."""

import numpy as np
import pytest

from nlbench.data.datasets import gaussians
from nlbench.data.datasets.gaussians import INFO, SIGMA, P, V
from nlbench.data.places import Places


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("empty")
    datasets = [gaussians.load(Places(folder, folder), seed) for seed in range(5)]
    assert list(folder.iterdir()) == []
    return datasets


def parts(dataset):
    yield dataset.train_images, dataset.clean_labels
    yield dataset.test_images, dataset.test_labels


def noise_of(features, labels):
    """What is left of the features (N, P) float64 without their class's mean."""
    return features.reshape(len(labels), P).astype(np.float64) - np.where(
        labels[:, None] == 0, V, -V
    )


def test_shapes_types_and_balance(drawn, tmp_path):
    assert gaussians.find(tmp_path).missing == ()
    for dataset in drawn:
        for (features, labels), n in zip(
            parts(dataset), (INFO.num_train, INFO.num_test), strict=True
        ):
            assert features.shape == (n, *INFO.shape) == (n, P, 1, 1)
            assert (features.dtype, labels.dtype) == (np.float32, np.int64)
            assert np.bincount(labels).tolist() == [n // 2, n // 2]
            assert not features.flags.writeable
            assert np.isfinite(features).all()


def test_means_are_plus_and_minus_a_unit_vector(drawn):
    assert np.linalg.norm(V) == pytest.approx(1)

    for features, labels in (part for dataset in drawn for part in parts(dataset)):
        for c, mean in ((0, V), (1, -V)):
            own = features[labels == c].reshape(-1, P).astype(np.float64)
            error = (own.mean(0) - mean) * np.sqrt(len(own)) / SIGMA  # P standard normal numbers
            assert abs(error).max() < 5
            assert np.square(error).sum() == pytest.approx(P, abs=5 * np.sqrt(2 * P))


def test_noise_is_isotropic_and_normal(drawn):
    for features, labels in (part for dataset in drawn for part in parts(dataset)):
        z = noise_of(features, labels) / SIGMA
        assert z.mean() == pytest.approx(0, abs=5 / np.sqrt(z.size))
        assert z.var() == pytest.approx(1, abs=5 * np.sqrt(2 / z.size))
        assert (z**4).mean() == pytest.approx(3, abs=5 * np.sqrt(96 / z.size))

    pooled = (
        np.concatenate([noise_of(*part) for dataset in drawn for part in parts(dataset)]) / SIGMA
    )
    spectrum = np.linalg.eigvalsh(pooled.T @ pooled / len(pooled))
    edge = np.sqrt(P / len(pooled))  # Marchenko & Pastur: where the spectrum of white noise ends

    assert (1 - edge) ** 2 - 0.05 < spectrum[0]
    assert spectrum[-1] < (1 + edge) ** 2 + 0.05
    assert (V @ pooled.T).var() == pytest.approx(1, abs=5 * np.sqrt(2 / len(pooled)))


def test_every_seed_draws_its_own(drawn, tmp_path):
    again = gaussians.load(Places(tmp_path, tmp_path), 1)
    for (features, labels), (same, same_labels) in zip(parts(drawn[1]), parts(again), strict=True):
        np.testing.assert_array_equal(features, same)
        np.testing.assert_array_equal(labels, same_labels)

    rows = np.concatenate(
        [features for dataset in drawn for features, _ in parts(dataset)]
    ).reshape(-1, P)

    assert len(np.unique(rows[:, :3], axis=0)) == len(
        rows
    )  # no example twice, in one part, across parts or seeds
    assert not np.array_equal(drawn[0].clean_labels, drawn[1].clean_labels)


def test_fingerprint_is_the_datasets_not_the_seeds(drawn, monkeypatch, tmp_path):
    """A suite reads it once and uses it for all its seeds, which their run keys name."""
    assert len({dataset.fingerprint for dataset in drawn}) == 1
    monkeypatch.setattr(gaussians, "SIGMA", 0.21)
    for seed in (0, 1):
        assert gaussians.load(Places(tmp_path, tmp_path), seed).fingerprint != drawn[0].fingerprint


@pytest.mark.parametrize("wrong", [0.2, 0.4, 0.5])
def test_sizes_are_in_the_range_of_the_theorem(wrong):
    delta = 2 * wrong  # labels replaced at random: with two classes half of them end up wrong
    assert 1 - delta / 2 < P / INFO.num_train < 1
