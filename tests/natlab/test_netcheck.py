"""`sedmad netcheck` finds out what every NAT of the lab is, from a host behind it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lab_sockets import WAIT_FOR_LAB_S
from nat_lab import KINDS, NatLab
from nat_lab.topology import RELAY

SERVERS = Path(__file__).with_name("stun_servers.py")
PORT, OTHER_PORT = 3478, 3479
# Six seconds, and Python's start on a busy machine.
ENDS_WITHIN_S = 30.0


@pytest.fixture(scope="module")
def lab(lab_can_be_built: None) -> Iterator[NatLab]:
    """A lab with a STUN server on the relay, which has two addresses."""
    with NatLab(wait_s=WAIT_FOR_LAB_S) as standing:
        hosts = ",".join(str(address.ip) for address in RELAY.addresses)
        command = [sys.executable, str(SERVERS), hosts, f"{PORT},{OTHER_PORT}"]
        server = subprocess.Popen(standing.command("relay", command), stdout=subprocess.PIPE, text=True)
        try:
            assert server.stdout is not None
            assert server.stdout.readline() == "ready\n"
            yield standing
        finally:
            server.kill()
            server.wait()
            server.stdout.close()


def netcheck(lab: NatLab, host: str, home: Path, servers: tuple[str, ...] = ()) -> dict[str, Any]:
    """Run it on a host; by default it asks the relay."""
    named = servers or (f"{lab.address('relay')}:{PORT}",)
    options = [option for server in named for option in ("--stun", server)]
    command = [sys.executable, "-m", "sedmad.cli.main", "--home", str(home), "netcheck", "--json", *options]
    done = lab.run(host, command, timeout_s=ENDS_WITHIN_S)
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


@pytest.mark.parametrize("kind", [kind for kind in KINDS if KINDS[kind].passes_udp])
def test_a_nat_is_called_by_its_kind(lab: NatLab, tmp_path: Path, kind: str) -> None:
    lab.set_nat("a", kind)
    found = netcheck(lab, "a1", tmp_path)
    assert found["udp"] == {"mapping": KINDS[kind].mapping, "filtering": KINDS[kind].filtering}
    assert found["tcp"] == {"mapping": KINDS[kind].mapping, "filtering": "unknown"}
    assert (found["public_address"], found["local_address"]) == (
        lab.external_address("a"),
        lab.address("a1"),
    )
    assert found["translated"]
    assert found["hairpin"] is False
    assert found["port_mapping"] is None
    assert found["reach"] == ("relayed" if kind == "symmetric" else "punched")


def test_blocked_udp_is_told_from_a_network_that_is_not_there(lab: NatLab, tmp_path: Path) -> None:
    lab.set_nat("a", "udp_blocked")
    found = netcheck(lab, "a1", tmp_path)
    assert found["udp"] == {"mapping": "blocked", "filtering": "blocked"}
    assert found["tcp"]["mapping"] == "endpoint-independent"
    assert found["reach"] == "punched"
    assert "UDP is blocked" in found["sentence"]

    nowhere = netcheck(lab, "a1", tmp_path, (f"{lab.address('public')}:{PORT}",))
    assert nowhere["reach"] == "offline"
    assert nowhere["udp"]["mapping"] == nowhere["tcp"]["mapping"] == "unknown"


@pytest.mark.parametrize("kind", ["full_cone", "port_restricted_shift"])
def test_a_hairpin_is_found(lab: NatLab, tmp_path: Path, kind: str) -> None:
    lab.set_nat("a", f"{kind},hairpin")
    found = netcheck(lab, "a1", tmp_path)
    assert found["hairpin"] is True
    assert found["udp"]["filtering"] == KINDS[kind].filtering


def test_a_router_that_maps_ports_is_found(lab: NatLab, tmp_path: Path) -> None:
    if shutil.which("miniupnpd") is None:
        pytest.skip("needs miniupnpd: apt-get install miniupnpd-nftables")
    lab.set_nat("a", "symmetric,upnp")
    found = netcheck(lab, "a1", tmp_path)
    assert found["port_mapping"]["external_address"] == lab.external_address("a")
    assert found["port_mapping"]["useless"] is None
    assert found["reach"] == "dialled"


def test_two_nats_are_as_strict_as_the_stricter(lab: NatLab, tmp_path: Path) -> None:
    lab.set_nat("a", "symmetric")
    lab.set_nat("a-inner", "full_cone")
    found = netcheck(lab, "a3", tmp_path)
    assert found["udp"]["mapping"] == found["udp"]["filtering"] == "address-and-port-dependent"
    assert found["public_address"] == lab.external_address("a")


def test_a_public_host_can_be_dialled(lab: NatLab, tmp_path: Path) -> None:
    found = netcheck(lab, "public", tmp_path)
    assert found["translated"] is False
    assert found["udp"] == {"mapping": "endpoint-independent", "filtering": "endpoint-independent"}
    assert found["reach"] == "dialled"
    assert found["hairpin"] is None


def test_two_servers_with_an_address_each_tell_as_much_of_mapping(lab: NatLab, tmp_path: Path) -> None:
    lab.set_nat("a", "symmetric")
    first, second = (str(address.ip) for address in RELAY.addresses)
    found = netcheck(lab, "a1", tmp_path, (f"{first}:{PORT}", f"{second}:{PORT}", f"{first}:9"))
    assert found["udp"]["mapping"] == "address-and-port-dependent"
    assert [server["problem"] for server in found["servers"]] == [None, None, "it gave no answer"]
