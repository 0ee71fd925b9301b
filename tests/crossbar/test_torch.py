"""The layer for PyTorch; skipped where PyTorch is not installed."""

from __future__ import annotations

import numpy as np
import pytest

import crossbar
from crossbar.errors import WeightsInvalid

torch = pytest.importorskip("torch")


def layer(inputs: int = 40, outputs: int = 12, *, bias: bool = True):
    torch.manual_seed(0)
    return torch.nn.Linear(inputs, outputs, bias=bias)


def on_arrays(exact, profile: str = "generic", **options: object):
    from crossbar.torch import Linear

    return Linear.on(exact, profile, seed=3, **options)


def test_an_ideal_layer_equals_pytorch_s():
    exact = layer()
    vectors = torch.randn(2, 5, 40)
    torch.testing.assert_close(on_arrays(exact, "ideal")(vectors), exact(vectors))


def test_a_layer_multiplies_as_the_programmed_matrix_does():
    exact = layer(bias=False)
    ours = on_arrays(exact)
    same = crossbar.program(exact.weight.detach().numpy(), "generic", seed=3)
    vectors = np.random.default_rng(0).standard_normal((40, 6)).astype(np.float32)
    np.testing.assert_array_equal(ours(torch.from_numpy(vectors.T)).numpy(), same.apply(vectors).T)


def test_shapes_and_dtypes_are_those_of_the_inputs():
    ours = on_arrays(layer())
    for shape in ((40,), (0, 40), (3, 1, 40)):
        answer = ours(torch.zeros(shape, dtype=torch.float64))
        assert answer.shape == (*shape[:-1], 12)
        assert answer.dtype == torch.float64


def test_gradients_flow_through_the_exact_weights():
    exact = layer()
    vectors = torch.randn(4, 40, requires_grad=True)
    on_arrays(exact)(vectors).sum().backward()
    torch.testing.assert_close(vectors.grad, exact.weight.sum(dim=0).expand(4, 40))


def test_calibration_is_taken_and_wrong_widths_are_refused():
    ours = on_arrays(layer(), calibration=torch.randn(7, 40))
    assert "40 -> 12 on generic" in repr(ours)
    with pytest.raises(WeightsInvalid, match=r"\(\.\.\., 40\)"):
        ours(torch.zeros(4, 39))


def test_a_layer_is_saved_with_its_weights():
    exact = layer()
    saved = on_arrays(exact).state_dict()
    assert set(saved) == {"weight", "bias"}
    torch.testing.assert_close(saved["weight"], exact.weight.detach())
