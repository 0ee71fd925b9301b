"""What a user may set: built-in defaults, then config.toml, then SEDMAD_* variables, then flags.

Unknown keys are refused with the nearest known one named, so that a typing error never goes unnoticed.
SEDMAD_FAIL_POINT is no setting: it kills the daemon, is for tests, and is refused in config.toml as unknown.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from sedmad.core.membership.advert import MAX_ADDRESSES, MAX_LABEL_BYTES, MAX_LABELS
from sedmad.errors import ConfigurationInvalid, UsageError
from sedmad.net.netcheck.asking import SERVERS_MAX, parse_server

DEFAULT_PORT = 4717
ARRAYS_MAX = 1 << 24
"""Arrays of one node: with a single cell each they still take some memory to simulate."""


@dataclass(frozen=True, slots=True)
class Configuration:
    """All settings of a daemon.

    Attributes:
        listen: multiaddrs to listen on.
        announce: multiaddrs to tell others instead, where a port is forwarded.
        memory: pledge for resident copies: "2GiB", or a share of this machine's memory, "25%".
        disk: pledge for all copies: "100GiB", or a share of what is free, "80%".
        profile: name of the device profile of this node's crossbar arrays; `ideal` computes exactly.
        arrays: how many crossbar arrays there are; by default as many as the pledge of memory can simulate.
        stun: servers, as "host:port", that `sedmad netcheck` asks how this node is seen, besides those of the mesh.
        labels: what placement may prefer or avoid; "zone" keeps copies apart.
        log_level: debug, info, warning or error.
    """

    listen: tuple[str, ...] = (f"/ip4/0.0.0.0/tcp/{DEFAULT_PORT}",)
    announce: tuple[str, ...] = ()
    memory: str = "25%"
    disk: str = "80%"
    profile: str = "ideal"
    arrays: int | None = None
    stun: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    log_level: str = "info"


KEYS = tuple(item.name for item in fields(Configuration))


def load_configuration(
    path: Path, environ: Mapping[str, str], overrides: Mapping[str, object]
) -> Configuration:
    """Return the settings of one daemon.

    Args:
        path: config.toml; it may be missing.
        environ: SEDMAD_LISTEN, SEDMAD_ANNOUNCE, SEDMAD_STUN and SEDMAD_LABELS take commas; SEDMAD_MEMORY, SEDMAD_DISK,
            SEDMAD_PROFILE, SEDMAD_ARRAYS, SEDMAD_LOG_LEVEL take a word.
        overrides: flags that were given.

    Raises:
        ConfigurationInvalid: an unknown key, or a value of the wrong kind.
    """
    settings: dict[str, Any] = {}
    if path.exists():
        settings |= _from_file(path)
    settings |= _from_environment(environ)
    settings |= _checked(overrides, "the command line")
    return Configuration(**settings)


def _from_file(path: Path) -> dict[str, Any]:
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationInvalid(f"{path} cannot be read", why=str(error)) from error
    except (ValueError, RecursionError) as error:
        # Besides its own error, tomllib lets those of endless numbers and nestings through.
        raise ConfigurationInvalid(f"{path} is not valid TOML", why=str(error)) from error
    return _checked(document, str(path))


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key in KEYS:
        text = environ.get(f"SEDMAD_{key.upper()}")
        if text is None:
            continue
        words = [word.strip() for word in text.split(",") if word.strip()]
        if key in ("listen", "announce", "stun"):
            found[key] = words
        elif key == "labels":
            pairs = [word.partition("=") for word in words]
            if not all(equals for _, equals, _ in pairs):
                raise ConfigurationInvalid(
                    "SEDMAD_LABELS must be like zone=attic,rack=2", why=f"it is {text!r}"
                )
            found[key] = {name.strip(): value.strip() for name, _, value in pairs}
        else:
            found[key] = text
    return _checked(found, "the environment")


def _checked(document: Mapping[str, object], origin: str) -> dict[str, Any]:
    checked: dict[str, Any] = {}
    for key, value in document.items():
        if key not in KEYS:
            nearest = difflib.get_close_matches(key, KEYS, n=1, cutoff=0.5)
            hint = f"Did you mean {nearest[0]!r}?" if nearest else f"Known keys: {', '.join(KEYS)}."
            raise ConfigurationInvalid(f"unknown setting {key!r} in {origin}", hint=hint)
        checked[key] = _value(key, value, origin)
    return checked


def _value(key: str, value: object, origin: str) -> object:
    if key in ("listen", "announce"):
        if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
            raise ConfigurationInvalid(f"{key!r} in {origin} must be a list of multiaddrs")
        if len(value) > MAX_ADDRESSES:
            raise ConfigurationInvalid(f"{key!r} in {origin} has more than {MAX_ADDRESSES} addresses")
        return tuple(value)
    if key == "stun":
        return _servers(value, origin)
    if key == "labels":
        return _labels(value, origin)
    if key == "arrays":
        return _arrays(value, origin)
    if not isinstance(value, str):
        raise ConfigurationInvalid(f"{key!r} in {origin} must be text", hint=f'For example {key} = "2GiB".')
    if key == "log_level" and value not in ("debug", "info", "warning", "error"):
        raise ConfigurationInvalid(
            f"log_level {value!r} in {origin} is unknown", hint="debug, info, warning or error."
        )
    return value


def _servers(value: object, origin: str) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
        raise ConfigurationInvalid(
            f"'stun' in {origin} must be a list of servers",
            hint='For example stun = ["stun.example.org:3478"].',
        )
    if len(value) > SERVERS_MAX:
        raise ConfigurationInvalid(f"'stun' in {origin} has more than {SERVERS_MAX} servers")
    for item in value:
        try:
            parse_server(item)
        except UsageError as error:
            raise ConfigurationInvalid(f"'stun' in {origin}: {error.what}", hint=error.hint) from error
    return tuple(value)


def _labels(value: object, origin: str) -> dict[str, str]:
    if not isinstance(value, Mapping) or not all(isinstance(text, str) for text in value.values()):
        raise ConfigurationInvalid(f"'labels' in {origin} must be a table of names and texts")
    labels = {str(name): str(text) for name, text in value.items()}
    longest = max((len(word.encode()) for pair in labels.items() for word in pair), default=0)
    if len(labels) > MAX_LABELS or longest > MAX_LABEL_BYTES or "" in labels:
        raise ConfigurationInvalid(
            f"'labels' in {origin} are too many, too long or empty",
            why=f"at most {MAX_LABELS}, each word at most {MAX_LABEL_BYTES} bytes",
        )
    return labels


def _arrays(value: object, origin: str) -> int:
    text = str(value)
    if isinstance(value, bool) or not (text.isascii() and text.isdigit() and len(text) < 10):
        raise ConfigurationInvalid(
            f"'arrays' in {origin} must be a whole number", hint="For example arrays = 64."
        )
    if not 1 <= int(text) <= ARRAYS_MAX:
        raise ConfigurationInvalid(
            f"'arrays' in {origin} is {text}",
            why=f"1 to {ARRAYS_MAX:,} are possible",
            hint='A node without arrays has profile = "ideal".',
        )
    return int(text)
