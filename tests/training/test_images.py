"""Images in memory: plain and augmented batches, and the draws that decide the augmentation."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from nlbench.data.datasets import cifar10, digits
from nlbench.data.places import Places
from nlbench.training.images import Images


@pytest.fixture
def pixels():
    """Return seven random images of CIFAR's size."""
    return np.random.default_rng(0).integers(0, 256, (7, 32, 32, 3), np.uint8)


def normalised(image):
    """Normalise (H, W, 3) uint8 to (3, H, W) float64 by CIFAR-10's mean and deviation."""
    mean, std = np.array(cifar10.INFO.mean), np.array(cifar10.INFO.std)
    return ((image / 255.0 - mean) / std).transpose(2, 0, 1)


def test_plain_images_are_normalised(pixels):
    images = Images(pixels, cifar10.INFO, "cpu", augment="crop-flip")
    assert len(images) == 7

    expected = np.stack([normalised(image) for image in pixels[2:5]])
    batch = images.plain(2, 5)
    assert batch.dtype == torch.float32
    np.testing.assert_allclose(batch, expected, atol=1e-5)

    # A part that ends behind the last image is shorter.
    assert images.plain(5, 500).shape == (2, 3, 32, 32)


def test_augmented_images_are_crops_and_flips_by_their_rows(pixels):
    images = Images(pixels, cifar10.INFO, "cpu", augment="crop-flip")
    draws = images.draws(np.random.default_rng(0))
    batch = images.augmented(torch.tensor([6, 0, 3]), draws)

    for got, i in zip(batch, (6, 0, 3), strict=True):
        dy, dx, flip = draws[i].tolist()
        padded = np.pad(pixels[i], ((4, 4), (4, 4), (0, 0)))
        crop = padded[dy : dy + 32, dx : dx + 32]
        if flip:
            crop = crop[:, ::-1]

        np.testing.assert_allclose(got, normalised(crop), atol=1e-5)


def test_draws():
    images = Images(np.zeros((3000, 4, 4, 3), np.uint8), cifar10.INFO, "cpu", augment="crop-flip")
    draws = images.draws(np.random.default_rng(0))

    assert draws.dtype == torch.int64
    assert draws.shape == (3000, 3)

    # Both offsets are 0 to 8, and the third column says whether to flip.
    assert [len(column.unique()) for column in draws.T] == [9, 9, 2]
    assert draws.min() == 0
    assert draws.max(0).values.tolist() == [8, 8, 1]
    assert torch.equal(draws, images.draws(np.random.default_rng(0)))


def test_without_augmentation_there_is_nothing_to_draw(pixels):
    images = Images(pixels, cifar10.INFO, "cpu", augment="none")
    draws = images.draws(np.random.default_rng(0))
    assert draws.numel() == 0
    assert torch.equal(images.augmented(torch.tensor([1, 2]), draws), images.plain(1, 3))


def test_texts_are_used_as_they_are():
    info = replace(digits.INFO, shape=(5,), vocabulary=40)
    words = np.random.default_rng(0).integers(0, 40, (9, 5))
    images = Images(words, info, "cpu", augment="crop-flip")
    draws = images.draws(np.random.default_rng(0))
    assert draws.numel() == 0
    # A model needs to know how long a text is, and how many words there are.
    assert images.shape == images.subset(np.array([1])).shape == (5, 40)

    index = torch.tensor([5, 2])
    batches = [images.augmented(index, draws), images.request(index, draws)()]
    batches.append(images.strong(index, draws, seed=0))
    for batch in batches:
        assert batch.dtype == torch.int64
        assert batch.tolist() == words[[5, 2]].tolist()
    assert images.plain(7, 500).tolist() == words[7:].tolist()
    assert images.subset(np.array([4, 0])).plain(0, 2).tolist() == words[[4, 0]].tolist()


@pytest.mark.parametrize(
    ("vocabulary", "dtype", "message"),
    [(40, np.int32, "must be int64, as texts are, got int32"), (0, np.int64, "uint8 or float32")],
)
def test_numbers_of_another_type_are_refused(vocabulary, dtype, message):
    info = replace(digits.INFO, shape=(5,), vocabulary=vocabulary)
    with pytest.raises(TypeError, match=message):
        Images(np.zeros((2, 5), dtype), info)


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
