"""Counts over the training steps: changed predictions, LabelWave, margins, gradients."""

import numpy as np
import pytest
import torch
from stops import options_of, train_in_pieces
from sweeps import history, method_file, outcome, predictions, sweep
from torch.nn import functional

from nlbench.errors import MethodError
from nlbench.executors.base import Listener
from nlbench.method import Batch, Task
from nlbench.registry import load_method, method_files
from nlbench.results.summary import CHANGES, COMPARED, labelwave_epoch, summarise
from nlbench.training import opinions
from nlbench.training.counters import GradientEntries, PredictionChanges
from nlbench.training.examples import GivenLosses, rounded
from nlbench.training.run_data import load_data
from nlbench.training.train import train


def batch_of(index, labels):
    index = torch.tensor(index)
    return Batch(torch.empty(0), labels[index], index, lambda index, k: index)


def shows(classes, number=3):
    """Return logits that predict these classes."""
    return functional.one_hot(torch.tensor(classes), number).float()


# ---- Changed predictions -------------------------------------------------------------------------


def test_changes_are_counted_among_what_two_epochs_have_seen():
    labels = torch.zeros(4, dtype=torch.int64)
    changes = PredictionChanges(labels)
    nothing = {CHANGES: None, COMPARED: None}

    changes.add(shows([0, 1]), batch_of([0, 1], labels))
    changes.add(shows([2]), batch_of([2], labels))
    # The first epoch has nothing to compare with.
    assert changes.take() == nothing
    # Example 3 is new, example 2 is missing, and the second pass over example 1 counts.
    changes.add(shows([0, 2]), batch_of([0, 1], labels))
    changes.add(shows([1, 0]), batch_of([1, 3], labels))
    assert changes.take() == {CHANGES: 0, COMPARED: 2}
    changes.add(shows([1, 1]), batch_of([3, 1], labels))
    assert changes.take() == {CHANGES: 1, COMPARED: 2}
    # An epoch without logits is compared with neither of its neighbours.
    assert changes.take() == nothing
    changes.add(shows([0]), batch_of([1], labels))
    assert changes.take() == nothing


def test_a_checkpoint_holds_the_predictions():
    labels = torch.zeros(3, dtype=torch.int64)
    one, other = PredictionChanges(labels), PredictionChanges(labels)
    one.add(shows([0, 1, 2]), batch_of([0, 1, 2], labels))
    one.take()
    one.add(shows([1, 1]), batch_of([0, 1], labels))
    other.load_state_dict({name: value.clone() for name, value in one.state_dict().items()})
    for counter in (one, other):
        counter.add(shows([0]), batch_of([2], labels))
    assert one.take() == other.take() == {CHANGES: 2, COMPARED: 3}


def epochs_of(*changes, compared=10):
    """Return a history with these changes; the first epoch has none."""
    found = [{"test_accuracy": 0.0, CHANGES: None, COMPARED: None}]
    for place, count in enumerate(changes, start=1):
        number = None if count is None else compared
        found.append({"test_accuracy": place / 100, CHANGES: count, COMPARED: number})
    return found


@pytest.mark.parametrize(
    ("changes", "epoch"),
    [
        # Means 6, 5, 4, 5: the lowest before the rise is that of epochs 3 to 5.
        ([8, 6, 4, 5, 3, 7], 5),
        # A single high value does not stop a curve that falls.
        ([9, 7, 5, 6, 3, 2], 6),
        # A mean that stays the same is no rise.
        ([4, 5, 3, 4, 5, 9], 5),
        # It rises from the beginning.
        ([1, 2, 3, 4], 3),
        # It never rises: the training goes on to its end.
        ([9, 8, 7, 6], 4),
        # Too short for the mean, or nearly so.
        ([9, 8], None),
        ([9, 8, 7], 3),
        # After the minimum a gap does no harm, and before it nobody knows.
        ([8, 6, 4, 9, None, 1], 3),
        ([8, 6, 4, None, 5, 9, 9, 9], None),
        ([None, None, None, None], None),
    ],
)
def test_labelwave_selects_the_first_local_minimum(changes, epoch):
    epochs = epochs_of(*changes)
    assert labelwave_epoch(epochs) == epoch

    found = summarise(epochs, ["test"])
    assert found["labelwave_epoch"] == epoch
    assert found["labelwave"] == (None if epoch is None else epochs[epoch]["test_accuracy"])


def test_labelwave_takes_shares_where_an_epoch_holds_a_part_of_the_examples():
    epochs = epochs_of(8, 6, 4, 2, 1)
    assert labelwave_epoch(epochs) == 5
    # Fewer change in the last two epochs, and they are all of those that were compared.
    for place in (-1, -2):
        epochs[place].update({CHANGES: 2, COMPARED: 2})
    assert labelwave_epoch(epochs) == 4
    # Records of earlier versions have no such columns.
    assert "labelwave" not in summarise([{"test_accuracy": 0.5}], ["test"])


# ---- Margins -------------------------------------------------------------------------------------


def test_the_mean_margin_by_hand():
    labels = torch.tensor([0, 2, 1])
    losses = GivenLosses(labels)
    logits = torch.tensor([[2.0, -1.0, 0.5], [4.0, 1.0, 3.0]])
    losses.add(logits, batch_of([0, 1], labels))
    losses.add(logits, batch_of([1, 0], labels))
    # Example 0: 2 - 0.5 and 4 - 3; example 1: 3 - 4 and 0.5 - 2; example 2 was never seen.
    np.testing.assert_array_equal(losses.margin(), np.float32([1.25, -1.25, np.nan]))


def test_rounded_numbers_keep_twelve_bits():
    values = np.random.default_rng(0).normal(size=10_000).astype("float32") * 30
    found = rounded(values)
    assert found.dtype == np.float32
    assert np.abs(found / values - 1).max() <= 2**-12
    assert (found.view("uint32") & 0xFFF == 0).all()
    odd = np.float32([0, -0.0, np.inf, -np.inf, np.nan, 1, 0.9999999])
    np.testing.assert_array_equal(rounded(odd), np.float32([0, 0, np.inf, -np.inf, np.nan, 1, 1]))


# ---- Gradients -----------------------------------------------------------------------------------


def elr(labels, classes=3, **params):
    task = Task(len(labels), classes, labels, epochs=1, steps_per_epoch=1, batch_size=8)
    return load_method(method_files()["elr"])(task, **params)


def test_the_parts_of_elr_add_up_to_the_gradient_of_its_step():
    generator = torch.Generator().manual_seed(0)
    labels = torch.tensor([0, 2, 1, 1])
    method = elr(labels, lam=3.0)
    logits = torch.randn(4, 3, generator=generator)
    batch = batch_of([2, 0, 3, 1], labels)
    _, dlogits = method.loss_and_grad(logits, batch)
    _, dlogits = method.loss_and_grad(logits, batch)
    before = method.targets.clone()

    parts = method.gradient_parts(logits, batch)
    assert torch.equal(method.targets, before)
    torch.testing.assert_close(sum(parts.values()), 4 * dlogits)
    # Against autograd, in float64 and from the formula.
    z = logits.double().requires_grad_()
    p = z.softmax(1)
    t = method.targets[batch.index].double()
    (3 * (1 - (t * p).sum(1)).log().sum()).backward()
    torch.testing.assert_close(parts["regulariser"].double(), z.grad, rtol=1e-4, atol=1e-6)


def test_the_entries_at_the_true_class_are_taken_apart_by_label():
    labels, clean = torch.tensor([0, 1, 2, 0]), torch.tensor([0, 2, -1, 1])
    method = load_method(method_files()["ce"])(Task(4, 3, labels, 1, 1, 4))
    entries = GradientEntries(method, labels, clean)
    p = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.2, 0.2, 0.6], [0.5, 0.4, 0.1]])
    assert entries.take() == {}
    entries.add(p.log(), batch_of([0, 1, 2, 3], labels))
    # Example 0 is labelled right: 0.7 - 1. The true classes of 1 and 3 have 0.3 and 0.4. That of
    # example 2 is unknown.
    found = entries.take()
    assert found == pytest.approx({"gradient_ce_clean": -0.3, "gradient_ce_wrong": 0.35})
    assert entries.take() == {"gradient_ce_clean": None, "gradient_ce_wrong": None}


def test_gradients_are_recorded_on_request_and_change_nothing(tmp_path):
    without, recorded = (sweep(tmp_path / str(i), {"elr": {}}, subset=300) for i in range(2))
    train_here(without)
    train_here(recorded, record_gradients=True)

    (key,) = (spec.key for spec in recorded.specs)
    names = {f"gradient_{p}_{g}" for p in ("ce", "regulariser") for g in ("clean", "wrong")}
    found = history(recorded.store, key)
    assert set(found[0]) - set(history(without.store, key)[0]) == names
    last = found[-1]
    found = [{k: v for k, v in line.items() if k not in names} for line in found]
    assert found == history(without.store, key)
    assert predictions(recorded.store, key) == predictions(without.store, key)
    # A wrong label pushes the true class down, and the regulariser pushes it up.
    assert float(last["gradient_ce_wrong"]) > 0 > float(last["gradient_ce_clean"])
    assert float(last["gradient_regulariser_wrong"]) < 0


def asked_for_gradients(folder, rows):
    """Run a sweep with --record-gradients, and return what the user is told."""
    lines = []
    sw = sweep(folder, rows, subset=100, epochs=1)
    sw.store.warn = lines.append
    sw.run(record_gradients=True)
    return "\n".join(lines)


def test_rows_without_gradients_are_named_where_they_are_asked_for(tmp_path):
    rows = {"elr": {}, "elr-plus": {}, "mae": {}}
    sweep(tmp_path / "out", rows, subset=100, epochs=1).run()
    told = asked_for_gradients(tmp_path / "out", rows)
    assert "--record-gradients: elr-plus, mae have no columns of gradients" in told
    # Nothing is lost of the rows that never have any.
    assert "1 run was trained before without --record-gradients" in told

    assert "gradient" not in asked_for_gradients(tmp_path / "new", {"elr": {}})
    assert "gradient" not in asked_for_gradients(tmp_path / "new", {"elr": {}})


def test_a_method_that_tells_no_parts_apart_has_none():
    labels = torch.tensor([0, 1])
    method = load_method(method_files()["mae"])(Task(2, 3, labels, 1, 1, 2))
    entries = GradientEntries(method, labels, labels)
    entries.add(torch.zeros(2, 3), batch_of([0, 1], labels))
    assert entries.take() == {}


def test_a_part_of_another_shape_ends_the_run():
    labels = torch.tensor([0, 1])
    method = elr(labels)
    entries = GradientEntries(method, labels, labels)
    for wrong in ([1], {"ce": torch.zeros(2)}, {"c e": torch.zeros(2, 3)}, {"ce": "x"}):
        method.gradient_parts = lambda logits, batch, wrong=wrong: wrong
        with pytest.raises(MethodError, match="gradient_parts"):
            entries.add(torch.zeros(2, 3), batch_of([0, 1], labels))


# ---- A run that stops ends the same --------------------------------------------------------------


def test_gradients_of_a_run_in_pieces_are_those_of_one_in_one_piece(tmp_path, monkeypatch):
    import stops

    def options_with(sw, **options):
        return options_of(sw, record_gradients=True, **options)

    monkeypatch.setattr(stops, "options_of", options_with)
    small = {"subset": 200, "batch_size": 32, "epochs": 3}
    whole, pieces = (sweep(tmp_path / name, {"elr": {}}, **small) for name in ("whole", "pieces"))
    steps = train_in_pieces(whole, 10**9).steps
    assert train_in_pieces(pieces, 5).steps == steps
    assert outcome(pieces) == outcome(whole)
    assert "gradient_ce_wrong" in history(pieces.store, pieces.specs[0].key)[0]


def test_a_run_that_goes_on_with_gradients_has_them_from_then_on(tmp_path, monkeypatch):
    import stops

    sw = sweep(tmp_path, {"elr": {}}, subset=200, batch_size=32, epochs=4)
    (spec,) = sw.specs
    stopper = stops.Stopper()
    stopper.stop_after = 17
    data = load_data(spec, sw.data_dir)
    with pytest.raises(stops.Stopped):
        train(spec, data, options_of(sw), sw.store, stopper)
    train(spec, data, options_of(sw, record_gradients=True), sw.store, stops.Listener())
    found = [line["gradient_ce_clean"] for line in history(sw.store, spec.key)]
    assert found[:2] == ["", ""]
    assert all(float(value) < 0 for value in found[2:])


# ---- The method's own opinion, and probabilities -------------------------------------------------


def arrays_of(sw, row):
    spec = next(spec for spec in sw.specs if spec.row == row)
    with np.load(sw.store.run_dir(spec.key) / "predictions.npz") as file:
        return {name: file[name] for name in file.files}


OWN = {
    # The default is the buffer `targets`, of which the first row says nothing.
    "targets": (
        "self.register_buffer('targets', torch.tensor([[0.0, 0.0], [1.0, 3.0], [2.0, 0.0]]))",
        "",
        ([np.nan, 0.75, 1.0], [-1, 1, 0]),
    ),
    "weights": ("", "return torch.tensor([0.5, 0.0, 1.0])", ([0.5, 0.0, 1.0], None)),
    "the same": ("", "return torch.ones(3)", None),
    "booleans": ("", "return torch.tensor([True, False, True])", ([1.0, 0.0, 1.0], None)),
    "integers": (
        "",
        "return torch.tensor([[1, 3], [0, 0], [2, 0]])",
        ([0.75, np.nan, 1.0], [1, -1, 0]),
    ),
    "nothing": ("", "return None", None),
    "nothing of any": ("", "return torch.zeros(3, 2)", None),
    "other targets": ("self.targets = torch.zeros(3)", "", None),
}
BAD = {
    "return torch.zeros(4)": "returned (4,) float32 and no tensor (3,) or (3, 2)",
    "return torch.tensor([0.5, 2.0, 0.0])": "numbers above 1",
    "return torch.tensor([0.5, -1.0, 0.0])": "negative numbers",
    "return [0.5]": "no tensor",
    "raise KeyError('u')": "raised KeyError: 'u'",
    "import sys; sys.exit(3)": "raised SystemExit: 3",
    # Nothing can be computed with it.
    "return torch.empty(3, device='meta')": "own_labels raised",
    "return torch.eye(3)[:, :2].to_sparse()": "own_labels raised",
}


def judged_by(folder, built="", own=""):
    """Return a method of three examples in two classes, with this line and this hook."""
    body = f"""
    class Judge(Method):
        def __init__(self, task):
            super().__init__(task)
            {built or "pass"}

        def loss(self, logits, batch):
            return logits.sum()
    """
    if own:
        body += f"""
        def own_labels(self):
            {own}
    """
    method_file(folder, "judge", body)
    labels = torch.tensor([1, 1, 0])
    return load_method(method_files([folder])["judge"])(Task(3, 2, labels, 1, 1, 3))


@pytest.mark.parametrize("kind", OWN)
def test_what_a_method_says_of_the_given_labels(tmp_path, kind):
    built, own, expected = OWN[kind]
    arrays, problem = opinions.own_arrays(judged_by(tmp_path / "m", built, own))
    assert problem == ""
    if expected is None:
        assert arrays == {}
        return
    scores, suggested = expected
    np.testing.assert_array_equal(arrays["own_score"], np.float32(scores))
    if suggested is None:
        assert "own_label" not in arrays
    else:
        assert arrays["own_label"].tolist() == suggested


@pytest.mark.parametrize("own", BAD)
def test_an_opinion_that_cannot_be_kept_loses_no_run(tmp_path, own):
    arrays, problem = opinions.own_arrays(judged_by(tmp_path / "m", own=own))
    assert arrays == {}
    assert problem.startswith("own_labels")
    assert BAD[own] in problem


def test_shipped_methods_say_what_they_have(tmp_path):
    rows = {
        "ce": {}, "elr": {}, "elr-plus": {}, "sop": {"lr_u": 1000.0}, "disc": {},
        "gce": {"truncate": True, "start_share": 0.5, "k": 0.1}, "cores2": {"sieve_share": 0.5},
    }  # fmt: skip
    sw = sweep(tmp_path, rows, epochs=4, subset=300)
    sw.run()
    for row in rows:
        kept = arrays_of(sw, row)
        assert ("own_label" in kept) == (row in ("elr", "elr-plus"))
        assert ("own_score" in kept) == (row != "ce")
        if row == "ce":
            continue
        scores = kept["own_score"]
        assert ((scores >= 0) & (scores <= 1)).all()
        assert len(np.unique(scores)) > 1
    # A label that elr's targets do not suggest has less than half of their sum.
    kept = arrays_of(sw, "elr")
    assert (kept["own_score"][kept["own_label"] != kept["labels"]] <= 0.5).all()


def test_probabilities_are_kept_where_they_are_few_or_asked_for(tmp_path, monkeypatch):
    few, many, asked = (
        sweep(tmp_path / name, {"ce": {}}, epochs=1, val_fraction=0.1)
        for name in ("few", "many", "asked")
    )
    few.run()
    monkeypatch.setattr(opinions, "FEW", 100)
    for sw, options in ((many, {}), (asked, {"save_probabilities": True})):
        train_here(sw, **options)

    names = {"train_probs", "test_probs", "val_probs", "val_index"}
    assert not names & arrays_of(many, "ce").keys()
    kept = arrays_of(asked, "ce")
    assert names <= kept.keys()
    for name, array in arrays_of(few, "ce").items():
        assert np.array_equal(array, kept[name], equal_nan=array.dtype.kind == "f")

    for part, count in (("train", "labels"), ("test", "test"), ("val", "val_index")):
        probs = kept[f"{part}_probs"]
        assert (probs.dtype, probs.shape) == (np.float16, (len(kept[count]), 10))
        np.testing.assert_allclose(probs.astype("float64").sum(1), 1, atol=5e-3)
    own = kept["train_probs"][np.arange(len(kept["labels"])), kept["labels"]]
    np.testing.assert_allclose(own, kept["train_prob"], rtol=1e-3, atol=1e-6)
    assert not set(kept["val_index"]) & set(kept["train_index"])
    right = kept["test"] == kept["test_labels"]
    record = asked.store.read(asked.specs[0].key)
    assert right.mean() == pytest.approx(record.metrics["last"])


def train_here(sw, **options):
    """Train the only run of a sweep in this process."""
    (spec,) = sw.specs
    sw.store.require_writable()
    data = load_data(spec, sw.data_dir)
    train(spec, data, options_of(sw, **options), sw.store, Listener())
