"""Children, permissions, locks, deletion, reopening, resizing: what the node graph refuses."""

from pathlib import Path

from compat.daemon import image
from compat.verdicts.drivers import qcow2_files
from compat.verdicts.table import Group


def overlay(folder: Path, name: str, backing: str, backing_format: str, size: str = "1M") -> None:
    """Make an image that names *backing*, whatever that is."""
    made = folder / "made.qcow2"
    image(
        "create",
        "-f",
        "qcow2",
        "-u",
        "-b",
        backing,
        "-F",
        backing_format,
        made.name,
        size,
        cwd=folder,
    )
    made.rename(folder / name)


def probing_files(folder: Path) -> None:
    qcow2_files(folder)
    nested = '{"driver":"qcow2","file":{"driver":"file","filename":"a.qcow2"}}'
    overlay(folder, "json.qcow2", 'json:{"driver":"null-co","size":65536}', "raw", "64k")
    overlay(folder, "json2.qcow2", f"json:{nested}", "qcow2")
    overlay(folder, "json3.qcow2", 'json:{"driver":"zzz"}', "raw")
    overlay(folder, "json4.qcow2", "json:{", "raw")
    overlay(folder, "proto.qcow2", "zzz://host/x", "raw")
    overlay(folder, "file.qcow2", "file:a.qcow2", "qcow2")
    overlay(folder, "asraw.qcow2", "a.qcow2", "raw")
    overlay(folder, "asqcow2.qcow2", "a.raw", "qcow2")
    overlay(folder, "self.qcow2", "self.qcow2", "qcow2")
    overlay(folder, "loop1.qcow2", "loop2.qcow2", "qcow2")
    overlay(folder, "loop2.qcow2", "loop1.qcow2", "qcow2")
    image("create", "-f", "qcow2", "small.qcow2", "64k", cwd=folder)
    overlay(folder, "big.qcow2", "small.qcow2", "qcow2")


BACKING_NAMES = Group(
    "backing-names",
    r"""
- blockdev-add {"driver": "qcow2", "node-name": "j1", "file": {"driver": "file", "filename": "json.qcow2"}}
+ blockdev-add {"driver": "qcow2", "node-name": "j2", "file": {"driver": "file", "filename": "json2.qcow2"}}
- blockdev-add {"driver": "qcow2", "node-name": "x", "file": {"driver": "file", "filename": "json3.qcow2"}}
- blockdev-add {"driver": "qcow2", "node-name": "x", "file": {"driver": "file", "filename": "json4.qcow2"}}
- blockdev-add {"driver": "qcow2", "node-name": "x", "file": {"driver": "file", "filename": "proto.qcow2"}}
+ blockdev-add {"driver": "qcow2", "node-name": "f", "file": {"driver": "file", "filename": "file.qcow2"}}
+ blockdev-add {"driver": "qcow2", "node-name": "raw", "file": {"driver": "file", "filename": "asraw.qcow2"}}
- blockdev-add {"driver": "qcow2", "node-name": "x", "file": {"driver": "file", "filename": "asqcow2.qcow2"}}
- blockdev-add {"driver": "qcow2", "node-name": "x", "file": {"driver": "file", "filename": "self.qcow2"}}
- blockdev-add {"driver": "qcow2", "node-name": "x", "file": {"driver": "file", "filename": "loop1.qcow2"}}
+ blockdev-add {"driver": "qcow2", "node-name": "loop", "file": {"driver": "file", "filename": "loop1.qcow2"}, "backing": null}
+ blockdev-add {"driver": "qcow2", "node-name": "big", "file": {"driver": "file", "filename": "big.qcow2"}}
- blockdev-add {"driver": "qcow2", "node-name": "x", "file": {"driver": "file", "filename": "b.qcow2"}, "backing": {"driver": "null-co", "size": 1048576}}
- blockdev-add {"driver": "qcow2", "node-name": "x", "file": {"driver": "file", "filename": "b.qcow2"}, "backing": {"driver": "raw", "file": {"driver": "null-co", "size": 1048576}}}
- blockdev-add {"driver": "qcow2", "node-name": "x", "file": {"driver": "file", "filename": "r.qcow2"}, "backing": {"driver": "file", "filename": "odd.raw"}}
+ blockdev-add {"driver": "qcow2", "node-name": "over2", "file": {"driver": "file", "filename": "r.qcow2"}, "backing": {"driver": "raw", "node-name": "nf", "file": {"driver": "file", "filename": "odd.raw"}}}
+ blockdev-add {"driver": "null-co", "node-name": "nb", "size": 1048576}
+ blockdev-add {"driver": "qcow2", "node-name": "over", "file": {"driver": "file", "filename": "b.qcow2"}, "backing": "nb"}
+ blockdev-add {"driver": "qcow2", "node-name": "top", "file": {"driver": "file", "filename": "c.qcow2"}, "backing": "over"}
+ query-named-block-nodes
+ query-named-block-nodes {"flat": true}
+ x-debug-query-block-graph
- blockdev-del {"node-name": "nb"}
- blockdev-del {"node-name": "over"}
+ blockdev-del {"node-name": "top"}
+ blockdev-del {"node-name": "over"}
+ blockdev-del {"node-name": "nb"}
- blockdev-del {"node-name": "nf"}
""",
    files=probing_files,
)

CHILDREN = Group(
    "children",
    r"""
+ blockdev-add {"driver": "file", "node-name": "fa", "filename": "a.qcow2"}
+ blockdev-add {"driver": "qcow2", "node-name": "a", "file": "fa"}
- blockdev-add {"driver": "qcow2", "node-name": "x", "file": "fa"}
- blockdev-add {"driver": "qcow2", "node-name": "x", "file": "fa", "read-only": true}
+ blockdev-add {"driver": "raw", "node-name": "ra", "file": "fa", "read-only": true}
+ blockdev-add {"driver": "raw", "node-name": "ra2", "file": "a"}
- blockdev-add {"driver": "qcow2", "node-name": "b", "file": {"driver": "file", "filename": "b.qcow2"}, "backing": "zzz"}
+ blockdev-add {"driver": "qcow2", "node-name": "b", "file": {"driver": "file", "filename": "b.qcow2", "node-name": "fb"}, "backing": "a"}
- blockdev-add {"driver": "qcow2", "node-name": "x", "file": {"driver": "file", "filename": "c.qcow2"}, "backing": "x"}
+ blockdev-add {"driver": "qcow2", "node-name": "c", "file": {"driver": "file", "filename": "c.qcow2"}, "backing": "b"}
- blockdev-del {"node-name": "a"}
- blockdev-del {"node-name": "fa"}
- blockdev-del {"node-name": "fb"}
- blockdev-del {"node-name": "b"}
- blockdev-del {"node-name": "absent"}
- blockdev-del {"node-name": ""}
- blockdev-del {"node-name": 1}
- blockdev-del {}
- blockdev-del {"device": "c"}
- blockdev-del {"node-name": "c", "force": true}
+ blockdev-del {"node-name": "c"}
- blockdev-del {"node-name": "c"}
+ blockdev-del {"node-name": "b"}
- blockdev-del {"node-name": "fb"}
- blockdev-del {"node-name": "a"}
+ blockdev-del {"node-name": "ra2"}
+ blockdev-del {"node-name": "a"}
+ blockdev-del {"node-name": "ra"}
+ blockdev-del {"node-name": "fa"}
+ query-named-block-nodes
""",
    files=qcow2_files,
)

READ_ONLY = Group(
    "read-only",
    r"""
+ blockdev-add {"driver": "file", "node-name": "ro", "filename": "a.raw", "read-only": true}
+ blockdev-add {"driver": "raw", "node-name": "r0", "file": "ro"}
- block_resize {"node-name": "r0", "size": 1024}
+ blockdev-add {"driver": "raw", "node-name": "r1", "file": "ro", "read-only": true}
+ blockdev-add {"driver": "raw", "node-name": "r2", "file": "ro", "auto-read-only": true}
+ blockdev-add {"driver": "raw", "node-name": "r3", "file": {"driver": "file", "filename": "odd.raw"}, "read-only": true}
+ blockdev-add {"driver": "raw", "node-name": "r4", "file": {"driver": "file", "filename": "odd.raw", "read-only": true}}
+ blockdev-add {"driver": "file", "node-name": "f5", "filename": "a.qcow2", "auto-read-only": true}
+ blockdev-add {"driver": "qcow2", "node-name": "q5", "file": "f5"}
+ blockdev-add {"driver": "file", "node-name": "fo", "filename": "old.qcow2", "read-only": true}
- blockdev-add {"driver": "qcow2", "node-name": "x", "file": "fo"}
- blockdev-add {"driver": "qcow2", "node-name": "x", "file": "fo", "auto-read-only": true}
+ blockdev-add {"driver": "qcow2", "node-name": "q6", "file": "fo", "read-only": true}
- blockdev-add {"driver": "qcow2", "node-name": "x", "file": "fo", "auto-read-only": 1}
- blockdev-add {"driver": "qcow2", "node-name": "x", "file": "fo", "read-only": "yes"}
- block_resize {"node-name": "ro", "size": 1024}
- block_resize {"node-name": "q6", "size": 1024}
- block_resize {"node-name": "r1", "size": 1024}
+ block-dirty-bitmap-add {"node": "q6", "name": "t"}
+ query-named-block-nodes {"flat": true}
+ x-debug-query-block-graph
""",
    files=qcow2_files,
)

LOCKS = Group(
    "locks",
    r"""
+ blockdev-add {"driver": "qcow2", "node-name": "a", "file": {"driver": "file", "filename": "a.qcow2", "node-name": "fa"}}
- blockdev-add {"driver": "qcow2", "node-name": "x", "file": {"driver": "file", "filename": "a.qcow2"}}
- blockdev-add {"driver": "qcow2", "node-name": "x", "file": {"driver": "file", "filename": "a.qcow2"}, "read-only": true}
+ blockdev-add {"driver": "qcow2", "node-name": "s", "file": {"driver": "file", "filename": "a.qcow2"}, "read-only": true, "force-share": true}
- blockdev-add {"driver": "qcow2", "node-name": "x", "file": {"driver": "file", "filename": "a.qcow2"}, "force-share": true}
+ blockdev-add {"driver": "qcow2", "node-name": "u", "file": {"driver": "file", "filename": "a.qcow2", "locking": "off"}, "read-only": true}
+ blockdev-add {"driver": "raw", "node-name": "shared", "file": {"driver": "file", "filename": "a.qcow2", "read-only": true}, "offset": 0}
- blockdev-add {"driver": "qcow2", "node-name": "x", "file": {"driver": "file", "filename": "b.qcow2"}}
+ blockdev-add {"driver": "qcow2", "node-name": "b", "file": {"driver": "file", "filename": "b.qcow2"}, "backing": "a"}
+ blockdev-add {"driver": "file", "node-name": "p", "filename": "b.qcow2"}
+ blockdev-del {"node-name": "b"}
- blockdev-del {"node-name": "fa"}
+ blockdev-del {"node-name": "a"}
+ blockdev-add {"driver": "qcow2", "node-name": "again", "file": {"driver": "file", "filename": "a.qcow2"}}
""",
    files=qcow2_files,
)

REOPEN = Group(
    "reopen",
    r"""
+ blockdev-add {"driver": "file", "node-name": "f", "filename": "a.raw"}
+ blockdev-add {"driver": "raw", "node-name": "r", "file": "f"}
+ blockdev-add {"driver": "qcow2", "node-name": "q", "file": {"driver": "file", "filename": "b.qcow2", "node-name": "fq"}, "backing": {"driver": "qcow2", "node-name": "qb", "file": {"driver": "file", "filename": "a.qcow2", "node-name": "fqb"}}}
+ blockdev-add {"driver": "null-co", "node-name": "n"}
- blockdev-reopen {}
- blockdev-reopen {"options": {}}
- blockdev-reopen {"options": [{}]}
- blockdev-reopen {"options": [{"driver": "raw", "file": "f"}]}
- blockdev-reopen {"options": [{"driver": "raw", "node-name": "absent", "file": "f"}]}
- blockdev-reopen {"options": [{"driver": "qcow2", "node-name": "r", "file": "f"}]}
- blockdev-reopen {"options": [{"driver": "raw", "node-name": "r"}]}
- blockdev-reopen {"options": [{"driver": "raw", "node-name": "r", "file": "absent"}]}
+ blockdev-reopen {"options": [{"driver": "raw", "node-name": "r", "file": "n"}]}
+ blockdev-reopen {"options": [{"driver": "raw", "node-name": "r", "file": "f"}]}
- blockdev-reopen {"options": [{"driver": "raw", "node-name": "r", "file": {"driver": "file", "filename": "a.raw"}}]}
+ blockdev-reopen {"options": [{"driver": "raw", "node-name": "r", "file": "f", "read-only": true}]}
+ blockdev-reopen {"options": [{"driver": "raw", "node-name": "r", "file": "f"}]}
+ blockdev-reopen {"options": [{"driver": "raw", "node-name": "r", "file": "f", "offset": 512, "size": 512}]}
- blockdev-reopen {"options": [{"driver": "raw", "node-name": "r", "file": "f", "offset": 512, "size": 513}]}
- blockdev-reopen {"options": [{"driver": "raw", "node-name": "r", "file": "f", "offset": 1048576, "size": 512}]}
+ blockdev-reopen {"options": [{"driver": "raw", "node-name": "r", "file": "f"}]}
- blockdev-reopen {"options": [{"driver": "file", "node-name": "f", "filename": "odd.raw"}]}
- blockdev-reopen {"options": [{"driver": "file", "node-name": "f", "filename": "a.raw", "aio": "native"}]}
+ blockdev-reopen {"options": [{"driver": "file", "node-name": "f", "filename": "a.raw", "read-only": true}]}
- blockdev-reopen {"options": [{"driver": "file", "node-name": "f", "filename": "a.raw", "locking": "off"}]}
+ blockdev-reopen {"options": [{"driver": "file", "node-name": "f", "filename": "a.raw"}]}
+ blockdev-reopen {"options": [{"driver": "null-co", "node-name": "n"}, {"driver": "raw", "node-name": "r", "file": "f"}]}
+ blockdev-reopen {"options": [{"driver": "null-co", "node-name": "n"}]}
+ blockdev-reopen {"options": [{"driver": "null-co", "node-name": "n", "read-only": true}]}
- blockdev-reopen {"options": [{"driver": "null-co", "node-name": "n", "size": 65536}]}
- blockdev-reopen {"options": [{"driver": "qcow2", "node-name": "q", "file": "fq"}]}
+ blockdev-reopen {"options": [{"driver": "qcow2", "node-name": "q", "file": "fq", "backing": "qb"}]}
- blockdev-reopen {"options": [{"driver": "qcow2", "node-name": "q", "file": "fq", "backing": "q"}]}
- blockdev-reopen {"options": [{"driver": "qcow2", "node-name": "q", "file": "fq", "backing": "absent"}]}
- blockdev-reopen {"options": [{"driver": "qcow2", "node-name": "q", "file": "fq", "backing": {"driver": "null-co"}}]}
- blockdev-reopen {"options": [{"driver": "qcow2", "node-name": "qb", "file": "fqb", "backing": "q"}]}
+ blockdev-reopen {"options": [{"driver": "qcow2", "node-name": "q", "file": "fq", "backing": null}]}
+ blockdev-reopen {"options": [{"driver": "qcow2", "node-name": "q", "file": "fq", "backing": "n"}]}
- blockdev-reopen {"options": [{"driver": "qcow2", "node-name": "q", "file": "fq", "backing": null, "l2-cache-entry-size": 3}]}
- blockdev-reopen {"options": [{"driver": "qcow2", "node-name": "q", "file": "fq", "backing": "n", "bogus": 3}]}
- blockdev-reopen {"options": [{"driver": "qcow2", "node-name": "q", "file": "n", "backing": "n"}]}
- blockdev-reopen {"options": [{"driver": "qcow2", "node-name": "q", "file": "fq", "backing": "n"}, {"driver": "raw", "node-name": "absent", "file": "f"}]}
+ blockdev-reopen {"options": [{"driver": "qcow2", "node-name": "q", "file": "fq", "backing": "n"}, {"driver": "raw", "node-name": "r", "file": "f", "detect-zeroes": "on"}]}
+ blockdev-reopen {"options": [{"driver": "raw", "node-name": "r", "file": "f"}, {"driver": "raw", "node-name": "r", "file": "f", "size": 512}]}
- blockdev-del {"node-name": "qb"}
+ query-named-block-nodes {"flat": true}
+ x-debug-query-block-graph
""",
    files=qcow2_files,
)

RESIZE = Group(
    "resize",
    r"""
+ blockdev-add {"driver": "file", "node-name": "f", "filename": "a.raw"}
+ blockdev-add {"driver": "raw", "node-name": "r", "file": "f"}
+ blockdev-add {"driver": "qcow2", "node-name": "q", "file": {"driver": "file", "filename": "b.qcow2", "node-name": "fq"}}
+ blockdev-add {"driver": "null-co", "node-name": "n"}
+ blockdev-add {"driver": "raw", "node-name": "part", "file": {"driver": "null-co", "size": 65536}, "size": 512}
- block_resize {}
- block_resize {"size": 1024}
- block_resize {"node-name": "absent", "size": 1024}
- block_resize {"device": "absent", "size": 1024}
- block_resize {"device": "q", "size": 1024}
+ block_resize {"device": "q", "node-name": "q", "size": 1024}
- block_resize {"device": "q", "node-name": "absent", "size": 1024}
- block_resize {"node-name": "q"}
- block_resize {"node-name": "q", "size": -1}
- block_resize {"node-name": "q", "size": "1M"}
- block_resize {"node-name": "q", "size": 1.5}
+ block_resize {"node-name": "q", "size": 2097152}
- block_resize {"node-name": "q", "size": 2097153}
+ block_resize {"node-name": "q", "size": 1048576}
- block_resize {"node-name": "q", "size": 9223372036854775807}
- block_resize {"node-name": "q", "size": 9223372036854774784}
+ block_resize {"node-name": "r", "size": 2097152}
+ block_resize {"node-name": "r", "size": 1048576}
+ block_resize {"node-name": "f", "size": 2097152}
- block_resize {"node-name": "n", "size": 1024}
- block_resize {"node-name": "part", "size": 1024}
- block_resize {"node-name": "q", "size": 1024, "bogus": 1}
- change-backing-file {}
- change-backing-file {"device": "q", "image-node-name": "q"}
- change-backing-file {"device": "absent", "image-node-name": "q", "backing-file": "x"}
- change-backing-file {"device": "q", "image-node-name": "absent", "backing-file": "x"}
- change-backing-file {"device": "q", "image-node-name": "r", "backing-file": "x"}
- change-backing-file {"device": "r", "image-node-name": "r", "backing-file": "x"}
- change-backing-file {"device": "n", "image-node-name": "n", "backing-file": "x"}
- change-backing-file {"device": "q", "image-node-name": "q", "backing-file": 1}
- change-backing-file {"device": "q", "image-node-name": "fq", "backing-file": "x"}
+ change-backing-file {"device": "q", "image-node-name": "q", "backing-file": "other.qcow2"}
+ change-backing-file {"device": "q", "image-node-name": "q", "backing-file": ""}
+ query-named-block-nodes {"flat": true}
+ query-blockstats {"query-nodes": true}
- query-named-block-nodes {"flat": 1}
- query-blockstats {"query-nodes": "x"}
- query-block {"x": 1}
- x-debug-query-block-graph {"x": 1}
""",
    files=qcow2_files,
)

GROUPS = [BACKING_NAMES, CHILDREN, READ_ONLY, LOCKS, REOPEN, RESIZE]
