"""Crashes on demand; no QEMU has these."""

from blockemu.qmp_server.qapi import NO_QEMU, U32, QEnum, Struct


class XEmuCrashEvent(QEnum):
    """What a crash may come at.

    A write: when it has begun, so that it may survive.  A flush: before it takes effect.
    bitmap-write: a write while bitmaps are being stored.  prepare, commit: when an action of a
    transaction has just done that.
    """

    WRITE = "write"
    FLUSH = "flush"
    BITMAP_WRITE = "bitmap-write"
    PREPARE = "prepare"
    COMMIT = "commit"


class XEmuCrashSurvivors(QEnum):
    """What survives of the changes that no flush has made durable.

    all: all of them, in the order in which they were made; none; some: each or not, by chance;
    torn: the same, and of a write that does not survive as a whole, any of its sectors.
    """

    ALL = "all"
    NONE = "none"
    SOME = "some"
    TORN = "torn"


class XEmuCrashPoint(Struct, since=NO_QEMU):
    """When to crash.

    @event: what to wait for
    @count: which time, counted from 1
    @node-name: the node whose file is meant, for writes and flushes; any file if absent
    """

    event: XEmuCrashEvent
    count: U32 = 1
    node_name: str | None = None
