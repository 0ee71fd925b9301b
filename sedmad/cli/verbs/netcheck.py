"""Find out what the network around this machine is like, and what that means for a node in it.

STUN servers are asked how they see this machine: those named here, else those of config.toml, and with a daemon the
public nodes of its mesh; its peers are dialled as well. It takes six seconds at most and changes nothing.
"""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from sedmad.cli.table import print_facts
from sedmad.cli.terminal import Terminal, output, printable
from sedmad.client import connect
from sedmad.home import Home

if TYPE_CHECKING:
    from sedmad.net.netcheck.findings import Findings, ServerFinding
    from sedmad.node.netchecking import Netcheck
    from sedmad.wire.messages import GetStatusResponse

_YES_NO = {True: "yes", False: "no", None: "not known"}


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--stun",
        action="append",
        metavar="HOST:PORT",
        help="a STUN server to ask; may be repeated (default: those of config.toml)",
    )


def run(arguments: argparse.Namespace) -> int:
    from sedmad.node.configuration import load_configuration
    from sedmad.node.netchecking import check_network

    home = Home.locate(arguments.home, os.environ)
    named = {} if arguments.stun is None else {"stun": arguments.stun}
    servers = load_configuration(home.configuration_file, os.environ, named).stun

    def ask_status() -> GetStatusResponse:
        with connect(arguments.home) as mesh:
            return mesh.status()

    checked = check_network(servers, ask_status)
    if arguments.json:
        from sedmad.cli.checks_contract import netcheck_document
        from sedmad.cli.json_contract import print_document

        print_document(netcheck_document(checked))
    else:
        _print(output(), checked)
    return 0


def _print(terminal: Terminal, checked: Netcheck) -> None:
    findings = checked.findings
    facts = [
        ("public address", _public_address(checked)),
        ("UDP mapping", checked.udp.mapping.value),
        ("UDP filtering", checked.udp.filtering.value),
        ("TCP mapping", checked.tcp.mapping.value),
        ("TCP filtering", checked.tcp.filtering.value),
        ("hairpin", _YES_NO[findings.hairpin]),
        ("port mapping", _port_mapping(findings)),
        ("IPv6", _ipv6(findings)),
        *((f"server {printable(server.name)}", _server(server)) for server in findings.servers),
        *(
            (
                f"relay {printable(found.peer.name)}",
                f"{_rtt(found.rtt_s)}, {found.peer.host}:{found.peer.port}",
            )
            for found in findings.peers
        ),
    ]
    print_facts(terminal, [(label, printable(value)) for label, value in facts])
    terminal.print()
    terminal.print(checked.meaning.sentence)
    if checked.meaning.advice:
        terminal.print(checked.meaning.advice)


def _public_address(checked: Netcheck) -> str:
    local_host = checked.findings.local_host
    if not checked.public_host:
        return "not known"
    if checked.public_host == local_host:
        return f"{local_host}, this machine's own"
    return f"{checked.public_host}, translated from {local_host}"


def _port_mapping(findings: Findings) -> str:
    gateway = findings.gateway
    if gateway is None:
        return "none found"
    but = f", but that is {gateway.useless}" if gateway.useless else ""
    return f"{gateway.protocol} at {gateway.external_address}{but}"


def _ipv6(findings: Findings) -> str:
    if not findings.ipv6_host:
        return "no global address"
    answered = {True: "a server answered", False: "no server answered", None: "no server to ask"}
    return f"{findings.ipv6_host}, {answered[findings.ipv6_answered]}"


def _server(server: ServerFinding) -> str:
    if not server.answered:
        return server.problem
    return f"{_rtt(server.udp_rtt_s)} over UDP, {_rtt(server.tcp_rtt_s)} over TCP"


def _rtt(seconds: float | None) -> str:
    return "no answer" if seconds is None else f"{seconds * 1000:.1f} ms"
