"""Internal snapshots: who can have them, and what is wrong with a name."""

from __future__ import annotations

from pathlib import Path

from compat.daemon import image
from compat.verdicts.table import Group


def _files(folder: Path) -> None:
    image("create", "-q", "-f", "qcow2", "disk.qcow2", "1M", cwd=folder)
    image("create", "-q", "-f", "qcow2", "old.qcow2", "1M", cwd=folder)
    image("snapshot", "-c", "before", "old.qcow2", cwd=folder)
    image("snapshot", "-c", "before", "old.qcow2", cwd=folder)
    image("create", "-q", "-f", "qcow2", "-o", "data_file=data", "ext.qcow2", "1M", cwd=folder)
    image("create", "-q", "-f", "raw", "disk.raw", "1M", cwd=folder)


_NODES = """
+ blockdev-add {"driver": "file", "filename": "disk.qcow2", "node-name": "file"}
+ blockdev-add {"driver": "qcow2", "file": "file", "node-name": "disk"}
+ blockdev-add {"driver": "qcow2", "file": {"driver": "file", "filename": "old.qcow2"}, "node-name": "old"}
+ blockdev-add {"driver": "qcow2", "file": {"driver": "file", "filename": "ext.qcow2"}, "node-name": "ext"}
+ blockdev-add {"driver": "raw", "file": {"driver": "file", "filename": "disk.raw"}, "node-name": "raw"}
+ blockdev-add {"driver": "null-co", "node-name": "null"}
"""
_ROWS = """
- blockdev-snapshot-internal-sync {"device": "disk"}
- blockdev-snapshot-internal-sync {"device": "nothing", "name": "s"}
- blockdev-snapshot-internal-sync {"device": "", "name": "s"}
- blockdev-snapshot-internal-sync {"device": "file", "name": "s"}
- blockdev-snapshot-internal-sync {"device": "raw", "name": "s"}
- blockdev-snapshot-internal-sync {"device": "null", "name": "s"}
- blockdev-snapshot-internal-sync {"device": "ext", "name": "s"}
- blockdev-snapshot-internal-sync {"device": "disk", "name": ""}
- blockdev-snapshot-delete-internal-sync {"device": "disk"}
- blockdev-snapshot-delete-internal-sync {"device": "disk", "name": "s"}
- blockdev-snapshot-delete-internal-sync {"device": "disk", "id": "1"}
- blockdev-snapshot-delete-internal-sync {"device": "raw", "id": "1"}
- blockdev-snapshot-delete-internal-sync {"device": "null", "id": "1"}
- blockdev-snapshot-delete-internal-sync {"device": "ext", "id": "1"}
- blockdev-snapshot-delete-internal-sync {"device": "nothing", "id": "1"}
- blockdev-snapshot-delete-internal-sync {"device": "file", "id": "1"}
+ blockdev-snapshot-internal-sync {"device": "disk", "name": "s"}
- blockdev-snapshot-internal-sync {"device": "disk", "name": "s"}
+ blockdev-snapshot-internal-sync {"device": "disk", "name": "t"}
- blockdev-snapshot-internal-sync {"device": "old", "name": "before"}
+ blockdev-snapshot-internal-sync {"device": "old", "name": "2"}
- blockdev-snapshot-delete-internal-sync {"device": "disk", "id": "1", "name": "t"}
- blockdev-snapshot-delete-internal-sync {"device": "disk", "id": "s"}
- blockdev-snapshot-delete-internal-sync {"device": "old", "id": "7", "name": "before"}
+ blockdev-reopen {"options": [{"driver": "qcow2", "file": "file", "node-name": "disk", "read-only": true}]}
- blockdev-snapshot-internal-sync {"device": "disk", "name": "u"}
"""

GROUPS = [Group("snapshots", _NODES + _ROWS, files=_files)]
