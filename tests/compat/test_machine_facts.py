"""What tools ask of a machine besides its disks, its run states, and the human monitor's words."""

import re

import pytest
from compat.test_blockemu_qemu import OURS, REAL, conversation, normal, run
from compat.test_media import alike

NONE = ["-machine", "none", "-nodefaults", "-display", "none", "-monitor", "none"]
PC = ["-machine", "pc", "-nodefaults", "-display", "none", "-monitor", "none", "-S"]


@pytest.fixture
def folder(tmp_path, program):
    program("qemu-system-x86_64")
    return tmp_path


QUESTIONS = """
query-name
query-uuid
query-tpm
query-cpus-fast
query-current-machine
query-hotpluggable-cpus
query-memory-size-summary
query-target
query-acpi-ospm-status
query-vnc
query-spice
query-mice
query-balloon
query-vm-generation-id
query-pr-managers
query-replay
query-iothreads
query-yank
yank {"instances": []}
yank {"instances": [{"type": "block-node", "node-name": "absent"}]}
yank {"instances": [{"type": "chardev", "id": "absent"}]}
yank {"instances": [{"type": "migration"}]}
yank {"instances": [{"type": "foo"}]}
rtc-reset-reinjection
x-exit-preconfig
inject-nmi
balloon {"value": 1048576}
balloon {"value": 0}
set_link {"name": "absent", "up": true}
netdev_del {"id": "absent"}
trace-event-get-state {"name": "absent"}
trace-event-get-state {"name": "absent*"}
trace-event-set-state {"name": "absent", "enable": true}
trace-event-set-state {"name": "absent*", "enable": true}
watchdog-set-action {"action": "pause"}
watchdog-set-action {"action": "foo"}
set-action {"panic": "none", "watchdog": "debug"}
set-action {"panic": "foo"}
chardev-add {"id": "c", "backend": {"type": "null", "data": {}}}
chardev-send-break {"id": "c"}
chardev-send-break {"id": "absent"}
chardev-change {"id": "c", "backend": {"type": "ringbuf", "data": {"size": 64}}}
chardev-change {"id": "c", "backend": {"type": "file", "data": {"out": "/absent/file"}}}
chardev-change {"id": "absent", "backend": {"type": "null", "data": {}}}
query-chardev
chardev-remove {"id": "c"}
hmp info name
hmp info uuid
hmp info chardev
hmp info kvm
hmp info mice
hmp info tpm
hmp info vnc
hmp info spice
hmp info balloon
hmp info network
hmp info numa
hmp info pci
hmp info cpus
hmp info memdev
hmp info memory-devices
hmp info memory_size_summary
hmp info hotpluggable-cpus
hmp info vm-generation-id
hmp info replay
hmp info roms
hmp info trace-events absent
hmp trace-event absent on
hmp set_link absent on
hmp netdev_del absent
hmp watchdog_action pause
hmp nmi
hmp system_wakeup
hmp object_add iothread,id=z
hmp object_del z
hmp object_del z
hmp object_add foo
hmp chardev-send-break absent
hmp chardev-remove absent
hmp info absent
hmp absent
hmp help absent
hmp help info absent
hmp help system_reset
hmp help info status
hmp help stop
hmp help drive_del
""".strip().splitlines()


@pytest.mark.parametrize(
    "more", [[], ["-name", "n,process=p", "-uuid", "0000000A-0001-0002-0003-000000000004"]]
)
def test_questions_to_an_empty_machine(folder, more):
    alike(folder, more, QUESTIONS, NONE)


def test_iothreads_are_listed(folder):
    def listed(program):
        options = ["-object", "iothread,id=a", "-object", "iothread,id=b,poll-max-ns=7"]
        commands = ["query-iothreads", "hmp info iothreads", 'qom-list {"path": "/objects"}']
        said, _ = conversation(program, options, folder, commands, NONE)
        return [re.sub(r'("thread-id": |thread_id=)\d+', "THREAD", line) for line in said]

    assert listed(OURS) == listed(REAL)


STATES = """
query-status
system_reset
query-status
system_powerdown
stop
query-status
hmp info status
system_wakeup
query-current-machine
cont
query-status
cont
stop
stop
query-status
system_reset
query-status
cont
set-action {"reboot": "shutdown", "shutdown": "pause"}
system_reset
query-status
hmp info status
cont
query-status
stop
system_reset
query-status
set-action {"reboot": "reset"}
system_reset
query-status
cont
query-status
hmp stop
hmp system_powerdown
hmp system_reset
hmp cont
hmp info status
""".strip().splitlines()


@pytest.mark.parametrize("base", [NONE, PC], ids=["none", "pc"])
def test_run_states(folder, base):
    alike(folder, [], STATES, base)


@pytest.mark.parametrize(
    "option", ["-no-reboot", "-no-shutdown -no-reboot", "-action reboot=shutdown,shutdown=pause"]
)
def test_a_reset_may_be_the_end(folder, option):
    said = '{"execute": "qmp_capabilities"} {"execute": "system_reset"}'
    if "pause" in option or "-no-shutdown" in option:
        said += '{"execute": "query-status"} {"execute": "cont"} {"execute": "quit"}'
    arguments = [*NONE, *option.split(), "-qmp", "stdio"]
    real, ours = (run(program, arguments, folder, said) for program in (REAL, OURS))
    # Where SHUTDOWN comes among replies that nobody awaits is a matter of luck.
    told = [
        sorted(normal(done.stdout).splitlines()[1:], key=lambda line: "SHUTDOWN" in line)
        for done in (real, ours)
    ]
    assert told[1] == told[0]
    assert "SHUTDOWN" in told[0][-1]
    assert ours.returncode == real.returncode == 0
