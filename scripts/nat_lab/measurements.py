"""What is measured in the lab: how NATs behave, in the words of RFC 4787 and RFC 5382, and what ways are like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nat_lab.rules import Dependence, Ports


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What a NAT was seen to do with one protocol; with nothing but None where it lets none of that out.

    Args:
        mapping: on what the external port depends.
        filtering: on what it depends who may send to it.
        external_ports: of one socket, as three endpoints see it: two ports of an address, and another address.
        preserves_port: the first of them is the internal one.
        hairpin: a neighbour in the LAN reaches it; None where there is no neighbour.
        admits_unsolicited: what nobody asked for gets in.
    """

    mapping: Dependence | None = None
    filtering: Dependence | None = None
    external_ports: tuple[int, ...] = ()
    preserves_port: bool | None = None
    hairpin: bool | None = None
    admits_unsolicited: bool = False

    @property
    def passes(self) -> bool:
        """Whether the protocol gets out at all."""
        return self.mapping is not None

    @property
    def ports(self) -> Ports | None:
        """How external ports relate to internal ones."""
        if self.mapping is None:
            return None
        if self.mapping is not Dependence.ENDPOINT_INDEPENDENT:
            return Ports.RANDOM
        return Ports.PRESERVED if self.preserves_port else Ports.SHIFTED


@dataclass(frozen=True, slots=True)
class Sounding:
    """What a way from one host to another was measured to be like.

    Args:
        there_ms, back_ms: the delays of packets that went alone, in order; those that were lost are left out.
        sent, received: packets of a burst.
        burst_s: from its first packet sent to its last received.
        burst_mbit_per_s: of the frames that came.
    """

    there_ms: list[float]
    back_ms: list[float]
    sent: int
    received: int
    burst_s: float
    burst_mbit_per_s: float


def mapping_of(external_ports: Sequence[int]) -> Dependence:
    """Return on what a mapping depends, by what two ports of an address, and another address see."""
    first, other_port, other_address = external_ports
    if first == other_port == other_address:
        return Dependence.ENDPOINT_INDEPENDENT
    return Dependence.ADDRESS if first == other_port else Dependence.ADDRESS_AND_PORT


def filtering_of(*, from_other_port: bool, from_other_address: bool) -> Dependence:
    """Return on what a filter depends, by who gets through besides the endpoint that was spoken to."""
    if from_other_address:
        return Dependence.ENDPOINT_INDEPENDENT
    return Dependence.ADDRESS if from_other_port else Dependence.ADDRESS_AND_PORT


def behaviours_of(document: Mapping[str, Mapping[str, Any]]) -> dict[str, Behaviour]:
    """Return behaviours by protocol, from the JSON that probing prints."""
    return {protocol: _behaviour(values) for protocol, values in document.items()}


def _behaviour(values: Mapping[str, Any]) -> Behaviour:
    dependences = {name: values[name] and Dependence(values[name]) for name in ("mapping", "filtering")}
    return Behaviour(**{**values, **dependences, "external_ports": tuple(values["external_ports"])})
