"""The training step never waits for the device, and its faster forms are the same step."""

import contextlib
import copy
import gc
import sys
import types

import numpy as np
import pytest
import torch
from marks import needs_gpu
from sweeps import history, method_file
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from waits import waits

from nlbench import api, hardware, models, registry
from nlbench.data.datasets import digits
from nlbench.method import Batch, Task
from nlbench.plan import protocol as protocols
from nlbench.training import images as loader
from nlbench.training import network, setup, train
from nlbench.training.context import RunOptions
from nlbench.training.counters import Counters
from nlbench.training.network import Network, Passes

SMALL = {
    "name": "small",
    "protocol": "digits",
    "datasets": [{"name": "digits", "noise": {"kind": "symmetric", "rate": 0.4}}],
    "seeds": [0],
}


def sweep(out, methods, **more):
    """Return a prepared sweep of three epochs on 200 digits."""
    return api.prepare(
        {**SMALL, "methods": methods}, out=out, overrides={"epochs": 3, "subset": 200, **more}
    )


def outcomes(sw):
    """Return the metrics of each row's epochs, without those of the clock."""
    return {spec.row: history(sw.store, spec.key) for spec in sw.specs}


# --- nothing waits for the device -----------------------------------------------------------------


class NoReading(TorchDispatchMode):
    """Refuse operators that make the host wait for a GPU.

    These read a value, or give a result whose shape depends on values. Copies from the host, which
    wait as well, are seen only where there is a GPU: see `refused_waits`.
    """

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if waits(func, args):
            raise AssertionError(f"the step waits for the device: {func}")
        return func(*args, **(kwargs or {}))


def without_reading(method):
    """Return the method with a training step that fails where it would wait for a GPU."""
    step = method.training_step

    def watched(run, *item):
        with NoReading(), pytest.MonkeyPatch.context() as patch:
            # These read values, but reach no operator where the tensor is on the CPU.
            for name in ("tolist", "numpy", "cpu"):
                patch.setattr(
                    torch.Tensor,
                    name,
                    lambda self, *a, n=name: pytest.fail(f"the step calls .{n}()"),
                )

            # On a CPU one_hot reads its argument to check it, which it does not do on a GPU.
            patch.setattr(
                torch.nn.functional,
                "one_hot",
                lambda y, C: torch.eye(C, dtype=torch.int64, device=y.device)[y],
            )
            # Adam reads its count of steps, which is on the CPU even where its weights are not.
            patch.setattr(sys.modules["torch.optim.adam"], "_get_value", lambda count: 1.0)

            with refused_waits():
                return step(run, *item)

    method.training_step = watched
    return method


@contextlib.contextmanager
def refused_waits():
    """Let torch raise at calls that wait for the GPU, where there is one."""
    if not torch.cuda.is_available():
        yield
        return

    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


STEPS = {name: {} for name in registry.method_files()}

# Their networks decide how many examples of a batch a step trains on, which the host must know.
WAITING = ("co-teaching-plus", "promix")


@pytest.mark.parametrize(
    ("name", "params"),
    [*STEPS.items(), ("gce", {"truncate": True}), ("disc", {"warmup_share": 0.0})],
)
def test_a_step_does_not_wait_for_the_device(name, params, tmp_path, monkeypatch):
    build = setup.build_method
    monkeypatch.setattr(setup, "build_method", lambda *args: without_reading(build(*args)))
    sw = sweep(tmp_path, {name: params})
    sw.run()
    failures = sw.failures()
    if name in WAITING:
        # It fails for this reason alone. One that no longer waits belongs to the others.
        (failed,) = failures
        assert "the step waits for the device" in str(failed.error)
    else:
        assert failures == []


def test_a_step_that_waits_for_the_device_is_found(tmp_path, monkeypatch):
    body = """
        class Reads(Method):
            def loss(self, logits, batch):
                losses = F.cross_entropy(logits, batch.labels, reduction="none")
                return losses[losses < 5].mean()
    """
    folder = method_file(tmp_path / "m", "reads", body)
    build = setup.build_method
    monkeypatch.setattr(setup, "build_method", lambda *args: without_reading(build(*args)))
    sw = api.prepare({**SMALL, "methods": {"reads": {}}}, out=tmp_path, methods_dir=folder)
    sw.run()

    (record,) = sw.failures()
    message = record.error["message"]
    # The first is the words of NoReading, the second those of torch on a GPU.
    assert "the step waits for the device: aten." in message or "synchronizing" in message


def test_counting_what_a_step_returned_does_not_wait_for_the_device():
    labels = torch.tensor([0, 2, 1, 1])
    task = Task(4, 3, labels, epochs=1, steps_per_epoch=1, batch_size=4)
    method = registry.load_method(registry.method_files()["elr"])(task)
    counters = Counters.of(method, labels, labels.roll(1), record_gradients=True).active()
    assert len(counters) == 4

    index = torch.tensor([3, 0, 2, 1])
    batch = Batch(torch.empty(0), labels[index], index, lambda index, k: index)
    logits = torch.randn(4, 3)

    def count(run):
        for counter in counters:
            counter.add(logits, batch)

    watched = types.SimpleNamespace(training_step=count)
    without_reading(watched).training_step(None)


def test_a_loss_that_is_not_finite_is_found_with_its_step(tmp_path, monkeypatch):
    """Losses are read once an epoch. The record names the first bad one, whatever followed."""
    body = """
        class Breaks(Method):
            def training_step(self, run, batch):
                loss = F.cross_entropy(run.networks[0](batch.images), batch.labels)
                if run.step in (3, 5):
                    loss = loss * float("nan")
                run.backward_step(loss)
    """
    folder = method_file(tmp_path / "m", "breaks", body)
    sw = api.prepare({**SMALL, "methods": {"breaks": {}}}, out=tmp_path, methods_dir=folder)
    sw.run()
    (record,) = sw.failures()

    assert record.status == "diverged"
    assert (record.error["epoch"], record.error["step"]) == (0, 3)


def test_a_run_puts_torch_s_settings_back(tmp_path, monkeypatch):
    def settings():
        return torch.get_num_threads(), torch.backends.cudnn.deterministic

    seen, inner = [], train.make_task

    def looking(*args):
        seen.append(settings())
        return inner(*args)

    monkeypatch.setattr(train, "make_task", looking)
    before = settings()
    sweep(tmp_path, {"ce": {}}, epochs=1, threads=before[0] + 1).run()

    assert seen == [(before[0] + 1, True)]
    assert settings() == before


# --- precision auto -------------------------------------------------------------------------------


@pytest.mark.parametrize("has", [True, False])
def test_precision_auto_is_what_the_hardware_has(has, tmp_path, monkeypatch):
    monkeypatch.setattr(hardware, "has_bfloat16", lambda device: has)
    expected = "bfloat16" if has else "float32"
    auto = sweep(tmp_path, {"ce": {}}, precision="auto")
    named = sweep(tmp_path, {"ce": {}}, precision=expected)

    assert auto.specs[0].protocol.precision == expected
    assert auto.specs[0].key == named.specs[0].key

    auto.run()
    assert auto.store.read(auto.specs[0].key).environment["precision"] == expected


@pytest.mark.parametrize(
    ("flags", "has"),
    [
        ("fpu avx2 avx512f avx512_bf16", True),
        ("fpu amx_bf16", True),
        ("fpu avx2 avx512f avx512_vnni", False),
        ("", False),
    ],
)
def test_bfloat16_is_there_where_the_processor_says_so(flags, has, monkeypatch):
    monkeypatch.setattr(hardware, "_processor_flags", lambda: frozenset(flags.split()))
    assert hardware.has_bfloat16(torch.device("cpu")) is has


@pytest.mark.parametrize(
    ("capability", "has"), [((7, 5), False), ((8, 0), True), ((9, 0), True), ((10, 0), True)]
)
def test_bfloat16_is_there_by_a_gpu_s_capability(capability, has, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert hardware.has_bfloat16(torch.device("cuda", 0)) is has


def test_bfloat16_without_hardware_for_it_is_warned_of(tmp_path, monkeypatch):
    monkeypatch.setattr(hardware, "has_bfloat16", lambda device: False)
    sw = sweep(tmp_path, {"ce": {}}, precision="bfloat16", epochs=1)
    warnings = []
    sw.store.warn = warnings.append
    sw.run()
    assert any("bfloat16" in line and "--set precision=auto" in line for line in warnings)


# --- torch.compile --------------------------------------------------------------------------------


@pytest.mark.build
def test_a_compiled_step_is_the_same_step_and_is_compiled_once(tmp_path):
    methods = {"ce": {}, "elr": {}}
    plain, compiled = sweep(tmp_path, methods), sweep(tmp_path, methods, compile=True)
    plain.run()

    torch._dynamo.reset()
    graphs = torch._dynamo.utils.counters["stats"]
    before = graphs["unique_graphs"]
    compiled.run()

    assert compiled.failures() == []
    # One graph serves both methods, and the whole batches as well as the shorter last one.
    assert graphs["unique_graphs"] == before + 1

    for spec in compiled.specs:
        record = compiled.store.read(spec.key)
        assert record.environment["compile"] is True

    ours, theirs = outcomes(compiled), outcomes(plain)
    for row in methods:
        for one, other in zip(ours[row], theirs[row], strict=True):
            assert float(one["loss"]) == pytest.approx(float(other["loss"]), rel=1e-3)


def test_runs_without_compile_keep_their_keys(tmp_path):
    spec = sweep(tmp_path, {"ce": {}}).specs[0]
    assert "compile" not in spec.identity()["protocol"]
    assert sweep(tmp_path, {"ce": {}}, compile=False).specs[0].key == spec.key
    assert sweep(tmp_path, {"ce": {}}, compile=True).specs[0].key != spec.key
    # The key that version 0.1 gave, which had no torch.compile.
    assert api.prepare("quick", out=tmp_path).specs[0].key == "244171b360483b0b"


# --- CUDA graphs, with a stand-in for the capture -------------------------------------------------


class Recorded:
    """Stand in for a captured graph, without a GPU.

    All passes go through the same memory, as a graph's do, so that a second forward pass overwrites
    the results of the first.
    """

    def __init__(self, passage):
        self.passage = passage
        # As before a real capture, where the first rounds let the libraries choose their kernels.
        for _ in range(3):
            self.out = passage.forward()
            self.gradients = passage.backward(self.out, torch.ones_like(self.out))
        self.logits = self.out.detach().clone()

    def __call__(self, images):
        return network._Replay.apply(self, images, *self.passage.weights.values())

    def replay_forward(self, images):
        self.passage.images.copy_(images)
        with torch.enable_grad():
            self.out = self.passage.forward()
        return self.logits.copy_(self.out.detach())

    def replay_backward(self, dlogits):
        for memory, gradient in zip(
            self.gradients, self.passage.backward(self.out, dlogits), strict=True
        ):
            memory.copy_(gradient)
        return self.gradients


@pytest.fixture
def captures(monkeypatch):
    """Return a list that fills with the passages that are captured."""
    found = []

    def record(passage):
        found.append(passage)
        return Recorded(passage)

    monkeypatch.setattr(network, "_Recorded", record)
    return found


def graphed(body, precision="float32"):
    """Return a network that replays its steps, and its count of forward passes."""
    passes = Passes()
    passes.active = True
    return Network(body, precision, passes, batch_size=8, graphs=True), passes


def small_body():
    """Return a small network, with the same weights at each call."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 36, 5))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_replayed_step_is_the_same_step(precision, captures):
    images = torch.randn(4, 8, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    ours, passes = graphed(small_body(), precision)
    plain = Network(small_body(), precision, Passes(), batch_size=8)
    for each in (ours, plain):
        optimiser = torch.optim.SGD(each.parameters(), 0.1)
        for batch in images:
            optimiser.zero_grad()
            each.replay(batch).square().mean().backward()
            optimiser.step()

    assert len(captures) == 1
    # The rounds before the capture train nothing, so they are not counted.
    assert passes.images == 4 * 8
    # The moving averages of batch norm are compared, too: those rounds must not change them.
    for name, value in plain.state_dict().items():
        assert torch.equal(ours.state_dict()[name], value), name


def test_what_is_no_whole_training_batch_is_not_replayed(captures):
    ours, _ = graphed(small_body())
    # The last batch of an epoch is shorter.
    ours.replay(torch.zeros(7, 3, 8, 8))
    # The result of a plain call may be needed after the next call, which would overwrite it.
    ours(torch.zeros(8, 3, 8, 8))
    with torch.no_grad():
        ours.replay(torch.zeros(8, 3, 8, 8))
    ours.eval()
    ours.replay(torch.zeros(8, 3, 8, 8))

    assert captures == []


def test_a_copy_of_a_network_is_captured_anew(captures):
    ours, _ = graphed(small_body())
    batch = torch.randn(8, 3, 8, 8)
    ours.replay(batch)

    teacher = copy.deepcopy(ours)
    with torch.no_grad():
        for weight in teacher.parameters():
            weight.zero_()

    assert torch.equal(teacher.replay(batch), torch.zeros(8, 5))
    assert len(captures) == 2
    assert ours.replay(batch).any()
    assert set(teacher.state_dict()) == set(ours.state_dict())


def test_a_step_is_captured_anew_where_its_weights_changed(captures):
    ours, _ = graphed(small_body())
    batch = torch.randn(8, 3, 8, 8)
    for _ in range(2):
        ours.train().replay(batch)
    assert len(captures) == 1

    # A weight is frozen.
    ours.body[0].requires_grad_(False)
    ours.train().replay(batch)
    assert [len(passage.weights) for passage in captures] == [6, 4]

    # A layer is replaced.
    ours.body[3] = nn.Linear(4 * 36, 7)
    assert ours.train().replay(batch).shape == (8, 7)
    assert len(captures) == 3

    # Batch norm uses its moving averages.
    ours.train().body[1].eval()
    ours.replay(batch)
    assert len(captures) == 4

    # A parameter is replaced by another in the same memory. Its gradient must reach the new one.
    ours.body[3].weight = nn.Parameter(ours.body[3].weight.data)
    ours.train().body[1].eval()
    ours.replay(batch).sum().backward()
    assert len(captures) == 5
    assert ours.body[3].weight.grad is not None


def test_a_network_with_hooks_is_not_captured(captures):
    ours, _ = graphed(small_body())
    seen = []
    hook = ours.body[1].register_forward_hook(lambda *_: seen.append(1))
    ours.replay(torch.zeros(8, 3, 8, 8))
    assert (captures, seen) == ([], [1])
    hook.remove()

    for register in (
        lambda: ours.register_forward_hook(lambda *_: seen.append(2)),
        lambda: ours.body[0].weight.register_hook(lambda gradient: seen.append(3)),
    ):
        hook = register()
        ours.train().replay(torch.zeros(8, 3, 8, 8)).sum().backward()
        hook.remove()
    assert (captures, seen) == ([], [1, 2, 3])

    ours.train().replay(torch.zeros(8, 3, 8, 8))
    assert len(captures) == 1


def test_logits_of_a_replayed_step_stay_as_they_are(captures):
    ours, _ = graphed(small_body())
    batches = torch.randn(2, 8, 3, 8, 8)
    kept = [ours.replay(batch).detach() for batch in batches]
    assert not torch.equal(*kept)


def test_a_network_that_is_all_frozen_is_not_captured(captures):
    ours, _ = graphed(small_body().requires_grad_(False))
    ours.replay(torch.zeros(8, 3, 8, 8))
    assert captures == []


def test_what_is_compiled_is_not_captured(captures, monkeypatch):
    monkeypatch.setattr(network, "_compiled", lambda: network._plain)
    ours = Network(small_body(), "float32", Passes(), batch_size=8, compiled=True, graphs=True)
    ours.replay(torch.randn(8, 3, 8, 8))
    assert captures == []


def test_what_has_a_hook_is_not_compiled(monkeypatch):
    """Code that was compiled for a network without hooks would not call them."""
    used = []

    def compiled(body, images):
        used.append(body)
        return body(images)

    monkeypatch.setattr(network, "_compiled", lambda: compiled)
    ours = Network(small_body(), "float32", Passes(), batch_size=8, compiled=True)
    images, seen = torch.randn(8, 3, 8, 8), []
    ours(images)
    assert used == [ours.body]

    layer = ours.body[-1]
    handle = layer.register_forward_pre_hook(lambda module, args: seen.append(args))
    ours(images)
    assert len(used) == len(seen) == 1
    handle.remove()
    ours(images)
    assert len(used) == 2


def test_a_capture_leaves_the_random_generator_as_it_was(captures):
    ours, _ = graphed(nn.Sequential(nn.Dropout(), nn.Flatten(), nn.Linear(192, 5)))
    torch.manual_seed(4)
    expected = torch.rand(3)
    torch.manual_seed(4)
    network._capture(ours, torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(1)))
    assert torch.equal(torch.rand(3), expected)


def test_graphs_are_for_gpus(tmp_path, captures):
    sw = api.prepare(
        {**SMALL, "methods": {"ce": {}}},
        out=tmp_path,
        device="cpu",
        overrides={"epochs": 1, "subset": 200},
    )
    sw.run(cuda_graphs=True)

    assert sw.failures() == []
    assert captures == []
    assert sw.store.read(sw.specs[0].key).environment["cuda_graphs"] is False


@pytest.mark.parametrize(
    ("asked", "model", "compiled", "replayed"),
    [
        (None, "resnet34", False, True),
        (None, "torchvision/resnet50", False, False),
        (True, "torchvision/resnet50", False, True),
        (False, "resnet34", False, False),
        (True, "resnet34", True, False),
    ],
)
def test_whose_steps_are_replayed_by_default(asked, model, compiled, replayed, tmp_path):
    protocol = protocols.resolve("cifarn-02", "cifar10", {"model": model, "compile": compiled})
    options = RunOptions((torch.device("cuda"),), tmp_path, {}, cuda_graphs=asked)
    assert setup.uses_graphs(options, protocol) is replayed


@needs_gpu
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["resnet8", "resnet9_slim", "preact_resnet18", "cnn3"])
def test_graphs_give_the_bits_of_single_kernels(name, precision, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    rng = torch.Generator().manual_seed(1)
    batches = torch.randn(6, 32, 3, 32, 32, generator=rng).cuda()
    # As those of a mean over the batch and ten classes: small enough that the weights stay finite.
    gradients = torch.randn(6, 32, 5, generator=rng).cuda() / 320

    results = []
    for graphs in (False, True):
        torch.manual_seed(0)
        body = models.build(name, 5, (3, 32, 32))
        ours = Network(body, precision, Passes(), batch_size=32, graphs=graphs).cuda()
        ours = ours.to(memory_format=torch.channels_last).train()
        optimiser = torch.optim.SGD(ours.parameters(), 0.1, momentum=0.9, fused=True)

        logits = []
        for images, gradient in zip(batches, gradients, strict=True):
            optimiser.zero_grad(set_to_none=True)
            logits.append(ours.replay(images))
            logits[-1].backward(gradient)
            optimiser.step()

        assert bool(ours._graph.relied_on) is graphs
        results.append((torch.stack(logits), ours.state_dict()))

    (single_logits, single_state), (graph_logits, graph_state) = results
    assert single_logits.isfinite().all()
    assert torch.equal(single_logits, graph_logits)
    for key, value in single_state.items():
        assert torch.equal(value, graph_state[key]), key


@needs_gpu
def test_graphs_draw_what_single_kernels_draw():
    draws = []
    for graphs in (False, True):
        ours = Network(
            nn.Sequential(nn.Linear(64, 64), nn.Dropout(), nn.Linear(64, 64)), "float32", Passes()
        )
        ours.batch_size, ours.graphs = 32, graphs
        ours.cuda().train()
        with torch.no_grad():
            for weight in ours.parameters():
                weight.fill_(0.01)

        torch.manual_seed(3)
        draws.append([ours.replay(torch.ones(32, 64, device="cuda")).tolist() for _ in range(3)])

    assert draws[0] == draws[1]
    assert draws[0][0] != draws[0][1]


@needs_gpu
def test_a_captured_step_gives_its_memory_back():
    def use():
        ours = Network(small_body(), "float32", Passes(), batch_size=8, graphs=True).cuda()
        ours.replay(torch.zeros(8, 3, 8, 8, device="cuda")).sum().backward()

    # The first use allocates what libraries keep. The second must give everything back at once,
    # without the help of the garbage collector.
    use()
    gc.collect()
    before = torch.cuda.memory_allocated()
    gc.disable()
    try:
        use()
        torch.cuda.synchronize()
        assert torch.cuda.memory_allocated() == before
    finally:
        gc.enable()


# --- copies and memory that runs share ------------------------------------------------------------


def test_copies_on_a_device_are_kept_for_the_next_run():
    arrays = [np.zeros((2, 8, 8, 3), np.uint8) for _ in range(6)]
    first = loader.Images(arrays[0], digits.INFO, "meta").data

    assert loader.Images(arrays[0], digits.INFO, "meta").data is first
    assert loader.Images(arrays[0].copy(), digits.INFO, "meta").data is not first

    for array in arrays[1:]:
        loader.Images(array, digits.INFO, "meta")
    assert len(loader._copies) == loader.COPIES_KEPT
    assert loader.Images(arrays[0], digits.INFO, "meta").data is not first


def test_freed_memory_is_kept_where_malloc_can_be_told():
    name, version = hardware.platform.libc_ver()
    recent = name == "glibc" and tuple(map(int, version.split(".")[:2])) >= (2, 35)
    assert hardware.keep_freed_memory() or not (sys.platform == "linux" and recent)
