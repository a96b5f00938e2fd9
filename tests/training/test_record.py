"""Facts about the machine in a run's record."""

import torch

from nlbench.plan.protocol import resolve
from nlbench.training.context import RunOptions
from nlbench.training.record import environment


def test_the_node_is_named_in_a_job_of_slurm_and_nowhere_else(tmp_path, monkeypatch):
    options = RunOptions((torch.device("cpu"),), tmp_path, {})
    protocol = resolve("digits", "digits", {})
    monkeypatch.delenv("SLURMD_NODENAME", raising=False)
    elsewhere = environment(options, protocol)
    monkeypatch.setenv("SLURMD_NODENAME", "gpu017")

    assert "node" not in elsewhere
    assert environment(options, protocol) == {**elsewhere, "node": "gpu017"}
