from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sedmad.core.membership.advert import MAX_ADDRESSES, MAX_LABEL_BYTES, MAX_LABELS, Advert
from sedmad.errors import ConfigurationInvalid
from sedmad.net.netcheck.asking import SERVERS_MAX
from sedmad.node.configuration import KEYS, Configuration, load_configuration


def load(
    tmp_path: Path, text: str = "", environ: dict[str, str] | None = None, **overrides: Any
) -> Configuration:
    path = tmp_path / "config.toml"
    if text:
        path.write_text(text)
    return load_configuration(path, environ or {}, overrides)


def test_without_anything_the_defaults_hold(tmp_path: Path) -> None:
    assert load(tmp_path) == Configuration()


def test_a_flag_beats_a_variable_beats_the_file_beats_the_default(tmp_path: Path) -> None:
    text = 'memory = "1GiB"\ndisk = "2GiB"\nlog_level = "debug"\n'
    environ = {"SEDMAD_MEMORY": "3GiB", "SEDMAD_DISK": "4GiB"}
    configuration = load(tmp_path, text, environ, memory="5GiB")
    assert configuration == Configuration(memory="5GiB", disk="4GiB", log_level="debug")


def test_every_key_can_come_from_the_file(tmp_path: Path) -> None:
    text = """
        listen = ["/ip4/0.0.0.0/tcp/1"]
        announce = ["/dns4/example.org/tcp/2"]
        memory = "1GiB"
        disk = "50%"
        log_level = "warning"
        profile = "wan2022"
        arrays = 64
        stun = ["stun.example.org:3478", "192.0.2.1"]
        [labels]
        zone = "attic"
    """
    configuration = load(tmp_path, text)
    assert configuration.listen == ("/ip4/0.0.0.0/tcp/1",)
    assert configuration.labels == {"zone": "attic"}
    assert all(getattr(configuration, key) != getattr(Configuration(), key) for key in KEYS)


def test_variables_take_lists_with_commas(tmp_path: Path) -> None:
    environ = {
        "SEDMAD_LISTEN": "/ip4/0.0.0.0/tcp/1, /ip6/::/tcp/1",
        "SEDMAD_LABELS": "zone=attic, rack = 2",
        "SEDMAD_HOME": "/somewhere",
        "SEDMAD_STUN": "stun.example.org,192.0.2.1:3478",
    }
    configuration = load(tmp_path, environ=environ)
    assert configuration.listen == ("/ip4/0.0.0.0/tcp/1", "/ip6/::/tcp/1")
    assert configuration.labels == {"zone": "attic", "rack": "2"}
    assert configuration.stun == ("stun.example.org", "192.0.2.1:3478")


@pytest.mark.parametrize(
    ("key", "nearest"), [("memry", "memory"), ("lables", "labels"), ("log-level", "log_level")]
)
def test_an_unknown_key_is_refused_and_the_nearest_named(key: str, nearest: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationInvalid, match=key) as raised:
        load(tmp_path, f'{key} = "1"')
    assert nearest in raised.value.hint


def test_a_key_near_to_none_gets_the_list(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationInvalid) as raised:
        load(tmp_path, 'xyzzy = "1"')
    assert all(key in raised.value.hint for key in KEYS)


@pytest.mark.parametrize(
    "text",
    [
        "memory = 5",
        'listen = "/ip4/0.0.0.0/tcp/1"',
        "listen = [1]",
        'labels = ["zone=attic"]',
        "labels = {zone = 3}",
        'labels = {"" = "attic"}',
        'log_level = "loud"',
        f'labels = {{zone = "{"ä" * MAX_LABEL_BYTES}"}}',
        f"listen = {['/ip4/0.0.0.0/tcp/1'] * (MAX_ADDRESSES + 1)}",
        "labels = {" + ", ".join(f'l{number} = "x"' for number in range(MAX_LABELS + 1)) + "}",
        'stun = "stun.example.org"',
        'stun = ["stun://example.org"]',
        f"stun = {['stun.example.org'] * (SERVERS_MAX + 1)}",
        "memory = ",
    ],
)
def test_a_value_of_the_wrong_kind_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationInvalid):
        load(tmp_path, text)


def test_a_label_variable_without_a_value_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationInvalid, match="zone=attic"):
        load(tmp_path, environ={"SEDMAD_LABELS": "zone"})


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.toml").mkdir()
    with pytest.raises(ConfigurationInvalid, match=r"config\.toml"):
        load(tmp_path)


def test_the_most_that_may_be_configured_fits_into_an_advert() -> None:
    labels = tuple((f"l{number:02}".ljust(MAX_LABEL_BYTES, "x"), "y") for number in range(MAX_LABELS))
    Advert(
        peer_id="p", name="n", sequence=1, labels=labels, addresses=("/ip4/1.2.3.4/tcp/1",) * MAX_ADDRESSES
    )
