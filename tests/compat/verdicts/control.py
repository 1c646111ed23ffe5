"""Commands about the program rather than its disks: objects, descriptors, run state, HMP."""

from compat.daemon import RunningSystem, System
from compat.verdicts.drivers import qcow2_files
from compat.verdicts.table import Group

COMMANDS = Group(
    "commands",
    r"""
- nosuch
- nosuch {"a": 1}
- Query-version
- query_version
- query-version {"x": 1}
- query-version []
- query-version 1
+ query-version null
+ query-version {}
- qmp_capabilities
- qmp_capabilities {"enable": ["oob"]}
- query-commands {"x": null}
- query-qmp-schema {"x": null}
- quit {"x": 1}
- query-named-block-nodes {"Flat": true}
- query-named-block-nodes {"flat": null}
""",
)

OBJECTS = Group(
    "objects",
    r"""
+ object-add {"qom-type": "iothread", "id": "io"}
- object-add {"qom-type": "iothread", "id": "io"}
- object-add {"qom-type": "iothread"}
- object-add {"id": "x"}
- object-add {"qom-type": "zzz", "id": "x"}
- object-add {"qom-type": 1, "id": "x"}
- object-add {"qom-type": "iothread", "id": ""}
- object-add {"qom-type": "iothread", "id": "1x"}
- object-add {"qom-type": "iothread", "id": "a b"}
- object-add {"qom-type": "iothread", "id": "x", "bogus": 1}
- object-add {"qom-type": "iothread", "id": "x", "props": {}}
- object-add {"qom-type": "iothread", "id": "x", "poll-max-ns": "y"}
- object-add {"qom-type": "iothread", "id": "x", "poll-max-ns": -1}
+ object-add {"qom-type": "secret", "id": "sec", "data": "abc"}
- object-add {"qom-type": "secret", "id": "x"}
- object-add {"qom-type": "secret", "id": "x", "file": "absent"}
- object-add {"qom-type": "secret", "id": "x", "data": "a", "file": "b"}
- object-add {"qom-type": "secret", "id": "x", "data": "a", "format": "zzz"}
+ object-add {"qom-type": "throttle-group", "id": "tg", "limits": {"iops-total": 100}}
- object-add {"qom-type": "throttle-group", "id": "x", "limits": {"iops-total": 100, "iops-read": 1}}
- object-add {"qom-type": "throttle-group", "id": "x", "limits": {"iops-total": -1}}
- object-add {"qom-type": "throttle-group", "id": "x", "limits": {"bogus": 1}}
+ qom-list {"path": "/objects"}
+ qom-list {"path": "/objects/io"}
- qom-list {"path": "/absent"}
- qom-list {"path": ""}
- qom-list {}
- qom-list {"path": 1}
+ qom-get {"path": "/objects/io", "property": "poll-max-ns"}
+ qom-get {"path": "/objects/io", "property": "type"}
+ qom-get {"path": "io", "property": "poll-grow"}
- qom-get {"path": "/objects/io", "property": "absent"}
- qom-get {"path": "/objects/absent", "property": "type"}
- qom-get {"path": "/objects/io"}
+ qom-set {"path": "/objects/io", "property": "poll-max-ns", "value": 5}
+ qom-get {"path": "/objects/io", "property": "poll-max-ns"}
- qom-set {"path": "/objects/io", "property": "poll-max-ns", "value": "5"}
- qom-set {"path": "/objects/io", "property": "poll-max-ns", "value": -1}
- qom-set {"path": "/objects/io", "property": "absent", "value": 1}
- qom-set {"path": "/objects/io", "property": "type", "value": "x"}
- qom-set {"path": "/objects/absent", "property": "type", "value": "x"}
- qom-set {"path": "/objects/io", "property": "poll-max-ns"}
+ qom-get {"path": "/objects/tg", "property": "limits"}
+ qom-get {"path": "/objects/sec", "property": "format"}
- object-del {}
- object-del {"id": "absent"}
- object-del {"id": 1}
+ object-del {"id": "io"}
- object-del {"id": "io"}
+ object-del {"id": "sec"}
+ object-del {"id": "tg"}
+ qom-list {"path": "/objects"}
""",
)

DESCRIPTORS = Group(
    "descriptors",
    r"""
- getfd {"fdname": "a"}
-@ getfd {"fdname": "1a"}
+@ getfd {"fdname": ""}
- getfd {}
- getfd {"fdname": 1}
+@ getfd {"fdname": "a"}
+@ getfd {"fdname": "a"}
+@ getfd {"fdname": "b"}
- closefd {"fdname": "absent"}
- closefd {}
+ closefd {"fdname": "a"}
- closefd {"fdname": "a"}
+ closefd {"fdname": "b"}
+ query-fdsets
- add-fd
- add-fd {"fdset-id": 1}
-@ add-fd {"fdset-id": -1}
-@ add-fd {"fdset-id": "1"}
-@ add-fd {"fdset-id": 1, "opaque": 1}
+@ add-fd {"fdset-id": 5, "opaque": "hello"}
+ query-fdsets
- remove-fd {"fdset-id": 6}
- remove-fd {"fdset-id": 5, "fd": 9999}
- remove-fd {}
- remove-fd {"fdset-id": "5"}
+ remove-fd {"fdset-id": 5}
- remove-fd {"fdset-id": 5}
+ query-fdsets
+@ add-fd
+@ add-fd {"fdset-id": 3}
+ remove-fd {"fdset-id": 0}
+ query-fdsets
- blockdev-add {"driver": "file", "node-name": "f", "filename": "/dev/fdset/9"}
- blockdev-add {"driver": "file", "node-name": "f", "filename": "/dev/fdset/x"}
- blockdev-add {"driver": "file", "node-name": "f", "filename": "/dev/fdset/3"}
""",
    oracle=RunningSystem,
)

RUN_STATE = Group(
    "run-state",
    r"""
+ query-name
+ query-uuid
- query-name {"x": 1}
- query-uuid {"x": 1}
- query-status {"x": 1}
- cont {"x": 1}
- stop {"x": 1}
+ query-status
+ cont
+ query-status
+ stop
+ query-status
+ stop
+ query-status
+ cont
+ query-status
- query-command-line-options {"option": "nosuch"}
- query-command-line-options {"option": 1}
""",
    oracle=RunningSystem,
)

HMP = Group(
    "hmp",
    r"""
+ blockdev-add {"driver": "null-co", "node-name": "n", "size": 1048576, "read-zeroes": true}
+ blockdev-add {"driver": "qcow2", "node-name": "q", "file": {"driver": "file", "filename": "a.qcow2"}}
+ blockdev-add {"driver": "raw", "node-name": "ro", "file": {"driver": "file", "filename": "fixed.raw"}, "read-only": true}
- human-monitor-command {}
- human-monitor-command {"command-line": 1}
- human-monitor-command {"command-line": "", "cpu-index": "x"}
+ human-monitor-command {"command-line": ""}
+ human-monitor-command {"command-line": "nosuch"}
+ human-monitor-command {"command-line": "qemu-io"}
+ human-monitor-command {"command-line": "qemu-io absent \"read 0 512\""}
+ human-monitor-command {"command-line": "qemu-io q"}
+ human-monitor-command {"command-line": "qemu-io q \"\""}
+ human-monitor-command {"command-line": "qemu-io q nosuch"}
+ human-monitor-command {"command-line": "qemu-io q \"read\""}
+ human-monitor-command {"command-line": "qemu-io q \"read 0\""}
+ human-monitor-command {"command-line": "qemu-io q \"read x 512\""}
+ human-monitor-command {"command-line": "qemu-io q \"read 0 x\""}
+ human-monitor-command {"command-line": "qemu-io q \"read 0 100\""}
+ human-monitor-command {"command-line": "qemu-io q \"read -z 0 512\""}
+ human-monitor-command {"command-line": "qemu-io q \"read -P 0 0 512 3\""}
+ human-monitor-command {"command-line": "qemu-io q \"read -q 0 512\""}
+ human-monitor-command {"command-line": "qemu-io q \"read -q -P 0 0 512\""}
+ human-monitor-command {"command-line": "qemu-io q \"read -P 1 0 512\""}
+ human-monitor-command {"command-line": "qemu-io q \"read -P 300 0 512\""}
+ human-monitor-command {"command-line": "qemu-io q \"read 2M 512\""}
+ human-monitor-command {"command-line": "qemu-io q \"read -1 512\""}
+ human-monitor-command {"command-line": "qemu-io q \"write -q -P 7 64k 1k\""}
+ human-monitor-command {"command-line": "qemu-io q \"read -q -P 7 64k 1k\""}
+ human-monitor-command {"command-line": "qemu-io q \"write -z -P 7 64k 1k\""}
+ human-monitor-command {"command-line": "qemu-io q \"write -q -z 64k 64k\""}
+ human-monitor-command {"command-line": "qemu-io q \"write -q -z -u 0 64k\""}
+ human-monitor-command {"command-line": "qemu-io q \"write -u 0 64k\""}
+ human-monitor-command {"command-line": "qemu-io q \"write -q -f 128k 512\""}
+ human-monitor-command {"command-line": "qemu-io q \"write 2M 512\""}
+ human-monitor-command {"command-line": "qemu-io ro \"write 0 512\""}
+ human-monitor-command {"command-line": "qemu-io q \"aio_write -q -P 9 256k 4k\""}
+ human-monitor-command {"command-line": "qemu-io q aio_flush"}
+ human-monitor-command {"command-line": "qemu-io q \"aio_read -q -P 9 256k 4k\""}
+ human-monitor-command {"command-line": "qemu-io q aio_flush"}
+ human-monitor-command {"command-line": "qemu-io q \"read -q -P 9 256k 4k\""}
+ human-monitor-command {"command-line": "qemu-io q flush"}
+ human-monitor-command {"command-line": "qemu-io q \"discard -q 64k 64k\""}
+ human-monitor-command {"command-line": "qemu-io q \"discard 2M 64k\""}
+ human-monitor-command {"command-line": "qemu-io q discard"}
+ human-monitor-command {"command-line": "qemu-io q \"alloc 0 1M\""}
+ human-monitor-command {"command-line": "qemu-io q \"alloc 256k\""}
+ human-monitor-command {"command-line": "qemu-io q \"alloc 8M 1M\""}
+ human-monitor-command {"command-line": "qemu-io q map"}
+ human-monitor-command {"command-line": "qemu-io n map"}
+ human-monitor-command {"command-line": "qemu-io q length"}
+ human-monitor-command {"command-line": "qemu-io n length"}
+ human-monitor-command {"command-line": "qemu-io q \"truncate 2M\""}
+ human-monitor-command {"command-line": "qemu-io q length"}
+ human-monitor-command {"command-line": "qemu-io q \"truncate\""}
+ human-monitor-command {"command-line": "qemu-io q \"truncate x\""}
+ human-monitor-command {"command-line": "qemu-io n \"truncate 2M\""}
+ human-monitor-command {"command-line": "qemu-io q \"sleep 1\""}
+ human-monitor-command {"command-line": "qemu-io q \"sleep x\""}
+ human-monitor-command {"command-line": "qemu-io q \"write -P 0xcd -q 1M 512\""}
+ human-monitor-command {"command-line": "qemu-io q \"read -v 1M 32\""}
""",
    files=qcow2_files,
    oracle=System,
)

GROUPS = [COMMANDS, OBJECTS, DESCRIPTORS, RUN_STATE, HMP]
