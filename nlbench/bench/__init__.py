"""Benchmark the fused kernels: `nlbench bench`."""
