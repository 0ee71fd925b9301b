"""Products of several threads as one panel: everybody gets the own columns, and the own errors."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from sedmad.client.joining import ProductJoiner
from sedmad.errors import DeadlineExceeded, HoldersUnreachable, SedmadError
from sedmad.wire.messages import ApplyMatrixResponse

COLUMNS_MAX = 8
LONG_S = 30.0


class Daemon:
    """Answers panels with twice what was sent, when `gate` is open."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.panels: list[list[float]] = []
        self.asked = threading.Semaphore(0)
        self.fails: dict[float, SedmadError] = {}

    def ask(self, x: Any, deadline: float, explain: bool) -> tuple[Any, ApplyMatrixResponse]:
        self.panels.append(x[:, 0].tolist())
        self.asked.release()
        if not self.gate.wait(max(0.0, deadline - time.monotonic())):
            raise DeadlineExceeded("too late")
        for value in self.panels[-1]:
            if value in self.fails:
                raise self.fails[value]
        response = ApplyMatrixResponse(length=x.shape[1])
        response.explanation.joined_columns = len(x) if explain else 0
        return x * 2, response


class Client:
    """Threads that multiply over one connection."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.joiner = ProductJoiner()
        self._pool = ThreadPoolExecutor(32)

    def start(
        self, *values: float, key: str = "w", seconds: float = LONG_S, explain: bool = False
    ) -> Future[Any]:
        x = np.repeat(np.array(values)[:, np.newaxis], 3, axis=1)
        return self._pool.submit(
            self.joiner.run, key, x, COLUMNS_MAX, time.monotonic() + seconds, explain, self.daemon.ask
        )

    def start_behind(self, *products: tuple[float, ...]) -> list[Future[Any]]:
        """Let one product be under way, and others wait behind it, in this order."""
        first = self.start(0.0)
        assert self.daemon.asked.acquire(timeout=10)
        futures = [first]
        for waiting, values in enumerate(products, 1):
            futures.append(self.start(*values))
            self.wait_for(waiting)
        return futures

    def wait_for(self, waiting: int) -> None:
        """Wait until so many products wait."""
        for _ in range(1000):
            if sum(map(len, self.joiner._lines.values())) == waiting:
                return
            time.sleep(0.01)
        raise AssertionError(f"{waiting} products should wait")


@pytest.fixture
def daemon() -> Daemon:
    return Daemon()


@pytest.fixture
def client(daemon: Daemon) -> Client:
    return Client(daemon)


def columns(future: Future[Any]) -> list[float]:
    y, _ = future.result(timeout=20)
    assert y.shape[1] == 3
    return y[:, 0].tolist()


def test_what_waits_leaves_as_one_panel(daemon: Daemon, client: Client) -> None:
    futures = client.start_behind((1.0,), (2.0, 3.0), (4.0,))
    daemon.gate.set()
    assert list(map(columns, futures)) == [[0.0], [2.0], [4.0, 6.0], [8.0]]
    assert daemon.panels == [[0.0], [1.0, 2.0, 3.0, 4.0]]


def test_a_panel_is_no_wider_than_it_may_be_and_nobody_overtakes(daemon: Daemon, client: Client) -> None:
    futures = client.start_behind((1.0,) * 5, (2.0,) * 5, (3.0,))
    daemon.gate.set()
    for future in futures:
        future.result(timeout=20)
    assert daemon.panels == [[0.0], [1.0] * 5, [2.0] * 5 + [3.0]]


def test_other_matrices_go_their_own_way(daemon: Daemon, client: Client) -> None:
    futures = client.start_behind()
    futures.append(client.start(1.0, key="another"))
    assert daemon.asked.acquire(timeout=10)
    daemon.gate.set()
    assert list(map(columns, futures)) == [[0.0], [2.0]]


def test_nothing_remains_of_what_is_done(daemon: Daemon, client: Client) -> None:
    daemon.gate.set()
    for future in [client.start(float(value)) for value in range(100)]:
        future.result(timeout=20)
    assert not client.joiner._lines


def test_all_that_are_joined_are_told_how_it_came_about(daemon: Daemon, client: Client) -> None:
    first = client.start_behind((1.0,))
    explained = client.start(2.0, explain=True)
    client.wait_for(2)
    daemon.gate.set()
    _, response = explained.result(timeout=20)
    assert response.explanation.joined_columns == 2
    for future in first:
        future.result(timeout=20)


def test_an_error_hits_only_the_product_whose_it_is(daemon: Daemon, client: Client) -> None:
    daemon.fails[2.0] = HoldersUnreachable("gone")
    futures = client.start_behind((1.0,), (2.0,), (3.0,))
    daemon.gate.set()
    assert [columns(futures[index]) for index in (0, 1, 3)] == [[0.0], [2.0], [6.0]]
    with pytest.raises(HoldersUnreachable):
        futures[2].result(timeout=20)


def test_the_error_of_a_lone_product_is_told_at_once(daemon: Daemon, client: Client) -> None:
    daemon.fails[1.0] = HoldersUnreachable("gone")
    daemon.gate.set()
    with pytest.raises(HoldersUnreachable):
        client.start(1.0).result(timeout=20)
    assert daemon.panels == [[1.0]]


def test_a_product_in_a_hurry_goes_alone(daemon: Daemon, client: Client) -> None:
    futures = client.start_behind((1.0,))
    hurried = client.start(2.0, seconds=0.2)
    with pytest.raises(DeadlineExceeded):
        hurried.result(timeout=20)
    daemon.gate.set()
    assert list(map(columns, futures)) == [[0.0], [2.0]]
    assert daemon.panels == [[0.0], [2.0], [1.0]]


def test_a_product_without_a_deadline_waits_like_others(daemon: Daemon, client: Client) -> None:
    futures = [*client.start_behind(), client.start(1.0, seconds=float("inf"))]
    client.wait_for(1)
    daemon.gate.set()
    assert list(map(columns, futures)) == [[0.0], [2.0]]


def test_whoever_is_interrupted_leaves_the_others_their_turn(daemon: Daemon, client: Client) -> None:
    """Ctrl-C while it waits, or while it asks for others."""
    interrupted = KeyboardInterrupt()

    def ask(x: Any, deadline: float, explain: bool) -> Any:
        daemon.asked.release()
        daemon.gate.wait(10)
        raise interrupted

    x = np.zeros((1, 3))
    leader = client._pool.submit(client.joiner.run, "w", x, COLUMNS_MAX, time.monotonic() + 30, False, ask)
    assert daemon.asked.acquire(timeout=10)
    others = [client.start(1.0)]
    client.wait_for(1)
    others.append(client.start(2.0))
    client.wait_for(2)
    daemon.gate.set()
    with pytest.raises(KeyboardInterrupt):
        leader.result(timeout=20)
    assert list(map(columns, others)) == [[2.0], [4.0]]
    assert not client.joiner._lines
