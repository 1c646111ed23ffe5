"""blockdev-create and x-blockdev-amend: their options, as far as no driver declares them."""

from typing import Annotated, Final

from blockemu.create_options import CREATE, CreationOptions
from blockemu.qmp_server.qapi import Struct, Union
from blockemu.schema.crypto import (
    AMEND_ENCRYPTED,
    QCryptoBlockAmendOptions,
    QCryptoBlockAmendOptionsLUKS,
)

BlockdevCreateOptions = Annotated[CreationOptions, CREATE]
_NOTHING_TO_CREATE: Final = (
    "blkdebug", "blklogwrites", "blkreplay", "blkverify", "bochs", "cloop", "compress",
    "copy-before-write", "copy-on-read", "dmg", "host_cdrom", "host_device", "http", "https",
    "ftp", "ftps", "iscsi", "nbd", "null-aio", "null-co", "nvme", "preallocate", "quorum", "raw",
    "replication", "snapshot-access", "throttle", "vvfat",
)  # fmt: skip


AMEND = Union("BlockdevAmendOptions", "driver")


class AmendOptions(Struct):
    """What is to be changed about an image."""

    union = AMEND


BlockdevAmendOptions = Annotated[AmendOptions, AMEND]


class BlockdevAmendOptionsLUKS(AmendOptions, QCryptoBlockAmendOptionsLUKS, tag="luks"):
    """What is to be changed about a LUKS volume."""


class BlockdevAmendOptionsQcow2(AmendOptions, tag="qcow2"):
    """What is to be changed about a qcow2 image.

    @encrypt: its encryption
    """

    encrypt: Annotated[QCryptoBlockAmendOptions, AMEND_ENCRYPTED] | None = None


def _declare_the_rest() -> None:
    """Let the other drivers be named; the commands refuse them."""
    for name in _NOTHING_TO_CREATE:
        type(f"NothingToCreate{name}", (CreationOptions,), {"__doc__": None}, tag=name)
    for name in (*_NOTHING_TO_CREATE, "file", "vdi"):
        type(f"NothingToAmend{name}", (AmendOptions,), {"__doc__": None}, tag=name)


_declare_the_rest()
