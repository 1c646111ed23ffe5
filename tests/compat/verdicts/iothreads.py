"""Moving nodes to I/O threads."""

from compat.verdicts.table import Group

IOTHREADS = Group(
    "iothreads",
    """
+ object-add {"qom-type": "iothread", "id": "io0"}
+ blockdev-add {"driver": "null-co", "node-name": "n", "size": 1048576}
- x-blockdev-set-iothread {"node-name": "absent", "iothread": "io0"}
- x-blockdev-set-iothread {"node-name": "n", "iothread": "absent"}
+ x-blockdev-set-iothread {"node-name": "n", "iothread": ""}
+ x-blockdev-set-iothread {"node-name": "n", "iothread": "/objects/io0"}
+ x-blockdev-set-iothread {"node-name": "n", "iothread": "objects/io0"}
- x-blockdev-set-iothread {"node-name": "n", "iothread": "/objects"}
- x-blockdev-set-iothread {"node-name": "n", "iothread": 1}
- x-blockdev-set-iothread {"node-name": "n"}
- x-blockdev-set-iothread {"iothread": "io0"}
- x-blockdev-set-iothread {"node-name": "n", "iothread": "io0", "force": "yes"}
+ x-blockdev-set-iothread {"node-name": "n", "iothread": null}
+ x-blockdev-set-iothread {"node-name": "n", "iothread": "io0"}
+ x-blockdev-set-iothread {"node-name": "n", "iothread": "io0", "force": true}
+ x-blockdev-set-iothread {"node-name": "n", "iothread": null}
""",
)

GROUPS = [IOTHREADS]
