"""What scripts and people read, compared with files: a change of these is a change of the contract."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable

import numpy as np
import pytest
from fake_daemon import OTHER_PEER_ID, PEER_ID, FakeDaemon

from sedmad.cli.main import main
from sedmad.wire import messages as wire

Golden = Callable[[str, str], None]
Capture = pytest.CaptureFixture[str]


@pytest.mark.parametrize(
    "command", ["status", "peers", "ls", "inspect encoder/w1", "invite", "rm encoder/w1"]
)
def test_json_documents(mesh_of_three: FakeDaemon, capsys: Capture, golden: Golden, command: str) -> None:
    assert main([*command.split(), "--json"]) == 0
    captured = capsys.readouterr()
    json.loads(captured.out)
    golden(f"{command.split()[0]}.json", captured.out)
    assert not captured.err


@pytest.mark.parametrize(
    "command", ["status", "peers", "ls", "inspect encoder/w1", "invite", "rm encoder/w1"]
)
def test_tables(mesh_of_three: FakeDaemon, capsys: Capture, golden: Golden, command: str) -> None:
    assert main(command.split()) == 0
    captured = capsys.readouterr()
    golden(f"{command.split()[0]}.txt", captured.out)
    assert "\x1b" not in captured.out
    assert not captured.err


def test_what_others_rely_on_in_status(mesh_of_three: FakeDaemon, capsys: Capture) -> None:
    main(["--json", "status"])
    status = json.loads(capsys.readouterr().out)
    assert {"peer_id": PEER_ID, "name": "alpha", "state": "ready"}.items() <= status["node"].items()
    assert [(peer["name"], peer["state"], peer["path"], peer["rtt_ms"]) for peer in status["peers"]] == [
        ("beta", "alive", "direct", 0.8125),
        ("gamma", "dead", None, None),
    ]
    assert status["memory"] == {"pledged_bytes": 2 << 30, "used_bytes": 200 * 96 * 4 + 64 * 3 * 8}
    assert [matrix["name"] for matrix in status["matrices"]] == ["encoder/w1", "wörter"]


@pytest.mark.parametrize("form", ["json", "txt"])
def test_devices_of_a_matrix_with_a_target(
    mesh_of_three: FakeDaemon, capsys: Capture, golden: Golden, form: str
) -> None:
    mesh_of_three.devices = {
        0: wire.DeviceReport(
            partition_index=0,
            profile="cmo_hfox",
            predicted_error=0.0449,
            measured_error=0.0431,
            cells_used=262144,
            cells_allocated=524288,
            levers=["replicas", "write verify tolerance"],
            age_s=3725,
        ),
        1: wire.DeviceReport(partition_index=1, profile="ideal"),
        2: wire.DeviceReport(partition_index=2, profile="ideal", digital_because="it is being programmed"),
    }
    assert main(["inspect", "encoder/w1", *(["--json"] if form == "json" else [])]) == 0
    golden(f"inspect_devices.{form}", capsys.readouterr().out)


@pytest.mark.parametrize("command", ["status", "peers"])
def test_crossbars_are_shown_where_there_are_some(
    mesh_of_three: FakeDaemon, capsys: Capture, golden: Golden, command: str
) -> None:
    mesh_of_three.cells = (1 << 20, 1 << 18)
    mesh_of_three.peers[0].device_profile = "wan2022"
    mesh_of_three.peers[0].cells_pledged, mesh_of_three.peers[0].cells_used = 1 << 21, 1 << 20
    assert main([command]) == 0
    golden(f"{command}_crossbars.txt", capsys.readouterr().out)


def test_profiles(home, capsys: Capture) -> None:
    assert main(["profiles", "--json"]) == 0
    profiles = {profile["name"]: profile for profile in json.loads(capsys.readouterr().out)["profiles"]}
    assert {"ideal", "cmo_hfox", "pcm_nandakumar2019"} <= profiles.keys()
    assert profiles["cmo_hfox"]["rows"] == profiles["cmo_hfox"]["columns"] == 128
    assert profiles["ideal"]["adc_bits"] is None
    folder = home / "profiles"
    folder.mkdir()
    (folder / "mine.toml").write_text(
        'name = "mine"\nconductance_min_siemens = 1e-6\nconductance_max_siemens = 2e-5\n'
    )
    assert main(["profiles"]) == 0
    assert "mine      " in capsys.readouterr().out
    (folder / "broken.toml").write_text("name = 3")
    assert main(["profiles"]) != 0
    assert "broken.toml" in capsys.readouterr().err


def test_what_others_rely_on_in_inspect(mesh_of_three: FakeDaemon, capsys: Capture) -> None:
    main(["inspect", "encoder/w1", "--json"])
    document = json.loads(capsys.readouterr().out)
    plain = {key: document[key] for key in ("name", "version", "shape", "dtype", "survive", "epoch", "seq")}
    assert plain == {
        "name": "encoder/w1",
        "version": 1,
        "shape": [200, 96],
        "dtype": "float32",
        "survive": 1,
        "epoch": 1,
        "seq": 4,
    }
    assert document["owner"] == PEER_ID
    assert document["guardians"] == [PEER_ID]
    last = document["partitions"][-1]
    assert (last["index"], last["rows"]) == (3, [192, 200])
    assert [(copy["name"], copy["kind"]) for copy in last["copies"]] == [
        ("alpha", "resident"),
        ("beta", "standby"),
    ]


def test_put_get_apply_as_documents(daemon: FakeDaemon, home, capsys: Capture, golden: Golden) -> None:
    np.save(home / "w.npy", np.eye(70, dtype=np.float32))
    np.save(home / "x.npy", np.ones((70, 2)))
    documents = {}
    for command in (
        f"put {home}/w.npy --name w",
        f"get w -o {home}/out.npy",
        f"apply w {home}/x.npy -o {home}/y.npy --explain",
    ):
        assert main([*command.split(), "--json"]) == 0
        document = json.loads(capsys.readouterr().out)
        if "elapsed_ms" in document:
            document["elapsed_ms"] = document["explanation"]["elapsed_ms"] = 12.5
        documents[command.split()[0]] = document
    text = json.dumps(documents, indent=2) + "\n"
    golden("put_get_apply.json", text.replace(str(home), "HOME"))


def test_an_explanation_as_people_see_it(daemon: FakeDaemon, home, capsys: Capture, golden: Golden) -> None:
    daemon.store("w", np.eye(70))
    np.save(home / "x.npy", np.ones((70, 66)))
    assert main(["apply", "w", f"{home}/x.npy", "-o", f"{home}/y.npy", "--explain"]) == 0
    golden("explain.txt", re.sub(r"[0-9.]+ ms as seen", "12.5 ms as seen", capsys.readouterr().err))


def test_names_that_two_nodes_took(mesh_of_three: FakeDaemon, capsys: Capture, golden: Golden) -> None:
    mesh_of_three.store("wörter@12D3KooWBetaBeta", np.ones((64, 5)))
    assert main(["ls"]) == 0
    captured = capsys.readouterr()
    golden("ls_conflict.txt", captured.out + captured.err)
    assert main(["ls", "--json"]) == 0
    matrices = json.loads(capsys.readouterr().out)["matrices"]
    assert [matrix["name"] for matrix in matrices if matrix["conflict"]] == ["wörter@12D3KooWBetaBeta"]


def test_a_node_that_is_drained(mesh_of_three: FakeDaemon, capsys: Capture) -> None:
    beta = wire.NodeReference(peer_id=OTHER_PEER_ID, name="beta")
    left = wire.LeaveResponse(copies_left=3, bytes_left=9 << 20, owned_left=1, waiting_for="gamma is dead")
    mesh_of_three.drained = [
        wire.DrainNodeResponse(node=beta, left=left),
        wire.DrainNodeResponse(node=beta, left=left),
        wire.DrainNodeResponse(node=beta),
    ]
    assert main(["drain", "beta"]) == 0
    captured = capsys.readouterr()
    assert captured.out == "beta is empty: its daemon can be stopped\n"
    assert captured.err == "waiting: gamma is dead\n"
    assert main(["drain", "beta", "--cancel", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "peer_id": OTHER_PEER_ID,
        "name": "beta",
        "draining": False,
        "copies_left": 0,
        "bytes_left": 0,
        "owned_left": 0,
    }
    asked = wire.DrainNodeRequest.FromString(mesh_of_three.last("DrainNode").request.message)
    assert (asked.node, asked.cancel) == ("beta", True)


def test_repairs_are_shown(mesh_of_three: FakeDaemon, capsys: Capture, golden: Golden) -> None:
    mesh_of_three.repairs = [
        wire.RepairSummary(names=["encoder/w1"], step_bytes=512 << 20, made_bytes=130 << 20),
        wire.RepairSummary(names=["wörter", "words"], waiting_for="1 copy more is wanted\nno node has room"),
    ]
    assert main(["status"]) == 0
    golden("status_repairs.txt", capsys.readouterr().out)


def node_verification(peer_id: str, name: str, **faults: list[wire.StoreFault]) -> wire.NodeVerification:
    report = wire.StoreReport(copies=12, blobs=11, size_bytes=88 << 20, **faults)
    return wire.NodeVerification(node=wire.NodeReference(peer_id=peer_id, name=name), report=report)


def test_a_clean_mesh(mesh_of_three: FakeDaemon, capsys: Capture, golden: Golden) -> None:
    mesh_of_three.found = [
        wire.VerifyMeshResponse(checked_bytes=88 << 20, nodes=[node_verification(OTHER_PEER_ID, "beta")]),
        wire.VerifyMeshResponse(total_bytes=176 << 20, nodes=[node_verification(PEER_ID, "alpha")]),
        wire.VerifyMeshResponse(checked_bytes=176 << 20, total_bytes=176 << 20),
    ]
    for name, options in (("verify_clean.txt", []), ("verify_clean.json", ["--json"])):
        assert main(["verify", *options]) == 0
        captured = capsys.readouterr()
        golden(name, captured.out)
        assert not captured.err
    assert not wire.VerifyMeshRequest.FromString(mesh_of_three.last("VerifyMesh").request.message).quick
    assert main(["verify", "--quick"]) == 0
    assert wire.VerifyMeshRequest.FromString(mesh_of_three.last("VerifyMesh").request.message).quick


def test_a_mesh_with_faults(mesh_of_three: FakeDaemon, capsys: Capture, golden: Golden) -> None:
    copy = wire.StoreFault(
        digest=b"\x01" * 32,
        key=wire.MatrixKey(matrix_digest=b"\x02" * 32, first_owner=PEER_ID),
        partition_index=3,
    )
    faulty = node_verification(
        PEER_ID,
        "alpha",
        corrupt=[copy],
        missing=[copy, copy],
        orphaned=[wire.StoreFault(digest=b"\x03" * 32)],
    )
    faulty.report.more = 4
    silent = wire.NodeVerification(
        node=wire.NodeReference(peer_id=OTHER_PEER_ID, name="beta"), error="the node is not connected"
    )
    mesh_of_three.found = [
        wire.VerifyMeshResponse(nodes=[faulty]),
        wire.VerifyMeshResponse(nodes=[silent]),
        wire.VerifyMeshResponse(
            matrices=[
                wire.MatrixVerification(name="encoder/w1", degraded_partitions=3),
                wire.MatrixVerification(name="lost", degraded_partitions=1, lost_partitions=2),
                wire.MatrixVerification(name="wörter", error="nobody who answers knows where it lies"),
            ]
        ),
    ]
    for name, options in (("verify_faults.txt", []), ("verify_faults.json", ["--json"])):
        assert main(["verify", *options]) == os.EX_PROTOCOL
        captured = capsys.readouterr()
        golden(name, captured.out)
        assert not captured.err


def test_help(capsys: Capture, golden: Golden, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    golden("help.txt", capsys.readouterr().out)
