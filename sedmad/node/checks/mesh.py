"""What the other nodes say of this one: their clocks and their versions."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import median

from sedmad.durations import format_duration
from sedmad.net.certificates import CLOCK_TOLERANCE_S
from sedmad.node.checks.subject import Subject
from sedmad.node.checks.verdict import Finding, fail, not_checked, ok, warn
from sedmad.node.clock import CLOCK_SKEW_WARNING_S
from sedmad.version import __version__
from sedmad.wire.messages import PeerState, PeerSummary

_SET_CLOCK = "have it set over the network: timedatectl set-ntp true"


async def check_clock(subject: Subject) -> Finding:
    """Compare this node's clock with its peers'."""
    status = await subject.status()
    if isinstance(status, str):
        return not_checked(status)
    skews = {peer.name: peer.clock_skew_s for peer in _living(status.peers) if peer.HasField("clock_skew_s")}
    if not skews:
        return ok("no other node to compare the clock with")
    typical_s = median(skews.values())
    if abs(typical_s) > CLOCK_SKEW_WARNING_S and len(skews) > 1:
        text = f"this node's clock is {_apart(-typical_s)} those of most others"
        grade = fail if abs(typical_s) > CLOCK_TOLERANCE_S else warn
        return grade(text, f"On this machine {_SET_CLOCK}")
    name, worst_s = max(skews.items(), key=lambda item: abs(item[1]))
    if abs(worst_s) > CLOCK_SKEW_WARNING_S:
        return warn(
            f"the clock of {name} is {_apart(worst_s)} this node's", f"On the one that is wrong {_SET_CLOCK}"
        )
    return ok(f"within {abs(worst_s):.1f} s of {len(skews)} other{'s' if len(skews) > 1 else ''}")


async def check_versions(subject: Subject) -> Finding:
    """Compare versions: of this command with its daemon's, and of the daemon with its peers'."""
    status = await subject.status()
    if isinstance(status, str):
        return not_checked(status)
    if status.software_version != __version__:
        return warn(
            f"the daemon is {status.software_version}, this command {__version__}",
            "Stop the daemon and start it again.",
        )
    others = {
        peer.name: peer.software_version
        for peer in _living(status.peers)
        if peer.software_version not in ("", __version__)
    }
    if others:
        name, version = min(others.items())
        more = f", and {len(others) - 1} more differ" if len(others) > 1 else ""
        return warn(
            f"this node has {__version__}, {name} {version}{more}",
            "Install one version on all nodes.",
        )
    return ok(f"{__version__} everywhere")


def _living(peers: Iterable[PeerSummary]) -> list[PeerSummary]:
    return [peer for peer in peers if peer.state != PeerState.PEER_STATE_DEAD]


def _apart(seconds: float) -> str:
    """Return '1h 0m ahead of' or '40s behind'."""
    return f"{format_duration(abs(seconds))} {'ahead of' if seconds > 0 else 'behind'}"
