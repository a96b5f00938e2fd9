"""A disk that is really full, and one that refuses a write of any process: all goes on after."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from trial import NLBENCH

pytestmark = pytest.mark.story

SOURCE = Path(__file__).parents[1] / "support" / "full_disk.c"


def train(out, **environment):
    """Run the command, through the usual executor, and return its finished process."""
    command = [NLBENCH, "run", "quick", "--only", "ce,forward", "--seeds", "0,1", "--out", out]
    command += ["--jobs", "2", "--set", "epochs=2", "--set", "subset=100"]
    return subprocess.run(
        [*command, "--checkpoint-seconds", "0"],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    done = train(tmp_path_factory.mktemp("whole") / "out")
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def small_disk(tmp_path):
    """Return a folder with a file system of its own of a given size."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_small_disk_fills_up_and_gets_space(small_disk, undisturbed):
    full = train(small_disk / "out")
    assert full.returncode == 2, full.stderr
    assert "Traceback" not in full.stderr
    assert re.search(
        rf"error: {small_disk}/out\S+: .*No space left on device\): it needs [\d.]+ .*B, and \S+ "
        r"\w+ are free there\. Make room; then the same command goes on",
        full.stderr,
    ), full.stderr

    larger = ["mount", "-o", "remount,size=100m", str(small_disk)]
    subprocess.run(larger, check=True)
    again = train(small_disk / "out")
    assert (again.returncode, again.stdout) == (0, undisturbed), again.stderr


def test_a_disk_that_is_read_only_at_the_start(small_disk, undisturbed):
    """In mid-run the kernel refuses that: each run has a file open for writing, its lock."""
    subprocess.run(["mount", "-o", "remount,size=100m,ro", str(small_disk)], check=True)
    refused = train(small_disk / "out")
    assert refused.returncode == 2
    assert "Read-only file system" in refused.stderr
    assert "Traceback" not in refused.stderr

    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    again = train(small_disk / "out")
    assert (again.returncode, again.stdout) == (0, undisturbed), again.stderr


@pytest.mark.skipif(
    not (shutil.which("cc") and sys.platform == "linux"), reason="no C compiler, or not Linux"
)
@pytest.mark.parametrize("at", [2, 11, 23, 36, 52])
def test_a_write_that_fails_in_any_process_of_the_command(tmp_path, undisturbed, at):
    library = tmp_path / "full_disk.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, SOURCE, "-ldl"], check=True)
    # Each process of the command counts its own writes.
    disk = {"LD_PRELOAD": str(library), "DISK_ROOT": str(tmp_path / "out"), "DISK_AT": str(at)}
    full = train(tmp_path / "out", **disk, DISK_STAYS="1")
    assert full.returncode == 2, full.stderr
    assert "No space left on device" in full.stderr
    assert "Traceback" not in full.stderr

    again = train(tmp_path / "out")
    assert (again.returncode, again.stdout) == (0, undisturbed), again.stderr
