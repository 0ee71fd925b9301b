"""How the lab's machines are connected, as commands of `ip`: a pure function of the topology."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from nat_lab.namespaces import namespace
from nat_lab.topology import (
    HOST_DEVICE,
    HOSTS,
    INTERNET,
    LAN,
    MACHINES,
    SITES,
    WAN,
    Host,
    Site,
)

# Frames that a device of a cable holds while the process that copies them is not running: 20 ms at 1 Gbit/s.
DEVICE_QUEUE_FRAMES = 2000


@dataclass(slots=True)
class Wiring:
    """What makes wires of namespaces.

    Args:
        links: commands that make pairs of devices, each end in a namespace; they run outside of all.
        commands: what runs on each machine afterwards, in this order.
    """

    links: list[str] = field(default_factory=list)
    commands: dict[str, list[str]] = field(
        default_factory=lambda: {machine: ["link set lo up"] for machine in MACHINES}
    )


def wiring(cabled: Collection[Site]) -> Wiring:
    """Return how all machines are connected, where the uplinks of some sites are cables that have devices already."""
    made = Wiring()
    for switch in (INTERNET, *(site.gateway for site in SITES.values())):
        made.commands[switch] += [f"link add {LAN} type bridge", f"link set {LAN} up"]
    for site in SITES.values():
        _add_gateway(made, site, has_devices=site in cabled)
    for host in HOSTS.values():
        _add_host(made, host)
    return made


def _add_gateway(made: Wiring, site: Site, *, has_devices: bool) -> None:
    queue = f" txqueuelen {DEVICE_QUEUE_FRAMES}" if has_devices else ""
    if not has_devices:
        made.links.append(_pair(site.gateway, WAN, site.upstream))
    made.commands[site.upstream].append(f"link set {site.gateway}{queue} master {LAN} up")
    own = made.commands[site.gateway]
    own.append(f"address add {site.lan_address}/{site.lan.prefixlen} dev {LAN}")
    own.append(f"address add {site.wan} dev {WAN}")
    own.append(f"link set {WAN}{queue} up")
    if site.router is not None:
        own.append(f"route add default via {site.router}")


def _add_host(made: Wiring, host: Host) -> None:
    made.links.append(_pair(host.name, HOST_DEVICE, host.switch))
    made.commands[host.switch].append(f"link set {host.name} master {LAN} up")
    own = made.commands[host.name]
    own += [f"address add {address} dev {HOST_DEVICE}" for address in host.addresses]
    own.append(f"link set {HOST_DEVICE} up")
    if host.router is not None:
        own.append(f"route add default via {host.router}")


def _pair(machine: str, device: str, switch: str) -> str:
    """Return the command for a device of a machine, and the port of a switch that has the machine's name."""
    near, far = namespace(machine), namespace(switch)
    return f"link add name {device} netns {near} type veth peer name {machine} netns {far}"
