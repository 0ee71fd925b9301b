"""What a node's surroundings mean for its mesh, in plain words: who can reach it, and what would help."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from sedmad.core.reaching.behaviour import Behaviour, Dependence, presumed
from sedmad.core.reaching.pairs import punch_works


class Reach(StrEnum):
    """How others come to a node.

    `dialled`: by its address. `punched`: directly, where the other's NAT allows. `relayed`: over another node only.
    `offline`: nobody was heard. `unknown`: too little was found out.
    """

    DIALLED = "dialled"
    PUNCHED = "punched"
    RELAYED = "relayed"
    OFFLINE = "offline"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What is known of the network around a node.

    Attributes:
        udp, tcp: what its NATs and firewalls do.
        asked: how many servers and peers were asked; 0: nobody is known.
        answered: how many of them answered, by whatever protocol.
        is_translated: servers see another address than this machine's; None where none told.
        mapped_address: where a gateway that maps ports on request is outside, None where there is none; empty where
            nobody on the internet can dial it.
    """

    udp: Behaviour
    tcp: Behaviour
    asked: int
    answered: int
    is_translated: bool | None = None
    mapped_address: str | None = None


@dataclass(frozen=True, slots=True)
class Meaning:
    """A plain sentence or two.

    Attributes:
        reach: the same in a word.
        sentence: who can reach this node, and how.
        advice: what would help; empty where nothing is needed.
    """

    reach: Reach
    sentence: str
    advice: str = ""


_OPEN_PORT = (
    "switch on UPnP or NAT-PMP in the router, or forward the port of this node there and name it with"
    " --announce"
)
_NAME_SERVER = (
    'Name a STUN server in config.toml, stun = ["HOST:PORT"], or with: sedmad netcheck --stun HOST:PORT'
)
# What most routers of homes do, and what those of offices and carriers do.
_COMMON = Behaviour(Dependence.ENDPOINT_INDEPENDENT, Dependence.ADDRESS_AND_PORT)
_STRICTEST = Behaviour(Dependence.ADDRESS_AND_PORT, Dependence.ADDRESS_AND_PORT)


def meaning_of(found: Surroundings) -> Meaning:
    """Return what was found in plain words."""
    meaning = _meaning_of(found)
    if found.udp.mapping is Dependence.BLOCKED:
        blocked = "UDP is blocked here: WebRTC cannot be used, TCP can."
        return Meaning(meaning.reach, f"{meaning.sentence} {blocked}", meaning.advice)
    return meaning


def _meaning_of(found: Surroundings) -> Meaning:
    if found.asked and not found.answered:
        return Meaning(
            Reach.OFFLINE,
            "None of those that were asked answered: this machine seems to be cut off.",
            "Check its network, and that the servers that were asked are right.",
        )
    behaviour = presumed(found.tcp, found.udp)
    if found.is_translated is False:
        return _untranslated(behaviour)
    if found.mapped_address:
        return Meaning(
            Reach.DIALLED,
            f"The router maps ports on request: all nodes can dial this one at {found.mapped_address}.",
        )
    if not found.asked:
        return Meaning(Reach.UNKNOWN, "Nobody is known who could tell how this node is seen.", _NAME_SERVER)
    if found.is_translated is None:
        return Meaning(Reach.UNKNOWN, "No server told under which address it sees this node.", _NAME_SERVER)
    return _behind_nat(behaviour, second_nat=found.mapped_address == "")


def _untranslated(behaviour: Behaviour) -> Meaning:
    if behaviour.filtering is Dependence.ENDPOINT_INDEPENDENT:
        return Meaning(Reach.DIALLED, "This machine has a public address: all nodes can dial it.")
    if behaviour.filtering is Dependence.UNKNOWN:
        return Meaning(
            Reach.DIALLED,
            "This machine has a public address: all nodes can dial it unless a firewall is in the way.",
        )
    return Meaning(
        Reach.PUNCHED,
        "This machine has a public address, and a firewall that admits answers only: other nodes reach it directly once"
        " both send at the same time.",
        "To have it dialled, open the port of this node in the firewall.",
    )


def _behind_nat(behaviour: Behaviour, *, second_nat: bool) -> Meaning:
    help_ = (
        "There is a second NAT behind the router, often the provider's: a public IPv4 address or IPv6 from the provider"
        " would help."
        if second_nat
        else f"To be dialled by all: {_OPEN_PORT}."
    )
    with_common, with_strictest = (punch_works(behaviour, other) for other in (_COMMON, _STRICTEST))
    if with_strictest:
        sentence = (
            "This node is behind a NAT that can be punched from everywhere: all nodes reach it directly."
        )
        return Meaning(Reach.PUNCHED, sentence)
    if with_common:
        return Meaning(
            Reach.PUNCHED,
            "This node is behind a NAT that can be punched: nodes reach it directly, except those whose NAT maps every"
            " connection to another port (symmetric); those stay relayed.",
            help_,
        )
    if with_common is False:
        return Meaning(
            Reach.RELAYED,
            "This node is behind a NAT that maps every connection to another port (symmetric): only nodes that can be"
            " dialled, or whose NAT admits any port of an address, reach it directly; all others stay relayed.",
            help_,
        )
    return Meaning(
        Reach.UNKNOWN,
        "This node is behind a NAT, and it is not known whether it can be punched.",
        "A STUN server with two addresses (RFC 5780), as a public node with two is, could tell.",
    )
