"""Which methods use strong views, as their code says."""

import functools
import inspect
from types import ModuleType

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


class _Views:
    """A helper that is not a method."""

    def of(self, batch):
        return batch.strong()


class ByHelperClass(Method):
    def __init__(self, task):
        super().__init__(task)
        self.views = _Views()

    def training_step(self, run, batch):
        return self.views.of(batch)


_VIEWS = _Views()


class ByHelperObject(Method):
    def training_step(self, run, batch):
        return _VIEWS.of(batch)


_views = functools.partial(_both)


class ByPartial(Method):
    def training_step(self, run, batch):
        return _views(batch)


class OwnPartial(Method):
    training_step = functools.partialmethod(_both)


_helpers = ModuleType("helpers")
_helpers.both = _both


class ByModule(Method):
    def training_step(self, run, batch):
        return _helpers.both(batch)


@functools.cache
def _cached(batch):
    return batch.strong()


class ByCache(Method):
    def training_step(self, run, batch):
        return _cached(batch)


def _with_views(hook):
    def around(self, run, batch):
        return hook(self, run, batch.strong())

    return around


class ByDecorator(Method):
    @_with_views
    def training_step(self, run, batch):
        return batch


class AfterConstants(Method):
    """Constants may be tuples, also empty ones."""

    def training_step(self, run, batch):
        run.state = batch.images.new_zeros(()), ("self",)
        return batch.strong(0)


class Setting(Method):
    """An attribute of the method's own is no strong view."""

    def __init__(self, task, strong: float = 0.5):
        super().__init__(task)
        self.strong = strong

    def loss(self, logits, batch):
        def share():
            return self.strong

        return self.strong * share() * logits

    def other(self, options):
        options.strong = 1


class Libraries(Method):
    """Python's own modules and torch's are not looked into."""

    def loss(self, logits, batch):
        return torch.nn.functional.relu(logits), functools.reduce(max, [1]), inspect.unwrap(max)


class Recursive(Method):
    def training_step(self, run, batch):
        return _around(batch)


def _around(batch):
    return _around(batch)


@pytest.mark.parametrize(
    "cls",
    [
        Direct,
        Derived,
        InLambda,
        ByHelper,
        Decorated,
        InProperty,
        Static,
        ByHelperClass,
        ByHelperObject,
        ByPartial,
        OwnPartial,
        ByModule,
        ByCache,
        ByDecorator,
        AfterConstants,
    ],
)
def test_a_method_that_reads_strong(cls):
    assert uses_strong_views(cls)


@pytest.mark.parametrize("cls", [Method, LocalName, Setting, Libraries, Recursive])
def test_a_method_that_does_not(cls):
    assert not uses_strong_views(cls)


def test_of_the_shipped_methods_seven_do():
    using = []
    for name, file in registry.method_files([]).items():
        if uses_strong_views(registry.load_method(file)):
            using.append(name)
    assert using == ["disc", "gjs", "pls", "promix", "sop-plus", "ssr", "unicon"]
