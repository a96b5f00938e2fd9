"""Find what a method's file changes for the whole process: switches of torch, seeds, environment.

Read from the sources. A switch that is set to the value that it has already changes nothing here,
and yet something on another machine.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

# Functions that change the process -> what to do in their place.
_PROTOCOL = "leave it out: precision, threads and determinism belong to the protocol"
_SEEDS = "draw from run.generator(name), which belongs to the run's seed, the name and the epoch"
_ENVIRONMENT = "leave it out: the environment belongs to all runs; a value is a hyperparameter"
_ELSEWHERE = "leave it out: all runs of the process share it"
_CALLS = {
    "torch.set_default_dtype": _PROTOCOL,
    "torch.set_default_device": _PROTOCOL,
    "torch.set_default_tensor_type": _PROTOCOL,
    "torch.set_num_threads": _PROTOCOL,
    "torch.set_num_interop_threads": _PROTOCOL,
    "torch.use_deterministic_algorithms": _PROTOCOL,
    "torch.set_deterministic_debug_mode": _PROTOCOL,
    "torch.set_float32_matmul_precision": _PROTOCOL,
    "torch.set_flush_denormal": _PROTOCOL,
    "torch.autograd.set_detect_anomaly": _ELSEWHERE,
    "torch.cuda.set_device": _PROTOCOL,
    "torch.set_grad_enabled": "write `with torch.set_grad_enabled(...):`, which ends by itself",
    "torch.manual_seed": _SEEDS,
    "torch.seed": _SEEDS,
    "torch.random.manual_seed": _SEEDS,
    "torch.random.seed": _SEEDS,
    "torch.set_rng_state": _SEEDS,
    "torch.random.set_rng_state": _SEEDS,
    "torch.default_generator.manual_seed": _SEEDS,
    "torch.cuda.manual_seed": _SEEDS,
    "torch.cuda.manual_seed_all": _SEEDS,
    "numpy.random.seed": _SEEDS,
    "numpy.random.set_state": _SEEDS,
    "random.seed": _SEEDS,
    "random.setstate": _SEEDS,
    "numpy.seterr": "write `with np.errstate(...):`, which ends by itself",
    "os.putenv": _ENVIRONMENT,
    "os.unsetenv": _ENVIRONMENT,
    "os.environ.update": _ENVIRONMENT,
    "os.environ.setdefault": _ENVIRONMENT,
    "os.environ.pop": _ENVIRONMENT,
    "os.environ.clear": _ENVIRONMENT,
    "os.chdir": _ELSEWHERE,
    "os.umask": _ELSEWHERE,
    "os.nice": _ELSEWHERE,
    "sys.setrecursionlimit": _ELSEWHERE,
    "signal.signal": _ELSEWHERE,
    "signal.alarm": _ELSEWHERE,
    "locale.setlocale": _ELSEWHERE,
    "multiprocessing.set_start_method": _ELSEWHERE,
    "torch.multiprocessing.set_start_method": _ELSEWHERE,
    "torch.multiprocessing.set_sharing_strategy": _ELSEWHERE,
}
# All functions of these modules are switches.
_MODULES = {"torch.backends": _PROTOCOL}
# Within these blocks seeds are put back.
_FORKS = {"torch.random.fork_rng"}


def switches(path: Path) -> Iterator[tuple[str, str]]:
    """Yield ("FILE:LINE: code", the likely fix) of each change of the process in a file."""
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    reader = _Reader()
    reader.visit(ast.parse(text))
    for number, fix in sorted(reader.found.items()):
        yield f"{path.name}:{number}: {lines[number - 1].strip()}", fix


class _Reader(ast.NodeVisitor):
    """Collects the lines of a file that change the process.

    Attributes:
        found: number of a line -> the likely fix.
    """

    def __init__(self) -> None:
        self.found: dict[int, str] = {}
        # A name of the file -> the full name that it was imported as.
        self._imported: dict[str, str] = {}
        self._in_fork = 0

    # ---- Names ---------------------------------------------------------------------------------

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            full = alias.name if alias.asname else alias.name.partition(".")[0]
            self._imported[alias.asname or full] = full

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        # What comes from the folder of the method is its own.
        if node.level or node.module is None or node.module.startswith("_"):
            return
        for alias in node.names:
            self._imported[alias.asname or alias.name] = f"{node.module}.{alias.name}"

    def _name(self, node: ast.AST) -> str:
        """Return the full dotted name of an expression, or "" if it is not that of an import."""
        if isinstance(node, ast.Name):
            return self._imported.get(node.id, "")
        if isinstance(node, ast.Attribute):
            owner = self._name(node.value)
            return f"{owner}.{node.attr}" if owner else ""
        return ""

    # ---- Changes -------------------------------------------------------------------------------

    def visit_With(self, node: ast.With) -> None:
        # A switch that is a context manager puts back what it changes.
        forks = False
        for item in node.items:
            value = item.context_expr
            called = value.func if isinstance(value, ast.Call) else value
            forks = forks or self._name(called) in _FORKS
            for argument in getattr(value, "args", []):
                self.visit(argument)
        self._in_fork += forks
        for statement in node.body:
            self.visit(statement)
        self._in_fork -= forks

    def visit_Call(self, node: ast.Call) -> None:
        name = self._name(node.func)
        fix = _CALLS.get(name, "")
        for module, its_fix in _MODULES.items():
            if name.startswith(f"{module}."):
                fix = its_fix
        if fix and not (fix is _SEEDS and self._in_fork):
            self.found.setdefault(node.lineno, fix)
        sets = isinstance(node.func, ast.Name) and node.func.id in ("setattr", "delattr")
        if sets and node.args and self._name(node.args[0]):
            self.found.setdefault(node.lineno, self._fix_for_place(self._name(node.args[0])))
        self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        for target in node.targets:
            self._look_at_target(target)
            # A further name of something that was imported.
            if isinstance(target, ast.Name) and (name := self._name(node.value)):
                self._imported[target.id] = name
        self.generic_visit(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self._look_at_target(node.target)
        self.generic_visit(node)

    def visit_Delete(self, node: ast.Delete) -> None:
        for target in node.targets:
            self._look_at_target(target)

    def _look_at_target(self, target: ast.AST) -> None:
        """Note an assignment to a part of something that was imported."""
        if isinstance(target, ast.Tuple | ast.List):
            for part in target.elts:
                self._look_at_target(part)
        elif isinstance(target, ast.Attribute | ast.Subscript):
            owner = target.value
            while isinstance(owner, ast.Subscript):
                owner = owner.value
            if name := self._name(owner):
                self.found.setdefault(target.lineno, self._fix_for_place(name))

    def _fix_for_place(self, name: str) -> str:
        if name.startswith("os.environ"):
            return _ENVIRONMENT
        if name.startswith("torch.backends"):
            return _PROTOCOL
        return f"do not change {name}, which all runs use: define what differs in your own class"
