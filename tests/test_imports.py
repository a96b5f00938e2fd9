"""Which file may import which: the arrow of the design, read from the sources."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted([*(ROOT / "nlbench").rglob("*.py"), *(ROOT / "methods").glob("*.py")])


def module_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = ("nlbench", *parts) if parts[0] == "methods" else parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in FILES}


def imported(path, *, at_import_time=False):
    """Every module a file imports, also inside functions; those under `if TYPE_CHECKING` are for the reader alone."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found, waiting = set(), list(tree.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            waiting += node.orelse
            continue
        if at_import_time and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                found.add(full if full in MODULES or full == "nlbench._core" else node.module)
        waiting += ast.iter_child_nodes(node)
    return found


GRAPH = {name: {m for m in imported(path) if m.split(".")[0] == "nlbench"} for name, path in MODULES.items()}


def group(module):
    """The layer a module belongs to: its name below nlbench, a package counting as one."""
    return [*module.split("."), ""][1]


def test_the_graph_is_read():
    assert "nlbench.training.train" in GRAPH["nlbench.executors.local"]
    assert "nlbench.ops" in GRAPH["nlbench.methods.elr"]
    assert len(GRAPH) > 40


# What each wing or leaf may import of ours, from the top of the staircase down.
LEAVES = {"errors", "files", "streams"}
NAMES = {"registry", "build", "models"}
MAY = {
    # nlbench/__init__.py imports nothing until it is asked.
    "": set(),
    "cli": {"api", "ops", "executors", "conformance", "bench", "results", "plan", "data", "hardware"} | NAMES | LEAVES,
    "api": {"executors", "results", "plan", "data", "hardware"} | NAMES | LEAVES,
    "executors": {"training", "results", "plan", "data", "hardware", "code_hash"} | NAMES | LEAVES,
    "conformance": {"training", "results", "plan", "data", "method"} | NAMES | LEAVES,
    "bench": {"results", "hardware", "ops"} | LEAVES,
    "training": {"results", "plan", "data", "method", "hardware", "code_hash", "ops"} | NAMES | LEAVES,
    "results": {"plan", "registry", "code_hash"} | LEAVES,
    "plan": {"data"} | NAMES | LEAVES,
    "data": {"hardware"} | LEAVES,
    "build": {"method", "registry"} | LEAVES,
    "registry": {"method", "errors"},
    "code_hash": {"models", "_core"},
    "method": {"data", "streams"},
    "models": {"errors"},
    "ops": {"_core"},
    "hardware": set(),
    "streams": set(),
    "files": set(),
    "errors": set(),
    "methods": {"method", "ops"},
}


@pytest.mark.parametrize("module", sorted(GRAPH))
def test_imports_point_down(module):
    own = group(module)
    assert own in MAY, f"nlbench/{own} is new: say in this test what it may import"
    too_much = sorted(m for m in GRAPH[module] if group(m) not in MAY[own] | {own})
    assert not too_much, f"{module} must not import {too_much}"


def test_nothing_imports_the_command_line():
    assert [module for module, used in GRAPH.items() if "cli" in map(group, used) and group(module) != "cli"] == []


def test_the_layers_of_a_run_have_no_circle():
    """Over whole wings: cli -> api -> executors -> training -> results -> plan -> data -> method -> ops."""
    order = ["cli", "api", "executors", "training", "results", "plan", "ops", "_core"]
    rank = {name: i for i, name in enumerate(order)}
    for module, used in GRAPH.items():
        for other in used:
            if group(module) in rank and group(other) in rank and group(module) != group(other):
                assert rank[group(module)] < rank[group(other)], f"{module} imports {other}"


METHOD_FILES = sorted((ROOT / "methods").glob("*.py"))


@pytest.mark.parametrize("path", METHOD_FILES, ids=lambda p: p.stem)
def test_a_method_file_imports_little(path):
    for module in imported(path):
        top = module.split(".")[0]
        if top == "nlbench":
            assert group(module) in ("method", "ops"), f"{path.name} imports {module}"
        else:
            known = {"torch", "numpy", "sklearn", *sys.stdlib_module_names}
            assert top in known, f"{path.name} imports {module}"


@pytest.mark.parametrize(
    "module",
    [
        "cli.app",
        "registry",
        "plan.protocol",
        "plan.problems",
        "plan.expand",
        "api",
        "results.store",
        "results.table",
        "results.agreement",
    ],
)
def test_what_lists_and_tables_need_does_without_torch(module):
    """Followed through everything that is imported when the module is."""
    waiting, seen = [f"nlbench.{module}"], set()
    while waiting:
        name = waiting.pop()
        seen.add(name)
        used = imported(MODULES[name], at_import_time=True)
        assert not {m for m in used if m.split(".")[0] in ("torch", "torchvision", "timm")}, name
        waiting += [m for m in used if m in MODULES and m not in seen]
