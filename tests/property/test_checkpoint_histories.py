"""Checkpoints as libvirt takes them: bitmaps and a backup changed together, at one moment.

Each checkpoint begins a bitmap in the transaction in which the one before is disabled, and a backup
since any older checkpoint takes the bitmaps since then merged together.  Requests of the guest are
under way whenever a transaction is carried out; some transactions are refused at their end, jobs
fail or are cancelled.  Targets are raw, or qcow2 images that stand on those of older backups.
"""

from __future__ import annotations

import asyncio
import errno
import re
from dataclasses import dataclass
from typing import Any

import pytest
from fakes import CLUSTER, Disk, Machine, turns
from guests import Guest, live

from blockemu.errors import QmpError
from blockemu.images.qcow2 import new_image

SIZE = 6 * CLUSTER - 512 * 3
CHECKPOINTS = 6
HISTORIES = 500
AT_ONCE = 50
ROOM = 2 << 20  # bytes of a qcow2 image, more than it needs
Action = dict[str, Any]


@dataclass
class Checkpoint:
    """A moment, the bitmap that records from it to the next, and the image of it if there is one."""

    bitmap: str
    content: bytes
    image: str | None


class Checkpoints(Guest):
    """One disk, its guest, and its checkpoints, the oldest first."""

    def __init__(self, machine: Machine, seed: int) -> None:
        super().__init__(machine, seed, SIZE)
        self.taken: list[Checkpoint] = []
        self.number = 0

    # Actions

    def act(self, kind: str, **data: Any) -> Action:
        """Return an action on the disk; ``data`` as in QMP, with underscores."""
        members = {key.replace("_", "-"): value for key, value in data.items()}
        return {"type": kind, "data": members}

    def bitmap(self, verb: str, name: str, **data: Any) -> Action:
        """Return an action on a bitmap."""
        return self.act(f"block-dirty-bitmap-{verb}", node="s", name=name, **data)

    def merge(self, target: str, sources: list[str]) -> Action:
        """Return the merge of some bitmaps into one."""
        return self.act("block-dirty-bitmap-merge", node="s", target=target, bitmaps=sources)

    async def transaction(self, actions: list[Action]) -> Any:
        """Carry out actions while the guest writes; return what is answered."""
        self.disk.held |= set(self.random.choices(["read", "write", "zero"], k=2))
        for _ in range(self.random.randrange(4)):
            self.write()
        command = asyncio.create_task(self.machine("transaction", actions=actions))
        await turns(self.random.randrange(10))
        for _ in range(self.random.randrange(3)):
            self.write()
        self.disk.let()
        return await command

    async def maybe_refused(self, actions: list[Action]) -> None:
        """Try actions in vain first, now and then; with no writes meanwhile nothing changes."""
        if self.random.random() < 0.7:
            return
        await self.rest()
        before, actions = self._states(), [*actions, self.act("abort")]
        quiet = self.random.random() < 0.5
        if quiet:
            answer = await self.machine("transaction", actions=actions)
        else:
            answer = await self.transaction(actions)
        assert isinstance(answer, QmpError)
        after = self._states()
        assert [state[:3] for state in before] == [state[:3] for state in after]
        assert all(old[3] <= new[3] for old, new in zip(before, after, strict=True))
        assert before == after or not quiet

    def _states(self) -> list[tuple[str | None, bool, bool, int]]:
        found = self.disk.bitmap_set
        infos = found.info() if found is not None else []
        return [(each.name, each.recording, each.busy, each.count) for each in infos]

    # What is done

    async def take(self) -> None:
        """Begin a checkpoint, and back up the disk as it is at that moment."""
        self.number += 1
        name, scratch = f"c{self.number}", f"x{self.number}"
        since = self.random.randrange(len(self.taken)) if self.taken else None
        base = self.taken[since] if since is not None else None
        target = await self._target(f"t{self.number}", base)
        backup = {"job_id": name, "device": "s", "target": f"t{self.number}"}
        first = [self.bitmap("add", name)]
        if self.taken:
            first.append(self.bitmap("disable", self.taken[-1].bitmap))
        if base is not None:
            backup |= {"sync": "bitmap", "bitmap": scratch, "bitmap_mode": "never"}
            merged = [each.bitmap for each in self.taken[since:]]
            rest = [self.bitmap("add", scratch, disabled=True), self.merge(scratch, merged)]
        else:
            backup |= {"sync": "full"}
            rest = []
        rest.append(self.act("blockdev-backup", **backup))
        actions = self._interleave(first, rest)
        await self.maybe_refused(actions)
        self.machine.news()
        assert await self.transaction(actions) is None
        moment = self.moments[-1]
        await self._disturb(name, target)
        await self.machine.until(f"{name} null")
        await self.rest()
        good = any(re.fullmatch("COMPLETED .*K", line) for line in self.machine.news())
        target.errors.clear()
        if good:
            held = await self._content(f"t{self.number}")
            assert next((at for at in range(SIZE) if held[at] != moment[at]), None) is None
        self.taken.append(Checkpoint(name, moment, f"t{self.number}" if good else None))
        if base is not None:
            await self.machine("block-dirty-bitmap-remove", node="s", name=scratch)

    def _interleave(self, one: list[Action], other: list[Action]) -> list[Action]:
        """Mix two lists: it is all one moment, whatever the order."""
        self.random.shuffle(one)
        one, other, mixed = list(one), list(other), []
        while one or other:
            mixed.append(self.random.choice([each for each in (one, other) if each]).pop(0))
        return mixed

    async def _target(self, name: str, base: Checkpoint | None) -> Disk:
        """Make a target that holds what the disk held at ``base``; return where its bytes lie."""
        if self.random.random() < 0.5:
            return self.machine.disk(name, base.content if base is not None else SIZE)
        disk = self.machine.disk(f"f{name}", new_image(SIZE).ljust(ROOM, b"\0"))
        backing = base.image if base is not None else None
        options = {"driver": "qcow2", "node-name": name, "file": disk.name, "backing": backing}
        node = await self.machine.emu.opener.open(options)
        node.monitor_owned = True
        if base is not None and backing is None:
            guest = self.machine.guest(name)
            await guest.pwrite(0, base.content)
            await self.machine.emu.graph.remove(guest)
        return disk

    async def _content(self, name: str) -> bytes:
        guest = self.machine.guest(name)
        buf = bytearray(SIZE)
        await guest.pread(0, memoryview(buf))
        await self.machine.emu.graph.remove(guest)
        return bytes(buf)

    async def _disturb(self, name: str, target: Disk) -> None:
        for _ in range(self.random.randrange(6)):
            await turns(self.random.randrange(6))
            match self.random.randrange(5):
                case 0 | 1 | 2:
                    self.write()
                case 3 if self.random.random() < 0.3:
                    target.errors["write"] = errno.EIO
                case 4 if self.random.random() < 0.3:
                    words = self.machine("block-job-cancel", device=name)
                    self.commands.append(asyncio.create_task(words))

    async def forget(self) -> None:
        """Let a checkpoint's bitmap be part of the one before, which records on if it did."""
        at = self.random.randrange(1, len(self.taken))
        gone, older = self.taken[at], self.taken[at - 1]
        actions = [self.merge(older.bitmap, [gone.bitmap]), self.bitmap("remove", gone.bitmap)]
        if at == len(self.taken) - 1:
            actions.insert(self.random.randrange(3), self.bitmap("enable", older.bitmap))
        await self.maybe_refused(actions)
        assert await self.transaction(actions) is None
        await self.rest()
        del self.taken[at]

    async def run(self) -> None:
        """Live it."""
        for _ in range(CHECKPOINTS):
            for _ in range(self.random.randrange(3)):
                self.write()
            if self.random.random() < 0.5:
                await self.rest()  # else they are under way when the transaction is carried out
            if len(self.taken) > 1 and self.random.random() < 0.3:
                await self.forget()
            else:
                await self.take()
        await self.rest()
        await self.machine.emu.graph.remove(self.backend)


@pytest.mark.parametrize("first", range(0, HISTORIES, AT_ONCE))
async def test_each_backup_since_a_checkpoint_equals_the_disk_at_its_moment(first: int) -> None:
    await live(Checkpoints, range(first, first + AT_ONCE))
