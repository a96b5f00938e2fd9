"""The presets vit-finetune and linear-probe, with a small transformer on a folder of pictures."""

import json

import pytest
import torch
from layouts import Folder
from sweeps import history

from nlbench import api
from nlbench.plan.protocol import resolve
from nlbench.training.weights import load_trained

timm = pytest.importorskip("timm")
hub = pytest.importorskip("timm.models")
pytest.importorskip("safetensors.torch")

# For CPUs and images of 16 pixels.
SMALL = {"precision": "float32", "batch_size": 8, "epochs": 2, "crop": 16, "resize": 18}
VIT = {"model": "timm/test_vit", "model_args": {"img_size": 16, "patch_size": 4}}
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def birds(tmp_path, monkeypatch):
    monkeypatch.setenv("NLBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NLBENCH_WORKERS", "0")
    return Folder().write_csv(tmp_path / "birds")


def prepared(out, place, methods=None, **overrides):
    suite = {
        "name": "t",
        "protocol": "vit-finetune",
        "datasets": [{"name": "folder", "path": str(place)}],
        "methods": methods or {"ce": {}},
        "seeds": [0],
    }
    return api.prepare(suite, out=out, overrides={**SMALL, **overrides}, device="cpu")


def record_of(sw):
    assert sw.failures() == []
    (spec,) = sw.specs
    return sw.store.read(spec.key)


def saved(folder, **cfg):
    torch.manual_seed(0)
    model = timm.create_model("test_vit", num_classes=7, **VIT["model_args"])
    model.pretrained_cfg |= {"input_size": (3, 16, 16), **cfg}
    hub.save_for_hf(model, str(folder), model_args=VIT["model_args"], safe_serialization=True)
    return folder


def test_a_transformer_trains_on_pictures_with_ce_and_elr(tmp_path, birds):
    drawn = {"weights": "", "preprocess": "dataset"}
    sw = prepared(tmp_path / "out", birds, {"ce": {}, "elr": {}}, **VIT, **drawn)
    sw.run()
    assert sw.failures() == []
    for spec in sw.specs:
        assert sw.store.read(spec.key).status == "done"
        assert len(history(sw.store, spec.key)) == 2
        identity = spec.identity()["protocol"]
        assert (identity["optimiser"], identity["layer_decay"]) == ("adamw", 0.75)
        # The preset's warm-up is meant for its 30 epochs.
        assert identity["schedule"]["warmup"] == pytest.approx(5 * 2 / 30)
        assert identity["model_args"] == VIT["model_args"]


def test_a_folder_of_timm_is_fine_tuned_with_its_own_preprocessing(tmp_path, birds):
    folder = saved(tmp_path / "mine", mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.25), crop_pct=0.8)
    options = {"model": f"local-dir:{folder}", "model_args": {}, "crop": 0, "resize": 0}
    sw = prepared(tmp_path / "out", birds, **options)
    sw.run(save_weights=True)

    record = record_of(sw)
    protocol = record.spec["protocol"]
    assert (protocol["model"], protocol["weights"][:7]) == ("timm/test_vit", "sha256:")
    assert (protocol["mean"], protocol["std"]) == ([0.4, 0.5, 0.6], [0.2, 0.3, 0.25])
    assert (protocol["crop"], protocol["resize"]) == (16, 20)
    assert str(tmp_path) not in json.dumps(record.spec)
    assert record.environment["weights"] == protocol["weights"]

    # The saved network classifies as it was trained.
    trained = load_trained(sw.store, sw.specs[0].key)
    assert trained._info.mean == (0.4, 0.5, 0.6)
    picture = next(birds.rglob("*.jp*g"))
    assert trained.probabilities([picture]).sum() == pytest.approx(1)


def test_other_weights_in_a_folder_are_another_run(tmp_path, birds):
    folder = saved(tmp_path / "mine")
    options = {"model": f"local-dir:{folder}", "model_args": {}}
    first = prepared(tmp_path / "out", birds, **options).specs[0].key
    moved = folder.rename(tmp_path / "moved")
    again = prepared(tmp_path / "out", birds, **{**options, "model": f"local-dir:{moved}"})
    assert again.specs[0].key == first

    weights = timm.create_model("test_vit", num_classes=7, **VIT["model_args"]).state_dict()
    (moved / "model.safetensors").unlink()
    torch.save(weights, moved / "pytorch_model.bin")
    other = prepared(tmp_path / "out", birds, **{**options, "model": f"local-dir:{moved}"})
    assert other.specs[0].key != first


def test_a_record_names_the_commit_of_a_model_from_the_hub(tmp_path, birds, monkeypatch):
    place = tmp_path / "hub" / "models--me--mine"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text(COMMIT)
    saved(place / "snapshots" / COMMIT)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))

    sw = prepared(tmp_path / "out", birds, model="hf-hub:me/mine", model_args={})
    sw.run()
    record = record_of(sw)
    assert record.environment["weights"] == f"hf-hub:me/mine@{COMMIT}"
    assert record.spec["protocol"]["weights"].startswith("sha256:")


def test_a_mean_of_the_protocol_is_used_in_training_and_in_tests(tmp_path, birds):
    options = {**VIT, "weights": "", "preprocess": "dataset"}
    plain = prepared(tmp_path / "out", birds, **options)
    # What folders have without one: those of ImageNet.
    same = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
    named = prepared(tmp_path / "out", birds, **options, **same)
    other = prepared(tmp_path / "out", birds, **options, mean=[0.1] * 3, std=[0.9] * 3)
    found = []
    for sw in (plain, named, other):
        sw.run()
        record_of(sw)
        found.append(history(sw.store, sw.specs[0].key))
    assert found[0] == found[1]
    assert found[0][0]["loss"] != found[2][0]["loss"]
    assert len({sw.specs[0].key for sw in (plain, named, other)}) == 3


def test_linear_probe_trains_on_features(tmp_path):
    suite = {
        "name": "t",
        "protocol": "linear-probe",
        "datasets": [{"name": "digits"}],
        "methods": {"ce": {}},
        "seeds": [0],
    }
    sw = api.prepare(suite, out=tmp_path, device="cpu", overrides={"epochs": 9})
    sw.run()
    record_of(sw)
    assert resolve("linear-probe", "digits").schedule.warmup == 10
    assert sw.specs[0].protocol.schedule.warmup == 1
    assert float(history(sw.store, sw.specs[0].key)[-1]["test_accuracy"]) > 0.9
