"""A daemon as a process: its settings, its log, its signals, its lock; the rest is daemon.py."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Mapping

import structlog
import trio

from crossbar.devices import DeviceProfile
from sedmad import failpoints
from sedmad.errors import first_known
from sedmad.home import Home
from sedmad.net.credentials import Credentials
from sedmad.net.identity import Identity
from sedmad.node.arrays import find_profile
from sedmad.node.configuration import Configuration, load_configuration
from sedmad.node.daemon import run_node
from sedmad.node.log import configure_log
from sedmad.store.lock import locked_home

# 256 GiB in partitions of 8 MiB, and connections.
OPEN_FILES = 65_536

log = structlog.get_logger("sedmad")


def run_daemon(home: Home, overrides: Mapping[str, object]) -> None:
    """Run a daemon in the foreground until SIGTERM, SIGINT or `sedmad stop`.

    Raises:
        MeshMissing: the home belongs to no mesh.
        HomeInUse: another daemon runs on it.
        ConfigurationInvalid: a setting is wrong.
    """
    configuration = load_configuration(home.configuration_file, os.environ, overrides)
    profile = find_profile(configuration.profile, home.profiles)
    credentials = Credentials.load(home.certificates)
    identity = Identity.load(home.identity_key)
    home.create()
    configure_log(configuration.log_level)
    if point := failpoints.arm(os.environ):
        log.warning("fail_point_armed", point=point)
    _allow_open_files()
    with locked_home(home.lock_file):
        try:
            trio.run(_run, home, identity, credentials, configuration, profile)
        except BaseExceptionGroup as group:
            if known := first_known(group):
                raise known from group
            raise


def _allow_open_files() -> None:
    """Raise the soft limit: every mapped partition takes a descriptor, and shells hand out 1024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(hard, OPEN_FILES) if hard != resource.RLIM_INFINITY else OPEN_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


async def _run(
    home: Home,
    identity: Identity,
    credentials: Credentials,
    configuration: Configuration,
    profile: DeviceProfile,
) -> None:
    stopping = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_watch_signals, stopping)
        await run_node(home, identity, credentials, configuration, profile, stopping)
        nursery.cancel_scope.cancel()
    log.info("stopped")


async def _watch_signals(stopping: trio.Event) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for number in signals:
            if stopping.is_set():
                # Asked twice: at once, then.
                os._exit(128 + number)
            log.info("stopping", signal=signal.Signals(number).name)
            stopping.set()
