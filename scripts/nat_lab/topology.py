"""Which hosts and gateways the lab has, and their addresses. Data only: nothing here touches the system."""

from __future__ import annotations

from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from nat_lab.errors import LabError

# A range that the world routes, though nothing ever leaves the namespaces: what is set aside for documentation is not
# global to Python's `ipaddress`, nor to miniupnpd, and a daemon that asks either would hold itself for unreachable.
INTERNET_NETWORK = IPv4Network("45.80.1.0/24")
INTERNET = "internet"
# Names of devices, the same in all namespaces that have them; the rules of a gateway name the latter two.
HOST_DEVICE, WAN, LAN = "eth0", "wan", "lan"


@dataclass(frozen=True, slots=True)
class Host:
    """A machine with one device.

    Args:
        name: of its namespace, without the lab's prefix.
        switch: the namespace whose bridge it is plugged into.
        addresses: with their network; the first is the one it speaks from.
        router: where it sends what leaves that network, or None.
    """

    name: str
    switch: str
    addresses: tuple[IPv4Interface, ...]
    router: IPv4Address | None = None


@dataclass(frozen=True, slots=True)
class Site:
    """A gateway with a NAT, and the LAN behind it.

    Args:
        name: what the lab calls it.
        upstream: the namespace whose bridge the gateway's WAN device is plugged into.
        wan: address and network of that device.
        router: where it sends what leaves that network, or None.
        lan: network behind it; the gateway has its first address.
        host_names: of the hosts in the LAN, which have the next ones.
    """

    name: str
    upstream: str
    wan: IPv4Interface
    router: IPv4Address | None
    lan: IPv4Network
    host_names: tuple[str, ...]

    @property
    def gateway(self) -> str:
        return f"gateway-{self.name}"

    @property
    def lan_address(self) -> IPv4Address:
        return self.lan[1]

    @property
    def hosts(self) -> tuple[Host, ...]:
        return tuple(
            Host(name, self.gateway, (_interface(self.lan, number),), self.lan_address)
            for number, name in enumerate(self.host_names, start=2)
        )


def _interface(network: IPv4Network, number: int) -> IPv4Interface:
    return IPv4Interface((network[number], network.prefixlen))


def _outer(name: str, number: int, lan: str) -> Site:
    wan = _interface(INTERNET_NETWORK, number)
    return Site(name, INTERNET, wan, None, IPv4Network(lan), (f"{name}1", f"{name}2"))


def _inner(outer: Site, lan: str) -> Site:
    wan = _interface(outer.lan, 9)
    hosts = (f"{outer.name}3",)
    return Site(f"{outer.name}-inner", outer.gateway, wan, outer.lan_address, IPv4Network(lan), hosts)


_A, _B = _outer("a", 21, "10.0.1.0/24"), _outer("b", 22, "10.0.2.0/24")
OUTER_SITES = (_A, _B)
# In the order in which they are built: a gateway is plugged into one that is there.
SITES = {site.name: site for site in (_A, _B, _inner(_A, "10.0.11.0/24"), _inner(_B, "10.0.12.0/24"))}
RELAY = Host("relay", INTERNET, (_interface(INTERNET_NETWORK, 10), _interface(INTERNET_NETWORK, 11)))
PUBLIC = Host("public", INTERNET, (_interface(INTERNET_NETWORK, 50),))
PUBLIC_HOSTS = (RELAY, PUBLIC)
HOSTS = {
    host.name: host for host in (*PUBLIC_HOSTS, *(host for site in SITES.values() for host in site.hosts))
}
MACHINES = (INTERNET, *HOSTS, *(site.gateway for site in SITES.values()))


def site_named(name: str) -> Site:
    """Return a site.

    Raises:
        LabError: there is none of that name.
    """
    if name not in SITES:
        raise LabError(f"there is no site {name}; there are {', '.join(SITES)}")
    return SITES[name]


def host_named(name: str) -> Host:
    """Return a host.

    Raises:
        LabError: there is none of that name.
    """
    if name not in HOSTS:
        raise LabError(f"there is no host {name}; there are {', '.join(HOSTS)}")
    return HOSTS[name]


def moved(site: Site, number: int) -> Site:
    """Return a site whose uplink has the address of that number in its network.

    Raises:
        LabError: that address is taken.
    """
    wan = _interface(site.wan.network, number)
    others = [other for other in SITES.values() if other.name != site.name]
    taken = {address.ip for host in HOSTS.values() for address in host.addresses}
    taken |= {address for other in others for address in (other.wan.ip, other.lan_address)}
    if wan.ip in taken:
        raise LabError(f"{wan.ip} is taken")
    return replace(site, wan=wan)


def outermost(site: Site) -> Site:
    """Return the site whose gateway the internet sees when a host of `site` speaks."""
    return next((outer for outer in OUTER_SITES if outer.gateway == site.upstream), site)
