"""A gateway that opens ports when it is asked: Debian's miniupnpd, by UPnP-IGD and NAT-PMP.

Its process belongs to the gateway: it ends when the gateway gets another NAT, and when the lab is taken down.
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from contextlib import suppress
from pathlib import Path

from nat_lab.errors import LabError
from nat_lab.lock import FOLDER
from nat_lab.namespaces import inside, namespace, run
from nat_lab.topology import LAN, WAN, Site

NAT_PMP_PORT, HTTP_PORT = 5351, 5555
# The shortest lease that it grants; tests of renewal wait for one.
LEASE_S_MIN = 5
READY_TIMEOUT_S, END_TIMEOUT_S, POLL_S = 10.0, 10.0, 0.02


def configuration(site: Site) -> str:
    """Return what a site's miniupnpd reads. The chains are those that `rules` makes."""
    settings = {
        "ext_ifname": WAN,
        "listening_ip": LAN,
        "http_port": HTTP_PORT,
        "ipv6_disable": "yes",
        "enable_upnp": "yes",
        "enable_natpmp": "yes",
        "secure_mode": "yes",  # a host may open ports to itself alone
        "min_lifetime": LEASE_S_MIN,
        "uuid": "00000000-0000-4000-8000-000000000000",
        "upnp_table_name": "filter",
        "upnp_nat_table_name": "filter",
        "upnp_forward_chain": "miniupnpd",
        "upnp_nat_chain": "prerouting_miniupnpd",
        "upnp_nat_postrouting_chain": "postrouting_miniupnpd",
    }
    lines = [f"{name}={value}" for name, value in settings.items()]
    lines += [f"allow 1024-65535 {site.lan} 1024-65535", "deny 0-65535 0.0.0.0/0 0-65535"]
    return "\n".join(lines) + "\n"


def start(site: Site) -> None:
    """Have a site's gateway open ports from now on; its rules must have the chains for it.

    Raises:
        LabError: miniupnpd is not installed, or does not serve.
    """
    if shutil.which("miniupnpd") is None:
        raise LabError("opening ports needs miniupnpd: apt-get install miniupnpd miniupnpd-nftables")
    path = FOLDER / f"miniupnpd-{site.name}.conf"
    path.write_text(configuration(site), "ascii")
    run(*inside(site.gateway, ("miniupnpd", "-f", str(path), "-P", str(_pid_path(site)))))
    until = time.monotonic() + READY_TIMEOUT_S
    while not _serves(site):
        if time.monotonic() > until:
            raise LabError(f"miniupnpd does not serve at {site.gateway}; the system's log says why")
        time.sleep(POLL_S)


def stop(site: Site) -> None:
    """Have a site's gateway open no ports any more; nothing where it does not."""
    while (pid := _pid(site)) is not None:
        until = time.monotonic() + END_TIMEOUT_S
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        while _pid(site) == pid:
            if time.monotonic() > until:
                raise LabError(f"miniupnpd does not end at {site.gateway}")
            time.sleep(POLL_S)
    _pid_path(site).unlink(missing_ok=True)


def _pid_path(site: Site) -> Path:
    return FOLDER / f"miniupnpd-{site.name}.pid"


def _pid(site: Site) -> int | None:
    """Return the process of a site's miniupnpd, or None where none runs."""
    try:
        pid = int(_pid_path(site).read_text("ascii"))
    except (FileNotFoundError, ValueError):
        return None
    # A lab that was killed leaves its file behind; by now the number may be somebody else's.
    running = run("ip", "netns", "pids", namespace(site.gateway)).split()
    return pid if str(pid) in running else None


def _serves(site: Site) -> bool:
    pid = _pid(site)
    if pid is None:
        return False
    sockets = {
        protocol: Path(f"/proc/{pid}/net/{protocol}").read_text("ascii") for protocol in ("udp", "tcp")
    }
    return f":{NAT_PMP_PORT:04X} " in sockets["udp"] and f":{HTTP_PORT:04X} " in sockets["tcp"]
