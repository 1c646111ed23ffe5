"""qemu-io and ours, typed at."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PATIENCE = 30.0  # seconds; a hang is a failure
PROMPT = b"qemu-io> "
OURS = [sys.executable, "-c", "from blockemu.programs.io_cli import main; main()"]
PROGRAMS = (["qemu-io"], OURS)


class Session:
    """qemu-io or ours, typed at: one command, and what it says."""

    def __init__(self, program: list[str], folder: Path) -> None:
        self.folder = folder
        self._process = subprocess.Popen(
            program,
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self._until_prompt()

    def _until_prompt(self) -> str:
        said = b""
        assert self._process.stdout is not None
        while not said.endswith(PROMPT):
            part = os.read(self._process.stdout.fileno(), 4096)
            assert part, said
            said += part
        return said.removesuffix(PROMPT).decode()

    def says(self, command: str) -> str:
        """Return what a request came to, without sizes and times."""
        assert self._process.stdin is not None
        self._process.stdin.write(command.encode() + b"\n")
        self._process.stdin.flush()
        said = self._until_prompt().removeprefix(command + "\n")
        return " ".join(line for line in said.splitlines() if "ops;" not in line)

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(PATIENCE)
        self._process.stdout.close()
