"""From nothing to a mesh with the verbs that a person types, and what happens to those who type them wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from daemons import Daemon, run_verb, short_directory, wait_until
from meshes import MeshOfDaemons, attached
from products import is_right, normal


@pytest.fixture(scope="module")
def founder() -> Iterator[Daemon]:
    """The first node of a mesh, set up by `init`; its daemon runs."""
    with short_directory() as directory:
        daemon = Daemon("ann", directory / "ann")
        daemon.run("init", "--name", "ann")
        try:
            yield daemon.start()
        finally:
            daemon.kill()


@pytest.fixture
def idle(folder: Path) -> Daemon:
    """A node whose daemon was never started."""
    return MeshOfDaemons(folder, ["ann"]).founder


def refusal(done: subprocess.CompletedProcess[str]) -> str:
    """Return the reason of a verb that failed with --json, once it has been seen to fail well."""
    assert done.returncode not in (0, 1)
    assert done.stdout == ""
    error = json.loads(done.stderr.splitlines()[-1])["error"]
    assert error["exit_code"] == done.returncode
    assert error["message"]
    return str(error["reason"])


def mode_of(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_init_makes_a_private_identity_and_a_mesh(folder: Path) -> None:
    home = folder / "home"
    made = Daemon("ann", home).json("init", "--name", "ann")
    assert made["name"] == "ann"
    assert made["peer_id"].startswith("12D3KooW")
    assert mode_of(home / "identity.key") == 0o600
    assert mode_of(home) == 0o700
    kept = [home / "identity.key", *(home / "certificates").iterdir()]
    before = [path.read_bytes() for path in kept]
    assert refusal(run_verb(home, "init", "--name", "other", "--json")) == "MESH_EXISTS"
    assert before == [path.read_bytes() for path in kept]


def test_a_token_admits_one_node(founder: Daemon, folder: Path) -> None:
    printed = founder.run("invite", "--expires", "1h")
    token = printed.strip()
    assert printed == f"{token}\n"
    assert len(token.split()) == 1
    newcomer = Daemon("ben", folder / "ben")
    joined = newcomer.json("join", token, "--name", "ben")
    assert joined["mesh_id"] == founder.json("status")["mesh"]["mesh_id"]
    assert mode_of(folder / "ben" / "identity.key") == 0o600
    assert refusal(run_verb(folder / "late", "join", token, "--json")) == "TOKEN_USED"
    assert refusal(run_verb(folder / "ben", "join", founder.run("invite").strip(), "--json")) == "MESH_EXISTS"
    try:
        newcomer.start()
        with founder.connect() as mesh:
            wait_until(lambda: joined["peer_id"] in attached(mesh), "the founder to meet the newcomer")
        (peer,) = newcomer.json("peers")["peers"]
        assert (peer["name"], peer["peer_id"]) == ("ann", founder.peer_id)
        # Only the node that made the mesh signs certificates so far.
        assert refusal(run_verb(newcomer.home, "invite", "--json")) == "NOT_PERMITTED"
        newcomer.stop()
    finally:
        newcomer.kill()


def test_a_node_that_could_not_join_may_try_again_with_a_good_token(founder: Daemon, folder: Path) -> None:
    token = founder.run("invite").strip()
    damaged = token[:-1] + ("a" if token[-1] != "a" else "b")
    for bad in (damaged, "☃" * 5000):
        assert refusal(run_verb(folder / "home", "join", bad, "--json")) == "TOKEN_INVALID"
    brief = founder.run("invite", "--expires", "1s").strip()
    time.sleep(2.0)
    assert refusal(run_verb(folder / "home", "join", brief, "--json")) == "TOKEN_EXPIRED"
    assert Daemon("ben", folder / "home").json("join", token, "--name", "ben")["name"] == "ben"


def test_invitations_need_the_daemon(idle: Daemon) -> None:
    assert refusal(run_verb(idle.home, "invite", "--json")) == "DAEMON_NOT_RUNNING"


def test_only_one_daemon_runs_on_a_home(founder: Daemon) -> None:
    done = run_verb(founder.home, "--json", "start", "--listen", "/ip4/127.0.0.1/tcp/0")
    assert refusal(done) == "HOME_IN_USE"
    assert founder.json("status")["node"]["state"] == "ready"


def test_a_daemon_needs_a_mesh(folder: Path) -> None:
    assert refusal(run_verb(folder / "home", "start", "--json")) == "MESH_MISSING"


def test_a_home_too_long_for_a_socket_is_refused_before_anything_is_made(folder: Path) -> None:
    home = folder / ("x" * 100)
    assert refusal(run_verb(home, "init", "--json")) == "CONFIGURATION_INVALID"
    assert not home.exists()


def test_an_unknown_setting_is_refused_with_the_nearest_known_one(idle: Daemon) -> None:
    (idle.home / "config.toml").write_text('memroy = "1GiB"\n')
    done = run_verb(idle.home, "start", "--json")
    assert refusal(done) == "CONFIGURATION_INVALID"
    assert done.returncode == os.EX_CONFIG
    assert "'memroy'" in done.stderr
    assert "'memory'" in done.stderr


@pytest.mark.parametrize(
    "options",
    [
        ("--listen", "/ip4/127.0.0.1/udp/4001/quic-v1"),
        ("--listen", "/ip4/192.0.2.1/tcp/4001"),
        ("--memory", "1000000GiB"),
    ],
    ids=" ".join,
)
def test_a_wrong_option_ends_the_daemon_with_a_clear_error(options: tuple[str, ...], idle: Daemon) -> None:
    listen = () if "--listen" in options else ("--listen", "/ip4/127.0.0.1/tcp/0")
    done = run_verb(idle.home, "--json", "start", *listen, *options)
    assert refusal(done) == "CONFIGURATION_INVALID"
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("way", ["SIGTERM", "SIGINT", "sedmad stop"])
def test_a_daemon_ends_cleanly_and_keeps_its_matrices(way: str, founder: Daemon) -> None:
    w, x = normal(300, 40), normal(40, seed=1)
    with founder.connect() as mesh:
        mesh.put("kept", w, survive=0)
        assert founder.socket.exists()
        # The client stays connected: that must not hold the daemon up.
        if way == "sedmad stop":
            assert founder.run("stop").strip() == "stopped"
        else:
            founder.signal(signal.Signals[way])
        assert founder.wait_exit() == 0
    assert not founder.socket.exists()
    assert refusal(run_verb(founder.home, "status", "--json")) == "DAEMON_NOT_RUNNING"

    founder.start()
    with founder.connect() as mesh:
        assert mesh["kept"].get().tobytes() == w.tobytes()
        assert is_right(mesh["kept"] @ x, w, x)


def test_a_daemon_that_was_killed_starts_again(founder: Daemon) -> None:
    w = normal(300, 40)
    with founder.connect() as mesh:
        mesh.put("kept", w, survive=0)
    founder.kill()
    assert founder.socket.exists()
    founder.start()
    with founder.connect() as mesh:
        assert mesh["kept"].get().tobytes() == w.tobytes()
