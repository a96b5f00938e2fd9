"""What a method changes in its process is found and put back, or fails its run."""

import copy
import os
import signal
import sys

import numpy as np
import pytest
import torch
from torch.compiler import disable
from torch.nn import functional as F

from nlbench import process_state
from nlbench.process_state import Guard, ProcessChanged
from nlbench.results import summary
from nlbench.training import evaluate


def guard(**data):
    """Return a guard of a method called `m`."""
    return Guard("m", data)


def change_and_check(change, **data):
    """Do something within a guard that fails the run if code, data or streams have changed."""
    with guard(**data) as found:
        change()
        found.require_unchanged()


# What is changed, by the part of the message that must name it: what changes it, and what reads it.
CHANGES = {
    "default dtype": (lambda: torch.set_default_dtype(torch.float64), torch.get_default_dtype),
    "modes of functions": (lambda: torch.set_default_device("meta"), torch.get_default_device),
    "torch's threads": (
        lambda: torch.set_num_threads(torch.get_num_threads() + 1),
        torch.get_num_threads,
    ),
    "gradient mode": (lambda: torch.set_grad_enabled(False), torch.is_grad_enabled),
    "autocast": (
        lambda: torch.set_autocast_enabled("cpu", True),
        lambda: torch.is_autocast_enabled("cpu"),
    ),
    "deterministic algorithms": (
        lambda: torch.use_deterministic_algorithms(True),
        torch.are_deterministic_algorithms_enabled,
    ),
    "float32 products": (
        lambda: torch.set_float32_matmul_precision("medium"),
        torch.get_float32_matmul_precision,
    ),
    "denormal numbers": (
        lambda: torch.set_flush_denormal(True),
        lambda: bool((torch.tensor([1e-40]) * 1.0 == 0).item()),
    ),
    "mkldnn.enabled": (
        lambda: setattr(torch.backends.mkldnn, "enabled", False),
        lambda: torch.backends.mkldnn.enabled,
    ),
    "cudnn.benchmark": (
        lambda: setattr(torch.backends.cudnn, "benchmark", True),
        lambda: torch.backends.cudnn.benchmark,
    ),
    "hooks of all modules": (
        lambda: torch.nn.modules.module.register_module_forward_hook(lambda *args: None),
        lambda: len(torch.nn.modules.module._global_forward_hooks),
    ),
    "anomaly mode": (lambda: torch.autograd.set_detect_anomaly(True), torch.is_anomaly_enabled),
    "handling of errors": (lambda: np.seterr(all="raise"), np.geterr),
}

SURROUNDINGS = {
    "environment variables (NLBENCH_TEST)": (
        lambda: os.environ.update(NLBENCH_TEST="1"),
        lambda: os.environ.get("NLBENCH_TEST"),
    ),
    "working directory": (lambda: os.chdir("/"), os.getcwd),
    "handlers of signals (SIGUSR2)": (
        lambda: signal.signal(signal.SIGUSR2, signal.SIG_IGN),
        lambda: signal.getsignal(signal.SIGUSR2),
    ),
    "blocked signals": (
        lambda: signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1]),
        lambda: signal.pthread_sigmask(signal.SIG_BLOCK, []),
    ),
    "recursion limit": (lambda: sys.setrecursionlimit(600), sys.getrecursionlimit),
    "standard streams": (lambda: setattr(sys, "stdin", None), lambda: sys.stdin),
    "sys.excepthook": (lambda: setattr(sys, "excepthook", print), lambda: sys.excepthook),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_setting_is_put_back_after_a_hook_and_named_once(name):
    change, read = CHANGES[name]
    before = read()
    with guard() as found:
        change()
        assert read() != before, "the test changes nothing"
        found.settle("prepare")
        assert read() == before
        (message,) = found.messages
        change()
        found.settle("on_epoch_start")
        assert read() == before
        assert found.messages == [message]

    assert message.startswith("the method m changed")
    assert name in message
    assert "in prepare; it was put back" in message
    assert read() == before


@pytest.mark.parametrize("name", SURROUNDINGS)
def test_surroundings_are_put_back_at_the_end_of_training_and_named(name):
    change, read = SURROUNDINGS[name]
    before = read()
    with guard() as found:
        change()
        assert read() != before, "the test changes nothing"
        found.settle("a training step")
        assert found.messages == []
        found.settle("training", all_parts=True)
        assert read() == before
        (message,) = found.messages

    assert name in message
    assert read() == before


def test_an_alarm_is_switched_off_and_named():
    # The limit of time of the tests is an alarm as well.
    limit = signal.setitimer(signal.ITIMER_REAL, 0)
    try:
        with guard() as found:
            signal.alarm(1000)
            found.settle("training", all_parts=True)
            assert signal.getitimer(signal.ITIMER_REAL)[0] == 0
        assert "an alarm" in found.messages[0]
    finally:
        signal.setitimer(signal.ITIMER_REAL, *limit)


def test_everything_is_put_back_when_a_run_fails():
    before = [read() for _, read in (CHANGES | SURROUNDINGS).values()]

    def fail():
        with guard():
            for change, _ in (CHANGES | SURROUNDINGS).values():
                change()
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert [read() for _, read in (CHANGES | SURROUNDINGS).values()] == before


def test_copying_what_holds_a_guard_does_not_copy_the_process():
    with guard() as found:
        assert copy.deepcopy([found.settle])[0].__self__ is found


def test_a_setting_of_the_harness_itself_can_be_accepted():
    with guard() as found:
        torch.set_grad_enabled(False)
        found.accept_settings()
        found.settle("prepare")
        assert not torch.is_grad_enabled()
        assert found.messages == []
    assert torch.is_grad_enabled()


# --- code -----------------------------------------------------------------------------------------

REPLACED = {
    "torch.nn.functional.relu": (F, "relu", F.gelu),
    "torch.optim.sgd.SGD.step": (torch.optim.SGD, "step", lambda self: None),
    "nlbench.results.summary.summarise": (summary, "summarise", dict),
    # Names that hide what was used before: of a base class, and of Python itself.
    "torch.nn.modules.linear.Linear.train": (torch.nn.Linear, "train", lambda self, mode: self),
    "nlbench.training.evaluate.sum": (evaluate, "sum", lambda values: 1.0),
}


@pytest.mark.parametrize("name", REPLACED)
def test_replaced_code_fails_the_run_and_is_put_back(name):
    owner, key, other = REPLACED[name]
    before = owner.__dict__.get(key)
    with pytest.raises(ProcessChanged, match=f"has replaced {name}, so its numbers"):
        change_and_check(lambda: setattr(owner, key, other))
    assert owner.__dict__.get(key) is before


def test_a_function_with_other_code_inside_is_found():
    before = summary.summarise.__code__
    other = (lambda history, parts: {}).__code__
    with pytest.raises(ProcessChanged, match=r"replaced nlbench.results.summary.summarise,"):
        change_and_check(lambda: setattr(summary.summarise, "__code__", other))
    assert summary.summarise.__code__ is before


def test_replaced_code_is_named_beside_another_error():
    def change():
        F.relu = F.gelu
        raise TypeError("gelu() got an unexpected keyword argument")

    with pytest.raises(TypeError) as caught:
        change_and_check(change)
    assert caught.value.__notes__ == ["the method has replaced torch.nn.functional.relu"]


def test_what_torch_does_on_its_own_is_no_change():
    with guard() as found:
        # It wraps the step of an optimiser that is used for the first time, and imports modules.
        parameter = torch.nn.Parameter(torch.zeros(1))
        optimiser = torch.optim.Adamax([parameter])
        parameter.sum().backward()
        optimiser.step()
        # Draws from the global generators harm nobody.
        torch.manual_seed(0)
        np.random.seed(0)
        found.settle("training", all_parts=True)
        found.require_unchanged()
    assert found.messages == []


@pytest.mark.parametrize("wrapped_before", [False, True])
def test_the_wrappers_of_torch_compile_are_no_change(monkeypatch, wrapped_before):
    # AdamW inherits this function of Adam.
    own = torch.optim.AdamW
    if wrapped_before:
        monkeypatch.setattr(torch.optim.Adam, "_init_group", disable(own._init_group))
    try:
        change_and_check(lambda: setattr(own, "_init_group", disable(own._init_group)))
    finally:
        del own._init_group


def test_a_wrapper_of_another_function_is_a_change():
    with pytest.raises(ProcessChanged, match=r"AdamW\._init_group"):
        change_and_check(lambda: setattr(torch.optim.AdamW, "_init_group", disable(F.relu)))
    assert "_init_group" not in vars(torch.optim.AdamW)


def test_a_wrapper_of_torch_that_is_not_its_own_doing_is_a_change():
    relu = F.relu
    with pytest.raises(ProcessChanged, match=r"functional\.relu"):
        change_and_check(lambda: setattr(F, "relu", torch.no_grad()(relu)))
    assert F.relu is relu


# --- data and streams -----------------------------------------------------------------------------


def test_written_data_fail_the_run():
    labels = np.arange(10)
    labels.setflags(write=False)

    def change():
        labels.setflags(write=True)
        labels[3] = 0

    with pytest.raises(ProcessChanged, match="the method m has written to labels"):
        change_and_check(change, labels=labels, images=np.zeros(3), missing=None)


def test_data_that_are_only_mapped_are_not_read_again(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(5))
    mapped = np.load(tmp_path / "a.npy", mmap_mode="r")
    assert not process_state._can_change(mapped[1:3])
    assert process_state._can_change(np.arange(5))


def test_a_closed_stream_fails_the_run_and_is_opened_again(capfd):
    with pytest.raises(ProcessChanged, match="closed or redirected standard error"):
        change_and_check(lambda: os.close(2))
    os.write(2, b"heard")
    assert capfd.readouterr().err == "heard"
