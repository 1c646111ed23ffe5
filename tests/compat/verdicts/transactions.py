"""Transactions and external snapshots: what is refused, and that nothing of it stays."""

from compat.verdicts.drivers import qcow2_files
from compat.verdicts.table import Group

_OPEN = """
+ blockdev-add {"driver": "qcow2", "node-name": "a", "file": {"driver": "file", "filename": "a.qcow2"}}
+ blockdev-add {"driver": "null-co", "node-name": "n", "size": 1048576}
+ blockdev-add {"driver": "null-co", "node-name": "t", "size": 1048576}
+ blockdev-add {"driver": "null-co", "node-name": "short", "size": 65536}
"""

BITMAP_ACTIONS = Group(
    "transaction: bitmaps",
    _OPEN
    + """
+ transaction {"actions": []}
- transaction {}
- transaction {"actions": {}}
- transaction {"actions": [{}]}
- transaction {"actions": [{"type": "x", "data": {}}]}
- transaction {"actions": [{"type": "abort"}]}
- transaction {"actions": [{"type": "abort", "data": {"x": 1}}]}
- transaction {"actions": [{"type": "abort", "data": {}}]}
- transaction {"actions": [{"type": "abort", "data": {}}], "properties": {"completion-mode": "grouped"}}
+ transaction {"actions": [], "properties": {"completion-mode": "grouped"}}
- transaction {"actions": [], "properties": {"completion-mode": "both"}}
- transaction {"actions": [], "properties": {"x": 1}}
+ transaction {"actions": [{"type": "block-dirty-bitmap-add", "data": {"node": "n", "name": "b0"}}, {"type": "block-dirty-bitmap-add", "data": {"node": "n", "name": "b1", "disabled": true}}]}
- transaction {"actions": [{"type": "block-dirty-bitmap-add", "data": {"node": "n", "name": "b2"}}, {"type": "block-dirty-bitmap-add", "data": {"node": "n", "name": "b0"}}]}
- transaction {"actions": [{"type": "block-dirty-bitmap-add", "data": {"node": "n", "name": "b2"}}, {"type": "abort", "data": {}}]}
- transaction {"actions": [{"type": "block-dirty-bitmap-add", "data": {"node": "n", "name": "b2"}}], "properties": {"completion-mode": "grouped"}}
- transaction {"actions": [{"type": "block-dirty-bitmap-clear", "data": {"node": "n", "name": "b2"}}], "properties": {"completion-mode": "grouped"}}
+ query-named-block-nodes {"flat": true}
. write n 0 65536 1
. write n 300000 1 1
+ x-debug-block-dirty-bitmap-sha256 {"node": "n", "name": "b0"}
- transaction {"actions": [{"type": "block-dirty-bitmap-clear", "data": {"node": "n", "name": "b0"}}, {"type": "block-dirty-bitmap-disable", "data": {"node": "n", "name": "b0"}}, {"type": "block-dirty-bitmap-enable", "data": {"node": "n", "name": "b1"}}, {"type": "block-dirty-bitmap-merge", "data": {"node": "n", "target": "b1", "bitmaps": ["b0"]}}, {"type": "block-dirty-bitmap-remove", "data": {"node": "n", "name": "b1"}}, {"type": "abort", "data": {}}]}
+ query-named-block-nodes {"flat": true}
+ x-debug-block-dirty-bitmap-sha256 {"node": "n", "name": "b0"}
+ x-debug-block-dirty-bitmap-sha256 {"node": "n", "name": "b1"}
- transaction {"actions": [{"type": "block-dirty-bitmap-merge", "data": {"node": "n", "target": "b1", "bitmaps": ["b0", "absent"]}}]}
- transaction {"actions": [{"type": "block-dirty-bitmap-merge", "data": {"node": "n", "target": "absent", "bitmaps": ["b0"]}}]}
- transaction {"actions": [{"type": "block-dirty-bitmap-remove", "data": {"node": "n", "name": "b0"}}, {"type": "block-dirty-bitmap-clear", "data": {"node": "n", "name": "b0"}}]}
- transaction {"actions": [{"type": "block-dirty-bitmap-disable", "data": {"node": "n", "name": "absent"}}]}
- transaction {"actions": [{"type": "block-dirty-bitmap-clear", "data": {"node": "n"}}]}
+ transaction {"actions": [{"type": "block-dirty-bitmap-merge", "data": {"node": "n", "target": "b1", "bitmaps": ["b0", {"node": "n", "name": "b0"}]}}, {"type": "block-dirty-bitmap-clear", "data": {"node": "n", "name": "b0"}}, {"type": "block-dirty-bitmap-disable", "data": {"node": "n", "name": "b0"}}]}
+ query-named-block-nodes {"flat": true}
+ x-debug-block-dirty-bitmap-sha256 {"node": "n", "name": "b1"}
+ transaction {"actions": [{"type": "block-dirty-bitmap-remove", "data": {"node": "n", "name": "b0"}}, {"type": "block-dirty-bitmap-enable", "data": {"node": "n", "name": "b1"}}]}
+ query-named-block-nodes {"flat": true}
""",
    qcow2_files,
)

BACKUP_ACTIONS = Group(
    "transaction: backups",
    _OPEN
    + """
- transaction {"actions": [{"type": "blockdev-backup", "data": {"job-id": "j", "device": "n", "target": "absent", "sync": "full"}}]}
- transaction {"actions": [{"type": "blockdev-backup", "data": {"job-id": "j", "device": "n", "target": "short", "sync": "full"}}]}
- transaction {"actions": [{"type": "block-dirty-bitmap-add", "data": {"node": "n", "name": "b"}}, {"type": "blockdev-backup", "data": {"job-id": "j", "device": "n", "target": "short", "sync": "full"}}]}
- transaction {"actions": [{"type": "blockdev-backup", "data": {"job-id": "j", "device": "n", "target": "t", "sync": "full"}}, {"type": "abort", "data": {}}]}
- transaction {"actions": [{"type": "blockdev-backup", "data": {"job-id": "j", "device": "n", "target": "t", "sync": "full"}}, {"type": "abort", "data": {}}], "properties": {"completion-mode": "grouped"}}
- transaction {"actions": [{"type": "blockdev-backup", "data": {"job-id": "j", "device": "n", "target": "t", "sync": "full"}}, {"type": "blockdev-backup", "data": {"job-id": "j", "device": "a", "target": "t", "sync": "full"}}]}
- transaction {"actions": [{"type": "blockdev-backup", "data": {"job-id": "j", "device": "n", "target": "t", "sync": "full"}}, {"type": "blockdev-backup", "data": {"job-id": "k", "device": "a", "target": "short", "sync": "full"}}], "properties": {"completion-mode": "grouped"}}
+ query-jobs
+ query-named-block-nodes {"flat": true}
+ transaction {"actions": [{"type": "block-dirty-bitmap-add", "data": {"node": "n", "name": "b"}}, {"type": "blockdev-backup", "data": {"job-id": "j", "device": "n", "target": "t", "sync": "full"}}]}
. wait j null
+ query-named-block-nodes {"flat": true}
""",
    qcow2_files,
)

SNAPSHOTS = Group(
    "external snapshots",
    _OPEN
    + """
+ blockdev-add {"driver": "qcow2", "node-name": "over", "backing": null, "file": {"driver": "file", "filename": "b.qcow2"}}
+ blockdev-add {"driver": "qcow2", "node-name": "backed", "file": {"driver": "file", "filename": "r.qcow2"}}
+ blockdev-add {"driver": "raw", "node-name": "raw", "file": "n"}
- blockdev-snapshot {}
- blockdev-snapshot {"node": "absent", "overlay": "over"}
- blockdev-snapshot {"node": "a", "overlay": "absent"}
- blockdev-snapshot {"node": "a", "overlay": "a"}
- blockdev-snapshot {"node": "a", "overlay": "n"}
- blockdev-snapshot {"node": "a", "overlay": "t"}
- blockdev-snapshot {"node": "a", "overlay": "raw"}
- blockdev-snapshot {"node": "a", "overlay": "backed"}
- blockdev-snapshot {"node": "a", "overlay": 1}
- transaction {"actions": [{"type": "blockdev-snapshot", "data": {"node": "a", "overlay": "over"}}], "properties": {"completion-mode": "grouped"}}
+ query-named-block-nodes {"flat": true}
- transaction {"actions": [{"type": "blockdev-snapshot", "data": {"node": "a", "overlay": "over"}}, {"type": "abort", "data": {}}]}
+ query-named-block-nodes {"flat": true}
+ blockdev-snapshot {"node": "a", "overlay": "over"}
+ query-named-block-nodes {"flat": true}
+ query-named-block-nodes
+ x-debug-query-block-graph
- blockdev-snapshot {"node": "a", "overlay": "over"}
- blockdev-del {"node-name": "a"}
. write over 0 65536 1
+ blockdev-del {"node-name": "over"}
+ blockdev-del {"node-name": "a"}
""",
    qcow2_files,
)

SNAPSHOT_FILES = Group(
    "snapshots into files",
    _OPEN
    + """
+ blockdev-add {"driver": "raw", "node-name": "user", "file": "a"}
- blockdev-snapshot-sync {}
- blockdev-snapshot-sync {"snapshot-file": "s1.qcow2"}
- blockdev-snapshot-sync {"device": "absent", "snapshot-file": "s1.qcow2"}
- blockdev-snapshot-sync {"node-name": "absent", "snapshot-file": "s1.qcow2"}
- blockdev-snapshot-sync {"node-name": "a", "snapshot-file": "s1.qcow2"}
- blockdev-snapshot-sync {"node-name": "a", "snapshot-file": "s1.qcow2", "snapshot-node-name": "n"}
- blockdev-snapshot-sync {"node-name": "a", "snapshot-file": "s1.qcow2", "snapshot-node-name": "1bad"}
- blockdev-snapshot-sync {"node-name": "a", "snapshot-file": "s1.x", "snapshot-node-name": "s1", "format": "nope"}
- blockdev-snapshot-sync {"node-name": "a", "snapshot-file": "s1.x", "snapshot-node-name": "s1", "format": "raw"}
- blockdev-snapshot-sync {"node-name": "a", "snapshot-file": "s1.x", "snapshot-node-name": "s1", "mode": "existing", "format": "qcow2"}
- blockdev-snapshot-sync {"node-name": "a", "snapshot-file": "nowhere/s1", "snapshot-node-name": "s1"}
- blockdev-snapshot-sync {"node-name": "a", "snapshot-file": "s1", "snapshot-node-name": "s1", "mode": "new"}
- blockdev-snapshot-sync {"node-name": "a", "snapshot-file": "", "snapshot-node-name": "s1"}
- transaction {"actions": [{"type": "blockdev-snapshot-sync", "data": {"node-name": "a", "snapshot-file": "s1.qcow2", "snapshot-node-name": "s1"}}, {"type": "abort", "data": {}}]}
+ query-named-block-nodes {"flat": true}
+ blockdev-snapshot-sync {"node-name": "a", "snapshot-file": "s1.qcow2", "snapshot-node-name": "s1"}
+ query-named-block-nodes {"flat": true}
+ query-named-block-nodes
+ blockdev-snapshot-sync {"node-name": "s1", "snapshot-file": "b.qcow2", "snapshot-node-name": "s2", "mode": "existing"}
+ query-named-block-nodes
+ x-debug-query-block-graph
. write user 0 65536 1
- blockdev-del {"node-name": "a"}
+ blockdev-del {"node-name": "user"}
+ blockdev-del {"node-name": "a"}
+ query-named-block-nodes
""",
    qcow2_files,
)

GROUPS = [BITMAP_ACTIONS, BACKUP_ACTIONS, SNAPSHOTS, SNAPSHOT_FILES]
