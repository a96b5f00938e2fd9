"""Benchmark the fused kernels: `nlbench bench`.

`options` reads the command line, `variants` holds what is timed, `measure` times it, `load` watches
other programs, `report` and `plot` print and draw.
"""
