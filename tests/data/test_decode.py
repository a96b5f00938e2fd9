"""Decoding: geometry by hand, worker processes that change nothing, and what happens when one of them is gone."""

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
from layouts import write_image
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
    monkeypatch.setenv("NLBENCH_WORKERS", "0")


def save(path, pixels, **options):
    Image.fromarray(pixels).save(path, **options)
    return str(path)


def one(path, resize=0, crop=4, draw=None):
    """(H, W, 3) of one file."""
    draws = None if draw is None else np.array([draw])
    (image,) = decode.decode([str(path)], Geometry(resize, crop), draws)
    return image.transpose(1, 2, 0)


@pytest.fixture
def numbered(tmp_path):
    """A PNG of 7 x 9 (height, width) whose pixels say where they are: (row, column, 100)."""
    rows, columns = np.mgrid[:7, :9]
    return save(
        tmp_path / "n.png", np.stack([rows, columns, np.full((7, 9), 100)], 2).astype(np.uint8)
    )


# --- geometry -------------------------------------------------------------------------------------


def test_centre(numbered):
    image = one(numbered, crop=4)
    assert image[:, 0, 0].tolist() == [1, 2, 3, 4]  # (7 - 4) // 2
    assert image[0, :, 1].tolist() == [2, 3, 4, 5]
    assert (image[:, :, 2] == 100).all()


@pytest.mark.parametrize(
    ("draw", "top", "left", "flip"),
    [
        ((0.0, 0.0, 0.0), 0, 0, False),
        ((1 - 2**-24, 1 - 2**-24, 0.499), 3, 5, False),
        ((0.25, 0.5, 0.5), 1, 3, True),  # 0.25 of the 4 places, 0.5 of the 6
        ((0.2499, 0.4999, 0.999), 0, 2, True),
    ],
)
def test_crop_and_flip_by_their_draw(numbered, draw, top, left, flip):
    image = one(numbered, crop=4, draw=np.array(draw, np.float32))
    assert image[:, 0, 0].tolist() == list(range(top, top + 4))
    columns = list(range(left, left + 4))
    assert image[0, :, 1].tolist() == (columns[::-1] if flip else columns)


def test_every_place_is_drawn_equally_often_and_none_is_out_of_bounds(numbered):
    draws = np.random.default_rng(0).random((4800, 3), np.float32)
    images = decode.decode([numbered] * 4800, Geometry(0, 4), draws)
    unflipped = np.where((draws[:, 2] >= 0.5)[:, None, None, None], images[..., ::-1], images)
    counts = np.zeros((4, 6))
    np.add.at(counts, (unflipped[:, 0, 0, 0], unflipped[:, 1, 0, 0]), 1)

    assert counts.sum() == 4800
    assert (abs(counts - 200) < 60).all()


@pytest.mark.parametrize("size", [(7, 9), (9, 7), (7, 7), (3, 30), (300, 100)])
def test_the_short_side_is_resized(tmp_path, size):
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    image = one(save(tmp_path / "x.png", pixels), resize=6, crop=6)
    # Independently: PIL's own antialiased bilinear filter, to the sizes that keep the short side.
    short = min(size)
    height, width = (6 * side // short for side in size)
    expected = np.asarray(
        Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR)
    )
    top, left = (height - 6) // 2, (width - 6) // 2

    assert abs(image.astype(int) - expected[top : top + 6, left : left + 6]).max() <= 2


def test_an_image_smaller_than_the_crop_gets_a_black_border(numbered):
    image = one(numbered, crop=12)
    assert image[
        2:9, 1:10, 2
    ].all()  # 5 rows more and 3 columns more: the smaller half above and left
    assert image[:, :, 2].sum() == 100 * 7 * 9
    assert image[2, 1:10, 1].tolist() == list(range(9))

    wide = one(numbered, crop=8, draw=(0.0, 0.999, 0.0))  # only the height is short
    assert wide[:, 0, 2].tolist() == [100] * 7 + [0]
    assert wide[0, :, 1].tolist() == list(range(1, 9))


# --- kinds of files -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "value", "expected"),
    [
        ("L", 77, (77, 77, 77)),
        ("1", 1, (255, 255, 255)),
        ("RGBA", (200, 100, 50, 128), (100, 50, 25)),  # over black
        ("LA", (200, 128), (100, 100, 100)),
        ("I;16", 0x4D80, (0x4D, 0x4D, 0x4D)),  # 16 bits: the upper eight
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


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "BMP", "WEBP"])
def test_a_damaged_file_is_named(tmp_path, form):
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 20, 3), np.uint8)).save(
        buffer, form
    )
    rng, whole, path = np.random.default_rng(1), buffer.getvalue(), tmp_path / "x"
    refused = 0

    for i in range(60):
        content = bytearray(whole if i % 2 else whole[: rng.integers(len(whole))])
        for place in rng.integers(len(content), size=i % 7) if content else ():
            content[place] = rng.integers(256)
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

    assert refused >= 20  # a few damages are within what the format forgives


def test_a_file_that_went_away(tmp_path):
    with pytest.raises(DataError, match=r"x\.jpg: there is no such image any more"):
        one(tmp_path / "x.jpg")
    with pytest.raises(DataError, match="cannot be decoded"):
        one(tmp_path)


# --- workers --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """50 JPEGs of different sizes in one folder."""
    folder = tmp_path_factory.mktemp("images")
    for i in range(50):
        write_image(folder / f"{i:02}, ä.jpg", i, i, (20 + i % 5, 24 - i % 3))
    return image_lists.image_files(folder, sorted(path.name for path in folder.iterdir()))


def images_of(files, augment="crop-flip", resize=18, crop=16):
    return FileImages(files, INFO, CPU, augment, Geometry(resize, crop))


def test_the_number_of_workers_does_not_change_the_bytes(files, monkeypatch):
    draws = np.random.default_rng(0).random((50, 3), np.float32)
    paths = [files.path(i) for i in range(50)]
    got = {}

    for count in "012":
        monkeypatch.setenv("NLBENCH_WORKERS", count)
        parts = decode.request(paths, Geometry(18, 16), draws).take()
        assert [len(part) for part in parts] == [16, 16, 16, 2]
        got[count] = np.concatenate(parts)

    assert got["0"].tobytes() == got["1"].tobytes() == got["2"].tobytes()
    assert got["0"].tobytes() == np.concatenate([decode.decode([p], Geometry(18, 16), d[None])
                                                 for p, d in zip(paths, draws, strict=True)]).tobytes()  # fmt: skip


def test_an_error_in_a_worker_is_the_same(files, tmp_path, monkeypatch):
    (tmp_path / "x.jpg").write_bytes(b"\xff\xd8")
    monkeypatch.setenv("NLBENCH_WORKERS", "2")
    pending = decode.request([files.path(0), str(tmp_path / "x.jpg")], Geometry(0, 4), None)

    with pytest.raises(DataError, match=r"x\.jpg: cannot be decoded .* 2 bytes"):
        pending.take()
    assert decode.request([files.path(0)], Geometry(0, 4), None).take()[0].shape == (1, 3, 4, 4)


@pytest.mark.parametrize("noticed", [True, False])
def test_after_a_worker_was_killed_the_next_request_works(files, monkeypatch, noticed):
    monkeypatch.setenv("NLBENCH_WORKERS", "2")
    paths = [files.path(i) for i in range(50)] * 20
    decode.request(paths[:40], Geometry(0, 4), None).take()
    pending = decode.request(paths, Geometry(18, 16), None)
    for process in list(decode._pool(2)._processes.values()):
        os.kill(process.pid, signal.SIGKILL)

    if noticed:
        with pytest.raises(
            DataError, match="was killed, perhaps for want of memory: NLBENCH_WORKERS"
        ):
            pending.take()
    else:
        deadline = time.monotonic() + 30
        while not decode._pool(2)._broken and time.monotonic() < deadline:
            time.sleep(0.01)

    again = decode.request(paths[:40], Geometry(0, 4), None)
    if not noticed:
        with pytest.raises(DataError, match="was killed"):
            pending.take()
    assert sum(map(len, again.take())) == 40
    assert sum(map(len, decode.request(paths[:40], Geometry(0, 4), None).take())) == 40


SCRIPT = """
    import os, sys, time
    from nlbench.data import decode
    parts = decode.request([sys.argv[1]] * 40, decode.Geometry(0, 4), None).take()
    print(*decode._pool(2)._processes, flush=True)
    if len(sys.argv) > 2:
        os.kill(os.getpid(), 9)
"""


def run_script(path, *arguments):
    path.write_text(textwrap.dedent(SCRIPT))
    environment = {**os.environ, "NLBENCH_WORKERS": "2"}
    command = [sys.executable, str(path), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.nightly
def test_a_script_with_workers_ends_without_a_message(files, tmp_path):
    status, printed, message = run_script(tmp_path / "script.py", files.path(0))
    assert (status, message) == (0, "")
    assert len(printed.splitlines()) == 1


def test_a_script_needs_no_guard_and_no_worker_outlives_a_killed_process(files, tmp_path):
    status, printed, _ = run_script(tmp_path / "script.py", files.path(0), "killed")
    assert status == -signal.SIGKILL

    # A worker that ran the script again would decode, and so train, too.
    (line,) = printed.splitlines()
    deadline = time.monotonic() + 30
    alive = [int(pid) for pid in line.split()]

    assert alive

    while alive and time.monotonic() < deadline:
        time.sleep(0.05)
        alive = [pid for pid in alive if _runs(pid)]

    assert not alive


def _runs(pid):
    try:
        os.kill(pid, 0)
        with open(f"/proc/{pid}/stat") as file:  # a zombie has ended
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
        with pytest.raises(
            DataError, match=f"must be a number of processes, 0 for none, got '{wrong}'"
        ):
            decode.workers()


# --- what a run takes its images from -------------------------------------------------------------


def normalised(image):
    """(3, H, W) uint8 -> float64."""
    mean, std = (np.array(v)[:, None, None] for v in (INFO.mean, INFO.std))
    return (image / 255.0 - mean) / std


def test_a_pixel_by_hand(tmp_path):
    Image.new("RGB", (8, 8), (255, 51, 102)).save(tmp_path / "x.png")
    images = images_of(ImageFiles(tmp_path, np.array([b"x.png"])), resize=8, crop=8)
    (image,) = images.plain(0, 1)

    # (1 - 0.5) / 0.25, (0.2 - 0.25) / 0.5, (0.4 - 0.75) / 1
    np.testing.assert_allclose(image[:, 3, 3], [2.0, -0.1, -0.35], atol=1e-6)
    assert image.dtype == torch.float32
    assert images.shape == (3, 8, 8)


def test_plain_in_order_and_out_of_order(files):
    images = images_of(files)
    expected = np.stack(
        [normalised(decode.decode([files.path(i)], Geometry(18, 16), None)[0]) for i in range(50)]
    )
    parts = [images.plain(i, i + 20) for i in range(0, 50, 20)]

    np.testing.assert_allclose(torch.cat(parts), expected, atol=1e-5)
    for start, stop in (
        (20, 40),
        (0, 20),
        (40, 60),
        (40, 60),
        (0, 50),
        (20, 33),
        (33, 46),
        (0, 500),
        (49, 50),
    ):
        np.testing.assert_allclose(images.plain(start, stop), expected[start:stop], atol=1e-5)


def test_the_next_part_is_begun_before_it_is_asked_for(files, monkeypatch):
    asked = []
    whole = decode.request
    monkeypatch.setattr(
        decode, "request", lambda paths, *rest: asked.append(len(paths)) or whole(paths, *rest)
    )
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

    assert torch.equal(images.augmented(index.flip(0), draws).flip(0), batch)
    assert torch.equal(
        torch.cat([images.augmented(index[i : i + 1], draws) for i in range(4)]), batch
    )

    later = images.request(index, draws)
    other = images.request(index, images.draws(np.random.default_rng(1)))

    assert torch.equal(later(), batch)
    assert not torch.equal(other(), batch)

    for got, i in zip(batch, index.tolist(), strict=True):
        expected = decode.decode([files.path(i)], Geometry(18, 16), draws[i].numpy()[None])[0]
        np.testing.assert_allclose(got, normalised(expected), atol=1e-5)


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

    assert draws.numel() == 0
    assert torch.equal(
        images.augmented(torch.tensor([3, 5]), draws), images.subset(np.array([3, 5])).plain(0, 2)
    )


def test_strong_views(files):
    images = images_of(files)
    draws = images.draws(np.random.default_rng(0))
    index = torch.arange(12)
    strong = images.strong(index, draws, 5)

    assert strong.shape == (12, 3, 16, 16)
    assert torch.equal(images.strong(index, draws, 5), strong)
    assert torch.equal(images.strong(index[5:8], draws, 5), strong[5:8])  # whatever batch it is in
    assert not torch.equal(images.strong(index, draws, 6), strong)

    cut = (
        (strong == 0).all(1).flatten(1).sum(1)
    )  # at the mean colour, a square of half the side less what is outside

    assert ((cut >= 16) & (cut <= 64)).all()

    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    images.strong(index, draws, 5)

    assert torch.equal(torch.rand(1), expected)  # the caller's generator is left alone
