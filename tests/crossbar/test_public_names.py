"""The names that others build upon, as a stranger uses them: from `import crossbar` alone, in a fresh process."""

from __future__ import annotations

import subprocess
import sys

import pytest

PREAMBLE = """
import numpy as np
import crossbar

rng = np.random.default_rng(0)
weights = rng.standard_normal((50, 70)).astype(np.float32)
x = rng.standard_normal((70, 9)).astype(np.float32)
milo = crossbar.profile("milo2021")
"""

USES = {
    "profiles": """
assert {
    "ideal", "wan2022", "milo2021", "cmo_hfox", "pcm_nandakumar2019", "pcm_joshi2020", "sonos_agrawal2022", "generic"
} <= set(crossbar.profiles())
for name in crossbar.profiles():
    found = crossbar.profile(name)
    assert isinstance(found, crossbar.DeviceProfile) and found.name == name and found.source
    if not found.is_ideal:
        assert (found.rows, found.columns, found.dac_bits, found.adc_bits) == (128, 128, 8, 8)
""",
    "programmed": """
target = np.full((300, 200), (milo.conductance_min_siemens + milo.conductance_max_siemens) / 2)
fresh = milo.programmed(target, np.random.default_rng(1))
assert fresh.shape == target.shape and (fresh >= 0).all() and fresh.std() > 0
assert np.array_equal(fresh, milo.programmed(target, np.random.default_rng(1), seconds=0.0))
assert milo.programmed(target, np.random.default_rng(1), seconds=86400.0).shape == target.shape
""",
    "irdrop": """
conductance, voltages = rng.uniform(1e-6, 1e-4, (12, 7)), rng.uniform(-0.2, 0.2, (12, 3))
currents = crossbar.irdrop.solve(conductance, voltages, 1.0, 2.0)
assert currents.shape == (7, 3)
ideal = crossbar.irdrop.solve(conductance, voltages, 0.0, 0.0)
assert np.allclose(ideal, conductance.T @ voltages, rtol=1e-12, atol=0)
assert np.abs(currents - ideal).max() > 1e-9
for word, bit in ((0.0, 2.0), (1.0, 0.0)):
    assert np.isfinite(crossbar.irdrop.solve(conductance, voltages, word, bit)).all()
# A single device: two resistances and its own in series.
single = crossbar.irdrop.solve(np.array([[1e-3]]), np.array([[1.0]]), 10.0, 20.0)
assert np.allclose(single, 1.0 / (1000.0 + 10.0 + 20.0))
""",
    "program": """
for profile in (milo, "milo2021"):
    programmed = crossbar.program(weights, profile, seed=1)
    y = programmed.apply(x)
    assert y.shape == (50, 9) and y.dtype == np.float32
    assert 0 < programmed.error(x) < 0.5
    report = programmed.report()
    assert isinstance(report, crossbar.Report) and report.cells_used > 0 and report.adc_conversions > 0
plan = crossbar.Plan.default(milo)
assert (plan.rows, plan.columns) == (128, 128)
again = crossbar.program(weights, milo, seed=1, plan=plan)
assert np.array_equal(again.apply(x, request=3), programmed.apply(x, request=3))
try:
    crossbar.program(weights, milo, 1)
except TypeError:
    pass
else:
    raise AssertionError("seed has a name")
""",
    "partition": """
planned = crossbar.partition(weights, milo, 0.05)
assert isinstance(planned.plan, crossbar.Plan) and planned.error <= 0.05
assert planned.cells_allocated >= planned.cells_used
assert crossbar.program(weights, milo, seed=1, plan=planned.plan).error(x) < 0.08
nodes = {"here": milo, "there": crossbar.profile("ideal")}
assert set(crossbar.partition(weights, nodes, 0.05)) == set(nodes)
for wrong in (weights[0], weights[:0], weights * np.nan):
    try:
        crossbar.partition(wrong, milo, 0.05)
    except ValueError as refused:
        assert refused.what and refused.hint is not None
    else:
        raise AssertionError(wrong.shape)
""",
    "listed": """
assert set(crossbar.__all__) <= set(dir(crossbar))
for name in crossbar.__all__:
    assert getattr(crossbar, name).__doc__
""",
}


@pytest.mark.parametrize("name", USES)
def test_a_name_does_what_it_says(name: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", PREAMBLE + USES[name]], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
