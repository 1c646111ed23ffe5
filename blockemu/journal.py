"""What was done to files since their last flush: what a power cut may take back.

A file under a journal is written as ever; the journal keeps what lay there before, until a flush
makes the new bytes durable.  So it can leave the files as if some of the changes had never reached
them.  It may also keep all changes for ever, to go through every crash that there could have been.
"""

import os
import stat
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from blockemu.host.sysfile import KEEP_SIZE, PUNCH_HOLE, data_runs, fallocate
from blockemu.records import field, record

_PIECE: Final = 1 << 20  # bytes that are zeroed in one go where holes cannot be punched
_ALL: Final = 1 << 62  # runs of data


@record(frozen=True)
class Wrote:
    """Bytes were written; ``data`` is what lies at ``offset`` from then on."""

    offset: int
    data: bytes


@record(frozen=True)
class Zeroed:
    """A range reads as zeroes."""

    offset: int
    length: int


@record(frozen=True)
class Resized:
    """The disk has another length, in bytes."""

    length: int


@record(frozen=True)
class Flushed:
    """All that was done before is durable."""


Change = Wrote | Zeroed | Resized | Flushed


def apply(content: bytearray, change: Change) -> None:
    """Do to some bytes what was done to a disk."""
    match change:
        case Wrote(offset, data):
            if offset > len(content):
                content.extend(bytes(offset - len(content)))
            content[offset : offset + len(data)] = data
        case Zeroed(offset, length):
            apply(content, Wrote(offset, bytes(length)))
        case Resized(length):
            del content[length:]
            content.extend(bytes(length - len(content)))


@record(eq=False)
class Entry:
    """A change to a file, and what it replaced."""

    file: "JournalFile"
    change: Wrote | Zeroed | Resized
    length: int  # of the file before
    before: list[tuple[int, bytes]]  # the data that lay there, without holes
    done: bool = False  # whether the host has been told all of it


class JournalFile:
    """A file under a journal, with a descriptor of its own.

    Before a change its method is called, and what that returns is told when it is ``done``.
    """

    def __init__(self, journal: "Journal", path: str, fd: int) -> None:
        self.journal = journal
        self.path = path
        self.fd = fd
        self._regular = stat.S_ISREG(os.fstat(fd).st_mode)  # not a device, which has one size

    @property
    def length(self) -> int:
        """Its size now, in bytes."""
        return os.lseek(self.fd, 0, os.SEEK_END)

    def _resize(self, length: int) -> None:
        if self._regular:
            os.ftruncate(self.fd, length)

    def write(self, offset: int, buf: memoryview) -> Entry:
        """Note a write."""
        return self._begin(Wrote(offset, bytes(buf)), offset, offset + len(buf))

    def zero(self, offset: int, length: int) -> Entry:
        """Note that a range is to read as zeroes."""
        return self._begin(Zeroed(offset, length), offset, offset + length)

    def resize(self, length: int) -> Entry:
        """Note a new size."""
        return self._begin(Resized(length), length, self.length)

    def _begin(self, change: Wrote | Zeroed | Resized, offset: int, end: int) -> Entry:
        length = self.length
        runs = [(offset, length)]  # a device knows no holes
        if self._regular:
            runs = data_runs(self.fd, offset, min(end, length), _ALL)
        kept = [(start, min(stop, end)) for start, stop in runs if start < min(stop, end)]
        before = [(start, os.pread(self.fd, stop - start, start)) for start, stop in kept]
        return self.journal.note(Entry(self, change, length, before))

    def flushing(self) -> Callable[[], None]:
        """Begin a flush; return what says that it succeeded."""
        self.journal.watch(self, "flush")
        covered = [e for e in self.journal.pending if e.file is self and e.done]
        return lambda: self.journal.durable(self, covered)

    # At the crash

    def undo(self, entry: Entry) -> None:
        """Put back what a change replaced."""
        change = entry.change
        if not isinstance(change, Resized):
            size = change.length if isinstance(change, Zeroed) else len(change.data)
            self._zero(change.offset, size)
        self._resize(entry.length)
        for offset, data in entry.before:
            os.pwrite(self.fd, data, offset)

    def redo(self, change: Change) -> None:
        """Make a change."""
        match change:
            case Wrote(offset, data):
                os.pwrite(self.fd, data, offset)
            case Zeroed(offset, length):
                if offset + length > self.length:
                    self._resize(offset + length)
                self._zero(offset, length)
            case Resized(length):
                self._resize(length)

    def _zero(self, offset: int, length: int) -> None:
        if not length:
            return
        try:
            fallocate(self.fd, KEEP_SIZE | PUNCH_HOLE, offset, length)
        except OSError:
            for at in range(offset, offset + length, _PIECE):
                os.pwrite(self.fd, bytes(min(_PIECE, offset + length - at)), at)


@record
class Journal:
    """The changes of all files, in the order in which they were begun.

    ``watch`` hears of each write ("write", when it is noted) and flush ("flush", before it takes
    effect).  With ``history``, ``log`` has all changes since a file came in, and ``contents`` what
    it held then; a change that a flush did not cover stands behind it there.
    """

    history: bool = False
    watch: Callable[[JournalFile, str], None] = lambda file, event: None
    pending: list[Entry] = field(default_factory=list)
    log: list[tuple[str, Change]] = field(default_factory=list)
    contents: dict[str, bytes] = field(default_factory=dict)
    _files: dict[tuple[int, int], JournalFile] = field(default_factory=dict)

    def file(self, path: str, fd: int) -> JournalFile:
        """Take a file in, which is the same by whatever name or descriptor it comes."""
        status = os.fstat(fd)
        key = (status.st_dev, status.st_ino)
        if key not in self._files:
            own = os.open(f"/proc/self/fd/{fd}", os.O_RDWR | os.O_CLOEXEC)
            self._files[key] = JournalFile(self, path, own)
            if self.history:
                with open(own, "rb", closefd=False) as whole:
                    self.contents[path] = whole.read()
        return self._files[key]

    def note(self, entry: Entry) -> Entry:
        """Take a change in."""
        self.pending.append(entry)
        if self.history:
            self.log.append((entry.file.path, entry.change))
        if not isinstance(entry.change, Resized):
            self.watch(entry.file, "write")
        return entry

    def durable(self, file: JournalFile, covered: list[Entry]) -> None:
        """Forget what a flush has made durable."""
        if not self.history:
            gone = set(covered)
            self.pending = [entry for entry in self.pending if entry not in gone]
            return
        late = [e for e in self.pending if e.file is file and e not in covered]
        behind = {id(entry.change) for entry in late}
        mine = [change for path, change in self.log if path == file.path]
        if not mine or isinstance(mine[-1], Flushed):
            return
        self.log = [each for each in self.log if id(each[1]) not in behind]
        self.log += [(file.path, Flushed()), *((file.path, entry.change) for entry in late)]
        self.pending = [entry for entry in self.pending if entry.file is not file] + late

    def cut(self, survivors: Iterable[tuple[JournalFile, Change]]) -> None:
        """Leave the files with these of the pending changes, in this order, and no others."""
        chosen = list(survivors)
        for entry in reversed(self.pending):
            entry.file.undo(entry)
        for file, change in chosen:
            file.redo(change)
        self.pending.clear()

    def changes(self) -> Iterator[tuple[JournalFile, Change]]:
        """Yield the pending changes."""
        return ((entry.file, entry.change) for entry in self.pending)

    def close(self) -> None:
        """Let the files go."""
        for file in self._files.values():
            os.close(file.fd)
        self._files.clear()
