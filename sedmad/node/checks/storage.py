"""Whether what this node stores is whole, and whether there is room."""

from __future__ import annotations

import random
from pathlib import Path

from sedmad.node.checks.daemon import in_thread
from sedmad.node.checks.subject import Subject
from sedmad.node.checks.verdict import Finding, fail, ok, warn
from sedmad.sizes import format_bytes
from sedmad.store import disk
from sedmad.store.examining import examine_blobs, fault_of_database

# A tenth of a second where the disk is fast, two where it is old; the rest is for `sedmad verify`.
SAMPLE_BYTES = 128 << 20


async def check_integrity(subject: Subject) -> Finding:
    """Have SQLite check the tables, and read a sample of the stored bytes; nothing is written."""
    home = subject.home
    fault = await in_thread(fault_of_database, home.database)
    if fault:
        return fail(
            f"the database {home.database} is damaged: {fault}",
            "Start the daemon again: it takes up its snapshot and asks the other nodes for the rest.",
        )
    rng = random.Random()  # noqa: S311 - chooses what to read
    found = await in_thread(examine_blobs, home.blobs, rng, SAMPLE_BYTES)
    if found.changed:
        return fail(
            f"{len(found.changed)} of {found.read} stored files that were read have changed, {found.changed[0]} among"
            " them",
            "See all of them with: sedmad verify - the daemon fetches them again from other nodes.",
        )
    if not found.files:
        return ok("the tables are sound; nothing is stored")
    return ok(
        f"the tables are sound, and {found.read} of {found.files} stored files, {format_bytes(found.read_bytes)}"
    )


async def check_free_space(subject: Subject) -> Finding:
    """Compare what is free with what must stay free, and with what a daemon that runs has pledged."""
    space = await in_thread(disk.disk_space, _existing(subject.home.blobs))
    free = format_bytes(space.free_bytes)
    if not space.room_bytes:
        return fail(
            f"{free} are free, and {format_bytes(space.reserve_bytes)} must stay free: no copy is taken",
            f"Free some space under {subject.home.data_directory}.",
        )
    status = await subject.status()
    if not isinstance(status, str):
        left_bytes = max(0, status.disk_pledged_bytes - status.disk_used_bytes)
        if left_bytes > space.room_bytes:
            return warn(
                f"{format_bytes(left_bytes)} more are pledged, and {free} are free",
                "Free some space, or start the daemon with a smaller --disk.",
            )
    return ok(f"{free} are free")


def _existing(path: Path) -> Path:
    """Return the folder, or the nearest above it that is there: a home may not have been made yet."""
    return next(folder for folder in (path, *path.parents) if folder.exists())
