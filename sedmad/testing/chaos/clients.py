"""Users: each is connected with one node, multiplies on several threads, and checks what it is answered."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Mapping

import sedmad
from sedmad.errors import MatrixNotFound, SedmadError
from sedmad.testing.chaos.catalogue import Array, Catalogue, Entry, Question
from sedmad.testing.chaos.history import History, Products
from sedmad.testing.chaos.nodes import ChaosNode

# One product in eight is of a matrix that is replaced and removed meanwhile: they are small and would crowd out others.
CHANGING_SHARE = 0.125
# A failing mesh is asked this often; without a pause a client would write down thousands of failures a second.
FAILURE_PAUSE_S = 0.1


class Seat:
    """A connection with one node, and what was seen through it."""

    def __init__(self, node: ChaosNode) -> None:
        self.node = node
        self.seen: dict[str, int] = {}
        self._lock = threading.Lock()
        self._mesh: sedmad.Mesh | None = None
        self._steady: dict[str, sedmad.Matrix] = {}

    def multiply(self, entry: Entry, question: Question, *, steady: bool) -> Array:
        """Return W x, or W^T x, as the node answers it.

        Raises:
            SedmadError: as `Matrix.apply`.
        """
        mesh = self._connected()
        matrix = self._steady.get(entry.name)
        if matrix is None:
            matrix = mesh[entry.name]
            if steady:
                self._steady[entry.name] = matrix
        return matrix.apply(question.x, transpose=question.transposed)

    def close(self) -> None:
        with self._lock:
            if self._mesh is not None:
                self._mesh.close()

    def _connected(self) -> sedmad.Mesh:
        with self._lock:
            if self._mesh is None:
                self._mesh = self.node.connect()
            return self._mesh


class Client:
    """A user.

    Args:
        number: which one; it begins at the node of that number.
        nodes: all of them, by name.
        catalogue: what is multiplied.
        history: is told everything.
        seed: what is asked, and in which order, is drawn from it.
        in_flight: products at a time.
    """

    def __init__(
        self,
        number: int,
        nodes: Mapping[str, ChaosNode],
        catalogue: Catalogue,
        history: History,
        *,
        seed: int,
        in_flight: int,
    ) -> None:
        self._nodes = list(nodes.values())
        self._catalogue = catalogue
        self._history = history
        self._lock = threading.Lock()
        self._seat = Seat(self._nodes[number % len(self._nodes)])
        self._done = threading.Event()
        self._threads = [
            threading.Thread(
                target=self._run,
                args=(random.Random(f"client {seed} {number} {thread}"),),  # noqa: S311  (replayable)
                name=f"client {number}.{thread}",
                daemon=True,
            )
            for thread in range(in_flight)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Ask nothing more, and wait for the answers under way."""
        self._done.set()
        for thread in self._threads:
            thread.join()
        self._seat.close()

    def _run(self, rng: random.Random) -> None:
        products = Products()
        self._history.products.append(products)
        while not self._done.is_set():
            steady = rng.random() >= CHANGING_SHARE
            entry = rng.choice(self._catalogue.steady if steady else self._catalogue.changing)
            number = rng.randrange(len(entry.questions))
            if not self._ask(entry, number, products, steady=steady):
                self._done.wait(FAILURE_PAUSE_S)

    def _ask(self, entry: Entry, number: int, products: Products, *, steady: bool) -> bool:
        """Ask until there is an answer, at other nodes where the own one is hit; return whether it was a good one.

        While all nodes are off nobody can be asked, and that is nobody's failure.
        """
        began_s = time.monotonic()
        history, question = self._history, entry.questions[number]
        moves, was_hit = 0, False
        while True:
            seat = self._seat
            since = seat.seen.get(entry.name, 0)
            what = f"{entry.name}{' transposed' if question.transposed else ''} at {seat.node.name}"
            try:
                y = seat.multiply(entry, question, steady=steady)
            except SedmadError as error:
                if isinstance(error, MatrixNotFound) and entry.may_be_absent():
                    history.count("absent")
                    return False
                if history.all_hit():
                    was_hit = True
                    self._take_seat(seat, seat.node)
                    time.sleep(FAILURE_PAUSE_S)
                    continue
                if moves < len(self._nodes) - 1 and seat.node.name in history.hit(began_s):
                    moves += 1
                    history.note_move(error)
                    self._move(seat)
                    continue
                history.note_failed(what, error, began_s)
                return False
            count = entry.recognise(y, number, since=since)
            if count is None:
                history.note_wrong(what, f"no content since {since} has this product", began_s)
                return False
            seat.seen[entry.name] = max(count, seat.seen.get(entry.name, 0))
            own_node_hit = seat.node.name in history.hit(began_s) or moves > 0 or was_hit
            products.append(began_s, entry.number, own_node_hit=own_node_hit)
            return True

    def _move(self, lost: Seat) -> None:
        """Take a seat at the next node that is not hit."""
        hit = self._history.hit()
        place = self._nodes.index(lost.node)
        others = self._nodes[place + 1 :] + self._nodes[:place]
        self._take_seat(lost, next((node for node in others if node.name not in hit), others[0]))

    def _take_seat(self, lost: Seat, node: ChaosNode) -> None:
        """Take a seat at a node in place of one that is lost, unless another thread has done so.

        At a node that was started again it is a new one, too: names that others replaced in the second before its end
        are not on its disk, and it hears of them again.
        """
        with self._lock:
            if self._seat is not lost:
                return
            self._seat = Seat(node)
        lost.close()
