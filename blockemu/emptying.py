"""Emptying an image whose data were merged into its backing file (bdrv_make_empty, block.c)."""

import errno
import os

from blockemu import filenames
from blockemu.edge import Edge
from blockemu.errors import HostError


class CannotEmpty(HostError):
    """(driver): it has no notion of that; errno is ENOTSUP."""

    template = "{} does not support emptying nodes"


class EmptyingFailed(HostError):
    """(name of the image, why)."""

    template = "Failed to empty {}: {}"


async def make_empty(edge: Edge) -> None:
    """Let the backing file of the node show through; the edge may write and nothing is in flight.

    Raises:
        CannotEmpty: the format has no backing files.
        EmptyingFailed: an image could not be written.

    """
    assert edge.can_write
    node = edge.node
    try:
        await node.make_empty()
    except NotImplementedError:
        raise CannotEmpty(node.driver, errno=errno.ENOTSUP) from None
    except OSError as e:
        filenames.refresh(node)
        code = e.errno or errno.EIO
        raise EmptyingFailed(node.full_filename, os.strerror(code), errno=code) from e
    finally:
        node.changed()
