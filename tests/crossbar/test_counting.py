"""What a block costs is counted from its tiles."""

from __future__ import annotations

import dataclasses

import numpy as np

from crossbar.devices import DeviceProfile
from crossbar.devices.laws import ConstantNoise
from crossbar.planning.plan import Plan
from crossbar.programmed import program

PROFILE = DeviceProfile(
    name="small", conductance_min_siemens=1e-6, conductance_max_siemens=1e-4, rows=16, columns=8,
    programming_noise=ConstantNoise(sd=2.0),
)  # fmt: skip
WEIGHTS = np.random.default_rng(0).standard_normal((20, 40)).astype(np.float32)  # 3 x 3 tiles of 16 x 8


def test_pairs() -> None:
    report = program(WEIGHTS, PROFILE, seed=1).report()
    assert report.arrays == 2 * 9
    assert report.cells_used == 2 * 800
    assert report.cells_allocated == 2 * 9 * 128
    assert report.utilisation == 1600 / 2304
    assert report.programming_pulses == 1600
    assert report.dac_conversions == 40
    assert report.adc_conversions == 3 * 20
    assert report.cell_reads == 1600
    assert report.cells_stuck == report.digital_weights == 0
    assert report.programmed_bytes > WEIGHTS.nbytes


def test_offset_columns_slices_and_replicas() -> None:
    plan = dataclasses.replace(Plan.default(PROFILE), encoding="offset", slices=2, replicas=3)
    report = program(WEIGHTS, PROFILE, seed=1, plan=plan).report()
    assert report.arrays == 6 * 9  # 7 columns of weights beside the reference: still three arrays wide
    assert report.cells_used == 2 * 800
    assert report.programming_pulses == report.cell_reads == 6 * (800 + 3 * 40)
    assert report.adc_conversions == 6 * 60
    assert report.dac_conversions == 6 * 40


def test_pulses_of_write_verify_are_counted_one_by_one() -> None:
    plan = dataclasses.replace(Plan.default(PROFILE), write_verify_tolerance=0.02, write_verify_tries=1000)
    report = program(WEIGHTS, PROFILE, seed=1, plan=plan).report()
    # |z| < 1 hits with probability 0.683: 1.465 pulses a cell; at the window's bottom, where noise below
    # 0 S is cut off at half a deviation, 0.841: 1.189. Half of the cells are there.
    assert abs(report.programming_pulses / 1600 - (1.465 + 1.189) / 2) < 0.12


def test_faults_and_corrections() -> None:
    faulty = dataclasses.replace(PROFILE, stuck_on_rate=0.05, stuck_off_rate=0.05)
    plan = dataclasses.replace(Plan.default(faulty), residual_share=0.1)
    report = program(WEIGHTS, faulty, seed=1, plan=plan).report()
    assert abs(report.cells_stuck - 160) < 5 * 12
    assert report.digital_weights == 80
