"""Markers of tests that need something special of the machine."""

import pytest

# tests/conftest.py skips these tests where torch finds no CUDA device.
needs_gpu = pytest.mark.gpu
