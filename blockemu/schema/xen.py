"""What Xen's tools are told (qapi/migration.json)."""

from blockemu.qmp_server.qapi import Struct


class ReplicationStatus(Struct):
    """How the copying of disks goes.

    @error: whether it has failed
    @desc: what went wrong
    """

    error: bool
    desc: str | None = None
