"""blockdev-create and x-blockdev-amend."""

from blockemu.commands.context import Context
from blockemu.errors import NodeNotFound, QmpError
from blockemu.jobs.create import AmendJob, CreateJob
from blockemu.qmp_server.dispatch import command
from blockemu.schema.creation import BlockdevAmendOptions, BlockdevCreateOptions


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


class OtherDriver(QmpError):
    """The node has another driver than the options."""

    template = "x-blockdev-amend doesn't support changing the block driver"


class NothingToAmend(QmpError):
    """The driver has nothing that could be amended."""

    template = "Driver does not support x-blockdev-amend"


@command(since="5.1", features=("unstable",))
def x_blockdev_amend(
    context: Context,
    *,
    job_id: str,
    node_name: str,
    options: BlockdevAmendOptions,
    force: bool | None = None,
) -> None:
    """Begin to change an image's own options; the job stays until it is dismissed."""
    emu, tag = context.emu, type(options).tag or ""
    node = emu.graph.nodes.get(node_name)
    if node is None:
        raise NodeNotFound("", node_name)
    if tag not in emu.opener.drivers:
        raise NoSuchDriver(tag)
    if node.driver != tag:
        raise OtherDriver
    if node.amend_options is None:
        raise NothingToAmend
    emu.jobs.check_id(job_id)
    try:
        node.begin_amend()
    except QmpError:
        node.end_amend()
        raise
    job = AmendJob(emu.jobs, job_id, emu.graph, node, options, force=bool(force))
    emu.jobs.add(job).start()
