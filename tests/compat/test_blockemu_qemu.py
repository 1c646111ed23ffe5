"""``blockemu-qemu`` next to qemu-system: the same command line, the same monitor."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading

import pytest

DEADLINE = 30
REAL = ["qemu-system-x86_64"]
OURS = [sys.executable, "-m", "blockemu.programs.qemu_main"]
BASE = ["-nodefaults", "-display", "none", "-accel", "tcg", "-S", "-machine", "pc"]
QUIT = '{"execute": "qmp_capabilities"} {"execute": "quit"}\n'

ENDINGS = """
-foo
foo bar
-machine foo
-drive file=nope.img,if=none
-drive if=none,id=x,foo=bar
-drive if=none,file=ov.qcow2,backing.cache.writeback=off
-drive if=none,file=ov.qcow2,backing.file.foo.bar=1,bar=2
-drive if=none,file=a.qcow2,cache.foo=on
-drive if=none,file=a.qcow2,foo=1,backing=nope
-drive if=none,file=a.qcow2,driver=raw,backing.file.filename=x
-drive if=none,file=a.qcow2,file.backing.driver=file,file.backing.filename=x
-drive if=none,file=a.qcow2,driver=raw,backing=foo
-drive if=none,file=a.qcow2,driver=raw,backing=
-drive driver=file
-drive file.driver=file
-drive iops=3,throttling.iops-total=2
-drive readonly=on,read-only=on
-drive file=a.qcow2,bps_rd_max=3
-drive file=a.qcow2,iops=-1
-drive file=a.qcow2,bps=x
-drive file=a.qcow2,bps=0,group=g,if=none
-drive if=bogus
-drive file=a.qcow2,if=none,id=x,cache=foo
-drive file=a.qcow2,if=none,id=x,format=foo
-drive file=a.qcow2,if=none,id=x -drive file=a.qcow2,if=none,id=x
-drive file=a.qcow2,if=none,id=1x
-drive if=none,id=a,aio=foo
-drive if=none,id=x,driver=null-co,format=raw
-drive if=none,driver=null-co,werror=foo
-drive if=none,driver=null-co,rerror=enospc
-drive if=floppy,driver=null-co,rerror=stop
-drive if=none,driver=raw,file=r.img,discard=foo
-drive if=none,driver=raw,file=r.img,detect-zeroes=foo
-drive if=none,driver=raw,file=r.img,readonly=foo
-drive if=none,driver=raw,file=r.img,media=foo
-drive if=none,id=x,driver=null-co,index=1,bus=1
-drive if=ide,driver=null-co,index=1 -drive if=ide,driver=null-co,index=1
-drive if=ide,unit=5
-drive if=ide,id=x
-drive if=scsi,driver=null-co
-machine q35 -drive driver=null-co,index=1 -drive driver=null-co,bus=1,unit=0
-machine q35 -drive driver=null-co,unit=1
-drive if=sd
-drive id=
-drive if=none,file=r.img
-drive if=none,readonly,driver=null-co
-drive if=none,driver=qcow2,file.driver=null-co
-drive if=none,file=json:{
-drive if=none,file=json:{"driver":"null-co"}
-drive if=none,id=x,driver=null-co -blockdev null-co,node-name=x
-drive if=none,driver=null-co,id=none1 -drive if=none,driver=null-co
-drive media=cdrom -drive if=floppy -drive driver=null-co
-drive if=pflash,file=r.img,format=raw -drive if=pflash,unit=2,driver=null-co
-drive if=pflash,unit=1,file=r.img,format=raw
-drive if=pflash,driver=null-co,size=1000
-drive if=pflash
-drive if=pflash,driver=null-co
-drive if=pflash,file=r.img,format=raw,id=x -device virtio-blk,drive=x
-hda nope
-cdrom nope
-blockdev file
-blockdev help
-object foo
-monitor foo
-monitor stdio
-monitor none
-chardev foo
-chardev null,id=a -mon a,mode=foo
-mon a
-serial none -parallel none -vga none -net none -name x -cpu max -smp 2 -m 64
-add-fd fd=1,set=1
-add-fd fd=99
-device foo
-device virtio-blk
-device virtio-blk,drive=nope
-device virtio-blk,drive=
-device virtio-blk,bus=ide.0
-device scsi-hd,drive=x
-device scsi-hd,bus=foo
-device virtio-blk,drive=x,bogus=1
-device virtio-scsi -device scsi-hd
-device driver=virtio-scsi,id=s -device scsi-hd,drive=x,bus=s.0
-device ide-hd
-device virtio-scsi,id=1
-device virtio-scsi,iothread=
-device virtio-scsi,iothread=nope
-device {"driver":"virtio-blk","drive":"q"}
-drive if=none,id=x -device virtio-blk,drive=x
-drive if=none,id=x,driver=null-co -device virtio-blk,drive=x -device virtio-blk,drive=x
-drive if=virtio,id=x,driver=null-co -device virtio-blk,drive=x
-blockdev null-co,node-name=x,read-only=on -device ide-hd,drive=x
-blockdev null-co,node-name=n -device virtio-blk,drive=n,id=a -device virtio-blk,drive=n,id=a
-blockdev null-co,node-name=n -device virtio-blk,drive=n,share-rw=foo
""".strip().splitlines()


@pytest.fixture
def folder(tmp_path, program):
    program("qemu-system-x86_64")
    for name in ("a", "b"):
        image("create", "-f", "qcow2", f"{name}.qcow2", "64M", cwd=tmp_path)
    image("create", "-f", "qcow2", "-b", "b.qcow2", "-F", "qcow2", "ov.qcow2", cwd=tmp_path)
    image("create", "-f", "raw", "r.img", "1M", cwd=tmp_path)
    return tmp_path


def image(*arguments, cwd, check=True):
    return subprocess.run(["qemu-img", *arguments], cwd=cwd, check=check, capture_output=True)


def run(program, arguments, folder, text):
    return subprocess.run(
        [*program, *arguments],
        input=text,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )


def endings(arguments, folder):
    """Return how the real program and ours end that are asked to at once, and what they print."""
    ended = (run(program, [*arguments, "-qmp", "stdio"], folder, QUIT) for program in (REAL, OURS))
    return [(each.returncode, normal(each.stderr)) for each in ended]


def normal(text):
    names = {}
    text = re.sub(r"^(qemu-system-x86_64|blockemu-qemu): ", "PROGRAM: ", text, flags=re.M)
    text = re.sub(r'"package": "[^"]*"', '"package": ""', text)
    text = re.sub(r'"seconds": \d+, "microseconds": \d+', "TIME", text)
    text = re.sub(r"[0-9.]+ sec \(.*ops/sec\)", "SPEED", text)
    text = re.sub(r"/vl\.\w{6}", "/vl.RANDOM", text)
    text = re.sub(r'"actual-size": \d+', '"actual-size": SIZE', text)
    return re.sub(r"#block\d+", lambda m: names.setdefault(m[0], f"#block<{len(names)}>"), text)


@pytest.mark.parametrize("line", ENDINGS)
def test_a_command_line_ends_alike(folder, line):
    arguments = [*BASE, *line.split(), "-qmp", "stdio"]
    real, ours = (run(program, arguments, folder, QUIT) for program in (REAL, OURS))
    assert (ours.returncode, normal(ours.stderr)) == (real.returncode, normal(real.stderr))


@pytest.mark.parametrize("words", [["-h"], ["--help"], ["-version"], ["-machine", "help"]])
def test_questions_are_answered(tmp_path, words):
    done = run(OURS, words, tmp_path, "")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


def test_the_probes_of_test_suites_find_what_there_is(tmp_path):
    machines = run(OURS, ["-machine", "help"], tmp_path, "").stdout.splitlines()
    assert [line.split()[0] for line in machines if line.endswith(" (default)")] == [
        "pc-i440fx-7.2"
    ]
    probe = [
        *["-nodefaults", "-display", "none", "-accel", "qtest", "-M", "none", "-device", "help"]
    ]
    devices = run(OURS, probe, tmp_path, "").stdout
    assert {"virtio-blk-pci", "virtio-scsi-pci", "scsi-hd", "ide-hd"} <= set(
        re.findall(r'^name "([^"]+)"', devices, re.M)
    )
    formats = run(OURS, [*probe[:5], "-drive", "format=help"], tmp_path, "").stdout.splitlines()
    assert [line.split(":")[0] for line in formats] == [
        "Supported formats",
        "Supported formats (read-only)",
    ]
    assert {"qcow2", "raw", "null-co"} <= set(formats[0].split()[2:])


def conversation(program, options, folder, commands, base=BASE):
    """Send commands one after another; return all that comes back, and standard output."""
    ours, theirs = socket.socketpair()
    ours.settimeout(DEADLINE)
    with theirs:
        process = subprocess.Popen(
            [
                *program,
                *base,
                *options,
                *f"-chardev socket,id=m,fd={theirs.fileno()}".split(),
                "-mon",
                "m,mode=control",
            ],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=folder,
        )
    said = []
    killer = threading.Timer(2 * DEADLINE, process.kill)
    killer.start()
    with ours, ours.makefile("r") as lines, process:
        said.append(lines.readline())
        for command in ["qmp_capabilities", *commands, "quit"]:
            ours.sendall(as_json(command).encode())
            while line := lines.readline():
                said.append(line)
                if line.startswith(('{"return"', '{"error"')):
                    break
        said += lines
        printed = process.stdout.read()
    killer.cancel()
    return normal("".join(said)).splitlines(), normal(printed)


def as_json(command):
    if command.startswith("hmp "):
        command = "human-monitor-command " + json.dumps({"command-line": command[4:]})
    name, _, arguments = command.partition(" ")
    message = {"execute": name} | ({"arguments": json.loads(arguments)} if arguments else {})
    return json.dumps(message)


DRIVES = [
    "-drive",
    "if=none,id=d0,file=a.qcow2",
    "-drive",
    "if=virtio,file=r.img,format=raw",
    "-drive",
    "driver=null-co,if=none",
    "-drive",
    "if=none,id=e",
    "-drive",
    "if=none,id=bd,file=ov.qcow2,cache=none,node-name=nn,discard=unmap",
]
DEVICES = [
    "-blockdev",
    "null-co,node-name=n1",
    "-blockdev",
    "null-co,node-name=n2",
    "-drive",
    "if=none,id=d0,file=a.qcow2",
    "-device",
    "virtio-scsi,id=scsi0",
    "-device",
    "scsi-hd,drive=d0,id=sd,bus=scsi0.0",
    "-device",
    "virtio-blk,drive=n1,id=vb",
    "-device",
    "ide-hd,drive=n2",
]
LIMITED = [
    "-drive",
    "if=none,id=a,file=r.img,format=raw,throttling.bps-total=1048576,iops_rd=5,iops_rd_max=50",
    "-drive",
    "if=none,id=b,driver=null-co,bps=100,group=shared",
    "-drive",
    "if=none,id=c,driver=null-co",
    "-drive",
    "if=none,id=e",
]


def limits(**more):
    names = ("bps", "bps_rd", "bps_wr", "iops", "iops_rd", "iops_wr")
    return f"block_set_io_throttle {json.dumps(dict.fromkeys(names, 0) | more)}"


LIMITS = [
    "query-block",
    "hmp info block",
    limits(device="c", iops=10, group="shared"),
    "query-block",  # b, too, has other limits now
    limits(device="c", iops=10, bps_wr_max=5),
    limits(device="c", iops=10, iops_max=100, iops_max_length=3, iops_size=4096),
    limits(device="c", bps=-1),
    limits(device="c", bps=7, bps_max=7, bps_max_length=1 << 32),
    limits(device="c", bps=7, group="other"),
    limits(device="e", bps=7),
    limits(device="a"),
    limits(device="b", bps=1, bps_rd=1),
    limits(id="b", bps=1),
    'object-add {"qom-type": "throttle-group", "id": "shared"}',
    'object-add {"qom-type": "throttle-group", "id": "mine"}',
    limits(device="a", bps=9, group="mine"),
    'qom-get {"path": "/objects/mine", "property": "limits"}',
    'object-del {"id": "mine"}',
    "query-block",
    "hmp info block",
    limits(device="a"),
    'object-del {"id": "mine"}',
    limits(device="b"),
    'object-add {"qom-type": "throttle-group", "id": "shared"}',
    "query-block",
]
AUTOMATIC = [
    "-drive",
    "if=pflash,driver=null-co,read-zeroes=on,size=1M",
    "-drive",
    "driver=null-co",
    "-drive",
    "media=cdrom",
    "-drive",
    "if=floppy",
    "-hdd",
    "a.qcow2",
    "-drive",
    "if=none,driver=null-co,cache=writethrough,werror=stop,id=w",
    "-drive",
    "if=none,driver=null-co,cache=unsafe,detect-zeroes=unmap,id=z",
    "-drive",
    "if=none,driver=null-co,werror=report,id=w2",
    "-device",
    "virtio-blk,drive=w",
    "-device",
    "virtio-blk,drive=w2,write-cache=off,id=w2d",
]
QUERIES = [
    "query-block",
    "query-blockstats",
    "query-named-block-nodes",
    "x-debug-query-block-graph",
    "query-status",
    "hmp info block",
    "hmp info block -v",
    "hmp info block -n",
    "hmp info block-jobs",
    "hmp info status",
    'qom-list {"path": "/machine/peripheral"}',
    'qom-list {"path": "/machine/peripheral-anon"}',
    "stop",
    "cont",
    "query-status",
    "stop",
]
PLUGGING = [
    'device_del {"id": "vb"}',
    'device_del {"id": "vb"}',
    "query-block",
    'device_add {"driver": "scsi-hd", "drive": "d0", "bus": "scsi0.0"}',
    'device_add {"driver": "scsi-hd", "drive": "n1", "id": "q"}',
    'device_add {"driver": "foo", "id": "q"}',
    'device_add {"driver": "virtio-blk", "id": "q"}',
    'device_add {"driver": "virtio-blk", "id": "vb", "drive": "n1"}',
    'device_add {"driver": "virtio-blk", "id": "q", "drive": "n2"}',
    'blockdev-del {"node-name": "n1"}',
    'blockdev-add {"driver": "null-co", "node-name": "n3"}',
    'device_add {"driver": "virtio-blk", "id": "q", "drive": "n3"}',
    'device_add {"driver": "virtio-blk", "id": "q2", "drive": "nope"}',
    'device_add {"driver": "virtio-blk", "id": "q2", "drive": "n3", "foo": 1}',
    'device_add {"driver": "virtio-blk", "id": "q2", "drive": "n3", "bus": "nope"}',
    'device_add {"id": "q2"}',
    'device_add {"driver": "ide-hd", "drive": "n3"}',
    "query-block",
    'device_del {"id": "nope"}',
]
CACHED = [
    "-drive",
    "if=none,id=i,file=ov.qcow2,cache.writeback=off,node-name=image,file.node-name=file,"
    "backing.node-name=backing,backing.file.node-name=backing-file,backing.cache.no-flush=on",
    "-drive",
    "if=none,driver=null-co,id=w,cache=none",
    "-device",
    "virtio-blk,drive=w",
]
SHOW = [f"hmp info block {name}" for name in ("i", "image", "file", "backing", "backing-file")]
CACHE = [
    *SHOW,
    'hmp qemu-io i "reopen -o cache.direct=on"',
    *SHOW,
    'hmp qemu-io i "reopen -c unsafe"',
    *SHOW,
    'hmp qemu-io i "reopen -c directsync"',
    *SHOW,
    'hmp qemu-io i "reopen -o backing.foo.bar=1"',
    'hmp qemu-io i "reopen -o backing.cache.foo=1"',
    'hmp qemu-io w "reopen -c writethrough"',
    'hmp qemu-io w "reopen -c unsafe"',
    "query-block",
]
TEMPORARY = [
    "-snapshot",
    "-drive",
    "if=none,id=d,file=ov.qcow2,node-name=nn,cache=none",
    "-drive",
    "if=none,id=k,file=a.qcow2,snapshot=off",
    "-drive",
    "if=none,id=r,file=r.img,format=raw,read-only=on,discard=unmap",
    "-device",
    "lsi53c895a,id=hba",
    "-device",
    "scsi-hd,drive=d,bus=hba.0",
]
FORGOTTEN = [
    "query-named-block-nodes",
    "hmp info block",
    'hmp qemu-io d "write -P 3 0 64k"',
    'hmp qemu-io d "read -P 3 0 64k"',
    'hmp qemu-io k "write -P 3 0 64k"',
    'hmp qemu-io r "write -P 3 0 64k"',
]
COPIED = [  # each is copied once: two jobs on one disk are too much for QEMU
    *("-drive", "if=none,id=d,file=ov.qcow2"),
    *("-drive", "if=none,id=r,file=r.img,format=raw"),
    *("-drive", "if=none,id=f,file=a.qcow2"),
    *("-drive", "if=none,id=n,driver=null-co,size=1M,read-zeroes=on"),
    *("-drive", "if=none,id=h,driver=null-co,size=1M,read-zeroes=on"),
]
COPY = [
    'hmp qemu-io d "write -P 7 0 1M"',
    'drive-backup {"device": "d", "target": "x.raw", "format": "raw", "sync": "none"}',
    'drive-backup {"device": "d", "target": "x.foo", "format": "foo", "sync": "full"}',
    'drive-backup {"device": "d", "target": "nowhere/x", "sync": "full"}',
    'drive-backup {"device": "d", "target": "b.qcow2", "sync": "full", "mode": "existing"}',
    'drive-backup {"device": "d", "target": "absent", "sync": "full", "mode": "existing"}',
    'drive-backup {"device": "d", "target": "y.qcow2", "sync": "incremental"}',
    'drive-backup {"device": "nope", "target": "y.qcow2", "sync": "full"}',
    'drive-backup {"device": "r", "target": "none.qcow2", "sync": "none", "format": "qcow2"}',
    "query-block-jobs",
    "x-debug-query-block-graph",
    'hmp qemu-io r "write -P 9 0 64k"',
    'block-job-cancel {"device": "r"}',
    'drive-backup {"device": "f", "target": "full.qcow2", "sync": "full"}',
    'drive-backup {"device": "d", "target": "top.qcow2", "sync": "top", "job-id": "t"}',
    'drive-backup {"device": "n", "target": "x.raw", "format": "raw", "sync": "full"}',
    "hmp drive_backup -f h hmp.qcow2 qcow2",
    "hmp drive_backup nope hmp.qcow2",
    "hmp drive_backup d",
]
HUMAN = [
    "hmp info block",
    'hmp qemu-io -d w2d "read 0 1k"',
    'hmp qemu-io -d /machine/peripheral/w2d/virtio-backend "read 0 1k"',
    'hmp qemu-io z "write 0 1k"',
    "hmp drive_del w",
    "hmp drive_del z",
    "hmp drive_del nope",
    "hmp drive_add 0 if=none,id=nw,driver=null-co",
    "hmp drive_add 0 if=none,id=nw,driver=null-co",
    "hmp drive_add -n 0 node-name=nn,driver=null-co",
    "hmp drive_add -n 0 driver=null-co",
    "hmp drive_add 0 if=none,id=q",
    "hmp drive_add 0 if=virtio,driver=null-co",
    "hmp drive_add 0",
    "hmp commit nope",
    "hmp commit nw",
    "hmp commit q",
    "hmp commit",
    "hmp block_resize ide1-hd1 65",
    "hmp block_resize nw 5",
    "hmp block_resize nope 5",
    "hmp block_resize nw",
    "hmp block_resize nw 1x",
    "hmp info foo",
    "hmp info block foo",
    "hmp info block nw",
    "hmp info block -n nn",
    "hmp info block -v ide1-hd1",
    "hmp info block -x",
    "hmp device_add virtio-blk,drive=nn,id=hh",
    "hmp device_add virtio-blk,drive=nn,id=hh",
    "hmp device_del hh",
    "hmp device_del hg",
    "hmp info block",
]


@pytest.mark.parametrize(
    ("options", "commands"),
    [
        pytest.param(DRIVES, QUERIES, id="drives"),
        pytest.param(DEVICES, QUERIES, id="devices"),
        pytest.param(DEVICES, PLUGGING, id="plugging"),
        pytest.param(COPIED, COPY, id="drive backup"),
        pytest.param(TEMPORARY, FORGOTTEN, id="temporary overlays"),
        pytest.param(CACHED, CACHE, id="cache modes"),
        pytest.param(LIMITED, LIMITS, id="limits"),
        pytest.param(AUTOMATIC, [*HUMAN, "query-block"], id="human"),
    ],
)
def test_a_machine_answers_alike(folder, options, commands):
    copies = []
    for program in (REAL, OURS):
        own = shutil.copytree(folder, folder.with_name(f"{folder.name}-{len(copies)}"))
        said, printed = conversation(program, options, own, commands)
        if commands is COPY:
            said = [line for line in said if '"event"' not in line]  # whose job is done first
        copies.append([*said, *printed.splitlines(), *contents(own)])
    assert copies[1] == copies[0]


def contents(folder):
    """Return what the guest sees in each image."""
    shown = []
    for path in sorted(folder.glob("*.qcow2")):
        done = image("compare", "-q", path.name, "a.qcow2", cwd=folder, check=False)
        shown.append(f"{path.name}: {done.returncode}")
    return shown


def events_after(program, options, folder, commands):
    said, _ = conversation(program, options, folder, commands)
    return [line for line in said if '"event"' in line]


@pytest.mark.parametrize("program_line", [OURS], ids=["ours"])
def test_a_scsi_disk_leaves_at_once_and_a_pci_device_at_reset(folder, program_line):
    events = events_after(
        program_line,
        DEVICES,
        folder,
        ['device_del {"id": "sd"}', 'device_del {"id": "vb"}', "system_reset", "query-block"],
    )
    paths = [json.loads(line.replace("TIME", "")).get("data", {}).get("path") for line in events]
    assert [path for path in paths if path] == [
        "/machine/peripheral/sd",
        "/machine/peripheral/vb/virtio-backend",
        "/machine/peripheral/vb",
    ]


def test_the_human_monitor_echoes_what_it_reads(folder):
    options = [*BASE, "-drive", "if=none,id=d,driver=null-co", "-monitor", "stdio"]
    done = run(OURS, options, folder, 'info status\nqemu-io d "bogus"\n\nquit\ninfo status\n')
    assert done.stdout.splitlines() == [
        "QEMU 7.2.22 monitor - type 'help' for more information",
        "(qemu) info status",
        "VM status: paused (prelaunch)",
        '(qemu) qemu-io d "bogus"',
        "(qemu) ",
        "(qemu) quit",
    ]
    assert done.stderr == 'command "bogus" not found\n'
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("accelerator", "printed"),
    [
        ("tcg", ["blkdebug: Suspended request 'A'", "blkdebug: Resuming request 'A'"]),
        ("qtest", []),
    ],
)
def test_a_test_is_not_told_of_breakpoints(folder, accelerator, printed):
    options = ["-accel", accelerator, "-nodefaults", "-display", "none", "-qmp", "stdio"]
    drive = ["-drive", "if=none,id=d,driver=blkdebug,image.driver=null-co"]
    lines = ["break pwritev A", "aio_write 0 1k", "wait_break A", "resume A"]
    commands = ["qmp_capabilities", *(f'hmp qemu-io d "{line}"' for line in lines), "quit"]
    done = run(OURS, [*options, *drive], folder, "".join(map(as_json, commands)))
    assert [line for line in done.stdout.splitlines() if "request" in line] == printed


def test_end_of_input_does_not_end_the_program(folder):
    process = subprocess.Popen(
        [*OURS, *BASE, "-qmp", "stdio"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=folder,
    )
    with process:
        process.stdin.write('{"execute": "qmp_capabilities"}')
        process.stdin.close()
        assert "QMP" in process.stdout.readline()
        assert process.stdout.readline() == '{"return": {}}\n'
        assert process.poll() is None
        process.terminate()
        assert '"reason": "host-signal"' in process.stdout.read()
        assert process.wait(DEADLINE) == 0


def test_a_test_steps_the_virtual_clock_and_is_connected_to(tmp_path):
    with socket.socket(socket.AF_UNIX) as monitor, socket.socket(socket.AF_UNIX) as test:
        for name, listener in (("m", monitor), ("t", test)):
            listener.bind(os.fspath(tmp_path / name))
            listener.listen()
            listener.settimeout(DEADLINE)
        process = subprocess.Popen(
            [
                *OURS,
                *["-display", "none", "-vga", "none", "-chardev", "socket,id=mon,path=m"],
                *["-mon", "chardev=mon,mode=control", "-qtest", "unix:path=t", "-accel", "qtest"],
                *["-nodefaults", "-drive", "if=virtio,id=drive0,driver=null-co,latency-ns=1000"],
            ],
            stdin=subprocess.DEVNULL,
            cwd=tmp_path,
        )
        with process, monitor.accept()[0] as client, test.accept()[0] as tester:
            tester.settimeout(DEADLINE)
            for line, answer in (
                (b"clock_step 1000000\n", b"OK 1000000\n"),
                (b"clock_step 5\n", b"OK 1000005\n"),
                (b"nonsense\n", b"FAIL Unknown command 'nonsense'\n"),
            ):
                tester.sendall(line)
                assert tester.recv(100) == answer
            client.settimeout(DEADLINE)
            client.sendall(QUIT.encode())
            said = b""
            while chunk := client.recv(1 << 16):
                said += chunk
            assert b'"event": "SHUTDOWN"' in said
            assert process.wait(DEADLINE) == 0


def test_a_failing_start_hangs_up_on_a_connected_client(tmp_path):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(DEADLINE)
        process = subprocess.Popen(
            [
                *OURS,
                "-chardev",
                f"socket,id=m,fd={theirs.fileno()}",
                "-mon",
                "m,mode=control",
                *["-drive", "if=none,file=absent"],
            ],
            pass_fds=[theirs.fileno()],
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
        )
        theirs.close()
        with process:
            assert process.wait(DEADLINE) == 1
            assert "Could not open 'absent'" in process.stderr.read()
        while ours.recv(1 << 16):
            pass
