"""Bars for long work, on a terminal only. Rich is imported when there is enough to do that its 80 ms do not matter."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from sedmad.cli.terminal import messages

# Half a second of work at the 130 MB/s of a busy disk.
WORTHWHILE_BYTES = 64 << 20


class Advance(Protocol):
    """Told the bytes that are done, what is going on with them, and how many there are if that has changed."""

    def __call__(self, done_bytes: int, description: str, total_bytes: int | None = None) -> None: ...


@contextmanager
def progress_bar(description: str, total_bytes: int, *, wanted: bool) -> Iterator[Advance]:
    """Show a bar while the block runs.

    Yields:
        What to tell how far it is. It does nothing where no bar is shown.
    """
    if not wanted or total_bytes < WORTHWHILE_BYTES or not messages().has_colours:
        yield lambda done_bytes, description, total_bytes=None: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(description, total=total_bytes)
        yield lambda done_bytes, description, total_bytes=None: progress.update(
            task, completed=done_bytes, description=description, total=total_bytes
        )
