"""Where an epoch is a balanced part of the examples, what methods fit and count is of that part."""

import pytest
import torch
from cases import CLASSES
from lab import make_run, make_task, train

from nlbench.training.evaluate import predict_all


def started(name, epochs=8, **params):
    """In its sixth epoch of 24 of 60 examples; task.labels are far from balanced."""
    task = make_task(N=60, C=3, epochs=epochs, batch_size=8, told={"noise_rate": 0.2})
    task.labels[:40] = 0
    method = CLASSES[name](task, **params)
    run = make_run(task, method.num_networks, epoch_size=24)
    method.prepare(run)
    train(method, run, range(5))
    run.begin_epoch(5)
    return method, run


def test_the_part_of_an_epoch():
    run = make_run(make_task(N=60, C=3), epoch_size=24)
    run.begin_epoch(2)
    part = run.part()
    assert part.tolist() == sorted(run.order().tolist())
    assert len(part) == 24
    assert make_run(make_task()).part() is None
    everything = predict_all(run.networks[0], run.images)
    torch.testing.assert_close(run.predict_train(run.networks[0], part), everything[part])


def test_dividemix_fits_the_mixture_to_the_part():
    method, run = started("dividemix", warmup_share=1 / 8)
    before, part = method.clean.clone(), run.part()
    others = torch.ones(60, dtype=torch.bool)
    others[part] = False
    method.clean.fill_(-1.0)
    method.on_epoch_start(run, 5)

    assert (method.clean[:, others] == -1).all()
    assert ((method.clean[:, part] >= 0) & (method.clean[:, part] <= 1)).all()
    assert before.shape == method.clean.shape


def test_pes_weighs_the_classes_of_the_part():
    method, run = started("pes", t1_share=1 / 8, t2_share=1 / 8)
    method.on_epoch_start(run, 5)
    part = run.part()
    right = run.predict_train(run.networks[0], part).argmax(1) == run.task.labels[part]
    assert torch.equal(method.kept[part], right)
    counts = run.task.labels[part][right].bincount(minlength=3).double()
    expected = torch.where(counts > 0, (counts[counts > 0].mean() / counts).clamp(max=3.0), 0.0)
    torch.testing.assert_close(method.class_weights.double(), expected, rtol=1e-6, atol=0)


def test_cores2_takes_the_prior_of_the_part():
    method, run = started("cores2")
    method.kept.fill_(True)
    method.on_epoch_end(run, 5)
    counts = run.task.labels[run.part()].bincount(minlength=3)
    assert counts.max() - counts.min() < 5  # of all examples: more than 30
    assert method.prior.tolist() == pytest.approx((counts / 24).tolist())


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_every_method_trains_on_parts(name):
    if name in ("forward", "backward"):
        pytest.skip("they differ from ce by their loss alone")
    method, run = started(name)
    train(method, run, range(5, 8))
    assert all(p.isfinite().all() for network in run.networks for p in network.parameters())
