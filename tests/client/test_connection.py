"""The connection under use by many threads, and under everything that can happen to the daemon."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from fake_daemon import FakeDaemon, Gone, ServedCall

import sedmad
from sedmad.client import Mesh
from sedmad.client import call as call_module
from sedmad.client.connection import Connection
from sedmad.errors import (
    ConfigurationInvalid,
    DaemonNotRunning,
    DeadlineExceeded,
    FrameInvalid,
    MatrixNotFound,
    ProtocolViolation,
    SedmadError,
    SessionLost,
    UsageError,
)
from sedmad.wire import messages as wire
from sedmad.wire.frame import PREFIX, Frame, encode


def test_no_socket_is_told_by_its_path(tmp_path: Path) -> None:
    with pytest.raises(DaemonNotRunning, match=r"control\.sock"):
        sedmad.connect(tmp_path)


def test_a_socket_without_a_listener_is_a_daemon_that_does_not_run(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as abandoned:
        abandoned.bind(str(tmp_path / "control.sock"))
    with pytest.raises(DaemonNotRunning, match=r"control\.sock"):
        sedmad.connect(tmp_path)


def test_a_home_that_is_too_long_for_a_socket_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationInvalid):
        sedmad.connect(tmp_path / ("long" * 40))
    with pytest.raises(ConfigurationInvalid, match="path of a socket"):
        Connection(tmp_path / ("long" * 40))


def test_threads_share_one_connection(daemon: FakeDaemon, mesh: Mesh, rng: np.random.Generator) -> None:
    weights = rng.standard_normal((128, 96)).astype(np.float32)
    w = mesh.put("w", weights)
    columns = rng.standard_normal((48, 96)).astype(np.float32)
    with ThreadPoolExecutor(12) as pool:
        results = list(pool.map(lambda x: w @ x, columns))
    np.testing.assert_allclose(results, columns @ weights.T, rtol=1e-4, atol=1e-4)
    assert len(daemon.clients) == 1


def test_errors_of_the_daemon_arrive_as_they_were(mesh: Mesh) -> None:
    with pytest.raises(MatrixNotFound, match="there is no matrix absent") as caught:
        mesh["absent"]
    assert caught.value.matrix == "absent"
    assert "absent" not in mesh
    assert 7 not in mesh


@pytest.mark.parametrize("name", ["", "n" * 600, "\udcff"])
def test_names_that_no_matrix_can_have_are_refused_here(daemon: FakeDaemon, mesh: Mesh, name: str) -> None:
    with pytest.raises(UsageError):
        mesh.inspect(name)
    assert not daemon.calls


def test_a_daemon_that_dies_fails_every_call_under_way(daemon: FakeDaemon, mesh: Mesh) -> None:
    reached = threading.Barrier(4)

    def hang(call: ServedCall) -> None:
        reached.wait(10)
        call.wait_until_cancelled()
        raise Gone

    daemon.faults["ListPeers"] = hang
    with ThreadPoolExecutor(3) as pool:
        calls = [pool.submit(mesh.peers) for _ in range(3)]
        reached.wait(10)
        daemon.kill()
        for call in calls:
            # It is asked once more, and by then nobody listens.
            assert isinstance(call.exception(10), DaemonNotRunning)


def test_what_may_not_be_asked_twice_is_lost_with_its_daemon(daemon: FakeDaemon, mesh: Mesh) -> None:
    daemon.faults["RemoveMatrix"] = lambda call: daemon.kill()
    with pytest.raises(SessionLost):
        mesh.remove("w")
    assert sum(call.request.method.endswith("RemoveMatrix") for call in daemon.calls) == 1


def test_a_restarted_daemon_is_found_again(daemon: FakeDaemon, home: Path, mesh: Mesh) -> None:
    assert mesh.status().name == "alpha"
    daemon.close()
    with pytest.raises(DaemonNotRunning):
        mesh.status()
    restarted = FakeDaemon(home / "control.sock")
    try:
        assert mesh.status().name == "alpha"
    finally:
        restarted.close()


def test_a_product_outlives_a_broken_connection(daemon: FakeDaemon, mesh: Mesh) -> None:
    w = mesh.put("w", np.eye(100, dtype=np.float32))

    def break_once(call: ServedCall) -> None:
        del daemon.faults["ApplyMatrix"]
        call.client.close()

    daemon.faults["ApplyMatrix"] = break_once
    x = np.arange(100 * 300, dtype=np.float32).reshape(100, 300)
    np.testing.assert_array_equal(w @ x, x)


def frame_with(**fields: object) -> bytes:
    return b"".join(encode(Frame(wire.FrameHeader(**fields))))


BAD_BYTES = {
    "garbage": (b"HTTP/1.1 400 Bad Request\r\n\r\n", FrameInvalid),
    "a header of 4 GiB": (PREFIX.pack(1, 0, 0, 2**32 - 1, 0), FrameInvalid),
    "a payload of 16 EiB": (PREFIX.pack(1, 0, 0, 4, 2**64 - 1) + b"abcd", FrameInvalid),
    "a header that is no protobuf": (PREFIX.pack(1, 0, 0, 4, 0) + b"\xff\xff\xff\xff", FrameInvalid),
    "a call of the daemon": (
        frame_with(kind=wire.FRAME_KIND_REQUEST, call_id=1, method="sedma.v1.NodeService/GetStatus"),
        ProtocolViolation,
    ),
    "a frame without a kind": (frame_with(call_id=1), ProtocolViolation),
    "more credit than there is": (
        frame_with(kind=wire.FRAME_KIND_REQUEST_CREDIT, call_id=1, credit_bytes=1),
        ProtocolViolation,
    ),
}


@pytest.mark.parametrize("what", BAD_BYTES)
def test_bad_frames_end_the_connection_with_a_typed_error(daemon: FakeDaemon, mesh: Mesh, what: str) -> None:
    data, error_class = BAD_BYTES[what]
    daemon.faults["GetStatus"] = lambda call: call.client.send_raw(data)
    with pytest.raises(error_class):
        mesh.status()
    del daemon.faults["GetStatus"]
    assert mesh.status().name == "alpha"


def test_an_answer_that_cannot_be_read_is_a_typed_error(daemon: FakeDaemon, mesh: Mesh) -> None:
    daemon.faults["GetStatus"] = lambda call: call.client.send_raw(
        frame_with(kind=wire.FRAME_KIND_RESPONSE, call_id=call.request.call_id, message=b"\xff\xff\xff")
    )
    with pytest.raises(ProtocolViolation, match="cannot be read"):
        mesh.status()


def test_frames_of_calls_that_are_over_are_dropped(daemon: FakeDaemon, mesh: Mesh) -> None:
    stray = frame_with(kind=wire.FRAME_KIND_RESPONSE, call_id=999)
    daemon.faults["GetStatus"] = lambda call: (call.client.send_raw(stray), daemon.GetStatus(call))
    assert mesh.status().name == "alpha"


def test_an_endless_row_of_messages_is_cut_off(
    daemon: FakeDaemon, mesh: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sedmad.client.link.EVENTS_MAX", 16)
    flooded = threading.Event()

    def flood(call: ServedCall) -> None:
        call.send(wire.PutMatrixResponse())
        frame = frame_with(kind=wire.FRAME_KIND_RESPONSE_DATA, call_id=call.request.call_id)
        call.client.send_raw(frame * 40)
        flooded.set()

    daemon.faults["PutMatrix"] = flood
    with pytest.raises(ProtocolViolation, match="more than its client can take"):
        mesh.put("w", np.ones((4, 4)), progress=lambda progress: flooded.wait(10))


def test_a_deadline_that_has_passed_sends_nothing(daemon: FakeDaemon, mesh: Mesh) -> None:
    w = mesh.put("w", np.ones((4, 4)))
    for deadline_s in (0.0, -1.0):
        with pytest.raises(DeadlineExceeded) as caught:
            w.apply(np.ones(4), deadline_s=deadline_s)
        assert caught.value.matrix == "w"
    assert not any(call.request.method.endswith("ApplyMatrix") for call in daemon.calls)
    with pytest.raises(UsageError):
        w.apply(np.ones(4), deadline_s=float("nan"))


def test_a_product_that_takes_too_long_ends_and_is_cancelled(daemon: FakeDaemon, mesh: Mesh) -> None:
    w = mesh.put("w", np.ones((4, 4)))
    cancelled = threading.Event()

    def hang(call: ServedCall) -> None:
        call.wait_until_cancelled()
        cancelled.set()
        raise Gone

    daemon.faults["ApplyMatrix"] = hang
    with pytest.raises(DeadlineExceeded) as caught:
        w.apply(np.ones(4), deadline_s=0.05)
    assert caught.value.matrix == "w"
    assert cancelled.wait(10)
    assert 0 < daemon.last("ApplyMatrix").request.remaining_ms <= 50


def test_a_deadline_ends_a_product_that_does_not_get_through(daemon: FakeDaemon, mesh: Mesh) -> None:
    """The daemon stands still: it reads nothing, so neither socket nor credit have room for all of X."""
    w = mesh.put("w", np.ones((2, 1 << 20)))
    frozen = daemon.clients[0]
    frozen.changed.acquire()
    try:
        with pytest.raises(DeadlineExceeded):
            w.apply(np.ones((1 << 20, 8)), deadline_s=0.1)
    finally:
        frozen.changed.release()


def test_a_silent_stream_ends(daemon: FakeDaemon, mesh: Mesh, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call_module, "SILENCE_S", 0.05)
    daemon.faults["PutMatrix"] = lambda call: call.wait_until_cancelled()
    with pytest.raises(SessionLost, match="silent"):
        mesh.put("w", np.ones((4, 4)))


def test_closing_fails_what_other_threads_have_under_way(daemon: FakeDaemon, mesh: Mesh) -> None:
    reached = threading.Event()

    def hang(call: ServedCall) -> None:
        reached.set()
        call.wait_until_cancelled()
        raise Gone

    daemon.faults["RemoveMatrix"] = hang
    with ThreadPoolExecutor(1) as pool:
        removal = pool.submit(mesh.remove, "w")
        assert reached.wait(10)
        mesh.close()
        assert isinstance(removal.exception(10), SessionLost)


def test_a_forgotten_connection_closes_itself(daemon: FakeDaemon, home: Path) -> None:
    mesh = sedmad.connect(home)
    mesh.status()
    client = daemon.clients[-1]
    del mesh
    with client.changed:
        assert client.changed.wait_for(lambda: client.closed, 10)


def wait_until_asleep(process_id: int) -> None:
    """Wait until a process's main thread waits for its answer, and does not merely lie between two instructions."""
    looks_asleep = 0
    while looks_asleep < 20:
        state = Path(f"/proc/{process_id}/task/{process_id}/stat").read_text().rpartition(")")[2].split()[0]
        looks_asleep = looks_asleep + 1 if state == "S" else 0
        time.sleep(0.005)


def test_ctrl_c_cancels_the_call(daemon: FakeDaemon, home: Path) -> None:
    reached, cancelled = threading.Event(), threading.Event()

    def hang(call: ServedCall) -> None:
        reached.set()
        call.wait_until_cancelled()
        if call.cancelled:
            cancelled.set()
        raise Gone

    daemon.faults["ListPeers"] = hang
    program = (
        "import sedmad, time\n"
        "mesh = sedmad.connect()\n"
        "try:\n"
        "    mesh.peers()\n"
        "except KeyboardInterrupt:\n"
        "    print('interrupted', mesh.status().name)\n"
    )
    client = subprocess.Popen(
        [sys.executable, "-c", program], env={**os.environ, "SEDMAD_HOME": str(home)}, stdout=subprocess.PIPE
    )
    assert reached.wait(30)
    wait_until_asleep(client.pid)
    client.send_signal(signal.SIGINT)
    assert cancelled.wait(10)
    assert client.communicate(timeout=30)[0].split() == [b"interrupted", b"alpha"]


def test_a_forked_child_makes_a_connection_of_its_own(daemon: FakeDaemon, home: Path) -> None:
    """In a program of its own: here the fixture's threads would be forked too."""
    program = (
        "import os, sedmad\n"
        "mesh = sedmad.connect()\n"
        "assert mesh.status().name == 'alpha'\n"
        "child = os.fork()\n"
        "if not child:\n"
        "    os._exit(0 if mesh.status().name == 'alpha' else 1)\n"
        "assert os.waitpid(child, 0)[1] == 0\n"
        "assert mesh.status().name == 'alpha'\n"
    )
    environ = {**os.environ, "SEDMAD_HOME": str(home)}
    subprocess.run([sys.executable, "-c", program], env=environ, check=True, timeout=60)
    assert len(daemon.clients) == 2


def test_what_the_daemon_breaks_never_hangs_a_thread(daemon: FakeDaemon, mesh: Mesh) -> None:
    """Connections break at random moments of streams in both directions, seen by several threads."""
    w = mesh.put("w", np.ones((256, 2048)))
    outcomes: list[str] = []
    ends = time.monotonic() + 1.0

    def use(index: int) -> None:
        while time.monotonic() < ends:
            try:
                if index % 2:
                    w.get()
                else:
                    w @ np.ones((2048, 100))
                outcomes.append("ok")
            except SedmadError as error:
                outcomes.append(type(error).__name__)

    threads = [threading.Thread(target=use, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    while time.monotonic() < ends:
        time.sleep(0.02)
        daemon.clients[-1].close()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    assert set(outcomes) <= {"ok", "SessionLost"}
