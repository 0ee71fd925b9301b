"""`sedmad doctor` against nodes that are well, and against homes that are broken in all sorts of ways."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from sedmad.core.reaching.behaviour import Behaviour
from sedmad.core.reaching.sentence import Meaning, Reach
from sedmad.errors import DaemonNotRunning
from sedmad.home import Home
from sedmad.net.netcheck.findings import Findings, Peer, PeerFinding
from sedmad.node.checks import storage
from sedmad.node.checks.daemon import STATUS_WITHIN_S
from sedmad.node.checks.examination import CHECKS, WITHIN_S, examine, is_healthy
from sedmad.node.checks.subject import Subject
from sedmad.node.checks.verdict import Grade, Verdict
from sedmad.node.netchecking import Netcheck
from sedmad.node.setup import init_mesh
from sedmad.store.blobs import open_blobs
from sedmad.store.database import open_database
from sedmad.store.disk import DiskSpace
from sedmad.version import __version__
from sedmad.wire import messages as wire

PUNCHED = Meaning(Reach.PUNCHED, "This node can be punched.")
NETWORK = Netcheck(Findings(), Behaviour(), Behaviour(), "45.80.1.21", PUNCHED)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """The home of a node that was never started."""
    home = Home.locate(str(tmp_path / "home"), {})
    init_mesh(home, "alpha")
    return home


def not_running() -> wire.GetStatusResponse:
    raise DaemonNotRunning("no daemon answers")


def running(*peers: wire.PeerSummary, **fields: object) -> Callable[[], wire.GetStatusResponse]:
    status = wire.GetStatusResponse(name="alpha", software_version=__version__, peers=peers, **fields)  # type: ignore[arg-type]
    return lambda: status


def peer(name: str, **fields: object) -> wire.PeerSummary:
    return wire.PeerSummary(
        name=name,
        peer_id=name,
        **{"state": wire.PEER_STATE_ALIVE, "software_version": __version__, **fields},  # type: ignore[arg-type]
    )


async def check(
    name: str,
    home: Home,
    ask_status: Callable[[], wire.GetStatusResponse] = not_running,
    network: Netcheck = NETWORK,
) -> Verdict:
    """Return the verdict of one check."""

    async def examine_network(servers: tuple[str, ...], status: wire.GetStatusResponse | None) -> Netcheck:
        await trio.lowlevel.checkpoint()
        return network

    subject = Subject(home, {}, ask_status, examine_network)
    (verdict,) = await examine(subject, {name: CHECKS[name]}, WITHIN_S)
    return verdict


async def stored_blob(home: Home, data: bytes) -> Path:
    """Store some bytes as a daemon does, and return their file."""
    store = await open_blobs(home.blobs)
    async with store.create(len(data)) as writer:
        await writer.write(data)
        digest = await writer.commit()
    return home.blobs / digest.hex()[:2] / digest.hex()


@pytest.mark.parametrize(
    "name", [name for name in CHECKS if name not in ("clock-skew", "version-skew", "relay")]
)
async def test_a_new_node_is_well(home: Home, name: str) -> None:
    verdict = await check(name, home)
    assert (verdict.check, verdict.grade, verdict.fix) == (name, Grade.OK, "")


@pytest.mark.parametrize("name", ["clock-skew", "version-skew", "relay"])
async def test_what_only_a_daemon_can_tell_is_said_to_need_one(home: Home, name: str) -> None:
    verdict = await check(name, home)
    assert verdict.needs_daemon
    assert (verdict.grade, verdict.fix) == (Grade.WARN, "Start the daemon with: sedmad start")
    assert "no daemon answers" in verdict.finding


@pytest.mark.parametrize(
    ("text", "finding", "fix"),
    [
        ("memory = ", "not valid TOML", ""),
        ('memry = "1GiB"', "unknown setting 'memry'", "'memory'"),
        ('profile = "copper"', "'copper' is unknown", "sedmad profiles"),
        ('listen = ["/ip4/1.2.3.4/udp/1"]', "cannot listen on", ""),
        ('announce = ["nowhere"]', "cannot announce", ""),
        ('memory = "900TiB"', "more than there is", ""),
        ('stun = ["stun://x:1"]', "names no STUN server", "stun.example.org:3478"),
    ],
)
async def test_a_wrong_setting_fails_and_is_named(home: Home, text: str, finding: str, fix: str) -> None:
    home.configuration_file.write_text(text)
    verdict = await check("configuration", home)
    assert verdict.grade is Grade.FAIL
    assert finding in verdict.finding
    assert verdict.fix
    assert fix in verdict.fix
    # The other checks are made all the same.
    assert (await check("reachability", home)).grade is Grade.OK


async def test_a_valid_file_is_named(home: Home) -> None:
    home.configuration_file.write_text('memory = "10%"\nstun = ["stun.example.org:3478"]')
    verdict = await check("configuration", home)
    assert verdict.grade is Grade.OK
    assert str(home.configuration_file) in verdict.finding


async def test_a_key_that_others_can_read_fails(home: Home) -> None:
    home.identity_key.chmod(0o644)
    (home.certificates / "root.key").chmod(0o640)
    verdict = await check("identity-permissions", home)
    assert verdict.grade is Grade.FAIL
    assert verdict.fix == f"chmod 600 {home.identity_key} {home.certificates / 'root.key'}"


async def test_a_folder_that_others_can_write_into_fails(home: Home) -> None:
    home.data_directory.chmod(0o777)
    verdict = await check("identity-permissions", home)
    assert (verdict.grade, verdict.fix) == (Grade.FAIL, f"chmod 700 {home.data_directory}")


async def test_no_key_a_broken_one_and_no_mesh_fail(home: Home, tmp_path: Path) -> None:
    key = home.identity_key.read_bytes()
    home.identity_key.write_bytes(key[:40])
    assert "no private key" in (await check("identity-permissions", home)).finding
    home.identity_key.unlink()
    verdict = await check("identity-permissions", home)
    assert "cannot read the key file" in verdict.finding
    assert verdict.fix
    verdict = await check("identity-permissions", Home.locate(str(tmp_path / "other"), {}))
    assert verdict.grade is Grade.FAIL
    assert "sedmad init" in verdict.fix


async def test_anothers_certificate_fails(home: Home, tmp_path: Path) -> None:
    other = Home.locate(str(tmp_path / "other"), {})
    init_mesh(other, "beta")
    home.identity_key.write_bytes(other.identity_key.read_bytes())
    verdict = await check("identity-permissions", home)
    assert verdict.grade is Grade.FAIL
    assert "the certificate does not hold" in verdict.finding


async def test_sound_tables_and_bytes_pass_while_a_daemon_has_them_open(home: Home) -> None:
    async with open_database(home.database) as database:
        await stored_blob(home, b"\1" * 5000)
        await database.write(lambda connection: connection.execute("INSERT INTO counter VALUES ('boot', 3)"))
        verdict = await check("store-integrity", home)
    assert verdict.grade is Grade.OK
    assert "1 of 1 stored files" in verdict.finding


@pytest.mark.parametrize("at", [0, 100, 4096])
async def test_a_damaged_database_fails(home: Home, at: int) -> None:
    async with open_database(home.database):
        pass
    with home.database.open("r+b") as file:
        file.seek(at)
        file.write(b"\xa5" * 64)
    before = home.database.read_bytes(), sorted(home.data_directory.iterdir())
    verdict = await check("store-integrity", home)
    assert verdict.grade is Grade.FAIL
    assert "is damaged" in verdict.finding
    assert verdict.fix
    assert (home.database.read_bytes(), sorted(home.data_directory.iterdir())) == before


async def test_a_database_of_a_newer_sedmad_fails(home: Home) -> None:
    with closing(sqlite3.connect(home.database)) as connection:
        connection.execute("PRAGMA user_version = 1000")
    verdict = await check("store-integrity", home)
    assert verdict.grade is Grade.FAIL
    assert "newer sedmad" in verdict.finding


@pytest.mark.parametrize("size_bytes", [4999, 5000])
async def test_stored_bytes_that_changed_fail_and_stay_where_they_are(home: Home, size_bytes: int) -> None:
    await stored_blob(home, b"\2" * 3000)
    path = await stored_blob(home, b"\1" * 5000)
    path.write_bytes(b"\1" * (size_bytes - 1) + b"\0")
    verdict = await check("store-integrity", home)
    assert verdict.grade is Grade.FAIL
    assert str(path) in verdict.finding
    assert path.exists()


async def test_no_more_is_read_than_the_sample(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "SAMPLE_BYTES", 4000)
    for byte in range(4):
        await stored_blob(home, bytes([byte]) * 3000)
    assert "2 of 4 stored files" in (await check("store-integrity", home)).finding


async def test_a_full_disk_fails_and_one_that_is_pledged_beyond_its_room_warns(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage.disk, "disk_space", lambda path: DiskSpace(100 << 30, 3 << 30))
    assert (await check("store-free-space", home)).grade is Grade.OK
    pledged = running(disk_pledged_bytes=9 << 30, disk_used_bytes=5 << 30)
    verdict = await check("store-free-space", home, pledged)
    assert (verdict.grade, "--disk" in verdict.fix) == (Grade.WARN, True)
    monkeypatch.setattr(storage.disk, "disk_space", lambda path: DiskSpace(100 << 30, 60 << 20))
    assert (await check("store-free-space", home)).grade is Grade.FAIL


@pytest.mark.parametrize(
    ("skews_s", "grade", "word"),
    [
        ([], Grade.OK, "no other node"),
        ([0.5, -0.25], Grade.OK, "within 0.5 s of 2 others"),
        ([40.0], Grade.WARN, "the clock of n0 is 40 s ahead of this node's"),
        ([0.0, 0.0, -3600.0], Grade.WARN, "the clock of n2 is 1 h behind"),
        ([60.0, 61.0, 62.0], Grade.WARN, "this node's clock is 1 min 1 s behind"),
        ([-9000.0, -9000.0, 0.0], Grade.FAIL, "this node's clock is 2 h 30 min ahead of"),
    ],
)
async def test_clocks_are_compared(home: Home, skews_s: list[float], grade: Grade, word: str) -> None:
    peers = [peer(f"n{number}", clock_skew_s=skew_s) for number, skew_s in enumerate(skews_s)]
    gone = peer("gone", clock_skew_s=1e6, state=wire.PEER_STATE_DEAD)
    verdict = await check("clock-skew", home, running(*peers, gone))
    assert verdict.grade is grade
    assert word in verdict.finding


async def test_versions_are_compared(home: Home) -> None:
    assert (await check("version-skew", home, running(peer("beta")))).grade is Grade.OK
    others = running(peer("beta", software_version="0.0.1"), peer("gamma", software_version="0.0.2"))
    verdict = await check("version-skew", home, others)
    assert (verdict.grade, "beta 0.0.1, and 1 more" in verdict.finding) == (Grade.WARN, True)
    old_daemon = wire.GetStatusResponse(software_version="0.0.1")
    assert "this command" in (await check("version-skew", home, lambda: old_daemon)).finding


@pytest.mark.parametrize(
    ("reach", "grade"),
    [
        (Reach.DIALLED, Grade.OK),
        (Reach.PUNCHED, Grade.OK),
        (Reach.RELAYED, Grade.WARN),
        (Reach.UNKNOWN, Grade.WARN),
        (Reach.OFFLINE, Grade.FAIL),
    ],
)
async def test_reachability_is_graded(home: Home, reach: Reach, grade: Grade) -> None:
    network = replace(NETWORK, meaning=Meaning(reach, "So it is.", "Do something."))
    verdict = await check("reachability", home, network=network)
    assert (verdict.grade, verdict.finding, verdict.fix) == (grade, "So it is.", "Do something.")


async def test_a_relay_is_a_node_that_can_be_dialled(home: Home) -> None:
    places = [
        PeerFinding(Peer("beta", "45.80.1.50", 4717), 0.02),
        PeerFinding(Peer("gamma", "10.0.0.1", 4717), None),
    ]
    network = replace(NETWORK, findings=Findings(peers=tuple(places)))
    verdict = await check("relay", home, running(peer("beta"), peer("gamma")), network)
    assert (verdict.grade, verdict.finding) == (
        Grade.OK,
        "1 node can be dialled, the nearest is beta at 20.0 ms",
    )
    verdict = await check("relay", home, running(peer("beta")))
    assert (verdict.grade, "--announce" in verdict.fix) == (Grade.WARN, True)
    assert (await check("relay", home, running())).grade is Grade.OK
    dialled = replace(NETWORK, meaning=Meaning(Reach.DIALLED, "All can dial it."))
    assert (await check("relay", home, network=dialled)).grade is Grade.OK


async def test_a_check_that_does_not_end_fails_and_the_others_are_told(
    home: Home, autojump_clock: MockClock
) -> None:
    async def hang(subject: Subject) -> None:
        await trio.sleep_forever()

    subject = Subject(home, {}, not_running)
    checks = {"stuck": hang, "identity-permissions": CHECKS["identity-permissions"]}
    autojump_clock.autojump_threshold = 0.2
    began = trio.current_time()
    stuck, identity = await examine(subject, checks, WITHIN_S)  # type: ignore[arg-type]
    assert trio.current_time() - began <= WITHIN_S + 0.1
    assert (stuck.grade, stuck.finding) == (Grade.FAIL, "no answer in time")
    assert identity.grade is Grade.OK
    assert not is_healthy([stuck, identity])
    assert is_healthy([identity])


async def test_a_daemon_that_does_not_answer_keeps_no_check_for_long(
    home: Home, autojump_clock: MockClock
) -> None:
    released = trio.Event()

    async def wait_long() -> wire.GetStatusResponse:
        await released.wait()
        return wire.GetStatusResponse()

    token = trio.lowlevel.current_trio_token()
    autojump_clock.autojump_threshold = 0.2
    began = trio.current_time()
    verdict = await check("clock-skew", home, lambda: trio.from_thread.run(wait_long, trio_token=token))
    assert trio.current_time() - began <= STATUS_WITHIN_S + 0.1
    released.set()
    assert verdict.finding == "not checked: the daemon does not answer"
