"""blockdev-add, driver by driver: good and bad options, one fresh daemon a group."""

from pathlib import Path

from compat.daemon import image
from compat.verdicts.table import Group


def plain_files(folder: Path) -> None:
    image("create", "-f", "raw", "a.raw", "1M", cwd=folder)
    image("create", "-f", "raw", "odd.raw", "1000", cwd=folder)
    (folder / "fixed.raw").write_bytes(bytes(65536))
    (folder / "fixed.raw").chmod(0o444)
    (folder / "empty").write_bytes(b"")
    (folder / "directory").mkdir()
    (folder / "dangling").symlink_to("nowhere")


def qcow2_files(folder: Path) -> None:
    plain_files(folder)
    image("create", "-f", "qcow2", "a.qcow2", "1M", cwd=folder)
    image("create", "-f", "qcow2", "-b", "a.qcow2", "-F", "qcow2", "b.qcow2", cwd=folder)
    image("create", "-f", "qcow2", "-b", "b.qcow2", "-F", "qcow2", "c.qcow2", cwd=folder)
    image("create", "-f", "qcow2", "-b", "a.raw", "-F", "raw", "r.qcow2", cwd=folder)
    image("create", "-f", "qcow2", "-o", "compat=0.10", "old.qcow2", "1M", cwd=folder)
    image(
        "create",
        "-f",
        "qcow2",
        "-o",
        "data_file=x.data,data_file_raw=on",
        "x.qcow2",
        "1M",
        cwd=folder,
    )
    image(
        "create",
        "-f",
        "qcow2",
        "-u",
        "-b",
        "nowhere.qcow2",
        "-F",
        "qcow2",
        "lost.qcow2",
        "1M",
        cwd=folder,
    )


NULL = Group(
    "null",
    r"""
+ blockdev-add {"driver": "null-co", "node-name": "n0"}
+ blockdev-add {"driver": "null-aio", "node-name": "n1", "size": 65536, "latency-ns": 0, "read-zeroes": true}
- blockdev-add {"driver": "null-co"}
- blockdev-add {"node-name": "n2"}
- blockdev-add {}
- blockdev-add
- blockdev-add {"driver": "null-co", "node-name": "n0"}
- blockdev-add {"driver": "zzz", "node-name": "n2"}
- blockdev-add {"driver": 1, "node-name": "n2"}
- blockdev-add {"driver": null, "node-name": "n2"}
- blockdev-add {"driver": "null-co", "node-name": 7}
- blockdev-add {"driver": "null-co", "node-name": "n2", "size": "64k"}
- blockdev-add {"driver": "null-co", "node-name": "n2", "size": 1.5}
- blockdev-add {"driver": "null-co", "node-name": "n2", "size": true}
- blockdev-add {"driver": "null-co", "node-name": "n2", "size": null}
- blockdev-add {"driver": "null-co", "node-name": "n2", "size": 9223372036854775808}
- blockdev-add {"driver": "null-co", "node-name": "n2", "latency-ns": 18446744073709551616}
- blockdev-add {"driver": "null-co", "node-name": "n2", "latency-ns": -1}
- blockdev-add {"driver": "null-co", "node-name": "n2", "latency-ns": 9223372036854775808}
- blockdev-add {"driver": "null-co", "node-name": "n2", "read-zeroes": "on"}
- blockdev-add {"driver": "null-co", "node-name": "n2", "bogus": 1}
- blockdev-add {"driver": "null-co", "node-name": "n2", "filename": "x"}
- blockdev-add {"driver": "null-co", "node-name": ""}
- blockdev-add {"driver": "null-co", "node-name": "1n"}
- blockdev-add {"driver": "null-co", "node-name": "#block9"}
- blockdev-add {"driver": "null-co", "node-name": "a b"}
- blockdev-add {"driver": "null-co", "node-name": "abcdefghijabcdefghijabcdefghijabc"}
+ blockdev-add {"driver": "null-co", "node-name": "abcdefghijabcdefghijabcdefghija"}
- blockdev-add {"driver": "null-co", "node-name": "abcdefghijabcdefghijabcdefghijab"}
+ blockdev-add {"driver": "null-co", "node-name": "n.3-a_b", "size": 0}
+ blockdev-add {"driver": "null-co", "node-name": "n4", "size": 1000}
+ blockdev-add {"driver": "null-co", "node-name": "ro", "read-only": true}
+ blockdev-add {"driver": "null-co", "node-name": "dz", "detect-zeroes": "on"}
+ blockdev-add {"driver": "null-co", "node-name": "du", "detect-zeroes": "unmap", "discard": "unmap"}
- blockdev-add {"driver": "null-co", "node-name": "du2", "detect-zeroes": "unmap"}
- blockdev-add {"driver": "null-co", "node-name": "d3", "detect-zeroes": "maybe"}
- blockdev-add {"driver": "null-co", "node-name": "d3", "discard": "on"}
- blockdev-add {"driver": "null-co", "node-name": "d3", "cache": {"direct": 1}}
- blockdev-add {"driver": "null-co", "node-name": "d3", "cache": {"writeback": true}}
- blockdev-add {"driver": "null-co", "node-name": "d3", "cache": true}
- blockdev-add {"driver": "null-co", "node-name": "d3", "cache": []}
+ blockdev-add {"driver": "null-co", "node-name": "d3", "cache": {"direct": true, "no-flush": true}}
- blockdev-add {"driver": "null-co", "node-name": "d4", "force-share": true}
+ blockdev-add {"driver": "null-co", "node-name": "d4", "force-share": true, "read-only": true}
+ blockdev-add {"driver": "null-co", "node-name": "d5", "auto-read-only": true}
- blockdev-add {"driver": "null-co", "node-name": "d6", "read_only": true}
- blockdev-add ["driver"]
- blockdev-add "null-co"
+ query-named-block-nodes {"flat": true}
+ query-named-block-nodes
""",
)

FILE = Group(
    "file",
    r"""
+ blockdev-add {"driver": "file", "node-name": "f0", "filename": "a.raw", "read-only": true}
+ blockdev-add {"driver": "file", "node-name": "f1", "filename": "a.raw", "auto-read-only": true}
- blockdev-add {"driver": "file", "node-name": "f2", "filename": "file:odd.raw"}
- blockdev-add {"driver": "file", "node-name": "f9"}
- blockdev-add {"driver": "file", "node-name": "f9", "filename": 1}
- blockdev-add {"driver": "file", "node-name": "f9", "filename": ""}
- blockdev-add {"driver": "file", "node-name": "f9", "filename": "absent"}
- blockdev-add {"driver": "file", "node-name": "f9", "filename": "absent", "read-only": true}
- blockdev-add {"driver": "file", "node-name": "f9", "filename": "directory"}
- blockdev-add {"driver": "file", "node-name": "f9", "filename": "directory", "read-only": true}
- blockdev-add {"driver": "file", "node-name": "f9", "filename": "dangling"}
- blockdev-add {"driver": "file", "node-name": "f9", "filename": "a.raw/x"}
- blockdev-add {"driver": "file", "node-name": "f9", "filename": "/dev/null"}
- blockdev-add {"driver": "file", "node-name": "f9", "filename": "nbd:localhost:1"}
- blockdev-add {"driver": "file", "node-name": "f9", "filename": "json:{}"}
- blockdev-add {"driver": "file", "node-name": "f9", "filename": "a.raw", "aio": "threads2"}
- blockdev-add {"driver": "file", "node-name": "f9", "filename": "a.raw", "aio": "native"}
+ blockdev-add {"driver": "file", "node-name": "f3", "filename": "a.raw", "aio": "threads"}
- blockdev-add {"driver": "file", "node-name": "f9", "filename": "a.raw", "locking": "maybe"}
+ blockdev-add {"driver": "file", "node-name": "f4", "filename": "a.raw", "locking": "on"}
+ blockdev-add {"driver": "file", "node-name": "f5", "filename": "a.raw", "locking": "off"}
- blockdev-add {"driver": "file", "node-name": "f9", "filename": "a.raw", "pr-manager": "x"}
- blockdev-add {"driver": "file", "node-name": "f9", "filename": "a.raw", "drop-cache": "no"}
+ blockdev-add {"driver": "file", "node-name": "f6", "filename": "a.raw", "drop-cache": false}
- blockdev-add {"driver": "file", "node-name": "f9", "filename": "a.raw", "x-check-cache-dropped": 0}
+ blockdev-add {"driver": "file", "node-name": "f7", "filename": "empty"}
- blockdev-add {"driver": "file", "node-name": "f9", "filename": "a.raw", "aio-max-batch": 9223372036854775808}
+ blockdev-add {"driver": "file", "node-name": "f8", "filename": "a.raw", "aio-max-batch": 8}
- blockdev-add {"driver": "file", "node-name": "f9", "filename": "a.raw", "file": "f0"}
- blockdev-add {"driver": "host_device", "node-name": "h0", "filename": "a.raw"}
- blockdev-add {"driver": "host_device", "node-name": "h0", "filename": "absent"}
- blockdev-add {"driver": "host_device", "node-name": "h0"}
+ blockdev-add {"driver": "host_device", "node-name": "h0", "filename": "/dev/null"}
+ query-named-block-nodes {"flat": true}
""",
    files=plain_files,
    untouched=True,
)

RAW = Group(
    "raw",
    r"""
+ blockdev-add {"driver": "null-co", "node-name": "n", "size": 65536}
+ blockdev-add {"driver": "null-co", "node-name": "m", "size": 1000}
+ blockdev-add {"driver": "raw", "node-name": "r0", "file": "n"}
+ blockdev-add {"driver": "raw", "node-name": "r1", "file": "n", "offset": 512, "size": 512}
+ blockdev-add {"driver": "raw", "node-name": "r2", "file": {"driver": "null-co"}}
+ blockdev-add {"driver": "raw", "node-name": "r3", "file": "m", "read-only": true}
- blockdev-add {"driver": "raw", "node-name": "x"}
- blockdev-add {"driver": "raw", "node-name": "x", "file": "absent"}
- blockdev-add {"driver": "raw", "node-name": "x", "file": null}
- blockdev-add {"driver": "raw", "node-name": "x", "file": 1}
- blockdev-add {"driver": "raw", "node-name": "x", "file": []}
- blockdev-add {"driver": "raw", "node-name": "x", "file": {}}
- blockdev-add {"driver": "raw", "node-name": "x", "file": {"driver": "zzz"}}
- blockdev-add {"driver": "raw", "node-name": "x", "file": {"driver": "null-co", "size": "1"}}
- blockdev-add {"driver": "raw", "node-name": "x", "file": {"driver": "null-co", "bogus": 1}}
- blockdev-add {"driver": "raw", "node-name": "x", "file": {"driver": "null-co", "node-name": "n"}}
- blockdev-add {"driver": "raw", "node-name": "x", "file": {"driver": "null-co", "node-name": "x"}}
+ blockdev-add {"driver": "raw", "node-name": "r7", "file": "n", "offset": 1}
- blockdev-add {"driver": "raw", "node-name": "x", "file": "n", "offset": 512, "size": 513}
- blockdev-add {"driver": "raw", "node-name": "x", "file": "n", "offset": 512, "size": 65536}
- blockdev-add {"driver": "raw", "node-name": "x", "file": "n", "offset": 131072}
- blockdev-add {"driver": "raw", "node-name": "x", "file": "n", "size": 131072}
- blockdev-add {"driver": "raw", "node-name": "x", "file": "n", "offset": -512}
- blockdev-add {"driver": "raw", "node-name": "x", "file": "n", "size": -512}
- blockdev-add {"driver": "raw", "node-name": "x", "file": "n", "size": "512"}
- blockdev-add {"driver": "raw", "node-name": "x", "file": "n", "backing": "m"}
- blockdev-add {"driver": "raw", "node-name": "x", "file": "n", "file.driver": "file"}
- blockdev-add {"driver": "raw", "node-name": "x", "file": {"driver": "file", "filename": "absent"}}
- blockdev-add {"driver": "raw", "node-name": "x", "file": {"driver": "file", "filename": "fixed.raw", "locking": "zz"}}
+ blockdev-add {"driver": "raw", "node-name": "r4", "file": {"driver": "file", "filename": "a.raw"}}
+ blockdev-add {"driver": "raw", "node-name": "r8", "file": {"driver": "file", "filename": "a.raw"}}
+ blockdev-add {"driver": "raw", "node-name": "r9", "file": {"driver": "file", "filename": "a.raw", "read-only": true}, "read-only": false}
+ blockdev-add {"driver": "raw", "node-name": "r5", "file": {"driver": "file", "filename": "odd.raw"}}
+ blockdev-add {"driver": "raw", "node-name": "r6", "file": {"driver": "raw", "file": {"driver": "raw", "file": "r5"}}}
+ query-named-block-nodes {"flat": true}
+ x-debug-query-block-graph
""",
    files=plain_files,
    untouched=True,
)

QCOW2 = Group(
    "qcow2",
    r"""
+ blockdev-add {"driver": "file", "node-name": "fa", "filename": "a.raw"}
- blockdev-add {"driver": "qcow2", "node-name": "x", "file": "fa"}
- blockdev-add {"driver": "qcow2", "node-name": "x", "file": {"driver": "file", "filename": "empty"}}
- blockdev-add {"driver": "qcow2", "node-name": "x", "file": {"driver": "null-co"}}
- blockdev-add {"driver": "qcow2", "node-name": "x", "file": {"driver": "null-co", "read-zeroes": true}}
- blockdev-add {"driver": "qcow2", "node-name": "x"}
- blockdev-add {"driver": "qcow2", "node-name": "x", "file": {"driver": "file", "filename": "lost.qcow2"}}
+ blockdev-add {"driver": "qcow2", "node-name": "lost", "file": {"driver": "file", "filename": "lost.qcow2"}, "backing": null}
+ blockdev-add {"driver": "qcow2", "node-name": "c", "file": {"driver": "file", "filename": "c.qcow2"}}
- blockdev-add {"driver": "qcow2", "node-name": "x", "file": {"driver": "file", "filename": "c.qcow2"}}
- blockdev-add {"driver": "qcow2", "node-name": "x", "file": {"driver": "file", "filename": "a.qcow2"}}
+ blockdev-add {"driver": "qcow2", "node-name": "ra", "file": {"driver": "file", "filename": "a.qcow2"}, "read-only": true}
+ blockdev-add {"driver": "qcow2", "node-name": "r", "file": {"driver": "file", "filename": "r.qcow2"}, "backing": "fa"}
- blockdev-add {"driver": "qcow2", "node-name": "x", "file": {"driver": "file", "filename": "old.qcow2"}, "backing": "absent"}
- blockdev-add {"driver": "qcow2", "node-name": "x", "file": {"driver": "file", "filename": "old.qcow2"}, "backing": 1}
+ blockdev-add {"driver": "qcow2", "node-name": "e", "file": {"driver": "file", "filename": "old.qcow2"}, "backing": ""}
+ blockdev-del {"node-name": "e"}
- blockdev-add {"driver": "qcow2", "node-name": "x", "file": {"driver": "file", "filename": "old.qcow2"}, "lazy-refcounts": true}
- blockdev-add {"driver": "qcow2", "node-name": "x", "file": {"driver": "file", "filename": "old.qcow2"}, "overlap-check": "zzz"}
- blockdev-add {"driver": "qcow2", "node-name": "x", "file": {"driver": "file", "filename": "old.qcow2"}, "overlap-check": {"template": "zzz"}}
- blockdev-add {"driver": "qcow2", "node-name": "x", "file": {"driver": "file", "filename": "old.qcow2"}, "overlap-check": 1}
- blockdev-add {"driver": "qcow2", "node-name": "x", "file": {"driver": "file", "filename": "old.qcow2"}, "l2-cache-size": "1M"}
- blockdev-add {"driver": "qcow2", "node-name": "x", "file": {"driver": "file", "filename": "old.qcow2"}, "l2-cache-size": 4194304, "cache-size": 1048576}
- blockdev-add {"driver": "qcow2", "node-name": "x", "file": {"driver": "file", "filename": "old.qcow2"}, "cache-size": 1048576, "l2-cache-size": 524288, "refcount-cache-size": 524288}
- blockdev-add {"driver": "qcow2", "node-name": "x", "file": {"driver": "file", "filename": "old.qcow2"}, "refcount-cache-size": 4194304, "cache-size": 1048576}
- blockdev-add {"driver": "qcow2", "node-name": "x", "file": {"driver": "file", "filename": "old.qcow2"}, "l2-cache-entry-size": 1000}
- blockdev-add {"driver": "qcow2", "node-name": "x", "file": {"driver": "file", "filename": "old.qcow2"}, "l2-cache-entry-size": 131072}
- blockdev-add {"driver": "qcow2", "node-name": "x", "file": {"driver": "file", "filename": "old.qcow2"}, "cache-clean-interval": 4294967296}
- blockdev-add {"driver": "qcow2", "node-name": "x", "file": {"driver": "file", "filename": "old.qcow2"}, "cache-clean-interval": -1}
- blockdev-add {"driver": "qcow2", "node-name": "x", "file": {"driver": "file", "filename": "old.qcow2"}, "encrypt": {"format": "luks"}}
- blockdev-add {"driver": "qcow2", "node-name": "x", "file": {"driver": "file", "filename": "old.qcow2"}, "encrypt": {"format": "zzz"}}
- blockdev-add {"driver": "qcow2", "node-name": "x", "file": {"driver": "file", "filename": "old.qcow2"}, "data-file": "fa"}
- blockdev-add {"driver": "qcow2", "node-name": "x", "file": {"driver": "file", "filename": "x.qcow2"}, "data-file": "absent"}
+ blockdev-add {"driver": "qcow2", "node-name": "x", "file": {"driver": "file", "filename": "x.qcow2"}}
- blockdev-add {"driver": "qcow2", "node-name": "y", "file": {"driver": "file", "filename": "fixed.raw"}, "read-only": true}
- blockdev-add {"driver": "qcow2", "node-name": "y", "file": {"driver": "file", "filename": "absent"}, "backing": "absent"}
+ blockdev-add {"driver": "qcow2", "node-name": "o", "file": {"driver": "file", "filename": "old.qcow2"}, "overlap-check": "all", "pass-discard-request": true, "pass-discard-snapshot": false, "pass-discard-other": true, "l2-cache-size": 1048576, "refcount-cache-size": 262144, "cache-clean-interval": 0}
+ query-named-block-nodes {"flat": true}
+ query-named-block-nodes
+ x-debug-query-block-graph
+ query-blockstats {"query-nodes": true}
+ query-blockstats
+ query-block
""",
    files=qcow2_files,
)

GROUPS = [NULL, FILE, RAW, QCOW2]
