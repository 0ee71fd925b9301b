from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

import sedmad
from sedmad import failpoints
from sedmad.errors import ConfigurationInvalid

SOURCE = Path(sedmad.__file__).parent


def test_each_point_is_reached_in_one_place_of_the_module_that_it_names() -> None:
    reached = Counter[tuple[str, str]]()
    for path in SOURCE.rglob("*.py"):
        for name in re.findall(r"failpoints\.reach\(\"([^\"]+)\"\)", path.read_text()):
            reached[path.stem, name] += 1
    assert reached == {(name.partition(".")[0], name): 1 for name in failpoints.POINTS}


def test_nothing_happens_where_none_is_armed() -> None:
    assert failpoints.arm({}) is None
    for name in failpoints.POINTS:
        failpoints.reach(name)


@pytest.mark.parametrize(
    "setting", ["nowhere", "putting.copied:", "putting.copied:0", "putting.copied:x", ":1"]
)
def test_a_point_that_does_not_exist_is_refused(setting: str) -> None:
    with pytest.raises(ConfigurationInvalid):
        failpoints.arm({failpoints.VARIABLE: setting})


def test_the_process_dies_at_the_armed_point_when_it_gets_there_that_often() -> None:
    program = """
from sedmad import failpoints
failpoints.arm({failpoints.VARIABLE: "putting.copied:2"})
for name in ("putting.copied", "putting.spooled", "putting.spooled"):
    failpoints.reach(name)
print("alive", flush=True)
failpoints.reach("putting.copied")
print("never", flush=True)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, "alive\n")
