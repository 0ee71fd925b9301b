from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from examples import matrix
from rig import Rig, RigNode, until
from stand_ins import ClientCall

from sedmad.node import mesh_verifying
from sedmad.node.mesh_verifying import StoreService, VerifyingService
from sedmad.node.verifying import verify_store
from sedmad.wire import messages as wire

RigFactory = Callable[..., Any]
W = matrix(2100, 1024)


def serve(nodes: Rig) -> dict[str, VerifyingService]:
    """Have all nodes verify their stores when asked; return what asks them, by the name of each node."""
    services = {}
    for node in nodes:
        store = StoreService(partial(verify_store, node.database, node.blobs, node.manifests))
        node.methods.add("StoreService", store)
        services[node.name] = VerifyingService(
            sessions=node.sessions, membership=node.membership, lookups=node.lookups, store=store
        )
    return services


async def verify(service: VerifyingService, *, quick: bool = False) -> wire.VerifyMeshResponse:
    """Return everything that a client is told, as one message."""
    call: Any = ClientCall(b"")
    last = await service.verify_mesh(wire.VerifyMeshRequest(quick=quick), call)
    whole = wire.VerifyMeshResponse()
    for message in (*call.sent, last):
        whole.MergeFrom(message)
    return whole


def reports(found: wire.VerifyMeshResponse) -> dict[str, wire.NodeVerification]:
    return {verified.node.name: verified for verified in found.nodes}


def spoil(node: RigNode, digest: bytes) -> None:
    path = node.blobs.directory / digest.hex()[:2] / digest.hex()
    path.chmod(0o600)
    data = bytearray(path.read_bytes())
    data[1234] ^= 1
    path.write_bytes(data)


async def test_every_node_tells_what_it_holds(rig: RigFactory) -> None:
    async with rig("ann", "ben", "cyd") as nodes:
        services = serve(nodes)
        await nodes["ann"].put("w", W, survive=1)
        for name in ("ann", "cyd"):
            for quick in (False, True):
                found = await verify(services[name], quick=quick)
                assert {name: verified.error for name, verified in reports(found).items()} == dict.fromkeys(
                    ("ann", "ben", "cyd"), ""
                )
                assert sum(verified.report.copies for verified in found.nodes) == 2 * 2
                assert sum(verified.report.size_bytes for verified in found.nodes) == 2 * W.nbytes
                assert found.checked_bytes == found.total_bytes == 2 * W.nbytes
                assert not found.matrices


async def test_a_changed_byte_is_found_where_it_is_and_missed_in_its_matrix(rig: RigFactory) -> None:
    async with rig("ann", "ben") as nodes:
        services = serve(nodes)
        _, manifest, _ = await nodes["ann"].put("w", W, survive=1)
        spoil(nodes["ben"], manifest.digests[1])
        found = await verify(services["ann"])
        (fault,) = reports(found)["ben"].report.corrupt
        assert (fault.digest, fault.partition_index) == (manifest.digests[1], 1)
        assert fault.key.matrix_digest == manifest.key.matrix_digest
        assert not reports(found)["ann"].report.corrupt
        (degraded,) = found.matrices
        assert (degraded.name, degraded.degraded_partitions, degraded.lost_partitions) == ("w", 1, 0)

        async def clean() -> bool:
            return not (await verify(services["ann"])).matrices

        # It is fetched again.
        await until(clean)


async def test_dead_nodes_are_not_asked_and_their_copies_do_not_count(rig: RigFactory) -> None:
    async with rig("ann", "ben") as nodes:
        services = serve(nodes)
        await nodes["ann"].put("w", W, survive=1)
        nodes["ann"].membership.states[nodes["ben"].peer_id] = "dead"
        found = await verify(services["ann"])
        assert reports(found).keys() == {"ann"}
        (degraded,) = found.matrices
        assert (degraded.degraded_partitions, degraded.lost_partitions) == (2, 0)


async def test_a_node_that_cannot_be_asked_is_named(rig: RigFactory) -> None:
    async with rig("ann", "ben") as nodes:
        services = serve(nodes)
        nodes.cut("ann", "ben")
        found = await verify(services["ann"])
        assert reports(found)["ben"].error == "the node is not connected"
        assert not reports(found)["ann"].error


async def test_a_matrix_that_nobody_knows_is_named(rig: RigFactory) -> None:
    async with rig("ann", "ben") as nodes:
        claim, _, _ = await nodes["ann"].put("w", W, survive=1)
        nodes.cut("ann", "ben")
        # As seen by a node that has heard the name and can ask nobody.
        async with rig("cyd") as others:
            others["cyd"].membership.publish_claim(claim)
            (unknown,) = (await verify(serve(others)["cyd"])).matrices
        assert (unknown.name, bool(unknown.error)) == ("w", True)


async def test_many_matrices_come_in_several_messages(rig: RigFactory, monkeypatch: Any) -> None:
    monkeypatch.setattr(mesh_verifying, "MATRICES_PER_MESSAGE", 2)
    async with rig("ann", "ben") as nodes:
        services = serve(nodes)
        for index in range(5):
            await nodes["ann"].put(f"w{index}", matrix(64, 8, seed=index), survive=1)
        nodes["ann"].membership.states[nodes["ben"].peer_id] = "dead"
        found = await verify(services["ann"])
        assert [lacking.name for lacking in found.matrices] == [f"w{index}" for index in range(5)]


def test_what_others_say_of_themselves_can_be_added_up() -> None:
    progress = mesh_verifying.Progress()
    for peer_id in ("ben", "cyd"):
        most = 2**64 - 1
        progress.told(peer_id, wire.VerifyStoreResponse(checked_bytes=most, total_bytes=most))
    told = wire.VerifyMeshResponse(checked_bytes=progress.checked_bytes, total_bytes=progress.total_bytes)
    assert told.checked_bytes == told.total_bytes > 0
