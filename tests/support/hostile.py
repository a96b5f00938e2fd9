"""Methods that harm the process they are trained in, and what must become of each."""

import textwrap
from typing import NamedTuple

HEADER = '''"""A hostile method. Unpublished."""

import ctypes
import gc
import os
import signal
import sys
import threading
import time

import numpy as np
import torch
from torch.nn import functional as F

from nlbench.method import Method, Task

'''

CLASS = """

class Hostile(Method):
    def loss(self, logits, batch):
        return F.cross_entropy(logits, batch.labels)
"""

SIGNATURES = {
    "prepare": "self, run",
    "on_epoch_start": "self, run, epoch",
    "on_epoch_end": "self, run, epoch",
}


class Hostile(NamedTuple):
    """A hostile method: what its file or a hook does, and the end of its run.

    Attributes:
        body: code of the hook; of the module if there is no hook.
        failed: a pattern of the error message; empty for a run that is done.
        named: a pattern of the record's warning; empty for none.
    """

    body: str
    hook: str = "on_epoch_start"
    failed: str = ""
    named: str = ""

    def source(self):
        """Return the method's file."""
        body = textwrap.dedent(self.body)
        if not self.hook:
            return f"{HEADER}{body}\n{CLASS}"
        hook = f"\n    def {self.hook}({SIGNATURES[self.hook]}):\n"
        return f"{HEADER}{CLASS}{hook}{textwrap.indent(body, ' ' * 8)}\n"


# What is said of a run that memory has ended.
PEAK = r"its process had [\d.]+ [MG]B of memory at most\. Fewer --jobs"

METHODS = {
    # ---- Ends the process, or raises what is no Exception ----------------------------------------
    "exit-0": Hostile("sys.exit(0)", failed=r"SystemExit: the method ended .* status 0"),
    "os-exit-0": Hostile("os._exit(0)", failed=r"ended its process with status 0.*line \d+ in on_"),
    "os-exit-7": Hostile("os._exit(7)", hook="prepare", failed="with status 7.* in prepare"),
    "abort": Hostile("os.abort()", failed="ended by SIGABRT, last seen in .*abort.py"),
    "segfault": Hostile("ctypes.string_at(0)", failed="ended by SIGSEGV, last seen in"),
    "killed": Hostile(
        "os.kill(os.getpid(), signal.SIGKILL)", failed=f"SIGKILL.*memory is short.*{PEAK}"
    ),
    "base": Hostile("class B(BaseException): pass\nraise B('bare')", failed="B: bare"),
    "generator-exit": Hostile("raise GeneratorExit", failed="GeneratorExit"),
    "ctrl-c": Hostile("signal.raise_signal(signal.SIGINT)", failed="KeyboardInterrupt"),
    "alarm": Hostile("signal.alarm(1)\ntime.sleep(30)", failed="ended by SIGALRM"),
    "no-text": Hostile(
        "class E(Exception):\n    def __str__(self): raise ValueError\nraise E()",
        failed=r"E: \(its str\(\) raises ValueError\)",
    ),
    "half-surrogate": Hostile("raise ValueError('a \\ud800')", failed=r"ValueError: a \\ud800"),
    "long-text": Hostile("raise ValueError('x' * 5_000_000)", failed="characters left out"),
    "memory": Hostile(
        "import resource\nresource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))\n"
        "torch.zeros(1 << 32)",
        failed=f"(allocate memory|MemoryError).*{PEAK}",
    ),
    # ---- Attacks other processes -----------------------------------------------------------------
    # The system ends the run with its parent, which on a busy machine takes a moment.
    "parent": Hostile(
        "os.kill(os.getppid(), signal.SIGKILL)\ntime.sleep(10)", failed="twice ended the process"
    ),
    "group": Hostile("os.killpg(0, signal.SIGTERM)", failed="ended by SIGTERM"),
    "fork": Hostile("os.fork()"),
    "session": Hostile("os.setsid()", failed="PermissionError"),
    # ---- Closes, writes, deletes -----------------------------------------------------------------
    "closes-streams": Hostile("sys.stdout.close()", failed="has closed .* standard output"),
    "closes-files": Hostile("os.closerange(0, 300)", failed="has closed files of its process"),
    "prints": Hostile("print('JUNK')\nos.write(1, b'JUNK')"),
    "writes-labels": Hostile(
        """
        for array in gc.get_objects():
            if isinstance(array, np.ndarray) and array.shape == run.task.labels.shape:
                array.setflags(write=True)
        frame = sys._getframe()
        while "data" not in frame.f_locals:
            frame = frame.f_back
        frame.f_locals["data"].labels[:] = 0
        """,
        hook="prepare",
        failed="written to the given labels|wrote to task.labels",
    ),
    # ---- Replaces code ---------------------------------------------------------------------------
    "replaces-loss": Hostile(
        "F.cross_entropy = lambda z, y: (z - z.detach()).mean()",
        hook="",
        failed="has replaced torch.nn.functional.cross_entropy",
    ),
    "replaces-step": Hostile(
        "torch.optim.SGD.step = lambda self, closure=None: None",
        failed="has replaced torch.optim.sgd.SGD.step",
    ),
    "replaces-evaluation": Hostile(
        "from nlbench.results import summary\nsummary.summarise.__defaults__ = (1,)",
        failed="has replaced nlbench.results.summary.summarise",
    ),
    # ---- Flips switches --------------------------------------------------------------------------
    "dtype": Hostile("torch.set_default_dtype(torch.float64)", hook="", named="default dtype"),
    "no-grad": Hostile("torch.set_grad_enabled(False)", hook="on_epoch_end", named="gradient mode"),
    "flag": Hostile("torch.backends.mkldnn.enabled = False", hook="", named="mkldnn.enabled"),
    "threads": Hostile("torch.set_num_threads(3)", named="torch's threads"),
    "place": Hostile(
        "os.chdir('/')\nos.environ['NLBENCH_DATA'] = '/nowhere'",
        named="environment variables|working directory",
    ),
    "recursion": Hostile("sys.setrecursionlimit(300)", hook="on_epoch_end", named="recursion"),
    "ignores-sigterm": Hostile(
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)", named="handlers of signals"
    ),
    # ---- Is untidy -------------------------------------------------------------------------------
    "seeds": Hostile("torch.manual_seed(0)\nnp.random.seed(0)"),
    "thread": Hostile("threading.Thread(target=time.sleep, args=(300,)).start()"),
    "at-exit": Hostile("import atexit\natexit.register(os._exit, 0)"),
}


def write(folder, names=tuple(METHODS)):
    """Write the files of these methods into `folder`, and return it."""
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / f"{name.replace('-', '_')}.py").write_text(METHODS[name].source())
    return folder


def rows(honest, names=tuple(METHODS)):
    """Return suite rows: the hostile methods, with the honest ones spread between them."""
    found = {}
    share = -(-len(names) // max(1, len(honest) - 1))
    for i, name in enumerate(honest):
        found[name] = {}
        found |= {hostile: {} for hostile in names[i * share : (i + 1) * share]}
    return found
