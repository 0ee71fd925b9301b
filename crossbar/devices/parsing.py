"""Owns the translation of TOML tables into device profiles and laws, driven by their fields.

Unknown keys are refused with the nearest known one; numbers are judged by `crossbar.devices.checking`.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import MISSING, fields
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from crossbar.devices.profile import DeviceProfile
from crossbar.errors import ProfileInvalid

Value = TypeVar("Value")

NOTHING = "none"
"""What stands for the absence of a converter or a law, which TOML has no word for."""


def parsed_profile(table: Mapping[str, object], where: str) -> DeviceProfile:
    """Return the profile of a TOML document; `where` names it in errors.

    Raises:
        ProfileInvalid: a key is unknown or missing, or a value is not what its key takes.
    """
    try:
        return _record(DeviceProfile, table, "")
    except ProfileInvalid as error:
        raise ProfileInvalid(f"{where}: {error.what}", why=error.why, hint=error.hint) from error


def _record(kind: type[Value], table: Mapping[str, object], path: str) -> Value:
    """Return a dataclass made of a table with the same keys."""
    known = {field.name: field for field in fields(kind)}  # type: ignore[arg-type]
    hints = get_type_hints(kind)
    for key in table:
        if key not in known:
            raise _unknown(path + key, path, list(known), "key")
    for name, field in known.items():
        if name not in table and field.default is MISSING:
            raise ProfileInvalid(
                f"{path}{name} is missing", why="it has no default", hint=f"Set {path}{name}."
            )
    return kind(**{key: _value(hints[key], value, path + key) for key, value in table.items()})


def _value(kind: Any, value: object, key: str) -> object:
    """Return a TOML value as the type of its field asks for; what is not a table is checked later, by its owner."""
    choices = get_args(kind) if isinstance(kind, UnionType) else (kind,)
    if type(None) in choices and value == NOTHING:
        return None
    records = [choice for choice in choices if hasattr(choice, "__dataclass_fields__")]
    if records:
        if not isinstance(value, Mapping):
            raise _refused(key, value, f"a table, or {NOTHING!r}" if type(None) in choices else "a table")
        return _law(records, value, key)
    if get_origin(kind) is tuple:
        if not isinstance(value, list):
            raise _refused(key, value, "a list")
        return tuple(_value(get_args(kind)[0], item, f"{key}[{index}]") for index, item in enumerate(value))
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            raise _refused(key, "a very long number", "a number that a float64 can hold") from None
    return value


def _law(records: list[Any], table: Mapping[str, object], key: str) -> object:
    """Return the record that the key `law` of a table chooses, where there is a choice."""
    laws = {record.law: record for record in records if hasattr(record, "law")}
    if not laws:
        return _record(records[0], table, f"{key}.")
    chosen = table.get("law")
    if not isinstance(chosen, str) or chosen not in laws:
        raise _unknown(f"{key}.law = {chosen!r}", str(chosen), list(laws), "law")
    return _record(laws[chosen], {name: value for name, value in table.items() if name != "law"}, f"{key}.")


def _unknown(given: str, path: str, known: list[str], what: str) -> ProfileInvalid:
    word = path if what == "law" else given.removeprefix(path)
    nearest = difflib.get_close_matches(word[:100], known, n=1, cutoff=0.5)
    return ProfileInvalid(
        f"{given[:200]} is not a known {what}",
        why=f"known: {', '.join(known)}",
        hint=f"Did you mean {nearest[0]!r}?" if nearest else f"Remove this {what}.",
    )


def _refused(key: str, value: object, allowed: str) -> ProfileInvalid:
    return ProfileInvalid(
        f"{key} = {str(value)[:100]!r} cannot be", why=f"{key} must be {allowed}", hint=f"Change {key}."
    )
