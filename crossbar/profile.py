"""Owns device profiles: what is known of the crossbars that a node computes on.

A profile is a description; `crossbar.engine.engine_for` turns it into something that computes.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DeviceProfile:
    """The devices of one node. `name` is what users write and adverts carry."""

    name: str


IDEAL = DeviceProfile(name="ideal")
"""No devices at all: floating-point arithmetic, exact up to rounding."""

_KNOWN = {profile.name: profile for profile in (IDEAL,)}


def profile_named(name: str) -> DeviceProfile:
    """Return the profile called `name`.

    Raises:
        ValueError: no profile has this name; the message lists those that exist.
    """
    try:
        return _KNOWN[name]
    except KeyError:
        known = ", ".join(sorted(_KNOWN))
        raise ValueError(f"no device profile is called {name!r}; known profiles: {known}") from None
