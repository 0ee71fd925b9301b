"""What is examined: a home, its settings, and what its daemon says, each looked up once however many checks want it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Generic, TypeVar

import trio

from sedmad.errors import SedmadError
from sedmad.home import Home
from sedmad.node.checks.daemon import AskStatus, ask_daemon
from sedmad.node.configuration import Configuration, load_configuration
from sedmad.node.netchecking import Netcheck, examine_network
from sedmad.wire.messages import GetStatusResponse

T = TypeVar("T")


class Once(Generic[T]):
    """Something that is looked up when it is first wanted."""

    def __init__(self, look_up: Callable[[], Awaitable[T]]) -> None:
        self._look_up = look_up
        self._lock = trio.Lock()
        self._found: list[T] = []

    async def __call__(self) -> T:
        async with self._lock:
            if not self._found:
                self._found.append(await self._look_up())
        return self._found[0]


class Subject:
    """A node to examine.

    Args:
        home: where it is.
        environ: settings of the process.
        ask_status: asks the daemon.
        examine: how the network is found out about.

    Attributes:
        status: returns what the daemon says, or in words why it says nothing.
        network: returns what the network is like.
    """

    def __init__(
        self,
        home: Home,
        environ: Mapping[str, str],
        ask_status: AskStatus,
        examine: Callable[[tuple[str, ...], GetStatusResponse | None], Awaitable[Netcheck]] = examine_network,
    ) -> None:
        self.home = home
        self.environ = environ
        self.status: Once[GetStatusResponse | str] = Once(partial(ask_daemon, ask_status))
        self.network: Once[Netcheck] = Once(self._network)
        self._examine = examine

    def configuration(self) -> Configuration:
        """Return the settings of a daemon that is started without flags. Raises ConfigurationInvalid."""
        return load_configuration(self.home.configuration_file, self.environ, {})

    def configuration_or_defaults(self) -> Configuration:
        """Return the settings, or the defaults where they are wrong: one check says so."""
        try:
            return self.configuration()
        except SedmadError:
            return Configuration()

    async def _network(self) -> Netcheck:
        status = await self.status()
        known = None if isinstance(status, str) else status
        return await self._examine(self.configuration_or_defaults().stun, known)
