"""Whether this node's keys are its own alone, and its certificate holds."""

from __future__ import annotations

import stat
from pathlib import Path

from sedmad.errors import CertificateInvalid, ConfigurationInvalid
from sedmad.net.credentials import CHAIN_FILE, ROOT_KEY_FILE, Credentials
from sedmad.net.identity import Identity
from sedmad.node.checks.daemon import in_thread
from sedmad.node.checks.subject import Subject
from sedmad.node.checks.verdict import Finding, fail, ok
from sedmad.node.clock import wall_time_s

_RESTORE = "Restore it from a backup, or have this node invited again and join from a new home."


async def check_identity(subject: Subject) -> Finding:
    """Look at the modes of secret files and of their folders, and verify the certificate.

    Raises:
        MeshMissing: there is no certificate.
    """
    return await in_thread(_check, subject)


def _check(subject: Subject) -> Finding:
    home = subject.home
    open_files = [
        path
        for path in (home.identity_key, home.certificates / CHAIN_FILE, home.certificates / ROOT_KEY_FILE)
        if not _is_closed(path)
    ]
    if open_files:
        names = " ".join(str(path) for path in open_files)
        return fail(f"others can read {names}", f"chmod 600 {names}")
    for folder in (home.data_directory, home.certificates):
        if folder.exists() and stat.S_IMODE(folder.stat().st_mode) & 0o022:
            return fail(f"others can write into {folder}", f"chmod 700 {folder}")
    try:
        credentials = Credentials.load(home.certificates)
        identity = Identity.load(home.identity_key)
        certificate = credentials.verify(identity.peer_id, credentials.chain, wall_time_s())
    except ConfigurationInvalid as error:
        return fail(f"{error.what}: {error.why}", error.hint or _RESTORE)
    except CertificateInvalid as error:
        return fail(f"the certificate does not hold: {error.why or error.what}", error.hint)
    return ok(f"{certificate.name} ({identity.peer_id}); keys are closed to others")


def _is_closed(path: Path) -> bool:
    """Whether nobody but its owner can read a file; so is one that is missing."""
    return not path.exists() or not stat.S_IMODE(path.stat().st_mode) & 0o077
