"""Owns the errors of the crossbar engine: each says what failed, why, and what to try.

    CrossbarError
    ├── ProfileInvalid         a description of devices contradicts itself or physics
    ├── ProfileUnknown         no profile has this name
    ├── ConfigurationRefused   a configuration of another simulator says what a profile cannot express
    ├── WeightsInvalid         weights, or a panel, that cannot be put on arrays
    ├── NetworkInvalid         conductances, voltages or wires of which no currents can be computed
    ├── PlanInvalid            a plan that contradicts itself or its profile
    ├── TargetUnreachable      no plan meets the error asked for
    └── KernelsUnavailable     the compiled kernels cannot be made or loaded

Who speaks to people wraps them; this room knows nothing of nodes and matrices.
"""

from __future__ import annotations


class CrossbarError(Exception):
    """Something that a person should understand.

    Args:
        what: one line saying what failed.
        why: one line saying why.
        hint: what to try.
    """

    def __init__(self, what: str, *, why: str = "", hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.why = why
        self.hint = hint

    def __str__(self) -> str:
        return "\n".join(line for line in (self.what, self.why, self.hint) if line)


class ProfileInvalid(CrossbarError, ValueError):
    """Names where the profile came from, the key, its value, and what is allowed."""


class ProfileUnknown(CrossbarError, ValueError):
    """No profile has this name; the nearest ones are in the message."""


class ConfigurationRefused(CrossbarError, ValueError):
    """Lists everything that a `DeviceProfile` cannot express.

    Args:
        reasons: one line for each thing that was refused.
    """

    def __init__(self, what: str, *, reasons: tuple[str, ...], hint: str = "") -> None:
        super().__init__(what, why="\n".join(f"- {reason}" for reason in reasons), hint=hint)
        self.reasons = reasons


class WeightsInvalid(CrossbarError, ValueError):
    """Weights or inputs have the wrong shape, are empty, or are not finite."""


class NetworkInvalid(CrossbarError, ValueError):
    """Negative or non-finite conductances, voltages or resistances, or shapes that do not fit each other."""


class PlanInvalid(CrossbarError, ValueError):
    """A field of a plan is outside its range, or two of them exclude each other."""


class TargetUnreachable(CrossbarError):
    """No plan meets the error that was asked for.

    Args:
        lever: the lever that stopped the search.
        best_error: the least relative error that any plan was predicted, or measured, to reach.
    """

    def __init__(self, what: str, *, lever: str, best_error: float, why: str = "", hint: str = "") -> None:
        super().__init__(what, why=why, hint=hint)
        self.lever = lever
        self.best_error = best_error


class KernelsUnavailable(CrossbarError):
    """The compiler failed, or its cache cannot be written."""
