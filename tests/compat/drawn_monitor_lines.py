"""Lines for the human monitor, drawn at random from patterns of what people type, right and wrong.

In a pattern ``[...]`` may be left out, one of ``a|b`` is taken, and a word in capitals stands for one
of ``WORDS``.  The same seed gives the same lines.
"""

from __future__ import annotations

import random
import re

WORDS = {
    "DEVICE": [
        "hd",
        "cd",
        "vb",
        "dr",
        "dr",
        "dr",
        "q",
        "over",
        "raw",
        "null",
        "t",
        "none",
        "ide0-cd0",
        "floppy0",
        "j",
        "/machine/peripheral/hd",
        '""',
        '""',
    ],
    "FILE": [
        "n.qcow2",
        "a.raw",
        "a.qcow2",
        "b.raw",
        "none.qcow2",
        "/dev/null",
        "n2.raw",
        "nbd:x:1",
        "json:{}",
        '"a b"',
    ],
    "FORMAT": ["raw", "qcow2", "bad", ""],
    "SIZE": [
        *(
            "0",
            "1",
            "65536",
            "1M",
            "1G",
            "-1",
            "10k",
            "1.5M",
            "x",
            "0x1000",
            "0x1.5",
            "1.",
            ".5",
            "",
        ),
        *("1 M", "1+1", "4096*4", "(3)", "1T", "10 20", "0.5", "1e3"),
        *("9999999999999999999", "9223372036854775807", "18446744073709551615"),
    ],
    "NAME": ["s", "s1", "x y", '"s s"', "1", ""],
    "REQUEST": [
        *("read 0 4k", "write 0 4k", "write -P 5 64k 64k", "map", "length", "info", "flush", "foo"),
        *(
            "discard 0 64k",
            "aio_read 0 4k",
            "write -z 0 64k",
            "alloc 0",
            "read",
            "read x y",
            "help",
        ),
        *("quit", "reopen -r", "open", "write 100M 1k", "writev 0 512 512", "readv -v 0 512"),
    ],
    "PATH": ["/machine", "/machine/peripheral/hd", "hd", "/objects/tg0", "none", ""],
    "PROPERTY": ["type", "drive", "serial", "lun", "none", ""],
    "OBJECT": ["o1", "o2", "1x", "tg0", ""],
    "MODEL": ["scsi-hd", "scsi-cd", "virtio-blk-pci", "ide-hd", "floppy", "bad", "virtio-scsi-pci"],
}
LINES = [
    line.strip()
    for line in """
    block_job_cancel [-f] [-x] DEVICE
    block_job_pause|block_job_resume DEVICE
    block_job_set_speed DEVICE SIZE
    block_resize DEVICE SIZE
    block_set_io_throttle DEVICE SIZE SIZE SIZE SIZE SIZE [SIZE] [SIZE]
    block_stream DEVICE [SIZE] [FILE]
    change [-f] DEVICE FILE [FORMAT] [read-only|retain|bad]
    commit all|DEVICE
    stop
    delvm|savevm|loadvm NAME
    drive_add [-n] 0|0:0|1:2:3|x if=none,id=z|id=y|file=,id=dr [,file=b.raw|,format=bad|,bogus=1]
    drive_backup [-n] [-f] [-c] DEVICE FILE [FORMAT]
    drive_mirror [-n] [-f] DEVICE FILE [FORMAT]
    drive_del DEVICE
    eject [-f] DEVICE
    info block [-n] [-v] [-x] [DEVICE]
    info block-jobs|blok|name|uuid|chardev|status|migrate_capabilities|kvm [x]
    info migrate|migrate_parameters
    nbd_server_start [-a] [-w] unix:nbd.sock|127.0.0.1:0|localhost:x|bad
    nbd_server_add [-w] DEVICE [NAME]
    nbd_server_remove [-f] DEVICE|NAME
    nbd_server_stop
    object_add iothread,id=|secret,data=x,id=|throttle-group,id=|bad,id=|secret,id=OBJECT
    object_del OBJECT
    qemu-io [-d] DEVICE "REQUEST"
    qemu-io [-d] DEVICE REQUEST
    qom-get PATH PROPERTY
    qom-set PATH PROPERTY x|1|true
    snapshot_blkdev [-n] DEVICE FILE [FORMAT]
    snapshot_blkdev_internal DEVICE NAME
    snapshot_delete_blkdev_internal DEVICE NAME [1|2]
    device_add MODEL[,drive=q|,drive=z|,bogus=1|,id=d9|,id=d8,drive=t|,bus=vs.0|,help]
    help block_resize|none|change|help
    print [/x|/d|/c] SIZE
    boot_set a|cdn|zz
    chardev-add null,id=c1|bad,id=c3|null|null,id=c1,bogus=1
    chardev-remove c1|none
    watchdog_action reset|none|bad
    hostfwd_add tcp::1-:2|bad
    set_link none|x [on|off|maybe]
    netdev_del none
    getfd|closefd x
    migrate_set_capability events|bad [on|off|maybe] [x]
    migrate_set_parameter max-bandwidth|bad|downtime-limit|compress-level|tls-creds SIZE
    announce_self [x]
    trace-event x|blk_* [on|off|maybe]
    expire_password vnc|x now
    sendkey a|ctrl-x|bad [SIZE]
    mouse_move 1|x 2
    balloon SIZE
    ringbuf_read c1|none SIZE
    block_resiz hd 1M
    #comment
      info   block -v   hd
    info block "h\\"d"
    info block "hd
    sum SIZE SIZE
    o /b SIZE SIZE
    """.splitlines()
    if line.strip()
]
_OPTIONAL = re.compile(r"\[([^]]*)\]")
_WORD = re.compile("|".join(WORDS))


def draw(dice: random.Random) -> str:
    """Draw a line."""
    line = dice.choice(LINES)
    line = _OPTIONAL.sub(lambda found: found[1] if dice.random() < 0.3 else "", line)
    words = [dice.choice(word.split("|")) for word in line.split(" ")]
    line = _WORD.sub(lambda found: dice.choice(WORDS[found[0]]), " ".join(words))
    return line if dice.random() < 0.9 else f" {line}  x"
