"""`nlbench run --prepare` and `nlbench data fetch SUITE`: get what runs need, and train nothing."""

import re
import socket

import pytest
from layouts import Clothing1M
from trial import SUITE

from nlbench.cli import prepare
from nlbench.data import cache, fetch
from nlbench.errors import DataMissing

IMAGES = """\
name: images
protocol: clothing1m
datasets: [{name: clothing1m}]
methods: {ce: {}}
seeds: [0]
overrides: {model: cnn3, weights: "", resize: 18, crop: 16, precision: auto, batches_per_epoch: 2,
  batch_size: 8}
"""


@pytest.fixture(autouse=True)
def nothing_read(monkeypatch):
    """Forget what other tests of this process have read, whose files are not there any more."""
    monkeypatch.setattr(cache, "_used", {})


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Fail where something connects."""

    def refuse(*args):
        raise AssertionError(f"connects to {args[-1]}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def test_nothing_is_trained_and_no_device_is_asked(cli, place):
    result = cli("run", "trial.yaml", "--prepare", "--device", "cuda:7", "--out", "store")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith("trial: checked; 2 runs\n")
    assert "data: digits: there, needs no files\n" in result.stdout
    assert "nothing was trained." in result.stdout
    assert f"export NLBENCH_CACHE={place / 'cache'}\n" in result.stdout
    assert not (place / "store").exists()


def test_the_suite_is_checked(refused, place):
    (place / "trial.yaml").write_text(SUITE.replace("0.4", "1.4"))
    assert "noise.rate: must be in [0, 1], got 1.4" in refused("run", "trial.yaml", "--prepare")


def test_the_login_node_does_not_decide_the_precision(cli, place):
    Clothing1M().write(place / "no-data")
    (place / "images.yaml").write_text(IMAGES)
    result = cli("run", "images.yaml", "--prepare")
    assert result.exit_code == 0, result.stderr
    assert "Where machines differ, name it: --set precision=float32" in result.stdout
    named = cli("run", "images.yaml", "--prepare", "--set", "precision=float32")
    assert "Where machines differ" not in named.stdout


def test_data_that_cannot_be_downloaded_are_explained(refused, place):
    (place / "images.yaml").write_text(IMAGES)
    for command in (("run", "images.yaml", "--prepare"), ("data", "fetch", "images.yaml")):
        message = refused(*command)
        assert re.search(r"clothing1m: missing in .*(.|\n)*get from https://github", message)
        assert "Traceback" not in message

    # A run names the command that gets what can be had.
    assert "`nlbench run images.yaml --prepare` gets what can be" in refused("run", "images.yaml")


def test_all_that_can_be_fetched_is_fetched_before_the_rest_is_explained(monkeypatch, tmp_path):
    asked = []

    def one(name, folder, update):
        asked.append(name)
        if name != "cifar10":
            raise DataMissing(f"{name}: missing")

    monkeypatch.setattr(fetch, "fetch", one)
    with pytest.raises(DataMissing, match=r"clothing1m: missing\nwebvision: missing"):
        prepare.fetch_datasets(["clothing1m", "cifar10", "webvision"], tmp_path)
    assert asked == ["clothing1m", "cifar10", "webvision"]


def test_the_data_of_a_suite_are_fetched(cli, place):
    assert cli("data", "fetch", "trial.yaml").stdout == "digits: there, needs no files\n"
    assert cli("data", "fetch", "quick").stdout == "digits: there, needs no files\n"


@pytest.mark.parametrize(
    ("command", "pattern"),
    [
        ("data fetch nothing", "unknown dataset or suite 'nothing'"),
        ("data fetch cifar11", "unknown dataset or suite 'cifar11'.*Did you mean"),
        ("run trial.yaml --prepare --dry-run", "--prepare and --dry-run exclude each other"),
        ("run trial.yaml --prepare --debug", "--debug and --prepare exclude each other"),
    ],
)
def test_what_cannot_be_is_refused(refused, command, pattern):
    assert re.search(pattern, refused(*command.split()))
