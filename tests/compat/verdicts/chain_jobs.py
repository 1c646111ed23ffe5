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

GROUPS = [MIRROR]
