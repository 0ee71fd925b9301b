"""`sedmad status` is asked for often: what it loads is what it needs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from fake_daemon import FakeDaemon

HEAVY = {
    "numpy",
    "libp2p",
    "trio",
    "rich",
    "numba",
    "structlog",
    "asyncio",
    "multiaddr",
    "cryptography",
    "sqlite3",
    "ssl",
}
PROGRAM = """
import sys
from sedmad.cli.main import main
try:
    code = main(sys.argv[1:])
except SystemExit as exit:
    code = exit.code
print("\\n".join(sorted(sys.modules)), file=sys.stderr)
sys.exit(code)
"""


def modules_after(*command: str) -> set[str]:
    """Return the names of all modules that a command has loaded by its end."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *command], capture_output=True, text=True, check=True, timeout=60
    )
    return set(done.stderr.split())


@pytest.mark.parametrize(
    "command", [["status"], ["peers"], ["ls"], ["inspect", "w"], ["--help"], ["put", "--help"]]
)
def test_light_verbs_load_nothing_heavy(daemon: FakeDaemon, command: list[str]) -> None:
    daemon.store("w", np.ones((100, 3)))
    assert not modules_after(*command) & HEAVY


@pytest.mark.parametrize("command", ["apply w {x} -o {y}", "get w -o {y}", "put {w} --name v"])
def test_verbs_with_values_add_numpy_alone(daemon: FakeDaemon, home: Path, command: str) -> None:
    daemon.store("w", np.ones((100, 3)))
    np.save(home / "x.npy", np.ones(3))
    np.save(home / "w.npy", np.ones((9, 3)))
    filled = command.format(x=home / "x.npy", y=home / "y.npy", w=home / "w.npy")
    loaded = modules_after(*filled.split())
    assert "numpy" in loaded
    assert not loaded & (HEAVY - {"numpy"})


def test_the_process_of_apply_stays_small(daemon: FakeDaemon, home: Path) -> None:
    """X of 16 KiB; 60 MiB are what a client may take."""
    daemon.store("w", np.ones((256, 4096), np.float32))
    np.save(home / "x.npy", np.ones(4096, np.float32))
    program = (
        "import sys\nfrom sedmad.cli.main import main\nassert main(sys.argv[1:]) == 0\n"
        "print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "apply", "w", str(home / "x.npy"), "-o", str(home / "y.npy")],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert int(done.stdout.split()[-1]) < 60 * 1024
