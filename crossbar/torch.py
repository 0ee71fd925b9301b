"""Optional: a PyTorch layer whose product is computed by simulated arrays. Needs the extra `torch`.

    >>> model.fc1 = crossbar.torch.Linear.on(model.fc1, "pcm_joshi2020", seed=1)

For inference: the weights on the arrays are not trained. Gradients flow through to what comes before the layer as
though the product was exact (a straight-through estimate, Bengio et al. 2013).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from crossbar.devices.profile import DeviceProfile
from crossbar.errors import WeightsInvalid
from crossbar.planning.plan import Plan
from crossbar.programmed import Crossbar, program


class Linear(torch.nn.Module):
    """y = W x + b, the product on arrays, the bias digital. Made by `Linear.on`.

    Attributes:
        crossbar: the programmed arrays, for `report()`, `error(X)` and `aged(seconds)`.
        weight, bias: as they were before programming, float32; they move and are saved with the module, and changing
            them changes no arrays.
    """

    def __init__(self, crossbar: Crossbar, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.crossbar = crossbar
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)

    @classmethod
    def on(
        cls,
        layer: torch.nn.Linear,
        profile: DeviceProfile | str,
        *,
        seed: int,
        plan: Plan | None = None,
        calibration: Tensor | None = None,
    ) -> Linear:
        """Put a layer's weights on arrays.

        Args:
            layer: any `torch.nn.Linear`; it is left as it is.
            profile, seed, plan: as for `crossbar.program`.
            calibration: (..., inputs) like those that will be multiplied.

        Raises:
            WeightsInvalid, PlanInvalid, ProfileUnknown: as `crossbar.program`.
        """
        weight = layer.weight.detach().to("cpu", torch.float32).contiguous().clone()
        bias = None if layer.bias is None else layer.bias.detach().to("cpu", torch.float32).clone()
        samples = None if calibration is None else _panel(calibration, weight.shape[1]).numpy().T
        programmed = program(weight.numpy(), profile, seed=seed, plan=plan, calibration=samples)
        return cls(programmed, weight, bias)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return (..., outputs) for (..., inputs), in the dtype and on the device of the inputs.

        Raises:
            WeightsInvalid: the last dimension is not that of the layer.
        """
        product: Tensor = _Product.apply(inputs, self.weight, self.crossbar)
        return product if self.bias is None else product + self.bias.to(product)

    def extra_repr(self) -> str:
        outputs, inputs = self.crossbar.shape
        return f"{inputs} -> {outputs} on {self.crossbar.profile.name}, bias={self.bias is not None}"


class _Product(torch.autograd.Function):
    """Forwards through the arrays, backwards through the exact weights."""

    @staticmethod
    def forward(context: Any, inputs: Tensor, weight: Tensor, crossbar: Crossbar) -> Tensor:
        context.save_for_backward(weight)
        outputs, width = crossbar.shape
        panel = _panel(inputs, width)
        product = torch.empty((0, outputs)) if not len(panel) else _tensor(crossbar, panel)
        return product.reshape(*inputs.shape[:-1], outputs).to(inputs)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (weight,) = context.saved_tensors
        return gradient @ weight.to(gradient), None, None


def _tensor(crossbar: Crossbar, panel: Tensor) -> Tensor:
    return torch.from_numpy(crossbar.apply(panel.numpy().T).T)


def _panel(vectors: Tensor, width: int) -> Tensor:
    """Return (vectors, inputs) in float32 on the processor."""
    if vectors.ndim == 0 or vectors.shape[-1] != width:
        raise WeightsInvalid(f"a tensor of shape (..., {width}) was expected, not {tuple(vectors.shape)}")
    return vectors.detach().to("cpu", torch.float32).reshape(-1, width)
