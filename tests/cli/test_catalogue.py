"""The commands about names and data: `list`, `data` and `noise`."""

import json
import re
import time
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from layouts import Mnist

from nlbench.data import catalogue, imbalance
from nlbench.data.datasets import cifar10, cifar100, mnist
from nlbench.data.imbalance import Imbalance
from nlbench.data.noise.kinds import KINDS
from nlbench.data.noise.label_files import labels_hash, read_labels
from nlbench.data.noise.resolve import apply, resolve
from nlbench.data.places import Places
from nlbench.plan.yaml_lines import parse_yaml


@pytest.mark.parametrize(
    ("what", "some"),
    [
        ("methods", ["elr ", "bootstrap "]),
        ("datasets", ["cifar10n ", "worst", "1,397 training, 400 test"]),
        ("models", ["resnet34 ", "torchvision/NAME"]),
        ("protocols", ["cifar-cpu ", "v1", "(float32: for any CPU)", "(bfloat16: for GPUs"]),
        ("noises", ["pair-flip: Flip", "{kind: matrix, path: FILE}", "source: Xia et al."]),
        ("suites", ["quick ", "cifar10n-cpu "]),
    ],
)
def test_list(cli, what, some):
    result = cli("list", what)

    assert (result.exit_code, result.stderr) == (0, "")
    for word in some:
        assert word in result.stdout
    # Every name has a description.
    for line in result.stdout.splitlines():
        assert len(line.split()) > 1


def test_list_shows_the_methods_of_a_folder(cli):
    listed = cli("list", "methods", "--methods-dir", "own").stdout
    # How far it is trusted is known of shipped methods alone.
    assert re.search(r"^failing +Fails in its[^\[]*$", listed, re.MULTILINE)


@pytest.mark.parametrize(
    ("name", "facts"),
    [
        (
            "elr",
            "[equal to values of the authors' code; 1 network; 1 pass; keeps 40 bytes per example]",
        ),
        (
            "jocor",
            "[equal to a plain re-implementation; told noise_rate; 2 networks; 2 passes]",
        ),
        (
            "forward",
            "[equal to a plain re-implementation; 1 network; 1 pass and 1 of helper networks]",
        ),
    ],
)
def test_list_says_how_far_a_method_is_trusted_and_what_it_takes(cli, name, facts):
    lines = cli("list", "methods").stdout.splitlines()
    (line,) = [line for line in lines if line.startswith(f"{name} ")]
    assert re.search(r"arXiv:\d+\.\d+\. ", line)
    assert line.endswith(facts)


def test_the_kinds_of_noise_are_listed_with_parameters_and_an_example(cli, place):
    listed = cli("list", "noises").stdout
    blocks = re.split(r"(?m)^(?=\S)", listed)[1:]
    assert [block.partition(":")[0] for block in blocks] == list(KINDS)

    for block, kind in zip(blocks, KINDS.values(), strict=True):
        assert f"source: {kind.source}" in block
        for param in kind.params:
            assert f"    {param.name} (" in block
        # The example is one that a suite takes, but for its file.
        example = parse_yaml(re.search(r"noise: (\{.*\})", block)[1])
        assert set(example) <= {"kind", *(param.name for param in kind.params)}
        if kind.params[0].type is not Path:
            info = {"cifar100": cifar100, "": cifar10}.get(kind.class_ids, cifar10).INFO
            assert resolve(example, info, place)["kind"] == kind.name


def test_list_of_an_unknown_kind_names_the_kinds(refused):
    assert "'suites'" in refused("list", "nothings")


def test_data_status_says_where_each_file_goes(cli, place):
    data = place / "no-data"

    text = cli("data", "status").stdout
    assert f"data directory: {data}" in text
    assert "digits: there" in text
    assert "get CIFAR-10_human.pt" in text
    assert f"put it, as it is, at {data / 'cifar-n' / 'CIFAR-10_human.pt'}" in text

    one = cli("data", "status", "cifar10", "--data-dir", "elsewhere").stdout
    assert "cifar10: missing in elsewhere" in one
    assert "digits" not in one


def test_data_of_an_unknown_name(refused):
    for command in ("status", "fetch"):
        assert "Did you mean 'cifar10'" in refused("data", command, "cifr10")
    message = refused("noise", "export", "digit", "--kind", "symmetric", "--to", "x.npy")
    assert "Did you mean 'digits'" in message


def test_data_fetch_without_a_network_gives_the_advice(refused, monkeypatch):
    def no_network(*arguments, **options):
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(urllib.request, "urlopen", no_network)
    begun = time.monotonic()

    message = refused("data", "fetch", "cifar10")

    # Attempts to connect again would take longer.
    assert time.monotonic() - begun < 5
    assert "no connection (Name or service not known)" in message
    assert "get cifar-10-python.tar.gz" in message


@pytest.mark.parametrize("suffix", [".npy", ".csv", ".json", ".pt"])
def test_noise_export_writes_what_a_run_trains_on(cli, place, trained, suffix):
    noise = ("--kind", "symmetric", "--rate", 0.4)
    result = cli("noise", "export", "digits", *noise, "--to", f"labels{suffix}")

    assert result.exit_code == 0, result.stderr
    assert re.search(r"1397 labels, 39\.\d+% wrong, hash \w{16}", result.stdout)

    # The trial suite has the same noise and seed, so its runs had the same labels.
    record = json.loads(next(trained.glob("runs/*/record.json")).read_text())
    assert record["noise"]["labels_hash"] in result.stdout
    assert labels_hash(read_labels(place / f"labels{suffix}")) in result.stdout


UNEQUAL = """\
name: unequal
protocol: mnist
datasets:
  - {name: mnist, imbalance: {kind: exp, ratio: 0.1}, noise: {kind: file, path: FILE}}
methods: {ce: {}}
seeds: [0]
"""


@pytest.fixture
def small_mnist(place, monkeypatch):
    """Write MNIST with 200 training images, and return the true labels and others for them."""
    small = Mnist(200, 20)
    small.write_idx(place / "no-data" / "mnist")
    monkeypatch.setattr(mnist, "INFO", replace(mnist.INFO, num_train=200, num_test=20))
    clean = small.labels["train"]
    # Which class is wrong tells the position.
    noisy = np.where(np.arange(200) % 7 == 0, (clean + 1 + np.arange(200) % 8) % 10, clean)
    np.save(place / "all.npy", noisy)
    return clean, noisy


def unequal_suite(file):
    Path("unequal.yaml").write_text(UNEQUAL.replace("FILE", file))
    return "run", "unequal.yaml", "--out", "out", "--dry-run"


def test_a_file_of_all_labels_is_cut_to_the_examples_that_an_imbalance_keeps(
    cli, refused, place, small_mnist
):
    message = refused(*unequal_suite("all.npy"))
    fix = "nlbench noise export mnist@exp-0.1 --kind file --path all.npy --to FILE"
    assert "all.npy: is for all 200 training examples, of which `imbalance` keeps 78" in message
    assert fix in " ".join(message.split())

    result = cli(*fix.replace("FILE", "kept.npy").split()[1:])
    assert result.exit_code == 0, result.stderr
    clean, noisy = small_mnist
    data = catalogue.open_dataset("mnist", "", Places.of_user(), 0)
    data = replace(data, label_sets={"clean": clean, "position": np.arange(200)})
    kept = imbalance.subset(data, Imbalance("exp", 0.1)).label_sets["position"]
    assert np.load("kept.npy").tolist() == noisy[kept].tolist()

    result = cli(*unequal_suite("kept.npy"))
    assert result.exit_code == 0, result.stderr
    assert "78 training examples" in result.stdout


def test_a_file_for_neither_is_refused_with_the_number_of_the_kept(refused, place, small_mnist):
    np.save(place / "short.npy", small_mnist[1][:50])
    message = refused(*unequal_suite("short.npy"))
    assert "short.npy: 50 labels, it must have one for each of 78 training examples" in message


def test_noise_of_unequal_classes_is_drawn_on_the_kept_examples(cli, place, small_mnist):
    noise = ("--kind", "symmetric", "--rate", "0.5", "--to", "drawn.npy")
    result = cli("noise", "export", "mnist@exp-0.1", *noise)
    assert result.exit_code == 0, result.stderr
    data = catalogue.open_dataset("mnist@exp-0.1", "", Places.of_user(), 0)
    expected = apply(
        {"kind": "symmetric", "rate": 0.5}, data.clean_labels, data.info, 0, data.train_images
    )
    assert np.load("drawn.npy").tolist() == expected.tolist()


def test_noise_export_sets_a_kinds_own_parameters(cli, refused, place):
    np.savetxt(place / "even.csv", np.full((10, 10), 0.1), delimiter=",")
    matrix = ("noise", "export", "digits", "--kind", "matrix", "--path", "even.csv")
    assert "--path: " in refused(*matrix, "--to", "x.npy")

    result = cli(*matrix, "--set", "unrelated=true", "--to", "x.npy")
    assert result.exit_code == 0, result.stderr
    assert re.search(r"1397 labels, (89|90|91)", result.stdout)

    for setting, words in (
        ("unrelated=maybe", "--set unrelated: must be true or false, got 'maybe'"),
        ("unrelatet=true", "--set unrelatet: unknown key. matrix takes: path, unrelated. Did you"),
        ("path=x.csv", "--set path: write --path x.csv"),
        ("unrelated", "--set unrelated: write it as KEY=VALUE"),
    ):
        assert words in refused(*matrix, "--set", setting, "--to", "x.npy")


@pytest.mark.parametrize(
    ("arguments", "pattern"),
    [
        (
            ["--kind", "symetric", "--rate", "0.4"],
            "--kind: unknown kind 'symetric'.*Did you mean 'symmetric'",
        ),
        (["--kind", "symmetric"], "--rate: is required"),
        (["--kind", "symmetric", "--rate", "1.4"], r"--rate: must be in \[0, 1\], got 1.4"),
        (["--kind", "symmetric", "--rate", "nan"], "--rate: must be in"),
        (["--kind", "symmetric", "--rate", "0.4", "--seed", "-1"], "--seed"),
        (["--kind", "matrix", "--path", "nowhere"], "--path: there is no file"),
        (
            ["--kind", "file", "--path", "x.npy"],
            "--kind: file needs a fixed order of images, and digits draws its own",
        ),
        (["--kind", "asymmetric", "--rate", "0.4"], "--kind: asymmetric is defined for cifar10"),
        (
            ["--kind", "symmetric", "--rate", "0.4", "--to", "labels.txt"],
            "--to labels.txt: labels are written as .npy",
        ),
        (
            ["--kind", "symmetric", "--rate", "0.4", "--to", "nowhere/x.npy"],
            "nowhere/x.npy: cannot be written",
        ),
    ],
)
def test_noise_that_cannot_be_exported_says_why(refused, arguments, pattern):
    if "--to" not in arguments:
        arguments = [*arguments, "--to", "labels.npy"]
    message = refused("noise", "export", "digits", *arguments)
    assert re.search(pattern, message), message


def test_noise_export_without_the_data_gives_the_advice(refused):
    noise = ("--kind", "symmetric", "--rate", "0.4")
    message = refused("noise", "export", "cifar10", *noise, "--to", "x.npy")
    assert "get cifar-10-python.tar.gz" in message
