"""Runs are trained again from their records alone, and their numbers are compared."""

import contextlib
import json
import shutil
from types import SimpleNamespace

import pytest
from made_up import rewrite
from sweeps import METHOD_HEADER, listener, sweep

import nlbench
from nlbench import registry
from nlbench.data.places import Places
from nlbench.errors import StoreError, SuiteError
from nlbench.executors import base
from nlbench.executors.base import Listener
from nlbench.plan.protocol import resolve
from nlbench.plan.rebuild import Files
from nlbench.plan.spec import Condition, RunSpec
from nlbench.plan.spec import key_of as spec_key
from nlbench.reproduction import again, draw
from nlbench.reproduction.source import Options, Source, spec_of
from nlbench.results.comparison import Verdict
from nlbench.training import opinions

QUICK = {"epochs": 2, "subset": 200}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Return a trained store, which tests copy: two methods, one of them with a helper network."""
    sw = sweep(tmp_path_factory.mktemp("trained") / "out", {"ce": {}, "forward": {}}, **QUICK)
    sw.run()
    return sw


@pytest.fixture
def sw(trained, tmp_path):
    """Return the same sweep on a copy of its store, and what the store warns of."""
    shutil.copytree(trained.store.root, tmp_path / "out")
    copy = sweep(tmp_path / "out", {"ce": {}, "forward": {}}, **QUICK)
    copy.store.warnings = []
    copy.store.warn = copy.store.warnings.append
    return copy


def reproduce(store, *keys, report=lambda result: None, device="cpu", **options):
    """Reproduce these runs."""
    return again.reproduce(
        store,
        keys or store.run_keys(),
        Options(device=device, **options),
        listener=lambda total: contextlib.nullcontext(Listener()),
        report=report,
    )


def key_of(sw, row="ce"):
    return next(spec.key for spec in sw.specs if spec.row == row)


def content(root):
    """Return the bytes of each file of a store."""
    return {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}


# ---- Bit for bit ---------------------------------------------------------------------------------


def test_runs_are_reproduced_bit_for_bit(sw):
    before = content(sw.store.root)
    trainings = []

    results = again.reproduce(
        sw.store,
        sw.store.run_keys(),
        Options(device="cpu"),
        listener=lambda total: contextlib.nullcontext(
            listener(on_epoch=lambda spec, *more: trainings.append(spec.key))
        ),
    )
    assert {result.verdict for result in results} == {Verdict.BITS}
    assert {result.noted for result in results} == {True}
    assert any("ce · Digits symmetric 0.4 · seed 0" in result.name for result in results)
    # They were really trained, each epoch of both.
    assert sorted(trainings) == sorted(2 * sw.store.run_keys())

    # Notes beside the records, and the empty files of locks, are all that was written.
    after = content(sw.store.root)
    assert {path: after[path] for path in before} == before
    assert {path.name for path in set(after) - set(before)} == {"reproduced.json"}
    note = sw.store.note(key_of(sw))
    assert note.code == sw.store.read(key_of(sw)).code
    assert note.compared.epochs == 2
    assert "test_accuracy" in note.compared.columns
    assert "seconds" not in note.compared.columns


def test_what_a_run_has_kept_on_request_is_kept_again(tmp_path, monkeypatch):
    # Otherwise the probabilities of so few are kept in any case.
    monkeypatch.setattr(opinions, "FEW", 0)
    asked = sweep(tmp_path / "out", {"ce": {}}, **QUICK)
    asked.run(save_probabilities=True, record_gradients=True)

    (result,) = reproduce(asked.store)
    assert result.verdict is Verdict.BITS
    assert "measured only now" not in result.detail
    note = asked.store.note(key_of(asked))
    assert "gradient_ce_wrong" in note.compared.columns
    assert "train_probs" in note.compared.arrays


def test_what_only_todays_code_measures_is_named(sw):
    metrics = dict(sw.store.read(key_of(sw)).metrics)
    for name in ("nll", "ece"):
        del metrics[name]
    rewrite(sw.store, key_of(sw), metrics=metrics)

    (result,) = reproduce(sw.store, key_of(sw))
    assert result.verdict is Verdict.BITS
    assert result.detail.endswith("measured only now: ece, nll")


def test_a_run_of_older_code_is_no_longer_stale(sw):
    key = key_of(sw)
    rewrite(sw.store, key, code="0123456789abcdef")
    assert base.state(sw.specs, sw.store, sw.methods, "keep").stale == {key}
    assert "*" in nlbench.table(sw.store.root)

    (result,) = reproduce(sw.store, key)
    assert result.verdict is Verdict.BITS
    assert "made by another version of the code" in result.detail
    assert base.state(sw.specs, sw.store, sw.methods, "rerun").todo == []
    assert "*" not in nlbench.table(sw.store.root).replace("**", "")


def test_a_run_of_a_cpu_is_trained_on_a_cpu_where_there_is_a_gpu(sw, monkeypatch):
    asked = []
    monkeypatch.setattr(base, "pick_devices", lambda names: asked.append(names) or ("device",))
    monkeypatch.setattr(again, "_train", lambda specs, options, devices, *more: None)
    key = key_of(sw)
    environment = {**sw.store.read(key).environment, "device": "cuda"}
    rewrite(sw.store, key, environment=environment)

    for options, expected in (("auto", ["auto", "cpu"]), ("cuda:1", ["cuda:1"])):
        asked.clear()
        reproduce(sw.store, device=options)
        assert sorted(set(asked)) == expected


def test_a_run_with_strong_views_of_the_first_version_is_refused(tmp_path):
    condition = Condition("cifar10", "clean", {"kind": "symmetric", "rate": 0.4})
    spec = RunSpec("disc", "disc", {}, condition, "f", resolve("cifar", "cifar10"), 0)
    files = SimpleNamespace(damage=())
    record = SimpleNamespace(status="done", spec=spec.identity(), key=spec.key)
    source = Source(Files(), registry.method_files([]), Places(tmp_path, tmp_path), {}, {})

    with pytest.raises(SuiteError, match=r"disc uses strong views.* of version 1.*nlbench run"):
        spec_of(files, record, source)


def test_a_store_that_cannot_be_written_is_only_read(sw, monkeypatch):
    def refuse(folder, note):
        raise OSError(30, "Read-only file system", str(folder))

    monkeypatch.setattr(again.reproduced, "write_note", refuse)
    (result,) = reproduce(sw.store, key_of(sw))

    assert (result.verdict, result.noted) == (Verdict.BITS, False)
    assert "the note cannot be written (Read-only file system)" in sw.store.warnings[0]


# ---- Differences ---------------------------------------------------------------------------------


def test_a_changed_value_is_found(sw):
    def change(history):
        history[1]["loss"] = "0.25"

    rewrite(sw.store, key_of(sw), history=change)
    (result,) = reproduce(sw.store, key_of(sw))

    assert result.verdict is Verdict.DIFFERS
    assert "first difference: epoch 1, loss: 0.25 in the record," in result.detail
    assert not result.noted
    assert sw.store.note(key_of(sw)) is None


def test_a_changed_metric_is_found(sw):
    key = key_of(sw)
    metrics = {**sw.store.read(key).metrics, "last": 0.99}
    rewrite(sw.store, key, metrics=metrics)

    (result,) = reproduce(sw.store, key)
    assert result.verdict is Verdict.DIFFERS
    assert "metrics.last: 0.99 in the record" in result.detail


def test_other_hardware_has_a_tolerance(sw):
    key = key_of(sw)
    environment = {**sw.store.read(key).environment, "torch": "1.0"}

    def change(history):
        history[1]["loss"] = "0.25"

    rewrite(sw.store, key, history=change, environment=environment)
    (result,) = reproduce(sw.store, key)
    assert result.verdict is Verdict.WITHIN
    assert "torch 1.0 -> " in result.detail
    assert "3 standard errors of a difference on 400 test images" in result.detail

    note = sw.store.note(key)
    assert note.outcome == "within the tolerance"
    assert note.accuracies.recorded == note.accuracies.again
    # It is no reproduction bit for bit, so a stale record stays stale.
    assert not sw.store.reproduced_under(key, note.code)


def test_a_note_that_proves_wrong_is_set_aside(sw):
    key = key_of(sw)

    def change(history):
        history[1]["loss"] = "0.25"

    reproduce(sw.store, key)
    good = sw.store.note(key)
    rewrite(sw.store, key, history=change)
    again.reproduced.write_note(
        sw.store.run_dir(key), good.model_copy(update={"record": sw.store.check(key).checksum})
    )
    assert sw.store.reproduced_under(key, good.code)

    reproduce(sw.store, key)
    assert sw.store.note(key) is None
    assert "was not reproduced this time; set aside" in " ".join(sw.store.warnings)


# ---- What cannot be tried ------------------------------------------------------------------------


def untried(store, key, **options):
    """Return why a run cannot be tried."""
    (result,) = reproduce(store, key, **options)
    assert result.verdict is Verdict.UNTRIED
    assert not result.noted
    return result.detail


def test_damaged_files_are_named(sw):
    folder = sw.store.run_dir(key_of(sw))
    (folder / "history.csv").unlink()
    assert "history.csv: it is missing" in untried(sw.store, key_of(sw))

    (folder / "record.json").write_text("{")
    assert "record.json: it is not a record" in untried(sw.store, key_of(sw))


def test_other_data_are_named(sw, tmp_path):
    spec = {**sw.store.read(key_of(sw)).spec, "fingerprint": "another"}
    key = write_as(sw.store, key_of(sw), spec)
    assert "the data of digits are not those of the record" in untried(sw.store, key)


def write_as(store, key, spec):
    """Write the files of a run as those of another one, with this spec, and return its key."""
    record = store.read(key).model_copy(update={"spec": spec, "key": spec_key(spec)})
    store.write(record, [{"epoch": 0}], {})
    return record.key


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"dataset": "folder:birds"}, "the folder of the dataset 'folder:birds'"),
        (
            {"noise": {"kind": "matrix", "sha256": "ab" * 32}},
            "the file of the matrix noise with sha256:abab",
        ),
        ({"told": {"T": "sha256:" + "cd" * 32}}, "the file of T with sha256:cdcd"),
        ({"dataset": "cifar10"}, "cifar10"),
        ({"dataset": "no-such-data"}, "unknown dataset 'no-such-data'"),
        ({"noise": {"kind": "no-such-noise"}}, "unknown kind of noise 'no-such-noise'"),
        ({"noise": {}}, "unknown kind of noise None"),
        ({"method": "no-such-method"}, "there is no method 'no-such-method' here"),
        ({"schema": 2}, "its key is of version 2"),
        ({"params": None}, "spec.params: must be a mapping"),
        ({"further": 1}, "spec.further"),
        ({"seed": -1}, "spec.seed: must be at least 0"),
    ],
)
def test_what_is_missing_is_named(sw, tmp_path, changes, reason):
    spec = {**sw.store.read(key_of(sw)).spec, **changes}
    key = write_as(sw.store, key_of(sw), spec)

    assert reason in untried(sw.store, key, data_dir=tmp_path / "none")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model": "no-such-model"}, "no-such-model"),
        ({"weights": "sha256:" + "ef" * 32}, "the file of weights with sha256:efef"),
        ({"lr": -1.0}, "spec.protocol.lr: must be greater than 0"),
        ({"colour": "red"}, "spec.protocol.colour"),
    ],
)
def test_what_is_wrong_with_a_protocol_is_named(sw, changes, reason):
    spec = sw.store.read(key_of(sw)).spec
    spec = {**spec, "protocol": {**spec["protocol"], **changes}}
    assert reason in untried(sw.store, write_as(sw.store, key_of(sw), spec))


def test_a_run_that_failed_cannot_be_tried(sw):
    key = key_of(sw)
    rewrite(sw.store, key, status="failed", metrics={}, error={"message": "ValueError: no"})
    assert "the run has failed (ValueError: no)" in untried(sw.store, key)


def test_a_method_that_fails_now_is_named(sw, monkeypatch):
    def fail(*args, **kwargs):
        raise ValueError("out of luck")

    monkeypatch.setattr("nlbench.training.train.train_epoch", fail)
    assert "its training failed: ValueError: out of luck" in untried(sw.store, key_of(sw))


MINE = """class Mine(Method):
    def loss(self, logits, batch):
        return F.cross_entropy(logits, batch.labels)
"""


def test_the_file_of_a_method_that_a_plan_names_is_not_executed(tmp_path):
    own = tmp_path / "own"
    own.mkdir()
    method = own / "mine.py"
    method.write_text(METHOD_HEADER + MINE)
    sw = sweep(tmp_path / "out", {"mine": {}}, methods_dir=own, epochs=1, subset=200)
    sw.run()
    method.write_text("raise SystemExit('executed')")

    detail = untried(sw.store, key_of(sw, "mine"))
    assert f"the suite's plan says that it was in {str(method)!r}" in detail
    assert "--methods-dir" in detail

    method.write_text(METHOD_HEADER + MINE)
    (result,) = reproduce(sw.store, key_of(sw, "mine"), methods_dir=own)
    assert result.verdict is Verdict.BITS


def test_a_suite_says_where_files_lie(tmp_path):
    (tmp_path / "T.csv").write_text("\n".join(",".join(row) for row in matrix()))
    suite = {
        "name": "matrix",
        "protocol": "digits",
        "datasets": [
            {"name": "digits", "noise": {"kind": "matrix", "path": str(tmp_path / "T.csv")}}
        ],
        "methods": {"ce": {}},
        "seeds": [0],
        "overrides": {"epochs": 1, "subset": 200},
    }
    nlbench.run(suite, out=tmp_path / "out", device="cpu", progress=False)
    frame = nlbench.reproduce(tmp_path / "out", device="cpu", progress=False)
    assert "the file of the matrix noise" in frame["detail"].iloc[0]

    (tmp_path / "s.yaml").write_text(json.dumps(suite))
    frame = nlbench.reproduce(
        tmp_path / "out", suite_file=tmp_path / "s.yaml", device="cpu", progress=False
    )
    assert list(frame["verdict"]) == ["reproduced bit for bit"]


def matrix():
    """Return a transition matrix of ten classes as text."""
    for i in range(10):
        yield ["0.7" if i == j else "0.3" if j == (i + 1) % 10 else "0" for j in range(10)]


# ---- Which runs ----------------------------------------------------------------------------------


def test_a_draw_is_the_same_each_time_and_grows(sw):
    everything = draw.choose(sw.store, [], sample=None)
    assert sorted(everything) == sw.store.run_keys()
    assert draw.choose(sw.store, [], sample=1) == everything[:1]
    orders = {tuple(draw.choose(sw.store, [], sample=None, seed=seed)) for seed in range(10)}
    assert len(orders) == 2


def test_keys_are_given_by_their_first_characters(sw):
    keys = sw.store.run_keys()
    assert draw.choose(sw.store, [keys[0][:6], keys[0]], sample=3) == [keys[0]]
    with pytest.raises(StoreError, match="begins no run"):
        draw.choose(sw.store, ["x"], sample=3)
    with pytest.raises(StoreError, match="begins 2 runs"):
        draw.choose(sw.store, [""], sample=3)
    with pytest.raises(SuiteError, match="unknown suite"):
        draw.choose(sw.store, [], sample=3, suite="nothing")


def test_runs_that_failed_are_not_drawn(sw):
    for key in sw.store.run_keys():
        rewrite(sw.store, key, status="failed", metrics={}, error={"message": "ValueError: no"})
    with pytest.raises(StoreError, match="no run is finished"):
        draw.choose(sw.store, [], sample=3)


def test_results_are_reported_before_an_interruption(sw):
    ended, reported = [], []

    def stop(spec):
        if ended:
            raise KeyboardInterrupt
        ended.append(spec)

    with pytest.raises(KeyboardInterrupt):
        again.reproduce(
            sw.store,
            sw.store.run_keys(),
            Options(device="cpu"),
            listener=lambda total: contextlib.nullcontext(listener(on_start=stop)),
            report=reported.append,
        )
    assert [result.verdict for result in reported] == [Verdict.BITS]


def test_the_python_interface_returns_a_frame(sw):
    keys = [key_of(sw)[:8]]
    with pytest.raises(TypeError, match="sample must be an integer from 1 on"):
        nlbench.reproduce(sw.store.root, sample="3")

    frame = nlbench.reproduce(sw.store.root, keys=keys, device="cpu", progress=False)
    assert list(frame.index) == [key_of(sw)]
    assert frame.iloc[0][["method", "dataset", "seed", "noted"]].tolist() == [
        "ce",
        "digits",
        0,
        True,
    ]
