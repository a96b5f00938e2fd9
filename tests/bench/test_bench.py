"""`nlbench bench` times the right thing, and computes what one computes by hand."""

import csv
import itertools
import math

import pytest
import torch
from typer.testing import CliRunner

from nlbench.bench import load, measure, report, variants
from nlbench.bench import options as bench_options
from nlbench.bench.measure import Measurement
from nlbench.bench.options import BenchOptions
from nlbench.bench.variants import Shape, Workload
from nlbench.cli.app import app
from nlbench.errors import UserError

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    """Make workloads small and rounds few, so that a test takes no time."""
    monkeypatch.setattr(measure, "COPY_BYTES", 1 << 20)
    monkeypatch.setattr(bench_options, "NUM_EXAMPLES", 200)
    monkeypatch.setattr(measure, "ROUNDS", 2)


@pytest.fixture
def without_code_generation(monkeypatch):
    """Let torch.compile trace but generate no code, which would take seconds."""
    real = torch.compile

    def only_trace(function, *, options, **more):
        return real(function, backend="aot_eager", **more)

    monkeypatch.setattr(torch, "compile", only_trace)


def workload(B=8, C=3, dtype=torch.float32):
    """Return a workload of 40 examples."""
    return Workload(Shape(B, C), dtype, CPU, 40)


def measurement(variant, median=10.0, shape=(128, 10), dtype="float32", n=5, **changes):
    """Return a measurement whose quartiles are 1 below and 2 above its median."""
    quartiles = {"median_us": median, "p25_us": median - 1, "p75_us": median + 2}
    return Measurement(
        Shape(*shape), dtype, variant, 50_000, "cpp", 20.48, n=n, **quartiles, **changes
    )


def options(shapes="8x3", dtypes="float32", compiled=False):
    """Return the options of a short benchmark on the CPU."""
    return BenchOptions.read("elr", shapes, dtypes, 0.01, None, "cpu", compiled)


def invoke(*arguments):
    """Run `nlbench bench` for a moment on one small shape, and return its result."""
    small = ["--shapes", "8x3", "--dtypes", "float32", "--seconds", "0.01"]
    return CliRunner().invoke(app, ["bench", *small, *arguments])


# --- variants and workloads -----------------------------------------------------------------------


def test_the_official_way_is_the_formula():
    """Work out one example in plain arithmetic: two classes, the second below the clamp's bound."""
    z, t, y = [12.0, 0.0], [0.6, 0.3], 1
    p = [1 / (1 + math.exp(-12)), 1 / (1 + math.exp(12))]
    q = [1 - 1e-4, 1e-4]

    assert p[0] > q[0]
    assert p[1] < q[1]

    # Momentum 0.7 and weight 3 are the authors' values for CIFAR-10.
    new = [0.7 * t[c] + 0.3 * q[c] / sum(q) for c in (0, 1)]
    want = -math.log(p[y]) + 3 * math.log(1 - new[0] * q[0] - new[1] * q[1])

    memory = torch.tensor([[0.0, 0.0], t], dtype=torch.float64)
    logits = torch.tensor([z], dtype=torch.float64, requires_grad=True)
    loss = variants.official_elr(logits, torch.tensor([y]), torch.tensor([1]), memory)
    loss.backward()

    assert loss.item() == pytest.approx(want, rel=1e-12)
    assert memory.tolist() == [[0, 0], pytest.approx(new, rel=1e-12)]
    # The clamp acts on both classes, so that the cross entropy alone has a gradient.
    assert logits.grad.tolist() == [pytest.approx([p[0], p[1] - 1], rel=1e-9)]


@pytest.mark.parametrize("dtype", variants.DTYPES)
@pytest.mark.parametrize("variant", [name for name in variants.VARIANTS if name != "compile"])
@pytest.mark.parametrize("shape", [(8, 3), (33, 101)])
def test_every_variant_agrees_with_the_formula(shape, variant, dtype):
    one = Workload(Shape(*shape), getattr(torch, dtype), CPU, 100)
    before = one.targets.clone()
    step = variants.VARIANTS[variant].build(one)
    assert variants.disagreement(variant, step, one) == ""
    # The comparison leaves no trace, so all variants start from the same targets.
    assert torch.equal(one.targets, before)


def test_the_compiled_variant_agrees_with_the_formula(without_code_generation):
    one = workload()
    assert variants.disagreement("compile", variants.VARIANTS["compile"].build(one), one) == ""


@pytest.mark.parametrize(
    ("what", "loss", "gradient", "update"),
    [
        ("loss", 1.001, 1, 1),
        ("gradient", 1, 1.01, 1),
        ("targets", 1, 1, 0),
        ("loss", float("nan"), 1, 1),
    ],
)
def test_a_wrong_variant_is_noticed(what, loss, gradient, update):
    one = workload()
    right = variants.VARIANTS["step"].build(one)

    def wrong(labels, index):
        before = one.targets[index]
        losses, dlogits = right(labels, index)
        if not update:
            one.targets[index] = before
        return losses * loss, dlogits * gradient

    message = variants.disagreement("step", wrong, one)
    assert message.startswith(f"wrong, so not timed: {what} off by ")


def test_a_wrong_variant_has_no_numbers(monkeypatch):
    def build(one):
        logits = one.logits.detach()
        return lambda labels, index: (logits[:, 0], logits)

    monkeypatch.setitem(variants.VARIANTS, "step", variants.Variant("wrong", build))
    result = invoke("--no-compile")

    assert result.exit_code == 1
    assert "8x3 float32 step: wrong, so not timed" in result.stdout


def test_a_workload_is_as_in_training():
    one = Workload(Shape(16, 5), torch.bfloat16, CPU, 100)
    assert one.logits.is_leaf
    assert one.logits.requires_grad
    assert one.logits.dtype == torch.bfloat16
    assert one.targets.dtype == torch.float32
    assert one.targets.shape == (100, 5)
    # From zero, the targets after five updates with momentum 0.7 sum to this.
    torch.testing.assert_close(one.targets.sum(1), torch.full((100,), 1 - 0.7**5))

    # The last, smaller batch is left out: 100 examples are six batches of 16, and four more.
    assert len(one.batches) == 6
    seen = torch.cat([index for _, index in one.batches])
    assert len(seen.unique()) == 96


# --- taking times ---------------------------------------------------------------------------------


def test_variants_take_turns_with_new_indices_and_no_gradient(monkeypatch):
    monkeypatch.setattr(measure, "work_now", lambda: None)
    one = workload()
    calls, seen = [], []

    def timed(call, *batch):
        calls.append(call)
        if batch:
            assert one.logits.grad is None
            call(*batch)
            seen.append(batch[1])
        return len(calls)

    def copy():
        raise AssertionError

    eager = variants.VARIANTS["eager"].build(one)
    fused = variants.VARIANTS["autograd"].build(one)
    both = {"eager": eager, "autograd": fused}
    times, copies, busy_elsewhere = measure.time_in_turn(both, copy, one, 1e-9, timed)

    # Two rounds, the second in the other order. A slice has three calls, and the time of its first
    # call is left out.
    first = [copy] * 3 + [eager] * 3 + [fused] * 3
    second = [copy] * 3 + [fused] * 3 + [eager] * 3
    assert calls == first + second
    assert times == {"eager": [5, 6, 17, 18], "autograd": [8, 9, 14, 15]}
    assert copies == [2, 3, 11, 12]
    assert busy_elsewhere is None
    # As in training, each call has another batch.
    for earlier, later in itertools.pairwise(seen[:6]):
        assert not torch.equal(earlier, later)


def test_compiling_is_not_in_the_times(without_code_generation):
    (rows,) = measure.run(options(compiled=True))
    by_name = {one.variant: one for one in rows}

    assert list(by_name) == list(variants.VARIANTS)
    assert by_name["compile"].n > 0
    assert by_name["compile"].backend == "torch inductor"
    assert by_name["compile"].compile_seconds > by_name["compile"].median_us / 1e6
    assert by_name["eager"].compile_seconds is None


def test_without_a_compiler_the_line_gives_the_reason(monkeypatch, tmp_path):
    def no_compiler(*args, **kwargs):
        raise RuntimeError("no C++ compiler was found\nlong advice")

    monkeypatch.setattr(torch, "compile", no_compiler)
    result = invoke("--csv", str(tmp_path / "b.csv"))

    assert result.exit_code == 0, result.output
    # Only the first line of the message is shown.
    reason = "torch.compile failed: RuntimeError: no C++ compiler was found"
    assert f"8x3 float32 compile: {reason}." in result.stdout

    rows = {row["variant"]: row for row in csv.DictReader((tmp_path / "b.csv").open())}
    assert rows["compile"]["why"] == reason
    assert rows["compile"]["median_us"] == ""
    assert rows["step"]["times_faster_than_compile"] == ""
    assert float(rows["step"]["times_faster_than_eager"]) > 0


# --- computing from times -------------------------------------------------------------------------


def test_bytes_by_hand():
    # Logits are read and gradients are written in the dtype of the logits. Targets are read and
    # written in float32.
    assert measure.bytes_moved(Shape(128, 10), "float32") == 128 * 10 * (4 + 4 + 4 + 4)
    assert measure.bytes_moved(Shape(128, 10), "bfloat16") == 128 * 10 * (2 + 4 + 4 + 2)
    assert measure.bytes_moved(Shape(1024, 1000), "float32") == 16_384_000


def test_rates_by_hand():
    # It moves 20,480 bytes in 10 microseconds, where a copy moves 20.48 GB/s.
    one = measurement("step", median=10.0)
    assert one.gb_per_s == pytest.approx(2.048)
    assert one.share_of_copy == pytest.approx(0.1)


def test_ratios_by_hand():
    rows = [
        measurement("eager", 300),
        measurement("compile", 100),
        measurement("step", 12),
        measurement("eager", 1, dtype="bfloat16"),
        measurement("eager", 2, shape=(64, 10)),
        measurement("step", 4, shape=(64, 10)),
    ]

    assert measure.times_faster(rows, rows[2], "eager") == 25
    assert measure.times_faster(rows, rows[2], "compile") == pytest.approx(100 / 12)
    assert measure.times_faster(rows, rows[1], "eager") == 3
    assert measure.times_faster(rows, rows[5], "eager") == 0.5
    assert measure.times_faster(rows, rows[5], "compile") is None
    assert measure.times_faster([measurement("eager", n=0), rows[2]], rows[2], "eager") is None


def test_tables_of_hand_written_times():
    medians = {"autograd": 60, "step+backward": 40, "step": 10, "eager": 400, "compile": 100}
    rows = [measurement(name, median) for name, median in medians.items()]
    text = report.render(options("128x10", compiled=True), rows)
    lines = set()
    for line in text.splitlines():
        lines.add(",".join(cell.strip() for cell in line.strip("|").split("|")))

    assert "128x10 step,10.0,9.0 to 12.0,5,40.00,10.00,2.05,10.0%," in lines
    assert "128x10,10.00,2.50,1.67,40.00,10.0%" in lines
    assert "Rows of the memory: 50,000 at 128x10." in text


@pytest.mark.parametrize(
    ("pattern", "kept"), [("qlqq", [0, 2]), ("lqll", [1, 0, 2, 3]), ("lqlq", [1, 3])]
)
def test_a_crowded_round_is_repeated(monkeypatch, pattern, kept):
    """Two rounds are wanted, and at most four are made. q is a quiet round, l a loud one."""
    clock = itertools.count()
    monkeypatch.setattr(measure, "work_now", lambda: load.Work(next(clock), 0, 0))
    monkeypatch.setattr(measure, "busy_elsewhere", lambda spans: int(spans[0][0].clock) // 2)
    monkeypatch.setattr(measure, "crowded", lambda round: pattern[round] == "l")
    number = itertools.count()

    def timed(*call):
        # A round has six calls, three of the copy and three of the step, so this is its number.
        return next(number) // 6

    one = workload()
    calls = {"step": variants.VARIANTS["step"].build(one)}
    times, copies, _ = measure.time_in_turn(calls, print, one, 1e-9, timed)

    assert list(dict.fromkeys(times["step"])) == list(dict.fromkeys(copies)) == kept


def test_a_crowded_machine_is_reported(monkeypatch):
    before = load.Work(clock=10.0, machine=100.0, own=5.0)
    after = load.Work(clock=12.0, machine=103.5, own=7.0)

    # The machine worked 3.5 seconds in 2 seconds, and 2 of them for this process.
    assert load.busy_elsewhere([(before, after)]) == 0.75
    assert load.busy_elsewhere([(None, None)]) is None

    monkeypatch.setattr(load.os, "cpu_count", lambda: 2)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    rows = []
    for name in variants.VARIANTS:
        if name != "compile":
            rows.append(measurement(name, busy_elsewhere=0.75))
    text = report.render(options("128x10"), rows)

    assert "| 128x10 step ! " in text
    assert "! 128x10 float32: NOT RELIABLE: other programs kept 0.8 of 2 cores busy" in text

    # With one thread there is a second core for the other programs.
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    text = report.render(options("128x10"), rows)
    assert "NOT RELIABLE" not in text


# --- the command ----------------------------------------------------------------------------------


def test_the_command_prints_writes_and_draws(tmp_path):
    table, picture = tmp_path / "b.csv", tmp_path / "b.png"
    result = invoke("--no-compile", "--csv", str(table), "--plot", str(picture))

    assert result.exit_code == 0, result.output
    assert "**elr, float32: one step, forward and backward" in result.stdout
    assert "8x3 step+backward" in result.stdout

    rows = list(csv.DictReader(table.open()))
    assert tuple(rows[0]) == report.COLUMNS
    assert [row["variant"] for row in rows] == ["autograd", "step+backward", "step", "eager"]

    for row in rows:
        assert (row["B"], row["C"], row["num_examples"], row["dtype"]) == (
            "8",
            "3",
            "200",
            "float32",
        )
        assert float(row["p25_us"]) <= float(row["median_us"]) <= float(row["p75_us"])
        assert int(row["n"]) >= 2 * measure.ROUNDS
        assert row["device_name"]
        assert row["torch"] == torch.__version__
        assert row["threads"] == str(torch.get_num_threads())
        rate = 8 * 3 * 16 / float(row["median_us"]) / 1e3
        assert float(row["gb_per_s"]) == pytest.approx(rate, abs=1e-4)

    assert float(rows[3]["times_faster_than_eager"]) == 1
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_threads_are_set_and_reported():
    before = torch.get_num_threads()
    try:
        result = invoke("--no-compile", "--threads", "1")
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)

    assert " 1 threads" in result.stdout


def test_an_interrupted_run_prints_what_it_has(monkeypatch):
    def first_only(options):
        yield [measurement(name) for name in ("autograd", "step+backward", "step", "eager")]
        raise KeyboardInterrupt

    monkeypatch.setattr(measure, "run", first_only)
    result = invoke("--no-compile")

    assert result.exit_code == 130
    assert "128x10 eager" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--op", "elrr"], "--op elrr: unknown. There are: elr. Did you mean 'elr'?"),
        (
            ["--shapes", "128-10"],
            "--shapes 128-10: not a shape. Write BxC, rows by classes, as in 128x10,1024x1000",
        ),
        (["--shapes", "8x3,0x10"], "--shapes 0x10: needs at least 1 row and 2 classes"),
        (["--shapes", "8x1"], "--shapes 8x1: needs at least 1 row and 2 classes"),
        (["--shapes", "999999999x999999999"], "an eighth of this machine's memory is"),
        (
            ["--dtypes", "bfloat"],
            "--dtypes bfloat: unknown. There are: float32, bfloat16, float16.",
        ),
        (["--dtypes", ","], "--dtypes: names none."),
        (["--seconds", "0"], "--seconds 0: must be above 0"),
        (["--seconds", "nan"], "--seconds nan: must be above 0"),
        (["--threads", "0"], "--threads 0: must be 1 or more"),
        (["--device", "tpu"], "--device tpu: must be cpu, cuda or cuda:N"),
        (["--device", "cuda:99"], "--device cuda:99: torch sees"),
        (["--device", "cuda:01"], "--device cuda:01: must be cpu, cuda or cuda:N"),
        (["--csv", "nowhere/b.csv"], "--csv nowhere/b.csv: there is no folder nowhere"),
        (["--csv", "."], "--csv .: is a folder; name a file"),
        (["--plot", "b.txt"], "--plot b.txt: must end in .png or .pdf or .svg"),
        (["--plot", "nowhere/b.png"], "--plot nowhere/b.png: there is no folder nowhere"),
    ],
)
def test_errors_name_the_option_and_what_to_write(arguments, message, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stdout == ""
    assert not list(tmp_path.iterdir())


def test_all_problems_come_together():
    with pytest.raises(UserError, match=r"(?s)--op x.*--dtypes y.*--shapes z.*--seconds"):
        BenchOptions.read("x", "z", "y", -1, None, "cpu", True)


def test_a_file_that_turns_unwritable_is_named(tmp_path):
    with pytest.raises(UserError, match="cannot be written"):
        report.write_csv(tmp_path / "gone" / "b.csv", options(), [measurement("eager")])
