"""Conversion of aihwkit's configurations: stand-ins with the attributes of its classes, and the real ones if installed.

Expected figures are those that aihwkit's own formulas give, written out here.
"""

from __future__ import annotations

import importlib.util
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from crossbar.devices import DeviceProfile, profile
from crossbar.devices.aihwkit import from_rpu_config
from crossbar.devices.laws import FlickerNoise, SummedNoise
from crossbar.errors import ConfigurationRefused

DAY = 86_400.0


class SinglePairConductanceConverter(SimpleNamespace):
    """Named like aihwkit's class, which conversion goes by."""


class SingleDeviceConductanceConverter(SimpleNamespace):
    pass


class DualPairConductanceConverter(SimpleNamespace):
    pass


class PCMLikeNoiseModel(SimpleNamespace):
    pass


class ReRamWan2022NoiseModel(SimpleNamespace):
    pass


class ReRamCMONoiseModel(SimpleNamespace):
    pass


class HermesNoiseModel(SimpleNamespace):
    pass


class InferenceRPUConfig(SimpleNamespace):
    pass


def pcm(**changes: Any) -> PCMLikeNoiseModel:
    attributes = {
        "g_converter": SinglePairConductanceConverter(g_min=0.0, g_max=25.0),
        "g_max": 25.0,
        "prog_coeff": [0.26348, 1.9650, -1.1731],
        "prog_coeff_g_max_reference": 25.0,
        "t_0": 20.0,
        "t_read": 250e-9,
        "prog_noise_scale": 1.0,
        "read_noise_scale": 1.0,
        "drift_scale": 1.0,
    }
    return PCMLikeNoiseModel(**{**attributes, **changes})


def wan(g_max: float = 40.0) -> ReRamWan2022NoiseModel:
    return ReRamWan2022NoiseModel(
        g_converter=SinglePairConductanceConverter(g_min=0.0, g_max=g_max),
        g_max=g_max,
        noise_scale=1.0,
        coeff_g_max_reference=g_max,
        coeff_dic={
            1.0: [0.348, 16.030, -43.853, 45.393, -16.815],
            DAY: [0.701, 22.086, -50.773, 47.095, -16.458],
            2 * DAY: [0.782, 20.274, -43.507, 37.062, -11.934],
        },
    )


def cmo(acceptance_range: float = 2) -> ReRamCMONoiseModel:
    return ReRamCMONoiseModel(
        g_converter=SingleDeviceConductanceConverter(g_min=9.0, g_max=88.199997),
        g_max=88.199997,
        g_min=9.0,
        coeff_g_max_reference=88.199997,
        coeff_dict={0.2: [0.00081107, 0.00106879], 2: [0.0112185391, 0.01129027418]},
        decay_dict={"mean": [-0.08900206], "std": [0.04201137, 0.41183342]},
        read_dict={"K": 0.0277316483, "t_read": 1e-6},
        acceptance_range=acceptance_range,
        prog_noise_scale=1.0,
        read_noise_scale=1.0,
        drift_scale=1.0,
    )


def config(model: Any, **forward: Any) -> InferenceRPUConfig:
    usual = {
        "is_perfect": False,
        "inp_res": 1 / (2**7 - 2),
        "out_res": 254.0,
        "out_noise": 0.0,
        "w_noise": 0.0,
    }
    return InferenceRPUConfig(
        forward=SimpleNamespace(**{**usual, **forward}),
        noise_model=model,
        mapping=SimpleNamespace(max_input_size=512, max_output_size=0),
    )


@pytest.mark.parametrize(
    ("model", "name"), [(pcm(), "pcm_nandakumar2019"), (wan(), "wan2022"), (cmo(), "cmo_hfox")]
)
def test_a_noise_model_becomes_the_devices_of_the_preset(model: Any, name: str) -> None:
    found, preset = from_rpu_config(config(model), name="converted"), profile(name)
    target = np.linspace(preset.conductance_min_siemens, preset.conductance_max_siemens, 20)
    deviates = np.linspace(-2, 2, 20)
    assert found.conductance_max_siemens == pytest.approx(preset.conductance_max_siemens)
    assert found.conductance_min_siemens == pytest.approx(preset.conductance_min_siemens)
    assert found.programming_sd_siemens(target) == pytest.approx(preset.programming_sd_siemens(target))
    for seconds in (1.0, 3600.0, DAY, 1e7):
        aged = found.aged_siemens(target, deviates, seconds)
        assert aged == pytest.approx(preset.aged_siemens(target, deviates, seconds))
    assert (found.rows, found.columns, found.dac_bits, found.adc_bits) == (512, 4096, 7, 8)
    assert found.word_line_ohm == found.bit_line_ohm == 0


def test_the_noise_that_accumulates_is_read_noise() -> None:
    target = np.array([1e-6, 20e-6])
    found = from_rpu_config(config(pcm()), name="converted")
    assert found.read_sd_siemens(target, DAY) == pytest.approx(
        profile("pcm_nandakumar2019").read_sd_siemens(target, DAY)
    )
    quiet = from_rpu_config(config(pcm(read_noise_scale=0.0, drift_scale=0.0)), name="converted")
    assert quiet.read_noise is None
    assert quiet.drift is None


def test_scales_and_windows_are_taken_over() -> None:
    found = from_rpu_config(config(pcm(g_max=50.0, prog_noise_scale=2.0)), name="converted")
    # sd = 2 (c0 + c1 / 2 + c2 / 4) 50 / 25 at half the window
    expected = 4 * (0.26348 + 1.9650 / 2 - 1.1731 / 4) * 1e-6
    assert found.programming_sd_siemens(np.array([25e-6])) == pytest.approx([expected])
    fine = from_rpu_config(config(cmo(0.2)), name="converted")
    assert fine.programming_sd_siemens(np.array([50e-6])) == pytest.approx(
        [(0.00081107 + 50 * 0.00106879) * 1e-6]
    )
    # What aihwkit's default of 0.02 becomes, as it is no key of its table.
    default = from_rpu_config(config(cmo(0.02)), name="converted")
    assert default.programming_noise == fine.programming_noise


def test_weight_noise_is_shared_by_the_devices_of_a_pair() -> None:
    """A weight of a pair is (G+ - G-) / window: its noise is that of both devices."""
    additive = from_rpu_config(config(wan(), w_noise=0.01, w_noise_type="AdditiveConstant"), name="converted")
    each = additive.read_sd_siemens(np.array([0.0, 40e-6]))
    assert np.hypot(each, each) / 40e-6 == pytest.approx([0.01, 0.01])
    single = from_rpu_config(config(cmo(), w_noise=0.01, w_noise_type="AdditiveConstant"), name="converted")
    assert single.read_sd_siemens(np.array([50e-6])) / (79.199997e-6 / 2) == pytest.approx([0.01])
    read = from_rpu_config(
        config(pcm(read_noise_scale=0.0), w_noise=0.0175, w_noise_type="PCMRead"), name="converted"
    )
    assert read.read_sd_siemens(np.array([0.0, 25e-6 / 4, 25e-6])) / 25e-6 == pytest.approx(
        [0, 0.0175 / 2, 0.0175]
    )


def test_both_noises_of_a_read_add_up() -> None:
    both = from_rpu_config(config(pcm(), w_noise=0.0175, w_noise_type="PCMRead"), name="converted")
    target = np.array([4e-6])
    accumulated = profile("pcm_nandakumar2019").read_sd_siemens(target, DAY)
    assert both.read_sd_siemens(target, DAY) == pytest.approx(np.hypot(accumulated, 25e-6 * 0.0175 * 0.4))


def test_wires_are_those_of_the_output_lines() -> None:
    ratio = 1.0 / 0.35 / 5e-6
    found = from_rpu_config(config(pcm(), ir_drop=1.0, ir_drop_g_ratio=ratio), name="converted")
    assert found.bit_line_ohm == pytest.approx(0.35 * 5e-6 / 25e-6)
    timed = from_rpu_config(config(pcm(), ir_drop=2.0, ir_drop_rs=0.15), name="converted")
    assert (timed.word_line_ohm, timed.bit_line_ohm) == (0, pytest.approx(0.3))


def test_a_perfect_forward_pass_leaves_the_devices_alone() -> None:
    found = from_rpu_config(config(pcm(), is_perfect=True, out_noise=0.06, ir_drop=1.0), name="converted")
    assert found.dac_bits is found.adc_bits is None
    assert found.bit_line_ohm == 0
    assert found.drift is not None


def test_exact_converters_have_no_bits() -> None:
    found = from_rpu_config(config(pcm(), inp_res=-1.0, out_res=0.0), name="converted")
    assert found.dac_bits is found.adc_bits is None


def test_everything_that_cannot_be_expressed_is_listed_at_once() -> None:
    given = config(
        pcm(), out_noise=0.06, inp_noise=0.01, r_series=0.1, inp_res=100.0, mv_type="PosNegSeparate"
    )
    given.mapping.max_input_size = 10_000
    with pytest.raises(ConfigurationRefused) as caught:
        from_rpu_config(given, name="converted")
    told = [reason.split(" = ")[0] for reason in caught.value.reasons]
    assert sorted(told) == [
        *("forward.inp_noise", "forward.inp_res", "forward.mv_type", "forward.out_noise", "forward.r_series"),
        "mapping.max_input_size",
    ]
    assert "forward.out_noise = 0.06" in str(caught.value)
    given.mapping.max_input_size = 512
    left_out = ("out_noise", "inp_noise", "r_series", "inp_res", "mv_type")
    assert from_rpu_config(given, name="converted", ignore=left_out).dac_bits is None


def test_other_models_and_configurations_are_refused() -> None:
    hermes = HermesNoiseModel(g_converter=SinglePairConductanceConverter(g_min=0.0, g_max=20.7), g_max=20.7)
    with pytest.raises(ConfigurationRefused, match=r"HermesNoiseModel; known: PCMLikeNoiseModel"):
        from_rpu_config(config(hermes), name="converted")
    with pytest.raises(ConfigurationRefused, match="DualPairConductanceConverter"):
        from_rpu_config(config(pcm(g_converter=DualPairConductanceConverter(g_min=0.0))), name="converted")
    with pytest.raises(ConfigurationRefused, match="not a configuration for inference"):
        from_rpu_config(SimpleNamespace(forward=SimpleNamespace()), name="converted")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.skipif(importlib.util.find_spec("aihwkit") is None, reason="aihwkit is not installed")
@pytest.mark.parametrize(
    ("model", "arguments"),
    [("PCMLikeNoiseModel", {}), ("ReRamWan2022NoiseModel", {"g_max": 40.0}), ("ReRamCMONoiseModel", {})],
)
def test_devices_are_those_of_aihwkit_itself(model: str, arguments: dict[str, float]) -> None:
    """Sampled conductances have the mean and the scatter that aihwkit's own have."""
    torch = importlib.import_module("torch")
    noise_model = getattr(importlib.import_module("aihwkit.inference"), model, None) or getattr(
        importlib.import_module("aihwkit.inference.noise.reram"), model
    )
    presets = importlib.import_module("aihwkit.simulator.presets.inference")
    given = presets.StandardHWATrainingPreset(noise_model=noise_model(**arguments))
    if model != "PCMLikeNoiseModel":
        given.forward.w_noise = 0.0
    with pytest.raises(ConfigurationRefused, match="out_noise"):
        from_rpu_config(given, name="converted")
    found = from_rpu_config(given, name="converted", ignore=("out_noise",))
    samples, share = 200_000, 0.6
    target = found.conductance_min_siemens + share * found.window_siemens
    torch.manual_seed(1)
    theirs = given.noise_model.apply_programming_noise_to_conductance(torch.full((samples,), target * 1e6))
    ours = found.programmed(np.full(samples, target), np.random.default_rng(1)) * 1e6
    assert abs(theirs.mean().item() - ours.mean()) < 7 * ours.std() / np.sqrt(samples)
    assert abs(theirs.std().item() - ours.std()) < 7 * ours.std() / np.sqrt(2 * samples)
    aged = given.noise_model.apply_drift_noise_to_conductance(
        theirs, given.noise_model.generate_drift_coefficients(torch.full((samples,), target * 1e6)), DAY
    )
    ours = read_as_aihwkit_does(found, target, samples) * 1e6
    assert abs(aged.mean().item() - ours.mean()) < 7 * ours.std() / np.sqrt(samples)
    assert aged.std().item() == pytest.approx(ours.std(), rel=0.02)


def read_as_aihwkit_does(
    found: DeviceProfile, target: float, samples: int
) -> np.ndarray[Any, np.dtype[np.floating[Any]]]:
    """Devices after a day, with one draw of the noise that accumulates; its share is that of the programmed state."""
    rng = np.random.default_rng(2)
    programmed = found.programmed(np.full(samples, target), rng)
    aged = found.aged_siemens(programmed, rng.standard_normal(samples), DAY, target=np.full(samples, target))
    law = found.read_noise.parts[0] if isinstance(found.read_noise, SummedNoise) else found.read_noise
    if law is None:
        return aged
    relative = aged / programmed if isinstance(law, FlickerNoise) else 1.0
    sd = law.sd_siemens(programmed if isinstance(law, FlickerNoise) else aged, DAY) * relative
    return aged + sd * rng.standard_normal(samples)
