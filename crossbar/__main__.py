"""The command line of the crossbar engine: `python -m crossbar report W.npy`, `python -m crossbar profiles`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from crossbar.threads import single_threaded_blas

single_threaded_blas()  # before numpy: it must not start threads

from crossbar.errors import CrossbarError, WeightsInvalid  # noqa: E402

if TYPE_CHECKING:
    from crossbar.engine import FloatArray

EXIT_INTERRUPTED = 130
_DTYPES = ("float16", "float32", "float64", "int8")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: those of sysexits.h, 2 where the command line is wrong."""
    parsed = _parser().parse_args(arguments)
    try:
        if parsed.command == "profiles":
            return _profiles(parsed)
        return _report(parsed)
    except CrossbarError as error:
        return _failed(error.what, error.why, error.hint, os.EX_DATAERR)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # `... | head`: whoever read has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m crossbar", description="Simulated crossbar arrays.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    listing = commands.add_parser("profiles", help="list the device profiles")
    report = commands.add_parser("report", help="plan a matrix on arrays and draw what comes of it")
    for command in (listing, report):
        command.add_argument("--folder", type=Path, help="of further profiles, one TOML file each")
    report.add_argument("matrix", type=Path, help="an .npy file: outputs x inputs")
    report.add_argument("--profile", required=True, help="of the devices: see profiles")
    report.add_argument(
        "-o", "--output", type=Path, default=Path("report.html"), help="(default: report.html)"
    )
    report.add_argument(
        "--target-error", type=float, default=0.05, help="relative, to plan for (default: 0.05)"
    )
    report.add_argument("--stuck", type=float, metavar="RATE", help="of devices, half on and half off, in place "
                        "of the profile's")  # fmt: skip
    report.add_argument("--seed", type=int, default=0, help="of the simulated devices (default: 0)")
    return parser


def _profiles(parsed: argparse.Namespace) -> int:
    from crossbar.devices import profile, profiles

    if parsed.folder is not None and not parsed.folder.is_dir():
        return _failed(f"{parsed.folder} holds no profiles", "there is no such folder",
                       "Leave --folder out for the built-in ones.", os.EX_NOINPUT)  # fmt: skip
    names = profiles(parsed.folder)
    wide = max(len(name) for name in names)
    print(f"{'profile':<{wide}}  {'window, uS':>13}  {'array':>9}  {'DAC/ADC':>7}  description")
    for name, description in names.items():
        found = profile(name, parsed.folder)
        window = f"{found.conductance_min_siemens * 1e6:.3g}-{found.conductance_max_siemens * 1e6:.3g}"
        bits = "/".join("-" if bits is None else str(bits) for bits in (found.dac_bits, found.adc_bits))
        print(f"{name:<{wide}}  {window:>13}  {f'{found.rows}x{found.columns}':>9}  {bits:>7}  {description}")
    return 0


def _report(parsed: argparse.Namespace) -> int:
    from crossbar.devices import profile as profile_named

    profile = profile_named(parsed.profile, parsed.folder)
    if parsed.stuck is not None:
        profile = replace(profile, stuck_on_rate=parsed.stuck / 2, stuck_off_rate=parsed.stuck / 2)
    if not parsed.output.parent.is_dir():
        return _failed(f"{parsed.output} cannot be written", f"there is no folder {parsed.output.parent}",
                       "Make it, or choose another place with -o.", os.EX_CANTCREAT)  # fmt: skip
    try:
        weights = _weights(parsed.matrix)
    except OSError as error:
        return _failed(f"{parsed.matrix} cannot be read", error.strerror or str(error),
                       "Save a matrix with numpy.save(path, array).", os.EX_NOINPUT)  # fmt: skip
    from crossbar.reporting.document import page
    from crossbar.reporting.study import study

    found = study(weights, profile, parsed.target_error, seed=parsed.seed, progress=_progress)
    try:
        parsed.output.write_text(page(found, parsed.matrix.name), encoding="utf-8")
    except OSError as error:
        return _failed(f"{parsed.output} cannot be written", error.strerror or str(error),
                       "Free some space, or choose another place with -o.", os.EX_IOERR)  # fmt: skip
    _progress(f"wrote {parsed.output}")
    print(f"{found.measured.value:.4f} relative error measured, {found.budget.total:.4f} predicted, "
          f"{found.static_measured.value:.4f} without levers")  # fmt: skip
    return 0


def _weights(path: Path) -> FloatArray:
    """Return the matrix in a file as float32 or float64.

    Raises:
        OSError: the file cannot be read.
        WeightsInvalid: it is not an .npy file of a matrix, or of another dtype.
    """
    import numpy as np

    hint = "Save a matrix of float16, float32, float64 or int8 with numpy.save(path, array)."
    try:
        found = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise WeightsInvalid(
            f"{path} is not an .npy file", why=str(error).splitlines()[0], hint=hint
        ) from error
    if not isinstance(found, np.ndarray) or found.dtype.name not in _DTYPES:
        dtype = getattr(found, "dtype", "several arrays")
        raise WeightsInvalid(f"{path} cannot be put on arrays", why=f"its dtype is {dtype}", hint=hint)
    if found.ndim != 2 or not found.size:
        raise WeightsInvalid(f"{path} is not a matrix", why=f"its shape is {found.shape}", hint=hint)
    if not np.isfinite(found).all():
        raise WeightsInvalid(
            f"{path} cannot be put on arrays",
            why="some of its values are NaN or infinite",
            hint="Replace them first: numpy.nan_to_num(weights).",
        )
    precise = found.dtype == np.float64
    return np.ascontiguousarray(found, np.float64 if precise else np.float32)


def _progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _failed(what: str, why: str, hint: str, code: int) -> int:
    for label, content in (("crossbar:", what), ("why:", why), ("try:", hint)):
        if content:
            print(label, content.replace("\n", "\n" + " " * (len(label) + 1)), file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
