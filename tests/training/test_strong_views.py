"""Strong views of images in memory: what they are made of, and where their draws belong."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from written_methods import function, loss, members, step, write

from nlbench import registry
from nlbench.conformance.made_up_data import make_data
from nlbench.conformance.trial import Trial
from nlbench.data.datasets import cifar10
from nlbench.errors import MethodError, SuiteError
from nlbench.ops import strong_reference
from nlbench.ops.policies import POLICIES
from nlbench.plan.fit import misfits
from nlbench.plan.protocol import resolve
from nlbench.plan.spec import Condition, RunSpec
from nlbench.results.store import Store
from nlbench.training.context import Listener, RunOptions
from nlbench.training.helper import HelperNetworks, Wanted
from nlbench.training.images import Images
from nlbench.training.train import train

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
    every = torch.arange(len(pixels))
    return images.strong(every, draws, seed), images.augmented(every, draws)


def untouched(kind, seed, N):
    """Return the examples to which a policy applies no operation."""
    policy = POLICIES[kind]
    found = []
    for example in range(N):
        applied = False
        for number in range(policy.rounds):
            word = strong_reference.words(seed, example, number, 0)[0]
            entry = policy.entries[strong_reference.pick(word, len(policy.entries))]
            for slot, setting in enumerate(entry):
                word = strong_reference.words(seed, example, number, slot + 1)[0]
                applied |= word < setting.probability * 2**32
        if not applied:
            found.append(example)
    return found


# ---- Both kinds ---------------------------------------------------------------------------------


@pytest.mark.parametrize("strong", KINDS)
@pytest.mark.parametrize("augment", ["crop-flip", "reflect-crop-flip", "flip", "none"])
def test_a_view_belongs_to_its_example_and_seed(pixels, strong, augment):
    images = Images(pixels, cifar10.INFO, "cpu", augment, strong)
    draws = images.draws(np.random.default_rng(0))
    index = torch.tensor([3, 7, 1])
    part = images.strong(index, draws, 5)

    whole = images.strong(torch.arange(12), draws, 5)
    assert torch.equal(part, whole[index])
    assert not torch.equal(part, images.strong(index, draws, 6))
    np.testing.assert_array_equal(images.data, pixels)
    assert part.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("strong", KINDS)
@pytest.mark.parametrize("augment", ["crop-flip", "reflect-crop-flip", "flip", "none"])
def test_without_an_operation_a_view_is_the_weak_one_with_a_square(pixels, strong, augment):
    """The protocol's crop and flip, its padding and its normalisation are those of view 0."""
    many = np.concatenate([pixels] * 6)
    views, weak = views_of(many, strong, augment)
    examples = untouched(strong, 5, len(many))
    assert len(examples) > 2

    level = 0 if strong == "autoaugment" else torch.from_numpy((127 / 255 - MEAN) / STD)
    most = 256 if strong == "autoaugment" else 25
    for i in examples:
        differs = (views[i] != weak[i]).any(0)
        assert 0 < differs.sum() <= most
        cut = views[i].permute(1, 2, 0)[differs]
        np.testing.assert_allclose(cut, np.broadcast_to(level, cut.shape), atol=1e-6)


def test_most_views_of_autoaugment_are_changed(pixels):
    many = np.concatenate([pixels] * 20)
    for strong, share in (("autoaugment", 0.11), ("randaugment-5", 0.25)):
        assert len(untouched(strong, 5, len(many))) / len(many) == pytest.approx(share, abs=0.07)


def test_float_features_have_no_strong_views():
    features = np.random.default_rng(0).normal(size=(5, 1, 8, 8)).astype(np.float32)
    images = Images(features, cifar10.INFO)
    index = torch.tensor([4, 2])
    assert torch.equal(images.strong(index, torch.empty(0, 3), 1), images.data[index])


def test_padding_that_reflects_is_an_eighth_of_the_side(pixels):
    """The op gets the images' own padding, of which 8 x 8 images have one pixel."""
    small = pixels[:, ::4, ::4]
    views, weak = views_of(np.concatenate([small] * 6), "randaugment-5", "reflect-crop-flip")
    kept = untouched("randaugment-5", 5, 72)
    same = [(views[i] == weak[i]).all(0).float().mean() for i in kept]
    assert min(same) > 0.8


# ---- Crops --------------------------------------------------------------------------------------


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


def test_methods_with_strong_views_share_helper_networks_with_the_others(tmp_path):
    """A helper network with the common loss sees weak views alone."""
    condition = Condition("cifar10", "clean", {"kind": "symmetric", "rate": 0.4})
    protocol = resolve("cifar", "cifar10")
    spec = RunSpec("row", "disc", {}, condition, "f", protocol, 0)
    options = RunOptions(
        devices=(torch.device("cpu"),), data_dir=tmp_path, methods=registry.method_files([])
    )
    keys = set()
    for version in (0, 2):
        of_version = replace(spec, strong_views=version)
        helpers = HelperNetworks(of_version, options, Store(tmp_path), Listener())
        keys.add(helpers._fit_key(Wanted("noisy", "ce", 2)))
    assert len(keys) == 1


# ---- In a run ------------------------------------------------------------------------------------

USING = members(step("batch.strong(0)"))
IN_HELPER = members(
    function(
        "prepare(self, run)",
        "def own(logits, batch):",
        "    return F.cross_entropy(logits, batch.labels) + 0 * batch.strong(0).sum()",
        "run.fit('own', own, 1)",
    ),
    loss(),
)


def trained(tmp_path, text, *, version, pixels=True):
    """Train a method for an epoch, in a run whose key has this version of strong views."""
    trial = Trial(pixels=pixels, epochs=1)
    write(tmp_path, text)
    methods = registry.method_files([tmp_path])
    options = RunOptions(devices=(torch.device("cpu"),), data_dir=tmp_path, methods=methods)
    condition = Condition("check", "clean", None)
    spec = RunSpec("mine", "mine", {}, condition, "", trial.protocol(), 0, strong_views=version)
    return train(spec, make_data(trial, ()), options, Store(tmp_path / "out"), Listener())


@pytest.mark.parametrize("text", [USING, IN_HELPER])
def test_a_run_fails_that_uses_strong_views_and_has_no_version_of_them(tmp_path, text):
    with pytest.raises(MethodError, match="key has no version of strong views") as caught:
        trained(tmp_path, text, version=0)
    assert caught.value.fix.startswith("call batch.strong(k) in a function of the method's class")


@pytest.mark.parametrize("text", [USING, IN_HELPER])
@pytest.mark.parametrize(("version", "pixels"), [(2, True), (0, False)])
def test_strong_views_need_a_version_only_on_images(tmp_path, text, version, pixels):
    assert trained(tmp_path, text, version=version, pixels=pixels).status == "done"
