"""Whom to ask for a product: the routing core, fed with what membership, sessions and answers tell."""

from __future__ import annotations

import random
from collections import OrderedDict, defaultdict
from collections.abc import Iterable
from dataclasses import replace

from sedmad.core.estimates import Estimates
from sedmad.core.membership.advert import Advert
from sedmad.core.prediction import PeerEstimate, Work
from sedmad.core.routing import HedgeBudget, PartitionCopies, Route, late_after_s, route
from sedmad.errors import HoldersUnreachable
from sedmad.net.sessions import Sessions
from sedmad.node.clock import monotonic_s
from sedmad.node.manifest import Manifest
from sedmad.node.membership import MembershipService
from sedmad.node.share import Share, ShareResult
from sedmad.store.holdings import Kind
from sedmad.store.manifests import ManifestKey

# Partitions that standby copies answered for within this time are asked for: they should be resident first.
WANTED_S = 60.0
# Matrices of which that is known; more of them are not asked for at once by the clients of one node.
WANTED_MAX = 256
# A joined product of a full panel computes about this long.
FAR_RTT_S = 0.015


class Chooser:
    """Chooses holders, and learns from their answers."""

    def __init__(
        self, own_peer_id: str, membership: MembershipService, sessions: Sessions, rng: random.Random
    ) -> None:
        self._own_peer_id = own_peer_id
        self._membership = membership
        self._sessions = sessions
        self._rng = rng
        self._estimates = Estimates(own_peer_id)
        self._budget = HedgeBudget()
        # Holders that were late last; at most as many as there are peers with copies.
        self._silent: set[str] = set()
        # When a standby copy was asked last, by matrix and partition.
        self._wanted: OrderedDict[ManifestKey, dict[int, float]] = OrderedDict()

    def take_note(self, adverts: Iterable[Advert]) -> None:
        """Take up what nodes say of themselves, this one included."""
        now = monotonic_s()
        for advert in adverts:
            row = self._membership.row(advert.peer_id)
            self._estimates.advertised(
                advert.peer_id,
                gflops=advert.compute_gflops,
                memory_bandwidth_bytes_per_s=advert.memory_bandwidth_bytes_per_s,
                wait_s=advert.queue_s,
                memory_pressure=advert.memory_used_bytes / max(1, advert.memory_pledged_bytes),
                now=now,
                name=advert.name,
            )
            if row is not None and row.rtt_s is not None:
                self._estimates.rtt_measured(advert.peer_id, row.rtt_s, now)

    def shares(
        self,
        manifest: Manifest,
        work: Work,
        partitions: Iterable[int],
        tried: dict[int, set[str]],
        reason: str,
    ) -> list[Share]:
        """Return shares for those of the partitions that have a holder to ask that was not tried yet."""
        groups: dict[frozenset[str], list[int]] = defaultdict(list)
        for index in partitions:
            groups[frozenset(tried[index])].append(index)
        shares = []
        for avoid, group in groups.items():
            estimates = self._known_holders(manifest, group)
            askable = [
                index
                for index in group
                if any(
                    peer in estimates and peer not in avoid and estimates[peer].state in ("alive", "suspect")
                    for peer in manifest.copies[index]
                )
            ]
            if askable:
                copies = [_copies(manifest, index) for index in askable]
                chosen = route(copies, estimates, work, self._rng, avoid=avoid)
                shares += _to_shares(chosen, manifest, reason)
        self._note_wanted(manifest, shares)
        return shares

    def wanted(self, key: ManifestKey) -> frozenset[int]:
        """Return the partitions of a matrix that this node's clients asked standby copies for lately."""
        since_s = monotonic_s() - WANTED_S
        return frozenset(index for index, at in self._wanted.get(key, {}).items() if at > since_s)

    def _note_wanted(self, manifest: Manifest, shares: Iterable[Share]) -> None:
        standby = [
            index
            for share in shares
            for index in share.partitions
            if manifest.copies[index][share.peer_id] is Kind.STANDBY
        ]
        if standby:
            self._wanted.setdefault(manifest.key, {}).update(dict.fromkeys(standby, monotonic_s()))
            self._wanted.move_to_end(manifest.key)
            if len(self._wanted) > WANTED_MAX:
                self._wanted.popitem(last=False)

    def is_lost(self, manifest: Manifest, index: int) -> bool:
        """Whether all holders of a partition are dead: waiting for them is of no use."""
        return all(self._membership.state_of(peer) == "dead" for peer in manifest.copies[index])

    def unreachable(self, manifest: Manifest, partitions: list[int]) -> HoldersUnreachable:
        """Return the error that names partitions without a holder, and their holders."""
        estimates = {
            peer: replace(estimate, state="dead") if self._membership.state_of(peer) == "dead" else estimate
            for peer, estimate in self._known_holders(manifest, partitions).items()
        }
        everybody = manifest.holders
        try:
            route(
                [_copies(manifest, index) for index in partitions],
                estimates,
                Work.of(manifest.partitioning, 1),
                self._rng,
                avoid=everybody,
            )
        except HoldersUnreachable as error:
            error.node = ", ".join(
                sorted(
                    {
                        self._membership.name_of(peer)
                        for index in partitions
                        for peer in manifest.copies[index]
                    }
                )
            )
            return error
        raise AssertionError("everybody was to be avoided")

    def is_far(self, manifest: Manifest) -> bool:
        """Whether products spend longer on the way than two joined ones save: then two of them may be under way.

        Nearby, what waits is better joined: 24 columns together cost half of twice 12.
        """
        rows = (self._membership.row(peer) for peer in manifest.holders)
        return any(row is not None and (row.rtt_s or 0.0) > FAR_RTT_S for row in rows)

    def late_after_s(self, share: Share) -> float:
        """Return how long to wait for an answer before others are asked as well."""
        return late_after_s(share.predicted_s)

    def may_ask_twice(self, share: Share) -> bool:
        """Return whether others may be asked for a share that is late.

        A holder that is late again, and has answered nothing in between, counts as lost: that costs no budget.
        """
        lost = share.peer_id in self._silent
        self._silent.add(share.peer_id)
        return lost or self._budget.spend()

    def asked(self, share: Share) -> None:
        """Count what was asked."""
        self._budget.earn()
        self._estimates.sent(share.peer_id, monotonic_s())

    def answered(self, share: Share, work: Work, elapsed_s: float, result: ShareResult) -> None:
        """Learn from an answer."""
        self._silent.discard(share.peer_id)
        self._estimates.observe(
            share.peer_id,
            work,
            len(share.partitions),
            elapsed_s=elapsed_s,
            wait_s=result.wait_s,
            service_s=result.service_s,
            now=monotonic_s(),
        )

    def failed(self, share: Share) -> None:
        """Learn from an error."""
        self._estimates.failed(share.peer_id, monotonic_s())

    def withdrawn(self, share: Share) -> None:
        """An answer is no longer waited for."""
        self._estimates.withdrawn(share.peer_id, monotonic_s())

    def _known_holders(self, manifest: Manifest, partitions: Iterable[int]) -> dict[str, PeerEstimate]:
        holders = {peer for index in partitions for peer in manifest.copies[index]}
        estimates = self._estimates.estimates(holders, monotonic_s())
        for peer, estimate in estimates.items():
            if peer == self._own_peer_id:
                continue
            row = self._membership.row(peer)
            state = row.state if row else "dead"
            # Membership may not know yet, or be wrong: what has no connection cannot be asked.
            reachable = self._sessions.attached(peer) is not None
            estimates[peer] = replace(estimate, state=state if reachable else "unreachable")
        return estimates


def _copies(manifest: Manifest, index: int) -> PartitionCopies:
    copies = manifest.copies[index]
    return PartitionCopies(
        index,
        tuple(peer for peer, kind in copies.items() if kind is Kind.RESIDENT),
        tuple(peer for peer, kind in copies.items() if kind is Kind.STANDBY),
    )


def _to_shares(chosen: Route, manifest: Manifest, reason: str) -> list[Share]:
    shares = []
    for peer, indexes in chosen.assignments.items():
        resident = all(manifest.copies[index][peer] is Kind.RESIDENT for index in indexes)
        explored = any(index in chosen.explored for index in indexes)
        why = reason or (
            "exploration" if explored else "resident" if resident else "no resident copy answers"
        )
        shares.append(Share(peer, indexes, resident, chosen.predicted_s[peer], why))
    return shares
