from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path

import pytest

# Test modules are imported on their own; this makes those that they share importable by their names.
sys.path.insert(0, str(Path(__file__).parent))

from rig import Rig, open_rig


@pytest.fixture
def rig(tmp_path: Path) -> Callable[..., AbstractAsyncContextManager[Rig]]:
    """`async with rig("ann", "ben") as nodes`: nodes with real stores, talking over channels in memory."""
    return partial(open_rig, tmp_path)
