"""Owns two inner loops that need every vector register, written for LLVM directly: no loop vectoriser finds them.

A *tile* is a few rows of W with a few columns of X. All its sums stay in registers, so that each number that is loaded
is used several times. Weights are float32, float64, float16 (as uint16: Numba has no float16 on CPUs) or int8; they
are widened in registers to the dtype of the panel, float32 or float64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numba.np.arrayobj import make_array

VECTOR_BYTES = 32  # of an AVX2 register; machines with narrower ones use several

Value = Any  # of llvmlite, which has no types
Intrinsic = Callable[..., Any]

_INT64, _INT32 = ir.IntType(64), ir.IntType(32)
# A multiplication and an addition may be one instruction; additions stay in the order that is written here.
_FUSED = ("contract",)


def straight_tile(rows: int, columns: int) -> Intrinsic:
    """Return a function for compiled code that adds products of rows of W and columns of X to sums.

    Its arguments are (weights, row, valid, panel, column, start, stop, sums): W (m, n), X (k, n), and k * rows sums,
    that of column c and the tile's row r at c * rows + r. Only `valid` of the rows lie in W; for the others the last
    one is computed again. The elements start <= j < stop are added up lane by lane, then the lanes, then what fills no
    vector.
    """

    @intrinsic
    def multiply(typing, weights, row, valid, panel, column, start, stop, sums):  # type: ignore[no-untyped-def]
        def generate(context, builder, signature, values):  # type: ignore[no-untyped-def]
            weights, row, valid, panel, column, start, stop, sums = values
            w_type, x_type, y_type = signature.args[0], signature.args[3], signature.args[7]
            tile = _Tile(context, builder, w_type, x_type)
            last = builder.sub(valid, _INT64(1))
            w = []
            for r in map(_INT64, range(rows)):
                nearest = builder.select(builder.icmp_signed("<", r, valid), r, last)
                w.append(tile.row_of(w_type, weights, builder.add(row, nearest)))
            x = [tile.row_of(x_type, panel, builder.add(column, _INT64(c))) for c in range(columns)]
            middle = tile.end_of_vectors(start, stop)
            zeros = [ir.Constant(tile.vector(tile.lanes), None)] * (rows * columns)
            lanes = _summed_products(tile, tile.lanes, w, x, start, middle, zeros)
            single = _summed_products(
                tile, 1, w, x, middle, stop, [tile.sum_of_lanes(each) for each in lanes]
            )
            y = tile.unpacked(y_type, sums).data
            first = builder.mul(column, _INT64(rows))
            for index, found in enumerate(single):
                place = builder.gep(y, [builder.add(first, _INT64(index))])
                builder.store(builder.fadd(builder.load(place), found), place)
            return context.get_dummy_value()

        return types.void(weights, row, valid, panel, column, start, stop, sums), generate

    return multiply


def transposed_tile(rows: int, columns: int) -> Intrinsic:
    """Return a function for compiled code that adds multiples of rows of W to rows of sums.

    Its arguments are (weights, row, panel, column, start, stop, sums): W (m, n), X (k, m), sums (k, n). For every
    column c of the tile, sums[c, j] grows by W[row, j] X[c, row], then by the next row's, for start <= j < stop.
    """

    @intrinsic
    def multiply(typing, weights, row, panel, column, start, stop, sums):  # type: ignore[no-untyped-def]
        def generate(context, builder, signature, values):  # type: ignore[no-untyped-def]
            weights, row, panel, column, start, stop, sums = values
            w_type, x_type, y_type = signature.args[0], signature.args[2], signature.args[6]
            tile = _Tile(context, builder, w_type, x_type)
            places = [builder.add(column, _INT64(c)) for c in range(columns)]
            y = [tile.row_of(y_type, sums, place) for place in places]
            w, x = [], []
            for r in range(rows):
                at = builder.add(row, _INT64(r))
                w.append(tile.row_of(w_type, weights, at))
                x.append(
                    [builder.load(builder.gep(tile.row_of(x_type, panel, place), [at])) for place in places]
                )
            middle = tile.end_of_vectors(start, stop)
            _add_multiples(tile, tile.lanes, w, x, y, start, middle)
            _add_multiples(tile, 1, w, x, y, middle, stop)
            return context.get_dummy_value()

        return types.void(weights, row, panel, column, start, stop, sums), generate

    return multiply


class _Tile:
    """Emits what both loops are made of. `lanes` of the panel's dtype fill a vector."""

    def __init__(self, context: Any, builder: Any, weights: Any, panel: Any) -> None:
        self.builder = builder
        self._context = context
        self._float = ir.DoubleType() if panel.dtype == types.float64 else ir.FloatType()
        self._weight = (
            ir.HalfType() if weights.dtype == types.uint16 else context.get_data_type(weights.dtype)
        )
        self._sizes = {self._float: panel.dtype.bitwidth // 8, self._weight: weights.dtype.bitwidth // 8}
        self.lanes = VECTOR_BYTES // self._sizes[self._float]

    def vector(self, lanes: int) -> Any:
        """Return the type of `lanes` floats; one is a scalar."""
        return _shaped(self._float, lanes)

    def row_of(self, array_type: Any, array: Value, index: Value) -> Value:
        """Return where a row of a C-contiguous array begins."""
        unpacked = self.unpacked(array_type, array)
        length = self.builder.extract_value(unpacked.shape, 1)
        return self.builder.gep(unpacked.data, [self.builder.mul(index, length)])

    def unpacked(self, array_type: Any, array: Value) -> Any:
        """Return an array as the structure that Numba keeps of it."""
        return make_array(array_type)(self._context, self.builder, array)  # type: ignore[no-untyped-call]

    def end_of_vectors(self, start: Value, stop: Value) -> Value:
        """Return where the last whole vector from `start` on ends."""
        length = self.builder.sub(stop, start)
        return self.builder.add(start, self.builder.and_(length, _INT64(-self.lanes)))

    def floats(self, row: Value, at: Value, lanes: int) -> Value:
        """Load floats."""
        loaded = self.builder.load(self.address(row, at, self._float, lanes))
        loaded.align = self._sizes[self._float]
        return loaded

    def weights(self, row: Value, at: Value, lanes: int) -> Value:
        """Load weights, as floats."""
        loaded = self.builder.load(self.address(row, at, self._weight, lanes))
        loaded.align = self._sizes[self._weight]
        if isinstance(self._weight, ir.IntType):
            return self.builder.sitofp(loaded, self.vector(lanes))
        return loaded if self._weight == self._float else self.builder.fpext(loaded, self.vector(lanes))

    def store(self, value: Value, row: Value, at: Value, lanes: int) -> None:
        """Store floats."""
        stored = self.builder.store(value, self.address(row, at, self._float, lanes))
        stored.align = self._sizes[self._float]

    def address(self, row: Value, at: Value, element: Any, lanes: int) -> Value:
        """Return the place of an element, as a pointer to as many."""
        return self.builder.bitcast(self.builder.gep(row, [at]), _shaped(element, lanes).as_pointer())

    def fused(self, left: Value, right: Value, total: Value) -> Value:
        """Return left * right + total."""
        return self.builder.fadd(self.builder.fmul(left, right, flags=_FUSED), total, flags=_FUSED)

    def sum_of_lanes(self, vector: Value) -> Value:
        """Return a vector's sum: halves added to each other until one lane is left."""
        builder, width = self.builder, self.lanes
        while width > 1:
            width //= 2
            low, high = (
                builder.shuffle_vector(vector, vector, _lanes(range(first, first + width)))
                for first in (0, width)
            )
            vector = builder.fadd(low, high)
        return builder.extract_element(vector, _INT32(0))

    @contextmanager
    def loop(self, start: Value, stop: Value, step: int, totals: list[Value]) -> Iterator[_Loop]:
        """Emit a loop whose totals enter as given and leave as the body last set them."""
        builder, before = self.builder, self.builder.block
        body, after = builder.append_basic_block("tile.body"), builder.append_basic_block("tile.after")
        builder.cbranch(builder.icmp_signed("<", start, stop), body, after)
        builder.position_at_end(body)
        at = builder.phi(_INT64)
        at.add_incoming(start, before)
        loop = _Loop(at, [builder.phi(total.type) for total in totals])
        for phi, total in zip(loop.totals, totals, strict=True):
            phi.add_incoming(total, before)
        entering = loop.totals
        yield loop
        following = builder.add(at, _INT64(step))
        at.add_incoming(following, builder.block)
        for phi, total in zip(entering, loop.totals, strict=True):
            phi.add_incoming(total, builder.block)
        end = builder.block
        builder.cbranch(builder.icmp_signed("<", following, stop), body, after)
        builder.position_at_end(after)
        leaving = [builder.phi(total.type) for total in totals]
        for phi, total, last in zip(leaving, totals, loop.totals, strict=True):
            phi.add_incoming(total, before)
            phi.add_incoming(last, end)
        loop.totals = leaving


class _Loop:
    """A loop while it is emitted: its index, and totals that are carried from turn to turn."""

    def __init__(self, at: Value, totals: list[Value]) -> None:
        self.at = at
        self.totals = totals


def _summed_products(
    tile: _Tile, lanes: int, w: list[Value], x: list[Value], start: Value, stop: Value, totals: list[Value]
) -> list[Value]:
    """Emit totals[c * rows + r] + sum of w[r][j] x[c][j]."""
    with tile.loop(start, stop, lanes, totals) as loop:
        here = [tile.weights(row, loop.at, lanes) for row in w]
        found: list[Value] = []
        for column in x:
            factor = tile.floats(column, loop.at, lanes)
            found += [
                tile.fused(weight, factor, loop.totals[len(found) + r]) for r, weight in enumerate(here)
            ]
        loop.totals = found
    return loop.totals


def _add_multiples(
    tile: _Tile, lanes: int, w: list[Value], x: list[list[Value]], y: list[Value], start: Value, stop: Value
) -> None:
    """Emit y[c][j] += w[r][j] x[r][c], row after row."""
    factors = [[_repeated(tile.builder, factor, lanes) for factor in row] for row in x]
    with tile.loop(start, stop, lanes, []) as loop:
        totals = [tile.floats(row, loop.at, lanes) for row in y]
        for row, of_row in zip(w, factors, strict=True):
            weight = tile.weights(row, loop.at, lanes)
            totals = [tile.fused(weight, factor, total) for factor, total in zip(of_row, totals, strict=True)]
        for row, total in zip(y, totals, strict=True):
            tile.store(total, row, loop.at, lanes)


def _shaped(element: Any, lanes: int) -> Any:
    return element if lanes == 1 else ir.VectorType(element, lanes)


def _repeated(builder: Any, scalar: Value, lanes: int) -> Value:
    if lanes == 1:
        return scalar
    empty = ir.Constant(_shaped(scalar.type, lanes), ir.Undefined)
    return builder.shuffle_vector(
        builder.insert_element(empty, scalar, _INT32(0)), empty, _lanes([0] * lanes)
    )


def _lanes(chosen: Iterable[int]) -> Value:
    """Return which lanes a vector is shuffled from."""
    lanes = [_INT32(lane) for lane in chosen]
    return ir.Constant(ir.VectorType(_INT32, len(lanes)), lanes)
