"""Files that a node needs and may not have: those of the user's methods, and those of a suite."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from nlbench import code_hash
from nlbench.files import digest, read_regular, short_hash, write_atomic
from nlbench.plan.spec import Condition, RunSpec, Told
from nlbench.registry import MethodFile

# Returns the content of a file of the sweep's machine, by its path there.
Fetch = Callable[[str], bytes]


@dataclass(frozen=True)
class SentFiles:
    """The files of a run, as the sweep's machine has them.

    Attributes:
        sources: the method's file and the files that it imports from its folder, each with its
            content, by the path relative to the parent of that folder. Empty for a method that is
            installed.
        digests: sha256 of the files that the suite names, by path.
    """

    sources: Mapping[str, bytes]
    digests: Mapping[str, str]

    @classmethod
    def of(cls, spec: RunSpec, methods: Mapping[str, MethodFile]) -> SentFiles:
        """Read what a run needs. Raises OSError."""
        file = methods[spec.method]
        sources = {} if file.module else dict(_sources(spec, file.path))
        digests = {path: digest(Path(path), "sha256") for path in _named_files(spec)}
        return cls(sources, digests)

    def on_this_node(
        self, spec: RunSpec, methods: Mapping[str, MethodFile], scratch: Path, fetch: Fetch
    ) -> tuple[RunSpec, dict[str, MethodFile]]:
        """Return the run, and the file of its method, with paths that hold the same files here.

        A file that lies here under the same path is used, and any other is written to `scratch`.

        Raises: OSError.
        """
        file = methods[spec.method]
        if file.module:
            found = importlib.util.find_spec(file.module)
            # A package that is not installed here is an error when the code is compared.
            path = Path(found.origin) if found is not None and found.origin else file.path
        else:
            path = self._method_here(file.path, scratch)
        places = {path: self._file_here(path, scratch, fetch) for path in self.digests}
        return _with_places(spec, places), {spec.method: replace(file, path=path)}

    def _method_here(self, path: Path, scratch: Path) -> Path:
        above = path.parents[1]
        if all(_holds(above / name, content) for name, content in self.sources.items()):
            return path

        parts = []
        for name, content in sorted(self.sources.items()):
            parts += [name.encode(), content]
        copy = scratch / "methods" / short_hash(*parts)
        for name, content in self.sources.items():
            if not _holds(copy / name, content):
                _write(copy / name, content)
        return copy / path.relative_to(above)

    def _file_here(self, path: str, scratch: Path, fetch: Fetch) -> str:
        known = self.digests[path]
        copy = scratch / "files" / known[:16] / Path(path).name
        for place in (Path(path), copy):
            if place.is_file() and digest(place, "sha256") == known:
                return str(place)
        _write(copy, fetch(path))
        return str(copy)


def _sources(spec: RunSpec, path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the method's file and those that it imports from its own folder, as `SentFiles`."""
    above = path.parents[1]
    for file in code_hash.hashed_files(path, spec.protocol.model, spec.condition.dataset):
        if file.is_relative_to(path.parent):
            yield str(file.relative_to(above)), read_regular(file)
    # A folder that is a package is imported with this file.
    for package in {path.parent / "__init__.py"}:
        if package.is_file():
            yield str(package.relative_to(above)), read_regular(package)


def _named_files(spec: RunSpec) -> list[str]:
    """Return the files that a suite names for a run, other than the folder of its images."""
    paths = [spec.condition.noise_path, spec.weights_path]
    told: Sequence[Told] = [*spec.told.values(), *spec.condition.told.values()]
    paths += [value.path for value in told]
    return sorted({path for path in paths if path})


def _with_places(spec: RunSpec, places: Mapping[str, str]) -> RunSpec:
    """Return the run with other paths. Its key does not depend on them."""

    def moved(told: Mapping[str, Told]) -> dict[str, Told]:
        return {
            name: replace(value, path=places.get(value.path, "")) for name, value in told.items()
        }

    condition: Condition = replace(
        spec.condition,
        noise_path=places.get(spec.condition.noise_path, ""),
        told=moved(spec.condition.told),
    )
    weights_path = places.get(spec.weights_path, "")
    return replace(spec, condition=condition, weights_path=weights_path, told=moved(spec.told))


def _holds(path: Path, content: bytes) -> bool:
    return path.is_file() and read_regular(path) == content


def _write(path: Path, content: bytes) -> None:
    write_atomic(path, lambda file: file.write(content))
