"""Owns the profiles that have names: those in `presets/`, and a user's own in a folder of TOML files.

In a folder, the profile `name` is the file `name.toml`.
"""

from __future__ import annotations

import difflib
import tomllib
from functools import cache
from pathlib import Path

from crossbar.devices.parsing import parsed_profile
from crossbar.devices.profile import DeviceProfile
from crossbar.errors import ProfileInvalid, ProfileUnknown

FILE_BYTES_MAX = 1 << 18
"""Of one profile: the longest preset has 6 KiB."""

FOLDER_FILES_MAX = 256
"""Profiles in a folder: a person wrote each of them."""

_PRESETS = Path(__file__).with_name("presets")


def profiles(folder: Path | None = None) -> dict[str, str]:
    """Return the names of all profiles, each with one line saying what it is; `folder` may hold further ones.

    Raises:
        ProfileInvalid: a file in `folder` is not a profile.
    """
    found = {name: profile(name).description for name in _names(_PRESETS)}
    if folder is not None:
        found.update({name: profile(name, folder).description for name in _names(folder)})
    return found


def profile(name: str, folder: Path | None = None) -> DeviceProfile:
    """Return the profile called `name`, of the presets or of a folder of TOML files.

    Raises:
        ProfileUnknown: there is none; the message names the nearest.
        ProfileInvalid: its file in `folder` is not a profile, or has the name of a preset.
    """
    presets = _names(_PRESETS)
    own = () if folder is None else _names(folder)
    if name in own and folder is not None:
        return _own(folder / f"{name}.toml", presets)
    if name in presets:
        return _preset(name)
    known = sorted({*presets, *own})
    nearest = difflib.get_close_matches(str(name)[:100], known, n=1, cutoff=0.4)
    raise ProfileUnknown(
        f"no device profile is called {str(name)[:100]!r}",
        why=f"known profiles: {', '.join(known)}",
        hint=f"Did you mean {nearest[0]!r}?" if nearest else "",
    )


def load(path: Path | str) -> DeviceProfile:
    """Return the profile in a TOML file, whose keys are the fields of `DeviceProfile`; a law is a table.

    Raises:
        ProfileInvalid: the file cannot be read, is not TOML, or describes no device; names file, key and value.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            content = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise ProfileInvalid(f"{path}: cannot be read", why=error.strerror or str(error)) from error
    return parsed(content, str(path))


def parsed(content: bytes, where: str) -> DeviceProfile:
    """Return the profile in the bytes of a TOML document; `where` names it in errors. Raises as `load` does."""
    if len(content) > FILE_BYTES_MAX:
        raise ProfileInvalid(f"{where}: is too long", why=f"a profile has at most {FILE_BYTES_MAX} bytes")
    try:
        table = tomllib.loads(content.decode())
    except (ValueError, RecursionError) as error:  # TOML, UTF-8, numbers of too many digits, nesting
        raise ProfileInvalid(f"{where}: is not TOML", why=str(error)) from error
    return parsed_profile(table, where)


@cache
def _preset(name: str) -> DeviceProfile:
    return load(_PRESETS / f"{name}.toml")


def _own(path: Path, presets: tuple[str, ...]) -> DeviceProfile:
    found = load(path)
    if found.name != path.stem:
        raise ProfileInvalid(f"{path}: has the name {found.name!r}", why="a profile is called like its file")
    if found.name in presets:
        raise ProfileInvalid(
            f"{path}: has the name of a built-in profile",
            why=f"{found.name!r} must mean the same everywhere",
            hint="Give it another name.",
        )
    return found


def _names(folder: Path) -> tuple[str, ...]:
    names = sorted(path.stem for path in folder.glob("*.toml"))
    if len(names) > FOLDER_FILES_MAX:
        raise ProfileInvalid(
            f"{folder}: holds {len(names)} profiles", why=f"at most {FOLDER_FILES_MAX} are read from a folder"
        )
    return tuple(names)


IDEAL = profile("ideal")
"""No devices at all: floating-point arithmetic, exact up to rounding."""
