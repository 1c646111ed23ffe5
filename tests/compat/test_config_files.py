"""Options from files, and changes to options that were given before: -readconfig and -set."""

import re

import pytest
from compat.test_blockemu_qemu import OURS, REAL, normal, run
from compat.test_media import alike

BASE = ["-nodefaults", "-display", "none", "-S", "-monitor", "none"]
WHOLE = """\
# a machine

[drive "d"]
  if = "none"
  driver = "null-co"
  size = "1M"
[device "v"]
  driver = "virtio-scsi"
[device "s"]
  driver = "scsi-hd"
  drive = "d"
  serial = "a,b"
[machine]
  type = "pc"
[global]
  driver = "scsi-hd"
  property = "vendor"
  value = "ACME"
[name]
  guest = "box"
[object "i"]
  qom-type = "iothread"
  poll-max-ns = "7"
"""
FILES = {
    "whole.cfg": WHOLE,
    "nogroup.cfg": 'foo = "x"\n',
    "word.cfg": '[drive "d"]\nfoo\n',
    "spaces.cfg": '[drive "d"]\n   \n',
    "unknown.cfg": '[foo "d"]\na = "b"\n',
    "device.cfg": '[device "d"]\ndriver = "nope"\n\n# x\n',
    "drive.cfg": '[drive "d"]\nfile = "nope.img"\n[device]\ndriver = "lsi"\n',
    "twice.cfg": '[drive "d"]\nif = "none"\n[drive "d"]\nif = "none"\n',
    "chardev.cfg": '[chardev "d"]\nbackend = "null"\nfoo = "none"\n',
    "empty.cfg": '[drive "d"]\nif = ""\n',
    "object.cfg": '[object "d"]\nqom-type = "nope"\n',
    "noid.cfg": '[object]\nqom-type = "iothread"\n',
    "machine.cfg": '[machine]\ntype = "nope"\n',
}
REFUSED = [f"-readconfig {name}" for name in FILES if name != "whole.cfg"]
REFUSED += """
-readconfig absent.cfg
-readconfig
-writeconfig x
-drive if=none,id=d,driver=null-co -set drive.x.size=1M
-set drive.d.size=1M -drive if=none,id=d,driver=null-co
-device {"driver":"virtio-scsi","id":"s"} -set device.s.foo=x
-device virtio-scsi,id=s -set device.s.foo=x
-drive if=none,id=d,driver=null-co -set drive.d.foo=1M
-chardev null,id=c -set chardev.c.foo=1
-set foo
-set foo.a.b=c
-set foo.a.b
-set object.a.b=c
-set machine.a.b=c
""".strip().splitlines()


@pytest.fixture
def folder(tmp_path, program):
    program("qemu-system-x86_64")
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.mark.parametrize("line", REFUSED)
def test_what_cannot_be_is_told_with_its_place(folder, line):
    real, ours = (run(p, [*BASE, *line.split()], folder, "") for p in (REAL, OURS))
    said = [
        re.sub("^(qemu-system-x86_64|blockemu-qemu):", "PROGRAM:", normal(done.stderr), flags=re.M)
        for done in (real, ours)
    ]
    assert said[1] == said[0]
    assert ours.returncode == real.returncode
    assert real.returncode == 1


ASKED = [
    "query-block",
    "query-name",
    *(f'qom-get {{"path": "s", "property": "{name}"}}' for name in ("vendor", "serial", "lun")),
    'qom-get {"path": "/objects/i", "property": "poll-max-ns"}',
]


@pytest.mark.parametrize("more", ["", "-set device.s.vendor=Q -set drive.d.size=2M -name other"])
def test_a_machine_is_made_of_a_file(folder, more):
    alike(folder, ["-readconfig", "whole.cfg", *more.split()], ASKED, BASE)


def test_options_are_changed_after_they_were_given(folder):
    options = "-drive if=none,id=d,driver=null-co -device virtio-scsi -device scsi-hd,drive=d,id=s"
    changes = "-set device.s.serial=x,y -set device.s.lun=3 -set device.s.vendor=V"
    alike(folder, [*options.split(), *changes.split()], ASKED, BASE)
