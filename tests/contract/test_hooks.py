"""Misspelt and unreachable hooks are named before anything trains. Helpers are left alone."""

import re

import pytest
from sweeps import suite
from written_methods import CE, HEAD, function, init, loss, members, write

from nlbench import api, registry
from nlbench.build import build_method, dummy_task
from nlbench.conformance.trial import C, N
from nlbench.contract import hooks
from nlbench.data.base import Info
from nlbench.errors import MethodError, SuiteError


def load(folder, *parts, before=""):
    path = write(folder, before + members(*parts))
    return registry.load_method(registry.MethodFile("mine", path, ""))


def problems(cls):
    return [str(problem) for problem in hooks.class_problems(cls)]


def nothing(head):
    return function(head, "pass")


# Parts of a class, and what the one problem must say.
WRONG = {
    "Keras's name": ([CE, nothing("on_epoch_begin(self, run, epoch)")], "mean on_epoch_start"),
    "Lightning's name": ([CE, nothing("on_train_epoch_end(self)")], "mean on_epoch_end"),
    "Lightning's optimisers": ([CE, nothing("configure_optimizers(self)")], r"run\.optimise"),
    "Lightning's validation": ([CE, nothing("validation_step(self, batch, i)")], "mean predict"),
    "Lightning's end": ([CE, nothing("on_fit_end(self)")], "mean on_epoch_end"),
    "a plain train_step": ([CE, nothing("train_step(self, run, batch)")], "mean training_step"),
    "a batch hook": ([CE, nothing("on_batch_start(self, run, batch)")], "mean training_step"),
    "camel case": ([CE, nothing("onEpochStart(self, run, epoch)")], "mean on_epoch_start"),
    "a letter too many": ([CE, nothing("predicts(self, run, images)")], "mean predict"),
    "a letter too few": ([CE, nothing("on_epoch_star(self, run, epoch)")], "mean on_epoch_start"),
    "a call of the parent's only": (
        [CE, function("on_epoch_begin(self, run, epoch)", "super().on_epoch_begin(run, epoch)")],
        "mean on_epoch_start",
    ),
    "torch's forward": ([CE, nothing("forward(self, x)")], "predict for the evaluation"),
    "no run": ([CE, nothing("on_epoch_start(self, epoch)")], r"mine\.py:\d+: .*passes run, epoch"),
    "an argument too many": ([CE, nothing("on_epoch_end(self, run, epoch, loss)")], "'loss'"),
    "no batch": ([nothing("loss(self, logits)")], r"write def loss\(self, logits, batch\)"),
    "no self": ([nothing("loss(logits, batch)")], "lacks `self`"),
    "another order": ([nothing("loss(self, batch, logits)")], "argument 1 .* is `logits`"),
    "another order of a step": (
        [nothing("training_step(self, batch, run)")],
        "argument 1 .* is `run`",
    ),
    "keywords alone": ([CE, nothing("prepare(self, *, run)")], "too many positional arguments"),
    "a step with Lightning's index": (
        [nothing("training_step(self, run, batch, batch_idx)")],
        "missing a required argument: 'batch_idx'",
    ),
    "a static method": ([CE, "@staticmethod\n" + nothing("prepare(run)")], "is a staticmethod"),
    "a property": ([CE, "@property\n" + nothing("batches(self)")], "is a property"),
    "an assigned module": (["loss = nn.CrossEntropyLoss()\n"], "a CrossEntropyLoss and no method"),
    "an assigned number": ([CE, "batches = 5\n"], "batches is an int"),
    "a generator": (
        [CE, function("on_epoch_start(self, run, epoch)", "yield epoch")],
        "contains `yield`",
    ),
    "an asynchronous hook": ([CE, "async " + nothing("prepare(self, run)")], "async"),
    "a training loop of its own": ([CE, nothing("train(self, run, batch)")], "train"),
    "a switch named train": ([CE, "train = True\n"], r"hides torch's train\(\)"),
    "a text for told": ([CE, "told = ('noise_rate')\n"], r"told = \('noise_rate',\)"),
    "no network": ([CE, "num_networks = 0\n"], "num_networks is 0"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_hook_is_named_with_its_fix(tmp_path, kind):
    parts, says = WRONG[kind]
    (problem,) = problems(load(tmp_path, *parts))
    assert re.search(says, problem), problem
    assert "fix: " in problem


RIGHT = {
    "helpers that the class calls": [
        function("losses(self, logits, batch)", "return self.forward(logits, batch)"),
        function("forward(self, logits, batch)", "return F.cross_entropy(logits, batch.labels)"),
        loss(value="self.losses(logits, batch)"),
    ],
    "a module's call": [
        function("forward(self, logits, batch)", "return F.cross_entropy(logits, batch.labels)"),
        loss(value="self(logits, batch)"),
    ],
    "a hook's old name, called from the new one": [
        CE,
        nothing("on_epoch_begin(self, run, epoch)"),
        function("on_epoch_start(self, run, epoch)", "self.on_epoch_begin(run, epoch)"),
    ],
    "private and far names": [CE, nothing("_on_epoch_begin(self)"), nothing("warmup_weight(self)")],
    "further arguments with defaults": [
        function(
            "loss(self, logits, batch, memo=[])", "return F.cross_entropy(logits, batch.labels)"
        )
    ],
    "other names for the arguments": [
        function("loss(self, z, b, /)", "return F.cross_entropy(z, b.labels)"),
        nothing("on_epoch_end(self, run, e)"),
    ],
    "all arguments in one": [
        function("training_step(self, *everything)", "return None"),
        nothing("prepare(self, *args, **more)"),
    ],
    "a decorated hook": [CE, "@torch.no_grad()\n" + nothing("on_epoch_start(self, run, epoch)")],
    "a mode of its own": [CE, function("train(self, mode=True)", "return super().train(mode)")],
    "a step of several batches": [
        nothing("batches(self, run, epoch)"),
        nothing("training_step(self, run, one, two, share)"),
    ],
}


@pytest.mark.parametrize("kind", RIGHT)
def test_right_hooks_and_helpers_are_left_alone(tmp_path, kind):
    assert problems(load(tmp_path, *RIGHT[kind])) == []


@pytest.mark.parametrize("file", registry.method_files().values(), ids=lambda file: file.name)
def test_shipped_methods_have_no_problem(file):
    assert problems(registry.load_method(file)) == []


def test_hooks_of_a_parent_class_are_looked_at(tmp_path):
    parent = "class _Base(Method):\n    def on_epoch_finish(self, run, epoch): pass\n"
    body = parent + members(CE).replace("(Method)", "(_Base)")
    cls = registry.load_method(registry.MethodFile("mine", write(tmp_path, body), ""))
    assert "Did you mean on_epoch_end?" in problems(cls)[0]


# Parts of a class whose objects cannot train, and what the message must say.
WRONG_OBJECTS = {
    "no call of the parent": (
        [function("__init__(self, task: Task, q: float = 0.7)", "self.q = q"), CE],
        r"does not call super\(\)\.__init__\(task\)",
    ),
    "a call of torch's constructor": (
        [function("__init__(self, task: Task)", "nn.Module.__init__(self)"), CE],
        r"does not call super\(\)\.__init__\(task\)",
    ),
    "a module as the loss": (
        [init("self.loss = nn.CrossEntropyLoss()")],
        r"self\.loss = a CrossEntropyLoss does not become the hook loss",
    ),
    "the last loss in the hook's name": ([init("self.loss = 0.0"), CE], "hides the hook loss"),
    "a flag named train": ([init("self.train = True"), CE], r"self\.train = a bool hides torch's"),
    "a list named parameters": ([init("self.parameters = []"), CE], "hides torch's parameters"),
    "a loss outside of the class": ([init()], "indent the function loss"),
}


def build(cls, **params):
    return build_method(cls, params, dummy_task(Info("d", "", C, N, 10, (1, 8, 8))))


@pytest.mark.parametrize("kind", WRONG_OBJECTS)
def test_a_method_that_cannot_train_is_not_built(tmp_path, kind):
    parts, says = WRONG_OBJECTS[kind]
    outside = CE if "outside" in kind else ""
    cls = load(tmp_path, *parts, before=outside)
    params = {name: one.default for name, one in registry.hyperparameters(cls).items()}
    with pytest.raises(MethodError, match=says):
        build(cls, **params)


def test_a_function_in_the_place_of_a_hook_is_one(tmp_path):
    build(load(tmp_path, init("self.loss = lambda z, batch: F.cross_entropy(z, batch.labels)")))


@pytest.mark.parametrize(
    ("head", "says"),
    [
        ("__init__(self)", "lacks the argument `task`"),
        ("__init__(self, q: float = 0.7)", "its first argument is 'q'"),
        ("__init__(self, task: Task, **more: float)", "argument 'more' must be a named argument"),
        ("__init__(self, task: Task, q: float = 0.7, /)", "argument 'q' must be a named argument"),
    ],
)
def test_a_constructor_takes_the_task_and_named_hyperparameters(tmp_path, head, says):
    with pytest.raises(SuiteError, match=re.escape(says)):
        registry.hyperparameters(load(tmp_path, function(head, "pass"), CE))


def test_a_suite_is_refused_before_its_first_run(tmp_path):
    folder = tmp_path / "m"
    folder.mkdir()
    write(folder, members(CE, nothing("on_epoch_begin(self, run, epoch)")), HEAD, "begins")
    write(folder, members(init("self.train = 1"), CE), HEAD, "hides")
    with pytest.raises(SuiteError) as caught:
        api.prepare(suite({"ce": {}, "begins": {}, "hides": {}}), out=tmp_path, methods_dir=folder)
    message = str(caught.value)
    assert "methods.begins: " in message
    assert "Did you mean on_epoch_start?" in message
    assert "methods.hides: " in message
    assert "self.train = an int hides torch's train()" in message
