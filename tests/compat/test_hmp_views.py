"""The human monitor's views of what a machine lacks, and how it reads its lines."""

import re

import pytest
from compat.test_blockemu_qemu import OURS, REAL, conversation, run
from compat.test_machine_facts import NONE
from compat.test_machine_reports import PC
from compat.test_media import alike


@pytest.fixture
def folder(tmp_path, program):
    program("qemu-system-x86_64")
    return tmp_path


LINES = r"""
announce_self
announce_self a b c
boot_set
boot_set c
boot_set zz
calc_dirty_rate
calc_dirty_rate x
calc_dirty_rate 100
calc_dirty_rate -r -b 1
calc_dirty_rate 1 100
cancel_vcpu_dirty_limit
cancel_vcpu_dirty_limit 3
client_migrate_info
client_migrate_info spice h
client_migrate_info spice h 1 2 subj
client_migrate_info foo h 1 2 subj
cpu
cpu 0
cpu 3
dumpdtb
dumpdtb x
exit_preconfig
expire_password
expire_password vnc
expire_password vnc now
expire_password spice now
expire_password foo now
expire_password vnc now -d x
expire_password vnc now -d
expire_password vnc now -x
set_password
set_password vnc
set_password vnc x
set_password spice x
set_password foo x
set_password vnc x -d d
set_password vnc x -d d keep
set_password vnc x -d d fail
set_password vnc x keep
set_password vnc x disconnect
set_password spice x keep
set_password spice x foo
set_password spice x -d d
gdbserver none
gpa2hpa
gpa2hpa 0
gpa2hva 0
gva2gpa 0
gpa2hva zz
hostfwd_add
hostfwd_add x
hostfwd_remove
hostfwd_remove x
i
i 0
i /x 0
i /b 0x70
i /2x 0x70
i /z 0
o
o 0
o 0 0
o /b 0x80 1
log
log none
logfile
logfile /dev/null
mce
mce 0
mce 0 1 2 3 4 5
mce -b 0 1 2 3 4 5
mouse_button
mouse_button 1
mouse_move
mouse_move 1
mouse_move 1 2
mouse_move 1 2 3
mouse_move a b
mouse_set
mouse_set 0
mouse_set 3
pcie_aer_inject_error
pcie_aer_inject_error x
pcie_aer_inject_error x y
pcie_aer_inject_error -a -c x 0
pmemsave
pmemsave 0
pmemsave 0 10
pmemsave 0 10 /nonexistent/pm
print
print 1+2
print /x 255
p /d 255
p /c 65
p /o 8
p /t 8
p /i 8
p /s 8
p /b 8
p $eax
p $foo
p 1/0
replay_break
replay_break 3
replay_delete_break
replay_seek
replay_seek 3
screendump
screendump x
screendump x -f png
screendump x -f foo
screendump -f png x
screendump x dev
screendump x dev 0
screendump x dev 0 1
set_vcpu_dirty_limit
set_vcpu_dirty_limit 1
set_vcpu_dirty_limit 1 2
singlestep
singlestep on
info status
singlestep off
singlestep foo
stopcapture
stopcapture 0
stopcapture x
sum
sum 0
sum 0 10
sync-profile
sync-profile on
sync-profile
sync-profile reset
sync-profile off
sync-profile foo
wavcapture
wavcapture x
wavcapture x y
wavcapture x y 1 2 3
wavcapture x y 1 2 3 4
watchdog_action
watchdog_action reset
watchdog_action foo
watchdog_action inject-nmi
x
x 0
x /4xb 0
xp
xp 0
xp /4xb 0
xp /2xw 0
xp /xg 0
xp /2i 0
xp /3c 0
xp /3d 0
xp /3u 0
xp /3o 0
xp /t 0
xp /s 0
xp /zz 0
memsave 0 1 x
nmi
system_wakeup
info cpus
info lapic
info lapic 0
info lapic 0 1
info mem
info mtree -x
info pic
info qdm x
info registers
info registers -a
info registers 0
info registers x
info rocker
info rocker x
info rocker-of-dpa-flows x
info rocker-of-dpa-flows x 1
info rocker-of-dpa-groups x
info rocker-of-dpa-groups x 1
info rocker-ports x
info sync-profile x
info tlb
info usbhost
info virtio-queue-element
info virtio-queue-element x
info virtio-queue-element x 0
info virtio-queue-element x 0 0
info virtio-queue-status x 0
info virtio-queue-status x
info virtio-status
info virtio-status x
info virtio-vhost-queue-status x 0
info foo
help foo bar
help info foo
xp /0x 0
xp /2xb 0x1000
x /0x 0
x/i 0
xp/4 10
p /x 0
p /o 0
p /c 10
p /c 39
p /u -1
p /x -1
p /d -1
p /xb 511
p /c 200
p (3
p 3 4
i /xw 0x12345
i /x 5.3
o /xw 5 3
boot_set cdn
boot_set cc
boot_set Z
pcie_aer_inject_error v 0
pcie_aer_inject_error v RCVR
calc_dirty_rate -r 100
info status
singlestep
info status
info registers -a 3
info registers 3
info registers -b
gdbserver
gdbserver foo
gva2gpa 1 2
hostfwd_add x y z
screendump /x -g
mouse_set 0 1
log out_asm
log out_asm,int
log nochain,out_asm
sum 0 1 2
announce_self x
wavcapture f a 1 b
""".strip().splitlines()
NETWORKS = """
netdev_add user
netdev_add foo
netdev_add foo,id=z
netdev_add user,id=z
netdev_add user,id=z
netdev_add user,id=z2,hubid=4
netdev_add user,id=z2,restrict=on,net=192.168.7.0/24
netdev_add user,id=z2,restrict=maybe
netdev_add hubport,id=h
netdev_add hubport,id=h,hubid=3,netdev=z2
netdev_add hubport,id=h,hubid=x
info network
info usernet
hostfwd_add absent tcp::1-:2
hostfwd_add h tcp::1-:2
hostfwd_remove absent tcp::1
hostfwd_remove z tcp::1
netdev_del h
netdev_del z2
netdev_del z
netdev_del z
info network
""".strip().splitlines()
VIRTIO = """
info virtio-status /machine/peripheral/v/virtio-backend
info virtio-status /machine/peripheral/s/virtio-backend
info virtio-queue-status /machine/peripheral/v/virtio-backend 0
info virtio-queue-status /machine/peripheral/v/virtio-backend 9
info virtio-queue-element /machine/peripheral/v/virtio-backend 0
info virtio-vhost-queue-status /machine/peripheral/v/virtio-backend 0
pcie_aer_inject_error v RCVR
boot_set cdn
boot_set cc
boot_set Z
""".strip().splitlines()
# The order of address spaces is by chance.
TREES = [f"info mtree{flags}" for flags in ("", " -o", " -d", " -D")]


def test_a_machine_without_cpu_has_nothing_to_show(folder):
    alike(folder, [], [f"hmp {line}" for line in LINES], NONE)


def test_networks_are_made_by_lines(folder):
    alike(folder, [], [f"hmp {line}" for line in NETWORKS], NONE)


def test_devices_that_nobody_drives_are_shown(folder):
    more = ["-blockdev", "null-co,node-name=n", "-device", "virtio-blk-pci,drive=n,id=v"]
    more += ["-device", "virtio-scsi-pci,id=s"]
    alike(folder, more, [f"hmp {line}" for line in VIRTIO], PC)


def _said(program, folder, line):
    said, _ = conversation(program, [], folder, [f"hmp {line}"], NONE)
    (answer,) = (each for each in said if each.startswith('{"return": "'))
    return answer.removeprefix('{"return": "').removesuffix('"}').replace(r"\r\n", "\n")


@pytest.mark.parametrize("line", ["help", "help info"])
def test_commands_are_listed_with_the_arguments_that_they_take(folder, line):
    def usage(program):
        rows = re.findall("^(.*?) -- ", _said(program, folder, line), re.MULTILINE)
        assert len(rows) > 50
        return rows

    assert usage(OURS) == usage(REAL)


@pytest.mark.parametrize("line", TREES)
def test_no_address_leads_anywhere(folder, line):
    def spaces(program):
        return sorted(_said(program, folder, line).split("\n\n"))

    assert spaces(OURS) == spaces(REAL)


def test_what_may_be_logged_has_the_same_names(folder):
    def names(program):
        found = re.findall(r"^(\w[\w:]*)  ", _said(program, folder, "log help"), re.MULTILINE)
        assert "in_asm" in found
        return found

    assert names(OURS) == names(REAL)


def test_a_human_is_shown_what_was_typed(folder):
    typed = "info uuid\n\ninfo kvm\ninfo uuid\ninfo history\nquit\n"

    def shown(program):
        options = ["-machine", "none", "-display", "none", "-monitor", "stdio"]
        return re.findall(r"^\d: '.*'", run(program, options, folder, typed).stdout, re.MULTILINE)

    assert shown(OURS) == shown(REAL) == ["0: 'info kvm'", "1: 'info uuid'", "2: 'info history'"]
