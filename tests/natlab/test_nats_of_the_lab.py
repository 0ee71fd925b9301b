"""Every NAT of the lab behaves as it is named, measured from both of its sides."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterator

import pytest
from lab_sockets import (
    PASSES_WITHIN_S,
    WAIT_FOR_LAB_S,
    Sockets,
    can_connect,
    is_connected,
    is_silent,
    opened_sockets,
    received,
)
from nat_lab import LabError, NatLab

ANY, ADDRESS, ADDRESS_AND_PORT = "endpoint-independent", "address-dependent", "address-and-port-dependent"
# Mapping, filtering, and how external ports relate to internal ones.
AS_NAMED = {
    "full_cone": (ANY, ANY, "preserved"),
    "full_cone_shift": (ANY, ANY, "shifted"),
    "restricted": (ANY, ADDRESS, "preserved"),
    "port_restricted": (ANY, ADDRESS_AND_PORT, "preserved"),
    "port_restricted_shift": (ANY, ADDRESS_AND_PORT, "shifted"),
    "symmetric": (ADDRESS_AND_PORT, ADDRESS_AND_PORT, "random"),
}
PORT, OTHER_PORT = 26_000, 26_001
# A SYN that was lost is sent again after a second.
A_SECOND_SYN_S = 1.5


@pytest.fixture(scope="module")
def lab(lab_can_be_built: None) -> Iterator[NatLab]:
    with NatLab(wait_s=WAIT_FOR_LAB_S) as standing:
        yield standing


@pytest.fixture
def sockets() -> Iterator[Sockets]:
    with opened_sockets() as opened:
        yield opened


@pytest.mark.parametrize("kind", AS_NAMED)
def test_a_nat_maps_and_filters_as_it_is_named(lab: NatLab, kind: str) -> None:
    lab.set_nat("a", kind)
    behaviours = lab.probe("a")
    for behaviour in (behaviours["udp"], behaviours["tcp"]):
        assert (behaviour.mapping, behaviour.filtering, behaviour.ports) == AS_NAMED[kind]
        assert not behaviour.admits_unsolicited
        assert behaviour.hairpin is False


def test_a_nat_that_blocks_udp_lets_tcp_out(lab: NatLab) -> None:
    lab.set_nat("a", "udp_blocked")
    behaviours = lab.probe("a")
    assert not behaviours["udp"].passes
    assert behaviours["tcp"].passes


@pytest.mark.parametrize("kind", ["full_cone", "port_restricted_shift"])
def test_with_a_hairpin_a_neighbour_reaches_the_external_endpoint(lab: NatLab, kind: str) -> None:
    lab.set_nat("a", f"{kind},hairpin")
    for behaviour in lab.probe("a").values():
        assert behaviour.hairpin
        assert (behaviour.mapping, behaviour.filtering, behaviour.ports) == AS_NAMED[kind]


@pytest.mark.parametrize(
    ("outer", "inner", "mapping", "filtering"),
    [
        ("full_cone", "restricted", ANY, ADDRESS),
        ("symmetric", "full_cone", ADDRESS_AND_PORT, ADDRESS_AND_PORT),
    ],
)
def test_two_nats_are_as_strict_as_the_stricter(
    lab: NatLab, outer: str, inner: str, mapping: str, filtering: str
) -> None:
    lab.set_nat("a", outer)
    lab.set_nat("a-inner", inner)
    for behaviour in lab.probe("a-inner").values():
        assert (behaviour.mapping, behaviour.filtering) == (mapping, filtering)


def test_another_nat_holds_at_once_and_knows_no_mapping(lab: NatLab, sockets: Sockets) -> None:
    lab.set_nat("b", "full_cone")
    inside, relay, stranger = sockets.udp("b1", PORT), sockets.udp("relay", PORT), sockets.udp("public")
    inside.sendto(b"question", (lab.address("relay"), PORT))
    _, external = received(relay)
    stranger.sendto(b"to a cone", external)
    assert received(inside)[0] == b"to a cone"

    lab.set_nat("b", "full_cone")
    stranger.sendto(b"too late", external)
    lab.set_nat("b", "symmetric")
    inside.sendto(b"question", (lab.address("relay"), PORT))
    _, mapped_anew = received(relay)
    assert mapped_anew != external
    stranger.sendto(b"to a symmetric one", mapped_anew)
    relay.sendto(b"answer", mapped_anew)
    assert received(inside)[0] == b"answer"


def test_an_uplink_that_moves_has_another_address_and_no_mapping(lab: NatLab, sockets: Sockets) -> None:
    lab.set_nat("b", "full_cone_shift")
    inside, relay = sockets.udp("b1", PORT), sockets.udp("relay", PORT)
    inside.sendto(b"question", (lab.address("relay"), PORT))
    _, before = received(relay)
    there = lab.move("b", 77)
    try:
        relay.sendto(b"to nobody", before)
        inside.sendto(b"question", (lab.address("relay"), PORT))
        _, after = received(relay)
        assert after == (there, before[1]) == (lab.external_address("b"), before[1])
        relay.sendto(b"answer", after)
        assert received(inside)[0] == b"answer"
        assert lab.probe("b")["tcp"].ports == "shifted"
        with pytest.raises(LabError, match=r"45\.80\.1\.10 is taken"):
            lab.move("b", 10)
    finally:
        lab.move("b", 22)


def test_a_mapping_ends_when_nothing_has_used_it_for_its_time(lab: NatLab, sockets: Sockets) -> None:
    lab.set_nat("b", "full_cone,udp_timeout_s=1")
    inside, relay, stranger = sockets.udp("b1", PORT), sockets.udp("relay", PORT), sockets.udp("public")
    inside.sendto(b"question", (lab.address("relay"), PORT))
    _, external = received(relay)
    relay.sendto(b"answer", external)
    assert received(inside)[0] == b"answer"

    assert is_silent(inside, for_s=1.6)
    relay.sendto(b"late answer", external)
    stranger.sendto(b"late", external)
    inside.sendto(b"question", (lab.address("relay"), PORT))
    received(relay)
    relay.sendto(b"second answer", external)
    assert received(inside)[0] == b"second answer"


def test_a_stray_syn_meets_silence_or_a_reset(lab: NatLab, sockets: Sockets) -> None:
    external = (lab.external_address("b"), PORT)
    lab.set_nat("b", "port_restricted,reject")
    assert not can_connect(sockets.tcp("public"), external)
    lab.set_nat("b", "port_restricted")
    silent = sockets.tcp("public")
    silent.setblocking(False)
    silent.connect_ex(external)
    assert is_silent(silent, for_s=0.2)


@pytest.mark.parametrize(("kind", "connects"), [("port_restricted", True), ("symmetric", False)])
def test_tcp_is_opened_from_both_sides_where_ports_are_foreseen(
    lab: NatLab, sockets: Sockets, kind: str, connects: bool
) -> None:
    """Simultaneous open (RFC 9293, 3.5), each side's SYN making way for the other's."""
    lab.set_nat("a", kind)
    lab.set_nat("b", kind)
    ends = {site: sockets.tcp(f"{site}1", PORT) for site in ("a", "b")}
    for site, other in (("a", "b"), ("b", "a")):
        ends[site].setblocking(False)
        ends[site].connect_ex((lab.external_address(other), PORT))
    within_s = PASSES_WITHIN_S if connects else A_SECOND_SYN_S
    assert is_connected(ends["a"], within_s) is connects
    assert is_connected(ends["b"], PASSES_WITHIN_S if connects else 0) is connects


def test_hosts_of_one_lan_reach_each_other_and_none_reaches_another_lan(
    lab: NatLab, sockets: Sockets
) -> None:
    sockets.listening("a2", PORT)
    sockets.listening("b1", PORT)
    assert can_connect(sockets.tcp("a1"), (lab.address("a2"), PORT))
    assert not can_connect(sockets.tcp("a1"), (lab.address("b1"), PORT))


def test_nothing_leaves_the_lab(lab: NatLab, sockets: Sockets) -> None:
    """Addresses of the world are unreachable from every host."""
    for host in ("a1", "relay"):
        assert not can_connect(sockets.tcp(host), ("192.0.2.1", 80))


def test_a_port_that_is_asked_for_is_open_to_strangers(lab: NatLab, sockets: Sockets) -> None:
    missing = [program for program in ("miniupnpd", "natpmpc") if shutil.which(program) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed")
    lab.set_nat("a", "symmetric,upnp")
    listener = sockets.listening("a1", PORT)
    mapped = lab.run("a1", ["natpmpc", "-g", "10.0.1.1", "-a", str(OTHER_PORT), str(PORT), "tcp", "300"])
    assert mapped.returncode == 0, mapped.stdout + mapped.stderr
    external = (lab.external_address("a"), OTHER_PORT)
    stranger = sockets.tcp("public")
    assert can_connect(stranger, external)
    connection, sender = listener.accept()
    connection.close()
    assert sender[0] == lab.address("public")

    lab.set_nat("a", "symmetric,reject")
    assert not can_connect(sockets.tcp("public"), external)


def test_a_command_runs_on_its_host_as_a_process_of_its_own(lab: NatLab) -> None:
    done = lab.run("a3", ["ip", "-brief", "-4", "address", "show", "dev", "eth0"])
    assert lab.address("a3") in done.stdout
    with pytest.raises(LabError, match="no host nowhere"):
        lab.run("nowhere", ["true"])


def test_the_machine_itself_has_nothing_of_the_lab(lab: NatLab) -> None:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as outside,
        pytest.raises(OSError, match="Cannot assign requested address"),
    ):
        outside.bind((lab.address("relay"), 0))
