"""Objects, their properties, chardevs and passed descriptors, next to QEMU's programs."""

import os
import random

import pytest
from compat.daemon import Blockemu, System

KEY = "YWJjZGVmZ2hpamtsbW5vcHFyc3R1dnd4eXowMTIzNDU="
VECTOR = "AAAAAAAAAAAAAAAAAAAAAA=="
# "abc" and its padding, under that key and vector
CIPHERTEXT = "3Zq4pN0XNbpT+4xCVYwYvQ=="

SECRETS = [
    {"id": "s0", "data": "abc"},
    {"id": "s0", "data": "abc"},
    {"id": "s1"},
    {"id": "s1", "data": "a", "file": "/x"},
    {"id": "s1", "data": "a!", "format": "base64"},
    {"id": "s1", "data": "YWJj", "format": "base64"},
    {"id": "s2", "data": "YWJj", "format": "hex"},
    {"id": "s2", "file": "/nonexistent"},
    {"id": "s2", "file": "/"},
    {"id": "s2", "data": "abc", "keyid": "s0"},
    {"id": "s2", "data": "abc", "keyid": "nokey", "iv": "abc"},
    {"id": "key", "data": KEY, "format": "base64"},
    {"id": "e", "data": "YWJj", "keyid": "key", "iv": VECTOR, "format": "base64"},
    {"id": "e", "data": "YWJj", "keyid": "key", "iv": "AAAA", "format": "base64"},
    {"id": "e", "data": "YWJj", "keyid": "key"},
    {"id": "e", "data": "YWJj", "keyid": "key", "iv": "!"},
    {"id": "e", "data": CIPHERTEXT, "keyid": "key", "iv": VECTOR, "format": "base64"},
    {"id": "iv", "data": "YWJj", "iv": VECTOR},
    {"id": "loaded", "data": "a", "loaded": False},
    {"id": "1s", "data": "abc"},
    {"id": "s 2", "data": "abc"},
    {"id": 1, "data": "abc"},
    {"data": "abc"},
    {"id": "s3", "data": "abc", "bogus": 1},
    *({"id": f"odd{i}", "data": data, "format": "base64"} for i, data in enumerate(["YQ", "YQ=Y", "====", "", "Y Q==", "YQ\n=="])),
]  # fmt: skip

IOTHREADS = [
    {"id": "io0"},
    {"id": "io1", "poll-max-ns": 5},
    {"id": "io2", "poll-max-ns": -1},
    {"id": "io2", "thread-pool-max": 0},
    {"id": "io2", "thread-pool-min": 100},
    {"id": "io2", "aio-max-batch": "1"},
]

LIMITS = [
    {"iops-total": 5},
    {"iops-total": 5, "iops-read": 5},
    {"bps-total": 5, "bps-write": 5},
    {"iops-total": 5, "iops-total-max": 1},
    {"iops-total": -1},
    {"iops-total": 2 * 10**15},
    {"iops-total-max-length": 0},
    {"iops-total-max-length": 5},
    {"iops-total-max-length": 5 * 10**9},
    {"iops-total-max": 5},
    {"iops-size": 5},
    {"iops-total": 1, "iops-total-max": 100, "iops-total-max-length": 10},
    {"bps-read": 1, "bps-read-max": 2, "bps-read-max-length": -1},
    {"bps": 1},
    {"bps-total": "1"},
]

SHORT_LIMITS = [
    {"x-iops-total": 5},
    {"x-iops-total": -1},
    {"x-iops-total": "a"},
    {"x-bps-total-max-length": 5 * 10**9},
    {"x-iops-total": 5, "limits": {"bps-total": 1}},
]


def added(kind, *rows):
    return [("object-add", {"qom-type": kind} | row) for row in rows]


def test_objects_are_added_and_refused_alike(both):
    groups = [{"id": f"t{i}", "limits": limits} for i, limits in enumerate(LIMITS)]
    groups += [{"id": f"u{i}"} | limits for i, limits in enumerate(SHORT_LIMITS)]
    steps = [
        *added("secret", *SECRETS),
        *added("iothread", *IOTHREADS),
        *added("throttle-group", *groups),
        ("object-add", {"qom-type": "nope", "id": "x"}),
        ("object-add", {"id": "x"}),
        ("object-add", {}),
        ("object-add", None),
        *(("qom-list", {"path": path}) for path in ["/objects", "/objects/s0", "t0", "io0", "", "/nope", "objects"]),
        *(("qom-get", {"path": "e", "property": name}) for name in ["data", "file", "loaded", "format", "iv", "keyid", "type", "nope"]),
        *(("qom-get", {"path": f"t{i}", "property": "limits"}) for i in range(len(LIMITS))),
        *(("qom-get", {"path": f"u{i}", "property": "x-iops-total"}) for i in range(len(SHORT_LIMITS))),
        *(("object-del", {"id": name}) for name in ["nope", "io0", "s0", "t0", "s0"]),
        ("object-del", None),
        ("qom-list", {"path": "/objects"}),
    ]  # fmt: skip
    both(lambda daemon: [daemon.execute(*step) for step in steps])


def test_properties_are_set_and_refused_alike(both):
    sets = [
        ("tg", "limits", {"iops-total": 7}),
        ("tg", "limits", {"iops-read": 7}),
        ("tg", "limits", {"x": 7}),
        ("tg", "limits", 7),
        ("tg", "x-iops-total", 7),
        ("tg", "x", 7),
        ("tg", "type", "a"),
        ("s", "data", 7),
        ("s", "data", "7"),
        ("s", "format", "base64"),
        ("s", "format", "x"),
        ("s", "loaded", False),
        ("io", "poll-max-ns", 7),
        ("io", "poll-max-ns", -7),
        ("io", "poll-max-ns", "z"),
        ("io", "thread-pool-min", 65),
        ("/objects", "tg", 1),
        ("/nope", "x", 1),
        ("", "x", 1),
    ]
    steps = [
        ("qom-get", {"path": "/objects", "property": "type"}),
        *added("throttle-group", {"id": "tg", "limits": {"iops-total": 5}}),
        *added("secret", {"id": "s", "data": "a"}),
        *added("iothread", {"id": "io"}),
        *(("qom-set", {"path": path, "property": name, "value": value}) for path, name, value in sets),
        ("qom-get", {"path": "tg", "property": "limits"}),
        ("qom-get", {"path": "/objects/tg", "property": "x-iops-total"}),
        ("qom-get", {"path": "//objects//s", "property": "data"}),
        ("qom-get", {"path": "io", "property": "poll-max-ns"}),
        ("qom-get", {"path": "/objects", "property": "tg"}),
        ("qom-get", {"path": "/", "property": "objects"}),
        ("qom-get", {"path": "/"}),
        ("qom-set", {"path": "/", "property": "x"}),
        *(("qom-list-properties", {"typename": name}) for name in ["secret", "throttle-group", "iothread", "container", "object", "user-creatable", "event-loop-base", "chardev-socket", "nope"]),
        ("qom-list-types", {"implements": "nope"}),
        ("qom-list-types", {"implements": "secret"}),
    ]  # fmt: skip
    both(lambda daemon: [daemon.execute(*step) for step in steps])


@pytest.mark.parametrize("seed", [1, 2])
def test_children_are_listed_in_the_same_order_however_they_came_and_went(both, seed):
    def script(daemon):
        choice = random.Random(seed)
        live = []
        for i in range(150):
            if live and choice.random() < (0.2 if i < 90 else 0.7):
                daemon("object-del", id=live.pop(choice.randrange(len(live))))
            else:
                name = (
                    f"{choice.choice('abXY')}{choice.randrange(10 ** choice.randrange(2, 6))}-{i}"
                )
                live.append(name)
                daemon("object-add", {"qom-type": "secret", "id": name, "data": "x"})
            if i % 10 == 0:
                daemon("qom-list", path="/objects")

    both(script)


def test_the_types_we_have_are_listed_as_qemu_lists_them(both):
    def script(daemon):
        daemon.recording = False
        for arguments in [{}, {"abstract": True}, {"implements": "chardev"}, {"implements": "user-creatable", "abstract": True}]:  # fmt: skip
            lists[daemon.kind].append(daemon("qom-list-types", arguments))

    lists = {"qemu-storage-daemon": [], "blockemu": []}
    both(script)
    for real, ours in zip(*lists.values(), strict=True):
        assert ours == [row for row in real if row in ours]


def socket_backend(address, **options):
    return {"type": "socket", "data": {"addr": address} | options}


def unix(path):
    return {"type": "unix", "data": {"path": path}}


CHARDEVS = [
    ("n", {"type": "null", "data": {}}),
    ("n", {"type": "null", "data": {}}),
    ("x", {"type": "nope", "data": {}}),
    ("x", {"type": "null"}),
    ("x", {"type": "null", "data": {"x": 1}}),
    ("x", {"data": {}}),
    ("x", {"type": "ringbuf", "data": {"size": 100}}),
    ("x", {"type": "ringbuf", "data": {"size": -1}}),
    ("r", {"type": "ringbuf", "data": {"size": 8}}),
    ("m", {"type": "memory", "data": {}}),
    ("f", {"type": "file", "data": {"out": "out"}}),
    ("x", {"type": "file", "data": {"out": "/nonexistent/x"}}),
    ("x", {"type": "file", "data": {"out": "out", "in": "/nonexistent"}}),
    ("x", {"type": "pipe", "data": {"device": "/nonexistent"}}),
    ("s", socket_backend(unix("s.sock"), server=True, wait=False)),
    ("x", socket_backend(unix("x.sock"), server=True, reconnect=3)),
    ("x", socket_backend(unix("x.sock"), server=False, wait=False)),
    ("x", socket_backend(unix("x.sock"), server=False)),
    ("x", socket_backend(unix("x" * 200), server=False)),
    ("x", socket_backend({"type": "fd", "data": {"str": "foo"}})),
    ("x", socket_backend({"type": "inet", "data": {"host": "127.0.0.1", "port": "1"}}, server=False)),
    ("1x", {"type": "null", "data": {}}),
]  # fmt: skip


def test_chardevs_are_added_and_refused_alike(both):
    def write(device, data, **more):
        return "ringbuf-write", {"device": device, "data": data} | more

    def read(device, size, **more):
        return "ringbuf-read", {"device": device, "size": size} | more

    steps = [
        *(("chardev-add", {"id": name, "backend": backend}) for name, backend in CHARDEVS),
        ("query-chardev", None),
        ("qom-list", {"path": "/chardevs"}),
        ("qom-list", {"path": "/chardevs/s"}),
        ("qom-get", {"path": "s", "property": "addr"}),
        ("qom-get", {"path": "s", "property": "connected"}),
        ("qom-set", {"path": "s", "property": "connected", "value": True}),
        write("r", "123456789abc"), read("r", 3), read("r", 100), read("r", 100),
        write("r", "/////w==", format="base64"), read("r", 100, format="base64"),
        write("r", "!", format="base64"), write("n", "a"), read("n", 1), read("x", 1), read("r", 0),
        *(("chardev-remove", {"id": name}) for name in ["n", "n", "compat", "s", "m", "r", "f"]),
        ("query-chardev", None),
    ]  # fmt: skip
    both(lambda daemon: [daemon.execute(*step) for step in steps])


def without_numbers(value):
    """Descriptors have other numbers in other programs."""
    if isinstance(value, list):
        return [without_numbers(item) for item in value]
    if isinstance(value, dict):
        return {k: type(v).__name__ if k == "fd" else without_numbers(v) for k, v in value.items()}
    return value


@pytest.fixture
def replies(tmp_path, program):
    """Give ``replies(steps, fd=-1)``: what the real machine and ours answer to each of *steps*.

    A step is (command, arguments, how many copies of *fd* go along); events are named, too.
    """

    def ask(steps, fd=-1):
        program(System.kind)
        for kind in (System, Blockemu):
            with kind(tmp_path) as daemon:
                heard = []
                for name, given, fds in steps:
                    reply = daemon.execute(name, given, [fd] * fds)
                    heard.append(
                        (name, [event["event"] for event in daemon.events], without_numbers(reply))
                    )
                    daemon.events.clear()
                yield heard

    return ask


@pytest.fixture
def null():
    fd = os.open(os.devnull, os.O_RDWR)
    yield fd
    os.close(fd)


def test_descriptors_are_kept_by_name_alike(replies, null):
    steps = [
        ("getfd", {"fdname": "a"}, 1), ("getfd", {"fdname": "1a"}, 1), ("getfd", {"fdname": ""}, 1),
        ("getfd", {"fdname": "a"}, 1), ("getfd", {"fdname": "b"}, 0), ("getfd", {"fdname": "b"}, 2),
        ("getfd", {"fdname": "c"}, 0), ("getfd", {"bogus": 1}, 1), ("getfd", {"fdname": "d"}, 0),
        ("closefd", {"fdname": "a"}, 0), ("closefd", {"fdname": "a"}, 0), ("closefd", {"fdname": "z"}, 0),
        ("query-name", None, 1), ("getfd", {"fdname": "e"}, 0), ("getfd", {"fdname": "f"}, 0),
    ]  # fmt: skip
    real, ours = replies(steps, null)
    assert ours == real


def test_descriptors_are_kept_in_sets_alike(replies, null):
    steps = [
        ("cont", None, 0), ("add-fd", None, 0), ("add-fd", None, 1), ("add-fd", None, 1),
        ("add-fd", {"fdset-id": 5}, 1), ("add-fd", {"fdset-id": 5, "opaque": "hello"}, 1),
        ("add-fd", {"fdset-id": -3}, 1), ("add-fd", {"fdset-id": 3}, 1), ("add-fd", None, 1),
        ("add-fd", {"fdset-id": 2**63 - 1}, 1), ("add-fd", {"fdset-id": 2**63}, 1),
        ("add-fd", {"opaque": "only"}, 1), ("query-fdsets", None, 0),
        ("remove-fd", {"fdset-id": 5, "fd": 1000}, 0), ("remove-fd", {"fdset-id": 77}, 0),
        ("remove-fd", {"fdset-id": 5}, 0), ("remove-fd", {"fd": 5}, 0), ("query-fdsets", None, 0),
        ("blockdev-add", {"driver": "host_device", "filename": "/dev/fdset/0", "node-name": "n"}, 0),
        ("blockdev-add", {"driver": "file", "filename": "/dev/fdset/99", "node-name": "m"}, 0),
        ("query-fdsets", None, 0), ("remove-fd", {"fdset-id": 0}, 0), ("query-fdsets", None, 0),
        ("blockdev-add", {"driver": "host_device", "filename": "/dev/fdset/0", "node-name": "m"}, 0),
        ("blockdev-del", {"node-name": "n"}, 0), ("query-fdsets", None, 0),
        ("stop", None, 0), ("remove-fd", {"fdset-id": 1}, 0), ("query-fdsets", None, 0),
    ]  # fmt: skip
    real, ours = replies(steps, null)
    assert ours[1:] == real[1:]  # the real one was started stopped


def test_run_states_and_names_are_answered_as_a_machine_does(replies):
    names = "query-status stop query-status stop cont query-status cont query-name query-uuid"
    real, ours = replies([(name, None, 0) for name in ["cont", *names.split()]])
    assert ours[1:] == real[1:]  # the real one was started stopped
