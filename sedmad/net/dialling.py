"""Keeps peers connected: waits while a stream carries a session, dials where none does, backs off where that fails."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable

import structlog
import trio

from sedmad.errors import CertificateInvalid, SedmadError
from sedmad.net.kept_peer import KeptPeer
from sedmad.net.rate_limit import RateLimit
from sedmad.net.session import Session

log = structlog.get_logger("sedmad.net")

# The higher peer id leaves the first word to the lower one, and speaks up if nothing came.
YIELD_S = 0.5


class Dialler:
    """Dials for all sessions of a node.

    Args:
        own_peer_id: this node's.
        open_session: opens a stream to a peer and carries its session over it until that breaks.
        find: returns the session with a peer, if one is remembered.
        rng: jitter.
    """

    def __init__(
        self,
        own_peer_id: str,
        open_session: Callable[[str, KeptPeer], Awaitable[None]],
        find: Callable[[str], Session | None],
        rng: random.Random,
    ) -> None:
        self._own_peer_id = own_peer_id
        self._open_session = open_session
        self._find = find
        self._rng = rng
        self._refusals = RateLimit(rate_per_s=1 / 60, burst=5)

    def yields_to(self, peer_id: str) -> bool:
        """Whether the other side's stream stays where both dial at once."""
        return peer_id < self._own_peer_id

    async def keep_connected(self, peer_id: str, kept: KeptPeer) -> None:
        """Keep a session with a peer on a stream until it is kept no longer."""
        with kept.scope:
            if self.yields_to(peer_id) and self._find(peer_id) is None:
                await trio.sleep(YIELD_S * self._rng.uniform(0.0, 0.4))
            while True:
                began = trio.current_time()
                if session := self._attached(peer_id):
                    began = session.carried_since
                    await session.detached.wait()
                    if self.yields_to(peer_id):
                        await trio.sleep(YIELD_S)
                else:
                    await self._try_open(peer_id, kept)
                if self._attached(peer_id) is None:
                    carried_s = self._carried_s(peer_id, began)
                    await kept.back_off(carried_s, self._rng, resuming=self._find(peer_id) is not None)

    def _attached(self, peer_id: str) -> Session | None:
        session = self._find(peer_id)
        return session if session and session.is_attached else None

    def _carried_s(self, peer_id: str, since: float) -> float:
        """Return how long the last stream carried a session; 0 where none has begun to since a time."""
        session = self._find(peer_id)
        if session is None or session.detached_at is None or session.carried_since < since:
            return 0.0
        return session.detached_at - session.carried_since

    async def _try_open(self, peer_id: str, kept: KeptPeer) -> None:
        try:
            await self._open_session(peer_id, kept)
        except CertificateInvalid as error:
            # Nothing else would say why this node stays alone.
            if self._refusals.allow(trio.current_time()):
                log.warning("certificate_refused", peer=peer_id, why=str(error))
        except SedmadError as error:
            log.debug("dial_failed", peer=peer_id, why=str(error))
        except Exception:
            # A bug behind one peer must not end the sessions with all others.
            log.exception("dial_failed", peer=peer_id)
