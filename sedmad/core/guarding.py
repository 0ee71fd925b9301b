"""Owns which nodes take the places of guardians that are lost or leave, and when there should be more or fewer.

A set of guardians outlives the loss of all but a majority of its members. A change is worth a manifest only if the new
set outlives more losses than what is left of the present one, or as many without somebody who leaves: so a node that
comes and goes does not change the set each time.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from sedmad.core.offers import GUARDIAN_COUNTS, Offer
from sedmad.core.prediction import PeerState


def renew_guardians(
    guardians: Sequence[str],
    *,
    owner: str,
    states: Mapping[str, PeerState],
    lost: Collection[str],
    leaving: Collection[str],
    offers: Sequence[Offer],
) -> tuple[str, ...]:
    """Return who should guard a matrix from now on, its owner first: 1, 3 or 5; `guardians` if they should stay.

    Those of before who are neither lost nor leaving are preferred, then the nearest nodes, of different zones where
    possible. The owner stays in any case: only handing the matrix over ends that.
    """
    going = {peer_id for peer_id in (*lost, *leaving) if peer_id != owner}
    staying = [peer_id for peer_id in guardians if peer_id not in going]
    near = sorted(
        (
            offer
            for offer in offers
            if not offer.draining and offer.peer_id not in {*guardians, *going, owner}
        ),
        key=lambda offer: (offer.rtt_s, offer.peer_id),
    )
    count = next(count for count in GUARDIAN_COUNTS if count <= len({owner, *staying}) + len(near))
    better = _outlives(count, count) - _outlives(len(staying), len(guardians))
    somebody_leaves = any(peer_id in going and peer_id in leaving for peer_id in guardians)
    if better < 0 or (better == 0 and not somebody_leaves):
        return tuple(guardians)
    # Who does not answer just now is the first to go where there are too many.
    staying.sort(key=lambda peer_id: (peer_id != owner, states.get(peer_id) != "alive"))
    chosen = list(dict.fromkeys((owner, *staying)))[:count]
    zones = {offer.peer_id: offer.zone for offer in offers}
    taken = {zones.get(peer_id, "") for peer_id in chosen} - {""}
    while len(chosen) < count:
        best = next((offer for offer in near if offer.zone not in taken), near[0])
        near.remove(best)
        chosen.append(best.peer_id)
        taken |= {best.zone} - {""}
    return tuple(chosen)


def _outlives(standing: int, count: int) -> int:
    """Return how many more losses leave a majority of `count` guardians, of whom so many stand."""
    return standing - (count // 2 + 1)
