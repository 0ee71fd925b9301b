"""What the mesh is given to keep, and what NumPy makes of it: the measure of every answer."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from crossbar.error_bound import product_error_bound

Array = npt.NDArray[Any]
# Until everybody has heard of a new name: a split of 30 s, and the gossip after it.
NAME_TRAVELS_S = 45.0
# Earlier contents of a name are forgotten here: minutes after they were replaced nobody may answer with them.
CONTENTS_MAX = 8
QUESTIONS = ((1, False), (3, False), (1, True), (2, True))  # columns of X, and whether W is transposed
# Few partitions and many, long rows and short ones, both types; together they fit into no single node.
STEADY_SHAPES = (("words", 4096, 1536, "<f4"), ("tall", 6144, 640, "<f8"), ("wide", 768, 6144, "<f4"))
CHANGING_NAMES, CHANGING_SHAPE = 3, (1024, 256, "<f4")


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """X, (n,) or (n, columns), to be multiplied with W or, if `transposed`, with W^T."""

    x: Array
    transposed: bool


class Content:
    """The numbers of a matrix, and the answers to the questions about it."""

    def __init__(self, weights: Array, questions: list[Question]) -> None:
        self.weights = weights
        self._references = [self._reference(question) for question in questions]

    def is_right(self, y: Array, question_number: int) -> bool:
        """Whether y, as a client was given it, differs from the product in float64 by no more than it may.

        NaN is never right.
        """
        exact, bound = self._references[question_number]
        got = np.atleast_2d(y.T)
        if y.dtype != self.weights.dtype or got.shape != exact.shape:
            return False
        return bool((np.abs(got - exact) <= bound).all())

    def _reference(self, question: Question) -> tuple[Array, Array]:
        """Return (columns, m) products, and how far a right answer may be from each."""
        operand = self.weights.T if question.transposed else self.weights
        panel = np.atleast_2d(question.x.T)
        exact = panel.astype(np.float64) @ operand.T.astype(np.float64)
        return exact, product_error_bound(self.weights, panel, transposed=question.transposed)


class Entry:
    """A name, and what may be found under it. Any number of threads may use one.

    Contents are counted from 0. A content may be answered with from when its put begins, and is wrong for whoever has
    seen a later one.

    Args:
        number: the place in the catalogue.
        name: in the mesh.
        rows, columns, dtype: of every content.
        rng: draws contents and questions.

    Attributes:
        questions: what is asked about it.
    """

    def __init__(
        self, number: int, name: str, rows: int, columns: int, dtype: str, rng: np.random.Generator
    ) -> None:
        self.number = number
        self.name = name
        self.questions = [
            Question(_normal(rng, (rows if transposed else columns, count), dtype), transposed)
            for count, transposed in QUESTIONS
        ]
        self._form = (rows, columns, dtype)
        self._rng = rng
        self._lock = threading.Lock()
        self._contents: dict[int, Content] = {}
        self._count = 0
        # What is known to be there, None for nothing, and what may be there since: changes that are not acknowledged.
        self._possible: list[int | None] = [None]
        self._stored_at = 0.0

    @property
    def is_stored(self) -> bool:
        """Whether a put was acknowledged, and no removal since."""
        return self._possible[0] is not None

    def begin_put(self) -> Array:
        """Return new numbers, which may be found from now on."""
        rows, columns, dtype = self._form
        content = Content(_normal(self._rng, (rows, columns), dtype), self.questions)
        with self._lock:
            self._contents[self._count] = content
            self._contents.pop(self._count - CONTENTS_MAX, None)
            self._possible.append(self._count)
            self._count += 1
        return content.weights

    def end_put(self) -> None:
        """Note that the numbers returned last are stored."""
        with self._lock:
            if None in self._possible:
                self._stored_at = time.monotonic()
            self._possible = [self._count - 1]

    def begin_removal(self) -> None:
        """Note that the name may be absent from now on."""
        with self._lock:
            self._possible.append(None)

    def end_removal(self) -> None:
        """Note that the name is removed."""
        with self._lock:
            self._possible = [None]

    def may_be_absent(self) -> bool:
        """Whether a node may say that there is no such name."""
        with self._lock:
            return None in self._possible or time.monotonic() - self._stored_at < NAME_TRAVELS_S

    def recognise(self, y: Array, question_number: int, *, since: int) -> int | None:
        """Return which content y is the right answer of, None for none.

        Args:
            since: the first content that is not wrong by now.
        """
        with self._lock:
            candidates = [(count, content) for count, content in self._contents.items() if count >= since]
        for count, content in reversed(candidates):
            if content.is_right(y, question_number):
                return count
        return None

    def expected(self) -> list[Array | None]:
        """Return what may be found now that nothing is under way: one array, or None for absence; several where a
        change was given up in the middle.
        """
        with self._lock:
            return [None if count is None else self._contents[count].weights for count in self._possible]


class Catalogue:
    """All names: steady ones that are stored once, and changing ones."""

    def __init__(self, seed: int) -> None:
        forms = list(STEADY_SHAPES)
        forms += [(f"changing/{number}", *CHANGING_SHAPE) for number in range(CHANGING_NAMES)]
        self.entries = [
            Entry(number, *form, np.random.default_rng([seed, number])) for number, form in enumerate(forms)
        ]
        self.steady = self.entries[: len(STEADY_SHAPES)]
        self.changing = self.entries[len(STEADY_SHAPES) :]


def steady_bytes() -> int:
    """Return how many bytes the steady matrices have."""
    return sum(rows * columns * np.dtype(dtype).itemsize for _, rows, columns, dtype in STEADY_SHAPES)


def _normal(rng: np.random.Generator, shape: tuple[int, int], dtype: str) -> Array:
    numbers = rng.standard_normal(shape).astype(dtype)
    return numbers[:, 0] if shape[1] == 1 else numbers
