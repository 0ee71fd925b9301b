"""The command line: global options, the verb, errors and exit codes.

argparse, because it starts in 92-99 ms of CPU where cyclopts took 150, and people and scripts call `status` often.
"""

from __future__ import annotations

import argparse
import errno
import importlib
import os
import sys
from collections.abc import Sequence

from sedmad import __version__
from sedmad.cli.report import EXIT_INTERRUPTED, EXIT_USAGE, error_document, exit_code_table, print_error
from sedmad.cli.terminal import messages
from sedmad.cli.verbs import GROUPS, VERBS
from sedmad.errors import DiskFull, LocalError, SedmadError

DESCRIPTION = """One active memory out of the machines you already have: matrices are stored once
and multiplied where they lie."""
# The machine's faults, not ours: no traceback.
DISK_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    for name in ("stdout", "stderr"):
        # Whoever closed it, as `>&-` does, wants to hear nothing.
        stream = getattr(sys, name) or open(os.devnull, "w")  # noqa: SIM115 - open until the end
        setattr(sys, name, stream)
        # A terminal without UTF-8 shows a name with escapes rather than a traceback.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    as_json = False
    try:
        parsed = parse(sys.argv[1:] if arguments is None else arguments)
        as_json = parsed.json
        code: int = parsed.run(parsed)
        sys.stdout.flush()
        return code
    except SedmadError as error:
        return _report(error, as_json)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # `sedmad ls | head`: whoever read has seen enough.
        _abandon_stdout()
        return 0
    except Exception as error:
        if isinstance(error, OSError) and error.errno in DISK_ERRNOS:
            # Most places have errors of their own for this; what is left is `sedmad ls > file` and the like.
            _abandon_stdout()
            return _report(_disk_full(error), as_json)
        import traceback

        traceback.print_exc()
        return _report(LocalError("something went wrong that should not", why=repr(error)[:500]), as_json)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Return what the verb takes, with `run` (what it does), `home` and `json`. Exits with 2 where it is wrong."""
    top = _top_parser()
    first = top.parse_args(arguments)
    if first.verb is None:
        top.print_help(sys.stderr)
        top.exit(EXIT_USAGE)
    if first.verb not in VERBS:
        top.error(f"there is no verb {first.verb!r}{_nearest(first.verb)}; see sedmad --help")
    module = importlib.import_module(f"sedmad.cli.verbs.{first.verb.replace('-', '_')}")
    parser = argparse.ArgumentParser(
        prog=f"sedmad {first.verb}",
        description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    module.configure(parser)
    _add_global_options(parser)
    parser.set_defaults(home=first.home, json=first.json, run=module.run)
    rest = list(first.rest)
    if arguments[: len(arguments) - len(rest)][-1:] == ["--"]:
        # argparse took it away with the verb; a name like -w needs it.
        rest.insert(0, "--")
    return parser.parse_args(rest)


def _top_parser() -> argparse.ArgumentParser:
    lines = []
    for heading, verbs in GROUPS.items():
        lines += ["", f"{heading}:", *(f"  {verb:<9} {summary}" for verb, summary in verbs.items())]
    parser = argparse.ArgumentParser(
        prog="sedmad",
        usage="sedmad [--home DIR] [--json] VERB ...",
        description="\n".join([DESCRIPTION, *lines, "", "sedmad VERB --help tells more."]),
        epilog=f"exit codes:\n{exit_code_table()}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    _add_global_options(parser)
    parser.add_argument("--version", action="version", version=f"sedmad {__version__}")
    parser.add_argument("verb", nargs="?", help=argparse.SUPPRESS)
    parser.add_argument("rest", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return parser


def _add_global_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--home",
        metavar="DIR",
        help="the folder of this node's state (default: $SEDMAD_HOME, else the user's own)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of tables")


def _nearest(verb: str) -> str:
    import difflib

    near = difflib.get_close_matches(verb, VERBS, n=1)
    return f", did you mean {near[0]}?" if near else ""


def _abandon_stdout() -> None:
    """Write nothing more there. Python would try again, and complain, while it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _disk_full(error: OSError) -> DiskFull:
    what = error.filename or "a file, or the output,"
    hint = "Free some space, or choose another place."
    return DiskFull(f"{what} could not be written", why=error.strerror or str(error), hint=hint)


def _report(error: SedmadError, as_json: bool) -> int:
    sys.stdout.flush()
    if as_json:
        import json

        print(json.dumps(error_document(error)), file=sys.stderr)
    else:
        print_error(messages(), error)
    return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
