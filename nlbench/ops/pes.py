"""Parts of PES: the late layers, new weights for them, and the weights of classes.

Bai et al., NeurIPS 2021, arXiv:2106.15853. The authors renew the classifier in PES_noisylabels.py
and the last stage in PES_cs.py. For any network, these are:
- A part is a block or layer of the network. The classifier is the last part that has weights.
- The last stage is the longest run of parts at the end whose convolutions are all as wide as the
  last one. In a residual network those are the blocks of the last width, in the small networks the
  last convolution and the dense layers. Where all convolutions have one width, it is the classifier
  alone.
"""

import copy

import torch
from torch import Tensor, nn


def late_parts(network: nn.Module, renew: str) -> list[nn.Module]:
    """Return the late parts of `network` in order: the "classifier" or the last "stage"."""
    parts = []
    for part in parts_of(getattr(network, "body", network)):
        if next(part.parameters(), None) is not None:
            parts.append(part)

    # The width of a part is that of its widest convolution, 0 without one.
    widths = [0] * len(parts)
    for i, part in enumerate(parts):
        for module in part.modules():
            if isinstance(module, nn.Conv2d):
                widths[i] = max(widths[i], module.out_channels)

    last = [width for width in widths if width][-1:]
    before = [i for i, width in enumerate(widths) if width and [width] != last]
    if renew == "classifier" or not before:
        return parts[-1:]

    # The stage begins with the first convolution after the last one of another width.
    first = next(i for i in range(before[-1] + 1, len(parts)) if widths[i])
    return parts[first:]


def parts_of(module: nn.Module) -> list[nn.Module]:
    """List the blocks and layers of a network in order, with each Sequential taken apart."""
    parts: list[nn.Module] = []
    for child in module.children():
        parts += parts_of(child) if isinstance(child, nn.Sequential) else [child]
    return parts


def start_afresh(parts: list[nn.Module], generator: torch.Generator) -> None:
    """Give `parts` new weights, in place, by their `reset_parameters`.

    They are drawn on the CPU, so that they do not depend on the device.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(generator.initial_seed())
        for part in parts:
            fresh = copy.deepcopy(part).cpu()
            for module in fresh.modules():
                reset = getattr(module, "reset_parameters", None)
                if callable(reset):
                    reset()
            part.load_state_dict(fresh.state_dict())


def balanced_weights(labels: Tensor, num_classes: int, most: float) -> Tensor:
    """Return the weights of the classes in a balanced cross entropy, (C,) float64.

    A class weighs the mean size of the classes over its own size, and not more than `most`. Classes
    without an example weigh 0, and do not count in the mean.

    Args:
        labels: (n,) int64.
    """
    counts = labels.bincount(minlength=num_classes).double()
    balanced = counts[counts > 0].mean() / counts
    return torch.where(counts > 0, balanced.clamp(max=most), 0.0)
