"""Labels of other images, or of classes in another order, are noticed; heavy noise is not."""

import json
from dataclasses import replace

import numpy as np
import pytest

from nlbench.data.datasets import cifar10, folder
from nlbench.data.noise.examples import Examples
from nlbench.data.noise.relation import agreement, renumbered, require_related
from nlbench.data.noise.resolve import apply, identity, require_fit, resolve
from nlbench.data.places import Places
from nlbench.errors import DataError, SuiteError


def noisy(clean, C, rate, rng, inclusive=False):
    """Return symmetric noise, or the inclusive kind."""
    given = clean.copy()
    moved = rng.random(len(clean)) < rate
    step = rng.integers(0 if inclusive else 1, C, len(clean))
    given[moved] = (clean + step)[moved] % C
    return given


@pytest.mark.parametrize(
    ("C", "N", "least"),
    [
        (3, 12, 0.75),
        (3, 30, 0.75),
        (10, 100, 0.8),
        (10, 1000, 0.99),
        (100, 50_000, 1),
        (10, 50_000, 1),
    ],
)
def test_labels_of_other_images_are_found(C, N, least):
    rng = np.random.default_rng(0)
    clean = np.arange(N) % C
    tries = 20 if N > 5000 else 300
    found = sum(agreement(clean, rng.permutation(clean), C).unrelated for _ in range(tries))
    assert found >= least * tries


@pytest.mark.parametrize(
    ("C", "N", "rate", "inclusive", "most"),
    [
        (3, 12, 0.25, False, 0.02),
        (3, 30, 0.4, False, 0.02),
        (2, 200, 0.4, False, 0.05),
        (10, 1000, 0.8, False, 0.01),
        (10, 50_000, 0.8, False, 0),
        (10, 50_000, 0.9, True, 0),
        (100, 50_000, 0.9, False, 0),
        (10, 50_000, 0.85, False, 0),
        # Complementary labels: all wrong, which is not chance.
        (10, 1000, 1, False, 0),
    ],
)
def test_heavy_noise_is_none(C, N, rate, inclusive, most):
    rng = np.random.default_rng(0)
    clean = np.arange(N) % C
    tries = 10 if N > 5000 else 300
    alarms = 0
    for _ in range(tries):
        given = noisy(clean, C, rate, rng, inclusive)
        alarms += agreement(clean, given, C).unrelated or renumbered(clean, given, C) is not None
    assert alarms <= most * tries


@pytest.mark.parametrize(
    ("C", "N", "wrong", "refused"),
    [(3, 12, 3, False), (3, 12, 6, False), (3, 12, 7, True), (3, 12, 8, True), (2, 10, 4, False)],
)
def test_a_few_images(C, N, wrong, refused):
    clean = np.arange(N) % C
    given = clean.copy()
    # Spread over the classes, and to both other ones.
    given[:wrong] = (clean + 1 + np.arange(N) // C % (C - 1))[:wrong] % C
    assert agreement(clean, given, C).unrelated == refused


def test_chance_is_that_of_all_orders():
    clean, given = np.array([0, 0, 1, 2, 2, 2]), np.array([0, 1, 1, 1, 2, 2])
    rng = np.random.default_rng(0)
    shares = [float((clean == rng.permutation(given)).mean()) for _ in range(20_000)]
    found = agreement(clean, given, 3)
    assert found.by_chance == pytest.approx(np.mean(shares), abs=0.01)
    assert found.spread == pytest.approx(np.std(shares), rel=0.03)


def test_uneven_classes():
    """Where one class is common, unrelated labels are right more often."""
    rng = np.random.default_rng(0)
    clean = np.repeat(np.arange(3), [900, 60, 40])
    assert agreement(clean, rng.permutation(clean), 3).unrelated
    assert not agreement(clean, noisy(clean, 3, 0.3, rng), 3).unrelated


@pytest.mark.parametrize(
    "target", [[1, 2, 0], [2, 1, 0], [0, 2, 1]], ids=["shifted", "reversed", "swapped"]
)
@pytest.mark.parametrize("rate", [0, 0.2])
def test_other_numberings_are_found(target, rate):
    rng = np.random.default_rng(0)
    clean = np.arange(300) % 3
    given = noisy(np.array(target)[clean], 3, rate, rng)
    np.testing.assert_array_equal(renumbered(clean, given, 3), target)
    with pytest.raises(DataError, match=r"x\.csv: .*as if the classes were in another order"):
        require_related(clean, given, 3, "x.csv")


def test_classes_in_the_order_of_their_texts():
    """0, 1, 10, 11, 2, ... as a sorted list of texts has them."""
    by_text = sorted(range(12), key=str)
    clean = np.arange(1200) % 12
    with pytest.raises(DataError, match="class 2 has 4, 3 has 5, 4 has 6"):
        require_related(clean, np.argsort(by_text)[clean], 12, "x.csv")


@pytest.mark.parametrize("rate", [0.2, 0.45])
def test_flips_to_one_class_are_no_other_numbering(rate):
    rng = np.random.default_rng(0)
    clean = np.arange(1000) % 10
    given = np.where(rng.random(1000) < rate, (clean + 1) % 10, clean)
    assert renumbered(clean, given, 10) is None
    require_related(clean, given, 10, "x.csv")


@pytest.mark.parametrize(("flipped", "found"), [(11, False), (15, True)])
def test_two_classes_that_are_confused_more_often_than_not(flipped, found):
    """Noise of 55% between two classes is heavy, and still noise; of 75% it is a mistake."""
    clean = np.repeat(np.arange(3), 20)
    given = clean.copy()
    given[:flipped], given[20 : 20 + flipped] = 1, 0
    assert (renumbered(clean, given, 3) is not None) == found


# ---- In a suite ----------------------------------------------------------------------------------

INFO = replace(cifar10.INFO, num_train=60, num_classes=3, class_ids="")
CLEAN = np.repeat(np.arange(3), 20)
OTHERS = np.tile(np.arange(3), 20)


def test_unrelated_labels_are_refused_unless_they_are_meant(tmp_path):
    (tmp_path / "x.json").write_text(json.dumps(OTHERS.tolist()))
    noise = {"kind": "file", "path": "x.json"}
    known = Examples(INFO, (), clean=CLEAN)
    with pytest.raises(SuiteError, match=r"66.67% of its labels are wrong.*`unrelated: true`"):
        resolve(noise, INFO, tmp_path, known)

    # Before the data is read, nothing can be said.
    resolved = resolve(noise, INFO, tmp_path)
    with pytest.raises(DataError, match="as many as if they were of other images"):
        require_fit(resolved, known)
    with pytest.raises(DataError, match="as many as if they were of other images"):
        apply(resolved, CLEAN, INFO, 0)

    meant = resolve({**noise, "unrelated": True}, INFO, tmp_path, known)
    require_fit(meant, known)
    np.testing.assert_array_equal(apply(meant, CLEAN, INFO, 0), OTHERS)
    assert identity(meant)["unrelated"] is True


def test_the_default_is_left_out_of_the_key(tmp_path):
    (tmp_path / "x.json").write_text(json.dumps(CLEAN.tolist()))
    plain = resolve({"kind": "file", "path": "x.json"}, INFO, tmp_path)
    same = resolve({"kind": "file", "path": "x.json", "unrelated": False}, INFO, tmp_path)
    assert identity(plain) == identity(same)
    assert list(identity(plain)) == ["kind", "key", "sha256"]

    with pytest.raises(SuiteError, match=r"noise\.unrelated: must be true or false, got 'yes'"):
        resolve({"kind": "file", "path": "x.json", "unrelated": "yes"}, INFO, tmp_path)


def test_a_reading_that_has_changed_is_in_the_key(tmp_path):
    """A key never stands for other labels than before."""
    known = Examples(replace(INFO, num_train=3), (), clean=np.arange(3))

    def added(text):
        (tmp_path / "x.csv").write_text(text)
        found = identity(resolve({"kind": "file", "path": "x.csv"}, known.info, tmp_path, known))
        return found.get("read")

    assert added("id,label\n2,2\n1,1\n0,0\n") == "label by 'id'"
    assert added(",label\n2,2\n1,1\n0,0\n") == "label by ''"
    assert added("label,noisy_label\n0,0\n1,1\n0,2\n") == "noisy_label by row"
    # The same labels as before, or a file that could not be read before.
    assert added("id,label\n0,0\n1,1\n2,2\n") is None
    assert added("index,label\n2,2\n1,1\n0,0\n") is None
    assert added("id;label\n2;2\n1;1\n0;0\n") is None
    assert added("0\n1\n2\n") is None


# ---- In a folder ---------------------------------------------------------------------------------


def test_columns_of_a_list_that_belong_to_other_images_are_told(tmp_path):
    root = tmp_path / "f"
    (root / "im").mkdir(parents=True)
    lines = ["path,label,clean_label"]
    for i in range(60):
        (root / "im" / f"{i:02}.png").touch()
        lines.append(f"im/{i:02}.png,{OTHERS[i]},{CLEAN[i]}")
    (root / "im" / "t.png").touch()
    (root / "train.csv").write_text("\n".join(lines))
    (root / "test.csv").write_text("path,label\nim/t.png,1\n")

    warnings = folder.load(Places(root, tmp_path / "cache"), 0).warnings
    told = [line for line in warnings if "as many as if they were of other images" in line]
    assert len(told) == 1
    assert "train.csv: 66.67% of its labels are wrong" in told[0]

    # The same with columns that are no more than noisy.
    lines = [",".join([*line.split(",")[:2], line.split(",")[1]]) for line in lines[1:]]
    (root / "train.csv").write_text("\n".join(["path,noisy_label,label", *lines]))
    warnings = folder.load(Places(root, tmp_path / "cache"), 0).warnings
    assert any("the given labels are 'noisy_label', the true ones 'label'" in w for w in warnings)
    assert not any("other images" in line for line in warnings)
