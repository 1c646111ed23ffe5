"""blockdev-create."""

from blockemu.commands.context import Context
from blockemu.errors import QmpError
from blockemu.jobs.create import CreateJob
from blockemu.qmp_server.dispatch import command
from blockemu.schema.creation import BlockdevCreateOptions


class NoSuchDriver(QmpError):
    """QEMU has it, or some builds of it have."""

    template = "Block driver '{}' not found or not supported"


class NothingToCreate(QmpError):
    """The driver creates nothing."""

    template = "Driver does not support blockdev-create"


@command(since="3.0")
def blockdev_create(context: Context, *, job_id: str, options: BlockdevCreateOptions) -> None:
    """Begin to create an image; the job stays until it is dismissed."""
    emu, tag = context.emu, type(options).tag or ""
    driver = emu.opener.drivers.get(tag)
    if driver is None:
        raise NoSuchDriver(tag)
    if driver.CreateOptions is None:
        raise NothingToCreate
    emu.jobs.check_id(job_id)
    emu.jobs.add(CreateJob(emu.jobs, job_id, emu.opener, options)).start()
