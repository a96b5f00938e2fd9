"""Whole steps that are recorded once and replayed give the bits of steps as they are.

Without a GPU a tape of operators stands in for a graph. With one, the tests that have `recorders`
run with graphs as well.
"""

import contextlib
import dataclasses
import warnings
from unittest import mock

import numpy as np
import pytest
import torch
from lab import make_run, make_task
from marks import needs_gpu
from stops import train_in_pieces
from sweeps import method_file, outcome
from sweeps import suite as suite_of
from tape import GraphRecorder, StepRecorder, TapeRecorder
from torch import nn
from torch.nn import functional as F

import nlbench
from nlbench import api, executors, hardware, models, registry
from nlbench.data.datasets import digits
from nlbench.method import Method
from nlbench.plan import protocol as protocols
from nlbench.training import capture, network, setup, train, whole_step
from nlbench.training.context import RunOptions
from nlbench.training.counters import Counters
from nlbench.training.epoch import train_epoch
from nlbench.training.images import Images
from nlbench.training.network import Network, Passes

CAPTURABLE = {
    "ce": {},
    "elr": {},
    "alr": {"warmup_share": 0.4},
    "cores2": {},
    "gce": {"truncate": True},
    "sl": {},
    "bootstrap": {"kind": "soft"},
    "mae": {},
    "nce-rce": {},
    "agce": {},
    "aul": {},
    "ael": {},
    "nce-agce": {},
    "js": {},
    "eps-softmax": {},
    "logit-clip": {"norm": 2.5},
    "gls": {},
    "pencil": {},
    "sat": {},
    "selc": {},
    "forward": {"T": True},
    "backward": {"T": True},
}
QUICK = ("ce", "elr", "alr", "cores2")

# Rates that are the same in an epoch, but in epoch 1, where they change in the middle.
MULTISTEP = {"kind": "multistep", "milestones": [1.5, 2.0], "gamma": 0.5}


TAPE, GRAPH = "cpu", pytest.param("cuda", marks=needs_gpu)


class Recorders(list):
    """The recorders of the runs of a test, and the device that these train on."""

    def __init__(self, device):
        super().__init__()
        self.device = device

    def make(self, device):
        self.append(GraphRecorder(device) if self.device == "cuda" else TapeRecorder())
        return self[-1]


@pytest.fixture(params=[TAPE, GRAPH])
def recorders(request, monkeypatch):
    """Let runs take whole steps, on the CPU as well. Return a list that gets their recorders."""
    found = Recorders(request.param)
    if found.device == "cpu":
        monkeypatch.setattr(train, "uses_whole_steps", lambda options, _: options.whole_steps)
    monkeypatch.setattr(train, "CudaRecorder", found.make)
    return found


# For tests of which a GPU would say nothing more.
with_tapes = pytest.mark.parametrize("recorders", [TAPE], indirect=True)


def sweep(out, methods, *, device="cpu", methods_dir=None, **options):
    """Return a prepared sweep of short runs: 230 examples, in 7 whole steps and a shorter one."""
    sizes = {"subset": 230, "batch_size": 32, "epochs": 3}
    return api.prepare(
        suite_of(methods),
        out=out,
        device=device,
        methods_dir=methods_dir,
        overrides={**sizes, **options},
    )


def both(folder, methods, **options):
    """Return what runs end with that take their steps as they are, and whole."""
    given = {key: options.pop(key) for key in ("record_gradients",) if key in options}
    plain, whole = (sweep(folder / name, methods, **options) for name in ("plain", "whole"))
    plain.run(**given)
    whole.run(whole_steps=True, **given)
    assert plain.failures() == whole.failures() == []
    # A pass that waits for another stream at each weight lets torch warn of it.
    assert warnings_of(whole) == warnings_of(plain)
    return outcome(plain), outcome(whole)


def warnings_of(sw):
    return [sw.store.read(spec.key).warnings for spec in sw.specs]


# --- The same bits --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [n if n in QUICK else pytest.param(n, marks=pytest.mark.methods) for n in CAPTURABLE],
)
def test_whole_steps_give_the_bits_of_steps_as_they_are(name, tmp_path, recorders):
    plain, whole = both(tmp_path, {name: CAPTURABLE[name]}, device=recorders.device)

    assert whole == plain
    (recorder,) = recorders
    assert recorder.plays
    # The first step of a training allocates the momentum, and each recording follows three steps
    # that are alike. Each of the 21 whole steps is rehearsed, recorded, or played.
    assert recorder.rehearsals == 1 + 3 * len(recorder.plays)
    assert recorder.rehearsals + len(recorder.plays) + sum(recorder.plays) == 21


def test_the_methods_that_say_they_are_capturable_are_those_of_these_tests():
    files = registry.method_files()
    say = {name for name in files if registry.load_method(files[name]).capturable}
    assert say == set(CAPTURABLE)


@pytest.mark.parametrize(
    "options",
    [
        {"schedule": MULTISTEP},
        {"schedule": {"kind": "constant"}},
        {"precision": "bfloat16"},
        {"momentum": 0.0},
        {"record_gradients": True},
        {"clip_norm": 0.5},
        {"memory": "bfloat16"},
        {"schedule": MULTISTEP, "clip_norm": 0.5},
        {"optimiser": "adamw", "lr": 0.001, "schedule": {"kind": "constant"}},
        {"schedule": {"kind": "constant"}, "precision": "bfloat16"},
        # No epoch has so many whole steps as the rehearsals and the recording take.
        {"subset": 100},
    ],
    ids=str,
)
def test_whatever_the_protocol_whole_steps_give_the_same_bits(options, tmp_path, recorders):
    plain, whole = both(tmp_path, {"elr": {}}, device=recorders.device, **options)
    assert whole == plain

    numbers = [len(recorder.plays) for recorder in recorders]
    # Constant rates are a part of the recording, so it is another one where they are others. With
    # rates that change within an epoch, the optimiser is no part of it.
    changes = options.get("schedule") == MULTISTEP
    assert numbers == [3 if changes else 1]


def test_recorded_optimisers_are_not_stepped_by_python(tmp_path, recorders, monkeypatch):
    steps = []
    inner = torch.optim.SGD.step
    monkeypatch.setattr(torch.optim.SGD, "step", lambda own: (steps.append(1), inner(own))[1])

    for kind, expected in (("constant", 21 + 3 - 16), ("one-cycle", 21 + 3)):
        steps.clear()
        sw = sweep(tmp_path, {"ce": {}}, device=recorders.device, schedule={"kind": kind})
        sw.run(whole_steps=True)
        assert sw.failures() == []
        # Of 21 whole steps, 4 are rehearsed and 1 is recorded.
        assert recorders[-1].plays == [16]
        assert len(steps) == expected


@pytest.mark.parametrize(
    ("model", "precision"), [("", "float32"), ("resnet8", "float32"), ("resnet8", "bfloat16")]
)
def test_pixels_are_augmented_by_the_draws_of_each_epoch(
    model, precision, recorders, deterministic
):
    pixels = np.random.default_rng(0).integers(0, 256, (33, 8, 8, 3), np.uint8)
    plain, whole = trained(pixels, recorders, model=model, precision=precision)
    for one, other in zip(plain, whole, strict=True):
        assert torch.equal(one, other)


def trained(pixels, recorders, **options):
    """Train four epochs of elr on pixels, by steps as they are and by whole ones.

    Returns: for both, all tensors that the training changes.
    """
    results = []
    for recorder in (None, recorders.make(torch.device(recorders.device))):
        run, method, counters = a_run(pixels, device=recorders.device, **options)
        take = None
        if recorder is not None:
            take = whole_step.whole_steps(run, method, counters.active(), recorder).take
        for epoch in range(4):
            train_epoch(run, method, epoch, counters.active(), take=take)
            run.take_loss()
        values = [*run.networks[0].state_dict().values(), method.targets, counters.losses.mean()]
        results.append([torch.as_tensor(value) for value in values])

    # Of 4 epochs with 5 whole steps each, 4 are rehearsed before the only recording.
    assert recorder.plays == [15]
    return results


@pytest.fixture
def deterministic(monkeypatch):
    """Let cuDNN compute as in runs."""
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)


def a_run(pixels, cls=None, *, model="", precision="float32", device="cpu", compiled=False):
    """Return a run of batches of 6 on pixels (N, 8, 8, 3), its method, and its counters.

    Args:
        cls: the class of the method; None for elr.
        model: a name; "" for a small network.
    """
    N = len(pixels)
    task = make_task(N=N, C=4, batch_size=6)
    task = dataclasses.replace(task, labels=task.labels.to(device), device=torch.device(device))
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 4))
    if model:
        body = models.build(model, 4, (3, 8, 8))
    ours = Network(body, precision, Passes(), batch_size=6, compiled=compiled).train()
    ours = ours.to(device).to(memory_format=torch.channels_last)
    images = Images(pixels, digits.INFO, device, augment="crop-flip")
    # The grey images of digits have one channel, and ours three.
    images.info = type(digits.INFO)(**{**vars(digits.INFO), "mean": (0.5,) * 3, "std": (0.25,) * 3})
    run = make_run(task, networks=[ours], images=images)
    cls = cls or registry.load_method(registry.method_files()["elr"])
    method = cls(task).to(device)
    counters = Counters.of(method, task.labels, task.labels.roll(1), record_gradients=False)
    return run, method, counters


def test_a_compiled_network_is_a_part_of_the_recording(tmp_path, recorders, monkeypatch):
    # On a CPU torch would compile for a minute.
    if recorders.device == "cpu":
        monkeypatch.setattr(network, "_compiled", lambda: network._plain)
    plain, whole = both(tmp_path, {"elr": {}}, device=recorders.device, compile=True)
    assert whole == plain
    assert recorders[0].plays == [16]


class OnlyLoss(Method):
    """Cross entropy, as a loss that autograd goes through. `look` is called within it."""

    capturable = True

    def look(self):
        """Look at the step."""

    def loss(self, logits, batch):
        self.look()
        return F.cross_entropy(logits, batch.labels)


def accumulator(weight):
    """Return the node that accumulates the gradient of a weight: the one there is, or a new one."""
    ((node, _),) = weight.expand_as(weight).grad_fn.next_functions
    return node


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_no_autograd_graph_outlives_a_whole_step(precision, monkeypatch):
    run, method, counters = a_run(np.zeros((60, 8, 8, 3), np.uint8), OnlyLoss, precision=precision)
    weights = [*run.networks[0].parameters()]
    whole = whole_step.whole_steps(run, method, counters.active(), StepRecorder())

    def mark():
        for weight in weights:
            accumulator(weight).metadata["marked"] = True
        # Within the step its graph holds them.
        assert all("marked" in accumulator(weight).metadata for weight in weights)

    monkeypatch.setattr(OnlyLoss, "look", lambda own: mark())
    held = []

    def take(arguments):
        whole.take(arguments)
        held.append(sum("marked" in accumulator(weight).metadata for weight in weights))

    train_epoch(run, method, 0, counters.active(), take=take)
    assert whole.captures == 1
    assert held == [0] * 10


def test_a_second_pass_backward_in_a_whole_step_is_an_error_that_says_what_to_do():
    run, _, _ = a_run(np.zeros((6, 8, 8, 3), np.uint8))
    (ours,) = run.networks
    ours.join_whole_step(True)
    logits = ours.replay(torch.zeros(6, 3, 8, 8))
    logits.sum().backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="network once; a run without --whole-steps"):
        logits.sum().backward()


# --- Checkpoints, divergence ----------------------------------------------------------------------


def test_a_run_that_stops_within_epochs_equals_one_that_does_not(tmp_path, recorders, monkeypatch):
    plain = sweep(tmp_path / "plain", {"elr": {}}, device=recorders.device)
    plain.run()

    monkeypatch.setattr(train, "uses_whole_steps", lambda options, protocol: True)
    pieces = sweep(tmp_path / "pieces", {"elr": {}}, device=recorders.device)
    stopper = train_in_pieces(pieces, every=6, device=recorders.device)

    assert outcome(pieces) == outcome(plain)
    assert stopper.steps == 3 * 8
    assert len({step for _, step in stopper.stopped}) > 2
    assert any(recorder.plays for recorder in recorders)


def test_a_loss_that_is_not_finite_is_found_with_its_step(tmp_path, recorders):
    found = []
    rates = {"lr": 1e18, "schedule": {"kind": "constant"}, "momentum": 0}
    for name in ("plain", "whole"):
        sw = sweep(tmp_path / name, {"ce": {}}, device=recorders.device, **rates)
        sw.run(whole_steps=name == "whole")
        (record,) = sw.failures()
        assert record.status == "diverged"
        found.append(record.error)
    assert found[0] == found[1]


# --- What is not taken whole ----------------------------------------------------------------------

NOT_TAKEN = {
    "says nothing": "class M(Method):{loss}",
    "another step": """class M(Method):
        capturable = True
        def training_step(self, run, batch):
            return super().training_step(run, batch)
        {loss}""",
    "another plan": """class M(Method):
        capturable = True
        def batches(self, run, epoch):
            yield from super().batches(run, epoch)
        {loss}""",
    "another loss of the base": """class _Base(Method):
        capturable = True
        {loss}
class M(_Base):
        def loss(self, logits, batch):
            return super().loss(logits, batch)""",
    "a parameter": """class M(Method):
        capturable = True
        def __init__(self, task):
            super().__init__(task)
            self.scale = torch.nn.Parameter(torch.ones(()))
        def prepare(self, run):
            run.optimise([self.scale], lambda p: torch.optim.SGD(p, 0.1), "scale")
        {loss}""",
    "a hook": """class M(Method):
        capturable = True
        def prepare(self, run):
            run.networks[0].register_forward_hook(lambda *_: None)
        {loss}""",
    "a count in Python": """class M(Method):
        capturable = True
        count = 0
        def loss(self, logits, batch):
            self.count += 1
            return (1 + self.count % 2) * F.cross_entropy(logits, batch.labels)""",
}
LOSS = """
        def loss(self, logits, batch):
            return F.cross_entropy(logits, batch.labels)"""


@with_tapes
@pytest.mark.parametrize("kind", NOT_TAKEN)
def test_what_cannot_be_replayed_is_taken_as_it_is(kind, tmp_path, recorders):
    body = NOT_TAKEN[kind].format(loss=LOSS)
    folder = method_file(tmp_path / "methods", "m", body)
    # More whole steps in an epoch than are rehearsed.
    plain, whole = both(tmp_path, {"m": {}}, methods_dir=folder, subset=500, epochs=2)

    assert whole == plain
    assert all(recorder.plays == [] for recorder in recorders)


def test_files_of_images_are_not_taken_whole():
    run, method, counters = a_run(np.zeros((12, 8, 8, 3), np.uint8))
    assert whole_step.whole_steps(run, method, counters.active(), TapeRecorder()) is not None
    run.images = object()
    assert whole_step.whole_steps(run, method, counters.active(), TapeRecorder()) is None


@with_tapes
def test_another_view_in_a_capturable_loss_ends_the_run_with_the_fix(tmp_path, recorders):
    body = """
        class Looks(Method):
            capturable = True

            def loss(self, logits, batch):
                return F.cross_entropy(logits, batch.labels) + 0 * batch.view(1).sum()
    """
    folder = method_file(tmp_path / "methods", "looks", body)
    sw = sweep(tmp_path, {"looks": {}}, methods_dir=folder)
    sw.run(whole_steps=True)
    (record,) = sw.failures()
    assert "remove `capturable = True`" in record.error["message"]


@with_tapes
def test_a_step_that_waits_for_the_device_cannot_be_recorded(tmp_path, recorders):
    body = """
        class Waits(Method):
            capturable = True

            def loss(self, logits, batch):
                losses = F.cross_entropy(logits, batch.labels, reduction="none")
                return losses[losses < 1e9].mean()
    """
    folder = method_file(tmp_path / "methods", "waits", body)
    sw = sweep(tmp_path, {"waits": {}}, methods_dir=folder)
    sw.run(whole_steps=True)
    (record,) = sw.failures()
    assert "operation not permitted" in record.error["message"]


def test_what_cuda_cannot_capture_says_what_to_do(monkeypatch):
    monkeypatch.setattr(torch.cuda, "graph", lambda graph, **how: contextlib.nullcontext())
    expected = "a part cannot be captured as a CUDA graph; --switch trains without: not permitted"
    with pytest.raises(RuntimeError, match=expected), capture.capturing(None, "a part", "--switch"):
        raise RuntimeError("not permitted when stream is capturing")


def test_a_network_that_changes_between_epochs_is_recorded_anew():
    run, method, counters = a_run(np.zeros((60, 8, 8, 3), np.uint8), OnlyLoss)
    recorder = TapeRecorder()
    whole = whole_step.whole_steps(run, method, counters.active(), recorder)

    changes = (
        lambda body: None,
        lambda body: None,
        lambda body: body[0].requires_grad_(False),
        lambda body: body[1].register_buffer("mine", torch.zeros(3)),
    )
    for epoch, change in enumerate(changes):
        change(run.networks[0].body)
        train_epoch(run, method, epoch, counters.active(), take=whole.take)
        run.take_loss()

    # In epochs of 10 steps, of which 4 are rehearsed before each recording. The first of them
    # allocates the momentum, or the memory of the network's passes.
    assert recorder.plays == [5 + 10, 5, 5]
    assert (whole.captures, whole.replays) == (3, 25)


class Bits(OnlyLoss):
    """Has two buffers that its loss reads."""

    capturable = True

    def __init__(self, task):
        super().__init__(task)
        self.register_buffer("square", torch.arange(16.0).view(4, 4))
        self.register_buffer("bits", torch.ones(4))

    def loss(self, logits, batch):
        scaled = logits @ self.square * self.bits
        return super().loss(scaled, batch)


CHANGES = {
    "nothing": lambda body, method: None,
    "strides of a buffer": lambda body, method: exchange(method.square, method.square.t()),
    "type of a buffer": lambda body, method: exchange(method.bits, method.bits.view(torch.int32)),
    "strides of a weight": lambda body, method: exchange(
        body[0].weight, body[0].weight.detach().transpose(2, 3)
    ),
}


def exchange(tensor, other):
    """Let a tensor be as `other`, which lies in the same memory and has the same shape."""
    before = id(tensor), tensor.data_ptr(), tensor.shape
    tensor.data = other
    assert (id(tensor), tensor.data_ptr(), tensor.shape) == before


@pytest.mark.parametrize("kind", CHANGES)
def test_a_tensor_that_lies_otherwise_in_its_memory_is_recorded_anew(kind):
    run, method, counters = a_run(np.zeros((60, 8, 8, 3), np.uint8), Bits)
    recorder = StepRecorder()
    whole = whole_step.whole_steps(run, method, counters.active(), recorder)

    for epoch in range(2):
        train_epoch(run, method, epoch, counters.active(), take=whole.take)
        CHANGES[kind](run.networks[0].body, method)
    train_epoch(run, method, 2, counters.active(), take=whole.take)
    assert whole.captures == {"nothing": 1, "type of a buffer": 2}.get(kind, 3)


# --- The option -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "device", "used"),
    [(True, "cuda", True), (True, "cpu", False), (False, "cuda", False)],
)
def test_whole_steps_are_for_gpus_and_only_if_asked_for(asked, device, used, tmp_path):
    protocol = protocols.resolve("digits", "digits", {})
    options = RunOptions((torch.device(device),), tmp_path, {}, whole_steps=asked)
    assert setup.uses_whole_steps(options, protocol) is used
    assert RunOptions((torch.device(device),), tmp_path, {}).whole_steps is False


@pytest.mark.parametrize(
    ("model", "graphs", "used"),
    [
        ("resnet34", None, True),
        ("resnet34", False, True),
        ("torchvision/resnet50", None, False),
        ("torchvision/resnet50", False, False),
        ("torchvision/resnet50", True, True),
        ("timm/resnet18", None, False),
    ],
)
def test_other_models_than_ours_are_captured_only_if_graphs_are_asked_for(
    model, graphs, used, tmp_path
):
    protocol = protocols.resolve("cifarn-02", "cifar10", {"model": model})
    given = {"cuda_graphs": graphs, "whole_steps": True}
    options = RunOptions((torch.device("cuda"),), tmp_path, {}, **given)
    assert setup.uses_whole_steps(options, protocol) is used


def test_whole_steps_without_a_gpu_warn_once(tmp_path):
    given = {"out": tmp_path, "device": "cpu", "whole_steps": True, "progress": False}
    rows = suite_of({"ce": {}, "gce": {}})
    short = {"epochs": 1, "subset": 100}
    expected = "^whole_steps has no effect: it needs a GPU, and these runs are trained on the CPU$"
    with pytest.warns(nlbench.NlbenchWarning, match=expected) as found:
        nlbench.run(rows, overrides=short, **given)
    assert [str(one.message).partition(" ")[0] for one in found].count("whole_steps") == 1

    # Where nothing is left to train there is nothing to say.
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        nlbench.run(rows, overrides=short, **given)
    assert not any("whole_steps" in str(one.message) for one in found)


@pytest.mark.parametrize("graphs", [None, False, True])
def test_models_that_are_not_captured_are_named(graphs, tmp_path, monkeypatch):
    said = []
    # The only other models that take the grey images of digits are those of timm.
    monkeypatch.setattr(models, "is_repeatable", lambda name: name != "digits_cnn")
    prepared = sweep(tmp_path, {"ce": {}})
    prepared.store.warn = said.append
    monkeypatch.setattr(executors, "choose", lambda options: mock.Mock())
    monkeypatch.setattr(hardware, "gpu_memory_bytes", lambda device: 80 << 30)
    gpu = dataclasses.replace(prepared, devices=lambda: (torch.device("cuda"),))
    gpu.run(whole_steps=True, cuda_graphs=graphs)

    found = [line for line in said if line.startswith("--whole-steps")]
    assert len(found) == (0 if graphs else 1)
    if found:
        assert "steps of digits_cnn are not captured" in found[0]
        assert "add --cuda-graphs" in found[0]


def test_the_record_says_whether_steps_were_whole(tmp_path):
    sw = sweep(tmp_path, {"ce": {}}, epochs=1)
    sw.run(whole_steps=True)
    assert sw.store.read(sw.specs[0].key).environment["whole_steps"] is False


def test_a_method_is_not_capturable_unless_it_says_so():
    assert Method.capturable is False


# --- More cases, for a GPU ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "recorders", [pytest.param("cpu", marks=pytest.mark.nightly), GRAPH], indirect=True
)
@pytest.mark.parametrize(
    "options",
    [
        {"schedule": MULTISTEP},
        {"schedule": {"kind": "constant"}, "precision": "bfloat16"},
    ],
    ids=str,
)
@pytest.mark.parametrize("name", CAPTURABLE)
def test_each_method_gives_the_same_bits_whatever_the_protocol(name, options, tmp_path, recorders):
    methods = {name: CAPTURABLE[name]}
    plain, whole = both(tmp_path, methods, device=recorders.device, **options)
    assert whole == plain
    assert recorders[0].plays


@needs_gpu
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_graph_of_pixels_and_a_compiled_network_gives_the_same_bits(precision, deterministic):
    pixels = np.random.default_rng(0).integers(0, 256, (33, 8, 8, 3), np.uint8)
    options = {"model": "resnet8", "precision": precision, "compiled": True}
    plain, whole = trained(pixels, Recorders("cuda"), **options)
    for one, other in zip(plain, whole, strict=True):
        assert torch.equal(one, other)
