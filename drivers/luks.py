"""luks: an encrypted volume, as dm-crypt has it too."""

import errno
import os
from collections.abc import Callable
from typing import Annotated, Any

from blockemu.blockdev_options import BlockdevRef, NodeOptions
from blockemu.create_options import (
    CreationOptions,
    Creator,
    PreallocMode,
    TextOption,
    Texts,
    UnknownValue,
)
from blockemu.edge import Edge
from blockemu.errors import HostError, QmpError
from blockemu.images.luks.header import SECTOR, has_magic
from blockemu.measuring import Measured
from blockemu.node import Limits, Node
from blockemu.optlist import size as read_size
from blockemu.os_errors import os_error
from blockemu.perm import Perm, Role, default_child_perm
from blockemu.qmp_server.qapi import InvalidInput, Since, Size, Struct, visit
from blockemu.route import NO_ROUTE, Route
from blockemu.schema.crypto import (
    ImageInfoSpecificLUKSWrapper,
    QCryptoBlockAmendOptionsLUKS,
    QCryptoBlockCreateOptionsLUKS,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from blockemu.encryption import HeaderStore, LuksVolume

LARGEST = (1 << 63) - 1


class HeaderNotRead(HostError):
    """(why)."""

    template = "Could not read encryption header: {}"


class HeaderNotWritten(HostError):
    """(why)."""

    template = "Could not write encryption header: {}"


class FileTooLarge(HostError):
    """With the header, the file would be larger than a file can be."""

    template = "The requested file size is too large"


class LengthUnknown(QmpError):
    """The file ends before the payload begins."""

    template = "Could not refresh total sector count: Input/output error"


class BlockdevOptionsLUKS(NodeOptions, tag="luks"):
    """Options of LUKS.

    @file: the node that holds the volume
    @key-secret: the ID of the secret with the passphrase
    """

    file: Annotated[BlockdevRef, Role.IMAGE]
    key_secret: str | None = None


class BlockdevCreateOptionsLUKS(CreationOptions, QCryptoBlockCreateOptionsLUKS, tag="luks"):
    """A LUKS volume to be created.

    @file: the node that shall hold the volume
    @size: size of the disk in bytes
    @preallocation: what is allocated
    """

    file: BlockdevRef
    size: Size
    preallocation: Annotated[PreallocMode | None, Since("4.2")] = None


class FileStore:
    """A header at the beginning of a file."""

    def __init__(self, file: Edge) -> None:
        self._file = file

    async def read(self, offset: int, length: int) -> memoryview:
        """Read a part; beyond the file's end there are zeroes."""
        data = memoryview(bytearray(length))
        try:
            await self._file.pread(offset, data)
        except OSError as e:
            code = e.errno or errno.EIO
            raise HeaderNotRead(os.strerror(code), errno=code) from e
        return data

    async def write(self, offset: int, data: bytes) -> None:
        """Write a part."""
        try:
            await self._file.pwrite(offset, data)
        except OSError as e:
            code = e.errno or errno.EIO
            raise HeaderNotWritten(os.strerror(code), errno=code) from e


CREATE_TEXTS = (
    TextOption("size", "size", "Virtual disk size"),
    TextOption("key-secret", "string", "ID of the secret that provides the keyslot passphrase"),
    TextOption("cipher-alg", "string", "Name of encryption cipher algorithm"),
    TextOption("cipher-mode", "string", "Name of encryption cipher mode"),
    TextOption("ivgen-alg", "string", "Name of IV generator algorithm"),
    TextOption("ivgen-hash-alg", "string", "Name of IV generator hash algorithm"),
    TextOption("hash-alg", "string", "Name of encryption hash algorithm"),
    TextOption("iter-time", "number", "Time to spend in PBKDF in milliseconds"),
)


AMEND_TEXTS = (
    TextOption("state", "string", "Select new state of affected keyslots (active/inactive)"),
    TextOption("keyslot", "number", "Select a single keyslot to modify explicitly"),
    TextOption("old-secret", "string", "Select all keyslots that match this password"),
    TextOption(
        "new-secret",
        "string",
        "New secret to set in the matching keyslots. Empty string to erase",
    ),
    TextOption("iter-time", "number", "Time to spend in PBKDF in milliseconds"),
)


class Luks(Node[BlockdevOptionsLUKS]):
    """A volume; its file holds the header, the key slots, and then the disk."""

    Options = BlockdevOptionsLUKS
    CreateOptions = BlockdevCreateOptionsLUKS
    text_options = CREATE_TEXTS
    amend_options = AMEND_TEXTS
    is_format = True
    plans_by_alignment = True
    file: Edge
    volume: "LuksVolume"
    _updating_keys = False

    @classmethod
    async def create(cls, options: CreationOptions, creator: Creator) -> None:
        """Create a volume in a node (block_crypto_co_create_luks)."""
        assert isinstance(options, BlockdevCreateOptionsLUKS)
        from blockemu.encryption import NewVolume  # start-up

        async with creator.node(options.file) as node, creator.root(node) as root:
            mode = options.preallocation or PreallocMode.OFF
            new = NewVolume(creator.services, options)

            async def init(header_bytes: int) -> "HeaderStore":
                prealloc = "off" if mode is PreallocMode.METADATA else mode.value
                await _make_room(root, options.size, header_bytes, prealloc)
                return FileStore(root)

            await new.create(init)

    @classmethod
    async def create_by_text(cls, filename: str, texts: Texts, creator: Creator) -> None:
        """Create the file and the volume in it (block_crypto_co_create_opts_luks)."""
        own = {o.name: texts[o.name] for o in CREATE_TEXTS if o.name in texts}
        rest = {name: text for name, text in texts.items() if name not in own}
        size = read_size(own.pop("size", "0")) or 0
        mode = _preallocation(rest.pop("preallocation", "off"))
        typed = _typed(own)
        await creator.create_file(filename, rest)
        async with creator.protocol(filename) as node:
            options = BlockdevCreateOptionsLUKS(
                file=node.name, size=size, preallocation=mode, **vars(typed)
            )
            try:
                await cls.create(options, creator)
            except BaseException:
                await node.delete_file()
                raise

    @classmethod
    async def measure(cls, texts: Texts, source: Edge | None) -> Measured:
        """Add the header to the disk; what is not written is encrypted, too."""
        from blockemu.encryption import header_bytes  # start-up

        own = {o.name: texts[o.name] for o in CREATE_TEXTS if o.name in texts}
        wanted = read_size(own.pop("size", "0")) or 0
        whole = (source.length if source is not None else wanted) + header_bytes(_typed(own))
        return Measured(whole, whole)

    @classmethod
    def probe(cls, head: bytes, filename: str) -> int:
        """Look for the signature and the version."""
        return 100 if has_magic(head) else 0

    async def open(self) -> None:
        """Read the header and find the key."""
        from blockemu.encryption import open_luks  # start-up

        self.volume = await open_luks(
            self.services,
            FileStore(self.file),
            self.options.key_secret,
            no_io=self.flags.no_io,
        )
        self.limits = Limits(request_alignment=SECTOR)
        if self.volume.header.payload_offset > self.file.fresh_length():
            raise LengthUnknown

    def begin_amend(self) -> None:
        """Have the file to itself (block_crypto_amend_prepare)."""
        self._updating_keys = True
        self.services.refresh_permissions(self)

    def end_amend(self) -> None:
        """Share the file again."""
        self._updating_keys = False
        self.services.refresh_permissions(self)

    async def amend_by_options(self, options: Struct, *, force: bool) -> None:
        """Change key slots."""
        from blockemu.keyslot_changes import change_keyslots  # start-up

        assert isinstance(options, QCryptoBlockAmendOptionsLUKS)
        await change_keyslots(self.volume, options, force=force)

    async def amend(
        self, texts: Texts, tell: Callable[[int, int], None], *, force: bool = False
    ) -> None:
        """Change key slots (block_crypto_amend_options_luks)."""
        try:
            typed = visit(QCryptoBlockAmendOptionsLUKS, texts, keyval=True)
        except InvalidInput as e:
            raise QmpError(str(e)) from e
        try:
            self.begin_amend()
            await self.amend_by_options(typed, force=force)
        finally:
            self.end_amend()

    def child_perm(self, name: str, role: Role, perm: Perm, shared: Perm) -> tuple[Perm, Perm]:
        """Write and resize only if a parent does, and let others (block_crypto_child_perms)."""
        own, theirs = default_child_perm(
            role, perm, shared, writable=self.flags.writable, inactive=self.flags.inactive
        )
        more = Perm.WRITE | Perm.RESIZE
        own, theirs = own & ~more | perm & more, theirs | shared & more
        if self._updating_keys:
            return own | Perm.WRITE, theirs & ~(Perm.CONSISTENT_READ | Perm.WRITE)
        return own, theirs

    def strong_options(self) -> dict[str, Any]:
        """Return the secret's name."""
        return {k: self.effective[k] for k in ("key-secret",) if k in self.effective}

    def specific_info(self) -> ImageInfoSpecificLUKSWrapper:
        """Describe the volume."""
        return ImageInfoSpecificLUKSWrapper(data=self.volume.info())

    def image_info(self) -> dict[str, Any]:
        """Tell that it is encrypted, and what the file tells of itself."""
        info = self.file.node.image_info()
        return {"encrypted": True} | {k: info[k] for k in ("dirty-flag",) if k in info}

    @property
    def payload_offset(self) -> int:
        """Where the disk begins in the file."""
        return self.volume.header.payload_offset

    @property
    def cluster_size(self) -> int | None:
        """The file's."""
        return self.file.node.cluster_size

    @property
    def length(self) -> int:
        """The disk's size: what follows the header."""
        if "volume" not in vars(self):
            return 0
        rest = self.file.fresh_length() - self.volume.header.payload_offset
        if rest < 0:
            raise os_error(errno.EIO)
        return rest

    # Requests

    def route(self) -> Route:
        """Go to the file's pages, through the cipher."""
        from blockemu.encryption import encrypted_route  # start-up

        encryption = self.volume.encryption
        if encryption is None:
            return NO_ROUTE
        return encrypted_route(self.file.route.shifted(self.payload_offset), encryption)

    async def pread(self, offset: int, buf: memoryview) -> None:
        """Read and decrypt in place."""
        volume = self.volume
        if volume.encryption is None:
            raise os_error(errno.EIO)
        await self.file.pread(self.payload_offset + offset, buf)
        await volume.encryption.decrypt(offset, buf)

    async def pwrite(self, offset: int, buf: memoryview, flags: int) -> None:
        """Encrypt and write."""
        volume = self.volume
        if volume.encryption is None:
            raise os_error(errno.EIO)
        data = await volume.encryption.encrypt(offset, buf)
        await self.file.pwrite(self.payload_offset + offset, data, flags)

    async def flush(self) -> None:
        """Flush the file."""
        await self.file.flush()

    async def truncate(
        self, length: int, *, exact: bool = True, prealloc: str = "off", zero: bool = False
    ) -> None:
        """Resize the file; what is new holds what zeroes decrypt to."""
        offset = self.payload_offset
        if offset > LARGEST - length:
            raise FileTooLarge(errno=errno.EFBIG)
        await self.file.truncate(offset + length, exact=exact, prealloc=prealloc)


def _preallocation(text: str) -> PreallocMode:
    try:
        return PreallocMode(text)
    except ValueError:
        raise UnknownValue(text) from None


def _typed(own: Texts) -> QCryptoBlockCreateOptionsLUKS:
    try:
        typed = visit(QCryptoBlockCreateOptionsLUKS, own, keyval=True)
    except InvalidInput as e:
        raise QmpError(str(e)) from e
    assert isinstance(typed, QCryptoBlockCreateOptionsLUKS)
    return typed


async def _make_room(root: Edge, size: int, header_bytes: int, prealloc: str) -> None:
    """Make the file as large as the header and the disk (block_crypto_create_init_func).

    Whatever goes wrong is an I/O error to whoever hears of it, as in QEMU.
    """
    if size > LARGEST - header_bytes:
        raise FileTooLarge(errno=errno.EIO)
    try:
        await root.truncate(size + header_bytes, exact=False, prealloc=prealloc)
    except HostError as e:
        raise QmpError(str(e)) from e
    except OSError as e:
        if e.errno == errno.EFBIG:
            raise FileTooLarge(errno=errno.EIO) from e
        raise
