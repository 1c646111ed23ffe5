"""What commands drawn at random (``drawn_commands``) were answered otherwise, until it was mended."""

from compat.drawn_commands import prepare
from compat.verdicts.table import Group

GROUPS = [
    Group(
        "drawn-options",
        r"""
+ blockdev-add {"driver": "null-co", "node-name": "null", "size": 1048576}
- blockdev-add {"driver": "null-co", "node-name": "x", "cache": {}}
- blockdev-add {"driver": "raw", "node-name": "x", "cache": {}, "file": "null"}
- blockdev-add {"driver": "raw", "node-name": "x", "file": {"driver": "null-co", "cache": {}}}
- blockdev-add {"driver": "blkdebug", "node-name": "x", "inject-error": [], "image": "null"}
- blockdev-add {"driver": "blkdebug", "node-name": "x", "take-child-perms": [], "image": "null"}
- blockdev-add {"driver": "quorum", "node-name": "x", "children": ["null"], "vote-threshold": 4611686018427387904}
- query-block {"": 1}
- object-add {"qom-type": "throttle-group", "id": "g", "limits": {"iops-write-max": 5}, "x-iops-read-max-length": 4611686018427387904}
- object-add {"qom-type": "secret", "id": "s", "keyid": "s", "data": "d"}
- blockdev-add {"driver": "qcow2", "node-name": "x", "file": "null", "data-file": "none"}
- blockdev-add {"driver": "nbd", "node-name": "x", "server": {"type": "inet", "host": "127.0.0.1", "port": "1", "mptcp": true}}
- nbd-server-start {"addr": {"type": "inet", "data": {"host": "127.0.0.1", "port": "1", "numeric": true, "to": 0}}}
+ object-add {"qom-type": "throttle-group", "id": "tg"}
+ blockdev-add {"driver": "throttle", "node-name": "t", "file": "null", "throttle-group": "tg"}
+ blockdev-add {"driver": "compress", "node-name": "c", "file": "t"}
- blockdev-reopen {"options": [{"driver": "throttle", "node-name": "t", "file": "null"}]}
- blockdev-reopen {"options": [{"driver": "throttle", "node-name": "null", "throttle-group": "tg", "file": "c"}]}
- blockdev-backup {"job-id": "j", "device": "t", "sync": "full", "target": "null"}
+ block-set-write-threshold {"node-name": "null", "write-threshold": -1}
+ query-named-block-nodes {"flat": true}
""",
        files=prepare,
    ),
    Group(
        "drawn-images",
        r"""
+ blockdev-add {"driver": "raw", "node-name": "raw", "file": {"driver": "file", "filename": "b.raw"}}
+ blockdev-add {"driver": "qcow2", "node-name": "q", "file": {"driver": "file", "filename": "a.qcow2"}}
- blockdev-reopen {"options": [{"driver": "quorum", "node-name": "q", "children": ["raw"], "vote-threshold": 1}]}
- blockdev-reopen {"options": [{"driver": "raw", "node-name": "q", "file": "q", "offset": 512}]}
- blockdev-reopen {"options": [{"driver": "qcow2", "node-name": "q", "file": "raw", "encrypt": {"format": "luks"}}]}
- blockdev-reopen {"options": [{"driver": "copy-before-write", "node-name": "raw", "file": "q", "target": "none", "bitmap": {"node": "q", "name": "q"}}]}
- blockdev-add {"driver": "preallocate", "node-name": "q", "file": {"driver": "copy-before-write", "node-name": "x", "file": "raw", "target": "raw"}}
- drive-backup {"job-id": "j", "device": "q", "sync": "none", "bitmap-mode": "on-success", "target": "a.raw", "format": "raw", "mode": "existing"}
+ blockdev-create {"job-id": "k", "options": {"driver": "file", "filename": "text", "size": -1}}
. wait k concluded
+ query-jobs
+ blockdev-create {"job-id": "l", "options": {"driver": "qcow2", "size": 65536, "file": {"driver": "null-co", "size": 1048576, "cache": {}}}}
. wait l concluded
+ query-jobs
+ x-blockdev-amend {"job-id": "a", "node-name": "q", "options": {"driver": "qcow2"}}
. wait a concluded
- blockdev-del {"node-name": "q"}
+ job-dismiss {"id": "a"}
+ blockdev-del {"node-name": "q"}
""",
        files=prepare,
    ),
    Group(
        "drawn-sizes",
        r"""
+ blockdev-add {"driver": "file", "node-name": "f", "filename": "a.raw"}
+ blockdev-add {"driver": "blkverify", "node-name": "v", "test": {"driver": "null-co", "size": 1048576}, "raw": {"driver": "null-co", "size": 1048576}}
+ blockdev-add {"driver": "copy-before-write", "node-name": "c", "file": "f", "target": "v"}
+ query-named-block-nodes
""",
        files=prepare,
    ),
    Group(
        "drawn-mirrors",
        r"""
+ blockdev-add {"driver": "null-co", "node-name": "n", "size": 1048576}
+ blockdev-add {"driver": "qcow2", "node-name": "q", "file": {"driver": "file", "filename": "a.qcow2"}}
+ blockdev-add {"driver": "blklogwrites", "node-name": "l", "discard": "unmap", "file": {"driver": "file", "filename": "a.raw"}, "log": "n"}
+ blockdev-mirror {"job-id": "j", "device": "q", "target": "l", "sync": "full"}
. wait j ready
+ query-jobs
""",
        files=prepare,
    ),
    Group(
        "drawn-new-children",
        r"""
+ blockdev-add {"driver": "null-co", "node-name": "a", "size": 1048576}
+ blockdev-add {"driver": "null-co", "node-name": "b", "size": 1048576}
+ blockdev-add {"driver": "qcow2", "node-name": "q", "file": {"driver": "file", "filename": "b.qcow2"}}
+ blockdev-mirror {"job-id": "j", "device": "a", "target": "b", "sync": "full"}
. wait j ready
- blockdev-reopen {"options": [{"driver": "qcow2", "node-name": "q", "file": "a"}]}
+ blockdev-reopen {"options": [{"driver": "qcow2", "node-name": "q", "file": {"driver": "file", "filename": "b.qcow2"}, "backing": "a"}]}
+ blockdev-reopen {"options": [{"driver": "qcow2", "node-name": "q", "file": {"driver": "file", "filename": "b.qcow2"}, "backing": null}]}
+ query-jobs
""",
        files=prepare,
    ),
    Group(
        "drawn-after-refusal",
        r"""
+ blockdev-add {"driver": "null-co", "node-name": "null", "size": 1048576}
+ blockdev-add {"driver": "raw", "node-name": "raw", "file": {"driver": "file", "filename": "b.raw"}}
- blockdev-reopen {"options": [{"driver": "compress", "node-name": "raw", "file": "null"}]}
+ blockdev-reopen {"options": [{"driver": "raw", "node-name": "raw", "file": {"driver": "file", "filename": "b.raw"}}]}
+ nbd-server-start {"addr": {"type": "unix", "data": {"path": "s"}}}
+ nbd-server-stop
- blockdev-add {"driver": "nbd", "node-name": "x", "server": {"type": "unix", "path": "s"}}
+ block-dirty-bitmap-add {"node": "null", "name": "b"}
- transaction {"actions": [{"type": "block-dirty-bitmap-remove", "data": {"node": "null", "name": "b"}}, {"type": "block-dirty-bitmap-enable", "data": {"node": "null", "name": "b"}}]}
+ query-named-block-nodes
+ block-dirty-bitmap-enable {"node": "null", "name": "b"}
- transaction {"actions": [{"type": "block-dirty-bitmap-enable", "data": {"node": "null", "name": "b"}}, {"type": "block-dirty-bitmap-clear", "data": {"node": "null", "name": "none"}}]}
+ query-named-block-nodes
- nbd-server-start {"addr": {"type": "unix", "data": {"path": "s"}}, "tls-creds": "none"}
- blockdev-add {"driver": "nbd", "node-name": "x", "server": {"type": "unix", "path": "s"}}
""",
        files=prepare,
    ),
]
