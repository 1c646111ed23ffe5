"""The client's handshake, without I/O: a generator of steps that a transport takes.

What QEMU's client says, checks and refuses (nbd/client.c), for servers of all ages: fixed newstyle
with GO, newstyle that knows EXPORT_NAME only, oldstyle.
"""

import struct
from contextlib import suppress
from typing import Final

from blockemu.nbd import client_errors as errors
from blockemu.nbd import wire
from blockemu.nbd.client_errors import HandshakeError
from blockemu.nbd.lost import Lost
from blockemu.nbd.steps import Handshake, Receive, Send, StartTls
from blockemu.nbd.wire import option_name, reply_name
from blockemu.records import record, replace


@record(frozen=True)
class Wanted:
    """What a client asks for.

    ``context`` is the meta context whose extents block status shall give; ``tls``: only encrypted.
    """

    name: str = ""
    context: str = wire.BASE_ALLOCATION
    tls: bool = False


@record(frozen=True)
class ExportInfo:
    """What the server told of an export; sizes in bytes, 0 where it told none.

    ``context_id`` is None if the server has no such meta context.
    """

    name: str = ""
    size: int = 0
    flags: int = 0
    min_block: int = 0
    opt_block: int = 0
    max_block: int = 0
    structured: bool = False
    context_id: int | None = None
    description: str | None = None
    contexts: tuple[str, ...] = ()


@record
class _Start:
    """How far the beginning led."""

    newstyle: bool = False
    fixed: bool = False
    structured: bool = False
    zeroes: bool = True


@record
class _Reply:
    """The header of an option reply."""

    option: int
    kind: int
    length: int


_REFUSALS: Final = {
    wire.REP_ERR_POLICY: errors.DeniedByPolicy,
    wire.REP_ERR_INVALID: errors.InvalidParameters,
    wire.REP_ERR_PLATFORM: errors.PlatformLacksSupport,
    wire.REP_ERR_TLS_REQD: errors.TlsRequired,
    wire.REP_ERR_UNKNOWN: errors.ExportUnknown,
    wire.REP_ERR_SHUTDOWN: errors.ServerShutsDown,
    wire.REP_ERR_BLOCK_SIZE_REQD: errors.BlockSizeRequired,
}
_TLS_HINT = "Did you forget a valid tls-creds?\n"


def connect(wanted: Wanted) -> Handshake[ExportInfo]:
    """Lead the handshake up to where requests may be sent (nbd_receive_negotiate).

    Raises:
        HandshakeError: the server refused, or talks nonsense; hang up.

    """
    try:
        return (yield from _connect(wanted))
    except HandshakeError as e:
        yield from _take_leave(e)
        raise


def list_exports(*, tls: bool = False) -> Handshake[list[ExportInfo]]:
    """Ask for all exports and what there is to know of each, then leave (nbd_receive_export_list).

    Raises:
        HandshakeError: the server refused, or talks nonsense; hang up.

    """
    try:
        return (yield from _list_exports(tls))
    except HandshakeError as e:
        yield from _take_leave(e)
        raise


def _take_leave(error: HandshakeError) -> Handshake[None]:
    """Tell the server, out of courtesy; it may be gone."""
    if error.leave:
        yield from _abort()


def _abort() -> Handshake[None]:
    with suppress(Lost):
        yield Send(_option(wire.OPT_ABORT))


# From the first byte to where options begin


def _connect(wanted: Wanted) -> Handshake[ExportInfo]:
    start = yield from _start(wanted.tls)
    info = ExportInfo(wanted.name)
    if not start.newstyle:
        if wanted.name:
            raise errors.NoExportNames
        info = yield from _finish_oldstyle(info)
    else:
        if start.structured:
            info = replace(info, structured=True)
            info = yield from _set_meta_context(info, wanted.context)
        if start.fixed:
            told = yield from _info_or_go(wire.OPT_GO, info)
            if told is not None:
                return told
            yield from _check_listed(wanted.name)
        yield from _send_option(wire.OPT_EXPORT_NAME, _encode(wanted.name))
        size = yield from _number(8, "export length")
        flags = yield from _number(2, "export flags")
        info = replace(info, size=size, flags=flags)
    if start.zeroes:
        try:
            yield Receive(wire.RESERVED)
        except Lost as e:
            raise errors.ReservedUnread(e) from e
    return info


def _start(tls: bool) -> Handshake[_Start]:
    """Find out of what kind the server is (nbd_start_negotiate)."""
    magic = yield from _number(8, "initial magic")
    if magic != wire.INIT_MAGIC:
        raise errors.BadInitialMagic(magic)
    magic = yield from _number(8, "server magic")
    if magic == wire.OLDSTYLE_MAGIC:
        if tls:
            raise errors.NoStartTls
        return _Start()
    if magic != wire.OPTION_MAGIC:
        raise errors.BadServerMagic(magic)
    flags = (yield from _number(2, "server flags")) & (wire.FIXED_NEWSTYLE | wire.NO_ZEROES)
    try:
        yield Send(struct.pack(">I", flags))
    except Lost as e:
        raise errors.SendFailed("clientflags field", e) from e
    start = _Start(True, bool(flags & wire.FIXED_NEWSTYLE), False, not flags & wire.NO_ZEROES)
    if tls:
        if not start.fixed:
            raise errors.NoStartTls
        if not (yield from _simple_option(wire.OPT_STARTTLS, strict=True)):
            raise errors.StartTlsRefused
        yield StartTls()
    if start.fixed:
        start.structured = yield from _simple_option(wire.OPT_STRUCTURED_REPLY, strict=False)
    return start


def _finish_oldstyle(info: ExportInfo) -> Handshake[ExportInfo]:
    size = yield from _number(8, "export length")
    flags = yield from _number(4, "export flags")
    if flags >> 16:
        raise errors.UnexpectedFlags(flags)
    return replace(info, size=size, flags=flags)


# Options and their replies


def _send_option(option: int, data: bytes = b"") -> Handshake[None]:
    try:
        yield Send(_option(option, data))
    except Lost as e:
        raise errors.SendFailed("option request header", e) from e


def _option(option: int, data: bytes = b"") -> bytes:
    return wire.OPTION.pack(wire.OPTION_MAGIC, option, len(data)) + data


def _reply(option: int) -> Handshake[_Reply]:
    """Receive the header of a reply to ``option``."""
    head = yield from _read(wire.OPTION_REPLY.size, "option reply")
    magic, about, kind, length = wire.OPTION_REPLY.unpack(head)
    if magic != wire.REPLY_MAGIC:
        raise errors.BadReplyMagic
    if about != option:
        raise errors.OtherOption(about, option_name(about), option, option_name(option))
    return _Reply(about, kind, length)


def _is_good(reply: _Reply, *, strict: bool) -> Handshake[bool]:
    """Tell whether a reply is no error; one that says unsupported is not raised.

    Nor is any other if not ``strict``.  After nbd_handle_reply_err.
    """
    if not reply.kind & wire.REP_ERROR:
        return True
    message = b""
    if reply.length > wire.MAX_PAYLOAD:
        raise errors.MessageTooLong(reply.kind, reply_name(reply.kind))
    if reply.length:
        try:
            message = yield Receive(reply.length)
        except Lost as e:
            raise errors.MessageUnread(reply.kind, reply_name(reply.kind), e) from e
    if reply.kind == wire.REP_ERR_UNSUP or not strict:
        return False
    hint = _TLS_HINT if reply.kind == wire.REP_ERR_TLS_REQD else ""
    if reply.length:
        hint += f"server reported: {_decode(message)}\n"
    refusal = _REFUSALS.get(reply.kind, errors.UnknownRefusal)
    raise refusal(reply.option, option_name(reply.option), hint=hint)


def _simple_option(option: int, *, strict: bool) -> Handshake[bool]:
    """Ask for something that is had or not (nbd_request_simple_option)."""
    yield from _send_option(option)
    reply = yield from _reply(option)
    if not (yield from _is_good(reply, strict=strict)):
        return False
    name = option_name(option)
    if reply.kind != wire.REP_ACK:
        raise errors.UnexpectedAnswer(option, name, reply.kind, reply_name(reply.kind))
    if reply.length:
        raise errors.AnswerTooLong(option, name, reply.length)
    return True


# INFO and GO


def _info_or_go(option: int, info: ExportInfo) -> Handshake[ExportInfo | None]:
    """Ask about an export, or for it; return None if the server does not know the option.

    After nbd_opt_info_or_go.
    """
    name = _encode(info.name)
    data = struct.pack(">I", len(name)) + name + struct.pack(">HH", 1, wire.INFO_BLOCK_SIZE)
    yield from _send_option(option, data)
    while True:
        reply = yield from _reply(option)
        if not (yield from _is_good(reply, strict=True)):
            return None
        if reply.kind == wire.REP_ACK:
            if reply.length:
                raise errors.InvalidAck
            if not info.flags:
                raise errors.ExportInfoMissing
            return info
        if reply.kind != wire.REP_INFO:
            wanted = (wire.REP_INFO, reply_name(wire.REP_INFO))
            raise errors.UnexpectedInfoReply(reply.kind, reply_name(reply.kind), *wanted)
        if reply.length < 2:
            raise errors.InfoTooShort(reply.length)
        kind = yield from _number(2, "info type")
        info = yield from _take_info(kind, reply.length - 2, info)


def _take_info(kind: int, length: int, info: ExportInfo) -> Handshake[ExportInfo]:
    if kind == wire.INFO_EXPORT:
        if length != 10:
            raise errors.InfoLength(length)
        size = yield from _number(8, "info size")
        flags = yield from _number(2, "info flags")
        if info.min_block and size % info.min_block:
            raise errors.SizeUnaligned(size, info.min_block)
        return replace(info, size=size, flags=flags)
    if kind == wire.INFO_BLOCK_SIZE:
        if length != 12:
            raise errors.InfoLength(length)
        return (yield from _take_block_sizes(info))
    try:
        while length:
            length -= len((yield Receive(min(length, 1 << 16))))
    except Lost as e:
        raise errors.InfoUnread(e) from e
    return info


def _take_block_sizes(info: ExportInfo) -> Handshake[ExportInfo]:
    least = yield from _number(4, "info minimum block size")
    if not _is_power(least):
        raise errors.MinimumNotPower(least)
    preferred = yield from _number(4, "info preferred block size")
    if not _is_power(preferred) or preferred < least:
        raise errors.PreferredInvalid(preferred)
    most = yield from _number(4, "info maximum block size")
    if most < least:
        raise errors.MaximumInvalid(most)
    return replace(info, min_block=least, opt_block=preferred, max_block=most)


# LIST


def _check_listed(name: str) -> Handshake[None]:
    """Make sure that an export exists, where asking for it gives no error message.

    An empty list says nothing: such a server may have none.  After nbd_receive_query_exports.
    """
    names = [export.name for export in (yield from _list())]
    if names and name not in names:
        raise errors.NoSuchExport(name)


def _list() -> Handshake[list[ExportInfo]]:
    yield from _send_option(wire.OPT_LIST)
    found: list[ExportInfo] = []
    while (export := (yield from _list_entry())) is not None:
        found.append(export)
    return found


def _list_entry() -> Handshake[ExportInfo | None]:
    """Receive one export's name; None at the end, and if lists are not supported."""
    reply = yield from _reply(wire.OPT_LIST)
    if not (yield from _is_good(reply, strict=True)):
        return None
    left = reply.length
    if reply.kind == wire.REP_ACK:
        if left:
            raise errors.ListEndTooLong
        return None
    if reply.kind != wire.REP_SERVER:
        wanted = (wire.REP_SERVER, reply_name(wire.REP_SERVER))
        raise errors.UnexpectedReply(reply.kind, reply_name(reply.kind), *wanted)
    if not 4 <= left <= wire.MAX_PAYLOAD:
        raise errors.ListLength(left)
    size = yield from _number(4, "option name length")
    left -= 4
    if size > min(left, wire.MAX_STRING):
        raise errors.ListNameLength
    name = _decode((yield from _read(size, "export name")))
    left -= size
    if left > wire.MAX_STRING:
        raise errors.ListDescriptionLength
    description = _decode((yield from _read(left, "export description"))) if left else None
    return ExportInfo(name, description=description)


def _list_exports(tls: bool) -> Handshake[list[ExportInfo]]:
    start = yield from _start(tls)
    if not start.newstyle:
        info = yield from _finish_oldstyle(ExportInfo())
        with suppress(Lost):  # what was wanted is there
            yield Receive(wire.RESERVED)
            yield Send(wire.REQUEST.pack(wire.REQUEST_MAGIC, 0, wire.CMD_DISC, 0, 0, 0))
        return [info]
    if not start.fixed:
        raise errors.NoExportLists
    exports = yield from _list()
    for at, listed in enumerate(exports):
        asked = replace(listed, structured=start.structured)
        told = yield from _info_or_go(wire.OPT_INFO, asked)
        if told is None:
            break
        if start.structured:
            told = replace(told, contexts=(yield from _list_meta_contexts(told.name)))
        exports[at] = told
    yield from _abort()
    return exports


# Meta contexts


def _set_meta_context(info: ExportInfo, context: str) -> Handshake[ExportInfo]:
    """Ask for one meta context (nbd_negotiate_simple_meta_context)."""
    option = wire.OPT_SET_META_CONTEXT
    yield from _send_option(option, _meta_query(info.name, context))
    answer = yield from _meta_context(option)
    if answer is None:
        return info
    number, name = answer
    if name != context:
        raise errors.OtherContext(context, name)
    if (yield from _meta_context(option)) is not None:
        raise errors.SeveralContexts
    return replace(info, context_id=number)


def _list_meta_contexts(export: str) -> Handshake[tuple[str, ...]]:
    """Ask which meta contexts an export has.

    Servers of QEMU 3.0 name those of ``qemu:`` only when asked for them.
    """
    option = wire.OPT_LIST_META_CONTEXT
    found: list[str] = []
    for query in (None, "qemu:"):
        if query is not None and (not found or any(name.startswith(query) for name in found)):
            break
        yield from _send_option(option, _meta_query(export, query))
        while (answer := (yield from _meta_context(option))) is not None:
            found.append(answer[1])
    return tuple(found)


def _meta_query(export: str, query: str | None) -> bytes:
    name = _encode(export)
    data = struct.pack(">I", len(name)) + name
    if query is None:
        return data + struct.pack(">I", 0)
    text = _encode(query)
    return data + struct.pack(">II", 1, len(text)) + text


def _meta_context(option: int) -> Handshake[tuple[int, str] | None]:
    """Receive the number and name of a context; None at the end, and on any error."""
    reply = yield from _reply(option)
    if not (yield from _is_good(reply, strict=False)):
        return None
    if reply.kind == wire.REP_ACK:
        if reply.length:
            raise errors.MetaAckTooLong
        return None
    if reply.kind != wire.REP_META_CONTEXT:
        wanted = (wire.REP_META_CONTEXT, reply_name(wire.REP_META_CONTEXT))
        raise errors.UnexpectedReply(reply.kind, reply_name(reply.kind), *wanted)
    if not 4 < reply.length <= wire.MAX_PAYLOAD:
        raise errors.MetaLength(reply.length)
    number = yield from _number(4, "context id")
    name = yield from _read(reply.length - 4, "context name")
    return number, _decode(name)


# Bytes


def _read(size: int, what: str) -> Handshake[bytes]:
    if not size:
        return b""
    try:
        return (yield Receive(size))
    except Lost as e:
        raise errors.ReadFailed(what, e) from e


def _number(size: int, what: str) -> Handshake[int]:
    return int.from_bytes((yield from _read(size, what)), "big")


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _decode(data: bytes) -> str:
    """Return a string as C reads it: up to the first NUL."""
    return data.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def _is_power(number: int) -> bool:
    return number > 0 and not number & (number - 1)
