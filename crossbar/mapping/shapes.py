"""Owns the shapes of what is packed: matrices, and the blocks that they are cut into. No weights, no places."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class MatrixShape:
    """A matrix (outputs, inputs), or `groups` of them, as a grouped convolution has."""

    name: str
    outputs: int
    inputs: int
    groups: int = 1

    def __post_init__(self) -> None:
        if min(self.outputs, self.inputs, self.groups) < 1:
            raise ValueError(f"{self.name!r} has no weights: {self}")

    @property
    def depthwise(self) -> bool:
        """True if every group has one output: a vector, not a matrix."""
        return self.groups > 1 and self.outputs == 1

    @property
    def weights(self) -> int:
        return self.outputs * self.inputs * self.groups


@dataclass(frozen=True, slots=True)
class Block:
    """A part of one of the matrices: `inputs` x `outputs` weights from (first_input, first_output) on."""

    matrix: int
    group: int
    first_input: int
    inputs: int
    first_output: int
    outputs: int

    def cut(self, inputs: int, outputs: int) -> list[Block]:
        """Return up to three blocks that make up this one; the first has the given size."""
        below, beside = self.inputs - inputs, self.outputs - outputs
        lower, right = self.first_input + inputs, self.first_output + outputs
        pieces = [
            Block(self.matrix, self.group, self.first_input, inputs, self.first_output, outputs),
            Block(self.matrix, self.group, self.first_input, inputs, right, beside),
            Block(self.matrix, self.group, lower, below, self.first_output, self.outputs),
        ]
        return [piece for piece in pieces if piece.inputs and piece.outputs]
