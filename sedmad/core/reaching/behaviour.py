"""What a NAT does with one protocol, in the words of RFC 4787 (UDP) and RFC 5382 (TCP), out of what servers observed.

Mapping: which external endpoint a socket gets, and whether it is another one for other destinations. Filtering: whose
packets come in by it. Firewalls without translation are filters too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import combinations

# Host and port, the host as text in its canonical form.
Place = tuple[str, int]


class Dependence(StrEnum):
    """On what of a remote endpoint a NAT's choice depends."""

    ENDPOINT_INDEPENDENT = "endpoint-independent"
    ADDRESS = "address-dependent"
    ADDRESS_AND_PORT = "address-and-port-dependent"
    UNKNOWN = "unknown"
    BLOCKED = "blocked"


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How the way from a machine to the internet treats one protocol.

    Attributes:
        mapping: on what a socket's external endpoint depends.
        filtering: on what it depends who may send to it. Nobody is admitted to whom nothing was sent, unless it is
            endpoint-independent.
    """

    mapping: Dependence = Dependence.UNKNOWN
    filtering: Dependence = Dependence.UNKNOWN


@dataclass(frozen=True, slots=True)
class Sighting:
    """One server's observation of a socket.

    Attributes:
        server: whom the socket spoke to.
        mapped: where the server saw it.
    """

    server: Place
    mapped: Place


@dataclass(frozen=True, slots=True)
class Admission:
    """Whether answers came in from where nothing was sent to (RFC 5780, section 4.4); None where it was not tried.

    Attributes:
        from_other_port: of an address that was spoken to.
        from_other_address: from an address and a port that were not.
    """

    from_other_port: bool | None = None
    from_other_address: bool | None = None


def mapping_of(sightings: Sequence[Sighting]) -> Dependence:
    """Return how a socket was mapped (RFC 5780, section 4.3).

    Args:
        sightings: of one socket. Whatever cannot be told from them counts as the stricter: whoever foresees no port
            for another address foresees none for another port.
    """
    pairs = list(combinations(sightings, 2))
    if any(one.server[0] == other.server[0] and one.mapped != other.mapped for one, other in pairs):
        return Dependence.ADDRESS_AND_PORT
    across = [(one, other) for one, other in pairs if one.server[0] != other.server[0]]
    if not across:
        return Dependence.UNKNOWN
    if all(one.mapped == other.mapped for one, other in across):
        return Dependence.ENDPOINT_INDEPENDENT
    same_address = any(
        one.server[0] == other.server[0] and one.server != other.server for one, other in pairs
    )
    return Dependence.ADDRESS if same_address else Dependence.ADDRESS_AND_PORT


def filtering_of(admission: Admission) -> Dependence:
    """Return whose packets came in."""
    if admission.from_other_address:
        return Dependence.ENDPOINT_INDEPENDENT
    if admission.from_other_address is None or admission.from_other_port is None:
        return Dependence.UNKNOWN
    return Dependence.ADDRESS if admission.from_other_port else Dependence.ADDRESS_AND_PORT


def behaviour_of(
    sightings: Sequence[Sighting], admission: Admission, *, silent: bool, others_answer: bool
) -> Behaviour:
    """Return how one protocol is treated.

    Args:
        sightings: of one socket.
        admission: whose answers came in.
        silent: servers were asked by this protocol, and none answered.
        others_answer: servers, or peers, answered by another protocol: the network is there.
    """
    if silent and others_answer:
        return Behaviour(Dependence.BLOCKED, Dependence.BLOCKED)
    return Behaviour(mapping_of(sightings), filtering_of(admission))


def presumed(known: Behaviour, other: Behaviour) -> Behaviour:
    """Return a protocol's behaviour with what is not known of it taken from another's: most NATs treat both alike.

    That nothing passes is not taken over.
    """
    return Behaviour(
        _known(known.mapping, other.mapping),
        _known(known.filtering, other.filtering),
    )


def _known(word: Dependence, other: Dependence) -> Dependence:
    return other if word is Dependence.UNKNOWN and other is not Dependence.BLOCKED else word
