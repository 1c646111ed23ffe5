"""Commands that newer versions have no more."""

from blockemu.commands.context import Context
from blockemu.commands.media import blockdev_change_medium
from blockemu.errors import QmpError
from blockemu.qmp_server.dispatch import command
from blockemu.qmp_server.qapi import Struct


class NoPasswords(QmpError):
    """Secrets are the way."""

    template = "Setting block passwords directly is no longer supported"


class FeatureDisabled(QmpError):
    """(name): the program was built without it."""

    template = "The feature '{}' is not enabled"


class EventInfo(Struct):
    """An event.

    @name: its name
    """

    name: str


@command(name="query-events", since="1.2", deprecated="4.0", removed="6.0")
def query_events(context: Context) -> list[EventInfo]:
    """List the events."""
    events = context.registry.events(context.emu.profile)
    return [EventInfo(name=event.event) for event in events]


@command(name="block_passwd", since="0.14", removed="6.0")
def block_passwd(
    context: Context, *, device: str | None = None, node_name: str | None = None, password: str
) -> None:
    """Refuse: images are decrypted by secrets."""
    raise NoPasswords


@command(since="0.14", deprecated="2.5", removed="6.0")
async def change(context: Context, *, device: str, target: str, arg: str | None = None) -> None:
    """Put another medium into a drive; ``arg`` is its format."""
    if device == "vnc":
        raise FeatureDisabled("vnc")
    await blockdev_change_medium(context, device=device, filename=target, format=arg)
