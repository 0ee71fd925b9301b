"""Whom to dial before anybody is known: the peers that an invitation named, kept in the home."""

from __future__ import annotations

import json
from pathlib import Path

from sedmad.errors import ConfigurationInvalid
from sedmad.net.private_file import write_private

# The inviter and a few more; adverts tell the rest.
PEERS_MAX = 16
BOOTSTRAP_FILE = "bootstrap.json"

Peers = dict[str, tuple[str, ...]]


def save_bootstrap(path: Path, peers: Peers) -> None:
    """Write the addresses of peers by peer id."""
    kept = dict(list(peers.items())[:PEERS_MAX])
    write_private(path, json.dumps(kept, indent=2).encode() + b"\n")


def load_bootstrap(path: Path) -> Peers:
    """Return the addresses of peers by peer id; none where the mesh was made in this home.

    Raises:
        ConfigurationInvalid: the file is damaged.
    """
    if not path.exists():
        return {}
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        return {str(peer_id): tuple(map(str, addresses)) for peer_id, addresses in document.items()}
    except (ValueError, AttributeError, TypeError) as error:
        raise ConfigurationInvalid(
            f"{path} is damaged", why=str(error), hint="Join again in a new home, or restore the file."
        ) from error
