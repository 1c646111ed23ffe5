"""blockdev-create and x-blockdev-amend: their options, as far as no driver declares them."""

from typing import Annotated

from blockemu.create_options import CREATE, DRIVER_LIVES, CreationOptions
from blockemu.qmp_server.qapi import Struct, Union
from blockemu.schema.crypto import (
    AMEND_ENCRYPTED,
    QCryptoBlockAmendOptions,
    QCryptoBlockAmendOptionsLUKS,
)

BlockdevCreateOptions = Annotated[CreationOptions, CREATE]
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


# The other drivers can be named; the commands refuse them.
CREATE.declare_empty(CreationOptions, DRIVER_LIVES)
AMEND.declare_empty(AmendOptions, DRIVER_LIVES)
