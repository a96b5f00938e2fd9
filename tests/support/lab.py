"""A small laboratory for methods: a task, a run on numbers in place of images, and training."""

import copy
import functools
import io

import torch
from torch import nn

from nlbench.method import Batch, Task
from nlbench.training.epoch import train_epoch
from nlbench.training.run_state import RunState

# ---- Tasks and batches ---------------------------------------------------------------------------


def make_task(N=40, C=10, epochs=6, told=None, seed=0, batch_size=16):
    """Make a task with random labels; `told` is the privileged information, by default a T."""
    labels = torch.randint(C, (N,), generator=torch.Generator().manual_seed(seed))
    if told is None:
        told = {"T": 0.6 * torch.eye(C, dtype=torch.float64) + 0.4 / C}
    return Task(N, C, labels, epochs, -(-N // batch_size), batch_size, privileged=told)


def no_views(index, k):
    raise AssertionError("no second view was expected here")


def make_batch(task, index):
    """Make a batch of the examples at `index`, without images, for a method that is only a loss."""
    return Batch(torch.zeros(len(index), 1), task.labels[index], index, no_views)


def make_logits(B, C, stage, seed=1):
    """Draw logits (B, C) float64; late in training the network is confident, and clamps act."""
    scale = {"early": 1.0, "late": 12.0}[stage]
    rng = torch.Generator().manual_seed(seed)
    return scale * torch.randn(B, C, generator=rng, dtype=torch.float64)


def value_and_grad(method, logits, batch):
    """Return a method's loss, reduced, and its gradient to the logits."""
    z = logits.detach().clone().requires_grad_()
    loss = method.loss(z, batch).mean()
    (grad,) = torch.autograd.grad(loss, z)
    return loss.detach(), grad


# ---- Examples and networks -----------------------------------------------------------------------


class Examples:
    """Training examples for a run: numbers for images, which augmentation shifts a little."""

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

    def request_views(self, index, draws, strong):
        plain = [self.request(index, view) for view in draws]
        return plain, [functools.partial(self.strong, index, *view) for view in strong]

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


class Names(Examples):
    """Examples for a `Table`: image i is row i of the identity. Augmentation changes nothing.

    The strong view of every second example is its negative.
    """

    def __init__(self, N):
        self.rows = torch.eye(N)

    def draws(self, rng):
        return torch.zeros(len(self.rows), 1)

    def strong(self, index, draws, seed):
        sign = 1.0 - 2.0 * (index % 2)
        return sign[:, None] * self.rows[index]


class Table(nn.Module):
    """A network that holds the logits (N, C) of the examples, whose images are `Names`.

    A mixture of images gets the mixture of their logits. It has no matrix product, so that autocast
    does not change its output.
    """

    def __init__(self, logits):
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, images):
        return (images[:, :, None] * self.logits).sum(1)


def small_network(task, seed=3):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, task.num_classes)
    )


class Helper(nn.Module):
    """A helper network that predicts example i's given label, with a logit of about 3."""

    def __init__(self, task):
        super().__init__()
        rng = torch.Generator().manual_seed(5)
        noise = torch.randn(task.num_train, task.num_classes, generator=rng)
        label = nn.functional.one_hot(task.labels, task.num_classes)
        self.logits = nn.Parameter(3 * label.float() + 0.3 * noise)

    def forward(self, images):
        return self.logits[: len(images)]


def plain_helper(run, key, loss, epochs, **choices):
    """Return a Helper for cross entropy, else a copy of the run's first network, untrained."""
    if loss == "ce":
        return Helper(run.task).eval()
    return copy.deepcopy(run.networks[0]).eval()


# ---- Runs and training ---------------------------------------------------------------------------


def make_run(
    task,
    num_networks=1,
    *,
    validation=False,
    fit=None,
    seed=0,
    lr=0.1,
    networks=None,
    schedule=None,
    epoch_size=0,
    images=None,
):
    """Make a run whose networks each have SGD with momentum, registered as training does it."""
    networks = networks or [small_network(task, 3 + i) for i in range(num_networks)]
    run = RunState(
        task=task,
        seed=seed,
        networks=networks,
        images=images or Examples(task.num_train, 7),
        schedule=schedule or (lambda position: 1.0),
        val_images=Examples(20, 8) if validation else None,
        val_labels=torch.arange(20) % task.num_classes if validation else None,
        fit=fit or plain_helper,
        epoch_size=epoch_size,
    )

    def sgd(params):
        return torch.optim.SGD(params, lr=lr, momentum=0.9)

    for i, network in enumerate(networks):
        run.optimise(network.parameters(), sgd, f"network{i}")
    return run


def in_float64(run):
    """Put the networks and the examples of `run` in float64, in place, and return it."""
    for network in run.networks:
        network.double()
    run.images.rows = run.images.rows.double()
    return run


def train(method, run, epochs):
    """Train these epochs with nlbench's loop. The caller has called `prepare`."""
    for epoch in epochs:
        train_epoch(run, method, epoch)


class Watch:
    """Records what a method differentiates: its `steps` and the last `logits` of each network.

    A step is (names of the optimisers, loss, gradient of the loss to each network's logits).
    """

    def __init__(self, run):
        self.steps, self.logits = [], [None] * len(run.networks)
        self._backward_step, run.backward_step = run.backward_step, self.backward_step
        for i, network in enumerate(run.networks):
            network.register_forward_hook(lambda module, args, z, i=i: self.keep(i, z))

    def keep(self, i, z):
        self.logits[i] = z

    def backward_step(self, loss, *names):
        grads = torch.autograd.grad(loss, self.logits, retain_graph=True, allow_unused=True)
        self.steps.append((names, loss.detach().clone(), grads))
        self._backward_step(loss, *names)


def parts_of(method, run):
    """Return what a checkpoint holds: the method, its networks and its optimisers, by name."""
    networks = {f"network {i}": network for i, network in enumerate(run.networks)}
    optimisers = {f"optimiser {name}": optimiser for name, optimiser in run.optimisers.items()}
    return {"method": method, **networks, **optimisers}


def save(method, run):
    """Return a checkpoint as the bytes of a file."""
    states = {name: part.state_dict() for name, part in parts_of(method, run).items()}
    file = io.BytesIO()
    torch.save({**states, "step": run.step}, file)
    return file.getvalue()


def load(method, run, saved):
    """Put a checkpoint into a method and a run that have been prepared."""
    states = torch.load(io.BytesIO(saved), weights_only=True)
    run.step = states.pop("step")
    parts = parts_of(method, run)
    assert parts.keys() == states.keys()
    for name, part in parts.items():
        part.load_state_dict(states[name])
