"""Simulated crossbar arrays of resistive memory: programmed with weights, they multiply as such devices would.

    >>> import crossbar
    >>> programmed = crossbar.program(weights, crossbar.profile("milo2021"), seed=1)
    >>> programmed.apply(X)  # X (inputs, vectors) -> (outputs, vectors)

Numbers only: what arrays compute and how exactly. Knows nothing of networks. Names are loaded when they are first used,
so that importing this package stays cheap.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from crossbar import irdrop as irdrop
    from crossbar.devices.catalogue import profile as profile
    from crossbar.devices.catalogue import profiles as profiles
    from crossbar.devices.profile import DeviceProfile as DeviceProfile
    from crossbar.partitioner import partition as partition
    from crossbar.planning.plan import Plan as Plan
    from crossbar.programmed import Crossbar as Crossbar
    from crossbar.programmed import program as program
    from crossbar.simulation.counting import Report as Report

_HOMES = {
    "Crossbar": "crossbar.programmed",
    "DeviceProfile": "crossbar.devices.profile",
    "Plan": "crossbar.planning.plan",
    "Report": "crossbar.simulation.counting",
    "partition": "crossbar.partitioner",
    "profile": "crossbar.devices.catalogue",
    "profiles": "crossbar.devices.catalogue",
    "program": "crossbar.programmed",
}
_ROOMS = ("irdrop",)

__all__ = [
    "Crossbar",
    "DeviceProfile",
    "Plan",
    "Report",
    "irdrop",
    "partition",
    "profile",
    "profiles",
    "program",
]


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return importlib.import_module(f"crossbar.{name}")
    if name in _HOMES:
        found = getattr(importlib.import_module(_HOMES[name]), name)
        globals()[name] = found
        return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
