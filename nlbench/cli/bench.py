"""The command `bench`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nlbench.cli.app import app, examples, guarded, warn, write
from nlbench.errors import SuiteError


@app.command(
    epilog=examples(
        "nlbench bench",
        "nlbench bench --shapes 128x10 --dtypes float32 --no-compile --seconds 0.2",
        "nlbench bench --device cuda --csv bench.csv --plot bench.png",
    )
)
@guarded
def bench(
    op: Annotated[str, typer.Option(help="The op to time: elr")] = "elr",
    shapes: Annotated[
        str,
        typer.Option(
            help="Rows x classes, for example 128x10,1024x1000. The default is six usual ones."
        ),
    ] = "",
    dtypes: Annotated[
        str, typer.Option(help="Data types of the logits; float16 is possible too.")
    ] = "float32,bfloat16",
    seconds: Annotated[
        float, typer.Option(help="Seconds of timing per variant, shape and data type.")
    ] = 1.0,
    threads: Annotated[
        int | None, typer.Option(help="CPU threads. The default is torch's.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:1")] = "cpu",
    compile_: Annotated[
        bool, typer.Option("--compile/--no-compile", help="Also time torch.compile.")
    ] = True,
    csv: Annotated[
        Path | None, typer.Option(help="Write a line per measurement to this file.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Draw a figure into this .png, .pdf or .svg file.")
    ] = None,
) -> None:
    """Time the fused kernels against PyTorch, eager and compiled."""
    # Not at the top of the file: `nlbench --help` must not wait for torch.
    import torch

    from nlbench.bench import measure, report
    from nlbench.bench import plot as figure
    from nlbench.bench.options import PICTURES, BenchOptions, check_writable

    if threads and device.startswith("cuda"):
        raise SuiteError("--threads and --device cuda exclude each other: threads are the CPU's")
    options = BenchOptions.read(op, shapes, dtypes, seconds, threads, device, compile_)
    if csv:
        check_writable("--csv", csv)
    if plot:
        check_writable("--plot", plot, PICTURES)
    if threads:
        torch.set_num_threads(threads)

    measurements = []
    interrupted = False
    try:
        for measured in measure.run(options):
            warn(f"{measured[0].shape} {measured[0].dtype}: timed")
            measurements += measured
    except KeyboardInterrupt:
        interrupted = True
        warn("interrupted; the measurements made so far follow")

    if measurements:
        write(report.render(options, measurements))
    if csv and measurements:
        report.write_csv(csv, options, measurements)
    if plot and measurements:
        figure.plot(plot, options, measurements)

    # Only now, so that the measurements made so far are printed and written.
    if interrupted:
        raise typer.Exit(130)
    if any(m.wrong for m in measurements):
        raise typer.Exit(1)
