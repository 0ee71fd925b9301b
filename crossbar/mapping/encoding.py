"""Owns the encoding: weights as target conductances of cells, and conductances as the weights they stand for.

A weight w of a column with scale S = max |w| becomes the digits of one number, most significant slice first. With
`b` the base, d_s the digits and F_s the largest value of a digit, slice s fills its window by d_s / F_s:

- "differential": two cells; the one of w's sign holds |w| / S, the other stays at the least conductance.
- "offset": one cell holds (w / S + 1) / 2; a reference column at the middle of the window is subtracted.

Devices of L levels have b = L: slices together hold L^slices values, w / S is rounded to the nearest one (half to
even). Continuous devices hold digits of base 256^(1/slices), rounded up, and what remains in the last slice, so
nothing is rounded.

Conductances are siemens, in arrays of shape (slices, polarities, inputs, outputs), with two polarities (the cell of
positive weights first) if differential and one if offset. The dtype of the weights is kept.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from crossbar.engine import FloatArray

_CONTINUOUS_VALUES = 256
"""What the slices of continuous devices tell apart before the last one's remainder: 8 bits, a converter's share."""


class DeviceWindow(Protocol):
    """What encoding takes from a device profile."""

    @property
    def conductance_min_siemens(self) -> float: ...
    @property
    def conductance_max_siemens(self) -> float: ...
    @property
    def levels(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Window:
    """The conductances that a device can be programmed to: from least to largest, in `levels` steps (0: any)."""

    minimum_siemens: float
    maximum_siemens: float
    levels: int = 0

    @classmethod
    def of(cls, profile: DeviceWindow) -> Window:
        return cls(profile.conductance_min_siemens, profile.conductance_max_siemens, profile.levels)

    @property
    def span_siemens(self) -> float:
        return self.maximum_siemens - self.minimum_siemens

    @property
    def middle_siemens(self) -> float:
        return (self.maximum_siemens + self.minimum_siemens) / 2


def column_scales(weights: FloatArray, *, matrix_scale: float | None = None) -> FloatArray:
    """Return the weight that fills a window, for each column of `weights` (inputs, outputs).

    It is the largest |w| of the column, or `matrix_scale` (the largest |w| of the matrix) for all of them. A column
    of zeros has scale 0, whatever the matrix has.
    """
    scales: FloatArray = np.abs(weights).max(axis=0, initial=0)
    if matrix_scale is not None:
        scales[scales > 0] = matrix_scale
    return scales


@dataclass(frozen=True, slots=True)
class Encoder:
    """How the weights of one block become conductances, and back."""

    window: Window
    encoding: Literal["differential", "offset"] = "differential"
    slices: int = 1

    @property
    def polarities(self) -> int:
        """Cells of one slice of a weight."""
        return 2 if self.encoding == "differential" else 1

    @property
    def base(self) -> int:
        """Values of a digit, in all slices but a continuous last one."""
        return self.window.levels or math.ceil(_CONTINUOUS_VALUES ** (1 / self.slices))

    @property
    def significance(self) -> npt.NDArray[np.float64]:
        """(slices,): the share of a full weight that each slice holds when its window is full. The sum is 1."""
        digit_max = np.full(self.slices, self.base - 1.0)
        if not self.window.levels:
            digit_max[-1] = self.base  # the last digit has a fraction and passes base - 1
        places = float(self.base) ** np.arange(self.slices - 1, -1, -1)
        shares = digit_max * places
        return np.asarray(shares / shares.sum())

    @property
    def rounding_error(self) -> float:
        """The largest error of an encoded weight as a share of its scale: 0 for continuous devices."""
        if not self.window.levels:
            return 0.0
        step = 1 / (float(self.base) ** self.slices - 1)
        return step / 2 if self.encoding == "differential" else step

    def weight_per_siemens(self, scale: FloatArray) -> npt.NDArray[np.float64]:
        """Return (slices, outputs): what a siemens of difference means in each slice and column of `scale`.

        The difference is that between the two cells of a pair, or between a cell and the reference column.
        """
        full_siemens = self.window.span_siemens / (1 if self.encoding == "differential" else 2)
        return np.outer(self.significance, np.asarray(scale, np.float64)) / full_siemens

    def encode(self, weights: FloatArray, scale: FloatArray) -> FloatArray:
        """Return the target conductances (slices, polarities, inputs, outputs) of `weights` (inputs, outputs).

        Args:
            scale: (outputs,), or one number: the weight that fills a window. Weights beyond it are clipped to it;
                where it is 0 every weight counts as 0.
        """
        share = np.zeros(weights.shape, np.float64)
        np.divide(weights, scale, out=share, where=np.asarray(scale) > 0)
        np.clip(share, -1, 1, out=share)
        if self.encoding == "offset":
            filled = self._digits((share + 1) / 2)[:, np.newaxis]
        else:
            magnitude = self._digits(np.abs(share))
            filled = np.stack(
                (np.where(share > 0, magnitude, 0.0), np.where(share < 0, magnitude, 0.0)), axis=1
            )
        filled *= self.window.span_siemens
        filled += self.window.minimum_siemens
        return filled.astype(weights.dtype, copy=False)

    def decode(
        self, conductance: FloatArray, scale: FloatArray, reference: FloatArray | None = None
    ) -> FloatArray:
        """Return the weights (inputs, outputs) that `conductance` (slices, polarities, inputs, outputs) stands for.

        Args:
            scale: as encoded with.
            reference: (slices, inputs), the conductances of the offset encoding's reference column; the middle of
                the window if it is not given.
        """
        if self.encoding == "differential":
            difference = conductance[:, 0] - conductance[:, 1]
        elif reference is None:
            difference = conductance[:, 0] - conductance.dtype.type(self.window.middle_siemens)
        else:
            difference = conductance[:, 0] - reference[:, :, np.newaxis]
        per_siemens = self.weight_per_siemens(np.broadcast_to(scale, conductance.shape[-1:]))
        weights: FloatArray = np.einsum("sio,so->io", difference, per_siemens.astype(difference.dtype))
        return weights

    def _digits(self, share: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return (slices, ...): how far each slice of `share` (0 to 1) fills its window (0 to 1)."""
        continuous = not self.window.levels
        if continuous and self.slices == 1:
            return share[np.newaxis]
        base = float(self.base)
        remainder = share * base**self.slices if continuous else np.rint(share * (base**self.slices - 1))
        filled = np.empty((self.slices, *share.shape))
        for index in range(self.slices):
            place = base ** (self.slices - 1 - index)
            if continuous and place == 1:
                filled[index] = remainder / base
                break
            digit = np.minimum(np.floor(remainder / place), base - 1)
            remainder -= digit * place
            filled[index] = digit / (base - 1)
        return filled
