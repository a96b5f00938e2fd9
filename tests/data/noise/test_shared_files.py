"""Label files as their authors publish them: the same containers, names, types and order."""

import json
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch

from nlbench.data.datasets import cifar10
from nlbench.data.noise.examples import Examples
from nlbench.data.noise.resolve import apply, identity, require_fit, resolve, warnings_of
from nlbench.errors import DataError, SuiteError

N, C = 500, 10
INFO = replace(cifar10.INFO, num_train=N, num_test=100)
RNG = np.random.default_rng(0)
CLEAN = RNG.integers(0, C, N)
# Images in memory, as those of CIFAR-10, have no names.
EXAMPLES = Examples(INFO, (), clean=CLEAN)


def noisy(rate, clean=CLEAN):
    flipped = RNG.random(len(clean)) < rate
    return np.where(flipped, (clean + RNG.integers(1, C, len(clean))) % C, clean)


LABELS = noisy(0.35)


def read(path, examples=EXAMPLES, **more):
    """Return the labels that a run with this file trains on."""
    resolved = resolve({"kind": "file", "path": path.name, **more}, INFO, path.parent, examples)
    return apply(resolved, CLEAN, INFO, 0, examples=examples)


def refusal(path, examples=EXAMPLES, **more):
    with pytest.raises(SuiteError) as caught:
        read(path, examples, **more)
    return str(caught.value)


# ---- BadLabel ------------------------------------------------------------------------------------


def test_badlabel_is_a_json_list(tmp_path):
    """zjfheart/BadLabels, eval_badlabels/noise/badlabels_cifar10_r0.2.json."""
    path = tmp_path / "badlabels_cifar10_r0.2.json"
    path.write_text(json.dumps(LABELS.tolist()))
    np.testing.assert_array_equal(read(path), LABELS)
    # The folder in the Google Drive has the same labels as NumPy files.
    np.save(tmp_path / "training_noisy_labels.npy", LABELS)
    np.testing.assert_array_equal(read(tmp_path / "training_noisy_labels.npy"), LABELS)


def test_an_adversary_who_moves_whole_classes_is_refused_until_the_suite_says_so(tmp_path):
    """At 80% most images of a class may have one other label, as if classes were renumbered."""
    path = tmp_path / "badlabels_cifar10_r0.8.json"
    labels = np.where(RNG.random(N) < 0.8, (CLEAN + 1) % C, CLEAN)
    path.write_text(json.dumps(labels.tolist()))
    message = refusal(path)
    assert "as those of an adversary are, add `unrelated: true` to this noise" in message
    np.testing.assert_array_equal(read(path, unrelated=True), labels)


# ---- PMD, of the first 45,000 images -------------------------------------------------------------


def test_pmd_has_the_labels_of_the_first_images_alone(tmp_path):
    """pxiangwu/PLC, cifar/noisy_labels/cifar10-1-0.35.npy: 45,000 labels of the first images."""
    first = 9 * N // 10
    path = tmp_path / "cifar10-1-0.35.npy"
    np.save(path, LABELS[:first])

    message = refusal(path)
    assert f"{first} labels, it must have one for each of {N}" in message
    assert "`rest: clean` in this noise gives the others their true labels" in message

    expected = np.concatenate([LABELS[:first], CLEAN[first:]])
    np.testing.assert_array_equal(read(path, rest="clean"), expected)
    resolved = resolve({"kind": "file", "path": path.name, "rest": "clean"}, INFO, tmp_path)
    assert identity(resolved)["rest"] == "clean"
    (warning,) = warnings_of(resolved, EXAMPLES)
    assert f"ends after {first} labels, and the other {N - first} examples keep" in warning


def test_the_rest_is_no_way_out_for_other_images(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, np.roll(LABELS[:450], 7))
    # Before the dataset has been read its true labels are not known.
    resolved = resolve({"kind": "file", "path": "x.npy", "rest": "clean"}, INFO, tmp_path)
    with pytest.raises(DataError, match="as if they were of other images"):
        require_fit(resolved, EXAMPLES)
    np.save(path, np.concatenate([LABELS, LABELS[:1]]))
    assert f"{N + 1} labels, it must have one for each of {N}" in refusal(path, rest="clean")
    assert "must be clean, got 'noisy'" in refusal(path, rest="noisy")


def test_a_file_of_all_labels_has_the_key_that_it_had(tmp_path):
    np.save(tmp_path / "x.npy", LABELS)
    found = identity(resolve({"kind": "file", "path": "x.npy"}, INFO, tmp_path))
    assert found.keys() == {"kind", "key", "sha256"}


# ---- IDN -----------------------------------------------------------------------------------------


def write_idn(path, truth, labels):
    lines = [f"{true},{label}" for true, label in zip(truth, labels, strict=True)]
    path.write_text("\n".join(["label,label_noisy", *lines, ""]))
    return path


def test_idn_has_the_true_labels_beside_the_noisy_ones(tmp_path):
    """chenpf1025/IDN, data/CIFAR10/label_noisy/dependent0.2.csv, and the idn_*.csv of BadLabels."""
    path = write_idn(tmp_path / "dependent0.2.csv", CLEAN, LABELS)
    np.testing.assert_array_equal(read(path), LABELS)


def test_true_labels_in_a_file_show_rows_in_another_order(tmp_path):
    """One data batch in the place of another leaves 60% of all rows where they belong."""
    order = np.concatenate([np.arange(300), np.arange(400, 500), np.arange(300, 400)])
    path = write_idn(tmp_path / "x.csv", CLEAN[order], LABELS[order])
    message = refusal(path)
    share = 100 * (CLEAN[order] != CLEAN).mean()
    first = int(np.flatnonzero(CLEAN[order] != CLEAN)[0])
    assert f"x.csv: {share:.2f}% of the true labels in its 'label' are others" in message
    assert f"at position {first}: {CLEAN[order][first]}, and not {CLEAN[first]}" in message
    assert "a column 'index' or 'path'" in message
    np.testing.assert_array_equal(read(path, unrelated=True), LABELS[order])


def test_a_few_other_true_labels_are_told(tmp_path):
    """Datasets are corrected later."""
    truth = CLEAN.copy()
    truth[:5] = (truth[:5] + 1) % C
    path = write_idn(tmp_path / "x.csv", truth, LABELS)
    np.testing.assert_array_equal(read(path), LABELS)
    words = warnings_of(resolve({"kind": "file", "path": "x.csv"}, INFO, tmp_path), EXAMPLES)
    assert any("1.00% of the true labels in its 'label' are others" in word for word in words)


# ---- CAL -----------------------------------------------------------------------------------------


def write_cal(path, truth=CLEAN, labels=LABELS, old=True):
    saved = {
        "clean_label_train": torch.from_numpy(truth),
        "noise_label_train": torch.from_numpy(labels),
    }
    torch.save(saved, path, _use_new_zipfile_serialization=not old)
    return path


@pytest.mark.parametrize("old", [True, False], ids=["before torch 1.6", "since then"])
def test_cal_has_two_tensors_by_name(tmp_path, old):
    """UCSC-REAL/CAL, noise_label/IDN_0.2_C10.pt. Its code asks for torch 1.4."""
    path = write_cal(tmp_path / "IDN_0.2_C10.pt", old=old)
    np.testing.assert_array_equal(read(path, key="noise_label_train"), LABELS)
    assert "set key to one of: clean_label_train, noise_label_train" in refusal(path)
    assert "Did you mean 'noise_label_train'?" in refusal(path, key="noisy_label_train")


def test_cal_in_another_order_is_refused_by_its_true_labels(tmp_path):
    path = write_cal(tmp_path / "x.pt", np.roll(CLEAN, 1), np.roll(LABELS, 1))
    message = refusal(path, key="noise_label_train")
    assert "true labels in its 'clean_label_train' are others" in message


# ---- Cluster-based noise -------------------------------------------------------------------------


def write_cluster(path, order=None, labels=LABELS):
    order = np.arange(N) if order is None else order
    lines = [",sample_id,filename,given_label,noisy_label"]
    for row, i in enumerate(order):
        name = f"leptodactylus_pentadactylus_s_{int(CLEAN[i]):02}{i:04}.png"
        lines.append(f"{row},{i},{name},{CLEAN[i]},{labels[i]}")
    path.write_text("\n".join(lines))
    return path


def test_cluster_noise_has_names_that_cifar_has_not(tmp_path):
    """gordon-lim/soft-neighbor-labels, label_noise/cifar10-cluster-0.35.csv and .npy."""
    path = write_cluster(tmp_path / "cifar10-cluster-0.35.csv")
    np.testing.assert_array_equal(read(path, key="noisy_label"), LABELS)
    # Its `given_label` are those of CIFAR-10 itself, so that somebody has to say which are meant.
    assert "'given_label', 'noisy_label' may all be labels" in refusal(path)


def test_names_that_the_images_have_still_order_the_rows(tmp_path):
    order = RNG.permutation(N)
    path = write_cluster(tmp_path / "x.csv", order)
    names = tuple(f"leptodactylus_pentadactylus_s_{CLEAN[i]:02}{i:04}.png" for i in range(N))
    # Without the columns that count the rows.
    text = [",".join(line.split(",")[2:]) for line in path.read_text().split("\n")]
    path.write_text("\n".join(text))
    known = Examples(INFO, names, clean=CLEAN)
    np.testing.assert_array_equal(read(path, known, key="noisy_label"), LABELS)
    # Where images have no names, they alone are not enough.
    assert "replace it by a column 'index'" in refusal(path, key="noisy_label")


# ---- Noisy Imagenette ----------------------------------------------------------------------------

WORDNET = ("n01440764", "n02102040", "n02979186")


def imagenette():
    """Return the lines of noisy_imagenette.csv, training and validation images, and the truth."""
    lines, names, truth = [], [], []
    for c, name in enumerate(WORDNET):
        for i in range(20):
            other = WORDNET[(c + 1) % 3] if i % 4 == 0 else name
            file = f"train/{name}/{name}_{i * 7}.JPEG"
            lines.append(f"{file},{name},{name},{name},{name},{other},False")
            names.append(file)
            truth.append(c)
        for i in range(5):
            file = f"val/{name}/{name}_{i * 7 + 1}.JPEG"
            lines.append(f"{file},{name},{name},{name},{name},{name},True")
    head = ",".join(f"noisy_labels_{rate}" for rate in (0, 1, 5, 25, 50))
    return [f"path,{head},is_valid", *lines], tuple(names), np.array(truth)


def test_imagenette_has_validation_rows_and_names_of_classes(tmp_path):
    """fastai/imagenette, noisy_imagenette.csv: all images, and five rates of noise."""
    lines, names, truth = imagenette()
    path = tmp_path / "noisy_imagenette.csv"
    path.write_text("\n".join(lines))
    info = replace(INFO, num_train=60, num_test=15, num_classes=3, class_names=WORDNET, shape=())
    order = RNG.permutation(60)
    examples = Examples(info, tuple(names[i] for i in order), clean=truth[order])

    resolved = resolve(
        {"kind": "file", "path": path.name, "key": "noisy_labels_50"}, info, tmp_path, examples
    )
    labels = apply(resolved, truth[order], info, 0, examples=examples)
    wrong = np.arange(60) % 20 % 4 == 0
    np.testing.assert_array_equal(labels != truth[order], wrong[order])

    # Without the column nothing says that the rows of other images are meant to be there.
    path.write_text("\n".join(line.rpartition(",")[0] for line in lines))
    with pytest.raises(SuiteError, match="no training image is called so"):
        resolve(
            {"kind": "file", "path": path.name, "key": "noisy_labels_50"}, info, tmp_path, examples
        )


# ---- Containers of all kinds ---------------------------------------------------------------------


def pickled(path, value):
    path.write_bytes(pickle.dumps(value))
    return path


@pytest.mark.parametrize(
    ("content", "key"),
    [
        ((LABELS, CLEAN), "0"),
        ([CLEAN.tolist(), LABELS.tolist()], "1"),
        ({i: int(label) for i, label in enumerate(LABELS)}, ""),
        ({i: LABELS[i] for i in reversed(range(N))}, ""),
        ([[int(label)] for label in LABELS], ""),
        (LABELS[:, None], ""),
        (LABELS[None], ""),
        (LABELS.astype(np.float32), ""),
        (LABELS.astype(np.uint8), ""),
    ],
    ids=[
        "a tuple of arrays",
        "a list of lists",
        "a mapping from the index",
        "NumPy's numbers in a mapping",
        "lists of one",
        "(N, 1)",
        "(1, N)",
        "floats",
        "bytes",
    ],
)
def test_pickles_hold_labels_in_many_ways(tmp_path, content, key):
    np.testing.assert_array_equal(read(pickled(tmp_path / "x.pkl", content), key=key), LABELS)


def test_tensors_hold_labels_in_many_ways(tmp_path):
    labels = torch.from_numpy(LABELS)
    for content in (labels, labels.float(), labels[:, None].clone(), labels.int()):
        torch.save(content, tmp_path / "x.pt")
        np.testing.assert_array_equal(read(tmp_path / "x.pt"), LABELS)
    torch.save({i: labels[i].clone() for i in range(N)}, tmp_path / "x.pt")
    np.testing.assert_array_equal(read(tmp_path / "x.pt"), LABELS)


def test_numpy_saves_a_mapping_as_one_object(tmp_path):
    """UCSC-REAL/cifar-10-100n, data/CIFAR-10_human.npy."""
    saved = {"clean_label": CLEAN, "worse_label": LABELS, "aggre_label": noisy(0.1)}
    np.save(tmp_path / "CIFAR-10_human.npy", saved, allow_pickle=True)
    np.testing.assert_array_equal(read(tmp_path / "CIFAR-10_human.npy", key="worse_label"), LABELS)


def test_several_arrays_without_a_key_are_listed(tmp_path):
    path = pickled(tmp_path / "x.pkl", (LABELS, CLEAN))
    assert "holds labels by name; set key to one of: 0, 1." in refusal(path)


def test_other_shapes_lead_to_the_kinds_that_read_them(tmp_path):
    np.save(tmp_path / "p.npy", np.full((N, C), 0.1))
    assert "{kind: soft-labels, path: ...}" in refusal(tmp_path / "p.npy")
    np.save(tmp_path / "a.npy", np.stack([LABELS, LABELS, CLEAN], axis=1))
    assert "{kind: annotators, path: ...} or {kind: vote, path: ...}" in refusal(tmp_path / "a.npy")
    assert "are the classes numbered from 1? Subtract 1" in refusal(one_based(tmp_path / "o.npy"))


def one_based(path):
    np.save(path, LABELS + 1)
    return path
