"""What SQLite's write-ahead log says was committed, beside what SQLite takes of it.

SQLite plays a log back up to the first frame whose checksum is wrong, as a crash may have torn the rest, and says
nothing of what comes after it. Where the rest was committed, though, bits have flipped, and the tables lack what was
acknowledged. Owns this comparison; reads the log, and never writes to it. One flip looks like a torn end and is not
found: of the very bit that marks the last commit of all.

The format is that of https://www.sqlite.org/fileformat2.html#the_write_ahead_log.
"""

from __future__ import annotations

import os
import sqlite3
import struct
from pathlib import Path

# Magic number, version, page size, checkpoint number, two salts, two checksums.
_HEADER = struct.Struct(">8I")
# Page number, pages of the database after a commit (0 in all frames but the last of one), two salts, two checksums.
_FRAME_HEADER = struct.Struct(">6I")
_MAGIC = 0x377F0682  # its last bit tells the byte order of checksums
_LARGEST_PAGE_BYTES = 65536  # which a field of the header calls 1 where it has to


def committed_frames(database: Path) -> int:
    """Return up to which frame the log of a database that nobody has open was committed, by what the frames say."""
    log = database.with_name(f"{database.name}-wal")
    if not log.exists():
        return 0
    with log.open("rb") as file:
        header = file.read(_HEADER.size)
        frames_bytes = file.seek(0, os.SEEK_END) - _HEADER.size
        if frames_bytes <= 0:
            return 0
        if not _is_sound(header):
            # Without its header nothing is played back, and something was there to be.
            return 1
        _, _, page_bytes, rounds, *salts = _HEADER.unpack(header)[:6]
        frame_bytes = _FRAME_HEADER.size + (_LARGEST_PAGE_BYTES if page_bytes == 1 else page_bytes)
        committed = 0
        for number in range(frames_bytes // frame_bytes):
            file.seek(_HEADER.size + number * frame_bytes)
            frame_header = file.read(_FRAME_HEADER.size)
            _, pages_after, *frame_salts = _FRAME_HEADER.unpack(frame_header)[:4]
            if not any(frame_header) or _is_left_over(frame_salts, salts, rounds):
                continue  # Not written, in this round.
            # With neither these salts nor earlier ones it is of this round, and its header has changed.
            if pages_after or frame_salts != salts:
                committed = number + 1
        return committed


def frames_taken(connection: sqlite3.Connection) -> int:
    """Return up to which frame SQLite takes the log; it goes into the database file on the way."""
    _, frames, _ = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    return max(0, int(frames))


def _is_left_over(frame_salts: list[int], salts: list[int], rounds: int) -> bool:
    """Whether a frame is from before the log last began anew, when one salt rose by one and the other was drawn."""
    return 0 < (salts[0] - frame_salts[0]) % 2**32 <= rounds and frame_salts[1] != salts[1]


def _is_sound(header: bytes) -> bool:
    words = struct.unpack(f"{'>' if header[3] & 1 else '<'}6I", header[:24])
    first = second = 0
    for even, odd in zip(words[::2], words[1::2], strict=True):
        first = (first + even + second) & 0xFFFFFFFF
        second = (second + odd + first) & 0xFFFFFFFF
    magic, *_, found_first, found_second = _HEADER.unpack(header)
    return magic & ~1 == _MAGIC and (found_first, found_second) == (first, second)
