"""Every number that membership can be tuned by, with the presets for one building and for the Internet.

Timing follows hashicorp/memberlist's LAN and WAN presets (SWIM with Lifeguard, arXiv 1707.00788). Where this
protocol differs, the comment says why.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class MembershipSettings:
    probe_interval_s: float = 1.0
    probe_timeout_s: float = 0.5  # then others are asked to probe for us
    indirect_probes: int = 3
    suspicion_multiplier: int = 4
    suspicion_maximum_multiplier: int = 6
    awareness_maximum: int = 8
    gossip_interval_s: float = 0.2  # only while there is urgent news; the rest rides on probes
    gossip_fanout: int = 3
    retransmit_multiplier: int = 4
    anti_entropy_interval_s: float = 10.0  # memberlist: 30; ours sends digests, not the whole state
    anti_entropy_busy_interval_s: float = 1.0  # while the last round still brought something new
    advert_interval_s: float = 10.0
    advert_spacing_s: float = 1.0  # a load that changes all the time is told once a second
    refutation_spacing_s: float = 0.2  # an accuser costs us no more than five signatures a second
    dead_probe_interval_s: float = 5.0  # so that the halves of a split find each other again within seconds
    forget_dead_after_s: float = 900.0  # long enough to be seen by people
    clock_skew_warning_s: float = (
        30.0  # adverts are up to 10 s old when they arrive; certificates tolerate 2 h
    )
    bytes_per_second: int = (
        64 << 10
    )  # all that one node sends for membership: 0.5 Mbit/s, bearable for any uplink
    message_bytes_maximum: int = 48 << 10  # one frame; never holds up a product for long

    def suspicion_minimum_s(self, members: int) -> float:
        """Time until a well-confirmed suspect is dead: multiplier * max(1, log10(N + 1)) * interval."""
        return self.suspicion_multiplier * max(1.0, math.log10(members + 1)) * self.probe_interval_s

    def suspicion_maximum_s(self, members: int) -> float:
        """Time until a suspect that nobody else confirms is dead."""
        return self.suspicion_maximum_multiplier * self.suspicion_minimum_s(members)

    def confirmations_needed(self, members: int) -> int:
        """Number of further accusers that bring the time-out down to its minimum; 0 where peers are too few.

        Neither the suspect nor this node, which accuses already, can confirm.
        """
        wanted = self.suspicion_multiplier - 2
        return wanted if members - 2 >= wanted else 0

    def retransmissions(self, members: int) -> int:
        """How often a node tells a piece of news: multiplier * ceil(log10(N + 1)), SWIM's lambda log N."""
        return self.retransmit_multiplier * math.ceil(math.log10(members + 1))


LAN = MembershipSettings()
WAN = MembershipSettings(
    probe_interval_s=5.0,
    probe_timeout_s=3.0,
    suspicion_multiplier=6,
    gossip_interval_s=0.5,
    gossip_fanout=4,
    anti_entropy_interval_s=20.0,
    anti_entropy_busy_interval_s=2.0,
    advert_interval_s=30.0,
    dead_probe_interval_s=15.0,
    clock_skew_warning_s=60.0,
)
