"""Calls between simulated nodes, as sessions carry them: sent until answered, done once in a life, and lost with it."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from sedmad.errors import DeadlineExceeded, NodeUnreachable, SedmadError, SessionLost
from sedmad.testing.tasks import Outcome, Tasks

Handler = Callable[..., Awaitable[Any]]

RESEND_S = 1.0


@dataclass(frozen=True, slots=True)
class Request:
    """What a caller's life asks of one life of a peer; a later one does not know the session."""

    number: int
    caller_life: int
    life: int
    method: str
    arguments: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    number: int
    caller_life: int
    life: int
    value: Any
    error: SedmadError | None

    def __str__(self) -> str:
        return f"{self.value!r} {type(self.error).__name__} {self.error}"


class Calls:
    """One node's calls, made and served, of one life.

    Args:
        life_of: which life of a peer a call reaches, its next one if it does not run.
        is_dead: whether a peer is held for dead, whose calls fail at once.
        handlers: what peers may ask, by name; called with the peer's id and the arguments.
    """

    def __init__(
        self,
        peer_id: str,
        life: int,
        tasks: Tasks,
        *,
        life_of: Callable[[str], int],
        is_dead: Callable[[str], bool],
    ) -> None:
        self.peer_id = peer_id
        self.handlers: dict[str, Handler] = {}
        self.outbox: list[tuple[str, Request | Answer]] = []
        self._life = life
        self._tasks = tasks
        self._life_of = life_of
        self._is_dead = is_dead
        self._numbers = itertools.count()
        self._open: dict[int, tuple[str, Outcome[Any]]] = {}
        # Of every request of this life, as few as a run has; None while it is under way.
        self._answers: dict[tuple[str, int, int], Answer | None] = {}

    async def call(self, peer_id: str, method: str, *arguments: Any, timeout_s: float) -> Any:
        """Return what a peer, or this node itself, answers; raise what it raises.

        Raises:
            NodeUnreachable: it is dead. DeadlineExceeded, SessionLost: whether it was done, nobody knows.
        """
        if peer_id == self.peer_id:
            return await self.handlers[method](peer_id, *arguments)
        if self._is_dead(peer_id):
            raise NodeUnreachable(f"{peer_id} is dead")
        number, outcome = next(self._numbers), Outcome[Any](self._tasks)
        request = Request(number, self._life, self._life_of(peer_id), method, arguments)
        self._open[number] = peer_id, outcome
        deadline = self._tasks.now + timeout_s

        def send() -> None:
            if outcome.done:
                return
            if self._tasks.now >= deadline:
                outcome.fail(DeadlineExceeded(f"{peer_id} did not answer {method}"))
                return
            self.outbox.append((peer_id, request))
            self._tasks.call_later(min(RESEND_S, deadline - self._tasks.now), send)

        send()
        try:
            return await outcome
        finally:
            del self._open[number]

    def hold_for_dead(self, peer_id: str) -> None:
        """Fail what a peer was asked."""
        for asked, outcome in list(self._open.values()):
            if asked == peer_id:
                outcome.fail(NodeUnreachable(f"{peer_id} is dead"))

    def receive(self, sender: str, message: Request | Answer) -> None:
        if isinstance(message, Answer):
            if message.caller_life == self._life and message.number in self._open:
                _, outcome = self._open[message.number]
                if message.error is None:
                    outcome.set(message.value)
                else:
                    outcome.fail(message.error)
            return
        if message.life != self._life:
            lost = SessionLost(f"{self.peer_id} started again")
            self._send(sender, Answer(message.number, message.caller_life, self._life, None, lost))
            return
        known = (sender, message.caller_life, message.number)
        if known not in self._answers:
            self._answers[known] = None
            self._tasks.spawn(self._serve(sender, message))
        elif (answer := self._answers[known]) is not None:
            self._send(sender, answer)

    async def _serve(self, sender: str, request: Request) -> None:
        value, error = None, None
        try:
            value = await self.handlers[request.method](sender, *request.arguments)
        except SedmadError as raised:
            error = raised
        answer = Answer(request.number, request.caller_life, self._life, value, error)
        self._answers[sender, request.caller_life, request.number] = answer
        self._send(sender, answer)

    def _send(self, sender: str, answer: Answer) -> None:
        self.outbox.append((sender, answer))
