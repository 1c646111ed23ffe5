"""blkdebug: makes requests fail or wait at chosen points of their lives.

Which rules there are and what they do is in ``rules``; how they are spelled in ``config``.  The
points are events.  A node tells them to its child if that is a blkdebug node (``Node.debug``), and
so does the request layer (``blockemu.edge``).  With rules nothing is planned, so that events
come in the order in which QEMU has them.  Where qcow2's differ is told in its ``stepwise``.

One thing differs on purpose: when a block around an unaligned write cannot be read, the write
fails.  QEMU ignores that and writes what its buffer happened to hold.
"""

import errno
from typing import Any, ClassVar

from blockemu.drivers.blkdebug import config
from blockemu.drivers.blkdebug.options import BlockdevOptionsBlkdebug
from blockemu.drivers.blkdebug.rules import Breakpoint, Rules
from blockemu.errors import InvalidParameterValue, QmpError
from blockemu.extents import Extents
from blockemu.filter import Filter
from blockemu.node import Flags, Limits
from blockemu.optlist import SIZE_HINT, SIZE_WANTED
from blockemu.os_errors import os_error
from blockemu.perm import Perm, Role, api_perm_names
from blockemu.qmp_server.qapi import dump
from blockemu.route import NO_ROUTE, Placed, Ranges, Route
from blockemu.schema.nodes import BlockPermission
from blockemu.transaction import Transaction

INT_MAX = (1 << 31) - 1
SIZES = (
    "align",
    "max-transfer",
    "opt-write-zero",
    "max-write-zero",
    "opt-discard",
    "max-discard",
)
_STRONG = ("config", *SIZES)
_PERMS = {api_perm_names(perm)[0]: perm for perm in Perm}
_PERMS["graph-mod"] = Perm.NONE  # nothing ever looked at it


class NoImagePath(QmpError):
    """A file name without its second colon."""

    template = "blkdebug requires both config file and image path"


class Unmet(QmpError):
    """(option, value): a size does not go with the others."""

    template = "Cannot meet constraints with {} {}"


class Blkdebug(Filter[BlockdevOptionsBlkdebug]):
    """Lets requests through, unless a rule says otherwise."""

    Options = BlockdevOptionsBlkdebug
    is_protocol: ClassVar[bool] = True
    child_name = "image"
    protocols = ("blkdebug",)
    size_options = frozenset(SIZES)

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._sizes = self._read_sizes()
        self._rules = self._read_rules()
        self._take = _perms(self.options.take_child_perms)
        self._unshare = _perms(self.options.unshare_child_perms)
        self._flushed = self.writes

    @classmethod
    def parse_filename(cls, filename: str, options: dict[str, Any]) -> None:
        """Split ``blkdebug:CONFIG:IMAGE``; without the prefix all of it names the image."""
        del options["filename"]
        if not filename.startswith("blkdebug:"):
            options["x-image"] = filename
            return
        path, colon, image = filename.removeprefix("blkdebug:").partition(":")
        if not colon:
            raise NoImagePath
        if path:
            options["config"] = path
        options["x-image"] = image

    @classmethod
    def read_texts(cls, options: dict[str, Any]) -> None:
        """Read sizes and rules."""
        super().read_texts(options)
        config.read_texts(options)

    def _read_sizes(self) -> dict[str, int]:
        given = {name: getattr(self.options, name.replace("-", "_")) or 0 for name in SIZES}
        for name, value in given.items():
            if value < 0:
                raise InvalidParameterValue(name, SIZE_WANTED, hint=SIZE_HINT)
        return given

    def _read_rules(self) -> Rules:
        """Gather the rules of the file, and after them those of the options."""
        rules = Rules(self.services.note)
        options = self.options
        for rule in config.read_rules(options.config) if options.config is not None else ():
            rules.add(rule)
        kinds = ((config.INJECT, options.inject_error), (config.SET, options.set_state))
        for kind, given in kinds:
            for each in given or ():
                rules.add(config.make_rule(kind, dump(each)))
        return rules

    async def open(self) -> None:
        """Check the sizes against each other and the image; tell that the node is there."""
        sizes, align = self._sizes, self._sizes["align"]
        if align and (align >= INT_MAX or align & (align - 1)):
            raise Unmet("align", align)
        align = max(align, self.child.node.limits.request_alignment)
        for name, unit in (
            ("max-transfer", align),
            ("opt-write-zero", align),
            ("max-write-zero", max(align, sizes["opt-write-zero"])),
            ("opt-discard", align),
            ("max-discard", max(align, sizes["opt-discard"])),
        ):
            if sizes[name] >= INT_MAX or sizes[name] % unit:
                raise Unmet(name, sizes[name])
        self.limits = Limits(
            request_alignment=sizes["align"] or 1,
            max_transfer=sizes["max-transfer"] or Limits().max_transfer,
            write_zeroes_alignment=sizes["opt-write-zero"],
            max_write_zeroes=sizes["max-write-zero"],
            discard_alignment=sizes["opt-discard"],
            max_discard=sizes["max-discard"],
        )
        await self._rules.event("none")
        self._listen()

    def _listen(self) -> None:
        """Hear of events if there are rules that could act on them."""
        self.debug = self._rules.event if self._rules else None

    async def reopen(
        self, options: BlockdevOptionsBlkdebug, flags: Flags, transaction: Transaction
    ) -> None:
        """Accept new flags."""

    def gather_filename(self) -> None:
        """Be ``blkdebug:CONFIG:IMAGE``, unless an option matters that the name cannot say."""
        child = self.children.get("image")  # not there yet when the node is being made
        below = child.node.exact_filename if child is not None else ""
        said = self.full_options.keys() <= {"driver", "config", "image"}
        self.exact_filename = f"blkdebug:{self.options.config or ''}:{below}"
        if not below or not said or len(self.exact_filename) > config.LONGEST_NAME:
            self.exact_filename = ""

    def strong_options(self) -> dict[str, Any]:
        """Return all but the permissions; rules by dotted names."""
        strong = {name: self.effective[name] for name in _STRONG if name in self.effective}
        for kind in config.KINDS:
            given = self.effective.get(kind) or ()
            for i, rule in enumerate([given] if isinstance(given, dict) else given):
                strong |= {f"{kind}.{i}.{name}": value for name, value in rule.items()}
        return strong

    def child_perm(self, name: str, role: Role, perm: Perm, shared: Perm) -> tuple[Perm, Perm]:
        """Take more and share less, as the options say (blkdebug_child_perm)."""
        perm, shared = super().child_perm(name, role, perm, shared)
        return perm | self._take, shared & ~self._unshare

    # Requests

    def route(self) -> Route:
        """See each request if there are rules."""
        return NO_ROUTE if self._rules else super().route()

    async def pread(self, offset: int, buf: memoryview) -> None:
        """Read, or fail."""
        await self._rules.check("read", offset, len(buf))
        await super().pread(offset, buf)

    async def pwrite(self, offset: int, buf: memoryview, flags: int) -> None:
        """Write, or fail."""
        await self._rules.check("write", offset, len(buf))
        await super().pwrite(offset, buf, flags)

    async def write_zeroes(self, offset: int, length: int, flags: int) -> None:
        """Zero, or fail; less than the preferred alignment is left to be written."""
        if length < max(self.limits.request_alignment, self.limits.write_zeroes_alignment):
            raise NotImplementedError
        await self._rules.check("write-zeroes", offset, length)
        await super().write_zeroes(offset, length, flags)

    async def discard(self, offset: int, length: int) -> None:
        """Discard, or fail; less than a block is not discarded."""
        if length < self.limits.request_alignment:
            raise NotImplementedError
        await self._rules.check("discard", offset, length)
        await super().discard(offset, length)

    async def flush(self) -> None:
        """Flush, or fail if there was something to be flushed."""
        writes = self.writes
        if not self.flags.no_flush and writes != self._flushed:
            await self._rules.check("flush")
        await super().flush()
        self._flushed = writes

    async def place(self, ranges: Ranges) -> Placed:
        """Have each write come by."""
        raise NotImplementedError

    async def block_status(self, offset: int, length: int) -> Extents:
        """Answer, or fail."""
        await self._rules.check("block-status", offset, length)
        return await super().block_status(offset, length)

    # Breakpoints

    def set_break(self, event: str, tag: str) -> None:
        """Suspend the next request that comes by ``event``, and call it ``tag``."""
        if event not in config.EVENTS:
            raise _no_entry()
        self._rules.add(Breakpoint(event, tag))
        self._listen()
        self.changed()

    def remove_break(self, tag: str) -> None:
        """Forget the breakpoints for ``tag``, and let requests that they hold go on."""
        if not self._rules.remove_breakpoints(tag):
            raise _no_entry()
        self.changed()

    def resume_break(self, tag: str) -> None:
        """Let the request ``tag`` go on."""
        if not self._rules.resume(tag):
            raise _no_entry()

    async def wait_break(self, tag: str) -> None:
        """Wait until a request is suspended as ``tag``."""
        await self._rules.wait(tag)


def _no_entry() -> OSError:
    return os_error(errno.ENOENT)


def _perms(given: list[BlockPermission] | None) -> Perm:
    perm = Perm.NONE
    for each in given or ():
        perm |= _PERMS[each.value]
    return perm
