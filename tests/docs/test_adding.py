"""The pages of docs/adding as their readers follow them, each in a copy of nlbench."""

import shutil
import subprocess
import sys
from pathlib import Path

import pybind11
import pytest
from pages import DOCS, copy_of_nlbench, follow, shell

ADDING = DOCS / "adding"


@pytest.mark.story
def test_a_suite_can_be_added_as_its_page_says(tmp_path):
    follow(ADDING / "suite.md", tmp_path, shell(tmp_path))


@pytest.mark.story
@pytest.mark.parametrize("name", ["dataset", "noise", "model", "protocol", "metric", "executor"])
def test_nlbench_can_be_extended_as_a_page_says(name, tmp_path):
    follow(ADDING / f"{name}.md", tmp_path, copy_of_nlbench(tmp_path))


@pytest.mark.build
@pytest.mark.skipif(not shutil.which("cmake") or not shutil.which("c++"), reason="no cmake or C++ compiler")
def test_a_kernel_can_be_added_as_its_page_says(tmp_path):
    call = copy_of_nlbench(tmp_path)
    for name in ("csrc", "CMakeLists.txt"):
        source = DOCS.parent / name
        copy = shutil.copytree if source.is_dir() else shutil.copy
        copy(source, tmp_path / name)

    def with_our_build(script: str) -> "subprocess.CompletedProcess[str]":
        return call(compile_extension(tmp_path) if script == "make setup\n" else script)

    follow(ADDING / "kernel.md", tmp_path, with_our_build)


def compile_extension(place: Path) -> str:
    """Return a script that compiles the CPU kernels of a copy, in place of an installation with all its parts."""
    return f"""
        cmake -S . -B {place}/build -DNLBENCH_CUDA=OFF -DCMAKE_BUILD_TYPE=Release \
          -DPython_EXECUTABLE={sys.executable} -Dpybind11_DIR={pybind11.get_cmake_dir()}
        cmake --build {place}/build --parallel 2
        cp {place}/build/*.so {place}/nlbench/
    """


def test_every_page_on_adding_is_followed():
    """A new page of the folder must be added to a test here, or have a test file of its own."""
    followed = {"suite", "dataset", "noise", "model", "protocol", "metric", "executor", "kernel", "method"}
    assert {page.stem for page in ADDING.glob("*.md")} == followed
