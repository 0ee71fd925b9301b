"""Owns charts: lines over an axis, bars, and distributions. Takes figures, returns SVG.

Widths are those of a narrow column, so that a chart is readable on a telephone and two stand beside each other on a
desk. Series differ by more than colour: dashes or shape of markers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from crossbar.reporting import svg
from crossbar.reporting.axes import Axis

WIDTH = 440.0
_HEIGHT = 290.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 52.0, 14.0, 12.0, 46.0
_LEGEND_LINE = 19.0
_BAR = 34.0


@dataclass(frozen=True, slots=True)
class Series:
    """A line: its name, values by position, and how it looks: a class of colour, dashed or not."""

    name: str
    points: tuple[tuple[float, float], ...]
    colour: str
    dashed: bool = False


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar with a name above it, a figure behind it and a note at the right; `mark` is a second value."""

    name: str
    value: float
    figure: str
    note: str = ""
    colour: str = "blue"
    mark: float | None = None


def line_chart(x: Axis, y: Axis, series: Sequence[Series], description: str) -> str:
    """Return lines over two axes, with a legend above them."""
    top = _TOP + _LEGEND_LINE * -(-len(series) // 2)
    height = _HEIGHT + top - _TOP
    parts = _legend([(one.name, one.colour, one.dashed) for one in series])
    parts += _axes(x, y, top, height)
    for one in series:
        spots = [
            (_LEFT + x.share(at) * _across(), _upwards(y.share(value), top, height))
            for at, value in one.points
        ]
        parts.append(svg.path(spots, f"line {one.colour}{' dashed' if one.dashed else ''}"))
        if not one.dashed:
            named = dict(x.ticks)
            parts += [
                svg.dot(spot, f"dot {one.colour}", f"{one.name}, {named.get(at, f'{at:g}')}: {value:.3g}")
                for spot, (at, value) in zip(spots, one.points, strict=True)
            ]
    return svg.drawing(WIDTH, height, parts, description)


def bar_chart(bars: Sequence[Bar], axis: Axis, description: str, *, mark: str = "") -> str:
    """Return horizontal bars, names above them; `mark` says what the second values are."""
    top = _LEGEND_LINE + 4 if mark else 2.0
    height = top + _BAR * len(bars) + 4
    left, across = 4.0, WIDTH - 76
    parts = []
    if mark:
        parts += [svg.line((6, 5), (6, 17), "mark"), svg.text((14, 15), mark, "small")]
    for index, bar in enumerate(bars):
        y = top + index * _BAR
        width = axis.share(bar.value) * across
        parts += [
            svg.text((left, y + 12), bar.name, "label"),
            svg.text((WIDTH - 4, y + 12), bar.note, "small", anchor="end"),
            svg.rectangle((left, y + 16), (across, 12), "track"),
            svg.rectangle((left, y + 16), (width, 12), f"fill {bar.colour}", tip=f"{bar.name}: {bar.figure}"),
            svg.text((WIDTH - 4, y + 27), bar.figure, "label", anchor="end"),
        ]
        if bar.mark is not None:
            at = left + axis.share(bar.mark) * across
            parts.append(svg.line((at, y + 15), (at, y + 30), "mark"))
    return svg.drawing(WIDTH, height, parts, description)


def distribution_chart(
    edges: npt.NDArray[np.float64],
    shares: Sequence[tuple[str, str, npt.NDArray[np.float64]]],
    x: Axis,
    y: Axis,
    description: str,
) -> str:
    """Return outlines of histograms: (name, colour, values of the bins between `edges`)."""
    top = _TOP + _LEGEND_LINE
    height = _HEIGHT + _LEGEND_LINE
    parts = _legend([(name, colour, False) for name, colour, _ in shares])
    parts += _axes(x, y, top, height)
    floor = _upwards(0.0, top, height)
    for _, colour, values in shares:
        outline = [(_LEFT + x.share(float(edges[0])) * _across(), floor)]
        for left, right, value in zip(edges[:-1], edges[1:], values, strict=True):
            level = _upwards(y.share(float(value)), top, height)
            outline += [(_LEFT + x.share(float(edge)) * _across(), level) for edge in (left, right)]
        outline.append((outline[-1][0], floor))
        parts += [svg.path(outline, f"area {colour}", closed=True), svg.path(outline, f"thin {colour}")]
    return svg.drawing(WIDTH, height, parts, description)


def _across() -> float:
    return WIDTH - _LEFT - _RIGHT


def _upwards(share: float, top: float, height: float) -> float:
    return height - _BOTTOM - share * (height - _BOTTOM - top)


def _legend(entries: Sequence[tuple[str, str, bool]]) -> list[str]:
    parts = []
    for index, (name, colour, dashed) in enumerate(entries):
        x = 8 + (index % 2) * WIDTH / 2
        y = 11 + (index // 2) * _LEGEND_LINE
        parts.append(svg.line((x, y), (x + 24, y), f"line {colour}{' dashed' if dashed else ''}"))
        parts.append(svg.text((x + 30, y + 4), name, "small"))
    return parts


def _axes(x: Axis, y: Axis, top: float, height: float) -> list[str]:
    bottom, right = height - _BOTTOM, WIDTH - _RIGHT
    parts = []
    for value, name in y.ticks:
        at = _upwards(y.share(value), top, height)
        parts += [
            svg.line((_LEFT, at), (right, at), "grid"),
            svg.text((_LEFT - 6, at + 4), name, "tick", anchor="end"),
        ]
    for value, name in x.ticks:
        at = _LEFT + x.share(value) * _across()
        parts += [
            svg.line((at, bottom), (at, bottom + 4), "axis"),
            svg.text((at, bottom + 17), name, "tick", anchor="middle"),
        ]
    parts += [
        svg.line((_LEFT, bottom), (right, bottom), "axis"),
        svg.text(((_LEFT + right) / 2, height - 8), x.label, "small", anchor="middle"),
        svg.text((13, (top + bottom) / 2), y.label, "small", anchor="middle", turn=-90),
    ]
    return parts
