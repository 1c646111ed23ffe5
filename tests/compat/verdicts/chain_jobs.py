"""Mirror, commit and stream: combinations of members, nodes and ids that are refused, and why."""

from pathlib import Path

from compat.daemon import image
from compat.verdicts.table import Group


def chain_files(folder: Path) -> None:
    image("create", "-f", "qcow2", "base.qcow2", "4M", cwd=folder)
    for name, below in (("low", "base"), ("mid", "low"), ("top", "mid")):
        below = f"{below}.qcow2"
        image("create", "-f", "qcow2", "-b", below, "-F", "qcow2", f"{name}.qcow2", cwd=folder)
    for name in ("t", "u", "other"):
        image("create", "-f", "qcow2", f"{name}.qcow2", "4M", cwd=folder)
    image("create", "-f", "qcow2", "small.qcow2", "1M", cwd=folder)
    image("create", "-f", "qcow2", "large.qcow2", "8M", cwd=folder)
    image("create", "-f", "raw", "t.raw", "4M", cwd=folder)
    (folder / "folder").mkdir()


_CHAIN = """
+ blockdev-add {"driver": "qcow2", "node-name": "base", "file": {"driver": "file", "filename": "base.qcow2", "node-name": "base-file"}}
+ blockdev-add {"driver": "qcow2", "node-name": "low", "file": {"driver": "file", "filename": "low.qcow2"}, "backing": "base"}
+ blockdev-add {"driver": "qcow2", "node-name": "mid", "file": {"driver": "file", "filename": "mid.qcow2"}, "backing": "low"}
+ blockdev-add {"driver": "qcow2", "node-name": "top", "file": {"driver": "file", "filename": "top.qcow2", "node-name": "top-file"}, "backing": "mid"}
+ blockdev-add {"driver": "qcow2", "node-name": "t", "file": {"driver": "file", "filename": "t.qcow2", "node-name": "t-file"}}
+ blockdev-add {"driver": "qcow2", "node-name": "other", "file": {"driver": "file", "filename": "other.qcow2"}}
+ blockdev-add {"driver": "null-co", "node-name": "null", "size": 4194304}
"""

MIRROR = Group(
    "blockdev-mirror",
    _CHAIN
    + """
+ blockdev-add {"driver": "qcow2", "node-name": "small", "file": {"driver": "file", "filename": "small.qcow2"}}
+ blockdev-add {"driver": "qcow2", "node-name": "large", "file": {"driver": "file", "filename": "large.qcow2"}}
+ blockdev-add {"driver": "qcow2", "node-name": "ro", "file": {"driver": "file", "filename": "u.qcow2"}, "read-only": true}
- blockdev-mirror {}
- blockdev-mirror {"device": "top", "target": "t"}
- blockdev-mirror {"device": "top", "sync": "full"}
- blockdev-mirror {"target": "t", "sync": "full"}
- blockdev-mirror {"device": "top", "target": "t", "sync": "full"}
- blockdev-mirror {"job-id": "", "device": "top", "target": "t", "sync": "full"}
- blockdev-mirror {"job-id": "1x", "device": "top", "target": "t", "sync": "full"}
- blockdev-mirror {"job-id": "a/b", "device": "top", "target": "t", "sync": "full"}
- blockdev-mirror {"job-id": "#block1", "device": "top", "target": "t", "sync": "full"}
- blockdev-mirror {"job-id": 7, "device": "top", "target": "t", "sync": "full"}
- blockdev-mirror {"job-id": "j", "device": "absent", "target": "t", "sync": "full"}
- blockdev-mirror {"job-id": "j", "device": "", "target": "t", "sync": "full"}
- blockdev-mirror {"job-id": "j", "device": "top", "target": "absent", "sync": "full"}
- blockdev-mirror {"job-id": "j", "device": "top", "target": "", "sync": "full"}
- blockdev-mirror {"job-id": "j", "device": "top", "target": "top", "sync": "full"}
- blockdev-mirror {"job-id": "j", "device": "top", "target": "mid", "sync": "full"}
- blockdev-mirror {"job-id": "j", "device": "top", "target": "low", "sync": "top"}
- blockdev-mirror {"job-id": "j", "device": "top", "target": "base", "sync": "full"}
- blockdev-mirror {"job-id": "j", "device": "mid", "target": "top", "sync": "full"}
- blockdev-mirror {"job-id": "j", "device": "top", "target": "top-file", "sync": "full"}
- blockdev-mirror {"job-id": "j", "device": "top", "target": "base-file", "sync": "full"}
- blockdev-mirror {"job-id": "j", "device": "top", "target": "t-file", "sync": "full"}
- blockdev-mirror {"job-id": "j", "device": "top", "target": "ro", "sync": "full"}
- blockdev-mirror {"job-id": "j", "device": "top", "target": "t", "sync": "incremental"}
- blockdev-mirror {"job-id": "j", "device": "top", "target": "t", "sync": "bitmap"}
- blockdev-mirror {"job-id": "j", "device": "top", "target": "t", "sync": "zzz"}
- blockdev-mirror {"job-id": "j", "device": "top", "target": "t", "sync": 1}
- blockdev-mirror {"job-id": "j", "device": "top", "target": "t", "sync": "full", "speed": -1}
- blockdev-mirror {"job-id": "j", "device": "top", "target": "t", "sync": "full", "speed": "1M"}
- blockdev-mirror {"job-id": "j", "device": "top", "target": "t", "sync": "full", "granularity": -1}
- blockdev-mirror {"job-id": "j", "device": "top", "target": "t", "sync": "full", "granularity": 1}
- blockdev-mirror {"job-id": "j", "device": "top", "target": "t", "sync": "full", "granularity": 256}
- blockdev-mirror {"job-id": "j", "device": "top", "target": "t", "sync": "full", "granularity": 513}
- blockdev-mirror {"job-id": "j", "device": "top", "target": "t", "sync": "full", "granularity": 196608}
- blockdev-mirror {"job-id": "j", "device": "top", "target": "t", "sync": "full", "granularity": 134217728}
- blockdev-mirror {"job-id": "j", "device": "top", "target": "t", "sync": "full", "granularity": 4294967296}
- blockdev-mirror {"job-id": "j", "device": "top", "target": "t", "sync": "full", "buf-size": -1}
- blockdev-mirror {"job-id": "j", "device": "top", "target": "t", "sync": "full", "buf-size": "1M"}
- blockdev-mirror {"job-id": "j", "device": "top", "target": "t", "sync": "full", "on-source-error": "zzz"}
- blockdev-mirror {"job-id": "j", "device": "top", "target": "t", "sync": "full", "on-source-error": "stop", "speed": -1}
- blockdev-mirror {"job-id": "j", "device": "top", "target": "t", "sync": "full", "on-source-error": "enospc", "speed": -1}
- blockdev-mirror {"job-id": "j", "device": "top", "target": "t", "sync": "full", "on-target-error": "zzz"}
- blockdev-mirror {"job-id": "j", "device": "top", "target": "t", "sync": "full", "on-target-error": 5}
- blockdev-mirror {"job-id": "j", "device": "top", "target": "t", "sync": "full", "copy-mode": "zzz"}
- blockdev-mirror {"job-id": "j", "device": "top", "target": "t", "sync": "full", "filter-node-name": "t"}
- blockdev-mirror {"job-id": "j", "device": "top", "target": "t", "sync": "full", "filter-node-name": ""}
- blockdev-mirror {"job-id": "j", "device": "top", "target": "t", "sync": "full", "filter-node-name": "1x"}
- blockdev-mirror {"job-id": "j", "device": "top", "target": "t", "sync": "full", "filter-node-name": "a b"}
- blockdev-mirror {"job-id": "j", "device": "top", "target": "t", "sync": "full", "filter-node-name": "a-name-that-is-longer-than-31-bytes-is"}
- blockdev-mirror {"job-id": "j", "device": "top", "target": "t", "sync": "full", "replaces": "absent"}
- blockdev-mirror {"job-id": "j", "device": "top", "target": "t", "sync": "full", "replaces": ""}
- blockdev-mirror {"job-id": "j", "device": "top", "target": "t", "sync": "full", "replaces": "other"}
- blockdev-mirror {"job-id": "j", "device": "top", "target": "t", "sync": "full", "replaces": "mid"}
- blockdev-mirror {"job-id": "j", "device": "top", "target": "t", "sync": "full", "replaces": "t"}
- blockdev-mirror {"job-id": "j", "device": "top", "target": "t", "sync": "full", "replaces": "small"}
- blockdev-mirror {"job-id": "j", "device": "top", "target": "t", "sync": "full", "auto-finalize": 1}
- blockdev-mirror {"job-id": "j", "device": "top", "target": "t", "sync": "full", "auto-dismiss": "no"}
- blockdev-mirror {"job-id": "j", "device": "top", "target": "t", "sync": "full", "unmap": true}
- blockdev-mirror {"job-id": "j", "device": "top", "target": "t", "sync": "full", "mode": "existing"}
- blockdev-mirror {"job-id": "j", "device": "top", "target": "t", "sync": "full", "bitmap": "b"}
- blockdev-mirror {"job-id": "j", "device": "top", "target": {"driver": "null-co"}, "sync": "full"}
+ blockdev-mirror {"job-id": "small", "device": "top", "target": "small", "sync": "full"}
. wait small null
+ blockdev-mirror {"job-id": "large", "device": "top", "target": "large", "sync": "full"}
. wait large null
+ blockdev-mirror {"job-id": "j", "device": "top", "target": "t", "sync": "full", "filter-node-name": "filter"}
. wait j ready
- blockdev-mirror {"job-id": "j", "device": "other", "target": "null", "sync": "full"}
- blockdev-mirror {"job-id": "k", "device": "top", "target": "other", "sync": "full"}
- blockdev-mirror {"job-id": "k", "device": "filter", "target": "other", "sync": "full"}
- blockdev-mirror {"job-id": "k", "device": "mid", "target": "other", "sync": "full"}
- blockdev-mirror {"job-id": "k", "device": "other", "target": "t", "sync": "full"}
- blockdev-mirror {"job-id": "k", "device": "other", "target": "top", "sync": "full"}
- blockdev-mirror {"job-id": "k", "device": "other", "target": "filter", "sync": "full"}
- blockdev-mirror {"job-id": "k", "device": "t", "target": "other", "sync": "full"}
- blockdev-mirror {"job-id": "k", "device": "null", "target": "other", "sync": "full", "filter-node-name": "filter"}
- blockdev-backup {"job-id": "k", "device": "top", "target": "other", "sync": "full"}
- blockdev-backup {"job-id": "k", "device": "other", "target": "t", "sync": "full"}
- block-commit {"job-id": "k", "device": "top"}
- block-commit {"job-id": "k", "device": "filter"}
- block-commit {"job-id": "k", "device": "filter", "top-node": "mid"}
- block-stream {"job-id": "k", "device": "top"}
+ block-stream {"job-id": "k", "device": "mid"}
. wait k null
- block-stream {"job-id": "k", "device": "filter"}
- blockdev-snapshot {"node": "top", "overlay": "other"}
- blockdev-snapshot {"node": "filter", "overlay": "other"}
- blockdev-snapshot {"node": "t", "overlay": "other"}
+ blockdev-reopen {"options": [{"driver": "qcow2", "node-name": "top", "file": "top-file", "backing": null}]}
- blockdev-reopen {"options": [{"driver": "qcow2", "node-name": "t", "file": "t-file", "read-only": true}]}
- change-backing-file {"device": "top", "image-node-name": "top", "backing-file": "x"}
- change-backing-file {"device": "top", "image-node-name": "mid", "backing-file": "x"}
- block_resize {"node-name": "top", "size": 8388608}
- block_resize {"node-name": "t", "size": 8388608}
- block_resize {"node-name": "filter", "size": 8388608}
- blockdev-del {"node-name": "top"}
- blockdev-del {"node-name": "t"}
- blockdev-del {"node-name": "filter"}
- blockdev-del {"node-name": "base"}
- block-job-set-speed {"device": "j", "speed": -1}
- job-finalize {"id": "j"}
- job-dismiss {"id": "j"}
+ x-debug-query-block-graph
+ block-job-complete {"device": "j"}
. wait j null
+ x-debug-query-block-graph
+ query-jobs
""",
    files=chain_files,
)

DRIVE_MIRROR = Group(
    "drive-mirror",
    _CHAIN
    + """
- drive-mirror {}
- drive-mirror {"job-id": "j", "device": "top", "target": "new", "sync": "zzz"}
- drive-mirror {"device": "top", "target": "new.qcow2", "sync": "full"}
- drive-mirror {"job-id": "1", "device": "top", "target": "new.qcow2", "sync": "full"}
- drive-mirror {"job-id": "j", "device": "absent", "target": "new.qcow2", "sync": "full"}
- drive-mirror {"job-id": "j", "device": "mid", "target": "new.qcow2", "sync": "full"}
- drive-mirror {"job-id": "j", "device": "top", "target": "", "sync": "full"}
- drive-mirror {"job-id": "j", "device": "top", "target": "nowhere/new.qcow2", "sync": "full"}
- drive-mirror {"job-id": "j", "device": "top", "target": "folder", "sync": "full"}
- drive-mirror {"job-id": "j", "device": "top", "target": "absent.qcow2", "sync": "full", "mode": "existing"}
- drive-mirror {"job-id": "j", "device": "top", "target": "absent.qcow2", "sync": "full", "mode": "zzz"}
- drive-mirror {"job-id": "j", "device": "top", "target": "t.raw", "sync": "full", "mode": "existing", "format": "qcow2"}
- drive-mirror {"job-id": "j", "device": "top", "target": "new.x", "sync": "full", "format": "zzz"}
- drive-mirror {"job-id": "j", "device": "top", "target": "new.x", "sync": "full", "format": ""}
- drive-mirror {"job-id": "j", "device": "top", "target": "zzz://x/new", "sync": "full"}
- drive-mirror {"job-id": "j", "device": "top", "target": "t.qcow2", "sync": "full", "mode": "existing"}
- drive-mirror {"job-id": "j", "device": "top", "target": "top.qcow2", "sync": "full", "mode": "existing"}
- drive-mirror {"job-id": "j", "device": "top", "target": "new.qcow2", "sync": "incremental"}
- drive-mirror {"job-id": "j", "device": "top", "target": "new.qcow2", "sync": "bitmap"}
- drive-mirror {"job-id": "j", "device": "top", "target": "new.qcow2", "sync": "full", "replaces": "mid"}
- drive-mirror {"job-id": "j", "device": "top", "target": "new.qcow2", "sync": "full", "replaces": "absent", "node-name": "n"}
- drive-mirror {"job-id": "j", "device": "top", "target": "new.qcow2", "sync": "full", "replaces": "mid", "node-name": "n"}
- drive-mirror {"job-id": "j", "device": "top", "target": "new.qcow2", "sync": "full", "node-name": "t"}
- drive-mirror {"job-id": "j", "device": "top", "target": "new.qcow2", "sync": "full", "node-name": "1x"}
- drive-mirror {"job-id": "j", "device": "top", "target": "new.qcow2", "sync": "full", "node-name": ""}
- drive-mirror {"job-id": "j", "device": "top", "target": "new.qcow2", "sync": "full", "speed": -1}
- drive-mirror {"job-id": "j", "device": "top", "target": "new.qcow2", "sync": "full", "buf-size": -1}
- drive-mirror {"job-id": "j", "device": "top", "target": "new.qcow2", "sync": "full", "granularity": 100}
- drive-mirror {"job-id": "j", "device": "top", "target": "new.qcow2", "sync": "full", "granularity": 1000}
- drive-mirror {"job-id": "j", "device": "top", "target": "new.qcow2", "sync": "full", "unmap": 1}
- drive-mirror {"job-id": "j", "device": "top", "target": "new.qcow2", "sync": "full", "filter-node-name": "f"}
- drive-mirror {"job-id": "j", "device": "null", "target": "new.null", "sync": "full"}
- drive-mirror {"job-id": "j", "device": "null", "target": "new.null", "sync": "full", "format": "null-co"}
- drive-mirror {"job-id": "j", "device": "top", "target": "new.raw", "sync": "top", "format": "raw"}
+ query-jobs
+ query-named-block-nodes {"flat": true}
+ drive-mirror {"job-id": "j", "device": "top", "target": "new2.qcow2", "sync": "full", "node-name": "n"}
. wait j ready
- drive-mirror {"job-id": "j", "device": "other", "target": "new3.qcow2", "sync": "full"}
- drive-mirror {"job-id": "k", "device": "other", "target": "new2.qcow2", "sync": "full", "mode": "existing"}
- drive-mirror {"job-id": "k", "device": "other", "target": "new3.qcow2", "sync": "full", "node-name": "n"}
+ query-block-jobs
+ block-job-cancel {"device": "j"}
. wait j null
+ query-named-block-nodes {"flat": true}
""",
    files=chain_files,
)

COMMIT = Group(
    "block-commit",
    _CHAIN
    + """
+ blockdev-add {"driver": "qcow2", "node-name": "ro", "file": {"driver": "file", "filename": "u.qcow2"}, "read-only": true}
- block-commit {}
- block-commit {"job-id": "j"}
- block-commit {"device": "top"}
- block-commit {"job-id": "", "device": "top"}
- block-commit {"job-id": "1x", "device": "top", "top-node": "mid"}
- block-commit {"job-id": "a b", "device": "top"}
- block-commit {"job-id": "j", "device": "absent"}
- block-commit {"job-id": "j", "device": ""}
- block-commit {"job-id": "j", "device": "mid"}
- block-commit {"job-id": "j", "device": "base"}
- block-commit {"job-id": "j", "device": "other"}
- block-commit {"job-id": "j", "device": "null"}
- block-commit {"job-id": "j", "device": "ro"}
- block-commit {"job-id": "j", "device": "top-file"}
- block-commit {"job-id": "j", "device": "top", "top-node": "absent"}
- block-commit {"job-id": "j", "device": "top", "top-node": "other"}
- block-commit {"job-id": "j", "device": "top", "top-node": "top-file"}
- block-commit {"job-id": "j", "device": "top", "top-node": "base"}
- block-commit {"job-id": "j", "device": "top", "base-node": "absent"}
- block-commit {"job-id": "j", "device": "top", "base-node": "other"}
- block-commit {"job-id": "j", "device": "top", "base-node": "top"}
- block-commit {"job-id": "j", "device": "top", "top-node": "mid", "base-node": "mid"}
- block-commit {"job-id": "j", "device": "top", "top-node": "low", "base-node": "mid"}
- block-commit {"job-id": "j", "device": "top", "top-node": "base", "base-node": "mid"}
- block-commit {"job-id": "j", "device": "top", "top": "absent.qcow2"}
- block-commit {"job-id": "j", "device": "top", "top": ""}
- block-commit {"job-id": "j", "device": "top", "top": "other.qcow2"}
- block-commit {"job-id": "j", "device": "top", "base": "absent.qcow2"}
- block-commit {"job-id": "j", "device": "top", "base": ""}
- block-commit {"job-id": "j", "device": "top", "base": "top.qcow2"}
- block-commit {"job-id": "j", "device": "top", "top": "mid.qcow2", "base": "mid.qcow2"}
- block-commit {"job-id": "j", "device": "top", "top": "low.qcow2", "base": "mid.qcow2"}
- block-commit {"job-id": "j", "device": "top", "top": "mid.qcow2", "top-node": "mid"}
- block-commit {"job-id": "j", "device": "top", "base": "base.qcow2", "base-node": "base"}
- block-commit {"job-id": "j", "device": "top", "backing-file": "x"}
- block-commit {"job-id": "j", "device": "top", "top-node": "top", "backing-file": "x"}
- block-commit {"job-id": "j", "device": "top", "backing-file": 1}
- block-commit {"job-id": "j", "device": "top", "speed": -1}
- block-commit {"job-id": "j", "device": "top", "top-node": "mid", "speed": -1}
- block-commit {"job-id": "j", "device": "top", "top-node": "mid", "speed": "x"}
- block-commit {"job-id": "j", "device": "top", "on-error": "zzz"}
- block-commit {"job-id": "j", "device": "top", "on-error": "stop", "speed": -1}
- block-commit {"job-id": "j", "device": "top", "top-node": "mid", "on-error": "stop", "speed": -1}
- block-commit {"job-id": "j", "device": "top", "filter-node-name": "mid"}
- block-commit {"job-id": "j", "device": "top", "top-node": "mid", "filter-node-name": "mid"}
- block-commit {"job-id": "j", "device": "top", "top-node": "mid", "filter-node-name": "1"}
- block-commit {"job-id": "j", "device": "top", "top-node": "mid", "filter-node-name": ""}
- block-commit {"job-id": "j", "device": "top", "filter-node-name": ""}
- block-commit {"job-id": "j", "device": "top", "auto-finalize": "x"}
- block-commit {"job-id": "j", "device": "top", "target": "x"}
+ query-jobs
+ query-named-block-nodes {"flat": true}
. write mid 0 65536 1
+ block-commit {"job-id": "j", "device": "top", "top-node": "mid", "base-node": "low", "filter-node-name": "filter", "auto-finalize": false, "auto-dismiss": false}
. wait j pending
- block-commit {"job-id": "j", "device": "other"}
- block-commit {"job-id": "k", "device": "top"}
- block-commit {"job-id": "k", "device": "top", "top-node": "mid"}
- block-commit {"job-id": "k", "device": "top", "top-node": "low"}
- block-commit {"job-id": "k", "device": "top", "top-node": "low", "base-node": "base"}
- block-commit {"job-id": "k", "device": "top", "top-node": "filter"}
- block-commit {"job-id": "k", "device": "filter"}
- block-stream {"job-id": "k", "device": "top"}
- block-stream {"job-id": "k", "device": "top", "base-node": "low"}
- block-stream {"job-id": "k", "device": "top", "base-node": "filter"}
- block-stream {"job-id": "k", "device": "top", "base-node": "mid"}
- block-stream {"job-id": "k", "device": "low"}
- block-stream {"job-id": "k", "device": "mid"}
- blockdev-mirror {"job-id": "k", "device": "top", "target": "t", "sync": "full", "replaces": "mid"}
- blockdev-mirror {"job-id": "k", "device": "top", "target": "low", "sync": "full"}
- blockdev-mirror {"job-id": "k", "device": "top", "target": "filter", "sync": "full"}
- blockdev-backup {"job-id": "k", "device": "mid", "target": "t", "sync": "full"}
- blockdev-backup {"job-id": "k", "device": "other", "target": "low", "sync": "full"}
- blockdev-snapshot {"node": "mid", "overlay": "other"}
- change-backing-file {"device": "top", "image-node-name": "mid", "backing-file": "x"}
- change-backing-file {"device": "top", "image-node-name": "low", "backing-file": "x"}
- block_resize {"node-name": "low", "size": 8388608}
- block_resize {"node-name": "mid", "size": 8388608}
- block_resize {"node-name": "base", "size": 8388608}
+ blockdev-reopen {"options": [{"driver": "qcow2", "node-name": "base", "file": "base-file", "read-only": true}]}
- blockdev-del {"node-name": "mid"}
- blockdev-del {"node-name": "filter"}
- blockdev-del {"node-name": "low"}
+ x-debug-query-block-graph
- job-complete {"id": "j"}
+ job-finalize {"id": "j"}
. wait j concluded
+ job-dismiss {"id": "j"}
+ query-named-block-nodes {"flat": true}
+ blockdev-del {"node-name": "mid"}
""",
    files=chain_files,
)

STREAM = Group(
    "block-stream",
    _CHAIN
    + """
+ blockdev-add {"driver": "qcow2", "node-name": "ro", "file": {"driver": "file", "filename": "u.qcow2"}, "read-only": true}
+ blockdev-add {"driver": "copy-on-read", "node-name": "cor", "file": "top"}
- block-stream {}
- block-stream {"job-id": "j"}
- block-stream {"device": "top"}
- block-stream {"job-id": "", "device": "top"}
- block-stream {"job-id": "1x", "device": "top"}
- block-stream {"job-id": "j", "device": "absent"}
- block-stream {"job-id": "j", "device": ""}
- block-stream {"job-id": "j", "device": "top", "base": "absent.qcow2"}
- block-stream {"job-id": "j", "device": "top", "base": ""}
- block-stream {"job-id": "j", "device": "top", "base": "top.qcow2"}
- block-stream {"job-id": "j", "device": "top", "base-node": "absent"}
- block-stream {"job-id": "j", "device": "top", "base-node": "top"}
- block-stream {"job-id": "j", "device": "top", "base-node": "other"}
- block-stream {"job-id": "j", "device": "top", "base-node": "top-file"}
- block-stream {"job-id": "j", "device": "mid", "base-node": "top"}
- block-stream {"job-id": "j", "device": "top", "bottom": "absent"}
- block-stream {"job-id": "j", "device": "top", "bottom": "other"}
- block-stream {"job-id": "j", "device": "mid", "bottom": "top"}
- block-stream {"job-id": "j", "device": "cor", "bottom": "cor"}
- block-stream {"job-id": "j", "device": "top", "bottom": ""}
- block-stream {"job-id": "j", "device": "top", "base": "base.qcow2", "base-node": "base"}
- block-stream {"job-id": "j", "device": "top", "base": "base.qcow2", "bottom": "low"}
- block-stream {"job-id": "j", "device": "top", "bottom": "low", "base-node": "base"}
- block-stream {"job-id": "j", "device": "top", "base": "x", "bottom": "low", "base-node": "base"}
- block-stream {"job-id": "j", "device": "top", "backing-file": "x"}
- block-stream {"job-id": "j", "device": "top", "base-node": "base", "backing-file": 1}
- block-stream {"job-id": "j", "device": "top", "speed": -1}
- block-stream {"job-id": "j", "device": "top", "speed": "x"}
- block-stream {"job-id": "j", "device": "top", "on-error": "zzz"}
- block-stream {"job-id": "j", "device": "top", "on-error": "stop", "speed": -1}
- block-stream {"job-id": "j", "device": "top", "on-error": "enospc", "speed": -1}
- block-stream {"job-id": "j", "device": "top", "filter-node-name": "mid"}
- block-stream {"job-id": "j", "device": "top", "filter-node-name": "1"}
- block-stream {"job-id": "j", "device": "top", "filter-node-name": ""}
- block-stream {"job-id": "j", "device": "top", "auto-dismiss": 1}
- block-stream {"job-id": "j", "device": "top", "top": "x"}
- block-stream {"job-id": "j", "device": "null", "base-node": "base"}
+ query-jobs
+ query-named-block-nodes {"flat": true}
+ blockdev-del {"node-name": "cor"}
+ block-stream {"job-id": "ro", "device": "ro"}
. wait ro null
+ block-stream {"job-id": "null", "device": "null"}
. wait null null
- block-stream {"job-id": "file", "device": "base-file"}
+ block-stream {"job-id": "j", "device": "top", "base-node": "base", "filter-node-name": "filter", "auto-finalize": false, "auto-dismiss": false}
. wait j pending
- block-stream {"job-id": "j", "device": "other"}
- block-stream {"job-id": "k", "device": "top"}
- block-stream {"job-id": "k", "device": "filter"}
- block-stream {"job-id": "k", "device": "mid"}
- block-stream {"job-id": "k", "device": "low"}
- block-stream {"job-id": "k", "device": "other", "filter-node-name": "filter"}
- block-commit {"job-id": "k", "device": "top"}
- block-commit {"job-id": "k", "device": "filter"}
- block-commit {"job-id": "k", "device": "filter", "top-node": "mid"}
- block-commit {"job-id": "k", "device": "filter", "top-node": "low", "base-node": "base"}
- blockdev-mirror {"job-id": "k", "device": "top", "target": "t", "sync": "full"}
- blockdev-mirror {"job-id": "k", "device": "filter", "target": "t", "sync": "full"}
- blockdev-mirror {"job-id": "k", "device": "other", "target": "mid", "sync": "full"}
- blockdev-mirror {"job-id": "k", "device": "other", "target": "base", "sync": "full"}
- blockdev-backup {"job-id": "k", "device": "top", "target": "t", "sync": "full"}
- blockdev-backup {"job-id": "k", "device": "mid", "target": "t", "sync": "full"}
- blockdev-snapshot {"node": "top", "overlay": "other"}
- blockdev-snapshot {"node": "filter", "overlay": "other"}
- change-backing-file {"device": "filter", "image-node-name": "top", "backing-file": "x"}
- change-backing-file {"device": "filter", "image-node-name": "mid", "backing-file": "x"}
- block_resize {"node-name": "top", "size": 8388608}
- block_resize {"node-name": "base", "size": 8388608}
- blockdev-reopen {"options": [{"driver": "qcow2", "node-name": "top", "file": "top-file", "backing": null}]}
- blockdev-reopen {"options": [{"driver": "qcow2", "node-name": "top", "file": "top-file", "backing": "base"}]}
- blockdev-del {"node-name": "top"}
- blockdev-del {"node-name": "filter"}
- blockdev-del {"node-name": "mid"}
- job-complete {"id": "j"}
+ job-finalize {"id": "j"}
. wait j concluded
+ job-dismiss {"id": "j"}
+ query-named-block-nodes {"flat": true}
+ blockdev-del {"node-name": "mid"}
+ blockdev-del {"node-name": "low"}
""",
    files=chain_files,
)

SNAPSHOT = Group(
    "external-snapshots",
    _CHAIN
    + """
+ blockdev-add {"driver": "qcow2", "node-name": "large", "file": {"driver": "file", "filename": "large.qcow2"}}
+ blockdev-add {"driver": "qcow2", "node-name": "backed", "file": {"driver": "file", "filename": "u.qcow2"}, "backing": "base"}
+ blockdev-add {"driver": "raw", "node-name": "raw", "file": {"driver": "file", "filename": "t.raw"}}
+ blockdev-add {"driver": "copy-on-read", "node-name": "cor", "file": {"driver": "null-co", "size": 4194304}}
- blockdev-snapshot {}
- blockdev-snapshot {"node": "top"}
- blockdev-snapshot {"overlay": "other"}
- blockdev-snapshot {"node": "absent", "overlay": "other"}
- blockdev-snapshot {"node": "top", "overlay": "absent"}
- blockdev-snapshot {"node": "", "overlay": "other"}
- blockdev-snapshot {"node": "top", "overlay": ""}
- blockdev-snapshot {"node": "top", "overlay": "top"}
- blockdev-snapshot {"node": "top", "overlay": "mid"}
- blockdev-snapshot {"node": "mid", "overlay": "top"}
- blockdev-snapshot {"node": "base", "overlay": "other"}
- blockdev-snapshot {"node": "top", "overlay": "backed"}
- blockdev-snapshot {"node": "top", "overlay": "raw"}
- blockdev-snapshot {"node": "top", "overlay": "null"}
- blockdev-snapshot {"node": "top", "overlay": "cor"}
- blockdev-snapshot {"node": "top", "overlay": "top-file"}
+ blockdev-snapshot {"node": "top-file", "overlay": "other"}
- blockdev-snapshot {"node": "raw", "overlay": "null"}
- blockdev-snapshot {"node": "top", "overlay": "other", "mode": "existing"}
- blockdev-snapshot {"node": 1, "overlay": "other"}
- blockdev-snapshot-sync {"node-name": "mid", "snapshot-file": "s1.qcow2", "snapshot-node-name": "s"}
- blockdev-snapshot-sync {"node-name": "top", "snapshot-file": "s1.qcow2", "snapshot-node-name": "top"}
- blockdev-snapshot-sync {"node-name": "top", "snapshot-file": "s1.qcow2", "snapshot-node-name": ""}
+ blockdev-snapshot-sync {"node-name": "top", "device": "absent", "snapshot-file": "s1.qcow2", "snapshot-node-name": "s"}
- blockdev-snapshot-sync {"node-name": "top", "device": "top", "snapshot-file": "s1.qcow2"}
+ blockdev-snapshot-sync {"node-name": "null", "snapshot-file": "s1.qcow2", "snapshot-node-name": "s", "mode": "existing"}
- blockdev-snapshot-sync {"node-name": "top", "snapshot-file": "top.qcow2", "snapshot-node-name": "s"}
- blockdev-snapshot-sync {"node-name": "top", "snapshot-file": "folder", "snapshot-node-name": "s"}
- blockdev-snapshot-sync {"node-name": "top", "snapshot-file": "s1.qcow2", "snapshot-node-name": "s", "mode": "zzz"}
- blockdev-snapshot-sync {"node-name": "top", "snapshot-file": "t.raw", "snapshot-node-name": "s", "mode": "existing"}
+ blockdev-snapshot {"node": "null", "overlay": "large"}
- blockdev-snapshot {"node": "top", "overlay": "other"}
- blockdev-snapshot {"node": "top", "overlay": "other"}
- change-backing-file {"device": "other", "image-node-name": "t", "backing-file": "x"}
+ change-backing-file {"device": "top", "image-node-name": "top", "backing-file": "x"}
- change-backing-file {"device": "other", "image-node-name": "top", "backing-file": "mid.qcow2"}
- change-backing-file {"device": "other", "image-node-name": "top-file", "backing-file": "x"}
- change-backing-file {"device": "other", "image-node-name": "null", "backing-file": "x"}
- change-backing-file {"device": "other", "image-node-name": "other", "backing-file": "top.qcow2"}
+ query-named-block-nodes {"flat": true}
+ x-debug-query-block-graph
""",
    files=chain_files,
)

REOPEN_MANY = Group(
    "reopen-many",
    _CHAIN
    + """
+ blockdev-add {"driver": "file", "node-name": "f1", "filename": "t.raw"}
+ blockdev-add {"driver": "null-co", "node-name": "f2", "size": 4194304}
+ blockdev-add {"driver": "raw", "node-name": "r1", "file": "f1"}
+ blockdev-add {"driver": "raw", "node-name": "r2", "file": "f2"}
+ blockdev-reopen {"options": [{"driver": "raw", "node-name": "r1", "file": "f2"}, {"driver": "raw", "node-name": "r2", "file": "f1"}]}
- blockdev-reopen {"options": [{"driver": "raw", "node-name": "r1", "file": "f1"}, {"driver": "raw", "node-name": "r2", "file": "f2"}, {"driver": "raw", "node-name": "absent", "file": "f2"}]}
- blockdev-reopen {"options": [{"driver": "raw", "node-name": "r1", "file": "r2"}, {"driver": "raw", "node-name": "r2", "file": "r1"}]}
+ blockdev-reopen {"options": [{"driver": "raw", "node-name": "r1", "file": "r2"}]}
- blockdev-reopen {"options": [{"driver": "raw", "node-name": "r2", "file": "r1"}]}
- blockdev-reopen {"options": [{"driver": "raw", "node-name": "r1", "file": "r1"}]}
+ blockdev-reopen {"options": [{"driver": "raw", "node-name": "r1", "file": "f2"}]}
+ blockdev-reopen {"options": [{"driver": "raw", "node-name": "r1", "file": "f1"}, {"driver": "raw", "node-name": "r1", "file": "f2"}]}
- blockdev-reopen {"options": [{"driver": "raw", "node-name": "r1"}, {"driver": "raw", "node-name": "r2"}]}
- blockdev-reopen {"options": [{"driver": "raw", "node-name": "r1", "file": "f1"}, "x"]}
- blockdev-reopen {"options": [{"driver": "raw", "node-name": "r1", "file": "f1"}, {"driver": "qcow2", "node-name": "top", "file": "top-file", "backing": "absent"}]}
- blockdev-reopen {"options": [{"driver": "qcow2", "node-name": "top", "file": "top-file", "backing": "mid", "read-only": true}, {"driver": "qcow2", "node-name": "other", "file": "t-file"}]}
+ blockdev-reopen {"options": [{"driver": "qcow2", "node-name": "top", "file": "top-file", "backing": "low"}]}
+ blockdev-reopen {"options": [{"driver": "qcow2", "node-name": "top", "file": "top-file", "backing": "mid"}]}
- blockdev-reopen {"options": [{"driver": "qcow2", "node-name": "base", "file": "base-file", "backing": "top"}]}
+ blockdev-reopen {"options": [{"driver": "qcow2", "node-name": "base", "file": "base-file", "backing": "t"}]}
+ blockdev-reopen {"options": [{"driver": "qcow2", "node-name": "base", "file": "base-file", "backing": null}, {"driver": "qcow2", "node-name": "t", "file": "t-file", "backing": "base"}]}
- blockdev-reopen {"options": [{"driver": "qcow2", "node-name": "base", "file": "t-file"}]}
+ blockdev-reopen {"options": [{"driver": "qcow2", "node-name": "top", "file": "t-file", "backing": null}, {"driver": "qcow2", "node-name": "t", "file": "top-file", "backing": "mid"}]}
+ blockdev-reopen {"options": [{"driver": "qcow2", "node-name": "top", "file": "top-file", "backing": null}, {"driver": "qcow2", "node-name": "t", "file": "t-file", "backing": "mid"}]}
- blockdev-reopen {"options": [{"driver": "qcow2", "node-name": "t", "file": "t-file", "backing": "r1"}, {"driver": "raw", "node-name": "r1", "file": "t"}]}
+ query-named-block-nodes {"flat": true}
+ x-debug-query-block-graph
+ blockdev-reopen {"options": [{"driver": "qcow2", "node-name": "t", "file": "t-file", "backing": null}, {"driver": "qcow2", "node-name": "top", "file": "top-file", "backing": "mid"}]}
+ x-debug-query-block-graph
""",
    files=chain_files,
)

GROUPS = [MIRROR, DRIVE_MIRROR, COMMIT, STREAM, SNAPSHOT, REOPEN_MANY]
