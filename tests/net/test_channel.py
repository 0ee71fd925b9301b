from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import trio
import trio.testing

from sedmad.errors import (
    DeadlineExceeded,
    LocalError,
    MatrixNotFound,
    NotPermitted,
    Overloaded,
    ProtocolViolation,
    SedmadError,
    SessionLost,
)
from sedmad.net.calls import IncomingCall
from sedmad.net.channel import Channel
from sedmad.wire.calls import CALLS_MAX, CREDIT_BYTES, EVENTS_MAX
from sedmad.wire.frame import Frame, FrameDecoder, Priority, encode
from sedmad.wire.messages import (
    ApplyMatrixRequest,
    ApplyMatrixResponse,
    FrameHeader,
    FrameKind,
    GetMatrixRequest,
    GetMatrixResponse,
    ListMatricesRequest,
    ListMatricesResponse,
    PutMatrixRequest,
    PutMatrixResponse,
)
from sedmad.wire.methods import MethodTable, services, snake_case

MIB = 1 << 20
APPLY = "sedma.v1.MatrixService/ApplyMatrix"
GET = "sedma.v1.MatrixService/GetMatrix"
LIST = "sedma.v1.MatrixService/ListMatrices"
PUT = "sedma.v1.MatrixService/PutMatrix"

Handler = Callable[[Any, IncomingCall], Awaitable[Any]]


def serving(**handlers: Handler) -> MethodTable:
    """Return a table with these handlers of MatrixService; the others only say their names."""

    async def silent(request: object, call: IncomingCall) -> ListMatricesResponse:
        return ListMatricesResponse()

    names = [snake_case(method.name) for method in services()["MatrixService"].methods]
    assert set(handlers) <= set(names)
    table = MethodTable()
    table.add("MatrixService", SimpleNamespace(**(dict.fromkeys(names, silent) | handlers)))
    return table


async def pump(source: Channel, sink: Channel) -> None:
    decoder = FrameDecoder()
    while True:
        if (frame := source.take()) is None:
            await source.wait_for_frames()
            continue
        for piece in encode(frame):
            for arrived in decoder.receive_data(piece):
                sink.deliver(arrived)
        await trio.lowlevel.checkpoint()


@asynccontextmanager
async def joined(**handlers: Handler) -> AsyncIterator[tuple[Channel, Channel]]:
    """Two channels that carry each other's frames; the second serves."""
    asker, server = Channel(serving(), "p2", "n2"), Channel(serving(**handlers), "p1", "n1")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(asker.serve)
        nursery.start_soon(server.serve)
        nursery.start_soon(pump, asker, server)
        nursery.start_soon(pump, server, asker)
        yield asker, server
        nursery.cancel_scope.cancel()


def soon(seconds: float = 30.0) -> float:
    return trio.current_time() + seconds


async def apply(channel: Channel, name: str = "w", seconds: float = 30.0) -> str:
    encoded = await channel.call(APPLY, ApplyMatrixRequest(name=name), deadline=soon(seconds))
    return str(ApplyMatrixResponse.FromString(encoded).length)


async def test_ask_and_answer() -> None:
    async def apply_matrix(request: ApplyMatrixRequest, call: IncomingCall) -> ApplyMatrixResponse:
        assert call.remote == "p1"
        assert call.deadline <= soon()
        return ApplyMatrixResponse(length=len(request.name))

    async with joined(apply_matrix=apply_matrix) as (asker, _):
        assert await apply(asker, "encoder") == "7"
        assert asker.outgoing_count == 0


@pytest.mark.parametrize(
    "sizes", [(0, 0), (1, 1), (MIB, MIB), (MIB + 1, 3), (5, 3 * MIB), (11 * MIB, 20 * MIB)]
)
async def test_payloads_of_any_length_both_ways(sizes: tuple[int, int]) -> None:
    rng = np.random.default_rng(1)
    there, back = (rng.bytes(size) for size in sizes)

    async def apply_matrix(request: ApplyMatrixRequest, call: IncomingCall) -> Any:
        received = bytearray(len(there))
        await call.read_into(memoryview(received))
        assert received == there
        return ApplyMatrixResponse(length=1), back

    async with joined(apply_matrix=apply_matrix) as (asker, _):
        into = bytearray(len(back))
        request = ApplyMatrixRequest()
        await asker.call(APPLY, request, deadline=soon(), payload=there, into=memoryview(into))
        assert into == back


async def test_arrays_travel_as_they_lie_in_memory() -> None:
    x = np.random.default_rng(2).standard_normal((3, 500)).astype(np.float32)

    async def apply_matrix(request: ApplyMatrixRequest, call: IncomingCall) -> Any:
        received = np.empty_like(x)
        await call.read_into(memoryview(received))
        return ApplyMatrixResponse(), memoryview(received.astype(np.float64))

    async with joined(apply_matrix=apply_matrix) as (asker, _):
        y = np.empty(x.shape)
        await asker.call(
            APPLY, ApplyMatrixRequest(), deadline=soon(), payload=memoryview(x), into=memoryview(y)
        )
        assert (y == x).all()


async def test_a_slow_reader_slows_the_answer_and_buffers_no_more_than_its_credit(
    autojump_clock: trio.testing.MockClock,
) -> None:
    chunk = bytes(MIB)
    sent = 0

    async def get_matrix(request: GetMatrixRequest, call: IncomingCall) -> GetMatrixResponse:
        nonlocal sent
        for index in range(40):
            await call.send(payload=chunk, offset=index * MIB)
            sent += MIB
        return GetMatrixResponse()

    async with joined(get_matrix=get_matrix) as (asker, _):
        read = 0
        async with asker.open_call(GET, GetMatrixRequest(), deadline=math.inf) as call:
            async for arrived in call:
                assert arrived.offset == read
                assert sent - read <= CREDIT_BYTES + MIB
                await trio.sleep(1)
                read += len(arrived.payload)
        assert read == 40 * MIB
        assert call.response == b""


async def test_a_slow_handler_slows_the_asker(autojump_clock: trio.testing.MockClock) -> None:
    sent = read = 0

    async def put_matrix(request: PutMatrixRequest, call: IncomingCall) -> PutMatrixResponse:
        nonlocal read
        await call.send(PutMatrixResponse(total_copy_bytes=1))
        async for arrived in call.chunks():
            assert arrived.offset == read
            assert sent - read <= CREDIT_BYTES + MIB
            await trio.sleep(1)
            read += len(arrived.payload)
        return PutMatrixResponse(received_bytes=read)

    async with joined(put_matrix=put_matrix) as (asker, _):
        async with asker.open_call(PUT, PutMatrixRequest(), deadline=math.inf, end=False) as call:
            progress = await call.__anext__()
            assert PutMatrixResponse.FromString(progress.message).total_copy_bytes == 1
            for index in range(40):
                await call.send(bytes(MIB), index * MIB)
                sent += MIB
            await call.send(b"", sent, end=True)
            response = PutMatrixResponse.FromString(await call.finish())
        assert response.received_bytes == read == 40 * MIB


async def test_a_deadline_names_the_node_and_cancels_the_handler(
    autojump_clock: trio.testing.MockClock,
) -> None:
    ended: list[float] = []

    async def apply_matrix(request: ApplyMatrixRequest, call: IncomingCall) -> Any:
        try:
            await trio.sleep_forever()
        finally:
            ended.append(trio.current_time())

    async with joined(apply_matrix=apply_matrix) as (asker, _):
        with pytest.raises(DeadlineExceeded, match="ApplyMatrix had no answer") as caught:
            await apply(asker, seconds=2)
        assert caught.value.node == "n2"
        await trio.testing.wait_all_tasks_blocked()
        assert ended == [pytest.approx(trio.current_time(), abs=0.25)]
        with pytest.raises(DeadlineExceeded):
            await apply(asker, seconds=0)
        assert asker.outgoing_count == 0


async def test_a_deadline_holds_while_payload_waits_for_credit(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def put_matrix(request: PutMatrixRequest, call: IncomingCall) -> Any:
        await trio.sleep_forever()

    async with joined(put_matrix=put_matrix) as (asker, _):
        with pytest.raises(DeadlineExceeded):
            await asker.call(PUT, PutMatrixRequest(), deadline=soon(2), payload=bytes(20 * MIB))


async def fail_typed(request: object, call: IncomingCall) -> Any:
    raise MatrixNotFound("there is no matrix w", matrix="w")


async def fail_elsewhere(request: object, call: IncomingCall) -> Any:
    raise MatrixNotFound("there is no matrix w", matrix="w", node="n3")


async def fail_in_a_group(request: object, call: IncomingCall) -> Any:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)
        nursery.start_soon(fail_typed, request, call)


async def fail_by_a_bug(request: object, call: IncomingCall) -> Any:
    raise ZeroDivisionError("a bug")


async def fail_by_a_bug_in_a_group(request: object, call: IncomingCall) -> Any:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fail_by_a_bug, request, call)


async def fail_to_answer(request: object, call: IncomingCall) -> Any:
    return None


async def fail_by_size(request: object, call: IncomingCall) -> Any:
    return ListMatricesResponse(matrices=[{"name": "x" * MIB}])


@pytest.mark.parametrize(
    ("handler", "error_class", "node"),
    [
        (fail_typed, MatrixNotFound, "n2"),
        (fail_elsewhere, MatrixNotFound, "n3"),
        (fail_in_a_group, MatrixNotFound, "n2"),
        (fail_by_a_bug, LocalError, "n2"),
        (fail_by_a_bug_in_a_group, LocalError, "n2"),
        (fail_to_answer, LocalError, "n2"),
        (fail_by_size, LocalError, "n2"),
    ],
)
async def test_a_failing_handler_fails_its_call_alone(
    handler: Handler, error_class: type[SedmadError], node: str
) -> None:
    async with joined(apply_matrix=handler) as (asker, _):
        for _ in range(2):
            with pytest.raises(error_class) as caught:
                await apply(asker)
            assert type(caught.value) is error_class
            assert caught.value.node == node
        if error_class is MatrixNotFound:
            assert caught.value.matrix == "w"
        await asker.call(LIST, ListMatricesRequest(), deadline=soon())


async def test_a_handler_that_fails_while_it_is_cancelled_ends_nothing_else(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def fail_on_the_way_out() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ZeroDivisionError("a bug in the cleaning up")

    async def apply_matrix(request: ApplyMatrixRequest, call: IncomingCall) -> Any:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail_on_the_way_out)
            nursery.start_soon(trio.sleep_forever)

    async with joined(apply_matrix=apply_matrix) as (asker, server):
        with pytest.raises(DeadlineExceeded):
            await apply(asker, seconds=1)
        await asker.call(LIST, ListMatricesRequest(), deadline=soon())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_expect_lost, asker)
            await trio.testing.wait_all_tasks_blocked()
            server.close(SessionLost("this node stops"))
            asker.close(SessionLost("this node stops"))


async def _expect_lost(channel: Channel, match: str = "stops") -> None:
    with pytest.raises(SessionLost, match=match):
        await apply(channel)


async def test_leaving_a_call_cancels_its_handler() -> None:
    began, ended = trio.Event(), trio.Event()

    async def get_matrix(request: GetMatrixRequest, call: IncomingCall) -> Any:
        began.set()
        try:
            await trio.sleep_forever()
        finally:
            ended.set()

    async with joined(get_matrix=get_matrix) as (asker, server):
        async with asker.open_call(GET, GetMatrixRequest(), deadline=soon()):
            await began.wait()
        await ended.wait()
        await trio.testing.wait_all_tasks_blocked()
        assert not server._incoming
        assert not server.has_frames


async def test_an_early_answer_stops_the_payload() -> None:
    async with joined(put_matrix=fail_typed) as (asker, _):
        with pytest.raises(MatrixNotFound):
            await asker.call(PUT, PutMatrixRequest(), deadline=math.inf, payload=bytes(30 * MIB))
        async with asker.open_call(PUT, PutMatrixRequest(), deadline=math.inf, end=False) as call:
            for index in range(30):
                await call.send(bytes(MIB), index * MIB)
            with pytest.raises(MatrixNotFound):
                await call.finish()


async def test_closing_ends_every_call_on_both_sides() -> None:
    ended = trio.Event()

    async def apply_matrix(request: ApplyMatrixRequest, call: IncomingCall) -> Any:
        try:
            await trio.sleep_forever()
        finally:
            ended.set()

    async def starve(channel: Channel) -> None:
        with pytest.raises(SessionLost):
            await channel.call(APPLY, ApplyMatrixRequest(), deadline=math.inf, payload=bytes(30 * MIB))

    async with joined(apply_matrix=apply_matrix) as (asker, server):
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(_expect_lost, asker)
            nursery.start_soon(starve, asker)
            await trio.testing.wait_all_tasks_blocked()
            asker.close(SessionLost("it stops"))
        await _expect_lost(asker)
        assert asker.outgoing_count == 0
        server.close(SessionLost("it stops"))
        await ended.wait()


async def test_a_peer_that_was_restarted_loses_the_calls_and_keeps_the_channel() -> None:
    async def apply_matrix(request: ApplyMatrixRequest, call: IncomingCall) -> Any:
        if request.name == "slow":
            await trio.sleep_forever()
        return ApplyMatrixResponse(length=5)

    async with joined(apply_matrix=apply_matrix) as (asker, server):

        async def lose() -> None:
            with pytest.raises(SessionLost, match="n2 was restarted"):
                await apply(asker, "slow")
            # The other tasks' calls have not been cleared away yet; this one is not mixed up with them.
            assert await apply(asker) == "5"

        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(lose)
            await trio.testing.wait_all_tasks_blocked()
            asker.forget_calls()
            server.forget_calls()
        assert asker.outgoing_count == 0


async def test_a_forgotten_handler_never_answers_the_call_that_has_its_id_now() -> None:
    """The asker was restarted and counts its calls from 1 again, while a thread still works for its old call 1."""
    finish_old, old_ended, finish_new = trio.Event(), trio.Event(), trio.Event()

    async def apply_matrix(request: ApplyMatrixRequest, call: IncomingCall) -> Any:
        if request.name == "old":
            with trio.CancelScope(shield=True):
                await finish_old.wait()
                await call.send(ApplyMatrixResponse(length=666))
            old_ended.set()
            return ApplyMatrixResponse(length=666), bytes(3 * MIB)
        await finish_new.wait()
        return ApplyMatrixResponse(length=7)

    async with joined(apply_matrix=apply_matrix) as (asker, server):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_expect_lost, asker, "restarted")
            asker_call = asker.open_call(APPLY, ApplyMatrixRequest(name="old"), deadline=soon())
            async with asker_call as old:
                await trio.testing.wait_all_tasks_blocked()
                server.forget_calls()
                asker.forget_calls()
                asker._calls._next_call_id = old.call_id
                with pytest.raises(SessionLost):
                    await old.finish()
        asker._calls._next_call_id = old.call_id

        async def ask_new() -> None:
            assert await apply(asker, "new") == "7"

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask_new)
            await trio.testing.wait_all_tasks_blocked()
            finish_old.set()
            await old_ended.wait()
            await trio.testing.wait_all_tasks_blocked()
            finish_new.set()


async def test_unknown_methods_and_malformed_requests_are_refused() -> None:
    async with joined() as (asker, _):
        with pytest.raises(NotPermitted, match="Nonsense"):
            await asker.call("sedma.v1.MatrixService/Nonsense", ListMatricesRequest(), deadline=soon())
        malformed = type("Malformed", (), {"SerializeToString": lambda self: b"\xff"})()
        with pytest.raises(ProtocolViolation, match="malformed"):
            await asker.call(APPLY, malformed, deadline=soon())


async def test_as_many_calls_as_may_run_and_one_more() -> None:
    gate = trio.Event()

    async def apply_matrix(request: ApplyMatrixRequest, call: IncomingCall) -> Any:
        await gate.wait()
        return ApplyMatrixResponse(length=1)

    async with joined(apply_matrix=apply_matrix) as (asker, _):
        async with trio.open_nursery() as nursery:
            for _ in range(CALLS_MAX):
                nursery.start_soon(apply, asker)
            await trio.testing.wait_all_tasks_blocked()
            assert asker.outgoing_count == CALLS_MAX
            with pytest.raises(Overloaded):
                await apply(asker)
            gate.set()
        assert await apply(asker) == "1"


async def test_handlers_that_cannot_be_stopped_count_though_their_calls_are_gone() -> None:
    gate = trio.Event()

    async def apply_matrix(request: ApplyMatrixRequest, call: IncomingCall) -> Any:
        with trio.CancelScope(shield=True):
            await gate.wait()
        return ApplyMatrixResponse()

    async with joined(apply_matrix=apply_matrix) as (asker, _server):
        for _ in range(CALLS_MAX):
            async with asker.open_call(APPLY, ApplyMatrixRequest(), deadline=soon()):
                await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(Overloaded):
            await apply(asker)
        gate.set()
        await trio.testing.wait_all_tasks_blocked()
        assert await apply(asker) == "0"


async def test_calls_that_come_before_the_channel_is_served_wait_for_it() -> None:
    server = Channel(serving())
    server.deliver(Frame(FrameHeader(kind=FrameKind.FRAME_KIND_REQUEST, call_id=1, method=LIST), end=True))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.serve)
        await server.wait_for_frames()
        answer = server.take()
        assert answer is not None
        assert answer.header.kind == FrameKind.FRAME_KIND_RESPONSE
        nursery.cancel_scope.cancel()


async def test_where_nothing_is_written_calls_wait_and_end_by_their_deadlines(
    autojump_clock: trio.testing.MockClock,
) -> None:
    channel = Channel(serving(), "p2", "n2")

    async def ask() -> None:
        with pytest.raises(DeadlineExceeded):
            await channel.call(APPLY, ApplyMatrixRequest(), deadline=soon(5), payload=bytes(MIB))

    async with trio.open_nursery() as nursery:
        for _ in range(100):
            nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        assert channel.outgoing_count < 20
    assert channel.outgoing_count == 0


async def test_room_in_the_outbox_wakes_those_who_wait_for_it() -> None:
    channel = Channel(serving(), "p2", "n2")
    async with trio.open_nursery() as nursery:
        for _ in range(100):
            nursery.start_soon(_ask_for_ever, channel)
        taken = 0
        while taken < 100:
            await trio.testing.wait_all_tasks_blocked()
            while channel.take() is not None:
                taken += 1
        nursery.cancel_scope.cancel()


async def _ask_for_ever(channel: Channel) -> None:
    await channel.call(APPLY, ApplyMatrixRequest(), deadline=math.inf, payload=bytes(MIB))


async def test_the_writer_sleeps_while_only_bulk_waits_that_may_not_leave() -> None:
    channel = Channel(serving(), "p2", "n2")
    async with channel.open_call(GET, GetMatrixRequest(), deadline=soon()):
        assert channel.has_frames
        assert channel.take(Priority.PRODUCT) is None
        with trio.move_on_after(0.01) as slept:
            await channel.wait_for_frames()
        assert slept.cancelled_caught
        channel.wake()
        await channel.wait_for_frames()
        assert channel.take(Priority.PRODUCT) is None
        channel.send_message("membership", b"")
        await channel.wait_for_frames()
        assert channel.take(Priority.PRODUCT) is not None
        assert channel.take(Priority.BULK) is not None
        assert channel.take() is None


async def test_messages_arrive_or_are_dropped_and_break_nothing() -> None:
    received: list[tuple[str, bytes]] = []

    def take(method: str, message: bytes) -> None:
        received.append((method, message))
        raise ZeroDivisionError("a bug")

    one, other = Channel(serving()), Channel(serving(), on_message=take)
    one.send_message("membership", b"hello")
    frame = one.take()
    assert frame is not None
    other.deliver(frame)
    Channel(serving()).deliver(frame)
    assert received == [("membership", b"hello")]
    for _ in range(100):
        one.send_message("membership", bytes(900_000))
    queued = 0
    while one.take():
        queued += 1
    assert queued == 5
    one.close(SessionLost("closed"))
    one.send_message("membership", b"")
    assert not one.has_frames


@pytest.mark.parametrize(("answered", "expected"), [(10, 9), (9, 10), (MIB + 1, MIB), (3, 0)])
async def test_a_payload_of_another_length_than_expected_is_a_violation(answered: int, expected: int) -> None:
    async def apply_matrix(request: ApplyMatrixRequest, call: IncomingCall) -> Any:
        return ApplyMatrixResponse(), bytes(answered)

    async with joined(apply_matrix=apply_matrix) as (asker, _):
        with pytest.raises(ProtocolViolation, match="n2 sent") as caught:
            await asker.call(
                APPLY, ApplyMatrixRequest(), deadline=soon(), into=memoryview(bytearray(expected))
            )
        assert caught.value.node == "n2"


@pytest.mark.parametrize(("sent", "expected"), [(10, 9), (9, 10), (MIB + 1, MIB), (3, 0)])
async def test_a_request_of_another_length_than_expected_is_refused(sent: int, expected: int) -> None:
    async def apply_matrix(request: ApplyMatrixRequest, call: IncomingCall) -> Any:
        await call.read_into(memoryview(bytearray(expected)))
        return ApplyMatrixResponse()

    async with joined(apply_matrix=apply_matrix) as (asker, _):
        with pytest.raises(ProtocolViolation, match="does not fit"):
            await asker.call(APPLY, ApplyMatrixRequest(), deadline=soon(), payload=bytes(sent))


async def test_nobody_can_make_a_reader_keep_more_than_so_many_frames() -> None:
    channel = Channel(serving())
    progress = Frame(FrameHeader(kind=FrameKind.FRAME_KIND_RESPONSE_DATA, call_id=1))
    async with channel.open_call(GET, GetMatrixRequest(), deadline=soon()) as call:
        assert call.call_id == 1
        for _ in range(EVENTS_MAX):
            channel.deliver(progress)
        with pytest.raises(ProtocolViolation, match="may wait"):
            channel.deliver(progress)


async def test_a_call_id_is_not_used_again_while_its_handler_runs() -> None:
    server = Channel(serving())
    request = Frame(FrameHeader(kind=FrameKind.FRAME_KIND_REQUEST, call_id=1, method=LIST))
    server.deliver(request)
    server.deliver(Frame(FrameHeader(kind=FrameKind.FRAME_KIND_CANCEL, call_id=1)))
    with pytest.raises(ProtocolViolation, match="twice"):
        server.deliver(request)
