"""Strong views of images in memory: their order, their operations, and where their draws belong."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from nlbench.data.datasets import cifar10
from nlbench.errors import SuiteError
from nlbench.plan.fit import misfits
from nlbench.plan.protocol import resolve
from nlbench.training.images import Images
from nlbench.training.strong_views import OPERATIONS, rand_augment

MEAN, STD = np.array(cifar10.INFO.mean), np.array(cifar10.INFO.std)
KINDS = ["autoaugment", "randaugment-5", "randaugment-10"]


@pytest.fixture
def pixels():
    """Return twelve smooth images of CIFAR's size, no two rows or columns of which are equal."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (12, 8, 8, 3), np.uint8)
    smooth = [np.asarray(Image.fromarray(image).resize((32, 32))) for image in coarse]
    return np.stack(smooth)


def views_of(pixels, strong, augment="crop-flip", seed=5):
    images = Images(pixels, cifar10.INFO, "cpu", augment, strong)
    draws = images.draws(np.random.default_rng(0))
    return images.strong(torch.arange(len(pixels)), draws, seed), draws


# ---- Both kinds ---------------------------------------------------------------------------------


@pytest.mark.parametrize("strong", KINDS)
@pytest.mark.parametrize("augment", ["crop-flip", "reflect-crop-flip", "none"])
def test_a_view_belongs_to_its_example_and_seed(pixels, strong, augment):
    images = Images(pixels, cifar10.INFO, "cpu", augment, strong)
    draws = images.draws(np.random.default_rng(0))
    index = torch.tensor([3, 7, 1])
    part = images.strong(index, draws, 5)

    whole = images.strong(torch.arange(12), draws, 5)
    assert torch.equal(part, whole[index])
    assert not torch.equal(part, images.strong(index, draws, 6))
    np.testing.assert_array_equal(images.data, pixels)

    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    images.strong(index, draws, 5)
    assert torch.equal(torch.rand(1), expected)


# ---- AutoAugment --------------------------------------------------------------------------------


def test_autoaugment_comes_before_crop_and_flip_and_the_cutout_last(pixels):
    """As in shengliu66/SOP, which puts AutoAugment first in its list of transforms."""
    views, draws = views_of(pixels, "autoaugment")
    policy = v2.AutoAugment(v2.AutoAugmentPolicy.CIFAR10)

    for i, view in enumerate(views):
        torch.manual_seed(5 + i)
        changed = policy(torch.from_numpy(pixels[i]).permute(2, 0, 1)).permute(1, 2, 0).numpy()
        y, x = int(torch.randint(32, ())), int(torch.randint(32, ()))

        dy, dx, flip = draws[i].tolist()
        crop = np.pad(changed, ((4, 4), (4, 4), (0, 0)))[dy : dy + 32, dx : dx + 32]
        crop = crop[:, ::-1] if flip else crop
        expected = (crop / 255 - MEAN) / STD
        expected[max(y - 8, 0) : y + 8, max(x - 8, 0) : x + 8] = 0
        np.testing.assert_allclose(view, expected.transpose(2, 0, 1), atol=1e-5)


# ---- RandAugment --------------------------------------------------------------------------------


def test_reflected_crops_are_those_of_a_reflected_padding(pixels):
    images = Images(pixels, cifar10.INFO, "cpu", "reflect-crop-flip")
    draws = images.draws(np.random.default_rng(0))
    assert (draws.min(0).values.tolist(), images.padding) == ([0, 0, 0], 4)
    batch = images.augmented(torch.tensor([6, 0, 3, 11]), draws)

    for got, i in zip(batch, (6, 0, 3, 11), strict=True):
        dy, dx, flip = draws[i].tolist()
        padded = np.pad(pixels[i], ((4, 4), (4, 4), (0, 0)), mode="reflect")
        crop = padded[dy : dy + 32, dx : dx + 32]
        crop = crop[:, ::-1] if flip else crop
        np.testing.assert_allclose(got, ((crop / 255 - MEAN) / STD).transpose(2, 0, 1), atol=1e-5)


def test_larger_images_are_reflected_by_an_eighth_of_their_side():
    images = Images(np.zeros((900, 64, 64, 3), np.uint8), cifar10.INFO, "cpu", "reflect-crop-flip")
    draws = images.draws(np.random.default_rng(0))
    assert images.padding == 8
    assert draws.max(0).values.tolist() == [16, 16, 1]


def test_randaugment_follows_crop_and_flip(pixels):
    """As in JackYFL/DISC, TransformFixMatch_CIFAR10; grey is 127 before the normalisation."""
    views, draws = views_of(pixels, "randaugment-5", "reflect-crop-flip")
    weak = Images(pixels, cifar10.INFO, "cpu", "reflect-crop-flip").augmented(
        torch.arange(12), draws
    )
    raw = ((weak.numpy().transpose(0, 2, 3, 1) * STD + MEAN) * 255).round().astype(np.uint8)
    changed = rand_augment(torch.from_numpy(raw).permute(0, 3, 1, 2), torch.arange(12), 5, 5)
    expected = (changed.permute(0, 2, 3, 1).numpy() / 255 - MEAN) / STD
    np.testing.assert_allclose(views, expected.transpose(0, 3, 1, 2), atol=1e-5)


def test_a_view_is_at_most_two_operations_and_a_small_square():
    """A quarter of the views has no operation, since each is applied with probability 1/2."""
    black = torch.zeros(400, 3, 32, 32, dtype=torch.uint8)
    views = rand_augment(black, torch.arange(400), 0, 5).permute(0, 2, 3, 1).numpy()
    only_square = [set(np.unique(view)) <= {0, 127} for view in views]
    # Black stays black but for five operations: cutout, invert, solarizing sums.
    grey = np.array([(view == 127).all(2).sum() for view in views])
    assert np.mean(only_square) > 0.5
    # 4 pixels of 32, and one more as Pillow counts; less at the edge; more where one is drawn too.
    assert np.median(grey[only_square]) == 25
    assert grey[only_square].min() >= 6
    assert np.quantile(grey[only_square], 0.9) <= 25


POINTS = {
    1: lambda x, v: (0.1 + 0.18 * v) * x,
    6: lambda x, v: 255 - x,
    7: lambda x, v: x // 2 ** (8 - int(4 + v * 4 / 10)) * 2 ** (8 - int(4 + v * 4 / 10)),
    12: lambda x, v: np.where(x < 256 - int(v * 256 / 10), x, 255 - x),
}


@pytest.mark.parametrize("number", POINTS)
@pytest.mark.parametrize("strength", [1, 4, 9])
def test_operations_on_single_pixels(pixels, number, strength):
    image = Image.fromarray(pixels[0])
    changed = np.asarray(OPERATIONS[number](image, strength, np.random.default_rng(0)))
    expected = POINTS[number](pixels[0].astype(float), strength).clip(0, 255)
    np.testing.assert_allclose(changed, expected, atol=1)


@pytest.mark.parametrize("strength", [1, 4, 9])
def test_operations_that_move_pixels_do_so_in_both_directions(pixels, strength):
    image = Image.fromarray(np.tile(pixels[0], (2, 2, 1)))
    original = np.asarray(image)
    for number, axis in ((14, 1), (15, 0)):
        shifts = set()
        for seed in range(8):
            moved = OPERATIONS[number](image, strength, np.random.default_rng(seed))
            for shift in (-2, -1, 0, 1, 2):
                inner = (slice(4, -4), slice(4, -4))
                if np.array_equal(np.roll(original, shift, axis)[inner], np.asarray(moved)[inner]):
                    shifts.add(shift)
        # 0.05 of the side at strength 10: of 64 pixels none, one or two.
        expected = int(0.005 * strength * 64)
        assert shifts == {expected, -expected}


def test_adding_before_solarizing(pixels):
    image = Image.fromarray(pixels[0])
    seen = set()
    for seed in range(8):
        changed = np.asarray(OPERATIONS[13](image, 3, np.random.default_rng(seed)))
        for sign in (-1, 1):
            moved = (pixels[0].astype(int) + sign * 33).clip(0, 255)
            if np.array_equal(changed, np.where(moved < 128, moved, 255 - moved)):
                seen.add(sign)
    assert seen == {-1, 1}


def test_the_strength_stays_below_the_magnitude(monkeypatch):
    seen = []

    def note(image, strength, rng):
        seen.append(strength)
        return image

    monkeypatch.setattr("nlbench.training.strong_views.OPERATIONS", (note,))
    images = torch.zeros(200, 3, 8, 8, dtype=torch.uint8)
    rand_augment(images, torch.arange(200), 0, 5)
    assert set(seen) == {1, 2, 3, 4}
    # Two are drawn for each image, and half of them are applied.
    assert 150 < len(seen) < 250


# ---- In a protocol ------------------------------------------------------------------------------


def test_the_default_leaves_keys_as_they_are():
    assert "strong" not in resolve("cifar", "cifar10").identity()
    changed = resolve("cifar", "cifar10", {"strong": "randaugment-5"})
    assert changed.identity()["strong"] == "randaugment-5"
    with pytest.raises(SuiteError, match="randaugment-10"):
        resolve("cifar", "cifar10", {"strong": "randaugment"})


def test_files_have_no_reflected_crops(tmp_path):
    from nlbench.data.datasets import webvision

    protocol = resolve("webvision-mini", "webvision", {"augment": "reflect-crop-flip"})
    problems = [str(problem) for problem in misfits(protocol, webvision.INFO, tmp_path)]
    assert problems == [
        "augment: reflect-crop-flip is for images in memory, and those of "
        f"{webvision.INFO.title} are files: use crop-flip"
    ]
