"""Decoding of image files.

Geometry is checked by hand. Worker processes change no byte, and the death of one is reported.
"""

import io
import os
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
import torch
from layouts import oriented, shown_pixels, turned, write_image
from PIL import Image

from nlbench.data import decode
from nlbench.data.base import ImageFiles, Info
from nlbench.data.decode import Geometry
from nlbench.data.formats import image_lists
from nlbench.errors import DataError
from nlbench.training.images import FileImages

INFO = Info("x", "X", 2, 0, 0, (), mean=(0.5, 0.25, 0.75), std=(0.25, 0.5, 1.0))
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def no_workers(monkeypatch):
    """Decode in this process, where a test does not say otherwise."""
    monkeypatch.setenv("NLBENCH_WORKERS", "0")


def save(path, pixels, **options):
    """Write an image without loss and return its path as text."""
    Image.fromarray(pixels).save(path, **options)
    return str(path)


def one(path, resize=0, crop=4, draw=None):
    """Decode one file to (H, W, 3)."""
    draws = None if draw is None else np.array([draw])
    (image,) = decode.decode([str(path)], Geometry(resize, crop), draws)
    return image


@pytest.fixture
def numbered(tmp_path):
    """Write a PNG of 7 x 9 (height, width) whose pixels are (row, column, 100)."""
    rows, columns = np.mgrid[:7, :9]
    pixels = np.stack([rows, columns, np.full((7, 9), 100)], 2)
    return save(tmp_path / "n.png", pixels.astype(np.uint8))


# --- geometry -------------------------------------------------------------------------------------


def test_centre(numbered):
    image = one(numbered, crop=4)

    # The first row is (7 - 4) // 2, the first column (9 - 4) // 2.
    assert image[:, 0, 0].tolist() == [1, 2, 3, 4]
    assert image[0, :, 1].tolist() == [2, 3, 4, 5]
    assert (image[:, :, 2] == 100).all()


@pytest.mark.parametrize(
    ("draw", "top", "left", "flip"),
    [
        ((0.0, 0.0, 0.0), 0, 0, False),
        ((1 - 2**-24, 1 - 2**-24, 0.499), 3, 5, False),
        # 0.25 of the 4 possible rows is row 1, 0.5 of the 6 possible columns is column 3.
        ((0.25, 0.5, 0.5), 1, 3, True),
        ((0.2499, 0.4999, 0.999), 0, 2, True),
    ],
)
def test_crop_and_flip_by_their_draw(numbered, draw, top, left, flip):
    image = one(numbered, crop=4, draw=np.array(draw, np.float32))

    columns = list(range(left, left + 4))
    if flip:
        columns.reverse()

    assert image[:, 0, 0].tolist() == list(range(top, top + 4))
    assert image[0, :, 1].tolist() == columns


def test_every_place_is_drawn_equally_often_and_none_is_out_of_bounds(numbered):
    draws = np.random.default_rng(0).random((4800, 3), np.float32)
    images = decode.decode([numbered] * 4800, Geometry(0, 4), draws)

    flipped = draws[:, 2] >= 0.5
    unflipped = np.where(flipped[:, None, None, None], images[:, :, ::-1], images)
    counts = np.zeros((4, 6))
    np.add.at(counts, (unflipped[:, 0, 0, 0], unflipped[:, 0, 0, 1]), 1)

    assert counts.sum() == 4800
    assert (abs(counts - 200) < 60).all()


@pytest.mark.parametrize("size", [(7, 9), (9, 7), (7, 7), (3, 30), (300, 100)])
def test_the_short_side_is_resized(tmp_path, size):
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    image = one(save(tmp_path / "x.png", pixels), resize=6, crop=6)

    # The reference is PIL's own antialiased bilinear filter; the short side becomes 6.
    height, width = 6 * size[0] // min(size), 6 * size[1] // min(size)
    resized = Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR)
    expected = np.asarray(resized)
    top, left = (height - 6) // 2, (width - 6) // 2

    assert abs(image.astype(int) - expected[top : top + 6, left : left + 6]).max() <= 2


def test_an_image_smaller_than_the_crop_gets_a_black_border(numbered):
    image = one(numbered, crop=12)

    # Of 5 more rows 2 are above, of 3 more columns 1 is on the left.
    assert image[2:9, 1:10, 2].all()
    assert image[:, :, 2].sum() == 100 * 7 * 9
    assert image[2, 1:10, 1].tolist() == list(range(9))

    # This crop is higher than the image, and not wider.
    wide = one(numbered, crop=8, draw=(0.0, 0.999, 0.0))
    assert wide[:, 0, 2].tolist() == [100] * 7 + [0]
    assert wide[0, :, 1].tolist() == list(range(1, 9))


# --- kinds of files -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "value", "expected"),
    [
        ("L", 77, (77, 77, 77)),
        ("1", 1, (255, 255, 255)),
        # Transparent pixels are laid over black.
        ("RGBA", (200, 100, 50, 128), (100, 50, 25)),
        ("LA", (200, 128), (100, 100, 100)),
        # Of the bits that are used the upper eight are kept.
        ("I;16", 0x4D80, (0x4D, 0x4D, 0x4D)),
        ("I;16", 0x34D8, (0xD3, 0xD3, 0xD3)),
        ("I;16", 0x0D80, (0xD8, 0xD8, 0xD8)),
        ("I;16", 0x0280, (0xA0, 0xA0, 0xA0)),
        ("I;16", 0x00B3, (0xB3, 0xB3, 0xB3)),
        ("I;16", 0, (0, 0, 0)),
    ],
)
def test_pngs_that_are_not_rgb(tmp_path, mode, value, expected):
    Image.new(mode, (6, 6), value).save(tmp_path / "x.png")
    image = one(tmp_path / "x.png")
    assert abs(image.astype(int) - expected).max() <= 1


def test_palettes(tmp_path):
    indexed = Image.new("P", (6, 6), 1)
    indexed.putpalette([9, 9, 9, 10, 20, 30])
    indexed.save(tmp_path / "x.gif")

    assert one(tmp_path / "x.gif")[2, 2].tolist() == [10, 20, 30]

    indexed.save(tmp_path / "x.png", transparency=1)
    assert one(tmp_path / "x.png")[2, 2].tolist() == [0, 0, 0]


def test_cmyk_jpegs(tmp_path):
    Image.new("RGB", (8, 8), (200, 100, 50)).convert("CMYK").save(tmp_path / "x.jpg", quality=100)
    assert Image.open(tmp_path / "x.jpg").mode == "CMYK"
    assert abs(one(tmp_path / "x.jpg")[0, 0].astype(int) - (200, 100, 50)).max() < 6


def test_a_transparent_colour_of_an_rgb_png(tmp_path):
    Image.new("RGB", (6, 6), (10, 20, 30)).save(tmp_path / "x.png", transparency=(10, 20, 30))
    assert not one(tmp_path / "x.png").any()


def test_floating_point_pixels_are_refused(tmp_path):
    Image.fromarray(np.ones((6, 6), np.float32)).save(tmp_path / "x.tiff")
    with pytest.raises(DataError, match=r"x\.tiff: cannot be decoded \(pixels are floating-point"):
        one(tmp_path / "x.tiff")


# --- as a viewer shows it -------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["jpg", "png", "webp", "tiff"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path, form, orientation):
    options = {"jpg": {"quality": 95}, "webp": {"lossless": True}}.get(form, {})
    path = tmp_path / f"x.{form}"
    Image.fromarray(turned(shown_pixels(), orientation)).save(
        path, exif=oriented(orientation), **options
    )
    pixels = np.asarray(decode.open_image(str(path))).astype(int)
    assert pixels.shape == (16, 24, 3)
    # JPEG blurs the borders.
    for rows, columns in ((4, 6), (4, 18), (12, 6), (12, 18)):
        assert abs(pixels[rows, columns] - shown_pixels()[rows, columns]).max() < 30


def test_orientation_of_grey_of_16_bits_and_of_phones_with_several_frames(tmp_path):
    grey = shown_pixels()[:, :, 0].astype(np.uint16) * 257
    Image.fromarray(np.ascontiguousarray(grey.T)).save(tmp_path / "x.png", exif=oriented(5))
    pixels = np.asarray(decode.open_image(str(tmp_path / "x.png")))
    np.testing.assert_array_equal(pixels[:, :, 0], grey >> 8)

    frames = [Image.fromarray(turned(shown_pixels(), 6)), Image.new("RGB", (16, 24))]
    frames[0].save(
        tmp_path / "x.mpo", save_all=True, append_images=frames[1:], exif=oriented(6), quality=95
    )
    assert Image.open(tmp_path / "x.mpo").n_frames == 2
    pixels = np.asarray(decode.open_image(str(tmp_path / "x.mpo"))).astype(int)
    assert abs(pixels[4, 6] - (255, 0, 0)).max() < 30


@pytest.mark.parametrize("exif", [oriented(0), oriented(9), b"Exif\0\0MM\0*\0\0", b"Exif\0\0x"])
def test_unreadable_orientation_is_none(tmp_path, exif):
    Image.fromarray(shown_pixels()).save(tmp_path / "x.jpg", exif=exif)
    assert decode.open_image(str(tmp_path / "x.jpg")).size == (24, 16)


@pytest.mark.parametrize("form", ["gif", "webp", "png"])
def test_the_first_frame_counts(tmp_path, form):
    first, second = Image.new("RGB", (8, 8), (250, 0, 0)), Image.new("RGB", (8, 8), (0, 0, 250))
    first.save(tmp_path / f"x.{form}", save_all=True, append_images=[second])
    assert one(tmp_path / f"x.{form}")[0, 0, 0] > 240


def test_dark_pictures_are_scaled_as_the_bright_ones_of_their_dataset(tmp_path):
    dark, bright = np.full((6, 6), 900, np.uint16), np.full((6, 6), 4000, np.uint16)
    Image.fromarray(dark).save(tmp_path / "dark.png")
    assert (one(tmp_path / "dark.png") == 900 >> 2).all()
    (scaled,) = decode.decode([str(tmp_path / "dark.png")], Geometry(0, 4, 12), None)
    assert (scaled == 900 >> 4).all()

    # A picture that needs more is not cut off.
    Image.fromarray(bright).save(tmp_path / "bright.png")
    (scaled,) = decode.decode([str(tmp_path / "bright.png")], Geometry(0, 4, 10), None)
    assert (scaled == 4000 >> 4).all()

    images = FileImages(
        ImageFiles(tmp_path, np.array([b"dark.png"]), 12), INFO, CPU, "none", Geometry(0, 4)
    )
    expected = (900 >> 4) / 255
    assert images.plain(0, 1)[0, 0, 0, 0] == pytest.approx((expected - 0.5) / 0.25, abs=1e-5)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        # Big-endian as microscopes write it; integers of 32 bits that use 12 or 16.
        (np.full((6, 6), 0x4D80, ">u2"), 0x4D),
        (np.full((6, 6), 0x0D80, np.int32), 0xD8),
        (np.full((6, 6), 0xFFFF, np.int32), 0xFF),
    ],
)
def test_grey_of_tiff_files(tmp_path, values, expected):
    Image.fromarray(values).save(tmp_path / "x.tiff")
    assert (one(tmp_path / "x.tiff") == expected).all()


def test_white_is_zero(tmp_path):
    Image.fromarray(np.full((6, 6), 0xF000, np.uint16)).save(tmp_path / "x.tiff", tiffinfo={262: 0})
    assert (one(tmp_path / "x.tiff") == 0x0F).all()


@pytest.mark.parametrize("values", [[[0, -1]], [[70_000, 0]]])
def test_grey_without_a_white_is_refused(tmp_path, values):
    Image.fromarray(np.array(values, np.int32)).save(tmp_path / "x.tiff")
    with pytest.raises(DataError, match=r"value of white is unknown: save it with 8 or 16 bits\)$"):
        one(tmp_path / "x.tiff")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"\n<!DOCTYPE html><p>404", "is a web page and no image"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS"),
        (b"hello", "no kind of image that is known"),
    ],
)
def test_a_file_that_is_no_image_is_called_what_it_is(tmp_path, content, message):
    (tmp_path / "x.jpg").write_bytes(content)
    with pytest.raises(DataError, match=message):
        one(tmp_path / "x.jpg")


def test_an_image_that_may_not_be_read(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Image, "open", refuse)
    with pytest.raises(DataError, match="may not be read by this user; change its permissions"):
        decode.open_image(str(tmp_path / "x.jpg"))


def test_links_to_nothing_and_images_that_are_too_large(tmp_path, monkeypatch):
    (tmp_path / "x.jpg").symlink_to("gone.jpg")
    with pytest.raises(DataError, match=r"x\.jpg: is a link to gone\.jpg, which is not there"):
        one(tmp_path / "x.jpg")

    Image.new("RGB", (9, 9)).save(tmp_path / "y.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40)
    with pytest.raises(DataError, match=r"more than 80 pixels\).*: make it smaller"):
        one(tmp_path / "y.png")


def damaged(whole, i, rng):
    """Return a copy with up to six bytes changed, cut off at any place where i is even."""
    content = bytearray(whole)
    if i % 2 == 0:
        content = content[: rng.integers(len(whole))]

    if content:
        for place in rng.integers(len(content), size=i % 7):
            content[place] = rng.integers(256)

    return content


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "BMP", "WEBP"])
def test_a_damaged_file_is_named(tmp_path, form):
    path = tmp_path / "x"
    pixels = np.random.default_rng(0).integers(0, 256, (24, 20, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form)

    rng = np.random.default_rng(1)
    refused = 0

    for i in range(60):
        content = damaged(buffer.getvalue(), i, rng)
        path.write_bytes(content)

        try:
            decode.open_image(str(path))
        except DataError as error:
            message = str(error)
            refused += 1
        else:
            continue

        assert f"{path}: cannot be decoded" in message
        assert f"; {len(content)} bytes, perhaps a download that broke off" in message

    # Each format can be decoded in spite of some damage.
    assert refused >= 20


def test_a_file_that_went_away(tmp_path):
    with pytest.raises(DataError, match=r"x\.jpg: there is no such image"):
        one(tmp_path / "x.jpg")
    with pytest.raises(DataError, match="cannot be decoded"):
        one(tmp_path)


# --- workers --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Write 50 JPEGs of different sizes to one folder."""
    folder = tmp_path_factory.mktemp("images")
    for i in range(50):
        write_image(folder / f"{i:02}, ä.jpg", i, i, (20 + i % 5, 24 - i % 3))
    return image_lists.image_files(folder, sorted(path.name for path in folder.iterdir()))


def images_of(files, augment="crop-flip", resize=18, crop=16):
    return FileImages(files, INFO, CPU, augment, Geometry(resize, crop))


def test_the_number_of_workers_does_not_change_the_bytes(files, monkeypatch):
    draws = np.random.default_rng(0).random((50, 3), np.float32)
    paths = [files.path(i) for i in range(50)]

    one_by_one = []
    for path, draw in zip(paths, draws, strict=True):
        one_by_one.append(decode.decode([path], Geometry(18, 16), draw[None]))
    expected = np.concatenate(one_by_one).tobytes()

    for count in "012":
        monkeypatch.setenv("NLBENCH_WORKERS", count)
        parts = decode.request(paths, Geometry(18, 16), draws).take()
        assert [len(part) for part in parts] == [16, 16, 16, 2]
        assert np.concatenate(parts).tobytes() == expected


def test_an_error_in_a_worker_is_the_same(files, tmp_path, monkeypatch):
    (tmp_path / "x.jpg").write_bytes(b"\xff\xd8")
    monkeypatch.setenv("NLBENCH_WORKERS", "2")
    pending = decode.request([files.path(0), str(tmp_path / "x.jpg")], Geometry(0, 4), None)
    with pytest.raises(DataError, match=r"x\.jpg: cannot be decoded .* 2 bytes"):
        pending.take()
    assert decode.request([files.path(0)], Geometry(0, 4), None).take()[0].shape == (1, 4, 4, 3)


@pytest.mark.parametrize("noticed", [True, False])
def test_after_a_worker_was_killed_the_next_request_works(files, monkeypatch, noticed):
    monkeypatch.setenv("NLBENCH_WORKERS", "2")
    paths = [files.path(i) for i in range(50)] * 20
    decode.request(paths[:40], Geometry(0, 4), None).take()
    pending = decode.request(paths, Geometry(18, 16), None)
    for process in list(decode._pool(2)._processes.values()):
        os.kill(process.pid, signal.SIGKILL)

    if noticed:
        message = "was killed, perhaps for want of memory: NLBENCH_WORKERS"
        with pytest.raises(DataError, match=message):
            pending.take()
    else:
        # The next request comes when the pool is broken and nobody has asked for the images yet.
        deadline = time.monotonic() + 30
        while not decode._pool(2)._broken and time.monotonic() < deadline:
            time.sleep(0.01)

    again = decode.request(paths[:40], Geometry(0, 4), None)
    if not noticed:
        with pytest.raises(DataError, match="was killed"):
            pending.take()

    assert sum(map(len, again.take())) == 40
    assert sum(map(len, decode.request(paths[:40], Geometry(0, 4), None).take())) == 40


# Users forget the guard `if __name__ == "__main__"`, and so it is missing here.
SCRIPT = """
    import os, sys, time
    from nlbench.data import decode

    parts = decode.request([sys.argv[1]] * 40, decode.Geometry(0, 4), None).take()
    print(*decode._pool(2)._processes, flush=True)
    if sys.argv[2:] == ["killed"]:
        os.kill(os.getpid(), 9)
    if sys.argv[2:] == ["left"]:
        decode.end_workers()
        os._exit(0)
"""


def run_script(path, *arguments):
    """Run SCRIPT with two workers and return its status, output and messages."""
    path.write_text(textwrap.dedent(SCRIPT))
    environment = {**os.environ, "NLBENCH_WORKERS": "2"}
    command = [sys.executable, str(path), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout, done.stderr


# The process of a run leaves by os._exit, which frees no semaphores of a pool.
@pytest.mark.story
@pytest.mark.parametrize("way", [[], ["left"]])
def test_a_script_with_workers_ends_without_a_message(files, tmp_path, way):
    status, printed, message = run_script(tmp_path / "script.py", files.path(0), *way)
    assert (status, message) == (0, "")
    assert len(printed.splitlines()) == 1


@pytest.mark.story
def test_a_script_needs_no_guard_and_no_worker_outlives_a_killed_process(files, tmp_path):
    status, printed, _ = run_script(tmp_path / "script.py", files.path(0), "killed")
    assert status == -signal.SIGKILL

    # A worker that ran the script again would decode and print, too.
    (line,) = printed.splitlines()
    alive = [int(pid) for pid in line.split()]
    assert alive

    deadline = time.monotonic() + 30
    while alive and time.monotonic() < deadline:
        time.sleep(0.05)
        alive = [pid for pid in alive if _runs(pid)]

    assert not alive


def _runs(pid):
    """Tell whether a process runs; a zombie has ended."""
    try:
        os.kill(pid, 0)
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


def test_how_many_workers(monkeypatch):
    monkeypatch.setenv("NLBENCH_WORKERS", "3")
    assert decode.workers() == 3

    monkeypatch.delenv("NLBENCH_WORKERS")
    assert decode.workers() >= 1

    for wrong in ("two", "-1", "1.5", ""):
        monkeypatch.setenv("NLBENCH_WORKERS", wrong)
        message = f"must be a number of processes, 0 for none, got '{wrong}'"
        with pytest.raises(DataError, match=message):
            decode.workers()


# --- images of a run ------------------------------------------------------------------------------


def normalised(image):
    """Normalise (3, H, W) uint8 to float64 by the dataset's mean and deviation."""
    mean = np.array(INFO.mean)[:, None, None]
    std = np.array(INFO.std)[:, None, None]
    return (image / 255.0 - mean) / std


def expected_image(files, i, draws=None):
    """Return image i as a batch must hold it, decoded and normalised alone."""
    (image,) = decode.decode([files.path(i)], Geometry(18, 16), draws)
    return normalised(image.transpose(2, 0, 1))


def test_a_pixel_by_hand(tmp_path):
    Image.new("RGB", (8, 8), (255, 51, 102)).save(tmp_path / "x.png")
    images = images_of(ImageFiles(tmp_path, np.array([b"x.png"])), resize=8, crop=8)
    (image,) = images.plain(0, 1)

    # The three values are (1 - 0.5) / 0.25, (0.2 - 0.25) / 0.5 and (0.4 - 0.75) / 1.
    np.testing.assert_allclose(image[:, 3, 3], [2.0, -0.1, -0.35], atol=1e-6)
    assert image.dtype == torch.float32
    assert images.shape == (3, 8, 8)


def test_plain_in_order_and_out_of_order(files):
    images = images_of(files)
    expected = np.stack([expected_image(files, i) for i in range(50)])
    parts = [images.plain(i, i + 20) for i in range(0, 50, 20)]

    np.testing.assert_allclose(torch.cat(parts), expected, atol=1e-5)

    # Backwards, twice the same, of other lengths, and past the end.
    jumps = [(20, 40), (0, 20), (40, 60), (40, 60), (0, 50), (20, 33), (33, 46), (0, 500), (49, 50)]
    for start, stop in jumps:
        np.testing.assert_allclose(images.plain(start, stop), expected[start:stop], atol=1e-5)


def test_the_next_part_is_begun_before_it_is_asked_for(files, monkeypatch):
    asked = []
    request_views = decode.request_views

    def counted(paths, *rest):
        asked.append(len(paths))
        return request_views(paths, *rest)

    monkeypatch.setattr(decode, "request_views", counted)
    images = images_of(files)

    images.plain(0, 20)
    assert asked == [20, 20]

    images.plain(20, 40)
    assert asked == [20, 20, 10]

    images.plain(40, 60)
    assert asked == [20, 20, 10]


def test_draws_belong_to_the_example_and_not_to_the_batch(files):
    images = images_of(files)
    draws = images.draws(np.random.default_rng(0))

    assert draws.shape == (50, 3)
    assert draws.dtype == torch.float32

    index = torch.tensor([40, 3, 17, 8])
    batch = images.augmented(index, draws)

    one_by_one = torch.cat([images.augmented(index[i : i + 1], draws) for i in range(4)])
    assert torch.equal(images.augmented(index.flip(0), draws).flip(0), batch)
    assert torch.equal(one_by_one, batch)

    later = images.request(index, draws)
    other = images.request(index, images.draws(np.random.default_rng(1)))

    assert torch.equal(later(), batch)
    assert not torch.equal(other(), batch)

    for got, i in zip(batch, index.tolist(), strict=True):
        expected = expected_image(files, i, draws[i].numpy()[None])
        np.testing.assert_allclose(got, expected, atol=1e-5)


@pytest.mark.parametrize("resize", [18, 19])
def test_flips_alone_keep_the_centre(files, resize):
    images = images_of(files, "flip", resize)
    draws = images.draws(np.random.default_rng(0))
    index = torch.arange(50)
    batch, plain = images.augmented(index, draws), images.plain(0, 50)
    flipped = draws[:, 2] >= 0.5

    assert 10 < flipped.sum() < 40
    assert torch.equal(batch[~flipped], plain[~flipped])
    assert torch.equal(batch[flipped], plain[flipped].flip(3))


def test_without_augmentation_there_is_nothing_to_draw(files):
    images = images_of(files, "none")
    draws = images.draws(np.random.default_rng(0))
    plain = images.subset(np.array([3, 5])).plain(0, 2)
    assert draws.numel() == 0
    assert torch.equal(images.augmented(torch.tensor([3, 5]), draws), plain)


def test_strong_views(files):
    images = images_of(files)
    draws = images.draws(np.random.default_rng(0))
    index = torch.arange(12)
    strong = images.strong(index, draws, 5)

    assert strong.shape == (12, 3, 16, 16)
    assert torch.equal(images.strong(index, draws, 5), strong)
    assert not torch.equal(images.strong(index, draws, 6), strong)

    # A view belongs to its example, whatever other examples are in the batch.
    assert torch.equal(images.strong(index[5:8], draws, 5), strong[5:8])

    # A square of the mean colour with half the side covers 64 pixels, or less at the edge.
    cut = (strong == 0).all(1).flatten(1).sum(1)
    assert ((cut >= 16) & (cut <= 64)).all()

    # The global generator, which belongs to the caller, draws the same number afterwards.
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    images.strong(index, draws, 5)
    assert torch.equal(torch.rand(1), expected)
