"""Where the NBD server may listen, and why it cannot: nbd-server-start beside QEMU's."""

from __future__ import annotations

import socket
from typing import Any

from compat.daemon import Both, Daemon

HOST = "127.0.0.1"


def listen(daemon: Daemon, **address: Any) -> None:
    """Try to start the server, and stop it if it did start."""
    data = {"host": HOST, "port": "0"} | {key.replace("_", "-"): v for key, v in address.items()}
    start(daemon, {"type": "inet", "data": data})


def start(daemon: Daemon, address: dict[str, Any], **options: Any) -> None:
    daemon.execute("nbd-server-start", addr=address, **options)
    daemon.execute("nbd-server-stop")


def test_inet_addresses_are_taken_or_refused_as_by_qemu(both: Both) -> None:
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]

        def script(daemon: Daemon) -> None:
            listen(daemon)
            listen(daemon, port=str(port))
            listen(daemon, host="localhost", port=str(port))
            listen(daemon, port=str(port), to=port)
            listen(daemon, port=str(port), to=65535)
            listen(daemon, port="0", to=5)
            listen(daemon, numeric=True)
            listen(daemon, host="localhost", numeric=True)
            listen(daemon, port="http", numeric=True)
            listen(daemon, port="x")
            listen(daemon, port="")
            listen(daemon, port="80000")
            listen(daemon, port="-1")
            listen(daemon, host="")
            listen(daemon, host="::1")
            listen(daemon, host="::", ipv4=True, ipv6=True)
            listen(daemon, host="::", ipv4=False)
            listen(daemon, host="localhost", ipv4=True)
            listen(daemon, ipv4=False)
            listen(daemon, ipv6=True)
            listen(daemon, ipv4=False, ipv6=False)
            listen(daemon, keep_alive=True)
            listen(daemon, host="192.0.2.1")
            listen(daemon, host="no.such.host.invalid", numeric=True)
            listen(daemon, mptcp=True)

        both(script)


def test_other_addresses_are_taken_or_refused_as_by_qemu(both: Both) -> None:
    def script(daemon: Daemon) -> None:
        path = str(daemon.folder / "s")
        start(daemon, {"type": "unix", "data": {"path": path}})
        start(daemon, {"type": "unix", "data": {"path": path}}, max_connections=1)
        start(daemon, {"type": "unix", "data": {"path": str(daemon.folder / "no" / "s")}})
        start(daemon, {"type": "unix", "data": {"path": "x" * 109}})
        start(daemon, {"type": "unix", "data": {"path": "abstract one", "abstract": True}})
        name = {"path": "abstract two", "abstract": True, "tight": False}
        start(daemon, {"type": "unix", "data": name})
        start(daemon, {"type": "vsock", "data": {"cid": "x", "port": "1"}})
        start(daemon, {"type": "vsock", "data": {"cid": "1", "port": "x"}})
        start(daemon, {"type": "unix", "data": {"path": path}}, tls_creds="none")
        start(daemon, {"type": "unix", "data": {"path": path}}, tls_authz="none")
        daemon.execute("nbd-server-start", addr={"type": "unix", "data": {"path": path}})
        daemon.execute("nbd-server-start", addr={"type": "unix", "data": {"path": path}})
        daemon.execute("nbd-server-stop")

    both(script)


def test_two_machines_meet_over_vsock_as_with_qemu(both: Both) -> None:
    """Where the kernel has no way to oneself both say so."""

    def script(daemon: Daemon) -> None:
        address = {"cid": "1", "port": "40123"}
        started = daemon.execute("nbd-server-start", addr={"type": "vsock", "data": address})
        daemon("blockdev-add", driver="null-co", node_name="n", size=4096)
        if "error" not in started:
            daemon("block-export-add", type="nbd", id="e", node_name="n")
        server = {"type": "vsock"} | address
        daemon.execute("blockdev-add", driver="nbd", node_name="c", server=server, export="n")
        daemon.execute("blockdev-del", node_name="c")
        daemon.execute("nbd-server-stop")

    both(script)
