"""What a node says of itself when it starts is newer than all that it said in earlier lives."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from examples import identity_of

from sedmad.home import Home
from sedmad.net.credentials import Credentials
from sedmad.node import advertising
from sedmad.node.advertising import first_advert
from sedmad.node.clock import wall_time_s
from sedmad.node.configuration import Configuration
from sedmad.store.blobs import open_blobs
from sedmad.store.database import open_database


async def test_each_start_begins_above_the_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(advertising, "MEASURE_S", 0.01)
    home = Home.locate(str(tmp_path), {})
    home.create()
    ann = identity_of("ann")
    credentials = Credentials.found_mesh(ann, "ann", now_s=int(wall_time_s()))
    host: Any = SimpleNamespace(listen_addresses=[])
    sequences = []
    for _ in range(3):
        async with open_database(home.database) as database:
            blobs = await open_blobs(home.blobs)
            advert = await first_advert(home, ann, credentials, Configuration(), database, blobs, host)
            sequences.append(advert.sequence)
    assert sequences == sorted(set(sequences))
