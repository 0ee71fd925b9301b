"""Matrices in a real mesh: what goes in comes out bit for bit, lies where it should, and leaves nothing behind."""

from __future__ import annotations

import threading
from collections import Counter
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from daemons import run_verb, wait_until
from meshes import MeshOfDaemons
from products import Array, is_right, normal

import sedmad
from sedmad.errors import (
    InsufficientCapacity,
    MatrixFileInvalid,
    MatrixNotFound,
    NameTaken,
    NonFiniteValues,
    NotEnoughPeers,
    UnsupportedDtype,
    UsageError,
)

KIND_STANDBY, KIND_RESIDENT = "standby", "resident"


@pytest.mark.parametrize(
    ("w", "survive"),
    [
        (normal(1, 3), 0),
        (normal(1000, 130, dtype=np.float64), 1),
        (normal(5000, 1024), 2),
        (np.asfortranarray(normal(3000, 1100)), 1),
        (normal(70, 100_000)[:, ::2], 0),
        (normal(64, 10).astype(">f8"), 3),
    ],
    ids=["one row", "float64", "several partitions", "Fortran", "strided", "big-endian"],
)
def test_what_goes_in_comes_out_bit_for_bit_everywhere(w: Array, survive: int, mesh: MeshOfDaemons) -> None:
    with mesh["ben"].connect() as client:
        stored = client.put("w", w, survive=survive)
        assert stored.shape == w.shape
        assert stored.dtype == w.dtype.newbyteorder("<")
    little_endian = np.ascontiguousarray(w, w.dtype.newbyteorder("<"))
    for daemon in mesh:
        with daemon.connect() as client:
            wait_until(lambda client=client: "w" in client, f"{daemon.name} to hear of it")
            assert client["w"].get().tobytes() == little_endian.tobytes()


def test_copies_lie_on_different_nodes_and_residents_once(mesh: MeshOfDaemons) -> None:
    w = normal(9000, 1024)
    before = mesh.used()
    with mesh["cyd"].connect() as client:
        client.put("w", w, survive=1)
    seen = [daemon.json("inspect", "w") for daemon in mesh]
    assert all(document["partitions"] == seen[0]["partitions"] for document in seen)
    document = seen[0]
    assert (document["name"], document["shape"]) == ("w", [9000, 1024])
    assert document["version"] >= 1
    assert (document["dtype"], document["survive"]) == ("float32", 1)
    assert document["owner"] == mesh["cyd"].peer_id
    assert len(document["guardians"]) == 3
    assert document["owner"] in document["guardians"]
    assert isinstance(document["epoch"], int)
    assert document["seq"] >= 1
    assert document["degraded"] is None

    stop = 0
    residents: Counter[str] = Counter()
    held: Counter[str] = Counter()
    for index, partition in enumerate(document["partitions"]):
        assert partition["index"] == index
        start, stop = partition["rows"][0], partition["rows"][1]
        assert start == (document["partitions"][index - 1]["rows"][1] if index else 0)
        copies = partition["copies"]
        assert sorted(copy["kind"] for copy in copies) == [KIND_RESIDENT, KIND_STANDBY]
        assert len({copy["peer_id"] for copy in copies}) == 2
        for copy in copies:
            assert mesh.called(copy["peer_id"]).name == copy["name"]
            held[copy["peer_id"]] += (stop - start) * 4096
            if copy["kind"] == KIND_RESIDENT:
                residents[copy["peer_id"]] += (stop - start) * 4096
    assert stop == 9000
    assert len(residents) >= 2
    assert len(held) >= 3
    for daemon, then, now in zip(mesh, before, mesh.used(), strict=True):
        memory, disk, blobs = (b - a for a, b in zip(then, now, strict=True))
        assert memory == residents[daemon.peer_id]
        assert disk == blobs == held[daemon.peer_id]


def test_status_and_peers_tell_what_scripts_rely_on(mesh: MeshOfDaemons) -> None:
    with mesh["ann"].connect() as client:
        client.put("w", normal(10, 10), survive=1)
    ann, ben = mesh["ann"], mesh["ben"]
    wait_until(lambda: ben.json("ls")["matrices"], "the name to arrive")
    status = ben.json("status")
    assert status["node"].items() >= {"peer_id": ben.peer_id, "name": "ben", "state": "ready"}.items()
    assert status["memory"]["pledged_bytes"] == 32 << 20
    assert isinstance(status["memory"]["used_bytes"], int)
    assert [matrix["name"] for matrix in status["matrices"]] == ["w"]
    assert {peer["name"] for peer in status["peers"]} == {"ann", "cyd", "dan"}
    peers = {peer["name"]: peer for peer in ben.json("peers")["peers"]}
    assert peers["ann"].items() >= {"peer_id": ann.peer_id, "state": "alive", "path": "direct"}.items()
    assert all(isinstance(peer["rtt_ms"], float) and peer["rtt_ms"] > 0 for peer in peers.values())


def test_the_verbs_that_people_use_every_day(mesh: MeshOfDaemons, folder: Path) -> None:
    w, x = normal(500, 70, dtype=np.float64), normal(500, 3, dtype=np.float64, seed=1)
    np.save(folder / "w.npy", w)
    np.save(folder / "x.npy", x)
    ann, dan = mesh["ann"], mesh["dan"]
    stored = ann.json("put", str(folder / "w.npy"), "--name", "daily/w")
    assert (
        stored.items()
        >= {"name": "daily/w", "shape": [500, 70], "survive": 1, "already_stored": False}.items()
    )
    assert ann.json("put", str(folder / "w.npy"), "--name", "daily/w")["already_stored"]
    wait_until(lambda: "daily/w" in dan.run("ls"), "the name to arrive")
    dan.run("get", "daily/w", "-o", str(folder / "back.npy"))
    assert (folder / "back.npy").read_bytes() == (folder / "w.npy").read_bytes()
    arguments = ("apply", "daily/w", str(folder / "x.npy"), "-o", str(folder / "y.npy"), "--transpose")
    told = dan.json(*arguments, "--explain")
    assert told["verified"] is False
    assert is_right(np.load(folder / "y.npy"), w, x, transposed=True)
    shown = run_verb(dan.home, *arguments, "--explain")
    assert shown.returncode == 0
    assert "unverified" in shown.stderr
    removed = dan.json("rm", "daily/w")
    assert removed == {"name": "daily/w", "freed_bytes": 2 * w.nbytes, "unreachable": []}
    assert run_verb(ann.home, "inspect", "daily/w", "--json").returncode == MatrixNotFound.exit_code


def test_the_same_content_is_a_success_and_other_content_is_not(mesh: MeshOfDaemons) -> None:
    w = normal(3000, 1024)
    with mesh["ann"].connect() as ann, mesh["ben"].connect() as ben:
        ann.put("w", w)
        before = mesh.used()
        assert ann.upload("w", w).already_stored
        wait_until(lambda: "w" in ben, "the name to arrive")
        assert ben.upload("w", w).already_stored
        other = w.copy()
        other[-1, -1] += 1
        for wrong in (other, w[:-1], w.astype(np.float64)):
            for client in (ann, ben):
                with pytest.raises(NameTaken) as caught:
                    client.put("w", wrong)
                assert caught.value.matrix == "w"
        with pytest.raises(NameTaken, match="survive"):
            ann.put("w", w, survive=2)
        assert ann["w"].get().tobytes() == w.tobytes()
    mesh.wait_used(before)


def test_a_removed_matrix_is_gone_on_all_nodes(mesh: MeshOfDaemons) -> None:
    before = mesh.used()
    w = normal(5000, 1024)
    with mesh["ann"].connect() as ann, mesh["dan"].connect() as dan:
        ann.put("w", w, survive=2)
        wait_until(lambda: "w" in dan, "the name to arrive")
        held = dan["w"]
        # Removed through a node that does not own it.
        removed = dan.remove("w")
        assert removed.freed_bytes == 3 * w.nbytes
        assert not removed.unreachable
        mesh.wait_used(before)
        for daemon in mesh:
            with daemon.connect() as client:
                wait_until(lambda client=client: not client.summaries(), f"{daemon.name} to forget it")
                assert "w" not in client
        with pytest.raises(MatrixNotFound):
            dan.remove("w")
        with pytest.raises(MatrixNotFound):
            held @ normal(1024)
        ann.put("w", w[:100])
        assert ann["w"].get().tobytes() == w[:100].tobytes()


def test_names_that_share_content_are_removed_one_by_one(mesh: MeshOfDaemons) -> None:
    before = mesh.used()
    w, x = normal(3000, 1024), normal(1024, seed=1)
    with mesh["ann"].connect() as client:
        client.put("first", w)
        client.put("second", w)
        client.remove("first")
        assert is_right(client["second"] @ x, w, x)
        assert client["second"].get().tobytes() == w.tobytes()
        client.remove("second")
    mesh.wait_used(before)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_no_numbers_are_stored_only_on_request(value: float, mesh: MeshOfDaemons) -> None:
    w = normal(5000, 1024)
    w[4321, 123] = value
    before = mesh.used()
    with mesh["ann"].connect() as client:
        with pytest.raises(NonFiniteValues, match="row 4321, column 123"):
            client.put("w", w)
        assert "w" not in client
        mesh.wait_used(before)
        client.put("w", w, allow_nonfinite=True)
        assert client["w"].get().tobytes() == w.tobytes()


def test_what_is_no_matrix_is_refused_and_nothing_kept(mesh: MeshOfDaemons, folder: Path) -> None:
    before = mesh.used()
    good = folder / "good.npy"
    np.save(good, normal(100, 10))
    content = good.read_bytes()
    header = content[:128].decode("latin-1")
    (folder / "truncated.npy").write_bytes(content[:-1])
    (folder / "huge.npy").write_text(
        header.replace("(100, 10), ", f"({2**40}, 10), ").replace("  \n", "\n"), "latin-1"
    )
    (folder / "text.npy").write_text("1 2 3\n")
    (folder / "empty.npy").write_bytes(b"")
    np.save(folder / "pickled.npy", np.array([[{}]], object), allow_pickle=True)
    with mesh["ann"].connect() as client:
        for name in ("truncated", "huge", "text", "empty", "pickled", "missing"):
            with pytest.raises(MatrixFileInvalid):
                client.put("w", folder / f"{name}.npy")
        for wrong in (np.zeros((0, 5), np.float32), np.zeros((5, 0)), np.zeros(5), np.zeros((2, 2, 2))):
            with pytest.raises(UsageError):
                client.put("w", wrong)
        for dtype in (np.int32, np.uint8, np.complex64, np.bool_):
            with pytest.raises(UnsupportedDtype):
                client.put("w", np.ones((5, 5), dtype))
        for name in ("", "x" * 129, "line\nbreak"):
            with pytest.raises(UsageError):
                client.put(name, normal(5, 5))
        assert not client.summaries()
    mesh.wait_used(before)


def test_a_matrix_that_does_not_fit_is_refused_before_a_byte_moves(mesh: MeshOfDaemons) -> None:
    before = mesh.used()
    sent: list[int] = []
    # It takes no memory here; the four pledge 32 MiB each.
    too_large = np.broadcast_to(np.float32(1), (80_000, 1024))
    with mesh["ann"].connect() as client:
        with pytest.raises(InsufficientCapacity) as caught:
            client.put("w", too_large, survive=0, progress=lambda told: sent.append(told.received_bytes))
        assert not any(sent)
        why = caught.value.why
        assert "312.5 MiB of memory" in why
        assert all(daemon.name in why for daemon in mesh)
        with pytest.raises(NotEnoughPeers, match="survive") as refused:
            client.put("w", normal(100, 10), survive=4)
        assert "5 copies need 5 nodes" in refused.value.why
        assert "w" not in client
    mesh.wait_used(before)


def test_a_put_that_is_given_up_leaves_nothing(mesh: MeshOfDaemons) -> None:
    before = mesh.used()

    class GivenUp(Exception):
        pass

    def give_up(told: sedmad.client.upload.PutProgress) -> None:
        if told.received_bytes > 8 << 20:
            raise GivenUp

    with mesh["ann"].connect() as client:
        with pytest.raises(GivenUp):
            client.put("w", normal(9000, 1024), progress=give_up)
        mesh.wait_used(before)
        assert "w" not in client
        client.put("w", normal(100, 10))


def test_two_nodes_that_take_one_name_agree_on_one_of_them(mesh: MeshOfDaemons) -> None:
    contents = {name: normal(2000, 100, seed=seed) for seed, name in enumerate(("ann", "ben", "cyd"))}

    def put(name: str) -> None:
        with suppress(NameTaken), mesh[name].connect() as client:
            client.put("w", contents[name])

    threads = [threading.Thread(target=put, args=(name,)) for name in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    def views() -> list[list[tuple[str, bytes]]]:
        found = []
        for daemon in mesh:
            with daemon.connect() as client:
                found.append([(summary.name, summary.matrix_digest) for summary in client.summaries()])
        return found

    def agreed() -> bool:
        seen = views()
        return all(view == seen[0] and view for view in seen)

    wait_until(agreed, f"agreement of {views()}")
    for daemon in mesh:
        with daemon.connect() as client:
            kept = {matrix.name: matrix.get().tobytes() for matrix in client.matrices()}
            assert kept["w"] in {w.tobytes() for w in contents.values()}
            # Whoever was told that it is stored finds it, the losers under name@author.
            assert set(kept.values()) <= {w.tobytes() for w in contents.values()}
            assert len(set(kept.values())) == len(kept)


def test_stores_from_several_threads_and_nodes_at_once(mesh: MeshOfDaemons) -> None:
    contents = {f"w{index}": normal(700 + index, 300, seed=index) for index in range(8)}
    failures: list[BaseException] = []

    def put(name: str, client: sedmad.Mesh) -> None:
        try:
            client.put(name, contents[name])
        except BaseException as error:
            failures.append(error)

    with mesh["ann"].connect() as ann, mesh["dan"].connect() as dan:
        threads = [
            threading.Thread(target=put, args=(name, (ann, dan)[index % 2]))
            for index, name in enumerate(contents)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        wait_until(lambda: len(ann.summaries()) == len(contents), "all names to arrive")
        for name, w in contents.items():
            assert ann[name].get().tobytes() == w.tobytes()
