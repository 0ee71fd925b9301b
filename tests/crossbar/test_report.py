"""The report: what the page says, that it stands alone, and what the command line answers to bad input."""

from __future__ import annotations

import os
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

import crossbar
from crossbar.__main__ import main
from crossbar.devices.profile import DeviceProfile
from crossbar.errors import WeightsInvalid
from crossbar.mapping.faults import HEALTHY
from crossbar.planning.plan import Plan
from crossbar.reporting.document import page
from crossbar.reporting.study import ADC_BITS, AGES, Study, study
from crossbar.reporting.tile_map import TileMap

TITLES = {"Tiles and faults", "Error by lever", "Error by cause", "Error against array size",
          "Error against ADC bits", "Error against age", "Conductances"}  # fmt: skip


def small(name: str, **changes: object) -> DeviceProfile:
    """Return a preset on arrays of 16 x 16, which are programmed quickly."""
    return replace(crossbar.profile(name), rows=16, columns=16, **changes)


def matrix(outputs: int = 40, inputs: int = 50) -> np.ndarray:
    return np.random.default_rng(5).standard_normal((outputs, inputs)).astype(np.float32)


@pytest.fixture(scope="module")
def ageing() -> Study:
    profile = small("pcm_nandakumar2019", stuck_on_rate=0.01, stuck_off_rate=0.01)
    return study(matrix(), profile, 0.2, seed=2)


class Page(HTMLParser):
    """Collects what a page opens and never closes, its headings, and what it would load."""

    VOID = {"meta", "br"}

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.headings: list[str] = []
        self.loaded: list[str] = []
        self.drawings = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        self.drawings += tag == "svg"
        self.loaded += [value or "" for name, value in attributes if name in ("src", "href")]

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.loaded += [value or "" for name, value in attributes if name in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)


def test_a_page_is_whole_and_stands_alone(ageing: Study) -> None:
    text = page(ageing, "W & <b>.npy")
    parsed = Page(text)
    assert parsed.open == []
    assert set(parsed.headings) == TITLES
    assert parsed.drawings == len(TITLES)
    assert all(link.startswith("data:image/png;base64,") for link in parsed.loaded)
    assert "<script" not in text
    assert "W &amp; &lt;b&gt;.npy" in text
    assert "prefers-color-scheme:dark" in text
    assert "nan" not in text.replace("pcm_nandakumar2019", "").replace("Nandakumar", "")


def test_a_page_tells_source_plan_and_both_errors(ageing: Study) -> None:
    text = page(ageing, "W.npy")
    for told in (
        ageing.profile.source.split(",")[0],
        f"{ageing.measured.value:.2%}",
        f"{ageing.budget.total:.2%}",
        f"{ageing.static_measured.value:.2%}",
        "conductance, µS",
        "relative error, %",
        "since programming",
    ):
        assert told in text


def test_the_study_climbs_from_static_to_the_plan(ageing: Study) -> None:
    assert ageing.steps[0].name == "static partitioning"
    assert ageing.steps[0].cells == 1
    assert ageing.steps[-1].measured < ageing.steps[0].measured
    assert ageing.measured.value < ageing.static_measured.value
    assert ageing.is_met == (ageing.measured.value <= 0.2)
    assert ageing.histogram.target.sum() == pytest.approx(1)
    assert ageing.histogram.programmed.sum() == pytest.approx(1)


def test_sweeps_have_a_value_for_every_place(ageing: Study) -> None:
    for sweep, places in (
        (ageing.by_tile_size, ageing.tile_sizes),
        (ageing.by_adc_bits, ADC_BITS),
        (ageing.by_age, AGES),
    ):
        assert {len(values) for values in sweep.values()} == {len(places)}
        assert all(0 < value < np.inf for values in sweep.values() for value in values)
    fewest, most = ageing.by_adc_bits["with levers"][0], ageing.by_adc_bits["with levers"][-1]
    assert most < fewest


def test_devices_without_a_drift_law_have_no_ages() -> None:
    found = study(matrix(20, 20), small("generic"), 0.1)
    assert found.by_age == {}
    assert "no drift law" in page(found, "W.npy")


def test_ideal_devices_are_nothing_to_draw() -> None:
    with pytest.raises(WeightsInvalid, match="no devices"):
        study(matrix(4, 4), crossbar.profile("ideal"), 0.1)


@pytest.mark.parametrize("weights", [np.zeros((5, 4)), np.ones((1, 7)), np.full((6, 1), -2.0)])
def test_plain_matrices_are_drawn_too(weights: np.ndarray) -> None:
    text = page(study(weights, small("generic", stuck_off_rate=0.1), 0.1), "W.npy")
    assert Page(text).open == []
    assert "nan" not in text


def test_a_target_beyond_arrays_is_told() -> None:
    found = study(matrix(6, 6), small("wan2022"), 1e-4)
    assert not found.plan.digital
    assert not found.is_met
    assert "only digital arithmetic meets it" in page(found, "W.npy")


def test_the_tile_map_shows_weights_where_they_are() -> None:
    profile = small("generic", stuck_on_rate=0.05)
    weights = matrix(20, 40)
    block = crossbar.program(weights, profile, seed=1, plan=Plan.default(profile))
    drawn = TileMap.of(block, weights)
    assert drawn.errors.shape == (3, 2)
    assert drawn.heat.shape == (48, 32)
    rows, columns = np.indices((48, 32))
    np.testing.assert_array_equal(np.isfinite(drawn.heat), (rows < 40) & (columns < 20))
    wrong = np.abs(block.held_weights() - weights).T / np.sqrt(np.square(weights).mean())
    np.testing.assert_allclose(drawn.heat[:40, :20], wrong, rtol=1e-4, atol=1e-7)
    stuck = drawn.faults[:40, :20] != HEALTHY
    assert drawn.heat[:40, :20][stuck].mean() > 10 * drawn.heat[:40, :20][~stuck].mean()


def test_the_command_writes_a_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "W.npy", matrix(12, 12).astype(np.float16))
    output = tmp_path / "report.html"
    assert main(["report", str(tmp_path / "W.npy"), "--profile", "generic", "-o", str(output)]) == 0
    told = capsys.readouterr()
    assert "relative error measured" in told.out
    assert "planning" in told.err
    assert Page(output.read_text(encoding="utf-8")).open == []


def test_the_command_lists_profiles(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profiles"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in crossbar.profiles())


BAD = {
    "missing": (None, "generic", os.EX_NOINPUT),
    "no npy file": (b"what is this", "generic", os.EX_DATAERR),
    "empty file": (b"", "generic", os.EX_DATAERR),
    "complex": (np.zeros((4, 4), np.complex64), "generic", os.EX_DATAERR),
    "objects": (np.array([[None]], object), "generic", os.EX_DATAERR),
    "one dimension": (np.zeros(4), "generic", os.EX_DATAERR),
    "no values": (np.zeros((0, 4)), "generic", os.EX_DATAERR),
    "not a number": (np.full((4, 4), np.nan), "generic", os.EX_DATAERR),
    "unknown profile": (np.ones((4, 4)), "generik", os.EX_DATAERR),
    "ideal": (np.ones((4, 4)), "ideal", os.EX_DATAERR),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_told_in_three_lines(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content, profile, code = BAD[case]
    path, output = tmp_path / "W.npy", tmp_path / "out.html"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        np.save(path, content, allow_pickle=True)
    assert main(["report", str(path), "--profile", profile, "-o", str(output)]) == code
    told = capsys.readouterr().err
    assert told.count("crossbar: ") == 1
    assert "try: " in told
    assert "Traceback" not in told
    assert not output.exists()


def test_a_report_needs_a_folder_to_go_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "W.npy", matrix(4, 4))
    away = tmp_path / "away" / "out.html"
    code = main(["report", str(tmp_path / "W.npy"), "--profile", "generic", "-o", str(away)])
    assert code == os.EX_CANTCREAT
    assert "no folder" in capsys.readouterr().err


def test_profiles_in_a_folder_that_is_not_there_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["profiles", "--folder", str(tmp_path / "away")]) == os.EX_NOINPUT
    assert "no such folder" in capsys.readouterr().err
