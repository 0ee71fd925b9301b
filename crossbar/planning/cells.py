"""Owns what devices do to weights on average: the mean and the variance of a weight's error from those of its cells.

Every law of a device is a function of its conductance alone, so means and variances are tabulated over the window
once for a profile and looked up for the cells of a sample. With the cells of slice s conducting g+ and g- (or g and
the reference column's), and c_s what a siemens of difference means,

    error of a weight  =  sum over s of c_s (e_s+ - e_s-)        e: deviation of a cell
    its mean           =  sum over s of c_s (mean e_s+ - mean e_s-)
    its variance       =  sum over s of c_s^2 (var e_s+ + var e_s-)

Cells deviate independently, those of replicas too: n averaged replicas divide the variance by n and leave the mean.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from crossbar.mapping.encoding import Encoder, Window
from crossbar.planning.verification import Programmed, programmed

if TYPE_CHECKING:
    from crossbar.devices.profile import DeviceProfile
    from crossbar.planning.plan import Plan
    from crossbar.planning.statistics import WeightSample

Array = npt.NDArray[np.float64]

TABLE_POINTS = 257
"""Conductances at which device laws are evaluated; between them they are interpolated linearly."""

_PROGRAMMING_NODES = (
    33  # midpoints of equal probability: the clamp at 0 S has a kink, which Gauss nodes dislike
)
_LIFETIME_NODES = 9  # Gauss-Hermite: ageing is smooth in a device's own deviate


@dataclass(frozen=True, slots=True)
class Moments:
    """Mean deviation (siemens) and variance (siemens^2) of a device over the conductances of a table."""

    conductance: Array
    shift: Array
    variance: Array


@dataclass(frozen=True, slots=True)
class WeightError:
    """Mean and variance of the error of each weight of a sample, as shares of its scale: (rows, samples)."""

    mean: Array
    variance: Array

    @property
    def squared(self) -> Array:
        return np.square(self.mean) + self.variance


@dataclass(frozen=True, slots=True)
class Cells:
    """The targets of the cells that hold a sample of weights.

    Attributes:
        targets: (slices, polarities, rows, samples), siemens.
        reference_siemens: what the reference column of an offset encoding is programmed to; None for pairs.
        share_per_siemens: (slices,), what a siemens of difference is of the scale.
        replicas: how many copies are averaged.
    """

    targets: Array
    reference_siemens: float | None
    share_per_siemens: Array
    replicas: int

    @classmethod
    def of(cls, sample: WeightSample, profile: DeviceProfile, plan: Plan) -> Cells:
        encoder = encoder_for(profile, plan)
        return cls(
            targets=np.asarray(encoder.encode(sample.shares, np.ones(sample.shares.shape[1])), np.float64),
            reference_siemens=None if encoder.polarities == 2 else encoder.window.middle_siemens,
            share_per_siemens=encoder.weight_per_siemens(np.ones(1))[:, 0],
            replicas=plan.replicas,
        )

    def errors(self, moments: Moments) -> WeightError:
        """Return the errors of the weights if their cells deviate by `moments`."""
        shift = self.differences(moments.shift, moments)
        variance = np.interp(self.targets, moments.conductance, moments.variance).sum(axis=1)
        if self.reference_siemens is not None:
            variance += np.interp(self.reference_siemens, moments.conductance, moments.variance)
        scaled = np.einsum("s,sij->ij", np.square(self.share_per_siemens), variance)
        return WeightError(mean=shift, variance=scaled / self.replicas)

    def differences(self, law: Array, moments: Moments) -> Array:
        """Return (rows, samples): what `law`, tabulated as in `moments`, leaves after subtraction, as a share."""
        values = np.interp(self.targets, moments.conductance, law)
        if self.reference_siemens is None:
            difference = values[:, 0] - values[:, 1]
        else:
            difference = values[:, 0] - np.interp(self.reference_siemens, moments.conductance, law)
        return np.asarray(np.einsum("s,sij->ij", self.share_per_siemens, difference))


def encoder_for(profile: DeviceProfile, plan: Plan) -> Encoder:
    return Encoder(Window.of(profile), plan.encoding, plan.slices)


def conductance_table(profile: DeviceProfile) -> Array:
    """Return the conductances, in siemens, at which laws are tabulated: the window, end to end."""
    return np.linspace(profile.conductance_min_siemens, profile.conductance_max_siemens, TABLE_POINTS)


def programmed_moments(profile: DeviceProfile, plan: Plan) -> Moments:
    """Return the deviations right after programming and verifying; a conductance is never below 0."""
    targets, sd, outcome = _programmed(profile, plan)
    mean = sd * outcome.mean
    return Moments(targets, mean, np.maximum(np.square(sd) * outcome.second_moment - np.square(mean), 0.0))


def pulses_per_cell(cells: Cells, profile: DeviceProfile, plan: Plan) -> float:
    """Return the expected programming pulses on a cell that holds a weight."""
    targets, _, outcome = _programmed(profile, plan)
    return float(np.interp(cells.targets, targets, outcome.pulses).mean())


def _programmed(profile: DeviceProfile, plan: Plan) -> tuple[Array, Array, Programmed]:
    """Return targets, the standard deviation of one pulse, and what write-verify makes of it."""
    targets = conductance_table(profile)
    sd = np.asarray(profile.programming_sd_siemens(targets), np.float64)
    allowed = plan.write_verify_tolerance * profile.conductance_max_siemens
    verified = allowed > 0 and plan.write_verify_tries > 1
    tolerance = np.divide(allowed, sd, out=np.full_like(sd, np.inf), where=verified & (sd > 0))
    distance = np.divide(targets, sd, out=np.full_like(sd, np.inf), where=sd > 0)
    return targets, sd, programmed(tolerance, distance, plan.write_verify_tries if verified else 1)


def aged_moments(profile: DeviceProfile, plan: Plan, seconds: float) -> Moments:
    """Return the deviations `seconds` after programming, that of programming included, by quadrature over both.

    What programming left is taken to be normal with the moments that it has.
    """
    written_moments = programmed_moments(profile, plan)
    if profile.drift is None or seconds == 0:
        return written_moments
    targets = written_moments.conductance
    deviates, weights = np.polynomial.hermite_e.hermegauss(_LIFETIME_NODES)
    weights = weights / weights.sum()
    written = (targets + written_moments.shift)[:, np.newaxis]
    written = written + np.sqrt(written_moments.variance)[:, np.newaxis] * _normal_nodes()
    shape = (*written.shape, _LIFETIME_NODES)
    aged = np.asarray(
        profile.aged_siemens(
            np.broadcast_to(written[:, :, np.newaxis], shape),
            np.broadcast_to(deviates, shape),
            seconds,
            target=np.broadcast_to(targets[:, np.newaxis, np.newaxis], shape),
        ),
        np.float64,
    )
    mean = (aged @ weights).mean(axis=1)
    second = (np.square(aged) @ weights).mean(axis=1)
    return Moments(targets, mean - targets, np.maximum(second - np.square(mean), 0.0))


def read_moments(profile: DeviceProfile, aged: Moments, seconds: float) -> Moments:
    """Return the noise of one read of devices `aged` by `seconds`, by what they were programmed to; no mean."""
    conductance = np.maximum(aged.conductance + aged.shift, 0.0)
    sd = np.asarray(profile.read_sd_siemens(conductance, seconds), np.float64)
    return Moments(aged.conductance, np.zeros_like(sd), np.square(sd))


def _normal_nodes() -> Array:
    """Return midpoints of equal probability of a standard normal, scaled to variance 1."""
    standard = NormalDist()
    nodes = np.array(
        [standard.inv_cdf((index + 0.5) / _PROGRAMMING_NODES) for index in range(_PROGRAMMING_NODES)]
    )
    return np.asarray(nodes / np.sqrt(np.square(nodes).mean()))
