"""Whole steps that are recorded once and replayed give the bits of steps as they are.

There is no GPU in these tests but the last ones, so that a tape of operators stands in for a graph.
"""

import contextlib

import numpy as np
import pytest
import torch
from lab import make_run, make_task
from marks import needs_gpu
from stops import train_in_pieces
from sweeps import method_file, outcome
from sweeps import sweep as sweep_in
from tape import TapeRecorder
from torch import nn

from nlbench import api, registry
from nlbench.data.datasets import digits
from nlbench.method import Method
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
    "forward": {"T": True},
    "backward": {"T": True},
}
QUICK = ("ce", "elr", "alr", "cores2")

# Rates that are the same in an epoch, but in epoch 1, where they change in the middle.
MULTISTEP = {"kind": "multistep", "milestones": [1.5, 2.0], "gamma": 0.5}


@pytest.fixture
def recorders(monkeypatch):
    """Let runs take whole steps on the CPU. Return a list that fills with their recorders."""
    found = []

    def make(device):
        found.append(TapeRecorder())
        return found[-1]

    monkeypatch.setattr(train, "uses_whole_steps", lambda options: options.whole_steps)
    monkeypatch.setattr(train, "CudaRecorder", make)
    return found


def sweep(out, methods, **options):
    """Return a prepared sweep of short runs: 230 examples, in 7 whole steps and a shorter one."""
    sizes = {"subset": 230, "batch_size": 32, "epochs": 3}
    return sweep_in(out, methods, **{**sizes, **options})


def both(folder, methods, *, sweep=sweep, **options):
    """Return what runs end with that take their steps as they are, and whole."""
    given = {key: options.pop(key) for key in ("record_gradients",) if key in options}
    plain, whole = (sweep(folder / name, methods, **options) for name in ("plain", "whole"))
    plain.run(**given)
    whole.run(whole_steps=True, **given)
    assert plain.failures() == whole.failures() == []
    return outcome(plain), outcome(whole)


# --- The same bits --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [n if n in QUICK else pytest.param(n, marks=pytest.mark.methods) for n in CAPTURABLE],
)
def test_whole_steps_give_the_bits_of_steps_as_they_are(name, tmp_path, recorders):
    plain, whole = both(tmp_path, {name: CAPTURABLE[name]})

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
        # No epoch has so many whole steps as the rehearsals and the recording take.
        {"subset": 100},
    ],
    ids=lambda options: next(iter(options)),
)
def test_whatever_the_protocol_whole_steps_give_the_same_bits(options, tmp_path, recorders):
    plain, whole = both(tmp_path, {"elr": {}}, **options)
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
        sw = sweep(tmp_path, {"ce": {}}, schedule={"kind": kind})
        sw.run(whole_steps=True)
        assert sw.failures() == []
        # Of 21 whole steps, 4 are rehearsed and 1 is recorded.
        assert recorders[-1].plays == [16]
        assert len(steps) == expected


def test_pixels_are_augmented_by_the_draws_of_each_epoch():
    pixels = np.random.default_rng(0).integers(0, 256, (30, 8, 8, 3), np.uint8)
    results = []
    for recorder in (None, TapeRecorder()):
        run, method, counters = a_run(pixels)
        take = None
        if recorder is not None:
            take = whole_step.whole_steps(run, method, counters.active(), recorder).take
        for epoch in range(4):
            train_epoch(run, method, epoch, counters.active(), take=take)
            run.take_loss()
        values = [*run.networks[0].state_dict().values(), method.targets, counters.losses.mean()]
        results.append([torch.as_tensor(value) for value in values])

    assert recorder.plays
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)


def a_run(pixels, name="elr", **options):
    """Return a run of batches of 6 on pixels (N, H, W, 3), its method, and its counters."""
    N = len(pixels)
    task = make_task(N=N, C=4, batch_size=6)
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 4))
    ours = Network(body, "float32", Passes(), batch_size=6, **options).train()
    images = Images(pixels, digits.INFO, augment="crop-flip")
    # The grey images of digits have one channel, and ours three.
    images.info = type(digits.INFO)(**{**vars(digits.INFO), "mean": (0.5,) * 3, "std": (0.25,) * 3})
    run = make_run(task, networks=[ours], images=images)
    method = registry.load_method(registry.method_files()[name])(task)
    counters = Counters.of(method, task.labels, task.labels.roll(1), record_gradients=False)
    return run, method, counters


def test_a_compiled_network_is_a_part_of_the_recording(tmp_path, recorders, monkeypatch):
    monkeypatch.setattr(network, "_compiled", lambda: network._plain)
    plain, whole = both(tmp_path, {"elr": {}}, compile=True)
    assert whole == plain
    assert recorders[0].plays == [16]


# --- Checkpoints, divergence ----------------------------------------------------------------------


def test_a_run_that_stops_within_epochs_equals_one_that_does_not(tmp_path, recorders, monkeypatch):
    plain = sweep(tmp_path / "plain", {"elr": {}})
    plain.run()

    monkeypatch.setattr(train, "uses_whole_steps", lambda options: True)
    pieces = sweep(tmp_path / "pieces", {"elr": {}})
    stopper = train_in_pieces(pieces, every=6)

    assert outcome(pieces) == outcome(plain)
    assert stopper.steps == 3 * 8
    assert len({step for _, step in stopper.stopped}) > 2
    assert any(recorder.plays for recorder in recorders)


def test_a_loss_that_is_not_finite_is_found_with_its_step(tmp_path, recorders):
    found = []
    for name in ("plain", "whole"):
        sw = sweep(tmp_path / name, {"ce": {}}, lr=1e18, schedule={"kind": "constant"}, momentum=0)
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
    run, method, counters = a_run(np.zeros((60, 8, 8, 3), np.uint8), "ce")
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


# --- The option -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "device", "used"),
    [(True, "cuda", True), (True, "cpu", False), (False, "cuda", False)],
)
def test_whole_steps_are_for_gpus_and_only_if_asked_for(asked, device, used, tmp_path):
    options = RunOptions((torch.device(device),), tmp_path, {}, whole_steps=asked)
    assert setup.uses_whole_steps(options) is used
    assert RunOptions((torch.device(device),), tmp_path, {}).whole_steps is False


def test_the_record_says_whether_steps_were_whole(tmp_path):
    sw = sweep(tmp_path, {"ce": {}}, epochs=1)
    sw.run(whole_steps=True)
    assert sw.store.read(sw.specs[0].key).environment["whole_steps"] is False


def test_a_method_is_not_capturable_unless_it_says_so():
    assert Method.capturable is False


# --- On a GPU -------------------------------------------------------------------------------------


@needs_gpu
@pytest.mark.parametrize("name", ["ce", "elr", "alr", "cores2"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"precision": "bfloat16"},
        {"schedule": MULTISTEP},
        {"schedule": {"kind": "constant"}, "precision": "bfloat16"},
    ],
    ids=str,
)
def test_a_graph_of_whole_steps_gives_the_bits_of_steps_as_they_are(
    name, options, tmp_path, monkeypatch
):
    recorded = []
    record = capture.CudaRecorder.record
    monkeypatch.setattr(
        capture.CudaRecorder,
        "record",
        lambda own, step: (recorded.append(1), record(own, step))[1],
    )

    def on_gpu(out, methods, **options):
        suite = {
            "name": "t",
            "protocol": "digits",
            "datasets": [{"name": "digits", "noise": {"kind": "symmetric", "rate": 0.4}}],
            "methods": methods,
            "seeds": [0],
        }
        sizes = {"subset": 600, "batch_size": 32, "epochs": 3}
        return api.prepare(suite, out=out, device="cuda", overrides={**sizes, **options})

    plain, whole = both(tmp_path, {name: CAPTURABLE[name]}, sweep=on_gpu, **options)
    assert whole == plain
    assert recorded
