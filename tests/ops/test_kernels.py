"""The compiled kernels against the reference in float64: instruction sets, types, threads, CUDA.

Two C++ drivers run them under sanitizers, and the CUDA sources without a GPU.
"""

import functools
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from marks import needs_gpu

from nlbench import ops
from nlbench.ops import extension, reference
from nlbench.ops.extension import core

ROOT = Path(__file__).parents[2]
CSRC, DRIVERS = ROOT / "csrc", ROOT / "tests" / "csrc"
CXX = shutil.which(os.environ.get("CXX", "g++")) or shutil.which("c++")
NVCC = shutil.which("nvcc")
ISA_FLAGS = {
    "losses_avx2": ["-mavx2", "-mfma"],
    "losses_avx512": ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma"],
}
ISAS = ["portable", "avx2", "avx512"]
FLOATS = [torch.float32, torch.bfloat16, torch.float16, torch.float64]

pytestmark = pytest.mark.skipif(
    bool(ops.why_no_extension()), reason=f"no extension: {ops.why_no_extension()}"
)
needs_cxx = pytest.mark.skipif(CXX is None, reason="no C++ compiler")


@pytest.fixture(params=ISAS)
def isa(request):
    before = core.isa()
    if not core.set_isa(request.param):
        pytest.skip(f"this processor has no {request.param}")
    yield request.param
    core.set_isa(before)


def step(op, z, labels, soft, index, targets, beta, lam):
    """(rows, dlogits), or None for update_targets."""
    if op == "elr":
        return ops.elr_step(z, labels, index, targets, beta=beta, lam=lam)
    if op == "soft":
        return ops.elr_step_soft(z, soft, targets[: len(z)], lam=lam)
    if op == "alr":
        return ops.alr_step(z, index, targets, alpha=beta, lam_e=lam)
    return ops.update_targets(z, index, targets, beta=beta, clamp=op == "clamped")


def by_reference(op, z, labels, soft, index, targets, beta, lam):
    """The same in float64, where `targets` must be float64 already."""
    z, soft, scale = z.double(), soft.double(), 1 / max(len(z), 1)
    if op == "elr":
        return reference.elr_step(z, labels, index, targets, beta, lam, scale)
    if op == "soft":
        return reference.elr_step_soft(z, soft, targets[: len(z)], lam, scale)
    if op == "alr":
        return reference.alr_step(z, index, targets, beta, lam, scale)
    return reference.update_targets(z, index, targets, beta, op == "clamped")


OPS = ["elr", "soft", "alr", "clamped", "plain"]


def near_a_bound(z):
    p = z.double().softmax(1)
    return (((p - 1e-4).abs() < 1e-6) | ((p - (1 - 1e-4)).abs() < 1e-6)).any(1)


def batch(B, C, size, agree, dtype, targets_dtype, seed):
    """Make a batch whose targets agree with the predictions as far as `agree` says, from 0 to 1."""
    rng = torch.Generator().manual_seed(seed)
    z = (torch.randn(B, C, generator=rng, dtype=torch.float64) * size).to(dtype)
    labels = torch.randint(C, (B,), generator=rng)
    index = torch.randperm(B + 3, generator=rng)[:B]
    targets = torch.rand(B + 3, C, generator=rng, dtype=torch.float64) + 0.01
    targets = 0.9 * targets / targets.sum(1, keepdim=True)
    targets[index] = (1 - agree) * targets[index] + agree * z.double().softmax(1)
    soft = torch.rand(B, C, generator=rng, dtype=torch.float64).softmax(1)
    return z, labels, soft.to(targets_dtype), index, targets.to(targets_dtype)


# The bounds are the accuracy promised: 1e-5 early; late, where 1 - <t, q> falls to 1e-4, 1e-2 of
# the largest entry of the gradient.
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    op=st.sampled_from(OPS),
    B=st.integers(0, 9),
    C=st.one_of(st.integers(1, 40), st.integers(41, 300)),
    size=st.sampled_from([0.0, 0.1, 1.0, 3.0, 12.0, 300.0]),
    agree=st.sampled_from([0.0, 0.5, 0.99, 1.0]),
    beta=st.floats(0, 0.999),
    lam=st.floats(0, 20),
    seed=st.integers(0, 2**31),
    dtype=st.sampled_from(FLOATS),
    targets_dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_kernels_agree_with_the_reference(
    isa, op, B, C, size, agree, beta, lam, seed, dtype, targets_dtype
):
    z, labels, soft, index, targets = batch(B, C, size, agree, dtype, targets_dtype, seed)
    guarded = torch.full(
        (B + 5, C), 7.0, dtype=targets_dtype
    )  # a row more at each end, which nothing may write to
    guarded[1:-1] = targets
    wide = targets.double()
    want = by_reference(op, z, labels, soft, index, wide, beta, lam)
    got = step(op, z, labels, soft, index, guarded[1:-1], beta, lam)

    assert (guarded[[0, -1]] == 7).all()
    torch.testing.assert_close(guarded[1:-1].double(), wide, rtol=1e-6, atol=1e-7)

    if got is None:
        return
    (rows, dlogits), (want_rows, want_dlogits) = got, want

    assert dlogits.dtype == dtype
    confident = bool((z.double().softmax(1) > 0.9).any())
    tol = 1e-9 if dtype == torch.float64 and not confident else 1e-5

    torch.testing.assert_close(rows.double(), want_rows, rtol=tol, atol=tol * max(1.0, lam))
    keep = ~near_a_bound(z) if op in ("elr", "soft") else torch.ones(B, dtype=torch.bool)
    if confident and dtype != torch.float64:
        tol = 1e-2 if op in ("elr", "soft") else 1e-4
    rounding = {torch.bfloat16: 2**-8, torch.float16: 2**-10}.get(dtype, 0.0)
    largest = float(want_dlogits[keep].abs().max()) if keep.any() else 0.0
    floor = (
        (1e-12 if dtype == torch.float64 else 2e-7) * (1 + lam) / max(B, 1)
    )  # p - t may vanish, its rounding not
    atol = tol * largest + floor + (1e-7 if dtype == torch.float16 else 0.0)

    torch.testing.assert_close(dlogits[keep].double(), want_dlogits[keep], rtol=rounding, atol=atol)


@pytest.mark.parametrize("op", OPS)
def test_instruction_sets_agree_with_the_portable_code(isa, op):
    for C in (1, 7, 8, 9, 15, 16, 17, 31, 33, 100, 1000, 5000):
        for size in (1.0, 12.0):
            z, labels, soft, index, targets = batch(
                5, C, size, 0.9, torch.float32, torch.float32, C
            )
            results = []
            for name in ("portable", isa):
                core.set_isa(name)
                memory = targets.clone()
                results.append((step(op, z, labels, soft, index, memory, 0.7, 3.0), memory))
            (want, want_memory), (got, memory) = results
            torch.testing.assert_close(memory, want_memory, rtol=1e-6, atol=1e-8)
            keep = ~near_a_bound(z)
            if got is not None:
                torch.testing.assert_close(got[0], want[0], rtol=1e-5, atol=1e-5)
                torch.testing.assert_close(got[1][keep], want[1][keep], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_threads_do_not_show(isa, op, dtype):
    if not core.has_threads():
        pytest.skip("no OpenMP runtime in the process")
    given_batch = batch(301, 301, 2.0, 0.5, dtype, torch.float32, 0)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            memory = given_batch[-1].clone()
            results.append((*(step(op, *given_batch[:-1], memory, 0.7, 3.0) or ()), memory))
    finally:
        torch.set_num_threads(before)

    assert all(torch.equal(one, two) for one, two in zip(*results, strict=True))


def test_a_gradient_that_is_not_wanted_is_not_computed(isa):
    z, labels, _, index, targets = batch(7, 20, 1.0, 0.5, torch.float32, torch.float32, 0)
    memory = targets.clone()
    with_grad = ops.elr_loss(
        z.clone().requires_grad_(), labels, index, targets, beta=0.7, lam=3.0, reduction="none"
    )
    without = ops.elr_loss(z, labels, index, memory, beta=0.7, lam=3.0, reduction="none")
    assert torch.equal(without, with_grad.detach())
    assert torch.equal(memory, targets)


@pytest.mark.parametrize(("name", "fails"), [("portable", False), ("avx9", True), ("", False)])
def test_the_instruction_set_can_be_chosen_from_outside(name, fails, tmp_path):
    script = "from nlbench import ops; print(ops.cpu_isa())"
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"NLBENCH_ISA": name},
        cwd=tmp_path,  # in the checkout Python would find the sources, without the extension
    )
    if fails:
        assert "NLBENCH_ISA must be portable, avx2 or avx512" in done.stderr
    else:
        assert done.stdout.strip() == (name or ops.cpu_isa()), done.stderr


# ---- C++ drivers ---------------------------------------------------------------------------------


def compiled(folder, *commands):
    """Run the compiler once per command; the last one, which links, after the others have ended."""
    *objects, link = commands
    running = [
        subprocess.Popen([CXX, *map(str, command)], stderr=subprocess.PIPE, text=True, cwd=folder)
        for command in objects
    ]
    for process in running:
        _, said = process.communicate(timeout=300)
        assert process.returncode == 0, said

    done = subprocess.run(
        [CXX, *map(str, link)], capture_output=True, text=True, cwd=folder, timeout=300
    )

    assert done.returncode == 0, done.stderr


@functools.cache
def has_sanitizers():
    program = subprocess.run(
        [CXX, "-x", "c++", "-", "-fsanitize=address,undefined", "-o", os.devnull],
        input="int main() {}",
        capture_output=True,
        text=True,
        timeout=60,
    )
    return program.returncode == 0


@pytest.mark.build
@needs_cxx
def test_kernels_under_address_and_undefined_behaviour_sanitizers(tmp_path):
    if not has_sanitizers():
        pytest.skip(f"{CXX} has no AddressSanitizer or no UndefinedBehaviorSanitizer")
    x86 = os.uname().machine in ("x86_64", "amd64")
    flags = [
        "-std=c++17",
        "-O1",
        "-g1",
        "-ffp-contract=off",
        "-fsanitize=address,undefined",
        "-fno-sanitize-recover=all",
    ]
    flags += ["-DNLBENCH_X86"] if x86 else []
    names = [
        "losses_portable",
        "losses_cpu",
        "checks",
        "threads",
        "augment_cpu",
        "strong_cpu",
        *(ISA_FLAGS if x86 else []),
    ]
    commands = [[*flags, *ISA_FLAGS.get(name, []), "-c", CSRC / f"{name}.cpp"] for name in names]
    link = [
        *flags,
        DRIVERS / "sanitized.cpp",
        *(f"{name}.o" for name in names),
        "-ldl",
        "-o",
        "run",
    ]
    compiled(tmp_path, *commands, link)
    done = subprocess.run([tmp_path / "run"], capture_output=True, text=True, timeout=300)

    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("all done\n")


# ---- CUDA ----------------------------------------------------------------------------------------


@pytest.mark.build
@needs_cxx
def test_cuda_sources_in_lockstep_on_the_cpu(tmp_path):
    """Run the kernels' indexing, reductions and dispatch without a GPU; see the driver."""
    (tmp_path / "cuda_runtime.h").write_text("#pragma once\n")
    names = ["losses_cpu", "losses_portable", "checks", "threads", "augment_cpu", "strong_cpu"]
    sources = ["-x", "c++", DRIVERS / "lockstep.cpp", *(CSRC / f"{name}.cpp" for name in names)]
    flags = [
        "-std=c++17",
        "-O1",
        "-ffp-contract=off",
        f"-I{tmp_path}",
        '-DNLBENCH_SOURCE_HASH="none"',
    ]
    compiled(tmp_path, [*flags, *sources, "-ldl", "-o", "run"])
    done = subprocess.run([tmp_path / "run"], capture_output=True, text=True, timeout=300)

    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("all done\n")


@pytest.mark.skipif(NVCC is None, reason="no nvcc")
def test_cuda_sources_were_compiled_where_nvcc_is():
    if "switched off" in ops.why_no_cuda():
        pytest.skip(ops.why_no_cuda())
    assert ops.why_no_cuda() == ""
    assert ops.cuda_architectures()
    assert ops.backend("cuda") == "cuda"


@pytest.mark.build
@pytest.mark.skipif(
    NVCC is None or CXX is None or not shutil.which("cmake"),
    reason="no nvcc, C++ compiler or cmake",
)
def test_a_failing_cuda_compile_leaves_a_reason(tmp_path):
    nvcc = tmp_path / "nvcc"
    nvcc.write_text("#!/bin/sh\necho 'losses.cu(1): error: as told' >&2\nexit 1\n")
    nvcc.chmod(0o755)
    pybind11 = pytest.importorskip("pybind11")
    done = subprocess.run(
        [
            "cmake",
            "-S",
            ROOT,
            "-B",
            tmp_path / "build",
            f"-DNLBENCH_NVCC={nvcc}",
            f"-DPython_EXECUTABLE={sys.executable}",
            f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )

    assert done.returncode == 0, done.stderr
    assert "No CUDA kernels: nvcc failed when building: losses.cu(1): error: as told" in done.stdout
    assert "error: as told" in (tmp_path / "build" / "cuda_build.h").read_text()


def on_gpu(tensors):
    return [tensor.cuda() for tensor in tensors]


@needs_gpu
@pytest.mark.skipif(bool(ops.why_no_cuda()), reason=f"no CUDA kernels: {ops.why_no_cuda()}")
@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("size", [1.0, 12.0])
@pytest.mark.parametrize(
    ("B", "C"), [(1, 1), (128, 10), (33, 100), (7, 101), (16, 1000), (5, 1003)]
)
def test_cuda_kernels_agree_with_the_reference(op, dtype, size, B, C):
    given_batch = batch(B, C, size, 0.5, dtype, torch.float32, 0)
    wide = given_batch[-1].double()
    want = by_reference(op, *given_batch[:-1], wide, 0.7, 3.0)
    moved = on_gpu(given_batch)
    got = step(op, *moved, 0.7, 3.0)
    again = step(op, *on_gpu(given_batch), 0.7, 3.0)

    torch.testing.assert_close(moved[-1].cpu().double(), wide, rtol=1e-6, atol=1e-7)
    if got is None:
        return

    assert torch.equal(got[0], again[0])
    assert torch.equal(got[1], again[1])
    torch.testing.assert_close(got[0].cpu().double(), want[0], rtol=1e-5, atol=3e-5)

    keep = ~near_a_bound(given_batch[0])
    tol = {torch.bfloat16: 2**-7, torch.float16: 2**-9}.get(dtype, 1e-2 if size > 1 else 1e-5)
    atol = tol * float(want[1].abs().max())

    torch.testing.assert_close(got[1].cpu().double()[keep], want[1][keep], rtol=0, atol=atol)


@needs_gpu
@pytest.mark.skipif(bool(ops.why_no_cuda()), reason=f"no CUDA kernels: {ops.why_no_cuda()}")
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("form", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize(("H", "W"), [(32, 32), (5, 7), (1, 1)])
def test_cuda_augment_equals_the_cpu_s(dtype, form, H, W):
    rng = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (20, H, W, 3), generator=rng, dtype=torch.uint8)
    draws = torch.cat(
        [torch.randint(9, (20, 2), generator=rng), torch.randint(2, (20, 1), generator=rng)], 1
    )
    index = torch.tensor([3, 19, 0, 3])
    chosen = {
        "mean": (0.5, 0.4, 0.3),
        "std": (0.2, 0.3, 0.1),
        "dtype": dtype,
        "memory_format": form,
    }

    for drawn in (draws, None):
        want = ops.augment(pixels, index, drawn, **chosen)
        got = ops.augment(
            pixels.cuda(), index.cuda(), drawn if drawn is None else drawn.cuda(), **chosen
        )
        assert got.is_contiguous(memory_format=form)
        assert torch.equal(got.cpu(), want)

    draws[19, 2], index[2] = 2, 20
    spoilt = (
        ops.augment(pixels.cuda(), index.cuda(), draws.cuda(), **chosen).isnan().flatten(1).all(1)
    )

    assert spoilt.tolist() == [False, True, True, False]
    with pytest.raises(IndexError, match=r"augment: (index|draws) had values out of range"):
        ops.check_faults("cuda")


@needs_gpu
@pytest.mark.skipif(bool(ops.why_no_cuda()), reason=f"no CUDA kernels: {ops.why_no_cuda()}")
def test_cuda_faults_are_told_once_an_epoch():
    z, labels, _, index, targets = on_gpu(batch(8, 10, 1.0, 0.5, torch.float32, torch.float32, 0))
    labels[2] = 10
    rows, dlogits = ops.elr_step(z, labels, index, targets, beta=0.7, lam=3.0)
    assert rows.isnan().tolist() == [b == 2 for b in range(8)]
    assert (dlogits[2] == 0).all()
    with pytest.raises(IndexError, match="elr_loss: labels had values out of range"):
        ops.check_faults("cuda")
    ops.check_faults("cuda")


@needs_gpu
@pytest.mark.skipif(bool(ops.why_no_cuda()), reason=f"no CUDA kernels: {ops.why_no_cuda()}")
def test_cuda_step_is_captured_in_a_graph():
    z, labels, _, index, targets = on_gpu(batch(128, 10, 1.0, 0.5, torch.float32, torch.float32, 0))
    memory = targets.clone()
    want = [ops.elr_step(z, labels, index, memory, beta=0.7, lam=3.0) for _ in range(3)][-1]
    ops.elr_step(z, labels, index, targets.clone(), beta=0.7, lam=3.0)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        rows, dlogits = ops.elr_step(z, labels, index, targets, beta=0.7, lam=3.0)
    for _ in range(3):
        graph.replay()

    assert torch.equal(rows, want[0])
    assert torch.equal(dlogits, want[1])
    assert torch.equal(targets, memory)


def test_check_faults_names_the_op_and_forgets(monkeypatch):
    flags = torch.tensor([0, 0, 2, 0, 4, 0], dtype=torch.int32)
    monkeypatch.setattr(extension, "fault_flags", {torch.device("cpu"): flags})
    monkeypatch.setattr("nlbench.ops.faults.fault_flags", {torch.device("cpu"): flags})

    with pytest.raises(IndexError) as caught:
        ops.check_faults("cpu")
    assert str(caught.value) == (
        "alr_loss: index had values out of range in a batch on cpu; "
        "augment: draws had values out of range in a batch on cpu"
    )

    ops.check_faults("cpu")
