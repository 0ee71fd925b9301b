"""Whether a daemon could start with the settings there are."""

from __future__ import annotations

from sedmad.errors import ConfigurationInvalid
from sedmad.net.addresses import parse_announced_address, parse_listen_address
from sedmad.node.arrays import find_profile
from sedmad.node.checks.daemon import in_thread
from sedmad.node.checks.subject import Subject
from sedmad.node.checks.verdict import Finding, fail, ok
from sedmad.node.machine import disk_free_bytes, memory_total_bytes, pledge_bytes


async def check_configuration(subject: Subject) -> Finding:
    """Read all settings as a start does."""
    try:
        return await in_thread(_check, subject)
    except ConfigurationInvalid as error:
        text = ": ".join(filter(None, (error.what, error.why)))
        return fail(
            text, error.hint or f"Correct {subject.home.configuration_file}, or what SEDMAD_* variables say."
        )


def _check(subject: Subject) -> Finding:
    home = subject.home
    configuration = subject.configuration()
    find_profile(configuration.profile, home.profiles)
    for address in configuration.listen:
        parse_listen_address(address)
    for address in configuration.announce:
        parse_announced_address(address, "")
    pledge_bytes("memory", configuration.memory, memory_total_bytes())
    if home.blobs.exists():
        pledge_bytes("disk", configuration.disk, disk_free_bytes(home.blobs))
    if home.configuration_file.exists():
        return ok(f"{home.configuration_file} is valid")
    return ok("all settings are the defaults, or from the environment")
