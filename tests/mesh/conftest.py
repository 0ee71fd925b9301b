from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import hypothesis
import pytest

# Test modules are imported on their own; this makes those that they share importable by their names.
sys.path.insert(0, str(Path(__file__).parent))

from daemons import logs, short_directory
from meshes import MeshOfDaemons

# Daemons take the time that they take.
hypothesis.settings.register_profile("mesh", deadline=None)
hypothesis.settings.load_profile("mesh")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Show what the daemons logged, with a test that failed."""
    report = yield
    if report.failed:
        report.sections.extend((f"log of {name}", tail) for name, tail in logs().items())
    return report


@pytest.fixture
def folder() -> Iterator[Path]:
    """An empty directory with a path short enough for sockets."""
    with short_directory() as directory:
        yield directory


@pytest.fixture(scope="module")
def make_mesh() -> Iterator[Callable[..., MeshOfDaemons]]:
    """`make_mesh("ann", "ben")` makes the homes of a mesh, whose daemons end with the module."""
    with ExitStack() as stack:

        def make(*names: str) -> MeshOfDaemons:
            directory = stack.enter_context(short_directory())
            return stack.enter_context(MeshOfDaemons(directory, names))

        yield make


@pytest.fixture(scope="session")
def four() -> Iterator[MeshOfDaemons]:
    """Four daemons that many tests share; none of these ends or pauses one."""
    with short_directory() as directory, MeshOfDaemons(directory, ["ann", "ben", "cyd", "dan"]) as mesh:
        yield mesh.start()


@pytest.fixture
def mesh(four: MeshOfDaemons) -> Iterator[MeshOfDaemons]:
    """The shared daemons; what a test stores there is removed after it."""
    yield four
    four.empty()
