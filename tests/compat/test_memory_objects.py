"""Objects that a machine's memory and random numbers would come from."""

import pytest
from compat.test_media import alike

NONE = ["-display", "none", "-monitor", "none", "-S", "-nodefaults"]
MACHINE = [
    "-machine",
    "q35,memory-backend=pc.ram",
    "-m",
    "128",
    "-object",
    '{"qom-type":"memory-backend-ram","id":"pc.ram","size":134217728}',
]
MACHINE += [
    "-object",
    "memory-backend-memfd,id=mf,size=1M",
    "-object",
    "rng-random,id=r,filename=/dev/urandom",
]
MACHINE += ["-object", "rng-builtin,id=rb", "-device", "virtio-rng-pci,rng=r,id=v"]
ASKED = """
query-memdev
hmp info memdev
qom-list {"path": "/objects/r"}
qom-list {"path": "/objects/rb"}
qom-get {"path": "/objects/r", "property": "filename"}
qom-get {"path": "/objects/r", "property": "opened"}
qom-get {"path": "/objects/pc.ram", "property": "size"}
qom-get {"path": "/objects/pc.ram", "property": "policy"}
qom-get {"path": "/objects/pc.ram", "property": "share"}
qom-get {"path": "/objects/mf", "property": "share"}
qom-get {"path": "/objects/mf", "property": "seal"}
qom-get {"path": "/machine/peripheral/v", "property": "rng"}
object-add {"qom-type": "memory-backend-ram", "id": "a"}
object-add {"qom-type": "memory-backend-ram", "id": "a", "size": 0}
object-add {"qom-type": "memory-backend-ram", "id": "a", "size": 4096, "policy": "bind"}
object-add {"qom-type": "memory-backend-ram", "id": "a", "size": 4096, "policy": "x"}
object-add {"qom-type": "memory-backend-ram", "id": "a", "size": 4096, "prealloc-threads": 0}
object-add {"qom-type": "memory-backend-ram", "id": "a", "size": 4096, "host-nodes": [0]}
object-add {"qom-type": "memory-backend-ram", "id": "a", "size": 4096, "absent": 0}
object-add {"qom-type": "memory-backend-ram", "id": "a", "size": 4095, "reserve": false}
object-add {"qom-type": "memory-backend-file", "id": "b", "size": 4096}
object-add {"qom-type": "memory-backend-file", "id": "b", "size": 4096, "mem-path": "/absent/x"}
object-add {"qom-type": "memory-backend-file", "id": "b", "size": 4096, "mem-path": "m", "align": 3}
object-add {"qom-type": "memory-backend-file", "id": "b", "size": 4096, "mem-path": "m"}
object-add {"qom-type": "memory-backend-file", "id": "c", "size": 16384, "mem-path": "m"}
object-add {"qom-type": "memory-backend-file", "id": "d", "size": 4096, "mem-path": "m", "share": true, "prealloc": false}
object-add {"qom-type": "rng-random", "id": "e", "filename": "/absent"}
object-add {"qom-type": "rng-random", "id": "e"}
object-add {"qom-type": "rng-builtin", "id": "r"}
device_add {"driver": "virtio-rng-pci", "rng": "pc.ram", "bus": "pcie.0"}
query-memdev
object-del {"id": "a"}
object-del {"id": "e"}
object-del {"id": "absent"}
query-memdev
""".strip().splitlines()


@pytest.fixture
def folder(tmp_path, program):
    program("qemu-system-x86_64")
    return tmp_path


def test_they_keep_and_refuse_alike(folder):
    told = alike(folder, MACHINE, ASKED, NONE)
    assert told.count('"error"') > 12
