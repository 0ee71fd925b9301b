"""How others reach this node."""

from __future__ import annotations

from sedmad.core.reaching.sentence import Reach
from sedmad.node.checks.subject import Subject
from sedmad.node.checks.verdict import Finding, Grade, not_checked, ok, warn

_GRADES = {
    Reach.DIALLED: Grade.OK,
    Reach.PUNCHED: Grade.OK,
    Reach.RELAYED: Grade.WARN,
    Reach.UNKNOWN: Grade.WARN,
    Reach.OFFLINE: Grade.FAIL,
}


async def check_reachability(subject: Subject) -> Finding:
    """Say what the network around this machine means for it."""
    meaning = (await subject.network()).meaning
    return Finding(_GRADES[meaning.reach], meaning.sentence, meaning.advice)


async def check_relay(subject: Subject) -> Finding:
    """Say whether there is a node that can be dialled, over which others come to this one."""
    network = await subject.network()
    if network.meaning.reach is Reach.DIALLED:
        return ok("none is needed: this node can be dialled")
    status = await subject.status()
    if isinstance(status, str):
        return not_checked(status)
    if not status.peers:
        return ok("there is no other node yet")
    answered = [(peer.rtt_s, peer.peer.name) for peer in network.findings.peers if peer.rtt_s is not None]
    if not answered:
        return warn(
            "no node of the mesh can be dialled from here",
            "Have one node with a public address, or forward its port and start it with --announce.",
        )
    rtt_s, nearest = min(answered)
    count = f"{len(answered)} node{'s' if len(answered) > 1 else ''}"
    return ok(f"{count} can be dialled, the nearest is {nearest} at {rtt_s * 1000:.1f} ms")
