"""Somebody who puts, replaces and removes matrices while others multiply with them."""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Callable, Mapping

import sedmad
from sedmad.errors import MatrixNotFound, SedmadError
from sedmad.testing.chaos.catalogue import Catalogue, Entry
from sedmad.testing.chaos.history import History, told
from sedmad.testing.chaos.nodes import ChaosNode

EVERY_S = 3.0
REMOVED_SHARE = 0.25
# A change that is refused is tried again until nothing has been broken for this long: what comes after a fault, a
# verdict that is taken back or a repair, takes its time.
PATIENCE_S = 30.0
PAUSE_S = 1.0


class Changes:
    """Changes in a row, each through a node that is not hit when it is asked for.

    Args:
        nodes: all of them, by name.
        catalogue: whose changing names are changed.
        history: is told everything.
        seed: what is changed is drawn from it.
        survive: of what is stored.
    """

    def __init__(
        self,
        nodes: Mapping[str, ChaosNode],
        catalogue: Catalogue,
        history: History,
        *,
        seed: int,
        survive: int,
    ) -> None:
        self._nodes = nodes
        self._catalogue = catalogue
        self._history = history
        self._survive = survive
        self._rng = random.Random(f"changes {seed}")  # noqa: S311  (replayable)
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="changes", daemon=True)

    def store_all(self) -> None:
        """Put every name for the first time, through one node after the other.

        Raises:
            SedmadError: a put failed, with nothing broken.
        """
        for entry, node in zip(self._catalogue.entries, itertools.cycle(self._nodes.values()), strict=False):
            with node.connect() as mesh:
                mesh.put(entry.name, entry.begin_put(), survive=self._survive)
            entry.end_put()
            self._history.count("put")

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Change nothing more, and wait for the change under way. No fault may happen any more."""
        self._done.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._done.wait(EVERY_S):
            entry = self._rng.choice(self._catalogue.changing)
            if not entry.is_stored:
                self._store(entry, "put")
            elif self._rng.random() < REMOVED_SHARE and not entry.may_be_absent():
                self._remove(entry)
            else:
                self._store(entry, "replace")

    def _store(self, entry: Entry, verb: str) -> None:
        weights = entry.begin_put()

        def store(mesh: sedmad.Mesh) -> None:
            # A put that failed may have stored the name: the second attempt finds the same content there.
            mesh.put(entry.name, weights, survive=self._survive, replace=True)

        if self._insist(verb, entry, store):
            entry.end_put()

    def _remove(self, entry: Entry) -> None:
        was_asked = False

        def remove(mesh: sedmad.Mesh) -> None:
            nonlocal was_asked
            try:
                mesh.remove(entry.name)
            except MatrixNotFound:
                # An attempt that failed may have removed it.
                if not was_asked:
                    raise
            except SedmadError:
                was_asked = True
                raise

        entry.begin_removal()
        if self._insist("remove", entry, remove):
            entry.end_removal()

    def _insist(self, verb: str, entry: Entry, change: Callable[[sedmad.Mesh], None]) -> bool:
        """Try until a change is acknowledged; return False, and note the problem, where it never is."""
        began_s = calm_since_s = time.monotonic()
        while True:
            attempt_s = time.monotonic()
            hit = self._history.hit()
            standing = [node for node in self._nodes.values() if node.name not in hit]
            if not standing:
                calm_since_s = time.monotonic()
                time.sleep(PAUSE_S)
                continue
            node = self._rng.choice(standing)
            try:
                with node.connect() as mesh:
                    change(mesh)
            except SedmadError as error:
                now_s = time.monotonic()
                if self._history.hit(attempt_s):
                    calm_since_s = now_s
                elif now_s - calm_since_s > PATIENCE_S:
                    self._history.note_problem(f"{verb} {entry.name} at {node.name}", told(error), began_s)
                    return False
                self._history.note_refusal(verb, error)
                time.sleep(PAUSE_S)
            else:
                self._history.count(verb)
                return True
