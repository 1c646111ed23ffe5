"""block_set_io_throttle and throttle groups, beside the real program: limits, refusals, queries."""

from itertools import product

import pytest
from compat.daemon import BlockemuMachine, Both, Daemon, Machine

NONE = dict.fromkeys(("bps", "bps_rd", "bps_wr", "iops", "iops_rd", "iops_wr"), 0)
MOST = 10**15
KINDS = tuple(NONE)
REFUSED = [
    {},
    {"device": "d", "id": "dev"},
    {"device": "nope"},
    {"id": "nope"},
    {"device": "empty"},
    *(
        {"device": "d", total: 1, part: 1}
        for total, part in product(("bps",), ("bps_rd", "bps_wr"))
    ),
    *({"device": "d", "iops": 1, part: 1} for part in ("iops_rd", "iops_wr")),
    {"device": "d", "bps": 5, "bps_max": 9, "bps_rd_max": 9},
    {"device": "d", "iops_rd": 5, "iops_max": 9, "iops_wr_max": 9},
    {"device": "d", "iops_size": 512},
    {"device": "d", "bps": 10, "iops_size": 512},
    *({"device": "d", kind: value} for kind in KINDS for value in (-1, MOST + 1)),
    *({"device": "d", f"{kind}_max": 10} for kind in KINDS),
    *({"device": "d", kind: 10, f"{kind}_max": 9} for kind in KINDS),
    *({"device": "d", kind: 10, f"{kind}_max_length": 2} for kind in KINDS),
    {"device": "d", "iops": 10, "iops_max": 20, "iops_max_length": 0},
    {"device": "d", "iops": 10, "iops_max": MOST, "iops_max_length": 2},
    {"device": "d", "iops": 10, "iops_max": MOST + 1},
    {"device": "d", "iops": 10, "iops_max": 20, "iops_max_length": 1 << 32},
    {"device": "d", "iops": 10, "iops_size": -1},
]
TAKEN = [
    {"device": "d", "bps": 1000},
    {"device": "d", "bps_rd": 1000, "bps_wr": 2000, "iops": 30},
    {"id": "dev", "iops_rd": 10, "iops_wr": 20, "iops_size": 4096},
    {"id": "dev", "bps": MOST, "bps_max": MOST, "bps_max_length": 1},
    {"device": "d", "iops": 10, "iops_max": 100, "iops_max_length": 60, "group": "g"},
    {"device": "e", "iops": 20, "group": "g"},
    {"device": "d", "bps_wr": 7, "bps_wr_max": 70, "bps_wr_max_length": 5},
    {"device": "e", "group": "g"},
    {"device": "d"},
]
DRIVES = (
    *("-device", "lsi"),
    *("-drive", "if=none,id=d,driver=null-co,size=1M", "-device", "scsi-hd,drive=d,id=dev"),
    *("-drive", "if=none,id=e,driver=null-co,size=1M", "-drive", "if=none,id=empty"),
)


def play(both: Both, script, *options: str) -> None:
    both(script, *options, oracle=Machine, ours=BlockemuMachine)


def hmp(daemon: Daemon, line: str) -> None:
    daemon("human-monitor-command", {"command-line": line})


def test_limits_that_do_not_go_together_are_refused(both: Both) -> None:
    def script(daemon: Daemon) -> None:
        for limits in REFUSED:
            daemon.execute("block_set_io_throttle", NONE | limits)
        daemon("query-block")

    play(both, script, *DRIVES)


def test_limits_are_shown(both: Both) -> None:
    def script(daemon: Daemon) -> None:
        for limits in TAKEN:
            daemon("block_set_io_throttle", NONE | limits)
            daemon("query-block")
            hmp(daemon, "info block d")
            daemon("query-named-block-nodes")

    play(both, script, *DRIVES)


NUMBERS = """
1000 0 0 10 0 0
0x10 010 8 0 0 0
0 16 010 1+2*3 0 0
(1+2)*3 0 0 7&3+1 0 0
1|6^2 0 0 'a' 0 0
-1 0 0 0 0 0
~0 0 0 0 0 0
100-10 0 0 17/5 0 0
-17/-5 0 0 -17%5+9 0 0
1 2 3 4 5 6
18446744073709551615 0 0 0 0 0
18446744073709551616 0 0 0 0 0
9223372036854775807+1 0 0 0 0 0
0x 0 0 0 0 0
09 0 0 0 0 0
x 0 0 0 0 0
1 0 0
(1 0 0 0 0 0
'a 0 0 0 0 0
1/0 0 0 0 0 0
1 0 0 2 0 0 0
$nope 0 0 0 0 0
"""


def test_the_human_monitor_reckons(both: Both) -> None:
    def script(daemon: Daemon) -> None:
        for numbers in NUMBERS.strip().splitlines():
            for name in ("d", "dev"):
                hmp(daemon, f"block_set_io_throttle {name} {numbers}")
                hmp(daemon, "info block d")
        hmp(daemon, "block_set_io_throttle nope 1 0 0 0 0 0")
        hmp(daemon, "block_set_io_throttle")
        hmp(daemon, "help block_set_io_throttle")

    play(both, script, *DRIVES)


@pytest.mark.parametrize("end", ["", "limits", "x-iops-total"])
def test_a_drive_may_join_the_group_of_an_object(both: Both, end: str) -> None:
    def script(daemon: Daemon) -> None:
        limits = {"iops-total": 50, "iops-total-max": 60}
        daemon("object-add", {"qom-type": "throttle-group", "id": "g", "limits": limits})
        daemon("block_set_io_throttle", NONE | {"device": "d", "bps": 9, "group": "g"})
        daemon("query-block")
        daemon("qom-get", path="/objects/g", property="limits")
        daemon.execute("object-del", id="g")
        if end == "limits":
            daemon.execute("qom-set", path="/objects/g", property=end, value={"iops-read": 5})
            value = {"bps-total": 5, "bps-total-max": 6, "bps-total-max-length": 7}
            daemon("qom-set", path="/objects/g", property="limits", value=value)
        elif end:
            daemon.execute("qom-set", path="/objects/g", property=end, value=1)
        daemon("query-block")
        daemon("block_set_io_throttle", NONE | {"device": "d"})
        daemon("query-block")
        daemon.execute("object-del", id="g")

    play(both, script, *DRIVES)
