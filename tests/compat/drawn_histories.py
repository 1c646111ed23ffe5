"""Histories drawn while the real daemon plays them: what is asked next fits what there is by then.

Commands drawn blindly (``drawn_commands``) are mostly refused, since a job, a bitmap or a chain has
to be there first.  Here each draw looks at the nodes, jobs, bitmaps and exports of the real daemon,
so that most commands are taken, and long histories come about.  Ours then plays the same commands.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from compat.daemon import Blockemu, Died, NbdGuest, image
from compat.drawn_commands import Said, said
from compat.drawn_play import ending, settle
from compat.transcript import told

Json = Any
Drawn = tuple[str, Json]
MIB = 1 << 20
SIZES = [*[MIB] * 5, 2 * MIB, 65536, 100_000]
IMAGES = [f"i{n}.qcow2" for n in range(4)]
RAWS = [f"r{n}.raw" for n in range(3)]
SYNCS = ["full", "top", "none", "incremental", "bitmap"]
ERRORS = ["report", "ignore", "stop", "enospc"]
_ANY_VERB = ["cancel", "complete", "dismiss", "finalize", "pause", "resume"]
_VERBS = {  # what a job in this state mostly takes
    "running": ["cancel", "pause"],
    "paused": ["resume", "cancel"],
    "ready": ["complete", "cancel", "pause"],
    "standby": ["resume", "cancel"],
    "pending": ["finalize", "cancel"],
    "concluded": ["dismiss"],
}
_FORMATS = {
    "raw": {},
    "qcow2": {
        "cluster-size": [512, 4096, 65536, 1 << 21, 3],
        "lazy-refcounts": [True, False],
        "refcount-bits": [1, 16, 64, 3],
        "version": ["v2", "v3"],
        "compression-type": ["zlib", "zstd"],
        "extended-l2": [True, False],
        "backing-file": ["r0.raw", "none"],
        "backing-fmt": ["raw", "qcow2"],
        "data-file-raw": [True, False],
    },
    "vdi": {"preallocation": ["off", "metadata", "full"]},
}  # luks is left out: QEMU's measures how fast it is, and gives up at random, one time in ten


def prepare(folder: Path) -> None:
    """Make the files that histories begin with: a chain, images by themselves, raw files."""
    for number, name in enumerate(RAWS):
        (folder / name).write_bytes(bytes([number + 1]) * 65536 + bytes(MIB - 65536))
    for name in IMAGES:
        image("create", "-q", "-f", "qcow2", name, "1M", cwd=folder)
    image("bitmap", "--add", IMAGES[3], "kept", cwd=folder)
    chain = ["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b"]
    image(*chain, "i0.qcow2", "mid.qcow2", "1M", cwd=folder)
    image(*chain, "mid.qcow2", "top.qcow2", "1M", cwd=folder)


def open_chain(daemon: NbdGuest) -> None:
    """Open a chain, whose links have names, and a raw file."""
    daemon("object-add", qom_type="throttle-group", id="tg0")
    daemon("object-add", qom_type="secret", id="sec0", data="swordfish")
    below: Json = None
    for node, name in (("base", "i0.qcow2"), ("mid", "mid.qcow2"), ("top", "top.qcow2")):
        options: Json = {"driver": "qcow2", "node-name": node}
        options["file"] = {"driver": "file", "node-name": f"{node}-f", "filename": name}
        below = options | ({"backing": below} if below else {})
    daemon("blockdev-add", below)
    file = {"driver": "file", "filename": "r0.raw"}
    daemon("blockdev-add", driver="raw", node_name="raw", file=file)
    daemon.listen()


class BlockemuForGuests(NbdGuest):
    """Ours, with guests that come as they come to the real daemon: by an export."""

    kind = Blockemu.kind
    program = Blockemu.program


class Teller:
    """Draws commands that fit what a daemon has."""

    def __init__(self, daemon: NbdGuest, seed: int) -> None:
        self.daemon = daemon
        self.rng = random.Random(seed)
        self.count = 0  # of names given out
        self.options: dict[str, Json] = {}  # of nodes, as they were opened
        self.draws = [
            (getattr(self, name), weight)
            for name, weight in {
                "_add": 8, "_delete": 3, "_reopen": 6, "_write": 6, "_mirror": 5, "_backup": 5,
                "_commit": 4, "_stream": 4, "_job": 12, "_bitmap": 10, "_transaction": 6,
                "_export": 4, "_change_quorum": 3, "_resize": 3, "_snapshot": 3, "_create": 4,
                "_amend": 2, "_ask": 8, "_object": 3, "_odd": 2, "_backing_file": 2,
            }.items()
        ]  # fmt: skip

    def draw(self) -> Drawn:
        """Look at the daemon, and draw a command and its arguments."""
        self._look()
        makers, weights = zip(*self.draws, strict=True)
        while True:
            (maker,) = self.rng.choices(makers, weights)
            drawn: Drawn | None = maker()
            if drawn is not None:
                return drawn

    def _look(self) -> None:
        daemon = self.daemon
        daemon.recording = False
        infos = daemon("query-named-block-nodes", flat=True)
        self.jobs = daemon("query-jobs")
        self.block_jobs = [job["device"] for job in daemon("query-block-jobs")]
        self.exports = [each["id"] for each in daemon("query-block-exports")]
        graph = daemon("x-debug-query-block-graph")
        daemon.recording = True
        self.nodes = [i["node-name"] for i in infos if not i["node-name"].startswith("#")]
        self.drivers = {i["node-name"]: i["drv"] for i in infos}
        self.sizes = {i["node-name"]: i["image"]["virtual-size"] for i in infos}
        below = {edge["child"] for edge in graph["edges"]}
        self.roots = [
            n["name"] for n in graph["nodes"] if n["name"] in self.nodes and n["id"] not in below
        ]
        self.bitmaps = [
            (i["node-name"], bitmap["name"])
            for i in infos
            for bitmap in i.get("dirty-bitmaps", [])
            if bitmap.get("name") and not i["node-name"].startswith("#")
        ]

    # Pieces

    def _new(self, kind: str) -> str:
        self.count += 1
        return f"{kind}{self.count}"

    def _some(self, **values: list[Json]) -> Json:
        """Draw members, each of them seldom."""
        return {
            name.replace("_", "-"): self.rng.choice(choices)
            for name, choices in values.items()
            if self.rng.random() < 0.2
        }

    def _node(self, *drivers: str) -> str:
        fitting = [n for n in self.nodes if not drivers or self.drivers[n] in drivers]
        if not drivers and self.rng.random() < 0.9:  # a file by itself is mostly in use
            fitting = [n for n in fitting if not n.endswith("-f")]
        return self.rng.choice(fitting or self.nodes or ["none"])

    def _root(self) -> str:
        """Return a node that mostly nobody uses."""
        fitting = self.roots if self.rng.random() < 0.8 else []
        return self.rng.choice(fitting) if fitting else self._node()

    def _top(self) -> str:
        """Return the top of a chain, mostly."""
        tops = [name for name in self.roots if self.drivers[name] == "qcow2"]
        return self.rng.choice(tops) if tops and self.rng.random() < 0.8 else self._node("qcow2")

    def _target(self, source: str) -> str:
        """Return a node that a copy of another fits on, mostly."""
        same = [n for n in self.roots if n != source and self.sizes[n] == self.sizes.get(source)]
        return self.rng.choice(same) if same and self.rng.random() < 0.8 else self._node()

    def _file(self) -> Json:
        return {"driver": "file", "filename": self.rng.choice(IMAGES + RAWS)}

    def _child(self) -> Json:
        return self._node() if self.rng.random() < 0.7 else self._file()

    def _common(self) -> Json:
        return self._some(
            read_only=[True, False],
            auto_read_only=[True, False],
            discard=["unmap", "ignore"],
            detect_zeroes=["off", "on", "unmap"],
            cache=[{"direct": False}, {"no-flush": True}],
        )

    # Nodes

    def _add(self) -> Drawn:
        rng = self.rng
        driver = rng.choice(
            ["qcow2", "qcow2", "qcow2", "raw", "null-co", "throttle", "blkdebug", "copy-on-read",
             "compress", "quorum", "preallocate", "copy-before-write", "snapshot-access", "file",
             "blkverify", "blklogwrites"]
        )  # fmt: skip
        options: Json = {"driver": driver, "node-name": self._new("n")} | self._common()
        match driver:
            case "qcow2":
                options["file"] = {"driver": "file", "filename": rng.choice(IMAGES)}
                options |= self._some(
                    lazy_refcounts=[True, False], cache_size=[65536], l2_cache_size=[65536],
                    pass_discard_request=[True], overlap_check=["all", "none"],
                )  # fmt: skip
                if rng.random() < 0.6:
                    options["backing"] = rng.choice([None, None, self._node(), self._file()])
            case "raw":
                options["file"] = self._child()
                options |= self._some(size=[MIB // 2], offset=[65536])
            case "null-co":
                options |= {"size": rng.choice(SIZES), "read-zeroes": rng.random() < 0.7}
            case "throttle":
                options |= {"file": self._child(), "throttle-group": "tg0"}
            case "blkdebug":
                options["image"] = self._child()
                options |= self._some(align=[512, 4096], max_transfer=[65536], opt_discard=[4096])
            case "quorum":
                children = [self._child() for _ in range(rng.choice([1, 2, 2, 3]))]
                options |= {"children": children, "vote-threshold": rng.choice([1, 1, 2])}
                options |= self._some(
                    read_pattern=["fifo", "quorum"], blkverify=[True], rewrite_corrupted=[True]
                )
            case "copy-before-write":
                options |= {"file": self._node(), "target": self._child()}
                if self.bitmaps and rng.random() < 0.3:
                    node, name = rng.choice(self.bitmaps)
                    options["bitmap"] = {"node": node, "name": name}
                options |= self._some(on_cbw_error=["break-snapshot"], cbw_timeout=[10])
            case "snapshot-access":
                options["file"] = self._node("copy-before-write")
            case "file":
                options["filename"] = rng.choice(RAWS + IMAGES)
            case "blkverify":
                options |= {"test": self._child(), "raw": self._child()}
            case "blklogwrites":
                options |= {"file": self._child(), "log": self._child()}
            case _:
                options["file"] = self._child()
        self.options[options["node-name"]] = options
        return "blockdev-add", options

    def _delete(self) -> Drawn:
        return "blockdev-del", {"node-name": self._node()}

    def _changed(self, name: str) -> Json:
        """Return a node's options with something in them changed."""
        rng = self.rng
        options = dict(self.options[name])
        for key in [key for key in options if rng.random() < 0.05 and key != "driver"]:
            del options[key]
        match rng.randrange(6):  # which jobs pause how often for new children, nobody may rely on
            case 0 | 1 | 2 if self.jobs or rng.random() < 0.3:
                options["read-only"] = rng.random() < 0.5
            case 0 | 1 if "backing" in options or options["driver"] == "qcow2":
                options["backing"] = rng.choice([None, self._node(), self._node()])
            case 2 if "file" in options:
                options["file"] = rng.choice([self._node(), self._file()])
            case 3 if options["driver"] == "qcow2":
                options |= self._some(
                    lazy_refcounts=[True, False], l2_cache_size=[65536, 131072],
                    cache_clean_interval=[0, 600], overlap_check=["constant", "cached"],
                )  # fmt: skip
            case 4 if options["driver"] == "throttle":
                options["throttle-group"] = rng.choice(["tg0", "tg1"])
            case _:
                options |= self._common()
        return options

    def _reopen(self) -> Drawn | None:
        known = [name for name in self.options if name in self.nodes]
        if not known:
            return None
        some = self.rng.sample(known, min(len(known), self.rng.choice([1, 1, 1, 2])))
        return "blockdev-reopen", {"options": [self._changed(name) for name in some]}

    def _change_quorum(self) -> Drawn | None:
        if "quorum" not in self.drivers.values():
            return None
        parent = self._node("quorum")
        if self.rng.random() < 0.5:
            return "x-blockdev-change", {"parent": parent, "node": self._node()}
        number = self.rng.choice([0, 0, 1, 2])
        return "x-blockdev-change", {"parent": parent, "child": f"children.{number}"}

    def _resize(self) -> Drawn:
        return "block_resize", {"node-name": self._root(), "size": self.rng.choice(SIZES)}

    def _snapshot(self) -> Drawn:
        if self.rng.random() < 0.3:
            file = {"device": self._node("qcow2"), "name": self.rng.choice(["s0", "s1"])}
            kind = self.rng.choice(["", "-delete"])
            return f"blockdev-snapshot{kind}-internal-sync", file
        if self.rng.random() < 0.4:
            arguments = {"node-name": self._node(), "snapshot-file": self._new("o") + ".qcow2"}
            arguments |= self._some(
                snapshot_node_name=[self._new("n")], mode=["existing", "absolute-paths"]
            )
            return "blockdev-snapshot-sync", arguments
        return "blockdev-snapshot", {"node": self._node(), "overlay": self._top()}

    def _backing_file(self) -> Drawn:
        arguments = {"device": self._top(), "image-node-name": self._node("qcow2")}
        name = self.rng.choice([*IMAGES, "none"])
        return "change-backing-file", arguments | {"backing-file": name}

    def _write(self) -> Drawn | None:
        writable = [n for n in self.nodes if self.drivers[n] not in ("snapshot-access", "quorum")]
        if not writable:
            return None
        at, size = self.rng.choice([0, 65536, 131072, 512 * 1024]), self.rng.choice([512, 65536])
        verb = self.rng.choice(["write -P 7", "write -P 9", "write -z", "read", "discard"])
        return "guest", (self.rng.choice(writable), f"{verb} {at} {size}")

    # Jobs

    def _start(self, command: str, arguments: Json) -> Drawn:
        options = self._some(
            auto_finalize=[False], auto_dismiss=[False], speed=[0, 1 << 40],
            filter_node_name=[self._new("f")],
        )  # fmt: skip
        return command, {"job-id": self._new("j")} | arguments | options

    def _mirror(self) -> Drawn:
        device = self._root()
        arguments = {"device": device, "target": self._target(device), "sync": "full"}
        if self.rng.random() < 0.3:
            arguments["sync"] = self.rng.choice(SYNCS)
        arguments |= self._some(
            replaces=[self._node()], granularity=[512, 65536, 3], buf_size=[0, MIB],
            copy_mode=["background", "write-blocking"], unmap=[False, True],
            on_source_error=ERRORS, on_target_error=ERRORS,
        )  # fmt: skip
        return self._start("blockdev-mirror", arguments)

    def _backup_arguments(self) -> Json:
        sync = self.rng.choice([each for each in SYNCS if each != "none"])  # that has no end
        device = self._root()
        arguments = {"device": device, "target": self._target(device), "sync": sync}
        if self.bitmaps and (sync in ("incremental", "bitmap") or self.rng.random() < 0.1):
            arguments["device"], arguments["bitmap"] = self.rng.choice(self.bitmaps)
        if sync == "bitmap" or self.rng.random() < 0.1:
            arguments["bitmap-mode"] = self.rng.choice(["on-success", "never", "always"])
        return arguments | self._some(
            compress=[True, False], on_source_error=ERRORS, on_target_error=ERRORS,
            x_perf=[{"use-copy-range": True}, {"max-workers": 1}, {"max-chunk": 65536}],
        )  # fmt: skip

    def _backup(self) -> Drawn:
        return self._start("blockdev-backup", self._backup_arguments())

    def _commit(self) -> Drawn:
        arguments = {"device": self._top()} | self._some(
            base_node=[self._node("qcow2")], top_node=[self._node("qcow2")],
            backing_file=[*IMAGES, "none"], on_error=ERRORS,
        )  # fmt: skip
        return self._start("block-commit", arguments)

    def _stream(self) -> Drawn:
        arguments = {"device": self._top()} | self._some(
            base_node=[self._node("qcow2")], bottom=[self._node("qcow2")],
            backing_file=[*IMAGES, "none"], on_error=["report", "ignore", "stop"],
        )  # fmt: skip
        return self._start("block-stream", arguments)

    def _create(self) -> Drawn:
        rng = self.rng
        if rng.random() < 0.3:
            options: Json = {"driver": "file", "filename": self._new("c"), "size": MIB}
            options |= self._some(preallocation=["off", "falloc", "full"], nocow=[True])
        else:
            driver = rng.choice([name for name in _FORMATS if name != "raw"])
            options = {"driver": driver, "file": self._node("file"), "size": rng.choice(SIZES)}
            for name, choices in _FORMATS[driver].items():
                if rng.random() < 0.15:
                    options[name] = rng.choice(choices)
        return "blockdev-create", {"job-id": self._new("j"), "options": options}

    def _amend(self) -> Drawn:
        options = {"driver": "qcow2"}
        arguments = {"job-id": self._new("j"), "node-name": self._node("qcow2", "luks")}
        return "x-blockdev-amend", arguments | {"options": options} | self._some(force=[True])

    def _job(self) -> Drawn | None:
        if not self.jobs:
            return None
        picked = self.rng.choice(self.jobs)
        job = picked["id"]
        verbs = _VERBS.get(picked["status"], _ANY_VERB) if self.rng.random() < 0.7 else _ANY_VERB
        verb = self.rng.choice(verbs)
        if verb == "complete" and picked["status"] in ("paused", "standby"):
            verb = "resume"  # it would end some time after being resumed
        if self.rng.random() < 0.6 or job not in self.block_jobs:
            return f"job-{verb}", {"id": job}
        if self.rng.random() < 0.2:
            speed = self.rng.choice([0, 1 << 40, -1])
            return "block-job-set-speed", {"device": job, "speed": speed}
        if verb in ("finalize", "dismiss"):
            return f"block-job-{verb}", {"id": job}
        more = self._some(force=[True, False]) if verb == "cancel" else {}
        return f"block-job-{verb}", {"device": job} | more

    # Bitmaps

    def _bitmap_action(self, verb: str) -> Json:
        rng = self.rng
        if verb == "add" or not self.bitmaps:
            return {"node": self._node(), "name": rng.choice(["b0", "b1", "b2"])} | self._some(
                persistent=[True, False], disabled=[True, False], granularity=[512, 65536, 3]
            )
        node, name = rng.choice(self.bitmaps)
        if verb != "merge":
            return {"node": node, "name": name}
        sources: list[Json] = []
        for _ in range(rng.choice([1, 2])):
            other, source = rng.choice(self.bitmaps)
            sources.append(source if other == node else {"node": other, "name": source})
        return {"node": node, "target": name, "bitmaps": sources}

    def _bitmap(self) -> Drawn:
        verbs = ["add", "add", "remove", "clear", "merge", "merge"]
        verb = self.rng.choice(verbs if not self.bitmaps else [*verbs, "enable", "disable"])
        if not self.bitmaps:
            verb = "add"
        return f"block-dirty-bitmap-{verb}", self._bitmap_action(verb)

    def _transaction(self) -> Drawn:
        rng = self.rng
        actions = []
        for _ in range(rng.choice([1, 2, 2, 3])):
            verb = rng.choice(["add", "clear", "merge", "remove", "disable", "enable"])
            if rng.random() < 0.6:
                verb = verb if self.bitmaps else "add"
                kind, data = f"block-dirty-bitmap-{verb}", self._bitmap_action(verb)
            else:
                draw = rng.choice([self._backup, self._backup, self._snapshot])
                kind, data = draw()
                if kind == "blockdev-snapshot-delete-internal-sync":
                    kind = "blockdev-snapshot-internal-sync"
            actions.append({"type": kind, "data": data})
        mode = self._some(completion_mode=["individual", "grouped", "grouped"])
        properties = {"properties": mode} if mode else {}
        return "transaction", {"actions": actions} | properties

    # The rest

    def _export(self) -> Drawn:
        if self.exports and self.rng.random() < 0.5:
            more = self._some(mode=["safe", "hard"])
            return "block-export-del", {"id": self.rng.choice(self.exports)} | more
        arguments = {"type": "nbd", "id": self._new("e"), "node-name": self._node()}
        arguments |= self._some(
            name=[self._new("x")], writable=[True], description=["d"], allocation_depth=[True]
        )
        if self.bitmaps and self.rng.random() < 0.4:
            some = self.rng.sample(self.bitmaps, min(len(self.bitmaps), 2))
            arguments["node-name"] = some[0][0]
            arguments["bitmaps"] = [
                self.rng.choice([name, {"node": node, "name": name}]) for node, name in some
            ]
        return "block-export-add", arguments

    def _object(self) -> Drawn:
        limits = {"limits": self._some(iops_total=[1000, 0], bps_read=[1 << 40], bps_write=[-1])}
        match self.rng.randrange(4):
            case 0:
                return "object-del", {"id": self.rng.choice(["tg0", "tg1", "none"])}
            case 1:
                return "object-add", {"qom-type": "throttle-group", "id": "tg1"} | limits
            case 2:
                path = {"path": self.rng.choice(["tg0", "/objects/tg1"]), "property": "limits"}
                return "qom-set", path | {"value": limits["limits"]}
        return "qom-get", {"path": "/objects/tg0", "property": "limits"}

    def _ask(self) -> Drawn:
        queries = ["query-jobs", "query-block-jobs", "query-block-exports", "query-blockstats"]
        if self.rng.random() < 0.5:
            flat = self.rng.random() < 0.5
            return "query-named-block-nodes", {"flat": True} if flat else {}
        return self.rng.choice(queries[:3]), {}

    def _odd(self) -> Drawn:
        match self.rng.randrange(3):
            case 0 if self.bitmaps:
                node, name = self.rng.choice(self.bitmaps)
                return "x-debug-block-dirty-bitmap-sha256", {"node": node, "name": name}
            case 1:
                size = self.rng.choice([0, 65536, 1 << 40])
                return "block-set-write-threshold", {
                    "node-name": self._node(),
                    "write-threshold": size,
                }
        return "x-blockdev-set-iothread", {"node-name": self._node(), "iothread": None}


def _play_one(daemon: NbdGuest, command: str, arguments: Json) -> Said:
    daemon.transcript.clear()
    if command == "guest":
        node, line = arguments
        try:
            output = daemon.guest(node, line)
            how = "done" if any(w in output for w in ("wrote", "read ", "discard ")) else "failed"
        except Died:
            raise
        except AssertionError as e:  # no export can be had
            how = str(e).partition(": ")[2]
            daemon.recording = True
        daemon.note(f"guest {node} {line}: {how}")
        settle(daemon, "")
    else:
        answer = daemon.execute(command, arguments)
        settle(daemon, ending(command, arguments, answer))
    return said(daemon.transcript)


def tell(
    oracle: type[NbdGuest], seed: int, each: int, folder: Path
) -> tuple[list[Drawn], list[Said]]:
    """Draw a history and return it with what the real program said; what kills it is the end."""
    folder.mkdir()
    prepare(folder)
    history: list[Drawn] = []
    played: list[Said] = []
    with oracle(folder) as daemon:
        open_chain(daemon)
        teller = Teller(daemon, seed)
        for _ in range(each):
            try:
                drawn = teller.draw()
                played.append(_play_one(daemon, *drawn))
            except (AssertionError, BrokenPipeError):  # it is dead, or cannot tell what it has
                break
            history.append(drawn)
    return history, played


def compare(
    oracle: type[NbdGuest], ours: type[NbdGuest], seed: int, each: int, folder: Path
) -> None:
    """Fail unless both say the same all along a history."""
    history, real = tell(oracle, seed, each, folder / "real")
    (folder / "ours").mkdir()
    prepare(folder / "ours")
    with ours(folder / "ours") as daemon:
        open_chain(daemon)
        for number, drawn in enumerate(history):
            mine, theirs = _play_one(daemon, *drawn), real[number]
            before = "\n".join(f"{name} {args}" for name, args in history[: number + 1])
            assert mine == theirs, f"{before}\n{told(mine[0], theirs[0])}\n{mine[1]}\n{theirs[1]}"
