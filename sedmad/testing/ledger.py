"""What the guardians of one matrix have stored, seen from outside, and what must hold of it."""

from __future__ import annotations

from sedmad.core.ownership import Standing
from sedmad.testing.guardian import Line, Stored


class Ledger:
    """Who has ever kept which manifest.

    A manifest that the majorities it needs have kept, at the same time or not, is established, whoever knows
    it: it may have been acknowledged to somebody. From then on the newest established one stands for all that
    it goes back to.

    Args:
        first: the manifest that everything begins with.
    """

    def __init__(self, first: Standing) -> None:
        self.established = first
        self._standings: dict[Line, Standing] = {}
        self._keepers: dict[Line, set[str]] = {}

    def add(self, *news: Stored) -> str:
        """Enter what was stored at one time; return what is wrong with it, or nothing."""
        for stored in news:
            line: Line = stored.standing.manifest
            if fault := self._contradiction(stored.standing):
                return fault
            if not self._goes_back_to(self.established.manifest, line):
                # As it was written: what it takes to establish it does not change with what is known of it.
                self._standings.setdefault(line, _as_written(stored.standing))
                self._keepers.setdefault(line, set()).add(stored.node)
        for line, standing in list(self._standings.items()):
            if _agreed(self._keepers[line], standing) and (fault := self._establish(standing)):
                return fault
        for stored in news:
            line = stored.standing.manifest
            if stored.standing.established and not self._goes_back_to(self.established.manifest, line):
                return f"{_name(stored.standing)} is held for established, and is not"
        return ""

    def _establish(self, standing: Standing) -> str:
        line = standing.manifest
        if self._goes_back_to(self.established.manifest, line):
            return ""
        if not self._goes_back_to(line, self.established.manifest):
            if standing.order < self.established.order:
                return f"a deposed owner establishes {_name(standing)} after {_name(self.established)}"
            return f"{_name(self.established)} was established, and is lost in {_name(standing)}"
        self.established = standing
        for past in [past for past in self._standings if self._goes_back_to(line, past)]:
            del self._standings[past], self._keepers[past]
        return ""

    def _contradiction(self, standing: Standing) -> str:
        """Compare a manifest with all that may still matter: an epoch has one owner, an order one manifest."""
        for line in (self.established.manifest, *self._standings):
            owners = {epoch: owner for epoch, _, owner in line}
            for epoch, _, owner in standing.manifest:
                if owners.get(epoch, owner) != owner:
                    return f"epoch {epoch} has two owners, {owners[epoch]} and {owner}"
            if line[-1] == standing.manifest[-1] and line != standing.manifest:
                return f"there are two manifests of order {standing.order}"
        return ""

    @staticmethod
    def _goes_back_to(line: Line, past: Line) -> bool:
        return line[: len(past)] == past


def _agreed(keepers: set[str], standing: Standing) -> bool:
    """Say whether enough guardians kept a manifest; written out, as the rules are what is being watched."""
    electorates = (
        [set(standing.guardians), set(standing.before)] if standing.before else [set(standing.guardians)]
    )
    return all(2 * len(keepers & electorate) > len(electorate) for electorate in electorates)


def _as_written(standing: Standing) -> Standing:
    return Standing(
        standing.key,
        standing.owner,
        standing.guardians,
        standing.epoch,
        standing.seq,
        standing.before,
        manifest=standing.manifest,
    )


def _name(standing: Standing) -> str:
    return f"manifest {standing.epoch}.{standing.seq} of {standing.owner}"
