"""TensorBoard, Weights & Biases and MLflow: what they keep of runs, read back with their tools."""

import contextlib
import importlib.util
import math
import struct

import pytest
from watchers import metrics_of, record_of, run_of

from nlbench.watching.choice import channel_of

OTHER = "fedcba9876543210"


def needs(package):
    """Skip a test where a package is not installed."""
    return pytest.mark.skipif(
        importlib.util.find_spec(package) is None,
        reason=f"the package {package} is not installed",
    )


@contextlib.contextmanager
def logger(text, out):
    """Yield an opened logger, which must have had no trouble at the end."""
    channel = channel_of(text, out)
    channel.start()
    channel.wait_until_open()
    yield channel
    channel.close(60)
    assert channel.trouble == ""


def log_in_two_pieces(text, out):
    """Log two runs: one at once, and one whose command was killed and has continued.

    The second command gets one epoch again that the first had logged, and not the last one.
    """
    run, other = run_of(), run_of(OTHER, row="ce | <b>$x$</b>\n../..", seed=1)
    with logger(text, out) as channel:
        channel.begin(run, fresh=True)
        channel.begin(other, fresh=True)
        for epoch in (0, 1, 2):
            channel.epoch(run, epoch, metrics_of(epoch))
            channel.epoch(other, epoch, metrics_of(epoch))
        failed = record_of(OTHER, status="failed", metrics={}, error={"message": "KeyError: 'x'"})
        channel.ended(other, failed, [])

    history = [metrics_of(epoch) for epoch in range(4)]
    with logger(text, out) as channel:
        channel.begin(run, fresh=False)
        channel.epoch(run, 2, metrics_of(2))
        channel.ended(run, record_of(), history)


def train_again(text, out):
    """Log a run that trains again from its first epoch, with other numbers."""
    with logger(text, out) as channel:
        channel.begin(run_of(), fresh=True)
        channel.epoch(run_of(), 0, {"epoch": 0, "loss": math.nan})
        channel.ended(run_of(), record_of(status="diverged", metrics={"last": None}), [])


LOSSES = [(0, 2.0), (1, 1.75), (2, 1.5), (3, 1.25)]

# --- TensorBoard ----------------------------------------------------------------------------------


def scalars(folder, key):
    """Return the points of each curve that TensorBoard shows of a run."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (run,) = folder.glob(f"*/*/*-{key}")
    events = EventAccumulator(str(run)).Reload()
    return {
        name: [(event.step, event.value) for event in events.Scalars(name)]
        for name in events.Tags()["scalars"]
    }


@pytest.mark.story
@needs("tensorboard")
def test_tensorboard_has_each_epoch_once(tmp_path):
    folder = tmp_path / "logs"
    log_in_two_pieces(f"tensorboard:{folder}", tmp_path / "store")

    found = scalars(folder, run_of().key)
    assert found["loss"] == LOSSES
    assert "val_accuracy" not in found
    assert found["result/last"] == [(4, 0.75)]
    assert [step for step, _ in scalars(folder, OTHER)["loss"]] == [0, 1, 2]
    # Nothing of the hostile name has become a folder of its own.
    assert len(list(folder.glob("*/*/*"))) == 2

    train_again(f"tensorboard:{folder}", tmp_path / "store")
    ((step, loss),) = scalars(folder, run_of().key)["loss"]
    assert step == 0
    assert math.isnan(loss)


@pytest.mark.story
@needs("tensorboard")
def test_tensorboard_has_the_settings_of_a_run(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    with logger("tensorboard", tmp_path) as channel:
        channel.begin(run_of(), fresh=True)
        channel.ended(run_of(), record_of(), [])

    (folder,) = (tmp_path / "tensorboard").glob("*/*/*")
    events = EventAccumulator(str(folder)).Reload()
    content = events.PluginTagToContent("hparams")["_hparams_/session_start_info"]
    settings = HParamsPluginData.FromString(content).session_start_info.hparams
    assert settings["params.lam"].number_value == 3.0
    assert settings["method"].string_value == "elr"
    text = events.Tensors("run/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "noise.rate: 0.4" in text


# --- Weights & Biases -----------------------------------------------------------------------------


def wandb_records(file):
    """Yield the records of a .wandb file, which has the layout of LevelDB's log."""
    from wandb.proto import wandb_internal_pb2

    data = file.read_bytes()
    assert data[:4] == b":W&B"
    place, whole = 7, b""
    while place + 7 <= len(data):
        # The rest of a block of 32 KiB that has no room for a header is empty.
        room = 32768 - place % 32768
        if room < 7:
            place += room
            continue
        _, length, kind = struct.unpack_from("<IHB", data, place)
        whole += data[place + 7 : place + 7 + length]
        place += 7 + length
        # Whole, or the last part.
        if kind in (1, 4):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(whole)
            yield record
            whole = b""


def wandb_runs(folder, key):
    """Return the runs, curves of the loss and last statuses in all sessions of a run, in order."""
    runs, losses, statuses, summary = [], [], [], {}
    for file in sorted(folder.glob(f"wandb/offline-run-*/run-{key}.wandb")):
        for record in wandb_records(file):
            kind = record.WhichOneof("record_type")
            if kind == "run":
                runs.append(record.run)
            elif kind == "exit":
                statuses.append(record.exit.exit_code)
            elif kind == "history":
                items = {"/".join(i.nested_key) or i.key: i.value_json for i in record.history.item}
                losses.append((int(items["_step"]), float(items["loss"])))
            elif kind == "summary":
                for item in record.summary.update:
                    summary[item.key] = item.value_json
    return runs, losses, statuses, summary


@pytest.mark.story
@needs("wandb")
def test_wandb_has_each_epoch_once(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.delenv("WANDB_DIR", raising=False)
    log_in_two_pieces("wandb:noisy", tmp_path)

    runs, losses, statuses, summary = wandb_runs(tmp_path, run_of().key)
    assert losses == LOSSES
    # The first command was stopped.
    assert statuses == [1, 0]
    assert summary["result/last"] == "0.75"
    run = runs[-1]
    assert (run.run_id, run.project, run.job_type) == (run_of().key, "noisy", "elr")
    assert run.display_name == "elr · Digits symmetric 0.4 · seed 0"
    assert {"elr", "digits", "two"} <= set(run.tags)
    config = {item.key: item.value_json for item in run.config.update}
    assert '"lam":3' in config["params"].replace(" ", "")

    _, losses, statuses, summary = wandb_runs(tmp_path, OTHER)
    assert len(losses) == 3
    assert statuses == [1]
    assert "KeyError" in summary["error"]


@needs("wandb")
def test_wandb_begins_a_run_anew_that_trains_from_its_first_epoch(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.delenv("WANDB_DIR", raising=False)
    with logger("wandb:noisy", tmp_path) as channel:
        channel.begin(run_of(), fresh=True)
        channel.epoch(run_of(), 0, metrics_of(0))
        channel.begin(run_of(), fresh=True)
        channel.epoch(run_of(), 0, metrics_of(1))

    _, losses, _, _ = wandb_runs(tmp_path, run_of().key)
    assert losses == [(0, 2.0), (0, 1.75)]


@needs("wandb")
def test_wandb_without_a_login_is_refused_before_anything_is_trained(tmp_path, monkeypatch):
    from nlbench.errors import UserError

    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path))
    monkeypatch.delenv("NETRC", raising=False)
    channel = channel_of("wandb:noisy", tmp_path)
    channel.start()
    with pytest.raises(UserError, match="wandb login"):
        channel.wait_until_open()
    channel.close(10)


# --- MLflow ---------------------------------------------------------------------------------------


def check_mlflow(address, tmp_path):
    """Log runs to the MLflow at an address, and compare what it has."""
    from mlflow import MlflowClient

    log_in_two_pieces(f"mlflow:{address}", tmp_path)

    client = MlflowClient(address)
    place = [client.get_experiment_by_name("nlbench").experiment_id]
    runs = {run.data.tags["nlbench.key"]: run for run in client.search_runs(place)}
    assert set(runs) == {run_of().key, OTHER}
    run, other = runs[run_of().key], runs[OTHER]
    history = client.get_metric_history(run.info.run_id, "loss")
    assert sorted((point.step, point.value) for point in history) == LOSSES
    assert (run.info.status, other.info.status) == ("FINISHED", "FAILED")
    assert run.data.metrics["result/last"] == 0.75
    assert run.data.params["params.lam"] == "3.0"
    assert run.data.tags["condition"] == "Digits symmetric 0.4"
    assert run.info.run_name == "elr · Digits symmetric 0.4 · seed 0"
    assert "KeyError" in other.data.tags["nlbench.error"]

    train_again(f"mlflow:{address}", tmp_path)
    (run,) = client.search_runs(place, f"tags.`nlbench.key` = '{run_of().key}'")
    assert run.data.tags["nlbench.status"] == "diverged"
    (point,) = client.get_metric_history(run.info.run_id, "loss")
    assert math.isnan(point.value)


@pytest.mark.story
@needs("mlflow")
def test_mlflow_has_each_epoch_once_in_files(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    check_mlflow(f"file:{tmp_path / 'mlruns'}", tmp_path)


@pytest.mark.story
@needs("mlflow")
@needs("sqlalchemy")
def test_tasks_that_begin_together_use_one_new_database(tmp_path):
    channels = [channel_of(f"mlflow:sqlite:///{tmp_path / 'mlflow.db'}", tmp_path) for _ in "abc"]
    for channel in channels:
        channel.start()
    for channel in channels:
        channel.wait_until_open()
    for channel in channels:
        channel.close(60)
    assert [channel.trouble for channel in channels] == ["", "", ""]


@needs("mlflow")
def test_a_database_without_the_whole_package_names_the_fix(tmp_path, monkeypatch):
    import mlflow

    from nlbench.errors import UserError
    from nlbench.watching.loggers import mlflow as logger

    def refused(address):
        raise ModuleNotFoundError("No module named 'sqlalchemy'")

    monkeypatch.setattr(mlflow, "MlflowClient", refused)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'nlbench\[mlflow\]'"):
        logger.MLflow(f"sqlite:///{tmp_path / 'mlflow.db'}", "tests")


@pytest.mark.story
@needs("mlflow")
@needs("sqlalchemy")
def test_mlflow_has_each_epoch_once_in_sqlite(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    check_mlflow(f"sqlite:///{tmp_path / 'mlflow.db'}", tmp_path)
