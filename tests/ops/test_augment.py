"""Crop, flip and normalisation, against torchvision and NumPy; dtypes, formats, wrong arguments."""

import warnings

import numpy as np
import pytest
import torch
import torchvision.transforms.functional as VF
from hypothesis import given
from hypothesis import strategies as st
from marks import needs_gpu
from PIL import Image
from torch import library

from nlbench import ops
from nlbench.ops import reference
from nlbench.ops.pixels import cached_table

needs_extension = pytest.mark.skipif(
    bool(ops.why_no_extension()), reason=f"no extension: {ops.why_no_extension()}"
)
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
FORMATS = [torch.channels_last, torch.contiguous_format]
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


def pictures(N, H, W, padding, seed=0):
    rng = torch.Generator().manual_seed(seed)
    pixels = torch.randint(256, (N, H, W, 3), generator=rng, dtype=torch.uint8)
    shifts = torch.randint(2 * padding + 1, (N, 2), generator=rng)
    return pixels, torch.cat([shifts, torch.randint(2, (N, 1), generator=rng)], 1)


def augment_by_torchvision(pixels, index, draws, padding):
    out = []
    for i in index.tolist():
        picture = Image.fromarray(pixels[i].numpy())
        if draws is not None:
            dy, dx, flip = draws[i].tolist()
            picture = VF.crop(VF.pad(picture, [padding]), dy, dx, picture.height, picture.width)
            picture = VF.hflip(picture) if flip else picture
        out.append(VF.normalize(VF.to_tensor(picture), MEAN, STD))
    return torch.stack(out)


@pytest.mark.parametrize(
    ("H", "W", "padding"), [(32, 32, 4), (5, 7, 0), (6, 3, 2), (3, 2, 5), (1, 1, 1)]
)
@pytest.mark.parametrize("drawn", [True, False])
def test_augment_equals_torchvision(backend, H, W, padding, drawn):
    pixels, draws = pictures(40, H, W, padding)
    draws[:8] = torch.tensor(
        [[y, x, f] for y in (0, 2 * padding) for x in (0, 2 * padding) for f in (0, 1)]
    )
    index = torch.cat([torch.arange(8), torch.tensor([39, 20, 20, 8])])
    out = ops.augment(pixels, index, draws if drawn else None, mean=MEAN, std=STD, padding=padding)
    want = augment_by_torchvision(pixels, index, draws if drawn else None, padding)

    assert out.dtype == torch.float32
    assert out.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(out, want)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_augment_dtypes(backend, dtype):
    pixels, draws = pictures(9, 8, 8, 4)
    index = torch.arange(9)
    out = ops.augment(pixels, index, draws, mean=MEAN, std=STD, dtype=dtype)
    want = ops.augment(pixels, index, draws, mean=MEAN, std=STD)

    assert out.dtype == dtype
    if dtype == torch.float64:
        torch.testing.assert_close(out, want.double(), rtol=1e-6, atol=1e-6)
        plain = ops.augment(pixels, index, None, mean=MEAN, std=STD, dtype=dtype).permute(
            0, 2, 3, 1
        )
        exact = (pixels.double() / 255 - torch.tensor(MEAN, dtype=dtype)) / torch.tensor(
            STD, dtype=dtype
        )
        torch.testing.assert_close(plain, exact, rtol=1e-15, atol=1e-15)
    else:
        assert torch.equal(out, want.to(dtype))


def augment_by_numpy(pixels, index, draws, padding):
    """(B, 3, H, W) float64, by padding each image whole."""
    out = []
    for i in index.tolist():
        picture = pixels[i].numpy().astype(np.float64)
        if draws is not None:
            dy, dx, flip = draws[i].tolist()
            padded = np.pad(picture, ((padding, padding), (padding, padding), (0, 0)))
            picture = padded[dy : dy + picture.shape[0], dx : dx + picture.shape[1]]
            picture = picture[:, ::-1] if flip else picture
        out.append(((picture / 255 - MEAN) / STD).transpose(2, 0, 1))
    return torch.from_numpy(np.stack(out))


@pytest.mark.parametrize(
    ("H", "W", "padding"), [(32, 32, 4), (5, 7, 0), (7, 5, 4), (3, 2, 9), (2, 9, 3), (1, 1, 1)]
)
@pytest.mark.parametrize("drawn", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", FORMATS)
def test_augment_equals_numpy_in_float64(backend, H, W, padding, drawn, dtype, form):
    pixels, draws = pictures(40, H, W, padding)
    draws = draws if drawn else None
    index = torch.tensor([39, 20, 20, 8, *range(12)])
    chosen = {"padding": padding, "dtype": dtype, "memory_format": form}
    out = ops.augment(pixels, index, draws, mean=MEAN, std=STD, **chosen)
    want = augment_by_numpy(pixels, index, draws, padding)

    assert out.dtype == dtype
    assert out.is_contiguous(memory_format=form)

    if dtype == torch.float64:
        assert torch.equal(out, want)
        return

    # Three operations in float32, on numbers below 1 but for the last, before the one rounding to
    # `dtype`.
    atol = 3 * 2**-24 / min(STD)

    torch.testing.assert_close(out.double(), want, rtol=torch.finfo(dtype).eps / 2, atol=atol)


@needs_extension
@given(
    B=st.integers(0, 6),
    H=st.integers(1, 9),
    W=st.integers(1, 9),
    padding=st.integers(0, 12),
    seed=st.integers(0, 2**31),
    dtype=st.sampled_from(DTYPES),
    form=st.sampled_from(FORMATS),
    drawn=st.booleans(),
)
def test_augment_kernel_equals_the_torch_reference(B, H, W, padding, seed, dtype, form, drawn):
    pixels, draws = pictures(4, H, W, padding, seed)
    draws = draws if drawn else None
    index = torch.randint(4, (B,), generator=torch.Generator().manual_seed(seed))
    out = ops.augment(
        pixels, index, draws, mean=MEAN, std=STD, padding=padding, dtype=dtype, memory_format=form
    )

    assert out.is_contiguous(memory_format=form)
    table = cached_table("augment", MEAN, STD, dtype, torch.device("cpu"))
    assert torch.equal(
        out, reference.augment(pixels, index, draws, table, padding, form == FORMATS[1])
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_augment_formats_hold_the_same_values(backend, dtype):
    pixels, draws = pictures(9, 6, 5, 4)
    index = torch.tensor([3, 0, 8, 3])
    for chosen in (draws, None):
        last, contiguous = (
            ops.augment(pixels, index, chosen, mean=MEAN, std=STD, dtype=dtype, memory_format=form)
            for form in FORMATS
        )
        assert (last.stride(), contiguous.stride()) == ((90, 1, 15, 3), (90, 30, 5, 1))
        assert torch.equal(last, contiguous)


@needs_extension
@pytest.mark.parametrize("form", FORMATS)
def test_augment_threads_do_not_show(form):
    pixels, draws = pictures(300, 32, 32, 4)
    index = torch.randperm(300, generator=torch.Generator().manual_seed(1))
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(
                ops.augment(pixels, index, draws, mean=MEAN, std=STD, memory_format=form)
            )
    finally:
        torch.set_num_threads(before)

    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def test_augment_looks_at_the_draws_of_its_batch_alone(backend):
    pixels, draws = pictures(6, 4, 4, 4)
    want = ops.augment(pixels, torch.tensor([1, 2]), draws, mean=MEAN, std=STD)
    draws[5] = 99
    strided = torch.tensor([1, 0, 2, 0])[::2]
    assert torch.equal(ops.augment(pixels, strided, draws, mean=MEAN, std=STD), want)


def test_augment_empty_batch(backend):
    pixels, draws = pictures(6, 4, 5, 4)
    for rows in (draws, None):
        out = ops.augment(pixels, torch.zeros(0, dtype=torch.int64), rows, mean=MEAN, std=STD)
        assert out.shape == (0, 3, 4, 5)


@pytest.mark.parametrize("drawn", [True, False])
@pytest.mark.parametrize("form", FORMATS)
def test_augment_op_passes_opcheck_and_compiles(drawn, form):
    pixels, draws = pictures(6, 4, 5, 4)
    chosen = draws if drawn else None
    table = torch.rand(3, 256)
    arguments = pixels, torch.tensor([1, 3]), chosen, table, 4, form == torch.contiguous_format
    library.opcheck(torch.ops.nlbench.augment.default, arguments)

    def batch(index):
        return ops.augment(pixels, index, chosen, mean=MEAN, std=STD, memory_format=form) + 1

    compiled = torch.compile(batch, backend="aot_eager", fullgraph=True)
    for index in (torch.arange(5), torch.tensor([4, 4])):
        assert torch.equal(compiled(index), batch(index))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            {"images": torch.zeros(6, 4, 4, 3)},
            TypeError,
            "images must be uint8 of shape [N, H, W, 3], got float32 of shape [6, 4, 4, 3]",
        ),
        (
            {"images": torch.zeros(6, 3, 4, 4, dtype=torch.uint8)},
            ValueError,
            "images must be uint8 of shape [N, H, W, 3], got uint8 of shape [6, 3, 4, 4]",
        ),
        (
            {"images": torch.zeros(6, 3, 4, 4, dtype=torch.uint8).permute(0, 2, 3, 1)},
            ValueError,
            "images must be contiguous (it would be copied whole for each batch), "
            "got strides [48, 4, 1, 16]",
        ),
        (
            {"index": torch.zeros(2)},
            TypeError,
            "index must be int64 of shape [B], got float32 of shape [2]",
        ),
        (
            {"index": torch.tensor([0, 6])},
            IndexError,
            "index must be in [0, 6), got 6 at position 1",
        ),
        (
            {"index": torch.tensor([-1])},
            IndexError,
            "index must be in [0, 6), got -1 at position 0",
        ),
        (
            {"draws": torch.zeros(2, 3, dtype=torch.int64)},
            ValueError,
            "draws must be int64 of shape [6, 3], got int64 of shape [2, 3]",
        ),
        (
            {"draws": torch.zeros(6, 3)},
            TypeError,
            "draws must be int64 of shape [6, 3], got float32",
        ),
        (
            {"draws": torch.zeros(3, 6, dtype=torch.int64).t()},
            ValueError,
            "draws must be contiguous",
        ),
        (
            {"draws": torch.tensor([[9, 0, 0]] * 6)},
            ValueError,
            "draws must have dy and dx in [0, 8] and flip in {0, 1}, got [9, 0, 0] in row 2",
        ),
        ({"draws": torch.tensor([[0, -1, 0]] * 6)}, ValueError, "got [0, -1, 0] in row 2"),
        ({"draws": torch.tensor([[0, 0, 2]] * 6)}, ValueError, "got [0, 0, 2] in row 2"),
        (
            {"draws": torch.zeros(6, 3, dtype=torch.int64, device="meta")},
            ValueError,
            "draws must be on cpu as images",
        ),
        ({"mean": (0.5, 0.5)}, ValueError, "mean must be three finite numbers, got [0.5, 0.5]"),
        (
            {"std": (0.5, 0.5, 0.0)},
            ValueError,
            "std must be three positive numbers, got [0.5, 0.5, 0.0]",
        ),
        ({"padding": -1}, ValueError, "padding must be >= 0, got -1"),
        ({"padding": 4.0}, TypeError, "padding must be an int, got float"),
        ({"dtype": torch.int32}, TypeError, "dtype must be one of torch.float32"),
        (
            {"memory_format": torch.preserve_format},
            ValueError,
            "memory_format must be torch.channels_last or torch.contiguous_format, "
            "got torch.preserve_format",
        ),
    ],
)
def test_augment_refuses(backend, change, error, message):
    pixels, draws = pictures(6, 4, 4, 4)
    arguments = {
        "images": pixels,
        "index": torch.tensor([2, 0]),
        "draws": draws,
        "mean": MEAN,
        "std": STD,
        **change,
    }

    with pytest.raises(error) as caught:
        ops.augment(
            arguments.pop("images"), arguments.pop("index"), arguments.pop("draws"), **arguments
        )

    assert str(caught.value).startswith("augment: ")
    assert message in str(caught.value)


@needs_gpu
def test_augment_on_a_gpu():
    """With kernels or, with a warning, by the reference."""
    pixels, draws = pictures(9, 8, 8, 4)
    with warnings.catch_warnings(record=True):
        out = ops.augment(pixels.cuda(), torch.arange(9).cuda(), draws.cuda(), mean=MEAN, std=STD)
    assert torch.equal(out.cpu(), ops.augment(pixels, torch.arange(9), draws, mean=MEAN, std=STD))
