"""Port mappings at a real gateway: Debian's miniupnpd, between network namespaces.

A house (one machine with two addresses) is behind a gateway with NAT; outside is one host. Their internet has addresses
of the real one, as miniupnpd accepts none of the documentation ranges; but nothing leaves the namespaces.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

Result = TypeVar("Result")

NODE = Path(__file__).with_name("mapping_node.py")
GATEWAY_OUTSIDE, STRANGER = "45.80.77.1", "45.80.77.50"
GATEWAY_INSIDE, MACHINE, SECOND_ADDRESS = "10.77.1.1", "10.77.1.2", "10.77.1.3"
PORT = 45101
# Everything here happens within a second or two; a busy machine may take longer, a broken one for ever.
PATIENCE_S = 20.0

RULES = f"""
table inet filter {{
 chain forward {{ type filter hook forward priority 0; policy drop;
  ct state established,related accept
  iifname "lan" oifname "wan" accept
  jump miniupnpd
 }}
 chain input {{ type filter hook input priority 0; policy accept;
  iifname "wan" ct state new drop
 }}
 chain prerouting {{ type nat hook prerouting priority dstnat; jump prerouting_miniupnpd; }}
 chain postrouting {{ type nat hook postrouting priority srcnat;
  jump postrouting_miniupnpd
  oifname "wan" snat ip to {GATEWAY_OUTSIDE}
 }}
 chain miniupnpd {{ }}
 chain prerouting_miniupnpd {{ }}
 chain postrouting_miniupnpd {{ }}
}}
"""

DAEMON = """
ext_ifname=wan
listening_ip=lan
enable_natpmp=yes
enable_upnp=yes
http_port=5555
min_lifetime=1
secure_mode=yes
uuid=00000000-1111-2222-3333-444444444444
allow 1024-65535 10.77.1.0/24 1024-65535
deny 0-65535 0.0.0.0/0 0-65535
upnp_table_name=filter
upnp_nat_table_name=filter
upnp_forward_chain=miniupnpd
upnp_nat_chain=prerouting_miniupnpd
upnp_nat_postrouting_chain=postrouting_miniupnpd
"""


def why_not() -> str:
    """Return why this machine cannot run a gateway, empty where it can."""
    missing = [name for name in ("ip", "nft", "miniupnpd") if not shutil.which(name)]
    if missing:
        return f"not installed: {', '.join(missing)} (Debian packages iproute2, nftables, miniupnpd)"
    if os.geteuid() != 0:
        return "network namespaces need root"
    probe = f"sedmadmap-{os.getpid()}-probe"
    made = subprocess.run(["ip", "netns", "add", probe], capture_output=True, text=True)
    subprocess.run(["ip", "netns", "delete", probe], capture_output=True)
    return f"no network namespaces: {made.stderr.strip()}" if made.returncode else ""


class House:
    """The namespaces, the gateway's daemon, and the processes in the house."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.names = {
            place: f"sedmadmap-{os.getpid()}-{place}" for place in ("gateway", "machine", "outside")
        }
        self.daemon: subprocess.Popen[bytes] | None = None

    def build(self) -> None:
        for name in self.names.values():
            run(f"ip netns add {name}")
            run(f"ip -n {name} link set lo up")
        gateway, machine, outside = self.names.values()
        run(f"ip -n {gateway} link add lan type veth peer name eth0 netns {machine}")
        run(f"ip -n {gateway} link add wan type veth peer name eth0 netns {outside}")
        for name, device, address in (
            (gateway, "lan", GATEWAY_INSIDE),
            (gateway, "wan", GATEWAY_OUTSIDE),
            (machine, "eth0", MACHINE),
            (machine, "eth0", SECOND_ADDRESS),
            (outside, "eth0", STRANGER),
        ):
            run(f"ip -n {name} address add {address}/24 dev {device}")
            run(f"ip -n {name} link set {device} up")
        run(f"ip -n {machine} route add default via {GATEWAY_INSIDE}")
        run(f"ip netns exec {gateway} sysctl -qw net.ipv4.ip_forward=1")

    def destroy(self) -> None:
        self.stop_daemon()
        for name in self.names.values():
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)

    def start_daemon(self) -> None:
        """Start the gateway's daemon, which knows of no mapping."""
        rules, settings = self.folder / "rules", self.folder / "miniupnpd.conf"
        rules.write_text(RULES)
        settings.write_text(DAEMON)
        run(f"ip netns exec {self.names['gateway']} nft flush ruleset")
        run(f"ip netns exec {self.names['gateway']} nft -f {rules}")
        command = ["ip", "netns", "exec", self.names["gateway"], "miniupnpd", "-d", "-f", settings]
        with (self.folder / "miniupnpd.log").open("ab") as log:
            self.daemon = subprocess.Popen(
                [*command, "-P", self.folder / "miniupnpd.pid"], stdout=log, stderr=log
            )
        request = bytes(2)
        wait_until(lambda: self.ask_nat_pmp(MACHINE, request) is not None)

    def stop_daemon(self) -> None:
        """Kill the gateway's daemon; its rules stay, as nobody takes them away."""
        if self.daemon is not None:
            self.daemon.kill()
            self.daemon.wait()
            self.daemon = None

    def within(self, place: str, work: Callable[[], Result]) -> Result:
        """Do something in a thread that is in a namespace; sockets opened there stay there."""
        results: list[Result] = []

        def enter_and_work() -> None:
            with open(f"/run/netns/{self.names[place]}") as namespace:
                if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), 0):
                    raise OSError(ctypes.get_errno(), "setns")
            results.append(work())

        thread = threading.Thread(target=enter_and_work)
        thread.start()
        thread.join()
        return results[0]

    def ask_nat_pmp(self, address: str, request: bytes) -> bytes | None:
        """Send a request to the gateway from one of the machine's addresses."""

        def ask() -> bytes | None:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker, contextlib.suppress(OSError):
                asker.bind((address, 0))
                asker.settimeout(0.3)
                asker.connect((GATEWAY_INSIDE, 5351))
                asker.send(request)
                return asker.recv(100)
            return None

        return self.within("machine", ask)

    def reaches(self, port: int) -> bool:
        """Whether the host outside is answered at a port of the gateway."""

        def connect() -> bool:
            with socket.socket() as caller, contextlib.suppress(OSError):
                caller.settimeout(0.5)
                caller.connect((GATEWAY_OUTSIDE, port))
                return caller.recv(10) == b"here"
            return False

        return self.within("outside", connect)


class Machine:
    """A process in the house that keeps a port mapped."""

    def __init__(self, house: House, protocol: str, lifetime_s: int, port: int) -> None:
        command = ["ip", "netns", "exec", house.names["machine"], sys.executable, NODE]
        self.process = subprocess.Popen(
            [*command, str(port), protocol, str(lifetime_s)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.states: list[dict[str, Any]] = []
        self.reader = threading.Thread(target=self._read)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.states.append(json.loads(line))

    def wait_for(self, described: Callable[[dict[str, Any]], bool], after: int = 0) -> dict[str, Any]:
        """Wait for a state that fits, not counting the first ones."""
        fitting: list[dict[str, Any]] = []

        def found() -> bool:
            fitting[:] = [state for state in self.states[after:] if described(state)]
            return bool(fitting)

        wait_until(found, lambda: str(self.states))
        return fitting[0]

    def stop(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        assert self.process.wait(PATIENCE_S) == 0

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self.reader.join()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()


Start = Callable[..., Machine]


def run(command: str) -> None:
    subprocess.run(command.split(), check=True)


def wait_until(true: Callable[[], bool], seen: Callable[[], str] = str) -> None:
    give_up_at = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < give_up_at, seen()
        time.sleep(0.05)


@pytest.fixture(scope="module")
def built_house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    if reason := why_not():
        pytest.skip(reason)
    house = House(tmp_path_factory.mktemp("house"))
    try:
        house.build()
        yield house
    finally:
        house.destroy()


@pytest.fixture
def house(built_house: House) -> Iterator[House]:
    try:
        built_house.start_daemon()
        yield built_house
    finally:
        built_house.stop_daemon()


@pytest.fixture
def start(house: House) -> Iterator[Start]:
    machines: list[Machine] = []

    def start_one(protocol: str, lifetime_s: int, port: int = PORT) -> Machine:
        machines.append(Machine(house, protocol, lifetime_s, port))
        return machines[-1]

    yield start_one
    for machine in machines:
        machine.end()


def is_mapped(state: dict[str, Any]) -> bool:
    return bool(state["address"])


def test_a_port_is_mapped_reached_renewed_and_removed_by_either_protocol(house: House, start: Start) -> None:
    ports = {"nat-pmp": PORT, "upnp": PORT + 1}
    assert not any(map(house.reaches, ports.values()))
    machines = {protocol: start(protocol, 2, port) for protocol, port in ports.items()}
    for protocol, machine in machines.items():
        state = machine.wait_for(is_mapped)
        assert (state["protocol"], state["address"]) == (protocol, [GATEWAY_OUTSIDE, ports[protocol]])
        assert state["problem"] == ""
        assert house.reaches(ports[protocol])
    for protocol, machine in machines.items():
        # Renewed at half of its life: the third renewal is after the end of the first one's.
        machine.wait_for(is_mapped, after=3)
        assert house.reaches(ports[protocol])
        machine.stop()
        assert not house.reaches(ports[protocol])


def test_what_a_killed_machine_leaves_behind_expires(house: House, start: Start) -> None:
    machine = start("nat-pmp", 1)
    machine.wait_for(is_mapped)
    machine.process.kill()
    request = struct.pack("!BBHHHI", 0, 2, 0, PORT + 50, PORT, 60)

    def is_free() -> bool:
        answer = house.ask_nat_pmp(SECOND_ADDRESS, request)
        return answer is not None and struct.unpack("!H", answer[10:12]) == (PORT,)

    wait_until(is_free)


def test_a_gateway_that_restarts_and_forgot_is_asked_again(house: House, start: Start) -> None:
    machine = start("nat-pmp", 600)
    machine.wait_for(is_mapped)
    house.stop_daemon()
    machine.wait_for(lambda state: bool(state["problem"]))
    before = len(machine.states)
    house.start_daemon()
    machine.wait_for(lambda state: is_mapped(state) and not state["problem"], before)
    wait_until(lambda: house.reaches(PORT))


def test_the_port_of_another_host_is_left_to_it(house: House, start: Start) -> None:
    request = struct.pack("!BBHHHI", 0, 2, 0, PORT + 50, PORT, 60)
    answer = house.ask_nat_pmp(SECOND_ADDRESS, request)
    assert answer is not None
    assert answer[:4] == struct.pack("!BBH", 0, 130, 0)
    machine = start("upnp", 60)
    address = machine.wait_for(is_mapped)["address"]
    assert address[0] == GATEWAY_OUTSIDE
    assert address[1] != PORT
    assert house.reaches(address[1])
    machine.stop()
    # The other host's is still there: the gateway gives the machine another port when it asks for that one.
    answer = house.ask_nat_pmp(MACHINE, struct.pack("!BBHHHI", 0, 2, 0, PORT, PORT, 60))
    assert answer is not None
    assert struct.unpack("!H", answer[10:12]) != (PORT,)


def test_both_protocols_side_by_side_make_one_mapping_once_there_is_a_gateway(
    house: House, start: Start
) -> None:
    house.stop_daemon()
    machine = start("both", 60)
    problem = machine.wait_for(lambda state: bool(state["problem"]))["problem"]
    assert "NAT-PMP" in problem
    assert "UPnP" in problem
    house.start_daemon()
    assert machine.wait_for(is_mapped)["protocol"] in ("nat-pmp", "upnp")
    assert house.reaches(PORT)
    machine.stop()
    assert not house.reaches(PORT)
