"""Filters, and the objects they need."""

from pathlib import Path

from compat.daemon import System, image
from compat.verdicts.table import Group


def disks_to_resize(folder: Path) -> None:
    image("create", "-q", "-f", "qcow2", "s.qcow2", "1M", cwd=folder)
    image("create", "-q", "-f", "raw", "s.raw", "1M", cwd=folder)


THROTTLE = Group(
    "throttle",
    r"""
+ object-add {"qom-type": "throttle-group", "id": "g", "limits": {"iops-total": 1000}}
+ object-add {"qom-type": "throttle-group", "id": "h"}
- object-add {"qom-type": "throttle-group", "id": "x", "limits": {"iops-total": 10, "iops-total-max": 5}}
- object-add {"qom-type": "throttle-group", "id": "x", "limits": {"iops-total-max": 5}}
- object-add {"qom-type": "throttle-group", "id": "x", "limits": {"iops-total": 1, "iops-total-max": 5, "iops-total-max-length": 0}}
- object-add {"qom-type": "throttle-group", "id": "x", "limits": {"bps-read": 1, "bps-read-max-length": 2}}
- object-add {"qom-type": "throttle-group", "id": "x", "limits": {"bps-read": 1000000000000001}}
- object-add {"qom-type": "throttle-group", "id": "x", "limits": {"bps-read": 10, "bps-read-max": 100000000000000, "bps-read-max-length": 4294967295}}
- object-add {"qom-type": "throttle-group", "id": "x", "limits": {"bps-read": 10, "bps-read-max": 10, "bps-read-max-length": 4294967296}}
- object-add {"qom-type": "throttle-group", "id": "x", "limits": {"iops-size": 10}}
+ blockdev-add {"driver": "null-co", "node-name": "n", "size": 1048576, "read-zeroes": true}
+ blockdev-add {"driver": "throttle", "node-name": "t", "throttle-group": "g", "file": "n"}
- blockdev-add {"driver": "throttle", "node-name": "t2", "throttle-group": "absent", "file": "n"}
- blockdev-add {"driver": "throttle", "node-name": "t2", "file": "n"}
- blockdev-add {"driver": "throttle", "node-name": "t2", "throttle-group": "h"}
- blockdev-add {"driver": "throttle", "node-name": "t2", "throttle-group": "g", "file": "absent"}
- blockdev-add {"driver": "throttle", "node-name": "t2", "throttle-group": "g", "file": "n", "limits": {}}
+ query-named-block-nodes {"flat": true}
- object-del {"id": "g"}
+ qom-get {"path": "/objects/g", "property": "limits"}
- qom-set {"path": "/objects/g", "property": "x-iops-total", "value": 5}
+ qom-set {"path": "/objects/g", "property": "limits", "value": {"iops-total": 0, "bps-write": 1048576}}
- qom-set {"path": "/objects/g", "property": "limits", "value": {"iops-total": 5, "iops-read": 5}}
+ qom-get {"path": "/objects/g", "property": "limits"}
+ blockdev-reopen {"options": [{"driver": "throttle", "node-name": "t", "throttle-group": "h", "file": "n"}]}
- blockdev-reopen {"options": [{"driver": "throttle", "node-name": "t", "throttle-group": "absent", "file": "n"}]}
+ object-del {"id": "g"}
+ query-named-block-nodes {"flat": true}
+ blockdev-del {"node-name": "t"}
+ object-del {"id": "h"}
- object-del {"id": "h"}
""",
)
DRIVES = Group(
    "limits-of-drives",
    r"""
- block_set_io_throttle {"device": "absent", "bps": 0, "bps_rd": 0, "bps_wr": 0, "iops": 0, "iops_rd": 0, "iops_wr": 0}
- block_set_io_throttle {"id": "absent", "bps": 0, "bps_rd": 0, "bps_wr": 0, "iops": 0, "iops_rd": 0, "iops_wr": 0}
- block_set_io_throttle {"bps": 0, "bps_rd": 0, "bps_wr": 0, "iops": 0, "iops_rd": 0, "iops_wr": 0}
- block_set_io_throttle {"device": "a", "id": "a", "bps": 0, "bps_rd": 0, "bps_wr": 0, "iops": 0, "iops_rd": 0, "iops_wr": 0}
- block_set_io_throttle {"device": "absent", "bps": 0}
- block_set_io_throttle {"device": "absent", "bps": "1", "bps_rd": 0, "bps_wr": 0, "iops": 0, "iops_rd": 0, "iops_wr": 0}
""",
    oracle=System,
)


def _images(folder: Path) -> None:
    image("create", "-q", "-f", "qcow2", "disk.qcow2", "1M", cwd=folder)
    (folder / "disk.raw").write_bytes(bytes(1 << 20))


COMPRESSING = Group(
    "compress",
    r"""
+ blockdev-add {"driver": "file", "node-name": "raw", "filename": "disk.raw"}
+ blockdev-add {"driver": "qcow2", "node-name": "disk", "file": {"driver": "file", "filename": "disk.qcow2"}}
- blockdev-add {"driver": "compress", "node-name": "c"}
- blockdev-add {"driver": "compress", "node-name": "c", "file": "absent"}
- blockdev-add {"driver": "compress", "node-name": "c", "file": "raw"}
+ blockdev-add {"driver": "compress", "node-name": "c", "file": "disk"}
+ query-named-block-nodes {"flat": true}
. write c 0 131072 7
. io c write -P 8 4096 512
. io c read -P 7 8192 122880
. write c 196608 65536 9
+ block_resize {"node-name": "c", "size": 2097152}
- blockdev-reopen {"options": [{"driver": "compress", "node-name": "c", "file": "disk"}]}
- blockdev-del {"node-name": "disk"}
- blockdev-add {"driver": "compress", "node-name": "above", "file": "c"}
+ blockdev-del {"node-name": "c"}
""",
    files=_images,
)
GROUPS = [
    Group(
        "sizes-of-their-own",
        r"""
+ object-add {"qom-type": "throttle-group", "id": "tg"}
+ blockdev-add {"driver": "qcow2", "node-name": "q", "file": {"driver": "file", "filename": "s.qcow2"}}
+ blockdev-add {"driver": "throttle", "node-name": "t", "file": "q", "throttle-group": "tg"}
+ blockdev-add {"driver": "compress", "node-name": "c", "file": "t"}
+ blockdev-add {"driver": "blkdebug", "node-name": "b", "image": "q"}
+ blockdev-add {"driver": "raw", "node-name": "r", "file": "b"}
. write q 0 1048576 7
+ block_resize {"node-name": "q", "size": 2097152}
+ query-named-block-nodes {"flat": true}
. io t read 1M 512
+ block_resize {"node-name": "q", "size": 131072}
+ query-named-block-nodes {"flat": true}
. io t read -P 7 0 128k
+ block_resize {"node-name": "q", "size": 4194304}
. io t read 2M 512
+ block_resize {"node-name": "r", "size": 3145728}
. io r read -P 0 2M 512
+ query-named-block-nodes {"flat": true}
+ blockdev-add {"driver": "file", "node-name": "f", "filename": "s.raw"}
+ blockdev-create {"job-id": "j", "options": {"driver": "file", "filename": "s.raw", "size": 65536}}
. wait j concluded
+ query-named-block-nodes {"flat": true}
. io f read -P 0 64k 512
+ block_resize {"node-name": "f", "size": 131072}
+ query-named-block-nodes {"flat": true}
""",
        files=disks_to_resize,
    ),
    THROTTLE,
    DRIVES,
    COMPRESSING,
]
