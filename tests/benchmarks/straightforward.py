"""Train ELR by the loop that a user would write.

It has a DataLoader over PIL images, transforms of torchvision, eager PyTorch and float32.
"""

import contextlib
import itertools
import time
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from nlbench import models
from nlbench.data.base import Info
from nlbench.plan.protocol import Protocol


class Pictures(Dataset):
    """Give images and labels as torchvision's CIFAR10 does, and their indices.

    A row of the array becomes a PIL image, which the transforms take.

    Args:
        images: (N, H, W, 3) uint8.
        labels: (N,) int64, the given labels.
    """

    def __init__(self, images: np.ndarray, labels: np.ndarray, info: Info):
        self.images, self.labels = images, labels.tolist()
        self.transform = transforms.Compose(
            [
                transforms.RandomCrop(images.shape[1], padding=4),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(info.mean, info.std),
            ]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> tuple[Tensor, int, int]:
        image = Image.fromarray(self.images[i])
        return self.transform(image), self.labels[i], i


class EagerELR:
    """Compute ELR in plain PyTorch; a Python list addresses its targets (N, C) float32."""

    def __init__(
        self,
        num_train: int,
        num_classes: int,
        device: torch.device | str = "cpu",
        beta: float = 0.7,
        lam: float = 3.0,
    ):
        self.target = torch.zeros(num_train, num_classes, device=device)
        self.beta, self.lam = beta, lam

    def __call__(self, index: list[int], logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean loss of a batch, after an update of its rows of the targets."""
        probs = F.softmax(logits, dim=1).clamp(1e-4, 1 - 1e-4)
        own = probs.detach()
        new = own / own.sum(dim=1, keepdim=True)
        self.target[index] = self.beta * self.target[index] + (1 - self.beta) * new

        agreement = (self.target[index] * probs).sum(dim=1)
        return F.cross_entropy(logits, labels) + self.lam * (1 - agreement).log().mean()


@dataclass(frozen=True)
class Setting:
    """Hold the data, the protocol (model, SGD) and the device of a loop."""

    images: np.ndarray  # (N, H, W, 3) uint8
    labels: np.ndarray  # (N,) int64, the given labels
    info: Info
    protocol: Protocol
    device: torch.device
    workers: int


@dataclass(frozen=True)
class Epoch:
    """Hold the mean loss of an epoch, and its images per second after the first batch arrived."""

    loss: float
    images_per_second: float


class Loop:
    """Train one epoch per call.

    The DataLoader's workers live as long as the loop. Nothing is prefetched for an epoch that has
    not begun, so that they sleep between epochs.
    """

    def __init__(self, setting: Setting):
        info, protocol = setting.info, setting.protocol
        self.device = setting.device
        side, other, channels = info.shape
        network = models.build(protocol.model, info.num_classes, (channels, side, other))
        self.network = network.to(self.device).train()

        self.loss_of = EagerELR(len(setting.labels), info.num_classes, self.device)
        self.optimiser = torch.optim.SGD(
            self.network.parameters(),
            lr=protocol.lr,
            momentum=protocol.momentum,
            weight_decay=protocol.weight_decay,
        )

        self.loader: Any = DataLoader(
            Pictures(setting.images, setting.labels, info),
            batch_size=protocol.batch_size,
            shuffle=True,
            num_workers=setting.workers,
            pin_memory=self.device.type == "cuda",
            persistent_workers=setting.workers > 0,
        )

    def epoch(self) -> Epoch:
        """Train on every image once."""
        # The workers sleep between epochs. The time starts with the first batch, which favours
        # this loop.
        batches = iter(self.loader)
        first = next(batches)

        total, right, seen = 0.0, 0, 0
        begun = time.perf_counter()
        for images, labels, index in itertools.chain([first], batches):
            images, labels = images.to(self.device), labels.to(self.device)

            logits = self.network(images)
            loss = self.loss_of(index.tolist(), logits, labels)
            self.optimiser.zero_grad()
            loss.backward()
            self.optimiser.step()

            # A loop that prints its progress reads from the device like this in every step.
            total += loss.item()
            right += (logits.argmax(1) == labels).sum().item()
            seen += len(labels)

        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        seconds = time.perf_counter() - begun
        return Epoch(total / len(self.loader), seen / seconds)


class Apart:
    """Run a `Loop` in another process, which nlbench's settings of torch and malloc do not reach.

    The process waits between epochs. Leaving the `with` block ends it.
    """

    def __init__(self, setting: Setting):
        spawn = get_context("spawn")
        self._connection, theirs = spawn.Pipe()
        self._process = spawn.Process(target=_serve, args=(theirs, setting))
        self._process.start()
        # With this end closed, a process that dies raises an EOFError here.
        theirs.close()

    def __enter__(self) -> "Apart":
        return self

    def __exit__(self, *error: Any) -> None:
        # The process ends by itself when the connection closes, unless it hangs.
        self._connection.close()
        self._process.join(20)
        if self._process.is_alive():
            self._process.terminate()

    def epoch(self) -> Epoch:
        """Train an epoch there, and wait for it.

        Raises: EOFError when the process has died; it printed why.
        """
        self._connection.send("epoch")
        return self._connection.recv()


def _serve(connection: Connection, setting: Setting) -> None:
    """Train an epoch for every message, until the other end is closed."""
    torch.set_num_threads(setting.protocol.threads)
    torch.manual_seed(0)
    loop = Loop(setting)
    with contextlib.suppress(EOFError):
        while connection.recv():
            connection.send(loop.epoch())
