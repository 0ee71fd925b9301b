"""The testnet of docker/compose.yaml, as a user runs it, under a project name of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from container_engine import Engine
from offline_build import provide_base_image, provide_wheels, reaches_index

ROOT = Path(__file__).resolve().parents[2]
# What .dockerignore lets through.
SOURCES = (
    "pyproject.toml",
    "constraints.txt",
    "README.md",
    "LICENSE",
    ".dockerignore",
    "sedmad",
    "crossbar",
    "docker",
)
PROJECT = "sedmad-test"
NODES = ("node1", "node2", "node3", "node4", "node5")
CLIENT = ("python", "/opt/client.py")
OFFLINE = ("--build-arg", "PIP_ARGS=--no-index --find-links /wheels")
BUILD_TIMEOUT_S = 900.0
UP_TIMEOUT_S = 300.0
WAIT_TIMEOUT_S = 90.0
POLL_S = 0.5


class Testnet:
    """A copy of this repository's files, and the containers made from it.

    Args:
        engine: where they run.
        folder: empty.
    """

    __test__ = False

    def __init__(self, engine: Engine, folder: Path) -> None:
        self.engine = engine
        self._source = folder / "source"
        self._compose = (
            *engine.compose_command(),
            *("-p", PROJECT, "-f", str(self._source / "docker" / "compose.yaml")),
        )

    def build(self) -> None:
        """Build the images, with what the network gives or without.

        Raises:
            EngineMissing: what the build needs is not to be had.
        """
        self._copy_source()
        provide_base_image(self.engine)
        options: tuple[str, ...] = ()
        if not reaches_index(self.engine):
            provide_wheels(self._source, self._source / "docker" / "wheels")
            options = OFFLINE
        self.compose("build", *options, timeout_s=BUILD_TIMEOUT_S)

    def _copy_source(self) -> None:
        self._source.mkdir()
        for name in SOURCES:
            path = ROOT / name
            if path.is_dir():
                ignored = shutil.ignore_patterns("__pycache__", "*.whl")
                shutil.copytree(path, self._source / name, ignore=ignored)
            else:
                shutil.copy2(path, self._source / name)
        # A user's own images keep their names.
        compose = self._source / "docker" / "compose.yaml"
        compose.write_text(compose.read_text().replace("image: sedmad-", f"image: {PROJECT}-"))

    def compose(self, *arguments: str, check: bool = True, timeout_s: float = 300.0) -> str:
        """Run docker compose; return what it printed."""
        return self.engine.run(*self._compose, *arguments, check=check, timeout_s=timeout_s).stdout

    def execute(self, service: str, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command in a running container."""
        return self.engine.run("docker", "exec", self.container(service), *command, check=check)

    def json(self, node: str, *verb: str) -> Any:
        """Return the document that a verb prints in a node's container."""
        return json.loads(self.execute(node, "sedmad", *verb, "--json").stdout)

    def start_client(self, *options: str) -> subprocess.Popen[str]:
        """Start one more client beside the nodes that run."""
        return subprocess.Popen(
            [*self._compose, "run", "--rm", "--no-deps", "-T", "client", *CLIENT, *options],
            env=self.engine.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def container(self, service: str) -> str:
        """Return the id of a service's container, running or not."""
        listed = self._listed("docker", "ps", "--all", "--quiet", "--no-trunc", service=service)
        assert len(listed) == 1, f"{service} has {len(listed)} containers"
        return listed[0]

    def runs(self, service: str) -> bool:
        inspected = self.engine.run("docker", "inspect", "-f", "{{.State.Running}}", self.container(service))
        return inspected.stdout.strip() == "true"

    def wait_exit(self, service: str) -> tuple[int, str]:
        """Wait for a container that ends by itself; return its exit code and what it printed."""
        container = self.container(service)
        code = int(self.engine.run("docker", "wait", container, timeout_s=WAIT_TIMEOUT_S).stdout)
        logs = self.engine.run("docker", "logs", container)
        return code, logs.stdout + logs.stderr

    def alive_peers(self, node: str) -> set[str]:
        """Return the names of the nodes that one has a session with."""
        peers = self.execute(node, "sedmad", "peers", "--json", check=False)
        if peers.returncode == os.EX_UNAVAILABLE:
            # It is still starting.
            return set()
        assert peers.returncode == 0, peers.stderr
        listed = json.loads(peers.stdout)["peers"]
        return {peer["name"] for peer in listed if peer["state"] == "alive" and peer["path"]}

    def wait_complete(self) -> None:
        """Wait until every node has a session with every other."""
        for node in NODES:
            wait_until(partial(self._has_met_all, node), f"{node} to meet the others")

    def _has_met_all(self, node: str) -> bool:
        return self.alive_peers(node) == set(NODES) - {node}

    def identities(self) -> dict[str, tuple[str, str]]:
        """Return every node's peer id and mesh id."""
        documents = {node: self.json(node, "status") for node in NODES}
        return {
            node: (document["node"]["peer_id"], document["mesh"]["mesh_id"])
            for node, document in documents.items()
        }

    def holders(self, matrix: str) -> set[str]:
        """Return the names of the nodes that compute with a matrix."""
        partitions = self.json("node1", "inspect", matrix)["partitions"]
        return {copy["name"] for part in partitions for copy in part["copies"] if copy["kind"] == "resident"}

    def down(self) -> None:
        """Remove containers, networks and volumes."""
        self.compose("down", "--volumes", "--remove-orphans")

    def leftovers(self) -> list[str]:
        """Return the ids of all containers, networks and volumes that are there."""
        return [
            *self._listed("docker", "ps", "--all", "--quiet"),
            *self._listed("docker", "network", "ls", "--quiet"),
            *self._listed("docker", "volume", "ls", "--quiet"),
        ]

    def logs(self) -> str:
        """Return the ends of all logs, for people."""
        return self.compose("logs", "--no-color", "--tail", "20", check=False)

    def _listed(self, *command: str, service: str = "") -> list[str]:
        filters = ["--filter", f"label=com.docker.compose.project={PROJECT}"]
        if service:
            filters += ["--filter", f"label=com.docker.compose.service={service}"]
            filters += ["--filter", "label=com.docker.compose.oneoff=False"]
        return self.engine.run(*command, *filters).stdout.split()


@contextmanager
def running_testnet(engine: Engine, folder: Path) -> Iterator[Testnet]:
    """Build it, start it, and leave nothing of it."""
    testnet = Testnet(engine, folder)
    testnet.build()
    # Of a run that was killed.
    testnet.down()
    try:
        testnet.compose("up", "-d", timeout_s=UP_TIMEOUT_S)
        yield testnet
    finally:
        testnet.down()
        engine.run("docker", "image", "rm", f"{PROJECT}-client", f"{PROJECT}-node", check=False)


def wait_until(happened: Callable[[], object], what: str) -> None:
    """Wait until `happened()` is true; AssertionError if it takes too long."""
    until = time.monotonic() + WAIT_TIMEOUT_S
    while not happened():
        assert time.monotonic() < until, f"waited {WAIT_TIMEOUT_S:g} s in vain: {what}"
        time.sleep(POLL_S)
