from __future__ import annotations

import sqlite3
from dataclasses import replace

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from sedmad.errors import Overloaded, StaleManifest
from sedmad.store import manifests
from sedmad.store.manifests import TOMBSTONE_LIFE_S, ManifestKey, Role, StoredManifest, StoredTombstone
from sedmad.store.schema import migrate

KEYS = (ManifestKey(b"A" * 32, "peer 1"), ManifestKey(b"A" * 32, "peer 2"), ManifestKey(b"B" * 32, "peer 1"))

keys = st.sampled_from(KEYS)
numbers = st.integers(0, 3)
roles = st.sampled_from([Role.NONE, Role.HOLDER, Role.OWNER | Role.GUARDIAN])


def open_tables() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    migrate(connection, ":memory:")
    return connection


class ManifestsMachine(RuleBasedStateMachine):
    """Against a plain dictionary that keeps the newest of each key, be it a manifest or a tombstone."""

    def __init__(self) -> None:
        super().__init__()
        self.connection = open_tables()
        self.model: dict[ManifestKey, StoredManifest | StoredTombstone] = {}

    def teardown(self) -> None:
        self.connection.close()

    @rule(
        key=keys,
        epoch=numbers,
        seq=numbers,
        signed=st.sampled_from([b"x", b"y"]),
        roles=roles,
        established=st.booleans(),
    )
    def put(
        self, key: ManifestKey, epoch: int, seq: int, signed: bytes, roles: Role, established: bool
    ) -> None:
        manifest = StoredManifest(key, epoch, seq, signed, roles, established)
        kept = self.model.get(key)
        again = isinstance(kept, StoredManifest) and (kept.order, kept.signed) == (manifest.order, signed)
        if kept is None or kept.order < manifest.order or again:
            manifests.put(self.connection, manifest)
            if again and isinstance(kept, StoredManifest):
                manifest = replace(manifest, established=established or kept.established)
            self.model[key] = manifest
        else:
            with pytest.raises(StaleManifest):
                manifests.put(self.connection, manifest)

    @rule(key=keys, epoch=numbers, seq=numbers)
    def establish(self, key: ManifestKey, epoch: int, seq: int) -> None:
        kept = self.model.get(key)
        known = isinstance(kept, StoredManifest) and kept.order == (epoch, seq)
        assert manifests.establish(self.connection, key, (epoch, seq)) == known
        if isinstance(kept, StoredManifest) and known:
            self.model[key] = replace(kept, established=True)

    @rule(key=keys, epoch=numbers, seq=numbers, created_s=st.floats(0, 2 * TOMBSTONE_LIFE_S))
    def bury(self, key: ManifestKey, epoch: int, seq: int, created_s: float) -> None:
        tombstone = StoredTombstone(key, epoch, seq, b"tombstone", created_s)
        kept = self.model.get(key)
        if kept is not None and kept.order > tombstone.order:
            with pytest.raises(StaleManifest):
                manifests.bury(self.connection, tombstone)
        else:
            manifests.bury(self.connection, tombstone)
            if not (isinstance(kept, StoredTombstone) and kept.order == tombstone.order):
                self.model[key] = tombstone

    @rule(now_s=st.floats(0, 3 * TOMBSTONE_LIFE_S))
    def purge(self, now_s: float) -> None:
        old = [
            key
            for key, kept in self.model.items()
            if isinstance(kept, StoredTombstone) and kept.created_s < now_s - TOMBSTONE_LIFE_S
        ]
        assert manifests.purge_tombstones(self.connection, now_s) == len(old)
        for key in old:
            del self.model[key]

    @invariant()
    def the_newest_of_each_key_is_kept(self) -> None:
        kept = {*manifests.load(self.connection), *manifests.load_tombstones(self.connection)}
        assert kept == set(self.model.values())

    @invariant()
    def looking_up_finds_what_is_listed(self) -> None:
        for key in KEYS:
            kept = self.model.get(key)
            assert manifests.latest(self.connection, key) == (
                kept if isinstance(kept, StoredManifest) else None
            )
            assert manifests.latest_tombstone(self.connection, key) == (
                kept if isinstance(kept, StoredTombstone) else None
            )


TestManifests = ManifestsMachine.TestCase


def test_the_tables_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifests, "MAX_MANIFESTS", 1)
    monkeypatch.setattr(manifests, "MAX_TOMBSTONES", 1)
    connection = open_tables()
    manifests.put(connection, StoredManifest(KEYS[0], 0, 0, b"", Role.NONE))
    manifests.put(connection, StoredManifest(KEYS[0], 0, 1, b"", Role.NONE))
    with pytest.raises(Overloaded):
        manifests.put(connection, StoredManifest(KEYS[1], 0, 0, b"", Role.NONE))
    manifests.bury(connection, StoredTombstone(KEYS[0], 0, 1, b"", 0.0))
    with pytest.raises(Overloaded):
        manifests.bury(connection, StoredTombstone(KEYS[1], 0, 1, b"", 0.0))
    connection.close()
