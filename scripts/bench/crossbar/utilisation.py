#!/usr/bin/env python
"""How much of the arrays four networks use, tiled in the fixed way and packed: JSON lines, and a table on stderr.

    scripts/bench/crossbar/utilisation.py [--arrays 64 128 256 512] [--cells-per-weight 2] [--reserved-columns 0]

Utilisation is the number of cells that hold a mapped weight, all slices and both cells of a pair among them, divided
by the number of cells of all allocated arrays. Spare columns and replicas would count as allocated only; there are
none here unless columns are reserved, so these are the figures of a plan whose error target asks for no such lever.

- fixed: each tile of a layer has an array of its own; depthwise layers lie along the diagonal of theirs.
- fixed_digital: the same with depthwise layers digital.
- packed: remainders of all layers share arrays, depthwise layers are digital (`digital_share` of all weights).
- whole: packed, but no block is cut to empty an array.
- possible: what the last array, which cannot be full, leaves to be reached.

`reads` are activations of arrays for one product with every layer, `reads_in_turn` the most that one array sees.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from time import perf_counter

sys.path.append(str(Path(__file__).parents[1]))

from figures import report
from networks import NETWORKS

from crossbar.mapping.packing import pack
from crossbar.mapping.shapes import MatrixShape
from crossbar.mapping.tiling import TileGrid

TARGET = 0.96


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arrays", type=int, nargs="+", default=[64, 128, 256, 512])
    parser.add_argument("--cells-per-weight", type=int, default=2)
    parser.add_argument("--reserved-columns", type=int, default=0)
    arguments = parser.parse_args()
    print(
        f"{'array':>5}  {'network':<12} {'fixed':>6} {'digital':>8} {'packed':>7} {'share':>7}",
        file=sys.stderr,
    )
    least = 1.0
    for size in arguments.arrays:
        for name, shapes in NETWORKS.items():
            figures = measure(shapes, size, arguments.cells_per_weight, arguments.reserved_columns)
            report("utilisation", "network", network=name, array=size, target=TARGET, **figures)
            least = min(least, figures["packed"])
            print(
                f"{size:5}  {name:<12} {figures['fixed']:6.3f} {figures['fixed_digital']:8.3f} "
                f"{figures['packed']:7.3f} {figures['digital_share']:7.2%}",
                file=sys.stderr,
            )
    report("utilisation", "least", packed=least, target=TARGET, reached=least >= TARGET)


def measure(shapes: list[MatrixShape], size: int, cells: int, reserved: int) -> dict[str, float]:
    """Return the figures of one network on arrays of `size` x `size`."""
    began = perf_counter()
    packed = pack(shapes, size, size, cells, reserved_columns=reserved)
    seconds = perf_counter() - began
    whole = pack(shapes, size, size, cells, reserved_columns=reserved, cut=False)
    outputs = (size - reserved) // cells
    matrices = [shape for shape in shapes if not shape.depthwise]
    return {
        "fixed": _fixed_utilisation(shapes, size, outputs, cells),
        "fixed_digital": _fixed_utilisation(matrices, size, outputs, cells),
        "whole": whole.utilisation,
        "packed": packed.utilisation,
        "possible": packed.cells_used / (packed.arrays_least * size * size),
        "arrays": packed.arrays,
        "arrays_least": packed.arrays_least,
        "digital_share": packed.digital_share,
        "cuts": packed.cuts,
        "reads": packed.reads,
        "reads_in_turn": packed.reads_in_turn,
        "seconds": seconds,
    }


def _fixed_utilisation(shapes: list[MatrixShape], size: int, outputs: int, cells: int) -> float:
    used = sum(shape.weights for shape in shapes) * cells
    return used / (sum(_fixed_arrays(shape, size, outputs) for shape in shapes) * size * size)


def _fixed_arrays(shape: MatrixShape, size: int, outputs: int) -> int:
    if shape.depthwise:
        groups_of_an_array = min(size // shape.inputs, outputs // shape.outputs)
        return -(-shape.groups // groups_of_an_array)
    return shape.groups * TileGrid(shape.outputs, shape.inputs, size, outputs).tiles


if __name__ == "__main__":
    main()
