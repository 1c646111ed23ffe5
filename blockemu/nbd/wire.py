"""Numbers and layouts of the NBD protocol (doc/proto.md of the NBD project)."""

import struct
from typing import Final

# Handshake

INIT_MAGIC: Final = 0x4E42444D41474943  # "NBDMAGIC"
OPTION_MAGIC: Final = 0x49484156454F5054  # "IHAVEOPT"
OLDSTYLE_MAGIC: Final = 0x420281861253
REPLY_MAGIC: Final = 0x3E889045565A9

FIXED_NEWSTYLE, NO_ZEROES = 1, 2  # the server's flags, and the client's

OPTION = struct.Struct(">QII")  # magic, option, length
OPTION_REPLY = struct.Struct(">QIII")  # magic, option, type, length
RESERVED: Final = 124  # bytes of zeroes after an old handshake

OPT_EXPORT_NAME, OPT_ABORT, OPT_LIST, OPT_STARTTLS = 1, 2, 3, 5
OPT_INFO, OPT_GO, OPT_STRUCTURED_REPLY = 6, 7, 8
OPT_LIST_META_CONTEXT, OPT_SET_META_CONTEXT = 9, 10

REP_ACK, REP_SERVER, REP_INFO, REP_META_CONTEXT = 1, 2, 3, 4
REP_ERROR: Final = 1 << 31
REP_ERR_UNSUP, REP_ERR_POLICY, REP_ERR_INVALID = REP_ERROR | 1, REP_ERROR | 2, REP_ERROR | 3
REP_ERR_PLATFORM, REP_ERR_TLS_REQD, REP_ERR_UNKNOWN = REP_ERROR | 4, REP_ERROR | 5, REP_ERROR | 6
REP_ERR_SHUTDOWN, REP_ERR_BLOCK_SIZE_REQD = REP_ERROR | 7, REP_ERROR | 8

INFO_EXPORT, INFO_NAME, INFO_DESCRIPTION, INFO_BLOCK_SIZE = 0, 1, 2, 3

# What a server can (transmission flags)

HAS_FLAGS, READ_ONLY, SEND_FLUSH, SEND_FUA = 1 << 0, 1 << 1, 1 << 2, 1 << 3
ROTATIONAL, SEND_TRIM, SEND_WRITE_ZEROES, SEND_DF = 1 << 4, 1 << 5, 1 << 6, 1 << 7
CAN_MULTI_CONN, SEND_RESIZE, SEND_CACHE, SEND_FAST_ZERO = 1 << 8, 1 << 9, 1 << 10, 1 << 11

# Transmission

REQUEST_MAGIC, SIMPLE_MAGIC, CHUNK_MAGIC = 0x25609513, 0x67446698, 0x668E33EF
REQUEST = struct.Struct(">IHHQQI")  # magic, flags, command, cookie, offset, length
SIMPLE = struct.Struct(">IIQ")  # magic, error, cookie
CHUNK = struct.Struct(">IHHQI")  # magic, flags, type, cookie, length

CMD_READ, CMD_WRITE, CMD_DISC, CMD_FLUSH, CMD_TRIM = 0, 1, 2, 3, 4
CMD_CACHE, CMD_WRITE_ZEROES, CMD_BLOCK_STATUS = 5, 6, 7

FLAG_FUA, FLAG_NO_HOLE, FLAG_DF, FLAG_REQ_ONE, FLAG_FAST_ZERO = 1, 2, 4, 8, 16

CHUNK_DONE: Final = 1
CHUNK_NONE, CHUNK_OFFSET_DATA, CHUNK_OFFSET_HOLE, CHUNK_BLOCK_STATUS = 0, 1, 2, 5
CHUNK_ERROR_BIT: Final = 1 << 15
CHUNK_ERROR, CHUNK_ERROR_OFFSET = CHUNK_ERROR_BIT | 1, CHUNK_ERROR_BIT | 2

STATE_HOLE, STATE_ZERO = 1, 2  # of an extent in base:allocation

# Bounds

DEFAULT_PORT: Final = 10809
MAX_PAYLOAD: Final = 32 << 20  # bytes of a request or of an option
MAX_STRING: Final = 4096  # bytes of a name or a query

BASE_ALLOCATION: Final = "base:allocation"
ALLOCATION_DEPTH: Final = "qemu:allocation-depth"

# The error numbers that the protocol knows, which are Linux's
EPERM, EIO, ENOMEM, EINVAL, ENOSPC = 1, 5, 12, 22, 28
EOVERFLOW, ENOTSUP, ESHUTDOWN = 75, 95, 108
ERRORS: Final = frozenset({EPERM, EIO, ENOMEM, EINVAL, ENOSPC, EOVERFLOW, ENOTSUP, ESHUTDOWN})

OPTION_NAMES: Final = {
    OPT_EXPORT_NAME: "export name",
    OPT_ABORT: "abort",
    OPT_LIST: "list",
    OPT_STARTTLS: "starttls",
    OPT_INFO: "info",
    OPT_GO: "go",
    OPT_STRUCTURED_REPLY: "structured reply",
    OPT_LIST_META_CONTEXT: "list meta context",
    OPT_SET_META_CONTEXT: "set meta context",
}
REPLY_NAMES: Final = {
    REP_ACK: "ack",
    REP_SERVER: "server",
    REP_INFO: "info",
    REP_META_CONTEXT: "meta context",
    REP_ERR_UNSUP: "unsupported",
    REP_ERR_POLICY: "denied by policy",
    REP_ERR_INVALID: "invalid",
    REP_ERR_PLATFORM: "platform lacks support",
    REP_ERR_TLS_REQD: "TLS required",
    REP_ERR_UNKNOWN: "export unknown",
    REP_ERR_SHUTDOWN: "server shutting down",
    REP_ERR_BLOCK_SIZE_REQD: "block size required",
}
UNKNOWN_NAME: Final = "<unknown>"


def option_name(option: int) -> str:
    """Return the word for an option in QEMU's texts (nbd_opt_lookup, nbd/common.c)."""
    return OPTION_NAMES.get(option, UNKNOWN_NAME)


def reply_name(reply: int) -> str:
    """Return the word for an option reply in QEMU's texts (nbd_rep_lookup, nbd/common.c)."""
    return REPLY_NAMES.get(reply, UNKNOWN_NAME)


def system_errno(error: int) -> int:
    """Return the errno for a number that came over the wire; unknown ones are EINVAL."""
    return error if not error or error in ERRORS else EINVAL
