"""What is kept of each training example, and signs that a training did not work."""

import math

import numpy as np
import pytest
import torch
from layouts import Folder
from sweeps import method_file, sweep
from torch.nn import functional

from nlbench import api
from nlbench.method import Batch
from nlbench.results import table
from nlbench.training.examples import GivenLosses
from nlbench.training.signs import is_one_class, signs_of


@pytest.fixture
def birds(tmp_path, monkeypatch):
    """Return the place of a folder of images whose true labels nobody knows."""
    monkeypatch.setenv("NLBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NLBENCH_WORKERS", "0")
    return Folder().write_csv(tmp_path / "birds", clean=False)


def on_images(out, place, methods, **overrides):
    suite = {
        "name": "t", "protocol": "images-32", "datasets": [{"name": "folder", "path": str(place)}],
        "methods": methods, "seeds": [0],
    }  # fmt: skip
    small = {"model": "cnn3", "precision": "float32", "batch_size": 8, "epochs": 2}
    return api.prepare(suite, out=out, overrides={**small, **overrides}, device="cpu")


def arrays(sw, row):
    """Return the arrays of predictions.npz of the run of a row."""
    spec = next(spec for spec in sw.specs if spec.row == row)
    assert sw.store.read(spec.key).status == "done"
    with np.load(sw.store.run_dir(spec.key) / "predictions.npz") as file:
        return {name: file[name] for name in file.files}


# ---- The arrays ----------------------------------------------------------------------------------


def test_every_training_image_of_a_folder_is_kept_by_its_name(tmp_path, birds):
    sw = on_images(tmp_path / "out", birds, {"ce": {}, "elr": {}})
    sw.run()
    kept = arrays(sw, "ce")

    lines = (birds / "train.csv").read_text().splitlines()[1:]
    listed = dict(line.strip('"').split('","') for line in lines)
    assert len(kept["names"]) == 27
    for name, label in zip(kept["names"], kept["labels"], strict=True):
        assert listed[name] == kept["class_names"][label]

    for name in ("train", "train_prob", "train_loss"):
        assert kept[name].shape == (27,)
    assert ((kept["train_prob"] >= 0) & (kept["train_prob"] <= 1)).all()
    # An image that is predicted as labelled has at least a third of the probability on its label.
    agrees = kept["train"] == kept["labels"]
    assert (kept["train_prob"][agrees] > 1 / 3).all()
    assert (kept["train_prob"][~agrees] <= 0.5).all()
    assert np.isfinite(kept["train_loss"]).all()


def test_images_in_memory_have_no_names_and_a_step_without_logits_has_no_loss(tmp_path):
    sw = sweep(tmp_path, {"ce": {}, "mixup": {}}, epochs=1)
    sw.run()
    assert {"train", "train_prob", "train_loss"} <= arrays(sw, "ce").keys()
    assert "names" not in arrays(sw, "ce")
    assert "train_prob" in arrays(sw, "mixup")
    assert "train_loss" not in arrays(sw, "mixup")


def test_the_mean_loss_by_hand():
    labels = torch.tensor([0, 1, 1])
    losses = GivenLosses(labels)
    seen = torch.tensor([[2.0, 0.0], [1.0, 3.0]])
    for index in (torch.tensor([0, 1]), torch.tensor([1, 0])):
        losses.add(seen, Batch(torch.empty(0), labels[index], index, lambda index, k: index))

    first = functional.cross_entropy(seen, labels[[0, 1]], reduction="none")
    second = functional.cross_entropy(seen, labels[[1, 0]], reduction="none")
    expected = [float(first[0] + second[1]) / 2, float(first[1] + second[0]) / 2]
    assert losses.mean()[:2] == pytest.approx(expected)
    assert math.isnan(losses.mean()[2])


def test_a_checkpoint_holds_the_losses():
    labels = torch.tensor([0, 1])
    losses, other = GivenLosses(labels), GivenLosses(labels)
    assert losses.mean() is None
    index = torch.tensor([1])
    batch = Batch(torch.empty(0), labels[index], index, lambda index, k: index)
    losses.add(torch.tensor([[0.0, 1.0]]), batch)
    other.load_state_dict(losses.state_dict())
    assert np.array_equal(other.mean(), losses.mean(), equal_nan=True)


# ---- Signs ---------------------------------------------------------------------------------------

ONE_CLASS = """
    class One(Method):
        def loss(self, logits, batch):
            return F.cross_entropy(logits, batch.labels)

        def predict(self, run, images):
            logits = run.networks[0](images)
            # From the second epoch on class 3 wins, whatever the network says.
            return logits + 1e4 * (run.epoch > 0) * F.one_hot(torch.tensor(3), 10)
"""
NO_LOSS = """
    class Still(Method):
        def loss(self, logits, batch):
            return 0 * F.cross_entropy(logits, batch.labels)
"""


def test_a_run_that_predicts_one_class_is_marked_and_nothing_else_is(tmp_path):
    place = method_file(tmp_path / "m", "one", ONE_CLASS)
    sw = sweep(tmp_path / "out", {"ce": {}, "one": {}}, methods_dir=place, epochs=3)
    sw.run()
    found = {spec.row: sw.store.read(spec.key) for spec in sw.specs}

    assert found["one"].method["signs"] == ["one-class"]
    assert "training: it predicts one class for all test images" in found["one"].warnings
    assert "signs" not in found["ce"].method

    text = table.render(sw.plan.as_json(), sw.store, methods=sw.methods)
    assert "- § one on Digits symmetric 0.4: 1 of 1 run predicts one class only after" in text
    line = next(line for line in text.splitlines() if line.startswith("| one"))
    assert f"{100 * found['one'].metrics['last']:.2f}§" in line
    assert "§" not in next(line for line in text.splitlines() if line.startswith("| ce"))


def test_a_run_that_never_trained_is_marked(tmp_path):
    place = method_file(tmp_path / "m", "still", NO_LOSS)
    sw = sweep(tmp_path / "out", {"still": {}}, methods_dir=place, epochs=2)
    sw.run()
    assert "constant-loss" in sw.store.read(sw.specs[0].key).method["signs"]


def history(*losses, accuracy=0.9):
    return [{"loss": loss, "test_accuracy": accuracy} for loss in losses]


LABELS = torch.tensor([0, 0, 1, 2])
RIGHT = functional.one_hot(LABELS, 3).float()
WRONG = functional.one_hot((LABELS + 1) % 3, 3).float()
NAN = torch.where(torch.arange(4)[:, None] == 1, math.nan, RIGHT)


@pytest.mark.parametrize(
    ("epochs", "one_class", "logits", "expected"),
    [
        (history(2.0, 1.0), [False, False], RIGHT, []),
        (history(2.0, 1.0), [True, False], RIGHT, []),
        (history(2.0, 1.0), [False, True], RIGHT, ["one-class"]),
        (history(3.0, 2.0, 1.0), [True, True, False], RIGHT, ["mostly-one-class"]),
        (history(1.0, 1.0), [False, False], RIGHT, ["constant-loss"]),
        (history(1.0), [False], RIGHT, []),
        (history(0.0), [False], RIGHT, ["constant-loss"]),
        # Neither may be at chance alone: much noise hides what was learned from one of them.
        (history(2.0, 1.0, accuracy=0.5), [False, False], WRONG, ["never-learned"]),
        (history(2.0, 1.0, accuracy=0.6), [False, False], WRONG, []),
        (history(2.0, 1.0, accuracy=0.5), [False, False], RIGHT, []),
        (history(2.0, 1.0, accuracy=0.5), [False, True], WRONG, ["one-class"]),
        (history(2.0, 1.0), [False, False], NAN, ["not-finite"]),
        (history(2.0, 1.0, accuracy=0.1), [False, False], None, []),
    ],
)
def test_signs_by_hand(epochs, one_class, logits, expected):
    assert list(signs_of(epochs, one_class, LABELS, LABELS, logits)) == expected


def test_one_class_of_a_test_set_that_has_only_one_is_no_sign():
    assert is_one_class(torch.tensor([1, 1]), torch.tensor([1, 0]))
    assert not is_one_class(torch.tensor([1, 1]), torch.tensor([1, 1]))
    assert not is_one_class(torch.tensor([1, 0]), torch.tensor([1, 0]))
