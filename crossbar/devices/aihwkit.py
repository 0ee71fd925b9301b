"""Owns the conversion of aihwkit's inference configurations (release 1.1.0) into device profiles.

Configurations are read by their attributes; aihwkit itself is not imported. What is taken over: the noise model
(programming, drift, accumulated read noise), `forward.w_noise`, `forward.ir_drop`, the resolutions of both converters,
and the size of a tile.

What belongs to the mapping of weights and not to devices is not: scaling and clipping of weights and inputs, ranges
of converters (`inp_bound`, `out_bound`; here inputs are scaled to their largest, and the ADC's range is calibrated),
training. aihwkit's drift compensation is a plan's `column_gain`.

Two things differ in kind. aihwkit draws the noise that accumulates with age once per ageing, a profile with every
read, and takes the share of PCM's from the conductance before drift, a profile from that which is read. aihwkit's IR
drop is an approximation for the output lines; here their resistance is given to an exact solution.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

from crossbar.devices.ageing import (
    AnyDrift,
    ClippedLogarithm,
    LogarithmicDrift,
    PowerDrift,
    TabulatedDrift,
    TabulatedState,
)
from crossbar.devices.laws import (
    MICROSIEMENS,
    AnyNoise,
    ConstantNoise,
    FlickerNoise,
    LogarithmicNoise,
    PolynomialNoise,
    PowerNoise,
    SummedNoise,
)
from crossbar.devices.profile import LINES_MAX, DeviceProfile
from crossbar.errors import ConfigurationRefused

# Of `forward`: what a profile has no words for, with the value that turns it off.
_INEXPRESSIBLE: dict[str, object] = {
    "inp_noise": 0.0,
    "inp_asymmetry": 0.0,
    "inp_sto_round": False,
    "out_noise": 0.0,
    "out_noise_std": 0.0,
    "out_asymmetry": 0.0,
    "out_sto_round": False,
    "out_scale": 1.0,
    "out_nonlinearity": 0.0,
    "v_offset_std": 0.0,
    "r_series": 0.0,
    "w_read_asymmetry_dtod": 0.0,
}
_CONVERTERS = ("SinglePairConductanceConverter", "SingleDeviceConductanceConverter")

# Fixed in the code of PCMLikeNoiseModel, not attributes of it.
_PCM_EXPONENT_MEAN = (-0.0155, 0.0244, 0.049, 0.1)
_PCM_EXPONENT_SD = (-0.0125, -0.0059, 0.008, 0.045)
_PCM_FLICKER = (0.0088, 0.65, 0.2)


def from_rpu_config(config: Any, *, name: str, ignore: Collection[str] = ()) -> DeviceProfile:
    """Return the devices of an aihwkit `InferenceRPUConfig`, or of a preset derived from it.

    Args:
        config: the configuration object.
        name: what the profile is to be called.
        ignore: attributes of `config.forward` to leave out although they cannot be expressed, such as "out_noise".

    Raises:
        ConfigurationRefused: lists every setting that a profile cannot express.
        ProfileInvalid: the figures contradict each other.
    """
    reading = _Reading(ignore=frozenset(ignore))
    forward, model = getattr(config, "forward", None), getattr(config, "noise_model", None)
    if forward is None or model is None:
        raise ConfigurationRefused(
            f"{type(config).__name__} is not a configuration for inference",
            reasons=("it has no `noise_model`, as configurations of training devices have none",),
            hint="Convert an InferenceRPUConfig.",
        )
    devices = reading.devices(model)
    perfect = bool(getattr(forward, "is_perfect", False))
    ends = (None, None) if perfect else (reading.bits(forward, "inp_res"), reading.bits(forward, "out_res"))
    read_noise, wire_ohm = devices.read_noise, 0.0
    if not perfect:
        reading.refuse_inexpressible(forward)
        read_noise = _summed(read_noise, reading.weight_noise(forward, devices))
        wire_ohm = reading.wire_ohm(forward, devices)
    rows, columns = (reading.lines(config, side) for side in ("max_input_size", "max_output_size"))
    if reading.refused:
        raise ConfigurationRefused(
            f"{type(config).__name__} cannot be expressed as a device profile",
            reasons=tuple(reading.refused),
            hint="Turn these off, or leave settings of `forward` out with ignore=(...).",
        )
    return DeviceProfile(
        name=name,
        description=f"aihwkit's {type(config).__name__} with {type(model).__name__}",
        source="converted from a configuration of aihwkit, which cites the publications",
        conductance_min_siemens=devices.least * MICROSIEMENS,
        conductance_max_siemens=devices.most * MICROSIEMENS,
        programming_noise=devices.programming_noise,
        read_noise=read_noise,
        drift=devices.drift,
        bit_line_ohm=wire_ohm,
        rows=rows,
        columns=columns,
        dac_bits=ends[0],
        adc_bits=ends[1],
    )


@dataclass(frozen=True, slots=True)
class _Devices:
    """What a noise model says; conductances in microsiemens."""

    least: float
    most: float
    paired: bool
    programming_noise: AnyNoise | None = None
    read_noise: AnyNoise | None = None
    drift: AnyDrift | None = None


@dataclass(slots=True)
class _Reading:
    """One conversion: it goes on after a refusal, so that all of them are told at once."""

    ignore: frozenset[str]
    refused: list[str] = field(default_factory=list)

    def devices(self, model: Any) -> _Devices:
        """Return what the noise model says of its devices."""
        kind, converter = type(model).__name__, model.g_converter
        if type(converter).__name__ not in _CONVERTERS:
            self.refused.append(
                f"noise_model.g_converter: {type(converter).__name__}; known: {', '.join(_CONVERTERS)}"
            )
        window = _Devices(
            least=float(getattr(converter, "g_min", 0.0)),
            most=float(model.g_max),
            paired=type(converter).__name__ != "SingleDeviceConductanceConverter",
        )
        translate = _MODELS.get(kind)
        if translate is None:
            self.refused.append(f"noise_model: {kind}; known: {', '.join(_MODELS)}")
            return window
        return translate(model, window)

    def refuse_inexpressible(self, forward: Any) -> None:
        """Note every setting of `forward` that is on and that no profile can express."""
        for key, off in _INEXPRESSIBLE.items():
            value = getattr(forward, key, off)
            if value != off and key not in self.ignore:
                self.refused.append(f"forward.{key} = {value}: not a property of devices; {off} turns it off")
        one_pass = _word(getattr(forward, "mv_type", "OnePass")) in ("OnePass", "ONE_PASS")
        if not one_pass and "mv_type" not in self.ignore:
            self.refused.append(f"forward.mv_type = {forward.mv_type}: only one pass is known")

    def bits(self, forward: Any, key: str) -> int | None:
        """Return the bits of a converter of so many steps, or of steps of such a size; None where it is exact."""
        resolution = float(getattr(forward, key, 0.0))
        if resolution <= 0 or key in self.ignore:
            return None
        steps = resolution if resolution > 1 else 1 / resolution
        bits = math.log2(steps + 2)
        if abs(bits - round(bits)) > 1e-6:
            self.refused.append(f"forward.{key} = {resolution:g}: {steps:g} steps are not 2^bits - 2")
            return None
        return round(bits)

    def weight_noise(self, forward: Any, devices: _Devices) -> AnyNoise | None:
        """Return the noise of one read of a device, from that of a weight in units of the largest weight."""
        share = float(getattr(forward, "w_noise", 0.0))
        kind = _word(getattr(forward, "w_noise_type", "None"))
        if not share or kind in ("None", "NONE") or "w_noise" in self.ignore:
            return None
        window = devices.most - devices.least
        if kind in ("AdditiveConstant", "ADDITIVE_CONSTANT"):
            # A pair's two devices share a weight's variance; a single device spans the weights from -1 to 1.
            return ConstantNoise(sd=share * window / (math.sqrt(2) if devices.paired else 2))
        if kind in ("PCMRead", "PCM_READ") and devices.paired:
            return PowerNoise(
                scale=share * window, exponent=0.5, reference_siemens=devices.most * MICROSIEMENS
            )
        self.refused.append(f"forward.w_noise_type = {kind}: known for these devices: None, AdditiveConstant")
        return None

    def wire_ohm(self, forward: Any, devices: _Devices) -> float:
        """Return the resistance of an output line from one cell to the next."""
        scale = float(getattr(forward, "ir_drop", 0.0))
        if not scale or "ir_drop" in self.ignore:
            return 0.0
        if hasattr(forward, "ir_drop_rs"):
            return scale * float(forward.ir_drop_rs)
        return scale / (float(forward.ir_drop_g_ratio) * devices.most * MICROSIEMENS)

    def lines(self, config: Any, key: str) -> int:
        """Return the lines of a tile; aihwkit's 0 is no limit."""
        size = int(getattr(getattr(config, "mapping", None), key, 0))
        if size > LINES_MAX:
            self.refused.append(f"mapping.{key} = {size}: arrays have at most {LINES_MAX} lines")
        return min(size, LINES_MAX) or LINES_MAX


def _pcm_like(model: Any, window: _Devices) -> _Devices:
    scale, exponent, most = _PCM_FLICKER
    reference = window.most * MICROSIEMENS
    noisy, drifting = float(model.read_noise_scale), float(model.drift_scale)
    return _Devices(
        least=window.least,
        most=window.most,
        paired=window.paired,
        programming_noise=_relative_polynomial(
            model.prog_coeff,
            model.prog_noise_scale * window.most / model.prog_coeff_g_max_reference,
            window.most,
        ),
        read_noise=FlickerNoise(
            scale=noisy * scale,
            exponent=exponent,
            most=noisy * most,
            reference_siemens=reference,
            reference_seconds=float(model.t_0),
            read_seconds=float(model.t_read),
        )
        if noisy
        else None,
        drift=PowerDrift(
            reference_siemens=reference,
            reference_seconds=float(model.t_0),
            exponent_mean=_scaled_logarithm(_PCM_EXPONENT_MEAN, drifting),
            exponent_sd=_scaled_logarithm(_PCM_EXPONENT_SD, drifting),
        )
        if drifting
        else None,
    )


def _wan2022(model: Any, window: _Devices) -> _Devices:
    scale = float(model.noise_scale) * window.most / float(model.coeff_g_max_reference)
    states = tuple(
        TabulatedState(
            seconds=float(seconds), sd=_relative_polynomial(model.coeff_dic[seconds], scale, window.most)
        )
        for seconds in sorted(model.coeff_dic)
    )
    return _Devices(
        least=window.least,
        most=window.most,
        paired=window.paired,
        programming_noise=states[0].sd,
        drift=TabulatedDrift(states=states),
    )


def _cmo(model: Any, window: _Devices) -> _Devices:
    coefficients = model.coeff_dict.get(model.acceptance_range) or model.coeff_dict[min(model.coeff_dict)]
    scale = float(model.prog_noise_scale) * window.most / float(model.coeff_g_max_reference)
    noisy, drifting = float(model.read_noise_scale), float(model.drift_scale)
    return _Devices(
        least=window.least,
        most=window.most,
        paired=window.paired,
        programming_noise=PolynomialNoise(coefficients=tuple(scale * float(value) for value in coefficients)),
        read_noise=LogarithmicNoise(
            scale=noisy * float(model.read_dict["K"]), read_seconds=float(model.read_dict["t_read"])
        )
        if noisy
        else None,
        drift=LogarithmicDrift(
            mean_slope=drifting * float(model.decay_dict["mean"][0]),
            sd_slope=drifting * float(model.decay_dict["std"][0]),
            sd_intercept=drifting * float(model.decay_dict["std"][1]),
        )
        if drifting
        else None,
    )


_MODELS: dict[str, Callable[[Any, _Devices], _Devices]] = {
    "PCMLikeNoiseModel": _pcm_like,
    "ReRamWan2022NoiseModel": _wan2022,
    "ReRamCMONoiseModel": _cmo,
}


def _relative_polynomial(coefficients: Collection[float], scale: float, most: float) -> PolynomialNoise:
    """Return the law of coefficients (microsiemens) of a polynomial in G / Gmax."""
    return PolynomialNoise(
        coefficients=tuple(float(scale * value) for value in coefficients),
        reference_siemens=most * MICROSIEMENS,
    )


def _scaled_logarithm(figures: tuple[float, float, float, float], scale: float) -> ClippedLogarithm:
    slope, intercept, least, most = (scale * figure for figure in figures)
    return ClippedLogarithm(slope=slope, intercept=intercept, least=least, most=most)


def _summed(first: AnyNoise | None, second: AnyNoise | None) -> AnyNoise | None:
    parts = tuple(part for part in (first, second) if part is not None and not isinstance(part, SummedNoise))
    if len(parts) < 2:
        return parts[0] if parts else None
    return SummedNoise(parts=parts)


def _word(value: object) -> str:
    """Return the value of an enumeration of words, or the word itself."""
    return str(getattr(value, "value", value))
