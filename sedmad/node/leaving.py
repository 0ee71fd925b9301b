"""`sedmad drain`: has this node or another one leave in good order, and tells how far it is."""

from __future__ import annotations

import trio

from sedmad.errors import NodeUnreachable, StateError, UsageError
from sedmad.net.calls import IncomingCall
from sedmad.net.sessions import Sessions
from sedmad.node.clock import monotonic_s
from sedmad.node.draining import DrainingService
from sedmad.node.membership import MembershipService
from sedmad.node.repairing import RepairingService
from sedmad.node.replies import read_reply
from sedmad.wire import messages as wire

LEAVE = "sedma.v1.LeavingService/Leave"
STAY = "sedma.v1.LeavingService/Stay"
ASK_TIMEOUT_S = 5.0
PROGRESS_S = 0.5
# With fewer, nobody may take over what a node owns.
OWNERS_MINIMUM = 3


class LeavingService:
    """Serves LeavingService of the contract to members, and DrainingService to clients."""

    def __init__(
        self,
        *,
        own_peer_id: str,
        sessions: Sessions,
        membership: MembershipService,
        draining: DrainingService,
        repairing: RepairingService,
    ) -> None:
        self._own_peer_id = own_peer_id
        self._sessions = sessions
        self._membership = membership
        self._draining = draining
        self._repairing = repairing

    # What members ask.

    async def leave(self, request: wire.LeaveRequest, call: IncomingCall) -> wire.LeaveResponse:
        """Decide that this node leaves, unless only its progress is asked for, and say what it still has."""
        return await self._leave(request)

    async def stay(self, request: wire.StayRequest, call: IncomingCall) -> wire.StayResponse:
        """Decide that this node stays."""
        await self._draining.cancel()
        return wire.StayResponse()

    # What clients ask.

    async def drain_node(self, request: wire.DrainNodeRequest, call: IncomingCall) -> wire.DrainNodeResponse:
        """Have a node leave, or stay after all; answers progress until it is empty. It goes on if the client goes.

        Raises:
            UsageError: no node, or several, are called so.
            NodeUnreachable: it does not answer.
            StateError: somebody else had it stay meanwhile.
        """
        peer_id = self._named(request.node)
        node = wire.NodeReference(peer_id=peer_id, name=self._membership.name_of(peer_id))
        if request.cancel:
            await self._have_stay(peer_id)
            return wire.DrainNodeResponse(node=node)
        left = await self._have_leave(peer_id, wire.LeaveRequest())
        while True:
            response = wire.DrainNodeResponse(node=node, left=left)
            if not left.copies_left and not left.owned_left:
                return response
            await call.send(response)
            await trio.sleep(PROGRESS_S)
            # Only asked: to begin again would undo what somebody decided since.
            left = await self._have_leave(peer_id, wire.LeaveRequest(only_progress=True))
            if left.stays:
                raise StateError(
                    f"{node.name} is not being emptied any more",
                    why="somebody decided that it stays, with: sedmad drain --cancel",
                    node=node.name,
                )

    def _named(self, node: str) -> str:
        """Return the peer id of a node by its name, or by the beginning of its peer id; "" is this node."""
        names = {self._own_peer_id: self._membership.core.advert.name}
        names |= {row.peer_id: row.advert.name for row in self._membership.peers()}
        if not node:
            return self._own_peer_id
        found = [peer_id for peer_id, name in names.items() if node == name or peer_id.startswith(node)]
        if len(found) != 1:
            known = ", ".join(sorted(names.values()))
            raise UsageError(
                f"{'several nodes are' if found else 'no node is'} called {node[:128]}",
                why=f"known are {known}",
                hint="Give more of its peer id; see: sedmad peers",
            )
        return found[0]

    async def _have_leave(self, peer_id: str, request: wire.LeaveRequest) -> wire.LeaveResponse:
        if peer_id == self._own_peer_id:
            return await self._leave(request)
        self._require_alive(peer_id)
        deadline = monotonic_s() + ASK_TIMEOUT_S
        encoded = await self._sessions.call(peer_id, LEAVE, request, deadline=deadline)
        return read_reply(wire.LeaveResponse, encoded, peer_id)

    async def _have_stay(self, peer_id: str) -> None:
        if peer_id == self._own_peer_id:
            await self._draining.cancel()
        else:
            self._require_alive(peer_id)
            deadline = monotonic_s() + ASK_TIMEOUT_S
            await self._sessions.call(peer_id, STAY, wire.StayRequest(), deadline=deadline)

    def _require_alive(self, peer_id: str) -> None:
        if self._membership.state_of(peer_id) == "dead":
            name = self._membership.name_of(peer_id)
            raise NodeUnreachable(
                f"{name} cannot be drained",
                why="it is dead: its copies are made again without it",
                node=name,
            )

    async def _leave(self, request: wire.LeaveRequest) -> wire.LeaveResponse:
        if not self._draining.is_draining and not request.only_progress:
            await self._draining.start()
        left = self._draining.left()
        return wire.LeaveResponse(
            copies_left=left.copies,
            bytes_left=left.bytes,
            owned_left=left.owned,
            waiting_for=self._waiting_for(left.owned, left.owners),
            stays=not self._draining.is_draining,
        )

    def _waiting_for(self, owned: int, owners: frozenset[str]) -> str:
        lines = []
        others: dict[bool, list[str]] = {True: [], False: []}
        for peer_id in owners - {self._own_peer_id}:
            others[self._membership.state_of(peer_id) == "dead"].append(self._membership.name_of(peer_id))
        if dead := ", ".join(sorted(others[True])):
            lines.append(f"{dead} would have to move copies, and does not answer")
        if living := ", ".join(sorted(others[False])):
            # Only an owner knows what it has no room for.
            lines.append(f"{living} moves copies; sedmad status says there if something is in the way")
        staying = sum(
            row.state == "alive" and row.advert.state == "ready" for row in self._membership.peers()
        )
        if owned and staying + 1 < OWNERS_MINIMUM:
            lines.append(
                f"{owned} matrices are owned here, and a mesh of fewer than {OWNERS_MINIMUM} nodes passes none on"
            )
        lines += sorted({report.waiting_for for report in self._repairing.status().waiting} - {""})
        return "\n".join(lines)
