"""``blockemu-nbd --list``: what a server offers, as qemu-nbd shows it."""

import asyncio
import sys
from typing import TYPE_CHECKING, Any, Final

from blockemu.drivers.nbd.dialling import dial
from blockemu.host.pool import Pool
from blockemu.nbd import wire
from blockemu.nbd.client import ExportInfo, list_exports
from blockemu.qmp_server.qapi import visit
from blockemu.schema.sockets import AnySocketAddress

if TYPE_CHECKING:
    from blockemu.tls.credentials import TlsCreds

_FLAGS: Final = {
    wire.READ_ONLY: "readonly",
    wire.SEND_FLUSH: "flush",
    wire.SEND_FUA: "fua",
    wire.ROTATIONAL: "rotational",
    wire.SEND_TRIM: "trim",
    wire.SEND_WRITE_ZEROES: "zeroes",
    wire.SEND_DF: "df",
    wire.CAN_MULTI_CONN: "multi",
    wire.SEND_RESIZE: "resize",
    wire.SEND_CACHE: "cache",
    wire.SEND_FAST_ZERO: "fast-zero",
}


def show(address: dict[str, Any], tls: "TlsCreds | None", hostname: str | None) -> None:
    """Print what the server at a SocketAddress has.

    Raises:
        QmpError: it cannot be reached, or has no list.

    """
    exports = asyncio.run(_ask(address, tls, hostname))
    lines = [f"exports available: {len(exports)}"]
    for export in exports:
        lines += _lines(export)
    text = "".join(f"{line}\n" for line in lines)
    sys.stdout.buffer.write(text.encode("utf-8", "surrogateescape"))
    sys.stdout.flush()


async def _ask(
    address: dict[str, Any], tls: "TlsCreds | None", hostname: str | None
) -> list[ExportInfo]:
    pool = Pool(1)
    try:
        channel = await dial(visit(AnySocketAddress, address), pool, tls, hostname)
        try:
            return await channel.follow(list_exports(tls=tls is not None))
        finally:
            channel.close(politely=False)
    finally:
        pool.close()


def _lines(export: ExportInfo) -> list[str]:
    """Return the lines for one export; what the server did not tell is left out."""
    lines = [f" export: '{export.name}'"]
    if export.description:
        lines.append(f"  description: {export.description}")
    if export.flags & wire.HAS_FLAGS:
        names = "".join(f" {name}" for flag, name in _FLAGS.items() if export.flags & flag)
        lines += [f"  size:  {export.size}", f"  flags: 0x{export.flags:x} ({names} )"]
    if export.min_block:
        lines += [
            f"  min block: {export.min_block}",
            f"  opt block: {export.opt_block}",
            f"  max block: {export.max_block}",
        ]
    if export.contexts:
        lines.append(f"  available meta contexts: {len(export.contexts)}")
        lines += [f"   {context}" for context in export.contexts]
    return lines
