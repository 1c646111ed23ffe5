"""A daemon under test, real or ours: started on a socket pair, spoken to in plain JSON.

Everything it answers and every event goes into one transcript, in the order of the wire, with
what must differ between two runs (times, folders, generated names, versions) normalised away.
"""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

DEADLINE = 30.0  # seconds; a hang is a failure, nothing is measured by it
Json = Any
MACHINE = ["-accel", "tcg", "-S", "-machine", "pc", "-nodefaults", "-display", "none"]
_GENERATED = re.compile(r"#block\d+")
# The guest's NBD export is our tool, not the script; ours is a storage daemon, which has no SHUTDOWN.
_HIDDEN_EVENTS = {"BLOCK_EXPORT_DELETED", "SHUTDOWN"}


class Died(AssertionError):
    """The daemon closed its socket or ended while an answer was awaited."""


def image(*arguments: str, cwd: Path | None = None) -> str:
    """Run ``qemu-img`` and return what it prints; fail the test when it fails."""
    done = subprocess.run(
        ["qemu-img", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert done.returncode == 0, f"qemu-img {' '.join(arguments)}: {done.stderr}{done.stdout}"
    return done.stdout


class Normaliser:
    """Replaces folder, generated names and versions by stable words."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)
        self.names: dict[str, str] = {}

    def __call__(self, value: Json) -> Json:
        if isinstance(value, str):
            return _GENERATED.sub(self._rename, value.replace(self.folder, "$DIR"))
        if isinstance(value, list):
            return [self(item) for item in value]
        if isinstance(value, dict):
            return {
                self(key): self._number(item) if key == "fd" else self(item)
                for key, item in value.items()
                if key != "timestamp"
            }
        return value

    def _number(self, value: Json) -> Json:
        if not isinstance(value, int) or value > 1000:
            return value
        return self.names.setdefault(f"fd {value}", f"fd<{len(self.names)}>")

    def _rename(self, match: re.Match[str]) -> str:
        return self.names.setdefault(match.group(), f"#block<{len(self.names)}>")


class Daemon:
    """A running program with one negotiated QMP connection.  Use it in ``with``."""

    kind = ""

    def __init__(self, folder: Path, *options: str, negotiate: bool = True) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.normalise = Normaliser(folder)
        self.transcript: list[Json] = []
        self.events: list[Json] = []  # not yet taken by wait()
        self.recording = True
        self._buffer = b""
        self._serial = 0
        ours, theirs = socket.socketpair()
        self.socket = ours
        ours.settimeout(DEADLINE)
        self.guests_said: list[str] = []  # by guests that print where the program does
        self._printed = (folder / "stdout.log").open("wb")
        self._errors = (folder / "stderr.log").open("wb")
        with theirs:
            self.process = subprocess.Popen(
                [*self.program(), *self.monitor(theirs.fileno()), *options],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=self._printed,
                stderr=self._errors,
                cwd=folder,
            )
        self.greeting: Json = None
        if negotiate:
            try:
                self.greeting = self.receive()
                self.socket.sendall(b'{"execute": "qmp_capabilities"}\n')
                assert self.receive() == {"return": {}}
            except BaseException:
                self.close()
                raise

    # What differs between the programs

    def program(self) -> list[str]:
        raise NotImplementedError

    def monitor(self, number: int) -> list[str]:
        return ["--chardev", f"socket,id=compat,fd={number}", "--monitor", "chardev=compat"]

    def guest(self, node: str, *commands: str) -> str:
        """Run qemu-io commands as a guest of *node* would; return their output."""
        raise NotImplementedError

    # The conversation

    def receive(self) -> Json:
        """Return the next object on the wire, which must come."""
        answer = self._next()
        if answer is None:
            raise Died(f"{self.kind}: closed its monitor\n{self.errors()}")
        return answer

    def _next(self) -> Json:
        while b"\n" not in self._buffer:
            try:
                chunk = self.socket.recv(1 << 20)
            except TimeoutError:
                raise Died(f"{self.kind}: no answer in {DEADLINE} s\n{self.errors()}") from None
            except ConnectionResetError:
                chunk = b""
            if not chunk:
                return None
            self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\n")
        return json.loads(line)

    def errors(self) -> str:
        """Return the end of what the program complained about."""
        return (self.folder / "stderr.log").read_text(errors="replace")[-4000:]

    def printed(self) -> str:
        """Return what the program printed; the real one holds it back until it ends."""
        text = (self.folder / "stdout.log").read_text(errors="replace")
        for said in self.guests_said:
            text = text.replace(said, "", 1)
        return text

    def _record(self, what: str, value: Json) -> None:
        if self.recording:
            self.transcript.append((what, self.normalise(value)))

    def _event(self, value: Json) -> None:
        if value["event"] not in _HIDDEN_EVENTS:
            self.transcript.append(("event", self.normalise(value)))
        self.events.append(value)

    def execute(
        self, command: str, arguments: Json = None, fds: Iterable[int] = (), **members: Json
    ) -> Json:
        """Send a command; return its whole reply, without the id.  ``_`` in *members* is ``-``."""
        self._serial += 1
        request: dict[str, Json] = {"execute": command, "id": self._serial}
        if members:
            arguments = {key.replace("_", "-"): value for key, value in members.items()}
        if arguments is not None:
            request["arguments"] = arguments
        shown = {"execute": command} | ({} if arguments is None else {"arguments": arguments})
        self._record("command", shown)
        data = json.dumps(request).encode() + b"\n"
        numbers = list(fds)
        if numbers:
            socket.send_fds(self.socket, [data], numbers)
        else:
            self.socket.sendall(data)
        while "event" in (answer := self.receive()):
            self._event(answer)
        assert answer.pop("id", None) == self._serial, answer
        self._record("reply", answer)
        return answer

    def __call__(self, command: str, arguments: Json = None, **members: Json) -> Json:
        """Execute a command that must succeed; return its value."""
        answer = self.execute(command, arguments, **members)
        assert "return" in answer, f"{self.kind}: {command} {arguments or members}: {answer}"
        return answer["return"]

    def note(self, text: str) -> None:
        """Put into the transcript what both programs must agree on and no reply says."""
        self._record("reply", text)

    def next_event(self) -> Json:
        """Take the next event."""
        while not self.events:
            answer = self.receive()
            assert "event" in answer, answer
            self._event(answer)
        return self.events.pop(0)

    def wait(self, name: str, accept: Callable[[Json], bool] | None = None) -> Json:
        """Take events until one of that name (and accepted by *accept*) came; return its data."""
        while True:
            event = self.next_event()
            data = event.get("data", {})
            if event["event"] == name and (accept is None or accept(data)):
                return data

    def job_until(self, job: str, status: str) -> None:
        """Wait for the event that *job* has reached *status*."""
        self.wait("JOB_STATUS_CHANGE", lambda data: data["id"] == job and data["status"] == status)

    def job_reaches(self, job: str, offset: int) -> None:
        """Ask, off the record, until *job* has made so much progress."""
        recording, self.recording = self.recording, False
        deadline = time.monotonic() + DEADLINE
        try:
            while True:
                jobs = {each["id"]: each for each in self.execute("query-jobs")["return"]}
                if jobs[job]["current-progress"] >= offset:
                    return
                assert time.monotonic() < deadline, jobs
        finally:
            self.recording = recording

    def pause(self, command: str, **members: Json) -> None:
        """Pause a job by *command* and wait until it is; its start has a paused state as well."""
        self.events.clear()
        self(command, **members)
        (job,) = members.values()
        self.job_until(job, "paused")

    # A guest's requests, kept out of the transcript

    def write(self, node: str, offset: int, length: int, pattern: int) -> None:
        """Write *length* bytes of *pattern* as a guest."""
        assert "wrote" in self.guest(node, f"write -P {pattern} {offset} {length}")

    def discard(self, node: str, offset: int, length: int) -> None:
        """Discard as a guest."""
        assert "discard" in self.guest(node, f"discard {offset} {length}")

    def verify(self, node: str, offset: int, length: int, pattern: int) -> None:
        """Fail unless a guest reads *pattern* there."""
        output = self.guest(node, f"read -P {pattern} {offset} {length}")
        assert "read" in output, output
        assert "Pattern verification failed" not in output, output

    # The end

    def stop(self) -> int:
        """Quit by QMP and return the exit status; what comes until then is in the transcript."""
        self._record("command", {"execute": "quit"})
        self.socket.sendall(b'{"execute": "quit"}\n')
        return self.ended()

    def ended(self) -> int:
        """Take what comes until the program is gone; return its exit status."""
        while (answer := self._next()) is not None:
            if "event" in answer:
                self._event(answer)
            else:
                self._record("reply", answer)
        status = self.process.wait(DEADLINE)
        self.close()
        return status

    def close(self) -> None:
        """End the program and wait for it."""
        self.socket.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._printed.close()
        self._errors.close()

    def __enter__(self) -> Daemon:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class NbdGuest(Daemon):
    """A real program, whose guests come over an NBD export made for each visit."""

    _listening = False

    def listen(self) -> str:
        """Have the program listen for guests, if it does not yet; return where."""
        path = str(self.folder / "guest.sock")
        if not self._listening:
            self("nbd-server-start", {"addr": {"type": "unix", "data": {"path": path}}})
            self._listening = True
        return path

    def guest(self, node: str, *commands: str) -> str:
        recording, self.recording = self.recording, False
        try:
            path = self.listen()
            reads = all(command.startswith("read ") for command in commands)
            options = {"id": "guest", "node-name": node, "name": "g", "writable": not reads}
            self("block-export-add", {"type": "nbd"} | options)
            run = [part for command in commands for part in ("-c", command)]
            done = subprocess.run(
                ["qemu-io", *["-r"] * reads, "-f", "raw", *run, f"nbd+unix:///g?socket={path}"],
                capture_output=True, text=True, timeout=DEADLINE, check=False,
            )  # fmt: skip
            kept, self.events = self.events, []
            self("block-export-del", {"id": "guest", "mode": "hard"})
            self.wait("BLOCK_EXPORT_DELETED")
            self.events = kept + self.events
        finally:
            self.recording = recording
        return done.stdout + done.stderr


class StorageDaemon(NbdGuest):
    """The real ``qemu-storage-daemon``."""

    kind = "qemu-storage-daemon"

    def program(self) -> list[str]:
        return ["qemu-storage-daemon"]


class System(NbdGuest):
    """The real ``qemu-system-x86_64`` without machine or devices."""

    kind = "qemu-system-x86_64"

    def program(self) -> list[str]:
        return ["qemu-system-x86_64", "-machine", "none", "-nodefaults", "-display", "none", "-S"]

    def monitor(self, number: int) -> list[str]:
        return ["-chardev", f"socket,id=compat,fd={number}", "-mon", "chardev=compat,mode=control"]


class RunningSystem(System):
    """The same, not stopped at its start: its run state is that of a daemon at work."""

    def program(self) -> list[str]:
        return [option for option in super().program() if option != "-S"]


class Blockemu(Daemon):
    """Ours, from this checkout or installation; its guests come by HMP ``qemu-io``."""

    kind = "blockemu"

    def program(self) -> list[str]:
        # The real programs are 7.2; without a profile ours shows what other versions have, too.
        return [sys.executable, "-m", "blockemu", "--compat", "7.2"]

    def guest(self, node: str, *commands: str) -> str:
        recording, self.recording = self.recording, False
        log = self.folder / "stdout.log"
        start = log.stat().st_size
        try:
            replies = [
                self("human-monitor-command", {"command-line": f'qemu-io {node} "{command}"'})
                for command in commands
            ]
        finally:
            self.recording = recording
        said = log.read_bytes()[start:].decode(errors="replace")
        self.guests_said.append(said)
        return "".join(replies) + said


class Machine(NbdGuest):
    """The real ``qemu-system-x86_64`` with buses that devices can be put on."""

    kind = "qemu-system-x86_64"

    def program(self) -> list[str]:
        return ["qemu-system-x86_64", *MACHINE]

    def monitor(self, number: int) -> list[str]:
        return ["-chardev", f"socket,id=compat,fd={number}", "-mon", "chardev=compat,mode=control"]


class BlockemuMachine(Blockemu):
    """Ours in its place."""

    kind = "blockemu-qemu"

    def program(self) -> list[str]:
        return [sys.executable, "-m", "blockemu.programs.qemu_main", *MACHINE]

    def monitor(self, number: int) -> list[str]:
        return ["-chardev", f"socket,id=compat,fd={number}", "-mon", "chardev=compat,mode=control"]


Script = Callable[[Daemon], None]
Both = Callable[..., tuple[Daemon, Daemon]]
