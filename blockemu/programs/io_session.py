"""What ``blockemu-io`` does once it has something to do: an image, commands on it, their output."""

import asyncio
import errno
import os
import sys
from contextlib import suppress
from typing import Any

from blockemu.backend import Backend
from blockemu.emulator import Emulator
from blockemu.errors import QmpError, Wrapped
from blockemu.filenames import nest
from blockemu.optlist import parse_any
from blockemu.perm import Perm
from blockemu.programs.io_cli import OpenMode, Settings
from blockemu.programs.io_input import Lines
from blockemu.programs.io_output import StandardOutput
from blockemu.programs.process import settle
from blockemu.qemu_io.commands import COMMANDS
from blockemu.qemu_io.interpreter import Interpreter, Output
from blockemu.qemu_io.options import Options, Warn
from blockemu.qemu_io.refusals import Refusal
from blockemu.qemu_io.table import ANY, IoCommand
from blockemu.qmp_server.errors import ProtocolError

PROMPT = "qemu-io> "  # whatever the program is called: clients wait for it


class OpenAlready(QmpError):
    """One image at a time."""

    template = "file open already, try 'help close'"


class ForceShareConflict(QmpError):
    """The image's options say the opposite."""

    template = "-U conflicts with image options"


class CopyOnReadReadOnly(QmpError):
    """There is nowhere to keep what was read."""

    template = "Can't use copy-on-read on read-only device"


class OptionsGivenTwice(Refusal):
    """By ``-o``, and in place of the name."""

    template = "--image-opts and 'open -o' are mutually exclusive\n"


class Session:
    """An emulator with at most one image open, and the commands that open and close it."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._out = StandardOutput()
        self._emu = Emulator()
        self._emu.program = name
        self._emu.warnings = self._warn
        self._emu.stdout = self._out.write
        self._done = False
        self._image_opts = False
        output = Output(self._out.write, _write_error, self._report, self._out.flush)
        self._io = Interpreter(
            None,
            output,
            graph=self._emu.graph,
            clocks=self._emu.clocks,
            tasks=self._emu.tasks,
            commands=COMMANDS | self._commands(),
        )

    def add_object(self, text: str) -> None:
        """Add what ``--object`` describes.

        Raises:
            ObjectHelp: the user wants to know what there is.
            QmpError: it cannot be.

        """
        from blockemu.objects.object_options import (  # start-up: few images need one
            TOOLS_LACK,
            parse_object,
        )

        try:
            options = parse_object(text, self._emu.profile, lacking=TOOLS_LACK)
            self._emu.objects.add(options)
        except ProtocolError as e:
            raise QmpError(str(e)) from e

    def run(self, settings: Settings) -> int:
        """Run commands until told to end; return the exit status."""
        self._image_opts = settings.image_opts
        try:
            settle()
            return asyncio.run(self._run(settings))
        finally:
            with suppress(OSError):
                self._out.flush()

    async def _run(self, settings: Settings) -> int:
        opened = settings.filename is None or await self._open_first(settings)
        result = await self._loop(settings.commands) if opened else -errno.EINVAL
        while self._emu.tasks:
            await asyncio.wait(self._emu.tasks)
        await self._close()
        await self._emu.close()
        return 1 if result < 0 else 0

    async def _open_first(self, settings: Settings) -> bool:
        name, options = settings.filename, {}
        assert name is not None
        try:
            if settings.image_opts:
                options, name = self._options(name), None
            elif settings.format is not None:
                options = {"driver": settings.format}
        except QmpError as e:
            self._io.report_error(e)
            return False
        return await self._try_open(name, options, settings.mode)

    async def _loop(self, commands: list[str]) -> int:
        """Run commands as given, or else as they are typed; return the last error."""
        last = 0
        if commands:
            for line in commands:
                last = await self._run_line(line) or last
                if self._done:
                    break
            return last
        lines = Lines(self._prompt)
        while not self._done:
            text = await lines.next()
            if text is None:
                break
            last = await self._run_line(text) or last
        return last

    def _prompt(self) -> str:
        self._out.flush()
        return PROMPT

    async def _run_line(self, line: str) -> int:
        """Run a line; return a negative errno, or 0."""
        try:
            return min(await self._io.run(line), 0)
        except OSError as e:
            return -(e.errno or errno.EIO)

    # Output

    def _report(self, text: str) -> None:
        _write_error(f"{self._name}: {text}")

    def _warn(self, text: str) -> None:
        _write_error(text.rstrip("\n") + "\n")

    # The image

    def _options(self, text: str) -> dict[str, Any]:
        return parse_any(text, self._io.warn)

    async def _try_open(self, name: str | None, options: dict[str, Any], mode: OpenMode) -> bool:
        """Open an image; report what goes wrong and tell whether all went well."""
        if self._io.backend is not None:
            self._io.report_error(OpenAlready())
            return False
        try:
            if mode.force_share:
                if options.get("force-share", "on") != "on":
                    raise ForceShareConflict
                options = options | {"force-share": "on"}
        except QmpError as e:
            self._io.report_error(e)
            return False
        what = "can't open" if name is None else f"can't open device {name}"
        try:
            self._io.backend = await self._open(name, nest(options), mode)
        except QmpError as e:
            self._io.report_error(Wrapped(what, e, hint=e.hint))
            return False
        return True

    async def _open(self, name: str | None, options: dict[str, Any], mode: OpenMode) -> Backend:
        """Open an image (after blk_new_open, block/block-backend.c)."""
        emu, perm = self._emu, Perm.CONSISTENT_READ
        defaults = mode.defaults()
        if mode.aio != "threads" and "driver" in options and "aio" not in options:
            options.setdefault("file", {})
            if isinstance(options["file"], dict):
                options["file"].setdefault("aio", mode.aio)
        if mode.copy_on_read and mode.read_only:
            raise CopyOnReadReadOnly
        if not mode.read_only:
            perm |= Perm.WRITE
        if mode.snapshot:
            from blockemu.temporary import open_temporary  # start-up: seldom asked for

            node = await open_temporary(emu.opener, name, options, defaults)
        else:
            node = await emu.opener.open(options, filename=name, defaults=defaults)
        if mode.copy_on_read:
            node = await emu.opener.open({"driver": "copy-on-read", "file": node.name})
        backend = Backend(perm=perm)
        backend.write_cache = not mode.write_through
        try:
            emu.graph.insert(backend, node)
        except QmpError:
            await emu.graph.release(node)
            raise
        return backend

    async def _close(self) -> None:
        """Close the image that is open; nobody hears of errors."""
        backend, self._io.backend = self._io.backend, None
        await self._io.settle()
        if backend is not None:
            with suppress(OSError):
                await self._emu.graph.remove(backend)

    # Commands

    def _commands(self) -> dict[str, IoCommand]:
        commands = (
            IoCommand(
                name="open",
                alias="o",
                oneline="open the file specified by path",
                run=self._run_open,
                least=1,
                most=ANY,
                arguments="[-rsCnkU] [-t cache] [-d discard] [-o options] [path]",
                letters="snCro:ki:t:d:U",
                converters={"o": self._node_options},
                operands=range(2),
                needs_image=False,
            ),
            IoCommand(
                name="close",
                alias="c",
                oneline="close the current open file",
                run=self._run_close,
            ),
            IoCommand(
                name="quit",
                alias="q",
                oneline="exit the program",
                run=self._run_quit,
                most=ANY,
                needs_image=False,
            ),
        )
        return {command.name: command for command in commands}

    def _node_options(self, text: str, _warn: Warn) -> dict[str, Any]:
        if self._image_opts:
            raise OptionsGivenTwice
        return self._options(text)

    async def _run_open(self, io: Interpreter, options: Options) -> int:
        """Open another image."""
        mode = OpenMode()
        given: dict[str, Any] = dict(options.get("o", {}))
        name = next(iter(options.operands), None)
        try:
            for letter, value in options.values.items():
                mode.take(letter, value)
            if self._image_opts and name is not None:
                given, name = self._options(name), None
        except QmpError as e:
            io.report_error(e)
            return -errno.EINVAL
        return 0 if await self._try_open(name, given, mode) else -errno.EINVAL

    async def _run_close(self, io: Interpreter, options: Options) -> int:
        """Close the image."""
        await self._close()
        return 0

    async def _run_quit(self, io: Interpreter, options: Options) -> int:
        """End after this command."""
        self._done = True
        return 0


def _write_error(text: str) -> None:
    """Write to standard error, which is not held back."""
    data = text.encode(errors="surrogateescape")
    with suppress(OSError):
        os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, data)
