"""The features of a network, and new heads on them."""

import torch
from torch import nn

from nlbench.ops.features import keeping_features, new_head, with_features
from nlbench.training.network import Network, Passes


def small(dtype=torch.float32):
    torch.manual_seed(0)
    layers = nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 6), nn.ReLU()
    return nn.Sequential(*layers, nn.Linear(6, 3)).to(dtype)


def test_features_are_the_inputs_of_the_last_linear_layer():
    network, images = small(torch.float64), torch.randn(5, 2, 4, 4, dtype=torch.float64)
    logits, features = with_features(network, images)
    assert torch.equal(features, network[:5](images))
    assert torch.equal(logits, network[5](features))
    assert torch.autograd.grad(features.sum(), network[0].weight)[0].abs().sum() > 0
    assert not network[5]._forward_pre_hooks


def test_features_of_each_pass_are_kept():
    network, images = small(), torch.randn(5, 2, 4, 4)
    with keeping_features(network) as kept:
        network(images)
        network(images[:2])
    network(images)
    assert [len(x) for x in kept] == [5, 2]


def test_features_have_the_dtype_of_the_logits():
    network = Network(small(), "bfloat16", Passes())
    logits, features = with_features(network, torch.randn(5, 2, 4, 4))
    assert logits.dtype == features.dtype == torch.float32


def test_a_network_without_a_linear_layer_has_its_outputs_as_features():
    network = nn.Sequential(nn.Flatten(), nn.Tanh())
    logits, features = with_features(network, torch.randn(5, 2))
    assert torch.equal(logits, features)
    assert not network._forward_hooks


def test_a_head_fits_the_network():
    head = new_head(small(torch.float64), 3, 8, 5)
    assert head(torch.randn(4, 6, dtype=torch.float64)).shape == (4, 5)
    outputs = new_head(nn.Sequential(nn.Flatten(), nn.BatchNorm1d(3)), 3, 2)
    assert [layer.weight.shape for layer in outputs] == [(2, 3)]
