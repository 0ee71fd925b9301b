"""What a check says."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Grade(StrEnum):
    """`warn`: it works, and will not for long or not as well as it could. `fail`: something is broken."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Verdict:
    """One check's result.

    Attributes:
        check: its name.
        grade: how bad it is.
        finding: what was found, in one line.
        fix: what to do, in one line; empty where nothing is to be done.
        needs_daemon: it could not be made, or not whole, since no daemon runs.
    """

    check: str
    grade: Grade
    finding: str
    fix: str = ""
    needs_daemon: bool = False


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check's function returns: a verdict without the name."""

    grade: Grade
    text: str
    fix: str = ""
    needs_daemon: bool = False


def ok(text: str) -> Finding:
    """Return that all is well."""
    return Finding(Grade.OK, text)


def warn(text: str, fix: str) -> Finding:
    """Return that somebody should do something."""
    return Finding(Grade.WARN, text, fix)


def fail(text: str, fix: str) -> Finding:
    """Return that something is broken."""
    return Finding(Grade.FAIL, text, fix)


def not_checked(why: str) -> Finding:
    """Return that only a daemon could tell, and none does."""
    return Finding(
        Grade.WARN, f"not checked: {why}", "Start the daemon with: sedmad start", needs_daemon=True
    )
