"""A STUN server over UDP sockets: `responder` decides, this receives and sends."""

from __future__ import annotations

import errno
from collections.abc import Mapping

import structlog
import trio

from sedmad.net.stun.endpoint import from_socket
from sedmad.net.stun.message import MESSAGE_BYTES_MAX
from sedmad.net.stun.responder import Place, Responder, ServerLimits, ServerPlaces

log = structlog.get_logger("sedmad.net")

# What sending to a stranger's address may fail with, at no fault of ours; the sockets stay good.
_UNSENDABLE = frozenset(
    {
        errno.EACCES,
        errno.EPERM,
        errno.ENETUNREACH,
        errno.EHOSTUNREACH,
        errno.ECONNREFUSED,
        errno.EINVAL,
        errno.ENOBUFS,
    }
)


async def serve_stun(
    places: ServerPlaces,
    sockets: Mapping[Place, trio.socket.SocketType],
    limits: ServerLimits | None = None,
) -> None:
    """Answer binding requests until cancelled.

    Args:
        places: where the server is, as others see it.
        sockets: a bound UDP socket for each of the places.
        limits: how much to answer.
    """
    responder = Responder(places, limits)
    async with trio.open_nursery() as nursery:
        for place in places.all():
            nursery.start_soon(_serve, responder, sockets, place)


async def _serve(
    responder: Responder, sockets: Mapping[Place, trio.socket.SocketType], arrived: Place
) -> None:
    socket = sockets[arrived]
    while True:
        try:
            # One byte more than is read, so that longer ones are seen to be too long.
            datagram, source = await socket.recvfrom(MESSAGE_BYTES_MAX + 1)
            answer = responder.answer(datagram, from_socket(source), arrived, trio.current_time())
            if answer is not None:
                await sockets[answer.origin].sendto(answer.datagram, source)
        except OSError as error:
            if error.errno not in _UNSENDABLE:
                raise
            log.debug("stun_answer_not_sent", why=str(error))
