"""`nlbench check`: every shipped method passes; each defect is found by its own check, which says what and where."""

import re
import sys
import textwrap
from pathlib import Path

import pytest
from typer.testing import CliRunner

from nlbench import registry
from nlbench.cli.app import app
from nlbench.conformance import checks, runner, template
from nlbench.errors import SuiteError

SHIPPED = {n: f for n, f in registry.method_files().items() if f.module.startswith("nlbench.methods.")}
HEAD = '''"""A test's method. Doe & Roe, NeurIPS 2018, arXiv:1805.07836."""
import copy, gc, random, sys, time
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from nlbench.method import Method, Task
'''


def function(head: str, *lines: str) -> str:
    return f"def {head}:\n" + "".join(f"    {line}\n" for line in lines)


def init(*lines: str, more: str = "") -> str:
    return function(f"__init__(self, task: Task{more})", "super().__init__(task)", *lines)


def loss(*lines: str, value: str = "F.cross_entropy(logits, batch.labels)") -> str:
    return function("loss(self, logits, batch)", *lines, f"return {value}")


def step(*lines: str, value: str = "F.cross_entropy(logits, batch.labels)", names: str = "") -> str:
    head = (*lines, "logits = run.networks[0](batch.images)")
    return function("training_step(self, run, batch)", *head, f"run.backward_step({value}, {names})", "return logits")


def predict(*lines: str, value: str = "run.networks[0](images)") -> str:
    return function("predict(self, run, images)", *lines, f"return {value}")


CE = loss()


def write(folder: Path, body: str, head: str = HEAD, name: str = "mine") -> Path:
    path = folder / f"{name}.py"
    path.write_text(head + textwrap.dedent(body))
    return path


def members(*parts: str) -> str:
    """A method with these members."""
    body = "".join(textwrap.indent(textwrap.dedent(part), "    ") for part in parts)
    return f"class Mine(Method):\n{body}"


def failures(path, **more):
    return {result.name: result.message for result in runner.check(path, **more) if result.status == "FAIL"}


def complaints(results):
    """The lines of all that is not ok; a method without loss_and_grad has none to compare."""
    fine = ("fast-form", "skipped", "it has no loss_and_grad")
    return [line for r in results if r.status != "ok" and (r.name, r.status, r.message) != fine for line in r.lines()]


# A memory and a fast form; a helper network; two networks with teachers. The run without markers checks these in
# full, and ce with the command.
ALWAYS = {"elr", "forward", "elr-plus"}


@pytest.mark.parametrize("name", [n if n in ALWAYS else pytest.param(n, marks=pytest.mark.methods) for n in SHIPPED])
def test_a_shipped_method_passes(name):
    results = runner.check(name)
    assert not complaints(results)
    assert [result.name for result in results] == list(checks.CHECKS)


def test_the_methods_that_are_always_checked_are_shipped():
    assert set(SHIPPED) >= ALWAYS


@pytest.mark.parametrize("name", sorted(SHIPPED.keys() - ALWAYS))
def test_a_shipped_method_passes_the_checks_that_train_once_or_not_at_all(name):
    results = runner.check(name, only=["source", "hyperparameters", "state", "fast-form"])
    assert not complaints(results)


# A correct method that uses each part of the interface.
EVERYTHING = """
class Everything(Method):
    num_networks = 2
    told = ("noise_rate", "T")

    def __init__(self, task: Task, lr_shift: float = 0.5, momentum: float = 0.9):
        super().__init__(task)
        self.lr_shift, self.momentum, self.rate = lr_shift, momentum, task.noise_rate
        self.shift = nn.Parameter(torch.zeros(task.num_train, task.num_classes))
        self.register_buffer("targets", torch.zeros(task.num_train, task.num_classes))
        self.register_buffer("weights", torch.ones(task.num_train))
        self.register_buffer("T", task.T.clone())
        self.seen, self.cache = 0, {}

    def get_extra_state(self):
        return {"seen": self.seen}

    def set_extra_state(self, state):
        self.seen = state["seen"]

    def prepare(self, run):
        self.teacher = copy.deepcopy(run.networks[0]).requires_grad_(False)
        run.optimise([self.shift], lambda p: torch.optim.SGD(p, lr=self.lr_shift), "shift", lambda at: 1.0)
        run.optimise(run.networks[1].parameters(), lambda p: torch.optim.Adam(p, lr=1e-3), "network1")
        helper = run.fit("warm-up", "ce", 1)
        self.targets.copy_(run.predict_train(helper).softmax(1))

    def on_epoch_start(self, run, epoch):
        losses = F.cross_entropy(run.predict_train(run.networks[0]), run.task.labels, reduction="none")
        self.cache["losses"] = losses  # made anew in every epoch
        self.weights.copy_(losses <= losses.quantile(1 - 0.5 * self.rate))
        accuracy = run.validate(run.networks[0])
        assert accuracy is None or 0 <= accuracy <= 1

    def batches(self, run, epoch):
        draw = torch.randperm(run.task.num_train, generator=run.generator("plan"))
        for index in draw.split(32):
            half = len(index) // 2
            if half:
                yield run.batch(index[:half]), run.batch(index[half:])

    def training_step(self, run, one, two):
        self.seen += len(one)
        logits = run.networks[0](one.images)
        rows = F.cross_entropy(logits + self.shift[one.index], one.labels, reduction="none")
        run.backward_step((self.weights[one.index] * rows).mean() * (1 + 1e-3 * self.seen), "network0", "shift")
        with torch.no_grad():
            guess = self.teacher(two.view(1)).softmax(1)
            self.targets[two.index] = 0.5 * self.targets[two.index] + 0.5 * guess
        draw = np.random.default_rng(int(torch.randint(2**31, (), generator=run.generator(f"draw{run.step}"))))
        scale = 1 + 0.01 * draw.random() + 0.01 * random.random()
        run.backward_step(scale * F.cross_entropy(run.networks[1](two.strong()), guess), "network1")
        return logits

    def on_epoch_end(self, run, epoch):
        with torch.no_grad():
            for old, new in zip(self.teacher.parameters(), run.networks[0].parameters()):
                old.lerp_(new, 1 - self.momentum)

    def predict(self, run, images):
        return run.networks[0](images) + run.networks[1](images)
"""


@pytest.mark.parametrize("only", [["source", "hyperparameters", "repeat"], pytest.param([], marks=pytest.mark.methods)])
def test_the_file_that_new_method_writes_passes(tmp_path, only):
    assert not complaints(runner.check(template.write("my-loss", tmp_path / "new"), only=only))


FRAMES = """
def secret(self):
    frame = sys._getframe()
    while frame is not None:
        if "clean_labels" in frame.f_locals and "memorisation" in frame.f_locals:
            return frame.f_locals["clean_labels"]
        frame = frame.f_back

def loss(self, logits, batch):
    return F.cross_entropy(logits, self.secret()[batch.index])
"""
GC = """
def secret(self):
    return next(o for o in gc.get_objects() if type(o).__name__ == "Memorisation")._clean

def on_epoch_start(self, run, epoch):
    self.labels = self.secret()

def loss(self, logits, batch):
    return F.cross_entropy(logits, self.labels[batch.index])
"""
TEST_SET = """
def prepare(self, run):
    frame = sys._getframe()
    while "scored" not in frame.f_locals:
        frame = frame.f_back
    self.register_buffer("shift", frame.f_locals["scored"]["test"][0].data.float().mean())

def loss(self, logits, batch):
    return F.cross_entropy(logits * (1 + self.shift), batch.labels)
"""
SECRET_RATE = """
def prepare(self, run):
    frame = sys._getframe()
    while "data" not in frame.f_locals or not hasattr(frame.f_locals["data"], "noise_rate_train"):
        frame = frame.f_back
    self.rate = frame.f_locals["data"].noise_rate_train

def loss(self, logits, batch):
    return F.cross_entropy(logits, batch.labels) * (1 + self.rate)
"""


TEST_LABELS = """
def predict(self, run, images):
    logits, frame = run.networks[0](images), sys._getframe()
    while frame is not None:
        test_labels = frame.f_locals["scored"]["test"][1] if "scored" in frame.f_locals else ()
        if len(test_labels) == len(images):
            return logits + CHEAT * F.one_hot(test_labels, logits.shape[1])
        frame = frame.f_back
    return logits
"""
FAST_INIT = init("self.register_buffer('targets', torch.zeros(task.num_train, task.num_classes))")
FAST_LOSS = loss(
    "p = logits.detach().softmax(1)",
    "self.targets[batch.index] = 0.7 * self.targets[batch.index] + 0.3 * p",
    "t = F.one_hot(batch.labels, logits.shape[1]) + self.targets[batch.index]",
    value="F.cross_entropy(logits, t)",
)


def fast_form(rows: str = "rows", grad: str = "dlogits / len(batch)", update: str = "0.3 * p") -> str:
    return function(
        "loss_and_grad(self, logits, batch)",
        "p = logits.softmax(1)",
        f"self.targets[batch.index] = 0.7 * self.targets[batch.index] + {update}",
        "t = F.one_hot(batch.labels, logits.shape[1]) + self.targets[batch.index]",
        "rows = -(t * logits.log_softmax(1)).sum(1)",
        "dlogits = t.sum(1, keepdim=True) * p - t",
        f"return {rows}, {grad}",
    )


def shared(name: str, reset: str = "on_epoch_start(self, run, epoch)", when: str = "if epoch == 0") -> str:
    """A loss that counts its calls in `name`, which begins at 0 with each training."""
    return function(reset, f"{when}: {name} = 0") + scaled_by(name, f"{name} += 1")


def scaled_by(name: str, update: str) -> str:
    """A loss whose value depends on the state `name`, which `update` changes."""
    return loss(update, value=f"F.cross_entropy(logits, batch.labels) * (1 + 0.01 * {name})")


# body, the check that must fail (and no other), what its message must say
OWN_WEIGHTS = init("self.w = nn.Parameter(torch.zeros(task.num_classes))")
BROKEN: dict[str, tuple[str, str, list[str]]] = {
    "clean labels from a frame": (
        members(FRAMES),
        "clean-labels",
        ["the clean labels permuted", "the mean loss of epoch 0", r"mine\.py:\d+: frame = sys._getframe"],
    ),
    "clean labels from a frame at a fixed depth, else the given ones": (  # where a watch's own frames would hide it
        members(
            loss(
                "found = sys._getframe(3).f_locals",
                value=(
                    "F.cross_entropy(logits, found['clean_labels'][batch.index]"
                    " if 'clean_labels' in found else batch.labels)"
                ),
            )
        ),
        "clean-labels",
        ["the clean labels permuted", "the mean loss of epoch 0"],
    ),
    "clean labels from gc": (
        members(GC),
        "clean-labels",
        ["the clean labels permuted", r"mine\.py:\d+: .*gc\.get_objects"],
    ),
    "test images from a frame": (members(TEST_SET), "clean-labels", ["another test set", "f_locals"]),
    "undeclared noise rate from a frame": (members(SECRET_RATE), "clean-labels", ["clean labels permuted", "told"]),
    "undeclared noise rate from the task": (
        members(loss("rate = self.task.privileged['noise_rate']")),
        "train",
        ["`loss` raised in epoch 0, step 0", r"mine\.py:\d+: rate = ", "told = "],
    ),
    "test labels from a frame, in predict": (
        members(CE, TEST_LABELS.replace("CHEAT", "100")),
        "test-labels",
        ["labels of the test images permuted", "predictions of epoch 0", r"mine\.py:\d+: .*test_labels"],
    ),
    "test labels from a frame, too little of them to change a class": (
        members(CE, TEST_LABELS.replace("CHEAT", "1e-5")),
        "test-labels",
        ["predictions of epoch 0"],
    ),
    "state in a dict of the class": (
        members("memory = {}\n", shared("Mine.memory['n']")),
        "resume",
        ["KeyError: 'n'", r"`Mine\.memory` \(5, after the resume absent\) is a class attribute or a global variable"],
    ),
    "state in a number of the class": (
        members("count = 0\n", shared("Mine.count")),
        "resume",
        ["epoch 1, step 5", r"`Mine\.count` \(5, after the resume 0\) is a class attribute"],
    ),
    "state in a number of its own class": (
        members("count = 0\n", shared("type(self).count")),
        "resume",
        [r"`Mine\.count` \(5, after the resume 0\)"],
    ),
    "state in a helper class": (
        "class Memory:\n    n = 0\n" + members(shared("Memory.n")),
        "resume",
        [r"`Memory\.n` \(5, after the resume 0\) is a class attribute"],
    ),
    "state in a global variable": (
        "COUNT = [0]\n" + members(shared("COUNT[0]")),
        "resume",
        [r"`COUNT` \(5, after the resume 0\) is a class attribute or a global variable", "get_extra_state"],
    ),
    "state in a default argument": (
        members(
            function("on_epoch_start(self, run, epoch)", "if epoch == 0: Mine.loss.__defaults__[0].clear()"),
            function(
                "loss(self, logits, batch, memo=[])",
                "memo.append(0)",
                "return F.cross_entropy(logits, batch.labels) * (1 + 0.01 * len(memo))",
            ),
        ),
        "resume",
        ["no attribute of the method, its class, its module", "default argument"],
    ),
    "a plan that follows its steps": (
        members(
            init("self.register_buffer('seen', torch.zeros(task.num_train))"),
            loss("self.seen[batch.index] += logits.detach().max(1).values"),
            function(
                "batches(self, run, epoch)",
                "for index in run.order().split(16):",
                "    yield run.batch(index[self.seen[index] <= self.seen.max()])",
                "    yield run.batch(self.seen.topk(8, largest=False).indices)",
            ),
        ),
        "plan",
        ["drawn three ahead, it trains differently", r"the loss of epoch 0, step \d+", "image files"],
    ),
    "a plan that knows the step": (
        members(
            CE,
            function(
                "batches(self, run, epoch)",
                "for index in run.order().split(16):",
                "    yield run.batch(index[: max(4, len(index) - run.step)])",
            ),
        ),
        "plan",
        [r"run\.step"],
    ),
    "a generator that plan and steps share": (
        members(
            function(
                "batches(self, run, epoch)",
                "draws = run.generator('all')",
                "for index in run.order().split(16):",
                "    yield run.batch(index[torch.randperm(len(index), generator=draws)]), draws",
            ),
            function(
                "training_step(self, run, batch, draws)",
                "logits = run.networks[0](batch.images)",
                "share = torch.rand((), generator=draws)",
                "run.backward_step(share * F.cross_entropy(logits, batch.labels))",
                "return logits",
            ),
        ),
        "plan",
        ["a generator of their own"],
    ),
    "a fast form with the gradient of the sum": (
        members(FAST_INIT, FAST_LOSS, fast_form(grad="dlogits")),
        "fast-form",
        ["epoch 0, step 0: dlogits is 16 times the gradient of the loss, which is the batch size"],
    ),
    "a fast form with a slightly wrong gradient": (
        members(FAST_INIT, FAST_LOSS, fast_form(grad="(dlogits + 1e-3 * p) / len(batch)")),
        "fast-form",
        [r"epoch 0, step 0: dlogits\[\d+, \d\] is .*, the gradient of the loss "],
    ),
    "a fast form with another value": (
        members(FAST_INIT, FAST_LOSS, fast_form(rows="1.001 * rows + 0.001")),
        "fast-form",
        ["the mean of the rows is .*, the loss "],
    ),
    "a fast form with a mean in place of rows": (
        members(FAST_INIT, FAST_LOSS, fast_form(rows="rows.mean()")),
        "fast-form",
        [r"rows \(\) and dlogits \(16, 10\)"],
    ),
    "a fast form that is wrong late": (
        members(FAST_INIT, FAST_LOSS, fast_form(grad="dlogits * (logits.abs() < 20) / len(batch)")),
        "fast-form",
        ["logits times 12: dlogits"],
    ),
    "a fast form with a state of its own": (
        members(
            FAST_INIT,
            CE,
            function(
                "loss_and_grad(self, logits, batch)",
                "self.targets[batch.index] += 1",
                "rows = F.cross_entropy(logits, batch.labels, reduction='none')",
                "return rows, (logits.softmax(1) - F.one_hot(batch.labels, logits.shape[1])) / len(batch)",
            ),
        ),
        "fast-form",
        [r"self\.targets is not the same afterwards", "the same state as loss"],
    ),
    "a loss that is never called, and fails": (
        members(FAST_INIT, loss("raise ZeroDivisionError"), fast_form()),
        "fast-form",
        ["called beside loss_and_grad", "`loss` raised in epoch 0, step 0", "ZeroDivisionError"],
    ),
    "writes batch.labels": (
        members(loss("batch.labels[0] = 1")),
        "read-only",
        [r"batch\.labels was written to in `loss`, epoch 0, step \d+: at \[0\]: \d became 1", "clone"],
    ),
    "writes batch.images in a step": (
        members(step("batch.images.mul_(2)")),
        "read-only",
        [r"batch\.images was written to in `training_step`, epoch 0, step 0"],
    ),
    "writes logits": (
        members(loss("logits -= 1")),
        "read-only",
        ["logits was written to in `loss`, epoch 0, step 0"],
    ),
    "writes task.labels": (
        members(CE, function("on_epoch_end(self, run, epoch)", "if epoch == 1: run.task.labels[3] += 1")),
        "read-only",
        [r"task\.labels was written to in `on_epoch_end`, epoch 1, step \d+: at \[3\]", "buffer"],
    ),
    "writes the images it predicts": (
        members(CE, predict("images.mul_(0.5)")),
        "read-only",
        ["images was written to in `predict`"],
    ),
    "a tensor as a plain attribute": (
        members(init("self.seen = torch.zeros(())"), scaled_by("self.seen", "self.seen = self.seen + 1")),
        "resume",
        ["`self.seen` .5.0, after the resume 0.0. is a plain attribute", r'register_buffer\("seen"', "epoch 1, step 5"],
    ),
    "a number as a plain attribute": (
        members(init("self.mean = 0.0"), scaled_by("self.mean", "self.mean = 0.9 * self.mean + 0.1")),
        "resume",
        ["`self.mean` .*is a plain number", r'register_buffer\("mean", torch.tensor\(0.0\)\)'],
    ),
    "an array as a plain attribute": (
        members(init("self.seen = np.zeros(3)"), scaled_by("float(self.seen[0])", "self.seen += 1")),
        "resume",
        ["`self.seen` .*NumPy array"],
    ),
    "a dict as a plain attribute": (
        members(init("self.memory = {'n': 0}"), scaled_by("self.memory['n']", "self.memory['n'] += 1")),
        "resume",
        ["`self.memory` .*is a plain dict", "get_extra_state"],
    ),
    "a buffer that is not saved": (
        members(
            init("self.register_buffer('n', torch.zeros(()), persistent=False)"), scaled_by("self.n", "self.n += 1")
        ),
        "resume",
        ["`self.n` .*persistent=False"],
    ),
    "a teacher in a list": (
        members("""
        def prepare(self, run):
            self.teachers = [copy.deepcopy(run.networks[0]).requires_grad_(False)]

        def training_step(self, run, batch):
            logits = run.networks[0](batch.images)
            with torch.no_grad():
                guess = self.teachers[0](batch.images).softmax(1)
            run.backward_step(F.cross_entropy(logits, batch.labels) + 0.1 * F.cross_entropy(logits, guess))
            return logits

        def on_epoch_end(self, run, epoch):
            self.teachers[0].load_state_dict(run.networks[0].state_dict())
        """),
        "resume",
        [r"`self.teachers` .*holds modules in a plain list", "nn.ModuleList"],
    ),
    "an optimiser of its own": (
        members(
            OWN_WEIGHTS,
            function("prepare(self, run)", "self.adam = torch.optim.Adam([self.w], lr=0.1)"),
            function(
                "training_step(self, run, batch)",
                "self.adam.zero_grad()",
                "logits = run.networks[0](batch.images)",
                "run.backward_step(F.cross_entropy(logits + self.w, batch.labels))",
                "self.adam.step()",
                "return logits",
            ),
        ),
        "resume",
        ["`self.adam` .*run.optimise"],
    ),
    "a buffer registered late": (
        members(CE, function("on_epoch_end(self, run, epoch)", "self.register_buffer('late', torch.ones(3))")),
        "resume",
        ["stopped and continued failed", "Unexpected key", "register buffers and modules in the constructor"],
    ),
    "NaN after a while": (
        members(step("c = float('nan') if run.step == 7 else 1.0", value="c * F.cross_entropy(logits, batch.labels)")),
        "train",
        ["epoch 1, step 7: the loss is nan"],
    ),
    "a gradient that is not finite": (
        members(loss(value="F.cross_entropy(logits, batch.labels) + (logits - logits).abs().sum().sqrt()")),
        "train",
        [r"epoch 0, step 0: the gradient of run.networks\[0\]\.body.* is not finite", "clamp"],
    ),
    "an unseeded generator": (
        members(loss(value="F.cross_entropy(logits, batch.labels) * (1 + np.random.default_rng().random())")),
        "repeat",
        ["the loss of epoch 0, step 0", "default_rng", r"run\.generator"],
    ),
    "the clock": (
        members(loss(value="F.cross_entropy(logits, batch.labels) * (1 + time.time_ns() % 1000 / 1000)")),
        "repeat",
        ["time"],
    ),
    "state in the module": (
        "COUNT = [0]\n" + members(scaled_by("COUNT[0]", "COUNT[0] += 1")),
        "repeat",
        ["kept in the module"],
    ),
    "trains differently after an evaluation": (
        members(
            init("self.register_buffer('calls', torch.zeros(()))"),
            function(
                "prepare(self, run)",
                "def hook(*_): self.calls.add_(1)",
                "run.networks[0].register_forward_hook(hook)",
            ),
            loss(value="F.cross_entropy(logits, batch.labels) * (1 + self.calls % 7)"),
        ),
        "predict",
        [r"predict changed self\.calls: \d+.0 became \d+.0"],
    ),
    "trains differently after an evaluation, out of sight": (
        members(
            function(
                "prepare(self, run)",
                "seen = [0]",
                "def hook(*_): seen[0] += 1",
                "run.networks[0].register_forward_hook(hook)",
                "self.get, self.set = lambda: seen[0], lambda n: seen.__setitem__(0, n)",
            ),
            function("get_extra_state(self)", "return {'n': self.get()}"),
            function("set_extra_state(self, state)", "self.set(state['n'])"),
            loss(value="F.cross_entropy(logits, batch.labels) * (1 + self.get() % 7)"),
        ),
        "predict",
        ["evaluated twice an epoch, it trains differently", "the loss of epoch 1", "hooks"],
    ),
    "state in predict": (
        members(CE, init("self.calls = 0"), predict("self.calls += 1")),
        "predict",
        [r"predict changed self\.calls: \d+ became \d+"],
    ),
    "statistics of the batch in predict": (
        members(CE, predict("z = run.networks[0](images)", value="z - z.mean(0)")),
        "predict",
        ["depends on the batch size"],
    ),
    "the place in the batch in predict": (
        members(CE, predict("z = run.networks[0](images)", value="z + torch.arange(len(z))[:, None]")),
        "predict",
        ["order of the images"],
    ),
    "training mode in predict": (
        members(CE, predict("run.networks[0].train()")),
        "predict",
        [r"predict changed .*running_mean"],
    ),
    "logits of a wrong shape": (
        members(CE, predict(value="run.networks[0](images)[:, :9]")),
        "predict",
        [r"\(32, 9\)"],
    ),
    "crashes with 2 classes": (
        members(loss("logits.topk(3)")),
        "2-classes",
        [r"mine\.py:\d+: logits\.topk\(3\)", "`loss` raised in epoch 0, step 0"],
    ),
    "crashes with 1000 classes": (
        members(loss("assert logits.shape[1] < 100 or self.task.labels.bincount().min()")),
        "1000-classes",
        ["class without any example", "AssertionError"],
    ),
    "crashes for a batch of one": (
        members(loss(value="F.cross_entropy(logits.squeeze(), batch.labels)")),
        "batch-of-one",
        [r"epoch 0, step 4, at `loss\.backward\(\)`", r"squeeze\(\)"],
    ),
    "crashes on images": (
        members(loss("assert batch.images.shape[1] == 1")),
        "images",
        ["16x16 images", "AssertionError"],
    ),
    "crashes with a validation part": (
        members(CE, function("on_epoch_start(self, run, epoch)", "assert run.validate(run.networks[0]) is None")),
        "validation",
        ["`on_epoch_start` raised in epoch 0, step 0"],
    ),
    "a network never trained": (
        members("num_networks = 2\n", step(names="'network0'"), predict()),
        "learn",
        [r"no parameter of run\.networks\[1\] changed", "'network1'"],
    ),
    "an optimiser never stepped": (
        members(
            OWN_WEIGHTS,
            function("prepare(self, run)", "run.optimise([self.w], lambda p: torch.optim.SGD(p, lr=0.1), 'own')"),
            step(names="'network0'"),
        ),
        "learn",
        ["the optimiser 'own' was registered and never stepped"],
    ),
    "targets of a wrong shape": (
        members(CE, init("self.register_buffer('targets', torch.zeros(task.num_train))")),
        "state",
        [r"self\.targets has shape \(70,\)"],
    ),
    "a graph that is kept": (
        members(loss("self.last = logits.sum()")),
        "state",
        [r"self\.last holds the graph of a step", "detach"],
    ),
    "no docstring": (members(CE), "source", ["lacks a docstring"]),
    "a docstring without a year": (members(CE), "source", ["lacks a year"]),
    "a docstring without a place": (members(CE), "source", ["an arXiv number, a DOI or a URL"]),
    "no annotation": (members(init(more=", q=0.7"), CE), "hyperparameters", ["'q'", "type annotation"]),
    "no default": (members(init(more=", q: float"), CE), "hyperparameters", ["`q` has no default"]),
    "a default of another type": (
        members(init(more=", q: float = '0.7'"), CE),
        "hyperparameters",
        ["the default of `q`", "must be a number"],
    ),
    "a constructor that fails": (
        members(function("__init__(self, task: Task)", "self.w = nn.Parameter(torch.zeros(2))"), CE),
        "build",
        [r"super\(\)\.__init__\(task\)", r"mine\.py:\d+"],
    ),
    "two methods": (members(CE) + members(CE).replace("Mine", "Other"), "import", ["found 2: Mine, Other"]),
    "a file that cannot be imported": (
        "import no_such_module\n",
        "import",
        ["No module named 'no_such_module'", r"mine\.py", "line"],
    ),
    "neither loss nor step": ("class Mine(Method):\n    pass\n", "train", ["define loss"]),
    "two networks without a vote": (
        members(
            "num_networks = 2\n",
            step(value="sum(F.cross_entropy(n(batch.images), batch.labels) for n in run.networks)"),
        ),
        "train",
        ["define predict"],
    ),
}
HEADS = {
    "no docstring": HEAD.partition("\n")[2],
    "a docstring without a year": HEAD.replace("NeurIPS 2018, arXiv:1805.07836", "arXiv:2005.07836"),
    "a docstring without a place": HEAD.replace(", arXiv:1805.07836", ""),
}


@pytest.mark.parametrize("defect", BROKEN)
def test_a_defect_is_found_by_its_own_check(tmp_path, defect):
    body, name, says = BROKEN[defect]
    found = failures(write(tmp_path, body, HEADS.get(defect, HEAD)), only=[name])
    assert set(found) == {name}, found
    for pattern in says:
        assert re.search(pattern, found[name]), found[name]


@pytest.mark.nightly
@pytest.mark.parametrize("defect", BROKEN)
def test_a_defect_fails_no_other_check(tmp_path, defect):
    body, name, _ = BROKEN[defect]
    assert set(failures(write(tmp_path, body, HEADS.get(defect, HEAD)))) == {name}


def test_what_cannot_be_judged_says_why(tmp_path):
    results = runner.check(write(tmp_path, "class Mine(Method):\n    pass\n"))
    skipped = {result.name: result.message for result in results if result.status == "skipped"}
    assert skipped["resume"] == "cannot be judged while `repeat` is not ok"
    assert skipped["repeat"] == "cannot be judged while `train` is not ok"
    assert [r.status for r in results if r.name in ("import", "source", "hyperparameters", "build")] == ["ok"] * 4


AVERAGED = members(
    "num_networks = 2\n",
    function(
        "prepare(self, run)",
        "run.networks[1].load_state_dict(run.networks[0].state_dict())",
        "run.networks[1].requires_grad_(False)",
    ),
    step(names="'network0'"),
    function(
        "on_epoch_end(self, run, epoch)",
        "for old, new in zip(run.networks[1].parameters(), run.networks[0].parameters()): old.data.lerp_(new, 0.5)",
    ),
    predict(value="run.networks[1](images)"),
)
LATE = members(
    OWN_WEIGHTS,
    function("prepare(self, run)", "run.optimise([self.w], lambda p: torch.optim.SGD(p, lr=0.1), 'own')"),
    function(
        "training_step(self, run, batch)",
        "logits = run.networks[0](batch.images)",
        "names = ('network0', 'own') if run.epoch > 2 else ('network0',)",
        "run.backward_step(F.cross_entropy(logits + self.w, batch.labels), *names)",
        "return logits",
    ),
)
DRAWS_IN_PLAN = members(
    function(
        "batches(self, run, epoch)",
        "shares = np.random.default_rng(int(torch.randint(2**31, (), generator=run.generator('plan'))))",
        "draws = run.generator('steps')",
        "for index in run.order().split(16):",
        "    yield run.batch(index), shares.beta(4, 4), draws",
    ),
    function(
        "training_step(self, run, batch, share, draws)",
        "logits = run.networks[0](batch.images)",
        "run.backward_step((share + torch.rand((), generator=draws)) * F.cross_entropy(logits, batch.labels))",
        "return logits",
    ),
)
CONSTANTS = (
    (
        "TABLE, CACHE = torch.arange(1000.0) / 1000, {}\nclass Base(Method):\n    weights = [0.5, 1.5]\n"
        + members(
            loss(
                "CACHE[len(batch)] = TABLE[: len(batch)]",
                value="F.cross_entropy(logits + TABLE[: logits.shape[1]], batch.labels) * self.weights[1]",
            )
        )
    )
    .replace("class Mine(Method)", "class Mine(Base)")
    .replace("Base", "_Base")
)
# body, and the checks that could take it for a defect
LEGITIMATE = {
    "every part of the interface": (EVERYTHING, ["learn", "read-only", "state", "plan", "resume"]),
    "a second network that is an average of the first": (AVERAGED, ["learn", "resume"]),
    "an optimiser that begins late": (LATE, ["learn"]),
    "draws of the plan's own, and of the steps' own": (DRAWS_IN_PLAN, ["plan", "resume"]),
    "constants and a cache in the module and in a class": (CONSTANTS, ["resume"]),
    "a fast form": (members(FAST_INIT, FAST_LOSS, fast_form()), ["fast-form"]),
    "a fast form with draws": (
        members(
            loss(value="torch.rand(()) * np.random.rand() * F.cross_entropy(logits, batch.labels)"),
            function(
                "loss_and_grad(self, logits, batch)",
                "scale = torch.rand(()) * np.random.rand()",
                "rows = scale * F.cross_entropy(logits, batch.labels, reduction='none')",
                "return rows, scale * (logits.softmax(1) - F.one_hot(batch.labels, logits.shape[1])) / len(batch)",
            ),
        ),
        ["fast-form"],
    ),
}


@pytest.mark.parametrize("kind", LEGITIMATE)
def test_what_is_legitimate_passes(tmp_path, kind):
    body, names = LEGITIMATE[kind]
    results = runner.check(write(tmp_path, body), only=names)
    assert not complaints(results)
    assert set(names) <= {result.name for result in results}
    assert {result.message for result in results if result.name == "train"} <= {""}


@pytest.mark.methods
@pytest.mark.parametrize("kind", LEGITIMATE)
def test_what_is_legitimate_passes_every_check(tmp_path, kind):
    assert not complaints(runner.check(write(tmp_path, LEGITIMATE[kind][0])))


def test_a_fast_form_without_a_loss_or_a_copy_is_not_compared(tmp_path):
    def skipped(*parts):
        path = write(tmp_path, members(*parts), name=f"m{len(list(tmp_path.iterdir()))}")
        results = runner.check(path, only=["fast-form"])
        assert [r.status for r in results].count("ok") == len(results) - 1
        return next(r.message for r in results if r.name == "fast-form")

    assert skipped(FAST_INIT, fast_form()) == "it has no loss to compare its loss_and_grad with"
    module = init("self.register_buffer('targets', torch.zeros(task.num_train, task.num_classes))", "self.copy = copy")
    assert "it cannot be copied (cannot pickle 'module' object)" in skipped(module, FAST_LOSS, fast_form())


def judged(folder, source):
    results = runner.results(write(folder, members(CE), HEAD.replace("NeurIPS 2018, arXiv:1805.07836", source)))
    return next(result.status for result in results if result.name == "source")


@pytest.mark.parametrize(
    "source",
    [
        "ICML 2020, arxiv:2006.13554",
        "ICML 2020, ARXIV 2006.13554v2",
        "2001, arXiv:cs/0112017",
        "2001, cs.LG/0112017",
        "2005, arXiv:stat.ML/0507044",
        "2005, math.ST/0507044",
        "2002, arXiv:cond-mat/0201234",
        "2018, doi:10.1000/xyz123",
        "2018, HTTPS://example.org",
    ],
)
def test_sources_are_known_in_each_form(tmp_path, source):
    assert judged(tmp_path, source) == "ok"


@pytest.mark.parametrize("source", ["2018, section 3/1234567", "2018, arXiv", "arXiv:cs/0112017"])
def test_what_is_no_source_or_no_year_is_refused(tmp_path, source):
    assert judged(tmp_path, source) == "FAIL"


def test_examples_that_are_left_out_are_told(tmp_path):
    few = function("batches(self, run, epoch)", "for index in run.order()[:8].split(4): yield run.batch(index)")
    results = runner.check(write(tmp_path, members(few, CE)), only=["train"])
    assert not complaints(results)
    said = next(result for result in results if result.name == "train").lines()
    assert said[0].endswith("outputs are finite; an epoch's batches hold 8 of 70 examples")


PACKAGE = """
from .shared import SCALE
COUNT = [0]
"""


@pytest.mark.parametrize("place", ["mymethods.inner", "mymethods"])
def test_an_installed_method_is_executed_again_and_no_module_is_left(tmp_path, monkeypatch, place):
    folder = tmp_path / "mymethods"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "shared.py").write_text("SCALE = 0.01\n")
    file = folder / ("inner.py" if place.endswith("inner") else "__init__.py")
    body = shared("COUNT[0]").replace("0.01", "SCALE")
    file.write_text(HEAD + PACKAGE + members(body))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(
        registry, "method_files", lambda extra=(): {"mine": registry.MethodFile("mine", file, place, "Mine")}
    )
    registry.load_method(registry.method_files()["mine"])
    before = dict(sys.modules)
    try:
        found = failures("mine", only=["resume"])
        assert {name for name in sys.modules.keys() ^ before.keys() if "__" in name} == set()
        assert all(sys.modules[name] is module for name, module in before.items())
    finally:
        for name in [name for name in sys.modules if name.split(".")[0] == "mymethods"]:
            del sys.modules[name]
    assert set(found) == {"resume"}
    assert "`COUNT` (5, after the resume 0)" in found["resume"]


def test_a_file_that_cannot_be_executed_twice_is_checked_all_the_same(tmp_path):
    once = "if hasattr(sys, 'was_here'): raise RuntimeError\nsys.was_here = True\n"
    try:
        assert failures(write(tmp_path, once + members(CE)), only=["resume"]) == {}
    finally:
        del sys.was_here


def test_what_is_told_may_be_used(tmp_path):
    scale = "(self.task.noise_rate + self.task.T.diagonal().mean())"
    body = members("told = ('noise_rate', 'T')\n", loss(value=f"F.cross_entropy(logits, batch.labels) * {scale}"))
    assert failures(write(tmp_path, body), only=["clean-labels"]) == {}


def test_a_chosen_check_runs_after_those_it_depends_on(tmp_path):
    results = runner.check(write(tmp_path, members(CE)), only=["resume", "source"])
    assert [result.name for result in results] == ["import", "source", "build", "train", "repeat", "resume"]
    assert {result.status for result in results} == {"ok"}


@pytest.fixture
def cli(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NLBENCH_METHODS", raising=False)
    return lambda *words: CliRunner().invoke(app, ["check", *words], catch_exceptions=False)


def test_the_command_prints_a_line_a_check_and_says_by_its_status_how_it_went(cli, tmp_path):
    good = cli("ce")
    assert good.exit_code == 0, good.output
    lines = good.stdout.splitlines()
    assert lines[-1] == "ce: 19 ok, 0 failed, 1 skipped"
    status = {"fast-form": "skipped"}
    assert [line.split()[:2] for line in lines[:-1]] == [[status.get(name, "ok"), name] for name in checks.CHECKS]
    bad = cli(str(write(tmp_path, BROKEN["a dict as a plain attribute"][0], name="bad")), "--only", "resume")
    assert bad.exit_code == 1
    assert "FAIL     resume " in bad.stdout
    assert "\n         `self.memory`" in bad.stdout
    assert bad.stdout.splitlines()[-1].endswith("bad.py: 4 ok, 1 failed")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["gcee"], "unknown method 'gcee'. .* Did you mean 'gce'?"),
        (["m/gone.py"], "m/gone.py: there is no such file"),
        (["m"], "m: not a method file"),
        (["gce", "--set", "qq=1"], "--set qq: gce has no such hyperparameter. It takes: .* Did you mean 'q'?"),
        (["gce", "--set", "q=2"], "--set q: must be in"),
        (["gce", "--set", "q=x"], "--set q: must be a number"),
        (["gce", "--methods-dir", "gone"], "not a folder of method files"),
        (["gce", "--only", "resumes"], "--only resumes: unknown check. There are: import, .* Did you mean 'resume'?"),
    ],
)
def test_what_cannot_be_checked_is_refused(cli, tmp_path, words, says):
    (tmp_path / "m").mkdir()
    result = cli(*words)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert re.search(says.replace("?", r"\?"), result.stderr), result.stderr


def test_a_hyperparameter_can_be_set(tmp_path):
    body = members(init("self.kind = kind", more=", kind: str = 'good'"), loss("assert self.kind == 'good'"))
    assert set(failures(write(tmp_path, body), params={"kind": "bad"}, only=["train"])) == {"train"}


def test_the_callers_generators_and_threads_are_left_alone(tmp_path):
    import numpy as np
    import torch

    torch.manual_seed(3)
    np.random.seed(3)
    expected = torch.random.get_rng_state(), np.random.get_state()[1].copy(), torch.get_num_threads()
    runner.check(write(tmp_path, members(CE)), only=["predict"])
    assert torch.equal(torch.random.get_rng_state(), expected[0])
    assert (np.random.get_state()[1] == expected[1]).all()
    assert torch.get_num_threads() == expected[2]


def new(name, folder):
    with pytest.raises(SuiteError) as caught:
        template.write(name, folder)
    return str(caught.value)


def test_new_method_refuses_a_name_that_cannot_be_or_is_taken(tmp_path):
    assert "Did you mean 'my-loss'?" in new("MyLoss", tmp_path)
    assert "Did you mean 'my-loss'?" in new("my_loss.py", tmp_path)
    assert "Did you mean 'my-2x'?" in new("2x", tmp_path)
    assert "exists already" in new("gce", tmp_path)
    assert list(tmp_path.iterdir()) == []
    path = template.write("my-loss", tmp_path)
    assert path.name == "my_loss.py"
    path.write_text("mine")
    assert "my_loss.py exists already" in new("my_loss", tmp_path)
    assert path.read_text() == "mine"
