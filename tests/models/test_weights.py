"""Networks start from a user's file or from published weights; bad files are refused."""

import os
import pickle
import shutil
import urllib.error
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from layouts import Clothing1M
from typer.testing import CliRunner

from nlbench import api, models
from nlbench.cli.app import app
from nlbench.errors import SuiteError
from nlbench.models import _external
from nlbench.results.store import Store

SHAPE = (3, 16, 16)
SUITE = """\
name: mine
protocol: clothing1m
datasets:
  - {name: clothing1m}
methods: {ce: {}}
seeds: [0]
overrides: {model: cnn3, resize: 18, crop: 16, batches_per_epoch: 2, batch_size: 8, epochs: 1,
  precision: float32, threads: 1, lr: 1.0e-30, momentum: 0.0, weight_decay: 0.0, weights: ""}
"""


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    """Keep caches below tmp_path, and allow no network."""

    def unreachable(*args, **kwargs):
        raise urllib.error.URLError("no network in a test")

    monkeypatch.setattr(torch.hub, "urlopen", unreachable)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("NLBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NLBENCH_WORKERS", "0")


def state(name="cnn3", classes=7, seed=5):
    """Return the state of a drawn network, as an author would publish it."""
    torch.manual_seed(seed)
    return models.build(name, classes, SHAPE).state_dict()


def saved(path: Path, value) -> Path:
    """Save a value by torch in a folder that need not exist, and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(value, path)
    return path


def built(path, classes=14, name="cnn3", seed=1):
    """Return the state of a network that starts from this file."""
    torch.manual_seed(seed)
    return models.build(name, classes, SHAPE, weights=str(path)).state_dict()


def body(tensors):
    """Return all tensors but those of the classifier, which is cnn3's last layer."""
    last = list(tensors)[-1].rpartition(".")[0]
    return {name: value for name, value in tensors.items() if not name.startswith(f"{last}.")}


def same(a, b):
    """Compare two states, tensor by tensor."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize(
    "form",
    [
        lambda tensors: tensors,
        # The prefix of torch's DataParallel, alone and around a model inside a checkpoint.
        lambda tensors: {f"module.{name}": value for name, value in tensors.items()},
        lambda tensors: {
            "state_dict": {f"module.model.{name}": value for name, value in tensors.items()},
            "epoch": 3,
        },
        lambda tensors: {"model": tensors, "optimizer": {"lr": 0.1}},
        # A part that the model lacks, as self-supervised training leaves it in a file.
        lambda tensors: {**tensors, "projector.0.weight": torch.zeros(3, 3)},
    ],
)
@pytest.mark.parametrize("suffix", [".pth", ".pt", ".ckpt"])
def test_a_file_of_ones_own(tmp_path, form, suffix):
    """Take the body from the file and draw the classifier, which is for other classes."""
    tensors = state()
    network = built(saved(tmp_path / f"w{suffix}", form(tensors)))

    assert same(body(network), body(tensors))

    fresh = built("")
    last = network.keys() - body(network).keys()

    # The classifier's weight and bias are those of a network without a file.
    assert len(last) == 2
    for name in last:
        assert torch.equal(network[name], fresh[name])


def test_a_classifier_for_as_many_classes_is_the_files(tmp_path):
    assert same(built(saved(tmp_path / "w.pth", state(classes=14))), state(classes=14))


def test_safetensors(tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    safetensors.save_file(state(), tmp_path / "w.safetensors")

    assert same(body(built(tmp_path / "w.safetensors")), body(state()))

    for content in (b"", b"x" * 100, (tmp_path / "w.safetensors").read_bytes()[:-9]):
        (tmp_path / "w.safetensors").write_bytes(content)
        with pytest.raises(SuiteError, match=r"w\.safetensors: cannot be read as weights \(.+\)"):
            built(tmp_path / "w.safetensors")


class Bomb:
    """Make a folder when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def contents(tmp_path):
    """Yield name, content and error message of files that are no weights of cnn3."""
    whole = saved(tmp_path / "whole", state()).read_bytes()
    small = state("resnet8")
    shifted = state()
    for name, value in state().items():
        if value.ndim == 4:
            shifted[name] = torch.cat([value, value])
    part = dict(list(state().items())[2:])
    yield "text", b"weights", r"cannot be read as weights \(.+\)"
    yield "empty", b"", r"cannot be read as weights \(.+\)"
    yield "cut", whole[:1000], r"cannot be read as weights \(.+\)"
    yield "bomb", pickle.dumps(Bomb(tmp_path / "exploded"), protocol=2), "holds more than tensors"
    yield (
        "new bomb",
        {"state_dict": {"0.weight": Bomb(tmp_path / "exploded")}},
        "holds more than tensors",
    )
    yield "list", [1, 2], "holds no tensors by name"
    yield "numbers", {"a": 1}, "holds no tensors by name"
    yield (
        "other",
        small,
        r"no weights of this model: of its \d+ tensors \d+ are not there in their shape, first ",
    )
    yield "shapes", shifted, "no weights of this model"
    yield "part", part, "no weights of this model"


def test_files_that_are_no_weights(tmp_path):
    for name, content, message in contents(tmp_path):
        path = tmp_path / f"{name}.pth"
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            saved(path, content)
        with pytest.raises(SuiteError, match=rf"{name}\.pth: {message}"):
            built(path)
    assert not (tmp_path / "exploded").exists()


def test_weights_of_a_deeper_model_of_the_family_are_refused(tmp_path):
    """Refuse them although a ResNet-34 has each tensor of a ResNet-18 by name and shape."""
    with torch.device("meta"):
        deeper = models.build("torchvision/resnet34", 10, (3, 64, 64)).state_dict()

    # Expanded from one number, the tensors take no space in the file.
    tensors = {name: torch.zeros(()).expand(value.shape) for name, value in deeper.items()}
    path = saved(tmp_path / "w.pth", tensors)
    message = r"weights of a larger model: this one has no layer1\.2\.conv1\.weight"
    with pytest.raises(SuiteError, match=message):
        models.build("torchvision/resnet18", 10, (3, 64, 64), weights=str(path))


# --- Published weights ----------------------------------------------------------------------------

URL = "squeezenet1_1-b8a52dc0.pth"


def test_published_weights_without_network_say_which_file_goes_where(tmp_path):
    with pytest.raises(SuiteError) as caught:
        models.fetch_weights("torchvision/squeezenet1_1", "imagenet")
    place = tmp_path / "torch" / "hub" / "checkpoints"
    for word in (URL, str(place), "no network in a test", "--set weights=PATH"):
        assert word in str(caught.value)


def test_a_file_put_there_is_used(tmp_path):
    pytest.importorskip("torchvision")
    torch.manual_seed(7)
    published = models.build("torchvision/squeezenet1_1", 1000, (3, 32, 32)).state_dict()
    saved(tmp_path / "torch" / "hub" / "checkpoints" / URL, published)
    models.fetch_weights("torchvision/squeezenet1_1", "imagenet")
    network = models.build("torchvision/squeezenet1_1", 14, (3, 32, 32), weights="imagenet")

    tensors = network.state_dict()
    different = [name for name in tensors if not torch.equal(tensors[name], published[name])]

    assert different == ["classifier.1.weight", "classifier.1.bias"]


def test_timms_file_is_named():
    pytest.importorskip("timm")
    assert _external.weights_file("timm", "inception_resnet_v2").startswith(
        "model.safetensors of https://huggingface.co/timm/inception_resnet_v2"
    )
    with pytest.raises(SuiteError, match="timm/convmixer_nowhere"):
        models.fetch_weights("timm/convmixer_nowhere", "imagenet")


# --- In a suite -----------------------------------------------------------------------------------


@pytest.fixture
def suite(tmp_path):
    """Return suite(weights), which writes a suite's file with this override."""
    Clothing1M().write(tmp_path / "data")

    def write(weights):
        path = tmp_path / "suites" / "mine.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(SUITE.replace('weights: ""', f"weights: {weights}"))
        return path

    return write


def prepared(tmp_path, path, **options):
    return api.prepare(
        path, out=tmp_path / "out", data_dir=tmp_path / "data", device="cpu", **options
    )


def predictions_of(sw):
    """Return the predictions of the first run on the test images."""
    folder = sw.store.run_dir(sw.specs[0].key)
    return np.load(folder / "predictions.npz")["test"]


def test_a_run_starts_from_them(tmp_path, suite):
    """Train with a learning rate of almost zero, so that the last network is the first."""
    saved(tmp_path / "suites" / "w.pth", state(classes=14))
    sw = prepared(tmp_path, suite("w.pth"))
    sw.run()
    record = sw.store.read(sw.specs[0].key)

    assert record.status == "done", record.error
    assert record.spec["protocol"]["weights"].startswith("sha256:")
    assert str(tmp_path) not in str(record.spec)

    drawn = prepared(tmp_path, suite("''"))
    drawn.run()
    assert not np.array_equal(predictions_of(sw), predictions_of(drawn))


def test_the_key_is_of_the_content_and_not_of_the_path(tmp_path, suite, monkeypatch):
    first = saved(tmp_path / "suites" / "w.pth", state())
    key = prepared(tmp_path, suite("w.pth")).specs[0].key
    shutil.copy(first, tmp_path / "elsewhere.pth")

    assert prepared(tmp_path, suite("../elsewhere.pth")).specs[0].key == key
    assert prepared(tmp_path, suite(tmp_path / "elsewhere.pth")).specs[0].key == key

    saved(first, state(seed=6))
    assert prepared(tmp_path, suite("w.pth")).specs[0].key != key
    assert prepared(tmp_path, suite("''")).specs[0].key != key

    # A path in an option is relative to the working directory.
    monkeypatch.chdir(tmp_path)
    sw = prepared(tmp_path, suite("''"), overrides={"weights": "elsewhere.pth"})
    assert sw.specs[0].key == key


def test_wrong_weights_come_before_the_first_run_with_the_line_that_names_them(tmp_path, suite):
    saved(tmp_path / "suites" / "other.pth", state("resnet8"))
    place = tmp_path / "suites"
    fix = "it must be 'imagenet', 'pretrained', a file of weights, or"
    for weights, message in (
        ("nowhere.pth", f"no such file: {place}/nowhere.pth; {fix}"),
        ("other.pth", f"{place}/other.pth: no weights of this model"),
        ("imagenet", "model cnn3 has no published weights"),
    ):
        with pytest.raises(SuiteError) as caught:
            prepared(tmp_path, suite(weights))
        assert f"mine.yaml:8: overrides.weights: {message}" in str(caught.value)

    with pytest.raises(SuiteError, match=r"--set weights: no such file: nowhere.pth"):
        prepared(tmp_path, suite("''"), overrides={"weights": "nowhere.pth"})


def test_without_network_nothing_is_trained(tmp_path, suite):
    path = suite("imagenet")
    text = path.read_text().replace("cnn3", "torchvision/squeezenet1_1")
    path.write_text(text.replace("18, crop: 16", "36, crop: 32"))
    places = ["--out", str(tmp_path / "out"), "--data-dir", str(tmp_path / "data")]
    options = [*places, "--device", "cpu"]

    result = CliRunner().invoke(app, ["run", str(path), *options])

    assert result.exit_code == 2, result.output
    for word in (
        "error: the ImageNet weights of torchvision/squeezenet1_1 are not in",
        URL,
        "on a machine with network `nlbench run SUITE --prepare` gets them",
    ):
        assert word in result.stderr

    assert Store(tmp_path / "out").run_keys() == []

    dry = CliRunner().invoke(app, ["run", str(path), *options, "--dry-run"])
    assert "1 missing" in dry.stdout


def test_a_record_says_which_file_imagenet_stands_for():
    assert models.weights_file("resnet18", "") == ""
    assert models.weights_file("resnet18", "sha256:abc") == "sha256:abc"
    name = models.weights_file("torchvision/resnet50", "imagenet")
    # This is IMAGENET1K_V1, named by the first digits of its sha256.
    assert name.endswith("/resnet50-0676ba61.pth")


# ---- Weights of a stranger ----------------------------------------------------------------------


class Runs:
    """Make a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("form", ["zip", "old", "pickle"])
def test_weights_that_want_to_run_something(tmp_path, form):
    path = tmp_path / "w.pth"
    content = {"fc.weight": torch.zeros(2), "x": Runs(tmp_path / "ran")}
    if form == "pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")

    with pytest.raises(SuiteError, match=r"w\.pth: ") as refused:
        models.build("cnn3", 7, SHAPE, weights=str(path))
    message = str(refused.value)
    if form != "pickle":
        assert "its pickle asks for posix.system, and nothing in it was run" in message
    # torch itself advises to read the file without protection.
    assert "weights_only" not in message
    assert "\x1b" not in message
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("call", ["fetch", "build"])
def test_published_weights_that_want_to_run_something(tmp_path, call, monkeypatch):
    """Refuse a file in the place of torchvision's, which torchvision would unpickle."""
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    place = tmp_path / "torch" / "hub" / "checkpoints"
    place.mkdir(parents=True)
    torch.save({"x": Runs(tmp_path / "ran")}, place / URL)

    calls = {
        "fetch": lambda: _external.fetch("torchvision", "squeezenet1_1"),
        "build": lambda: models.build("torchvision/squeezenet1_1", 7, SHAPE, weights="imagenet"),
    }
    with pytest.raises(SuiteError, match=r"holds more than tensors.*remove the file there"):
        calls[call]()
    assert not (tmp_path / "ran").exists()
    assert os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] == "1"
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ


def test_a_small_file_of_weights_that_would_fill_the_memory(tmp_path):
    path = tmp_path / "w.pth"
    torch.save({"fc.weight": torch.zeros(2_000_000)}, path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    assert path.stat().st_size < 20_000
    with pytest.raises(SuiteError, match=r"w\.pth: .*bytes that would become 8,"):
        models.build("cnn3", 7, SHAPE, weights=str(path))
