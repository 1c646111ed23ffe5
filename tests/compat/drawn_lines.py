"""Command lines of qemu-img drawn at random, over a few small images of all kinds.

An option's argument is drawn from words that mean something to it; some draws are spoilt on
purpose: an operand missing, or one too many, or an argument of another kind.  The same seed gives
the same lines.
"""

from __future__ import annotations

import random
from typing import Final

RAW = ["base.raw", "odd.raw", "empty", "text"]
QCOW2 = ["base.qcow2", "mid.qcow2", "top.qcow2", "v2.qcow2", "snap.qcow2", "wide.qcow2",
         "split.qcow2", "broken.qcow2", "orphan.qcow2"]  # fmt: skip
NEW = ["new1", "new2", "new3.qcow2"]
_FORMATS = ["raw", "raw", "qcow2", "qcow2", "qcow2", "vdi", "luks", "bochs", "file", "null-co",
            "blkdebug", "nonsense", ""]  # fmt: skip
_SIZES = ["0", "1", "512", "1000", "64k", "1M", "4M", "5M", "8M", "8388609", "1.5M", "0x10000",
          "3b", "-1", "1x", "", "16E", "9E", "1e3", " 1M", "18446744073709551615",
          "99999999999999999999"]  # fmt: skip
WORDS: Final[dict[str, list[str]]] = {
    "fmt": _FORMATS,
    "size": _SIZES,
    "resize": ["+1M", "-1M", "+0", "-8M", "+512", "+", "-", "--1", "+-1", *_SIZES],
    "file": [*RAW, *QCOW2, *QCOW2, *NEW],
    "overlay": ["mid.qcow2", "top.qcow2", "top.qcow2", "snap.qcow2", *NEW],
    "strange": [
        "missing",
        ".",
        "",
        "/nonexistent/new",
        "file:base.raw",
        "json:{}",
        "none:x",
        "nbd://127.0.0.1:1/x",
        "nbd:unix:none.sock",
        "blkdebug::base.raw",
        "./top.qcow2",
        'json:{"driver":"null-co","size":1048576,"read-zeroes":true}',
        'json:{"driver":"qcow2","file":{"driver":"file","filename":"top.qcow2"}}',
        'json:{"driver":"raw","size":65536,"file":{"driver":"file","filename":"base.raw"}}',
        "file:",
        "a:b/c",
        "x" * 300,
    ],
    "backing": [
        "base.raw",
        "base.qcow2",
        "base.qcow2",
        "mid.qcow2",
        "top.qcow2",
        "missing",
        "",
        "./base.qcow2",
        "json:{}",
        "null-co://",
        "none:x",
    ],
    "opts": [
        "driver=qcow2,file.filename=top.qcow2",
        "driver=qcow2,file.filename=mid.qcow2",
        "driver=raw,file.filename=base.raw",
        "file.filename=top.qcow2",
        "filename=base.raw",
        "driver=raw,file.driver=file,file.filename=base.raw,read-only=on",
        "driver=nonsense",
        "driver=qcow2,file=top.qcow2,nonsense=1",
        "top.qcow2",
        "",
        "driver=qcow2",
        "driver=qcow2,file.filename=top.qcow2,backing=",
        "driver=null-co,size=1M",
        "driver=qcow2,file.filename=top.qcow2,lazy-refcounts=on",
        "driver=qcow2,file.filename=top.qcow2,backing.driver=null-co",
        "driver=raw,offset=512,size=1024,file.filename=base.raw",
        "driver=qcow2,file.filename",
        "driver=blkdebug,image.filename=base.raw",
        "a=b=c",
        "=",
        ",",
        "driver=raw,,x=1",
    ],
    "cache": ["none", "writeback", "writethrough", "directsync", "unsafe", "off", "nonsense", ""],
    "output": ["json", "human", "json", "xml", ""],
    "repair": ["leaks", "all", "all", "none", ""],
    "object": [
        "secret,id=sec0,data=abc",
        "secret,id=sec0",
        "secret,data=x",
        "nonsense,id=a",
        "",
        "id=x",
        "secret,id=sec0,data=abc,nonsense=1",
        "throttle-group,id=tg0",
        "secret,id=9,data=x",
        "qom-type=secret,id=sec0,data=abc",
        "{}",
        "{",
        '{"qom-type":"secret","id":"sec0","data":"abc"}',
        "iothread,id=io0",
    ],
    "rate": ["1G", "100M", "0", "-1", "x", ""],
    "snapshot": ["s0", "s1", "s2", "1", "2", "", "none", "snapshot.name=s0", "snapshot.id=1"],
    "snapshot-param": [
        "s0",
        "s1",
        "1",
        "snapshot.name=s0",
        "snapshot.id=2",
        "snapshot.id=9",
        "",
        "snapshot.name=none",
        "snapshot.nonsense=x",
        "none",
        "snapshot.id=1,snapshot.name=s0",
        "snapshot.id=1,snapshot.name=s1",
    ],
    "sparse": ["0", "512", "4k", "64k", "1M", "100", "17M", "x", "-1", ""],
    "coroutines": ["1", "2", "8", "16", "0", "17", "x", "-1", ""],
    "granularity": ["512", "64k", "1M", "100", "0", "4G", "x", "256"],
    "bitmap": ["b0", "b1", "b2", "b3", "", "none", "x" * 1024, "x" * 1023],
    "count": ["1", "3", "10", "0", "-1", "x", "5k"],  # of requests between flushes
    "depth": ["1", "2", "64", "-1", "x"],
    "buffer": ["512", "4k", "64k", "1", "0", "x", "-1", "3000"],
    "aio": ["threads", "native", "io_uring", "nonsense"],
    "pattern": ["0", "7", "255", "256", "-1", "x", "0x41"],
    "preallocation": ["off", "metadata", "falloc", "full", "nonsense", ""],
    "dd-bs": ["512", "1k", "64k", "1000", "1M", "0", "x", "", "-1"],
    "dd-count": ["0", "1", "3", "100", "x", "", "-1", "9E"],
}
_CREATE = ["cluster_size=64k", "cluster_size=4k", "cluster_size=512", "cluster_size=2M",
           "cluster_size=3k", "cluster_size=4M", "cluster_size=x", "cluster_size=", "cluster_size",
           "compat=0.10", "compat=v2", "compat=v3", "compat=1.1", "compat=1.2", "lazy_refcounts",
           "lazy_refcounts=on", "lazy_refcounts=off", "lazy_refcounts=x", "refcount_bits=1",
           "refcount_bits=8", "refcount_bits=16", "refcount_bits=64", "refcount_bits=3",
           "refcount_bits=128", "extended_l2=on", "extended_l2=off", "compression_type=zlib",
           "compression_type=zstd", "compression_type=lz4", "preallocation=off",
           "preallocation=metadata", "preallocation=falloc", "preallocation=full",
           "preallocation=nonsense", "size=1M", "size=3M", "size=x", "nocow=off", "nocow=on",
           "static=on", "static=off", "static", "extent_size_hint=1M", "extent_size_hint=0",
           "backing_file=base.qcow2", "backing_file=base.raw,backing_fmt=raw", "backing_fmt=qcow2",
           "backing_file=", "data_file=data1", "data_file=/nonexistent/x", "data_file_raw=on",
           "data_file=data2,data_file_raw=on", "encryption=off", "encrypt.format=nonsense", "help",
           "?", "nonsense=1", "nonsense", "", "=", ",", "a,,b", "noextended_l2", "nonocow",
           "encrypt.key-secret=sec0", "key-secret=sec0", "iter-time=10", "cipher-alg=nonsense",
           "size=2M,size=1M", "adapter_type=ide"]  # fmt: skip
# Options: a letter or a name, and what kind its argument is of, if it takes one.
OPTIONS: Final[dict[str, str]] = {
    "amend": "o:create o:create f:fmt t:cache p q force image-opts object:object",
    "bench": "d:depth f:fmt n i:aio o:size q s:buffer S:buffer t:cache w U image-opts "
    "flush-interval:count pattern:pattern no-drain force-share",
    "bitmap": "b:file f:fmt F:fmt g:granularity granularity:granularity image-opts object:object "
    "add add remove clear enable disable merge:bitmap merge:bitmap source-file:file "
    "source-format:fmt",
    "check": "f:fmt r:repair T:cache q U format:fmt repair:repair output:output image-opts "
    "object:object force-share",
    "commit": "f:fmt t:cache b:backing d p q r:rate image-opts object:object",
    "compare": "f:fmt F:fmt T:cache p q s U image-opts object:object force-share",
    "convert": "f:fmt O:fmt O:fmt O:fmt B:backing C c F:fmt o:create l:snapshot-param S:sparse p "
    "t:cache T:cache q n m:coroutines W U r:rate image-opts target-image-opts salvage "
    "target-is-zero bitmaps skip-broken-bitmaps object:object force-share",
    "create": "F:fmt b:backing f:fmt f:fmt o:create o:create o:create q u object:object",
    "dd": "f:fmt O:fmt O:fmt U image-opts object:object force-share",
    "info": "f:fmt U format:fmt output:output backing-chain image-opts object:object force-share",
    "map": "f:fmt s:size l:size U format:fmt output:output output:output image-opts object:object "
    "force-share start-offset:size max-length:size",
    "measure": "f:fmt O:fmt o:create l:snapshot-param U image-opts object:object output:output "
    "size:size size:size force-share",
    "rebase": "f:fmt F:fmt b:backing b:backing b:backing u p t:cache T:cache q U image-opts "
    "object:object force-share",
    "resize": "f:fmt q preallocation:preallocation shrink shrink image-opts object:object",
    "snapshot": "l a:snapshot c:snapshot c:snapshot d:snapshot q U image-opts object:object "
    "force-share",
}
_OPERANDS: Final[dict[str, str]] = {
    "bitmap": "file bitmap", "commit": "overlay", "compare": "file file", "convert": "file new",
    "create": "new size", "resize": "file resize", "rebase": "overlay",
    "dd": "",
}  # fmt: skip
COMMANDS: Final = sorted(OPTIONS)


class Dealer:
    """Draws lines; with ``wild`` at one a good part makes no sense, at zero nearly all does."""

    def __init__(self, seed: int, wild: float) -> None:
        self.rng = random.Random(seed)
        self.wild = wild

    def draw(self) -> list[str]:
        """Return a command and its arguments."""
        rng = self.rng
        command = rng.choice(COMMANDS)
        options = OPTIONS[command].split()
        some = [each for each in options if rng.random() < 2.5 / len(options)]
        words = [self._option(command, each) for each in some]
        words += [[word] for word in self._operands(command, "image-opts" in some)]
        words += self._needed(command, some)
        rng.shuffle(words)
        return [command, *(word for group in words for word in group)]

    def _needed(self, command: str, some: list[str]) -> list[list[str]]:
        """Mostly add what a command can do nothing without."""
        rng = self.rng
        if command != "bench" and self._spoilt(0.2):
            return []
        match command:
            case "bitmap" if not {"add", "remove", "clear", "enable", "disable"} & set(some):
                return [[rng.choice(("--add", "--remove", "--clear", "--disable", "--enable"))]]
            case "snapshot" if len(some) < 2:
                return [rng.choice((["-l"], ["-c", "s2"], ["-a", "s0"], ["-d", "s1"]))]
            case "amend" if "o:create" not in some:
                return [["-o", rng.choice(("compat=v3", "lazy_refcounts=on", "size=5M"))]]
            case "rebase" if "b:backing" not in some:
                return [["-b", rng.choice(WORDS["backing"])]]
            case "create" if "f:fmt" not in some:
                return [["-f", "qcow2"]]
            case "bench":
                return [["-c", rng.choice(("1", "3", "10"))]]
        return []

    def _spoilt(self, chance: float) -> bool:
        return self.rng.random() < chance * self.wild

    def _option(self, command: str, option: str) -> list[str]:
        name, _, kind = option.partition(":")
        dashed = f"-{name}" if len(name) == 1 else f"--{name}"
        if not kind:
            return [dashed]
        if command != "measure" and self._spoilt(0.05):  # which prints its help, other than ours
            return [dashed]
        value = self._create_options() if kind == "create" else self._word(kind)
        how = self.rng.random()
        if len(name) > 1:
            return [f"{dashed}={value}"] if how < 0.5 else [dashed, value]
        return [f"{dashed}{value}"] if how < 0.2 and value else [dashed, value]

    def _create_options(self) -> str:
        rng = self.rng
        return ",".join(rng.choice(_CREATE) for _ in range(rng.choice((1, 1, 2, 3))))

    def _word(self, kind: str) -> str:
        words = WORDS[kind]
        if kind in ("fmt", "cache", "size") and not self._spoilt(0.5):
            words = words[: len(words) // 2]  # what makes sense comes first
        return self.rng.choice(words)

    def _file(self, kind: str, as_options: bool) -> str:
        if kind == "new" and not self._spoilt(0.15):
            return self.rng.choice(NEW)
        if as_options and not self._spoilt(0.1):
            return self.rng.choice(WORDS["opts"])
        if self._spoilt(0.15):
            return self.rng.choice(WORDS["strange"])
        return self.rng.choice(WORDS["file" if kind == "new" else kind])

    def _operands(self, command: str, as_options: bool) -> list[str]:
        rng = self.rng
        if command == "dd":
            return self._dd()
        kinds = _OPERANDS.get(command, "file").split()
        if self._spoilt(0.1):
            kinds.append("file")
        if self._spoilt(0.1) or (command == "measure" and rng.random() < 0.4):
            kinds.pop()
        files = ("file", "overlay", "new")
        words = [
            self._file(kind, as_options) if kind in files else self._word(kind) for kind in kinds
        ]
        return words if rng.random() < 0.9 else ["--", *words]

    def _dd(self) -> list[str]:
        rng = self.rng
        source, target = self._file("file", False), self._file("new", False)
        if source == target:  # what it reads then is a matter of luck
            target = NEW[source == NEW[0]]
        words = [f"if={source}", f"of={target}"]
        for name, kind in (("bs", "dd-bs"), ("count", "dd-count"), ("skip", "dd-count")):
            if rng.random() < 0.5:
                words.append(f"{name}={rng.choice(WORDS[kind])}")
        if self._spoilt(0.1):
            words.append(rng.choice(("nonsense=1", "x", "bs", "=", "of=new1", "if=base.raw")))
        if self._spoilt(0.1):
            del words[rng.randrange(len(words))]
        return words
