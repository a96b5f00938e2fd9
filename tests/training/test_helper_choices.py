"""What a method may choose about a helper network: examples, held-out examples, weights, pace."""

import lab
import numpy as np
import pytest
import torch
from sweeps import method_file
from sweeps import sweep as sweep_in

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
    ):
        found.append(Wanted("k", "ce", 2, **choice).changes())
    found.append(Wanted("k", print, 2, paced=True).changes())
    for i, one in enumerate(found):
        assert one
        assert one not in found[:i]


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"keep": "first"}, "keep must be 'best' or 'last', got 'first'"),
        ({"paced": True}, 'paced is for a loss of your own, but the loss is "ce"'),
        ({"examples": torch.arange(0)}, "examples holds no position"),
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
