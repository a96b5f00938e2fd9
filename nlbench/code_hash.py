"""Which code a record's numbers depend on, as a hash that comments and docstrings do not change. Without torch."""

from __future__ import annotations

import ast
import functools
import hashlib
from pathlib import Path

from nlbench import models

_PACKAGE = Path(__file__).parent
_HARNESS = (
    "method.py",
    "streams.py",
    "plan/protocol.py",
    "plan/schedules.py",
    "data/decode.py",
    "data/stratified.py",
    "data/datasets/digits.py",
    "data/datasets/gaussians.py",
    "training/*.py",
    "data/noise/*.py",
)


def code_hash(method_file: Path | None, model: str) -> str:
    """16 hex digits over the harness's numeric modules, the kernels' sources, the model's file and the method's."""
    files = [path for name in _HARNESS for path in sorted(_PACKAGE.glob(name))]
    files += sorted((_PACKAGE / "ops").glob("*.py"))
    files.append(models.model_file(model) or _PACKAGE / "models" / "_external.py")
    files += [method_file] if method_file else []
    digest = hashlib.sha256(kernels_hash().encode())
    for path in files:
        digest.update(_essence(path).encode())
    return digest.hexdigest()[:16]


def kernels_hash() -> str:
    """Hash of the kernels' sources that the compiled extension was built from; empty without the extension."""
    try:
        from nlbench import _core
    except ImportError:
        return ""
    return str(_core.source_hash)


@functools.cache
def _essence(path: Path) -> str:
    """A file's lines without docstrings, comment lines and blank lines."""
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    for node in ast.walk(ast.parse(text)):
        body = getattr(node, "body", None)
        if not isinstance(body, list) or not body or not isinstance(body[0], ast.Expr):
            continue
        value = body[0].value
        if isinstance(value, ast.Constant) and isinstance(value.value, str):
            for line in range(body[0].lineno - 1, body[0].end_lineno or body[0].lineno):
                lines[line] = ""
    return "\n".join(line.rstrip() for line in lines if line.strip() and not line.lstrip().startswith("#"))
