"""Whether two nodes behind NATs can reach each other directly by sending to each other at the same time.

Each side sends from one socket to where a relay saw the other's (RFC 5128, section 3.3). It suffices that one side's
packet comes in: the answer to it goes back the way it came.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from sedmad.core.reaching.behaviour import Behaviour, Dependence

_KNOWN = (Dependence.ENDPOINT_INDEPENDENT, Dependence.ADDRESS, Dependence.ADDRESS_AND_PORT)


def punch_works(one: Behaviour, other: Behaviour) -> bool | None:
    """Return whether a hole punch can succeed between two nodes, None where too little is known to tell."""
    outcomes = {
        _passes(first, second) or _passes(second, first)
        for first, second in product(_completions(one), _completions(other))
    }
    return outcomes.pop() if len(outcomes) == 1 else None


def _passes(sender: Behaviour, receiver: Behaviour) -> bool:
    """Whether the sender's packet comes in at the endpoint where the relay saw the receiver, who sends as well."""
    if Dependence.BLOCKED in (sender.mapping, receiver.mapping, receiver.filtering):
        return False
    if receiver.filtering is Dependence.ENDPOINT_INDEPENDENT:
        return True
    if receiver.mapping is not Dependence.ENDPOINT_INDEPENDENT:
        # What it sends to us leaves by another endpoint, and the one that the relay saw admits the relay only.
        return False
    # It admits where it sends to: our address, and the port where the relay saw us, which may be another one here.
    return receiver.filtering is Dependence.ADDRESS or sender.mapping is Dependence.ENDPOINT_INDEPENDENT


def _completions(behaviour: Behaviour) -> Iterator[Behaviour]:
    """Yield every behaviour that it may be."""
    mappings = _KNOWN if behaviour.mapping is Dependence.UNKNOWN else (behaviour.mapping,)
    filterings = _KNOWN if behaviour.filtering is Dependence.UNKNOWN else (behaviour.filtering,)
    yield from (Behaviour(mapping, filtering) for mapping, filtering in product(mappings, filterings))
