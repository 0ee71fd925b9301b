"""What ownership is decided upon: how a matrix stands, and what its guardians promise. Values only."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import Any

from sedmad.errors import LocalError


@dataclass(frozen=True, slots=True)
class Standing:
    """What a node keeps of a matrix's manifest, as far as ownership is concerned.

    Attributes:
        key: the matrix; its `repr` is alike on all nodes.
        owner: who plans the matrix, one of its guardians.
        guardians: who keep the manifest and may pass the matrix on.
        epoch, seq: the manifest's order; within an epoch the owner alone writes.
        before: the guardians of the last established manifest before this one, where they are others. Until
            this one is established too, nothing is decided without a majority of them.
        established: known to be kept by the majorities it needs.
        manifest: the manifest itself, for whoever carries answers; nothing here looks into it.
    """

    key: Hashable
    owner: str
    guardians: tuple[str, ...]
    epoch: int
    seq: int
    before: tuple[str, ...] = ()
    established: bool = False
    manifest: Any = None

    @property
    def order(self) -> tuple[int, int]:
        return self.epoch, self.seq

    @property
    def electorates(self) -> tuple[tuple[str, ...], ...]:
        """The groups of guardians each of which must give a majority, to establish it or to pass it on."""
        return (self.guardians,) if self.established or not self.before else (self.guardians, self.before)

    @property
    def electors(self) -> frozenset[str]:
        """All members of the electorates."""
        return frozenset().union(*self.electorates)

    def succeeded_by(
        self, owner: str, epoch: int, *, guardians: tuple[str, ...] | None = None, manifest: Any = None
    ) -> Standing:
        """Return the next standing: in the same epoch as its owner changes it, or in a later one as it passes on.

        Raises:
            LocalError: other guardians are named while it is not known that this one is established. It may
                be or not; whoever asks the guardians of the one could then miss what those of the other keep.
        """
        guardians = self.guardians if guardians is None else guardians
        changed = set(guardians) != set(self.guardians)
        if changed and not self.established:
            raise LocalError(
                "guardians cannot change twice at once",
                why=f"the manifest of order {self.order} is not known to be established",
                matrix=str(self.key),
            )
        before = self.before
        if self.established:
            before = self.guardians if changed else ()
        return replace(
            self,
            owner=owner,
            guardians=guardians,
            epoch=epoch,
            seq=self.seq + 1,
            before=before,
            established=False,
            manifest=manifest,
        )


@dataclass(frozen=True, slots=True)
class Promise:
    """A guardian's word: of manifests before `epoch` it takes none any more, and of `epoch` only the candidate's."""

    key: Hashable
    epoch: int
    candidate: str
    guardian: str


@dataclass(frozen=True, slots=True)
class Vote:
    """A promise, its guardian's signature, and the newest standing that the guardian kept when it promised.

    It is true only if promise and standing are on disk together; `may_promise` is asked as they get there.
    """

    promise: Promise
    signature: bytes
    standing: Standing
