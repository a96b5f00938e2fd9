"""A gradient that a method has computed itself, in the form that `run.backward_step` takes."""

from collections.abc import Sequence

import torch
from torch import Tensor


def loss_with_gradients(
    loss: Tensor, parameters: Sequence[Tensor], gradients: Sequence[Tensor]
) -> Tensor:
    """Return a 0-d tensor with the value of `loss`, and with these gradients to `parameters`.

    `run.backward_step` then gives an optimiser any gradient, such as a masked one, and reports the
    value of the loss.

    Args:
        loss: 0-d; its own graph is not used.
        parameters: those that get a gradient.
        gradients: one for each parameter, of its shape; constants.
    """
    # The derivative of <w, g> by w is g, bit for bit.
    products = [(w * g.detach()).sum() for w, g in zip(parameters, gradients, strict=True)]
    inner = torch.stack([product.to(loss.dtype) for product in products]).sum()
    return loss.detach() + (inner - inner.detach())
