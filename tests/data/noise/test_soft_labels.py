"""Labels drawn from soft labels, as CIFAR-10H and CIFAR-10S publish them."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from nlbench.data.datasets import cifar10
from nlbench.data.noise.examples import Examples
from nlbench.data.noise.kinds import KINDS
from nlbench.data.noise.resolve import apply, identity, require_fit, resolve
from nlbench.errors import SuiteError

N, C = 400, 10
NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
INFO = replace(cifar10.INFO, num_train=N, num_test=100, class_names=NAMES)
CLEAN = np.arange(N) % C
EXAMPLES = Examples(INFO, (), clean=CLEAN)


def soft(seed=0):
    """Return probabilities (N, C) float64 with about half of the mass on the true class."""
    probs = np.random.default_rng(seed).dirichlet(np.full(C, 0.2), N) / 2
    probs[np.arange(N), CLEAN] += 0.5
    return probs


def drawn(path, seed=0, examples=EXAMPLES, **more):
    """Return the labels of a run with this file."""
    noise = {"kind": "soft-labels", "path": path.name, **more}
    resolved = resolve(noise, examples.info, path.parent, examples)
    return apply(resolved, CLEAN[: examples.info.num_train], examples.info, seed, examples=examples)


def refusal(path, examples=EXAMPLES, **more):
    with pytest.raises(SuiteError) as caught:
        drawn(path, examples=examples, **more)
    return str(caught.value)


def saved(path, array):
    np.save(path, array)
    return path


# ---- What is drawn -------------------------------------------------------------------------------


def test_each_label_is_drawn_from_its_row(tmp_path):
    probs = soft()
    path = saved(tmp_path / "cifar10h-probs.npy", probs)
    labels = np.stack([drawn(path, seed) for seed in range(300)])

    # Of 300 draws each share has a standard deviation of at most 0.029.
    shares = np.stack([(labels == c).mean(0) for c in range(C)], axis=1)
    assert abs(shares - probs).max() < 0.15
    assert abs((shares - probs).mean(0)).max() < 0.01
    # The examples are drawn independently of each other.
    wrong = (labels != CLEAN).mean(1)
    assert abs(wrong.mean() - (1 - probs[np.arange(N), CLEAN].mean())) < 0.01


def test_a_seed_draws_the_same_labels_and_another_one_others(tmp_path):
    path = saved(tmp_path / "p.npy", soft())
    np.testing.assert_array_equal(drawn(path, 3), drawn(path, 3))
    assert not np.array_equal(drawn(path, 3), drawn(path, 4))
    assert KINDS["soft-labels"].redrawn


def test_a_class_without_mass_is_never_drawn(tmp_path):
    probs = np.zeros((N, C))
    probs[np.arange(N), CLEAN] = 0.7
    probs[np.arange(N), (CLEAN + 1) % C] = 0.3
    path = saved(tmp_path / "p.npy", probs)
    for seed in range(20):
        assert set((drawn(path, seed) - CLEAN) % C) == {0, 1}


def test_counts_and_their_shares_draw_the_same_labels(tmp_path):
    """CIFAR-10H publishes both, `cifar10h-counts.npy` and `cifar10h-probs.npy`."""
    counts = np.random.default_rng(0).multinomial(51, soft())
    expected = drawn(saved(tmp_path / "cifar10h-probs.npy", counts / counts.sum(1, keepdims=True)))
    for dtype in (np.int64, np.float64):
        path = saved(tmp_path / "cifar10h-counts.npy", counts.astype(dtype))
        np.testing.assert_array_equal(drawn(path), expected)


# ---- Formats -------------------------------------------------------------------------------------


def test_the_mean_of_all_annotators_of_an_image_is_taken(tmp_path):
    """CIFAR-10S: a mapping from position to a list of soft labels, of six annotators or more."""
    rng = np.random.default_rng(0)
    content, means = {}, np.empty((N, C))
    for i in rng.permutation(N):
        rows = rng.dirichlet(np.full(C, 0.1), rng.integers(6, 9)) / 2
        rows[:, CLEAN[i]] += 0.5
        content[str(i)] = rows.tolist()
        means[i] = rows.mean(0)
    path = tmp_path / "cifar10s_t2clamp_redist10.json"
    path.write_text(json.dumps(content))

    np.testing.assert_array_equal(drawn(path), drawn(saved(tmp_path / "mean.npy", means)))


def test_a_mapping_from_names_of_images_is_put_in_order(tmp_path):
    """The published file has 1,000 images of the test set, named by their positions in it."""
    names = tuple(f"{i * 7}.png" for i in range(N))
    examples = Examples(INFO, names, clean=CLEAN)
    probs = soft()
    order = np.random.default_rng(1).permutation(N)
    path = tmp_path / "s.json"
    path.write_text(json.dumps({str(i * 7): [probs[i].tolist()] for i in order}))

    expected = drawn(saved(tmp_path / "p.npy", probs))
    np.testing.assert_array_equal(drawn(path, examples=examples), expected)

    path.write_text(json.dumps({str(i * 7): [probs[i].tolist()] for i in order[1:]}))
    assert "must hold every position 0..399 exactly once" in refusal(path, examples)


def test_tables_have_a_column_for_each_class(tmp_path):
    probs = soft().round(3)
    expected = drawn(saved(tmp_path / "p.npy", probs))
    names = {
        "classes": list(NAMES),
        "numbers": [f"prob_{c}" for c in range(C)],
    }
    order = np.random.default_rng(2).permutation(N)
    for title, columns in names.items():
        # The columns and the rows are shuffled, and a column of labels is there as well.
        shuffled = [9, *range(9)]
        lines = [",".join(["index", "label", *(columns[c] for c in shuffled)])]
        for i in order:
            cells = [f"{probs[i, c]:.3f}" for c in shuffled]
            lines.append(",".join([str(i), str(CLEAN[i]), *cells]))
        path = tmp_path / f"{title}.csv"
        path.write_text("\n".join(lines))
        np.testing.assert_array_equal(drawn(path), expected)

    (tmp_path / "no_header.csv").write_text(
        "\n".join(",".join(f"{value:.3f}" for value in row) for row in probs)
    )
    np.testing.assert_array_equal(drawn(tmp_path / "no_header.csv"), expected)


def test_entries_by_name_are_chosen_by_the_key(tmp_path):
    probs = soft()
    np.savez(tmp_path / "p.npz", probs=probs, counts=(probs * 50).round())
    expected = drawn(saved(tmp_path / "p.npy", probs))
    np.testing.assert_array_equal(drawn(tmp_path / "p.npz", key="probs"), expected)
    assert "set key to one of: probs, counts" in refusal(tmp_path / "p.npz")
    # numpy.save writes a mapping as an array of one object.
    np.save(tmp_path / "d.npy", {"probs": probs}, allow_pickle=True)
    np.testing.assert_array_equal(drawn(tmp_path / "d.npy", key="probs"), expected)


# ---- What is refused -----------------------------------------------------------------------------


def wrong_cells(row, values):
    probs = soft()
    probs[row] = values
    return probs


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            soft()[:100],
            "100 soft labels, .* each of 400.*number of test examples",
        ),
        (
            soft()[:380],
            r"380 soft labels.*validation part .* needs all of them\. Add rows for the other 20, "
            "for example with their true labels$",
        ),
        (soft()[:, :9], r"soft labels of 9 classes, and .* has 10"),
        (soft().T, "10 soft labels, it must have one for each of 400"),
        (CLEAN, r"shape \(N, C\), got int64 of shape \(400,\).*kind: file"),
        (wrong_cells(7, np.nan), "row 7 holds NaN"),
        (
            wrong_cells(7, -np.arange(10)),
            "row 7 holds negative numbers; of logits",
        ),
        (wrong_cells(7, 0), "row 7 holds nothing but zeros"),
        (wrong_cells(7, 0.3), "row 7 does not add up to 1, and holds no counts"),
        (soft()[::-1], r"wrong, .*classes were in another order|as if they were of other images"),
        (np.roll(soft(), 1, axis=1), "as if the classes were in another order.*unrelated: true"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path, content, words):
    message = refusal(saved(tmp_path / "p.npy", content))
    assert re.search(words, message), message
    assert "p.npy" in message


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("p.json", json.dumps([[0.5] * 2] * N), "position 0 has the shape (2,), expected (10,)"),
        ("p.json", json.dumps([["a"] * C] * N), "position 0 must be 10 numbers"),
        ("p.json", "3", "must hold an array (N, C) of soft labels"),
        ("p.csv", "index,a,b\n0,0.5,0.5\n", "must have a column for each of the 10 classes"),
    ],
)
def test_texts_that_do_not_fit_are_refused(tmp_path, name, text, words):
    (tmp_path / name).write_text(text)
    assert words in refusal(tmp_path / name)


def test_soft_labels_of_an_adversary_may_be_unrelated(tmp_path):
    path = saved(tmp_path / "p.npy", np.roll(soft(), 1, axis=1))
    labels = drawn(path, unrelated=True)
    assert (labels == (CLEAN + 1) % C).mean() > 0.4


def test_the_order_is_checked_when_the_true_labels_are_known(tmp_path):
    saved(tmp_path / "p.npy", np.roll(soft(), 1, axis=1))
    noise = {"kind": "soft-labels", "path": "p.npy"}
    resolved = resolve(noise, INFO, tmp_path, Examples(INFO, ()))
    assert identity(resolved).keys() == {"kind", "key", "sha256"}
    with pytest.raises(Exception, match="in another order"):
        require_fit(resolved, EXAMPLES)


def test_a_dataset_that_is_drawn_for_each_seed_has_no_order(tmp_path):
    saved(tmp_path / "p.npy", soft())
    redrawn = Examples(replace(INFO, redrawn=True), ())
    assert "needs a fixed order of images" in refusal(tmp_path / "p.npy", redrawn)
