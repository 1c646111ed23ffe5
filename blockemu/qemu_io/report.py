"""What qemu-io prints about finished requests."""

from blockemu.qemu_io.sizes import duration_text, size_text

_VISIBLE = bytes(c if chr(c).isascii() and chr(c).isalnum() else ord(".") for c in range(256))


def report(
    verb: str, nanoseconds: int, offset: int, count: int, total: int, *, machine: bool = False
) -> str:
    """Describe one request: its bytes, and how fast it went (after print_report, qemu-io-cmds.c).

    ``machine``: bytes, operations, time and the two rates, with commas between (``-C``).
    """
    seconds = max(nanoseconds, 1) / 1e9  # a stepped clock may have stood still
    time = duration_text(nanoseconds, fixed=machine)
    if machine:
        return f"{total},1,{time},{total / seconds:.3f},{1 / seconds:.3f}\n"
    return (
        f"{verb} {total}/{count} bytes at offset {offset}\n"
        f"{size_text(total)}, 1 ops; {time} "
        f"({size_text(total / seconds)}/sec and {1 / seconds:.4f} ops/sec)\n"
    )


def dump(data: bytes | bytearray | memoryview, offset: int) -> str:
    """Show bytes, sixteen in a line, in hexadecimal and, if they are letters or digits, as such."""
    digits = bytes(data).hex(" ") + " "
    shown = bytes(data).translate(_VISIBLE).decode("ascii")
    return "".join(
        f"{offset + at:08x}:  {digits[3 * at : 3 * at + 48]} {shown[at : at + 16]}\n"
        for at in range(0, len(shown), 16)
    )
