"""Where two trainings of one run differ first, and whether that is allowed."""

import copy
import io
import pickle
import zipfile

import numpy as np
import pytest
from made_up import ARRAYS, EPOCHS, record_of, write_run

from nlbench.results.comparison import Verdict, compare
from nlbench.results.numbers import RunNumbers, first_difference, read_numbers
from nlbench.results.rounding import DECIDING, tolerance
from nlbench.results.store import Store


def numbers(history=EPOCHS, arrays=ARRAYS, environment=None, **parts):
    """Return the numbers of a made-up run."""
    epochs = []
    for epoch in history:
        epochs.append({name: str(value) for name, value in epoch.items() if name != "seconds"})
    # Copied without checks, so that any key can have another value.
    record = record_of(**parts)
    there = {**record.environment, **(environment or {})}
    record = record.model_copy(update={"environment": there})
    return RunNumbers(record, epochs, {name: np.array(array) for name, array in arrays.items()})


def changed(place, value):
    """Return the history with one value changed."""
    history = copy.deepcopy(EPOCHS)
    epoch, name = place
    history[epoch][name] = value
    return history


# ---- The first difference ------------------------------------------------------------------------


def test_numbers_are_read_without_the_columns_of_the_clock(tmp_path):
    store = Store(tmp_path)
    key = write_run(store)
    read = read_numbers(store.run_dir(key), store.read(key))

    assert read.columns == ["epoch", "loss", "test_accuracy"]
    assert first_difference(read, numbers(), complete=True) is None
    assert first_difference(numbers(), read, complete=True) is None


@pytest.mark.parametrize(
    ("other", "place", "values"),
    [
        ({"history": changed((1, "loss"), 1.25)}, "epoch 1, loss", ("1.5", "1.25")),
        ({"history": changed((0, "loss"), 2.0)}, "epoch 0, loss", ("2.5", "2.0")),
        ({"history": EPOCHS[:1]}, "history.csv", ("2 epochs", "1 epochs")),
        ({"metrics": {"last": 0.75, "best": 0.5}}, "metrics.best", ("0.75", "0.5")),
        ({"status": "diverged"}, "status", ("done", "diverged")),
        ({"error": {"epoch": 1, "step": 9}}, "error", ("epoch None, step None", "epoch 1, step 9")),
        ({"noise": {"labels_hash": "m"}}, "the given labels (labels_hash)", ("l", "m")),
        (
            {"arrays": {**ARRAYS, "test": [1, 2, 3, 0]}},
            "predictions.npz, test, entry 2 (2 of 4 differ)",
            ("0", "3"),
        ),
        (
            {"arrays": {**ARRAYS, "test": [1, 2, 0]}},
            "predictions.npz, test",
            ("int64 (4,)", "int64 (3,)"),
        ),
    ],
)
def test_the_first_difference_is_named(other, place, values):
    found = first_difference(numbers(), numbers(**other))

    assert (found.place, (found.one, found.other)) == (place, values)


def test_an_array_is_compared_by_its_bits():
    one = {"x": np.array([0.0, np.nan], "float32")}
    assert first_difference(numbers(arrays=one), numbers(arrays=copy.deepcopy(one))) is None

    other = {"x": np.array([-0.0, np.nan], "float32")}
    assert "entry 0" in first_difference(numbers(arrays=one), numbers(arrays=other)).place


def test_a_number_written_in_another_way_is_the_same():
    assert first_difference(numbers(), numbers(changed((0, "loss"), "2.50"))) is None


def test_what_only_one_has_counts_where_everything_must_be_there():
    more = [{**epoch, "val_accuracy": 0.5} for epoch in EPOCHS]
    arrays = {**ARRAYS, "train": [1, 1]}
    metrics = {"last": 0.75, "best": 0.75, "val_last": 0.5}
    for extra in ({"history": more}, {"arrays": arrays}, {"metrics": metrics}):
        assert first_difference(numbers(**extra), numbers()) is None
        # Today's code may measure more than the record has, and not less.
        assert first_difference(numbers(), numbers(**extra), complete=True) is None
        assert first_difference(numbers(**extra), numbers(), complete=True).other == "missing"


# ---- Files that cannot be read -------------------------------------------------------------------


def write_members(path, **members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)


def npy(array):
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


class Bomb:
    def __reduce__(self):
        return open, ("/tmp/nlbench-was-executed", "w")


@pytest.mark.parametrize(
    "members",
    [
        {"test": npy(np.array([Bomb()], dtype=object))},
        {"test": b"\x93NUMPY\x01\x00"},
        {"test": pickle.dumps(1)},
        {"test": npy(np.zeros(3)).replace(b"(3,), }         ", b"(3000000000,), }")},
    ],
)
def test_predictions_that_cannot_be_read_are_named(tmp_path, members):
    store = Store(tmp_path)
    key = write_run(store)
    path = store.run_dir(key) / "predictions.npz"
    write_members(path, **members)

    with pytest.raises(ValueError, match=r"predictions\.npz: cannot be read"):
        read_numbers(store.run_dir(key), record_of())


@pytest.mark.parametrize("text", ["epoch,loss\n0\n", "epoch\n0,1\n", 'epoch\n"0', "\udc80"])
def test_a_history_that_cannot_be_read_is_named(tmp_path, text):
    store = Store(tmp_path)
    key = write_run(store)
    path = store.run_dir(key) / "history.csv"
    path.write_bytes(text.encode(errors="surrogateescape"))

    with pytest.raises(ValueError, match=r"history\.csv"):
        read_numbers(store.run_dir(key), record_of())


# ---- The verdict ---------------------------------------------------------------------------------

OTHER_LOSS = changed((1, "loss"), 1.25)


def test_on_the_same_hardware_the_numbers_must_be_the_same():
    found = compare(numbers(), numbers())
    assert found.verdict is Verdict.BITS
    assert found.detail.startswith("2 epochs with 3 columns each, 3 arrays")

    found = compare(numbers(), numbers(OTHER_LOSS))
    assert found.verdict is Verdict.DIFFERS
    assert "epoch 1, loss: 1.5 in the record, 1.25 now" in found.detail
    assert "hardware and versions are the same" in found.detail


@pytest.mark.parametrize("key", sorted(DECIDING))
def test_elsewhere_the_accuracy_must_lie_within_the_tolerance(key):
    there = {"environment": {key: "other"}}
    near = compare(numbers(), numbers(OTHER_LOSS, **there))
    assert near.verdict is Verdict.WITHIN
    assert f"{DECIDING[key]} " in near.detail
    assert "-> other" in near.detail

    far = compare(numbers(), numbers(OTHER_LOSS, metrics={"last": 0.6, "best": 0.75}, **there))
    assert far.verdict is Verdict.DIFFERS
    assert "last epoch 75.00% in the record, 60.00% now" in far.detail
    assert "9.94 points are allowed (3 standard errors" in far.detail


def test_other_hardware_that_gives_the_same_numbers_reproduces_bit_for_bit():
    assert compare(numbers(), numbers(environment={"torch": "3"})).verdict is Verdict.BITS


@pytest.mark.parametrize(
    "key", ["nlbench", "python", "platform", "jobs", "cuda_graphs", "whole_steps"]
)
def test_what_does_not_decide_the_rounding_allows_no_tolerance(key):
    found = compare(numbers(), numbers(OTHER_LOSS, environment={key: "other"}))
    assert found.verdict is Verdict.DIFFERS


def test_an_environment_that_was_not_recorded_is_not_the_same():
    environment = {**record_of().environment}
    del environment["kernels"]
    old = numbers()
    old = RunNumbers(
        old.record.model_copy(update={"environment": environment}), old.history, old.arrays
    )
    found = compare(old, numbers(OTHER_LOSS))

    assert found.verdict is Verdict.WITHIN
    assert "not recorded -> avx2" in found.detail

    # What neither has may differ, too.
    new = numbers(OTHER_LOSS)
    new.record.environment.pop("kernels")
    assert "not recorded -> not recorded" in compare(old, new).detail


@pytest.mark.parametrize(
    ("other", "why"),
    [
        ({"noise": {"labels_hash": "m", "num_test": 400}}, "the given labels are not the same"),
        ({"arrays": {**ARRAYS, "labels": [1, 1]}}, "or their given labels, are not the same"),
        ({"arrays": {**ARRAYS, "train_index": [0, 2]}}, "the training images, or their"),
        ({"status": "diverged", "metrics": {}}, "the run was done, and is diverged now"),
    ],
)
def test_no_tolerance_is_for_labels_and_status(other, why):
    found = compare(numbers(), numbers(environment={"torch": "3"}, **other))

    assert found.verdict is Verdict.DIFFERS
    assert why in found.detail


def test_two_trainings_that_diverged_elsewhere_are_within_the_tolerance():
    parts = {"status": "diverged", "metrics": {}}
    one = numbers(error={"epoch": 1, "step": 3}, **parts)
    other = numbers(error={"epoch": 1, "step": 4}, environment={"torch": "3"}, **parts)

    assert compare(one, other).verdict is Verdict.WITHIN
    assert compare(one, numbers(error={"epoch": 1, "step": 4}, **parts)).verdict is Verdict.DIFFERS


def test_the_tolerance_is_three_standard_errors_of_a_difference():
    # sqrt(2 * 0.9 * 0.1 / 10000) = 0.0042
    assert tolerance(0.9, 0.9, 10_000) == pytest.approx(3 * 0.00424264, rel=1e-5)
    assert tolerance(1.0, 1.0, 400) == 0
