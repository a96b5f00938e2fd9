"""Time the variants of `nlbench bench` by pytest-benchmark.

    pytest tests/benchmarks --benchmark-only -n 0

`-n 0` keeps it in one process, since pytest-benchmark times nothing in the workers of pytest-xdist.
A plain `pytest` leaves this folder out. Groups are shapes and dtypes; compare within a group.
"""

import time

import pytest
import torch

from nlbench.bench import measure, variants
from nlbench.bench.options import num_examples
from nlbench.bench.variants import Workload

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def workloads():
    """Return a function that makes the workload of a shape and dtype, and keeps the last one."""
    kept = {}

    def get(shape, dtype):
        if (shape, dtype) not in kept:
            kept.clear()
            torch.compiler.reset()
            rows = num_examples(shape, CPU)
            kept[shape, dtype] = Workload(shape, getattr(torch, dtype), CPU, rows)
        return kept[shape, dtype]

    return get


@pytest.mark.parametrize("variant", variants.VARIANTS)
@pytest.mark.parametrize("shape", variants.SHAPES, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_one_step(benchmark, workloads, dtype, shape, variant):
    work = workloads(shape, dtype)
    call = variants.VARIANTS[variant].build(work)
    # The first call also compiles what needs compiling, outside the timing.
    assert variants.disagreement(variant, call, work) == ""
    batches = work.epochs()

    # pytest-benchmark calls this before each round and does not time it.
    def fresh():
        work.logits.grad = None
        return next(batches), {}

    start = time.perf_counter()
    call(*next(batches))
    rounds = int(min(2000, max(10, 0.3 / (time.perf_counter() - start))))

    benchmark.group = f"elr {shape} {dtype}"
    benchmark.extra_info["threads"] = torch.get_num_threads()
    benchmark.extra_info["backend"] = measure.backend(variant, CPU)
    benchmark.extra_info["bytes_moved"] = measure.bytes_moved(shape, dtype)
    benchmark.pedantic(call, setup=fresh, rounds=rounds, warmup_rounds=5)
