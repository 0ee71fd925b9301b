"""The crossbar arrays that this node has: of which devices, and how many."""

from __future__ import annotations

from pathlib import Path

import crossbar
from crossbar.devices import DeviceProfile
from crossbar.errors import ProfileInvalid, ProfileUnknown
from sedmad.errors import ConfigurationInvalid

BYTES_PER_CELL = 4
"""Of a pair of cells that hold a weight: its float32 in the partition, and its float32 and the variance of its reads in
what simulates them, rounded up."""


def find_profile(name: str, folder: Path) -> DeviceProfile:
    """Return the device profile that the configuration names: one of ours, or a file of the user's.

    Raises:
        ConfigurationInvalid: there is none of that name, or it is not valid.
    """
    try:
        return crossbar.profile(name, folder)
    except ProfileUnknown as error:
        raise ConfigurationInvalid(
            f"the device profile {name!r} is unknown",
            why=error.why or error.what,
            hint=f"sedmad profiles lists them; your own are TOML files in {folder}",
        ) from error
    except ProfileInvalid as error:
        raise ConfigurationInvalid(
            f"the device profile {name!r} is not valid",
            why="; ".join(filter(None, (error.what, error.why))),
            hint=error.hint or f"Correct {folder / name}.toml.",
        ) from error


def list_profiles(folder: Path) -> list[DeviceProfile]:
    """Return all device profiles, the user's own in `folder` among them, in the order of their names.

    Raises:
        ConfigurationInvalid: one of the user's own is not valid.
    """
    try:
        return [crossbar.profile(name, folder) for name in sorted(crossbar.profiles(folder))]
    except ProfileInvalid as error:
        raise ConfigurationInvalid(error.what, why=error.why, hint=error.hint or None) from error


def cells_pledged(profile: DeviceProfile, arrays: int | None, memory_pledged_bytes: int) -> int:
    """Return the cells of a node's arrays; without a number of them, as many as its memory can simulate."""
    if profile.is_ideal:
        return 0
    array_cells = profile.rows * profile.columns
    if arrays is None:
        arrays = max(1, memory_pledged_bytes // (BYTES_PER_CELL * array_cells))
    return arrays * array_cells
