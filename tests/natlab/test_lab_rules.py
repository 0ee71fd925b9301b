"""What a NAT is like can be said in words, and what does not go together is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nat_lab import KINDS, LabError, Nat
from nat_lab.measurements import filtering_of, mapping_of
from nat_lab.rules import Dependence, rules
from nat_lab.topology import HOSTS, INTERNET_NETWORK, SITES

NOT_SYMMETRIC = st.sampled_from([kind for kind in KINDS if kind != "symmetric"])
SECONDS = st.integers(1, 10**6)


@given(kind=NOT_SYMMETRIC, hairpin=st.booleans(), reject=st.booleans(), udp=SECONDS)
def test_a_nat_is_read_as_it_was_said(kind: str, hairpin: bool, reject: bool, udp: int) -> None:
    switches = [name for name, is_on in (("hairpin", hairpin), ("reject", reject)) if is_on]
    said = ",".join([kind, *switches, f"udp_timeout_s={udp}"])
    assert Nat.parse(said) == Nat(kind, hairpin=hairpin, reject=reject, udp_timeout_s=udp)


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("conical", "no NAT of kind conical"),
        ("", "no NAT of kind"),
        ("full_cone,sharp", "sharp: unknown"),
        ("full_cone,kind", "kind: unknown"),
        ("full_cone,udp_timeout_s=soon", "sets nothing"),
        ("full_cone,udp_timeout_s", "sets nothing"),
        ("full_cone,hairpin=1", "sets nothing"),
        ("full_cone,udp_timeout_s=0", "for a second at least"),
        ("symmetric,hairpin", "no hairpin"),
    ],
)
def test_what_is_no_nat_is_refused_with_a_reason(said: str, why: str) -> None:
    with pytest.raises(LabError, match=why):
        Nat.parse(said)


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("kind", KINDS)
def test_rules_touch_tables_of_the_lab_alone(kind: str, site: str) -> None:
    text = rules(Nat(kind, upnp=True), SITES[site])
    assert "flush ruleset" not in text
    tables = {line.removeprefix("delete ").rstrip(" {") for line in text.splitlines() if "table" in line}
    assert tables == {"table ip natlab", "table inet filter"}


@pytest.mark.parametrize(
    ("ports", "mapping"),
    [
        ((7, 7, 7), Dependence.ENDPOINT_INDEPENDENT),
        ((7, 7, 8), Dependence.ADDRESS),
        ((7, 8, 9), Dependence.ADDRESS_AND_PORT),
        ((7, 8, 7), Dependence.ADDRESS_AND_PORT),
    ],
)
def test_a_mapping_is_named_by_what_three_endpoints_see(ports: tuple[int, ...], mapping: Dependence) -> None:
    assert mapping_of(ports) is mapping


def test_a_filter_is_named_by_who_gets_through() -> None:
    assert filtering_of(from_other_port=True, from_other_address=True) is Dependence.ENDPOINT_INDEPENDENT
    assert filtering_of(from_other_port=True, from_other_address=False) is Dependence.ADDRESS
    assert filtering_of(from_other_port=False, from_other_address=False) is Dependence.ADDRESS_AND_PORT


def test_the_internet_is_global_and_no_two_hosts_have_one_address() -> None:
    assert all(address.is_global for address in INTERNET_NETWORK.hosts())
    addresses = [address.ip for host in HOSTS.values() for address in host.addresses]
    addresses += [site.wan.ip for site in SITES.values()] + [site.lan_address for site in SITES.values()]
    assert len(set(addresses)) == len(addresses)
