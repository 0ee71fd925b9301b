"""What `netcheck` and `doctor` print with --json; the rules are those of json_contract.py.

netcheck     {"public_address", "local_address", "translated", "udp": BEHAVIOUR, "tcp": BEHAVIOUR, "hairpin",
              "port_mapping": null or {"protocol", "external_address", "useless"}, "ipv6": {"address", "answered"},
              "servers": [{"server", "udp_rtt_ms", "tcp_rtt_ms", "problem"}],
              "relays": [{"name", "address", "rtt_ms"}], "reach", "sentence", "advice"}
              BEHAVIOUR is {"mapping", "filtering"}: endpoint-independent, address-dependent, address-and-port-dependent
              (RFC 4787), unknown or blocked. `reach` is dialled, punched, relayed, offline or unknown. `relays` are
              peers that were dialled; `useless` says why a mapped port cannot be dialled, or is null
doctor       {"healthy", "checks": [{"check", "grade", "finding", "fix", "needs_daemon"}]}
              `grade` is ok, warn or fail; `fix` is null where nothing is to be done
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sedmad.core.reaching.behaviour import Behaviour
    from sedmad.node.checks.verdict import Verdict
    from sedmad.node.netchecking import Netcheck


def netcheck_document(checked: Netcheck) -> dict[str, Any]:
    """Return what `netcheck` tells."""
    findings = checked.findings
    gateway = findings.gateway
    return {
        "public_address": checked.public_host or None,
        "local_address": findings.local_host or None,
        "translated": checked.public_host != findings.local_host if checked.public_host else None,
        "udp": _behaviour_document(checked.udp),
        "tcp": _behaviour_document(checked.tcp),
        "hairpin": findings.hairpin,
        "port_mapping": gateway
        and {
            "protocol": gateway.protocol,
            "external_address": gateway.external_address,
            "useless": gateway.useless or None,
        },
        "ipv6": {"address": findings.ipv6_host or None, "answered": findings.ipv6_answered},
        "servers": [
            {
                "server": server.name,
                "udp_rtt_ms": _milliseconds(server.udp_rtt_s),
                "tcp_rtt_ms": _milliseconds(server.tcp_rtt_s),
                "problem": server.problem or None,
            }
            for server in findings.servers
        ],
        "relays": [
            {
                "name": found.peer.name,
                "address": f"{found.peer.host}:{found.peer.port}",
                "rtt_ms": _milliseconds(found.rtt_s),
            }
            for found in findings.peers
        ],
        "reach": checked.meaning.reach.value,
        "sentence": checked.meaning.sentence,
        "advice": checked.meaning.advice or None,
    }


def doctor_document(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """Return what `doctor` tells."""
    return {
        "healthy": all(verdict.grade != "fail" for verdict in verdicts),
        "checks": [
            {
                "check": verdict.check,
                "grade": verdict.grade.value,
                "finding": verdict.finding,
                "fix": verdict.fix or None,
                "needs_daemon": verdict.needs_daemon,
            }
            for verdict in verdicts
        ],
    }


def _behaviour_document(behaviour: Behaviour) -> dict[str, str]:
    return {"mapping": behaviour.mapping.value, "filtering": behaviour.filtering.value}


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)
