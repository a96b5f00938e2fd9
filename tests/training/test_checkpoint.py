"""Checkpoints and helper networks: damaged ones and those of another run are never used."""

import functools
import os
import random
import zipfile

import pytest
import torch
from sweeps import outcome, sweep
from torch import nn

from nlbench.results.state_files import write_with_checksum
from nlbench.results.store import Store
from nlbench.training.checkpoint import Checkpoint

TAG = {"seed": 0, "run": "a" * 16, "code": "c"}


@pytest.fixture
def saved(tmp_path):
    """Write a checkpoint, and return it with the lines that its store warns of."""
    warnings = []
    made = Checkpoint(Store(tmp_path, warnings.append), tmp_path / "checkpoint.pt", TAG)
    weights = nn.Linear(40, 30).state_dict()
    made.save({"weights": weights, "history": [{"epoch": 0, "loss": 1.5, "top": None}]})
    return made, warnings


def test_what_is_saved_is_loaded_and_torch_can_read_it_alone(saved):
    made, warnings = saved
    state = made.load()

    assert state["history"] == [{"epoch": 0, "loss": 1.5, "top": None}]
    assert torch.equal(torch.load(made.path)["weights"]["bias"], state["weights"]["bias"])
    assert zipfile.ZipFile(made.path).testzip() is None
    assert warnings == []


def test_every_flipped_bit_is_found(saved):
    made, _ = saved
    content = made.path.read_bytes()
    generator = random.Random(0)
    # The last bytes hold the checksum itself.
    places = [generator.randrange(len(content)) for _ in range(150)]
    places += range(len(content) - 50, len(content))
    for place in places:
        bit = 1 << generator.randrange(8)
        flipped = content[:place] + bytes([content[place] ^ bit]) + content[place + 1 :]
        made.path.write_bytes(flipped)
        assert made.load() is None, (place, bit)


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:30],
        lambda content: content[:-1],
        lambda content: content + b"\0",
        lambda content: content[:1000] + content[1100:],
        lambda content: bytes(len(content)),
    ],
    ids=["empty", "head", "cut", "longer", "a part less", "zeros"],
)
def test_a_damaged_checkpoint_is_named_and_kept(saved, damage):
    made, warnings = saved
    content = damage(made.path.read_bytes())
    made.path.write_bytes(content)

    assert made.load() is None
    assert "checkpoint.pt: the checkpoint cannot be used" in warnings[0]
    assert made.path.with_name("checkpoint.pt.corrupt-1").read_bytes() == content
    # Nothing is left to go on from.
    assert made.load() is None
    assert len(warnings) == 1


def test_a_checkpoint_of_an_earlier_version_is_named(saved):
    made, warnings = saved
    torch.save({"tag": TAG}, made.path)

    assert made.load() is None
    assert "it has no checksum, so it is damaged or of an earlier version" in warnings[0]


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ({"seed": 1, "run": "b" * 16}, "it belongs to seed 0, and not to seed 1"),
        ({"run": "b" * 16}, f"it belongs to run {'a' * 16}, and not to run {'b' * 16}"),
        ({"code": "d"}, "it was made by another version of the code"),
    ],
)
def test_a_checkpoint_of_another_run_is_named(saved, other, reason):
    made, warnings = saved
    copy = Checkpoint(made._store, made.path, {**TAG, **other})

    assert copy.load() is None
    assert reason in warnings[0]


@pytest.mark.parametrize("state", [[1], {"tag": "c"}, {}])
def test_a_state_of_another_kind_is_named(saved, state):
    made, warnings = saved
    with open(made.path, "wb") as file:
        write_with_checksum(file, functools.partial(torch.save, state))

    assert made.load() is None
    assert "it is no state of a training" in warnings[0]


@pytest.mark.parametrize("kind", ["FIFO", "folder", "device"])
def test_what_is_no_file_is_named_and_nobody_waits(saved, kind):
    made, warnings = saved
    made.path.unlink()
    if kind == "FIFO":
        os.mkfifo(made.path)
    elif kind == "folder":
        made.path.mkdir()
    else:
        made.path.symlink_to("/dev/zero")

    assert made.load() is None
    assert f"is a {kind} and not a file" in warnings[0]
    assert not os.path.lexists(made.path)


def test_a_full_disk_is_reported_with_the_file(saved, monkeypatch):
    made, _ = saved
    before = made.path.read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left") as raised:
        made.save({})
    assert raised.value.filename == str(made.path)
    assert made.path.read_bytes() == before


# ---- In a sweep ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def helped(tmp_path_factory):
    """Return a trained sweep with a helper network, and the network's file."""
    out = tmp_path_factory.mktemp("helped")
    sw = sweep(out, {"forward": {}}, epochs=1)
    sw.run()
    (path,) = (out / "fits").glob("*.pt")
    return sw, path


def trained_with(out, network, name):
    """Train with this file as the helper network, and return the sweep and what it warns of."""
    sw = sweep(out, {"forward": {}}, epochs=1)
    sw.store.warn = (warnings := []).append
    (out / "fits").mkdir(parents=True)
    (out / "fits" / name).write_bytes(network)
    sw.run()
    return sw, " ".join(warnings)


def test_a_helper_network_with_a_flipped_bit_is_trained_again(helped, tmp_path):
    whole, path = helped
    content = bytearray(path.read_bytes())
    content[4000] ^= 16
    damaged, said = trained_with(tmp_path / "out", content, path.name)

    assert outcome(damaged) == outcome(whole)
    assert "the helper network cannot be used (it is damaged" in said


@pytest.mark.nightly
def test_the_helper_network_of_another_run_is_trained_again(helped, tmp_path):
    whole, path = helped
    sweep(tmp_path / "other", {"forward": {}}, seeds=(1,), epochs=1).run()
    (stranger,) = (tmp_path / "other" / "fits").glob("*.pt")
    again, said = trained_with(tmp_path / "out", stranger.read_bytes(), path.name)

    assert outcome(again) == outcome(whole)
    assert f"it belongs to helper {stranger.stem}" in said
