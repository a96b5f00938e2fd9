"""Each write below the store and the cache fails once: nothing is lost, and the same goes on."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EVERY_WRITE = Path(__file__).parents[1] / "support" / "every_write.py"

needs_a_compiler = pytest.mark.skipif(
    not (shutil.which("cc") and sys.platform == "linux"), reason="no C compiler, or not Linux"
)


def play(folder, *options):
    """Let writes of a scene fail, and return the summary. Fails where one went wrong."""
    done = subprocess.run(
        [sys.executable, EVERY_WRITE, folder, *options],
        capture_output=True,
        text=True,
        env={**os.environ, "NLBENCH_CACHE": str(folder / "cache")},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@needs_a_compiler
@pytest.mark.parametrize(("scene", "every"), [("store", 17), ("cache", 9)])
def test_some_writes_that_fail(tmp_path, scene, every):
    said = play(tmp_path, "--scene", scene, "--every", str(every))

    assert "No space left on device" in said


@needs_a_compiler
@pytest.mark.story
@pytest.mark.parametrize("scene", ["store", "cache"])
@pytest.mark.parametrize(
    "options", [[], ["--once"], *(["--errno", name, "--every", "3"] for name in ("EDQUOT", "EIO"))]
)
def test_every_write_of_a_scene_that_fails(tmp_path, scene, options):
    play(tmp_path, "--scene", scene, *options)


@needs_a_compiler
@pytest.mark.story
@pytest.mark.parametrize("options", [[], ["--errno", "EROFS"]])
def test_some_writes_of_a_suite_that_fail(tmp_path, options):
    play(tmp_path, "--first", "9", "--every", "75", *options)


@needs_a_compiler
@pytest.mark.nightly
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("options", [[], ["--once"]])
def test_every_write_of_a_suite_that_fails(tmp_path, options):
    play(tmp_path, *options)
