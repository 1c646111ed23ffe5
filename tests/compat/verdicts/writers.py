"""Filters that do more than they are told when a guest writes: to a target, a log, a file's end."""

import struct
from pathlib import Path

from compat.verdicts.table import Group

_MAGIC = 0x6A736677736872


def _disks(folder: Path) -> None:
    (folder / "disk.raw").write_bytes(bytes([1]) * (1 << 20))
    for name in ("old.raw", "other.raw"):
        (folder / name).write_bytes(bytes(1 << 20))
    (folder / "long.raw").write_bytes(bytes(2 << 20))


def _logs(folder: Path) -> None:
    _disks(folder)
    heads = {
        "empty": b"",
        "magic": struct.pack("<QQQI", 1, 1, 0, 512),
        "version": struct.pack("<QQQI", _MAGIC, 2, 0, 512),
        "size": struct.pack("<QQQI", _MAGIC, 1, 0, 1000),
        "none": struct.pack("<QQQI", _MAGIC, 1, 0, 0),
        "flags": struct.pack("<QQQI", _MAGIC, 1, 1, 512).ljust(512, b"\0")
        + struct.pack("<QQQQ", 0, 0, 16, 0),
        "good": struct.pack("<QQQI", _MAGIC, 1, 1, 512).ljust(512, b"\0")
        + struct.pack("<QQQQ", 2, 1, 0, 0).ljust(1024, b"x"),
    }
    for name, head in heads.items():
        (folder / f"{name}.log").write_bytes(head and head.ljust(4096, b"\0"))


FLEECING = Group(
    "copy-before-write",
    r"""
+ blockdev-add {"driver": "file", "node-name": "disk", "filename": "disk.raw"}
+ blockdev-add {"driver": "file", "node-name": "old", "filename": "old.raw", "discard": "unmap"}
+ blockdev-add {"driver": "file", "node-name": "long", "filename": "long.raw"}
+ block-dirty-bitmap-add {"node": "disk", "name": "b", "granularity": 65536}
+ block-dirty-bitmap-add {"node": "long", "name": "l"}
. write disk 131072 65536 5
- blockdev-add {"driver": "copy-before-write", "node-name": "cbw", "target": "old"}
- blockdev-add {"driver": "copy-before-write", "node-name": "cbw", "file": "disk"}
- blockdev-add {"driver": "copy-before-write", "node-name": "cbw", "file": "disk", "target": "absent"}
- blockdev-add {"driver": "copy-before-write", "node-name": "cbw", "file": "disk", "target": "old", "bitmap": {"node": "disk", "name": "absent"}}
- blockdev-add {"driver": "copy-before-write", "node-name": "cbw", "file": "disk", "target": "old", "bitmap": {"node": "absent", "name": "b"}}
- blockdev-add {"driver": "copy-before-write", "node-name": "cbw", "file": "disk", "target": "old", "bitmap": {"node": "long", "name": "l"}}
- blockdev-add {"driver": "copy-before-write", "node-name": "cbw", "file": "disk", "target": "old", "bitmap": "b"}
- blockdev-add {"driver": "copy-before-write", "node-name": "cbw", "file": "disk", "target": "old", "on-cbw-error": "ignore"}
- blockdev-add {"driver": "copy-before-write", "node-name": "cbw", "file": "disk", "target": "old", "cbw-timeout": -1}
- blockdev-add {"driver": "copy-before-write", "node-name": "cbw", "file": "disk", "target": "old", "cbw-timeout": 4294967296}
+ blockdev-add {"driver": "copy-before-write", "node-name": "cbw", "file": "disk", "target": "old", "bitmap": {"node": "disk", "name": "b"}}
- blockdev-add {"driver": "snapshot-access", "node-name": "s"}
- blockdev-add {"driver": "snapshot-access", "node-name": "s", "file": "absent"}
- blockdev-add {"driver": "snapshot-access", "node-name": "s", "file": "cbw", "target": "old"}
+ blockdev-add {"driver": "snapshot-access", "node-name": "s", "file": "cbw", "discard": "unmap"}
+ query-named-block-nodes {"flat": true}
. io s read -P 5 131072 65536
. io s read -P 1 0 65536
. io s write 131072 512
. write cbw 131072 4096 6
. io s read -P 5 131072 65536
. io cbw read -P 6 131072 4096
. io old read -P 5 131072 65536
. io s discard 131072 65536
. io s read -P 5 131072 65536
+ query-named-block-nodes {"flat": true}
- block_resize {"node-name": "s", "size": 65536}
- blockdev-reopen {"options": [{"driver": "snapshot-access", "node-name": "s", "file": "cbw"}]}
- blockdev-reopen {"options": [{"driver": "copy-before-write", "node-name": "cbw", "file": "disk", "target": "old"}]}
- blockdev-del {"node-name": "cbw"}
+ blockdev-add {"driver": "snapshot-access", "node-name": "of-disk", "file": "disk"}
. io of-disk read 0 512
+ blockdev-del {"node-name": "of-disk"}
+ blockdev-del {"node-name": "s"}
+ blockdev-del {"node-name": "cbw"}
+ query-named-block-nodes {"flat": true}
""",
    files=_disks,
)
LOGGING = Group(
    "blklogwrites",
    r"""
+ blockdev-add {"driver": "file", "node-name": "disk", "filename": "disk.raw"}
+ blockdev-add {"driver": "file", "node-name": "log", "filename": "empty.log"}
- blockdev-add {"driver": "blklogwrites", "node-name": "w", "log": "log"}
- blockdev-add {"driver": "blklogwrites", "node-name": "w", "file": "disk"}
- blockdev-add {"driver": "blklogwrites", "node-name": "w", "file": "disk", "log": "log", "log-sector-size": 0}
- blockdev-add {"driver": "blklogwrites", "node-name": "w", "file": "disk", "log": "log", "log-sector-size": 16}
- blockdev-add {"driver": "blklogwrites", "node-name": "w", "file": "disk", "log": "log", "log-sector-size": 1000}
- blockdev-add {"driver": "blklogwrites", "node-name": "w", "file": "disk", "log": "log", "log-sector-size": 16777216}
- blockdev-add {"driver": "blklogwrites", "node-name": "w", "file": "disk", "log": "log", "log-sector-size": -512}
- blockdev-add {"driver": "blklogwrites", "node-name": "w", "file": "disk", "log": "log", "log-super-update-interval": 0}
- blockdev-add {"driver": "blklogwrites", "node-name": "w", "file": "disk", "log": "log", "log-append": true, "log-sector-size": 512}
- blockdev-add {"driver": "blklogwrites", "node-name": "w", "file": "disk", "log": {"driver": "file", "filename": "magic.log"}, "log-append": true}
- blockdev-add {"driver": "blklogwrites", "node-name": "w", "file": "disk", "log": {"driver": "file", "filename": "version.log"}, "log-append": true}
- blockdev-add {"driver": "blklogwrites", "node-name": "w", "file": "disk", "log": {"driver": "file", "filename": "size.log"}, "log-append": true}
- blockdev-add {"driver": "blklogwrites", "node-name": "w", "file": "disk", "log": {"driver": "file", "filename": "none.log"}, "log-append": true}
- blockdev-add {"driver": "blklogwrites", "node-name": "w", "file": "disk", "log": {"driver": "file", "filename": "flags.log"}, "log-append": true}
+ blockdev-add {"driver": "blklogwrites", "node-name": "w", "file": "disk", "log": {"driver": "file", "filename": "good.log"}, "log-append": true, "discard": "unmap"}
+ query-named-block-nodes {"flat": true}
. write w 4096 4096 3
- blockdev-reopen {"options": [{"driver": "blklogwrites", "node-name": "w", "file": "disk", "log": "log"}]}
- blockdev-del {"node-name": "disk"}
+ blockdev-del {"node-name": "w"}
+ blockdev-add {"driver": "blklogwrites", "node-name": "w", "file": "disk", "log": "log", "log-sector-size": 4096, "log-super-update-interval": 3, "discard": "unmap"}
+ query-named-block-nodes {"flat": true}
- blockdev-add {"driver": "qcow2", "node-name": "other", "file": "log"}
. write w 512 512 4
. io w write -z 65536 65536
. io w write -z -u 131072 65536
. io w discard 262144 65536
. io w flush
. io w flush
. io w write -f -P 5 8192 4096
. io w read -P 5 8192 4096
. write w 12288 4096 6
. write w 16384 4096 6
. write w 20480 4096 6
+ blockdev-del {"node-name": "w"}
+ blockdev-del {"node-name": "log"}
""",
    files=_logs,
)
PREALLOCATING = Group(
    "preallocate",
    r"""
+ blockdev-add {"driver": "file", "node-name": "disk", "filename": "disk.raw"}
- blockdev-add {"driver": "preallocate", "node-name": "p"}
- blockdev-add {"driver": "preallocate", "node-name": "p", "file": "disk", "prealloc-align": 100}
- blockdev-add {"driver": "preallocate", "node-name": "p", "file": "disk", "prealloc-align": -512}
- blockdev-add {"driver": "preallocate", "node-name": "p", "file": "disk", "prealloc-size": -1}
- blockdev-add {"driver": "preallocate", "node-name": "p", "file": "disk", "prealloc-size": "1M"}
+ blockdev-add {"driver": "preallocate", "node-name": "p", "file": "disk", "prealloc-size": 1048576}
+ query-named-block-nodes {"flat": true}
- blockdev-reopen {"options": [{"driver": "preallocate", "node-name": "p", "file": "disk", "prealloc-align": 100, "prealloc-size": 0}]}
- blockdev-reopen {"options": [{"driver": "preallocate", "node-name": "p", "file": "disk"}]}
+ blockdev-reopen {"options": [{"driver": "preallocate", "node-name": "p", "file": "disk", "prealloc-align": 8388608, "prealloc-size": 2097152}]}
- blockdev-reopen {"options": [{"driver": "preallocate", "node-name": "p", "file": "disk", "prealloc-size": 1048576}]}
+ block_resize {"node-name": "p", "size": 2097152}
+ query-named-block-nodes {"flat": true}
+ block_resize {"node-name": "p", "size": 65536}
- blockdev-create {"job-id": "c", "options": {"driver": "preallocate", "file": "disk"}}
+ blockdev-create {"job-id": "c", "options": {"driver": "qcow2", "file": "p", "size": 67108864}}
. wait c concluded
+ job-dismiss {"id": "c"}
+ blockdev-add {"driver": "qcow2", "node-name": "q", "file": "p"}
. write q 0 1048576 3
+ query-named-block-nodes {"flat": true}
. write q 33554432 1048576 4
. io q read -P 3 0 1048576
. io q flush
+ blockdev-reopen {"options": [{"driver": "qcow2", "node-name": "q", "file": "p", "read-only": true}]}
+ query-named-block-nodes {"flat": true}
+ blockdev-reopen {"options": [{"driver": "qcow2", "node-name": "q", "file": "p", "read-only": false}]}
. write q 50331648 65536 5
+ block_resize {"node-name": "q", "size": 134217728}
- blockdev-del {"node-name": "p"}
+ blockdev-del {"node-name": "q"}
+ query-named-block-nodes {"flat": true}
+ blockdev-del {"node-name": "p"}
+ query-named-block-nodes {"flat": true}
""",
    files=_disks,
)
GROUPS = [FLEECING, LOGGING, PREALLOCATING]
