"""Multiaddresses: what users write, what sockets are bound to, what others are told."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass

from multiaddr import Multiaddr
from multiaddr.utils import get_network_addrs

from sedmad.errors import ConfigurationInvalid

# A peer's advert may name this many; more are not tried.
ADDRESSES_PER_PEER_MAX = 8
# A node reserves at up to three relays.
CIRCUITS_PER_PEER_MAX = 3


@dataclass(frozen=True, slots=True)
class CircuitAddress:
    """Where a peer is reached through a relay.

    Attributes:
        relay_address: the relay's, without its peer id.
        relay_id: the relay's peer id.
        peer_id: the peer's.
    """

    relay_address: str
    relay_id: str
    peer_id: str

    def __str__(self) -> str:
        return f"{self.relay_address}/p2p/{self.relay_id}/p2p-circuit/p2p/{self.peer_id}"


def parse_listen_address(text: str) -> Multiaddr:
    """Return a TCP address to listen on.

    Raises:
        ConfigurationInvalid: it is not of the form /ip4/ADDRESS/tcp/PORT or /ip6/ADDRESS/tcp/PORT.
    """
    address = _parse(text)
    if address is None or [protocol.name for protocol in address.protocols()] not in (
        ["ip4", "tcp"],
        ["ip6", "tcp"],
    ):
        raise ConfigurationInvalid(
            f"cannot listen on {text[:200]!r}",
            why="it has not the form /ip4/ADDRESS/tcp/PORT or /ip6/ADDRESS/tcp/PORT",
        )
    return address


def parse_announced_address(text: str, peer_id: str) -> str:
    """Return an address as others are told it, ending with this node's peer id.

    Raises:
        ConfigurationInvalid: others could not dial it.
    """
    address = dialable(text, peer_id)
    if address is None:
        raise ConfigurationInvalid(
            f"cannot announce {text[:200]!r}",
            why="it has not the form /ip4/ADDRESS/tcp/PORT or /dns/NAME/tcp/PORT",
        )
    return f"{address}/p2p/{peer_id}"


def dialable(text: str, peer_id: str) -> Multiaddr | None:
    """Return the address without the peer id, or None where it is no TCP address of that peer."""
    address = _parse(text)
    if address is None:
        return None
    names = [protocol.name for protocol in address.protocols()]
    if names[2:] == ["p2p"]:
        if address.value_for_protocol("p2p") != peer_id:
            return None
        address = address.decapsulate(Multiaddr(f"/p2p/{peer_id}"))
    elif names[2:]:
        return None
    hosts = ("ip4", "ip6", "dns", "dns4", "dns6")
    return address if len(names) >= 2 and names[0] in hosts and names[1] == "tcp" else None


def parse_circuit_address(text: str, peer_id: str) -> CircuitAddress | None:
    """Return an address through a relay, or None where it is none of that peer, or the relay could not be dialled."""
    relay, circuit, peer = text.partition("/p2p-circuit")
    relay_address, _, relay_id = relay.rpartition("/p2p/")
    if not circuit or peer not in ("", f"/p2p/{peer_id}") or relay_id == peer_id:
        return None
    target = dialable(relay, relay_id)
    if target is None or str(target) != relay_address:
        return None
    return CircuitAddress(relay_address, relay_id, peer_id)


def circuits_by_relay(texts: Sequence[str], peer_id: str) -> dict[str, list[CircuitAddress]]:
    """Return a peer's circuit addresses through each of its first relays, by the relay's peer id."""
    found: dict[str, list[CircuitAddress]] = {}
    for text in texts:
        circuit = parse_circuit_address(text, peer_id)
        if circuit is not None and (circuit.relay_id in found or len(found) < CIRCUITS_PER_PEER_MAX):
            found.setdefault(circuit.relay_id, []).append(circuit)
    return found


def relay_addresses(encoded: Sequence[bytes], relay_id: str) -> list[str]:
    """Return those of a relay's addresses, as it told them, that could be dialled, public ones first, without
    its peer id.
    """
    texts = []
    for data in encoded[:ADDRESSES_PER_PEER_MAX]:
        address = _parse(data)
        target = address and dialable(str(address), relay_id)
        if target:
            texts.append(str(target))
    return sorted(dict.fromkeys(texts), key=_is_private)


def _is_private(address: str) -> bool:
    try:
        return not ipaddress.ip_address(address.split("/")[2]).is_global
    except ValueError:
        # A name: somebody gave it to be found by.
        return False


def reachable_addresses(bound: Sequence[Multiaddr]) -> list[str]:
    """Return addresses with 0.0.0.0 and :: replaced by this machine's own, loopback only where there is no
    other.
    """
    expanded: list[str] = []
    for address in bound:
        version = address.protocols()[0].name
        host, port = str(address.value_for_protocol(version)), address.value_for_protocol("tcp")
        hosts = _interface_hosts(version) if ipaddress.ip_address(host).is_unspecified else [host]
        expanded += [f"/{version}/{host}/tcp/{port}" for host in hosts]
    return list(dict.fromkeys(expanded))


def _interface_hosts(version: str) -> list[str]:
    hosts = [str(host).partition("%")[0] for host in get_network_addrs(4 if version == "ip4" else 6)]
    useful = [host for host in hosts if not ipaddress.ip_address(host).is_link_local]
    return [host for host in useful if not ipaddress.ip_address(host).is_loopback] or useful


def _parse(address: str | bytes) -> Multiaddr | None:
    try:
        parsed = Multiaddr(address)
        # Bytes are not looked at before.
        str(parsed)
        return parsed
    except Exception:
        # The package raises half a dozen kinds, ValueError and KeyError among them, for what is no address.
        return None
