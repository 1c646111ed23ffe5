"""A program of QEMU's and ours side by side: under the same name, each in a folder of its own."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from re import Pattern

LAUNCHER = "#!{python}\nimport sys\nfrom {module} import main\nsys.exit(main())\n"
Masks = dict[Pattern[str], str]
PATIENCE = 60.0  # seconds; a hang is a failure


@dataclass(frozen=True)
class Ran:
    """What a run came to."""

    status: int
    output: str
    errors: str


@dataclass(frozen=True)
class Pair:
    """Both programs and their folders; ``masked`` has what no two runs say alike."""

    programs: dict[str, Path]
    folders: dict[str, Path]
    masked: Masks

    @classmethod
    def made(cls, folder: Path, real: str, module: str, masked: Masks | None = None) -> Pair:
        """Make the folders, and in each a program: the real one, or ``module.main``."""
        folders = {who: folder / who for who in ("real", "ours")}
        programs = {who: each / "bin" / Path(real).name for who, each in folders.items()}
        for program in programs.values():
            program.parent.mkdir(parents=True)
        programs["real"].symlink_to(real)
        programs["ours"].write_text(LAUNCHER.format(python=sys.executable, module=module))
        programs["ours"].chmod(0o755)
        return cls(programs, folders, masked or {})

    def run(self, who: str, *argv: str, stdin: str = "", **environment: str) -> Ran:
        """Run one; in what it says its folder is ``DIR``, in errors it itself ``PROGRAM``."""
        done = subprocess.run(
            [self.programs[who], *argv],
            cwd=self.folders[who],
            input=stdin,
            capture_output=True,
            text=True,
            errors="surrogateescape",
            check=False,
            timeout=PATIENCE,
            env=environment or None,
        )
        errors = done.stderr.replace(str(self.programs[who]), "PROGRAM")
        return Ran(done.returncode, self._mask(who, done.stdout), self._mask(who, errors))

    def _mask(self, who: str, text: str) -> str:
        text = text.replace(str(self.folders[who]), "DIR")
        for pattern, name in self.masked.items():
            text = pattern.sub(name, text)
        return text

    def same(self, *argv: str, stdin: str = "") -> Ran:
        """Run both; fail unless they agree, and return what both did.  ``DIR`` is their folder."""
        real, ours = (
            self.run(
                who, *(word.replace("DIR", str(self.folders[who])) for word in argv), stdin=stdin
            )
            for who in ("real", "ours")
        )
        assert ours == real
        return ours
