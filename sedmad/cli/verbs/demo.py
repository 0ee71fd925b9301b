"""See it work: four nodes on this machine, a matrix of words over them, and one node that dies on the way.

Nothing is left behind, and no mesh of yours is touched.
"""

from __future__ import annotations

import argparse

from sedmad.cli.terminal import output

# Fewer rows would lie on one node, and show nothing.
SYNTHETIC_ROWS_MIN = 16_384
# As many as there are real ones: the nodes pledge no more.
SYNTHETIC_ROWS_MAX = 30_522


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--synthetic",
        nargs="?",
        type=_row_count,
        metavar="ROWS",
        const=SYNTHETIC_ROWS_MAX,
        help="make up words instead of reading those of the language model",
    )


def run(arguments: argparse.Namespace) -> int:
    from sedmad.cli.demo.story import tell_story
    from sedmad.cli.demo.words import installed_words, synthetic_words

    rows = arguments.synthetic
    words = installed_words() if rows is None else synthetic_words(rows)
    tell_story(words, output())
    return 0


def _row_count(text: str) -> int:
    if not text.isdecimal() or not SYNTHETIC_ROWS_MIN <= int(text[:10]) <= SYNTHETIC_ROWS_MAX:
        raise argparse.ArgumentTypeError(
            f"a number from {SYNTHETIC_ROWS_MIN} to {SYNTHETIC_ROWS_MAX} was expected"
        )
    return int(text)
