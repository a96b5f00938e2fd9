"""Train one try of the search for cifar-cpu: networks from chains of layers, and a short loop."""

import re
import resource
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nlbench import models
from nlbench.data import catalogue
from nlbench.data.base import Info
from nlbench.data.places import Places
from nlbench.plan.schedules import OneCycle
from nlbench.training import run_data
from nlbench.training.images import Augment, Images

if TYPE_CHECKING:
    from cifar_cpu_search import Try

# Predicting uses the batches of nlbench.
PREDICTED = 500
SHAPE = (3, 32, 32)


def spent() -> float:
    """Return the seconds that the processor has spent on this process."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


# ---- Networks ------------------------------------------------------------------------------------


class Residual(nn.Module):
    """Two 3x3 convolutions with an identity shortcut."""

    def __init__(self, width: int):
        super().__init__()
        self.inner = nn.Sequential(*block(width, width), *block(width, width))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = x + self.inner(x)
        return result


def block(channels: int, width: int, side: int = 3, how: str = "") -> list[nn.Module]:
    """Convolution, batch norm, ReLU. `how` is "p" for a max-pool before the norm, "s" for stride 2.

    A side of 4 has stride 2.
    """
    stride = 2 if side == 4 or how == "s" else 1
    layers: list[nn.Module] = [nn.Conv2d(channels, width, side, stride, padding=1, bias=False)]
    if how == "p":
        # The pool commutes with the ReLU, and the two layers after it see a quarter of the values.
        layers.append(nn.MaxPool2d(2))
    return [*layers, nn.BatchNorm2d(width), nn.ReLU(inplace=True)]


def network_of(chain: str) -> nn.Module:
    """Return the network of a name or a chain, for CIFAR-10."""
    if chain in models.names():
        return models.build(chain, 10, SHAPE)

    layers: list[nn.Module] = []
    channels, height, _ = SHAPE
    flat = False
    for token in chain.split("-"):
        found = re.fullmatch(r"([a-z]+?)(\d*)([ps]?)", token)
        if found is None:
            raise ValueError(f"unknown layer {token!r} in {chain!r}")
        kind, width, how = found[1], int(found[2] or 0), found[3]

        if kind in ("conv", "patch"):
            layers += block(channels, width, 4 if kind == "patch" else 3, how)
            channels = width
            height //= (2 if kind == "patch" or how == "s" else 1) * (2 if how == "p" else 1)
        elif token == "res":
            layers.append(Residual(channels))
        elif token == "pool":
            layers.append(nn.MaxPool2d(2))
            height //= 2
        elif token == "max":
            layers += [nn.AdaptiveMaxPool2d(1), nn.Flatten()]
            flat = True
        elif kind == "dense":
            if not flat:
                layers.append(nn.Flatten())
                channels *= height * height
            layers += [nn.Linear(channels, width), nn.ReLU(inplace=True)]
            channels, flat = width, True
        else:
            raise ValueError(f"unknown layer {token!r} in {chain!r}")

    if not flat:
        layers.append(nn.Flatten())
        channels *= height * height
    return nn.Sequential(*layers, nn.Linear(channels, 10))


# ---- Trainings -----------------------------------------------------------------------------------


class Trials:
    """Trains tries on data that is read once.

    Args:
        seed: of subsets, weights, order and augmentation.
        augment: of the training images, as a protocol names it.
    """

    def __init__(self, data_dir: Path, seed: int, augment: Augment = "none"):
        torch.set_num_threads(1)
        self.seed = seed
        self.augment: Augment = augment
        self.dataset = catalogue.open_dataset("cifar10n", "", Places.of_user(data_dir), seed)
        self.start = spent()

    def run(self, values: "Try", enough: float) -> dict[str, float]:
        """Train on the worst labels, and on the clean ones if enough wrong ones are memorised."""
        worst = self._train(values, "worst")
        clean = float("nan")
        if worst["memorised"] >= enough:
            clean = self._train(values, "clean")["accuracy"]

        # A run predicts its training images once, at its end.
        per_image = worst["evaluation"] / self.dataset.info.num_test
        predicting = values.epochs * worst["evaluation"] + values.images * per_image
        return {
            "parameters": int(worst["parameters"]),
            "memorised": worst["memorised"],
            "worst": worst["accuracy"],
            "clean": clean,
            "training": worst["training"],
            "evaluation": worst["evaluation"],
            "start": self.start,
            "run": self.start + worst["training"] + predicting,
        }

    def _train(self, values: "Try", label_set: str) -> dict[str, float]:
        # The subset is the one of the noisy labels, so that both trainings see the same images.
        data = run_data.prepare(
            self.dataset, seed=self.seed, labels="worst", stratify="given", subset=values.images
        )
        given = data.labels if label_set == "worst" else data.clean_labels
        labels = torch.from_numpy(np.array(given))
        images = images_of(data.train_images, data.info)
        augmented = images_of(data.train_images, data.info, self.augment)

        torch.manual_seed(self.seed)
        network = network_of(values.network).to(memory_format=torch.channels_last)
        optimiser = torch.optim.SGD(
            network.parameters(),
            lr=values.lr,
            momentum=0.9,
            weight_decay=values.weight_decay,
            fused=True,
        )
        began = spent()
        self._epochs(values, network, optimiser, augmented, labels)
        training = spent() - began

        network.eval()
        began = spent()
        tested = predict(network, images_of(data.test_images, data.info))
        evaluation = spent() - began
        accuracy = float((tested.argmax(1) == torch.from_numpy(data.test_labels)).float().mean())

        predicted = predict(network, images).argmax(1)
        wrong = labels != torch.from_numpy(np.array(data.clean_labels))
        memorised = float((predicted == labels)[wrong].float().mean()) if wrong.any() else 0.0
        return {
            "parameters": sum(weight.numel() for weight in network.parameters()),
            "accuracy": accuracy,
            "memorised": memorised,
            "training": training,
            "evaluation": evaluation,
        }

    def _epochs(
        self,
        values: "Try",
        network: nn.Module,
        optimiser: torch.optim.Optimizer,
        images: Images,
        labels: Tensor,
    ) -> None:
        schedule = OneCycle(kind="one-cycle")
        generator = torch.Generator().manual_seed(self.seed)
        rng = np.random.default_rng(self.seed)
        steps = -(-len(images) // values.batch)
        for epoch in range(values.epochs):
            right = torch.zeros(())
            # One draw for each image and epoch, as in a run.
            draws = images.draws(rng)
            order = torch.randperm(len(images), generator=generator)
            for step, index in enumerate(order.split(values.batch)):
                position = epoch + step / steps
                for group in optimiser.param_groups:
                    group["lr"] = values.lr * schedule.factor(position, values.epochs, values.lr)
                optimiser.zero_grad()
                logits = network(images.augmented(index, draws))
                F.cross_entropy(logits, labels[index]).backward()
                optimiser.step()
                right += (logits.argmax(1) == labels[index]).sum()
            share = float(right) / len(images)
            print(f"epoch {epoch}: {share:.3f} right, {spent():.0f} s", file=sys.stderr)


def images_of(array: object, info: Info, augment: Augment = "none") -> Images:
    """Return the images of an array."""
    # CIFAR-10 is no folder of files.
    assert isinstance(array, np.ndarray)
    return Images(array, info, augment=augment)


def predict(network: nn.Module, images: Images) -> Tensor:
    """Return the logits (N, 10) of all images."""
    with torch.no_grad():
        starts = range(0, len(images), PREDICTED)
        ends = [min(start + PREDICTED, len(images)) for start in starts]
        return torch.cat([network(images.plain(a, b)) for a, b in zip(starts, ends, strict=True)])
