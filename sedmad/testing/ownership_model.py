"""A few guardians of one matrix, explored exhaustively: nothing that was established is ever lost.

python -m sedmad.testing.ownership_model            # the instances of the test run
python -m sedmad.testing.ownership_model --large    # and larger ones

Every guardian may hold the owner for dead at any time and stand for election, owners may write, all may crash
and come back with what is on their disks, and the network does what it likes.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from sedmad.core.ownership import OwnershipSettings, VoteAnswer, VoteRequest
from sedmad.core.ownership.peers import Peers
from sedmad.testing.exploration import STATES_MAXIMUM, Exploration, Explored, Sent
from sedmad.testing.guardian import Declined, Disk, Guardian, Line, Offer, Stored, Taken, first_standing
from sedmad.testing.ledger import Ledger

KEY = "w"
NOW = 0.0  # time stands still: what may time out may do so at any moment
AT_ONCE = OwnershipSettings(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Instance:
    """How much may happen.

    Attributes:
        guardians: of the first manifest; the first of them is the owner.
        others: further nodes, that may become guardians.
        changes: sets of guardians that owners may change to.
        epochs: the last epoch that anybody stands for.
        writes: how many manifests owners may write besides those that an election brings.
        candidates: who may stand for election.
        crashing: who may crash.
        late: whose core may hear later than the disk of what is kept.
    """

    guardians: tuple[str, ...] = ("a", "b", "c")
    others: tuple[str, ...] = ()
    changes: tuple[tuple[str, ...], ...] = ()
    epochs: int = 2
    writes: int = 1
    candidates: tuple[str, ...] = ("a", "b", "c")
    crashing: tuple[str, ...] = ("a", "b", "c")
    late: tuple[str, ...] = ()


class Model:
    """Guardians as `Exploration` wants them."""

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        self.nodes = (*instance.guardians, *instance.others)

    def start(self, node: str) -> Guardian:
        disk = Disk()
        if node in self.instance.guardians:
            disk.kept[KEY] = first_standing(KEY, self.instance.guardians)
        return self._begin(node, disk)

    def choices(self, node: Guardian) -> Sequence[Hashable]:
        choices: list[Hashable] = []
        if node.peer_id in self.instance.candidates:
            choices.append("time-out")
        if node.peer_id in self.instance.crashing:
            choices.append("crash")
        if node.has_to_tell:
            choices.append("tell")
        if node.owns(KEY) and _written(node.disk.kept[KEY].manifest) < self.instance.writes:
            choices.append("write")
            if node.disk.kept[KEY].established:
                choices += self.instance.changes
        return choices

    def happen(self, node: Guardian, choice: Hashable) -> Guardian:
        match choice:
            case "time-out":
                node.handle_timeout(NOW)
            case "crash":
                return self._begin(node.peer_id, node.disk)
            case "tell":
                node.tell(NOW)
            case "write":
                node.write(KEY, NOW)
            case tuple() if node.peer_id in choice:
                node.write(KEY, NOW, choice)
        return node

    def receive(self, node: Guardian, sent: Sent) -> None:
        node.receive(sent.sender, sent.message, NOW)

    def outcome(self, node: Guardian) -> tuple[list[Sent], list[Stored]]:
        batch = node.collect()
        messages = [(receiver, message) for receiver, message in batch.messages if self._within(message)]
        news = [event for event in batch.events if isinstance(event, Stored) and _tells(event)]
        return [Sent(node.peer_id, receiver, message) for receiver, message in messages], news

    def watcher(self) -> Ledger:
        return Ledger(first_standing(KEY, self.instance.guardians))

    def watch(self, watcher: Ledger, news: Sequence[Stored]) -> str:
        return watcher.add(*news)

    def fleeting(self, sent: Sent) -> bool:
        message = sent.message
        return isinstance(message, Declined) or (isinstance(message, VoteAnswer) and message.vote is None)

    def spent(self, node: Guardian, sent: Sent) -> bool:
        promised, kept = node.disk.promised.get(KEY), node.disk.kept.get(KEY)
        if kept is None:
            return False
        match sent.message:
            case VoteAnswer(epoch=epoch):
                return epoch <= max(promised.epoch if promised else 0, kept.epoch)
            case Taken(order=order):
                return order < kept.order or kept.established
            case VoteRequest(epoch=epoch):
                return epoch < max(promised.epoch if promised else 0, kept.epoch + 1)
            case Offer(standing=standing):
                return standing.order < kept.order
        return False

    def _begin(self, node: str, disk: Disk) -> Guardian:
        guardian = Guardian(
            node,
            disk,
            rng=_NoChance(),
            now=NOW,
            settings=AT_ONCE,
            offer_every_s=float("inf"),
            compare_every_s=float("inf"),
            tells_late=node in self.instance.late,
        )
        guardian.core._peers = _Mistrust(AT_ONCE)
        for standing in disk.kept.values():
            guardian.core.keep(standing, NOW)  # again, as it trusts nobody any more
        return guardian

    def _within(self, message: Any) -> bool:
        """Leave out what goes too far, and what nobody acts upon here."""
        match message:
            case VoteRequest(epoch=epoch):
                return epoch <= self.instance.epochs
            case Taken(established=established):
                return not established
        return True


class _Mistrust(Peers):
    """Verdicts that are as wrong as they can be: everybody is dead as an owner, and alive as a voter."""

    def is_up(self, peer_id: str) -> bool:
        return False

    def is_down(self, peer_id: str) -> bool:
        return False

    def has_left(self, peer_id: str) -> bool:
        return True

    def expect(self, peer_id: str, now: float) -> None:
        pass


class _NoChance(random.Random):
    """Time stands still, so chance has nothing to spread."""

    def random(self) -> float:
        return 0.0


def _tells(event: Stored) -> bool:
    """Say whether the watcher needs to know: once the owner holds a manifest for established, others may."""
    return not event.standing.established or event.standing.owner == event.node


def _written(line: Line) -> int:
    """Return how many manifests of a line were written without an election."""
    return sum(entry[0] == before[0] for before, entry in pairwise(line))


# Explored by the tests, each within seconds.
SMALL = {
    "an owner that writes": Instance(epochs=1),
    "owners after owners": Instance(writes=0),
    "other guardians": Instance(
        epochs=1, others=("d",), changes=(("a", "b", "d"),), candidates=("c", "d"), crashing=()
    ),
    "five guardians": Instance(
        ("a", "b", "c", "d", "e"), epochs=1, writes=0, candidates=("b", "c"), crashing=()
    ),
    "a voter's core hears late": Instance(epochs=1, candidates=("b",), crashing=(), late=("c",)),
    "a candidate's core hears late": Instance(epochs=1, candidates=("b",), crashing=(), late=("b",)),
}
# For the command line: minutes, and gigabytes.
LARGE = {
    "owners after owners that write": Instance(),
    "all guardians but the owner change": Instance(
        epochs=1, others=("d", "e"), changes=(("a", "d", "e"),), candidates=("b", "d"), crashing=()
    ),
    "all cores hear late": Instance(epochs=1, candidates=("b",), crashing=(), late=("a", "b", "c")),
    "five guardians, and an owner that writes": Instance(
        ("a", "b", "c", "d", "e"), epochs=1, candidates=("b",), crashing=()
    ),
}


def explore(instance: Instance, states_maximum: int = STATES_MAXIMUM) -> Explored:
    """Explore everything that can happen in an instance."""
    return Exploration(Model(instance), states_maximum).run()


def main(arguments: Sequence[str] | None = None) -> int:
    """Explore from the command line; exit status 1 if there is a fault."""
    parser = argparse.ArgumentParser(
        prog="python -m sedmad.testing.ownership_model", description="Explore how matrices are passed on."
    )
    parser.add_argument("--large", action="store_true", help="explore the large instances as well")
    options = parser.parse_args(arguments)
    for name, instance in (SMALL | LARGE if options.large else SMALL).items():
        started_s = time.monotonic()
        explored = explore(instance)
        print(f"{name}, {time.monotonic() - started_s:.1f} s: {explored}", flush=True)
        if explored.fault:
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
