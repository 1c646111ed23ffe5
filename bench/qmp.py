"""A QMP client small enough not to be what is measured."""

import json
from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from time import perf_counter
from typing import Any, Self

from daemon import Daemon


class Session(AbstractContextManager["Session"]):
    """A running daemon and its monitor."""

    def __init__(self, program: str, *, cpus: Iterable[int] | None = None) -> None:
        self.daemon = Daemon(program, cpus=cpus)
        self.daemon.ready()
        self._file = self.daemon.socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self.daemon.__exit__()

    def __call__(self, command: str, arguments: Any = None, **members: Any) -> Any:
        """Execute a command and return its value; events that come before are dropped."""
        given = arguments or {name.replace("_", "-"): value for name, value in members.items()}
        request = {"execute": command, "arguments": given}
        self.daemon.socket.sendall(json.dumps(request).encode() + b"\n")
        while "event" in (answer := json.loads(self._file.readline())):
            pass
        if "return" not in answer:
            raise RuntimeError(f"{command}: {answer}")
        return answer["return"]

    def job(self, command: str, *, complete: bool = False, **members: Any) -> float:
        """Run a job called ``j`` to its end; return the seconds from the command to that."""
        began = perf_counter()
        given = {name.replace("_", "-"): value for name, value in members.items()}
        request = {"execute": command, "arguments": {"job-id": "j"} | given}
        self.daemon.socket.sendall(json.dumps(request).encode() + b"\n")
        while True:
            told = json.loads(self._file.readline())
            if "error" in told:
                raise RuntimeError(f"{command}: {told}")
            if told.get("event") == "BLOCK_JOB_READY" and complete:
                end = json.dumps({"execute": "job-complete", "arguments": {"id": "j"}})
                self.daemon.socket.sendall(end.encode() + b"\n")
            if told.get("event") == "BLOCK_JOB_COMPLETED":
                if "error" in told["data"]:
                    raise RuntimeError(f"{command}: {told}")
                elapsed = perf_counter() - began
            if told.get("event") == "JOB_STATUS_CHANGE" and told["data"]["status"] == "null":
                return elapsed

    def open(self, name: str, path: Path, kind: str = "qcow2", **more: Any) -> None:
        """Open an image."""
        file = {"driver": "file", "filename": str(path)}
        options = {key.replace("_", "-"): value for key, value in more.items()}
        self("blockdev-add", {"driver": kind, "node-name": name, "file": file} | options)
