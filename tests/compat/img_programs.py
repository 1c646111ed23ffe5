"""qemu-img and blockemu-img side by side, each in a folder of its own, under the same name."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from compat.programs import Ran

# Imports once, then forks for each run: starting anew takes ten times longer.
SERVER = """
import json, os, sys, traceback
import blockemu.copying.block_copy, blockemu.programs.img.program, blockemu.programs.img_cli
from blockemu.drivers import import_all
import_all()
for line in sys.stdin:
    request = json.loads(line)
    child = os.fork()
    if not child:
        status = 70
        try:
            os.chdir(request["folder"])
            for fd, name in ((1, request["output"]), (2, request["errors"])):
                os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), fd)
            sys.argv = request["argv"]
            status = blockemu.programs.img_cli.main()
        except SystemExit as e:
            status = e.code or 0
        except BaseException:
            traceback.print_exc()
        finally:
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            os._exit(status)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@dataclass(frozen=True)
class Pair:
    """Both programs, and the folders that they run in."""

    real: str
    io: str
    folders: dict[str, Path]
    server: subprocess.Popen[str]

    @classmethod
    @contextmanager
    def made(cls, folder: Path, real: str, io: str) -> Iterator[Pair]:
        folders = {who: folder / who for who in ("real", "ours")}
        for each in folders.values():
            each.mkdir()
        argv = [sys.executable, "-c", SERVER]
        with subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as server:
            yield cls(real, io, folders, server)
            assert server.stdin is not None
            server.stdin.close()

    def prepare(self, *argv: str) -> None:
        """Let the real program make an image in both folders."""
        for folder in self.folders.values():
            subprocess.run([self.real, *argv], cwd=folder, check=True, stdout=subprocess.DEVNULL)

    def write(self, image: str, *commands: str) -> None:
        """Let the real qemu-io change an image in both folders."""
        argv = [self.io, *(word for command in commands for word in ("-c", command)), image]
        for folder in self.folders.values():
            subprocess.run(argv, cwd=folder, check=True, stdout=subprocess.DEVNULL)

    def run(self, who: str, *argv: str) -> Ran:
        return self._real(argv) if who == "real" else self._ours(argv)

    def _real(self, argv: tuple[str, ...]) -> Ran:
        done = subprocess.run(
            [self.real, *argv],
            cwd=self.folders["real"],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        return Ran(done.returncode, done.stdout, done.stderr)

    def _ours(self, argv: tuple[str, ...]) -> Ran:
        folder = self.folders["ours"]
        output, errors = folder.parent / "output", folder.parent / "errors"
        request = {
            "argv": ["qemu-img", *argv],
            "folder": str(folder),
            "output": str(output),
            "errors": str(errors),
        }
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        self.server.stdin.write(json.dumps(request) + "\n")
        self.server.stdin.flush()
        status = int(self.server.stdout.readline())
        return Ran(status, output.read_text(), errors.read_text())

    def same(self, *argv: str) -> Ran:
        """Run both; fail unless they agree, and return what both did."""
        real, ours = (self.run(who, *argv) for who in ("real", "ours"))
        assert ours == real, f"{argv}\n{ours}\n{real}"
        return ours

    def all_same(self, lines: Iterable[str]) -> list[Ran]:
        """Run both with each line's words as arguments."""
        return [self.same(*line.split()) for line in lines]
