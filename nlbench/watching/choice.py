"""Which loggers a user names, and whether their packages are there."""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from nlbench.errors import UserError, did_you_mean, shown
from nlbench.watching.apart import Apart
from nlbench.watching.base import Logger
from nlbench.watching.channel import Channel

_CALLS = ("begin", "epoch", "ended", "close")


@dataclass(frozen=True)
class Choice:
    """A logger that a user names.

    Attributes:
        name: of a module of `nlbench.watching.loggers`, or the path of a Python file.
        value: what the logger is told: a folder, a project, an address; empty for its default.
    """

    name: str
    value: str = ""

    @property
    def is_file(self) -> bool:
        """Return whether the logger is a file of the user's own."""
        return self.name.endswith(".py")


def names() -> list[str]:
    """Return the names of the loggers that come with nlbench."""
    # The folder is the list, so a new file needs no entry elsewhere.
    folder = Path(__file__).parent / "loggers"
    return sorted(path.stem for path in folder.glob("[!_]*.py"))


def parse(text: str) -> Choice:
    """Return the logger that "tensorboard", "wandb:PROJECT" or "my_logger.py" names.

    Raises: UserError for a name that is no logger, for a file that is not there, and for a package
        that is not installed.
    """
    name, _, value = text.partition(":")
    choice = Choice(name, value)
    if choice.is_file:
        if not Path(name).is_file():
            raise UserError(f"the logger {name}: there is no such file")
        return choice

    if name not in names():
        hint = did_you_mean(name, names())
        raise UserError(
            f"the logger {shown(name)}: there is none of this name. There are: "
            f"{', '.join(names())}, and files of your own, such as my_logger.py.{hint}"
        )
    package = importlib.import_module(f"nlbench.watching.loggers.{name}").PACKAGE
    if importlib.util.find_spec(package) is None:
        raise UserError(
            f"the logger {name} needs the package {package}, which is not installed: "
            f"pip install 'nlbench[{name}]'"
        )
    return choice


def channel_of(logger: str | Logger, out: Path) -> Channel:
    """Return the way to a logger: by name in a process of its own, or an object in this one.

    Raises: UserError as `parse`; TypeError for an object that lacks a method of Logger.
    """
    if isinstance(logger, str):
        choice = parse(logger)
        apart = Apart(choice.name, choice.value, out)
        return Channel(choice.name, apart.started, apart.kill)

    lacking = [call for call in _CALLS if not callable(getattr(logger, call, None))]
    if isinstance(logger, type) or lacking:
        what = "is a class, and not an object of it" if isinstance(logger, type) else ""
        raise TypeError(
            "loggers: each must be a text such as 'tensorboard', or an object with the methods "
            f"{', '.join(_CALLS)}; {shown(logger)} {what or 'lacks ' + ', '.join(lacking)}"
        )
    return Channel(type(logger).__name__, lambda: logger)


def load(name: str) -> ModuleType:
    """Return the module of a logger: one of nlbench's, or a file.

    Raises: UserError for a file that cannot be imported or has no function `open_logger`.
    """
    if not name.endswith(".py"):
        return importlib.import_module(f"nlbench.watching.loggers.{name}")
    spec = importlib.util.spec_from_file_location("nlbench_user_logger", name)
    if spec is None or spec.loader is None:
        raise UserError(f"the logger {name}: Python cannot read it as a module")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise UserError(
            f"the logger {name}: it cannot be imported: {type(error).__name__}: {error}"
        ) from None
    if not callable(getattr(module, "open_logger", None)):
        raise UserError(
            f"the logger {name}: it has no function open_logger(value, out) that returns the logger"
        )
    return module
