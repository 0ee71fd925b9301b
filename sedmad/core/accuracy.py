"""Owns what a user asks of a matrix's products: how far they may be off, and on which devices they are computed."""

from __future__ import annotations

from dataclasses import dataclass

from sedmad.errors import UsageError

PROFILE_BYTES_MAX = 64
"""As long as the name of a device profile in an advert."""


@dataclass(frozen=True, slots=True)
class Accuracy:
    """What is asked of the products of one matrix.

    Attributes:
        target_error: the relative L2 error that they may have on average; 0 asks for exact arithmetic, whatever
            devices a node has.
        profile: the device profile that resident copies have to be on; empty where any will do.

    Raises:
        UsageError: the target is no share below 1, or a profile is demanded for exact arithmetic.
    """

    target_error: float = 0.0
    profile: str = ""

    def __post_init__(self) -> None:
        # NaN fails every comparison.
        if not 0 <= self.target_error < 1:
            raise UsageError(
                f"products cannot have a target error of {self.target_error:g}",
                why="it is a relative error: at least 0, which is exact, and below 1",
                hint="For example --target-error 0.01.",
            )
        if len(self.profile.encode()) > PROFILE_BYTES_MAX:
            raise UsageError(
                "the name of a device profile is too long", why=f"at most {PROFILE_BYTES_MAX} bytes"
            )
        if self.profile and not self.target_error:
            raise UsageError(
                f"exact arithmetic does not need the device profile {self.profile!r}",
                why="without a target error no devices are used",
                hint="Say how far products may be off: --target-error 0.01.",
            )

    def __str__(self) -> str:
        if not self.target_error:
            return "exact"
        return f"target error {self.target_error:g}" + (f" on {self.profile}" if self.profile else "")


EXACT = Accuracy()
