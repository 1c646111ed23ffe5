"""One emulator: a graph, its jobs, its exports, its clocks, and whoever hears its events.

Everything there is belongs to an ``Emulator``, so a process can run many.  What talks to clients
(monitors, dispatch) is above it, in ``blockemu.daemon``.
"""

import asyncio
import os
import sys
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn

from blockemu.backend import Backend, drained, flush
from blockemu.clocks import Clocks
from blockemu.drivers import load_drivers
from blockemu.edge import Edge
from blockemu.graph import Graph
from blockemu.host.pool import Pool
from blockemu.node import Node
from blockemu.opening import Opener
from blockemu.perm import Role
from blockemu.qmp_server.qapi import ALL, Profile, Struct
from blockemu.transaction import Transaction

if TYPE_CHECKING:
    from blockemu.crash_points import CrashPoints
    from blockemu.exports.registry import Exports
    from blockemu.host.fdsets import FdSets
    from blockemu.jobs.registry import Jobs
    from blockemu.machine.devices import Devices
    from blockemu.machine.drives import Drives
    from blockemu.machine.guest import Guest
    from blockemu.machine.networks import Networks
    from blockemu.migration.manager import Manager
    from blockemu.objects.object_add import Objects
    from blockemu.objects.qom import Tree
    from blockemu.runstate import Machine
    from blockemu.schema.run_state import RunState
    from blockemu.throttling.group import ThrottleGroups

Listener = Callable[[Struct], None]


class Emulator:
    """The block layer of one machine or daemon; also the ``Services`` of its nodes.

    What a tool that opens an image does not need is made, and imported, when it is asked for.
    """

    def __init__(
        self, *, profile: Profile = ALL, clocks: Clocks | None = None, seed: int = 0
    ) -> None:
        self.profile = profile
        self.clocks = clocks or Clocks()
        self.pool = Pool()
        self.graph = Graph(seed)
        self.graph.threads.pinned = lambda edge: self.exports.pinned(edge)
        self.opener = Opener(self.graph, load_drivers(), self)
        self.listeners: list[Listener] = []
        self.warnings: Callable[[str], None] = _print_warning
        self.log: Callable[..., None] = lambda _text, **_values: None  # for the program's own log
        self.stdout: Callable[[str], None] = _print  # what QEMU prints there: qemu-io's output
        self.program = ""  # its name in reports; QEMU says none in what a monitor's command does
        self.not_come: Callable[[], None] = lambda: None  # if what came is no machine
        self.reporter = ""  # the same in what nobody's command does
        self.is_machine = False  # like qemu-system: not a tool, not a storage daemon
        self.end: Callable[[], NoReturn] = _end  # where disks contradict themselves
        self.quiet = False  # a test drives this: nobody reads notes
        self.crash_points: CrashPoints | None = None  # made when changes are to be remembered
        self.die: Callable[[int], None] | None = None  # how the whole program ends at once
        self.tasks: set[asyncio.Task[None]] = set()  # requests of qemu-io that nobody awaits

    # Parts that come late

    @cached_property
    def qom(self) -> "Tree":
        """What has a path and properties."""
        from blockemu.objects.qom import Tree

        return Tree()

    @cached_property
    def objects(self) -> "Objects":
        """What users made by ``object-add``."""
        from blockemu.objects.object_add import Objects

        return Objects(self.qom, self.clocks.virtual)

    @cached_property
    def throttle_groups(self) -> "ThrottleGroups":
        """The limits that several may share."""
        return self.objects.throttle_groups

    @cached_property
    def machine(self) -> "Machine":
        """Whether the machine runs."""
        from blockemu.runstate import Machine

        machine = Machine(self.emit, self.clocks.realtime)
        machine.resume_hooks.append(self._resumed)
        return machine

    @cached_property
    def jobs(self) -> "Jobs":
        """The jobs, by their ids."""
        from blockemu.jobs.registry import Jobs

        return Jobs(self)

    @cached_property
    def exports(self) -> "Exports":
        """What NBD clients may use, and the server they reach it by."""
        from blockemu.exports.registry import Exports

        return Exports(self)

    @cached_property
    def devices(self) -> "Devices":
        """The machine's devices."""
        from blockemu.machine.devices import Devices

        return Devices(self.graph, self.jobs, self.qom, self.emit, lambda: self.networks)

    @cached_property
    def drives(self) -> "Drives":
        """The machine's drives."""
        from blockemu.machine.drives import Drives

        return Drives(self.graph, self.opener, self.throttle_groups, self.clocks)

    @cached_property
    def networks(self) -> "Networks":
        """The networks that the machine's cards may be on."""
        from blockemu.machine.networks import Networks

        return Networks()

    @cached_property
    def guest(self) -> "Guest":
        """What a guest would ask of the devices."""
        from blockemu.machine.guest import Guest

        return Guest(self.devices, self.machine, self.clocks, self.emit, self.stop_machine)

    @cached_property
    def fdsets(self) -> "FdSets":
        """Descriptors that clients handed over."""
        from blockemu.host.fdsets import FdSets

        return FdSets(lambda: not self.machine.running)

    @cached_property
    def migration(self) -> "Manager":
        """The machine's way to another program, or from one."""
        from blockemu.migration.manager import Manager

        return Manager(self)

    async def record_changes(self, *, history: bool = False) -> "CrashPoints":
        """Remember what is written to files and not flushed; with ``history``, all there was."""
        if self.crash_points is None:
            from blockemu.crash_points import CrashPoints
            from blockemu.journal import Journal

            self.crash_points = CrashPoints(self, Journal(history=history))
            await self.crash_points.record()
        return self.crash_points

    # Services

    def opened(self, node: Node[Any]) -> None:
        """Hear of a node that keeps its data outside of the graph."""
        if self.crash_points is not None:
            self.crash_points.take_in(node)

    def emit(self, event: Struct) -> None:
        """Hand an event to all listeners, at once and in order."""
        for listener in self.listeners:
            listener(event)

    def note(self, text: str) -> None:
        """Print what only a person wants to know."""
        if not self.quiet:
            self.stdout(text)

    def warn(self, text: str) -> None:
        """Tell the user what QEMU would print on standard error."""
        self.warnings(text)

    def report(self, text: str) -> None:
        """Tell the user what QEMU would print with its name before (error_report)."""
        self.warn(f"{self.program}: {text}" if self.program else text)

    def give_up(self, text: str) -> NoReturn:
        """Say why, and end the program at once."""
        self.warnings(text)
        self.end()

    def find_node(self, name: str) -> Node[Any]:
        """Look up a node or device by name."""
        return self.graph.lookup(name)

    def find_object(self, name: str) -> object | None:
        """Look up an object that a user made."""
        return self.objects.find(name)

    def refresh_permissions(self, node: Node[Any]) -> None:
        """Work out the permissions of a node's children anew."""
        with Transaction() as transaction:
            self.graph.refresh(node, transaction)

    async def open_child(
        self, parent: Node[Any], name: str, role: Role, child: "str | dict[str, Any]"
    ) -> Edge:
        """Open a child for a driver that learned of it by itself."""
        return await self.opener.open_child(parent, name, role, child)

    def keep(self, work: Coroutine[Any, Any, None]) -> None:
        """Let work go on that nobody awaits; ``close`` does."""
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    # Life

    def guest_time(self) -> int:
        """Return the guest's clock in nanoseconds, a daemon's being the wall's (cpu_get_clock)."""
        if self.clocks.virtual is not self.clocks.realtime:
            return self.clocks.virtual.now()
        return self.machine.run_time if self.is_machine else time.time_ns() // 1000 * 1000

    async def pause_machine(self) -> None:
        """Stop the machine because the user wants that (qmp_stop)."""
        if self.machine.incoming:
            self.machine.autostart = False
        else:
            await self.stop_machine()

    def _resumed(self) -> None:
        """Let others no longer do what only another machine's last moments called for."""
        from blockemu.activation import unshare

        for error in unshare(self.graph):
            self.report(str(error))

    async def force_state(self, state: "RunState") -> None:
        """Stop the machine, or if it stands still let it do so otherwise (vm_stop_force_state)."""
        if not self.machine.running:
            self.machine.state = state
        await self.stop_machine(state)

    async def stop_machine(self, state: "RunState | None" = None) -> None:
        """Stop the machine; what is under way ends, and all is flushed (do_vm_stop, cpus.c)."""
        self.machine.stop(state)
        async with drained(*self.graph):
            pass
        for node in list(self.graph):
            if node.monitor_owned or any(isinstance(edge, Backend) for edge in node.parents):
                with suppress(OSError):
                    await flush(node)

    async def continue_machine(self) -> None:
        """Let the machine go on, with the images its own again (qmp_cont).

        Errors of devices and jobs are forgotten.

        Raises:
            QmpError: it cannot go on now, or an image cannot be taken back.

        """
        from blockemu.activation import activate_all

        self.machine.check_may_continue()
        for backend in self.graph.all_backends():
            backend.reset_io_status()
        if "jobs" in vars(self):
            from blockemu.jobs.block_job import BlockJob

            for job in self.jobs:
                if isinstance(job, BlockJob):
                    job.reset_io_status()
        await activate_all(self.graph)
        if self.machine.incoming:
            self.machine.autostart = True
        else:
            self.machine.resume()

    async def close(self) -> None:
        """End exports and jobs, then flush and close all nodes."""
        made = vars(self)
        if "guest" in made:
            await self.guest.close()
        if "migration" in made:
            await self.migration.close()
        if "exports" in made:
            await self.exports.close_all()
            if self.exports.server is not None:
                await self.exports.stop_server()
        if "jobs" in made:
            async with drained(*self.graph):  # jobs stand still before they are cancelled
                await self.jobs.cancel_all()
        while self.tasks:
            await asyncio.wait(self.tasks)
        for backend in list(self.graph.backends.values()):
            await self.graph.remove(backend)
        self.graph.backends.clear()
        for node in list(self.graph):
            if node.monitor_owned:
                await self.graph.delete(node)
        if self.crash_points is not None:
            self.crash_points.journal.close()
        self.pool.close()


def _end() -> NoReturn:
    sys.stdout.flush()
    os._exit(1)


def _print(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _print_warning(text: str) -> None:
    sys.stderr.write(text.rstrip("\n") + "\n")
    sys.stderr.flush()
