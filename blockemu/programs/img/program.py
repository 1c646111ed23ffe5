"""One run of blockemu-img: its emulator, the images it has open, and what it says."""

import asyncio
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import cached_property
from importlib import import_module
from typing import Any

from blockemu.backend import Backend
from blockemu.cache_modes import CACHE_MODES, CacheMode
from blockemu.emulator import Emulator
from blockemu.errors import QmpError
from blockemu.filenames import nest
from blockemu.node import Flags
from blockemu.optlist import parse_any
from blockemu.perm import Perm
from blockemu.programs.img.arguments import Syntax
from blockemu.programs.img.progress import Bar, VisibleBar
from blockemu.programs.img.refusals import (
    BadOutputFormat,
    CouldNotOpen,
    ForceShareConflict,
    FormatGivenTwice,
    Misused,
    Refusal,
)
from blockemu.programs.img_cli import print_help
from blockemu.programs.io_output import StandardOutput
from blockemu.programs.process import settle
from blockemu.qmp_server.errors import ProtocolError
from blockemu.records import record

NOTHING: Mapping[str, Any] = {}
WRITEBACK = CACHE_MODES["writeback"]


class Leave(Exception):
    """What was asked for is done: help was printed."""


@record(frozen=True)
class Mode:
    """How an image is opened."""

    write: bool = False
    resize: bool = False
    unmap: bool = False
    no_backing: bool = False
    no_io: bool = False
    exclusive: bool = False  # nobody may write to it
    force_share: bool = False
    check: bool = False
    cache: CacheMode = WRITEBACK

    def defaults(self) -> dict[str, Any]:
        """Return the options that hold where the user says nothing."""
        return {
            "read-only": not self.write,
            "auto-read-only": False,
            "discard": "unmap" if self.unmap else "ignore",
            "cache": {"direct": self.cache.direct, "no-flush": self.cache.no_flush},
        }

    def flags(self) -> Flags:
        """Return what no option says."""
        return Flags(no_backing=self.no_backing, no_io=self.no_io, check=self.check)

    def perm(self) -> tuple[Perm, Perm]:
        """Return what is needed and what is shared (after blk_new_open, block/block-backend.c)."""
        perm = Perm.NONE if self.no_io else Perm.CONSISTENT_READ
        perm |= Perm.WRITE if self.write else Perm.NONE
        perm |= Perm.RESIZE if self.resize else Perm.NONE
        readers = Perm.CONSISTENT_READ | Perm.WRITE_UNCHANGED
        return perm, readers if self.exclusive else Perm.ALL


class Program:
    """One run."""

    def __init__(self, name: str, command: str) -> None:
        self.name = name
        self.command = command
        self.out = StandardOutput()
        self.quiet = False
        self._images: list[Backend] = []

    @cached_property
    def emu(self) -> Emulator:
        """The emulator, made when first needed."""
        emu = Emulator()
        emu.program = self.name
        emu.warnings = lambda text: write_error(text.rstrip("\n") + "\n")
        emu.stdout = self._show
        return emu

    def run(self, argv: list[str]) -> int:
        """Run the command; return the exit status."""
        module = import_module(f"blockemu.programs.img.{self.command}")
        settle()
        try:
            return asyncio.run(self._run(module.run(self, argv)))
        finally:
            with suppress(OSError):
                self.out.flush()

    async def _run(self, command: Any) -> int:
        try:
            return int(await command)
        except Leave:
            return 0
        except QmpError as e:
            self.report(e)
            return e.status if isinstance(e, Refusal) else 1
        finally:
            await self._end()

    async def _end(self) -> None:
        for image in self._images[::-1]:
            await self.close(image)
        if "emu" in vars(self):
            await self.emu.close()

    # The command line

    def options(self, syntax: Syntax, argv: Iterable[str]) -> Iterator[tuple[str, str]]:
        """Yield the options as ``Syntax.read`` does; help and objects are seen to."""
        for name, value in syntax.read(self.command, argv):
            match name:
                case "h":
                    print_help(self.name)
                    raise Leave
                case "object":
                    self.add_object(value)
                case _:
                    yield name, value

    def given(self, syntax: Syntax, argv: Iterable[str]) -> tuple[dict[str, str], list[str]]:
        """Return the options, of each the last, and the words that are no options."""
        given: dict[str, str] = {}
        names = []
        for name, value in self.options(syntax, argv):
            if name:
                given[name] = value
            else:
                names.append(value)
        return given, names

    def add_object(self, text: str) -> None:
        """Add what ``--object`` describes."""
        from blockemu.objects.object_options import (  # start-up: few need one
            TOOLS_LACK,
            ObjectHelp,
            parse_object,
        )

        try:
            options = parse_object(text, self.emu.profile, lacking=TOOLS_LACK)
            self.emu.objects.add(options)
        except ObjectHelp as e:
            self.print(f"{e}\n")
            raise Leave from e
        except ProtocolError as e:
            raise Refusal(str(e)) from e

    # What it says

    def print(self, text: str) -> None:
        """Write to standard output."""
        self.out.write(text)

    def tell(self, text: str) -> None:
        """Write to standard output, unless it is to be quiet."""
        if not self.quiet:
            self.out.write(text)

    def report(self, error: QmpError) -> None:
        """Say what went wrong."""
        self.complain(str(error))
        if error.hint:
            write_error(error.hint)
        if isinstance(error, Refusal):
            for line in error.further:
                self.complain(line)
        if isinstance(error, Misused):
            write_error(f"Try '{self.name} --help' for more information\n")

    def complain(self, text: str) -> None:
        """Write a line to standard error."""
        write_error(f"{self.name}: {text}\n")

    def warn(self, text: str) -> None:
        """Write a warning to standard error."""
        self.complain(f"warning: {text}")

    def bar(self, skip: float, *, shown: bool) -> Bar:
        """Return a progress bar, which is silent unless ``shown``."""
        return VisibleBar(self._show, skip) if shown and not self.quiet else Bar()

    def _show(self, text: str) -> None:
        self.out.write(text)
        self.out.flush()

    # Images

    async def open(
        self,
        filename: str,
        fmt: str | None,
        mode: Mode,
        *,
        image_opts: bool = False,
        options: Mapping[str, Any] = NOTHING,
    ) -> Backend:
        """Open an image by name, or by options in place of one; ``options`` are there in any case.

        Raises:
            CouldNotOpen: in QEMU's words.

        """
        options = dict(options)
        name: str | None = filename
        if image_opts:
            if fmt is not None:
                raise FormatGivenTwice
            name, options = None, options | parse_any(filename, self.warn, "file")
        elif fmt is not None:
            options["driver"] = fmt
        if mode.force_share:
            if options.get("force-share", "on") != "on":
                raise ForceShareConflict
            options["force-share"] = "on" if image_opts else True
        try:
            return await self.open_options(name, nest(options), mode)
        except QmpError as e:
            raise CouldNotOpen(filename, e, hint=e.hint) from e

    async def open_options(self, name: str | None, options: dict[str, Any], mode: Mode) -> Backend:
        """Open an image by nested options."""
        node = await self.emu.opener.open(
            options, filename=name, defaults=mode.defaults(), flags=mode.flags()
        )
        perm, shared = mode.perm()
        image = Backend(perm=perm, shared=shared)
        image.write_cache = not mode.cache.write_through
        try:
            self.emu.graph.insert(image, node)
        except QmpError:
            await self.emu.graph.release(node)
            raise
        self.keep(image)
        return image

    def keep(self, image: Backend) -> None:
        """Close an image in the end."""
        self._images.append(image)

    async def close(self, image: Backend) -> None:
        """Close an image; nobody hears of errors."""
        self._images.remove(image)
        with suppress(OSError):
            await self.emu.graph.remove(image)


def write_error(text: str) -> None:
    """Write to standard error, which is not held back."""
    data = text.encode(errors="surrogateescape")
    with suppress(OSError):
        os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, data)


def is_json(output: str | None) -> bool:
    """Read the argument of ``--output``."""
    if output not in (None, "json", "human"):
        raise BadOutputFormat
    return output == "json"
