"""Block jobs: jobs that use nodes, have a speed, and deal with I/O errors.  After blockjob.c."""

import errno
from typing import Any, ClassVar

from blockemu.edge import Edge
from blockemu.errors import InvalidParameterValue
from blockemu.graph import Graph, block, unblock
from blockemu.jobs.group import Group
from blockemu.jobs.job import Job
from blockemu.jobs.registry import Jobs
from blockemu.node import Blocker, Node
from blockemu.perm import Perm, Role
from blockemu.permissions import refresh
from blockemu.schema.jobs import (
    BlockDeviceIoStatus,
    BlockdevOnError,
    BlockErrorAction,
    BlockJobCancelled,
    BlockJobCompleted,
    BlockJobError,
    BlockJobInfo,
    BlockJobPending,
    BlockJobReady,
    IoOperationType,
    JobStatus,
    JobVerb,
)
from blockemu.throttling.ratelimit import RateLimit
from blockemu.transaction import Transaction

MAIN_NODE = "main node"  # what a job calls the node that it is about
_OUT_OF_SPACE = frozenset({BlockdevOnError.ENOSPC, BlockdevOnError.AUTO})


class JobEdge(Edge):
    """A job's claim on a node: no requests, but permissions, and a pause while it is drained."""

    stays_at_node = True
    __slots__ = ("job",)

    def __init__(self, job: "BlockJob", name: str, perm: Perm, shared: Perm) -> None:
        super().__init__(name, None, Role.NONE, perm, shared)
        self.job = job

    def describe_parent(self) -> str:
        """Name the job."""
        return f"{self.job.type.value} job '{self.job.id}'"

    def quiesce(self) -> None:
        """Pause the job."""
        self.job.pause()

    async def idle(self) -> None:
        """Wait until the job stands still, or is over."""
        if not (self.job.is_completed or self.job.in_drain):
            await self.job.idle()

    def resume(self) -> None:
        """Let the job go on."""
        self.job.resume()


class BlockJob(Job):
    """A job over nodes."""

    in_drain = False  # drains its own nodes: it must not wait for itself
    works_on: ClassVar[str] = "block device is in use by block job: {}"

    def __init__(
        self,
        jobs: Jobs,
        graph: Graph,
        job_id: str,
        *,
        auto_finalize: bool = True,
        auto_dismiss: bool = True,
        group: Group | None = None,
    ) -> None:
        super().__init__(
            jobs, job_id, auto_finalize=auto_finalize, auto_dismiss=auto_dismiss, group=group
        )
        self.graph = graph
        self.speed = 0
        self.limit = RateLimit(self.clock)
        self.io_status = BlockDeviceIoStatus.OK
        self.nodes: list[JobEdge] = []

    # Nodes

    @property
    def _reason(self) -> str:
        return self.works_on.format(self.type.value)

    def add_node(self, name: str, node: Node[Any], perm: Perm, shared: Perm) -> None:
        """Claim a node: others may not use it but as ``shared`` allows (block_job_add_bdrv)."""
        edge = JobEdge(self, name, perm, shared)
        with Transaction() as transaction:
            self.graph.attach(edge, node, transaction)
            refresh(node, transaction=transaction)
        self.nodes.insert(0, edge)
        threads = {"dataplane"} if name == MAIN_NODE else set()
        block(node, Blocker(self._reason, frozenset(threads)))

    def uses(self, node: Node[Any]) -> bool:
        """Tell whether a node is among those claimed (block_job_has_bdrv)."""
        return any(edge.node is node for edge in self.nodes)

    def drop_nodes(self) -> list[Node[Any]]:
        """Let go of all nodes; return them for ``Graph.release``."""
        nodes = []
        while self.nodes:
            edge = self.nodes.pop(0)
            unblock(edge.node, self._reason)
            nodes.append(edge.node)
            self.graph.drop_root(edge)
        return nodes

    def release(self) -> None:
        """Drop the nodes that the job still claims; what nobody else uses of them is closed."""
        nodes = self.drop_nodes()
        if nodes and self.started:
            self.jobs.conclude(lambda: self._close(nodes))

    async def _close(self, nodes: list[Node[Any]]) -> None:
        for node in nodes:
            await self.graph.release(node)

    # Speed

    def set_speed(self, speed: int) -> None:
        """Limit the bytes a second; 0 for no limit (block_job_set_speed_locked)."""
        self.apply_verb(JobVerb.SET_SPEED)
        if speed < 0:
            raise InvalidParameterValue("speed", "a non-negative value")
        self.limit.set_speed(speed)
        old, self.speed = self.speed, speed
        self.on_speed(speed)
        if speed and speed <= old:
            return
        self.kick()

    def on_speed(self, speed: int) -> None:
        """Hear of a new speed."""

    # Errors

    def error_action(self, policy: BlockdevOnError, is_read: bool, error: int) -> BlockErrorAction:
        """Decide about an I/O error, tell the user, and pause the job if that is the policy."""
        if policy in _OUT_OF_SPACE:
            stop = error == errno.ENOSPC
            action = BlockErrorAction.STOP if stop else BlockErrorAction.REPORT
        else:
            action = BlockErrorAction(policy.value)
        operation = IoOperationType.READ if is_read else IoOperationType.WRITE
        self.jobs.emit(BlockJobError(device=self.id, operation=operation, action=action))
        if action is BlockErrorAction.STOP:
            if not self.user_paused:
                self.pause()
                self.user_paused = True
            if self.io_status is BlockDeviceIoStatus.OK:
                full = error == errno.ENOSPC
                status = BlockDeviceIoStatus.NOSPACE if full else BlockDeviceIoStatus.FAILED
                self.io_status = status
        return action

    def on_user_resume(self) -> None:
        """Forget the error the job stopped for."""
        self.reset_io_status()

    def reset_io_status(self) -> None:
        """Forget the error."""
        self.io_status = BlockDeviceIoStatus.OK

    # What users see

    def block_info(self) -> BlockJobInfo:
        """Describe the job for query-block-jobs."""
        return BlockJobInfo(
            type=self.type.value,
            device=self.id,
            len=self.progress.total,
            offset=self.progress.current,
            busy=self.busy,
            paused=self.pause_count > 0,
            speed=self.speed,
            io_status=self.io_status,
            ready=self.status in (JobStatus.READY, JobStatus.STANDBY),
            status=self.status,
            auto_finalize=self.auto_finalize,
            auto_dismiss=self.auto_dismiss,
            error=self.error_text,
        )

    def told_completed(self) -> None:
        """Send BLOCK_JOB_COMPLETED."""
        self.jobs.emit(
            BlockJobCompleted(
                type=self.type,
                device=self.id,
                len=self.progress.total,
                offset=self.progress.current,
                speed=self.speed,
                error=self.error_text,
            )
        )

    def told_cancelled(self) -> None:
        """Send BLOCK_JOB_CANCELLED."""
        self.jobs.emit(
            BlockJobCancelled(
                type=self.type,
                device=self.id,
                len=self.progress.total,
                offset=self.progress.current,
                speed=self.speed,
            )
        )

    def told_ready(self) -> None:
        """Send BLOCK_JOB_READY."""
        self.jobs.emit(
            BlockJobReady(
                type=self.type,
                device=self.id,
                len=self.progress.total,
                offset=self.progress.current,
                speed=self.speed,
            )
        )

    def told_pending(self) -> None:
        """Send BLOCK_JOB_PENDING."""
        self.jobs.emit(BlockJobPending(type=self.type, id=self.id))
