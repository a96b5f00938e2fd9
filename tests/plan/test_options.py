"""Options of the command line become plain values; text that cannot be read is quoted."""

import pytest

from nlbench.errors import SuiteError
from nlbench.plan.options import (
    devices_of_gpus,
    parse_budget,
    parse_devices,
    parse_jobs,
    parse_only,
    parse_seeds,
    parse_set,
)


def test_settings_are_read_as_yaml():
    given = [
        "epochs=2",
        "lr=5e-3",
        "schedule.gamma=0.1",
        "schedule.milestones=[1, 2]",
        "model=cnn3",
        "nesterov=true",
    ]
    assert parse_set(given) == {
        "epochs": 2,
        "lr": 0.005,
        "schedule": {"gamma": 0.1, "milestones": [1, 2]},
        "model": "cnn3",
        "nesterov": True,
    }


@pytest.mark.parametrize(
    "settings",
    [
        ["epochs"],
        ["epochs="],
        ["=2"],
        ["a..b=1"],
        [".a=1"],
        ["lr=[1"],
        ["lr=*x"],
        ["lr={a: 1, a: 2}"],
        ["epochs=2", "epochs.x=1"],
        ["lr=2020-13-45"],
    ],
)
def test_a_setting_that_cannot_be_read_is_quoted(settings):
    with pytest.raises(SuiteError) as caught:
        parse_set(settings)
    assert str(caught.value).startswith(f"--set {settings[-1]}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "seeds"),
    [("0", [0]), ("0,1,4", [0, 1, 4]), ("0-4", [0, 1, 2, 3, 4]), (" 3 , 0-1,3", [3, 0, 1])],
)
def test_seeds_are_lists_and_ranges(text, seeds):
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize(
    "text", ["", "a", "-1", "4-0", "0,,1", "0-", "1.5", "0-99999999", "0 1", "9" * 30]
)
def test_seeds_that_cannot_be_read_are_quoted(text):
    with pytest.raises(SuiteError, match=r"^--seeds .*seeds"):
        parse_seeds(text)


def test_rows_are_a_list():
    assert parse_only("ce, elr") == ["ce", "elr"]
    for text in ("", "ce,", ",elr"):
        with pytest.raises(SuiteError, match=f"^--only {text!r}: write rows as ce,elr"):
            parse_only(text)


def test_jobs_are_a_number_or_auto():
    assert (parse_jobs("3"), parse_jobs("auto")) == (3, "auto")
    for text in ("0", "-1", "two", "", "1.5"):
        message = f"^--jobs {text!r}: must be auto or a number from 1 on"
        with pytest.raises(SuiteError, match=message):
            parse_jobs(text)


@pytest.mark.parametrize("text", ["auto", "cpu", "cuda", "cuda:1", "cuda:0,cuda:2"])
def test_devices_are_names(text):
    assert parse_devices(text) == tuple(text.split(","))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("gpu", "--device gpu: must be auto, cpu, cuda or cuda:NUMBER"),
        ("cuda:0,gpu", "--device gpu: must be"),
        ("auto,cpu", "--device auto: must be"),
        ("", "--device : must be"),
        ("cuda:0,cuda:0", "each must be another cuda:NUMBER"),
        ("cuda:1,cuda:01", "--device cuda:01: must be"),
        ("cuda,cuda:1", "each must be another cuda:NUMBER"),
        ("cpu,cuda:0", "each must be another cuda:NUMBER"),
    ],
)
def test_devices_that_cannot_be_read_are_quoted(text, said):
    with pytest.raises(SuiteError, match=said):
        parse_devices(text)


def test_gpus_are_devices():
    assert devices_of_gpus("0,2") == "cuda:0,cuda:2"
    with pytest.raises(SuiteError, match="--gpus '0;2': write the numbers of GPUs as 0,2"):
        devices_of_gpus("0;2")
    with pytest.raises(SuiteError, match="--gpus 0 and --device cpu exclude each other"):
        devices_of_gpus("0", "cpu")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("6h", 21600),
        ("90m", 5400),
        ("3600s", 3600),
        ("1h30m", 5400),
        ("2d", 172800),
        ("1:30:00", 5400),
        ("1-12:00:00", 129600),
        (" 23h30m ", 84600),
    ],
)
def test_a_budget_is_a_time(text, seconds):
    assert parse_budget(text) == seconds


@pytest.mark.parametrize("text", ["", "6", "6 h", "90:00", "1:60:00", "0h", "-1h", "1.5h", "30m1h"])
def test_what_is_no_time_is_refused_with_an_example(text):
    with pytest.raises(SuiteError, match=r"--budget .*write a time above 0 as 6h, 90m"):
        parse_budget(text)
