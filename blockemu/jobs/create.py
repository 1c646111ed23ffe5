"""The jobs that create and amend images (block/create.c, block/amend.c)."""

from typing import Any

from blockemu.create_options import CreationOptions
from blockemu.creation import create
from blockemu.errors import QmpError
from blockemu.graph import Graph
from blockemu.images.errors import FormatError
from blockemu.jobs.job import Job, JobFailed
from blockemu.jobs.registry import Jobs
from blockemu.node import Node
from blockemu.opening import Opener
from blockemu.schema.creation import AmendOptions
from blockemu.schema.jobs import JobType


class CreateJob(Job):
    """Creates an image in one go; stays until it is dismissed."""

    type = JobType.CREATE

    def __init__(self, jobs: Jobs, job_id: str, opener: Opener, options: CreationOptions) -> None:
        super().__init__(jobs, job_id, auto_dismiss=False)
        self._opener = opener
        self._options = options

    async def run(self) -> None:
        """Create; it is one step of progress."""
        self.progress.remaining = 1
        try:
            await create(self._options, self._opener)
        except (QmpError, FormatError) as e:
            raise JobFailed(str(e)) from e
        finally:
            self.progress.current, self.progress.remaining = 1, 0


class AmendJob(Job):
    """Amends an image."""

    type = JobType.AMEND

    def __init__(
        self,
        jobs: Jobs,
        job_id: str,
        graph: Graph,
        node: Node[Any],
        options: AmendOptions,
        *,
        force: bool,
    ) -> None:
        super().__init__(jobs, job_id, auto_dismiss=False)
        self._graph = graph
        self._node = node
        self._options = options
        self._force = force
        node.holds += 1

    async def run(self) -> None:
        """Amend; it is one step of progress."""
        self.progress.remaining = 1
        try:
            await self._node.amend_by_options(self._options, force=self._force)
        except (QmpError, FormatError) as e:
            raise JobFailed(str(e)) from e
        finally:
            self.progress.current, self.progress.remaining = 1, 0

    def release(self) -> None:
        """Let go of the node, which is in use until the job is forgotten (blockdev_amend_free)."""
        self._node.end_amend()
        self._node.holds -= 1
        self.jobs.conclude(lambda: self._graph.release(self._node))
