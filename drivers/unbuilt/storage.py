"""Options of protocols: storage that is reached over a network, by a device, or made up."""

from typing import Annotated, Final

from blockemu.blockdev_options import NodeOptions
from blockemu.qmp_server.qapi import QEnum, Since, Struct, Union, values
from blockemu.schema.sockets import AnySocketAddress, InetSocketAddress

RBD_ENCRYPTION: Final = Union("RbdEncryptionOptions", "format")
HOST_KEY: Final = Union("SshHostKeyCheck", "mode")


class NvmeOptions(NodeOptions, tag="nvme", since="2.12"):
    """Options of nvme.

    @device: address of the controller on its bus
    @namespace: number of the namespace, beginning with 1
    """

    device: str
    namespace: int


class VvfatOptions(NodeOptions, tag="vvfat", since="2.9"):
    """Options of vvfat.

    @dir: the folder to be shown as a disk
    @fat-type: 12, 16 or 32
    @floppy: whether it shall look like a floppy disk
    @label: name of the volume
    @rw: whether the folder may be written to
    """

    dir: str
    fat_type: int | None = None
    floppy: bool | None = None
    label: str | None = None
    rw: bool | None = None


# iSCSI, NFS, SSH


class IscsiTransport(QEnum):
    """What iSCSI is carried by."""

    TCP = "tcp"
    ISER = "iser"


class IscsiHeaderDigest(QEnum):
    """Whether headers have checksums."""

    CRC32C = "crc32c"
    NONE = "none"
    CRC32C_NONE = "crc32c-none"
    NONE_CRC32C = "none-crc32c"


class IscsiOptions(NodeOptions, tag="iscsi", since="2.9"):
    """Options of iscsi.

    @transport: what carries it
    @portal: host and port
    @target: name of the target
    @lun: the unit (default: 0)
    @user: name to log in by
    @password-secret: the ID of the secret with the password
    @initiator-name: name of this side
    @header-digest: whether headers have checksums
    @timeout: seconds that a request may take, 0 for any number
    """

    transport: IscsiTransport
    portal: str
    target: str
    lun: int | None = None
    user: str | None = None
    password_secret: str | None = None
    initiator_name: str | None = None
    header_digest: IscsiHeaderDigest | None = None
    timeout: int | None = None


class NfsTransport(QEnum):
    """What NFS is carried by."""

    INET = "inet"


class NfsServer(Struct):
    """Where an NFS server is.

    @type: how it is reached
    @host: its name or address
    """

    type: NfsTransport
    host: str


class NfsLocation(Struct):
    """A file on an NFS server.

    @server: the server
    @path: path of the file
    @user: number of the user
    @group: number of the group
    @tcp-syn-count: how often to try to connect
    @readahead-size: bytes to read ahead
    @page-cache-size: bytes to keep
    @debug: how much to tell
    """

    server: NfsServer
    path: str
    user: int | None = None
    group: int | None = None
    tcp_syn_count: int | None = None
    readahead_size: int | None = None
    page_cache_size: int | None = None
    debug: int | None = None


class NfsOptions(NodeOptions, NfsLocation, tag="nfs", since="2.9"):
    """Options of nfs."""


@values(since={"sha256": "6.1"})
class HostKeyHashType(QEnum):
    """Kinds of fingerprints."""

    MD5 = "md5"
    SHA1 = "sha1"
    SHA256 = "sha256"


class HostKeyCheck(Struct):
    """How an SSH server is known to be the right one."""

    union = HOST_KEY


class HostKeyCheckNone(HostKeyCheck, tag="none"):
    """Any is."""


class HostKeyCheckHash(HostKeyCheck, tag="hash"):
    """By the fingerprint of its key.

    @type: kind of fingerprint
    @hash: the fingerprint
    """

    type: HostKeyHashType
    hash: str


class HostKeyCheckKnownHosts(HostKeyCheck, tag="known_hosts"):
    """By the user's list."""


class SshLocation(Struct):
    """A file on an SSH server.

    @server: the server
    @path: path of the file
    @user: name to log in by
    @host-key-check: how the server is known
    """

    server: InetSocketAddress
    path: str
    user: str | None = None
    host_key_check: Annotated[Annotated[HostKeyCheck, HOST_KEY] | None, Since("2.12")] = None


class SshOptions(NodeOptions, SshLocation, tag="ssh", since="2.9"):
    """Options of ssh."""


# HTTP, FTP


class CurlOptions(NodeOptions):
    """Options of what a web server offers.

    @url: the address
    @readahead: bytes to read ahead
    @timeout: seconds that a connection may take
    @username: name to log in by
    @password-secret: the ID of the secret with the password
    @proxy-username: the same for a proxy
    @proxy-password-secret: the same for a proxy
    """

    url: str
    readahead: int | None = None
    timeout: int | None = None
    username: str | None = None
    password_secret: str | None = None
    proxy_username: str | None = None
    proxy_password_secret: str | None = None


class HttpOptions(CurlOptions, tag="http", since="2.9"):
    """Options of http.

    @cookie: cookies to send
    @cookie-secret: the ID of the secret with the cookies
    """

    cookie: str | None = None
    cookie_secret: str | None = None


class HttpsOptions(HttpOptions, tag="https", since="2.9"):
    """Options of https.

    @sslverify: whether to look at the server's certificate
    """

    sslverify: bool | None = None


class FtpOptions(CurlOptions, tag="ftp", since="2.9"):
    """Options of ftp."""


class FtpsOptions(CurlOptions, tag="ftps", since="2.9"):
    """Options of ftps.

    @sslverify: whether to look at the server's certificate
    """

    sslverify: bool | None = None


# Clusters


class GlusterLocation(Struct):
    """A file on a Gluster volume.

    @volume: the volume
    @path: path of the file
    @server: the servers
    @debug: how much to tell
    @logfile: where to tell it
    """

    volume: str
    path: str
    server: list[AnySocketAddress]
    debug: Annotated[int | None, Since("2.8")] = None
    logfile: Annotated[str | None, Since("2.8")] = None


class GlusterOptions(NodeOptions, GlusterLocation, tag="gluster", since="2.9"):
    """Options of gluster."""


class RbdAuthMode(QEnum):
    """How a Ceph client shows who it is."""

    CEPHX = "cephx"
    NONE = "none"


class RbdServer(Struct):
    """Where a monitor of a Ceph cluster is.

    @host: its name or address
    @port: its port
    """

    host: str
    port: str


class RbdEncryption(Struct):
    """How a Ceph image is decrypted."""

    union = RBD_ENCRYPTION


class RbdEncryptionLuks(RbdEncryption, tag="luks"):
    """By LUKS.

    @key-secret: the ID of the secret with the passphrase
    """

    key_secret: str


class RbdEncryptionLuks2(RbdEncryption, tag="luks2"):
    """By LUKS2.

    @key-secret: the ID of the secret with the passphrase
    """

    key_secret: str


class RbdLocation(Struct):
    """An image of a Ceph cluster.

    @pool: the pool
    @namespace: the namespace in it
    @image: the image
    @conf: the configuration file
    @snapshot: the snapshot
    @encrypt: how it is decrypted
    @user: name to log in by
    @auth-client-required: how this side shows who it is
    @key-secret: the ID of the secret with the key
    @server: the monitors
    """

    pool: str
    namespace: Annotated[str | None, Since("5.0")] = None
    image: str
    conf: str | None = None
    snapshot: str | None = None
    encrypt: Annotated[Annotated[RbdEncryption, RBD_ENCRYPTION] | None, Since("6.1")] = None
    user: str | None = None
    auth_client_required: Annotated[list[RbdAuthMode] | None, Since("3.0")] = None
    key_secret: Annotated[str | None, Since("3.0")] = None
    server: list[RbdServer] | None = None


class RbdOptions(NodeOptions, RbdLocation, tag="rbd", since="2.9"):
    """Options of rbd."""


class SheepdogLocation(Struct):
    """A disk of a Sheepdog cluster.

    @server: where the cluster is
    @vdi: name of the disk
    @snap-id: number of the snapshot
    @tag: name of the snapshot
    """

    server: AnySocketAddress
    vdi: str
    snap_id: int | None = None
    tag_: str | None = None


class SheepdogOptions(NodeOptions, SheepdogLocation, tag="sheepdog", since="2.9", removed="6.1"):
    """Options of sheepdog."""


class VxhsServer(Struct):
    """Where a VxHS server is.

    @host: its name or address
    @port: its port
    """

    host: str
    port: str


class VxhsOptions(NodeOptions, tag="vxhs", since="2.10", deprecated="4.2", removed="5.1"):
    """Options of vxhs.

    @vdisk-id: number of the disk
    @server: the server
    @tls-creds: credentials for an encrypted connection
    """

    vdisk_id: str
    server: VxhsServer
    tls_creds: str | None = None
