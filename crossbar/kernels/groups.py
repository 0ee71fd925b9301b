"""Owns the list of kernels that are compiled together, with the argument types they are compiled for.

A process compiles and loads the groups that it has a use for: a node without devices the narrow ones alone, and of
those the dtypes that it multiplies with.
"""

from __future__ import annotations

from typing import Final, NamedTuple


class Kernel(NamedTuple):
    """One compiled function: `name` of `crossbar.kernels.<module>`.

    Argument types are written as "float32", or for C-contiguous arrays as "float32[:,::1]", with "const" before it
    if the array is read-only.
    """

    module: str
    name: str
    arguments: tuple[str, ...]


SIMULATION: Final = "simulation"
"""Everything that programming and products on simulated arrays call."""

_VECTOR, _PANEL, _STACK = "float32[::1]", "float32[:,::1]", "float32[:,:,::1]"
_ARRAYS = "float64[:,:,::1]"

_SIMULATION = (
    Kernel("randomness", "extend_keys", ("uint64", "uint64[::1]")),
    Kernel("randomness", "extend_all", ("uint64[::1]", "uint64", "uint64[::1]")),
    Kernel("randomness", "fill_lines", ("uint64", _PANEL)),
    Kernel("programming", "take_lines", (_PANEL, "int64", "float32", _PANEL)),
    Kernel("programming", "take_lines", (f"const {_PANEL}", "int64", "float32", _PANEL)),
    Kernel("programming", "encode_pairs", (_PANEL, _VECTOR, "float32", _PANEL, _PANEL)),
    Kernel("programming", "encode_offset", (_PANEL, _VECTOR, "float32", _PANEL)),
    Kernel("programming", "program_once", (_PANEL, "uint64", _VECTOR, "boolean", "float32")),
    Kernel(
        "programming",
        "program_verified",
        (_PANEL, "uint64", _VECTOR, "float32", "int64", "float32"),
    ),
    Kernel("programming", "subtract_cells", (_PANEL, _PANEL, _VECTOR, _PANEL)),
    Kernel(
        "programming",
        "read_variances",
        (_PANEL, _PANEL, _VECTOR, _VECTOR, "float32", "float32", _PANEL),
    ),
    Kernel("folding", "fold", (_ARRAYS, "float64", "float64", _ARRAYS, _ARRAYS, _ARRAYS, "float64[:,::1]")),
    Kernel("reading", "convert_inputs", (_PANEL, "float32", _VECTOR, _STACK, _PANEL)),
    Kernel(
        "reading",
        "finish",
        (
            *(_STACK, "int64", "int64", _PANEL, _PANEL, _STACK, "float32", _PANEL, _PANEL),
            *("uint64[::1]", _VECTOR, _PANEL),
        ),
    ),
)

WIRES: Final = "wires"
"""What `crossbar.irdrop` relaxes networks with. Products never do: wires are folded into what arrays hold."""

_NODES = "float64[:,::1]"
_WIRES = (Kernel("relaxation", "relax", (_NODES, _NODES, "float64", "float64", "float64", "int64", _NODES)),)


def narrow(dtype: str) -> str:
    """Return the group of exact products of few columns with weights of a dtype."""
    return f"narrow-{dtype}"


def _narrow(stored: str, panel: str) -> tuple[Kernel, ...]:
    given = (f"const {stored}[:,::1]", f"const {panel}[:,::1]")
    return (
        Kernel("narrow", "multiply", (*given, f"{panel}[:,::1]")),
        Kernel("narrow", "multiply_transposed", (*given, "float64[:,::1]")),
    )


GROUPS: Final = {
    SIMULATION: _SIMULATION,
    WIRES: _WIRES,
    narrow("float16"): _narrow("uint16", "float32"),  # given as a view
    narrow("float32"): _narrow("float32", "float32"),
    narrow("float64"): _narrow("float64", "float64"),
    narrow("int8"): _narrow("int8", "float32"),
}
"""Kernels by group."""
