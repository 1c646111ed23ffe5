"""Dirty bitmaps: names, granularities, states, digests."""

from compat.verdicts.drivers import qcow2_files
from compat.verdicts.table import Group

_LONG = "x" * 1023

BITMAPS = Group(
    "bitmaps",
    f"""
+ blockdev-add {{"driver": "qcow2", "node-name": "q", "file": {{"driver": "file", "filename": "a.qcow2"}}}}
+ blockdev-add {{"driver": "qcow2", "node-name": "old", "file": {{"driver": "file", "filename": "old.qcow2"}}}}
+ blockdev-add {{"driver": "null-co", "node-name": "n", "size": 1000}}
+ blockdev-add {{"driver": "null-co", "node-name": "z", "size": 0}}
+ blockdev-add {{"driver": "null-co", "node-name": "ro", "read-only": true}}
+ block-dirty-bitmap-add {{"node": "q", "name": "b"}}
- block-dirty-bitmap-add {{"node": "q", "name": "b"}}
- block-dirty-bitmap-add {{"node": "q"}}
- block-dirty-bitmap-add {{"name": "b"}}
- block-dirty-bitmap-add {{"node": "absent", "name": "b"}}
- block-dirty-bitmap-add {{"node": "q", "name": ""}}
- block-dirty-bitmap-add {{"node": "q", "name": 1}}
- block-dirty-bitmap-add {{"node": "q", "name": "g", "granularity": 0}}
- block-dirty-bitmap-add {{"node": "q", "name": "g", "granularity": 3}}
- block-dirty-bitmap-add {{"node": "q", "name": "g", "granularity": 256}}
- block-dirty-bitmap-add {{"node": "q", "name": "g", "granularity": -1}}
- block-dirty-bitmap-add {{"node": "q", "name": "g", "granularity": 4294967296}}
- block-dirty-bitmap-add {{"node": "q", "name": "g", "granularity": "64k"}}
+ block-dirty-bitmap-add {{"node": "q", "name": "g512", "granularity": 512}}
+ block-dirty-bitmap-add {{"node": "q", "name": "g2g", "granularity": 2147483648}}
- block-dirty-bitmap-add {{"node": "q", "name": "p", "persistent": 1}}
- block-dirty-bitmap-add {{"node": "n", "name": "p", "persistent": true}}
+ block-dirty-bitmap-add {{"node": "n", "name": "p", "persistent": false, "disabled": true}}
- block-dirty-bitmap-add {{"node": "old", "name": "p", "persistent": true}}
- block-dirty-bitmap-add {{"node": "q", "name": "b", "persistent": true}}
- block-dirty-bitmap-add {{"node": "q", "name": "{_LONG}y", "persistent": true}}
+ block-dirty-bitmap-add {{"node": "q", "name": "stored", "persistent": true, "disabled": true}}
- block-dirty-bitmap-add {{"node": "q", "name": "stored"}}
+ block-dirty-bitmap-merge {{"node": "q", "target": "stored", "bitmaps": ["b", "stored", {{"node": "q", "name": "b"}}]}}
+ block-dirty-bitmap-remove {{"node": "q", "name": "stored"}}
- block-dirty-bitmap-remove {{"node": "q", "name": "stored"}}
+ block-dirty-bitmap-add {{"node": "z", "name": "p"}}
+ block-dirty-bitmap-add {{"node": "ro", "name": "p"}}
- block-dirty-bitmap-add {{"node": "q", "name": "d", "autoload": true}}
- block-dirty-bitmap-add {{"node": "q", "name": "d", "disabled": "no"}}
+ block-dirty-bitmap-add {{"node": "q", "name": "d", "disabled": true}}
+ block-dirty-bitmap-add {{"node": "q", "name": "{_LONG}"}}
- block-dirty-bitmap-add {{"node": "n", "name": "{_LONG}y"}}
- block-dirty-bitmap-clear {{"node": "q", "name": "absent"}}
- block-dirty-bitmap-clear {{"node": "absent", "name": "b"}}
- block-dirty-bitmap-clear {{"node": "q"}}
+ block-dirty-bitmap-clear {{"node": "q", "name": "b"}}
+ block-dirty-bitmap-clear {{"node": "q", "name": "d"}}
- block-dirty-bitmap-remove {{"node": "q", "name": "absent"}}
- block-dirty-bitmap-remove {{"node": "absent", "name": "b"}}
- block-dirty-bitmap-remove {{"node": "q", "name": ""}}
- block-dirty-bitmap-remove {{"node": 1, "name": "b"}}
+ query-named-block-nodes {{"flat": true}}
+ x-debug-block-dirty-bitmap-sha256 {{"node": "q", "name": "b"}}
+ x-debug-block-dirty-bitmap-sha256 {{"node": "q", "name": "g2g"}}
+ x-debug-block-dirty-bitmap-sha256 {{"node": "n", "name": "p"}}
+ x-debug-block-dirty-bitmap-sha256 {{"node": "z", "name": "p"}}
- x-debug-block-dirty-bitmap-sha256 {{"node": "q", "name": "absent"}}
- x-debug-block-dirty-bitmap-sha256 {{"node": "absent", "name": "b"}}
. write q 65536 1000 7
. write q 300000 1 7
+ x-debug-block-dirty-bitmap-sha256 {{"node": "q", "name": "b"}}
+ x-debug-block-dirty-bitmap-sha256 {{"node": "q", "name": "g512"}}
+ x-debug-block-dirty-bitmap-sha256 {{"node": "q", "name": "g2g"}}
+ x-debug-block-dirty-bitmap-sha256 {{"node": "q", "name": "d"}}
+ query-named-block-nodes {{"flat": true}}
+ block-dirty-bitmap-clear {{"node": "q", "name": "g512"}}
. write q 1048064 512 7
+ x-debug-block-dirty-bitmap-sha256 {{"node": "q", "name": "g512"}}
+ block_resize {{"node-name": "q", "size": 3145728}}
+ x-debug-block-dirty-bitmap-sha256 {{"node": "q", "name": "g512"}}
- block_resize {{"node-name": "n", "size": 1000}}
+ block_resize {{"node-name": "q", "size": 131072}}
+ block_resize {{"node-name": "q", "size": 65536}}
+ query-named-block-nodes {{"flat": true}}
+ x-debug-block-dirty-bitmap-sha256 {{"node": "q", "name": "b"}}
+ block-dirty-bitmap-remove {{"node": "q", "name": "b"}}
- block-dirty-bitmap-remove {{"node": "q", "name": "b"}}
+ blockdev-del {{"node-name": "z"}}
- block-dirty-bitmap-add {{"node": "z", "name": "p"}}
""",
    files=qcow2_files,
)

ENABLE_AND_MERGE = Group(
    "bitmap-states",
    """
+ blockdev-add {"driver": "qcow2", "node-name": "q", "file": {"driver": "file", "filename": "a.qcow2"}}
+ blockdev-add {"driver": "null-co", "node-name": "n", "size": 1048576}
+ blockdev-add {"driver": "null-co", "node-name": "small", "size": 65536}
+ block-dirty-bitmap-add {"node": "q", "name": "a"}
+ block-dirty-bitmap-add {"node": "q", "name": "b", "granularity": 512}
+ block-dirty-bitmap-add {"node": "n", "name": "c", "granularity": 1048576}
+ block-dirty-bitmap-add {"node": "small", "name": "s"}
. write q 65536 1000 7
+ block-dirty-bitmap-disable {"node": "q", "name": "a"}
+ block-dirty-bitmap-disable {"node": "q", "name": "a"}
. write q 524288 1000 7
+ query-named-block-nodes {"flat": true}
+ block-dirty-bitmap-enable {"node": "q", "name": "a"}
+ block-dirty-bitmap-enable {"node": "q", "name": "a"}
- block-dirty-bitmap-enable {"node": "q", "name": "absent"}
- block-dirty-bitmap-disable {"node": "absent", "name": "a"}
+ block-dirty-bitmap-merge {"node": "q", "target": "a", "bitmaps": ["b"]}
+ x-debug-block-dirty-bitmap-sha256 {"node": "q", "name": "a"}
+ block-dirty-bitmap-merge {"node": "n", "target": "c", "bitmaps": [{"node": "q", "name": "b"}]}
+ x-debug-block-dirty-bitmap-sha256 {"node": "n", "name": "c"}
+ block-dirty-bitmap-merge {"node": "q", "target": "b", "bitmaps": [{"node": "n", "name": "c"}]}
+ x-debug-block-dirty-bitmap-sha256 {"node": "q", "name": "b"}
+ block-dirty-bitmap-merge {"node": "q", "target": "a", "bitmaps": ["a"]}
- block-dirty-bitmap-merge {"node": "q", "target": "a", "bitmaps": ["absent"]}
- block-dirty-bitmap-merge {"node": "q", "target": "absent", "bitmaps": ["a"]}
- block-dirty-bitmap-merge {"node": "q", "target": "a", "bitmaps": [{"node": "absent", "name": "b"}]}
- block-dirty-bitmap-merge {"node": "q", "target": "a", "bitmaps": [{"node": "small", "name": "s"}]}
- block-dirty-bitmap-merge {"node": "q", "target": "a", "bitmaps": [1]}
- block-dirty-bitmap-merge {"node": "q", "target": "a", "bitmaps": [{"node": "q"}]}
- block-dirty-bitmap-merge {"node": "q", "target": "a", "bitmaps": "b"}
- block-dirty-bitmap-merge {"node": "q", "target": "a"}
+ query-named-block-nodes {"flat": true}
""",
    files=qcow2_files,
)

GROUPS = [BITMAPS, ENABLE_AND_MERGE]
