"""A TCP proxy in front of a daemon, which cuts connections on demand and may be as slow as a bad uplink."""

from __future__ import annotations

import random
import socket
import struct
import threading
import time
from contextlib import suppress
from types import TracebackType
from typing import Self

from daemons import Daemon

RESET = struct.pack("ii", 1, 0)
READ_BYTES = 64 << 10
SLOW_READ_BYTES = 4 << 10
# A slow uplink's own queue; a longer one only delays what a test looks at.
BUFFER_BYTES = 32 << 10


class Proxy:
    """Carries connections to a daemon that announces the proxy's address; used as a context.

    Attributes:
        rate_bytes_per_s: what it carries each way, all connections together; None for what the machine does.
        cuts: connections that were cut.
    """

    def __init__(self) -> None:
        self.rate_bytes_per_s: float | None = None
        self.cuts = 0
        self._target = _free_port()
        self._lock = threading.Lock()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._closing = threading.Event()
        # Until when each direction is occupied.
        self._busy_until = {"in": 0.0, "out": 0.0}
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads = [threading.Thread(target=self._accept, daemon=True)]

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join(10)

    def launch(self, daemon: Daemon) -> Daemon:
        """Start a daemon behind the proxy."""
        announced = f"/ip4/127.0.0.1/tcp/{self._listener.getsockname()[1]}"
        return daemon.launch("--announce", announced, listen=f"/ip4/127.0.0.1/tcp/{self._target}")

    def cut(self) -> None:
        """Reset every connection, as a router does that was restarted; what is under way is lost."""
        with self._lock:
            pairs, self._pairs = self._pairs, []
        self.cuts += len(pairs)
        for pair in pairs:
            for end in pair:
                _reset(end)

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self._target), timeout=5)
            except OSError:
                _reset(client)
                client.close()
                continue
            server.settimeout(None)
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
                end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
            pair = (client, server)
            with self._lock:
                self._pairs.append(pair)
            thread = threading.Thread(target=self._carry, args=pair, daemon=True)
            self._threads.append(thread)
            thread.start()

    def _carry(self, client: socket.socket, server: socket.socket) -> None:
        """Carry both directions until one end is gone; then neither is left."""
        inbound = threading.Thread(target=self._pump, args=(client, server, "in"), daemon=True)
        inbound.start()
        self._pump(server, client, "out")
        inbound.join()
        with self._lock:
            if (client, server) in self._pairs:
                self._pairs.remove((client, server))
        client.close()
        server.close()

    def _pump(self, source: socket.socket, target: socket.socket, direction: str) -> None:
        with suppress(OSError):
            while data := source.recv(READ_BYTES if self.rate_bytes_per_s is None else SLOW_READ_BYTES):
                if self.rate_bytes_per_s is not None:
                    self._occupy(direction, len(data) / self.rate_bytes_per_s)
                target.sendall(data)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _occupy(self, direction: str, seconds: float) -> None:
        with self._lock:
            now = time.monotonic()
            until = self._busy_until[direction] = max(now, self._busy_until[direction]) + seconds
        time.sleep(until - now)


class Cuts:
    """Cuts all connections of some proxies at random moments, while a `with` block runs."""

    def __init__(self, proxies: list[Proxy], every_s: float, seed: int) -> None:
        self._proxies = proxies
        self._every_s = every_s
        self._rng = random.Random(seed)
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._done.wait(self._rng.uniform(0.5, 1.5) * self._every_s):
            for proxy in self._proxies:
                proxy.cut()


def _reset(end: socket.socket) -> None:
    """Have the kernel reset a connection; the threads that use the socket close it."""
    with suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)


def _free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
