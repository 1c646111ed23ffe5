"""blockdev-backup's parameters, and jobs in every state that a client can meet."""

from pathlib import Path

from compat.daemon import image
from compat.verdicts.table import Group


def backup_files(folder: Path) -> None:
    image("create", "-f", "qcow2", "s.qcow2", "4M", cwd=folder)
    for name in ("d.qcow2", "e.qcow2"):
        image("create", "-f", "qcow2", name, "4M", cwd=folder)
    image("create", "-f", "qcow2", "-b", "s.qcow2", "-F", "qcow2", "o.qcow2", cwd=folder)
    image("create", "-f", "qcow2", "small.qcow2", "1M", cwd=folder)
    image("create", "-f", "raw", "d.raw", "4M", cwd=folder)


_NODES = """
+ blockdev-add {"driver": "qcow2", "node-name": "s", "file": {"driver": "file", "filename": "s.qcow2", "node-name": "sf"}}
+ blockdev-add {"driver": "qcow2", "node-name": "d", "file": {"driver": "file", "filename": "d.qcow2", "node-name": "df"}}
+ blockdev-add {"driver": "null-co", "node-name": "n", "size": 4194304}
"""

PARAMETERS = Group(
    "backup-parameters",
    _NODES
    + """
+ blockdev-add {"driver": "qcow2", "node-name": "small", "file": {"driver": "file", "filename": "small.qcow2"}}
+ blockdev-add {"driver": "qcow2", "node-name": "ro", "file": {"driver": "file", "filename": "e.qcow2"}, "read-only": true}
+ block-dirty-bitmap-add {"node": "s", "name": "b"}
+ block-dirty-bitmap-add {"node": "s", "name": "dis", "disabled": true}
+ block-dirty-bitmap-add {"node": "s", "name": "big", "granularity": 2097152}
- blockdev-backup {}
- blockdev-backup {"device": "s", "target": "d"}
- blockdev-backup {"device": "s", "sync": "full"}
- blockdev-backup {"target": "d", "sync": "full"}
- blockdev-backup {"device": "s", "target": "d", "sync": "full"}
- blockdev-backup {"job-id": "", "device": "s", "target": "d", "sync": "full"}
- blockdev-backup {"job-id": "1x", "device": "s", "target": "d", "sync": "full"}
- blockdev-backup {"job-id": "a b", "device": "s", "target": "d", "sync": "full"}
- blockdev-backup {"job-id": 1, "device": "s", "target": "d", "sync": "full"}
- blockdev-backup {"job-id": "j", "device": "absent", "target": "d", "sync": "full"}
- blockdev-backup {"job-id": "j", "device": "s", "target": "absent", "sync": "full"}
- blockdev-backup {"job-id": "j", "device": "s", "target": "s", "sync": "full"}
- blockdev-backup {"job-id": "j", "device": "s", "target": "sf", "sync": "full"}
- blockdev-backup {"job-id": "j", "device": "s", "target": "small", "sync": "full"}
- blockdev-backup {"job-id": "j", "device": "s", "target": "ro", "sync": "full"}
- blockdev-backup {"job-id": "j", "device": "s", "target": "d", "sync": "zzz"}
- blockdev-backup {"job-id": "j", "device": "s", "target": "d", "sync": 1}
- blockdev-backup {"job-id": "j", "device": "s", "target": "d", "sync": "incremental"}
- blockdev-backup {"job-id": "j", "device": "s", "target": "d", "sync": "bitmap"}
- blockdev-backup {"job-id": "j", "device": "s", "target": "d", "sync": "bitmap", "bitmap": "b"}
- blockdev-backup {"job-id": "j", "device": "s", "target": "d", "sync": "bitmap", "bitmap-mode": "always"}
- blockdev-backup {"job-id": "j", "device": "s", "target": "d", "sync": "incremental", "bitmap": "absent"}
- blockdev-backup {"job-id": "j", "device": "s", "target": "d", "sync": "incremental", "bitmap": "b", "bitmap-mode": "never"}
- blockdev-backup {"job-id": "j", "device": "s", "target": "d", "sync": "incremental", "bitmap": "b", "bitmap-mode": "zzz"}
- blockdev-backup {"job-id": "j", "device": "s", "target": "d", "sync": "full", "bitmap": "b"}
+ blockdev-backup {"job-id": "j", "device": "s", "target": "d", "sync": "full", "bitmap": "b", "bitmap-mode": "on-success"}
. wait j null
- blockdev-backup {"job-id": "j", "device": "s", "target": "d", "sync": "full", "bitmap-mode": "always"}
- blockdev-backup {"job-id": "j", "device": "s", "target": "d", "sync": "full", "bitmap": "b", "bitmap-mode": "never"}
- blockdev-backup {"job-id": "j", "device": "s", "target": "d", "sync": "none", "bitmap": "b", "bitmap-mode": "always"}
- blockdev-backup {"job-id": "j", "device": "s", "target": "d", "sync": "top", "bitmap": "b"}
- blockdev-backup {"job-id": "j", "device": "s", "target": "d", "sync": "full", "speed": -1}
- blockdev-backup {"job-id": "j", "device": "s", "target": "d", "sync": "full", "speed": "1M"}
- blockdev-backup {"job-id": "j", "device": "s", "target": "d", "sync": "full", "compress": 1}
- blockdev-backup {"job-id": "j", "device": "s", "target": "n", "sync": "full", "compress": true}
+ blockdev-backup {"job-id": "j", "device": "s", "target": "d", "sync": "full", "on-source-error": "stop"}
. wait j null
+ blockdev-backup {"job-id": "j", "device": "s", "target": "d", "sync": "full", "on-target-error": "enospc"}
. wait j null
- blockdev-backup {"job-id": "j", "device": "s", "target": "d", "sync": "full", "on-target-error": "zzz"}
- blockdev-backup {"job-id": "j", "device": "s", "target": "d", "sync": "full", "auto-finalize": "no"}
- blockdev-backup {"job-id": "j", "device": "s", "target": "d", "sync": "full", "filter-node-name": "s"}
- blockdev-backup {"job-id": "j", "device": "s", "target": "d", "sync": "full", "filter-node-name": "1x"}
- blockdev-backup {"job-id": "j", "device": "s", "target": "d", "sync": "full", "x-perf": {"max-workers": 0}}
- blockdev-backup {"job-id": "j", "device": "s", "target": "d", "sync": "full", "x-perf": {"max-workers": 2147483648}}
- blockdev-backup {"job-id": "j", "device": "s", "target": "d", "sync": "full", "x-perf": {"max-chunk": -1}}
- blockdev-backup {"job-id": "j", "device": "s", "target": "d", "sync": "full", "x-perf": {"max-chunk": 1024}}
- blockdev-backup {"job-id": "j", "device": "s", "target": "d", "sync": "full", "x-perf": {"bogus": 1}}
- blockdev-backup {"job-id": "j", "device": "s", "target": "d", "sync": "full", "bogus": 1}
- blockdev-backup {"job-id": "j", "device": "s", "target": "d", "sync": "full", "format": "qcow2"}
+ query-jobs
+ query-block-jobs
+ query-named-block-nodes {"flat": true}
""",
    files=backup_files,
    untouched=False,
)

MISSING = Group(
    "job-missing",
    """
- job-cancel {"id": "j"}
- job-complete {"id": "j"}
- job-dismiss {"id": "j"}
- job-finalize {"id": "j"}
- job-pause {"id": "j"}
- job-resume {"id": "j"}
- job-pause {}
- job-pause {"id": 1}
- job-pause {"device": "j"}
- block-job-cancel {"device": "j"}
- block-job-cancel {"device": "j", "force": "x"}
- block-job-cancel {"device": "j", "force": true}
- block-job-complete {"device": "j"}
- block-job-dismiss {"id": "j"}
- block-job-dismiss {"device": "j"}
- block-job-finalize {"id": "j"}
- block-job-pause {"device": "j"}
- block-job-resume {"device": "j"}
- block-job-set-speed {"device": "j", "speed": 0}
- block-job-set-speed {"device": "j"}
- block-job-set-speed {"device": "j", "speed": "1"}
+ query-jobs
+ query-block-jobs
- query-jobs {"x": 1}
""",
)

RUNNING = Group(
    "job-running",
    _NODES
    + """
+ blockdev-add {"driver": "qcow2", "node-name": "e", "file": {"driver": "file", "filename": "e.qcow2"}}
. write s 0 4194304 1
+ block-dirty-bitmap-add {"node": "s", "name": "b"}
. write s 0 4194304 2
+ blockdev-backup {"job-id": "j", "device": "s", "target": "d", "sync": "incremental", "bitmap": "b", "speed": 1, "auto-dismiss": false, "filter-node-name": "cbw"}
- blockdev-backup {"job-id": "j", "device": "n", "target": "e", "sync": "full"}
- blockdev-backup {"job-id": "k", "device": "s", "target": "d", "sync": "full"}
- blockdev-backup {"job-id": "k", "device": "s", "target": "e", "sync": "incremental", "bitmap": "b"}
- blockdev-backup {"job-id": "k", "device": "d", "target": "e", "sync": "full"}
- blockdev-backup {"job-id": "k", "device": "n", "target": "s", "sync": "full"}
- blockdev-backup {"job-id": "k", "device": "cbw", "target": "e", "sync": "full"}
- block-dirty-bitmap-remove {"node": "s", "name": "b"}
- block-dirty-bitmap-clear {"node": "s", "name": "b"}
- block-dirty-bitmap-disable {"node": "s", "name": "b"}
- block-dirty-bitmap-enable {"node": "s", "name": "b"}
- block-dirty-bitmap-add {"node": "s", "name": "b"}
+ block-dirty-bitmap-add {"node": "s", "name": "c"}
- block-dirty-bitmap-merge {"node": "s", "target": "b", "bitmaps": ["c"]}
- block-dirty-bitmap-merge {"node": "s", "target": "c", "bitmaps": ["b"]}
- blockdev-del {"node-name": "s"}
- blockdev-del {"node-name": "d"}
- blockdev-del {"node-name": "cbw"}
- block_resize {"node-name": "s", "size": 8388608}
- block_resize {"node-name": "d", "size": 8388608}
- block_resize {"node-name": "cbw", "size": 8388608}
- change-backing-file {"device": "d", "image-node-name": "d", "backing-file": "x"}
+ blockdev-reopen {"options": [{"driver": "qcow2", "node-name": "s", "file": "sf", "read-only": true}]}
- job-complete {"id": "j"}
- job-finalize {"id": "j"}
- job-dismiss {"id": "j"}
- job-resume {"id": "j"}
- block-job-complete {"device": "j"}
- block-job-resume {"device": "j"}
- block-job-finalize {"id": "j"}
- block-job-dismiss {"id": "j"}
- block-job-set-speed {"device": "j", "speed": -1}
+ block-job-set-speed {"device": "j", "speed": 2}
+ query-named-block-nodes {"flat": true}
. forget
+ job-pause {"id": "j"}
. wait j paused
- job-pause {"id": "j"}
- job-complete {"id": "j"}
- job-dismiss {"id": "j"}
- job-finalize {"id": "j"}
+ job-resume {"id": "j"}
- job-resume {"id": "j"}
. forget
+ block-job-pause {"device": "j"}
- block-job-pause {"device": "j"}
- job-pause {"id": "j"}
. wait j paused
- job-resume {"id": "k"}
- block-job-set-speed {"device": "j", "speed": -2}
+ block-job-resume {"device": "j"}
+ job-cancel {"id": "j"}
. wait j concluded
- job-cancel {"id": "j"}
- block-job-cancel {"device": "j"}
- job-pause {"id": "j"}
- job-complete {"id": "j"}
- job-finalize {"id": "j"}
- block-job-set-speed {"device": "j", "speed": 0}
- blockdev-backup {"job-id": "j", "device": "s", "target": "d", "sync": "full"}
+ job-dismiss {"id": "j"}
- job-dismiss {"id": "j"}
+ query-jobs
+ query-block-jobs
+ x-debug-block-dirty-bitmap-sha256 {"node": "s", "name": "b"}
+ block-dirty-bitmap-remove {"node": "s", "name": "b"}
""",
    files=backup_files,
)

PENDING = Group(
    "job-pending",
    _NODES
    + """
. write s 0 65536 1
+ block-dirty-bitmap-add {"node": "s", "name": "b"}
. write s 65536 65536 2
+ blockdev-backup {"job-id": "j", "device": "s", "target": "d", "sync": "incremental", "bitmap": "b", "auto-finalize": false, "auto-dismiss": false, "filter-node-name": "cbw"}
. wait j pending
+ query-jobs
+ query-block-jobs
- block-dirty-bitmap-clear {"node": "s", "name": "b"}
- job-pause {"id": "j"}
- job-complete {"id": "j"}
- job-dismiss {"id": "j"}
- block-job-pause {"device": "j"}
- block-job-dismiss {"id": "j"}
- block-job-set-speed {"device": "j", "speed": 5}
- blockdev-del {"node-name": "d"}
+ job-finalize {"id": "j"}
. wait j concluded
+ query-jobs
+ query-block-jobs
- job-finalize {"id": "j"}
+ block-job-dismiss {"id": "j"}
+ query-named-block-nodes {"flat": true}
+ x-debug-block-dirty-bitmap-sha256 {"node": "s", "name": "b"}
+ blockdev-backup {"job-id": "k", "device": "s", "target": "d", "sync": "full", "auto-finalize": false, "auto-dismiss": false}
. wait k pending
+ job-cancel {"id": "k"}
. wait k concluded
+ query-jobs
+ job-dismiss {"id": "k"}
+ blockdev-backup {"job-id": "l", "device": "s", "target": "d", "sync": "none", "auto-finalize": false, "auto-dismiss": false}
- job-complete {"id": "l"}
+ block-job-cancel {"device": "l", "force": true}
. wait l concluded
+ query-jobs
+ block-job-dismiss {"id": "l"}
+ blockdev-del {"node-name": "d"}
+ blockdev-del {"node-name": "s"}
""",
    files=backup_files,
)

GROUPS = [PARAMETERS, MISSING, RUNNING, PENDING]
