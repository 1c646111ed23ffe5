"""Opening nodes: from options, by file name or by reference, with the children they need.

Options are plain mappings here, as they come from JSON, named as on the wire; each driver gets its
own typed ones.  The order of steps is bdrv_open_inherit's (block.c), because errors and
generated names show it: file child, probing, name, driver, backing child.
"""

import errno
import os
from typing import TYPE_CHECKING, Any

from blockemu import filenames
from blockemu.backend import Backend
from blockemu.blockdev_options import BLOCKDEV, NodeOptions
from blockemu.edge import MAX_LENGTH
from blockemu.errors import QmpError, Wrapped
from blockemu.graph import Graph
from blockemu.images.errors import FormatError
from blockemu.node import Flags, Node
from blockemu.node_options import (
    Options,
    Parent,
    check_flags,
    fill_cache,
    flatten,
    inherit,
    merged,
    set_flags,
    spread,
    stand_ins,
    without,
)
from blockemu.opening_errors import (
    ChildNeeded,
    CouldNotOpen,
    CouldNotProbe,
    FileAndFilename,
    NeedsFilename,
    NeitherDriverNorFile,
    NoBackingSupport,
    ReferenceWithOptions,
    UnknownDriver,
    UnknownLength,
    UnsupportedOption,
)
from blockemu.os_errors import os_error
from blockemu.perm import Perm, Role
from blockemu.probing import Drivers
from blockemu.qmp_server.order import in_order
from blockemu.qmp_server.qapi import InvalidInput, Unexpected, members, visit
from blockemu.records import replace
from blockemu.services import Services
from blockemu.transaction import Transaction

if TYPE_CHECKING:
    from blockemu.edge import Edge

EMPTY_BACKING = 'Use of "backing": "" is deprecated; use "backing": null instead'
PROBE_SIZE = 512  # bytes of the file that a format is guessed from


class Opener:
    """Opens nodes into one graph."""

    def __init__(self, graph: Graph, drivers: Drivers, services: Services) -> None:
        self.graph = graph
        self.drivers = drivers
        self.services = services

    async def open(
        self,
        options: Options,
        *,
        filename: str | None = None,
        defaults: Options | None = None,
        flags: Flags | None = None,
        protocol: bool = False,
    ) -> Node[Any]:
        """Open a node that has no parent; the caller must take it at once, or release it.

        ``defaults`` hold where neither ``options`` nor a ``json:`` name say otherwise, and do not
        count as given (a program's flags; after update_options_from_flags, block.c).  ``flags``
        are what no option says.  Without a driver ``protocol`` has no format looked for
        (BDRV_O_PROTOCOL).

        Raises:
            QmpError: in QEMU's words; nothing is left open.

        """
        return await self._open(
            filename, defaults or {}, dict(options), None, Role.NONE, flags, protocol=protocol
        )

    async def open_filter(self, options: Options, file: Node[Any]) -> Node[Any]:
        """Open a filter on a node, on which no root comes and goes (bdrv_new_open_driver_opts)."""
        options, flags, held = options | {"file": file.name}, Flags(), list[Node[Any]]()
        set_flags(flags, options)
        driver = self._driver(options["driver"])
        try:
            return await self._open_driver(
                driver, options, dict(options), flags, {"file": file}, held, probed=False
            )
        except QmpError as e:
            raise Wrapped("Could not create node", e, hint=e.hint) from e
        finally:
            await self._let_go(held)

    async def open_child(
        self, parent: Node[Any], name: str, role: Role, child: "str | Options"
    ) -> "Edge":
        """Open a child of a node that exists; a string is the name of an existing node."""
        node = await self._open_ref(child, None, _as_parent(parent), role)
        return await self._attach(parent, name, role, child, node)

    async def open_backing(self, node: Node[Any]) -> None:
        """Open the backing file that an image names, which was not wanted before."""
        node.flags.no_backing = False
        await self._open_backing(node, {}, self._child_roles(type(node)))
        node.changed()

    async def _attach(
        self, parent: Node[Any], name: str, role: Role, child: "str | Options", node: Node[Any]
    ) -> "Edge":
        """Make a node that we hold a child, and let go of it."""
        try:
            with Transaction() as transaction:
                edge = self.graph.add_child(parent, name, role, node, transaction)
        finally:
            node.holds -= 1
            await self.graph.release(node)
        if not isinstance(child, str):
            node.inherits_from = parent
        return edge

    # The steps

    async def _open_ref(
        self, child: "str | Options", filename: str | None, parent: Parent, role: Role
    ) -> Node[Any]:
        """Return a node with a hold on it."""
        if isinstance(child, str):
            node = self.graph.lookup(child)
            node.holds += 1
            return node
        node = await self._open(filename, {}, dict(child), parent, role)
        node.holds += 1
        return node

    async def _open(
        self,
        filename: str | None,
        defaults: Options,
        options: Options,
        parent: Parent | None,
        role: Role,
        given: Flags | None = None,
        *,
        protocol: bool = False,
    ) -> Node[Any]:
        if filename is not None and filename.startswith("json:"):
            options = merged(filenames.parse_json(filename), options)
            filename = None
        explicit = dict(options)
        flags = replace(given) if given is not None else Flags()
        if defaults:
            options = defaults | options
            fill_cache(options, defaults.get("cache", {}))
        if parent is not None:
            flags.inactive = parent.flags.inactive
            protocol = inherit(role, parent, options)
        protocol = self._fill(options, filename, protocol, parse=filename is not None)
        set_flags(flags, options)
        if "backing" in options and options["backing"] in (None, ""):
            if options["backing"] == "":
                self.services.report(f"warning: {EMPTY_BACKING}")
            flags.no_backing = True
            explicit.pop("backing", None)
            del options["backing"]
        held: list[Node[Any]] = []
        try:
            return await self._build(filename, options, explicit, protocol, flags, held)
        finally:
            await self._let_go(held)

    async def _let_go(self, held: list[Node[Any]]) -> None:
        for node in held:
            node.holds -= 1
            await self.graph.release(node)

    def _fill(self, options: Options, filename: str | None, protocol: bool, *, parse: bool) -> bool:
        """Decide on the driver where options or the name do; return whether it is a protocol.

        After bdrv_fill_options, block.c.
        """
        name = options.get("driver")
        if name is not None:
            protocol = self._driver(name).is_protocol
        if protocol and filename is not None:
            if "filename" in options:
                raise FileAndFilename
            options["filename"] = filename
            if name is None:
                options["driver"] = name = filenames.find_protocol(filename, self.drivers)
            parser = getattr(self._driver(name), "parse_filename", None)
            if parse and parser is not None:
                parser(filename, options)
        elif protocol and name is None:
            if "filename" not in options:
                raise NeitherDriverNorFile
            options["driver"] = filenames.find_protocol(
                options["filename"], self.drivers, allow_prefix=False
            )
        return protocol

    async def _build(
        self,
        filename: str | None,
        options: Options,
        explicit: Options,
        protocol: bool,
        flags: Flags,
        held: list[Node[Any]],
    ) -> Node[Any]:
        driver = self._driver(options["driver"]) if "driver" in options else None
        if protocol or ("file" not in options and filename is None):
            if driver is None:
                raise NeitherDriverNorFile
            return await self._open_driver(driver, options, explicit, flags, {}, held, probed=False)
        me = Parent(flags, options, is_format=True)  # as if: QEMU opens it before it has a driver
        file = await self._child(options.get("file"), filename, me, Role.IMAGE, held)
        root = Backend(perm=Perm.NONE, shared=Perm.ALL)  # QEMU has one on it until all is open
        self.graph.insert(root, file)
        try:
            probed = driver is None
            if driver is None:
                options["driver"] = await self._probe(root)
                driver = self._driver(options["driver"])
            return await self._open_driver(
                driver, options, explicit, flags, {"file": file}, held, probed
            )
        finally:
            await self.graph.remove(root)

    async def _open_driver(
        self,
        driver: type[Node[Any]],
        options: Options,
        explicit: Options,
        flags: Flags,
        given: dict[str, Node[Any]],
        held: list[Node[Any]],
        probed: bool,
    ) -> Node[Any]:
        tag = options["driver"]
        check_flags(flags)
        name = self.graph.new_name(options.get("node-name"))
        roles = self._child_roles(driver)
        typed, unknown = self._typed(driver, options)
        node = driver(name, tag, typed, flags, self.services)
        node.explicit = {k: v for k, v in explicit.items() if k not in roles}
        node.effective = {
            k: v for k, v in options.items() if k not in roles and k.removeprefix("x-") not in roles
        }
        options, roles = spread(options, roles, driver.child_lists())
        node.probed = probed
        node.gather_filename()
        if driver.needs_filename and not node.exact_filename:
            raise NeedsFilename(tag)
        self.graph.add(node)
        node.holds += 1
        try:
            await self._open_children(node, options, given, roles, held)
            await self._finish(node, options, roles)
            if unknown:
                raise _unsupported(driver, tag, unknown)
        except BaseException:
            node.holds -= 1
            await self.graph.release(node)
            raise
        node.holds -= 1
        return node

    async def _open_children(
        self,
        node: Node[Any],
        options: Options,
        given: dict[str, Node[Any]],
        roles: dict[str, Role],
        held: list[Node[Any]],
    ) -> None:
        """Attach the file, then open and attach what else the options define besides backing."""
        if "file" in roles and "file" not in given:
            raise ChildNeeded("file")
        for child, below in given.items():
            self._adopt(node, child, options.get(child), below)
        for child, role in roles.items():
            said = options.get(child)
            name = options.get(f"x-{child}")  # as the driver made it of its own file name
            if child in given or role & Role.COW or (said is None and name is None):
                continue
            if child in node.late_children and said is not None:
                node.said_late[child] = said
                continue
            below = await self._child(said, name, _as_parent(node), role, held)
            self._adopt(node, child, said, below)

    def _adopt(
        self, node: Node[Any], name: str, said: "str | Options | None", below: Node[Any]
    ) -> None:
        """Make a node a child of one being opened; ``said`` is how the options define it."""
        with Transaction() as transaction:
            self.graph.add_child(node, name, node.child_role(name), below, transaction)
        if not isinstance(said, str):
            below.inherits_from = node

    async def _finish(self, node: Node[Any], options: Options, roles: dict[str, Role]) -> None:
        filenames.refresh(node)
        try:
            await node.open()
            if node.auto_backing is None:
                node.auto_backing = node.backing_file
        except FormatError as e:
            raise QmpError(str(e), hint=e.hint) from e
        except QmpError:
            raise  # it may have an errno, but it has words, too
        except OSError as e:
            raise CouldNotOpen(_shown(node), os.strerror(e.errno or errno.EIO)) from e
        try:
            if node.length > MAX_LENGTH:
                raise os_error(errno.EFBIG)
        except OSError as e:
            raise UnknownLength(os.strerror(e.errno or errno.EIO)) from e
        with Transaction() as transaction:
            self.graph.refresh(node, transaction)
        if not node.flags.no_backing:
            await self._open_backing(node, options, roles)
        elif options.get("backing"):
            raise _unsupported(type(node), node.driver, {"backing": options["backing"]})
        filenames.refresh(node)
        node.changed()

    async def _open_backing(
        self, node: Node[Any], options: Options, roles: dict[str, Role]
    ) -> None:
        """Open the backing child from the options, or else from the image's header."""
        key = next((name for name, role in roles.items() if role & Role.COW), "backing")
        given = options.get(key)
        if given is None and not node.backing_file:
            return
        if not node.supports_backing:
            raise NoBackingSupport
        named = isinstance(given, str) or bool(given and "filename" in (given.get("file") or ()))
        # Where that is not so, the header's name goes with the options, and most drivers mind.
        if named and given is not None:
            await self._attach_backing(node, key, given, None)
            return
        name = filenames.full_backing_filename(node) or None
        child: Options = given or {}
        if node.backing_format:
            child = {"driver": node.backing_format} | child
        implicit = not given and node.auto_backing == node.backing_file
        edge = await self._attach_backing(node, key, child, name)
        if implicit:
            node.auto_backing = edge.node.full_filename

    async def _attach_backing(
        self, node: Node[Any], key: str, child: "str | Options", filename: str | None
    ) -> "Edge":
        try:
            below = await self._open_ref(child, filename, _as_parent(node), Role.COW)
        except QmpError as e:
            raise Wrapped("Could not open backing file", e, hint=e.hint) from e
        return await self._attach(node, key, Role.COW, child, below)

    async def _child(
        self,
        child: "str | Options | None",
        filename: str | None,
        parent: Parent,
        role: Role,
        held: list[Node[Any]],
    ) -> Node[Any]:
        if isinstance(child, str) and filename is not None:
            raise ReferenceWithOptions
        node = await self._open_ref(child if child is not None else {}, filename, parent, role)
        held.append(node)
        return node

    async def _probe(self, file: Backend) -> str:
        """Guess the format of an image; an empty one is raw."""
        try:
            size = min(PROBE_SIZE, file.length)
            if not size:
                return "raw"
            head = bytearray(size)
            await file.pread(0, head)
        except OSError as e:
            raise CouldNotProbe(os.strerror(e.errno or errno.EIO)) from e
        return filenames.probe(bytes(head), file.node.full_filename, self.drivers)

    # Helpers

    def _driver(self, name: str) -> type[Node[Any]]:
        if name not in self.drivers:
            raise UnknownDriver(name)
        return self.drivers[name]

    def _child_roles(self, driver: type[Node[Any]]) -> dict[str, Role]:
        """Return the children that a driver's options can define."""
        return {
            name: next(m for m in hint.__metadata__ if isinstance(m, Role))
            for name, (_, hint) in members(driver.Options).items()
            if any(isinstance(m, Role) for m in getattr(hint, "__metadata__", ()))
        }

    def _typed(self, driver: type[Node[Any]], options: Options) -> tuple[NodeOptions, Options]:
        """Make a driver's own options; return them, and those that it does not know.

        What defines a child is left out, the child says it all.
        """
        roles = self._child_roles(driver)
        plain = {k: "child" if k in roles and v is not None else v for k, v in options.items()}
        plain |= {name: stand_ins(name, options.get(name, [])) for name in driver.child_lists()}
        for name in roles:
            if plain.pop(f"x-{name}", None) is not None:
                plain[name] = "child"
        if "file" in roles:
            plain.setdefault("file", "child")
        driver.read_texts(plain)
        unknown: Options = {key: options[key] for key in _never_taken(options)}
        while True:
            try:
                typed = visit(driver.Options, plain, keyval=True, drop=BLOCKDEV.discriminator)
            except Unexpected as e:
                unknown[e.where] = without(plain, e.parts[::-1])
            except InvalidInput as e:
                if driver.needs_filename and "filename" not in plain:
                    raise NeedsFilename(options["driver"]) from e
                missing = next((c for c in roles if f"'{c}' is missing" in str(e)), "")
                raise (ChildNeeded(missing) if missing else QmpError(str(e))) from e
            else:
                assert isinstance(typed, NodeOptions)
                return typed, unknown


def _unsupported(driver: type[Node[Any]], tag: str, unknown: Options) -> UnsupportedOption:
    """Return the error about options that the driver does not know: QEMU names one."""
    kind, verb = ("protocol", "doesn't") if driver.is_protocol else ("format", "does not")
    return UnsupportedOption(kind, tag, verb, in_order(flatten(unknown))[0])


def _never_taken(options: Options) -> list[str]:
    """Return the options that are left over in QEMU, for what would take them sees only members."""
    return [key for key, value in options.items() if value == [] or (key, value) == ("cache", {})]


def _as_parent(node: Node[Any]) -> Parent:
    return Parent(node.flags, node.effective, node.is_format, node.is_protocol)


def _shown(node: Node[Any]) -> str:
    """Return how an error names the image (after bdrv_open_driver)."""
    if node.is_protocol:
        name = node.effective.get("filename", "")
    else:
        name = node.full_filename or (node.file.node.full_filename if node.file is not None else "")
    return f"'{name}'" if name else "image"
