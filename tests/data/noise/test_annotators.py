"""Labels of several annotators: one of them at random, or all combined."""

import json
import re
import sys
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from nlbench.data.datasets import cifar10
from nlbench.data.noise.examples import Examples
from nlbench.data.noise.kinds import KINDS
from nlbench.data.noise.resolve import apply, resolve
from nlbench.errors import DataError, SuiteError

N, C, A = 300, 10, 3
INFO = replace(cifar10.INFO, num_train=N, num_test=100)
CLEAN = np.arange(N) % C
EXAMPLES = Examples(INFO, (), clean=CLEAN)
COLUMNS = ("random_label1", "random_label2", "random_label3")


def given(missing=0.0, seed=0):
    """Return the labels (N, A) of three annotators, -1 where one gave none."""
    rng = np.random.default_rng(seed)
    labels = np.where(rng.random((N, A)) < 0.3, rng.integers(0, C, (N, A)), CLEAN[:, None])
    gone = rng.random((N, A)) < missing
    gone[np.arange(N), rng.integers(0, A, N)] = False
    return np.where(gone, -1, labels)


LABELS, HOLES = given(), given(missing=0.5)


def drawn(path, kind="annotators", seed=0, examples=EXAMPLES, **more):
    noise = {"kind": kind, "path": path.name, **more}
    resolved = resolve(noise, examples.info, path.parent, examples)
    return apply(resolved, CLEAN, examples.info, seed, examples=examples)


def refusal(path, **more):
    with pytest.raises(SuiteError) as caught:
        drawn(path, **more)
    return str(caught.value)


def saved(path, array):
    np.save(path, array)
    return path


def majority(labels):
    """Count by hand. Of labels that occur equally often, Counter gives the first."""
    found = []
    for row in labels.tolist():
        found.append(Counter(label for label in row if label >= 0).most_common(1)[0][0])
    return np.array(found)


# ---- One annotator -------------------------------------------------------------------------------


@pytest.mark.parametrize("labels", [LABELS, HOLES], ids=["all", "with holes"])
def test_every_label_that_was_given_is_equally_likely(tmp_path, labels):
    path = saved(tmp_path / "a.npy", labels)
    draws = np.stack([drawn(path, seed=seed) for seed in range(300)])

    expected = np.zeros((N, C))
    for i, row in enumerate(labels):
        there = row[row >= 0]
        for label in there:
            expected[i, label] += 1 / len(there)
    shares = np.stack([(draws == c).mean(0) for c in range(C)], axis=1)
    # Of 300 draws each share has a standard deviation of at most 0.029.
    assert abs(shares - expected).max() < 0.15
    assert (shares[expected == 0] == 0).all()
    assert abs((shares - expected).mean(0)).max() < 0.01


def test_a_seed_takes_the_same_annotators_and_another_one_others(tmp_path):
    path = saved(tmp_path / "a.npy", LABELS)
    np.testing.assert_array_equal(drawn(path, seed=1), drawn(path, seed=1))
    assert not np.array_equal(drawn(path, seed=1), drawn(path, seed=2))
    assert KINDS["annotators"].redrawn
    assert not KINDS["vote"].redrawn


# ---- Votes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("labels", [LABELS, HOLES], ids=["all", "with holes"])
def test_the_majority_is_counted_and_the_first_of_equals_is_taken(tmp_path, labels):
    path = saved(tmp_path / "a.npy", labels)
    for seed in (0, 1):
        np.testing.assert_array_equal(drawn(path, "vote", seed), majority(labels))


def test_dawid_and_skene_weigh_an_annotator_who_is_always_right(tmp_path):
    """Two of four annotators guess, and the model finds out whom to trust."""
    pytest.importorskip("crowdkit", reason="needs nlbench[crowd]")
    rng = np.random.default_rng(0)
    guesses = rng.integers(0, C, (N, 2))
    labels = np.stack([guesses[:, 0], CLEAN, CLEAN, guesses[:, 1]], axis=1)
    path = saved(tmp_path / "a.npy", labels)
    np.testing.assert_array_equal(drawn(path, "vote", by="dawid-skene"), CLEAN)


def test_dawid_and_skene_without_crowd_kit_say_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "crowdkit", None)
    path = saved(tmp_path / "a.npy", LABELS)
    assert "pip install 'nlbench[crowd]'" in refusal(path, kind="vote", by="dawid-skene")
    # All else does without.
    drawn(path, "vote")


def test_an_unknown_way_to_combine_gets_a_hint(tmp_path):
    path = saved(tmp_path / "a.npy", LABELS)
    message = refusal(path, kind="vote", by="dawid_skene")
    assert "must be majority or dawid-skene" in message
    assert "Did you mean 'dawid-skene'?" in message


# ---- Formats -------------------------------------------------------------------------------------


def write_csv(path, labels, order=None):
    order = np.arange(N) if order is None else order
    lines = ["index,clean_label,worker_a,worker_b,worker_c"]
    for i in order:
        cells = ["" if label < 0 else str(label) for label in labels[i]]
        lines.append(",".join([str(i), str(CLEAN[i]), *cells]))
    path.write_text("\n".join(lines))
    return path


@pytest.mark.parametrize("kind", ["annotators", "vote"])
def test_all_forms_of_a_file_give_the_same_labels(tmp_path, kind):
    expected = drawn(saved(tmp_path / "a.npy", HOLES), kind)
    floats = np.where(HOLES < 0, np.nan, HOLES)
    by_name = {name: HOLES[:, a] for a, name in enumerate(COLUMNS)}
    lists = [[label if label >= 0 else None for label in row] for row in HOLES.tolist()]
    by_image = {str(i): lists[i] for i in np.random.default_rng(0).permutation(N)}

    np.savez(tmp_path / "a.npz", clean_label=CLEAN, **by_name)
    np.save(tmp_path / "names.npy", {"clean_label": CLEAN, **by_name}, allow_pickle=True)
    (tmp_path / "lists.json").write_text(json.dumps(lists))
    (tmp_path / "by_image.json").write_text(json.dumps(by_image))
    write_csv(tmp_path / "a.csv", HOLES, np.random.default_rng(1).permutation(N))

    for path, key in (
        (saved(tmp_path / "floats.npy", floats), ""),
        (tmp_path / "a.npz", "random_label*"),
        (tmp_path / "names.npy", "random_label1, random_label2,random_label3"),
        (tmp_path / "lists.json", ""),
        (tmp_path / "by_image.json", ""),
        (tmp_path / "a.csv", "worker_*"),
    ):
        np.testing.assert_array_equal(drawn(path, kind, key=key), expected, err_msg=path.name)


def test_lists_without_the_missing_labels_are_read_too(tmp_path):
    lists = [[label for label in row if label >= 0] for row in HOLES.tolist()]
    path = tmp_path / "lists.json"
    path.write_text(json.dumps(lists))
    np.testing.assert_array_equal(drawn(path, "vote"), majority(HOLES))


def test_lists_of_different_lengths_do_not_tell_annotators_apart(tmp_path):
    path = tmp_path / "lists.json"
    path.write_text(json.dumps([[label for label in row if label >= 0] for row in HOLES.tolist()]))
    message = refusal(path, kind="vote", by="dawid-skene")
    assert "do not say which annotator gave which label" in message
    assert "by: majority" in message


# ---- What is refused -----------------------------------------------------------------------------


def changed(row, values):
    labels = LABELS.copy()
    labels[row] = values
    return labels


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (LABELS[:100], "100 rows of labels, it must have one for each of 300 training examples"),
        (
            LABELS[:280],
            r"280 rows of labels.*validation part .* all of them\. Add rows for the other 20, for "
            "example with their true labels$",
        ),
        (LABELS.T, r"a row for each annotator; save array\.T, of shape \(N, A\)"),
        (LABELS[:, 0], r"must have the shape \(N, A\).*kind: file"),
        (
            changed(5, [1, 2, 10]),
            r"in \[0, 10\), got 10 at position 5, annotator 2; does the file have",
        ),
        (LABELS + 1, r"got 10 at position .*numbered from 1\? Subtract 1"),
        (changed(5, -1), "no annotator gave a label to the example at position 5; every"),
        (changed(5, -7), "got -7 at position 5, annotator 0"),
        (LABELS * 0.5, "labels must be integers"),
        (np.roll(LABELS, 1, axis=0), "as if the classes were in another order.*unrelated: true"),
    ],
)
@pytest.mark.parametrize("kind", ["annotators", "vote"])
def test_arrays_that_do_not_fit_are_refused(tmp_path, labels, words, kind):
    message = refusal(saved(tmp_path / "a.npy", labels), kind=kind)
    assert re.search(words, message), message
    assert "a.npy" in message


def test_the_key_must_name_several_columns_of_the_file(tmp_path):
    path = write_csv(tmp_path / "a.csv", LABELS)
    assert "set key to those of the annotators" in refusal(path)
    assert "It has: index, clean_label, worker_a" in refusal(path)
    assert "the key 'worker_a' names one annotator" in refusal(path, key="worker_a")
    message = refusal(path, key="worker_a, workerb")
    assert "has no 'workerb'" in message
    assert "Did you mean 'worker_b'?" in message


def test_a_cell_that_is_no_class_names_its_line(tmp_path):
    path = write_csv(tmp_path / "a.csv", LABELS)
    lines = path.read_text().split("\n")
    lines[4] = "3,3,3,cat,3"
    path.write_text("\n".join(lines))
    assert "a.csv:5: worker_b must be an integer, got 'cat'" in refusal(path, key="worker_*")


def test_an_adversary_may_be_unrelated(tmp_path):
    path = saved(tmp_path / "a.npy", np.roll(LABELS, 1, axis=0))
    assert (drawn(path, "vote", unrelated=True) != CLEAN).mean() > 0.5


def test_a_file_that_has_changed_is_refused(tmp_path):
    path = saved(tmp_path / "a.npy", LABELS)
    resolved = resolve({"kind": "vote", "path": "a.npy"}, INFO, tmp_path, EXAMPLES)
    saved(path, HOLES)
    with pytest.raises(DataError, match="has changed since the suite was read"):
        apply(resolved, CLEAN, INFO, 0, examples=EXAMPLES)
