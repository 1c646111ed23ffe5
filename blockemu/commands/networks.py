"""Networks that a machine's cards may be on."""

from blockemu.commands.context import Context
from blockemu.qmp_server.dispatch import command
from blockemu.schema.networks import AnyNetdev


@command(name="netdev_add", since="0.14", allow_preconfig=True)
def netdev_add(context: Context, options: AnyNetdev) -> None:
    """Make a network."""
    context.emu.networks.add(options)


@command(name="netdev_del", since="0.14", allow_preconfig=True)
def netdev_del(context: Context, *, id: str) -> None:
    """Remove a network.

    @id: its name
    """
    context.emu.networks.remove(id)
