"""How a command ends badly: what failed, why and what to try, on stderr, and an exit code."""

from __future__ import annotations

import os

from sedmad.cli.terminal import Terminal, printable
from sedmad.errors import SedmadError

EXIT_USAGE = 2
EXIT_INTERRUPTED = 130

# The one table: `sedmad --help` prints it. Numbers from 64 on are those of sysexits.h.
EXIT_CODES = {
    0: "done",
    1: "failed for another reason than those below",
    EXIT_USAGE: "the command line is wrong",
    os.EX_DATAERR: "the data or the request is not what it should be: a shape, a dtype, a file, a token",
    os.EX_NOINPUT: "there is no such matrix",
    os.EX_UNAVAILABLE: "what is needed is not there: the daemon, a node, room",
    os.EX_SOFTWARE: "a bug in sedmad",
    os.EX_CANTCREAT: "the name, or the home, is taken",
    os.EX_IOERR: "reading or writing failed: a full disk, damaged bytes",
    os.EX_TEMPFAIL: "the same command may succeed later: a deadline passed, a connection broke",
    os.EX_PROTOCOL: "the other side broke the protocol, or verify found faults",
    os.EX_NOPERM: "not permitted",
    os.EX_CONFIG: "the configuration is wrong, or the home has no mesh yet",
    EXIT_INTERRUPTED: "interrupted",
}


def print_error(terminal: Terminal, error: SedmadError) -> None:
    """Print what failed, why, and what to try."""
    # Long whys, as the arithmetic of a placement, have lines of their own.
    for label, colour, text in (
        ("sedmad:", "red", error.what),
        ("why:", "dim", error.why),
        ("try:", "dim", error.hint),
    ):
        if text:
            lines = [printable(line) for line in text.splitlines()]
            indent = "\n" + " " * (len(label) + 1)
            terminal.print(f"{terminal.paint(label, colour)} {indent.join(lines)}")


def error_document(error: SedmadError) -> dict[str, object]:
    """Return what --json prints of an error, on stderr: stdout holds results only.

    `reason` is the stable name of what happened; `code` is one of google.rpc.Code; empty texts are "".
    """
    return {
        "error": {
            "reason": error.reason,
            "code": error.code,
            "message": error.what,
            "why": error.why,
            "hint": error.hint,
            "node": error.node,
            "matrix": error.matrix,
            "retry_after_s": error.retry_after_s,
            "exit_code": error.exit_code,
        }
    }


def exit_code_table() -> str:
    """Return the lines of the table."""
    return "\n".join(f"  {code:>3}  {meaning}" for code, meaning in EXIT_CODES.items())
