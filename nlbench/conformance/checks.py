"""The checks of `nlbench check`: what every method must meet, tried in the real harness.

A check is a function with the decorator `check`. The first line of its docstring is its claim,
which the command prints. It takes a Lab, asks it for trials, and raises Failed with what was seen,
where, and the likely fix. It may return a remark. Trials are short and each is trained once, so
checks share them.

To add a check, add a function here, and a defect that only it finds to
tests/conformance/test_defects.py.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import gc
import inspect
import re
import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin

import torch
from torch import Tensor, nn

from nlbench import registry
from nlbench.build import typed_value
from nlbench.conformance import snapshot
from nlbench.conformance.advice import Failed, Skipped
from nlbench.conformance.lab import Lab
from nlbench.conformance.outcome import Outcome, difference, some
from nlbench.conformance.resume_causes import OUT_OF_SIGHT, causes
from nlbench.conformance.snapshot import is_short, leaves, unlike
from nlbench.conformance.switches import switches
from nlbench.conformance.trial import BATCH, C, N, Trial
from nlbench.conformance.watch import evaluation_mode, random_images
from nlbench.contract import hooks
from nlbench.errors import SuiteError
from nlbench.method import Method, Run
from nlbench.training.phases import unreached
from nlbench.training.run_state import RunState

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
        """Return the demand on a method, which is the first line of the function's docstring."""
        return (self.function.__doc__ or "").partition("\n")[0]


CHECKS: dict[str, Check] = {}


def check(name: str, *needs: str) -> Callable[[Function], Function]:
    """Add the decorated function to CHECKS, after the checks that it `needs`."""

    def add(function: Function) -> Function:
        CHECKS[name] = Check(name, function, needs)
        return function

    return add


# ---- The file, without a training ---------------------------------------------------------------


@check("import")
def import_file(lab: Lab) -> None:
    """the file can be imported and holds exactly one Method"""
    try:
        _ = lab.cls
    except registry.NotOneMethod as error:
        raise Failed(f"{error.what}\nfix: {error.fix}") from None
    except SuiteError as error:
        # The part of the traceback in the method's file is enough.
        first, *lines = str(error).splitlines()
        own = [i for i, line in enumerate(lines) if str(lab.file.path) in line]
        if own:
            lines = lines[own[-1] :]
        raise Failed("\n".join([first, *lines])) from None


_PLACE = re.compile(
    # arXiv numbers since April 2007, and before.
    r"arXiv[: ]\s?(\d{4}\.\d{4,5}|[a-z-]+(\.[a-z]{2})?/\d{7})|"
    r"\b(cs|stat|math|physics|cond-mat|quant-ph|q-bio|cmp-lg)(\.[a-z]{2})?/\d{7}\b|"
    # A DOI, or a URL.
    r"\b10\.\d{4,9}/\S+|https?://\S+",
    re.IGNORECASE,
)


@check("source", "import")
def names_a_source(lab: Lab) -> str:
    """its docstring names a year and an arXiv number, a DOI or a URL; or it says `unpublished`"""
    tree = ast.parse(lab.file.path.read_text(encoding="utf-8"))
    doc = ast.get_docstring(tree) or inspect.getdoc(lab.cls) or ""
    # A class without a docstring inherits that of Method.
    if doc == inspect.getdoc(Method):
        doc = ""

    if "Generalised cross entropy, to start from" in doc:
        return "it is still the template's, which names another method: write your own there"
    if re.search(r"\bunpublished\b", doc, re.IGNORECASE):
        return ""

    lacks = []
    # The digits of an arXiv number may look like a year.
    if not re.search(r"\b(19|20)\d\d\b", _PLACE.sub("", doc)):
        lacks.append("a year")
    if not _PLACE.search(doc):
        lacks.append("an arXiv number, a DOI or a URL")
    if not doc:
        lacks = ["a docstring"]
    if lacks:
        raise Failed(
            f"{lab.file.path.name} lacks {' and '.join(lacks)}\n"
            "fix: begin the file with a line such as "
            '"""My loss. Doe & Roe, NeurIPS 2018, arXiv:1805.07836.""", or, where no paper '
            'describes it yet, """My loss. Unpublished."""'
        )
    return ""


@check("hooks", "import")
def has_known_hooks(lab: Lab) -> None:
    """each hook has a name that nlbench calls, and takes what it passes"""
    if problems := hooks.class_problems(lab.cls):
        raise Failed("\n".join(f"{one.what}\nfix: {one.fix}" for one in problems))


@check("process", "import")
def leaves_the_process_alone(lab: Lab) -> None:
    """it changes nothing that all runs of a process share"""
    if found := list(switches(lab.file.path)):
        lines = [place for place, _ in found]
        fixes = [f"fix: {fix}" for fix in dict.fromkeys(fix for _, fix in found)]
        raise Failed("\n".join([*lines, *fixes]))


@check("hyperparameters", "import")
def has_typed_hyperparameters(lab: Lab) -> str:
    """each hyperparameter has a type and a default of that type"""
    try:
        hyperparameters = registry.hyperparameters(lab.cls)
    except SuiteError as error:
        message = str(error)
        if "fix:" not in message:
            message += "\nfix: annotate it, as in def __init__(self, task: Task, q: float = 0.7)"
        raise Failed(message) from None

    for one in hyperparameters.values():
        if one.required:
            raise Failed(
                f"`{one.name}` has no default\n"
                f"fix: give it one, with its source in a comment: {one.name}=..."
            )
        if not _is_plain(one.annotation):
            raise Failed(
                f"`{one.name}` is annotated as {inspect.formatannotation(one.annotation)}; a suite "
                "gives bool, int, float, str or one of a Literal\n"
                "fix: write one argument for each value, or a text that the constructor takes apart"
            )
        try:
            typed_value(one.default, one.annotation)
        except ValueError as error:
            raise Failed(f"the default of `{one.name}`, {one.default!r}: {error}") from None

    counts = [one for one in hyperparameters.values() if _counts_epochs(one)]
    if not counts:
        return ""
    named = some([f"{one.name} = {one.default}" for one in counts])
    return (
        f"is {named} a number of epochs? It is not reached in a shorter training; a share, as in "
        "warmup_share: float = 40 / 200 with task.scaled(warmup_share, of=1), fits each protocol"
    )


def _is_plain(annotation: Any) -> bool:
    """Return whether a suite can give each value of this type in one line."""
    if annotation in (bool, int, float, str, type(None)):
        return True
    origin = get_origin(annotation)
    if origin is Literal:
        return True
    return origin in (Union, types.UnionType) and all(map(_is_plain, get_args(annotation)))


def _counts_epochs(one: registry.Hyperparameter) -> bool:
    named = re.search(r"warm|epoch|ramp|burn|(^|_)(start|begin)(_|$)", one.name.lower())
    is_count = isinstance(one.default, int) and not isinstance(one.default, bool)
    return one.annotation is int and is_count and one.default not in (0, 1) and named is not None


@check("build", "import")
def can_be_built(lab: Lab) -> None:
    """the constructor builds it with 2, 10 and 1000 classes"""
    # If annotations are missing, `hyperparameters` fails; the defaults can still be used here.
    with contextlib.suppress(SuiteError):
        for one in registry.hyperparameters(lab.cls).values():
            if one.required and one.name not in lab.params:
                option = f"--set {one.name}=VALUE"
                raise Skipped(f"`{one.name}` has no default; {option} gives it one here")

    for classes in (10, 2, 1000):
        try:
            lab.build(classes)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            raise Failed(f"with {classes} classes: {lab.explain(error)}") from None


# ---- Does it train? -----------------------------------------------------------------------------


@check("train", "build")
def trains(lab: Lab) -> str:
    """it trains: losses, gradients, parameters and outputs are finite"""
    watch = lab.train().watch
    notes = []
    fewest = min((len(examples) for examples in watch.used.values()), default=N)
    if fewest < N:
        notes.append(f"an epoch's batches hold {fewest} of {N} examples")

    # What never begins is not checked either.
    task, takes = watch.run.task, registry.hyperparameters(lab.cls)
    values = {name: lab.params.get(name, p.default) for name, p in takes.items()}
    late = unreached(watch.method, values, task.epochs, task.steps_per_epoch)
    notes += [f"not checked: {sentence}" for sentence in late]
    return "; ".join(notes)


@check("2-classes", "train")
def trains_with_two_classes(lab: Lab) -> None:
    """it trains with 2 classes"""
    outcome = lab.attempt(Trial(classes=2))
    if not outcome.problem:
        return
    message = f"with 2 classes, while {C} are fine:\n{outcome.problem}"
    # What was not finite first names its own cause.
    if outcome.watch.not_finite is None:
        message += (
            "\na top-k of more than 2, a fixed number of classes and a division by C - 2 are the "
            "usual causes"
        )
    raise Failed(message)


@check("1000-classes", "train")
def trains_with_many_classes(lab: Lab) -> None:
    """it trains with 1000 classes, most of them without an example"""
    if problem := lab.attempt(Trial(classes=1000)).problem:
        raise Failed(
            f"with 1000 classes, while {C} are fine:\n{problem}\n"
            "a fixed number of classes and a class without any example are the usual causes"
        )


@check("batch-of-one", "train")
def trains_on_a_batch_of_one(lab: Lab) -> None:
    """it trains when the last batch of an epoch is a single example"""
    num = 4 * BATCH + 1
    if problem := lab.attempt(Trial(num=num)).problem:
        raise Failed(
            f"with {num} examples in batches of {BATCH}, while {N} are fine:\n{problem}\n"
            "the usual causes are squeeze() without its dimension, BatchNorm1d, a standard "
            "deviation of one value, and half of a batch of 1"
        )


@check("images", "train")
def trains_on_images(lab: Lab) -> None:
    """it trains on augmented uint8 images in bfloat16"""
    if problem := lab.attempt(_IMAGES).problem:
        raise Failed(f"on 16x16 images with crop and flip, the network in bfloat16:\n{problem}")


_IMAGES = Trial(pixels=True, epochs=2)


@check("validation", "train")
def trains_with_a_validation_part(lab: Lab) -> None:
    """it trains with a validation part as well as without"""
    if problem := lab.attempt(Trial(val=True)).problem:
        raise Failed(f"with a validation part, while it is fine without:\n{problem}")


@check("learn", "train")
def learns(lab: Lab) -> None:
    """every network changes and every optimiser is stepped"""
    # In a clean trial nothing but the loss changes a weight: there is no weight decay, and no label
    # is wrong.
    outcome = lab.train(Trial(clean=True, epochs=6))

    run, begun, ended = outcome.watch.run, outcome.begun[0], outcome.states[max(outcome.states)]
    for i, network in enumerate(run.networks):
        paths = [f"run.networks[{i}].{name}" for name, _ in network.named_parameters()]
        if any(begun.get(path) != ended.get(path) for path in paths):
            continue

        message = (
            f"no parameter of run.networks[{i}] changed in 6 epochs on right labels, without "
            "weight decay\n"
            "fix: its loss must reach run.backward_step with a gradient: is it detached, under "
            f"no_grad, or is 'network{i}' missing among the names given to backward_step?"
        )
        if i > 0:
            message += f" If one network is enough, leave out num_networks = {len(run.networks)}."
        raise Failed(message)

    for name in run.optimisers:
        # nlbench registers those of the networks. A network may be an average of another one, and
        # then no optimiser steps it.
        own = not re.fullmatch(r"network\d+", name)
        if own and name not in outcome.watch.stepped:
            raise Failed(
                f"the optimiser {name!r} was registered and never stepped in 6 epochs\n"
                f"fix: name it in run.backward_step(loss, {name!r}), or do not register it"
            )


# ---- Is it correct? -----------------------------------------------------------------------------


@check("fast-form", "build")
def has_equal_forms(lab: Lab) -> None:
    """loss_and_grad gives the value, the gradient and the state that loss gives"""
    if lab.cls.loss_and_grad is None:
        raise Skipped("it has no loss_and_grad")
    if lab.cls.loss is Method.loss:
        raise Skipped("it has no loss to compare its loss_and_grad with")

    outcome = lab.attempt(Trial(forms=True))
    forms = outcome.watch.forms

    if forms.difference:
        raise Failed(
            f"{forms.difference}\n"
            "fix: loss_and_grad returns rows (B,) and dlogits (B, C), the gradient of rows.mean(); "
            "it updates the same state as loss"
        )
    # If it fails without the comparison, too, the check `train` reports it.
    if outcome.problem and not lab.attempt().problem:
        raise Failed(f"called beside loss_and_grad:\n{outcome.problem}")
    if not forms.compared:
        raise Skipped(forms.uncopied or "its loss_and_grad was never called")


@check("read-only", "train")
def leaves_its_inputs_alone(lab: Lab) -> None:
    """it leaves labels, images, index and logits as they are"""
    written = {
        **lab.attempt(_IMAGES).watch.read_only.written,
        **lab.train().watch.read_only.written,
    }
    if written:
        lines = [f"{label} was written to {where}" for label, where in written.items()]
        first = next(iter(written))
        fix = f"fix: work on a copy, {first}.clone(); keep corrected labels in a buffer"
        raise Failed("\n".join([*lines, fix]))


@check("settings", "train")
def leaves_settings_alone(lab: Lab) -> None:
    """it leaves the settings of torch and the environment as they are while it trains"""
    # The training has put them back, and has noted it.
    if found := [note for note in lab.train().notes if " changed " in note]:
        raise Failed("\n".join([*dict.fromkeys(found), "fix: leave them to the protocol"]))


@check("state", "train")
def has_sound_state(lab: Lab) -> None:
    """`targets` is (N, C), and nothing it keeps holds a graph"""
    method = lab.train().watch.method
    targets = getattr(method, "targets", None)
    if isinstance(targets, Tensor) and targets.shape != (N, C):
        raise Failed(
            f"self.targets has shape {tuple(targets.shape)} with {N} training examples and {C} "
            "classes\n"
            "fix: the harness scores a buffer of this name by its argmax: make it "
            "(num_train, num_classes), or rename it"
        )

    for path, leaf in leaves(method, "self"):
        if not isinstance(leaf, Tensor) or isinstance(leaf, nn.Parameter) or not leaf.requires_grad:
            continue

        holds = "requires_grad"
        if leaf.grad_fn is not None:
            holds = f"the graph of a step ({leaf.grad_fn.name()})"
        raise Failed(
            f"{path} holds {holds}: memory grows with it\n"
            f"fix: keep it detached, {path} = value.detach()"
        )


# ---- Is it reproducible? ------------------------------------------------------------------------


@check("repeat", "train")
def repeats(lab: Lab) -> None:
    """the same seed gives the same result bit for bit, another seed another"""
    first = lab.train()
    # Train the method otherwise in between: its module may keep something.
    lab.attempt(Trial(classes=2))

    if seen := difference(first, lab.train(Trial(again=1))):
        raise Failed(
            f"two trainings with one seed differ\n{seen}\n"
            "something is drawn from a generator that the run's seed does not reach "
            "(np.random.default_rng(), random.Random(), time, a set's order), or is kept in the "
            "module from one training to the next\n"
            "fix: draw from run.generator(name)"
        )
    if not difference(first, lab.train(Trial(seed=1))):
        raise Failed(
            "two seeds gave the same training: the networks' weights or the order of examples are "
            "fixed"
        )


@check("plan", "repeat")
def plans_ahead(lab: Lab) -> None:
    """it trains the same where its batches are drawn three steps ahead"""
    # With fewer steps an epoch, a plan may draw all that it needs with its first item.
    usual = Trial(num=2 * N + 10)
    ahead = lab.attempt(dataclasses.replace(usual, ahead=3))

    if seen := ahead.problem or difference(lab.train(usual), ahead):
        raise Failed(
            "batches of image files are drawn some steps before their own, to be decoded in time; "
            f"drawn three ahead, it trains differently\n{seen}\n"
            "fix: batches() may use what is known as its epoch begins, not run.step or what the "
            "epoch's steps change; plan and steps each draw from a generator of their own, "
            "run.generator(name)"
        )


@check("resume", "repeat")
def resumes(lab: Lab) -> str:
    """a training stopped after every epoch ends bit for bit as one that was not"""
    _resumes_in(lab, Trial())
    # If it does not train with a validation part, the check `validation` reports it.
    if not lab.attempt(Trial(val=True)).problem:
        _resumes_in(lab, Trial(val=True))
    return _lost_memories(lab)


def _lost_memories(lab: Lab) -> str:
    """Describe memories that a resume loses, though nothing in a short training depends on it."""
    # The last part of a stopped training begins with its last epoch.
    resumed = lab.attempt(Trial(stops=True)).watch
    whole = lab.attempt().watch
    lost = []
    for epoch, memories in resumed.unsaved.items():
        before = whole.unsaved.get(epoch, {})
        lost += [name for name, text in memories.items() if before.get(name) not in (None, text)]
    if not lost:
        return ""
    return (
        f"{some(list(dict.fromkeys(lost)))} is in no checkpoint, and a resume begins it anew: is "
        "each of its rows written in an epoch before it is read? If not, make it a buffer"
    )


def _resumes_in(lab: Lab, trial: Trial) -> None:
    whole = lab.attempt(trial)
    resumed = lab.attempt(dataclasses.replace(trial, stops=True))

    if resumed.warnings:
        raise Failed(
            f"its checkpoint could not be read back: {resumed.warnings[0]}\n"
            "fix: get_extra_state may return tensors, numbers, text, lists and dicts of them alone"
        )
    if resumed.problem:
        raise Failed(
            "a training that was stopped and continued failed, one that was not did not\n"
            f"{resumed.problem}\n{causes(lab, resumed, trial)}".rstrip()
        )
    if seen := difference(whole, resumed):
        part = " with a validation part" if trial.val else ""
        raise Failed(
            f"stopped and continued in fresh objects{part}, it goes on differently\n{seen}\n"
            f"{causes(lab, resumed, trial) or OUT_OF_SIGHT}"
        )


# ---- Does it predict honestly? ------------------------------------------------------------------


@check("predict", "repeat")
def predicts(lab: Lab) -> None:
    """predict gives finite (B, C) logits, equal for any batch, and an evaluation leaves no trace"""
    outcome = lab.train()
    evaluation_mode(outcome.watch.run, outcome.watch.method)
    try:
        _predicts_without_a_trace(outcome)
        _predicts_each_image_alone(outcome)
    except (Failed, SuiteError, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise Failed(lab.explain(error, outcome.watch)) from None

    if seen := difference(outcome, lab.train(Trial(twice=True))):
        raise Failed(
            f"evaluated twice an epoch, it trains differently\n{seen}\n"
            "fix: an evaluation must leave no trace: look for forward hooks that count, for "
            "networks whose mode is changed, and for what predict keeps outside of self"
        )


def _predict(outcome: Outcome, images: Tensor) -> Tensor:
    """Return the logits of the trained method for a copy of the images."""
    watch = outcome.watch
    with torch.no_grad():
        return watch.method.predict(watch.run, images.clone())


def _modes(run: Run) -> list[bool]:
    modes = []
    for network in run.networks:
        modes += [module.training for module in network.modules()]
    return modes


def _predicts_without_a_trace(outcome: Outcome) -> None:
    run, method = outcome.watch.run, outcome.watch.method
    images = random_images(run, 32)
    before, modes = snapshot.take(run, method), _modes(run)
    logits = _predict(outcome, images)

    if not isinstance(logits, Tensor):
        raise Failed(f"{_PREDICT_RETURNS}, and gave {type(logits).__name__}")
    if logits.shape != (32, C) or not logits.is_floating_point():
        raise Failed(f"{_PREDICT_RETURNS}, and gave {logits.dtype} {tuple(logits.shape)}")
    if not logits.isfinite().all():
        raise Failed("predict gave logits that are not finite")

    after = snapshot.take(run, method)
    if changed := unlike(before, after):
        seen = some(changed)
        # One value is enough to recognise a counter.
        old, new = before.get(changed[0]), after.get(changed[0], "")
        if is_short(new):
            seen += f": {old} became {new}"
        raise Failed(
            f"predict changed {seen}\n"
            "fix: an evaluation must leave no trace, or a training depends on how often it is "
            "evaluated; change state in training_step or on_epoch_end"
        )
    if modes != _modes(run):
        raise Failed(
            "predict changed the mode of a network\nfix: leave train() and eval() to the harness"
        )


_PREDICT_RETURNS = f"predict must return (B, C) floating point logits, here (32, {C})"


def _predicts_each_image_alone(outcome: Outcome) -> None:
    images = random_images(outcome.watch.run, 32)
    whole = _predict(outcome, images)
    again = _predict(outcome, images)
    _demand_equal(again, whole, "twice for the same images, predict gave different logits")

    order = torch.randperm(32, generator=torch.Generator().manual_seed(1))
    mixed = _predict(outcome, images[order])
    _demand_equal(mixed, whole[order], "predict depends on the order of the images")

    pieces = [_predict(outcome, part) for part in images.split([1, 7, 24])]
    what = "predict depends on the batch size (batches of 1, 7 and 24 against one of 32)"
    _demand_equal(torch.cat(pieces), whole, what)


def _demand_equal(one: Tensor, other: Tensor, what: str) -> None:
    # Sums may be rounded otherwise in a batch of another size, so logits need not be equal to the
    # last bit.
    gap = float((one - other).abs().max())
    if gap > 1e-4 * max(1.0, float(other.abs().max())):
        raise Failed(
            f"{what}: they differ by up to {gap:.3g}\n"
            "fix: a prediction belongs to its image alone: no statistics over the batch (batch "
            "norm in training mode, softmax over dim 0), no draws"
        )


# ---- Is it honest? ------------------------------------------------------------------------------
#
# These trials have no watch: its frames between harness and method would hide a method that reads
# the variables of its callers.

_UNWATCHED = Trial(watched=False)


@check("clean-labels", "repeat", "predict")
def uses_no_clean_label(lab: Lab) -> None:
    """it trains the same with other clean labels and with another test set"""
    if "task.labels" in lab.train().watch.read_only.written:
        raise Skipped("cannot be judged while it writes to task.labels (see `read-only`)")

    # The labels of an older training must not be found in memory.
    gc.collect()
    first = lab.train(_UNWATCHED)

    # The metrics of the targets are left out, because they are computed with the clean labels.
    other_labels = lab.train(Trial(watched=False, other_clean_labels=True))
    if seen := difference(first, other_labels, ignore=("target_",)):
        what = "the clean labels permuted (what `told` declares stays)"
        raise Failed(_describe_peek(lab, f"with {what} it trains differently", seen))

    other_test = lab.train(Trial(watched=False, other_test=True))
    if seen := difference(first, other_test, ignore=("test", "predictions")):
        raise Failed(_describe_peek(lab, "with another test set it trains differently", seen))


@check("test-labels", "clean-labels")
def uses_no_test_label(lab: Lab) -> None:
    """it predicts the same, bit for bit, whatever the labels of the test images"""
    # As above, for the test labels of an older training.
    gc.collect()
    first = lab.train(_UNWATCHED)
    other = lab.train(Trial(watched=False, other_test_labels=True))
    # Only the accuracies may differ.
    if seen := difference(first, other, ignore=("test_",)):
        what = "with the labels of the test images permuted it predicts differently"
        raise Failed(_describe_peek(lab, what, seen))


# Names that the implementation of Run has and its interface lacks: a method must not use them.
_OF_THE_HARNESS = {*vars(RunState), *RunState.__annotations__} - {*dir(Run), *Run.__annotations__}

# How a method may reach what it is not given.
_SUSPECTS = re.compile(
    r"_getframe|\binspect\b|\bgc\b|f_locals|f_back|currentframe|\.privileged\b|clean_labels|"
    r"test_(labels|images)|__closure__|get_objects|_fit\b|"
    rf"run\.(_|({'|'.join(sorted(_OF_THE_HARNESS))})\b)"
)


def _describe_peek(lab: Lab, what: str, seen: str) -> str:
    """Describe the use of information that a method is not given, with the lines to look at."""
    allowed = (
        "a method may use what Batch, Task and Run document, and of the truth what it declares in "
        "`told`"
    )

    spots = []
    lines = lab.file.path.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, 1):
        if _SUSPECTS.search(line):
            spots.append(f"  {lab.file.path.name}:{number}: {line.strip()}")

    if spots:
        return "\n".join([what, seen, allowed, "look at these lines:", *spots[:5]])
    return "\n".join([what, seen, allowed, "look at whatever it reads beside these"])
