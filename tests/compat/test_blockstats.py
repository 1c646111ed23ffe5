"""Statistics, histograms and write thresholds, beside the real program's."""

import pytest
from compat.daemon import BlockemuMachine, Both, Daemon, Machine

DRIVE = (
    "if=none,id=d,driver=raw,node-name=top,file.driver=blkdebug,file.node-name=debug,"
    "file.image.driver=null-co,file.image.size=64M,file.image.read-zeroes=on,"
    "file.image.node-name=null,file.inject-error.0.event=read_aio,"
    "file.inject-error.0.sector=8192,file.inject-error.1.event=write_aio,"
    "file.inject-error.1.sector=8192"
)
NEVER = 1 << 62  # nanoseconds: no request takes so long
SOME_REQUESTS = (
    "aio_read 0 512",
    "aio_read 4k 4k 64k 512",
    "aio_read -i 0 512",
    "aio_read 0 1 2 x",
    "aio_read 4M 512",
    "aio_read 64M 512",
    "aio_write 0 8k",
    "aio_write -P 3 1M 64k",
    "aio_write -z 2M 64k",
    "aio_write -i 0 512",
    "aio_write 0 3 y",
    "aio_write 4M 512",
    "aio_flush",
    "read 0 64k",  # not accounted, as only aio requests are
    "write 32M 4k",
    "flush",
    "discard 0 64k",
)


def play(both: Both, script, *options: str) -> tuple[Daemon, Daemon]:
    return both(script, *options, oracle=Machine, ours=BlockemuMachine)


def io(daemon: Daemon, *commands: str, target: str = "d") -> None:
    for command in commands:
        daemon("human-monitor-command", {"command-line": f'qemu-io {target} "{command}"'})


@pytest.mark.parametrize(
    "options",
    [
        "",
        ",stats-account-invalid=off,stats-account-failed=off",
        ",stats-account-invalid=on,stats-account-failed=off",
        ",stats-account-invalid=off,stats-account-failed=on",
    ],
)
def test_aio_requests_are_accounted(both: Both, options: str) -> None:
    def script(daemon: Daemon) -> None:
        daemon("query-blockstats")
        io(daemon, *SOME_REQUESTS)
        io(daemon, "aio_flush")
        daemon("query-blockstats")
        daemon("query-blockstats", query_nodes=True)

    play(both, script, "-drive", DRIVE + options)


@pytest.mark.parametrize("invalid", ["auto", "on", "off"])
@pytest.mark.parametrize("failed", ["auto", "on", "off"])
def test_a_device_says_what_is_accounted(both: Both, invalid: str, failed: str) -> None:
    def script(daemon: Daemon) -> None:
        io(daemon, "aio_read -i 0 512", "aio_flush")
        daemon("query-blockstats")

    device = f"virtio-blk,id=dev,drive=d,account-invalid={invalid},account-failed={failed}"
    drive = DRIVE + ",stats-account-invalid=off,stats-account-failed=off"
    play(both, script, "-drive", drive, "-device", device)


def test_intervals_show_their_lengths(both: Both) -> None:
    def script(daemon: Daemon) -> None:
        daemon("query-blockstats")  # nothing has been asked for: all else is zero

    intervals = ",stats-intervals.0=10,stats-intervals.1=4294967295,stats-intervals.2=1"
    play(both, script, "-drive", DRIVE + intervals)


HISTOGRAMS = [
    {"id": "nope", "boundaries": [1]},
    {"id": "dev"},
    {"id": "dev", "boundaries": [NEVER]},
    {"id": "dev", "boundaries": [0]},
    {"id": "dev", "boundaries": [2, 1]},
    {"id": "dev", "boundaries": [1, 1]},
    {"id": "dev", "boundaries": [1, NEVER], "boundaries-write": [3, 2]},
    {"id": "dev", "boundaries-write": [0]},
    {"id": "dev", "boundaries-flush": [5, 4]},
    {"id": "dev", "boundaries-read": [NEVER], "boundaries-write": [1, NEVER]},
    {"id": "dev", "boundaries": [1], "boundaries-flush": [NEVER, NEVER + 1]},
    {"id": "/machine/peripheral/dev", "boundaries-flush": [NEVER]},
    {"id": "dev", "boundaries": [-1]},
    {"id": "dev", "boundaries": "1"},
]


def test_histograms_are_set_and_removed(both: Both) -> None:
    def script(daemon: Daemon) -> None:
        for arguments in HISTOGRAMS:
            daemon.execute("block-latency-histogram-set", arguments)
            io(daemon, "aio_read 0 512", "aio_write 0 512", "aio_read -i 0 512", "aio_flush")
            daemon("query-blockstats")
        daemon("block-latency-histogram-set", id="dev")
        daemon("query-blockstats")

    play(both, script, "-drive", DRIVE, "-device", "lsi", "-device", "scsi-hd,drive=d,id=dev")


@pytest.mark.parametrize(
    "options",
    [
        "stats-intervals.0=0",
        "stats-intervals.0=-1",
        "stats-intervals.0=x",
        "stats-intervals.0=1.5",
        "stats-intervals.0= +7",
        "stats-intervals.0=",
        "stats-intervals.0=4294967296",
        "stats-intervals.1=1",
        "stats-intervals.0=1,stats-intervals.2=1",
        "stats-intervals.a=1",
        "stats-intervals=1",
        "stats-account-failed=maybe",
    ],
)
def test_bad_options_of_a_drive_are_refused(both: Both, options: str) -> None:
    def script(daemon: Daemon) -> None:
        line = f"drive_add 0 if=none,id=x,driver=null-co,{options}"
        daemon("human-monitor-command", {"command-line": line})
        daemon("query-blockstats")

    play(both, script)


def test_a_threshold_is_reported_once(both: Both) -> None:
    def script(daemon: Daemon) -> None:
        daemon.execute("block-set-write-threshold", node_name="nope", write_threshold=1)
        daemon.execute("block-set-write-threshold", node_name="d", write_threshold=1)
        daemon.execute("block-set-write-threshold", node_name="null", write_threshold=-1)
        daemon("block-set-write-threshold", node_name="debug", write_threshold=1 << 20)
        daemon("block-set-write-threshold", node_name="null", write_threshold=(1 << 20) + 512)
        io(daemon, "write 0 1M", "read 0 64M")
        daemon("query-named-block-nodes")
        io(daemon, "write 1048064 1024")
        daemon.wait("BLOCK_WRITE_THRESHOLD")
        daemon("query-named-block-nodes")
        io(daemon, "write 2M 64k")
        daemon.wait("BLOCK_WRITE_THRESHOLD")
        daemon("query-block")
        for command in ("write -z 3M 64k", "aio_write 8M 64k", "discard 16M 1k"):
            daemon("block-set-write-threshold", node_name="debug", write_threshold=1 << 20)
            io(daemon, command, "aio_flush")
        daemon("block-set-write-threshold", node_name="debug", write_threshold=1 << 20)
        daemon("block-set-write-threshold", node_name="debug", write_threshold=0)
        io(daemon, "write 2M 64k")
        daemon("query-block")

    drive = "if=none,id=d,driver=blkdebug,node-name=debug,discard=unmap,image.driver=null-co"
    play(both, script, "-drive", drive + ",image.size=64M,image.node-name=null")
