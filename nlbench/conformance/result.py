"""The result of one check, as the command prints it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "FAIL", "skipped"]


@dataclass(frozen=True)
class Result:
    """The result of one check.

    Attributes:
        name: the check's name, as `--only` takes it.
        claim: what the check demands of a method.
        message: of a failure what was seen and the likely fix, of a skipped check the reason;
            a check that is ok may add a remark.
    """

    name: str
    claim: str
    status: Status
    message: str = ""

    def lines(self) -> list[str]:
        """Return the lines that the command prints: one, and for a failure its message below."""
        head = f"{self.status:<8} {self.name:<15} "
        if self.status == "skipped":
            return [head + self.message]
        if self.status == "ok" and self.message:
            return [f"{head}{self.claim}; {self.message}"]

        below = [f"         {line}".rstrip() for line in self.message.splitlines()]
        return [head + self.claim, *below]
