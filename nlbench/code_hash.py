"""Hash the code that a record's numbers depend on. Comments, docstrings and layout do not count.

The folders below are the list: a new file in `training/` or `data/noise/` counts by lying there.
Everything here is read from the sources, without importing them and without torch.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import io
import sys
import tokenize
from collections.abc import Iterable, Iterator
from pathlib import Path

from nlbench import models

_PACKAGE = Path(__file__).parent

# What a run computes with, whatever its method, model and data are.
HARNESS = (
    "training/*.py",
    "data/noise/matrix_files.py",
    "data/noise/measure.py",
    "data/decode.py",
    "data/jpeg.py",
    "data/formats/numpy_files.py",
    "data/formats/text_table.py",
    "data/pixels.py",
    "data/stratified.py",
    "plan/schedules.py",
    # It computes a record's metrics from those of the epochs.
    "results/summary.py",
    "build.py",
    "contract/returned.py",
    "method.py",
    "streams.py",
)

# What a run with noise computes with, besides. Label sets are part of the data's fingerprint.
OF_NOISE = (
    "data/noise/*.py",
    # They decide which label of a file belongs to which image.
    "data/formats/columns.py",
    "data/formats/split_column.py",
)

# Changes of these files that move no number: the `tokens_hash` of a file as it is, and that of the
# older file that it counts as, so that no record becomes stale. Whoever adds a line trains runs
# before and after the change, and says in CHANGELOG.md which ones were equal bit for bit. A line
# goes when its file changes again.
UNMOVED = {
    # training/held.py: a resume within an epoch whose images are augmented.
    "4d65eadb48afc451d49491003eb9ca3303f27c4809f58833b0528f8467311c32": (
        "ce89067a8dd57548b4c5b6d03fa7a352387bbfad8529286dceedff09d914849c"
    ),
}


def code_hash(method_file: Path | None, model: str, dataset: str, noise: str = "") -> str:
    """Hash the code that a run of this method, model and data computes with, as 16 hex digits.

    Args:
        method_file: None for a helper network, which no method's code trains.
        model: as a protocol names it. torchvision's and timm's share one file.
        dataset: as a run's identity names it.
        noise: the kind of the run's noise; empty where none is drawn.

    Raises: SuiteError for an unknown model.
    """
    digest = hashlib.sha256(kernels_hash().encode())
    for path in hashed_files(method_file, model, dataset, noise):
        digest.update(file_hash(path))
    return digest.hexdigest()[:16]


def hashed_files(method_file: Path | None, model: str, dataset: str, noise: str = "") -> list[Path]:
    """List the files that `code_hash` reads. See there for the arguments."""
    files: list[Path] = []
    for pattern in (*HARNESS, *(OF_NOISE if noise else ())):
        files += [path for path in sorted(_PACKAGE.glob(pattern)) if path not in files]
    files.append(models.model_file(model) or _PACKAGE / "models" / "_external.py")

    # The fingerprint in a run's key covers data from files, however they are read. Data that code
    # draws for each seed has the fingerprint of one draw, so that its code counts as well.
    name, unequal, _ = dataset.partition("@")
    dataset_file = _PACKAGE / "data" / "datasets" / f"{name}.py"
    if dataset_file.is_file() and _is_redrawn(dataset_file):
        files.append(dataset_file)
    # Of a dataset with an imbalance, as "digits@exp-0.1", this chooses the examples.
    if unequal:
        files.append(_PACKAGE / "data" / "imbalance.py")

    files += _noise_files(noise)
    if method_file is not None:
        files += [method_file, *_helpers_of(method_file)]
    return [*files, *_used_ops(files)]


def _noise_files(kind: str) -> list[Path]:
    """List the file of a kind of noise that has one, and what such files share; else nothing."""
    folder = _PACKAGE / "data" / "noise" / "more"
    own = folder / f"{kind.replace('-', '_')}.py"
    if not kind or own.name.startswith("_") or not own.is_file():
        return []
    return [*sorted(folder.glob("_[!_]*.py")), own]


def remember_loaded() -> None:
    """Hash those files that count for every run and are imported in this process.

    Processes that are forked afterwards run what is imported here, and need not hash it again. A
    file that they import themselves may have changed by then, so it is not remembered.
    """
    files = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
    for pattern in (*HARNESS, *OF_NOISE, "ops/*.py"):
        for path in _PACKAGE.glob(pattern):
            if str(path) in files:
                file_hash(path)
                _imported_names(path)


def kernels_hash() -> str:
    """Return the hash of the sources that the compiled extension was built from, or ""."""
    try:
        from nlbench import _core
    except ImportError:
        return ""
    return str(_core.source_hash)


@functools.cache
def file_hash(path: Path) -> bytes:
    """Return what a file counts as in `code_hash`. It is read once in a process."""
    own = tokens_hash(path)
    return bytes.fromhex(UNMOVED.get(own, own))


def tokens_hash(path: Path) -> str:
    """Hash the tokens of a file, as 64 hex digits."""
    return hashlib.sha256("\0".join(code_tokens(path)).encode()).hexdigest()


def code_tokens(path: Path) -> tuple[str, ...]:
    """Return what a file says to Python, token by token.

    Line breaks and indentation stay as bare markers, since they are part of the program. Comments,
    blank lines, the wrapping of lines, the width of an indentation, and statements that are nothing
    but a string, as docstrings are, do not appear.
    """
    kept: list[str] = []
    statement: list[tokenize.TokenInfo] = []

    for token in _whole_strings(path.read_text(encoding="utf-8")):
        if token.type in (tokenize.COMMENT, tokenize.NL, tokenize.ENDMARKER):
            continue
        if token.type in (tokenize.INDENT, tokenize.DEDENT):
            kept.append(tokenize.tok_name[token.type])
        elif token.type == tokenize.NEWLINE:
            if not all(_is_plain_string(part) for part in statement):
                kept += [*(part.string for part in statement), "NEWLINE"]
            statement = []
        else:
            statement.append(token)

    return tuple(kept)


def _whole_strings(text: str) -> Iterator[tokenize.TokenInfo]:
    """Yield a file's tokens, each f-string as one, as Python did before 3.12.

    A record is compared with the code of whatever Python reads it, so that the tokens must not
    depend on Python's version.
    """
    lines = list(io.StringIO(text))
    depth, start = 0, (0, 0)

    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        kind = tokenize.tok_name[token.type]
        if kind.endswith("STRING_START"):
            if depth == 0:
                start = token.start
            depth += 1
        elif kind.endswith("STRING_END"):
            depth -= 1
            if depth == 0:
                source = _between(lines, start, token.end)
                yield tokenize.TokenInfo(tokenize.STRING, source, start, token.end, token.line)
        elif depth == 0:
            yield token


def _between(lines: list[str], start: tuple[int, int], end: tuple[int, int]) -> str:
    """Return the source text between two positions, (line from 1, column from 0)."""
    part = lines[start[0] - 1 : end[0]]
    part[-1] = part[-1][: end[1]]
    part[0] = part[0][start[1] :]
    return "".join(part)


def _is_plain_string(token: tokenize.TokenInfo) -> bool:
    """Tell whether a token is a string without values in it, which as a statement does nothing."""
    prefix = token.string.partition(token.string[-1])[0].lower()
    return token.type == tokenize.STRING and not {"f", "t"} & set(prefix)


def _used_ops(files: Iterable[Path]) -> list[Path]:
    """List the files of `ops` that `files` import, directly or through another file of `ops`.

    `nlbench.ops` itself brings the kernels. A module that it does not import, such as `mixmatch`,
    counts for those methods only that import it.
    """
    found: dict[Path, None] = {}
    waiting = list(files)
    while waiting:
        for name in sorted(_imported_names(waiting.pop())):
            path = _ops_file(name)
            if path is not None and path not in found:
                found[path] = None
                waiting.append(path)
    return sorted(found)


def _helpers_of(method_file: Path) -> list[Path]:
    """List the files that a method imports from its own folder, directly or through another.

    Of the shipped ones only those do that are built around other methods, such as `sam`.
    """
    found: dict[Path, None] = {}
    waiting = [method_file]
    while waiting:
        for path in sorted(_imported_beside(waiting.pop())):
            if path != method_file and path not in found:
                found[path] = None
                waiting.append(path)
    return sorted(found)


def _imported_beside(path: Path) -> set[Path]:
    """Return the files that a file imports from its own folder or package.

    A file that cannot be read imports nothing: its error is shown when it is loaded.
    """
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, ValueError, OSError, RecursionError, MemoryError):
        return set()

    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            # `from . import _helper` names the file behind the import.
            module = node.module or ""
            names = [module, *(f"{module}.{alias.name}".strip(".") for alias in node.names)]
        else:
            continue

        level = getattr(node, "level", 0)
        for name in filter(None, names):
            parts = name.split(".")
            folder = path.parents[level - 1] if level else path.parent
            # An absolute name begins with the package that the file is in, or lies beside it.
            if not level and parts[0] == folder.name:
                folder = folder.parent
            place = folder.joinpath(*parts)
            found |= {place.with_suffix(".py"), place / "__init__.py"}
    return {place for place in found if place.is_file()}


def _ops_file(name: str) -> Path | None:
    """Return the file of the module `nlbench.ops` or of one in it; None for any other name."""
    if name != "nlbench.ops" and not name.startswith("nlbench.ops."):
        return None
    stem = name.removeprefix("nlbench.ops").removeprefix(".") or "__init__"
    path = _PACKAGE / "ops" / f"{stem}.py"
    return path if path.is_file() else None


@functools.cache
def _imported_names(path: Path) -> frozenset[str]:
    """Return the modules that a file imports, the names from them, and what it reads from `ops`.

    A file that does not mention `ops` has none, because only modules of `ops` are looked for.
    """
    text = path.read_text(encoding="utf-8")
    # Most files do not, and parsing takes as long as all else here.
    if "ops" not in text:
        return frozenset()

    names: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id == "ops"
        ):
            names.add(f"nlbench.ops.{node.attr}")
    return frozenset(names)


@functools.cache
def _is_redrawn(dataset_file: Path) -> bool:
    """Tell whether a dataset says of itself that it is drawn anew for each seed."""
    for node in ast.walk(ast.parse(dataset_file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.keyword) and node.arg == "redrawn":
            return isinstance(node.value, ast.Constant) and node.value.value is True
    return False
