"""What a relay promised: that it passes on connections to this node for some time."""

from __future__ import annotations

from dataclasses import dataclass

from sedmad.net.relay.limits import CircuitLimit

# Whatever a relay says, and however wrong its clock or ours is: renewed every minute to every twelve hours.
LIFE_S_MIN = 120.0
LIFE_S_MAX = 86_400.0


@dataclass(frozen=True, slots=True)
class Reservation:
    """A relay's promise.

    Attributes:
        relay_id: the relay's peer id.
        addresses: where others reach this node through it.
        made_at: trio's clock.
        expires_at: trio's clock.
        limit: when circuits to this node end; None where the relay does not end them.
    """

    relay_id: str
    addresses: tuple[str, ...]
    made_at: float
    expires_at: float
    limit: CircuitLimit | None

    @property
    def renew_at(self) -> float:
        """When half of its life is over."""
        return (self.made_at + self.expires_at) / 2


def life_s(expires_unix_s: float, now_unix_s: float) -> float:
    """Return how long a reservation lasts that ends at a time of the relay's clock."""
    return min(max(expires_unix_s - now_unix_s, LIFE_S_MIN), LIFE_S_MAX)
