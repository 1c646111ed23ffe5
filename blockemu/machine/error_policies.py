"""What becomes of a device's failed requests: rerror and werror (after block/block-backend.c)."""

import errno
import os
from collections.abc import Callable, Mapping
from typing import Final

from blockemu.backend import Backend
from blockemu.qmp_server.qapi import Struct
from blockemu.schema.io_events import BlockIoError
from blockemu.schema.jobs import BlockDeviceIoStatus, BlockErrorAction, IoOperationType

POLICIES: Final = ("report", "ignore", "enospc", "stop", "auto")


def apply_policies(backend: Backend, values: Mapping[str, str]) -> None:
    """Take a device's properties over to its drive (blkconf_apply_backend_options).

    ``auto`` and what is not given leave the drive's own.
    """
    read, write = (values.get(name, "auto") for name in ("rerror", "werror"))
    own_read, own_write = backend.error_actions
    backend.error_actions = (
        own_read if read == "auto" else read,
        own_write if write == "auto" else write,
    )
    switches = [values.get(f"account-{what}", "auto") for what in ("invalid", "failed")]
    backend.stats.set_up(*(None if text == "auto" else text == "on" for text in switches))


def action_for(backend: Backend, error: int, *, is_read: bool) -> BlockErrorAction:
    """Return what is to be done about an error (blk_get_error_action)."""
    policy = backend.error_actions[0 if is_read else 1]
    if policy == "enospc":
        policy = "stop" if error == errno.ENOSPC else "report"
    return BlockErrorAction(policy)


def announce(
    backend: Backend,
    action: BlockErrorAction,
    error: int,
    emit: Callable[[Struct], None],
    *,
    is_read: bool,
) -> None:
    """Tell of an error; the first that stops the machine stays as the status (blk_error_action)."""
    no_space, node = error == errno.ENOSPC, backend.inserted
    if action is BlockErrorAction.STOP and backend.io_status == "ok":
        status = BlockDeviceIoStatus.NOSPACE if no_space else BlockDeviceIoStatus.FAILED
        backend.io_status = status.value
    emit(
        BlockIoError(
            device=backend.title,
            node_name=node.name if node is not None else None,
            operation=IoOperationType.READ if is_read else IoOperationType.WRITE,
            action=action,
            nospace=no_space if backend.has_io_status else None,
            reason=os.strerror(error),
        )
    )
