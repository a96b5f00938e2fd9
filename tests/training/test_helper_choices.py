"""What a method may choose about a helper network: examples, held-out examples, weights, pace."""

import math

import helper_networks
import lab
import numpy as np
import pytest
import torch
from sweeps import method_file
from sweeps import sweep as sweep_in
from torch.nn import functional as F

from nlbench import code_hash
from nlbench.training.evaluate import predict_all
from nlbench.training.helper import HelperMethod, Wanted, hold_out


def test_it_trains_on_the_chosen_examples_that_are_not_held_out():
    task = lab.make_task(N=40)
    run = lab.make_run(task)
    wanted = Wanted("k", "ce", 2, torch.tensor([3, 5, 7, 9]), torch.tensor([9, 11]))
    kept, images, labels = hold_out(run, 0, wanted)
    assert kept.nonzero().squeeze(1).tolist() == [3, 5, 7]
    assert torch.equal(images.rows, run.images.rows[[9, 11]])
    assert torch.equal(labels, task.labels[[9, 11]])

    run.begin_epoch(0)
    batches = list(HelperMethod(task, wanted.loss_at, kept).batches(run, 0))
    assert sorted(torch.cat([batch.index for batch in batches]).tolist()) == [3, 5, 7]


def test_to_hold_out_every_example_is_refused():
    run = lab.make_run(lab.make_task(N=40))
    wanted = Wanted("k", "ce", 2, torch.arange(3), torch.arange(5))
    with pytest.raises(ValueError, match="held_out holds all examples, so that none is trained on"):
        hold_out(run, 0, wanted)


@pytest.mark.parametrize("validation", [False, True])
def test_without_chosen_held_out_examples_the_usual_ones_are(validation):
    task = lab.make_task(N=40)
    run = lab.make_run(task, validation=validation)
    kept, _, labels = hold_out(run, 0, Wanted("k", "ce", 2, examples=torch.arange(30)))
    everything, _, usual = hold_out(run, 0, Wanted("k", "ce", 2))
    assert torch.equal(labels, usual)
    assert torch.equal(kept, everything & (torch.arange(40) < 30))


def test_a_paced_loss_gets_the_epoch():
    task = lab.make_task(N=40)

    def loss(logits, batch, epoch):
        return logits.sum() + epoch

    wanted = Wanted("k", loss, 3, paced=True)
    method = HelperMethod(task, wanted.loss_at, torch.ones(40, dtype=torch.bool))
    for epoch in range(3):
        method.on_epoch_start(None, epoch)
        assert float(method.loss(torch.zeros(1), None)) == epoch
        assert float(wanted.loss_at(epoch)(torch.zeros(1), None)) == epoch


def test_choices_change_the_name_of_the_result_and_defaults_do_not():
    assert Wanted("k", "ce", 2).changes() == {}
    found = []
    for choice in (
        {"examples": torch.arange(5)},
        {"examples": torch.arange(6)},
        {"held_out": torch.arange(5)},
        {"keep": "last"},
        {"keep": "best-accuracy"},
        {"start": torch.nn.Linear(2, 3)},
        {"start": torch.nn.Linear(2, 3)},
    ):
        found.append(Wanted("k", "ce", 2, **choice).changes())
    found.append(Wanted("k", print, 2, paced=True).changes())
    found.append(Wanted("k", print, 2, keep="best-accuracy", scores=abs).changes())
    for i, one in enumerate(found):
        assert one
        assert one not in found[:i]


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        (
            {"keep": "first"},
            r"keep must be one of \['best', 'best-accuracy', 'last'\], got 'first'",
        ),
        ({"scores": abs}, "scores is for keep=\"best-accuracy\", but keep is 'best'"),
        (
            {"scores": abs, "keep": "best-accuracy"},
            'scores is for a loss of your own, but the loss is "ce"',
        ),
        ({"paced": True}, 'paced is for a loss of your own, but the loss is "ce"'),
        ({"examples": torch.arange(0)}, "examples holds no position"),
        ({"examples": torch.ones(9, dtype=torch.bool)}, r"of a mask take mask.nonzero\(\)"),
        ({"held_out": torch.arange(0)}, "held_out holds no position"),
    ],
)
def test_choices_that_make_no_sense_are_refused(choices, message):
    with pytest.raises(ValueError, match=message):
        Wanted("k", "ce", 2, **choices)


def test_in_a_whole_run(tmp_path):
    body = """
        class Own(Method):
            def __init__(self, task: Task):
                super().__init__(task)
                self.register_buffer("T", torch.zeros(task.num_classes, task.num_classes))

            def prepare(self, run):
                # The first epoch has the lowest loss, whatever is learnt.
                def rising(logits, batch, epoch):
                    return F.cross_entropy(logits, batch.labels) + 1000 * epoch

                chosen = {"examples": torch.arange(100), "held_out": torch.arange(100, 150)}
                for row, keep in enumerate(("best", "last")):
                    helper = run.fit("own", rising, 3, paced=True, keep=keep, **chosen)
                    self.T[row] = run.predict_train(helper).sum(0)
                self.T[2] = run.predict_train(run.fit("own", "ce", 1, **chosen)).sum(0)

            def loss(self, logits, batch):
                return F.cross_entropy(logits, batch.labels)
    """
    folder = method_file(tmp_path / "m", "own", body)
    sw = sweep_in(tmp_path / "out", {"own": {}}, seeds=(0,), methods_dir=folder, epochs=1)
    sw.run()
    assert sw.failures() == []

    assert len(list((sw.store.root / "fits").glob("*.pt"))) == 3
    (spec,) = sw.specs
    with np.load(sw.store.run_dir(spec.key) / "predictions.npz") as file:
        best, last, other = file["T"][:3]
    assert not np.allclose(best, last)
    # Both begin with the same weights, and the best ones are those after the first epoch.
    assert np.allclose(best, other)


# ---- The weights that are kept -------------------------------------------------------------------


def test_which_epoch_is_preferred():
    best, accurate, last = (Wanted("k", "ce", 9, keep=k) for k in ("best", "best-accuracy", "last"))
    assert best.rank(0, 0.5, 0.1) > best.rank(1, 0.6, 0.9)
    assert accurate.rank(0, 0.5, 0.1) < accurate.rank(1, 0.6, 0.9)
    assert last.rank(0, 0.5, 0.9) < last.rank(1, 0.6, 0.1)
    # Labels that no class predicts are no reason to keep nothing.
    assert accurate.rank(0, 0.5, 0.0) > -math.inf
    for wanted in (best, accurate, last):
        for loss in (math.nan, math.inf):
            assert wanted.rank(8, loss, 1.0) == -math.inf


def cross_entropy(logits, batch):
    return F.cross_entropy(logits, batch.labels)


def test_the_weights_with_the_highest_accuracy_are_kept(tmp_path, monkeypatch):
    task = lab.make_task(N=60, C=4)
    run = helper_networks.run_with(helper_networks.helpers_in(tmp_path, monkeypatch).fit, task)
    seen, numbers_right = [], [3, 9, 5, 9, 2]

    def scores(logits):
        """Let so many of the labels be predicted."""
        predicted = run.val_labels.clone()
        predicted[numbers_right[len(seen)] :] += 1
        seen.append(logits)
        return F.one_hot(predicted % 4, 4)

    network = run.fit("own", cross_entropy, 5, keep="best-accuracy", scores=scores)
    # The first epoch of the two with nine.
    assert torch.equal(predict_all(network, run.val_images), seen[1])
    losses = [float(F.cross_entropy(logits, run.val_labels)) for logits in seen]
    assert losses.index(min(losses)) != 1


def test_scores_of_another_shape_are_refused(tmp_path, monkeypatch):
    run = helper_networks.run_with(
        helper_networks.helpers_in(tmp_path, monkeypatch).fit, lab.make_task(N=40, C=4)
    )
    with pytest.raises(ValueError, match=r"scores must return \(20, 4\).*but returned \(20,\)"):
        run.fit("k", cross_entropy, 1, keep="best-accuracy", scores=lambda z: z.argmax(1))


# ---- The weights that it begins with -------------------------------------------------------------


def weights(network):
    return {name: value.clone() for name, value in network.state_dict().items()}


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], rtol=1e-9, atol=1e-12)


def test_a_helper_goes_on_from_another_one_as_a_plain_training_does(tmp_path, monkeypatch):
    task = lab.make_task(N=60, C=4)
    run = helper_networks.run_with(helper_networks.helpers_in(tmp_path, monkeypatch).fit, task)
    start = run.fit("first", "ce", 3, keep="last")
    before = weights(start)
    network = run.fit("second", "ce", 6, keep="best-accuracy", start=start)

    begun = lab.small_network(task).double()
    begun.load_state_dict(before)
    plain = helper_networks.PlainFit(run, "second", 6, begun)
    plain.train(lambda z, y: F.cross_entropy(z, y, reduction="none"), lambda z: z)
    assert_same(weights(network), plain.kept)
    # The network that it began with is as it was, and with another one the result is another one.
    assert_same(weights(start), before)
    other = run.fit("second", "ce", 6, keep="best-accuracy", start=run.networks[0])
    assert not torch.equal(other[0].weight, network[0].weight)
    assert len(list((tmp_path / "fits").glob("*.pt"))) == 3


def test_averages_of_batch_norm_belong_to_the_start():
    network = lab.small_network(lab.make_task())
    before = Wanted("k", "ce", 2, start=network).changes()
    network[1].running_mean += 1
    assert Wanted("k", "ce", 2, start=network).changes() != before


def test_an_interrupted_helper_with_a_start_goes_on_where_it_was(tmp_path, monkeypatch):
    task, start = lab.make_task(N=60, C=4), lab.small_network(lab.make_task(C=4), 9).double()

    def fitted(folder, hook):
        helpers = helper_networks.helpers_in(tmp_path / folder, monkeypatch, on_fit=hook)
        run = helper_networks.run_with(helpers.fit, task)
        return run.fit("k", "ce", 5, keep="best-accuracy", start=start)

    def stop(spec, epoch, epochs, metrics):
        if epoch == 2:
            raise KeyboardInterrupt

    seen = []
    whole = fitted("whole", lambda *at: None)
    with pytest.raises(KeyboardInterrupt):
        fitted("cut", stop)
    cut = fitted("cut", lambda spec, epoch, *more: seen.append(epoch))
    assert seen == [2, 3, 4]
    assert_same(weights(cut), weights(whole))


def test_a_start_with_other_weights_is_refused(tmp_path, monkeypatch):
    run = helper_networks.run_with(
        helper_networks.helpers_in(tmp_path, monkeypatch).fit, lab.make_task(N=40, C=4)
    )
    with pytest.raises(ValueError, match="start must be one of"):
        run.fit("k", "ce", 1, start=torch.nn.Linear(6, 4))


@pytest.mark.parametrize(
    ("loss", "choices", "key"),
    [
        (
            "ce",
            {},
            "dffaa4fb921d61f1",
        ),
        (cross_entropy, {"keep": "last", "paced": True}, "5b1d726d0f3e519a"),
        ("ce", {"examples": torch.arange(5), "held_out": torch.arange(5, 9)}, "38569ce84d28ae67"),
    ],
)
def test_results_keep_their_names(loss, choices, key, tmp_path, monkeypatch):
    """Names without the code's hash, as they were before `start` and "best-accuracy" came."""
    monkeypatch.setattr(code_hash, "code_hash", lambda *parts: "0" * 16)
    helpers = helper_networks.helpers_in(tmp_path, monkeypatch)
    assert helpers._fit_key(Wanted("k", loss, 2, **choices)) == key
