"""A QMP client small enough not to be what is measured."""

import json
import subprocess
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from time import perf_counter
from typing import Any, Self

from daemon import Daemon
from programs import SECRET, cpu, resident
from report import Sample


class Session(AbstractContextManager["Session"]):
    """A running daemon and its monitor."""

    def __init__(self, program: str, *, cpus: Iterable[int] | None = None) -> None:
        self.daemon = Daemon(program, cpus=cpus, stderr=subprocess.DEVNULL)
        self.daemon.ready()
        self.pid = self.daemon.process.pid
        self._file = self.daemon.socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self.daemon.__exit__()

    def send(self, command: str, arguments: Any, name: object = None) -> None:
        """Send a command, and do not wait."""
        request = {"execute": command, "arguments": arguments}
        if name is not None:
            request["id"] = name
        self.daemon.socket.sendall(json.dumps(request).encode() + b"\n")

    def receive(self) -> Any:
        """Receive a reply or an event."""
        return json.loads(self._file.readline())

    def __call__(self, command: str, arguments: Any = None, /, **members: Any) -> Any:
        """Execute a command and return its value; events that come before are dropped."""
        self.send(command, _spelled(members) if arguments is None else arguments)
        while "event" in (answer := self.receive()):
            pass
        if "return" not in answer:
            raise RuntimeError(f"{command}: {answer}")
        return answer["return"]

    def timed(self, command: str, /, **members: Any) -> Sample:
        """Execute a command; return milliseconds, and the daemon's processor time."""
        before, began = cpu(self.pid), perf_counter()
        self(command, **members)
        return Sample((perf_counter() - began) * 1e3, cpu(self.pid) - before)

    def job(self, command: str, *, complete: bool = False, **members: Any) -> Sample:
        """Run a job called ``j`` to its end; return the milliseconds from the command to that."""
        before, began = cpu(self.pid), perf_counter()
        self.send(command, {"job-id": "j"} | _spelled(members))
        while True:
            told = self.receive()
            if "error" in told:
                raise RuntimeError(f"{command}: {told}")
            if told.get("event") == "BLOCK_JOB_READY" and complete:
                self.send("job-complete", {"id": "j"})
            if told.get("event") == "BLOCK_JOB_COMPLETED":
                if "error" in told["data"]:
                    raise RuntimeError(f"{command}: {told}")
                done = Sample((perf_counter() - began) * 1e3, cpu(self.pid) - before)
            if ended(told):
                return done

    def open(self, name: str, path: Path, kind: str = "qcow2", **more: Any) -> None:
        """Open an image; a LUKS volume with its secret."""
        file = {"driver": "file", "filename": str(path)}
        if kind == "luks":
            self("object-add", {"qom-type": "secret", "id": f"s-{name}", "data": SECRET})
            more["key_secret"] = f"s-{name}"
        self("blockdev-add", {"driver": kind, "node-name": name, "file": file} | _spelled(more))

    def serve(self, path: Path, *nodes: str) -> Callable[[str], str]:
        """Export nodes by NBD on a socket; return what makes an export's URI."""
        self("nbd-server-start", {"addr": {"type": "unix", "data": {"path": str(path)}}})
        for node in nodes:
            self.export(node)
        return lambda name: f"nbd+unix:///{name}?socket={path}"

    def export(self, node: str, **more: Any) -> None:
        """Export a node by NBD, under its own name unless ``more`` has another."""
        self("block-export-add", _spelled({"type": "nbd", "id": node, "node-name": node} | more))

    @property
    def memory(self) -> float:
        """How much memory the daemon has, in MiB."""
        return resident(self.pid)


def ended(told: Any) -> bool:
    """Tell whether an event says that a job is gone."""
    return told.get("event") == "JOB_STATUS_CHANGE" and told["data"]["status"] == "null"


def _spelled(members: dict[str, Any]) -> dict[str, Any]:
    return {name.replace("_", "-"): value for name, value in members.items()}
