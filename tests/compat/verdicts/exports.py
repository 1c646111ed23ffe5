"""Exports and the NBD server: what is refused, in which words."""

from compat.verdicts.drivers import qcow2_files
from compat.verdicts.table import Group

EXPORTS = Group(
    "exports",
    f"""
+ query-block-exports
- nbd-server-stop
- block-export-add {{"type": "nbd", "id": "e", "node-name": "n"}}
+ blockdev-add {{"driver": "null-co", "node-name": "n", "size": 1048576}}
+ blockdev-add {{"driver": "null-co", "node-name": "ro", "read-only": true}}
- block-export-add {{"type": "nbd", "id": "e", "node-name": "n"}}
- nbd-server-add {{"device": "n"}}
- nbd-server-start {{}}
- nbd-server-start {{"addr": {{"type": "unix", "data": {{"path": "nowhere/x"}}}}}}
- nbd-server-start {{"addr": {{"type": "unix", "data": {{"path": "{"x" * 120}"}}}}}}
- nbd-server-start {{"addr": {{"type": "unix", "data": {{"path": "s"}}}}, "tls-creds": "absent"}}
- nbd-server-start {{"addr": {{"type": "inet", "data": {{"host": "127.0.0.1", "port": "abc"}}}}}}
- nbd-server-start {{"addr": {{"type": "unix"}}}}
- nbd-server-start {{"addr": {{"type": "x", "data": {{}}}}}}
+ nbd-server-start {{"addr": {{"type": "unix", "data": {{"path": "s"}}}}, "max-connections": 1}}
- nbd-server-start {{"addr": {{"type": "unix", "data": {{"path": "t"}}}}}}
- block-export-add {{"type": "nbd", "id": "1", "node-name": "n"}}
- block-export-add {{"type": "nbd", "id": "e", "node-name": "absent"}}
- block-export-add {{"type": "nbd", "id": "e"}}
- block-export-add {{"type": "x", "id": "e", "node-name": "n"}}
- block-export-add {{"type": "nbd", "id": "e", "node-name": "ro", "writable": true}}
- block-export-add {{"type": "nbd", "id": "e", "node-name": "n", "name": "{"x" * 4097}"}}
- block-export-add {{"type": "nbd", "id": "e", "node-name": "n", "description": "{"x" * 4097}"}}
- block-export-add {{"type": "nbd", "id": "e", "node-name": "n", "bitmaps": ["absent"]}}
- block-export-add {{"type": "nbd", "id": "e", "node-name": "n", "bitmaps": [{{"node": "n", "name": "absent"}}]}}
- block-export-add {{"type": "nbd", "id": "e", "node-name": "n", "bitmaps": [{{"node": "absent", "name": "b"}}]}}
- block-export-add {{"type": "nbd", "id": "e", "node-name": "n", "iothread": "absent"}}
+ block-dirty-bitmap-add {{"node": "n", "name": "b"}}
- block-export-add {{"type": "nbd", "id": "e", "node-name": "n", "bitmaps": ["b"]}}
+ block-export-add {{"type": "nbd", "id": "e", "node-name": "n", "bitmaps": ["b"], "writable": true, "writethrough": true}}
+ query-named-block-nodes {{"flat": true}}
+ query-block-exports
- block-export-add {{"type": "nbd", "id": "e", "node-name": "n", "name": "other"}}
- block-export-add {{"type": "nbd", "id": "f", "node-name": "n"}}
- block-export-add {{"type": "nbd", "id": "f", "node-name": "ro", "name": "n"}}
- block-dirty-bitmap-remove {{"node": "n", "name": "b"}}
- blockdev-del {{"node-name": "n"}}
- block_resize {{"node-name": "n", "size": 4096}}
- block-export-del {{"id": "absent"}}
- block-export-del {{}}
- block-export-del {{"id": "e", "mode": "soft"}}
- nbd-server-remove {{"name": "absent"}}
+ nbd-server-add {{"device": "ro", "writable": true}}
- nbd-server-add {{"device": "ro"}}
- nbd-server-add {{"device": "absent"}}
+ query-block-exports
+ x-debug-query-block-graph
+ block-export-del {{"id": "e"}}
+ nbd-server-remove {{"name": "ro", "mode": "hard"}}
+ nbd-server-stop
+ query-block-exports
- nbd-server-stop
""",
    qcow2_files,
)

GROUPS = [EXPORTS]
