from __future__ import annotations

from pathlib import Path

import pytest

from sedmad.errors import ConfigurationInvalid
from sedmad.node.bootstrap import PEERS_MAX, load_bootstrap, save_bootstrap


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    peers = {"a": ("/ip4/1.2.3.4/tcp/1", "/ip4/1.2.3.4/tcp/2"), "b": ()}
    save_bootstrap(tmp_path / "peers", peers)
    assert load_bootstrap(tmp_path / "peers") == peers
    assert (tmp_path / "peers").stat().st_mode & 0o777 == 0o600


def test_without_a_file_there_is_nobody(tmp_path: Path) -> None:
    assert load_bootstrap(tmp_path / "peers") == {}


def test_only_so_many_are_kept(tmp_path: Path) -> None:
    save_bootstrap(tmp_path / "peers", {str(number): () for number in range(PEERS_MAX + 5)})
    assert len(load_bootstrap(tmp_path / "peers")) == PEERS_MAX


@pytest.mark.parametrize("content", [b"{", b"[1]", b'{"a": 5}', b"\xff"])
def test_a_damaged_file_is_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "peers").write_bytes(content)
    with pytest.raises(ConfigurationInvalid, match="peers"):
        load_bootstrap(tmp_path / "peers")
