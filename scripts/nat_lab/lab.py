"""The lab itself: built, changed while it stands, and taken down whatever happens."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from nat_lab import cable, namespaces, port_mapping, topology
from nat_lab.cable import Cable, End
from nat_lab.errors import LabError
from nat_lab.link import FrameCounts, LinkQuality
from nat_lab.lock import Lock, holder
from nat_lab.measurements import Behaviour, Sounding, behaviours_of
from nat_lab.rules import Nat, kernel_settings, rules
from nat_lab.topology import INTERNET, WAN, Site
from nat_lab.wiring import wiring

KERNEL_OF_ALL = {
    # These NATs know nothing of IPv6, and hosts shall not get round them.
    "ipv6/conf/all/disable_ipv6": 1,
    "ipv6/conf/default/disable_ipv6": 1,
    # Where containers run, frames within a LAN would pass through the rules of its gateway.
    "bridge/bridge-nf-call-iptables": 0,
}
# Measuring takes seconds; a machine that is busy takes longer.
HELPER_TIMEOUT_S = 60.0
RUN_TIMEOUT_S = 60.0
TAKE_DOWN_TIMEOUT_S = 30.0


class NatLab:
    """The lab, in a `with`: hosts behind NATs, until it ends.

    Args:
        a, b: NATs of the two sites, as `Nat` or as text for `Nat.parse`.
        link: what the uplinks of both sites are like; None for plain ones that cannot be changed, and carry more.
        keeps: this process does nothing but keep the lab, so that `scripts/natlab down` may end it.
        wait_s: for another process that has the lab to end with it.
        seed: of the links' jitter and loss.

    Raises:
        LabError: on entering: no lab can be built here (`missing` says why), or another process has it.
    """

    def __init__(
        self,
        a: Nat | str = "port_restricted",
        b: Nat | str = "port_restricted",
        *,
        link: LinkQuality | None = None,
        keeps: bool = False,
        wait_s: float = 0.0,
        seed: int = 0,
    ) -> None:
        self._nats = dict.fromkeys(topology.SITES, Nat()) | {"a": _nat(a), "b": _nat(b)}
        self._sites = dict(topology.SITES)
        self._link = link
        self._seed = seed
        self._lock = Lock(keeps=keeps)
        self._wait_s = wait_s
        self._stack = ExitStack()

    @staticmethod
    def missing() -> str:
        """Say why no lab can be built here, or "" where one can."""
        return namespaces.missing()

    def __enter__(self) -> Self:
        if reason := namespaces.lacking():
            raise LabError(reason)
        self._lock.acquire(self._wait_s)
        with ExitStack() as stack:
            stack.callback(self._lock.release)
            # A lab whose process was killed is still there, and goes first.
            namespaces.remove_all()
            stack.callback(namespaces.remove_all)
            self._build(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def command(self, host: str, command: Sequence[str]) -> list[str]:
        """Return the command that runs `command` on a host or gateway; a process of it is that of `command` itself."""
        return command_on(host, command)

    def run(
        self, host: str, command: Sequence[str], *, timeout_s: float = RUN_TIMEOUT_S
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on a host to its end, whatever its exit code."""
        return subprocess.run(
            self.command(host, command),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def address(self, host: str) -> str:
        """Return the address of a host in its own network."""
        return str(topology.host_named(host).addresses[0].ip)

    def external_address(self, site: str) -> str:
        """Return the address that the internet sees when a host of a site speaks."""
        outermost = topology.outermost(topology.site_named(site))
        return str(self._sites[outermost.name].wan.ip)

    def set_nat(self, site: str, nat: Nat | str) -> None:
        """Give a site another NAT at once: `a`, `b`, or the second one behind it, `a-inner`, `b-inner`."""
        set_nat(self._site(site), _nat(nat))
        self._nats[site] = _nat(nat)

    def move(self, site: str, number: int) -> str:
        """Give a site's uplink the address of that number in its network, as providers do without a word.

        All mappings end, and the old address leads nowhere. Returns the new one. Raises LabError if it is taken.
        """
        there = topology.moved(self._site(site), number)
        commands = [f"address flush dev {WAN}", f"address add {there.wan} dev {WAN}"]
        if there.router is not None:
            commands.append(f"route replace default via {there.router}")
        namespaces.configure(there.gateway, commands)
        self._sites[site] = there
        self.set_nat(site, self._nats[site])
        return str(there.wan.ip)

    def set_link(self, site: str, quality: LinkQuality) -> None:
        """Make the uplink of `a` or `b` better or worse at once. Raises LabError where the lab has plain links."""
        cable.change(site, quality)

    def frame_counts(self, site: str) -> tuple[FrameCounts, FrameCounts]:
        """Return what the uplink of `a` or `b` did with frames: those to the internet, and those from it."""
        return cable.frame_counts(site)

    def probe(self, site: str) -> dict[str, Behaviour]:
        """Measure how a site's NATs behave, for `udp` and `tcp`; takes a second. Mappings made by it stay."""
        return behaviours_of(_ask_helper("probing", [self._site(site).name, self.external_address(site)]))

    def sound(self, near: str, far: str, *, pings: int = 20, burst: int = 1000) -> Sounding:
        """Measure the way from a host to one that it can reach by its address."""
        arguments = [near, far, "--pings", str(pings), "--burst", str(burst)]
        return Sounding(**_ask_helper("sounding", arguments))

    def _site(self, name: str) -> Site:
        return self._sites[topology.site_named(name).name]

    def _build(self, stack: ExitStack) -> None:
        namespaces.create(topology.MACHINES)
        for machine in topology.MACHINES:
            namespaces.set_kernel(machine, KERNEL_OF_ALL)
        for site in topology.SITES.values():
            namespaces.set_kernel(site.gateway, {"ipv4/ip_forward": 1})
        cabled = self._lay_cables(stack)
        wires = wiring(cabled)
        namespaces.run("ip", "-batch", "-", text="\n".join(wires.links))
        for machine, commands in wires.commands.items():
            namespaces.configure(machine, commands)
        for site in topology.SITES.values():
            set_nat(site, self._nats[site.name])

    def _lay_cables(self, stack: ExitStack) -> Sequence[Site]:
        if self._link is None:
            return ()
        laid = []
        for number, site in enumerate(topology.OUTER_SITES):
            near, far = End(site.gateway, WAN), End(INTERNET, site.gateway)
            laid.append(Cable(site.name, near, far, self._link, self._seed + number))
            stack.callback(laid[-1].remove)
        for one in laid:
            one.wait_ready()
        return topology.OUTER_SITES


def command_on(machine: str, command: Sequence[str]) -> list[str]:
    """Return the command that runs `command` on a host or gateway of the lab that stands.

    Raises:
        LabError: there is no such host.
    """
    if machine not in topology.MACHINES:
        raise LabError(f"there is no host {machine}; there are {', '.join(topology.MACHINES)}")
    return namespaces.inside(machine, command)


def set_nat(site: Site, nat: Nat) -> None:
    """Give a site of the lab that stands another NAT; it forgets all mappings. Raises LabError."""
    port_mapping.stop(site)
    namespaces.set_kernel(site.gateway, kernel_settings(nat))
    namespaces.run(*namespaces.inside(site.gateway, ("nft", "-f", "-")), text=rules(nat, site))
    namespaces.run(*namespaces.inside(site.gateway, ("conntrack", "--flush")))
    if nat.upnp:
        port_mapping.start(site)


def take_down() -> None:
    """End the process that keeps the lab, and remove what one left behind that was killed.

    Raises:
        LabError: a process has the lab that does something else as well, and has to end by itself.
    """
    keeper = holder()
    if keeper is not None and keeper.keeps:
        os.kill(keeper.pid, signal.SIGTERM)
    lock = Lock()
    lock.acquire(timeout_s=TAKE_DOWN_TIMEOUT_S if keeper is not None and keeper.keeps else 0.0)
    try:
        namespaces.remove_all()
    finally:
        lock.release()


def _ask_helper(module: str, arguments: Sequence[str]) -> dict[str, Any]:
    """Run a module that enters namespaces, in a process of its own: whoever asks stays where it is."""
    done = subprocess.run(
        [sys.executable, "-m", f"nat_lab.{module}", *arguments],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=HELPER_TIMEOUT_S,
        check=False,
    )
    if done.returncode != 0:
        raise LabError(f"{module} {' '.join(arguments)} failed: {done.stderr.strip()}")
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def _nat(nat: Nat | str) -> Nat:
    return nat if isinstance(nat, Nat) else Nat.parse(nat)
