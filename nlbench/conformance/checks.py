"""Checks."""

from __future__ import annotations

import ast
import contextlib
import gc
import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from nlbench import registry
from nlbench.build import typed_value
from nlbench.conformance.advice import Failed
from nlbench.conformance.compare import difference, some, unlike
from nlbench.conformance.lab import Lab
from nlbench.conformance.made_up_data import BATCH, C, N
from nlbench.conformance.resume_causes import OUT_OF_SIGHT, culprits
from nlbench.conformance.snapshot import leaves, shot
from nlbench.conformance.watch import Watch, evaluation_mode
from nlbench.errors import SuiteError
from nlbench.method import Method, Run
from nlbench.training.run_state import RunState


class Skipped(Exception):
    """A check that has nothing to look at."""


Function = Callable[[Lab], str | None]


@dataclass(frozen=True)
class Check:
    """One demand on a method.

    Attributes:
        function: raises Failed or Skipped; may return a remark, which is printed beside "ok".
        needs: names of checks that must be ok first; without them this one cannot be judged.
    """

    name: str
    function: Function
    needs: tuple[str, ...]

    @property
    def claim(self) -> str:
        """What the check demands: the first line of the function's docstring."""
        return (self.function.__doc__ or "").partition("\n")[0]


CHECKS: dict[str, Check] = {}


def check(name: str, *needs: str) -> Callable[[Function], Function]:
    """Add the decorated function to CHECKS, after the checks that it `needs`."""

    def add(function: Function) -> Function:
        CHECKS[name] = Check(name, function, needs)
        return function

    return add


@check("import")
def import_file(lab: Lab) -> None:
    """the file can be imported and holds exactly one Method"""
    try:
        lab.cls  # noqa: B018
    except SuiteError as error:
        lines = str(error).splitlines()
        own = [i for i, line in enumerate(lines) if str(lab.file.path) in line]
        message = "\n".join([lines[0], *(lines[own[-1] :] if len(own) > 1 else lines[1:])])
        if isinstance(error, registry.NotOneMethod):
            message += "\nfix: a method is a public subclass of nlbench.method.Method; rename helpers to begin with _"
        raise Failed(message) from None


@check("source", "import")
def _source(lab: Lab) -> None:
    """its docstring names a source: a year, and an arXiv number, a DOI or a URL"""
    doc = ast.get_docstring(ast.parse(lab.file.path.read_text(encoding="utf-8"))) or inspect.getdoc(lab.cls) or ""
    if doc == inspect.getdoc(Method):
        doc = ""
    place = re.compile(
        r"arXiv[: ]\s?(\d{4}\.\d{4,5}|[a-z-]+(\.[a-z]{2})?/\d{7})|"  # since April 2007, and before
        r"\b(cs|stat|math|physics|cond-mat|quant-ph|q-bio|cmp-lg)(\.[a-z]{2})?/\d{7}\b|"
        r"\b10\.\d{4,9}/\S+|https?://\S+",
        re.IGNORECASE,
    )
    lacks = [] if re.search(r"\b(19|20)\d\d\b", place.sub("", doc)) else ["a year"]
    lacks += [] if place.search(doc) else ["an arXiv number, a DOI or a URL"]
    if not doc:
        lacks = ["a docstring"]
    if lacks:
        raise Failed(
            f"{lab.file.path.name} lacks {' and '.join(lacks)}\n"
            f'fix: begin the file with a line such as """My loss. Doe & Roe, NeurIPS 2018, arXiv:1805.07836."""'
        )


@check("hyperparameters", "import")
def _hyperparameters(lab: Lab) -> None:
    """each hyperparameter has a type and a default of that type"""
    try:
        takes = registry.hyperparameters(lab.cls)
    except SuiteError as error:
        raise Failed(f"{error}\nfix: annotate it, for example def __init__(self, task: Task, q: float = 0.7)") from None
    for p in takes.values():
        if p.required:
            raise Failed(f"`{p.name}` has no default\nfix: give it one, with its source in a comment: {p.name}=...")
        try:
            typed_value(p.default, p.annotation)
        except ValueError as error:
            raise Failed(f"the default of `{p.name}`, {p.default!r}: {error}") from None


@check("build", "import")
def _build(lab: Lab) -> None:
    """the constructor builds it with 2, 10 and 1000 classes"""
    with contextlib.suppress(SuiteError):  # without annotations its own check has failed, and its defaults still serve
        for p in registry.hyperparameters(lab.cls).values():
            if p.required and p.name not in lab.params:
                raise Skipped(f"`{p.name}` has no default; --set {p.name}=VALUE gives it one here")
    for classes in (10, 2, 1000):
        try:
            lab.build(classes)
        except Exception as error:
            raise Failed(f"with {classes} classes: {lab._explain(error, Watch())}") from None


@check("train", "build")
def _trains(lab: Lab) -> str:
    """it trains: losses, gradients, parameters and outputs are finite"""
    used = [len(examples) for examples in lab.training().watch.used.values()]
    return f"an epoch's batches hold {min(used)} of {N} examples" if used and min(used) < N else ""


_USUAL = {
    2: "a top-k of more than 2, a fixed number of classes and a division by C - 2 are the usual causes",
    1000: "a fixed number of classes and a class without any example are the usual causes",
}


def _with_classes(lab: Lab, classes: int) -> None:
    if problem := lab.train(classes=classes).problem:
        raise Failed(f"with {classes} classes, while {C} are fine:\n{problem}\n{_USUAL[classes]}")


@check("2-classes", "train")
def _two_classes(lab: Lab) -> None:
    """it trains with 2 classes"""
    _with_classes(lab, 2)


@check("1000-classes", "train")
def _many_classes(lab: Lab) -> None:
    """it trains with 1000 classes, most of them without an example"""
    _with_classes(lab, 1000)


@check("batch-of-one", "train")
def _batch_of_one(lab: Lab) -> None:
    """it trains when the last batch of an epoch is a single example"""
    if problem := lab.train(num=4 * BATCH + 1).problem:
        raise Failed(
            f"with {4 * BATCH + 1} examples in batches of {BATCH}, while {N} are fine:\n{problem}\n"
            "the usual causes are squeeze() without its dimension, BatchNorm1d, a standard deviation of one value, and "
            "half of a batch of 1"
        )


@check("images", "train")
def _images(lab: Lab) -> None:
    """it trains on augmented uint8 images in bfloat16"""
    if problem := lab.train(pixels=True, epochs=2).problem:
        raise Failed(f"on 16x16 images with crop and flip, the network in bfloat16:\n{problem}")


@check("validation", "train")
def _validation(lab: Lab) -> None:
    """it trains with a validation part as well as without"""
    if problem := lab.train(val=True).problem:
        raise Failed(f"with a validation part, while it is fine without:\n{problem}")


@check("learn", "train")
def _learns(lab: Lab) -> None:
    """every network changes and every optimiser is stepped"""
    training = lab.training(clean=True, epochs=6)
    run, states = training.watch.run, training.states
    for i in range(len(run.networks)):
        names = [f"run.networks[{i}].{name}" for name, _ in run.networks[i].named_parameters()]
        if all(training.begun[0].get(name) == states[max(states)].get(name) for name in names):
            raise Failed(
                f"no parameter of run.networks[{i}] changed in 6 epochs on right labels, without weight decay\n"
                f"fix: its loss must reach run.backward_step with a gradient: is it detached, under no_grad, or is "
                f"'network{i}' missing among the names given to backward_step?"
                + ("" if i == 0 else f" If one network is enough, leave out num_networks = {len(run.networks)}.")
            )
    # The harness registers the networks' own; one may be an average of others that no optimiser steps.
    idle = [n for n in run.optimisers if n not in training.watch.stepped and not re.fullmatch(r"network\d+", n)]
    if idle:
        raise Failed(
            f"the optimiser {idle[0]!r} was registered and never stepped in 6 epochs\n"
            f"fix: name it in run.backward_step(loss, {idle[0]!r}), or do not register it"
        )


@check("fast-form", "build")
def _fast_form(lab: Lab) -> None:
    """loss_and_grad gives the value, the gradient and the state that loss gives"""
    if lab.cls.loss_and_grad is None:
        raise Skipped("it has no loss_and_grad")
    if lab.cls.loss is Method.loss:
        raise Skipped("it has no loss to compare its loss_and_grad with")
    training = lab.train(forms=True)
    if seen := training.watch.unlike_loss:
        raise Failed(
            f"{seen}\nfix: loss_and_grad returns rows (B,) and dlogits (B, C), the gradient of rows.mean(); it updates "
            "the same state as loss"
        )
    if training.problem and not lab.train().problem:
        raise Failed(f"called beside loss_and_grad:\n{training.problem}")
    if not training.watch.compared:
        raise Skipped(training.watch.uncopied or "its loss_and_grad was never called")


@check("read-only", "train")
def _read_only(lab: Lab) -> None:
    """it leaves labels, images, index and logits as they are"""
    written = {**lab.train(pixels=True, epochs=2).watch.written, **lab.training().watch.written}
    if written:
        lines = [f"{label} was written to {where}" for label, where in written.items()]
        first = next(iter(written))
        raise Failed("\n".join([*lines, f"fix: work on a copy, {first}.clone(); keep corrected labels in a buffer"]))


@check("state", "train")
def _state_is_sound(lab: Lab) -> None:
    """`targets` is (N, C), and nothing it keeps holds a graph"""
    method = lab.training().watch.method
    targets = getattr(method, "targets", None)
    if isinstance(targets, Tensor) and targets.shape != (N, C):
        raise Failed(
            f"self.targets has shape {tuple(targets.shape)} with {N} training examples and {C} classes\n"
            "fix: the harness scores what has this name by its argmax: make it (num_train, num_classes), or rename it"
        )
    for path, leaf in leaves(method, "self"):
        if isinstance(leaf, Tensor) and not isinstance(leaf, nn.Parameter) and leaf.requires_grad:
            how = f"the graph of a step ({leaf.grad_fn.name()})" if leaf.grad_fn else "requires_grad"
            raise Failed(f"{path} holds {how}: memory grows with it\nfix: keep it detached, {path} = value.detach()")


_WANDERS = (
    "something is drawn from a generator that the run's seed does not reach (np.random.default_rng(), random.Random(), "
    "time, a set's order), or is kept in the module from one training to the next\n"
    "fix: draw from run.generator(name)"
)


@check("repeat", "train")
def _repeats(lab: Lab) -> None:
    """the same seed gives the same result bit for bit, another seed another"""
    first = lab.training()
    lab.train(classes=2)  # another run of the method in between
    if seen := difference(first, lab.training(again=1)):
        raise Failed(f"two trainings with one seed differ\n{seen}\n{_WANDERS}")
    if not difference(first, lab.training(seed=1)):
        raise Failed("two seeds gave the same training: the networks' weights or the order of examples are fixed")


@check("plan", "repeat")
def _plans_ahead(lab: Lab) -> None:
    """it trains the same where its batches are drawn three steps ahead"""
    more = 2 * N + 10  # with fewer steps an epoch, a plan may draw all that it needs at its first
    ahead = lab.train(num=more, ahead=3)
    if seen := ahead.problem or difference(lab.training(num=more), ahead):
        raise Failed(
            "batches of image files are drawn some steps before their own, to be decoded in time; drawn three ahead, "
            f"it trains differently\n{seen}\n"
            "fix: batches() may use what is known as its epoch begins, not run.step or what the epoch's steps change; "
            "plan and steps each draw from a generator of their own, run.generator(name)"
        )


@check("resume", "repeat")
def _resumes(lab: Lab) -> None:
    """a training stopped after every epoch ends bit for bit as one that was not"""
    for val in (False, True):
        how: dict[str, Any] = {"val": True} if val else {}
        whole = lab.train(**how)
        if val and whole.problem:
            continue  # the check `validation` says so
        parts = lab.train(stops=True, **how)
        if parts.warned:
            raise Failed(
                f"its checkpoint could not be read back: {parts.warned[0]}\n"
                "fix: get_extra_state may return tensors, numbers, text, lists and dicts of them alone"
            )
        if parts.problem:
            raise Failed(
                "a training that was stopped and continued failed, one that was not did not\n"
                f"{parts.problem}\n{culprits(lab, parts, how)}".rstrip()
            )
        if seen := difference(whole, parts):
            part = " with a validation part" if val else ""
            raise Failed(f"stopped and continued in fresh objects{part}, it goes on differently\n{seen}\n"
                         + (culprits(lab, parts, how) or OUT_OF_SIGHT))  # fmt: skip


@check("predict", "repeat")
def _predicts(lab: Lab) -> None:
    """predict gives (B, C) finite logits, the same for any batch, and an evaluation leaves no trace"""
    training = lab.training()
    run, method = training.watch.run, training.watch.method
    images = torch.randn(32, *run.images.shape, generator=torch.Generator().manual_seed(0))
    evaluation_mode(run, method)

    def predict(part: Tensor) -> Tensor:
        with torch.no_grad():
            logits: Tensor = method.predict(run, part.clone())
        return logits

    before, modes = shot(run, method), [m.training for n in run.networks for m in n.modules()]
    try:
        whole = predict(images)
        if not isinstance(whole, Tensor) or whole.shape != (32, C) or not whole.is_floating_point():
            got = f"{whole.dtype} {tuple(whole.shape)}" if isinstance(whole, Tensor) else type(whole).__name__
            raise Failed(f"predict must return (B, C) floating point logits, here (32, {C}), and gave {got}")
        if not whole.isfinite().all():
            raise Failed("predict gave logits that are not finite")
        after = shot(run, method)
        if names := unlike(before, after):
            values = (
                f": {before.get(names[0])} became {after.get(names[0])}" if len(after.get(names[0], "")) < 30 else ""
            )
            raise Failed(
                f"predict changed {some(names)}{values}\nfix: an evaluation must leave no trace, or a training depends "
                "on how often it is evaluated; what is to be kept is kept in training_step or on_epoch_end"
            )
        if modes != [m.training for n in run.networks for m in n.modules()]:
            raise Failed("predict changed the mode of a network\nfix: leave train() and eval() to the harness")
        order = torch.randperm(32, generator=torch.Generator().manual_seed(1))
        _same(predict(images), whole, "twice for the same images, predict gave different logits")
        _same(predict(images[order]), whole[order], "predict depends on the order of the images")
        pieces = torch.cat([predict(part) for part in images.split([1, 7, 24])])
        _same(pieces, whole, "predict depends on the batch size (batches of 1, 7 and 24 against one of 32)")
    except (Failed, SuiteError):
        raise
    except Exception as error:
        raise Failed(lab._explain(error, training.watch)) from None
    if seen := difference(training, lab.training(twice=True)):
        raise Failed(
            f"evaluated twice an epoch, it trains differently\n{seen}\n"
            "fix: an evaluation must leave no trace: look for forward hooks that count, for networks whose mode is "
            "changed, and for what predict keeps outside of self"
        )


def _same(one: Tensor, other: Tensor, what: str) -> None:
    gap = float((one - other).abs().max())
    if gap > 1e-4 * max(1.0, float(other.abs().max())):
        raise Failed(
            f"{what}: they differ by up to {gap:.3g}\nfix: a prediction belongs to its image alone: no statistics over "
            "the batch (batch norm in training mode, softmax over dim 0), no draws"
        )


# Names that the implementation of Run has and its interface lacks: a method must not use them.
_OF_THE_HARNESS = {*vars(RunState), *RunState.__annotations__} - {*dir(Run), *Run.__annotations__}

_SUSPECTS = re.compile(
    r"_getframe|\binspect\b|\bgc\b|f_locals|f_back|currentframe|\.privileged\b|clean_labels|"
    r"test_(labels|images)|__closure__|get_objects|_fit\b|"
    rf"run\.(_|({'|'.join(sorted(_OF_THE_HARNESS))})\b)"
)


@check("clean-labels", "repeat", "predict")
def _no_clean_label(lab: Lab) -> None:
    """it trains the same with other clean labels and with another test set"""
    gc.collect()  # no older training's labels are left to be found
    if "task.labels" in lab.training().watch.written:
        raise Skipped("cannot be judged while it writes to task.labels (see `read-only`)")
    first = lab.training(watched=False)
    for how, what, ignore in (
        ({"permuted": True}, "the clean labels permuted (what `told` declares stays)", ("target_",)),
        ({"other_test": True}, "another test set", ("test", "predictions")),
    ):
        if seen := difference(first, lab.training(watched=False, **how), ignore):
            raise Failed(_peeked(lab, f"with {what} it trains differently", seen))


@check("test-labels", "clean-labels")
def _no_test_label(lab: Lab) -> None:
    """it predicts the same, bit for bit, whatever the labels of the test images"""
    gc.collect()
    first, other = lab.training(watched=False), lab.training(watched=False, permuted_test=True)
    if seen := difference(first, other, ("test_",)):  # the accuracies
        raise Failed(_peeked(lab, "with the labels of the test images permuted it predicts differently", seen))


def _peeked(lab: Lab, what: str, seen: str) -> str:
    text = lab.file.path.read_text(encoding="utf-8").splitlines()
    spots = [f"  {lab.file.path.name}:{i}: {line.strip()}" for i, line in enumerate(text, 1) if _SUSPECTS.search(line)]
    where = ["look at these lines:", *spots[:5]] if spots else ["look at whatever it reads beside these"]
    may = "a method may use what Batch, Task and Run document, and of the truth what it declares in `told`"
    return "\n".join([what, seen, may, *where])
