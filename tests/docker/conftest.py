from __future__ import annotations

import sys
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

# Test modules are imported on their own; this makes those that they share importable by their names.
sys.path.insert(0, str(Path(__file__).parent))

from container_engine import EngineMissing, container_engine
from testnet import Testnet, running_testnet


@pytest.fixture(scope="module")
def testnet() -> Iterator[Testnet]:
    """Five nodes and a client in containers; skips where no engine can be had."""
    # Not pytest's folder: the engine's socket lies in it, and its path may have 107 bytes.
    with tempfile.TemporaryDirectory(prefix="sedmad-docker-") as directory:
        folder = Path(directory)
        try:
            with container_engine(folder) as engine, running_testnet(engine, folder) as started:
                yield started
        except EngineMissing as missing:
            pytest.skip(str(missing))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show what the containers logged, with a test that failed."""
    report = yield
    testnet = getattr(item, "funcargs", {}).get("testnet")
    if report.failed and testnet is not None:
        report.sections.append(("containers", testnet.logs()))
    return report
