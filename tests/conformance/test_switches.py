"""Changes of the whole process are found in the sources, by line, under any name."""

import pytest

from nlbench.conformance.switches import switches

HEAD = """import os, random
import numpy as np
import torch
import torch as t
from torch import nn, set_num_threads
from torch.nn import functional as F
from nlbench.method import Method
from ._helper import table
"""


def found(folder, text):
    path = folder / "mine.py"
    path.write_text(HEAD + text)
    return [place.partition(": ")[2] for place, _ in switches(path)]


@pytest.mark.parametrize(
    "line",
    [
        "torch.set_default_dtype(torch.float64)",
        "t.set_num_threads(4)",
        "set_num_threads(4)",
        "torch.backends.cudnn.benchmark = True",
        "torch.backends.cuda.enable_flash_sdp(False)",
        "os.environ['OMP_NUM_THREADS'] = '4'",
        "os.environ.setdefault('A', 'b')",
        "del os.environ['PATH']",
        "np.random.seed(0)",
        "random.seed(0)",
        "torch.default_generator.manual_seed(0)",
        "F.cross_entropy = F.nll_loss",
        "nn.Module.train = None",
        "Method.training_step = lambda self, run, batch: None",
        "setattr(torch, 'softmax', None)",
        "torch.set_grad_enabled(False)",
        "np.float_power, os.name = 1, 2",
        "torch.backends.cudnn.enabled |= True",
        "os.chdir('/')",
    ],
)
def test_a_change_of_the_process_is_found(tmp_path, line):
    assert found(tmp_path, f"def f():\n    {line}\n") == [line]


def test_a_further_name_is_followed(tmp_path):
    assert found(tmp_path, "flags = torch.backends.cudnn\nflags.benchmark = True\n") == [
        "flags.benchmark = True"
    ]


@pytest.mark.parametrize(
    "text",
    [
        "with torch.random.fork_rng():\n    torch.manual_seed(0)\n",
        "with torch.set_grad_enabled(False):\n    pass\n",
        "with np.errstate(all='ignore'):\n    pass\n",
        "rng = np.random.default_rng(0)\nrng.x = 1\n",
        "generator = torch.Generator()\ngenerator.manual_seed(0)\n",
        "table.rows = 3\n",
        "class A:\n    def f(self):\n        self.seed = 1\n        self.torch = torch\n",
        "home = os.environ.get('HOME')\nx = os.environ['PATH']\n",
    ],
)
def test_what_ends_by_itself_or_is_its_own_is_left_alone(tmp_path, text):
    assert found(tmp_path, text) == []
