from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

# Test modules are imported on their own; this makes the one that they share importable by its name.
sys.path.insert(0, str(Path(__file__).parent))

from fake_daemon import FakeDaemon

import sedmad
from sedmad.client import Mesh


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def daemon(home: Path) -> Iterator[FakeDaemon]:
    daemon = FakeDaemon(home / "control.sock")
    yield daemon
    daemon.close()


@pytest.fixture
def mesh(daemon: FakeDaemon, home: Path) -> Iterator[Mesh]:
    with sedmad.connect(home) as mesh:
        yield mesh


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20250101)
