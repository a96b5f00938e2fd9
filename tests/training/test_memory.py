"""Errors that say memory was short, of the host and of a GPU, and what is told of them."""

import errno

import pytest
import torch
from sweeps import method_file, sweep

from nlbench.training import memory

SHORTAGES = [
    MemoryError(),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"),
    OSError(errno.ENOMEM, "Cannot allocate memory"),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
]


@pytest.mark.parametrize("error", SHORTAGES, ids=lambda error: type(error).__name__)
def test_a_shortage_is_recognised(error):
    assert memory.is_shortage(error)


class Raises(RuntimeError):
    def __str__(self):
        raise ValueError("no text")


@pytest.mark.parametrize("error", [RuntimeError("shape"), OSError(errno.ENOSPC, ""), Raises()])
def test_another_error_is_no_shortage(error):
    assert not memory.is_shortage(error)


def test_a_real_shortage_is_recorded_with_the_peak_and_a_hint(tmp_path):
    body = """
        class Large(Method):
            def loss(self, logits, batch):
                torch.zeros(1 << 58)
    """
    folder = method_file(tmp_path / "methods", "large", body)
    sw = sweep(tmp_path / "out", {"large": {}}, methods_dir=folder, subset=100)
    sw.run()
    (failed,) = sw.failures()

    assert failed.error["peak_memory"] == pytest.approx(memory.peak_bytes(), rel=0.5)
    assert "B of memory at most. Fewer --jobs, a smaller network" in failed.error_message
    # It is text of one line, as tables and lists show it.
    assert failed.error_message.startswith("RuntimeError: ")


@pytest.mark.gpu
def test_a_shortage_of_a_gpu_is_recorded_with_its_peak(tmp_path):
    body = """
        class Large(Method):
            def loss(self, logits, batch):
                torch.zeros(1 << 45, device=logits.device)
    """
    folder = method_file(tmp_path / "methods", "large", body)
    sw = sweep(tmp_path / "out", {"large": {}}, methods_dir=folder, subset=100, device="cuda")
    sw.run()
    (failed,) = sw.failures()

    assert failed.error["peak_gpu_memory"] > 0
    assert "of the GPU's memory at most" in failed.error_message


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("memory.events", "low 0\nhigh 0\nmax 7\noom 3\noom_kill 2\noom_group_kill 0\n", 2),
        ("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 5\n", 5),
        ("vmstat", "nr_free_pages 1\noom_kill 11\n", 11),
        ("vmstat", "nr_free_pages 1\n", 0),
    ],
)
def test_the_systems_count_of_processes_that_it_has_ended(
    tmp_path, monkeypatch, name, text, expected
):
    (tmp_path / name).write_text(text)
    places = ((tmp_path / "nowhere", "oom_kill"), (tmp_path / name, "oom_kill"))
    monkeypatch.setattr(memory, "_COUNTS", places)

    assert memory.kills() == expected


def test_what_is_said_of_a_killed_process():
    certain = memory.why_killed(5_200_000_000, more_kills=True)
    perhaps = memory.why_killed(5_200_000_000, more_kills=False)

    assert certain.startswith(
        "the system did that because memory was short: its process had 5.2 GB"
    )
    assert perhaps.startswith("the system does that when memory is short: its process had 5.2 GB")
    assert memory.advice(1, 3_000_000_000).startswith("it had 3.0 GB of the GPU's memory at most")
