"""Jobs: states, verbs, what queries answer, and events (qapi/job.json, qapi/block-core.json)."""

from blockemu.qmp_server.dispatch import Event
from blockemu.qmp_server.qapi import QEnum, Struct, values


@values(
    since={
        "amend": "5.1",
        "snapshot-load": "6.0",
        "snapshot-save": "6.0",
        "snapshot-delete": "6.0",
    }
)
class JobType(QEnum):
    """What a job does."""

    COMMIT = "commit"
    STREAM = "stream"
    MIRROR = "mirror"
    BACKUP = "backup"
    CREATE = "create"
    AMEND = "amend"
    SNAPSHOT_LOAD = "snapshot-load"
    SNAPSHOT_SAVE = "snapshot-save"
    SNAPSHOT_DELETE = "snapshot-delete"


class JobStatus(QEnum):
    """Where a job is in its life."""

    UNDEFINED = "undefined"
    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    READY = "ready"
    STANDBY = "standby"
    WAITING = "waiting"
    PENDING = "pending"
    ABORTING = "aborting"
    CONCLUDED = "concluded"
    NULL = "null"


class JobVerb(QEnum):
    """What can be asked of a job."""

    CANCEL = "cancel"
    PAUSE = "pause"
    RESUME = "resume"
    SET_SPEED = "set-speed"
    COMPLETE = "complete"
    DISMISS = "dismiss"
    FINALIZE = "finalize"


class BlockdevOnError(QEnum):
    """What to do on an I/O error."""

    REPORT = "report"
    IGNORE = "ignore"
    ENOSPC = "enospc"
    STOP = "stop"
    AUTO = "auto"


class BlockErrorAction(QEnum):
    """What was done on an I/O error."""

    IGNORE = "ignore"
    REPORT = "report"
    STOP = "stop"


class IoOperationType(QEnum):
    """Which way data went."""

    READ = "read"
    WRITE = "write"


class BlockDeviceIoStatus(QEnum):
    """Whether a device or job met an error."""

    OK = "ok"
    FAILED = "failed"
    NOSPACE = "nospace"


class JobInfo(Struct):
    """A job, as query-jobs tells.

    @id: the job's name
    @type: what it does
    @status: where it is in its life
    @current-progress: what is done, in a unit of the job's own
    @total-progress: what there is to do
    @error: why it failed, if it did
    """

    id: str
    type: JobType
    status: JobStatus
    current_progress: int
    total_progress: int
    error: str | None = None


class BlockJobInfo(Struct):
    """A block job, as query-block-jobs tells.

    @type: what it does
    @device: the job's name
    @len: bytes to process, as estimated now
    @offset: bytes processed
    @busy: whether it is doing something right now
    @paused: whether it was asked to pause
    @speed: the limit in bytes a second, 0 for none
    @io-status: whether it met an error
    @ready: whether it may be completed
    @status: where it is in its life
    @auto-finalize: whether it finalizes by itself
    @auto-dismiss: whether it goes away by itself
    @error: why it failed, if it did
    """

    type: str
    device: str
    len: int
    offset: int
    busy: bool
    paused: bool
    speed: int
    io_status: BlockDeviceIoStatus
    ready: bool
    status: JobStatus
    auto_finalize: bool
    auto_dismiss: bool
    error: str | None = None


class JobStatusChange(Event, event="JOB_STATUS_CHANGE", since="3.0"):
    """A job is in another state.

    @id: the job
    @status: the new state
    """

    id: str
    status: JobStatus


class BlockJobCompleted(Event, event="BLOCK_JOB_COMPLETED"):
    """A job has ended, well or not.

    @type: what it does
    @device: the job's name
    @len: bytes to process
    @offset: bytes processed
    @speed: bytes a second
    @error: why it failed, if it did
    """

    type: JobType
    device: str
    len: int
    offset: int
    speed: int
    error: str | None = None


class BlockJobCancelled(Event, event="BLOCK_JOB_CANCELLED"):
    """A job was cancelled; members as in BLOCK_JOB_COMPLETED.

    @type: what it does
    @device: the job's name
    @len: bytes to process
    @offset: bytes processed
    @speed: bytes a second
    """

    type: JobType
    device: str
    len: int
    offset: int
    speed: int


class BlockJobReady(Event, event="BLOCK_JOB_READY"):
    """A job may be completed; members as in BLOCK_JOB_COMPLETED.

    @type: what it does
    @device: the job's name
    @len: bytes to process
    @offset: bytes processed
    @speed: bytes a second
    """

    type: JobType
    device: str
    len: int
    offset: int
    speed: int


class BlockJobPending(Event, event="BLOCK_JOB_PENDING", since="2.12"):
    """A job waits to be finalized.

    @type: what it does
    @id: the job's name
    """

    type: JobType
    id: str


class BlockJobError(Event, event="BLOCK_JOB_ERROR"):
    """A job met an I/O error.

    @device: the job's name
    @operation: what failed
    @action: what was done about it
    """

    device: str
    operation: IoOperationType
    action: BlockErrorAction
