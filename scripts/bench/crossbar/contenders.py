"""The contenders of `peers.py`, each in a process of its own, with what it needs imported only there."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import perf_counter

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[3]))

SIDE, TILE, VECTORS = 1024, 128, 64
LARGE = 4096
READ_NOISE, PROGRAMMING_NOISE = 0.01, 0.02  # of the largest conductance or weight
WEIGHT_MAX = 0.2

Action = Callable[[], object]


def matrix(side: int) -> np.ndarray:
    """Return weights (outputs, inputs), float32."""
    weights = np.random.default_rng(0).standard_normal((side, side)) * 0.05
    return np.clip(weights, -WEIGHT_MAX, WEIGHT_MAX).astype(np.float32)


def vectors(count: int) -> np.ndarray:
    """Return (vectors, inputs), float32."""
    return np.random.default_rng(1).uniform(-1, 1, (count, SIDE)).astype(np.float32)


def answer(name: str) -> None:
    """Answer questions on stdin, one line each, until there are no more."""
    actions: dict[str, Action] = {}
    for line in sys.stdin:
        question = line.strip()
        try:
            if question == "ready":
                multiply, program = CONTENDERS[name]()
                _say(_checked(name, multiply))
                for count in (1, VECTORS):
                    panel = vectors(count)
                    plural = "vector" if count == 1 else "vectors"
                    actions[f"{count} {plural}"] = partial(multiply, panel)
                if program is not None:
                    actions["program 4096"] = program
            elif question in actions:
                _say({"seconds": _timed(actions[question], 0.0 if "program" in question else 0.25)})
            else:
                _say({"none": question})
        except Exception as error:  # told to whoever asked
            _say({"error": f"{type(error).__name__}: {str(error)[:200]}"})


def _say(document: dict[str, object]) -> None:
    print(json.dumps(document), flush=True)


def _checked(name: str, multiply: Callable[[np.ndarray], np.ndarray]) -> dict[str, object]:
    """Return the relative error, after checking that a noisy contender is noisy."""
    panel = vectors(4)
    first, second = (np.array(multiply(panel)) for _ in range(2))
    exact = panel @ matrix(SIDE).T
    noisy = bool((first != second).any())
    if noisy == (name == "sgemm"):
        raise RuntimeError("two products of the same vectors " + ("differ" if noisy else "do not differ"))
    wrong = float(np.linalg.norm(first - exact) / np.linalg.norm(exact))
    return {"noisy": noisy, "relative_error": wrong}


def _timed(action: Action, least_s: float) -> list[float]:
    """Return the seconds of each repeat: one, and further ones until `least_s` is over."""
    if least_s:
        action()
    found: list[float] = []
    while not found or sum(found) < least_s:
        began = perf_counter()
        action()
        found.append(perf_counter() - began)
    return found


def sgemm() -> tuple[Callable, Action | None]:
    weights = np.ascontiguousarray(matrix(SIDE).T)
    return lambda panel: panel @ weights, None


def sedmad() -> tuple[Callable, Action | None]:
    import crossbar
    from crossbar.devices import DeviceProfile
    from crossbar.devices.laws import ConstantNoise
    from crossbar.planning.plan import Plan

    profile = DeviceProfile(
        name="peers", conductance_min_siemens=1e-6, conductance_max_siemens=1e-4, rows=TILE, columns=TILE,
        programming_noise=ConstantNoise(sd=PROGRAMMING_NOISE * 100), read_noise=ConstantNoise(sd=READ_NOISE * 100),
        adc_range="column",
    )  # fmt: skip
    block = crossbar.program(matrix(SIDE), profile, seed=0, plan=Plan.default(profile))
    large = matrix(LARGE)
    crossbar.program(large[:256], profile, seed=1)
    return lambda panel: block.apply(panel.T).T, lambda: crossbar.program(large, profile, seed=1)


def _aihwkit(configuration: str) -> tuple[Callable, Action | None]:
    import torch

    torch.set_num_threads(1)
    from aihwkit.inference import ReRamWan2022NoiseModel
    from aihwkit.nn import AnalogLinearMapped
    from aihwkit.simulator import configs
    from aihwkit.simulator.parameters import WeightNoiseType

    config = getattr(configs, configuration)()
    config.forward.inp_res = config.forward.out_res = 1 / (2**8 - 2)
    if configuration == "InferenceRPUConfig":
        config.forward.out_noise = 0.0
        config.forward.w_noise, config.forward.w_noise_type = READ_NOISE, WeightNoiseType.ADDITIVE_CONSTANT
    else:
        config.forward.out_noise = 0.06  # it has no weight noise: what 0.01 on 128 weights gives, about
    config.mapping.max_input_size = config.mapping.max_output_size = TILE
    config.noise_model = ReRamWan2022NoiseModel(g_max=40.0)

    def programmed(side: int) -> object:
        layer = AnalogLinearMapped(side, side, bias=False, rpu_config=config)
        layer.set_weights(torch.tensor(matrix(side)))
        layer.eval()
        layer.program_analog_weights()
        return layer

    layer = programmed(SIDE)
    layer.drift_analog_weights(1.0)
    large = AnalogLinearMapped(LARGE, LARGE, bias=False, rpu_config=config)
    weights = torch.tensor(matrix(LARGE))

    def program() -> None:
        large.set_weights(weights)
        large.eval()
        large.program_analog_weights()

    return _torch_layer(layer), program


def lightning() -> tuple[Callable, Action | None]:
    import torch

    torch.set_num_threads(1)
    from aihwkit_lightning.nn import AnalogLinear
    from aihwkit_lightning.simulator.configs import TorchInferenceRPUConfig

    config = TorchInferenceRPUConfig()
    config.forward.inp_res = config.forward.out_res = 2**8 - 2
    config.forward.out_noise, config.forward.out_bound = READ_NOISE, 10.0
    config.pre_post.input_range.enable = True
    config.mapping.max_input_size = TILE
    layer = AnalogLinear(SIDE, SIDE, bias=False, rpu_config=config)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(matrix(SIDE)))
    layer.input_range.data.fill_(1.0)
    layer.train()  # in evaluation mode it is noiseless
    return _torch_layer(layer), None


def _torch_layer(layer: Callable) -> Callable[[np.ndarray], np.ndarray]:
    import torch

    def multiply(panel: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return layer(torch.from_numpy(panel)).numpy()

    return multiply


def crosssim() -> tuple[Callable, Action | None]:
    folder = os.environ.get("CROSSSIM_DIR")
    if not folder:
        raise RuntimeError("it is no package, and CROSSSIM_DIR names no checkout of it")
    sys.path.insert(0, folder)
    from simulator import AnalogCore, CrossSimParameters
    from simulator.parameters.xbar_parameters import ADCRangeLimits

    parameters = CrossSimParameters()
    core, xbar = parameters.core, parameters.xbar
    core.rows_max = core.cols_max = TILE
    core.weight_bits = 8
    core.mapping.inputs.mvm.min, core.mapping.inputs.mvm.max = -1, 1
    core.mapping.weights.percentile = None
    core.mapping.weights.min, core.mapping.weights.max = -WEIGHT_MAX, WEIGHT_MAX
    xbar.device.Rmin, xbar.device.Rmax = 1e4, 1e6
    for law, magnitude in (
        (xbar.device.read_noise, READ_NOISE),
        (xbar.device.programming_error, PROGRAMMING_NOISE),
    ):
        law.enable, law.model, law.magnitude = True, "NormalIndependentDevice", magnitude
    xbar.dac.mvm.model, xbar.dac.mvm.bits = "QuantizerDAC", 8
    xbar.adc.mvm.model, xbar.adc.mvm.bits = "QuantizerADC", 8
    xbar.adc.mvm.adc_range_option = ADCRangeLimits.CALIBRATED
    xbar.adc.mvm.calibrated_range = np.array([-8.0, 8.0])
    block = AnalogCore(matrix(SIDE).astype(np.float64), parameters)
    large = matrix(LARGE).astype(np.float64)
    return lambda panel: block.matmat(np.ascontiguousarray(panel.T)).T, lambda: AnalogCore(large, parameters)


CONTENDERS: dict[str, Callable[[], tuple[Callable, Action | None]]] = {
    "sgemm": sgemm,
    "sedmad": sedmad,
    "aihwkit": lambda: _aihwkit("InferenceRPUConfig"),
    "aihwkit-torch": lambda: _aihwkit("TorchInferenceRPUConfig"),
    "lightning": lightning,
    "crosssim": crosssim,
}
