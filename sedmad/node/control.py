"""The control socket: clients on this machine, through frames on a Unix socket that only its owner may open."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
import trio

from sedmad.errors import FrameInvalid, HomeInUse, ProtocolViolation, SessionLost
from sedmad.net.channel import Channel
from sedmad.net.stream_socket import StreamSocket, without
from sedmad.wire.frame import Buffer, FrameDecoder, encode
from sedmad.wire.methods import MethodTable

if TYPE_CHECKING:
    # libp2p brings stubs that hide trio's own types, this one among them.
    from trio_typing import TaskStatus

log = structlog.get_logger("sedmad.control")

# Two hundred clients at once are served fairly; beyond that a client waits in the listen queue.
CLIENTS_MAX = 256
READ_BYTES = 256 << 10
# Answers of one joined panel leave together, and half a megabyte keeps nobody else waiting.
COALESCE_BYTES = 512 << 10
# A client that does not read its answers is let go.
WRITE_STALL_S = 30.0
# Nothing tells when a client that has ended its direction closes the other one as well.
HALF_CLOSED_STEP_S = 0.05


async def serve_control(
    path: Path, methods: MethodTable, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Serve clients on the socket at `path`, mode 0600, until cancelled.

    The caller holds the home's lock, so a socket file that is there already is a leftover.
    """
    path.unlink(missing_ok=True)  # noqa: ASYNC240 - one system call
    listener = trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_STREAM)
    umask = os.umask(0o177)
    try:
        await listener.bind(str(path))
    except OSError as error:
        listener.close()
        raise HomeInUse(f"cannot open the control socket {path}", why=str(error)) from error
    finally:
        os.umask(umask)
    listener.listen(128)
    limit = trio.CapacityLimiter(CLIENTS_MAX)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                trio.serve_listeners,
                lambda stream: _serve_client(stream, methods, limit),
                [trio.SocketListener(listener)],
            )
            task_status.started()
    finally:
        path.unlink(missing_ok=True)  # noqa: ASYNC240 - one system call


async def _serve_client(stream: trio.SocketStream, methods: MethodTable, limit: trio.CapacityLimiter) -> None:
    async with limit, stream:
        channel = Channel(methods, remote_name="the client")
        client = StreamSocket(stream.socket)
        writing = trio.Lock()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(channel.serve)
                nursery.start_soon(_write, client, channel, writing)
                await _read(client, channel)
                await _answer_the_rest(client, channel, writing)
                nursery.cancel_scope.cancel()
        except* (FrameInvalid, ProtocolViolation) as group:
            log.warning("client_closed", why=str(group.exceptions[0]))
        except* OSError:
            log.debug("client_gone")
        finally:
            channel.close(SessionLost("the client is gone"))
            client.close()


async def _read(client: StreamSocket, channel: Channel) -> None:
    decoder = FrameDecoder()
    received = memoryview(bytearray(READ_BYTES))
    while count := await client.receive_into(received):
        for frame in decoder.receive_data(received[:count]):
            channel.deliver(frame)


async def _answer_the_rest(client: StreamSocket, channel: Channel, writing: trio.Lock) -> None:
    """A client has ended its direction: unless it is gone, it still waits for answers to what is complete."""
    channel.end_requests()
    while (channel.incoming_count or channel.has_frames) and not client.is_hung_up():  # noqa: ASYNC110 - see above
        await trio.sleep(HALF_CLOSED_STEP_S)
    async with writing:
        return


async def _write(client: StreamSocket, channel: Channel, writing: trio.Lock) -> None:
    while True:
        pieces: list[Buffer] = []
        size_bytes = 0
        while size_bytes < COALESCE_BYTES and (frame := channel.take()) is not None:
            pieces += encode(frame)
            size_bytes += frame.size_bytes
        if not pieces:
            await channel.wait_for_frames()
            continue
        rest = without(pieces, client.send_now(pieces))
        if not rest:
            continue
        async with writing:
            with trio.move_on_after(WRITE_STALL_S) as stall:
                while rest:
                    rest = without(rest, await client.send(rest))
        if stall.cancelled_caught:
            raise BrokenPipeError("the client does not read its answers")
