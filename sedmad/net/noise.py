"""Noise as libp2p speaks it, with a faster record layer: the same bytes on the wire, fewer copies and system
calls.

The handshake stays libp2p's. After it, records are read in big pieces and opened where they lie, and
everything that is sent together leaves together. Source:
https://github.com/libp2p/specs/blob/master/noise/README.md
"""

from __future__ import annotations

from collections.abc import Iterable

from libp2p.abc import IRawConnection, ISecureConn
from libp2p.io.exceptions import ConnectionClosedError
from libp2p.peer.id import ID
from libp2p.security.noise.transport import Transport
from libp2p.security.secure_session import SecureSession

from sedmad.net.pipe import Pipe
from sedmad.wire.frame import Buffer

# A record is a length of two bytes and at most 65535 bytes, 16 of them the authentication tag.
LENGTH_BYTES = 2
RECORD_BYTES_MAX = 65535
PLAINTEXT_BYTES_MAX = RECORD_BYTES_MAX - 16
# Four records. Pages that are never filled are never resident.
RECEIVE_BYTES = 4 * (LENGTH_BYTES + RECORD_BYTES_MAX)


class NoiseSession(SecureSession):
    """The encrypted connection after a handshake. One task receives and one sends at a time.

    Args:
        handshake: what libp2p's handshake returned.
        pipe: what carries it.
    """

    def __init__(self, handshake: SecureSession, pipe: Pipe) -> None:
        super().__init__(
            local_peer=handshake.local_peer,
            local_private_key=handshake.local_private_key,
            remote_peer=handshake.remote_peer,
            remote_permanent_pubkey=handshake.remote_permanent_pubkey,
            is_initiator=handshake.is_initiator,
            conn=handshake.conn,
        )
        protocol = handshake.conn.noise_state.noise_protocol
        self._encrypt = protocol.cipher_state_encrypt.encrypt_with_ad
        self._decrypt = protocol.cipher_state_decrypt.decrypt_with_ad
        self.pipe = pipe
        self._received = memoryview(bytearray(RECEIVE_BYTES))
        self._start = self._end = 0
        self._opened = b""
        self._unsent = memoryview(b"")

    async def receive(self) -> list[bytes]:
        """Return the plaintexts that have arrived, at least one.

        Raises:
            ConnectionClosedError: the connection ended.
            cryptography.exceptions.InvalidTag: a record was tampered with.
        """
        if self._opened:
            rest, self._opened = self._opened, b""
            return [rest]
        while not (plaintexts := self._open_records()):
            count = await self.pipe.receive_into(self._received[self._end :])
            if not count:
                raise ConnectionClosedError("the connection ended", transport="tcp")
            self._end += count
        return plaintexts

    def _open_records(self) -> list[bytes]:
        received, start, end = self._received, self._start, self._end
        plaintexts = []
        while end - start >= LENGTH_BYTES:
            body = start + LENGTH_BYTES
            stop = body + (received[start] << 8 | received[start + 1])
            if stop > end:
                break
            plaintexts.append(self._decrypt(None, received[body:stop]))
            start = stop
        if start == end:
            start = end = 0
        elif start > RECEIVE_BYTES // 2:
            received[: end - start] = received[start:end]
            start, end = 0, end - start
        self._start, self._end = start, end
        return plaintexts

    def seal(self, plaintexts: Iterable[Buffer]) -> None:
        """Encrypt messages of at most PLAINTEXT_BYTES_MAX each; `flush` must have returned since the last
        call.
        """
        assert not self._unsent, "sealed before the last records were sent"
        pieces: list[bytes] = []
        for plaintext in plaintexts:
            record = self._encrypt(None, plaintext)
            pieces += (len(record).to_bytes(LENGTH_BYTES, "big"), record)
        self._unsent = memoryview(b"".join(pieces))

    async def flush(self) -> None:
        """Send what is sealed. Where this is cancelled, the next flush goes on in the middle of the record.

        Raises:
            ConnectionClosedError: the connection broke.
        """
        while self._unsent:
            self._unsent = self._unsent[await self.pipe.send_some(self._unsent) :]

    def flush_now(self) -> bool:
        """Send what is sealed as far as it goes without waiting; return whether all of it went.

        Raises:
            ConnectionClosedError: the connection broke.
        """
        if self._unsent:
            self._unsent = self._unsent[self.pipe.send_now(self._unsent) :]
        return not self._unsent

    async def read(self, n: int | None = None) -> bytes:
        """Return up to n bytes of plaintext: how libp2p negotiates the muxer."""
        while not self._opened and n != 0:
            self._opened = b"".join(await self.receive())
        stop = len(self._opened) if n is None else n
        data, self._opened = self._opened[:stop], self._opened[stop:]
        return data

    async def write(self, data: Buffer) -> None:
        """Send all of it in as few records as possible."""
        view = memoryview(data)
        await self.flush()
        self.seal(view[i : i + PLAINTEXT_BYTES_MAX] for i in range(0, len(view), PLAINTEXT_BYTES_MAX))
        await self.flush()

    async def close(self) -> None:
        await self.pipe.close()

    def abort(self) -> None:
        """Close at once."""
        self.pipe.abort()


class NoiseTransport(Transport):
    """libp2p's Noise transport with `NoiseSession` after the handshake."""

    async def secure_inbound(self, conn: IRawConnection) -> ISecureConn:
        session = NoiseSession(await super().secure_inbound(conn), conn.stream)
        conn.stream.mark_authenticated()
        return session

    async def secure_outbound(self, conn: IRawConnection, peer_id: ID) -> ISecureConn:
        return NoiseSession(await super().secure_outbound(conn, peer_id), conn.stream)
