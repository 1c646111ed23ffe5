"""snapshot-save, -load and -delete: snapshots of the machine and its disks, as jobs."""

from collections.abc import Awaitable, Callable

from blockemu.commands.context import Context
from blockemu.emulator import Emulator
from blockemu.jobs.machine_snapshot import SnapshotJob
from blockemu.migration.savevm import Devices
from blockemu.qmp_server.dispatch import command
from blockemu.schema.jobs import JobType
from blockemu.schema.run_state import RunState


def _start(
    context: Context, job_id: str, kind: JobType, work: Callable[[], Awaitable[None]]
) -> None:
    jobs = context.emu.jobs
    jobs.check_id(job_id)
    jobs.add(SnapshotJob(jobs, job_id, kind, work)).start()


@command(since="6.0")
def snapshot_save(
    context: Context, *, job_id: str, tag: str, vmstate: str, devices: list[str]
) -> None:
    """Take a snapshot.

    @job-id: the job's name
    @tag: the snapshot's
    @vmstate: node that gets the machine's state
    @devices: nodes that the snapshot is of
    """
    taking = context.emu.migration.snapshots
    _start(
        context,
        job_id,
        JobType.SNAPSHOT_SAVE,
        lambda: taking.save(tag, place=vmstate, devices=devices),
    )


@command(since="6.0")
def snapshot_load(
    context: Context, *, job_id: str, tag: str, vmstate: str, devices: list[str]
) -> None:
    """Go back to a snapshot.

    @job-id: the job's name
    @tag: the snapshot's
    @vmstate: node that has the machine's state
    @devices: nodes that the snapshot is of
    """
    emu = context.emu
    _start(
        context,
        job_id,
        JobType.SNAPSHOT_LOAD,
        lambda: go_back(emu, tag, place=vmstate, devices=devices),
    )


@command(since="6.0")
def snapshot_delete(context: Context, *, job_id: str, tag: str, devices: list[str]) -> None:
    """Delete a snapshot.

    @job-id: the job's name
    @tag: the snapshot's
    @devices: nodes that the snapshot is of
    """
    taking = context.emu.migration.snapshots
    _start(context, job_id, JobType.SNAPSHOT_DELETE, lambda: taking.delete(tag, devices=devices))


async def go_back(
    emu: Emulator, name: str, *, place: str | None = None, devices: Devices = None
) -> None:
    """Stop the machine, go back to a snapshot, and go on if it ran (snapshot_load_job_bh).

    Raises:
        QmpError: that was not possible; the machine stands still.

    """
    ran = emu.machine.running
    await emu.stop_machine(RunState.RESTORE_VM)
    await emu.migration.snapshots.load(name, place=place, devices=devices)
    if ran:
        emu.machine.resume()
