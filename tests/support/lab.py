"""A small laboratory for methods: a task, a run on numbers in place of images, and a training loop."""

import torch
from torch import nn

from nlbench.method import Batch, Task
from nlbench.training.epoch import train_epoch
from nlbench.training.run_state import RunState


def make_task(N=40, C=10, epochs=6, told=None, seed=0, batch_size=16):
    labels = torch.randint(C, (N,), generator=torch.Generator().manual_seed(seed))
    T = 0.6 * torch.eye(C, dtype=torch.float64) + 0.4 / C
    return Task(N, C, labels, epochs, -(-N // batch_size), batch_size, privileged={"T": T} if told is None else told)


def no_views(index, k):
    raise AssertionError("no second view was expected here")


def make_batch(task, index):
    return Batch(torch.zeros(len(index), 1), task.labels[index], index, no_views)


class Examples:
    """Training examples for a run: numbers (N, 6) in place of images, which augmentation shifts a little."""

    ahead = 0

    def __init__(self, N, seed, shape=(6,)):
        self.rows = torch.randn(N, *shape, generator=torch.Generator().manual_seed(seed))

    def __len__(self):
        return len(self.rows)

    @property
    def shape(self):
        return tuple(self.rows.shape[1:])

    def draws(self, rng):
        shift = torch.from_numpy(rng.normal(size=(len(self.rows), 1)).astype("float32"))
        return shift.view(-1, *[1] * (self.rows.ndim - 1))

    def request(self, index, draws):
        return lambda: self.augmented(index, draws)

    def augmented(self, index, draws):
        return self.rows[index] + 0.1 * draws[index]

    def strong(self, index, draws, seed):
        return self.rows[index] + 0.3 * draws[index]

    def plain(self, start, stop):
        return self.rows[start:stop]

    def subset(self, index):
        part = Examples(0, 0)
        part.rows = self.rows[index]
        return part


def small_network(task, seed=3):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, task.num_classes))


def make_run(
    task, num_networks=1, *, validation=False, fit=None, seed=0, lr=0.1, networks=None, schedule=None, epoch_size=0
):
    """A Run whose networks each have SGD with momentum, registered as the harness does it."""
    networks = networks or [small_network(task, 3 + i) for i in range(num_networks)]
    run = RunState(
        task=task,
        seed=seed,
        networks=networks,
        images=Examples(task.num_train, 7),
        schedule=schedule or (lambda position: 1.0),
        val_images=Examples(20, 8) if validation else None,
        val_labels=torch.arange(20) % task.num_classes if validation else None,
        fit=fit,
        epoch_size=epoch_size,
    )
    for i, network in enumerate(networks):
        run.optimise(network.parameters(), lambda p: torch.optim.SGD(p, lr=lr, momentum=0.9), f"network{i}")
    return run


def train(method, run, epochs):
    """Train these epochs with nlbench's loop. The caller has called `prepare`."""
    for epoch in epochs:
        train_epoch(run, method, epoch)
