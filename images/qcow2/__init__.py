"""qcow2 (docs/interop/qcow2.txt) as a codec: header, extensions, tables, refcounts, snapshots.

Tables are numpy columns in native byte order; on disk they are big-endian.
"""

from blockemu.images.qcow2.geometry import Geometry
from blockemu.images.qcow2.header import Header
from blockemu.images.qcow2.new import new_image

__all__ = ["Geometry", "Header", "new_image"]
