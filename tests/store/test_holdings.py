from __future__ import annotations

import sqlite3
from collections.abc import Iterator

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from sedmad.errors import LocalError, Overloaded
from sedmad.store import holdings
from sedmad.store.holdings import Holding, Kind, State
from sedmad.store.schema import migrate

PUT, OTHER_PUT, MATRIX, OTHER_MATRIX = b"put", b"other put", b"matrix", b"other matrix"

# The two matrices share the bytes of partition 1; a put carries those of its matrix.
DIGESTS = {
    MATRIX: (b"A", b"B", b"C"),
    OTHER_MATRIX: (b"D", b"B", b"E"),
}
MATRIX_OF = {PUT: MATRIX, OTHER_PUT: OTHER_MATRIX, MATRIX: MATRIX, OTHER_MATRIX: OTHER_MATRIX}

groups = st.sampled_from(sorted(MATRIX_OF))
indices = st.integers(0, 2)


class HoldingsMachine(RuleBasedStateMachine):
    """Against a plain dictionary: what is held, and which blobs may go."""

    def __init__(self) -> None:
        super().__init__()
        self.connection = sqlite3.connect(":memory:", isolation_level=None)
        migrate(self.connection, ":memory:")
        self.model: dict[tuple[bytes, int], Holding] = {}
        self.blobs: set[bytes] = set()

    def teardown(self) -> None:
        self.connection.close()

    @rule(group=groups, index=indices, kind=st.sampled_from(Kind), state=st.sampled_from(State))
    def hold(self, group: bytes, index: int, kind: Kind, state: State) -> None:
        holding = Holding(group, index, DIGESTS[MATRIX_OF[group]][index], kind, 8 << 20, state)
        holdings.hold(self.connection, holding)
        self.model[group, index] = holding
        self.blobs.add(holding.digest)

    @rule(group=groups)
    def activate(self, group: bytes) -> None:
        matrix = MATRIX_OF[group]
        holdings.activate(self.connection, group, matrix)
        for index in range(3):
            moved = self.model.pop((group, index), None)
            kept = self.model.get((matrix, index), moved)
            if kept is not None:
                self.model[matrix, index] = Holding(
                    matrix, index, kept.digest, kept.kind, kept.size_bytes, State.ACTIVE
                )

    @rule(group=groups, only=st.none() | st.lists(indices))
    def release(self, group: bytes, only: list[int] | None) -> None:
        released = holdings.release(self.connection, group, only)
        for index in range(3) if only is None else only:
            self.model.pop((group, index), None)
        assert released <= self.blobs
        self.blobs -= released

    @invariant()
    def what_is_held_is_what_was_asked_for(self) -> None:
        held = holdings.load(self.connection)
        assert held == [self.model[key] for key in sorted(self.model)]

    @invariant()
    def a_blob_is_kept_exactly_as_long_as_something_references_it(self) -> None:
        assert self.blobs == {holding.digest for holding in self.model.values()}


TestHoldings = HoldingsMachine.TestCase


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    migrate(connection, ":memory:")
    yield connection
    connection.close()


def test_a_partition_never_changes_its_bytes(connection: sqlite3.Connection) -> None:
    holdings.hold(connection, Holding(MATRIX, 0, b"A", Kind.STANDBY, 1, State.ACTIVE))
    with pytest.raises(LocalError):
        holdings.hold(connection, Holding(MATRIX, 0, b"Z", Kind.STANDBY, 1, State.ACTIVE))


def test_holdings_are_bounded(connection: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holdings, "MAX_HOLDINGS", 1)
    holdings.hold(connection, Holding(MATRIX, 0, b"A", Kind.STANDBY, 1, State.ACTIVE))
    holdings.hold(connection, Holding(MATRIX, 0, b"A", Kind.RESIDENT, 1, State.ACTIVE))
    with pytest.raises(Overloaded):
        holdings.hold(connection, Holding(MATRIX, 1, b"B", Kind.STANDBY, 1, State.ACTIVE))
