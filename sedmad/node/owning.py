"""Matrices whose owner died come to one of their guardians: drives the ownership core over sessions, disk and clock."""

from __future__ import annotations

import random
import secrets
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import structlog
import trio

from sedmad import failpoints
from sedmad.core.ownership import (
    Behind,
    Deposed,
    Event,
    Lost,
    Ownership,
    Promise,
    Standing,
    Surpassed,
    Vote,
    VoteAnswer,
    VoteRequest,
    Won,
)
from sedmad.errors import Overloaded, SedmadError, StaleManifest
from sedmad.net.calls import IncomingCall
from sedmad.net.identity import Identity
from sedmad.net.sessions import Sessions
from sedmad.node.clock import monotonic_s, wall_time_s
from sedmad.node.establishing import EstablishingService
from sedmad.node.holding import PUT_ID_BYTES
from sedmad.node.manifest import Manifest, read_manifest
from sedmad.node.manifests import KeptManifest, ManifestService
from sedmad.node.membership import MembershipService
from sedmad.node.replies import read_reply
from sedmad.node.succession import check_counters, key_from_wire, key_to_wire, succession
from sedmad.node.voting import (
    answer_to_wire,
    matrix_key,
    read_answer,
    sign_promise,
    standing_of,
    store_votes,
    stored_promises,
)
from sedmad.store.database import Database
from sedmad.store.manifests import ManifestKey
from sedmad.store.promises import StoredPromise
from sedmad.wire import messages as wire

if TYPE_CHECKING:
    # libp2p brings stubs that hide trio's own types, this one among them.
    from trio_typing import TaskStatus

log = structlog.get_logger("sedmad.owning")

PROMISE_VOTE = "sedma.v1.OwnershipService/PromiseVote"
VOTE_TIMEOUT_S = 5.0
# The core may ask for a time in the past; the loop turns at most this often.
STEP_S_MIN = 0.005
# Matrices that are written down at once, of the many that an owner may leave.
WINS_AT_ONCE = 8


class OwningService:
    """One node's part in passing matrices on; serves OwnershipService of the contract to members.

    Args:
        promised: what this node promised in earlier lives.
        compare_with: has a peer compare its manifests with ours, soon.
        on_won: called with a manifest by which this node became an owner, established or not yet.
    """

    def __init__(
        self,
        *,
        identity: Identity,
        database: Database,
        sessions: Sessions,
        membership: MembershipService,
        manifests: ManifestService,
        establishing: EstablishingService,
        rng: random.Random,
        promised: Iterable[StoredPromise],
        compare_with: Callable[[str], None],
        on_won: Callable[[Manifest], None],
    ) -> None:
        self._own_peer_id = identity.peer_id
        self._database = database
        self._sessions = sessions
        self._membership = membership
        self._manifests = manifests
        self._establishing = establishing
        self._compare_with = compare_with
        self._on_won = on_won
        self._wake = trio.Event()
        self._nursery: trio.Nursery | None = None
        self._storing = trio.Lock()
        self._winning = trio.CapacityLimiter(WINS_AT_ONCE)
        self._present: dict[str, bool] = {}
        # Calls that wait for the core's answer: those under way, which sessions bound.
        self._asked: dict[tuple[str, ManifestKey, int], trio.Event] = {}
        self._answers: dict[tuple[str, ManifestKey, int], VoteAnswer] = {}
        self.core = Ownership(
            self._own_peer_id,
            sign=lambda promise: sign_promise(promise, identity),
            rng=rng,
            promised=stored_promises(promised, self._own_peer_id),
        )

    async def run(self, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Let time pass for the core until cancelled."""
        for manifest in self._manifests.kept():
            self.on_kept(manifest)
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            task_status.started()
            while True:
                self._wake = trio.Event()
                timeout = self.core.next_timeout()
                deadline = float("inf") if timeout is None else max(timeout, monotonic_s() + STEP_S_MIN)
                with trio.CancelScope(deadline=deadline):
                    await self._wake.wait()
                self.core.handle_timeout(monotonic_s())
                await self._act()

    # What other services tell.

    def on_kept(self, manifest: Manifest) -> None:
        """A manifest came onto this node's disk, or was established, or ended its matrix."""
        if kept := self._manifests.get(manifest.key):
            self.core.keep(standing_of(kept), monotonic_s())
        else:
            self.core.forget(manifest.key, monotonic_s())
        self._wake.set()

    def on_peer(self, peer_id: str, *, up: bool) -> None:
        """Membership holds a peer for dead, or heard of it; one that drains is as good as gone."""
        if self._present.get(peer_id) == up:
            return
        self._present[peer_id] = up
        if up:
            self.core.peer_up(peer_id, monotonic_s())
        else:
            self.core.peer_down(peer_id, monotonic_s())
        self._wake.set()

    def on_refused(self, key: ManifestKey) -> None:
        """A peer refused a manifest of ours: it promised a later epoch to somebody, who may never have won."""
        kept = self._manifests.get_kept(key)
        if kept is not None and kept.owner == self._own_peer_id:
            self.core.reclaim(key, kept.epoch + 1, monotonic_s())
            self._wake.set()

    # What members ask.

    async def promise_vote(
        self, request: wire.PromiseVoteRequest, call: IncomingCall
    ) -> wire.PromiseVoteResponse:
        """Give this node's vote, or say why not."""
        if self._database.restored_from is not None:
            raise Overloaded(
                "this node gives no votes yet",
                why="its tables were damaged, and what it promised is forgotten; it asks others first",
                node=self._own_peer_id,
            )
        check_counters(request.epoch)
        key = key_from_wire(request.key)
        asked = (call.remote, key, request.epoch)
        if asked in self._asked:
            raise Overloaded("this vote is being asked for already", node=call.remote)
        self._asked[asked] = trio.Event()
        try:
            self.core.receive(call.remote, VoteRequest(key, request.epoch), monotonic_s())
            await self._act()
            await self._asked[asked].wait()
        finally:
            del self._asked[asked]
            answer = self._answers.pop(asked, None)
        if answer is None:
            raise StaleManifest("a vote was refused because there is news of the matrix")
        return answer_to_wire(answer, self._manifests.get(key))

    async def _act(self) -> None:
        """Do what the core wants: promises onto the disk first, then what they allow."""
        assert self._nursery is not None
        # One batch after the other: what a batch sends rests on the promises of those before.
        async with self._storing:
            outgoing = self.core.collect()
            broken = await self._store(outgoing.votes) if outgoing.votes else set()
            if outgoing.votes:
                failpoints.reach("owning.promised")
        for peer_id, message in outgoing.messages:
            if isinstance(message, VoteRequest):
                self._nursery.start_soon(self._ask, peer_id, message)
            else:
                asked = (peer_id, matrix_key(message.key), message.epoch)
                if asked in self._asked:
                    if message.vote is None or message.vote.promise not in broken:
                        self._answers[asked] = message
                    self._asked[asked].set()
        for event in outgoing.events:
            if not (isinstance(event, Won) and any(vote.promise in broken for vote in event.votes)):
                self._on_event(event)
        self._wake.set()

    async def _store(self, votes: tuple[Vote, ...]) -> set[Promise]:
        """Put promises on disk; return those that must not be given after all."""
        if self._database.restored_from is not None:
            return {vote.promise for vote in votes}
        try:
            return await self._database.write(partial(store_votes, votes=votes))
        except SedmadError as error:
            log.error("promises_not_stored", why=str(error))
            return {vote.promise for vote in votes}

    async def _ask(self, peer_id: str, request: VoteRequest) -> None:
        """Ask a guardian for its vote, and give the core its answer."""
        key = matrix_key(request.key)
        message = wire.PromiseVoteRequest(key=key_to_wire(key), epoch=request.epoch)
        try:
            encoded = await self._sessions.call(
                peer_id, PROMISE_VOTE, message, deadline=monotonic_s() + VOTE_TIMEOUT_S
            )
            response = read_reply(wire.PromiseVoteResponse, encoded, peer_id)
            answer = read_answer(response, key, request.epoch, peer_id)
        except SedmadError as error:
            log.info("vote_not_given", peer=peer_id, digest=key.matrix_digest.hex()[:16], why=error.what)
            return
        self.core.receive(peer_id, answer, monotonic_s())
        await self._act()

    def _on_event(self, event: Event) -> None:
        assert self._nursery is not None
        match event:
            case Won():
                self._nursery.start_soon(self._write_down, event)
            case Lost(key, epoch, ending):
                log.info("ownership_not_won", digest=_short(key), epoch=epoch, why=ending.value)
            case Deposed(key, standing):
                log.warning(
                    "ownership_passed_on", digest=_short(key), owner=standing.owner, epoch=standing.epoch
                )
            case Surpassed(_, standing):
                self._nursery.start_soon(self._keep, standing)
            case Behind(_, guardian, _):
                self._compare_with(guardian)

    async def _keep(self, standing: Standing) -> None:
        try:
            await self._manifests.keep(standing.manifest, established=standing.established)
        except SedmadError as error:
            log.info("manifest_not_taken", digest=_short(standing.key), why=str(error))

    async def _write_down(self, won: Won) -> None:
        """Become the owner: the newest manifest again, in a new epoch, with the votes as proof."""
        signed: wire.SignedManifest = won.standing.manifest
        newest = read_manifest(signed)
        link = succession(newest.guardianship, [vote.signature for vote in won.votes])
        manifest = replace(
            newest,
            owner=self._own_peer_id,
            epoch=won.epoch,
            seq=newest.seq + 1,
            successions=(*newest.successions, link),
            guardians_before=() if won.standing.established else newest.guardians_before,
            copies_established=won.standing.established or newest.copies_established,
            previous_digest=newest.digest,
            written_at_s=wall_time_s(),
        )
        async with self._winning, self._manifests.writing(newest.key):
            try:
                kept = await self._manifests.store_own(manifest)
                failpoints.reach("owning.won")
                log.warning("ownership_won", digest=_short(newest.key), epoch=won.epoch, before=newest.owner)
                await self._establish(kept)
            except SedmadError as error:
                # It stays what it is, in doubt: repair settles that, or another guardian wins it.
                log.warning("ownership_not_established", digest=_short(newest.key), why=str(error))
            self._on_won(manifest)

    async def _establish(self, kept: KeptManifest) -> None:
        """Establish a manifest that this node won.

        Where it may name copies that were given up with a change that failed, every living holder has to say that it
        has its own.
        """
        manifest, needed = kept.manifest, frozenset[str]()
        if not manifest.removed and not manifest.copies_established:
            living = {peer for peer in manifest.holders if self._membership.state_of(peer) == "alive"}
            needed = frozenset(living - {self._own_peer_id})
        # The id of no put: whoever is given it answers for all copies that the manifest gives it.
        await self._establishing.make_safe(
            kept, put_id=secrets.token_bytes(PUT_ID_BYTES) if needed else b"", needed=needed
        )
        await self._establishing.finish(kept)


def _short(key: object) -> str:
    return matrix_key(key).matrix_digest.hex()[:16]
