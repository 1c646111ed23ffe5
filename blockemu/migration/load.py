"""Reading a migration stream, without I/O: sections to whom they are for, commands to the driver.

After qemu_loadvm_state, migration/savevm.c: what is wrong is told in its words and in its order,
and the result is 0 or a negative errno.
"""

import enum
import errno
from collections.abc import Awaitable, Callable, Generator
from typing import Final, NamedTuple, Protocol

from blockemu.migration import wire
from blockemu.migration.wire import Input, Pull
from blockemu.records import record
from blockemu.schema.run_state import RunState

NO_UUID: Final = bytes(16)
_INVALID: Final = -errno.EINVAL
_QUIT: Final = 1  # the rest of the stream is read by the listening half
_RAM_PAGES: Final = 0x02 | 0x08 | 0x40 | 0x100
_CONTINUE: Final = 0x20


class Step(enum.Enum):
    """What whoever reads has to do before it goes on."""

    LISTEN = enum.auto()  # the machine is about to run while more is to come
    RUN = enum.auto()  # it may run now
    OPEN_RETURN_PATH = enum.auto()


class Answer(NamedTuple):
    """A message for the return path."""

    data: bytes


@record
class Work:
    """Something that takes time; its result is in ``status`` before more is read."""

    run: Callable[[], Awaitable[int]]
    status: int = 0


Reading = Generator[Step | Answer | Work | None, None, int]
Loader = Callable[[Input, int], Reading]


class Part(NamedTuple):
    """A part of the machine that sections are for: the version it knows, and what reads them."""

    name: str
    version: int
    load: Loader


class Bitmaps(Protocol):
    """What takes dirty bitmaps from a stream."""

    def load(self, source: Input, version: int) -> Pull[int]:
        """Read one section."""

    def cancel(self) -> None:
        """Drop what is not whole; read over the rest."""


class Settings(NamedTuple):
    """What this side expects of a stream."""

    machine: str
    postcopy_ram: bool
    validate_uuid: bool


class Load:
    """One stream being read."""

    def __init__(
        self,
        source: Input,
        settings: Settings,
        bitmaps: Bitmaps,
        report: Callable[[str], None],
    ) -> None:
        self._main = source
        self._settings = settings
        self._bitmaps = bitmaps
        self._report = report
        self.run_state: RunState | None = None  # what the machine did, once that has come
        self.clock = 0  # nanoseconds of its virtual clock
        self.listening = False
        self.running = False  # since the command to do so
        self._advised = False
        self._return_path = False
        self._parts = {
            "ram": Part("ram", 4, self._load_ram),
            "dirty-bitmap": Part("dirty-bitmap", 1, bitmaps.load),
            "timer": Part("timer", 2, self._load_timer),
            "globalstate": Part("globalstate", 1, self._load_global_state),
        }
        self._known: dict[int, tuple[Part, int]] = {}  # by number: and the version that is sent

    def expect(self, name: str, version: int, load: Loader) -> None:
        """Let a part that not every machine has be read, too."""
        self._parts[name] = Part(name, version, load)

    def read(self) -> Reading:
        """Read all of it.  While ``listening``, failures are not the end of the machine."""
        status = yield from self._header(self._main)
        if status:
            return status
        status = yield from self._sections(self._main)
        if status == _QUIT:
            status = yield from self._sections(self._main)
            if status < 0:
                self._bitmaps.cancel()
            return min(status, 0)
        if status == 0 and self._main.error:
            status = -self._main.error
        if status == 0:
            yield from self._description(self._main)
        return status

    # The frame

    def _header(self, source: Input) -> Reading:
        if (yield from source.u32()) != wire.MAGIC:
            self._report("Not a migration stream")
            return _INVALID
        version = yield from source.u32()
        if version == wire.OBSOLETE_VERSION:
            self._report("SaveVM v2 format is obsolete and don't work anymore")
            return -errno.ENOTSUP
        if version != wire.VERSION:
            self._report("Unsupported migration stream version")
            return -errno.ENOTSUP
        if (yield from source.u8()) != wire.CONFIGURATION:
            self._report("Configuration section missing")
            return _INVALID
        return (yield from self._configuration(source))

    def _configuration(self, source: Input) -> Reading:
        length = yield from source.u32()
        name = yield from source.exactly(min(length, 1 << 16))
        status = 0
        uuid = NO_UUID
        while not status:
            ahead = yield from source.peek(2)
            if len(ahead) < 2 or ahead[0] != wire.SUBSECTION:
                break
            ahead = yield from source.peek(2 + ahead[1])
            title = bytes(ahead[2:]).decode("utf-8", "replace")
            if not title.startswith("configuration/"):
                break
            if title != "configuration/uuid":
                return -errno.ENOENT
            source.skip(len(ahead))
            yield from source.u32()
            uuid = yield from source.exactly(16)
        own = wire.raw(self._settings.machine)
        if name.ljust(length, b"\0")[:length] != own.ljust(length, b"\0")[:length]:
            shown = name.decode("utf-8", "surrogateescape")
            self._report(
                f"Machine type received is '{shown}' and local is '{self._settings.machine}'"
            )
            return _INVALID
        if self._settings.validate_uuid and uuid != NO_UUID:
            self._report(f"UUID received is {_uuid(uuid)} and local is {_uuid(NO_UUID)}")
            return _INVALID
        return 0

    def _sections(self, source: Input) -> Reading:
        status = yield from self._loop(source)
        if status < 0:
            source.error = source.error or -status
            self._bitmaps.cancel()
        return status

    def _loop(self, source: Input) -> Reading:
        while True:
            kind = yield from source.u8()
            if source.error:
                return -source.error
            if kind == wire.EOF:
                return 0
            if kind in (wire.SECTION_START, wire.SECTION_FULL):
                status = yield from self._begun(source)
            elif kind in (wire.SECTION_PART, wire.SECTION_END):
                status = yield from self._continued(source)
            elif kind == wire.COMMAND:
                status = yield from self._command(source)
            else:
                self._report(f"Unknown savevm section type {kind}")
                return _INVALID
            if status:
                return status

    def _begun(self, source: Input) -> Reading:
        ident = yield from source.u32()
        name = yield from source.counted()
        if name is None:
            self._report(f"Unable to read ID string for section {ident}")
            return _INVALID
        instance = yield from source.u32()
        version = yield from source.u32()
        if source.error:
            where = "qemu_loadvm_section_start_full"
            self._report(f"{where}: Failed to read instance/version ID: {-source.error}")
            return -source.error
        part = self._parts.get(name) if not instance else None
        if part is None:
            self._report(
                f"Unknown savevm section or instance '{name}' {instance}. Make sure that your "
                "current VM setup matches your saved VM setup, including any hotplugged devices"
            )
            return _INVALID
        if version > part.version:
            self._report(
                f"savevm: unsupported version {_signed(version)} for '{name}' v{part.version}"
            )
            return _INVALID
        self._known[ident] = part, version
        status = yield from part.load(source, version)
        if status < 0:
            self._report(
                f"error while loading state for instance 0x{instance:x} of device '{name}'"
            )
            return status
        return (yield from self._footer(source, part, ident))

    def _continued(self, source: Input) -> Reading:
        ident = yield from source.u32()
        if source.error:
            where = "qemu_loadvm_section_part_end"
            self._report(f"{where}: Failed to read section ID: {-source.error}")
            return -source.error
        if ident not in self._known:
            self._report(f"Unknown savevm section {_signed(ident)}")
            return _INVALID
        part, version = self._known[ident]
        status = yield from part.load(source, version)
        if status < 0:
            self._report(f"error while loading state section id {_signed(ident)}({part.name})")
            return status
        return (yield from self._footer(source, part, ident))

    def _footer(self, source: Input, part: Part, ident: int) -> Reading:
        mark = yield from source.u8()
        if source.error:
            self._report(f"check_section_footer: Read section footer failed: {-source.error}")
            return _INVALID
        if mark != wire.FOOTER:
            self._report(f"Missing section footer for {part.name}")
            return _INVALID
        found = yield from source.u32()
        if found != ident:
            self._report(
                f"Mismatched section id in footer for {part.name} - "
                f"read 0x{found:x} expected 0x{ident:x}"
            )
            return _INVALID
        return 0

    def _description(self, source: Input) -> Pull[None]:
        kind = yield from source.u8()
        if kind != wire.DESCRIPTION:
            self._report(f"Expected vmdescription section, but got {kind}")
            return
        left = yield from source.u32()
        while left > 0 and not source.error:
            part = yield from source.some(min(left, 0x1000))
            left -= len(part)

    # Commands

    def _command(self, source: Input) -> Reading:
        number = yield from source.u16()
        length = yield from source.u16()
        if source.error:
            return -source.error
        if number not in wire.COMMANDS:
            self._report(f"MIG_CMD 0x{number:x} unknown (len 0x{length:x})")
            return _INVALID
        name, wanted = wire.COMMANDS[number]
        if wanted is not None and length != wanted:
            self._report(f"{name} received with bad length - expecting {wanted}, got {length}")
            return -errno.ERANGE
        handler = _HANDLERS.get(number)
        if handler is None:
            self._report(f"Unsupported command {name}")
            return _INVALID
        return (yield from handler(self, source, length))

    def _open_return_path(self, source: Input, length: int) -> Reading:
        if self._return_path:
            self._report("CMD_OPEN_RETURN_PATH called when RP already open")
            return 0
        self._return_path = True
        yield Step.OPEN_RETURN_PATH
        return 0

    def _ping(self, source: Input, length: int) -> Reading:
        value = yield from source.u32()
        if not self._return_path:
            self._report(f"CMD_PING (0x{value:x}) received with no return path")
            return -1
        yield Answer(wire.reply(wire.REPLY_PONG, value))
        return 0

    def _packaged(self, source: Input, length: int) -> Reading:
        size = yield from source.u32()
        if size > wire.MOST_PACKAGED:
            self._report(f"Unreasonably large packaged state: {size}")
            return -1
        data = yield from source.some(size)
        if len(data) != size:
            self._report(f"CMD_PACKAGED: Buffer receive fail ret={len(data)} length={size}")
            return -errno.EAGAIN
        return (yield from self._sections(Input(data, ended=True)))

    def _advise(self, source: Input, length: int) -> Reading:
        if self._advised:
            self._report("CMD_POSTCOPY_ADVISE in wrong postcopy state (1)")
            return -1
        self._advised = True
        wanted = self._settings.postcopy_ram
        if length == 0:
            if wanted:
                self._report("RAM postcopy is enabled but have 0 byte advise")
                return _INVALID
            return 0
        if length != 16:
            self._report(f"CMD_POSTCOPY_ADVISE invalid length ({length})")
            return _INVALID
        if not wanted:
            self._report("RAM postcopy is disabled but have 16 byte advise")
            return _INVALID
        yield from source.u64()
        size = yield from source.u64()
        if size != wire.PAGE:
            self._report(f"Postcopy needs matching target page sizes (s={size} d={wire.PAGE})")
            return -1
        return 0

    def _listen(self, source: Input, length: int) -> Reading:
        if not self._advised or self.listening:
            self._report(f"CMD_POSTCOPY_LISTEN in wrong postcopy state ({3 * self.listening})")
            return -1
        self.listening = True
        yield Step.LISTEN
        return 0

    def _run(self, source: Input, length: int) -> Reading:
        if not self.listening or self.running:
            state = 4 if self.running else int(self._advised)
            self._report(f"CMD_POSTCOPY_RUN in wrong postcopy state ({state})")
            return -1
        self.running = True
        yield Step.RUN
        return _QUIT

    def _discard(self, source: Input, length: int) -> Reading:
        """Read over pages to be dropped: there are none."""
        yield from source.exactly(length)
        return 0

    # Parts of the machine

    def _load_ram(self, source: Input, version: int) -> Pull[int]:
        """Read what is said of memory: there must be none (ram_load_precopy)."""
        if version != 4:
            return _INVALID
        while True:
            address = yield from source.u64()
            flags, address = address & wire.PAGE - 1, address & -wire.PAGE
            if flags & _RAM_PAGES:
                return (yield from self._foreign_page(source, flags))
            if flags == wire.RAM_SIZE and address:
                name = yield from source.counted()
                self._report(f'Unknown ramblock "{name or ""}", cannot accept migration')
                return _INVALID
            if flags not in (wire.RAM_SIZE, wire.RAM_END):
                self._report(f"Unknown combination of migration flags: 0x{flags:x}")
                return _INVALID
            if source.error:
                return -source.error
            if flags == wire.RAM_END:
                return 0

    def _foreign_page(self, source: Input, flags: int) -> Pull[int]:
        if flags & _CONTINUE:
            self._report("Ack, bad migration stream!")
        else:
            name = yield from source.counted()
            self._report(f"Can't find block {name or ''}")
        self._report("Illegal RAM offset 0")
        return _INVALID

    def _load_timer(self, source: Input, version: int) -> Pull[int]:
        yield from source.u64()
        yield from source.u64()
        self.clock = yield from source.u64()
        return -source.error

    def _load_global_state(self, source: Input, version: int) -> Pull[int]:
        yield from source.u32()
        text = yield from source.exactly(wire.RUN_STATE_BYTES)
        if source.error:
            return -source.error
        name = text[:-1].split(b"\0")[0].decode("utf-8", "surrogateescape")
        try:
            self.run_state = RunState(name)
        except ValueError:
            self._report(f"invalid parameter value: {name}")
            return _INVALID
        return 0


_HANDLERS: Final = {
    wire.OPEN_RETURN_PATH: Load._open_return_path,
    wire.PING: Load._ping,
    wire.PACKAGED: Load._packaged,
    wire.POSTCOPY_ADVISE: Load._advise,
    wire.POSTCOPY_LISTEN: Load._listen,
    wire.POSTCOPY_RUN: Load._run,
    wire.POSTCOPY_RAM_DISCARD: Load._discard,
}


def _signed(number: int) -> int:
    return number - (1 << 32) if number >> 31 else number


def _uuid(data: bytes) -> str:
    text = data.hex()
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))
