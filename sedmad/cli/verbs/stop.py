"""Stop this node's daemon, and wait until it has let go of its home."""

from __future__ import annotations

import argparse
import os
import time

from sedmad.cli.terminal import messages, output
from sedmad.client import connect
from sedmad.errors import SessionLost
from sedmad.home import Home

# The daemon gives what is under way 5 s.
WAIT_S = 15.0
LOOK_EVERY_S = 0.05


def configure(parser: argparse.ArgumentParser) -> None:
    pass


def run(arguments: argparse.Namespace) -> int:
    home = Home.locate(arguments.home, os.environ)
    with connect(arguments.home) as mesh:
        try:
            mesh.stop_node()
        except SessionLost:
            # It stopped faster than it answered.
            messages().print("The daemon ended the connection.")
    stopped = _wait_until_gone(home)
    if arguments.json:
        from sedmad.cli.json_contract import print_document

        print_document({"stopped": stopped})
    elif stopped:
        output().print("stopped")
    else:
        messages().print(f"The daemon is still ending what it does, {WAIT_S:g} s after it agreed to stop.")
    return 0 if stopped else 1


def _wait_until_gone(home: Home) -> bool:
    """Wait until the daemon has unlocked its home, which is the last thing that it does; return whether it has."""
    deadline = time.monotonic() + WAIT_S
    while _is_locked(home):
        if time.monotonic() > deadline:
            return False
        time.sleep(LOOK_EVERY_S)
    return True


def _is_locked(home: Home) -> bool:
    import fcntl

    try:
        descriptor = os.open(home.lock_file, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
