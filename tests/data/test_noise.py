"""Noise: flips have exact counts, start from the clean labels and follow the seed.

What cannot be drawn is refused before a run.
"""

import json
import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nlbench import streams
from nlbench.data.datasets import cifar10, cifar10n, cifar100, cifar100n, digits
from nlbench.data.formats.safe_pickle import read_torch
from nlbench.data.noise.kinds import CIFAR100_SUPERCLASSES, KINDS
from nlbench.data.noise.label_files import labels_hash
from nlbench.data.noise.measure import noise_rate, transition_matrix
from nlbench.data.noise.resolve import apply, identity, resolve
from nlbench.data.places import Places
from nlbench.errors import DataError, SuiteError

C10 = np.repeat(np.arange(10), 5000)
C100 = np.repeat(np.arange(100), 500)
UNEVEN = np.repeat(np.arange(10), [1, 3, 5, 10, 17, 50, 101, 250, 333, 707])


def draw(kind, rate, clean=C10, info=cifar10.INFO, seed=0, images=None):
    """Draw given labels, and check that the clean ones are neither changed nor shared."""
    clean = clean.copy()
    before = clean.copy()
    given_labels = apply({"kind": kind, "rate": rate}, clean, info, seed, images)
    np.testing.assert_array_equal(clean, before)
    assert given_labels.dtype == np.int64
    assert not np.shares_memory(given_labels, clean)
    return given_labels


def flips(clean, given_labels, num_classes):
    """Return (C, C) counts of examples with the clean label i and the given label j."""
    counts = np.zeros((num_classes, num_classes), int)
    np.add.at(counts, (clean, given_labels), 1)
    return counts


def half_even(rate: str, n: int) -> int:
    """Round a share of n exactly, halves to the even number."""
    return round(Fraction(rate) * n)


def images_for(clean):
    """Return random images of 8 x 8, one for each label."""
    return np.random.default_rng(7).integers(0, 256, (len(clean), 8, 8, 3), np.uint8)


# --- counts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", ["0", "0.1", "0.2", "0.45", "0.8", "1"])
@pytest.mark.parametrize("clean", [C10, UNEVEN], ids=["even", "uneven"])
def test_symmetric_flips_exactly_so_many_of_each_class(clean, rate):
    counts = flips(clean, draw("symmetric", float(rate), clean), 10)
    sizes = counts.sum(1)
    assert (sizes - counts.diagonal()).tolist() == [half_even(rate, int(n)) for n in sizes]


def test_symmetric_flips_spread_over_the_other_classes():
    counts = flips(C10, draw("symmetric", 0.9), 10)
    expected = 5000 * 0.9 / 9
    off = counts[~np.eye(10, dtype=bool)]
    assert abs(off - expected).max() < 5 * math.sqrt(expected)
    assert off.sum() == 45_000


@pytest.mark.parametrize("rate", ["0", "0.07", "0.2", "0.5", "0.9", "1"])
def test_symmetric_inclusive_may_draw_the_true_class(rate):
    given_labels = draw("symmetric-inclusive", float(rate))
    drawn = math.ceil(Fraction(rate) * 50_000)
    wrong = int((given_labels != C10).sum())
    assert wrong <= drawn
    assert abs(wrong - 0.9 * drawn) <= 5 * math.sqrt(drawn * 0.9 * 0.1)


def test_symmetric_inclusive_draws_the_ceiling():
    """Round up exactly: 0.07 of 100 is 7, but 7.000000000000001 in binary."""
    clean = np.zeros(100, np.int64)
    # Of so many classes the true one is not drawn again.
    info = replace(cifar10.INFO, num_classes=10**9)
    assert (draw("symmetric-inclusive", 0.07, clean, info) != clean).sum() == 7
    assert (draw("symmetric-inclusive", 0.071, clean, info) != clean).sum() == 8


def test_asymmetric_rates_of_cats_and_dogs(real_cifar10n):
    """Check the real order of classes: 0.4 of the cats and 0.4 of the dogs are flipped.

    Flips from labels that are flipped already would leave 0.24 of the cats.
    """
    clean = real_cifar10n.clean_labels
    counts = flips(clean, apply({"kind": "asymmetric", "rate": 0.4}, clean, cifar10.INFO, 0), 10)
    expected = np.diag([5000] * 10)
    for source, target in ((9, 1), (2, 0), (4, 7), (3, 5), (5, 3)):
        expected[source, source], expected[source, target] = 3000, 2000

    np.testing.assert_array_equal(counts, expected)


@pytest.mark.parametrize("rate", ["0", "0.1", "0.3", "1"])
def test_asymmetric_overall_rate_is_half(rate):
    assert noise_rate(C10, draw("asymmetric", float(rate))) == float(rate) / 2


def only_to(clean, given_labels, target, rate, num_classes):
    """Check that the exact share of each class c has the label target[c], and the rest c."""
    counts = flips(clean, given_labels, num_classes)
    for c in range(num_classes):
        n = int((clean == c).sum())
        row = np.zeros(num_classes, int)
        row[c] = n
        if target[c] != c:
            row[c], row[target[c]] = n - half_even(rate, n), half_even(rate, n)
        np.testing.assert_array_equal(counts[c], row)


@pytest.mark.parametrize("rate", ["0", "0.1", "0.45", "1"])
def test_pair_flip(rate):
    given_labels = draw("pair-flip", float(rate), UNEVEN)
    only_to(UNEVEN, given_labels, [*range(1, 10), 0], rate, 10)


@pytest.mark.parametrize("rate", ["0", "0.2", "0.4", "1"])
def test_asymmetric_block(rate):
    target = [c - 4 if c % 5 == 4 else c + 1 for c in range(100)]
    only_to(C100, draw("asymmetric-block", float(rate), C100, cifar100.INFO), target, rate, 100)


def test_asymmetric_superclass_stays_inside_the_superclass():
    given_labels = draw("asymmetric-superclass", 0.4, C100, cifar100.INFO)
    counts = flips(C100, given_labels, 100)

    seen = []
    for members in CIFAR100_SUPERCLASSES:
        in_order = sorted(members)
        seen += in_order

        # Each class goes to the next one of its superclass, and the last one to the first.
        for c, target in zip(in_order, in_order[1:] + in_order[:1], strict=True):
            assert counts[c, target] == 200
            assert set(np.flatnonzero(counts[c])) == {c, target}

    assert sorted(seen) == list(range(100))


def test_superclasses_are_those_of_the_real_coarse_labels(real_data):
    content = read_torch(real_data / "cifar-n" / "CIFAR-100_human.pt")
    pairs = set(zip(content["clean_coarse_label"], content["clean_label"].tolist(), strict=True))
    ours = set()
    for i, members in enumerate(CIFAR100_SUPERCLASSES):
        ours.update((i, fine) for fine in members)
    assert pairs == ours


def test_asymmetric_swap_swaps_two_classes_of_each_block():
    seen = set()
    for seed in range(3):
        given_labels = draw("asymmetric-swap", 0.4, C100, cifar100.INFO, seed)
        assert noise_rate(C100, given_labels) == pytest.approx(0.4 * 0.4)
        counts = flips(C100, given_labels, 100)
        for block in range(0, 100, 5):
            first, second = block + np.flatnonzero(counts.diagonal()[block : block + 5] < 500)
            assert counts[first, second] == counts[second, first] == 200
            seen.add((first, second))

    # 20 pairs for each of three seeds: other seeds draw other pairs.
    assert len(seen) > 40


def test_matrix_within_binomial_error(tmp_path):
    T = np.random.default_rng(1).dirichlet(np.ones(10), 10)
    T[0] = np.eye(10)[3]
    T[1] = np.eye(10)[9]
    np.save(tmp_path / "T.npy", T)
    # The rows are random, so that no class keeps most of its labels.
    entry = {"kind": "matrix", "path": "T.npy", "unrelated": True}
    noise = resolve(entry, cifar10.INFO, tmp_path)
    measured = transition_matrix(C10, apply(noise, C10, cifar10.INFO, 0), 10)
    assert (abs(measured - T) <= 5 * np.sqrt(T * (1 - T) / 5000) + 1e-12).all()


INSTANCE_DEPENDENT = ["instance-dependent", "instance-dependent-standardised"]


@pytest.mark.parametrize("kind", INSTANCE_DEPENDENT)
def test_instance_dependent_rate_and_dependence(kind):
    clean = np.tile(np.arange(10), 500)
    images = images_for(clean)
    given_labels = draw(kind, 0.4, clean, images=images)

    # Each example flips with a probability from a truncated normal distribution of mean 0.4.
    assert abs(noise_rate(clean, given_labels) - 0.4) < 5 * math.sqrt(0.4 * 0.6 / len(clean))

    # Equal images of one class get equal wrong labels, because a softmax of sums over 192 pixels
    # is almost one for the largest.
    images[clean == 0] = images[0]
    wrong = draw(kind, 0.4, clean, images=images)[clean == 0]

    assert np.bincount(wrong[wrong != 0]).max() > 0.9 * (wrong != 0).sum()


@pytest.mark.parametrize("kind", INSTANCE_DEPENDENT)
@pytest.mark.parametrize(("rate", "expected"), [(0, 0), (1, 1 - 0.1 * math.sqrt(2 / math.pi))])
def test_instance_dependent_at_the_ends(kind, rate, expected):
    clean = np.tile(np.arange(10), 500)
    measured = noise_rate(clean, draw(kind, rate, clean, images=images_for(clean)))
    assert abs(measured - expected) <= 5 * math.sqrt(expected * (1 - expected) / len(clean))


@pytest.mark.parametrize("kind", INSTANCE_DEPENDENT)
def test_instance_dependent_on_float_features(kind, tmp_path):
    data = digits.load(Places(tmp_path, tmp_path), 0)
    noise = {"kind": kind, "rate": 0.3}
    given_labels = apply(noise, data.clean_labels, data.info, 0, data.train_images)
    assert abs(noise_rate(data.clean_labels, given_labels) - 0.3) < 0.07
    with pytest.raises(ValueError, match="pass images"):
        apply(noise, data.clean_labels, data.info, 0)


def images_of_a_common_brightness(clean):
    """Return images whose pixels vary around the mean of CIFAR-10's, as photographs do."""
    rng = np.random.default_rng(3)
    mean, std = 255 * np.array(cifar10.INFO.mean), 255 * np.array(cifar10.INFO.std)
    pixels = mean + std * rng.normal(size=(len(clean), 8, 8, 3))
    return pixels.clip(0, 255).round().astype(np.uint8)


def spread_of_wrong_labels(kind, draws=4):
    """Return the effective number of classes that a class's wrong labels go to, and the largest
    one's share, each on average over classes and draws.

    The effective number is the exponential of the entropy.
    """
    clean = np.tile(np.arange(10), 200)
    images = images_of_a_common_brightness(clean)
    numbers, shares = [], []
    for seed in range(draws):
        counts = flips(clean, draw(kind, 0.4, clean, seed=seed, images=images), 10)
        np.fill_diagonal(counts, 0)
        for p in counts / counts.sum(1, keepdims=True):
            some = p[p > 0]
            numbers.append(np.exp(-(some * np.log(some)).sum()))
            shares.append(p.max())
    return np.mean(numbers), np.mean(shares)


def test_raw_pixels_send_a_class_to_few_others_and_standardised_ones_to_most():
    # On 10,000 images of CIFAR-10 and 20 draws: 2.5 classes with a largest share of 68% from raw
    # pixels, 7.6 and 25% from standardised ones. The code of Xia et al. takes raw ones.
    raw, largest_of_raw = spread_of_wrong_labels("instance-dependent")
    standardised, largest_of_standardised = spread_of_wrong_labels(
        "instance-dependent-standardised"
    )
    assert raw < 3
    assert largest_of_raw > 0.6
    assert standardised > 6
    assert largest_of_standardised < 0.4


def test_instance_dependent_noise_is_that_of_its_formula():
    clean = np.tile(np.arange(10), 30)
    images = images_of_a_common_brightness(clean)
    rng = streams.rng(5, "noise")
    rate = rng.normal(0.4, 0.1, len(clean))
    assert ((rate > 0) & (rate < 1)).all()
    uniform = rng.random(len(clean))

    raw = images.reshape(len(clean), -1).astype(float)
    expected = clean.copy()
    for c in range(10):
        W = rng.normal(size=(192, 10))
        for i in np.flatnonzero(clean == c):
            score = raw[i] @ W
            score[c] = -np.inf
            p = np.exp(score - score.max())
            edges = rate[i] * (p / p.sum()).cumsum()
            if uniform[i] < rate[i]:
                expected[i] = np.flatnonzero(uniform[i] < edges)[0]
    given_labels = draw("instance-dependent", 0.4, clean, seed=5, images=images)
    np.testing.assert_array_equal(given_labels, expected)


def test_a_kind_whose_numbers_have_changed_has_other_keys(tmp_path):
    """A stored run of the first version must not stand for one of the second."""
    noise = {"kind": "instance-dependent", "rate": 0.4}
    assert identity(resolve(noise, cifar10.INFO, tmp_path)) == {**noise, "version": 2}
    for kind, entry in KINDS.items():
        if entry.version == 1 and [param.name for param in entry.params] == ["rate"]:
            info = cifar100.INFO if entry.class_ids == "cifar100" else cifar10.INFO
            of_kind = {"kind": kind, "rate": 0.4}
            assert identity(resolve(of_kind, info, tmp_path)) == of_kind

    # It belongs to the kind, so a suite cannot set it.
    with pytest.raises(SuiteError, match=r"noise\.version: unknown key"):
        resolve({**noise, "version": 1}, cifar10.INFO, tmp_path)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["symmetric", "symmetric-inclusive", "pair-flip"]),
    st.decimals(0, 1, places=3),
    st.lists(st.integers(0, 40), min_size=2, max_size=6).filter(sum),
    st.integers(0, 5),
)
def test_any_rate_on_any_class_sizes(kind, rate, sizes, seed):
    clean = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    info = replace(cifar10.INFO, num_classes=len(sizes))
    given_labels = draw(kind, float(rate), clean, info, seed)

    assert given_labels.min() >= 0
    assert given_labels.max() < len(sizes)

    wrong = np.bincount(clean[given_labels != clean], minlength=len(sizes))
    if kind == "symmetric-inclusive":
        assert wrong.sum() <= math.ceil(Fraction(rate) * len(clean))
    else:
        assert wrong.tolist() == [half_even(str(rate), n) for n in sizes]


# --- dependence on seed and labels ----------------------------------------------------------------

PINNED = {
    ("symmetric", 0.4): "8869543650913cd9",
    ("symmetric-inclusive", 0.4): "772c25f63b992cd0",
    ("asymmetric", 0.4): "24a7706a6f5d5814",
    ("pair-flip", 0.45): "198c9f1d7e63fea3",
}


@pytest.mark.parametrize(("kind", "rate"), PINNED)
def test_the_labels_of_a_seed_never_change(kind, rate):
    assert labels_hash(draw(kind, rate)) == PINNED[kind, rate]


def params_of(kind):
    return {param.name for param in KINDS[kind].params}


@pytest.mark.parametrize("kind", [k for k in KINDS if "path" not in params_of(k)])
def test_same_seed_same_labels_other_seed_other_labels(kind):
    info, clean = cifar10.INFO, C10
    if KINDS[kind].class_ids == "cifar100":
        info, clean = cifar100.INFO, C100
    images = images_for(clean) if KINDS[kind].needs_images else None

    first = draw(kind, 0.4, clean, info, 0, images)
    again = draw(kind, 0.4, clean, info, 0, images)
    other = draw(kind, 0.4, clean, info, 1, images)

    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_noise_does_not_depend_on_the_dtype_of_the_labels():
    of_bytes = draw("symmetric", 0.4, C10.astype(np.uint8))
    np.testing.assert_array_equal(draw("symmetric", 0.4), of_bytes)


def test_a_higher_rate_flips_the_same_examples_and_more():
    low, high = draw("symmetric", 0.2), draw("symmetric", 0.6)
    flipped = low != C10
    np.testing.assert_array_equal(low[flipped], high[flipped])


def test_transition_matrix():
    T = transition_matrix(np.array([0, 0, 0, 0, 1]), np.array([0, 0, 0, 2, 1]), 3)
    np.testing.assert_array_equal(T, [[0.75, 0, 0.25], [0, 1, 0], [0, 0, 1]])


# --- files ----------------------------------------------------------------------------------------

SMALL = replace(cifar10.INFO, num_train=20, num_classes=3)


def test_labels_from_a_file(tmp_path):
    labels = np.arange(20) % 3
    (tmp_path / "labels.json").write_text(json.dumps(labels.tolist()))
    noise = resolve({"kind": "file", "path": "labels.json"}, SMALL, tmp_path)
    for seed in (0, 1):
        np.testing.assert_array_equal(apply(noise, np.zeros(20, int), SMALL, seed), labels)
    assert not KINDS["file"].redrawn


def test_file_that_changed_after_the_suite_was_read(tmp_path):
    path = tmp_path / "labels.npy"
    np.save(path, np.zeros(20, np.int64))
    noise = resolve({"kind": "file", "path": str(path)}, SMALL, tmp_path)
    np.save(path, np.ones(20, np.int64))

    with pytest.raises(DataError, match=r"labels\.npy: has changed"):
        apply(noise, np.zeros(20, int), SMALL, 0)

    path.unlink()
    with pytest.raises(DataError, match=r"labels\.npy: cannot be read"):
        apply(noise, np.zeros(20, int), SMALL, 0)


@pytest.mark.parametrize(
    ("labels", "words"),
    [(np.zeros(19, int), "19 labels.*20"), (np.full(20, 3), r"\[0, 3\), got 3 at position 0")],
)
def test_file_that_does_not_fit(tmp_path, labels, words):
    np.save(tmp_path / "labels.npy", labels)
    with pytest.raises(SuiteError, match=rf"noise\.path: .*labels\.npy: .*{words}"):
        resolve({"kind": "file", "path": "labels.npy"}, SMALL, tmp_path)

    # A run checks again, since the file may have changed.
    noise = {"kind": "file", "path": str(tmp_path / "labels.npy"), "key": ""}
    with pytest.raises(DataError, match=rf"labels\.npy: .*{words}"):
        apply(noise, np.zeros(20, int), SMALL, 0)


def test_key_of_a_file_with_several_label_sets(real_data):
    noise = {"kind": "file", "path": "CIFAR-10_human.pt", "key": "worse_label", "unrelated": True}
    resolved = resolve(noise, cifar10.INFO, real_data / "cifar-n")
    assert labels_hash(apply(resolved, C10, cifar10.INFO, 0)) == "a64d887522cf6d8f"


T3 = [[0.8, 0.1, 0.1], [0, 1, 0], [0.25, 0.25, 0.5]]


def test_every_format_of_a_matrix_gives_the_same_labels(tmp_path):
    np.save(tmp_path / "T.npy", T3)
    (tmp_path / "T.json").write_text(json.dumps(T3))
    (tmp_path / "T.csv").write_text("\n".join(", ".join(map(str, row)) for row in T3) + "\n")
    (tmp_path / "T.txt").write_text("\n".join("  ".join(map(str, row)) for row in T3) + "\n\n")
    clean = np.arange(300) % 3
    hashes = set()
    for suffix in ("npy", "json", "csv", "txt"):
        noise = resolve({"kind": "matrix", "path": f"T.{suffix}"}, SMALL, tmp_path)
        hashes.add(labels_hash(apply(noise, clean, SMALL, 0)))

    assert len(hashes) == 1


@pytest.mark.parametrize(
    ("T", "words"),
    [
        ([[1, 0], [0, 1]], "must be 3 x 3"),
        ([[1, 0, 0], [0, 1, 0], [0, 0.5, 0.4]], "row 2 adds up to 0.9"),
        ([[1, 0, 0], [0, 1.5, -0.5], [0, 0, 1]], "smallest entry is -0.5"),
        ([[1, 0, 0], [0, math.nan, 0], [0, 0, 1]], "probabilities"),
        ([[1, 0, 0], [0, 1]], "not a matrix"),
        ([["a", 0, 0], [0, 1, 0], [0, 0, 1]], "not a matrix"),
        (3, "must be 3 x 3"),
    ],
)
def test_matrices_that_are_none(tmp_path, T, words):
    (tmp_path / "T.json").write_text(json.dumps(T))
    with pytest.raises(SuiteError, match=rf"noise\.path: .*T\.json: .*{words}"):
        resolve({"kind": "matrix", "path": "T.json"}, SMALL, tmp_path)


# --- a suite's mapping ----------------------------------------------------------------------------


def test_resolved_noise_is_plain_and_complete(tmp_path):
    resolved = resolve({"rate": 1, "kind": "symmetric"}, cifar10.INFO, tmp_path)
    assert resolved == {"kind": "symmetric", "rate": 1.0}

    np.save(tmp_path / "x.npy", np.zeros(20, int))
    resolved = resolve({"kind": "file", "path": "x.npy"}, SMALL, tmp_path)

    assert list(resolved) == ["kind", "path", "key", "sha256"]
    assert resolved["path"] == str(tmp_path / "x.npy")
    assert json.loads(json.dumps(resolved)) == resolved

    # The same content under another name is the same noise.
    (tmp_path / "y.npy").write_bytes((tmp_path / "x.npy").read_bytes())
    renamed = resolve({"kind": "file", "path": "y.npy"}, SMALL, tmp_path)
    assert identity(resolved) == identity(renamed)


@pytest.mark.parametrize(
    ("noise", "message"),
    [
        ({}, "noise.kind: is required"),
        (
            {"kind": "symetric", "rate": 0.4},
            "noise.kind: unknown kind 'symetric'. .* Did you mean 'symmetric'?",
        ),
        ({"kind": ["symmetric"]}, "noise.kind: unknown kind"),
        ({"kind": "symmetric"}, "noise.rate: is required"),
        ({"kind": "symmetric", "rate": 1.4}, r"noise.rate: must be in \[0, 1\], got 1.4"),
        ({"kind": "symmetric", "rate": -0.1}, r"noise.rate: must be in \[0, 1\], got -0.1"),
        ({"kind": "symmetric", "rate": math.nan}, r"noise.rate: must be in \[0, 1\], got nan"),
        ({"kind": "symmetric", "rate": "0.4"}, "noise.rate: must be a number, got '0.4'"),
        ({"kind": "symmetric", "rate": True}, "noise.rate: must be a number, got True"),
        (
            {"kind": "symmetric", "rat": 0.4},
            "noise.rat: unknown key. symmetric takes: rate. Did you mean 'rate'?",
        ),
        ({"kind": "symmetric", "rate": 0.4, "path": "x"}, "noise.path: unknown key"),
        ({"kind": "file", "path": "nowhere.npy"}, "noise.path: there is no file .*nowhere.npy"),
        ({"kind": "file", "path": 3}, "noise.path: must be text, got 3"),
        (
            {"kind": "asymmetric-block", "rate": 0.4},
            "noise.kind: .* cifar100 and .*, not for cifar10",
        ),
    ],
)
def test_wrong_noise_is_refused_with_its_key(tmp_path, noise, message):
    with pytest.raises(SuiteError, match=message):
        resolve(noise, cifar10.INFO, tmp_path)


def test_all_problems_of_a_mapping_come_together(tmp_path):
    with pytest.raises(SuiteError, match=r"noise\.kind") as caught:
        resolve({"kind": "asymmetric", "rate": 2, "seed": 3}, cifar100.INFO, tmp_path)
    assert [line.partition(":")[0] for line in str(caught.value).splitlines()] == [
        "noise.kind",
        "noise.rate",
        "noise.seed",
    ]


def test_human_label_datasets_take_the_kinds_of_their_images(tmp_path):
    for info, kind in ((cifar10n.INFO, "asymmetric"), (cifar100n.INFO, "asymmetric-superclass")):
        assert resolve({"kind": kind, "rate": 0.4}, info, tmp_path)["kind"] == kind


def test_no_kind_is_lost_and_every_one_is_described():
    assert set(KINDS) >= {
        "symmetric",
        "symmetric-inclusive",
        "asymmetric",
        "asymmetric-superclass",
        "asymmetric-block",
        "asymmetric-swap",
        "pair-flip",
        "matrix",
        *INSTANCE_DEPENDENT,
        "file",
    }
    assert all(kind.doc for kind in KINDS.values())
