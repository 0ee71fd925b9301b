from __future__ import annotations

import sys
from pathlib import Path

import pytest

# The lab is no part of the package, and test modules are imported on their own.
sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

from nat_lab import NatLab


@pytest.fixture(scope="session")
def lab_can_be_built() -> None:
    """Skip where it cannot."""
    if reason := NatLab.missing():
        pytest.skip(reason)
