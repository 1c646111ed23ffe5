"""The server's handshake, without I/O: what QEMU's server answers (nbd/server.c)."""

import struct
from collections.abc import Sequence
from contextlib import suppress
from typing import Final, Protocol

from blockemu.nbd import wire
from blockemu.nbd.lost import Lost
from blockemu.nbd.steps import Handshake, Receive, Send, StartTls
from blockemu.nbd.wire import option_name
from blockemu.records import field, record

BASE_ID, DEPTH_ID, FIRST_BITMAP_ID = 0, 1, 2
PREFERRED_BLOCK: Final = 4096
SHOWN_NAME: Final = 80  # bytes of a name in an error message


class Refused(Exception):
    """The client broke the protocol, or left: hang up."""


class Left(Refused):
    """The client said that it leaves."""


class Export(Protocol):
    """What the handshake tells of an export; sizes in bytes."""

    name: str
    description: str | None
    size: int
    allocation_depth: bool

    @property
    def flags(self) -> int:
        """The transmission flags, without DF."""

    @property
    def alignment(self) -> int:
        """Bytes that requests should be multiples of."""

    @property
    def max_transfer(self) -> int:
        """Bytes of one request at the most."""

    @property
    def bitmap_names(self) -> Sequence[str]:
        """The bitmaps that may be asked for."""


class Exports(Protocol):
    """What is exported just now."""

    def find(self, name: str) -> "Export | None":
        """Return the export of a name."""

    def all(self) -> "Sequence[Export]":
        """Return all, in the order they are listed."""


@record
class Contexts:
    """The meta contexts that a client chose; ``bitmaps`` are indices into the export's."""

    export: Export | None = None
    base: bool = False
    depth: bool = False
    bitmaps: set[int] = field(default_factory=set)

    @property
    def chosen(self) -> list[int]:
        """Their numbers, in the order of replies."""
        ids = [BASE_ID] * self.base + [DEPTH_ID] * self.depth
        return ids + [FIRST_BITMAP_ID + i for i in sorted(self.bitmaps)]


@record
class Session:
    """What the handshake agreed on."""

    export: Export
    structured: bool = False
    contexts: list[int] = field(default_factory=list)


class _Inconsistent(Exception):
    """The option's own lengths do not add up, or it is answered already."""


class Negotiation:
    """One client's handshake."""

    def __init__(self, exports: Exports, *, tls: bool = False) -> None:
        self.exports = exports
        self.tls = tls  # nothing but encrypted
        self.encrypted = False
        self.fixed = self.no_zeroes = self.structured = False
        self.option = 0
        self.contexts = Contexts()

    def run(self) -> Handshake[Session]:
        """Lead the handshake up to where requests are served (nbd_negotiate).

        Raises:
            Refused: hang up; the text is for the log.

        """
        flags = wire.FIXED_NEWSTYLE | wire.NO_ZEROES
        yield Send(struct.pack(">QQH", wire.INIT_MAGIC, wire.OPTION_MAGIC, flags))
        (flags,) = struct.unpack(">I", (yield Receive(4, "flags")))
        self.fixed, self.no_zeroes = bool(flags & 1), bool(flags & 2)
        if flags & ~3:
            raise Refused(f"Unknown client flags 0x{flags & ~3:x} received")
        while True:
            magic, option, length = wire.OPTION.unpack(
                (yield Receive(wire.OPTION.size, "opts magic"))
            )
            if magic != wire.OPTION_MAGIC:
                raise Refused("Bad magic received")
            if length > wire.MAX_PAYLOAD:
                most = wire.MAX_PAYLOAD
                raise Refused(f"len ({length} ) is larger than max len ({most})")
            self.option = option
            if self.tls and not self.encrypted:
                yield from self._before_tls(option, length)
                continue
            session = yield from self._answer(option, length)
            if session is not None:
                return session

    def _before_tls(self, option: int, length: int) -> Handshake[None]:
        if not self.fixed:
            raise Refused(f"Unsupported option 0x{option:x}")
        if option == wire.OPT_STARTTLS:
            if length:
                yield from self._unexpected_length(length)
                raise Refused(f"option '{option_name(option)}' has unexpected length")
            yield self._reply(wire.REP_ACK)
            yield StartTls()
            self.encrypted = True
            return
        text = f"Option 0x{option:x} not permitted before TLS"
        if option == wire.OPT_EXPORT_NAME:
            raise Refused(text)
        yield from self._drop(length)
        answer = self._error(wire.REP_ERR_TLS_REQD, text)
        if option == wire.OPT_ABORT:
            yield from self._part(answer)
        yield answer

    def _answer(self, option: int, length: int) -> Handshake[Session | None]:
        if option == wire.OPT_EXPORT_NAME:
            return (yield from self._export_name(length))
        if not self.fixed:
            raise Refused(f"Unsupported option {option} ({option_name(option)})")
        if option == wire.OPT_ABORT:
            yield from self._part(self._reply(wire.REP_ACK))
        if option in (wire.OPT_LIST, wire.OPT_STARTTLS, wire.OPT_STRUCTURED_REPLY):
            if length:
                yield from self._unexpected_length(length)
            else:
                yield from self._plain(option)
            return None
        if option in (wire.OPT_INFO, wire.OPT_GO):
            return (yield from self._parsed(length, self._info))
        if option in (wire.OPT_LIST_META_CONTEXT, wire.OPT_SET_META_CONTEXT):
            if option == wire.OPT_SET_META_CONTEXT and not self.structured:
                yield from self._drop(length)
                name = option_name(option)
                text = f"request option '{name}' when structured reply is not negotiated"
                yield self._error(wire.REP_ERR_INVALID, text)
                return None
            return (yield from self._parsed(length, self._meta))
        yield from self._drop(length)
        text = f"Unsupported option {option} ({option_name(option)})"
        yield self._error(wire.REP_ERR_UNSUP, text)
        return None

    def _part(self, answer: Send) -> Handshake[None]:
        """Answer a client that leaves; it may be gone."""
        with suppress(Lost):
            yield answer
        raise Left

    # Replies

    def _reply(self, kind: int, payload: bytes = b"") -> Send:
        head = wire.OPTION_REPLY.pack(wire.REPLY_MAGIC, self.option, kind, len(payload))
        return Send(head + payload)

    def _error(self, kind: int, text: str) -> Send:
        return self._reply(kind, text.encode("utf-8", "surrogateescape"))

    def _drop(self, length: int) -> Handshake[None]:
        while length:
            part = min(length, 1 << 16)
            yield Receive(part)
            length -= part

    def _unexpected_length(self, length: int) -> Handshake[None]:
        yield from self._drop(length)
        text = f"option '{option_name(self.option)}' has unexpected length"
        yield self._error(wire.REP_ERR_INVALID, text)

    def _plain(self, option: int) -> Handshake[None]:
        """Answer an option that has no data."""
        if option == wire.OPT_LIST:
            yield from self._list()
        elif option == wire.OPT_STRUCTURED_REPLY and not self.structured:
            self.structured = True
            yield self._reply(wire.REP_ACK)
        elif option == wire.OPT_STRUCTURED_REPLY:
            yield self._error(wire.REP_ERR_INVALID, "structured reply already negotiated")
        elif self.tls:
            yield self._error(wire.REP_ERR_INVALID, "TLS already enabled")
        else:
            yield self._error(wire.REP_ERR_POLICY, "TLS not configured")

    def _list(self) -> Handshake[None]:
        for export in self.exports.all():
            yield self._listed(export)
        yield self._reply(wire.REP_ACK)

    def _listed(self, export: Export) -> Send:
        name = _encode(export.name)
        text = struct.pack(">I", len(name)) + name + _encode(export.description or "")
        return self._reply(wire.REP_SERVER, text)

    # Export name, information

    def _flags(self, export: Export) -> int:
        return export.flags | (wire.SEND_DF if self.structured else 0)

    def _export_name(self, length: int) -> Handshake[Session]:
        if length > wire.MAX_STRING:
            raise Refused("Bad length received")
        raw = (yield Receive(length)) if length else b""
        name = _decode(raw.partition(b"\0")[0])  # QEMU takes it for a C string
        export = self.exports.find(name)
        if export is None:
            raise Refused("export not found")
        zeroes = b"" if self.no_zeroes else bytes(wire.RESERVED)
        yield Send(struct.pack(">QH", export.size, self._flags(export)) + zeroes)
        return self._agreed(export)

    def _agreed(self, export: Export) -> Session:
        chosen = self.contexts.chosen if self.contexts.export is export else []
        return Session(export, self.structured, chosen)

    def _parsed(self, length: int, parse: "_Parse") -> Handshake[Session | None]:
        """Read an option's data as its parser wants it; say so if lengths do not add up."""
        data = _Data(length)
        try:
            return (yield from parse(data))
        except _TooLong as e:
            yield from self._drop(data.left)
            yield self._error(wire.REP_ERR_INVALID, f"Invalid name length: {e.length}")
        except _Inconsistent:
            yield from self._drop(data.left)
            text = f"Inconsistent lengths in option {option_name(self.option)}"
            yield self._error(wire.REP_ERR_INVALID, text)
        except _Embedded:
            yield from self._drop(data.left)
            text = f"Unexpected embedded NUL in option {option_name(self.option)}"
            yield self._error(wire.REP_ERR_INVALID, text)
        return None

    def _info(self, data: "_Data") -> Handshake[Session | None]:
        raw = yield from data.string()
        (count,) = struct.unpack(">H", (yield from data.take(2)))
        asked = set()
        for _ in range(count):
            asked.add(struct.unpack(">H", (yield from data.take(2)))[0])
        if data.left:
            yield from self._unexpected_length(data.left)
            return None
        export = self.exports.find(_decode(raw))
        if export is None:
            yield self._unknown(raw)
            return None
        sized = wire.INFO_BLOCK_SIZE in asked
        if wire.INFO_NAME in asked:
            yield self._reply(wire.REP_INFO, struct.pack(">H", wire.INFO_NAME) + raw)
        if export.description is not None:
            about = struct.pack(">H", wire.INFO_DESCRIPTION) + _encode(export.description)
            yield self._reply(wire.REP_INFO, about)
        least = export.alignment if self.option == wire.OPT_INFO or sized else 1
        sizes = (least, max(PREFERRED_BLOCK, least), min(export.max_transfer, wire.MAX_PAYLOAD))
        yield self._reply(wire.REP_INFO, struct.pack(">HIII", wire.INFO_BLOCK_SIZE, *sizes))
        about = struct.pack(">HQH", wire.INFO_EXPORT, export.size, self._flags(export))
        yield self._reply(wire.REP_INFO, about)
        if self.option == wire.OPT_INFO and not sized and export.alignment > 1:
            text = "request NBD_INFO_BLOCK_SIZE to use this export"
            yield self._error(wire.REP_ERR_BLOCK_SIZE_REQD, text)
            return None
        yield self._reply(wire.REP_ACK)
        return self._agreed(export) if self.option == wire.OPT_GO else None

    def _unknown(self, raw: bytes) -> Send:
        shown = _decode(raw if len(raw) < SHOWN_NAME else raw[:SHOWN_NAME] + b"...")
        return self._error(wire.REP_ERR_UNKNOWN, f"export '{shown}' not present")

    # Meta contexts

    def _meta(self, data: "_Data") -> Handshake[None]:
        listing = self.option == wire.OPT_LIST_META_CONTEXT
        found = Contexts()
        if not listing:
            self.contexts = found
        raw = yield from data.string()
        export = self.exports.find(_decode(raw))
        if export is None:
            yield from self._drop(data.left)
            yield self._unknown(raw)
            return
        (count,) = struct.unpack(">I", (yield from data.take(4)))
        if listing and not count:
            _choose(found, export, b"base:", listing)
            _choose(found, export, b"qemu:", listing)
        for _ in range(count):
            (size,) = struct.unpack(">I", (yield from data.take(4)))
            query = yield from data.take(size, text=size <= wire.MAX_STRING)
            if size <= wire.MAX_STRING:
                _choose(found, export, query, listing)
        for number in found.chosen:
            name = _encode(context_name(export, number))
            shown = 0 if listing else number
            yield self._reply(wire.REP_META_CONTEXT, struct.pack(">I", shown) + name)
        found.export = export
        yield self._reply(wire.REP_ACK)


def context_name(export: Export, number: int) -> str:
    """Return the name of a meta context."""
    if number == BASE_ID:
        return wire.BASE_ALLOCATION
    if number == DEPTH_ID:
        return wire.ALLOCATION_DEPTH
    return f"qemu:dirty-bitmap:{export.bitmap_names[number - FIRST_BITMAP_ID]}"


def _choose(found: Contexts, export: Export, query: bytes, listing: bool) -> None:
    """Note what a query means; a namespace alone means all of it, when listing."""
    space, colon, leaf = query.partition(b":")
    if not colon:
        return
    if space == b"base" and (leaf == b"allocation" or (not leaf and listing)):
        found.base = True
    if space != b"qemu":
        return
    every = not leaf and listing
    if leaf == b"allocation-depth" or every:
        found.depth = export.allocation_depth
    kind, _, name = leaf.partition(b":")
    if every or (leaf == b"dirty-bitmap:" and listing):
        found.bitmaps.update(range(len(export.bitmap_names)))
    elif kind == b"dirty-bitmap" and name:
        names = [_encode(each) for each in export.bitmap_names]
        if name in names:
            found.bitmaps.add(names.index(name))


class _TooLong(Exception):
    def __init__(self, length: int) -> None:
        super().__init__()
        self.length = length


class _Embedded(Exception):
    """A NUL in a text."""


class _Data:
    """What is left of an option's data."""

    def __init__(self, length: int) -> None:
        self.left = length

    def take(self, size: int, *, text: bool = False) -> Handshake[bytes]:
        """Read so many bytes of it; ``text``: without NUL.  Raises _Inconsistent, _Embedded."""
        if size > self.left:
            raise _Inconsistent
        self.left -= size
        data = (yield Receive(size)) if size else b""
        if text and b"\0" in data:
            raise _Embedded
        return data

    def string(self) -> Handshake[bytes]:
        """Read a name with its length before it."""
        (size,) = struct.unpack(">I", (yield from self.take(4)))
        if size > wire.MAX_STRING:
            raise _TooLong(size)
        return (yield from self.take(size, text=True))


class _Parse(Protocol):
    def __call__(self, data: _Data) -> Handshake[Session | None]: ...


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _decode(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")
