"""Places where a daemon can be made to die, as a power cut of its process would have it: between what it writes and
what it says. Tests sweep them; nobody else sets them.

    SEDMAD_FAIL_POINT=committing.manifest_stored      dies when it gets there
    SEDMAD_FAIL_POINT=holding.fetched:3               dies the third time

Owns the list of points and what happens there. Each is reached in exactly one place of the source, and does nothing
unless it was armed when the daemon started.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping

from sedmad.errors import ConfigurationInvalid

VARIABLE = "SEDMAD_FAIL_POINT"

# The module that reaches the point, and what is done by then.
POINTS = (
    "advertising.counted",
    "restoring.dropped",
    "invitations.used",
    "reserving.intended",
    "reserving.reserved",
    "putting.spooled",
    "putting.copied",
    "committing.manifest_stored",
    "committing.manifest_told",
    "committing.name_stored",
    "committing.name_told",
    "establishing.established",
    "holding.reserved",
    "holding.fetched",
    "holding.held",
    "holding.programmed",
    "holding.released",
    "healing.forgotten",
    "healing.fetched",
    "healing.adopted",
    "draining.decided",
    "manifests.stored",
    "owning.promised",
    "owning.won",
    "releasing.released_here",
    "releasing.told",
    "removing.name_published",
    "removing.last_manifest_stored",
    "removing.last_manifest_safe",
    "removing.last_manifest_told",
    "repair_step.reserved",
    "repair_step.copied",
)

# The armed point and how many times it may still be reached; None in every daemon but those of tests.
_armed: tuple[str, int] | None = None


def reach(name: str) -> None:
    """Die here if this point is armed; otherwise do nothing."""
    if _armed is not None:
        _count_down(name)


def arm(environ: Mapping[str, str]) -> str | None:
    """Arm the point that the environment names, and return it; disarm all where it names none.

    Raises:
        ConfigurationInvalid: there is no such point.
    """
    global _armed
    setting = environ.get(VARIABLE)
    if not setting:
        _armed = None
        return None
    name, colon, count = setting.partition(":")
    if name not in POINTS or (colon and not (count.isascii() and count.isdigit() and int(count))):
        raise ConfigurationInvalid(
            f"{VARIABLE} names no point to fail at",
            why=f"it is {setting!r}",
            hint="It is for tests: unset it.",
        )
    _armed = (name, int(count or 1))
    return name


def _count_down(name: str) -> None:
    global _armed
    assert _armed is not None
    armed, count = _armed
    if name != armed:
        return
    if count == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    _armed = (armed, count - 1)
