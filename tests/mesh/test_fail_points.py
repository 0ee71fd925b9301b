"""A power cut of one process between anything it writes and anything it says: what was going on is whole or absent
afterwards, what was there before is untouched, and nothing is left over.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
from daemons import DISK, MEMORY, Daemon, home_of, run_verb, short_directory, wait_until
from forked import ForkedDaemon
from meshes import MeshOfDaemons
from products import Array, normal

import sedmad
from sedmad import failpoints
from sedmad.errors import SedmadError
from sedmad.wire.messages import MatrixVerification

# Two partitions.
ROWS, COLUMNS = 2200, 1024
OLD, NEW = normal(ROWS, COLUMNS, seed=1), normal(ROWS, COLUMNS, seed=2)
NOT_ALLOWED = NEW.copy()
NOT_ALLOWED[-1, -1] = float("nan")
# Replaced versions are freed soon, and whatever is taken of a pledge is told at once.
PATCHES = {
    "sedmad.node.removing.REPLACED_AFTER_S": 1.0,
    "sedmad.core.membership.advert.MATERIAL_BYTES": 1.0,
}
# Gossip that was missed comes around every ten seconds.
SETTLED_S = 45.0


def put(client: sedmad.Mesh) -> None:
    client.put("w", NEW, survive=2)


def replace(client: sedmad.Mesh) -> None:
    client.put("w", NEW, survive=2, replace=True)


def put_elsewhere(client: sedmad.Mesh) -> None:
    """Store it without cyd, which has no room and guards only."""
    client.put("w", NEW, survive=1)


def put_in_vain(client: sedmad.Mesh) -> None:
    """Store what turns out not to be allowed when most of it has arrived."""
    client.put("w", NOT_ALLOWED, survive=2)


def remove(client: sedmad.Mesh) -> None:
    client.remove("w")


@dataclass(frozen=True)
class Death:
    """Who dies where, the how manieth time it gets there, during what. `ann` is asked, and owns what she stores."""

    point: str
    during: Callable[[sedmad.Mesh], None]
    victim: str = "ann"
    count: int = 1

    def __str__(self) -> str:
        return f"{self.victim}-{self.point}:{self.count}-{self.during.__name__}"

    @property
    def before(self) -> Array | None:
        """What is stored as `w` when it begins."""
        return OLD if self.during in (replace, remove) else None

    @property
    def after(self) -> Array | None:
        """What is stored as `w` if it succeeds."""
        return NEW if self.during in (put, replace, put_elsewhere) else None

    @property
    def copies(self) -> int:
        """How many copies there are of what is stored."""
        return 2 if self.during is put_elsewhere else 3


DEATHS = [
    Death("reserving.intended", put),
    Death("reserving.reserved", put),
    Death("putting.spooled", put, count=2),
    Death("putting.copied", put),
    Death("committing.manifest_stored", put),
    Death("committing.manifest_stored", replace),
    Death("committing.manifest_told", replace),
    Death("committing.name_stored", replace),
    Death("committing.name_told", replace),
    Death("establishing.established", replace),
    Death("establishing.established", remove),
    Death("holding.reserved", put, "ben"),
    Death("holding.fetched", put, "ben"),
    Death("holding.held", put),
    Death("holding.held", replace, "ben", count=2),
    Death("holding.programmed", put, "ben", count=2),
    Death("holding.released", put_in_vain),
    Death("holding.released", put_in_vain, "ben"),
    Death("manifests.stored", put, "ben"),
    Death("manifests.stored", replace, "ben", count=2),
    Death("manifests.stored", remove, "ben"),
    Death("manifests.stored", put_elsewhere, "cyd"),
    Death("releasing.released_here", put_in_vain),
    Death("releasing.told", put_in_vain),
    Death("removing.name_published", remove),
    Death("removing.last_manifest_stored", remove),
    Death("removing.last_manifest_stored", replace),
    Death("removing.last_manifest_safe", remove),
    Death("removing.last_manifest_told", replace),
]
# Where something is left for a while that a second attempt finds.
TRIED_AGAIN = [
    Death("committing.manifest_stored", put),
    Death("committing.name_stored", replace),
    Death("establishing.established", put),
    Death("manifests.stored", put, "ben"),
]
# Of a guardian while it passes a dead owner's matrix on, and of an owner while it makes copies again.
WHILE_PASSING_ON = ["owning.promised", "owning.won"]
WHILE_REPAIRING = ["repair_step.reserved", "repair_step.copied", "establishing.established"]
# Of a holder that starts and finds a copy gone.
WHILE_STARTING = ["advertising.counted", "restoring.dropped", "healing.fetched", "healing.adopted"]
ELSEWHERE = ["healing.forgotten", "draining.decided", "invitations.used"]


@pytest.fixture(scope="module")
def three() -> Iterator[MeshOfDaemons]:
    """Three daemons, all of which run between tests."""
    with (
        short_directory() as directory,
        MeshOfDaemons(directory, ["ann", "ben", "cyd"], kind=ForkedDaemon) as mesh,
    ):
        for daemon in mesh:
            forked(daemon).patches = PATCHES
        yield mesh.start()


@pytest.mark.parametrize("death", DEATHS, ids=str)
def test_it_is_whole_or_absent(three: MeshOfDaemons, death: Death) -> None:
    prepare(three, death.before)
    attempt = die(three, death)
    outcome = agreement(three)
    allowed = [death.after] if attempt.acknowledged else [death.before, death.after]
    assert outcome in [None if values is None else values.tobytes() for values in allowed]
    assert_clean(three, outcome, death.copies)


@pytest.mark.parametrize("death", TRIED_AGAIN, ids=str)
def test_a_client_that_tries_again_succeeds(three: MeshOfDaemons, death: Death) -> None:
    prepare(three, death.before)
    die(three, death)
    with three["ann"].connect() as client:
        death.during(client)
    assert death.after is not None
    assert agreement(three) == death.after.tobytes()
    assert_clean(three, death.after.tobytes(), death.copies)


@pytest.mark.parametrize("point", WHILE_PASSING_ON)
def test_a_matrix_that_is_passed_on_has_one_owner_in_the_end(three: MeshOfDaemons, point: str) -> None:
    prepare(three, OLD)
    guardians = [forked(three["ben"]), forked(three["cyd"])]
    restart(guardians, point)
    three.wait_complete()
    three["ann"].kill()
    wait_until(lambda: not all(daemon.runs for daemon in guardians), f"{point} to end a guardian")
    restart([forked(daemon) for daemon in three])
    three.wait_complete()
    assert agreement(three) == OLD.tobytes()
    # Somebody may decide again, whoever was promised what.
    with three["cyd"].connect() as client:
        replace(client)
    assert agreement(three) == NEW.tobytes()
    assert_clean(three, NEW.tobytes(), copies=3)


@pytest.mark.parametrize("point", WHILE_REPAIRING)
def test_a_repair_is_done_or_never_was(three: MeshOfDaemons, point: str) -> None:
    prepare(three, None)
    with three["ann"].connect() as client:
        client.put("w", OLD, survive=1)
    owner = forked(three["ann"])
    restart([owner], point)
    three.wait_complete()
    lost = next(daemon for daemon in (three["ben"], three["cyd"]) if daemon.blob_bytes())
    lost.kill()
    wait_until(lambda: not owner.runs, f"{point} to end the owner")
    restart([owner, forked(lost)])
    three.wait_complete()
    assert agreement(three) == OLD.tobytes()
    assert_clean(three, OLD.tobytes(), copies=2)


@pytest.mark.parametrize("point", WHILE_STARTING)
def test_a_holder_that_lost_a_copy_has_it_again_however_often_it_starts(
    three: MeshOfDaemons, point: str
) -> None:
    prepare(three, OLD)
    ben = forked(three["ben"])
    ben.kill()
    blobs(ben)[0].unlink()
    ben.settings = {failpoints.VARIABLE: point}
    ben.launch(listen=f"/ip4/127.0.0.1/tcp/{ben.port}")
    wait_until(lambda: not ben.runs, f"{point} to end the holder")
    assert ben.wait_exit() == -signal.SIGKILL
    restart([ben])
    three.wait_complete()
    assert agreement(three) == OLD.tobytes()
    assert_clean(three, OLD.tobytes(), copies=3)


def test_a_copy_that_changed_is_fetched_again_whatever_became_of_its_holder(three: MeshOfDaemons) -> None:
    prepare(three, OLD)
    ben = forked(three["ben"])
    restart([ben], "healing.forgotten")
    three.wait_complete()
    with blobs(ben)[0].open("r+b") as file:
        byte = file.read(1)[0]
        file.seek(0)
        file.write(bytes([byte ^ 1]))
    with three["cyd"].connect() as client:
        client.verify()
    wait_until(lambda: not ben.runs, "healing.forgotten to end the holder")
    restart([ben])
    three.wait_complete()
    (changed,) = home_of(ben.home).blobs.rglob("*.corrupt")
    changed.unlink()
    assert agreement(three) == OLD.tobytes()
    assert_clean(three, OLD.tobytes(), copies=3)


def test_a_node_that_was_told_to_leave_knows_it_afterwards(three: MeshOfDaemons) -> None:
    prepare(three, None)
    with three["ann"].connect() as client:
        client.put("w", OLD, survive=1)
    leaver = forked(next(daemon for daemon in (three["ben"], three["cyd"]) if daemon.blob_bytes()))
    restart([leaver], "draining.decided")
    three.wait_complete()
    assert run_verb(leaver.home, "drain").returncode != 0
    assert leaver.wait_exit() == -signal.SIGKILL
    leaver.settings = {}
    leaver.launch(listen=f"/ip4/127.0.0.1/tcp/{leaver.port}")
    wait_until(lambda: not leaver.blob_bytes(), "all copies to leave", SETTLED_S)
    leaver.run("drain", "--cancel")
    three.wait_complete()
    assert agreement(three) == OLD.tobytes()
    assert_clean(three, OLD.tobytes(), copies=2)


def test_a_newcomer_may_come_again_when_its_inviter_died_before_it_answered(three: MeshOfDaemons) -> None:
    inviter = forked(three["ann"])
    restart([inviter], "invitations.used")
    token = inviter.run("invite").strip()
    newcomer = inviter.home.with_name("eve")
    assert run_verb(newcomer, "join", token).returncode != 0
    assert inviter.wait_exit() == -signal.SIGKILL
    restart([inviter])
    joined = run_verb(newcomer, "join", token)
    assert joined.returncode == 0, joined.stderr
    three.wait_complete()


def test_every_point_is_swept() -> None:
    points = (*WHILE_PASSING_ON, *WHILE_REPAIRING, *WHILE_STARTING, *ELSEWHERE)
    swept = {*(death.point for death in DEATHS), *points}
    assert swept == set(failpoints.POINTS)


def blobs(daemon: Daemon) -> list[Path]:
    """Return the files of a node's copies."""
    return sorted(path for path in home_of(daemon.home).blobs.rglob("*") if path.is_file())


def forked(daemon: Daemon) -> ForkedDaemon:
    assert isinstance(daemon, ForkedDaemon)
    return daemon


def prepare(three: MeshOfDaemons, stored: Array | None) -> None:
    """Have every node empty but for `w`, and know so."""
    three.empty()
    three.wait_used([(0, 0, 0)] * 3)
    if stored is not None:
        with three["ann"].connect() as client:
            client.put("w", stored, survive=2)
        with three["cyd"].connect() as client:
            wait_until(lambda: "w" in client, "cyd to hear of it")


@dataclass
class Attempt:
    """What a client does in a thread of its own, and whether it was told that it is done."""

    client: sedmad.Mesh
    action: Callable[[sedmad.Mesh], None]
    acknowledged: bool = False
    thread: threading.Thread = field(init=False)

    def __post_init__(self) -> None:
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        with suppress(SedmadError):
            self.action(self.client)
            self.acknowledged = True

    def wait(self) -> None:
        """Wait until it has ended, well or badly."""
        self.thread.join(SETTLED_S)
        assert not self.thread.is_alive()


def die(three: MeshOfDaemons, death: Death) -> Attempt:
    """Do something during which a node dies; return how it went, when all nodes run again as they did before."""
    victim = forked(three[death.victim])
    victim.kill()
    if death.during is put_elsewhere:
        victim.memory = victim.disk = "64KiB"
    start_again(victim, f"{death.point}:{death.count}")
    three.wait_complete()
    victim.memory, victim.disk = MEMORY, DISK
    with three["ann"].connect() as client:
        attempt = Attempt(client, death.during)
        wait_until(lambda: not victim.runs, f"{death} to end {victim.name}")
        assert victim.wait_exit() == -signal.SIGKILL
        start_again(victim)
        attempt.wait()
    three.wait_complete()
    return attempt


def restart(daemons: list[ForkedDaemon], point: str = "") -> None:
    """Kill those that still run, and start all where they listened before."""
    for daemon in daemons:
        daemon.kill()
        start_again(daemon, point)


def start_again(daemon: ForkedDaemon, point: str = "") -> None:
    """Start a daemon where it listened before, to die at a point if one is given."""
    daemon.settings = {failpoints.VARIABLE: point} if point else {}
    daemon.start(listen=f"/ip4/127.0.0.1/tcp/{daemon.port}")


def agreement(three: MeshOfDaemons) -> bytes | None:
    """Wait until every node says the same of `w`; return its bytes, alike from everywhere, or None if there is none."""
    said: dict[str, str] = {}

    def agree() -> bool:
        for daemon in three:
            with daemon.connect() as client:
                names = [(matrix.name, matrix.version, matrix.matrix_digest) for matrix in client.summaries()]
            said[daemon.name] = repr(names)
        return len(set(said.values())) == 1

    wait_until(agree, "all nodes to say the same", SETTLED_S)
    contents = set()
    for daemon in three:
        with daemon.connect() as client:
            contents.add(client["w"].get().tobytes() if client.summaries() else None)
    (content,) = contents
    return content


def assert_clean(three: MeshOfDaemons, stored: bytes | None, copies: int) -> None:
    """Every byte belongs to what is stored: by `sedmad verify`, on the disks, and in what each tells of its pledges."""
    wait_until(lambda: faults(three["cyd"]) == [], "sedmad verify to find no fault", SETTLED_S)
    size_bytes = len(stored or b"")

    def used() -> tuple[int, ...]:
        return tuple(sum(column) for column in zip(*three.used(), strict=True))

    wanted = (size_bytes, copies * size_bytes, copies * size_bytes)
    wait_until(lambda: used() == wanted, f"what is stored, {wanted}, and no more to be in use", SETTLED_S)
    # What a node tells others contains what it set aside.
    told = {daemon.peer_id: used[:2] for daemon, used in zip(three, three.used(), strict=True)}
    for daemon in three:
        wait_until(partial(knows, daemon, told), f"{daemon.name} to know that {told} is in use", SETTLED_S)


def knows(daemon: Daemon, told: dict[str, tuple[int, ...]]) -> bool:
    """Whether a node has heard what all others use of their pledges."""
    with daemon.connect() as client:
        heard = {peer.peer_id: (peer.memory_used_bytes, peer.disk_used_bytes) for peer in client.peers()}
    return all(heard.get(peer_id) == used for peer_id, used in told.items() if peer_id != daemon.peer_id)


def faults(daemon: Daemon) -> list[str]:
    """Return what `verify` finds."""
    with daemon.connect() as client:
        found = client.verify()
    assert len(found.nodes) == 3
    return [
        str(item)
        for item in (*found.matrices, *found.nodes)
        if isinstance(item, MatrixVerification)
        or item.error
        or item.report.corrupt
        or item.report.missing
        or item.report.orphaned
    ]
