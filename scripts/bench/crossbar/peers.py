#!/usr/bin/env python
"""Public simulators of crossbars beside ours, on the same work: one thread, medians, ratios within one run.

    scripts/bench/crossbar/peers.py [--install] [--rounds 9] [--quick] [--write crossbar/README.md]

The work: 1024 x 1024 weights on arrays of 128 x 128, 8 bits in and out, programming and read noise on; 1 vector and
64. Programming: 4096 x 4096 weights. `--install` makes a virtual environment for the peers under the user's cache
folder, never in that of the project; CrossSim is no package: set CROSSSIM_DIR to a checkout of 3.2.0. badcrossbar,
which solves wires and nothing else, is beside our solvers in irdrop.py. Each contender
runs in a process of its own (this file with `--contender`), measures itself a little whenever it is its turn, and
rests while the others do, so that the load of the machine weighs on all alike.

Before a noisy peer is timed, two of its products of one vector must differ. JSON lines on stdout, Markdown to the
section `peers` of `--write`, or to stderr.
"""

from __future__ import annotations

import os

for _pool in ("OPENBLAS", "OMP", "MKL", "NUMBA"):
    os.environ[f"{_pool}_NUM_THREADS"] = "1"  # before numpy: pools of threads fight over the same cores

import argparse  # noqa: E402
import json  # noqa: E402
import statistics  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
from dataclasses import dataclass  # noqa: E402
from pathlib import Path  # noqa: E402

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

PACKAGES = ("torch==2.13.0", "aihwkit==1.1.0", "aihwkit-lightning==2.1.0", "numba>=0.61", "numpy>=2", "scipy")
UNDRAWN = ("badcrossbar==1.1.0",)  # without its dependency on cairo, which it only draws with
UNDRAWN_NEEDS = ("pathvalidate", "sigfig")
FIGURES = ("1 vector", "64 vectors", "program 4096")


@dataclass(frozen=True, slots=True)
class Contender:
    """Who takes part: what it simulates of the work and what it does not."""

    name: str
    does: str
    ours: bool = False


CONTENDERS = (
    Contender("sgemm", "numpy's float32 product: nothing simulated, the limit", ours=True),
    Contender(
        "sedmad",
        "programming noise of every device; one Gaussian a bit line and read with the variance of its devices; DAC, "
        "ADC for each of 8 x 8 tiles",
        ours=True,
    ),
    Contender(
        "aihwkit",
        "1.1.0, C++ tile: programming noise (Wan 2022), one Gaussian an output and read from weight noise, "
        "DAC, ADC, 8 x 8 tiles; no wires, no faults",
    ),
    Contender(
        "aihwkit-torch",
        "1.1.0, torch tile: programming noise (Wan 2022), constant output noise, DAC, ADC, 8 x 8 tiles; no wires, "
        "no faults",
    ),
    Contender(
        "lightning",
        "aihwkit-lightning 2.1.0: tiles along inputs only (8, not 64), constant output noise and only in training "
        "mode, DAC, ADC; no programming of devices",
    ),
    Contender(
        "crosssim", "3.2.0: draws every device at every read, DAC, ADC, programming errors; can solve wires"
    ),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--install", action="store_true", help="install the peers into the user's cache first"
    )
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--quick", action="store_true", help="three rounds, no programming: about a minute")
    parser.add_argument("--write", type=Path, help="the document whose section 'peers' is replaced")
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.contender:
        from contenders import answer

        answer(arguments.contender)
        return
    if arguments.install:
        install()
    rounds = 3 if arguments.quick else arguments.rounds
    samples, skipped = compete(rounds, () if arguments.quick else ("program 4096",))
    text = told(samples, skipped, rounds)
    if arguments.write is None:
        print(text, file=sys.stderr)
    else:
        from tables import write_section

        write_section(arguments.write, "peers", text)


def home() -> Path:
    """Return the folder of the peers' virtual environment."""
    import platformdirs

    return Path(platformdirs.user_cache_dir("sedmad")) / "peers"


def install() -> None:
    """Make the peers' virtual environment; one that cannot be installed is told and left out."""
    subprocess.run([sys.executable, "-m", "venv", str(home())], check=True)
    pip = [str(home() / "bin/pip"), "install", "--quiet"]
    for command in ([*pip, *PACKAGES], [*pip, "--no-deps", *UNDRAWN], [*pip, *UNDRAWN_NEEDS]):
        if subprocess.run(command, check=False).returncode:
            print(f"could not install: {' '.join(command[3:])}", file=sys.stderr)


class Process:
    """A contender in a process of its own: it is asked for a figure by a line, and answers with JSON."""

    def __init__(self, contender: Contender) -> None:
        python = sys.executable if contender.ours else str(home() / "bin/python")
        self._process = subprocess.Popen(
            [python, "-W", "ignore", __file__, "--contender", contender.name],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip

    def ask(self, question: str) -> dict[str, object]:
        """Return the answer; one with "error" if there is none."""
        try:
            print(question, file=self._process.stdin, flush=True)
            for line in self._process.stdout or ():
                if line.startswith("{"):  # libraries print other things
                    return dict(json.loads(line))
        except BrokenPipeError:
            pass
        return {"error": f"ended with code {self._process.wait()}"}

    def end(self) -> None:
        self._process.kill()
        self._process.wait()


def compete(rounds: int, slow: tuple[str, ...]) -> tuple[dict[str, dict[str, list[float]]], dict[str, str]]:
    """Return the seconds of every figure of every contender, and why others were skipped."""
    from figures import report

    samples: dict[str, dict[str, list[float]]] = {}
    skipped: dict[str, str] = {}
    ready: dict[str, Process] = {}
    for contender in CONTENDERS:
        if not contender.ours and not (home() / "bin/python").exists():
            skipped[contender.name] = "not installed: run with --install"
            continue
        process = Process(contender)
        state = process.ask("ready")
        if "error" in state:
            skipped[contender.name] = str(state["error"])
            process.end()
            continue
        report("peers", "ready", contender=contender.name, **state)
        ready[contender.name], samples[contender.name] = process, {}
    for figure in ("1 vector", "64 vectors"):
        for _ in range(rounds):
            for name, process in ready.items():
                answer = process.ask(figure)
                if "seconds" in answer:
                    samples[name].setdefault(figure, []).extend(answer["seconds"])
    for figure in slow:
        for name, process in ready.items():
            answer = process.ask(figure)
            if "seconds" in answer:
                samples[name][figure] = list(answer["seconds"])
    for process in ready.values():
        process.end()
    return samples, skipped


def told(samples: dict[str, dict[str, list[float]]], skipped: dict[str, str], rounds: int) -> str:
    """Report medians and ratios, and return them as Markdown."""
    from figures import report
    from tables import table

    medians = {
        name: {figure: statistics.median(seconds) for figure, seconds in found.items()}
        for name, found in samples.items()
    }
    rows = []
    for contender in CONTENDERS:
        found = medians.get(contender.name)
        if found is None:
            continue
        cells = []
        for figure in FIGURES:
            if figure not in found:
                cells += ["", ""]
                continue
            ratio = found[figure] / medians["sedmad"][figure]
            cells += [f"{found[figure] * 1e3:.3g}", f"{ratio:.2f}" if ratio < 10 else f"{ratio:.0f}"]
            report("peers", figure, contender=contender.name, ms=found[figure] * 1e3, times_ours=ratio)
        rows.append([contender.name, *cells])
    heads = [head for figure in FIGURES for head in (f"{figure}, ms", "/ ours")]
    lines = [table(["", *heads], rows), "", "What each does and does not simulate here:", ""]
    lines += [f"- **{one.name}**: {one.does}." for one in CONTENDERS if one.name not in skipped]
    lines += [f"- {name} was skipped: {why}." for name, why in skipped.items()]
    lines += [
        "",
        f"One thread, medians of {rounds} rounds in which all take turns, load average {os.getloadavg()[0]:.1f}.",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
