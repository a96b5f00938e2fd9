"""List every change of a store, and send a signal just before chosen ones.

Python imports this module at its start where this folder is on PYTHONPATH, so the command under
test stays as it is. An audit hook is called before files are opened, renamed and removed. What
concerns the folder NLBENCH_FAULT_STORE is appended to a file, and NLBENCH_FAULT_TRIGGERS says
before which changes a process gets a signal, see `fault_kinds.Fault.trigger`.
"""

import contextlib
import json
import os
import sys
import time

# Which arguments of an event are the paths that it changes.
_PATHS = {"os.rename": (0, 1), "os.remove": (0,), "os.mkdir": (0,), "os.rmdir": (0,), "open": (0,)}
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class _Watch:
    """The audit hook of one process, and of those that are forked from it.

    Args:
        store: the folder whose changes are listed.
        log: a folder for what the hook writes.
    """

    def __init__(self, store: str, log: str) -> None:
        self._store, self._log = store, log
        self._triggers = json.loads(os.environ.get("NLBENCH_FAULT_TRIGGERS", "[]"))
        # The first process of a call is the command. Those that it starts inherit its id.
        self._command = int(os.environ.setdefault("NLBENCH_FAULT_COMMAND", str(os.getpid())))
        self._first = os.getpid()
        self._busy = False

    def __call__(self, event: str, args: tuple) -> None:
        if event not in _PATHS or self._busy:
            return
        if event == "open" and not (isinstance(args[2], int) and args[2] & _WRITING):
            return
        paths = [args[i] for i in _PATHS[event] if isinstance(args[i], str | os.PathLike)]
        inside = [os.fspath(path) for path in paths if str(path).startswith(self._store)]
        if not inside:
            return

        # The hook opens files itself, and must not be called for them.
        self._busy = True
        try:
            self._changed(event, inside)
        finally:
            self._busy = False

    def _changed(self, event: str, paths: list[str]) -> None:
        relative = [path[len(self._store) + 1 :] for path in paths]
        kind = _kind(event, relative)
        self._signal(kind, self._append(f"count.{kind}", "."))
        self._signal("any", self._append("count.any", "."))

        role = "run" if os.getpid() != self._first else "command"
        words = [f"{time.monotonic():.3f}", str(os.getpid()), role, kind, event, *relative]
        self._append("changes", " ".join(words) + "\n")
        if event == "os.rename" and relative[-1].endswith("/.new"):
            self._note_end(paths[0], os.path.dirname(paths[1]))

    def _append(self, name: str, text: str) -> int:
        """Append to a file that all processes of the call share, and return its size."""
        handle = os.open(f"{self._log}/{name}", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.write(handle, text.encode())
            return os.fstat(handle).st_size
        finally:
            os.close(handle)

    def _signal(self, kind: str, count: int) -> None:
        for number, trigger in enumerate(self._triggers):
            due = trigger["change"] == kind and count >= trigger["count"]
            is_run = os.getpid() != self._first
            # The fork server changes nothing itself, so that only its children can tell its id.
            if not due or (trigger["to"] in ("run", "server") and not is_run):
                continue
            # Once only, whichever process comes first.
            with contextlib.suppress(FileExistsError):
                os.close(os.open(f"{self._log}/sent.{number}", os.O_CREAT | os.O_EXCL))
                targets = {"command": self._command, "server": os.getppid()}
                with contextlib.suppress(ProcessLookupError):
                    os.kill(targets.get(trigger["to"], os.getpid()), trigger["signal"])

    def _note_end(self, staged: str, folder: str) -> None:
        """Note that the record of a run is about to be in place, and whether there was one."""
        status = _status(f"{staged}/record.json")
        before = _status(f"{folder}/.new/record.json") or _status(f"{folder}/record.json")
        self._append("ends", f"{os.path.basename(folder)} {status} {before or '-'}\n")


def _kind(event: str, paths: list[str]) -> str:
    """Return what a change belongs to: record, checkpoint, helper, plan or lock."""
    name = os.path.basename(paths[-1])
    # The new files of a run lie in a temporary folder first, and then in `.new`.
    if any("/.new" in path or "/..new." in path for path in paths):
        return "record"
    if name == "checkpoint.pt" and event == "os.remove":
        return "record"
    if "checkpoint.pt" in name:
        return "checkpoint"
    if paths[-1].startswith("fits/"):
        return "helper"
    return "plan" if paths[-1].startswith("suites/") else "lock"


def _status(path: str) -> str:
    try:
        with open(path) as file:
            return json.load(file)["status"]
    except (OSError, ValueError, KeyError):
        return ""


if "NLBENCH_FAULT_STORE" in os.environ:
    sys.addaudithook(_Watch(os.environ["NLBENCH_FAULT_STORE"], os.environ["NLBENCH_FAULT_LOG"]))
