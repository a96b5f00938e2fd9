"""The loop that a user would write for ELR: a DataLoader over PIL images, torchvision, eager PyTorch, float32."""

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
    """(image, label, index), as torchvision's CIFAR10 makes them: an array's row becomes a PIL image, then transforms.

    Args:
        images: (N, H, W, 3) uint8.
        labels: (N,) int64, the given ones.
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
        return self.transform(Image.fromarray(self.images[i])), self.labels[i], i


class EagerELR:
    """ELR in plain PyTorch, its memory of the targets (N, C) float32 addressed by a Python list."""

    def __init__(
        self, num_train: int, num_classes: int, device: torch.device | str = "cpu", beta: float = 0.7, lam: float = 3.0
    ):
        self.target = torch.zeros(num_train, num_classes, device=device)
        self.beta, self.lam = beta, lam

    def __call__(self, index: list[int], logits: Tensor, labels: Tensor) -> Tensor:
        """The mean loss of a batch; moves its rows of the targets first."""
        probs = F.softmax(logits, dim=1).clamp(1e-4, 1 - 1e-4)
        own = probs.detach()
        self.target[index] = self.beta * self.target[index] + (1 - self.beta) * (own / own.sum(dim=1, keepdim=True))
        agreement = (self.target[index] * probs).sum(dim=1)
        return F.cross_entropy(logits, labels) + self.lam * (1 - agreement).log().mean()


@dataclass(frozen=True)
class Setting:
    """What the loop trains: the images (N, H, W, 3) uint8 and given labels (N,) int64 of a run, its model, its SGD."""

    images: np.ndarray
    labels: np.ndarray
    info: Info
    protocol: Protocol
    device: torch.device
    workers: int


@dataclass(frozen=True)
class Epoch:
    """An epoch's mean loss, and its images per second from when the first batch had come."""

    loss: float
    images_per_second: float


class Loop:
    """A training of which single epochs are asked for.

    The DataLoader's workers live as long as the loop, but nothing is prefetched for an epoch that has not begun, so
    that they sleep between epochs.
    """

    def __init__(self, setting: Setting):
        info, protocol = setting.info, setting.protocol
        self.device = setting.device
        side, other, channels = info.shape
        self.network = models.build(protocol.model, info.num_classes, (channels, side, other)).to(self.device).train()
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
            total += loss.item()
            right += (logits.argmax(1) == labels).sum().item()
            seen += len(labels)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return Epoch(total / len(self.loader), seen / (time.perf_counter() - begun))


class Apart:
    """A `Loop` in a process of its own, as a user's would be: nlbench's settings of torch and malloc don't reach it.

    The process waits while nothing is asked of it. Leaving the `with` block ends it.
    """

    def __init__(self, setting: Setting):
        spawn = get_context("spawn")
        self._connection, theirs = spawn.Pipe()
        self._process = spawn.Process(target=_serve, args=(theirs, setting))
        self._process.start()
        theirs.close()  # so that a process that dies is an EOFError here

    def __enter__(self) -> "Apart":
        return self

    def __exit__(self, *error: Any) -> None:
        self._connection.close()
        self._process.join(20)
        if self._process.is_alive():
            self._process.terminate()

    def epoch(self) -> Epoch:
        """Train an epoch there, and wait for it. Raises EOFError when the process has died; it said why."""
        self._connection.send("epoch")
        return self._connection.recv()


def _serve(connection: Connection, setting: Setting) -> None:
    torch.set_num_threads(setting.protocol.threads)
    torch.manual_seed(0)
    loop = Loop(setting)
    try:
        while connection.recv():
            connection.send(loop.epoch())
    except EOFError:  # nobody asks any more
        pass
