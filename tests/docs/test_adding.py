"""Follow the pages of docs/adding as their readers do, each in a copy of nlbench."""

import shutil
import subprocess
import sys
from pathlib import Path

import pybind11
import pytest
from pages import DOCS, copy_of_nlbench, follow, shell

ADDING = DOCS / "adding"
HAS_COMPILER = bool(shutil.which("cmake") and shutil.which("c++"))

# The pages that a test of this file follows, and the page that has a test file of its own.
IN_A_COPY = ["dataset", "noise", "model", "protocol", "metric", "executor"]
FOLLOWED = {*IN_A_COPY, "suite", "logger", "kernel", "method"}


@pytest.mark.story
@pytest.mark.parametrize("name", ["suite", "logger"])
def test_what_needs_no_change_of_nlbench_can_be_added_as_a_page_says(name, tmp_path):
    follow(ADDING / f"{name}.md", tmp_path, shell(tmp_path))


@pytest.mark.story
@pytest.mark.parametrize("name", IN_A_COPY)
def test_nlbench_can_be_extended_as_a_page_says(name, tmp_path):
    follow(ADDING / f"{name}.md", tmp_path, copy_of_nlbench(tmp_path))


@pytest.mark.build
@pytest.mark.skipif(not HAS_COMPILER, reason="no cmake or C++ compiler")
def test_a_kernel_can_be_added_as_its_page_says(tmp_path):
    call = copy_of_nlbench(tmp_path)
    for name in ("csrc", "CMakeLists.txt"):
        source = DOCS.parent / name
        copy = shutil.copytree if source.is_dir() else shutil.copy
        copy(source, tmp_path / name)

    # The page installs everything by `make setup`. The copy only has to be compiled.
    def with_our_build(script: str) -> "subprocess.CompletedProcess[str]":
        if script == "make setup\n":
            script = compile_extension(tmp_path)
        return call(script)

    follow(ADDING / "kernel.md", tmp_path, with_our_build)


def compile_extension(place: Path) -> str:
    """Return a script that compiles the CPU kernels of a copy."""
    return f"""
        cmake -S . -B {place}/build -DNLBENCH_CUDA=OFF -DCMAKE_BUILD_TYPE=Release \
          -DPython_EXECUTABLE={sys.executable} -Dpybind11_DIR={pybind11.get_cmake_dir()}
        cmake --build {place}/build --parallel 2
        cp {place}/build/*.so {place}/nlbench/
    """


def test_every_page_on_adding_is_followed():
    """Fail for a new page until a test follows it."""
    assert {page.stem for page in ADDING.glob("*.md")} == FOLLOWED
