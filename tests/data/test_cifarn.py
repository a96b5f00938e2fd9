"""CIFAR-N: the published label files are read as they are.

Anything that would give an image the label of another one is refused.
"""

import pickle

import numpy as np
import pytest
import torch

from nlbench.data.datasets import cifar10n, cifar100n
from nlbench.data.formats import cifar_n
from nlbench.data.noise.label_files import labels_hash
from nlbench.data.noise.measure import noise_rate, transition_matrix
from nlbench.data.places import Places
from nlbench.errors import DataError, DataMissing
from nlbench.training.run_data import prepare


def write_labels(place, module, small, **change):
    """Write a plain pickle with every label set.

    Label set i is the clean labels + i. `change` replaces entries by their key in the file.
    """
    clean = small.train[1]
    content = {}
    for i, key in enumerate(module.LABELS.sets.values()):
        content[key] = (clean + i) % module.INFO.num_classes

    place.mkdir(parents=True, exist_ok=True)
    path = place / module.LABELS.file
    path.write_bytes(pickle.dumps({**content, **change}))
    return path


@pytest.fixture
def data(small10, tmp_path):
    """Return a folder that has the images and no labels."""
    small10.write_parquet(tmp_path / "data" / "cifar10")
    return tmp_path / "data"


@pytest.mark.parametrize("place", ["", "cifar-n"])
def test_label_sets_by_name(small10, data, tmp_path, place):
    write_labels(data / place, cifar10n, small10)
    dataset = cifar10n.load(Places(data, tmp_path / "cache"), 0)

    names = ["clean", "aggregate", "random1", "random2", "random3", "worst"]
    assert list(dataset.label_sets) == names

    for i, labels in enumerate(dataset.label_sets.values()):
        np.testing.assert_array_equal(labels, (small10.train[1] + i) % 10)
    assert any("CIFAR-10_human.pt" in warning for warning in dataset.warnings)


def test_cifar100n(small100, tmp_path):
    small100.write_batches(tmp_path)
    write_labels(tmp_path, cifar100n, small100)
    dataset = cifar100n.load(Places(tmp_path, tmp_path / "cache"), 0)
    assert tuple(dataset.label_sets) == ("clean", "noisy")
    assert noise_rate(dataset.clean_labels, dataset.label_sets["noisy"]) == 1


def test_everything_missing_is_reported_at_once(tmp_path):
    with pytest.raises(DataMissing) as caught:
        cifar10n.load(Places(tmp_path, tmp_path / "cache"), 0)
    files = ("cifar-10-python.tar.gz", "CIFAR-10_human.pt", "cifar-n")
    for word in (*files, "CC BY-NC", "nlbench data fetch cifar10n"):
        assert word in str(caught.value)


def test_only_the_labels_missing(data, tmp_path):
    found = cifar10n.find(data)
    assert found.needs == ("CIFAR-10_human.pt",)
    with pytest.raises(DataMissing) as caught:
        cifar10n.load(Places(data, tmp_path / "cache"), 0)
    assert "cifar-10-python.tar.gz (" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"worse_label": np.zeros(39, np.int64)}, ["worse_label", "39 labels", "40"]),
        ({"worse_label": np.full(40, 10)}, ["worse_label", "[0, 10)", "got 10"]),
        ({"aggre_label": np.full(40, -1)}, ["aggre_label", "got -1"]),
        ({"aggre_label": np.zeros(40)}, ["aggre_label", "integers", "float64"]),
        ({"aggre_label": "text"}, ["aggre_label", "integers"]),
        ({"clean_label": np.zeros((40, 1), np.int64)}, ["clean_label", "(40, 1)"]),
    ],
)
def test_wrong_labels_are_refused(small10, data, tmp_path, change, words):
    path = write_labels(data, cifar10n, small10, **change)
    with pytest.raises(DataError) as caught:
        cifar10n.load(Places(data, tmp_path / "cache"), 0)
    for word in (str(path), *words):
        assert word in str(caught.value)


def test_missing_label_set(small10, data, tmp_path):
    path = data / "CIFAR-10_human.pt"
    path.write_bytes(pickle.dumps({"clean_label": small10.train[1]}))
    with pytest.raises(DataError, match="no 'aggre_label', only 'clean_label'"):
        cifar10n.load(Places(data, tmp_path / "cache"), 0)


def test_wrong_image_order_is_refused(small10, data, tmp_path):
    clean = small10.train[1].copy()
    clean[[3, 4, 8]] = clean[[4, 8, 3]]
    write_labels(data, cifar10n, small10, clean_label=clean)
    message = r"differ from the images' labels in 3 of 40 places.*another order"
    with pytest.raises(DataError, match=message):
        cifar10n.load(Places(data, tmp_path / "cache"), 0)


def test_truncated_label_file(data, tmp_path):
    path = data / "CIFAR-10_human.pt"
    torch.save({"clean_label": np.arange(50_000)}, path)
    whole = path.read_bytes()
    overwritten = whole[:100_000] + bytes(1000) + whole[101_000:]

    for content in (b"", whole[:100_000], overwritten):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"CIFAR-10_human\.pt.*get (the file|it) again"):
            cifar10n.load(Places(data, tmp_path / "cache"), 0)


def test_a_web_page_in_place_of_the_labels_is_called_one(data, tmp_path):
    (data / "CIFAR-10_human.pt").write_text("<!DOCTYPE html><title>404</title>")
    with pytest.raises(DataError, match=r"CIFAR-10_human\.pt: is a web page"):
        cifar10n.load(Places(data, tmp_path / "cache"), 0)


def test_old_cifar100n_file_is_refused(small100, tmp_path):
    small100.write_batches(tmp_path)
    (tmp_path / "CIFAR-100_human.pt").write_bytes(bytes(1_600_879))
    with pytest.raises(DataError, match=r"wrong coarse labels.*corrected"):
        cifar100n.load(Places(tmp_path, tmp_path / "cache"), 0)


# --- the real files -------------------------------------------------------------------------------

# Hash and number of wrong labels of each label set, as measured on the published files.
CIFAR10N = {
    "clean": ("f5cfe00b0f00968c", 0),
    "aggregate": ("b3c3d486d22c3055", 4505),
    "random1": ("b5dc9007ae247a48", 8617),
    "random2": ("1182c45d3a246366", 9061),
    "random3": ("b51e116c617ded2c", 8820),
    "worst": ("a64d887522cf6d8f", 20104),
}


def test_real_cifar10n(real_cifar10n):
    assert real_cifar10n.warnings == ()

    clean = real_cifar10n.clean_labels
    measured = {}
    for name, labels in real_cifar10n.label_sets.items():
        measured[name] = (labels_hash(labels), int((labels != clean).sum()))

    assert measured == CIFAR10N
    assert noise_rate(clean, real_cifar10n.label_sets["worst"]) == 0.40208
    assert clean[:10].tolist() == [6, 9, 9, 4, 1, 1, 2, 7, 8, 3]
    assert real_cifar10n.label_sets["worst"][:10].tolist() == [4, 9, 0, 5, 1, 9, 2, 4, 8, 8]


def test_real_transition_matrix(real_cifar10n):
    # The published numbers have three digits.
    published = [0.650, 0.592, 0.632, 0.487, 0.488, 0.580, 0.594, 0.722, 0.683, 0.551]
    largest = {(9, 1): 0.282, (1, 9): 0.247, (3, 5): 0.206, (4, 7): 0.152}

    T = transition_matrix(real_cifar10n.clean_labels, real_cifar10n.label_sets["worst"], 10)

    np.testing.assert_allclose(T.diagonal(), published, atol=6e-4)
    for (i, j), share in largest.items():
        np.testing.assert_allclose(T[i, j], share, atol=6e-4)


def test_real_cifar100n_labels(real_data):
    """Read the labels alone: the images of CIFAR-100 are not among the real data."""
    path = real_data / "cifar-n" / "CIFAR-100_human.pt"
    label_sets = cifar_n._label_sets(path, cifar100n.LABELS, cifar100n.INFO)
    assert list(label_sets) == ["clean", "noisy"]
    assert labels_hash(label_sets["clean"]) == "8bf4935e7c77a309"
    assert labels_hash(label_sets["noisy"]) == "4a1efd5da7a214b2"
    assert noise_rate(label_sets["clean"], label_sets["noisy"]) == 0.402
    assert label_sets["noisy"][:10].tolist() == [19, 63, 10, 11, 1, 86, 90, 28, 23, 31]


def test_real_cifar10n_of_a_cpu_protocol(real_cifar10n):
    run = prepare(real_cifar10n, seed=0, labels="worst", subset=20_000, stratify="given")
    assert run.noise_rate_full == 0.40208
    assert run.num_train == 20_000
    assert abs(run.noise_rate_train - 0.40208) < 0.01

    # The protocol takes 0.4 of each class of given labels.
    whole = np.bincount(real_cifar10n.label_sets["worst"])
    assert (abs(np.bincount(run.labels) - 0.4 * whole) < 1).all()
