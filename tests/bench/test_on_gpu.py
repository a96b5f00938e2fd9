"""The script that measures on a GPU goes on where it was, ends in time, and reports what it has."""

import sys
import time

import on_gpu
import pytest

SETTING = {"device": "NVIDIA H200", "torch": "2"}


def model(**speeds):
    """Return what a part of a model keeps."""
    sizes = {"precision": "bfloat16", "images": 50_000, "batch": 128, "epochs": 4}
    return {**sizes, "speeds": speeds, "done": True}


@pytest.fixture
def kept():
    found = {part: {} for part in on_gpu.PARTS}
    found["resnet34"] = model(
        **{on_gpu.STRAIGHT: [7000, 8000], on_gpu.AS_IT_IS: [25_000], on_gpu.WHOLE: [34_000, 34_500]}
    )
    found["resnet34"]["digests"] = {on_gpu.AS_IT_IS: "a", on_gpu.WHOLE: "b"}
    found["resnet9"] = model(**{on_gpu.AS_IT_IS: [110_000]})
    found["suite"] = {"done": True, "seconds": 301.0, "runs": 10}
    return found


def test_the_report_has_what_was_measured_beside_the_goals(kept):
    text = "\n".join(on_gpu.report(SETTING, kept))

    assert "| whole steps | 34,250 | 34,000 to 34,500 | 4.57 | NO |  | 2 |" in text
    assert "Goal of 33,000 images/s: reached, 34,250 (whole steps)" in text
    assert "Goal of 4.5 times the straightforward loop: reached, 4.57" in text
    assert "Goal of 120,000 images/s: NOT reached, 110,000" in text
    assert "## resnet8\n\nNot measured: there was no time left." in text
    assert "10 runs in 301 s. Goal of 300 s: NOT reached." in text

    kept["suite"] = {"seconds": 20.0, "runs": 3}
    assert "Not done after 20 s, with 3 runs." in on_gpu.suite_in_words(kept["suite"])


def test_the_table_has_a_row_for_each_way_and_one_for_the_suite(kept):
    rows = list(on_gpu.table(SETTING, kept))
    assert [row["part"] for row in rows] == ["resnet34"] * 3 + ["resnet9", "cifar10n-fast"]
    assert rows[2]["images_per_second"] == 34_250
    assert rows[2]["same_numbers"] == "NO"
    assert all(row["device"] == "NVIDIA H200" for row in rows)


def test_a_part_goes_on_with_what_it_has_kept(tmp_path):
    on_gpu.add_speed(on_gpu.Kept(tmp_path, "resnet8"), "way", 1.0)
    on_gpu.add_speed(on_gpu.Kept(tmp_path, "resnet8"), "way", 2.0)
    assert on_gpu.Kept(tmp_path, "resnet8").values == {"speeds": {"way": [1.0, 2.0]}}


def test_a_part_is_ended_with_all_that_it_has_started(tmp_path):
    # The child would write after a second.
    program = (
        "import subprocess, sys, time; "
        f"subprocess.Popen(['sh', '-c', 'sleep 1; touch {tmp_path}/late']); time.sleep(60)"
    )
    words = on_gpu.ended_within([sys.executable, "-c", program], 0.5)
    assert words == "ended, because the time is over"
    time.sleep(1)
    assert not (tmp_path / "late").exists()

    assert on_gpu.ended_within([sys.executable, "-c", "exit(3)"], 60) == "FAILED with exit status 3"
