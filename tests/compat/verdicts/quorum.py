"""Nodes with several data children: quorum and blkverify."""

from pathlib import Path

from compat.verdicts.table import Group


def _disks(folder: Path) -> None:
    for name, pattern in (("a", 1), ("b", 1), ("c", 2), ("d", 1)):
        (folder / f"{name}.raw").write_bytes(bytes([pattern]) * (1 << 20))
    (folder / "long.raw").write_bytes(bytes([1]) * (2 << 20))


_THREE = """
+ blockdev-add {"driver": "file", "node-name": "a", "filename": "a.raw"}
+ blockdev-add {"driver": "file", "node-name": "b", "filename": "b.raw"}
+ blockdev-add {"driver": "file", "node-name": "c", "filename": "c.raw"}
"""
_MORE = """
+ blockdev-add {"driver": "file", "node-name": "d", "filename": "d.raw"}
+ blockdev-add {"driver": "file", "node-name": "long", "filename": "long.raw"}
"""
QUORUM = Group(
    "quorum",
    _THREE
    + _MORE
    + r"""
- blockdev-add {"driver": "quorum", "node-name": "q", "vote-threshold": 1}
- blockdev-add {"driver": "quorum", "node-name": "q", "children": ["a"]}
- blockdev-add {"driver": "quorum", "node-name": "q", "children": [], "vote-threshold": 1}
- blockdev-add {"driver": "quorum", "node-name": "q", "children": "a", "vote-threshold": 1}
- blockdev-add {"driver": "quorum", "node-name": "q", "children": [null], "vote-threshold": 1}
- blockdev-add {"driver": "quorum", "node-name": "q", "children": ["a", {"driver": "file"}], "vote-threshold": 1}
- blockdev-add {"driver": "quorum", "node-name": "q", "children": ["a"], "vote-threshold": 0}
- blockdev-add {"driver": "quorum", "node-name": "q", "children": ["a"], "vote-threshold": -1}
- blockdev-add {"driver": "quorum", "node-name": "q", "children": ["a", "b"], "vote-threshold": 3}
- blockdev-add {"driver": "quorum", "node-name": "q", "children": ["a", "absent"], "vote-threshold": 1}
- blockdev-add {"driver": "quorum", "node-name": "q", "children": ["a", "long"], "vote-threshold": 1}
- blockdev-add {"driver": "quorum", "node-name": "q", "children": ["a", "a"], "vote-threshold": "1"}
- blockdev-add {"driver": "quorum", "node-name": "q", "children": ["a", "b"], "vote-threshold": 1, "blkverify": true}
- blockdev-add {"driver": "quorum", "node-name": "q", "children": ["a", "b", "d"], "vote-threshold": 2, "blkverify": true}
- blockdev-add {"driver": "quorum", "node-name": "q", "children": ["a", "b"], "vote-threshold": 2, "blkverify": true, "rewrite-corrupted": true}
- blockdev-add {"driver": "quorum", "node-name": "q", "children": ["a", "b"], "vote-threshold": 2, "read-pattern": "lifo"}
- blockdev-add {"driver": "quorum", "node-name": "q", "children": ["a", "b"], "vote-threshold": 2, "file": "a"}
+ blockdev-add {"driver": "quorum", "node-name": "q", "children": ["a", "b", "c"], "vote-threshold": 2}
+ query-named-block-nodes {"flat": true}
. io q read -P 1 0 512
- blockdev-add {"driver": "qcow2", "node-name": "r", "file": "a"}
- blockdev-del {"node-name": "a"}
- block_resize {"node-name": "q", "size": 2097152}
- blockdev-reopen {"options": [{"driver": "quorum", "node-name": "q", "children": ["a", "b", "c"], "vote-threshold": 1}]}
- x-blockdev-change {"parent": "q"}
- x-blockdev-change {"parent": "q", "child": "children.0", "node": "d"}
- x-blockdev-change {"parent": "absent", "node": "d"}
- x-blockdev-change {"parent": "q", "node": "absent"}
- x-blockdev-change {"parent": "q", "node": "a"}
- x-blockdev-change {"parent": "q", "child": "children.3"}
- x-blockdev-change {"parent": "q", "child": "a"}
- x-blockdev-change {"parent": "d", "node": "long"}
- x-blockdev-change {"parent": "q", "node": "q"}
+ x-blockdev-change {"parent": "q", "node": "d"}
+ x-blockdev-change {"parent": "q", "child": "children.0"}
+ query-named-block-nodes {"flat": true}
+ x-blockdev-change {"parent": "q", "node": "a"}
+ x-debug-query-block-graph
+ x-blockdev-change {"parent": "q", "child": "children.4"}
+ x-blockdev-change {"parent": "q", "child": "children.2"}
- x-blockdev-change {"parent": "q", "child": "children.1"}
+ query-named-block-nodes {"flat": true}
+ x-blockdev-change {"parent": "q", "node": "c"}
+ x-debug-query-block-graph
+ blockdev-del {"node-name": "q"}
+ blockdev-add {"driver": "quorum", "node-name": "q", "children": ["a", "b"], "vote-threshold": 2, "blkverify": true, "read-only": true}
- x-blockdev-change {"parent": "q", "node": "d"}
- x-blockdev-change {"parent": "q", "child": "children.0"}
. io q read -P 1 0 1M
+ blockdev-del {"node-name": "q"}
+ blockdev-add {"driver": "quorum", "node-name": "q", "children": ["a", {"driver": "raw", "node-name": "inner", "file": {"driver": "file", "filename": "d.raw", "locking": "off"}}], "vote-threshold": 1, "read-pattern": "fifo"}
. write q 0 65536 9
. io q read -P 9 0 65536
. io d read -P 9 0 65536
- blockdev-del {"node-name": "inner"}
+ x-blockdev-change {"parent": "q", "child": "children.1"}
- blockdev-del {"node-name": "inner"}
+ blockdev-del {"node-name": "q"}
+ blockdev-del {"node-name": "a"}
""",
    files=_disks,
)
MIRRORED = Group(
    "quorum-mirror",
    _THREE
    + _MORE
    + r"""
+ blockdev-add {"driver": "quorum", "node-name": "q", "children": ["a", "b", "c"], "vote-threshold": 2}
- blockdev-mirror {"job-id": "j", "device": "q", "target": "d", "sync": "full", "replaces": "absent"}
- blockdev-mirror {"job-id": "j", "device": "q", "target": "d", "sync": "full", "replaces": "long"}
+ blockdev-mirror {"job-id": "j", "device": "q", "target": "d", "sync": "full", "replaces": "c", "filter-node-name": "m"}
. wait j ready
+ query-block-jobs
+ block-job-complete {"device": "j"}
. wait j null
+ x-debug-query-block-graph
. io q read -P 1 0 1M
. io d read -P 1 0 1M
. io c read -P 2 0 1M
+ query-named-block-nodes {"flat": true}
""",
    files=_disks,
)
VERIFY = Group(
    "blkverify",
    _THREE
    + r"""
- blockdev-add {"driver": "blkverify", "node-name": "v", "raw": "a"}
- blockdev-add {"driver": "blkverify", "node-name": "v", "test": "a"}
- blockdev-add {"driver": "blkverify", "node-name": "v", "test": "a", "raw": "absent"}
- blockdev-add {"driver": "blkverify", "node-name": "v", "test": "absent", "raw": "a"}
- blockdev-add {"driver": "blkverify", "node-name": "v", "test": "a", "raw": "b", "image": "c"}
+ blockdev-add {"driver": "blkverify", "node-name": "v", "test": "a", "raw": "b"}
+ query-named-block-nodes {"flat": true}
. write v 4096 65536 7
. io v read -P 7 4096 65536
. io a read -P 7 4096 65536
. io b read -P 7 4096 65536
- blockdev-reopen {"options": [{"driver": "blkverify", "node-name": "v", "test": "a", "raw": "b"}]}
+ block_resize {"node-name": "v", "size": 1048576}
- blockdev-del {"node-name": "b"}
+ x-debug-query-block-graph
+ blockdev-del {"node-name": "v"}
""",
    files=_disks,
)


def _failing(name: str, event: str, kind: str, threshold: int, request: str) -> Group:
    """Make one of three children fail at one kind of request.

    Events of one node, or of failure, come once a second only: each group has one of each.
    """
    bad = (
        '{"driver": "raw", "node-name": "bad", "file": {"driver": "blkdebug", "image": "c", '
        f'"inject-error": [{{"event": "{event}", "iotype": "{kind}", "errno": 28}}]}}}}'
    )
    return Group(
        f"quorum-{name}",
        f"""
+ blockdev-add {{"driver": "file", "node-name": "a", "filename": "a.raw"}}
+ blockdev-add {{"driver": "file", "node-name": "b", "filename": "b.raw"}}
+ blockdev-add {{"driver": "file", "node-name": "c", "filename": "d.raw"}}
+ blockdev-add {{"driver": "quorum", "node-name": "q", "children": ["a", "b", {bad}], "vote-threshold": {threshold}}}
. io q {request}
+ blockdev-del {{"node-name": "q"}}
""",
        files=_disks,
    )


ERRORS = [
    _failing("read-error", "read_aio", "read", 2, "read 4096 8192"),
    _failing("read-fails", "read_aio", "read", 3, "read 4096 8192"),
    _failing("write-error", "write_aio", "write", 2, "write 4096 8192"),
    _failing("write-fails", "write_aio", "write", 3, "write 4096 8192"),
    _failing("zero-fails", "pwritev_zero", "write-zeroes", 3, "write -z 0 65536"),
]
GROUPS = [QUORUM, MIRRORED, VERIFY, *ERRORS]
