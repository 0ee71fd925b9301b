"""A member, a client and a stranger that ask, tell and answer anything: the node answers with typed errors at most."""

from __future__ import annotations

import pytest
from besieged_node import methods_served
from hypothesis import given, settings
from hypothesis import strategies as st
from mallory import BugFound, attack

from sedmad.node.certificates import Certificates
from sedmad.wire.methods import PACKAGE, services


@settings(max_examples=10)
@given(data=st.binary(min_size=600, max_size=1500))
def test_whatever_is_said_to_a_node_is_answered_or_refused(data: bytes) -> None:
    attack(data)


def test_every_method_of_the_contract_is_attacked() -> None:
    joining = {f"{PACKAGE}.JoinService/Join"}  # spoken to as a stranger does
    contract = {
        f"{PACKAGE}.{name}/{method.name}"
        for name, service in services().items()
        for method in service.methods
    }
    assert methods_served() | joining == contract


def test_an_unexpected_exception_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fails(self: Certificates, request: object, call: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(Certificates, "get_certificate", fails)
    with pytest.raises(BugFound, match="a bug"):
        # All choices are the first ones: members' first method, again and again.
        attack(bytes(200))
