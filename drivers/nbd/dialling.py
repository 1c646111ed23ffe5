"""From an address to a channel on which a handshake can be led."""

from blockemu.connecting import connect
from blockemu.drivers.nbd.channel import Channel
from blockemu.host.pool import Pool
from blockemu.host.streams import PlainStream, Stream
from blockemu.schema.sockets import SocketAddress, SocketAddressInet
from blockemu.tls.credentials import TlsCreds


async def dial(
    address: SocketAddress, pool: Pool, credentials: TlsCreds | None, hostname: str | None
) -> Channel:
    """Connect; with credentials the handshake may ask for encryption.

    ``hostname`` is whose certificate it should be, if not that of the address.  Raises QmpError.
    """
    sock = await connect(address, pool)
    if hostname is None and isinstance(address, SocketAddressInet):
        hostname = address.host

    async def encrypt() -> Stream:
        from blockemu.tls.session import connect as encrypted  # start-up: few disks need it

        assert credentials is not None
        return await encrypted(sock, credentials, hostname)

    return Channel(PlainStream(sock), encrypt)
