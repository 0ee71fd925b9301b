"""List the device profiles that a node's simulated crossbar arrays can have.

Your own are TOML files in the folder `profiles` of the home; `sedmad start --profile NAME` takes any of them.
"""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING, Any

from sedmad.cli import json_contract
from sedmad.cli.table import Cell, Column, print_table
from sedmad.cli.terminal import output, printable
from sedmad.home import Home

if TYPE_CHECKING:
    from crossbar.devices import DeviceProfile


def configure(parser: argparse.ArgumentParser) -> None:
    pass


def run(arguments: argparse.Namespace) -> int:
    from sedmad.node.arrays import list_profiles

    profiles = list_profiles(Home.locate(arguments.home, os.environ).profiles)
    if arguments.json:
        json_contract.print_document({"profiles": [_document(profile) for profile in profiles]})
        return 0
    columns = [
        Column("PROFILE"),
        Column("WINDOW", right=True),
        Column("DAC", right=True),
        Column("ADC", right=True),
        Column("ARRAY", right=True),
        Column("WHAT IT IS"),
    ]
    rows: list[list[str | Cell]] = [
        [
            Cell(printable(profile.name), "bold"),
            _window(profile),
            _bits(profile.dac_bits),
            _bits(profile.adc_bits),
            f"{profile.rows} x {profile.columns}",
            printable(profile.description),
        ]
        for profile in profiles
    ]
    print_table(output(), columns, rows)
    return 0


def _document(profile: DeviceProfile) -> dict[str, Any]:
    """Return PROFILE; conductances in siemens, null where there is no converter."""
    return {
        "name": profile.name,
        "description": profile.description,
        "source": profile.source,
        "conductance_min_siemens": profile.conductance_min_siemens,
        "conductance_max_siemens": profile.conductance_max_siemens,
        "levels": profile.levels,
        "rows": profile.rows,
        "columns": profile.columns,
        "dac_bits": profile.dac_bits,
        "adc_bits": profile.adc_bits,
    }


def _window(profile: DeviceProfile) -> str:
    if profile.is_ideal:
        return "-"
    return f"{profile.conductance_min_siemens * 1e6:g}-{profile.conductance_max_siemens * 1e6:g} uS"


def _bits(bits: int | None) -> str:
    return "-" if bits is None else str(bits)
