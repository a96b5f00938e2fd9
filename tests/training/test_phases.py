"""Phases that a training is too short to reach are named, whoever wrote the method."""

import pytest
import torch

import nlbench
from nlbench import registry
from nlbench.method import Method, Task
from nlbench.training.phases import unreached

FILES = registry.method_files()
SUITE = {
    "name": "short",
    "protocol": "digits",
    "datasets": [{"name": "digits", "noise": {"kind": "symmetric", "rate": 0.4}}],
    "seeds": [0],
}


def task_of(epochs):
    told = {"noise_rate": 0.4, "T": torch.eye(10)}
    return Task(10, 10, torch.arange(10), epochs, 11, 128, privileged=told)


def told_of(name, epochs, **params):
    method = registry.load_method(FILES[name])(task_of(epochs), **params)
    return unreached(method, params, epochs, 11)


@pytest.mark.parametrize(
    ("name", "params", "phase"),
    [
        ("dividemix", {}, "MixMatch"),
        ("disc", {}, "training on selected examples"),
        ("alr", {}, "label refinement"),
        ("cores2", {}, "the sieve"),
        ("pes", {}, "MixMatch"),
        ("gce", {"truncate": True}, "pruning"),
        ("co-teaching", {}, "the selection of small losses"),
        ("jocor", {}, "the selection of small losses"),
    ],
)
def test_one_epoch_is_too_short_for_a_second_phase(name, params, phase):
    sentences = told_of(name, 1, **params)
    assert any(s.startswith(f"{phase} would begin in epoch ") for s in sentences), sentences
    assert all("this training has 1 epoch: it never begins" in s for s in sentences)
    assert told_of(name, 40, **params) == []


def test_only_what_is_declared_or_counted_is_named():
    assert [name for name in FILES if told_of(name, 1)] == [
        "alr", "cal", "co-teaching", "co-teaching-plus", "cores2", "d2l", "disc", "dividemix",
        "f-divergence", "incv", "jocor", "joint-optim", "m-dyr", "mentornet", "peer", "pencil",
        "pes", "pls", "promix", "sat", "selc", "unicon",
    ]  # fmt: skip
    assert told_of("dividemix", 1, warmup_share=0.0) == []
    assert told_of("pes", 2, t2_share=0.0) == []
    assert len(told_of("pes", 1)) == 2


@pytest.mark.parametrize(
    ("params", "epochs", "named"),
    [
        ({"warmup": 40}, 2, "warmup is 40, and this training has 2 epochs"),
        ({"warm_up_epochs": 10}, 10, "warm_up_epochs is 10, and this training has 10 epochs"),
        ({"start_epoch": 5}, 1, "start_epoch is 5, and this training has 1 epoch:"),
        ({"warmup_steps": 500}, 40, "warmup_steps is 500, and this training has 440 steps"),
        ({"burn_in": 12}, 12, "burn_in is 12"),
        ({"warmup": 9}, 10, ""),
        ({"warmup_steps": 439}, 40, ""),
        # No counts: a share, a rate, a switch, a number with a fraction, another quantity.
        ({"warmup_share": 1}, 1, ""),
        ({"warmup_lr": 3}, 1, ""),
        ({"warmup": True}, 1, ""),
        ({"warmup": 1.0}, 1, ""),
        ({"k": 200, "size": 64}, 1, ""),
    ],
)
def test_counts_of_other_methods_are_known_by_their_names(params, epochs, named):
    sentences = unreached(Method(task_of(epochs)), params, epochs, 11)
    if not named:
        assert sentences == []
    else:
        assert len(sentences) == 1
        assert sentences[0].startswith(named)


def test_a_run_says_it_in_its_record(tmp_path):
    """The warm-up of a newcomer's method, longer than the training."""
    (tmp_path / "late.py").write_text(
        """\"\"\"Flat targets after a warm-up.\"\"\"
import torch.nn.functional as F
from nlbench.method import Method, Task

class Late(Method):
    source = "unpublished"
    def __init__(self, task: Task, warmup: int = 40):
        super().__init__(task)
        self.warmup, self.on = warmup, False
    def on_epoch_start(self, run, epoch):
        self.on = epoch >= self.warmup
    def loss(self, logits, batch):
        if self.on:
            return -logits.log_softmax(1).mean()
        return F.cross_entropy(logits, batch.labels)
"""
    )
    suite = {**SUITE, "overrides": {"epochs": 1}, "methods": {"late": {}, "dividemix": {}}}
    with pytest.warns(UserWarning, match="never begins"):
        frame = nlbench.run(suite, out=tmp_path / "r", methods_dir=tmp_path, device="cpu")
    said = {}
    for key in frame.index:
        record = (tmp_path / "r" / "runs" / key / "record.json").read_text()
        said[frame.loc[key, "method"]] = record
    assert "warmup is 40, and this training has 1 epoch: what begins" in said["late"]
    assert "MixMatch would begin in epoch 2, and this training has 1 epoch" in said["dividemix"]
