"""What hooks return is refused in the step that returned it, with the likely fix."""

import re

import numpy as np
import pytest
import torch
from sweeps import method_file, sweep

from nlbench.contract import returned
from nlbench.errors import MethodError


def logits_of(rows=6, classes=4):
    return torch.randn(rows, classes, generator=torch.Generator().manual_seed(0)).requires_grad_()


def refused(function, *args):
    with pytest.raises(MethodError) as caught:
        function(*args)
    return str(caught.value)


# What a loss makes of logits (6, 4), and what the message must say.
WRONG_LOSSES = {
    "a value for each class": (lambda z: z * 1, r"loss returned \(6, 4\).*\.sum\(1\)"),
    "every pair of examples": (
        lambda z: z.sum(1) * z[:, :1],
        r"\(6, 6\).*\(B, 1\) was combined with one of \(B,\)",
    ),
    "a last dimension too many": (lambda z: z[:, :1], r"\(6, 1\).*\.squeeze\(1\)"),
    "a first dimension too many": (lambda z: z.sum(1)[None], r"\(1, 6\).*\.squeeze\(0\)"),
    "one value in brackets": (lambda z: z.mean().reshape(1), r"\(1,\).*\.squeeze\(0\)"),
    "a value for each class of all examples": (
        lambda z: z.mean(0),
        r"\(4,\).*dimension 1 and not 0",
    ),
    "too few examples": (lambda z: z[:5].sum(1), r"\(5,\).*must be 0-d or \(6,\)"),
    "three dimensions": (lambda z: z[None] * z[:, None], r"\(6, 6, 4\)"),
    "nothing": (lambda z: None, "returned None.*`return`"),
    "a number": (lambda z: z.mean().item(), r"a float.*\.item\(\)"),
    "a NumPy number": (lambda z: np.float32(1), r"a float32.*\.numpy\(\)"),
    "an array": (lambda z: z.detach().numpy(), r"a NumPy array \(6, 4\) float32"),
    "two terms": (lambda z: (z.mean(), z.mean()), "a tuple of 2.*add the terms up"),
    "a dict of terms": (lambda z: {"ce": z.mean()}, "a dict of 1"),
    "text": (lambda z: "loss", "returned a str"),
    "integers": (lambda z: z.argmax(1), r"\(6,\) int64.*argmax has no gradient"),
    "booleans": (lambda z: z.sum(1) > 0, r"\(6,\) bool"),
    "complex numbers": (lambda z: z.sum(1) + 1j, r"\(6,\) complex64.*real"),
    "no gradient": (lambda z: z.detach().sum(1), r"has no gradient.*detach\(\)"),
}


@pytest.mark.parametrize("kind", WRONG_LOSSES)
def test_a_wrong_loss_is_refused_with_its_fix(kind):
    wrong, says = WRONG_LOSSES[kind]
    logits = logits_of()
    assert re.search(says, refused(returned.mean_loss, wrong(logits), logits))


def test_a_square_of_as_many_classes_as_examples_names_both_readings():
    message = refused(returned.mean_loss, logits_of(4, 4) * 1, logits_of(4, 4))
    assert ".sum(1)" in message
    assert "(B, 1) was combined" in message


@pytest.mark.parametrize(("shape", "says"), [((1, 4), r"\.sum\(1\)"), ((1, 1), r"\.squeeze\(1\)")])
def test_a_batch_of_one_is_judged_like_the_others(shape, says):
    logits = logits_of(1, 4)
    loss = logits.sum() * torch.ones(shape)
    assert re.search(says, refused(returned.mean_loss, loss, logits))


@pytest.mark.parametrize("rows", [1, 4, 6])
def test_right_losses_give_their_mean(rows):
    logits = logits_of(rows, 4)
    for loss in (logits.sum(1), logits.mean(), logits.double().sum(1), logits.bfloat16().sum(1)):
        assert torch.equal(returned.mean_loss(loss, logits), loss.mean())


WRONG_FAST = {
    "one tensor": (lambda z: z.sum(1), r"loss_and_grad returned \(6,\).*return losses, dlogits"),
    "three tensors": (lambda z: (z.sum(1), z, z), "a tuple of 3"),
    "the mean": (lambda z: (z.mean(), z), r"\(\) float32 and \(6, 4\) float32.*one loss for each"),
    "the gradient of a sum over classes": (lambda z: (z.sum(1), z.sum(1)), r"and \(6,\) float32"),
    "no gradient": (lambda z: (z.sum(1), None), "as its second value, returned None"),
    "a number": (lambda z: (0.5, z), "as its first value, returned a float"),
}


@pytest.mark.parametrize("kind", WRONG_FAST)
def test_a_wrong_fast_form_is_refused(kind):
    wrong, says = WRONG_FAST[kind]
    logits = logits_of().detach()
    assert re.search(says, refused(returned.mean_of_fast_loss, wrong(logits), logits))


def test_what_backward_step_gets_is_checked():
    z = logits_of()
    step = returned.loss_of_step
    assert "got a loss (6,) float32" in refused(step, z.sum(1), None)
    assert "run.backward_step got None" in refused(step, None, None)
    assert "has no gradient" in refused(step, z.detach().mean(), None)
    assert "both must have one shape" in refused(step, z.mean().detach(), (z, z[:3]))
    assert "have no graph" in refused(step, z.mean().detach(), (z.detach(), z))
    assert step(z.mean().detach(), (z, z.detach())) == z.mean()


@pytest.mark.parametrize(
    ("logits", "says"),
    [
        (torch.tensor(0.5), r"training_step returned \(\) float32, which are no logits"),
        (torch.zeros(12, 4), r"\(12, 4\)"),
        (torch.zeros(6, 4, dtype=torch.int64), "floating point"),
        (0.5, "a float"),
    ],
)
def test_logits_of_a_step_are_those_of_its_first_batch(logits, says):
    message = refused(returned.step_logits, logits, 6, 4)
    assert re.search(says, message)
    assert "(6, 4), or nothing" in message


@pytest.mark.parametrize(
    ("logits", "says"),
    [
        (None, "returned None"),
        (torch.zeros(6, dtype=torch.int64), "leave out argmax"),
        (torch.zeros(6, 5), r"\(6, 5\) float32"),
        (torch.zeros(4, 6), r"\(4, 6\) float32"),
        (torch.zeros(6, 4, dtype=torch.int64), "int64"),
        ([torch.zeros(6, 4)], "a list of 1"),
    ],
)
def test_predictions_are_a_row_for_each_image(logits, says):
    assert re.search(says, refused(returned.predicted_logits, logits, 6, 4))


CE = "def loss(self, logits, batch):\n    return F.cross_entropy(logits, batch.labels)"

# A body of a method, and what the message of its failed run must say.
WRONG_METHODS = {
    "a value for each class": (
        "def loss(self, logits, batch):\n"
        "    return -logits.log_softmax(1) * F.one_hot(batch.labels, logits.shape[1])",
        "loss returned (128, 10) float32 for 128 examples and 10 classes",
    ),
    "every pair": (
        "def loss(self, logits, batch):\n"
        "    p = logits.softmax(1).gather(1, batch.labels[:, None])\n"
        "    return torch.ones(len(batch)) * (1 - p)",
        "loss returned (128, 128)",
    ),
    "a plan of indices": (
        f"def batches(self, run, epoch):\n    yield from run.order().split(128)\n{CE}",
        "batches yielded (128,) int64, which the default training_step cannot train on",
    ),
    "no plan": (
        f"def batches(self, run, epoch):\n    run.order()\n{CE}",
        "batches returned None",
    ),
    "a step that returns its loss": (
        "def training_step(self, run, batch):\n"
        "    loss = F.cross_entropy(run.networks[0](batch.images), batch.labels)\n"
        "    run.backward_step(loss)\n"
        "    return loss",
        "training_step returned () float32, which are no logits",
    ),
    "a prediction of classes": (
        "def loss(self, logits, batch):\n"
        "    return F.cross_entropy(logits, batch.labels)\n"
        "def predict(self, run, images):\n"
        "    return run.networks[0](images).argmax(1)",
        "predict must return logits (400, 10) for 400 images, and returned (400,) int64",
    ),
}


@pytest.mark.parametrize("kind", WRONG_METHODS)
def test_a_wrong_hook_fails_the_run(tmp_path, kind):
    body, says = WRONG_METHODS[kind]
    body = "class M(Method):\n" + "".join(f"    {line}\n" for line in body.splitlines())
    folder = method_file(tmp_path / "m", "wrong", body)
    sw = sweep(tmp_path / "out", {"wrong": {}}, methods_dir=folder, epochs=1, subset=200)
    sw.run()
    (record,) = sw.failures()
    assert record.error_message.startswith(f"MethodError: wrong.py: {says}")
    assert "fix: " in record.error_message
