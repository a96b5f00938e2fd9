"""Recorders of training steps that count. Of these the TapeRecorder needs no GPU.

It keeps a tape of the operators of a step. Like a CUDA graph the tape has frozen what Python
decided: playing it runs the same operators on the same memory, without any Python of the step. Like
a graph it refuses operators that wait for the device.
"""

from unittest import mock

import torch
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from waits import waits

from nlbench.ops import images, losses
from nlbench.training import capture


def tensors(value):
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, torch.Tensor)]


def memory(tensor):
    return tensor.untyped_storage().data_ptr()


def one_hot(labels, num_classes):
    """Do what torch's does on a GPU, which reads no label to check it."""
    rows = labels.new_zeros(*labels.shape, num_classes)
    return rows.scatter(-1, labels[..., None], 1)


class Tape(TorchDispatchMode):
    """Keeps the operators that run within it, and plays them again."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if waits(func, args):
            raise RuntimeError(f"operation not permitted when stream is capturing: {func}")

        out = func(*args, **kwargs)
        given = {memory(tensor) for tensor in tensors((args, kwargs))}
        fresh = [tensor for tensor in tensors(out) if memory(tensor) not in given]

        def again():
            new = tensors(func(*args, **kwargs))
            for old, value in zip(tensors(out), new, strict=True):
                if any(old is tensor for tensor in fresh):
                    old.copy_(value)

        self.calls.append(again)
        return out

    def play(self):
        with torch.no_grad():
            for call in self.calls:
                call()


class _Kernels:
    """The compiled extension, whose calls on addresses go to a tape as well."""

    def __init__(self, core, tape):
        self._core, self._tape = core, tape

    def __getattr__(self, name):
        found = getattr(self._core, name)
        if name not in ("loss_cpu", "augment_cpu"):
            return found

        def call(*arguments):
            self._tape.calls.append(lambda: found(*arguments))
            return found(*arguments)

        return call


class TapeRecorder:
    """A `whole_step.Recorder` of tapes. `tapes` has the number of plays of each."""

    def __init__(self):
        self.rehearsals = 0
        self.plays = []

    def rehearse(self, step):
        self.rehearsals += 1
        step()

    def record(self, step):
        tape, core, number = Tape(), losses.core, len(self.plays)
        self.plays.append(0)
        # Steps without the extension run the reference, whose operators the tape has.
        if core is not None:
            losses.core = images.core = _Kernels(core, tape)
        try:
            with tape, mock.patch.object(functional, "one_hot", one_hot):
                step()
        finally:
            losses.core = images.core = core

        def play():
            self.plays[number] += 1
            tape.play()

        return play


class GraphRecorder:
    """The recorder of CUDA graphs, with the counts of a TapeRecorder."""

    def __init__(self, device):
        self.rehearsals = 0
        self.plays = []
        self._recorder = capture.CudaRecorder(device)

    def rehearse(self, step):
        self.rehearsals += 1
        self._recorder.rehearse(step)

    def record(self, step):
        replay, number = self._recorder.record(step), len(self.plays)
        self.plays.append(0)

        def play():
            self.plays[number] += 1
            replay()

        return play


class StepRecorder:
    """A recorder that takes each step as it is, and so holds nothing of it."""

    def rehearse(self, step):
        step()

    def record(self, step):
        step()
        return step
