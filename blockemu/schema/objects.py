"""User-creatable objects (qapi/qom.json, qapi/crypto.json, qapi/block-core.json)."""

from typing import Annotated

from blockemu.qmp_server.profile import Features
from blockemu.qmp_server.qapi import I32, Deprecated, QEnum, Since, Struct, Union

OBJECT = Union("ObjectOptions", "qom-type")


class ObjectProperties(Struct):
    """What every object has.

    @id: the name of the new object
    """

    union = OBJECT
    id: str


ObjectOptions = Annotated[ObjectProperties, OBJECT]


class QCryptoSecretFormat(QEnum):
    """How a secret is written down."""

    RAW = "raw"
    BASE64 = "base64"


class SecretCommonProperties(ObjectProperties):
    """How a password or key is kept.

    @loaded: cannot be set any more
    @format: how the data is written down
    @keyid: the secret that the data is encrypted with
    @iv: the initialisation vector, in base64
    """

    loaded: Annotated[bool | None, Deprecated("6.0")] = None
    format: QCryptoSecretFormat | None = None
    keyid: str | None = None
    iv: str | None = None


class SecretProperties(SecretCommonProperties, tag="secret"):
    """A password or key.

    @data: the data itself
    @file: a file that holds it
    """

    data: str | None = None
    file: str | None = None


class SecretKeyringProperties(SecretCommonProperties, tag="secret_keyring", since="5.1"):
    """A password or key that the kernel keeps.

    @serial: its number there
    """

    serial: I32


class IothreadProperties(ObjectProperties, tag="iothread"):
    """A thread for I/O.

    @aio-max-batch: requests that are handed to the kernel at once
    @thread-pool-min: threads that are kept
    @thread-pool-max: threads there may be
    @poll-max-ns: how long to busy-wait, in nanoseconds
    @poll-grow: by how much polling grows
    @poll-shrink: by how much it shrinks
    """

    aio_max_batch: Annotated[int | None, Since("6.1")] = None
    thread_pool_min: Annotated[int | None, Since("7.1")] = None
    thread_pool_max: Annotated[int | None, Since("7.1")] = None
    poll_max_ns: int | None = None
    poll_grow: int | None = None
    poll_shrink: int | None = None


class ThrottleLimits(Struct):
    """Limits on requests and bytes a second; ``-max`` is a burst, ``-max-length`` its seconds."""

    iops_total: int | None = None
    iops_total_max: int | None = None
    iops_total_max_length: int | None = None
    iops_read: int | None = None
    iops_read_max: int | None = None
    iops_read_max_length: int | None = None
    iops_write: int | None = None
    iops_write_max: int | None = None
    iops_write_max_length: int | None = None
    bps_total: int | None = None
    bps_total_max: int | None = None
    bps_total_max_length: int | None = None
    bps_read: int | None = None
    bps_read_max: int | None = None
    bps_read_max_length: int | None = None
    bps_write: int | None = None
    bps_write_max: int | None = None
    bps_write_max_length: int | None = None
    iops_size: int | None = None


Unstable = Annotated[int | None, Features("unstable")]


class ThrottleGroupProperties(ObjectProperties, tag="throttle-group"):
    """A group whose members share limits.

    @limits: the limits; each ``x-`` member is another way to write one of them
    """

    limits: ThrottleLimits | None = None
    x_iops_total: Unstable = None
    x_iops_total_max: Unstable = None
    x_iops_total_max_length: Unstable = None
    x_iops_read: Unstable = None
    x_iops_read_max: Unstable = None
    x_iops_read_max_length: Unstable = None
    x_iops_write: Unstable = None
    x_iops_write_max: Unstable = None
    x_iops_write_max_length: Unstable = None
    x_bps_total: Unstable = None
    x_bps_total_max: Unstable = None
    x_bps_total_max_length: Unstable = None
    x_bps_read: Unstable = None
    x_bps_read_max: Unstable = None
    x_bps_read_max_length: Unstable = None
    x_bps_write: Unstable = None
    x_bps_write_max: Unstable = None
    x_bps_write_max_length: Unstable = None
    x_iops_size: Unstable = None
