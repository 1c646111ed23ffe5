"""On-disk formats as pure codecs: bytes in, values out, no I/O."""

if __name__ != "blockemu.images":
    raise ImportError(f"import blockemu.images, not {__name__}")
