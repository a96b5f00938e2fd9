"""What a test needs of the machine it runs on."""

import pytest

# tests/conftest.py skips these tests where torch finds no CUDA device.
needs_gpu = pytest.mark.gpu
