"""x-blockdev-set-iothread: nodes go to I/O threads, of which ours has but the names.

All runs in one loop here, so nothing moves; what QEMU would refuse is refused.
"""

from blockemu.backend import Backend
from blockemu.commands.context import Context
from blockemu.errors import NoSuchNode, QmpError
from blockemu.objects.object_add import IoThread
from blockemu.objects.qom import NoSuchObject
from blockemu.qmp_server.dispatch import command
from blockemu.schema.alternates import StrOrNull


class MayBeInUse(QmpError):
    """Somebody uses the node and may not be ready for it to move."""

    template = (
        "Node {} is associated with a BlockBackend and could be in use "
        "(use force=true to override this check)"
    )


class NoSuchIothread(QmpError):
    """There is no such thread."""

    template = "Cannot find iothread {}"


@command(since="2.12", features=("unstable",))
def x_blockdev_set_iothread(
    context: Context, *, node_name: str, iothread: StrOrNull, force: bool | None = None
) -> None:
    """Move a node and its children to a thread, or with null to the main loop.

    @iothread: the thread's id, or its path, whole or in part
    @force: do so even if a device or an export uses the node
    """
    emu = context.emu
    node = emu.graph.nodes.get(node_name)
    if node is None:
        raise NoSuchNode(node_name)
    if not force and any(isinstance(edge, Backend) for edge in node.parents):
        raise MayBeInUse(node_name)
    if iothread is not None:
        try:
            emu.qom.resolve(iothread, IoThread)
        except NoSuchObject as e:
            raise NoSuchIothread(iothread) from e
