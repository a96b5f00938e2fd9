"""The table of all methods counts passes, weighs phases, and names what is too slow."""

import csv
import re

import every_method
import in_turn
import pytest
import torch
import training
from in_turn import Epoch, Measured, Memory, Phase, phases_of

from nlbench.plan import protocol as protocols

CPU = torch.device("cpu")


def tiny(epochs=3):
    """Return 64 random pictures, and a protocol with two batches an epoch for them."""
    values = {
        "model": "linear",
        "epochs": epochs,
        "batch_size": 32,
        "precision": "float32",
        "threads": 1,
    }
    return training.read(None, 64), protocols.resolve("cifarn-02", "cifar10", values)


@pytest.mark.parametrize(
    ("begins", "expected"),
    [
        ({}, [("all epochs", 0, 8)]),
        ({"late": 8}, [("all epochs", 0, 8)]),
        ({"whole": 0}, [("all epochs", 0, 8)]),
        ({"b": 5, "a": 2}, [("first epochs", 0, 2), ("a", 2, 5), ("b", 5, 8)]),
        ({"a": 2, "b": 2}, [("first epochs", 0, 2), ("a, b", 2, 8)]),
    ],
)
def test_phases_cover_a_training(begins, expected):
    found = [(phase.name, phase.first, phase.end) for phase in phases_of(begins, 8)]
    assert found == expected


def test_a_disturbed_epoch_hardly_counts_and_its_passes_do():
    epochs = [Epoch(1.0, 2.0, 1.0), Epoch(9.0, 2.0, 1.0), Epoch(1.5, 5.0, 4.0)]
    phase = Phase("all epochs", 0, 3, epochs, [2.0, 18.0, 5.0])
    # A pass costs 1, 9 and 1 times as much as one of cross entropy.
    assert (phase.passes, phase.work, phase.cost) == (3.0, 2.0, 3.0)
    assert phase.range == pytest.approx((1 / 9, 1.0))


def some(cost=4.0):
    """Return a method with a short cheap phase, a long dear one, and a helper network."""
    phases = [
        Phase("first epochs", 0, 2, [Epoch(1.0, 1.0, 1.0)], [1.0]),
        Phase("mixing", 2, 10, [Epoch(cost, 4.0, 2.0)], [cost]),
        Phase(in_turn.HELPER, 0, 5, [Epoch(1.0, 1.0, 0.9)], [1.0]),
    ]
    return Measured("mine", phases, 100, [0.5, 0.25, 0.25], 3_000_000)


def test_a_training_is_the_mean_of_its_phases_and_helper_networks():
    one = some()
    assert one.dearest.name == "mixing"
    assert one.epochs == 10
    assert one.whole() == pytest.approx((3.9, 2.25, 3.9))


def test_tables_have_all_figures():
    one = some()
    head, rule, line = in_turn.markdown([one])
    assert head.count("|") == rule.count("|") == line.count("|")
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[:8] == [
        *("mine", "mixing, from epoch 3 of 10", "25"),
        *("0.25", "4.00", "1.00", "1.00 to 1.00", "0.50"),
    ]
    assert cells[8:] == ["0.26", "3.90", "1.00", "0.58", "3"]

    rows = [dict(zip(in_turn.COLUMNS, row, strict=True)) for row in in_turn.lines(one, "abcd")]
    assert [row["phase"] for row in rows] == [
        *("first epochs", "mixing", "helper network", "whole training"),
    ]
    assert [row["epochs"] for row in rows] == [2, 8, 5, 10]
    assert {row["ce_images_per_second"] for row in rows} == {400.0}
    assert rows[-1]["peak_bytes"] == 3_000_000


@pytest.mark.parametrize(
    ("method", "params", "passes", "work"),
    [
        ("ce", {}, [1.0], [1.0]),
        ("ensemble", {}, [2.0], [2.0]),
        # Each network has a teacher, which predicts.
        ("elr-plus", {}, [4.0], [2 + 2 / 3]),
        # The network and its helper, of whose examples a tenth is only predicted.
        ("forward", {}, [1.0, 1.0], [1.0, (58 + 6 / 3) / 64]),
        # The first epoch, and those with a selection.
        ("co-teaching", {}, [2.0, 2.0], [2.0, 2.0]),
    ],
)
def test_passes_are_those_of_each_method(tmp_path, method, params, passes, work):
    dataset, protocol = tiny()
    ce, data = training.prepared(dataset, protocol, "ce")
    spec, _ = training.prepared(dataset, protocol, method, params)
    found = in_turn.measure(ce, spec, data, CPU, tmp_path, rounds=2)

    assert [phase.passes for phase in found.phases] == pytest.approx(passes)
    assert [phase.work for phase in found.phases] == pytest.approx(work)
    assert all(len(phase.costs) == len(phase.epochs) for phase in found.phases)
    assert len(found.phases[-1].epochs) == 2
    assert all(phase.cost > 0 for phase in found.phases)
    assert len(found.ce_seconds) == sum(len(phase.epochs) for phase in found.phases)


def test_each_phase_is_measured(tmp_path):
    dataset, protocol = tiny(epochs=12)
    ce, data = training.prepared(dataset, protocol, "ce")
    params = {"t1_share": 0.25, "t2_share": 0.25}
    spec, _ = training.prepared(dataset, protocol, "pes", params)
    found = in_turn.measure(ce, spec, data, CPU, tmp_path, rounds=1)

    assert [phase.length for phase in found.phases] == [3, 3, 6]
    assert [len(phase.epochs) for phase in found.phases] == [1, 1, 1]
    assert found.dearest.first == 6
    # It predicts all examples, and each step has both views of its batch, and a pass for guesses.
    assert 3 < found.dearest.passes < 4 + 1e-9


@pytest.mark.skipif(in_turn._status("VmHWM") is None, reason="the system does not tell")
def test_memory_is_that_from_now_on():
    size = 64 * 2**20
    before = Memory(CPU)
    held = torch.ones(size // 4)
    assert size <= before.peak() < 1.5 * size

    del held
    assert Memory(CPU).peak() < size / 2


def test_tables_are_written_and_slow_methods_are_named(tmp_path, capsys, monkeypatch):
    slow = some(cost=8.0)
    monkeypatch.setattr(every_method, "measure", lambda *args, **options: slow)
    files = {"--csv": tmp_path / "a.csv", "--markdown": tmp_path / "a.md"}
    arguments = ["--datasets", "digits", "--methods", "ce", "gce-truncated"]
    for option, file in files.items():
        arguments += [option, str(file)]

    assert every_method.main(arguments) == 1
    written = files["--markdown"].read_text()
    assert written in capsys.readouterr().out
    assert "Below 0.75 by passes: mine, mine; by work: mine, mine." in written
    with files["--csv"].open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 8
    assert {line["dataset"] for line in lines} == {"digits"}

    monkeypatch.setattr(every_method, "measure", lambda *args, **options: some())
    assert every_method.main(arguments) == 0


def test_a_table_says_that_an_epoch_is_too_short(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(every_method, "measure", lambda *args, **options: some())
    assert every_method.main(["--methods", "ce", "--images", "100"]) == 0
    digits, cifar = capsys.readouterr().out.split("### ")[1:]
    assert "100 images an epoch, 1 batches of 128." in cifar
    assert "An epoch of 1 batches is short, so the shares are uncertain: --images 2560" in cifar
    assert "is short" not in digits
    for part in (digits, cifar):
        assert re.search(r"^Measured in \d+\.\d minutes\.$", part, re.MULTILINE)


def test_the_default_has_enough_batches():
    given = every_method.options(["--threads", "1"])
    dataset, protocol = every_method.setting_of("cifar10", given)
    assert (protocol.model, protocol.precision, protocol.threads) == ("resnet8", "float32", 1)
    count = every_method.batches(dataset.info.num_train, protocol)
    assert count == every_method.LEAST_BATCHES == 20


def test_all_methods_have_a_row():
    rows = every_method.rows([])
    assert {"ce", "disc", "sop-plus", "gce", "gce-truncated"} <= rows.keys()
    assert every_method.rows(["elr"]) == {"elr": ("elr", {})}
    with pytest.raises(SystemExit, match="there is no 'elt'"):
        every_method.rows(["elr", "elt"])


@pytest.mark.nightly
@pytest.mark.parametrize("row", every_method.rows([]))
def test_every_method_can_be_measured(tmp_path, row):
    dataset, protocol = tiny(epochs=6)
    ce, data = training.prepared(dataset, protocol, "ce")
    method, params = every_method.rows([row])[row]
    spec, _ = training.prepared(dataset, protocol, method, params, row=row)
    found = in_turn.measure(ce, spec, data, CPU, tmp_path, rounds=1)
    assert found.row == row
    assert found.whole().passes >= 1
