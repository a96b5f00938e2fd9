"""Runs that are told what their suite gives: an estimated noise rate, an own matrix."""

import numpy as np
import pytest
import torch
from layouts import Folder
from sweeps import NOISY_DIGITS

from nlbench import api
from nlbench.errors import SuiteError
from nlbench.results import table
from nlbench.training.estimate import confident_joint, off_diagonal


@pytest.fixture
def birds(tmp_path, monkeypatch):
    """Return the entry of a folder whose true labels nobody knows."""
    monkeypatch.setenv("NLBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NLBENCH_WORKERS", "0")
    Folder().write_csv(tmp_path / "birds", clean=False)
    return {"name": "folder", "path": str(tmp_path / "birds")}


def prepare(out, entry, methods, protocol="digits", **overrides):
    """Prepare a suite of one dataset and seed."""
    suite = {
        "name": "t", "protocol": protocol, "datasets": [entry], "methods": methods, "seeds": [0],
    }  # fmt: skip
    return api.prepare(suite, out=out, overrides={"epochs": 2, **overrides}, device="cpu")


def on_images(out, entry, methods):
    small = {"model": "cnn3", "precision": "float32", "batch_size": 8}
    return prepare(out, entry, methods, "images-32", **small)


def records(sweep):
    """Train the runs, check that they are done, and return their records by row."""
    sweep.run()
    found = {spec.row: sweep.store.read(spec.key) for spec in sweep.specs}
    for record in found.values():
        assert record.status == "done", record.error
    return found


def test_without_true_labels_the_way_out_is_said(tmp_path, birds):
    said = r"birds has no true training labels.*`noise_rate: 0\.2`.*`noise_rate: estimate`"
    with pytest.raises(SuiteError, match=rf"methods.co-teaching: .*{said}"):
        on_images(tmp_path / "out", birds, {"co-teaching": {}})
    with pytest.raises(SuiteError, match=r"methods.backward: .*`transition: T\.csv`"):
        on_images(tmp_path / "out", birds, {"backward": {"T": True}})


@pytest.mark.parametrize(
    ("entry", "methods"),
    [
        ({"noise_rate": 0.25}, {"co-teaching": {}, "ce": {}}),
        ({}, {"co-teaching": {"noise_rate": 0.25}, "ce": {}}),
    ],
)
def test_the_owner_s_estimate_is_told_and_marked(tmp_path, birds, entry, methods):
    sweep = on_images(tmp_path / "out", {**birds, **entry}, methods)
    found = records(sweep)

    assert found["co-teaching"].method["told_noise_rate"] == 0.25
    assert "told_noise_rate" not in found["ce"].method
    text = table.render(sweep.plan.as_json(), sweep.store)
    assert "| co-teaching [told noise_rate] |" in text
    assert "told noise_rate: co-teaching got the suite's own estimate, 25.00%, and not" in text


@pytest.mark.parametrize(
    ("metric", "said"),
    [
        ("memorised", "memorised cannot be measured here: the true training labels are unknown"),
        ("clean-right", "clean right cannot be measured here: the true training labels are"),
        ("top5", "top-5 cannot be measured here: there are five classes or fewer"),
        ("selected-clean", "cannot be measured here: the dataset has no validation part with true"),
        ("targets", "targets right cannot be measured here: the true training labels are unknown"),
    ],
)
def test_a_metric_that_can_never_be_measured_is_not_awaited(tmp_path, birds, metric, said):
    sweep = on_images(tmp_path / "out", birds, {"ce": {}})
    plan = sweep.plan.as_json()
    assert "cannot be measured" not in table.render(plan, sweep.store, metric=metric)
    records(sweep)
    assert said in table.render(plan, sweep.store, metric=metric)
    assert "cannot be measured" not in table.render(plan, sweep.store, metric="last")


def test_the_rate_is_estimated_once_and_is_the_same_again(tmp_path):
    entry = {**NOISY_DIGITS, "noise_rate": "estimate"}
    sweep = prepare(tmp_path / "a", entry, {"co-teaching": {}, "jocor": {}, "forward": {}})
    found = records(sweep)

    rate = found["co-teaching"].method["told_noise_rate"]
    assert 0 < rate < 1
    assert found["jocor"].method["told_noise_rate"] == rate
    # The helper network is that of `forward`, trained once; each of them counts its seconds.
    assert len(list((tmp_path / "a" / "fits").glob("*.pt"))) == 1
    assert found["jocor"].timing["fits"] == found["forward"].timing["fits"] > 0
    assert found["jocor"].timing["prepare"] >= 0

    again = records(prepare(tmp_path / "b", entry, {"jocor": {}}))["jocor"]
    assert again.method["told_noise_rate"] == rate
    text = table.render(sweep.plan.as_json(), sweep.store)
    said = "co-teaching, jocor got an estimate from the given labels, made by a helper network"
    assert said in text


def test_a_helper_network_that_diverges_ends_the_run_as_diverged(tmp_path):
    entry = {**NOISY_DIGITS, "noise_rate": "estimate"}
    sweep = prepare(tmp_path, entry, {"co-teaching": {}}, lr=1e12)
    sweep.run()
    record = sweep.store.read(sweep.specs[0].key)
    assert record.status == "diverged"
    assert "helper network" in record.error_message


def test_forward_trains_with_the_suite_s_own_matrix(tmp_path):
    own = 0.8 * np.eye(10) + 0.02
    np.savetxt(tmp_path / "T.csv", own, delimiter=",")
    entry = {**NOISY_DIGITS, "transition": str(tmp_path / "T.csv")}
    methods = {"forward": {"T": True}, "backward": {}}
    sweep = prepare(tmp_path / "out", entry, methods)
    found = records(sweep)

    with np.load(sweep.store.run_dir(found["forward"].key) / "predictions.npz") as file:
        assert file["T"] == pytest.approx(own)
        error = abs(file["T"] - file["T_true"]).mean()
        # The true one has shares of labels: each row adds up to 1.
        assert file["T_true"].sum(1) == pytest.approx(np.ones(10))
    assert found["forward"].method["T_mean_absolute_error"] == error > 0
    text = table.render(sweep.plan.as_json(), sweep.store)
    assert "| forward [told T] |" in text.replace("  ", " ")
    assert "- told T: forward got the suite's own matrix (sha256:" in text


def test_a_matrix_that_changes_after_the_suite_was_read_fails_the_run(tmp_path):
    path = tmp_path / "T.csv"
    np.savetxt(path, 0.8 * np.eye(10) + 0.02, delimiter=",")
    entry = {**NOISY_DIGITS, "transition": str(path)}
    sweep = prepare(tmp_path / "out", entry, {"forward": {"T": True}})
    np.savetxt(path, 0.7 * np.eye(10) + 0.03, delimiter=",")

    sweep.run()
    record = sweep.store.read(sweep.specs[0].key)
    assert record.status == "failed"
    assert "T.csv: has changed since the suite was read" in record.error_message


# ---- The estimator -------------------------------------------------------------------------------


def test_the_confident_joint_by_hand():
    # Thresholds: class 0 has the mean of .9 .8 .4, which is .7; class 1 that of .9 .6 .2 is .5667.
    labels = np.array([0, 0, 0, 1, 1, 1])
    first = np.array([0.9, 0.8, 0.4, 0.1, 0.4, 0.8])
    joint = confident_joint(np.stack([first, 1 - first], 1), labels)

    # The third is confident in class 1, the last one in class 0; the others as labelled.
    assert joint == pytest.approx(np.array([[2, 1], [1, 2]]) / 6)
    assert off_diagonal(joint) == pytest.approx(1 / 3)


def test_an_example_below_both_thresholds_does_not_count():
    # Thresholds: .675 of class 0, .775 of class 1. The second and third examples reach neither.
    first = np.array([0.9, 0.45, 0.4, 0.05])
    joint = confident_joint(np.stack([first, 1 - first], 1), np.array([0, 0, 1, 1]))
    assert joint == pytest.approx(np.diag([0.5, 0.5]))


def test_a_class_without_examples_and_one_without_confident_ones():
    probs = np.array([[0.5, 0.3, 0.2], [0.5, 0.3, 0.2]])
    joint = confident_joint(probs, np.array([0, 0]))
    assert joint == pytest.approx(np.diag([1.0, 0, 0]))


def test_a_sure_network_gives_the_true_rate():
    generator = torch.Generator().manual_seed(0)
    clean = torch.randint(4, (1000,), generator=generator).numpy()
    given = np.where(np.arange(1000) % 5 == 0, (clean + 1) % 4, clean)
    probs = np.where(np.arange(4) == clean[:, None], 0.97, 0.01)
    assert off_diagonal(confident_joint(probs, given)) == pytest.approx(0.2, abs=1e-9)
