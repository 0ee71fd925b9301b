"""One HTTP request to a device on this network, whose answer may be as long and as slow as we say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import h11
import trio

from sedmad.errors import PortMappingFailed
from sedmad.net.mapping.lan_url import LanUrl

# Descriptions of real gateways have 3 to 20 KiB.
ANSWER_BYTES_MAX = 64 * 1024
# For all of it: connecting, asking, reading. A gateway is one hop away, and slow ones take a few hundred milliseconds.
ANSWER_WITHIN_S = 3.0
_RECEIVE_BYTES = 16 * 1024


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer's status and its whole body."""

    status: int
    body: bytes


async def fetch(
    url: LanUrl, *, method: str = "GET", headers: Sequence[tuple[str, str]] = (), body: bytes = b""
) -> Reply:
    """Send one request on a connection of its own and return the answer.

    Raises:
        PortMappingFailed: there was none in time, or it broke HTTP or the bound.
    """
    with trio.move_on_after(ANSWER_WITHIN_S):
        try:
            stream = await trio.open_tcp_stream(url.host, url.port)
            async with stream:
                return await _converse(stream, url, method, headers, body)
        except (OSError, trio.BrokenResourceError, h11.ProtocolError) as error:
            raise _failed(url, str(error)) from error
    raise _failed(url, f"no answer within {ANSWER_WITHIN_S:g} s")


async def _converse(
    stream: trio.SocketStream, url: LanUrl, method: str, headers: Sequence[tuple[str, str]], body: bytes
) -> Reply:
    connection = h11.Connection(h11.CLIENT)
    fixed = [("Host", f"{url.host}:{url.port}"), ("Connection", "close"), ("Content-Length", str(len(body)))]
    request = h11.Request(method=method, target=url.path, headers=[*fixed, *headers])
    parts = (request, h11.Data(data=body), h11.EndOfMessage())
    await stream.send_all(b"".join(connection.send(part) or b"" for part in parts))

    status, received, read_bytes = 0, bytearray(), 0
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            data = await stream.receive_some(_RECEIVE_BYTES)
            read_bytes += len(data)
            if read_bytes > ANSWER_BYTES_MAX:
                raise _failed(url, f"it sent more than {ANSWER_BYTES_MAX} bytes")
            connection.receive_data(data)
        elif isinstance(event, h11.Response):
            status = event.status_code
        elif isinstance(event, h11.Data):
            received += event.data
        elif isinstance(event, (h11.EndOfMessage, h11.ConnectionClosed)):
            return Reply(status, bytes(received))


def _failed(url: LanUrl, why: str) -> PortMappingFailed:
    return PortMappingFailed(f"the gateway at {url.host}:{url.port} gave no usable answer", why=why)
