"""The command line of chaos: `scripts/chaos`, or `python -m sedmad.testing.chaos`."""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from sedmad.cli.terminal import messages, output
from sedmad.errors import SedmadError, UsageError
from sedmad.testing.chaos.faults import LONGEST_S, FaultKind
from sedmad.testing.chaos.report import document, print_report
from sedmad.testing.chaos.run import Run, Settings


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print the report, and return 1 if anything was wrong or failed."""
    parser = _parser()
    options = parser.parse_args(arguments)
    settings = _settings(options)
    try:
        settings.check()
    except UsageError as error:
        parser.error(f"{error.what}: {error.why}")
    folder = Path(tempfile.mkdtemp(prefix="sedmad-chaos-"))
    teller = Teller()
    run = Run(settings, folder, teller.tell)
    try:
        run.run(lambda: teller.show(run))
    except (SedmadError, KeyboardInterrupt) as error:
        teller.tell(f"{str(error) or 'interrupted'}\nHomes and logs of the daemons are in {folder}")
        return 1
    report = document(
        run.history,
        [entry.number for entry in run.catalogue.steady],
        run.logged_errors(),
        run.repairs,
        seed=settings.seed,
        nodes=settings.nodes,
        survive=settings.survive,
    )
    if options.report:
        Path(options.report).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    teller.clear()
    print_report(output(), report, run.history)
    if run.history.is_clean and not options.keep:
        shutil.rmtree(folder, ignore_errors=True)
        return 0
    print(f"\nHomes and logs of the daemons are in {folder}")
    return 0 if run.history.is_clean else 1


class Teller:
    """Tells what happens on stderr, with a line below that changes in place on a terminal."""

    def __init__(self) -> None:
        self._terminal = messages()

    def tell(self, text: str) -> None:
        self.clear()
        print(text, file=self._terminal.stream, flush=True)

    def show(self, run: Run) -> None:
        """Show how far a run is."""
        if not self._terminal.is_terminal:
            return
        history = run.history
        line = (
            f"{history.elapsed_s():6.1f} s  {history.product_count():,} products, {history.counts['wrong']} wrong, "
            f"{history.counts['failed']} failed, {len(history.injuries)} faults  {history.under_way()}"
        )
        columns = shutil.get_terminal_size().columns
        print(f"\r\x1b[K{line[: columns - 1]}", end="", file=self._terminal.stream, flush=True)

    def clear(self) -> None:
        """Remove the line that changes."""
        if self._terminal.is_terminal:
            print("\r\x1b[K", end="", file=self._terminal.stream, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/chaos",
        description="Real daemons under load, with faults drawn from a seed; every answer is checked.",
    )
    parser.add_argument("--nodes", type=int, default=5, metavar="N", help="daemons (default 5)")
    parser.add_argument(
        "--seconds", type=float, metavar="S", help="how long (default 300 without --products)"
    )
    parser.add_argument("--products", type=int, metavar="N", help="or until so many products are done")
    parser.add_argument(
        "--fault-every", type=float, default=60.0, metavar="S", help="seconds between faults (default 60)"
    )
    parser.add_argument("--seed", type=int, default=0, help="the same seed, the same faults (default 0)")
    parser.add_argument(
        "--faults",
        type=_kinds,
        default=tuple(FaultKind),
        metavar="KIND,...",
        help=f"of {', '.join(FaultKind)} (default all); none for a quiet run",
    )
    parser.add_argument("--survive", type=int, default=1, metavar="N", help="of all matrices (default 1)")
    parser.add_argument(
        "--in-flight", type=int, default=4, metavar="N", help="products at a time per client (default 4)"
    )
    parser.add_argument(
        "--clients", type=int, default=1, metavar="N", help="one (default) is at a node that is never hit"
    )
    parser.add_argument(
        "--at-once", type=int, default=1, metavar="N", help="faults under way at a time (default 1)"
    )
    parser.add_argument(
        "--longest-fault", type=float, default=LONGEST_S, metavar="S", help=f"seconds (default {LONGEST_S:g})"
    )
    parser.add_argument("--report", metavar="FILE.json", help="write the report there, too")
    parser.add_argument("--keep", action="store_true", help="keep homes and logs of a clean run, too")
    return parser


def _settings(options: argparse.Namespace) -> Settings:
    endless = float("inf")
    seconds = options.seconds or (endless if options.products else 300.0)
    return Settings(
        nodes=options.nodes,
        seconds=seconds,
        products=options.products or endless,
        fault_every_s=options.fault_every,
        seed=options.seed,
        kinds=options.faults,
        survive=options.survive,
        in_flight=options.in_flight,
        clients=options.clients,
        at_once=options.at_once,
        longest_s=options.longest_fault,
    )


def _kinds(text: str) -> tuple[FaultKind, ...]:
    try:
        return tuple(FaultKind(word) for word in text.split(",") if word not in ("", "none"))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{error}; there are {', '.join(FaultKind)}") from error


if __name__ == "__main__":
    # Daemons are ended in order by whatever ends this process, if it can be caught.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
