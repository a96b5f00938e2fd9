"""The extractor without weights, against the formulas of its papers in float64."""

import numpy as np
import pytest
from sklearn.decomposition import PCA

from nlbench.embedding import patches
from nlbench.embedding.patches import Settings
from nlbench.embedding.principal import Principal


def pictures(count, height=14, width=13, seed=0):
    """Return smooth pictures (N, H, W, 3) uint8, some of them flat."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (count, height // 3 + 1, width // 3 + 1, 3))
    fine = coarse.repeat(3, 1).repeat(3, 2)[:, :height, :width]
    noisy = fine + rng.normal(0, 12, fine.shape)
    noisy[::7] = 128
    return noisy.clip(0, 255).astype(np.uint8)


@pytest.fixture
def few_patches(monkeypatch):
    monkeypatch.setattr(patches, "PATCHES", 2000)


# ---- References ----------------------------------------------------------------------------------


def contrast_normalised(patch):
    """Return one patch (D,) as Coates et al. normalise it (section 3.2.1)."""
    patch = patch.astype(np.float64)
    return (patch - patch.mean()) / np.sqrt(patch.var() + 10)


def whitening_of(points):
    """Return the mean and the ZCA matrix of points (P, D), by a singular value decomposition."""
    mean = points.mean(0)
    _, scales, axes = np.linalg.svd(points - mean, full_matrices=False)
    variances = scales**2 / len(points)
    return mean, axes.T @ np.diag((variances + 0.1) ** -0.5) @ axes


def activations(image, centroids, mean, whitening, side, cells):
    """Return the pooled triangle activations of one image, patch by patch."""
    height, width = (length - side + 1 for length in image.shape[:2])
    active = np.zeros((height, width, len(centroids)))
    for y in range(height):
        for x in range(width):
            # By channel, then row, then column, as a convolution has its weights.
            patch = image[y : y + side, x : x + side].transpose(2, 0, 1).ravel()
            point = (contrast_normalised(patch) - mean) @ whitening
            distances = ((point - centroids) ** 2).sum(1) / 2
            active[y, x] = np.maximum(0, distances.mean() - distances)

    pooled = np.zeros((len(centroids), cells, cells))
    for i in range(cells):
        for j in range(cells):
            # The parts may overlap by one where their number does not divide the length.
            rows = slice(i * height // cells, -(-(i + 1) * height // cells))
            columns = slice(j * width // cells, -(-(j + 1) * width // cells))
            pooled[:, i, j] = active[rows, columns].mean((0, 1))
    return np.sqrt(pooled).ravel()


# ---- Filters -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("height", "width", "cells"), [(14, 13, 3), (12, 12, 2), (28, 28, 3)])
def test_one_convolution_is_whitening_triangle_and_pooling(few_patches, height, width, cells):
    images = pictures(40, height, width)
    settings = Settings(filters=7, cells=cells)
    drawn = patches.draw_patches(images, settings)
    filters = patches.learn_filters(drawn, settings)

    normal = np.stack([contrast_normalised(patch) for patch in drawn])
    mean, whitening = whitening_of(normal)
    points = ((normal - mean) @ whitening).astype(np.float32)
    centroids = patches.spherical_kmeans(points, settings).astype(np.float64)

    found = filters(images[:3])
    for image, ours in zip(images[:3], found, strict=True):
        expected = activations(image, centroids, mean, whitening, 6, cells)
        # The root of an activation of 1e-6 is 1e-3, so that rounding is large there.
        np.testing.assert_allclose(ours, expected, rtol=2e-3, atol=2e-3)


def test_no_filter_sees_how_bright_a_patch_is(few_patches, monkeypatch):
    # A centroid that no patch has moved has some of the direction in which brightness changes.
    monkeypatch.setattr(patches, "PASSES", 0)
    settings = Settings(filters=7)
    filters = patches.learn_filters(patches.draw_patches(pictures(40), settings), settings)
    largest = filters.weight.abs().max()
    assert filters.weight.mean((1, 2, 3)).abs().max() < 1e-6 * largest


def test_patches_are_those_of_the_images(few_patches):
    images = pictures(5)
    known = set()
    for image in images:
        for y in range(14 - 5):
            for x in range(13 - 5):
                known.add(image[y : y + 6, x : x + 6].transpose(2, 0, 1).tobytes())
    for patch in patches.draw_patches(images, Settings())[:200]:
        assert patch.astype(np.uint8).tobytes() in known


def test_whitened_patches_have_the_covariance_of_zca():
    rng = np.random.default_rng(1)
    points = (rng.normal(size=(5000, 6)) * [3, 2, 1, 1, 0.5, 0.1]) @ rng.normal(size=(6, 6))
    mean, whitening = patches.zca(points.astype(np.float32))
    np.testing.assert_allclose(whitening, whitening_of(points)[1], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(whitening, whitening.T, atol=1e-5)
    np.testing.assert_allclose(mean, points.mean(0), atol=1e-4)


def test_centroids_are_those_of_the_formula():
    rng = np.random.default_rng(2)
    points = rng.normal(size=(300, 5)) * [3, 1, 1, 1, 0.3]
    settings = Settings(filters=4, seed=3)
    first = patches.rng(3, "embed", "centroids").standard_normal((4, 5), np.float32)

    expected = first / np.linalg.norm(first.astype(np.float64), axis=1, keepdims=True)
    for _ in range(patches.PASSES):
        # D := X S' + D with S zero but for the largest product, then each column has length 1.
        products = points @ expected.T
        chosen = np.abs(products).argmax(1)
        S = np.zeros_like(products)
        S[np.arange(300), chosen] = products[np.arange(300), chosen]
        expected = expected + S.T @ points
        expected /= np.linalg.norm(expected, axis=1, keepdims=True)

    found = patches.spherical_kmeans(points.astype(np.float32), settings)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


# ---- Principal components ------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "width", "dims"), [(200, 30, 12), (20, 50, 100)])
def test_components_are_those_of_scikit_learn(count, width, dims):
    rng = np.random.default_rng(4)
    features = rng.normal(size=(count, width)) @ rng.normal(size=(width, width)) + 5
    ours = Principal.of(features.astype(np.float32), dims, 0)(features.astype(np.float32))

    kept = min(dims, count - 1, width)
    scaled = (features - features.mean(0)) / features.std(0)
    expected = PCA(kept, svd_solver="full").fit_transform(scaled)
    assert ours.shape == expected.shape
    signs = np.sign((ours * expected).sum(0))
    np.testing.assert_allclose(ours * signs, expected, rtol=2e-3, atol=2e-3)


def test_the_fast_solver_finds_the_same_components(monkeypatch):
    from nlbench.embedding import principal

    rng = np.random.default_rng(5)
    axes = np.linalg.qr(rng.normal(size=(60, 60)))[0]
    features = (rng.normal(size=(400, 60)) * np.geomspace(10, 0.1, 60)) @ axes
    exact = Principal.of(features.astype(np.float32), 10, 0)
    monkeypatch.setattr(principal, "_EXACT", 0)
    fast = Principal.of(features.astype(np.float32), 10, 0)
    np.testing.assert_allclose(np.abs((exact.axes * fast.axes).sum(0)), 1, atol=1e-3)


def test_a_constant_feature_is_zero():
    features = np.random.default_rng(6).normal(size=(30, 4)).astype(np.float32)
    features[:, 2] = 7
    found = Principal.of(features, 3, 0)
    np.testing.assert_allclose(found.axes[2], 0, atol=1e-6)
    assert np.isfinite(found(features)).all()


# ---- The whole -----------------------------------------------------------------------------------


@pytest.mark.parametrize("side", [12, 28, 64])
def test_pictures_of_any_size_and_grey_ones_have_features(few_patches, side):
    images = pictures(50, side, side)
    grey = images.mean(3, keepdims=True).astype(np.uint8).repeat(3, 3)
    for given in (images, grey):
        found = patches.learn(given, Settings(filters=8, dims=10))(given)
        assert found.shape == (50, 10)
        assert np.isfinite(found).all()
        assert found.std(0).min() > 0


def test_the_same_seed_gives_the_same_features_and_another_seed_others(few_patches):
    images = pictures(40)
    settings = Settings(filters=9, dims=8)
    first = patches.learn(images, settings)(images)
    np.testing.assert_array_equal(first, patches.learn(images, settings)(images))
    other = patches.learn(images, Settings(filters=9, dims=8, seed=1))(images)
    assert np.abs(first - other).max() > 0.1


def test_features_do_not_depend_on_what_is_embedded_with_an_image(few_patches):
    images = pictures(40)
    learned = patches.learn(images, Settings(filters=9, dims=8))
    alone = np.concatenate([learned(images[i : i + 1]) for i in range(20)])
    np.testing.assert_allclose(alone, learned(images[:20]), rtol=1e-4, atol=1e-4)


def test_what_was_learned_can_be_kept(few_patches):
    images = pictures(40)
    learned = patches.learn(images, Settings(filters=9, dims=8))
    again = patches.Patches.of_arrays(learned.arrays())
    np.testing.assert_array_equal(learned(images), again(images))


def test_few_images_have_few_features(few_patches):
    images = pictures(40)
    assert patches.learn(images, Settings(filters=9, dims=30))(images).shape == (40, 8)


def test_images_that_are_too_small_are_refused():
    with pytest.raises(ValueError, match="images of 7x20 pixels have no room for 3 x 3 parts"):
        patches.learn(np.zeros((5, 7, 20, 3), np.uint8), Settings())
