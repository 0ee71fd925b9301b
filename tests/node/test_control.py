from __future__ import annotations

import random
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import trio
from rig import until

from sedmad.errors import HomeInUse, NotPermitted, SessionLost
from sedmad.net.channel import Channel
from sedmad.node.control import serve_control
from sedmad.wire import messages as wire
from sedmad.wire.calls import Calls
from sedmad.wire.frame import FrameDecoder, encode
from sedmad.wire.methods import MethodTable

LIST = "sedma.v1.MatrixService/ListMatrices"
GET = "sedma.v1.MatrixService/GetMatrix"
PUT = "sedma.v1.MatrixService/PutMatrix"


class Matrices:
    """Serves a list, and a matrix without an end."""

    def __init__(self) -> None:
        self.gone = trio.Event()

    async def list_matrices(self, request: Any, call: Any) -> wire.ListMatricesResponse:
        return wire.ListMatricesResponse(matrices=[wire.MatrixSummary(name="w")])

    async def get_matrix(self, request: Any, call: Any) -> wire.GetMatrixResponse:
        try:
            while True:
                await call.send(payload=bytes(1 << 20), offset=0)
        finally:
            self.gone.set()

    def __getattr__(self, name: str) -> Any:
        return self.list_matrices


@asynccontextmanager
async def served(path: Path, matrices: Matrices | None = None) -> AsyncIterator[Matrices]:
    matrices = matrices or Matrices()
    methods = MethodTable()
    methods.add("MatrixService", matrices)
    async with trio.open_nursery() as nursery:
        await nursery.start(serve_control, path, methods)
        yield matrices
        nursery.cancel_scope.cancel()
    assert not await trio.Path(path).exists()


@asynccontextmanager
async def client(path: Path, *, reading: bool = True) -> AsyncIterator[Channel]:
    stream = await trio.open_unix_socket(path)
    channel = Channel(MethodTable())

    async def write() -> None:
        while True:
            frame = channel.take()
            if frame is None:
                await channel.wait_for_frames()
                continue
            with suppress(trio.BrokenResourceError):
                await stream.send_all(b"".join(map(bytes, encode(frame))))

    async def read() -> None:
        decoder = FrameDecoder()
        while data := await stream.receive_some(1 << 16):
            for frame in decoder.receive_data(data):
                channel.deliver(frame)
        channel.close(SessionLost("the daemon hung up"))

    async with stream, trio.open_nursery() as nursery:
        nursery.start_soon(write)
        if reading:
            nursery.start_soon(read)
        yield channel
        nursery.cancel_scope.cancel()


async def ask(path: Path) -> list[str]:
    with trio.fail_after(5):
        async with client(path) as channel:
            encoded = await channel.call(LIST, wire.ListMatricesRequest(), deadline=trio.current_time() + 5)
            return [matrix.name for matrix in wire.ListMatricesResponse.FromString(encoded).matrices]


class SlowMatrices(Matrices):
    """Answers when it is told to, and notes who was cancelled."""

    def __init__(self) -> None:
        super().__init__()
        self.began = trio.Event()
        self.go_on = trio.Event()

    async def put_matrix(self, request: Any, call: Any) -> wire.PutMatrixResponse:
        self.began.set()
        try:
            async for _ in call.chunks():
                pass
            await self.go_on.wait()
        finally:
            self.gone.set()
        return wire.PutMatrixResponse(received_bytes=7)


def put_bytes(*, end: bool) -> bytes:
    calls = Calls()
    calls.start(PUT, b"", payload=b"payload", end=end)
    return b"".join(bytes(piece) for frame in calls.collect() for piece in encode(frame))


async def test_a_client_that_ends_its_direction_still_gets_its_answer(tmp_path: Path) -> None:
    path, matrices = tmp_path / "control.sock", SlowMatrices()
    async with served(path, matrices):
        with trio.fail_after(5):
            async with await trio.open_unix_socket(path) as stream:
                await stream.send_all(put_bytes(end=True))
                await stream.send_eof()
                await matrices.began.wait()
                await trio.sleep(0.1)
                assert not matrices.gone.is_set()
                matrices.go_on.set()
                received = b""
                while data := await stream.receive_some(1 << 16):
                    received += data
        (frame,) = FrameDecoder().receive_data(received)
        assert wire.PutMatrixResponse.FromString(frame.header.message).received_bytes == 7


@pytest.mark.parametrize("then_closed", [False, True])
async def test_a_call_that_nobody_waits_for_or_can_complete_is_cancelled(
    then_closed: bool, tmp_path: Path
) -> None:
    path, matrices = tmp_path / "control.sock", SlowMatrices()
    async with served(path, matrices):
        with trio.fail_after(5):
            async with await trio.open_unix_socket(path) as stream:
                await stream.send_all(put_bytes(end=then_closed))
                await matrices.began.wait()
                await stream.send_eof()
                if not then_closed:
                    await matrices.gone.wait()
            await matrices.gone.wait()


async def test_only_its_owner_may_open_the_socket(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    async with served(path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert await ask(path) == ["w"]


async def test_a_socket_left_over_is_in_nobodys_way(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with socket.socket(socket.AF_UNIX) as left_over:
        left_over.bind(str(path))
    async with served(path):
        assert await ask(path) == ["w"]


async def test_a_path_that_cannot_be_bound_is_named(tmp_path: Path) -> None:
    with pytest.RaisesGroup(HomeInUse, flatten_subgroups=True):
        async with served(tmp_path / "missing" / "control.sock"):
            pass


@pytest.mark.parametrize("seed", range(8))
async def test_bytes_that_are_no_frames_end_their_client_alone(seed: int, tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    rng = random.Random(seed)
    async with served(path), client(path) as other:
        stream = await trio.open_unix_socket(path)
        async with stream:
            await stream.send_all(rng.randbytes(rng.choice([16, 100, 5000])))
            with trio.fail_after(5):
                try:
                    while await stream.receive_some(4096):
                        pass
                except trio.BrokenResourceError:
                    pass
        encoded = await other.call(LIST, wire.ListMatricesRequest(), deadline=trio.current_time() + 5)
        assert wire.ListMatricesResponse.FromString(encoded).matrices


async def test_an_unknown_method_is_refused_and_the_client_stays(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    async with served(path), client(path) as channel:
        deadline = trio.current_time() + 5
        with pytest.raises(NotPermitted):
            await channel.call("sedma.v1.Nonsense/Do", wire.ListMatricesRequest(), deadline=deadline)
        assert await channel.call(LIST, wire.ListMatricesRequest(), deadline=deadline)


async def test_more_clients_than_may_be_served_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sedmad.node.control.CLIENTS_MAX", 2)
    path = tmp_path / "control.sock"
    answers: list[list[str]] = []

    async def third() -> None:
        answers.append(await ask(path))

    async with served(path), trio.open_nursery() as nursery:
        async with client(path) as first, client(path) as second:
            for channel in (first, second):
                await channel.call(LIST, wire.ListMatricesRequest(), deadline=trio.current_time() + 5)
            nursery.start_soon(third)
            await trio.sleep(0.1)
            assert not answers

        async def answered() -> bool:
            return bool(answers)

        await until(answered)


async def test_a_client_that_goes_takes_its_calls_with_it(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    async with served(path) as matrices:
        async with (
            client(path) as channel,
            channel.open_call(GET, wire.GetMatrixRequest(), deadline=trio.current_time() + 5) as call,
        ):
            async for _ in call:
                break
        with trio.fail_after(5):
            await matrices.gone.wait()
        assert await ask(path) == ["w"]


async def test_a_client_that_does_not_read_is_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sedmad.node.control.WRITE_STALL_S", 0.1)
    path = tmp_path / "control.sock"
    async with served(path) as matrices:
        async with client(path, reading=False) as channel, trio.open_nursery() as nursery:

            async def get() -> None:
                await channel.call(GET, wire.GetMatrixRequest(), deadline=trio.current_time() + 60)

            nursery.start_soon(get)
            with trio.fail_after(5):
                await matrices.gone.wait()
            nursery.cancel_scope.cancel()
        assert await ask(path) == ["w"]
