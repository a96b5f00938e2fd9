"""What holds for every method file: arguments, resumes, extreme logits, and what it leaves alone.

The settings and refused values are in cases.py. Each method's formula and rules have a file of
their own.
"""

import copy
import inspect
import math
import re
from typing import Literal, get_args, get_origin

import lab
import pytest
import torch
from cases import (
    CASES,
    CLASSES,
    DECLARED,
    EXTREME,
    NEVER_NEGATIVE,
    REFUSED,
)
from lab import make_batch, make_logits, make_task, train, value_and_grad
from torch import nn

from nlbench import registry
from nlbench.method import Method

# Classes without an example leave the helper network's T close to singular, which does not matter.
pytestmark = pytest.mark.filterwarnings("ignore:backward. the inverse of T")

all_methods = pytest.mark.parametrize("name", CLASSES)
all_cases = pytest.mark.parametrize("case", CASES, ids=str)
# Methods that are only a loss can be given logits directly.
LOSSES = [
    case
    for case in CASES
    if case.cls.loss is not Method.loss and case.cls.training_step is Method.training_step
]
all_losses = pytest.mark.parametrize("case", LOSSES, ids=str)


def assert_same(a, b):
    """Check that two modules have equal state dicts, bit for bit."""
    ours, theirs = a.state_dict(), b.state_dict()
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert torch.equal(value, theirs[name]), name


def assert_finite(module):
    """Check that no weight and no buffer of a module is NaN or infinite."""
    for name, value in module.state_dict().items():
        assert value.isfinite().all(), name


def predictions(method, run):
    """Return the (N, C) logits of the training examples, as an evaluation computes them."""
    for module in (method, *run.networks):
        module.eval()
    with torch.no_grad():
        return method.predict(run, run.images.rows)


# ---- The file and its arguments ------------------------------------------------------------------


@all_methods
def test_docstring_names_paper(name):
    doc = inspect.getdoc(inspect.getmodule(CLASSES[name])) or ""
    assert re.search(r"arXiv:\d{4}\.\d{4,5}|doi:10\.|https://", doc)
    assert re.search(r"\b(19|20)\d\d\b", doc)


@all_methods
def test_hyperparameters_have_plain_types_and_defaults_of_that_type(name):
    for p in registry.hyperparameters(CLASSES[name]).values():
        if get_origin(p.annotation) is Literal:
            assert p.default in get_args(p.annotation)
        else:
            assert p.annotation in (bool, int, float, str)
            assert type(p.default) is p.annotation


@all_methods
def test_non_finite_numbers_are_refused_by_name(name):
    for p in registry.hyperparameters(CLASSES[name]).values():
        if p.annotation is not float:
            continue
        for value in (math.nan, math.inf, -math.inf):
            with pytest.raises(ValueError, match=rf"^{p.name} must be .*, got {value}$"):
                CLASSES[name](make_task(), **{p.name: value})


@all_methods
def test_a_value_that_is_none_of_the_choices_is_refused_with_all_of_them(name):
    for p in registry.hyperparameters(CLASSES[name]).values():
        if get_origin(p.annotation) is not Literal:
            continue
        choices = get_args(p.annotation)
        wrong = "none of them" if isinstance(choices[0], str) else max(choices) + 1
        with pytest.raises(ValueError, match=rf"^{p.name} must be .*, got {wrong!r}$") as caught:
            CLASSES[name](make_task(), **{p.name: wrong})
        for choice in choices:
            assert repr(choice) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "parameter", "value", "range_"),
    [(name, *refused) for name, several in REFUSED.items() for refused in several],
)
def test_values_out_of_range_are_refused(name, parameter, value, range_):
    message = f"{parameter} must be {range_}, got {value}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        CLASSES[name](make_task(), **{parameter: value})


def test_every_number_with_a_range_has_a_refused_value():
    """A float that only must be finite has none but those of the test above."""
    for name, refused in REFUSED.items():
        covered = [parameter for parameter, _, _ in refused]
        for p in registry.hyperparameters(CLASSES[name]).values():
            # `init` has no range: any finite number is accepted.
            if p.annotation is float and p.name != "init":
                assert p.name in covered, name


@pytest.mark.parametrize(("name", "declared"), DECLARED.items())
def test_privileged_information_and_networks_are_as_declared(name, declared):
    method = CLASSES[name](make_task(told={}))
    assert (method.told, method.num_networks) == declared


# ---- Trainings -----------------------------------------------------------------------------------


@all_cases
def test_resumed_training_equals_uninterrupted(case):
    epochs = case.make_task().epochs
    whole, whole_run = case.start()
    train(whole, whole_run, range(epochs))
    parts = [whole, *whole_run.networks]

    for part in parts:
        assert_finite(part)
    # The training went through the phases that the case is about.
    assert case.reached(whole)

    for stop in case.stops:
        first, first_run = case.start()
        train(first, first_run, range(stop))
        # A resume begins with other weights, and `prepare` sees those.
        method, run = case.start(seed=11)
        lab.load(method, run, lab.save(first, first_run))
        train(method, run, range(stop, epochs))
        assert run.step == whole_run.step
        for a, b in zip([method, *run.networks], parts, strict=True):
            assert_same(a, b)
        assert torch.equal(predictions(method, run), predictions(whole, whole_run))


@all_losses
def test_state_alone_decides_the_next_loss(case):
    trained, run = case.start()
    train(trained, run, range(5))
    other, _ = case.start(seed=11)
    other.load_state_dict(trained.state_dict())
    task = run.task
    logits = make_logits(16, task.num_classes, "early").float()
    batch = make_batch(task, torch.arange(16))

    loss, grad = value_and_grad(trained, logits, batch)
    other_loss, other_grad = value_and_grad(other, logits, batch)
    assert torch.equal(loss, other_loss)
    assert torch.equal(grad, other_grad)


@all_cases
def test_labels_and_batches_are_left_alone(case):
    method, run = case.start()
    labels, shown = run.task.labels.clone(), []
    make = run.batch

    def batch(index, *views):
        made = make(index, *views)
        tensors = [made.labels, made.index, made.images, index]
        shown.append((tensors, [tensor.clone() for tensor in tensors]))
        return made

    run.batch = batch
    train(method, run, range(run.task.epochs))

    assert torch.equal(run.task.labels, labels)
    assert len(shown) >= run.task.epochs
    for tensors, before in shown:
        for a, b in zip(tensors, before, strict=True):
            assert torch.equal(a, b)


@all_losses
def test_logits_are_left_alone(case):
    method, run = case.start()
    method.on_epoch_start(run, 0)
    C = run.task.num_classes
    logits, index = make_logits(16, C, "early").float().requires_grad_(), torch.randperm(40)[:16]
    batch = make_batch(run.task, index)
    before = [t.detach().clone() for t in (logits, batch.labels, index)]
    method.loss(logits, batch).mean().backward()
    if method.loss_and_grad is not None:
        method.loss_and_grad(logits.detach(), batch)

    for now, then in zip((logits, batch.labels, index), before, strict=True):
        assert torch.equal(now, then)


@all_cases
def test_a_task_of_one_example_trains(case):
    task = case.make_task(N=1)
    method = case.make_method(task)
    networks = [nn.Sequential(nn.Linear(6, task.num_classes)) for _ in range(method.num_networks)]
    before = copy.deepcopy(networks)
    run = lab.make_run(task, networks=networks)
    method.prepare(run)
    train(method, run, range(task.epochs))

    for network, old in zip(networks, before, strict=True):
        assert network[0].weight.isfinite().all()
        assert not torch.equal(network[0].weight, old[0].weight)


@all_losses
def test_a_batch_of_one_gets_a_gradient(case):
    method, run = case.start()
    method.on_epoch_start(run, 0)
    logits = torch.randn(1, run.task.num_classes)
    loss, grad = value_and_grad(method, logits, make_batch(run.task, torch.tensor([3])))
    assert loss.isfinite()
    assert grad.abs().sum() > 0


@pytest.mark.parametrize(
    "case", [case for case in LOSSES if case.cls.loss_and_grad is not None], ids=str
)
def test_the_fast_form_equals_the_loss(case):
    slow, run = case.start()
    slow.on_epoch_start(run, 0)
    fast = copy.deepcopy(slow)
    logits, batch = make_logits(16, 10, "late").float(), make_batch(run.task, torch.arange(16))

    for _ in range(3):
        loss, grad = value_and_grad(slow, logits, batch)
        losses, dlogits = fast.loss_and_grad(logits, batch)
        torch.testing.assert_close(losses.mean(), loss)
        torch.testing.assert_close(dlogits, grad)

    for a, b in zip(slow.buffers(), fast.buffers(), strict=True):
        assert torch.equal(a, b)


# ---- Given logits --------------------------------------------------------------------------------


def extreme_logits(labels, C):
    """Return (16, C) logits, confident and hopeless, with gaps of up to 400 between two of them."""
    logits = torch.zeros(8, C)
    logits[0, 0], logits[1, 1], logits[2] = 200.0, -200.0, 200.0
    logits[3, labels[3]], logits[4, labels[4]] = 200.0, -200.0
    # A gap of 400: probabilities are 0 and 1 exactly.
    logits[5] = -200.0
    logits[5, labels[5]] = 200.0
    logits[6] = 200.0
    logits[6, labels[6]] = -200.0
    logits[7] = torch.linspace(-200, 200, C)
    return torch.cat([logits, -logits])


def on_tables(case, tables, task):
    """Make a method and a run whose networks give these logits, whatever is learnt; and the losses.

    Returns: method, run, and a list of (loss, gradients) that each step adds to.
    """
    method = case.make_method(task)
    networks = [nn.Sequential(lab.Table(tables[i].clone())) for i in range(method.num_networks)]
    run = lab.make_run(task, networks=networks, lr=0.0, images=lab.Names(task.num_train))
    method.prepare(run)
    steps, take = [], run.backward_step

    def backward_step(loss, *names, **through):
        # As in training, the backward pass is not under autocast. That would round the products of
        # a head's layers, whatever the forward pass did.
        with torch.autocast("cpu", enabled=False):
            take(loss, *names, **through)
        grads = [p.grad.clone() for p in (*run.networks.parameters(),) if p.grad is not None]
        steps.append((loss.detach().clone(), grads))

    run.networks = nn.ModuleList(networks)
    run.backward_step = backward_step
    return method, run, steps


def class_counts(case):
    """List numbers of classes. ELR+ weighs labels with 100, and VolMinNet is slow with 1000."""
    return {"elr-plus": [2, 10, 100, 1000], "volminnet": [2, 10, 300]}.get(case.name, [2, 10, 1000])


@pytest.mark.parametrize(
    ("case", "C"),
    [(case, C) for case in [*CASES, *EXTREME] for C in class_counts(case)],
    ids=str,
)
def test_finite_at_extreme_logits(case, C):
    """In each phase of a training, with networks that keep their logits."""
    task = case.make_task(N=16, C=C)
    logits = extreme_logits(task.labels, C)
    method, run, steps = on_tables(case, (logits, logits.flip(0)), task)
    train(method, run, range(task.epochs))

    assert steps
    for loss, grads in steps:
        assert loss.isfinite()
        for grad in grads:
            assert grad.isfinite().all()
        if case.name in NEVER_NEGATIVE:
            # Rounding in float32 may leave a loss of 0 just below it.
            assert loss > -1e-5

    assert_finite(method)


@all_cases
def test_autocast_does_not_coarsen_the_loss(case):
    task = case.make_task(N=16)
    tables = [make_logits(16, task.num_classes, "late", seed).float() for seed in (1, 2)]
    results = []

    for inside in (False, True):
        torch.manual_seed(0)
        method, run, steps = on_tables(case, tables, task)
        with torch.autocast("cpu", torch.bfloat16, enabled=inside):
            train(method, run, range(task.epochs))
        results.append(steps)

    assert len(results[0]) >= task.epochs / 2
    for (plain, plain_grads), (loss, grads) in zip(*results, strict=True):
        assert loss.dtype == torch.float32
        torch.testing.assert_close(loss, plain, rtol=1e-6, atol=1e-7)
        torch.testing.assert_close(grads, plain_grads, rtol=1e-6, atol=1e-7)
