"""Strong views: operations against torchvision and Pillow, policies, draws and refusals."""

import hashlib
import itertools
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from marks import needs_gpu
from older_views import OPERATIONS
from PIL import Image
from torchvision.transforms import v2

from nlbench import ops
from nlbench.ops import strong_reference
from nlbench.ops.pixels import cached_table
from nlbench.ops.policies import AUTOAUGMENT, POLICIES, Policy, Setting, parameters, rand_augment

needs_extension = pytest.mark.skipif(
    bool(ops.why_no_extension()), reason=f"no extension: {ops.why_no_extension()}"
)
needs_kernels = pytest.mark.skipif(
    bool(ops.why_no_cuda()), reason=f"no CUDA kernels: {ops.why_no_cuda()}"
)
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
FORMATS = [torch.channels_last, torch.contiguous_format]
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
ALL_POLICIES = [*POLICIES.values(), rand_augment(3, 17)]

# torchvision mixes by torch.add with a factor. Its vector loops round once on these processors, as
# we do everywhere. The last elements of a tensor, and other processors, may be a level apart.
ROUNDS_ONCE = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
MIXTURES = ("Color", "Contrast", "Sharpness")


def pictures(N, H, W, seed=0):
    """Return smooth images, since noise would look the same after many operations."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (N, H // 4 + 2, W // 4 + 2, 3), np.uint8)
    return torch.from_numpy(
        np.stack([np.asarray(Image.fromarray(one).resize((W, H))) for one in coarse])
    )


def noise(N, H, W):
    """Return images of noise, in which every rounding shows sooner or later."""
    rng = torch.Generator().manual_seed(1)
    return torch.randint(256, (N, H, W, 3), generator=rng, dtype=torch.uint8)


def crops(N, padding, seed=0):
    rng = torch.Generator().manual_seed(seed)
    shifts = torch.randint(2 * padding + 1, (N, 2), generator=rng)
    return torch.cat([shifts, torch.randint(2, (N, 1), generator=rng)], 1)


def views(pixels, index=None, draws=None, seed=5, **options):
    index = torch.arange(len(pixels)) if index is None else index
    return ops.strong_augment(pixels, index, draws, seed=seed, mean=MEAN, std=STD, **options)


def raw(pixels, policy, examples=None):
    """Return the views as bytes, (N, 3, H, W), without normalisation."""
    out = ops.strong_augment(
        pixels,
        torch.arange(len(pixels)),
        None,
        seed=5,
        mean=(0, 0, 0),
        std=(1 / 255,) * 3,
        policy=policy,
        examples=examples,
    )
    return out.round().to(torch.uint8)


def changed(pixels, kind, *magnitudes):
    """Return what one operation makes of images at one strength."""
    return raw(pixels, Policy("one", 1, ((Setting(kind, 1.0, magnitudes),),)))


def by_reference(pixels, index, examples, draws, policy, seed, padding, reflect, planar):
    """Return what the reference in torch makes of the same arguments, in float32."""
    table = cached_table("", MEAN, STD, torch.float32, torch.device("cpu"))
    return strong_reference.strong_augment(
        pixels, index, examples, draws, policy, seed, table, padding, reflect, planar
    )


# ---- Operations ---------------------------------------------------------------------------------


def strengths_of_torchvision(kind, bins, H, W):
    """Yield (magnitude, sign, number) of each strength that torchvision's policies may draw."""
    magnitudes, signed = v2.AutoAugment._AUGMENTATION_SPACE[kind]
    values = magnitudes(bins, H, W)
    for number in range(bins if values is not None else 1):
        for sign in (1, -1) if signed else (1,):
            yield 0.0 if values is None else float(values[number]), sign, number


def ours(kind, bins, sign, number):
    """Return the magnitudes of our setting that stand for one of torchvision's."""
    entries = (entry for entry in rand_augment(1, number, bins).entries if entry[0].kind == kind)
    setting = next(entries, (Setting(kind),))[0]
    if not setting.magnitudes:
        return ()
    if setting.signed:
        return (sign * setting.magnitudes[0],)
    # A factor has one value for each sign.
    return setting.magnitudes[:1] if sign == 1 else setting.magnitudes[1:]


def near_the_middle(kind, magnitude, H, W, distance=1e-4):
    """Return where a pixel's source is that close to the middle between two others, (H, W)."""
    a, b, c, d, e, f = (
        value / 2**32 for value in parameters(Setting(kind, 1.0, (magnitude,)), H, W)[0]
    )
    y, x = np.mgrid[:H, :W]
    places = np.stack([a * x + b * y + c, d * x + e * y + f])
    return torch.from_numpy((np.abs(places - places.round()) < distance).any(0))


@pytest.mark.parametrize("kind", list(v2.AutoAugment._AUGMENTATION_SPACE))
@pytest.mark.parametrize(("H", "W"), [(32, 32), (21, 34)])
def test_an_operation_equals_torchvision_s(backend, kind, H, W):
    """To the bit, at each of the 31 magnitudes of RandAugment and the 10 of AutoAugment.

    Moves may differ, but only where float32 decides between two pixels that are equally near.
    Mixtures may differ by a level where torch rounds twice.
    """
    pixels = pictures(3, H, W)
    planes = pixels.permute(0, 3, 1, 2)
    torchvisions = v2.RandAugment()
    for bins in (10, 31):
        for magnitude, sign, number in strengths_of_torchvision(kind, bins, H, W):
            want = torchvisions._apply_image_or_video_transform(
                planes, kind, sign * magnitude, v2.InterpolationMode.NEAREST, torchvisions._fill
            )
            mine = ours(kind, bins, sign, number)
            got = changed(pixels, kind, *mine)
            if kind in MIXTURES:
                # The vectors of 32 x 32 pixels leave no elements over.
                assert_mixed_alike(got, want, exact=ROUNDS_ONCE and (H, W) == (32, 32))
                continue
            differs = (got != want).any(1)
            if kind.startswith(("Shear", "Rotate")):
                differs = differs & ~near_the_middle(kind, mine[0], H, W)
            assert not differs.any(), (bins, number, sign)


def assert_mixed_alike(got, want, *, exact):
    """Check that few bytes differ, and those by a level; or none, if `exact`."""
    apart = (got.int() - want.int()).abs()
    assert int(apart.max()) <= (0 if exact else 1)
    assert (apart > 0).float().mean() < 0.02


def test_moves_of_the_cifar10_policy_leave_nothing_to_rounding():
    for entry in AUTOAUGMENT.entries:
        for setting in entry:
            for magnitude in setting.magnitudes if setting.signed else ():
                for sign in (1, -1):
                    if not setting.kind.startswith("Translate"):
                        assert not near_the_middle(setting.kind, sign * magnitude, 32, 32).any()


@pytest.mark.parametrize("levels", [1, 2, 256])
def test_images_of_few_levels(backend, levels):
    """Where a histogram has one entry, autocontrast and equalize change nothing."""
    rng = np.random.default_rng(levels)
    values = rng.integers(0, 256, levels)
    pixels = torch.from_numpy(values[rng.integers(0, levels, (4, 9, 11, 3))].astype(np.uint8))
    for kind, theirs in (
        ("AutoContrast", v2.functional.autocontrast),
        ("Equalize", v2.functional.equalize),
    ):
        got = changed(pixels, kind)
        assert torch.equal(got, theirs(pixels.permute(0, 3, 1, 2)))
        if levels == 1:
            assert torch.equal(got.permute(0, 2, 3, 1), pixels)


@pytest.mark.parametrize("kind", MIXTURES)
def test_mixtures_of_every_colour(backend, kind):
    """Mixed in float32 and cut off, as torchvision does, for colours of the whole cube."""
    pixels = torch.stack(torch.meshgrid([torch.arange(0, 256, 5)] * 3, indexing="ij"), -1)
    pixels = pixels.reshape(1, 52 * 52, 52, 3).to(torch.uint8)
    pixels = torch.cat([pixels, pixels.flip(3)])
    theirs = {
        "Color": v2.functional.adjust_saturation,
        "Contrast": v2.functional.adjust_contrast,
        "Sharpness": v2.functional.adjust_sharpness,
    }[kind]
    for factor in (0.1, 0.28, 1.0, 1.72, 1.9):
        got, want = changed(pixels, kind, factor), theirs(pixels.permute(0, 3, 1, 2), factor)
        assert_mixed_alike(got, want, exact=ROUNDS_ONCE)


# The largest difference in levels from Pillow, which DISC's authors call; its greyscale and the
# mean of its contrast are rounded otherwise, and its sums are not rounded to float32.
FROM_PILLOW = {"AutoContrast": 1, "Color": 1, "Contrast": 1, "Sharpness": 1}
MOVES = ("Rotate", "ShearX", "ShearY", "TranslateX", "TranslateY")


@pytest.mark.parametrize("number", [i for i in range(16) if i != 4])
def test_operations_of_disc_against_pillow(number):
    setting = POLICIES["randaugment-10"].entries[number][0]
    pixels = pictures(3, 40, 40)
    for strength in (1, 4, 9):
        magnitude = setting.magnitudes[strength - 1 : strength]
        signs = (1, -1) if setting.signed else (1,)
        mine = [changed(pixels, setting.kind, *(sign * m for m in magnitude)) for sign in signs]

        found = set()
        for seed in range(8):
            theirs = []
            for one in pixels.numpy():
                rng = np.random.default_rng(seed)
                theirs.append(np.array(OPERATIONS[number](Image.fromarray(one), strength, rng)))
            want = torch.from_numpy(np.stack(theirs)).permute(0, 3, 1, 2)
            distances = [(one.int() - want.int()).abs() for one in mine]
            best = min(range(len(mine)), key=lambda i: int(distances[i].sum()))
            found.add(best)

            apart = (distances[best] > FROM_PILLOW.get(setting.kind, 0)).any(1)
            if setting.kind in MOVES:
                # Pillow moves in units of 2^-16 pixels.
                moved = signs[best] * magnitude[0]
                apart = apart & ~near_the_middle(setting.kind, moved, 40, 40, 2e-3)
            assert not apart.any()
        # At small strengths nothing moves, or all but the same.
        if strength == 9:
            assert found == set(range(len(mine))), "both signs are drawn"


def test_a_square_lies_around_its_point_and_is_moved_inside():
    """Pillow's square of 3 pixels has 4, and those of DISC are moved inside on two sides."""
    white = torch.full((400, 20, 20, 3), 255, dtype=torch.uint8)
    square = Policy("one", 1, ((Setting("Square", 1.0, (15,)),),))
    grey = raw(white, square)[:, 0] == 127
    assert (raw(white, square)[:, 2] == 127).equal(grey)

    rows, columns = grey.any(2).sum(1), grey.any(1).sum(1)
    assert (grey.flatten(1).sum(1) == rows * columns).all()
    # Cut off at the far edges alone: the point is up to half a pixel inside, and 1.5 before it.
    assert (grey[:, 0].any(1) & (rows < 4)).sum() == 0
    assert set(rows.tolist()) == set(columns.tolist()) == {2, 3, 4}
    assert (rows == 4).float().mean() > 0.8
    assert grey.any(0).all()


# ---- Policies -----------------------------------------------------------------------------------


def test_the_table_is_torchvision_s():
    theirs = v2.AutoAugment(v2.AutoAugmentPolicy.CIFAR10)._policies
    assert len(AUTOAUGMENT.entries) == len(theirs) == 25
    for mine, pair in zip(AUTOAUGMENT.entries, theirs, strict=True):
        for setting, (kind, probability, number) in zip(mine, pair, strict=True):
            assert (setting.kind, setting.probability) == (kind, probability)
            magnitudes, signed = v2.AutoAugment._AUGMENTATION_SPACE[kind]
            values = magnitudes(10, 32, 32)
            if values is None:
                assert setting.magnitudes == ()
                continue

            value = float(values[number])
            if kind.startswith("Translate"):
                thousandths = setting.magnitudes[0] * 32 / 1000
                assert (int(thousandths), setting.signed) == (int(value), signed)
            elif kind.startswith(("Shear", "Rotate")):
                assert (setting.magnitudes, setting.signed) == ((value,), signed)
            elif signed:
                assert setting.magnitudes == (1.0 + value, 1.0 - value)
            else:
                scale = 255 if kind == "Solarize" else 1
                assert setting.magnitudes == (scale * value,)


def test_randaugment_has_torchvision_s_operations():
    policy = rand_augment(3, 9)
    assert policy.rounds == 3
    assert [entry[0].kind for entry in policy.entries] == list(v2.RandAugment._AUGMENTATION_SPACE)
    assert {len(entry) for entry in policy.entries} == {1}
    assert {entry[0].probability for entry in policy.entries} == {1.0}


@pytest.mark.parametrize("magnitude", [5, 10])
def test_randaugment_of_disc_has_each_strength_below_its_magnitude(magnitude):
    policy = POLICIES[f"randaugment-{magnitude}"]
    assert (policy.rounds, len(policy.entries), policy.crop_first) == (2, 16, True)
    assert {entry[0].probability for entry in policy.entries} == {0.5}
    counts = {len(entry[0].magnitudes) for entry in policy.entries}
    assert counts == {0, magnitude - 1}


@pytest.mark.parametrize("side", [1, 3, 32, 33, 224, 331, 500])
def test_translations_are_torchvision_s_at_every_size(side):
    for number in range(31):
        translate = next(
            entry[0] for entry in rand_augment(1, number).entries if entry[0].kind == "TranslateY"
        )
        magnitudes = translate.magnitudes or (0.0,)
        down = parameters(translate._replace(magnitudes=magnitudes, signed=False), side, 7)[0][5]
        want = int(float(torch.linspace(0.0, 150.0 / 331.0 * side, 31)[number]))
        # A pixel comes from above, and its own centre is at a half.
        assert down / 2**32 == 0.5 - want


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((-1, 5), ValueError, r"rounds must be in \[0, \d+\], got -1"),
        ((1.5, 5), TypeError, "rounds must be an int, got float"),
        ((2, 31), ValueError, r"magnitude must be in \[0, 30\], got 31"),
        ((2, 3.0), TypeError, "magnitude must be an int, got float"),
        ((2, 0, 1), ValueError, r"bins must be in \[2, \d+\], got 1"),
    ],
)
def test_randaugment_refuses(arguments, error, message):
    with pytest.raises(error, match="^rand_augment: " + message):
        rand_augment(*arguments)


def test_randaugment_of_every_magnitude_is_a_policy():
    for magnitude in range(31):
        assert rand_augment(1, magnitude).entries


ONE = ((Setting("Invert"),),)


def of(*arguments, **named):
    """Return a policy's arguments with a single operation."""
    return {"entries": ((Setting(*arguments, **named),),)}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"rounds": -1}, ValueError, "rounds must be in [0, 2147483647], got -1"),
        ({"rounds": 1.5}, TypeError, "rounds must be an int, got float"),
        ({"crop_first": "no"}, TypeError, "crop_first must be True or False, got 'no'"),
        (
            {"cutout": "rubbish"},
            ValueError,
            "cutout must be one of '', 'mean', 'grey', got 'rubbish'",
        ),
        ({"entries": ()}, ValueError, "entries must hold at least one entry"),
        (
            {"entries": [ONE]},
            TypeError,
            "entries must be a tuple of tuples of Setting, got list",
        ),
        ({"entries": ONE[0]}, TypeError, "entries[0] must be a tuple of Setting, got Setting"),
        ({"entries": (*ONE, ())}, ValueError, "entries[1] is empty"),
        ({"entries": (("Invert",),)}, TypeError, "entries[0][0] must be a Setting, got str"),
        (of("Sheer"), ValueError, "entries[0][0]: kind must be one of ShearX, "),
        (of("Invert", 2.0), ValueError, "Invert: probability must be in [0, 1], got 2.0"),
        (of("Invert", float("nan")), ValueError, "probability must be in [0, 1], got nan"),
        (of("Invert", "often"), TypeError, "probability must be a number, got str"),
        (of("Invert", 1.0, (3.0,)), ValueError, "Invert takes no magnitudes, got (3.0,)"),
        (of("ShearX"), ValueError, "ShearX needs at least one magnitude, got none"),
        (of("ShearX", 1.0, [0.1]), TypeError, "magnitudes must be a tuple of numbers, got list"),
        (of("ShearX", 1.0, ("a",)), TypeError, "ShearX: magnitude must be a number, got str"),
        (of("Posterize", 1.0, (9,)), ValueError, "Posterize: magnitude must be in [0, 8], got 9"),
        (of("Posterize", 1.0, (4.5,)), ValueError, "Posterize keeps a whole number of bits"),
        (of("Solarize", 1.0, (256,)), ValueError, "magnitude must be in [0, 255], got 256"),
        (
            of("Color", 1.0, (0.5,), signed=True),
            ValueError,
            "Color takes no negative magnitude, so signed must be False for 0.5",
        ),
    ],
)
def test_a_policy_refuses_what_no_view_can_be_made_of(change, error, message):
    with pytest.raises(error) as caught:
        Policy(**{"name": "mine", "rounds": 1, "entries": ONE, **change})
    assert str(caught.value).startswith("policy 'mine': ")
    assert message in str(caught.value)


# ---- Draws --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "counter", "want"),
    [
        (0, (0, 0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        (
            2**64 - 1,
            (2**64 - 1, 2**32 - 1, 2**32 - 1),
            (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
        ),
        (
            0x299F31D0A4093822,
            (0x85A308D3243F6A88, 0x13198A2E, 0x03707344),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_words_are_those_of_philox(key, counter, want):
    """Known answers of Random123 1.09, kat_vectors, philox4x32 10."""
    assert strong_reference.words(key, *counter) == want


def level(number):
    """Return a setting that gives a black pixel the level `number`."""
    return Setting("AddSolarize", 1.0, (float(number),))


def frequencies(policy, N=40_000):
    """Return how often one-pixel images of N examples have each value."""
    black = torch.zeros(N, 1, 1, 3, dtype=torch.uint8)
    return torch.bincount(raw(black, policy)[:, 0, 0, 0].long(), minlength=256)


def assert_shares(counts, shares):
    """Check counts by a chi-square test, which a right program fails once in 1e5 times or less."""
    N = int(counts.sum())
    assert set(counts.nonzero().flatten().tolist()) <= set(shares)
    statistic = sum(
        (int(counts[value]) - N * share) ** 2 / (N * share) for value, share in shares.items()
    )
    freedom = len(shares) - 1
    assert statistic < freedom + 4.5 * (2 * freedom) ** 0.5 + 15, statistic


@needs_extension
def test_entries_are_drawn_equally_often():
    policy = Policy("levels", 1, tuple((level(5 * i),) for i in range(25)))
    assert_shares(frequencies(policy), {5 * i: 1 / 25 for i in range(25)})


@needs_extension
def test_an_operation_has_its_probability():
    for probability in (0.0, 0.1, 0.7, 1.0):
        setting = level(9)._replace(probability=probability)
        counts = frequencies(Policy("levels", 1, ((setting,),)))
        if probability in (0.0, 1.0):
            assert int(counts[9]) == 40_000 * probability
        else:
            assert_shares(counts, {0: 1 - probability, 9: probability})


@needs_extension
def test_strengths_and_signs_are_drawn_equally_often():
    setting = Setting("AddSolarize", 1.0, (10.0, 20.0, 30.0), signed=True)
    # A negative number leaves black.
    shares = {0: 1 / 2, 10: 1 / 6, 20: 1 / 6, 30: 1 / 6}
    assert_shares(frequencies(Policy("levels", 1, ((setting,),))), shares)


@needs_extension
def test_slots_and_rounds_are_drawn_apart():
    half = Setting("AddSolarize", 0.5, (1.0,))
    slots = Policy("slots", 1, ((half, half._replace(magnitudes=(2.0,))),))
    assert_shares(frequencies(slots), dict.fromkeys(range(4), 1 / 4))
    rounds = Policy("rounds", 3, ((half,),))
    assert_shares(frequencies(rounds), {0: 1 / 8, 1: 3 / 8, 2: 3 / 8, 3: 1 / 8})


@needs_extension
def test_the_cutout_s_point_is_any_pixel_equally_often():
    white = torch.full((20_000, 8, 8, 3), 255, dtype=torch.uint8)
    nothing = Policy("cutout", 0, ((Setting("Identity"),),), cutout="mean")
    cut = (views(white, policy=nothing) == 0).all(1)
    # The point (y, x) cuts rows y - 2 to y + 1, as far as they exist.
    bottom = (cut.any(2) * torch.arange(1, 9)).amax(1)
    right = (cut.any(1) * torch.arange(1, 9)).amax(1)
    # Rows 6 and 7 both cut to the last one.
    shares = dict.fromkeys(range(2, 8), 1 / 8) | {8: 2 / 8}
    assert_shares(torch.bincount(bottom, minlength=9), shares)
    assert_shares(torch.bincount(right, minlength=9), shares)
    assert set(cut.flatten(1).sum(1).tolist()) == {r * c for r in (2, 3, 4) for c in (2, 3, 4)}


@pytest.mark.parametrize("policy", ALL_POLICIES, ids=lambda policy: policy.name)
def test_a_view_belongs_to_its_example_and_seed(backend, policy):
    pixels, draws = pictures(12, 12, 12), crops(12, 4)
    every = views(pixels, draws=draws, policy=policy)
    index = torch.tensor([3, 7, 1, 3])
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)

    assert torch.equal(views(pixels, index, draws, policy=policy), every[index])
    assert torch.equal(torch.rand(1), expected), "the global generator belongs to the caller"

    # The same examples, decoded into a batch of their own.
    own = views(
        pixels[index], draws=draws[index].contiguous(), policy=policy, examples=index.clone()
    )
    assert torch.equal(own, every[index])
    assert not torch.equal(views(pixels, draws=draws, policy=policy, seed=6), every)
    assert not torch.equal(views(pixels, draws=draws, policy=policy, seed=5 + 2**32), every)
    moved = torch.arange(12) + 2**32
    assert not torch.equal(views(pixels, draws=draws, policy=policy, examples=moved), every)


# ---- Kernel and reference -----------------------------------------------------------------------


@needs_extension
@pytest.mark.parametrize("policy", ALL_POLICIES, ids=lambda policy: policy.name)
@pytest.mark.parametrize(("H", "W"), [(32, 32), (5, 9), (3, 6), (3, 3), (2, 4), (1, 1)])
def test_the_kernel_equals_the_reference(policy, H, W):
    padding = min(4, min(H, W) - 1)
    pixels, draws = pictures(20, H, W), crops(20, padding)
    index, examples = torch.randint(20, (24,)), torch.randint(2**62, (24,))
    forms = itertools.product((draws, None), (False, True), FORMATS)
    for rows, reflect, form in forms:
        options = {"padding": padding, "reflect": reflect, "memory_format": form}
        got = views(pixels, index, rows, 2**64 - 9, policy=policy, examples=examples, **options)
        assert got.is_contiguous(memory_format=form)
        planar = form == torch.contiguous_format
        want = by_reference(
            pixels, index, examples, rows, policy, 2**64 - 9, padding, reflect, planar
        )
        assert torch.equal(got, want)


# Sizes that fill no vector, and sizes that leave elements over.
SIZES = [(3, 3), (3, 6), (9, 9), (15, 15), (32, 32)]


def mixtures_of_noise():
    """Yield the digest of mixtures by the kernel and by the reference, with kind and size."""
    for kind, (H, W) in itertools.product(("Brightness", *MIXTURES), SIZES):
        pixels = noise(50, H, W)
        every = torch.arange(50)
        policy = Policy(kind, 1, ((Setting(kind, 1.0, (0.1, 0.37, 1.03, 1.9)),),))
        mine = views(pixels, policy=policy, memory_format=torch.contiguous_format)
        theirs = by_reference(pixels, every, every, None, policy, 5, 4, False, True)
        digests = [hashlib.sha256(one.numpy()).hexdigest() for one in (mine, theirs)]
        yield kind, (H, W), *digests


@needs_extension
def test_mixtures_of_noise_are_the_same_in_the_kernel_and_the_reference():
    for kind, size, mine, theirs in mixtures_of_noise():
        assert mine == theirs, (kind, size)


@needs_extension
def test_mixtures_do_not_depend_on_torch_s_instruction_set(tmp_path):
    """Without AVX, torch rounds after each product and each sum."""
    code = (
        "import test_strong_augment as tests, torch\n"
        "assert torch.backends.cpu.get_cpu_capability() in ('DEFAULT', 'NO AVX')\n"
        "print(*(digest for _, _, *both in tests.mixtures_of_noise() for digest in both))\n"
    )
    environment = {**os.environ, "ATEN_CPU_CAPABILITY": "default"}
    paths = [str(Path(__file__).parent), *sys.path]
    environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    command = [sys.executable, "-c", code]
    # Not in the project's folder, whose sources have no kernels.
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    here = [digest for _, _, *both in mixtures_of_noise() for digest in both]
    assert done.stdout.split() == here


@needs_extension
def test_large_images():
    pixels, draws = pictures(3, 224, 200), crops(3, 4)
    for policy in ALL_POLICIES:
        got = views(pixels, draws=draws, policy=policy)
        every = torch.arange(3)
        want = by_reference(pixels, every, every, draws, policy, 5, 4, False, False)
        assert torch.equal(got, want)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_is_rounded_from_the_same_values(backend, dtype):
    pixels, draws = pictures(8, 9, 9), crops(8, 4)
    wide = views(pixels, draws=draws, dtype=torch.float64)
    got = views(pixels, draws=draws, dtype=dtype)
    assert got.dtype == dtype
    torch.testing.assert_close(got.double(), wide, rtol=torch.finfo(dtype).eps, atol=1e-6)
    # The cutout is zero in every format.
    assert torch.equal(got == 0, wide == 0)


@needs_extension
def test_threads_do_not_show():
    pixels, draws = pictures(64, 16, 16), crops(64, 4)
    index = torch.randint(64, (500,), generator=torch.Generator().manual_seed(1))
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(views(pixels, index, draws))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def test_crop_and_flip_come_where_the_policy_says(backend):
    """After an inversion the border is black; before it, white."""
    dark = torch.full((1, 8, 8, 3), 40, dtype=torch.uint8)
    corner = torch.tensor([[0, 0, 1]])
    for crop_first, border in ((False, 0), (True, 255)):
        policy = Policy("invert", 1, ((Setting("Invert"),),), crop_first=crop_first)
        out = ops.strong_augment(
            dark,
            torch.tensor([0]),
            corner,
            seed=0,
            mean=(0,) * 3,
            std=(1 / 255,) * 3,
            policy=policy,
        )
        rows = out.round()[0, 1, :, -1]
        assert rows.tolist() == [border] * 8
        assert out.round()[0, 1, 4:, :4].unique().tolist() == [215]


def test_an_empty_batch(backend):
    out = views(pictures(3, 4, 5), torch.zeros(0, dtype=torch.int64))
    assert out.shape == (0, 3, 4, 5)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            {"images": torch.zeros(6, 3, 4, 4)},
            TypeError,
            "images must be uint8 of shape [N, H, W, 3]",
        ),
        (
            {"index": torch.tensor([0, 6])},
            IndexError,
            "index must be in [0, 6), got 6 at position 1",
        ),
        ({"index": torch.tensor([-1])}, IndexError, "index must be in [0, 6), got -1"),
        ({"draws": torch.full((6, 3), 9)}, ValueError, "draws must have dy and dx in [0, 8]"),
        ({"examples": torch.tensor([1])}, None, ""),
        ({"examples": torch.tensor([1, 2, 3])}, ValueError, "examples must be int64 of shape [2]"),
        ({"examples": torch.tensor([1.0, 2.0])}, TypeError, "examples must be int64"),
        ({"seed": -1}, ValueError, "seed must be in [0, 2^64), got -1"),
        ({"seed": 2**64}, ValueError, "seed must be in [0, 2^64)"),
        ({"seed": 1.5}, TypeError, "seed must be an int, got float"),
        ({"seed": torch.tensor(3)}, TypeError, "seed must be an int, got Tensor"),
        (
            {"policy": "autoaugment"},
            TypeError,
            "policy must be a Policy, got str. fix: nlbench.ops.policies.POLICIES has",
        ),
        ({"std": (1, 0, 1)}, ValueError, "std must be three positive numbers"),
        ({"padding": -1}, ValueError, "padding must be >= 0"),
        ({"dtype": torch.int32}, TypeError, "dtype must be one of torch.float32"),
        (
            {"reflect": True},
            ValueError,
            "reflect needs a padding below the image's side, got 4 for images of 4 x 5",
        ),
    ],
)
def test_refusals(backend, change, error, message):
    arguments = {
        "images": pictures(6, 4, 5),
        "index": torch.tensor([2, 0]),
        "draws": crops(6, 4),
        "seed": 0,
        "mean": MEAN,
        "std": STD,
        **change,
    }
    if error is None:
        arguments["index"] = torch.tensor([2])
    first = [arguments.pop(name) for name in ("images", "index", "draws")]
    if error is None:
        assert ops.strong_augment(*first, **arguments).shape == (1, 3, 4, 5)
        return
    with pytest.raises(error) as caught:
        ops.strong_augment(*first, **arguments)
    assert str(caught.value).startswith("strong_augment: ")
    assert message in str(caught.value)


# ---- On a GPU -----------------------------------------------------------------------------------


@needs_gpu
@needs_kernels
@pytest.mark.parametrize("policy", ALL_POLICIES, ids=lambda policy: policy.name)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(("H", "W"), [(32, 32), (5, 7), (1, 1), (100, 90)])
def test_cuda_gives_the_cpu_s_bits(policy, dtype, form, H, W):
    padding = min(4, min(H, W) - 1)
    pixels, draws = pictures(20, H, W), crops(20, padding)
    index = torch.randint(20, (50,))
    for rows, reflect in ((draws, False), (draws, True), (None, False)):
        options = {"padding": padding, "reflect": reflect, "dtype": dtype, "memory_format": form}
        want = views(pixels, index, rows, 2**63 + 1, policy=policy, **options)
        on_gpu = None if rows is None else rows.cuda()
        got = views(pixels.cuda(), index.cuda(), on_gpu, 2**63 + 1, policy=policy, **options)
        assert got.is_contiguous(memory_format=form)
        assert torch.equal(got.cpu(), want)


@needs_gpu
@needs_kernels
def test_cuda_neither_waits_nor_copies():
    pixels, draws = pictures(20, 32, 32).cuda(), crops(20, 4).cuda()
    index = torch.arange(20).cuda()
    want = views(pixels, index, draws)
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        views(pixels, index, draws)
    finally:
        torch.cuda.set_sync_debug_mode(before)

    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = views(pixels, index, draws)
    index.copy_(torch.arange(19, -1, -1))
    graph.replay()
    assert torch.equal(out, want.flip(0))


@needs_gpu
@needs_kernels
def test_cuda_spoils_an_image_whose_draws_are_out_of_range():
    pixels, draws = pictures(20, 32, 32), crops(20, 4)
    draws[19, 2] = 2
    out = views(pixels.cuda(), torch.tensor([3, 19, 20, 0]).cuda(), draws.cuda())
    assert out.isnan().flatten(1).all(1).tolist() == [False, True, True, False]
    assert out.isnan().flatten(1).any(1).tolist() == [False, True, True, False]
    with pytest.raises(IndexError, match=r"strong_augment: (index|draws) had values out of range"):
        ops.check_faults("cuda")


@needs_gpu
def test_on_a_gpu():
    """With kernels or, with a warning, by the reference."""
    pixels, draws = pictures(9, 8, 8), crops(9, 4)
    with warnings.catch_warnings(record=True):
        out = views(pixels.cuda(), torch.arange(9).cuda(), draws.cuda())
    assert torch.equal(out.cpu(), views(pixels, draws=draws))
