"""What `sedmad demo` tells: four nodes, one matrix, questions, a node that dies, and whether the answers were right."""

from __future__ import annotations

import os
import signal
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import sedmad
from sedmad.cli.demo.nodes import LocalMesh, LocalNode
from sedmad.cli.demo.places import show_places
from sedmad.cli.demo.questions import Questioner, references
from sedmad.cli.demo.words import WordMatrix
from sedmad.cli.progress import progress_bar
from sedmad.cli.terminal import Terminal
from sedmad.errors import LocalError
from sedmad.sizes import format_bytes
from sedmad.wire.messages import CopyKind

# What each node gives of its memory: room for one or two blocks of at most 8 MiB, so that the matrix, six blocks, fits
# in none of them.
PLEDGES = {"attic": "9MiB", "desk": "17MiB", "nas": "17MiB", "laptop": "9MiB"}
NAMES = tuple(PLEDGES)
ASKED = "attic"
MATRIX = "words"
SURVIVE = 1
NEAREST = 5
BEFORE_KILL_S = 1.5
AFTER_KILL_S = 2.5
NUMPY_RUNS = 25
# A socket below it may have a path of 107 bytes; some systems keep temporary files in very deep folders.
FOLDER_PATH_BYTES_MAX = 70

MEANINGS = {
    "init": ("init", "make a new mesh"),
    "start": ("start --memory {memory}", "run the node; it may use that much"),
    "join": ("join TOKEN", f"come in, with a token that 'sedmad invite' printed on {ASKED}"),
}


def tell_story(words: WordMatrix, terminal: Terminal) -> None:
    """Run the whole demo, and leave nothing behind.

    Raises:
        SedmadError: something did not work; LocalError if an answer was wrong.
    """
    with (
        _terminable(),
        _temporary_folder() as folder,
        LocalMesh(LocalNode(name, folder, memory=memory) for name, memory in PLEDGES.items()) as nodes,
    ):
        Story(nodes, words, terminal).tell()
    terminal.print("\nAll nodes are stopped, and their files are removed.")


class Story:
    """Six chapters.

    Args:
        nodes: homes without a mesh yet.
        words: the matrix.
        terminal: where it is told.
    """

    def __init__(self, nodes: LocalMesh, words: WordMatrix, terminal: Terminal) -> None:
        self._nodes = nodes
        self._words = words
        self._terminal = terminal
        self._chapters = 0

    def tell(self) -> None:
        """Tell all of it."""
        self._form()
        with self._nodes[ASKED].connect() as mesh:
            stored_s = self._store(mesh)
            self._ask(mesh)
            questions, killed_at = self._lose(mesh, self._victim(mesh))
            self._judge(questions)
            self._show_times(stored_s, questions, killed_at)

    def _form(self) -> None:
        self._begin("Four nodes become one mesh")
        self._say(
            "Each node is a process with a folder of its own. All four run on this machine, but they talk",
            "as if they stood in different houses: encrypted, and only with nodes that were invited.",
            "On four machines you would type:",
            "",
        )
        began = time.monotonic()
        self._nodes.form(self._show_verb)
        self._say("", f"After {time.monotonic() - began:.1f} s all four know each other.")

    def _show_verb(self, node: LocalNode, verb: str) -> None:
        command, meaning = MEANINGS[verb]
        typed = self._bold(f"$ sedmad {command.format(memory=node.memory)}".ljust(32))
        self._say(f"  {node.name:<8}{typed}{self._dim(meaning)}")

    def _store(self, mesh: sedmad.Mesh) -> float:
        """Put the matrix in, and return the seconds that it took."""
        rows, columns = self._words.rows.shape
        size_bytes = self._words.rows.nbytes
        self._begin("A matrix is put in")
        self._say(
            f"It has {rows:,} rows, {self._words.origin}.",
            f"A row is {columns} numbers that say what the word means. Together they are {format_bytes(size_bytes)},",
            "more than any one of the nodes can take. In Python:",
            "",
            self._bold(f'  >>> words = mesh.put("{MATRIX}", matrix, survive={SURVIVE})'),
            "",
        )
        began = time.monotonic()
        with progress_bar("storing", size_bytes * (SURVIVE + 1), wanted=True) as show:
            mesh.put(
                MATRIX,
                self._words.rows,
                survive=SURVIVE,
                progress=lambda progress: show(progress.safe_bytes, "storing"),
            )
        stored_s = time.monotonic() - began
        place = mesh.inspect(MATRIX)
        blocks = len(place.partitions)
        self._say(
            f"After {stored_s:.1f} s it lies on the nodes in {blocks} blocks of rows. Each is in the memory",
            f"of one node, ready to compute, and as a spare on the disk of another: survive={SURVIVE} means that",
            "any one node may be lost.",
            "",
        )
        show_places(self._terminal, place, NAMES)
        return stored_s

    def _ask(self, mesh: sedmad.Mesh) -> None:
        self._begin("Questions are answered where the rows lie")
        self._say(
            "Multiplying the matrix with the row of one word scores every word for how close in meaning it",
            "is: 1 is the same, 0 is unrelated. Each node computes the scores of its own rows. Only the",
            "word's row goes out, and only scores come back.",
            "",
            self._bold(f'  >>> scores = words @ row_of("{self._words.questions[0]}")'),
            "",
        )
        self._show_nearest(mesh, self._words.questions[:4])

    def _victim(self, mesh: sedmad.Mesh) -> LocalNode:
        """Return the last node that computes, other than the one that is asked."""
        computing = {
            copy.name
            for partition in mesh.inspect(MATRIX).partitions
            for copy in partition.copies
            if copy.kind == CopyKind.COPY_KIND_RESIDENT
        }
        return self._nodes[[name for name in NAMES if name in computing - {ASKED}][-1]]

    def _lose(self, mesh: sedmad.Mesh, victim: LocalNode) -> tuple[Questioner, float]:
        """Kill a node while questions are asked; return how they went, and when that was."""
        self._begin(f"The {victim.name} dies")
        self._say(
            f"Questions now follow each other without a pause. In the middle, {victim.name} is killed: no warning,",
            "nothing saved, as if its plug had been pulled.",
            "",
            f"  {victim.name:<8}{self._bold(f'$ kill -9 {victim.process_id}')}",
            "",
        )
        with Questioner(mesh[MATRIX], references(self._words)) as questions:
            time.sleep(BEFORE_KILL_S)
            killed_at = time.monotonic()
            victim.kill()
            time.sleep(AFTER_KILL_S)
        if questions.error is not None:
            raise questions.error
        after = sum(at > killed_at for at in questions.asked_at)
        self._say(
            f"{len(questions.asked_at):,} questions were asked, {after:,} of them after the kill. "
            + self._bold("All were answered."),
            "The rows lie here now:",
            "",
        )
        show_places(self._terminal, mesh.inspect(MATRIX), NAMES, gone=(victim.name,))
        self._say(
            "",
            f"What {victim.name} had in memory is now computed {self._stand_ins(mesh)}. Four more questions:",
            "",
        )
        self._show_nearest(mesh, self._words.questions[4:])
        return questions, killed_at

    def _stand_ins(self, mesh: sedmad.Mesh) -> str:
        """Say which nodes compute from spares."""
        _, explanation = mesh[MATRIX].apply(self._words.row(self._words.questions[0]), explain=True)
        answers = [answer for panel in explanation.panels for answer in panel.answers]
        names = sorted({answer.name for answer in answers if answer.kind == "standby"})
        return f"by {' and '.join(names)} from {'their spares' if len(names) > 1 else 'its spare'}"

    def _judge(self, questions: Questioner) -> None:
        """Compare what the mesh answered with what NumPy did.

        Raises:
            LocalError: an answer was wrong.
        """
        if questions.largest_share > 1:
            raise LocalError(
                "an answer of the mesh differs from NumPy's by more than rounding explains",
                why=f"by {questions.largest_difference:.1e}, {questions.largest_share:.1f} times what is allowed",
                matrix=MATRIX,
            )
        scores = len(questions.took_s) * len(self._words.words)
        smallest_bound = min(float(reference.bound.min()) for reference in questions.references)
        self._begin("Were the answers right?")
        self._say(
            f"All {scores:,} scores from before, during and after the kill were compared with those that",
            "NumPy computes from the whole matrix, here in one process. Numbers that are added up in another",
            "order may differ in their last digits; how far is bounded.",
            "",
            f"  largest difference   {questions.largest_difference:.1e}",
            f"  smallest bound       {smallest_bound:.1e}",
            "",
            self._terminal.paint("Every answer was right.", "green"),
        )

    def _show_times(self, stored_s: float, questions: Questioner, killed_at: float) -> None:
        row = self._words.row(self._words.questions[0])
        numpy_s = []
        for _ in range(NUMPY_RUNS):
            began = time.monotonic()
            self._words.rows @ row
            numpy_s.append(time.monotonic() - began)
        before, after = questions.split(killed_at)
        speed = self._words.rows.nbytes / 1e6 / stored_s
        times = (
            ("storing two copies", f"{stored_s:.1f} s", f"{speed:.0f} MB/s"),
            ("a question, four nodes", f"{statistics.median(before) * 1e3:.1f} ms", "the median"),
            ("a question, three nodes", f"{statistics.median(after) * 1e3:.1f} ms", "the median"),
            ("the slowest question", f"{max(questions.took_s) * 1e3:.1f} ms", "the kill included"),
            ("NumPy without a mesh", f"{statistics.median(numpy_s) * 1e3:.1f} ms", "the median"),
        )
        self._begin("How long it took")
        self._say(
            *(f"  {what:<24}{took:>9}   {self._dim(remark)}" for what, took, remark in times),
            "",
            f"Measured just now, with {os.cpu_count()} cores for everybody. A mesh is for what one machine cannot",
            "hold; this matrix is small so that you need not wait.",
        )

    def _show_nearest(self, mesh: sedmad.Mesh, asked: Sequence[str]) -> None:
        matrix = mesh[MATRIX]
        width = max(map(len, self._words.questions))
        for word in asked:
            near = self._words.nearest(word, matrix @ self._words.row(word), NEAREST)
            scored = "   ".join(f"{other} {self._dim(f'{score:.2f}')}" for other, score in near)
            self._say(f"  {self._bold(word.ljust(width))}   {scored}")

    def _begin(self, title: str) -> None:
        self._chapters += 1
        self._say("", self._bold(f"{self._chapters}. {title}"), "")

    def _say(self, *lines: str) -> None:
        self._terminal.print("\n".join(lines))
        self._terminal.stream.flush()

    def _bold(self, text: str) -> str:
        return self._terminal.paint(text, "bold")

    def _dim(self, text: str) -> str:
        return self._terminal.paint(text, "dim")


@contextmanager
def _temporary_folder() -> Iterator[Path]:
    usual = tempfile.gettempdir()
    parent = usual if len(os.fsencode(usual)) <= FOLDER_PATH_BYTES_MAX else "/tmp"  # noqa: S108 - mkdtemp's own
    with tempfile.TemporaryDirectory(prefix="sedmad-demo-", dir=parent) as folder:
        yield Path(folder)


@contextmanager
def _terminable() -> Iterator[None]:
    """Take SIGTERM and SIGHUP for an exit, so that nodes and files go with this process."""

    def leave(number: int, _: FrameType | None) -> None:
        raise SystemExit(128 + number)

    previous = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
