"""All checks side by side: one that fails, or never ends, keeps none of the others from its verdict."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

import trio

from sedmad.errors import SedmadError
from sedmad.home import Home
from sedmad.node.checks import engine, identity, mesh, network, settings, storage
from sedmad.node.checks.daemon import AskStatus
from sedmad.node.checks.subject import Subject
from sedmad.node.checks.verdict import Finding, Grade, Verdict, fail
from sedmad.node.log import configure_log

# Ten seconds with the start and the end of the process; finding out about the network takes six.
WITHIN_S = 8.5

_LOG = "Look at the log of the daemon, and at that of the system: the disk may be failing."

Check = Callable[[Subject], Awaitable[Finding]]
# In the order in which they are shown.
CHECKS: Mapping[str, Check] = {
    "configuration": settings.check_configuration,
    "identity-permissions": identity.check_identity,
    "store-integrity": storage.check_integrity,
    "store-free-space": storage.check_free_space,
    "engine-self-test": engine.check_engine,
    "clock-skew": mesh.check_clock,
    "version-skew": mesh.check_versions,
    "reachability": network.check_reachability,
    "relay": network.check_relay,
}


def examine_node(home: Home, environ: Mapping[str, str], ask_status: AskStatus) -> list[Verdict]:
    """Return the verdicts of all checks, after WITHIN_S at the latest.

    Args:
        home: the node's.
        environ: settings of the process.
        ask_status: asks the daemon.
    """
    # What checks find is their verdict.
    configure_log("error")
    return trio.run(examine, Subject(home, environ, ask_status), CHECKS, WITHIN_S)


async def examine(subject: Subject, checks: Mapping[str, Check], within_s: float) -> list[Verdict]:
    """Return the verdicts of some checks, in their order."""
    silent = fail(
        "no answer in time", "Try again; if it stays so, look at the load of this machine's disk and network."
    )
    found = dict.fromkeys(checks, silent)

    async def run(name: str, check: Check) -> None:
        try:
            found[name] = await check(subject)
        except SedmadError as error:
            found[name] = fail(": ".join(filter(None, (error.what, error.why))), error.hint or _LOG)
        except OSError as error:
            found[name] = fail(str(error), _LOG)

    with trio.move_on_after(within_s):
        async with trio.open_nursery() as nursery:
            for name, check in checks.items():
                nursery.start_soon(run, name, check)
    return [
        Verdict(name, finding.grade, _line(finding.text), _line(finding.fix), finding.needs_daemon)
        for name, finding in found.items()
    ]


def is_healthy(verdicts: list[Verdict]) -> bool:
    """Return whether nothing failed."""
    return all(verdict.grade is not Grade.FAIL for verdict in verdicts)


def _line(text: str) -> str:
    """Return a text in one line."""
    return " ".join(text.split())
