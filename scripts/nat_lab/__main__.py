"""The command line of the lab: `scripts/natlab`."""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import fields
from pathlib import Path

from nat_lab import cable, namespaces, topology
from nat_lab.errors import LabError
from nat_lab.lab import NatLab, command_on, set_nat, take_down
from nat_lab.link import LinkQuality
from nat_lab.lock import FOLDER
from nat_lab.measurements import Behaviour
from nat_lab.rules import KINDS, Nat, rules

READY = "ready"
# What `probe` measures at site a, besides every kind alone: the NAT of the site, and of the one behind it.
PROBED_VARIANTS = ("full_cone,hairpin", "port_restricted,hairpin", "port_restricted,reject")
PROBED_DOUBLE = (("full_cone", "port_restricted"), ("symmetric", "full_cone"))
PROBED_LINKS = (
    LinkQuality(),
    LinkQuality(delay_ms=20),
    LinkQuality(delay_ms=20, jitter_ms=5),
    LinkQuality(delay_ms=10, rate_mbit_per_s=50, queue_ms=1000),
    LinkQuality(delay_ms=10, rate_mbit_per_s=5, queue_ms=8000),
    LinkQuality(loss_percent=10),
)


def main() -> int:
    """Do what the command line says; return the exit code."""
    options = _parser().parse_args()
    act: Callable[[argparse.Namespace], None] = options.act
    try:
        act(options)
    except LabError as error:
        print(f"natlab: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/natlab", description="Networks behind NATs, on this machine."
    )
    verbs = parser.add_subparsers(title="verbs", required=True, metavar="VERB")

    up = _verb(verbs, "up", _up, "build the lab, and leave it standing")
    up.add_argument(
        "--site", action="append", default=[], metavar="SITE=NAT", help="a or b, port_restricted if not said"
    )
    up.add_argument("--foreground", action="store_true", help="take it down at Ctrl-C")
    _add_link_options(up)

    _verb(verbs, "down", _down, "take the lab down, with all that runs in its hosts")

    nat = _verb(verbs, "nat", _nat, "give a site another NAT; all mappings are forgotten")
    nat.add_argument("site", choices=topology.SITES)
    nat.add_argument(
        "nat", metavar="NAT", help=f"{', '.join(KINDS)}; or port_restricted,hairpin,udp_timeout_s=30"
    )

    link = _verb(
        verbs, "link", _link, "make the uplink of a site better or worse, in a lab that has such uplinks"
    )
    link.add_argument("site", choices=[site.name for site in topology.OUTER_SITES])
    _add_link_options(link)

    execute = _verb(verbs, "exec", _exec, "run a command on a host")
    execute.add_argument("host", choices=topology.MACHINES, metavar="HOST", help=", ".join(topology.HOSTS))
    execute.add_argument("command", nargs=argparse.REMAINDER, metavar="-- COMMAND")

    show = _verb(verbs, "rules", _rules, "print the rules of a NAT at site a")
    show.add_argument("nat", metavar="NAT")

    probe = _verb(verbs, "probe", _probe, "build a lab, and measure how each NAT in it behaves")
    probe.add_argument("--links", action="store_true", help="measure uplinks instead")
    return parser


def _verb(
    verbs: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    act: Callable[[argparse.Namespace], None],
    text: str,
) -> argparse.ArgumentParser:
    verb = verbs.add_parser(name, help=text, description=text)
    verb.set_defaults(act=act)
    return verb


def _add_link_options(parser: argparse.ArgumentParser) -> None:
    for field in fields(LinkQuality):
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=float, metavar="N")


def _quality(options: argparse.Namespace) -> LinkQuality | None:
    asked = {field.name: getattr(options, field.name) for field in fields(LinkQuality)}
    values = {name: value for name, value in asked.items() if value is not None}
    return LinkQuality(**values) if values else None


def _up(options: argparse.Namespace) -> None:
    if options.foreground:
        _keep(options)
        return
    FOLDER.mkdir(mode=0o700, parents=True, exist_ok=True)
    log_path = FOLDER / "keeper.log"
    with log_path.open("wb") as log:
        keeper = subprocess.Popen(
            [sys.executable, "-m", "nat_lab", *sys.argv[1:], "--foreground"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,
            cwd=Path(__file__).parents[1],
        )
    assert keeper.stdout is not None
    # The end of it, where it has failed.
    if keeper.stdout.readline().strip() != READY:
        raise LabError(log_path.read_text(errors="replace").strip().removeprefix("natlab: "))
    _print_table(
        ("host", "address", "behind"),
        [(host.name, str(host.addresses[0].ip), _behind(host)) for host in topology.HOSTS.values()],
    )
    print("\nscripts/natlab exec a1 -- COMMAND; scripts/natlab down")


def _keep(options: argparse.Namespace) -> None:
    """Have a lab until Ctrl-C or SIGTERM, wherever in its building that comes."""
    nats = dict(_site_and_nat(text) for text in options.site)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    with (
        suppress(KeyboardInterrupt),
        NatLab(nats.get("a", Nat()), nats.get("b", Nat()), link=_quality(options), keeps=True),
    ):
        print(READY, flush=True)
        signal.pause()


def _site_and_nat(text: str) -> tuple[str, Nat]:
    site, equals, nat = text.partition("=")
    if not equals or site not in ("a", "b"):
        raise LabError(f"--site {text} is not a=NAT or b=NAT")
    return site, Nat.parse(nat)


def _behind(host: topology.Host) -> str:
    names: list[str] = []
    switch = host.switch
    while switch != topology.INTERNET:
        site = next(site for site in topology.SITES.values() if site.gateway == switch)
        names.append(f"{site.name} ({site.wan.ip})")
        switch = site.upstream
    return ", ".join(names) or "-"


def _down(_options: argparse.Namespace) -> None:
    take_down()


def _nat(options: argparse.Namespace) -> None:
    _check_it_stands()
    set_nat(topology.site_named(options.site), Nat.parse(options.nat))


def _link(options: argparse.Namespace) -> None:
    cable.change(options.site, _quality(options) or LinkQuality())


def _exec(options: argparse.Namespace) -> None:
    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    if not command:
        raise LabError("exec needs a command: scripts/natlab exec a1 -- ip address")
    _check_it_stands()
    full = command_on(options.host, command)
    os.execvp(full[0], full)


def _check_it_stands() -> None:
    if not namespaces.existing():
        raise LabError("no lab stands: scripts/natlab up")


def _rules(options: argparse.Namespace) -> None:
    print(rules(Nat.parse(options.nat), topology.SITES["a"]), end="")


def _probe(options: argparse.Namespace) -> None:
    if options.links:
        _probe_links()
        return
    rows = []
    with NatLab() as lab:
        for text in (*KINDS, *PROBED_VARIANTS):
            lab.set_nat("a", text)
            rows += _rows(text, lab.probe("a"))
        for outer, inner in PROBED_DOUBLE:
            lab.set_nat("a", outer)
            lab.set_nat("a-inner", inner)
            rows += _rows(f"{inner} behind {outer}", lab.probe("a-inner"))
    _print_table(("NAT", "", "mapping", "filtering", "ports", "hairpin", "unsolicited"), rows)


def _rows(title: str, behaviours: dict[str, Behaviour]) -> list[tuple[str, ...]]:
    return [
        (
            title,
            protocol,
            behaviour.mapping or "blocked",
            behaviour.filtering or "-",
            behaviour.ports or "-",
            "-" if behaviour.hairpin is None else "yes" if behaviour.hairpin else "no",
            "admitted" if behaviour.admits_unsolicited else "filtered",
        )
        for protocol, behaviour in behaviours.items()
    ]


def _probe_links() -> None:
    rows = []
    with NatLab(link=LinkQuality()) as lab:
        for quality in PROBED_LINKS:
            lab.set_link("a", quality)
            found = lab.sound("a1", "relay", pings=0 if quality.loss_percent else 100, burst=3000)
            delays = [
                statistics.median(delays) if delays else 0.0 for delays in (found.there_ms, found.back_ms)
            ]
            asked = [
                f"{field.name}={value:g}"
                for field in fields(quality)
                if (value := getattr(quality, field.name))
            ]
            measured = [f"{delay:.2f}" for delay in delays]
            lost = f"{100 * (1 - found.received / found.sent):.1f}"
            rows.append((" ".join(asked), *measured, lost, f"{found.burst_mbit_per_s:.1f}"))
    _print_table(("asked for", "there, ms", "back, ms", "lost, %", "Mbit/s"), rows)


def _print_table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None:
    lines = [head, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    for line in lines:
        print("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())


if __name__ == "__main__":
    sys.exit(main())
