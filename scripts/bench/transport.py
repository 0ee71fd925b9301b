#!/usr/bin/env python
"""Figures of the transport over loopback, two processes, one JSON line each.

    scripts/bench/transport.py [--seconds N] [--stock]

Compares Noise + yamux through PeerHost with raw TLS and raw TCP (trio, no framing), and with --stock with
libp2p's own Noise and yamux. Bulk goes in writes of 1 MiB one way; a round trip is one message of 64 bytes or
16 KiB there and back on a stream that stays open. `cpu_s_per_GB` adds up both processes.
"""

from __future__ import annotations

import argparse
import datetime
import ipaddress
import json
import os
import ssl
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from sedmad.net.host import open_host
from sedmad.net.identity import Identity

PROTOCOL = "/sedma/bench/1"
# What the client wants next: a kind (0: take that many bytes, 1: give back that many) and a size.
COMMAND = struct.Struct("<BQ")
WRITE_BYTES = 1 << 20
ROUND_BYTES = 32 << 20
READ_BYTES = 256 << 10
ROUND_TRIP_BYTES = (64, 16 << 10)


async def read_exactly(stream: Any, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        piece = await stream.receive_some(size - len(data))
        if not piece:
            raise EOFError
        data += piece
    return bytes(data)


async def serve_stream(stream: Any, *_: object) -> None:
    """Do what the client wants until it goes; answers bulk with this process's CPU seconds."""
    while True:
        try:
            kind, size = COMMAND.unpack(await read_exactly(stream, COMMAND.size))
        except (EOFError, trio.BrokenResourceError):
            return
        if kind:
            await stream.send_all(await read_exactly(stream, size))
            continue
        while size:
            size -= len(await stream.receive_some(min(size, READ_BYTES)))
        await stream.send_all(struct.pack("<d", time.process_time()))


async def measure(name: str, stream: Any, seconds: float) -> None:
    async def bulk(size: int) -> float:
        await stream.send_all(COMMAND.pack(0, size))
        block = bytes(WRITE_BYTES)
        for _ in range(size // WRITE_BYTES):
            await stream.send_all(block)
        (server_cpu_s,) = struct.unpack("<d", await read_exactly(stream, 8))
        return float(server_cpu_s)

    await bulk(ROUND_BYTES)
    server_cpu_s = await bulk(0)
    began, client_cpu_s, sent_bytes = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() - began < seconds:
        server_cpu_end_s = await bulk(ROUND_BYTES)
        sent_bytes += ROUND_BYTES
    elapsed_s = time.perf_counter() - began
    cpu_s = time.process_time() - client_cpu_s + server_cpu_end_s - server_cpu_s
    figure = {
        "MB_per_s": round(sent_bytes / elapsed_s / 1e6, 1),
        "cpu_s_per_GB": round(cpu_s / sent_bytes * 1e9, 2),
    }
    report(name, "bulk", write_bytes=WRITE_BYTES, **figure)
    for size in ROUND_TRIP_BYTES:
        message, samples_us = COMMAND.pack(1, size) + bytes(size), []
        began = time.perf_counter()
        while (sent_at := time.perf_counter()) - began < seconds:
            await stream.send_all(message)
            await read_exactly(stream, size)
            samples_us.append((time.perf_counter() - sent_at) * 1e6)
        samples_us.sort()
        p50, p99 = (round(samples_us[int(len(samples_us) * share)], 1) for share in (0.5, 0.99))
        report(name, "round_trip", bytes=size, p50_us=p50, p99_us=p99)


def report(transport: str, figure: str, **values: float) -> None:
    print(
        json.dumps({"benchmark": "transport", "transport": transport, "figure": figure, **values}), flush=True
    )


def self_signed(folder: Path) -> Path:
    """Return a PEM file with a key and its certificate for 127.0.0.1."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "bench")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ) + certificate.public_bytes(serialization.Encoding.PEM)
    path = folder / "bench.pem"
    path.write_bytes(pem)
    return path


async def serve(pem: Path, *, stock: bool) -> None:
    """The other process: serve every transport and print where."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pem)

    async def serve_tls(stream: trio.SocketStream) -> None:
        await serve_stream(trio.SSLStream(stream, context, server_side=True))

    async with trio.open_nursery() as nursery, open_host(Identity.make(), ["/ip4/127.0.0.1/tcp/0"]) as host:
        host.serve(PROTOCOL, serve_stream)
        ports = []
        for handler in (serve_stream, serve_tls):
            listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
            ports.append(listeners[0].socket.getsockname()[1])
            nursery.start_soon(trio.serve_listeners, handler, listeners)
        where = {"addresses": host.listen_addresses, "tcp_port": ports[0], "tls_port": ports[1]}
        if not stock:
            print(json.dumps(where), flush=True)
            await trio.sleep_forever()
        async with stock_host() as basic_host:
            basic_host.set_stream_handler(PROTOCOL, lambda stream: serve_stream(StockStream(stream)))
            print(json.dumps({**where, "stock": str(basic_host.get_addrs()[0])}), flush=True)
            await trio.sleep_forever()


class StockStream:
    """libp2p's stream with the two methods that are measured, in the chunks that suit its muxer best."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    async def receive_some(self, size: int) -> bytes:
        from libp2p.network.stream.exceptions import StreamError

        try:
            return bytes(await self._stream.read(size))
        except StreamError:
            return b""

    async def send_all(self, data: bytes) -> None:
        for start in range(0, len(data), 65507):
            await self._stream.write(data[start : start + 65507])


@asynccontextmanager
async def stock_host() -> AsyncIterator[Any]:
    from libp2p import create_yamux_muxer_option, new_host
    from libp2p.crypto.ed25519 import create_new_key_pair
    from libp2p.crypto.x25519 import create_new_key_pair as create_new_x25519_key_pair
    from libp2p.security.noise.transport import PROTOCOL_ID, Transport
    from multiaddr import Multiaddr

    key_pair, address = create_new_key_pair(), Multiaddr("/ip4/127.0.0.1/tcp/0")
    noise = Transport(key_pair, noise_privkey=create_new_x25519_key_pair().private_key)
    host = new_host(
        key_pair=key_pair,
        sec_opt={PROTOCOL_ID: noise},
        muxer_opt=create_yamux_muxer_option(),
        listen_addrs=[address],
    )
    async with host.run(listen_addrs=[address]):
        yield host


async def measure_all(where: dict[str, Any], pem: Path, seconds: float) -> None:
    async with open_host(Identity.make(), []) as host:
        peer_id = where["addresses"][0].rpartition("/p2p/")[2]
        began = time.perf_counter()
        await host.connect(peer_id, where["addresses"], timeout_s=5)
        connected = time.perf_counter()
        stream = await host.open_stream(peer_id, PROTOCOL, timeout_s=5)
        opened = time.perf_counter()
        report("host", "connect", ms=round((connected - began) * 1e3, 2))
        report("host", "open_stream", ms=round((opened - connected) * 1e3, 2))
        await measure("host", stream, seconds)
        await stream.reset()
    if "stock" in where:
        from libp2p.peer.peerinfo import info_from_p2p_addr
        from multiaddr import Multiaddr

        async with stock_host() as basic_host:
            peer = info_from_p2p_addr(Multiaddr(where["stock"]))
            began = time.perf_counter()
            await basic_host.connect(peer)
            report("stock", "connect", ms=round((time.perf_counter() - began) * 1e3, 2))
            await measure(
                "stock", StockStream(await basic_host.new_stream(peer.peer_id, [PROTOCOL])), seconds
            )
    context = ssl.create_default_context(cafile=str(pem))
    tls = await trio.open_ssl_over_tcp_stream("127.0.0.1", where["tls_port"], ssl_context=context)
    await measure("tls", tls, seconds)
    await measure("tcp", await trio.open_tcp_stream("127.0.0.1", where["tcp_port"]), seconds)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=2.0, help="how long each figure is measured")
    parser.add_argument("--stock", action="store_true", help="also measure libp2p's own Noise and yamux")
    parser.add_argument("--serve", type=Path, metavar="PEM", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if arguments.serve:
        trio.run(lambda: serve(arguments.serve, stock=arguments.stock))
        return
    with tempfile.TemporaryDirectory() as folder:
        pem = self_signed(Path(folder))
        command = [sys.executable, __file__, "--serve", str(pem), *(["--stock"] if arguments.stock else [])]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as server:
            try:
                assert server.stdout is not None
                trio.run(measure_all, json.loads(server.stdout.readline()), pem, arguments.seconds)
            finally:
                server.kill()


if __name__ == "__main__":
    main()
