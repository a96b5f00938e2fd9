"""`hf-hub:`, `local-dir:`, tags of timm, and the preprocessing of published weights."""

import json
import pickle
import socket

import pytest
import torch

from nlbench import api, models
from nlbench.data import catalogue
from nlbench.data.base import Info
from nlbench.errors import SuiteError
from nlbench.plan.protocol import resolve
from nlbench.plan.references import followed

timm = pytest.importorskip("timm")
hub = pytest.importorskip("timm.models")
safetensors = pytest.importorskip("safetensors.torch")

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = Info(name="folder:x", title="X", num_classes=3, num_train=0, num_test=0, shape=())
CIFAR = catalogue.dataset("cifar10").INFO
DIGITS = catalogue.dataset("digits").INFO


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError("no network in a test")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture
def saved(tmp_path):
    """Return a folder that timm has written, of a small transformer for images of 32 pixels."""
    torch.manual_seed(0)
    args = {"img_size": 32, "patch_size": 8}
    model = timm.create_model("test_vit", num_classes=7, **args)
    cfg = {"mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.25), "crop_pct": 0.8}
    model.pretrained_cfg |= {**cfg, "input_size": (3, 32, 32)}
    folder = tmp_path / "mine"
    hub.save_for_hf(model, str(folder), model_args=args, safe_serialization=True)
    return folder


def in_cache(folder, cache, repository="me/mine", commit=COMMIT):
    """Put a folder into a cache of huggingface_hub."""
    place = cache / f"models--{repository.replace('/', '--')}"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text(commit)
    (place / "snapshots").mkdir()
    folder.rename(place / "snapshots" / commit)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    place = tmp_path / "hub"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(place))
    return place


def protocol(model, weights="pretrained", **more):
    return resolve("images-32", "folder:x", {"model": model, "weights": weights, **more})


def follow(values, info=FILES, base="."):
    return followed(values, info, base)


# --- Models with their weights --------------------------------------------------------------------


def test_a_folder_of_timm_is_an_architecture_with_arguments_and_a_file(saved):
    found, origin = follow(protocol("local-dir:mine"), base=saved.parent)

    assert found.model == "timm/test_vit"
    written = json.loads((saved / "config.json").read_text())["model_args"]
    # The data decides the classes and the channels.
    del written["num_classes"], written["in_chans"]
    assert found.model_args == written
    assert written["img_size"] == [32, 32]
    assert found.weights == str(saved / "model.safetensors")
    # Without `preprocess: weights` images keep the dataset's own.
    assert (found.mean, found.std, found.crop, origin) == ([], [], 32, "")

    own, _ = follow(protocol(f"local-dir:{saved}", model_args={"drop_path_rate": 0.2}))
    assert own.model_args == {**written, "drop_path_rate": 0.2}


def test_networks_start_from_the_files_weights_but_the_classifier(saved):
    found, _ = follow(protocol(f"local-dir:{saved}"))
    network = models.build(
        found.model, 3, (3, 32, 32), weights=found.weights, args=found.model_args
    )
    theirs = timm.create_model(f"local-dir:{saved}", pretrained=True, num_classes=3)

    state = network.state_dict()
    for name, value in theirs.state_dict().items():
        if not name.startswith("head"):
            assert torch.equal(state[name], value), name


def test_a_repository_in_the_cache_is_used_without_a_network(saved, cache):
    in_cache(saved, cache)
    for name in ("hf-hub:me/mine", f"hf-hub:me/mine@{COMMIT}"):
        found, origin = follow(protocol(name))
        assert (found.model, origin) == ("timm/test_vit", f"hf-hub:me/mine@{COMMIT}")
        assert found.weights == str(
            cache / "models--me--mine" / "snapshots" / COMMIT / "model.safetensors"
        )


def test_without_a_network_it_is_said_how_to_go_on(cache, monkeypatch):
    # Otherwise huggingface_hub tries again for half a minute.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(SuiteError) as caught:
        follow(protocol("hf-hub:me/mine"))
    message = str(caught.value)
    assert message.startswith("model: hf-hub:me/mine is not in the cache of huggingface_hub")
    assert "cannot be downloaded" in message
    assert "model: local-dir:PATH" in message


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: (f / "config.json").unlink(), "no config.json there"),
        (lambda f: (f / "model.safetensors").unlink(), "none of these is there"),
        (lambda f: (f / "config.json").write_text("{"), "no configuration of a timm model"),
        (lambda f: (f / "config.json").write_text("[]"), "no configuration of a timm model"),
        (lambda f: (f / "config.json").write_text("{}"), "KeyError: 'architecture'"),
    ],
)
def test_a_folder_that_timm_has_not_written_is_refused(saved, change, message):
    change(saved)
    with pytest.raises(SuiteError, match=f"^model: {saved}.*{message}"):
        follow(protocol(f"local-dir:{saved}"))


def test_arguments_that_are_no_plain_values_are_refused(saved):
    config = json.loads((saved / "config.json").read_text())
    config["model_args"]["norm_layer"] = {"name": "x"}
    (saved / "config.json").write_text(json.dumps(config))
    with pytest.raises(SuiteError, match=r"^model: local-dir:.*model_args\.norm_layer"):
        follow(protocol(f"local-dir:{saved}"))


@pytest.mark.parametrize("name", ["hf-hub:mine", "hf-hub:a/b/c", "hf-hub:/mine"])
def test_a_name_that_is_no_repository_is_refused(name):
    with pytest.raises(SuiteError, match="model: must be hf-hub:OWNER/NAME"):
        follow(protocol(name))


class Bad:
    def __reduce__(self):
        return print, ("run",)


def test_a_pickle_in_a_folder_runs_nothing(saved, capsys):
    (saved / "model.safetensors").unlink()
    (saved / "pytorch_model.bin").write_bytes(pickle.dumps(Bad()))
    found, _ = follow(protocol(f"local-dir:{saved}"))
    with pytest.raises(SuiteError, match=r"pytorch_model\.bin: (cannot be read|holds more)"):
        models.build(found.model, 3, (3, 32, 32), weights=found.weights, args=found.model_args)
    assert "run" not in capsys.readouterr().out


# --- Tags -----------------------------------------------------------------------------------------


def test_a_tag_names_the_weights():
    name = "timm/test_vit.r160_in1k"
    models.check(name)
    assert models.weights_file(name, "pretrained").endswith("timm/test_vit.r160_in1k")
    assert models.model_file(name) is None
    network = models.build(name, 3, (3, 160, 160))
    assert network(torch.zeros(1, 3, 160, 160)).shape == (1, 3)


def test_an_unknown_tag_is_guessed():
    with pytest.raises(SuiteError, match=r"no weights 'r160_in2k'.*Did you mean 'timm/test_vit.r"):
        models.check("timm/test_vit.r160_in2k")
    with pytest.raises(SuiteError, match=r"unknown model 'timm/test_vitt\.r160_in1k'"):
        models.check("timm/test_vitt.r160_in1k")


@pytest.mark.parametrize("weights", ["", "imagenet", "mine.pth"])
@pytest.mark.parametrize("model", ["timm/test_vit.r160_in1k", "hf-hub:a/b", "local-dir:x"])
def test_a_model_that_names_its_weights_has_no_others(model, weights):
    with pytest.raises(SuiteError, match=f"^weights: must be 'pretrained' for {model}"):
        follow(protocol(model, weights))


def test_pretrained_needs_a_tag():
    message = r"timm/test_vit has no tag\. There are: timm/test_vit\.r160_in1k; or set weights: ima"
    with pytest.raises(SuiteError, match=message):
        models.check_weights("timm/test_vit", "pretrained")
    with pytest.raises(SuiteError, match="torchvision/resnet50 has no tag; or set weights"):
        models.check_weights("torchvision/resnet50", "pretrained")


# --- Mean, standard deviation and sizes -----------------------------------------------------------


def data_config(name):
    """Return what timm itself uses for evaluation."""
    return timm.data.resolve_data_config(model=timm.create_model(name, pretrained=False))


@pytest.mark.parametrize("name", ["test_vit.r160_in1k", "vit_tiny_patch16_224.augreg_in21k"])
def test_preprocessing_is_that_of_timm(name):
    values = protocol(f"timm/{name}", preprocess="weights", resize=0, crop=0)
    found, _ = follow(values)
    theirs = data_config(name)

    assert (found.mean, found.std) == (list(theirs["mean"]), list(theirs["std"]))
    assert found.crop == theirs["input_size"][-1]
    assert found.resize == int(found.crop / theirs["crop_pct"])
    # A key has the numbers alone.
    assert "preprocess" not in found.identity()


def test_preprocessing_of_torchvision_is_that_of_its_transforms():
    values = resolve("images-224", "folder:x", {"preprocess": "weights", "resize": 0, "crop": 0})
    found, _ = follow(values)
    assert (found.resize, found.crop) == (256, 224)
    assert (found.mean, found.std) == ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])


def test_a_folders_preprocessing_is_in_its_configuration(saved):
    values = protocol(f"local-dir:{saved}", preprocess="weights", resize=0, crop=0)
    found, _ = follow(values)
    assert (found.mean, found.std) == ([0.4, 0.5, 0.6], [0.2, 0.3, 0.25])
    assert (found.resize, found.crop) == (40, 32)


def test_what_a_suite_says_itself_counts():
    values = protocol(
        "timm/test_vit.r160_in1k",
        preprocess="weights",
        resize=0,
        crop=64,
        mean=[0.1, 0.2, 0.3],
        std=[1.0, 1.0, 1.0],
    )
    found, _ = follow(values)
    assert (found.crop, found.resize, found.mean) == (64, 67, [0.1, 0.2, 0.3])


def test_images_in_memory_keep_their_size():
    values = resolve(
        "cifarn",
        "cifar10",
        {"model": "timm/test_resnet", "weights": "imagenet", "preprocess": "weights"},
    )
    found, _ = follow(values, CIFAR)
    assert (found.crop, found.resize, found.mean) == (0, 0, [0.5, 0.5, 0.5])


@pytest.mark.parametrize("weights", ["", "mine.pth"])
def test_preprocessing_is_refused_without_published_weights(weights):
    with pytest.raises(SuiteError, match=r"^preprocess: weights is for published weights"):
        follow(protocol("timm/test_vit", weights, preprocess="weights"))


@pytest.mark.parametrize(
    ("dataset", "mean", "message"),
    [
        ("cifar10", [0.5], "mean: must have 3 values, one for each channel of CIFAR-10"),
        ("digits", [0.5], "mean: is for images, and Digits has features"),
    ],
)
def test_a_mean_for_other_channels_is_refused_before_any_run(tmp_path, dataset, mean, message):
    suite = {
        "name": "t",
        "protocol": "cifar-cpu" if dataset == "cifar10" else "digits",
        "datasets": [{"name": dataset}],
        "methods": {"ce": {}},
        "seeds": [0],
        "overrides": {"mean": mean, "std": mean},
    }
    with pytest.raises(SuiteError, match=message):
        api.prepare(suite, out=tmp_path, device="cpu")
