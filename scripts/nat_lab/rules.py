"""NATs as nftables rules: pure functions from what a NAT does to the text that `nft -f` reads.

The words are those of RFC 4787 (UDP) and RFC 5382 (TCP). Linux keeps a mapping for each connection and lets in only
what belongs to one, which makes it filter by address and port. NATs that let in more learn their mappings from what
leaves, in the map `holes`, and translate what arrives back to the host that it names.

A hole is known by its protocol and external port: two hosts of a LAN that speak from one port at the same time are
told apart by Linux, but the later one owns the hole. Daemons speak from ports of their own.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from enum import StrEnum
from typing import Any

from nat_lab.errors import LabError
from nat_lab.topology import LAN, WAN, Site


class Dependence(StrEnum):
    """On what a NAT's choice depends, of the remote endpoint's address and port."""

    ENDPOINT_INDEPENDENT = "endpoint-independent"
    ADDRESS = "address-dependent"
    ADDRESS_AND_PORT = "address-and-port-dependent"


class Ports(StrEnum):
    """How an external port relates to the internal one."""

    PRESERVED = "preserved"
    SHIFTED = "shifted"
    RANDOM = "random"


@dataclass(frozen=True, slots=True)
class Kind:
    """What a NAT does with mappings, filters and ports; with UDP only if it lets that through at all."""

    mapping: Dependence
    filtering: Dependence
    ports: Ports = Ports.PRESERVED
    passes_udp: bool = True


_ANY, _ADDRESS, _PORT = Dependence.ENDPOINT_INDEPENDENT, Dependence.ADDRESS, Dependence.ADDRESS_AND_PORT
KINDS = {
    "full_cone": Kind(_ANY, _ANY),
    "full_cone_shift": Kind(_ANY, _ANY, Ports.SHIFTED),
    "restricted": Kind(_ANY, _ADDRESS),
    "port_restricted": Kind(_ANY, _PORT),
    "port_restricted_shift": Kind(_ANY, _PORT, Ports.SHIFTED),
    "symmetric": Kind(_PORT, _PORT, Ports.RANDOM),
    "udp_blocked": Kind(_ANY, _PORT, passes_udp=False),
}
# What is added to a shifted port by exclusive or: every port has another one, and no two the same.
PORT_SHIFT = 0x4000
# As many as there are ports for each of two protocols; `peers` has several for each.
HOLES_MAX, PEERS_MAX = 131_072, 262_144
# The shortest that RFC 4787 (REQ-5) and RFC 5382 (REQ-5) allow.
UDP_TIMEOUT_S, TCP_TIMEOUT_S = 120, 7440


@dataclass(frozen=True, slots=True)
class Nat:
    """A NAT of some kind, and what it is like besides.

    Args:
        kind: one of `KINDS`.
        hairpin: hosts of the LAN reach each other's external endpoints.
        reject: answers a stray SYN with RST, where it would say nothing.
        upnp: has the chains that miniupnpd fills.
        udp_timeout_s: how long a UDP mapping lives without traffic.
        tcp_timeout_s: how long one of an established TCP connection does.

    Raises:
        LabError: no such kind, a time-out below a second, or a hairpin where mappings depend on the destination.
    """

    kind: str = "port_restricted"
    hairpin: bool = False
    reject: bool = False
    upnp: bool = False
    udp_timeout_s: int = UDP_TIMEOUT_S
    tcp_timeout_s: int = TCP_TIMEOUT_S

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise LabError(f"there is no NAT of kind {self.kind}; there are {', '.join(KINDS)}")
        if min(self.udp_timeout_s, self.tcp_timeout_s) < 1:
            raise LabError("a mapping lives for a second at least")
        if self.hairpin and self.behaviour.mapping is not Dependence.ENDPOINT_INDEPENDENT:
            raise LabError(
                f"{self.kind} has no one external endpoint that a neighbour could send to: no hairpin"
            )

    @property
    def behaviour(self) -> Kind:
        return KINDS[self.kind]

    @classmethod
    def parse(cls, text: str) -> Nat:
        """Read a kind and what it is like besides: `full_cone`, or `port_restricted,hairpin,udp_timeout_s=5`.

        Raises:
            LabError: it says something else, or something that does not go together.
        """
        kind, *settings = text.split(",")
        values: dict[str, Any] = {}
        for setting in settings:
            name, equals, value = setting.partition("=")
            if equals and name.endswith("_s") and value.isdecimal():
                values[name] = int(value)
            elif not equals and not name.endswith("_s"):
                values[name] = True
            else:
                raise LabError(f"{setting} sets nothing; a switch is named, a time-out is name=seconds")
        known = [field.name for field in fields(cls)][1:]
        if unknown := values.keys() - set(known):
            raise LabError(f"{', '.join(sorted(unknown))}: unknown; a NAT has {', '.join(known)}")
        return replace(cls(kind), **values)


def rules(nat: Nat, site: Site) -> str:
    """Return the rules that make a site's gateway this NAT. They replace the ones before in one transaction."""
    chains = [
        *_sets(nat),
        _forward(nat),
        _input(nat),
        *_learn(nat),
        _prerouting(nat, site),
        _postrouting(nat, site),
    ]
    text = _table("ip natlab", chains)
    return text + _table("inet filter", _PORT_MAPPING_CHAINS if nat.upnp else ())


def kernel_settings(nat: Nat) -> dict[str, int]:
    """Return what a gateway's kernel is told about connections, by names below /proc/sys/net."""
    connections = "netfilter/nf_conntrack_"
    return {
        f"{connections}udp_timeout": nat.udp_timeout_s,
        f"{connections}udp_timeout_stream": nat.udp_timeout_s,
        f"{connections}tcp_timeout_established": nat.tcp_timeout_s,
        # A mapping that ended stays so: Linux would make a new one in the middle of a TCP connection.
        f"{connections}tcp_loose": 0,
    }


# A map key or a packet's own half of one; the other half is added where it is used.
_SOURCE, _DESTINATION = "meta l4proto . th sport", "meta l4proto . th dport"

_PORT_MAPPING_CHAINS = (
    "chain miniupnpd { }",
    "chain prerouting_miniupnpd { }",
    "chain postrouting_miniupnpd { }",
    "chain forward { type filter hook forward priority 5; jump miniupnpd; }",
    "chain prerouting { type nat hook prerouting priority dstnat; jump prerouting_miniupnpd; }",
    "chain postrouting { type nat hook postrouting priority srcnat; jump postrouting_miniupnpd; }",
)


def _table(name: str, parts: tuple[str, ...] | list[str]) -> str:
    # Only this table is replaced. Named first, since what is not there cannot be deleted.
    lines = [f"table {name}", f"delete table {name}"]
    if parts:
        lines += [f"table {name} {{", *("    " + line for part in parts for line in part.splitlines()), "}"]
    return "\n".join(lines) + "\n"


def _chain(name: str, hook: str, statements: list[str]) -> str:
    return "\n".join([f"chain {name} {{", f"    type {hook};", *("    " + line for line in statements), "}"])


def _learns(nat: Nat) -> bool:
    return nat.hairpin or nat.behaviour.filtering is not Dependence.ADDRESS_AND_PORT


def _sets(nat: Nat) -> list[str]:
    if not _learns(nat):
        return []
    found = [
        "map holes { type inet_proto . inet_service : ipv4_addr . inet_service; "
        f"flags dynamic,timeout; size {HOLES_MAX}; }}"
    ]
    if nat.behaviour.filtering is Dependence.ADDRESS:
        found.append(
            f"set peers {{ type inet_proto . inet_service . ipv4_addr; flags dynamic,timeout; size {PEERS_MAX}; }}"
        )
    return found


def _forward(nat: Nat) -> str:
    statements = [] if nat.behaviour.passes_udp else ["meta l4proto udp drop"]
    statements += [
        "ct state invalid drop",  # what no mapping translates would leave with its private address
        "ct state established,related accept",
        f'iifname "{LAN}" oifname "{WAN}" accept',
        "ct status dnat accept",
    ]
    return _chain("forward", "filter hook forward priority 0; policy drop", statements)


def _input(nat: Nat) -> str:
    statements = ["ct state established,related accept"]
    if nat.reject:
        statements.append(f'iifname "{WAN}" meta l4proto tcp reject with tcp reset')
    statements.append(f'iifname "{WAN}" drop')
    return _chain("input", "filter hook input priority 0; policy accept", statements)


def _learn(nat: Nat) -> list[str]:
    if not _learns(nat):
        return []
    statements = []
    for protocol, timeout_s in (("udp", nat.udp_timeout_s), ("tcp", nat.tcp_timeout_s)):
        leaving = f'oifname "{WAN}" ct direction original meta l4proto {protocol}'
        inside = "ct original ip saddr . ct original proto-src"
        statements.append(f"{leaving} update @holes {{ {_SOURCE} timeout {timeout_s}s : {inside} }}")
        if nat.behaviour.filtering is Dependence.ADDRESS:
            statements.append(f"{leaving} update @peers {{ {_SOURCE} . ip daddr timeout {timeout_s}s }}")
    # After the source was translated, so that it sees external ports, whatever chose them.
    return [_chain("learn", "filter hook postrouting priority 300", statements)]


def _prerouting(nat: Nat, site: Site) -> str:
    to_hole = f"dnat ip to {_DESTINATION} map @holes"
    statements = []
    if nat.behaviour.filtering is Dependence.ENDPOINT_INDEPENDENT:
        statements.append(f'iifname "{WAN}" {to_hole}')
    elif nat.behaviour.filtering is Dependence.ADDRESS:
        statements.append(f'iifname "{WAN}" {_DESTINATION} . ip saddr @peers {to_hole}')
    if nat.hairpin:
        statements.append(f'iifname "{LAN}" ip daddr {site.wan.ip} {to_hole}')
    return _chain("prerouting", "nat hook prerouting priority dstnat", statements)


def _postrouting(nat: Nat, site: Site) -> str:
    statements = []
    if nat.hairpin:  # with the external address as the source, as RFC 4787 (REQ-9) has it
        statements.append(f'iifname "{LAN}" oifname "{LAN}" ip saddr {site.lan} snat to {site.wan.ip}')
    if nat.behaviour.ports is Ports.SHIFTED:
        shifted = f"snat ip to {site.wan.ip} : th sport xor {PORT_SHIFT:#x}"
        statements.append(f'oifname "{WAN}" meta l4proto {{ tcp, udp }} {shifted}')
    how = " fully-random" if nat.behaviour.ports is Ports.RANDOM else ""
    statements.append(f'oifname "{WAN}" masquerade{how}')
    return _chain("postrouting", "nat hook postrouting priority srcnat", statements)
