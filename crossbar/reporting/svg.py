"""Owns the elements of drawings, as text. Knows no charts and no crossbars.

Colours are classes, so that a style sheet decides them, by light and by dark.
"""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Iterable
from html import escape

import numpy as np
import numpy.typing as npt

Point = tuple[float, float]


def drawing(width: float, height: float, parts: Iterable[str], description: str) -> str:
    """Return an SVG element that is as wide as it may be; `description` is read out by screen readers."""
    return (
        f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(description)}">'
        + "".join(parts)
        + "</svg>"
    )


def text(at: Point, content: str, kind: str = "", *, anchor: str = "start", turn: float = 0.0) -> str:
    """Return a line of text; `anchor` is start, middle or end, `turn` degrees."""
    turned = f' transform="rotate({turn:g} {at[0]:.1f} {at[1]:.1f})"' if turn else ""
    return (
        f'<text x="{at[0]:.1f}" y="{at[1]:.1f}" text-anchor="{anchor}" class="{kind}"{turned}>'
        f"{escape(content)}</text>"
    )


def line(start: Point, end: Point, kind: str) -> str:
    return f'<path d="M{start[0]:.1f} {start[1]:.1f}L{end[0]:.1f} {end[1]:.1f}" class="{kind}"/>'


def path(points: Iterable[Point], kind: str, *, closed: bool = False) -> str:
    steps = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    return f'<path d="M{steps}{"Z" if closed else ""}" class="{kind}"/>' if steps else ""


def dot(at: Point, kind: str, tip: str) -> str:
    return f'<circle cx="{at[0]:.1f}" cy="{at[1]:.1f}" r="3.5" class="{kind}"><title>{escape(tip)}</title></circle>'


def rectangle(at: Point, size: Point, kind: str, *, tip: str = "", opacity: float | None = None) -> str:
    shade = "" if opacity is None else f' fill-opacity="{opacity:.3f}"'
    title = f"<title>{escape(tip)}</title>" if tip else ""
    return (
        f'<rect x="{at[0]:.1f}" y="{at[1]:.1f}" width="{max(size[0], 0):.1f}" height="{max(size[1], 0):.1f}" '
        f'class="{kind}"{shade}>{title}</rect>'
    )


def image(at: Point, size: Point, pixels: npt.NDArray[np.uint8]) -> str:
    """Return a picture of `pixels` (height, width, 4: red, green, blue, opacity), whose edges stay sharp."""
    content = base64.b64encode(_png(pixels)).decode()
    return (
        f'<image x="{at[0]:.1f}" y="{at[1]:.1f}" width="{size[0]:.1f}" height="{size[1]:.1f}" class="pixels" '
        f'preserveAspectRatio="none" href="data:image/png;base64,{content}"/>'
    )


def _png(pixels: npt.NDArray[np.uint8]) -> bytes:
    """Return a PNG file (W3C, Portable Network Graphics, 2003), 8 bits, RGBA, no filters."""
    height, width, _ = pixels.shape
    rows = np.zeros((height, 1 + 4 * width), np.uint8)  # each row begins with its filter, 0
    rows[:, 1:] = pixels.reshape(height, -1)
    header = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    )
