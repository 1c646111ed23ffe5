"""All commands that there are without a program around them."""

from blockemu.qemu_io import aio, control, image, reopening, requests
from blockemu.qemu_io.table import IoCommand

COMMANDS: dict[str, IoCommand] = {
    command.name: command
    for module in (aio, control, image, reopening, requests)
    for command in module.COMMANDS
}
