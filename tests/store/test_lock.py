from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from sedmad.errors import HomeInUse
from sedmad.store.lock import locked_home

HOLDER = """
import sys
from pathlib import Path
from sedmad.store.lock import locked_home

with locked_home(Path(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.read()
"""


def test_one_daemon_per_home_until_it_is_killed(tmp_path: Path) -> None:
    lock_file = tmp_path / "daemon.lock"
    command = [sys.executable, "-c", HOLDER, str(lock_file)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"locked\n"
        with pytest.raises(HomeInUse) as caught, locked_home(lock_file):
            pass
        assert f"process {holder.pid}." in str(caught.value)
        assert str(tmp_path) in str(caught.value)
        holder.kill()
    with locked_home(lock_file):
        assert lock_file.read_text() == f"{os.getpid()}\n"


def test_the_lock_is_free_after_the_block_and_private(tmp_path: Path) -> None:
    lock_file = tmp_path / "daemon.lock"
    with pytest.raises(ZeroDivisionError), locked_home(lock_file):
        raise ZeroDivisionError
    with locked_home(lock_file), pytest.raises(HomeInUse), locked_home(lock_file):
        pass
    assert stat.S_IMODE(lock_file.stat().st_mode) == 0o600
