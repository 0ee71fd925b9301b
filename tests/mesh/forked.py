"""Daemons that start within half a second: forked off a process that has imported everything already.

For tests that start daemons by the dozen. Each is a process of its own, with the same command line, home and log as
any other; only the 1.8 s of importing are spared.
"""

from __future__ import annotations

import ctypes
import importlib
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from daemons import Daemon

_forking = multiprocessing.get_context("forkserver")
_forking.set_forkserver_preload(["sedmad.cli.main", "sedmad.cli.verbs.start", "sedmad.node.run"])

PR_SET_PDEATHSIG = 1


class ForkedDaemon(Daemon):
    """A node whose daemon is forked.

    Attributes:
        settings: SEDMAD_* variables of the daemons started from now on.
        patches: values for names of modules, as "sedmad.node.removing.REPLACED_AFTER_S".
    """

    settings: Mapping[str, str] = {}
    patches: Mapping[str, float] = {}

    def kill(self) -> None:
        if self.runs:
            # Not its group, which it may not have made yet.
            os.kill(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def _spawn(self, arguments: Sequence[str], log_path: Path) -> subprocess.Popen[bytes]:
        log_path.touch()
        process = _forking.Process(
            target=_run, args=(list(arguments), str(log_path), dict(self.settings), dict(self.patches))
        )
        process.start()
        return _Forked(process)  # type: ignore[return-value] # what Daemon uses of it


class _Forked:
    """A forked process with the part of Popen's interface that a Daemon uses."""

    def __init__(self, process: ForkServerProcess) -> None:
        self._process = process
        self.pid = process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("sedmad", timeout or 0.0)
        return self._process.exitcode


def _run(
    arguments: Sequence[str], log_path: str, settings: Mapping[str, str], patches: Mapping[str, float]
) -> None:
    # It ends with the process it was forked from, and that one with the tests.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    os.setpgid(0, 0)
    for name in [name for name in os.environ if name.startswith("SEDMAD_")]:
        del os.environ[name]
    os.environ.update(settings)
    log = os.open(log_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    for stream in (1, 2):
        os.dup2(log, stream)
    for name, value in patches.items():
        module, _, attribute = name.rpartition(".")
        setattr(importlib.import_module(module), attribute, value)
    from sedmad.cli.main import main

    sys.exit(main(arguments))
