from __future__ import annotations

import sqlite3
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sedmad.errors import Overloaded, StaleManifest
from sedmad.store import manifests, promises, settings
from sedmad.store.manifests import ManifestKey, Role, StoredManifest, StoredTombstone
from sedmad.store.promises import StoredPromise
from sedmad.store.schema import migrate

A, B, C = (ManifestKey(letter * 32, "peer") for letter in (b"A", b"B", b"C"))


def open_tables() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    migrate(connection, ":memory:")
    return connection


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    connection = open_tables()
    yield connection
    connection.close()


@given(st.lists(st.tuples(st.sampled_from([A, B]), st.integers(0, 4), st.sampled_from(["ann", "ben"]))))
def test_epochs_only_rise_and_no_epoch_is_promised_twice(asked: list[tuple[ManifestKey, int, str]]) -> None:
    connection = open_tables()
    given_to: dict[tuple[ManifestKey, int], str] = {}
    greatest: dict[ManifestKey, int] = {}
    for key, epoch, candidate in asked:
        wanted = StoredPromise(key, epoch, candidate)
        again = promises.latest(connection, key) == wanted
        if again or epoch > greatest.get(key, -1):
            promises.promise(connection, wanted)
            assert given_to.setdefault((key, epoch), candidate) == candidate
            greatest[key] = epoch
        else:
            with pytest.raises(StaleManifest, match="promised already"):
                promises.promise(connection, wanted)
    assert {(kept.key, kept.epoch): kept.candidate for kept in promises.load(connection)} == {
        (key, epoch): given_to[key, epoch] for key, epoch in greatest.items()
    }
    connection.close()


def test_promises_are_bounded(connection: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(promises, "MAX_PROMISES", 1)
    promises.promise(connection, StoredPromise(A, 1, "ann"))
    promises.promise(connection, StoredPromise(A, 2, "ben"))
    with pytest.raises(Overloaded):
        promises.promise(connection, StoredPromise(B, 1, "ann"))


def test_promises_go_with_what_they_are_about(connection: sqlite3.Connection) -> None:
    manifests.put(connection, StoredManifest(A, 0, 0, b"", Role.GUARDIAN))
    manifests.bury(connection, StoredTombstone(B, 0, 0, b"", 0.0))
    for key in (A, B, C):
        promises.promise(connection, StoredPromise(key, 1, "ann"))
    assert promises.purge(connection) == 1
    assert {kept.key for kept in promises.load(connection)} == {A, B}


def test_settings_are_kept_by_name(connection: sqlite3.Connection) -> None:
    assert settings.load(connection, "draining") is None
    settings.keep(connection, "draining", "1")
    settings.keep(connection, "draining", "2")
    settings.keep(connection, "other", "3")
    assert settings.load(connection, "draining") == "2"
    settings.remove(connection, "draining")
    settings.remove(connection, "draining")
    assert settings.load(connection, "draining") is None
    assert settings.load(connection, "other") == "3"
