"""Options that do nothing but be there, with values good and bad: words and exit status."""

import subprocess

import pytest
from compat.test_blockemu_qemu import OURS, QUIT, REAL, endings, run

BARE = ["-nodefaults", "-display", "none", "-monitor", "none", "-S"]
LINES = """
-machine pc,foo=1
-machine pc,foo
-machine pc,usb=x
-machine pc,usb=on
-machine pc,usb
-machine pc,acpi=x
-machine pc,max-ram-below-4g=x
-machine pc,max-ram-below-4g=8G
-machine pc,max-fw-size=x
-machine pc,max-fw-size=100M
-machine pc,x-oem-id=toolong
-machine pc,x-oem-table-id=waytoolongs
-machine pc,vmport=x
-machine pc,smbios-entry-point-type=x
-machine pc,smbios-entry-point-type=64
-machine pc,nvdimm-persistence=foo
-machine pc,nvdimm-persistence=cpu
-machine pc,memory-backend=nope
-machine pc,memory-encryption=nope
-machine pc,confidential-guest-support=nope
-machine pc,bus-lock-ratelimit=x
-machine pc,boot=x
-machine pc,boot.order=x
-machine pc,boot.foo=x
-machine pc,smp=2
-machine pc,kernel_irqchip=on
-machine pc,accel=foo
-machine accel=tcg
-machine type=pc,type=q35
-machine =pc
-machine pc,a.b=1
-machine q35,dump-guest-core=maybe
-machine none,usb=on
-machine none,hpet=on
-machine pc,hpet=off
-machine pc,i8042=off
-machine pc,graphics=x
-machine pc,device-memory-region-size=1
-machine pc,hmat=on
-machine pc,cxl=on
-machine pc,dt-compatible=x
-machine pc,suppress-vmdesc=x
-boot x
-boot order=z
-boot order=aa
-boot once=z
-boot c
-boot foo=1
-boot menu=x
-boot menu=on,strict=on
-boot splash-time=x
-boot splash-time=70000
-boot reboot-timeout=-5
-boot reboot-timeout=70000
-boot c,strict
-append x
-initrd x
-machine pc -machine q35
-machine pc -machine foo=1
-machine pc.x
-machine pc,usb=on,usb=off
-M pc,foo=1
-machine microvm,foo=1
-machine microvm,rtc=x
-no-hpet
-no-acpi
-machine pc,sata=x
-accel tcg,thread=x
-accel tcg,foo=1
-accel tcg,tb-size=x
-rtc foo=1
-rtc base=foo
-rtc base=utc,clock=foo
-rtc clock=vm,driftfix=foo
-rtc localtime
-msg foo=1
-msg timestamp=x
-display foo
-display none,foo=1
-vga foo
-serial foo
-serial mon:foo
-serial chardev:foo
-parallel foo
-smbios foo
-smbios type=1,foo=1
-smbios type=200
-smbios type=1,uuid=foo
-smbios file=/absent
-fw_cfg foo
-fw_cfg name=x,string=1
-fw_cfg name=opt/x
-fw_cfg name=opt/x,file=/absent
-fw_cfg name=opt/x,string=1,file=/y
-icount foo
-icount shift=99
-icount shift=1,align=foo
-icount shift=1,sleep=off,align=on
-icount shift=1,rr=foo
-icount rr=record
-overcommit foo=1
-overcommit mem-lock=x
-sandbox foo
-sandbox on,foo=1
-sandbox on,obsolete=x
-sandbox on,elevateprivileges=x
-pidfile /absent/dir/pid
-runas foo
-runas 1:x
-chroot /absent
-D /absent/dir/log
-d trace:foo
-dfilter foo
-seed foo
-g foo
-g 800x600
-g 800x600x7
-rotate 45
-numa foo
-numa node,foo=1
-numa node,nodeid=300
-mem-path /absent/dir
-semihosting-config foo
-semihosting
-prom-env foo
-usbdevice foo
-acpitable foo
-acpitable sig=TOOLONG
-acpitable data=/absent
-xen-domid 1
-xen-attach
-audiodev foo,id=a
-audiodev none
-audiodev none,id=a,foo=1
-audio none
-nic foo
-nic user,model=e1000,mac=foo
-net foo
-net nic,macaddr=foo
-rtc base=2020-01-01T00:00:00
-rtc base=2020-13-01
-msg timestamp=on
-msg guest-name=on
-vga std
-serial null
-parallel null
-smbios type=1,manufacturer=x
-fw_cfg name=opt/x,string=1
-icount shift=auto
-overcommit cpu-pm=on
-sandbox off
-d in_asm
-seed 1
-rotate 90
-audiodev none,id=a
-nic none
""".strip().splitlines()


@pytest.fixture
def folder(tmp_path, program):
    program("qemu-system-x86_64")
    return tmp_path


@pytest.mark.parametrize("line", LINES)
def test_values_are_taken_and_refused_alike(folder, line):
    real, ours = endings([*BARE, *line.split()], folder)
    assert ours == real


def test_a_log_that_nobody_knows_is_answered_by_what_there_is(folder):
    real, ours = (
        subprocess.run([*program, "-d", "foo"], capture_output=True, text=True, timeout=60)
        for program in (REAL, OURS)
    )
    assert (ours.returncode, ours.stderr) == (real.returncode, real.stderr) == (1, "")
    assert ours.stdout.splitlines()[0] == real.stdout.splitlines()[0]


def test_a_log_file_is_made(folder):
    for program, name in ((REAL, "real.log"), (OURS, "ours.log")):
        assert run(program, [*BARE, "-D", name, "-qmp", "stdio"], folder, QUIT).returncode == 0
        assert (folder / name).read_bytes() == b""
