"""Scaled decoding of JPEGs, and decoding by simplejpeg in place of Pillow.

simplejpeg gives Pillow's pixels, errors and geometry. A scaled picture differs from the exact one
by bounds that are measured on photographs, and lies at the same place.
"""

import io
import re

import numpy as np
import pytest
import torch
from lab import make_run, make_task
from layouts import oriented, shown_pixels, turned
from PIL import Image

from nlbench.data import decode, jpeg
from nlbench.data.base import ImageFiles, Info
from nlbench.data.decode import BrokenImage, Geometry
from nlbench.plan.protocol import Protocol
from nlbench.training.images import FileImages

INFO = Info("x", "X", 2, 0, 0, (), mean=(0.5, 0.25, 0.75), std=(0.25, 0.5, 1.0))


@pytest.fixture(autouse=True)
def no_workers(monkeypatch):
    """Decode in this process."""
    monkeypatch.setenv("NLBENCH_WORKERS", "0")


@pytest.fixture(scope="module")
def photographs():
    """Return scikit-learn's two photographs, 640 x 427."""
    from sklearn.datasets import load_sample_images

    return [Image.fromarray(image) for image in load_sample_images().images]


@pytest.fixture
def by_pillow_alone(monkeypatch):
    """Return a function that decodes by Pillow, as without simplejpeg."""

    def decoded(path, geometry):
        with monkeypatch.context() as patch:
            patch.setattr(jpeg, "agrees", lambda scale: False)
            return outcome(path, geometry)

    return decoded


@pytest.fixture
def with_simplejpeg():
    """Skip where simplejpeg is missing."""
    pytest.importorskip("simplejpeg", reason="simplejpeg is an extra: pip install nlbench[jpeg]")


def outcome(path, geometry):
    """Return the decoded views, or the message of the error."""
    try:
        return decode.decode([str(path)], geometry, None)
    except BrokenImage as error:
        return str(error)


def assert_same(first, second):
    """Check that two outcomes are the same pixels or the same message."""
    assert type(first) is type(second)
    if isinstance(first, str):
        assert first == second
    else:
        np.testing.assert_array_equal(first, second)


def written(path, picture, **options):
    """Write a JPEG and return its path as text."""
    picture.save(path, "JPEG", **options)
    return str(path)


# --- What is scaled -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "size",
    [(9, 9), (63, 64), (64, 63), (64, 64), (65, 90), (127, 128), (128, 128), (255, 999),
     (256, 256), (513, 257), (2000, 2000)],
)  # fmt: skip
@pytest.mark.parametrize("least", [0, 1, 31, 32, 33])
def test_the_scale_is_the_one_that_pillow_chooses(tmp_path, size, least):
    path = written(tmp_path / "x.jpg", Image.new("RGB", size))
    with Image.open(path) as image:
        scale = jpeg.scale_of(image, least)
        jpeg.draft(image, scale)
        chosen = image.size

    with Image.open(path) as image:
        if least:
            image.draft(None, (least, least))
        assert chosen == image.size == jpeg.scaled(size, scale)

    # Neither side is made larger again.
    assert scale == 1 or min(chosen) >= least


def test_only_jpegs_are_scaled_and_only_where_they_are_resized(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (64, 80, 3), np.uint8)
    for form, resize in (("png", 20), ("bmp", 20), ("webp", 20), ("jpg", 0), ("jpg", 33)):
        path = tmp_path / f"x.{form}"
        Image.fromarray(pixels).save(path)
        exact, scaled = (
            decode.decode([str(path)], Geometry(resize, 16, 0, way), None) for way in (False, True)
        )
        np.testing.assert_array_equal(exact, scaled)

    exact, scaled = (
        decode.decode([str(path)], Geometry(32, 16, 0, way), None) for way in (False, True)
    )
    assert (exact != scaled).any()


@pytest.mark.parametrize(("resize", "crop"), [(256, 224), (256, 227)])
@pytest.mark.parametrize(
    ("short", "mean", "most"),
    [
        # Less than twice the target: the same pixels.
        (400, 0, 0),
        (511, 0, 0),
        # Just at a half or a quarter of the sides nothing remains to be resized, so that edges are
        # sharper than those of the filter of the exact way. In between, the filter does the rest.
        # Measured: 4.2 and 60; 1.9 and 26; 0.9 and 13; 3.9 and 80.
        (512, 4.5, 90),
        (600, 2.2, 40),
        (800, 1.2, 25),
        (1024, 4.5, 110),
    ],
)
def test_how_far_scaled_photographs_are_from_exact_ones(
    tmp_path, photographs, resize, crop, short, mean, most
):
    for i, photograph in enumerate(photographs):
        size = short * 4 // 3, short
        picture = photograph.resize(size, Image.Resampling.LANCZOS)
        path = written(tmp_path / f"{i}.jpg", picture, quality=90)
        exact, scaled = (
            decode.decode([path], Geometry(resize, crop, 0, way), None)[0].astype(int)
            for way in (False, True)
        )
        apart = abs(exact - scaled)
        assert apart.mean() <= mean
        assert apart.max() <= most

        # The same brightness and the same place: moved by a pixel, it fits worse.
        assert abs(exact.mean() - scaled.mean()) < 0.3
        for axis in (0, 1):
            assert mean == 0 or apart.mean() < abs(exact - np.roll(scaled, 1, axis)).mean() / 1.5


def test_the_protocol_says_how_far_scaled_pixels_are(tmp_path, photographs):
    text = " ".join(Protocol.__doc__.split())
    stated = re.search(r"by ([\d.]+) of 255 in the mean and (\d+) at edges", text)
    means, largest = [], []
    for i, photograph in enumerate(photographs):
        picture = photograph.resize((1366, 1024), Image.Resampling.LANCZOS)
        path = written(tmp_path / f"{i}.jpg", picture, quality=90)
        exact, scaled = (decode._resized(path, Geometry(256, 224, 0, way)) for way in (False, True))
        apart = (exact.int() - scaled.int()).abs()
        means.append(float(apart.double().mean()))
        largest.append(int(apart.max()))
    assert 0.8 * float(stated[1]) <= max(means) <= float(stated[1])
    assert 0.8 * int(stated[2]) <= max(largest) <= int(stated[2])


@pytest.mark.parametrize("size", [(801, 600), (513, 1023), (1025, 515), (767, 2049)])
def test_the_crop_has_its_place_at_every_scale(tmp_path, size):
    """The sides of a scaled picture are rounded, and the resized ones must not depend on that."""
    path = written(tmp_path / "x.jpg", Image.new("RGB", size, (90, 40, 200)))
    exact, scaled = (decode._resized(path, Geometry(64, 32, 0, way)) for way in (False, True))
    assert exact.shape == scaled.shape
    assert abs(exact.int() - scaled.int()).max() <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_scaled_pictures_are_upright(tmp_path, orientation, mode):
    large = shown_pixels().repeat(8, 0).repeat(8, 1)
    picture = Image.fromarray(turned(large, orientation)).convert(mode)
    path = written(tmp_path / "x.jpg", picture, exif=oriented(orientation), quality=95)
    image = decode._resized(path, Geometry(32, 32, 0, True)).permute(1, 2, 0).numpy()
    wanted = np.asarray(Image.fromarray(large).convert(mode).convert("RGB")).astype(int)

    assert image.shape == (32, 48, 3)
    for rows, columns in ((8, 12), (8, 36), (24, 12), (24, 36)):
        assert abs(image[rows, columns] - wanted[rows * 4, columns * 4]).max() < 12


def test_phones_with_several_frames_are_scaled(tmp_path):
    frames = [Image.fromarray(turned(shown_pixels().repeat(4, 0).repeat(4, 1), 6))]
    frames.append(Image.new("RGB", (64, 96)))
    path = tmp_path / "x.mpo"
    frames[0].save(path, save_all=True, append_images=frames[1:], exif=oriented(6), quality=95)
    image = decode._resized(str(path), Geometry(16, 16, 0, True))
    assert image.shape == (3, 16, 24)
    assert abs(image[:, 4, 6].int() - torch.tensor([255, 0, 0])).max() < 30


@pytest.mark.parametrize("scaled", [False, True])
def test_a_cut_off_file_is_refused_in_both_ways(tmp_path, photographs, scaled):
    path = tmp_path / "x.jpg"
    written(path, photographs[0])
    path.write_bytes(path.read_bytes()[:20_000])
    with pytest.raises(BrokenImage, match=r"x\.jpg: cannot be decoded .*truncated.*; 20000 bytes"):
        decode.decode([str(path)], Geometry(64, 32, 0, scaled), None)


# --- simplejpeg -----------------------------------------------------------------------------------

KINDS = {
    "4:4:4": ("RGB", {"subsampling": 0}),
    "4:2:2": ("RGB", {"subsampling": 1}),
    "4:2:0": ("RGB", {"subsampling": 2}),
    "progressive": ("RGB", {"progressive": True}),
    "restart markers": ("RGB", {"restart_marker_blocks": 3}),
    "stored as RGB": ("RGB", {"keep_rgb": True}),
    "grey": ("L", {}),
    "CMYK": ("CMYK", {}),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("resize", [0, 300, 150, 100, 50])
def test_simplejpeg_gives_pillows_pixels(
    tmp_path, photographs, by_pillow_alone, with_simplejpeg, kind, resize
):
    mode, options = KINDS[kind]
    for i, photograph in enumerate(photographs):
        # Sides of no whole number of blocks.
        picture = photograph.crop((0, 0, 531 - i, 401 + i)).convert(mode)
        path = written(tmp_path / f"{i}.jpg", picture, quality=85, exif=oriented(6 - i), **options)
        for scaled in (False, True):
            geometry = Geometry(resize, 48, 0, scaled)
            assert_same(outcome(path, geometry), by_pillow_alone(path, geometry))


def test_simplejpeg_is_used_for_the_usual_kinds_alone(tmp_path, photographs, with_simplejpeg):
    assert all(jpeg.agrees(scale) for scale in jpeg.SCALES)
    for kind, (mode, options) in KINDS.items():
        path = written(tmp_path / "x.jpg", photographs[0].convert(mode), **options)
        with Image.open(path) as image:
            assert (jpeg.fast(image, path, 2) is None) == (kind == "CMYK")


def test_a_simplejpeg_that_rounds_in_another_way_is_not_used(monkeypatch, with_simplejpeg):
    def dimmer(data, size, scale):
        return np.maximum(jpeg.by_pillow(data, scale), 1) - 1

    monkeypatch.setattr(jpeg, "by_simplejpeg", dimmer)
    assert not jpeg.agrees.__wrapped__(1)


def test_without_simplejpeg_pillow_decodes(monkeypatch):
    import builtins

    whole = builtins.__import__

    def without(name, *rest):
        if name == "simplejpeg":
            raise ImportError(name)
        return whole(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    assert not jpeg.agrees.__wrapped__(1)


@pytest.mark.parametrize("kind", ["4:2:0", "progressive", "grey"])
def test_damaged_files_are_read_and_refused_as_by_pillow(
    tmp_path, photographs, by_pillow_alone, with_simplejpeg, kind, capfd
):
    mode, options = KINDS[kind]
    buffer = io.BytesIO()
    photographs[0].resize((150, 110)).convert(mode).save(buffer, "JPEG", **options)
    whole = buffer.getvalue()

    rng = np.random.default_rng(0)
    path = tmp_path / "x.jpg"
    refused = 0
    for i in range(80):
        content = bytearray(whole[: rng.integers(1, len(whole))] if i % 2 else whole)
        for place in rng.integers(len(content), size=i % 5):
            content[place] = rng.integers(256)
        path.write_bytes(content)

        for resize in (0, 40):
            geometry = Geometry(resize, 24, 0, True)
            found = outcome(path, geometry)
            assert_same(found, by_pillow_alone(path, geometry))
        refused += isinstance(found, str)

    assert 20 <= refused <= 78
    # A library that writes to the terminal would spoil a run's display.
    assert capfd.readouterr() == ("", "")


# --- Views of one decoding ------------------------------------------------------------------------


@pytest.fixture
def images(tmp_path, photographs):
    """Return twenty crops of photographs as a run reads them."""
    names = []
    for i in range(20):
        left = 9 * i
        picture = photographs[i % 2].crop((left, 0, left + 150, 110 + i))
        written(tmp_path / f"{i:02}.jpg", picture)
        names.append(f"{i:02}.jpg".encode())
    files = ImageFiles(tmp_path, np.array(names))
    return FileImages(files, INFO, torch.device("cpu"), "crop-flip", Geometry(40, 32, 0, True))


def test_several_views_come_of_one_decoding(images, monkeypatch):
    opened = []
    whole = decode._open_pixels

    def counted(path, geometry):
        opened.append(path)
        return whole(path, geometry)

    index = torch.tensor([3, 19, 0, 7])
    draws = [images.draws(np.random.default_rng(seed)) for seed in range(3)]
    wanted = [images.augmented(index, draws[0]), images.augmented(index, draws[1])]
    strong = images.strong(index, draws[2], 5)

    monkeypatch.setattr(decode, "_open_pixels", counted)
    views, (strongly,) = images.request_views(index, draws[:2], [(draws[2], 5)])

    # In any order, and twice.
    assert torch.equal(views[1](), wanted[1])
    assert torch.equal(strongly(), strong)
    assert torch.equal(views[0](), wanted[0])
    assert torch.equal(views[1](), wanted[1])
    assert opened == [images.files.path(i) for i in index.tolist()]


def test_strong_views_take_decoded_pixels_without_another_copy(images):
    """One copy puts the workers' parts together, and the kernel reads that one."""
    index = torch.arange(20)
    draws = images.draws(np.random.default_rng(0))
    _, (strong,) = images.request_views(index, [], [(draws, 5)])
    copies = {"aten::cat", "aten::clone", "aten::copy_"}
    # The first call makes the tables of the policy and of the normalisation.
    strong()
    with torch.profiler.profile() as profile:
        strong()
    assert [event.name for event in profile.events() if event.name in copies] == ["aten::cat"]


def test_decoded_pixels_have_their_channels_last(images):
    paths = [images.files.path(i) for i in range(3)]
    draws = np.random.default_rng(0).random((2, 3, 3), np.float32)
    views = decode.decode_views(paths, images.geometry, draws)
    assert views.shape == (2, 3, 32, 32, 3)
    assert views.flags["C_CONTIGUOUS"]

    normal = images.augmented(torch.arange(3), torch.from_numpy(draws[1]).repeat(7, 1)[:20])
    wanted = (views[1] / 255 - np.array(INFO.mean)) / np.array(INFO.std)
    np.testing.assert_allclose(normal.permute(0, 2, 3, 1), wanted, atol=1e-5)
    assert normal.is_contiguous(memory_format=torch.channels_last)


def test_without_augmentation_all_views_are_the_centre(images):
    still = images.subset(np.arange(20))
    index = torch.tensor([3, 19])
    none = still.draws(np.random.default_rng(0))
    views, strong = still.request_views(index, [none, none], [(none, 5)])
    centres = torch.cat([still.plain(3, 4), still.plain(19, 20)])
    for view in views:
        assert torch.equal(view(), centres)
    assert torch.equal(strong[0](), still.strong(index, none, 5))


def test_strong_views_are_decoded_in_advance_once_a_method_has_asked_for_one(images, monkeypatch):
    asked = []
    whole = images.request_views

    def counted(index, draws, strong):
        asked.append((len(draws), len(strong)))
        return whole(index, draws, strong)

    monkeypatch.setattr(images, "request_views", counted)
    run = make_run(make_task(20), images=images)
    run.begin_epoch(0)
    index = torch.arange(5)
    first, second = run.batch(index), run.batch(index, 0, 1)
    strong = first.strong(0)
    third = run.batch(index + 5)

    # The second batch was drawn before anything was asked for, as its strong view is then.
    assert asked == [(1, 0), (2, 0), (0, 1), (1, 1)]
    assert torch.equal(second.strong(0), strong)
    assert torch.equal(third.strong(0), images.strong(index + 5, *run._strong_draws(0)))
    assert torch.equal(third.images, images.augmented(index + 5, run.draws(0)))

    # A view that was used up is decoded again, and another epoch begins without.
    assert torch.equal(third.strong(0), images.strong(index + 5, *run._strong_draws(0)))
    del asked[:]
    run.begin_epoch(1)
    assert not torch.equal(run.batch(index).strong(0), strong)
    assert asked == [(1, 0), (0, 1)]
