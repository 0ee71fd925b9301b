"""Membership: gossip of adverts and names, failure detection, the directory (SWIM with Lifeguard, bounded).

Read `membership.py` first: it ties the other modules together. `roster.py` holds what is believed of peers,
`directory.py` what names mean; both can be merged in any order. `heartbeat.py` probes, `spreading.py` tells
news, `anti_entropy.py` finds what was missed. `settings.py` has every number.
"""

from __future__ import annotations

from sedmad.core.membership.advert import Advert, NodeState, first_sequence
from sedmad.core.membership.claim import Claim, check_name, short_id
from sedmad.core.membership.directory import Directory
from sedmad.core.membership.events import (
    AdvertChanged,
    ClaimChanged,
    ClaimRefused,
    ClockSkewed,
    Event,
    Outgoing,
    OwnAdvertSurpassed,
    PeerAlive,
    PeerDead,
    PeerForgotten,
    PeerJoined,
    PeerSuspected,
)
from sedmad.core.membership.membership import Membership, PeerRow
from sedmad.core.membership.messages import (
    Digests,
    Gossip,
    IndirectAnswer,
    IndirectProbe,
    Inventory,
    Message,
    Probe,
    ProbeAnswer,
)
from sedmad.core.membership.record import Record, SignedRecord
from sedmad.core.membership.roster import PeerState
from sedmad.core.membership.rumour import Rumour
from sedmad.core.membership.settings import LAN, WAN, MembershipSettings
from sedmad.core.membership.view import FullView, View

__all__ = [
    "LAN",
    "WAN",
    "Advert",
    "AdvertChanged",
    "Claim",
    "ClaimChanged",
    "ClaimRefused",
    "ClockSkewed",
    "Digests",
    "Directory",
    "Event",
    "FullView",
    "Gossip",
    "IndirectAnswer",
    "IndirectProbe",
    "Inventory",
    "Membership",
    "MembershipSettings",
    "Message",
    "NodeState",
    "Outgoing",
    "OwnAdvertSurpassed",
    "PeerAlive",
    "PeerDead",
    "PeerForgotten",
    "PeerJoined",
    "PeerRow",
    "PeerState",
    "PeerSuspected",
    "Probe",
    "ProbeAnswer",
    "Record",
    "Rumour",
    "SignedRecord",
    "View",
    "check_name",
    "first_sequence",
    "short_id",
]
