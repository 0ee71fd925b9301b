"""What can carry a connection: bytes both ways, in order, whoever brings them. Noise and yamux run over it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from enum import StrEnum

from libp2p.io.abc import ReadWriteCloser

# Until the handshake is done libp2p reads as much as the other side announces; it reads at most a hundred
# times.
HANDSHAKE_READ_BYTES_MAX = 4096


class PathKind(StrEnum):
    """How the bytes of a connection go."""

    DIRECT = "direct"
    PUNCHED = "punched"
    WEBRTC = "webrtc"
    RELAYED = "relayed"

    @property
    def rank(self) -> int:
        """Which connection to take where there are several: the lowest."""
        return _RANKS[self]


# A punched connection is plain TCP as well; a data channel is some ten times slower, a relay costs others' upload.
_RANKS = {PathKind.DIRECT: 0, PathKind.PUNCHED: 0, PathKind.WEBRTC: 1, PathKind.RELAYED: 2}


class Pipe(ReadWriteCloser):
    """Carries one connection. One task reads and one writes at a time.

    Attributes:
        path: how its bytes go.
        is_limited: whether a relay said that it ends it after some time or bytes.
    """

    is_limited = False

    def __init__(self, path: PathKind) -> None:
        self.path = path
        self._on_authenticated: Callable[[], object] = _nothing
        self._on_closed: Callable[[], object] = _nothing

    @property
    @abstractmethod
    def remote_address(self) -> str:
        """The other end's multiaddress; "" where it is not known."""

    @abstractmethod
    async def receive_into(self, buffer: memoryview) -> int:
        """Fill the beginning of `buffer` with what there is, at least a byte; return how much, 0 at the end.

        Raises:
            ConnectionClosedError: the connection broke.
        """

    @abstractmethod
    async def send_some(self, data: memoryview) -> int:
        """Send the beginning of `data` and return how many bytes went; where this is cancelled, none went.

        Raises:
            ConnectionClosedError: the connection broke.
        """

    @abstractmethod
    def send_now(self, data: memoryview) -> int:
        """Send the beginning of `data` without waiting, and return how many bytes went, which may be none.

        Raises:
            ConnectionClosedError: the connection broke.
        """

    @abstractmethod
    def abort(self) -> None:
        """Close at once; whoever watches is told."""

    def watch(self, on_authenticated: Callable[[], object], on_closed: Callable[[], object]) -> None:
        """Call these when the other side has proved who it is, and when this pipe is closed here."""
        self._on_authenticated, self._on_closed = on_authenticated, on_closed

    def mark_authenticated(self) -> None:
        """Take note that the handshake is done."""
        self._on_authenticated()

    async def read(self, n: int | None = None) -> bytes:
        """Return up to n bytes; the handshake's way to read."""
        size = HANDSHAKE_READ_BYTES_MAX if n is None else min(n, HANDSHAKE_READ_BYTES_MAX)
        buffer = bytearray(size)
        return bytes(buffer[: await self.receive_into(memoryview(buffer))]) if size else b""

    async def write(self, data: bytes) -> None:
        """Send all of it; the handshake's way to write."""
        rest = memoryview(data)
        while rest:
            rest = rest[await self.send_some(rest) :]

    def get_remote_address(self) -> tuple[str, int] | None:
        """Return host and port, which is what libp2p asks for, where there are such."""
        return None


def _nothing() -> None:
    """Where nobody watches."""
