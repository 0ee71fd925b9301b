"""A client of the testnet: it stores the demo's words, asks about them without a pause, and checks every answer.

It reaches the mesh through the control socket of one node, which it shares through a volume.
"""

from __future__ import annotations

import argparse
import sys
import time

import sedmad
from sedmad.cli.demo.places import show_places
from sedmad.cli.demo.questions import Questioner, references
from sedmad.cli.demo.words import WordMatrix, installed_words, synthetic_words
from sedmad.cli.report import print_error
from sedmad.cli.terminal import messages, output, printable
from sedmad.errors import LocalError, OperationalError, SedmadError, StateError
from sedmad.sizes import format_bytes
from sedmad.wire.messages import NodeState, PeerState

SURVIVE = 1
NEAREST = 5
# As many as there are real ones.
SYNTHETIC_ROWS = 30_522
# Nodes whose health checks pass meet within seconds; a machine that needs longer is too busy.
MEETING_TIMEOUT_S = 60.0
POLL_S = 0.25


def main() -> int:
    """Return 0 if all questions were answered, and right; else print why not."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nodes", type=int, default=5, help="how many to wait for (default: 5)")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long to ask (default: 10)")
    arguments = parser.parse_args()
    try:
        with sedmad.connect() as mesh:
            names = _wait_complete(mesh, arguments.nodes)
            say(f"{len(names)} nodes know each other: {', '.join(map(printable, names))}.")
            words = _words()
            matrix = _store(mesh, words, names)
            _ask(matrix, words)
            _ask_on(matrix, words, arguments.seconds)
    except SedmadError as error:
        print_error(messages(), error)
        return error.exit_code
    return 0


def say(*lines: str) -> None:
    """Print lines at once: whoever watches a container's log wants to see them when they are true."""
    print("\n".join(lines), flush=True)


def _wait_complete(mesh: sedmad.Mesh, nodes: int) -> list[str]:
    """Wait until the node that is asked has a session with all others; return the names of all."""
    until = time.monotonic() + MEETING_TIMEOUT_S
    while True:
        status = mesh.status()
        met = [
            peer.name
            for peer in status.peers
            if peer.state == PeerState.PEER_STATE_ALIVE
            and peer.node_state == NodeState.NODE_STATE_READY
            and peer.path
        ]
        if len(met) >= nodes - 1:
            return sorted([status.name, *met])
        if time.monotonic() > until:
            raise OperationalError(
                f"only {len(met) + 1} of {nodes} nodes met", why=f"{MEETING_TIMEOUT_S:g} s have passed"
            )
        time.sleep(POLL_S)


def _words() -> WordMatrix:
    """Return the real words where they are installed, else made-up ones."""
    try:
        return installed_words()
    except StateError:
        return synthetic_words(SYNTHETIC_ROWS)


def _store(mesh: sedmad.Mesh, words: WordMatrix, names: list[str]) -> sedmad.Matrix:
    """Put the words in, which is done at once where they are in already."""
    rows, columns = words.rows.shape
    name = "words" if "##s" in words.words else "made-up-words"
    matrix = mesh.put(name, words.rows, survive=SURVIVE)
    say(
        "",
        f"{name}, {rows:,} x {columns} ({format_bytes(words.rows.nbytes)}), survive={SURVIVE}, lies here:",
        "",
    )
    show_places(output(), mesh.inspect(name), names)
    return matrix


def _ask(matrix: sedmad.Matrix, words: WordMatrix) -> None:
    """Print what is near in meaning to some words."""
    width = max(map(len, words.questions))
    say("")
    for word in words.questions:
        near = words.nearest(word, matrix @ words.row(word), NEAREST)
        say(f"  {word.ljust(width)}   " + "   ".join(f"{other} {score:.2f}" for other, score in near))


def _ask_on(matrix: sedmad.Matrix, words: WordMatrix, seconds: float) -> None:
    """Ask without a pause for a while, and compare every answer with NumPy's.

    Raises:
        SedmadError: a question was not answered; LocalError if an answer was wrong.
    """
    say("", f"Asking without a pause for {seconds:g} s; any one node may be killed meanwhile.")
    with Questioner(matrix, references(words)) as questions:
        time.sleep(seconds)
    if questions.error is not None:
        raise questions.error
    if questions.largest_share > 1:
        raise LocalError(
            "an answer of the mesh differs from NumPy's by more than rounding explains",
            why=f"by {questions.largest_difference:.1e}, {questions.largest_share:.1f} times what is allowed",
        )
    say(
        f"{len(questions.took_s):,} questions were asked, and all were answered, the slowest after "
        f"{max(questions.took_s):.2f} s.",
        "Every answer was right.",
    )


if __name__ == "__main__":
    sys.exit(main())
