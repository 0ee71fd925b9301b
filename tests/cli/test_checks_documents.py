"""What `netcheck` and `doctor` print, compared with files; and what they do without a daemon."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from fake_daemon import FakeDaemon

from sedmad.cli.main import main
from sedmad.core.reaching.behaviour import Behaviour, Dependence
from sedmad.core.reaching.sentence import Meaning, Reach
from sedmad.net.netcheck.findings import Findings, GatewayFinding, Peer, PeerFinding, ServerFinding
from sedmad.net.stun.client import Binding
from sedmad.net.stun.endpoint import Endpoint
from sedmad.node import netchecking
from sedmad.node.checks import examination
from sedmad.node.checks.subject import Subject
from sedmad.node.checks.verdict import Grade, Verdict
from sedmad.node.netchecking import Netcheck
from sedmad.wire import messages as wire

Golden = Callable[[str, str], None]
Capture = pytest.CaptureFixture[str]

SERVER = Endpoint(ipaddress.ip_address("45.80.1.10"), 3478)
MAPPED = Endpoint(ipaddress.ip_address("45.80.1.21"), 62001)
BEHIND_A_NAT = Netcheck(
    Findings(
        servers=(
            ServerFinding(
                "stun.example.org:3478",
                SERVER,
                Binding(MAPPED, SERVER, SERVER, None),
                0.0125,
                Binding(MAPPED, SERVER, SERVER, None),
                0.0251239,
            ),
            ServerFinding("45.80.1.11:3478", problem="it gave no answer"),
        ),
        peers=(
            PeerFinding(Peer("beta\x1b[1m", "45.80.1.50", 4717), 0.0205),
            PeerFinding(Peer("gamma", "10.0.2.2", 4717), None),
        ),
        local_host="10.0.1.2",
        hairpin=False,
        ipv6_host="2001:db8::7",
        ipv6_answered=False,
        gateway=GatewayFinding(
            "nat-pmp", "10.0.0.2", "a private address: there is another NAT behind the gateway"
        ),
    ),
    Behaviour(Dependence.ENDPOINT_INDEPENDENT, Dependence.ADDRESS_AND_PORT),
    Behaviour(Dependence.ENDPOINT_INDEPENDENT, Dependence.UNKNOWN),
    "45.80.1.21",
    Meaning(
        Reach.PUNCHED, "This node is behind a NAT that can be punched.", "To be dialled by all: open a port."
    ),
)
VERDICTS = [
    Verdict("configuration", Grade.OK, "all settings are the defaults, or from the environment"),
    Verdict(
        "identity-permissions",
        Grade.FAIL,
        "others can read /home/x/identity.key",
        "chmod 600 /home/x/identity.key",
    ),
    Verdict(
        "clock-skew",
        Grade.WARN,
        "not checked: no daemon",
        "Start the daemon with: sedmad start",
        needs_daemon=True,
    ),
]


@pytest.mark.parametrize("form", ["json", "txt"])
def test_netcheck(
    home: Path, capsys: Capture, golden: Golden, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    monkeypatch.setattr(netchecking, "check_network", lambda servers, status: BEHIND_A_NAT)
    assert main(["netcheck", *(["--json"] if form == "json" else [])]) == 0
    captured = capsys.readouterr()
    assert "\x1b" not in captured.out
    golden(f"netcheck.{form}", captured.out)
    assert not captured.err


def test_what_others_rely_on_in_netcheck(
    home: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(netchecking, "check_network", lambda servers, status: BEHIND_A_NAT)
    main(["netcheck", "--json"])
    document = json.loads(capsys.readouterr().out)
    assert document["udp"] == {"mapping": "endpoint-independent", "filtering": "address-and-port-dependent"}
    assert (document["public_address"], document["translated"], document["reach"]) == (
        "45.80.1.21",
        True,
        "punched",
    )
    assert [relay["rtt_ms"] for relay in document["relays"]] == [20.5, None]


def test_netcheck_asks_whom_it_is_told_to_and_knows_the_peers_of_a_daemon(
    mesh_of_three: FakeDaemon, home: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[tuple[str, ...], list[str]]] = []

    def check_network(servers: tuple[str, ...], ask_status: Callable[[], wire.GetStatusResponse]) -> Netcheck:
        asked.append((servers, [peer.name for peer in ask_status().peers]))
        return BEHIND_A_NAT

    monkeypatch.setattr(netchecking, "check_network", check_network)
    (home / "config.toml").write_text('stun = ["stun.example.org"]')
    assert main(["netcheck"]) == 0
    assert main(["netcheck", "--stun", "192.0.2.1:3478", "--stun", "192.0.2.2:1"]) == 0
    assert asked == [
        (("stun.example.org",), ["beta", "gamma"]),
        (("192.0.2.1:3478", "192.0.2.2:1"), ["beta", "gamma"]),
    ]
    assert main(["netcheck", "--stun", "stun://x:1"]) == 78
    assert "names no STUN server" in capsys.readouterr().err


@pytest.mark.parametrize("form", ["json", "txt"])
def test_doctor(
    home: Path, capsys: Capture, golden: Golden, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    monkeypatch.setattr(examination, "examine_node", lambda home, environ, ask_status: VERDICTS)
    assert main(["doctor", *(["--json"] if form == "json" else [])]) == 1
    captured = capsys.readouterr()
    golden(f"doctor.{form}", captured.out)
    assert not captured.err


@pytest.mark.parametrize(("grade", "code"), [(Grade.OK, 0), (Grade.WARN, 0), (Grade.FAIL, 1)])
def test_doctor_fails_where_a_check_does(
    home: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch, grade: Grade, code: int
) -> None:
    verdicts = [Verdict("relay", grade, "so it is")]
    monkeypatch.setattr(examination, "examine_node", lambda home, environ, ask_status: verdicts)
    assert main(["doctor", "--json"]) == code
    document = json.loads(capsys.readouterr().out)
    assert document["healthy"] is (code == 0)
    assert document["checks"] == [
        {"check": "relay", "grade": grade, "finding": "so it is", "fix": None, "needs_daemon": False}
    ]


def test_doctor_names_every_check_with_a_daemon(
    mesh_of_three: FakeDaemon, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The home is that of a daemon that was never initialised: its keys are missing."""

    async def examine_network(servers: tuple[str, ...], status: wire.GetStatusResponse | None) -> Netcheck:
        assert status is not None
        return BEHIND_A_NAT

    monkeypatch.setattr(examination, "Subject", partial(Subject, examine=examine_network))
    # It would keep what capsys closes afterwards.
    monkeypatch.setattr(examination, "configure_log", lambda level: None)
    assert main(["doctor", "--json"]) == 1
    checks = {check["check"]: check for check in json.loads(capsys.readouterr().out)["checks"]}
    assert list(checks) == list(examination.CHECKS)
    assert not any(check["needs_daemon"] for check in checks.values())
    assert checks["identity-permissions"]["grade"] == "fail"
    assert "the clock of beta is 1 h ahead" in checks["clock-skew"]["finding"]
    assert checks["relay"]["grade"] == "ok"
