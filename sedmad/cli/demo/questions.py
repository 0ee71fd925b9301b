"""Questions asked without a pause while something happens to the mesh, every answer checked against NumPy's."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

import sedmad
from crossbar.error_bound import product_error_bound
from sedmad.cli.demo.words import Rows, WordMatrix
from sedmad.errors import SedmadError


class Reference:
    """What NumPy computes for one question, and how far another answer may be from it.

    Args:
        x: (numbers,) the question.
        answer: (words,) NumPy's product.
        bound: (words,) float64, the largest difference between two right answers.
    """

    def __init__(self, x: Rows, answer: Rows, bound: npt.NDArray[np.float64]) -> None:
        self.x = x
        self.answer = answer
        self.bound = bound

    def difference(self, answer: Rows) -> tuple[float, float]:
        """Return the largest difference, and the largest share of its bound that a difference has.

        An answer that is no number differs infinitely.
        """
        differences = np.abs(answer.astype(np.float64) - self.answer)
        differences[np.isnan(differences)] = np.inf
        return float(differences.max()), float((differences / self.bound).max())


def references(words: WordMatrix) -> list[Reference]:
    """Return one for each question that the words suggest."""
    asked = np.stack([words.row(word) for word in words.questions])
    answers = asked @ words.rows.T
    bounds = product_error_bound(words.rows, asked)
    return [Reference(*parts) for parts in zip(asked, answers, bounds, strict=True)]


class Questioner:
    """Asks in a thread of its own, from entering its `with` block to leaving it.

    Attributes:
        references: what is asked, in turn.
        asked_at, took_s: when each question was asked (time.monotonic), and how long the answer took.
        largest_difference: from NumPy's answers.
        largest_share: of its bound that a difference had; above 1 an answer is wrong.
        error: what ended the asking before its time.
    """

    def __init__(self, matrix: sedmad.Matrix, references: Sequence[Reference]) -> None:
        self.asked_at: list[float] = []
        self.took_s: list[float] = []
        self.largest_difference = 0.0
        self.largest_share = 0.0
        self.error: SedmadError | None = None
        self._matrix = matrix
        self.references = references
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._ask, name="questions", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()

    def split(self, at: float) -> tuple[list[float], list[float]]:
        """Return the seconds that questions took which were asked before a moment, and after it."""
        pairs = list(zip(self.asked_at, self.took_s, strict=True))
        return [took for asked, took in pairs if asked < at], [took for asked, took in pairs if asked >= at]

    def _check(self, reference: Reference, answer: Rows) -> None:
        difference, share = reference.difference(answer)
        self.largest_difference = max(self.largest_difference, difference)
        self.largest_share = max(self.largest_share, share)

    def _ask(self) -> None:
        while not self._done.is_set():
            reference = self.references[len(self.took_s) % len(self.references)]
            began = time.monotonic()
            try:
                answer = self._matrix @ reference.x
            except SedmadError as error:
                self.error = error
                return
            self.asked_at.append(began)
            self.took_s.append(time.monotonic() - began)
            self._check(reference, answer)
