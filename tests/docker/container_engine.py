"""A container engine to test with: the one that runs on this machine, or one of the tests' own.

An engine that the tests start has its own network namespace, with no way out of the machine, and keeps its images in
the cache folder; when it ends, nothing of it is left but those. It needs root and Debian's `docker.io` and
`docker-compose`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Beside what users have cached: images and wheels that take minutes to make.
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sedmad-docker"
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 60.0
COMMAND_TIMEOUT_S = 300.0
POLL_S = 0.25
# Layers of older builds than this are removed; younger ones save the next build minutes.
LAYERS_KEPT = "24h"


class EngineMissing(Exception):
    """There is no engine here, and the reason why."""


class Engine:
    """Docker's commands against one engine.

    Args:
        address: of its API, or None for the one that docker's own settings name.
    """

    def __init__(self, address: str | None = None) -> None:
        self.environment = dict(os.environ) | ({"DOCKER_HOST": address} if address else {})
        self.is_own = address is not None

    def run(
        self, *command: str, check: bool = True, timeout_s: float = COMMAND_TIMEOUT_S
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end.

        Raises:
            AssertionError: it failed, and `check` says that it must not; with what it printed.
        """
        done = subprocess.run(
            command,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        assert done.returncode == 0 or not check, f"{' '.join(command)}:\n{done.stdout}\n{done.stderr}"
        return done

    def answers(self) -> bool:
        return self.run("docker", "version", check=False).returncode == 0

    def compose_command(self) -> tuple[str, ...]:
        """Return what `docker compose` is here.

        Raises:
            EngineMissing: there is none.
        """
        if self.run("docker", "compose", "version", check=False).returncode == 0:
            return ("docker", "compose")
        if shutil.which("docker-compose"):
            return ("docker-compose",)
        raise EngineMissing("neither `docker compose` nor `docker-compose` is installed")


@contextmanager
def container_engine(folder: Path) -> Iterator[Engine]:
    """Use the engine that runs here, or else run one meanwhile.

    Args:
        folder: empty, with a path short enough for sockets.

    Raises:
        EngineMissing: none runs, and none can be started.
    """
    if not shutil.which("docker"):
        raise EngineMissing("docker is not installed")
    engine = Engine()
    if engine.answers():
        yield engine
        return
    missing = [name for name in ("dockerd", "unshare", "setpriv", "ip") if not shutil.which(name)]
    if os.geteuid() != 0 or missing:
        lacks = f"{', '.join(missing)} not installed" if missing else "starting one needs root"
        raise EngineMissing(f"no container engine answers, and {lacks}")
    with _own_engine(folder) as own:
        yield own


@contextmanager
def _own_engine(folder: Path) -> Iterator[Engine]:
    address = f"unix://{folder}/docker.sock"
    dockerd = ["dockerd", "--data-root", str(CACHE / "engine"), "--exec-root", str(folder / "exec")]
    dockerd += ["--pidfile", str(folder / "pid"), "--host", address, "--group", "root"]
    # Its bridges, its firewall rules and its mounts end with its namespaces; it ends with the tests.
    command = ["setpriv", "--pdeathsig", "TERM", "unshare", "--net", "--mount", "sh", "-c"]
    command += ['ip link set lo up; exec "$@"', "sh", *dockerd]
    log_path = folder / "dockerd.log"
    with log_path.open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, process_group=0)
    try:
        engine = Engine(address)
        until = time.monotonic() + START_TIMEOUT_S
        while not engine.answers():
            if process.poll() is not None or time.monotonic() > until:
                last_lines = log_path.read_text(errors="replace").splitlines()[-3:]
                raise EngineMissing("no container engine can be started: " + " / ".join(last_lines))
            time.sleep(POLL_S)
        yield engine
        engine.run("docker", "image", "prune", "--force", "--filter", f"until={LAYERS_KEPT}")
    finally:
        process.terminate()
        process.wait(STOP_TIMEOUT_S)
