"""Runs on image files through the API: small copies of Clothing1M, mini-WebVision and folders."""

import csv
import json
import shutil
import textwrap

import numpy as np
import pytest
import torch
from layouts import Clothing1M, Folder, WebVision, change_line
from sweeps import listener
from typer.testing import CliRunner

from nlbench import api, streams
from nlbench.cli.app import app
from nlbench.data import stratified
from nlbench.data.datasets import folder
from nlbench.errors import SuiteError
from nlbench.results import table as tables
from nlbench.training import epoch as epoch_
from nlbench.training import images
from nlbench.training.weights import load_trained

SMALL = {
    "model": "cnn3", "weights": "", "resize": 18, "crop": 16, "batch_size": 8, "epochs": 2,
    "lr": 0.01, "precision": "float32", "threads": 1,
}  # fmt: skip


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    """Cache below tmp_path, and decode without worker processes, which take seconds to start."""
    monkeypatch.setenv("NLBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NLBENCH_WORKERS", "0")


@pytest.fixture(scope="module")
def layout(tmp_path_factory):
    """Write a small Clothing1M once for all tests."""
    return Clothing1M().write(tmp_path_factory.mktemp("layout") / "clothing1m")


@pytest.fixture
def clothing(tmp_path, layout):
    """Copy it to the data directory and return that."""
    return shutil.copytree(layout, tmp_path / "data" / "clothing1m").parent


def sweep(
    tmp_path,
    dataset,
    methods,
    protocol="clothing1m",
    out="out",
    methods_dir=None,
    seeds=(0,),
    **overrides,
):
    """Prepare a suite of one dataset, with SMALL values and those that are given."""
    suite = {
        "name": "t",
        "protocol": protocol,
        "datasets": [{"name": dataset} if isinstance(dataset, str) else dataset],
        "methods": methods if isinstance(methods, dict) else {row: {} for row in methods},
        "seeds": list(seeds),
    }
    values = dict(SMALL)
    if protocol == "clothing1m":
        values["batches_per_epoch"] = 2

    return api.prepare(
        suite,
        out=tmp_path / out,
        data_dir=tmp_path / "data",
        overrides=values | overrides,
        device="cpu",
        methods_dir=methods_dir,
    )


def records(sw, **options):
    """Train all runs, check that they are done, and return their records by row."""
    sw.run(**options)
    found = {spec.row: sw.store.read(spec.key) for spec in sw.specs}

    for record in found.values():
        assert record.status == "done", record.error

    return found


def history(sw, key):
    """Read the metrics of each epoch of a run, as text."""
    with open(sw.store.run_dir(key) / "history.csv", newline="") as file:
        return list(csv.DictReader(file))


def outcome(sw):
    """Return all of each run that must not depend on when and how it was trained."""
    result = {}
    for spec in sw.specs:
        record = sw.store.read(spec.key)
        with np.load(sw.store.run_dir(spec.key) / "predictions.npz") as file:
            arrays = {name: file[name].tobytes() for name in file.files}

        epochs = []
        for metrics in history(sw, spec.key):
            epochs.append({name: v for name, v in metrics.items() if "second" not in name})

        result[spec.row] = record.metrics, record.method, record.noise, epochs, arrays

    return result


HEAD = '''\
"""A method of a test."""
import json, os
import torch
from torch.nn import functional as F
from nlbench.method import Method
'''


def method_file(place, name, body):
    """Write a method's file to the folder `place`, and return the folder."""
    place.mkdir(exist_ok=True)
    (place / f"{name}.py").write_text(HEAD + textwrap.dedent(body))
    return place


# --- Clothing1M -----------------------------------------------------------------------------------


def test_clothing1m(tmp_path, clothing):
    record = records(sweep(tmp_path, "clothing1m", ["ce"]))["ce"]

    measured = {"last", "best", "last_top5", "selected_clean", "selected_clean_epoch"}
    assert measured <= set(record.metrics)
    assert 0 <= record.metrics["last"] <= record.metrics["last_top5"] <= 1

    # There is no noisy validation part, and memorisation needs true labels.
    assert "selected" not in record.metrics
    for name in record.metrics:
        assert "memorised" not in name
        assert "right" not in name
        assert "target" not in name

    noise = record.noise
    assert noise["noise_rate_full"] is noise["noise_rate_train"] is noise["noise_rate_val"] is None
    assert (noise["num_train"], noise["num_val"], noise["num_test"]) == (112, 0, 28)
    assert noise["redrawn"] is False

    assert record.method["forward_passes"] == 1.0
    assert record.spec["protocol"]["weights"] == ""

    with np.load(tmp_path / "out" / "runs" / record.key / "predictions.npz") as file:
        assert set(file.files) == {"test", "test_labels", "test_probs", "train_index", "labels"}
        assert file["test"].shape == (28,)


def test_the_clean_validation_set_selects_its_first_best_epoch(tmp_path, clothing):
    sw = sweep(tmp_path, "clothing1m", ["ce"], epochs=6, lr=0.05)
    record = records(sw)["ce"]

    epochs = history(sw, record.key)
    clean = [float(metrics["clean_val_accuracy"]) for metrics in epochs]
    selected = clean.index(max(clean))

    assert record.metrics["selected_clean_epoch"] == selected
    assert record.metrics["selected_clean"] == float(epochs[selected]["test_accuracy"])

    # The network learns, since each class has its own colour.
    assert max(clean) > 1 / 14


def test_with_a_validation_part(tmp_path, clothing):
    record = records(sweep(tmp_path, "clothing1m", ["ce"], val_fraction=0.25))["ce"]
    assert (record.noise["num_train"], record.noise["num_val"]) == (84, 28)
    assert {"selected", "val_last", "selected_clean"} <= set(record.metrics)
    assert record.noise["noise_rate_val"] is None

    (plan,) = api.Store(tmp_path / "out").plans().values()
    table = tables.render(plan, api.Store(tmp_path / "out"), details=True)

    assert "| selected | selected on clean val |" in table
    assert "84 training, 28 validation, 28 test examples" in table


# Writes down each batch, and draws numbers that another method does not draw.
SEES = """
    class Sees(Method):
        def __init__(self, task, name: str = "", greedy: bool = False):
            super().__init__(task)
            self.name, self.greedy = name, greedy

        def training_step(self, run, batch):
            if self.greedy:
                torch.rand(5), torch.rand(3, generator=run.generator("x"))
            index, labels = batch.index.tolist(), batch.labels.tolist()
            seen = [self.name, run.epoch, index, labels, float(batch.images.sum())]
            with open(os.environ["SEEN"], "a") as file:
                file.write(json.dumps(seen) + "\\n")
            loss = F.cross_entropy(run.networks[0](batch.images), batch.labels)
            run.backward_step(loss * (2 if self.greedy else 1))
"""


def test_an_epoch_is_balanced_redrawn_and_the_same_for_all_methods(tmp_path, clothing, monkeypatch):
    monkeypatch.setenv("SEEN", str(tmp_path / "seen"))
    rows = {
        "a": {"method": "sees", "name": "a", "greedy": False},
        "b": {"method": "sees", "name": "b", "greedy": True},
    }
    place = method_file(tmp_path / "m", "sees", SEES)
    records(sweep(tmp_path, "clothing1m", rows, methods_dir=place, batches_per_epoch=5))

    seen = {"a": [], "b": []}
    for line in (tmp_path / "seen").read_text().splitlines():
        name, *batch = json.loads(line)
        seen[name].append(batch)
    assert seen["a"] == seen["b"]

    labels = np.array([label for _, label in Clothing1M().parts["noisy_train"]])
    epochs = []

    for epoch in range(2):
        batches = [batch for batch in seen["a"] if batch[0] == epoch]
        assert [len(batch[1]) for batch in batches] == [8] * 5

        index = np.concatenate([batch[1] for batch in batches])
        given = np.concatenate([batch[2] for batch in batches])
        assert len(np.unique(index)) == 40
        assert given.tolist() == labels[index].tolist()

        # 40 examples of 14 classes are two or three of each.
        assert set(np.bincount(labels[index], minlength=14).tolist()) == {2, 3}

        epochs.append(index.tolist())

    assert sorted(epochs[0]) != sorted(epochs[1])


def test_memories_are_indexed_by_the_position_in_the_list(tmp_path, clothing):
    sw = sweep(tmp_path, "clothing1m", ["elr"], epochs=3)
    with pytest.raises(Stop):
        sw.run(listener(on_epoch=stop_at(1)), checkpoint_seconds=0)

    state = torch.load(sw.store.run_dir(sw.specs[0].key) / "checkpoint.pt", weights_only=True)
    targets = state["method"]["targets"]
    assert targets.shape == (112, 14)

    # After one epoch only the examples that it drew have a target.
    labels = np.arange(112) % 14
    drawn = stratified.balanced(labels, 16, streams.rng(0, "order", 0))
    assert np.flatnonzero(targets.sum(1)).tolist() == sorted(drawn)
    assert records(sw)["elr"].metrics.get("target_accuracy") is None


class Stop(BaseException):
    """Stand for a kill: nothing in the harness catches it."""


def stop_at(epoch):
    """Return a listener's function that stops the training after `epoch`."""

    def hook(spec, at, epochs, metrics):
        if at == epoch:
            raise Stop

    return hook


# Worker processes take seconds to start. Their bytes are compared in tests/data/test_decode.py.
@pytest.mark.parametrize(
    ("row", "workers"),
    [("elr", "0"), ("forward", "0"), pytest.param("elr", "2", marks=pytest.mark.nightly)],
)
def test_a_resumed_run_equals_one_never_stopped(tmp_path, clothing, monkeypatch, row, workers):
    whole = sweep(tmp_path, "clothing1m", [row], out="a", epochs=4)
    records(whole)
    cut = sweep(tmp_path, "clothing1m", [row], out="b", epochs=4)
    monkeypatch.setenv("NLBENCH_WORKERS", workers)

    with pytest.raises(Stop):
        cut.run(listener(on_epoch=stop_at(2)), checkpoint_seconds=0)

    seen = []
    hook = listener(on_epoch=lambda spec, epoch, epochs, metrics: seen.append(epoch))
    cut.run(hook, checkpoint_seconds=0)

    assert seen == [2, 3]
    assert outcome(cut) == outcome(whole)


def test_reading_ahead_changes_nothing(tmp_path, clothing, monkeypatch):
    rows = ["ce", "elr", "bootstrap"]
    ahead = sweep(tmp_path, "clothing1m", rows, out="a", batches_per_epoch=6)
    records(ahead)

    # Now nothing is read ahead, neither of the plan nor of the evaluation.
    monkeypatch.setattr(images.FileImages, "ahead", 0)
    monkeypatch.setattr(images.FileImages, "plain", _plain_without_a_window)
    other = sweep(tmp_path, "clothing1m", rows, out="b", batches_per_epoch=6)
    records(other)

    assert outcome(ahead) == outcome(other)


def _plain_without_a_window(self, start, stop):
    return self._normalised(self._bytes(self._ask_range(start, min(stop, len(self)))))


def test_reading_a_plan_ahead_keeps_its_order():
    drawn = []

    def plan():
        for i in range(5):
            drawn.append(i)
            yield i

    got = []
    for item in epoch_.drawn_ahead(plan(), 2):
        got.append((item, len(drawn)))

    assert got == [(0, 3), (1, 4), (2, 5), (3, 5), (4, 5)]
    assert list(epoch_.drawn_ahead(iter([]), 2)) == []


def test_a_method_cannot_be_given_an_unknown_transition_matrix(tmp_path, clothing):
    message = r"methods\.forward: needs to be told T, which is unknown: Clothing1M has no true"
    with pytest.raises(SuiteError, match=message):
        sweep(tmp_path, "clothing1m", {"ce": {}, "forward": {"T": True}})


TOLD = """
    class Told(Method):
        told = ("noise_rate",)

        def __init__(self, task):
            super().__init__(task)
            shape = (task.num_classes, task.num_classes)
            self.register_buffer("T", torch.full(shape, task.noise_rate))

        def loss(self, logits, batch):
            return F.cross_entropy(logits, batch.labels)
"""


def test_a_method_that_needs_the_noise_rate_gets_the_published_estimate(tmp_path, clothing):
    place = method_file(tmp_path / "m", "told", TOLD)
    record = records(sweep(tmp_path, "clothing1m", ["told"], methods_dir=place))["told"]

    assert record.method["told"] == ["noise_rate"]
    assert "T_mean_absolute_error" not in record.method

    with np.load(tmp_path / "out" / "runs" / record.key / "predictions.npz") as file:
        assert file["T"][0, 0] == pytest.approx(0.385)

    # Nobody has published an estimate for a user's folder.
    Folder().write_classes(tmp_path / "birds")
    entry = {"name": "folder", "path": str(tmp_path / "birds")}
    message = r"methods.told: needs to be told noise_rate, which is unknown"
    with pytest.raises(SuiteError, match=message):
        sweep(tmp_path, entry, ["told"], "images-32", methods_dir=place)


def test_more_batches_than_there_are_examples(tmp_path, clothing):
    message = "--set batches_per_epoch: 15 of 8 are 120 examples, more than the 112 of cloth"
    with pytest.raises(SuiteError, match=message):
        sweep(tmp_path, "clothing1m", ["ce"], batches_per_epoch=15)


@pytest.mark.parametrize("workers", ["0", pytest.param("2", marks=pytest.mark.nightly)])
def test_an_image_that_cannot_be_decoded_fails_the_run_by_name(
    tmp_path, clothing, monkeypatch, workers
):
    # This is a test image.
    path = clothing / "clothing1m" / "images/3/03/7003,51.jpg"
    path.write_bytes(path.read_bytes()[:200])
    monkeypatch.setenv("NLBENCH_WORKERS", workers)
    sw = sweep(tmp_path, "clothing1m", ["ce"])
    sw.run()
    (record,) = sw.failures()
    assert f"{path}: cannot be decoded" in record.error["message"]


def test_the_key_knows_the_lists(tmp_path, clothing):
    before = sweep(tmp_path, "clothing1m", ["ce"]).specs[0].key
    (clothing / "clothing1m").rename(clothing / "Clothing1M")

    assert sweep(tmp_path, "clothing1m", ["ce"]).specs[0].key == before

    change_line(clothing / "Clothing1M" / "noisy_label_kv.txt", 9, "images/8/01/8,136.jpg 2")
    assert sweep(tmp_path, "clothing1m", ["ce"]).specs[0].key != before


# --- WebVision ------------------------------------------------------------------------------------


def test_webvision(tmp_path):
    WebVision().write(tmp_path / "data" / "webvision")
    sw = sweep(tmp_path, "webvision", ["ce", "elr"], "webvision-mini-r50", batch_size=32)

    for record in records(sw).values():
        assert {"last", "last_top5", "ilsvrc12_last", "ilsvrc12_last_top5"} <= set(record.metrics)
        assert record.metrics["ilsvrc12_last"] <= record.metrics["ilsvrc12_last_top5"]
        assert "ilsvrc12: 1 images of a class" in record.warnings[0]
        assert record.noise["noise_rate_train"] is None

    last = history(sw, record.key)[-1]
    assert float(last["ilsvrc12_top5"]) == record.metrics["ilsvrc12_last_top5"]

    table = tables.render(sw.plan.as_json(), sw.store, details=True)
    assert "ILSVRC12 |" in table
    assert "ILSVRC12 top-5 |" in table
    assert "memorised |" not in table
    unknown = "noise rate unknown (this dataset has no true labels)"
    assert f"mini-WebVision: {unknown}; 100 training, 50 test examples." in table

    table = tables.render(sw.plan.as_json(), sw.store, metric="ilsvrc12-top5")
    assert ": top-5 accuracy on the ILSVRC12 validation images" in table


@pytest.mark.parametrize("dataset", ["clothing1m", "webvision", "animal10n"])
def test_the_command_line_refuses_noise_where_the_true_labels_are_unknown(tmp_path, dataset):
    options = ["--kind", "symmetric", "--rate", "0.4", "--to", str(tmp_path / "x.npy")]
    result = CliRunner().invoke(app, ["noise", "export", dataset, *options])

    message = f"error: {dataset}: its true labels are unknown, so that no noise can be drawn"
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert message in result.stderr

    listed = CliRunner().invoke(app, ["list", "datasets"]).stdout.splitlines()
    (line,) = [line for line in listed if dataset in line]
    assert "0 / 0" not in line
    assert " 0 classes" not in line


# --- folders --------------------------------------------------------------------------------------


def suite_file(tmp_path, entry, methods="{ce: {}}"):
    path = tmp_path / "suites" / "mine.yaml"
    path.parent.mkdir(exist_ok=True)
    values = ", ".join(
        f"{key}: {value}" for key, value in {**SMALL, "weights": "''", "batch_size": 10}.items()
    )
    path.write_text(
        f"name: mine\nprotocol: images-32\ndatasets:\n{entry}\nmethods: {methods}\nseeds: [0]\n"
        f"overrides: {{{values}}}\n"
    )
    return path


def prepared(tmp_path, entry, **options):
    return api.prepare(suite_file(tmp_path, entry, **options), out=tmp_path / "out", device="cpu")


def test_a_folder_relative_to_the_suites_file(tmp_path, monkeypatch):
    Folder().write_classes(tmp_path / "suites" / "birds")
    monkeypatch.chdir(tmp_path)
    sw = prepared(tmp_path, "  - {name: folder, path: birds}")
    record = records(sw)["ce"]

    assert record.spec["dataset"] == "folder:birds"
    assert record.noise["noise_rate_train"] is None
    assert {"selected", "val_last", "last"} <= set(record.metrics)
    # Of three classes all are among the five best.
    assert "last_top5" not in record.metrics
    assert (record.noise["num_train"], record.noise["num_val"]) == (27, 3)
    assert "birds: noise rate unknown" in tables.render(sw.plan.as_json(), sw.store)

    frame = api.load(tmp_path / "out")
    assert frame.loc[record.key, "dataset"] == "folder:birds"


@pytest.mark.parametrize("write", ["write_csv", "write_parquet"])
def test_with_true_labels_noise_and_memorisation_are_measured(tmp_path, write):
    getattr(Folder(), write)(tmp_path / "birds", clean=True)
    sw = prepared(
        tmp_path,
        "  - {name: folder, path: ../birds}",
        methods="{ce: {}, elr: {}, forward: {T: true}}",
    )
    found = records(sw)
    noise = found["ce"].noise

    assert noise["noise_rate_full"] == 6 / 30
    assert 0 < noise["noise_rate_train"] < 0.3
    measured = {"final_wrong_memorised", "final_clean_right", "online_wrong_memorised"}
    assert measured <= set(found["ce"].metrics)
    assert found["elr"].metrics["target_accuracy"] is not None
    assert found["forward"].method["T_mean_absolute_error"] == 0
    assert "20.00% of all labels" in tables.render(sw.plan.as_json(), sw.store)


def test_given_labels_true_labels_and_drawn_noise_are_three_conditions(tmp_path):
    Folder().write_csv(tmp_path / "birds")
    noise = "noise: {kind: symmetric, rate: 0.4}"
    entry = f"  - {{name: folder, path: ../birds, labels: [given, clean], {noise}}}"
    sw = prepared(tmp_path, entry)

    titles = [condition.title for condition in sw.plan.conditions]
    assert titles == ["birds", "birds clean", "birds symmetric 0.4"]
    assert len({spec.key for spec in sw.specs}) == 3

    sw.run()
    rates = [sw.store.read(spec.key).noise["noise_rate_full"] for spec in sw.specs]

    assert rates == [6 / 30, 0.0, 0.4]


def test_the_key_of_a_folder_is_of_its_content(tmp_path):
    def key():
        return prepared(tmp_path, "  - {name: folder, path: ../birds}").specs[0].key

    Folder().write_csv(tmp_path / "birds")
    before = key()
    (tmp_path / "birds").rename(tmp_path / "old")
    other = Folder()
    other.given[0] = 2
    other.write_csv(tmp_path / "birds")

    assert key() != before

    folder._read.cache_clear()
    (tmp_path / "birds").rename(tmp_path / "other")
    (tmp_path / "old").rename(tmp_path / "birds")

    assert key() == before


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("{name: folder}", "mine.yaml:4: datasets.0: folder needs a path, the folder it lies in"),
        (
            "{name: folder, path: ''}",
            "mine.yaml:4: datasets.0: folder needs a path, the folder it lies in",
        ),
        (
            "{name: folder, path: nowhere}",
            "mine.yaml:4: datasets.0.path: {suites}/nowhere: no such folder; it must hold",
        ),
        (
            "{name: folder, path: .}",
            "mine.yaml:4: datasets.0.path: must end with the folder's own name",
        ),
        (
            "{name: folder, path: ..}",
            "mine.yaml:4: datasets.0.path: must end with the folder's own name",
        ),
        (
            "{name: cifar10, path: birds}",
            "datasets.0.path: cifar10 takes no path; --data-dir says where",
        ),
        ("{name: foldr, path: birds}", "unknown dataset 'foldr'."),
        (
            "{name: folder, path: birds, labels: clean}",
            "datasets.0.labels: folder has no label set 'clean'. It has: given.",
        ),
        (
            "{name: folder, path: birds, noise: {kind: symmetric, rate: 0.4}}",
            "the true labels of birds are unknown",
        ),
        (
            "{name: folder, path: birds}\n  - {name: folder, path: ../birds}",
            "two folders are called birds: rename one",
        ),
        (
            "{name: folder, path: birds}\n  - {name: folder, path: ./birds}",
            "birds is listed twice; keep one",
        ),
    ],
)
def test_wrong_folders(tmp_path, entry, message):
    Folder().write_classes(tmp_path / "suites" / "birds")
    Folder(5).write_classes(tmp_path / "birds")
    with pytest.raises(SuiteError) as caught:
        prepared(tmp_path, f"  - {entry}")
    assert message.replace("{suites}", str(tmp_path / "suites")) in str(caught.value)
    # Nothing is reported that only follows from this problem.
    assert len(str(caught.value).splitlines()) == 1


def test_noise_that_looks_at_images_needs_them_in_memory(tmp_path):
    Folder().write_csv(tmp_path / "birds")
    entry = "  - {name: folder, path: ../birds, noise: {kind: instance-dependent, rate: 0.4}}"
    message = r"noise.kind: instance-dependent needs images in memory, and those of birds are"
    with pytest.raises(SuiteError, match=message):
        prepared(tmp_path, entry)


def test_a_folder_whose_list_is_wrong_is_a_problem_of_the_suite(tmp_path):
    change_line(Folder().write_csv(tmp_path / "birds") / "test.csv", 2, "x.jpg,cow")
    message = r"mine.yaml:4: datasets.0.path: .*birds/test.csv:2: no training image has the"
    with pytest.raises(SuiteError, match=message):
        prepared(tmp_path, "  - {name: folder, path: ../birds}")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (
            {"crop": 0},
            "--set crop: birds is image files, and protocol images-32 does not say what a network "
            "sees of them",
        ),
        ({"crop": 20}, "--set crop: must be at most resize, 18, got 20"),
        (
            {"crop": 4, "resize": 4},
            "overrides.model: model cnn3: needs images of at least 8x8, got 4x4",
        ),
        ({"val_fraction": 0.01}, "--set val_fraction: leaves no validation example of 30"),
        (
            {"batches_per_epoch": 3},
            "--set batches_per_epoch: 3 of 10 are 30 examples, more than the 27 of folder:birds",
        ),
    ],
)
def test_wrong_sizes_for_a_network_are_refused(tmp_path, setting, message):
    Folder().write_classes(tmp_path / "birds")
    path = suite_file(tmp_path, "  - {name: folder, path: ../birds}")
    with pytest.raises(SuiteError) as caught:
        api.prepare(path, out=tmp_path / "out", overrides=setting)
    assert message in str(caught.value)


def test_crops_are_for_files(tmp_path):
    entry = {"name": "digits", "noise": {"kind": "symmetric", "rate": 0.4}}
    message = r"resize and crop are for datasets of image files; .* has shape"
    with pytest.raises(SuiteError, match=message):
        sweep(tmp_path, entry, ["ce"], "digits", model="cnn3")


def test_images_that_vanish_between_two_runs(tmp_path):
    path = Folder().write_csv(tmp_path / "birds")
    sw = prepared(tmp_path, "  - {name: folder, path: ../birds}")
    (path / "pictures" / "test" / "no 4, ñ.jpg").unlink()
    sw.run()
    (record,) = sw.failures()
    assert "no 4, ñ.jpg: there is no such image" in record.error["message"]


# --- Scaled decoding ------------------------------------------------------------------------------


def test_a_run_decodes_as_its_record_and_its_weights_say(tmp_path, clothing):
    """The pictures are 24 x 20, so that half their sides are enough."""
    found = {}
    for exact in (False, True):
        sw = sweep(tmp_path, "clothing1m", ["ce"], resize=10, crop=8, exact_decode=exact)
        record = records(sw, save_weights=True)["ce"]
        assert record.spec.get("decoding") == (None if exact else 2)
        assert "exact_decode" not in record.spec["protocol"]

        folder = sw.store.run_dir(record.key)
        content = torch.load(folder / "weights.pt", weights_only=True)
        assert content["scaled"] is not exact
        assert load_trained(sw.store, record.key)._geometry.scaled is not exact
        with np.load(folder / "predictions.npz") as file:
            found[exact] = file["test_probs"]

    assert found[False].shape == found[True].shape
    assert (found[False] != found[True]).any()
