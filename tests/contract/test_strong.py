"""Which methods use strong views, as their code says."""

import functools

import pytest
import torch

from nlbench import registry
from nlbench.contract.strong import uses_strong_views
from nlbench.method import Method


class Direct(Method):
    def training_step(self, run, batch):
        return batch.strong(0)


class Derived(Direct):
    def loss(self, logits, batch):
        return logits


class InLambda(Method):
    def training_step(self, run, batch):
        def views():
            return [one.strong() for one in [batch]]

        return views()


def _both(batch):
    return batch.images, batch.strong()


class ByHelper(Method):
    def training_step(self, run, batch):
        return _both(batch)


class Decorated(Method):
    @torch.no_grad()
    def training_step(self, run, batch):
        return batch.strong()


class InProperty(Method):
    @functools.cached_property
    def first(self):
        return None

    @property
    def second(self):
        return self.batch.strong()


class Static(Method):
    @staticmethod
    def views(batch):
        return batch.strong()


class LocalName(Method):
    """A local variable and another attribute are no strong view."""

    def training_step(self, run, batch):
        strong = batch.view(1)
        return strong.stronger


class Recursive(Method):
    def training_step(self, run, batch):
        return _around(batch)


def _around(batch):
    return _around(batch)


@pytest.mark.parametrize(
    "cls", [Direct, Derived, InLambda, ByHelper, Decorated, InProperty, Static]
)
def test_a_method_that_reads_strong(cls):
    assert uses_strong_views(cls)


@pytest.mark.parametrize("cls", [Method, LocalName, Recursive])
def test_a_method_that_does_not(cls):
    assert not uses_strong_views(cls)


def test_of_the_shipped_methods_two_do():
    using = []
    for name, file in registry.method_files([]).items():
        if uses_strong_views(registry.load_method(file)):
            using.append(name)
    assert using == ["disc", "sop-plus"]
