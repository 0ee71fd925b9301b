"""Explores every state that a few nodes can get into, with messages lost, repeated and reordered at will.

Messages that were sent stay on the network for ever: one that is never delivered is lost, one that is
delivered twice was repeated. So a state is where every node is, and the set of what was ever sent; and a node
that crashes between storing and sending is one whose messages are lost.

Answers that say no are not kept on the network: they arrive at once or never. Messages that cannot matter to
their receiver any more are taken off it.

What a node does depends on where it is and on what comes, on nothing else. Its core is run once for each pair
of them and the outcome remembered, which makes it possible to run real cores rather than a copy of their
rules.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from enum import Enum
from typing import Any, Protocol

STATES_MAXIMUM = 5_000_000  # about 2 GiB, at some 450 bytes each; beyond that a system is too large for this


@dataclass(frozen=True, slots=True)
class Sent:
    """A message on the network."""

    sender: str
    receiver: str
    message: Any


class Explorable(Protocol):
    """What is explored: nodes, what may happen to each by itself, and a watcher of what must hold."""

    @property
    def nodes(self) -> Sequence[str]: ...

    def start(self, node: str) -> Any:
        """Return a node at its beginning."""
        ...

    def watcher(self) -> Any:
        """Return the watcher at its beginning."""
        ...

    def choices(self, node: Any) -> Sequence[Hashable]:
        """Return what may happen to a node without a message: a time-out, a write, a crash; not integers."""
        ...

    def happen(self, node: Any, choice: Hashable) -> Any:
        """Let it happen; return the node, which may be another object."""
        ...

    def receive(self, node: Any, sent: Sent) -> None:
        """Deliver a message."""
        ...

    def outcome(self, node: Any) -> tuple[Sequence[Sent], Sequence[Hashable]]:
        """Return what the node sent, and what the watcher has to hear."""
        ...

    def watch(self, watcher: Any, news: Sequence[Any]) -> str:
        """Let the watcher hear news; return what is wrong with them, or nothing."""
        ...

    def fleeting(self, sent: Sent) -> bool:
        """Say whether a message arrives at once or never."""
        ...

    def spent(self, node: Any, sent: Sent) -> bool:
        """Say whether a message cannot matter to its receiver, now or ever."""
        ...


@dataclass(frozen=True, slots=True)
class Explored:
    """What came out: the number of states, and for the first fault the steps that lead to it."""

    states: int
    local_states: int
    fault: str = ""
    steps: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "\n".join([f"{self.states} states: {self.fault or 'no fault'}", *self.steps])


# A state: where each node is, the messages sent as bits, and where the watcher is.
_State = tuple[tuple[int, ...], int, int]
# Which node did what, a message by its number, and which answer arrived at once.
_Step = tuple[str, Hashable, int | None]


@dataclass(frozen=True, slots=True)
class _Outcome:
    """Where a node is then, what it sent as bits, what it answered at once by number, what it told the watcher."""

    place: int
    sent: int = 0
    fleeting: tuple[int, ...] = ()
    news: tuple[Hashable, ...] = ()


class _Places:
    """Things in the states that they were found in, numbered."""

    def __init__(self) -> None:
        self.things: list[Any] = []
        self._numbers: dict[Hashable, int] = {}

    def number(self, thing: Any) -> int:
        frozen = freeze(thing)
        number = self._numbers.get(frozen)
        if number is None:
            number = self._numbers[frozen] = len(self.things)
            self.things.append(thing)
        return number


class Exploration:
    """Breadth first, so that the first fault found has the shortest story."""

    def __init__(self, system: Explorable, states_maximum: int = STATES_MAXIMUM) -> None:
        self._system = system
        self._states_maximum = states_maximum
        self._locals = _Places()
        self._watchers = _Places()
        self._sent: list[Sent] = []
        self._numbers: dict[Sent, int] = {}
        self._receivers: list[int] = []
        self._inboxes = [0] * len(system.nodes)
        self._outcomes: dict[tuple[int, Hashable], _Outcome] = {}
        self._moves: dict[tuple[int, int], list[tuple[Hashable, _Outcome]]] = {}
        self._live: dict[tuple[int, int], int] = {}
        self._heard: dict[tuple[int, tuple[Hashable, ...]], int] = {}
        self._faults: dict[int, str] = {}

    def run(self) -> Explored:
        """Explore everything, or up to the first fault."""
        places = tuple(self._locals.number(self._system.start(node)) for node in self._system.nodes)
        start: _State = (places, 0, self._watchers.number(self._system.watcher()))
        came_from: dict[_State, tuple[_State, _Step] | None] = {start: None}
        waiting = deque([start])
        while waiting:
            state = waiting.popleft()
            for step, after in self._successors(state):
                if after in came_from:
                    continue
                came_from[after] = (state, step)
                if after[2] in self._faults:
                    fault, steps = self._faults[after[2]], self._steps(after, came_from)
                    return Explored(len(came_from), len(self._locals.things), fault, steps)
                if len(came_from) > self._states_maximum:
                    raise MemoryError(f"more than {self._states_maximum} states")
                waiting.append(after)
        return Explored(len(came_from), len(self._locals.things))

    def _successors(self, state: _State) -> Iterator[tuple[_Step, _State]]:
        places, mask, watcher = state
        for index, node in enumerate(self._system.nodes):
            for cause, outcome in self._moves_of(places[index], mask & self._inboxes[index]):
                after = (*places[:index], outcome.place, *places[index + 1 :])
                sent = mask | outcome.sent
                heard = self._hear(watcher, outcome.news) if outcome.news else watcher
                if after != places or sent != mask or heard != watcher:
                    yield (node, cause, None), self._tidied(after, sent, heard)
                for number in outcome.fleeting:
                    receiver = self._receivers[number]
                    answer = self._outcome(after[receiver], number)
                    if answer.place == after[receiver] and not answer.sent & ~sent and not answer.news:
                        continue
                    both = (*after[:receiver], answer.place, *after[receiver + 1 :])
                    heard_both = self._hear(heard, answer.news) if answer.news else heard
                    yield (node, cause, number), self._tidied(both, sent | answer.sent, heard_both)

    def _tidied(self, places: tuple[int, ...], mask: int, watcher: int) -> _State:
        """Return the state without messages that are spent."""
        live = 0
        for place, inbox in zip(places, self._inboxes, strict=True):
            live |= self._live_of(place, mask & inbox)
        return places, live, watcher

    def _hear(self, watcher: int, news: tuple[Hashable, ...]) -> int:
        heard = self._heard.get((watcher, news))
        if heard is None:
            thing = clone(self._watchers.things[watcher])
            fault = self._system.watch(thing, news)
            heard = self._heard[watcher, news] = self._watchers.number(thing)
            if fault:
                self._faults[heard] = fault
        return heard

    def _live_of(self, place: int, inbox: int) -> int:
        live = self._live.get((place, inbox))
        if live is None:
            node = self._locals.things[place]
            live = sum(
                1 << number for number in _ones(inbox) if not self._system.spent(node, self._sent[number])
            )
            self._live[place, inbox] = live
        return live

    def _moves_of(self, place: int, inbox: int) -> list[tuple[Hashable, _Outcome]]:
        """Return what a node can do with these messages, each outcome once."""
        moves = self._moves.get((place, inbox))
        if moves is None:
            causes = [*self._system.choices(self._locals.things[place]), *_ones(inbox)]
            outcomes: dict[_Outcome, Hashable] = {}
            for cause in causes:
                outcomes.setdefault(self._outcome(place, cause), cause)
            outcomes.pop(_Outcome(place), None)
            moves = [(cause, outcome) for outcome, cause in outcomes.items()]
            self._moves[place, inbox] = moves
        return moves

    def _outcome(self, place: int, cause: Hashable) -> _Outcome:
        """Run a node once from a place: with a message, by its number, or with one of its choices."""
        outcome = self._outcomes.get((place, cause))
        if outcome is None:
            node = clone(self._locals.things[place])
            if isinstance(cause, int):
                self._system.receive(node, self._sent[cause])
            else:
                node = self._system.happen(node, cause)
            messages, news = self._system.outcome(node)
            sent, fleeting = 0, []
            for message in messages:
                number = self._number(message)
                if self._system.fleeting(message):
                    fleeting.append(number)
                else:
                    sent |= 1 << number
            outcome = _Outcome(self._locals.number(node), sent, tuple(fleeting), tuple(news))
            self._outcomes[place, cause] = outcome
        return outcome

    def _number(self, message: Sent) -> int:
        number = self._numbers.get(message)
        if number is None:
            number = self._numbers[message] = len(self._sent)
            self._sent.append(message)
            self._receivers.append(self._system.nodes.index(message.receiver))
            self._inboxes[self._receivers[-1]] |= 1 << number
        return number

    def _steps(
        self, state: _State, came_from: Mapping[_State, tuple[_State, _Step] | None]
    ) -> tuple[str, ...]:
        """Return what led to a state."""
        steps = []
        while (origin := came_from[state]) is not None:
            state, (node, cause, answer) = origin
            told = str(self._sent[cause]) if isinstance(cause, int) else str(cause)
            steps.append(
                f"{node}: {told}" + (f"\n    and at once {self._sent[answer]}" if answer is not None else "")
            )
        return tuple(reversed(steps))


def _ones(mask: int) -> list[int]:
    return [number for number in range(mask.bit_length()) if mask >> number & 1]


def freeze(thing: Any) -> Hashable:
    """Return something hashable that is equal for things in the same state, whatever objects they are made of.

    Functions and sources of chance are taken to be the same everywhere.
    """
    match thing:
        case None | bool() | int() | float() | str() | bytes() | Enum():
            return thing
        case dict():
            return frozenset((freeze(key), freeze(value)) for key, value in thing.items())
        case set() | frozenset():
            return frozenset(freeze(item) for item in thing)
        case tuple() | list() | deque():
            return tuple(freeze(item) for item in thing)
    if callable(thing) or isinstance(thing, random.Random):
        return None
    return (type(thing).__name__, *((name, freeze(getattr(thing, name))) for name in _attributes(thing)))


def clone(thing: Any) -> Any:
    """Return a copy that shares with its original only what neither can change; tuples are taken to be such."""
    match thing:
        case None | bool() | int() | float() | str() | bytes() | Enum() | tuple() | frozenset():
            return thing
        case dict():
            return {key: clone(value) for key, value in thing.items()}
        case set():
            return set(thing)
        case list() | deque():
            return type(thing)(clone(item) for item in thing)
    if _is_shared(thing):
        return thing
    copy = object.__new__(type(thing))
    for name in _attributes(thing):
        setattr(copy, name, clone(getattr(thing, name)))
    return copy


def _is_shared(thing: Any) -> bool:
    frozen = is_dataclass(thing) and thing.__dataclass_params__.frozen  # type: ignore[union-attr]
    return frozen or callable(thing) or isinstance(thing, random.Random)


def _attributes(thing: Any) -> list[str]:
    slots = [name for kind in type(thing).__mro__ for name in getattr(kind, "__slots__", ())]
    return slots + list(getattr(thing, "__dict__", ()))
