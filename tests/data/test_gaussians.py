"""Two Gaussians: their moments are the given ones, and each seed draws other examples.

Their sizes are in the range of ELR's Theorem 1.
"""

import numpy as np
import pytest

from nlbench.data.datasets import gaussians
from nlbench.data.datasets.gaussians import INFO, SIGMA, P, V
from nlbench.data.places import Places


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """Return the datasets of five seeds, which read and write no file."""
    folder = tmp_path_factory.mktemp("empty")
    datasets = [gaussians.load(Places(folder, folder), seed) for seed in range(5)]
    assert list(folder.iterdir()) == []
    return datasets


def parts(dataset):
    """Yield features and labels of both parts."""
    yield dataset.train_images, dataset.clean_labels
    yield dataset.test_images, dataset.test_labels


def all_parts(datasets):
    """Yield features and labels of both parts of each dataset."""
    for dataset in datasets:
        yield from parts(dataset)


def noise_of(features, labels):
    """Return the features (N, P) float64 minus the mean of their class."""
    means = np.where(labels[:, None] == 0, V, -V)
    return features.reshape(len(labels), P).astype(np.float64) - means


def test_shapes_types_and_balance(drawn, tmp_path):
    assert gaussians.find(tmp_path).missing == ()
    sizes = (INFO.num_train, INFO.num_test)
    for dataset in drawn:
        for (features, labels), n in zip(parts(dataset), sizes, strict=True):
            assert features.shape == (n, *INFO.shape) == (n, P, 1, 1)
            assert (features.dtype, labels.dtype) == (np.float32, np.int64)
            assert np.bincount(labels).tolist() == [n // 2, n // 2]
            assert not features.flags.writeable
            assert np.isfinite(features).all()


def test_means_are_plus_and_minus_a_unit_vector(drawn):
    assert np.linalg.norm(V) == pytest.approx(1)

    for features, labels in all_parts(drawn):
        for c, mean in ((0, V), (1, -V)):
            own = features[labels == c].reshape(-1, P).astype(np.float64)
            # These are P standard normal numbers.
            error = (own.mean(0) - mean) * np.sqrt(len(own)) / SIGMA
            assert abs(error).max() < 5
            assert np.square(error).sum() == pytest.approx(P, abs=5 * np.sqrt(2 * P))


def test_noise_is_isotropic_and_normal(drawn):
    for features, labels in all_parts(drawn):
        z = noise_of(features, labels) / SIGMA
        assert z.mean() == pytest.approx(0, abs=5 / np.sqrt(z.size))
        assert z.var() == pytest.approx(1, abs=5 * np.sqrt(2 / z.size))
        assert (z**4).mean() == pytest.approx(3, abs=5 * np.sqrt(96 / z.size))

    pooled = np.concatenate([noise_of(*part) for part in all_parts(drawn)]) / SIGMA
    spectrum = np.linalg.eigvalsh(pooled.T @ pooled / len(pooled))

    # The spectrum of white noise ends at (1 +- edge)^2, after Marchenko and Pastur.
    edge = np.sqrt(P / len(pooled))

    assert (1 - edge) ** 2 - 0.05 < spectrum[0]
    assert spectrum[-1] < (1 + edge) ** 2 + 0.05
    assert (V @ pooled.T).var() == pytest.approx(1, abs=5 * np.sqrt(2 / len(pooled)))


def test_every_seed_draws_its_own(drawn, tmp_path):
    again = gaussians.load(Places(tmp_path, tmp_path), 1)
    for (features, labels), (same, same_labels) in zip(parts(drawn[1]), parts(again), strict=True):
        np.testing.assert_array_equal(features, same)
        np.testing.assert_array_equal(labels, same_labels)

    # No example comes twice, be it in one part, in two parts or for two seeds.
    examples = np.concatenate([features.reshape(-1, P) for features, _ in all_parts(drawn)])
    assert len(np.unique(examples[:, :3], axis=0)) == len(examples)
    assert not np.array_equal(drawn[0].clean_labels, drawn[1].clean_labels)


def test_fingerprint_is_the_datasets_not_the_seeds(drawn, monkeypatch, tmp_path):
    """Keep one fingerprint for all seeds: a suite reads it once, and a run key has the seed."""
    assert len({dataset.fingerprint for dataset in drawn}) == 1
    monkeypatch.setattr(gaussians, "SIGMA", 0.21)
    for seed in (0, 1):
        assert gaussians.load(Places(tmp_path, tmp_path), seed).fingerprint != drawn[0].fingerprint


@pytest.mark.parametrize("wrong", [0.2, 0.4, 0.5])
def test_sizes_are_in_the_range_of_the_theorem(wrong):
    # The theorem counts labels that are replaced at random. Half of them end up wrong.
    delta = 2 * wrong
    assert 1 - delta / 2 < P / INFO.num_train < 1
