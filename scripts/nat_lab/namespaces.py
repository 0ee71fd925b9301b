"""Network namespaces of the lab: made, entered, and removed with all that runs in them."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from nat_lab.errors import LabError

# Nobody else's namespaces begin so: whatever does is the lab's, and may be removed.
PREFIX = "sedmad-natlab-"
FOLDER = Path("/run/netns")
PROGRAMS = ("ip", "nft", "conntrack")
CLONE_NEWNET = 0x40000000
# Programs that configure the kernel answer at once, or never.
COMMAND_TIMEOUT_S = 30.0

_libc = ctypes.CDLL(None, use_errno=True)


def lacking() -> str:
    """Say what a lab would lack here that can be told at once, or ""."""
    if os.geteuid() != 0:
        return "the NAT lab needs root"
    if programs := [program for program in PROGRAMS if shutil.which(program) is None]:
        return f"the NAT lab needs {', '.join(programs)}: apt-get install iproute2 nftables conntrack"
    return "" if os.path.exists("/dev/net/tun") else "the NAT lab needs /dev/net/tun"


def missing() -> str:
    """Say why no lab can be built here, or "" where one can: tries it with one namespace."""
    if reason := lacking():
        return reason
    trial = f"trial-{os.getpid()}"
    try:
        create([trial])
        try:
            run(*inside(trial, ("nft", "list", "ruleset")))
        finally:
            run("ip", "netns", "del", namespace(trial))
    except LabError as error:
        return f"the NAT lab needs network namespaces and nftables: {error}"
    return ""


def run(*command: str, text: str = "") -> str:
    """Run a program that configures the system, with `text` on its stdin; return what it printed.

    Raises:
        LabError: it failed, took too long, or is not there.
    """
    try:
        done = subprocess.run(
            command, input=text, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LabError(f"{' '.join(command)}: {error}") from error
    if done.returncode != 0:
        raise LabError(f"{' '.join(command)}: {(done.stderr or done.stdout).strip()}")
    return done.stdout


def namespace(machine: str) -> str:
    """Return the name of a machine's namespace."""
    return PREFIX + machine


def inside(machine: str, command: Sequence[str]) -> list[str]:
    """Return the command that runs `command` on a machine, in the same process: signals reach it."""
    return ["ip", "netns", "exec", namespace(machine), *command]


def configure(machine: str, commands: Iterable[str]) -> None:
    """Run commands of `ip` on a machine, in one process. Raises LabError."""
    run("ip", "-n", namespace(machine), "-batch", "-", text="\n".join(commands) + "\n")


def set_kernel(machine: str, settings: Mapping[str, int]) -> None:
    """Set values below /proc/sys/net on a machine; those that its kernel does not have are left out.

    Raises:
        LabError: there is no such machine, or its kernel takes no orders.
    """
    with entered(machine):
        for name, value in settings.items():
            try:
                Path("/proc/sys/net", name).write_text(str(value), "ascii")
            except FileNotFoundError:
                continue
            except OSError as error:
                raise LabError(f"{name} of {machine} cannot be set: {error}") from error


def create(machines: Iterable[str]) -> None:
    """Make namespaces with nothing but a loopback. Raises LabError."""
    run("ip", "-batch", "-", text="".join(f"netns add {namespace(machine)}\n" for machine in machines))


def existing() -> list[str]:
    """Return the names of all namespaces of the lab that are there."""
    return sorted(path.name for path in FOLDER.glob(f"{PREFIX}*"))


def remove_all() -> None:
    """Remove every namespace of the lab, after killing what runs in them. Raises LabError."""
    for name in existing():
        # One that was being made when its maker died has no processes to tell of.
        with suppress(LabError):
            for pid in run("ip", "netns", "pids", name).split():
                with suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
        run("ip", "netns", "del", name)


@contextmanager
def entered(machine: str) -> Iterator[None]:
    """Have this thread be on a machine; sockets and devices opened meanwhile stay there.

    Long enough to open some, and no longer: other threads, and what an event loop does meanwhile, would be elsewhere.

    Raises:
        LabError: there is no such machine, or it may not be entered.
    """
    home = os.open(f"/proc/self/task/{threading.get_native_id()}/ns/net", os.O_RDONLY)
    try:
        _enter(FOLDER / namespace(machine))
        try:
            yield
        finally:
            # os.setns comes with Python 3.12.
            if _libc.setns(home, CLONE_NEWNET):
                raise LabError(f"cannot leave {machine}: {os.strerror(ctypes.get_errno())}")
    finally:
        os.close(home)


def _enter(path: Path) -> None:
    try:
        there = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise LabError(f"{path.name} is not there: {error}") from error
    try:
        if _libc.setns(there, CLONE_NEWNET):
            raise LabError(f"cannot enter {path.name}: {os.strerror(ctypes.get_errno())}")
    finally:
        os.close(there)
