"""Where a node keeps its state: the paths under one home, and nothing of what is in them.

Cheap to import, because the command line and every client locate the control socket here. It touches the disk
only in `Home.create`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sedmad.errors import ConfigurationInvalid

# sockaddr_un.sun_path holds 108 bytes on Linux, the closing NUL among them (unix(7)).
SOCKET_PATH_LIMIT_BYTES = 107


@dataclass(frozen=True, slots=True)
class Home:
    """The layout of one node's state.

    Three directories that are one when the home is explicit. Raises ConfigurationInvalid when the control
    socket's path would be longer than the system allows, before anything is made in a home that could never
    be used.
    """

    configuration_directory: Path
    data_directory: Path
    runtime_directory: Path

    def __post_init__(self) -> None:
        length = len(os.fsencode(self.control_socket))
        if length > SOCKET_PATH_LIMIT_BYTES:
            raise ConfigurationInvalid(
                f"The control socket cannot be made at {self.control_socket}",
                why=f"Its path has {length} bytes; the system allows {SOCKET_PATH_LIMIT_BYTES}.",
                hint="Choose a shorter home: SEDMAD_HOME=DIR or --home DIR.",
            )

    @classmethod
    def locate(cls, explicit: str | None, environ: Mapping[str, str]) -> Home:
        """Return the home that is meant: `explicit` (--home), else $SEDMAD_HOME, else XDG directories.

        An empty variable counts as unset. The control socket goes to $XDG_RUNTIME_DIR, else /run/user/UID,
        else beside the data: never below /tmp, where another user could have made the directory first.
        """
        chosen = explicit or environ.get("SEDMAD_HOME")
        if chosen:
            directory = Path(os.path.abspath(os.path.expanduser(chosen)))
            return cls(directory, directory, directory)
        data = _xdg_directory(environ, "XDG_DATA_HOME")
        return cls(
            configuration_directory=_xdg_directory(environ, "XDG_CONFIG_HOME"),
            data_directory=data,
            runtime_directory=_runtime_directory(environ) or data,
        )

    @property
    def configuration_file(self) -> Path:
        return self.configuration_directory / "config.toml"

    @property
    def identity_key(self) -> Path:
        return self.data_directory / "identity.key"

    @property
    def certificates(self) -> Path:
        """The directory of this node's certificates."""
        return self.data_directory / "certificates"

    @property
    def database(self) -> Path:
        return self.data_directory / "store.db"

    @property
    def blobs(self) -> Path:
        """The directory of partition bytes."""
        return self.data_directory / "blobs"

    @property
    def kernels(self) -> Path:
        """The directory of compiled kernels: made when the first is compiled, and anew when it is deleted."""
        return self.data_directory / "cache" / "kernels"

    @property
    def profiles(self) -> Path:
        """The directory of the user's own device profiles; it may be missing."""
        return self.configuration_directory / "profiles"

    @property
    def lock_file(self) -> Path:
        return self.data_directory / "daemon.lock"

    @property
    def control_socket(self) -> Path:
        return self.runtime_directory / "control.sock"

    def create(self) -> None:
        """Make the missing directories, readable by their owner only; those that exist stay as they are.

        Raises ConfigurationInvalid, naming the directory, when one cannot be made.
        """
        for directory in (
            self.configuration_directory,
            self.data_directory,
            self.runtime_directory,
            self.certificates,
            self.blobs,
        ):
            try:
                directory.parent.mkdir(parents=True, exist_ok=True)
                directory.mkdir(mode=0o700, exist_ok=True)
            except OSError as error:
                raise ConfigurationInvalid(
                    f"The directory {directory} cannot be made",
                    why=f"{error.strerror}: {error.filename}",
                    hint="Choose another home: SEDMAD_HOME=DIR or --home DIR.",
                ) from error


def _xdg_directory(environ: Mapping[str, str], variable: str) -> Path:
    # The XDG base directory specification tells programs to ignore paths that are not absolute.
    if os.path.isabs(environ.get(variable, "")):
        return Path(environ[variable]) / "sedmad"
    import platformdirs

    if variable == "XDG_CONFIG_HOME":
        return platformdirs.user_config_path("sedmad", appauthor=False)
    return platformdirs.user_data_path("sedmad", appauthor=False)


def _runtime_directory(environ: Mapping[str, str]) -> Path | None:
    chosen = environ.get("XDG_RUNTIME_DIR", "")
    if os.path.isabs(chosen):
        return Path(chosen) / "sedmad"
    # Services and cron jobs lack the variable, and must still meet the socket of the user's session.
    conventional = Path(f"/run/user/{os.geteuid()}")
    return conventional / "sedmad" if os.access(conventional, os.W_OK) else None
