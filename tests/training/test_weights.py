"""Weights of final networks: saved beside the record, loaded, and used on images."""

import csv

import numpy as np
import pytest
import torch
from layouts import Folder
from sweeps import suite, sweep

import nlbench
from nlbench import api
from nlbench.data.datasets import digits
from nlbench.data.places import Places
from nlbench.errors import StoreError


@pytest.fixture
def birds(tmp_path, monkeypatch):
    monkeypatch.setenv("NLBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NLBENCH_WORKERS", "0")
    return Folder().write_csv(tmp_path / "birds", clean=False)


def on_images(out, place, methods):
    content = {
        "name": "t", "protocol": "images-32", "seeds": [0], "methods": methods,
        "datasets": [{"name": "folder", "path": str(place)}],
    }  # fmt: skip
    small = {"model": "cnn3", "precision": "float32", "batch_size": 8, "epochs": 2}
    return api.prepare(content, out=out, overrides=small, device="cpu")


def test_a_loaded_network_classifies_files_as_its_run_did(tmp_path, birds):
    sw = on_images(tmp_path / "out", birds, {"ce": {}})
    sw.run(save_weights=True)
    record = sw.store.read(sw.specs[0].key)
    assert record.status == "done", record.error

    trained = nlbench.load_weights(record.key[:6], out=tmp_path / "out")
    assert trained.test_accuracy == record.metrics["last"]
    with (birds / "test.csv").open(newline="") as file:
        paths = [birds / line["path"] for line in csv.DictReader(file)]
    probs = trained.probabilities(paths)

    assert probs.shape == (len(paths), 3)
    assert probs.sum(1) == pytest.approx(1)
    with np.load(sw.store.run_dir(record.key) / "predictions.npz") as file:
        assert (probs.argmax(1) == file["test"]).all()
        assert trained.class_names == tuple(file["class_names"])
    assert trained.probabilities([]).shape == (0, 3)


def test_a_dataset_in_memory_is_classified_as_an_array(tmp_path):
    sw = sweep(tmp_path / "out", {"dividemix": {}}, epochs=1)
    sw.run(save_weights=True)
    key = sw.specs[0].key
    trained = nlbench.load_weights(key, tmp_path / "out")

    assert len(trained.networks) == 2
    images = digits.load(Places(tmp_path, tmp_path), 0)
    found = trained.probabilities(images.test_images).argmax(1)
    assert trained.test_accuracy == pytest.approx((found == images.test_labels).mean())


def test_the_file_holds_plain_data_and_changes_no_result(tmp_path):
    runs = []
    for save in (True, False):
        sw = sweep(tmp_path / str(save), {"ce": {}}, epochs=1)
        sw.run(save_weights=save)
        runs.append((sw.store.run_dir(sw.specs[0].key), sw.store.read(sw.specs[0].key)))
    (saved, record), (without, other) = runs

    content = torch.load(saved / "weights.pt", weights_only=True)
    assert content["key"] == record.key
    assert not (without / "weights.pt").exists()
    assert record.metrics == other.metrics
    assert record.key == other.key


def test_what_cannot_be_loaded_says_why(tmp_path):
    out = tmp_path / "out"
    sw = sweep(out, {"ce": {}, "mae": {}}, epochs=1)
    sw.run()
    key = sw.specs[0].key
    with pytest.raises(StoreError, match="no weights of this run; train it with save_weights"):
        nlbench.load_weights(key, out)
    with pytest.raises(StoreError, match="key 'zz' begins no run"):
        nlbench.load_weights("zz", out)
    with pytest.raises(StoreError, match="key '' begins 2 runs"):
        nlbench.load_weights("", out)

    # The runs are done, so that they are not trained again.
    warnings = []
    again = api.prepare(
        suite({"ce": {}, "mae": {}}), out=out, overrides={"epochs": 1}, device="cpu",
        warn=warnings.append,
    )  # fmt: skip
    again.run(save_weights=True)
    assert any("2 runs were trained before without --save-weights" in line for line in warnings)


def test_weights_of_another_training_and_damaged_ones_are_refused(tmp_path):
    out = tmp_path / "out"
    sw = sweep(out, {"ce": {}}, epochs=1)
    sw.run(save_weights=True)
    path = sw.store.run_dir(sw.specs[0].key) / "weights.pt"

    content = torch.load(path, weights_only=True)
    torch.save({**content, "code": "0" * 16}, path)
    with pytest.raises(StoreError, match="not of the training that the record describes"):
        nlbench.load_weights(sw.specs[0].key, out)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(StoreError, match="not readable weights"):
        nlbench.load_weights(sw.specs[0].key, out)
