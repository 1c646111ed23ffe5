"""``convert``: copy images into another one."""

import re
from typing import Any

from blockemu.backend import Backend
from blockemu.cache_modes import CACHE_MODES, CacheMode
from blockemu.creation import ImageCreator
from blockemu.errors import QmpError
from blockemu.node import Node
from blockemu.optlist import is_on
from blockemu.programs.img import convert_refusals as refusals
from blockemu.programs.img.arguments import IMAGE, Syntax
from blockemu.programs.img.convert_copy import Copier, Failure, Settings
from blockemu.programs.img.convert_plan import Plan, Planner
from blockemu.programs.img.creating import joined, print_help, read_options, wants_help
from blockemu.programs.img.numbers import number
from blockemu.programs.img.program import Leave, Mode, Program
from blockemu.programs.img.progress import Bar
from blockemu.programs.img.refusals import BadCache, BadSourceCache, Failed
from blockemu.programs.img.snapshots import SnapshotChoice
from blockemu.programs.img.sparse import SECTOR
from blockemu.records import field, record

SYNTAX = Syntax(
    "hf:O:B:CcF:o:l:S:pt:T:qnm:WUr:",
    IMAGE
    | {
        "force-share": "U",
        "target-image-opts": "",
        "salvage": "",
        "target-is-zero": "",
        "bitmaps": "",
        "skip-broken-bitmaps": "",
    },
)
MOST_SPARSE = 32768 * SECTOR
MOST_BUFFER = 32768 * SECTOR
MOST_WORKERS = 16
_NUMBER = re.compile(r"[ \t-\r]*[+-]?(0[xX][0-9a-fA-F]+|[0-9]+)")


@record
class Wanted:
    """What the command line says."""

    flags: set[str] = field(default_factory=set)
    given: dict[str, str] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)
    options: str | None = None
    snapshot: SnapshotChoice | None = None
    settings: Settings = field(default_factory=Settings)

    @property
    def create(self) -> bool:
        """Whether the target is to be made."""
        return "n" not in self.flags

    @property
    def fmt(self) -> str | None:
        """The target's format."""
        default = None if "target-image-opts" in self.flags else "raw"
        return self.given.get("O", default)


async def run(program: Program, argv: list[str]) -> int:
    """Copy, and with ``--bitmaps`` the bitmaps, too."""
    wanted = _read(program, argv)
    _check(wanted)
    if wanted.options is not None and wants_help(wanted.options):
        if wanted.fmt is None:
            raise refusals.HelpNeedsFormat
        print_help(program, wanted.fmt, wanted.names[-1] if len(wanted.names) > 1 else None)
        # The program's status is that of a conversion which did not take place.
        raise Leave
    if len(wanted.names) < 2:
        raise refusals.NameMissing
    source_cache = wanted.given.get("T", "writeback")
    if source_cache not in CACHE_MODES:
        raise BadSourceCache(source_cache)
    bar = program.bar(1.0, shown="p" in wanted.flags)
    bar.add(0)
    try:
        await Conversion(program, wanted, bar).run(CACHE_MODES[source_cache])
    except Failure:
        return 1
    else:
        bar.set(100)
        return 0
    finally:
        bar.end()


def _read(program: Program, argv: list[str]) -> Wanted:
    wanted = Wanted()
    settings = wanted.settings
    for name, value in program.options(SYNTAX, argv):
        match name:
            case "":
                wanted.names.append(value)
            case "o":
                wanted.options = joined(wanted.options, value)
            case "l":
                wanted.snapshot = SnapshotChoice.read(program, value)
            case "S":
                settings.sparse = _sparse(program, value)
                wanted.flags.add("S")
            case "m":
                settings.workers = _workers(value)
            case "r":
                settings.rate = number("rate limit", value, program.warn)
            case "f" | "O" | "B" | "F" | "t" | "T":
                wanted.given[name] = value
            case _:
                wanted.flags.add(name)
    flags = wanted.flags
    program.quiet = "q" in flags
    settings.copy_range = "C" in flags
    settings.compressed = "c" in flags
    settings.in_order = "W" not in flags
    settings.salvage = "salvage" in flags
    settings.reads_zero = "target-is-zero" in flags
    return wanted


def _sparse(program: Program, text: str) -> int:
    value = number("buffer size for sparse output", text, program.warn)
    if value % SECTOR or value > MOST_SPARSE:
        raise refusals.BadSparseSize(SECTOR, MOST_SPARSE)
    return value


def _workers(text: str) -> int:
    count = int(text, 0) if _NUMBER.fullmatch(text) and not text.lstrip().startswith("0") else 0
    if not 1 <= count <= MOST_WORKERS:
        raise refusals.BadWorkers(MOST_WORKERS)
    return count


def _check(wanted: Wanted) -> None:
    """See that the options go together, in QEMU's order."""
    flags, offload = wanted.flags, wanted.settings.copy_range
    rules = (
        ("skip-broken-bitmaps" in flags and "bitmaps" not in flags, refusals.SkipNeedsBitmaps),
        ("c" in flags and offload, refusals.OffloadCompressed),
        ("S" in flags and offload, refusals.OffloadSparse),
        ("salvage" in flags and offload, refusals.OffloadSalvage),
        ("target-image-opts" in flags and wanted.create, refusals.TargetOptionsNeedExisting),
        (not wanted.create and wanted.options is not None, refusals.OptionsWithoutCreation),
        ("target-is-zero" in flags and wanted.create, refusals.ZeroNeedsExisting),
    )
    for broken, refusal in rules:
        if broken:
            raise refusal


class Conversion:
    """One conversion."""

    def __init__(self, program: Program, wanted: Wanted, bar: Bar) -> None:
        self._program = program
        self._wanted = wanted
        self._bar = bar
        self._sources: list[Backend] = []
        self._texts: dict[str, str] = {}  # what the target is made with
        self._base = wanted.given.get("B")

    async def run(self, source_cache: CacheMode) -> None:
        """Open, make, copy."""
        program, wanted = self._program, self._wanted
        await self._open_sources(source_cache)
        if wanted.create:
            self._read_creation()
        self._check_backing()
        if wanted.settings.compressed:
            self._check_compression()
        if "bitmaps" in wanted.flags:
            self._check_bitmaps()
        secrets = {k: v for k, v in self._texts.items() if k.endswith("key-secret")}
        if wanted.create:
            await self._create()
        target = await self._open_target(secrets)
        plan = await self._prepare(target)
        await Copier(program, self._sources, target, wanted.settings, self._bar).run(plan)
        if "bitmaps" in wanted.flags:
            from blockemu.programs.img.bitmaps import copy_bitmaps  # start-up: seldom asked for

            skip = "skip-broken-bitmaps" in wanted.flags
            await copy_bitmaps(program, self._sources[0].node, target.node, skip_broken=skip)

    async def _open_sources(self, cache: CacheMode) -> None:
        wanted = self._wanted
        mode = Mode(exclusive=True, force_share="U" in wanted.flags, cache=cache)
        for name in wanted.names[:-1]:
            image = await self._program.open(
                name, wanted.given.get("f"), mode, image_opts="image-opts" in wanted.flags
            )
            self._sources.append(image)
        if wanted.snapshot is not None:
            if len(self._sources) > 1 and not wanted.snapshot.exact:
                raise refusals.OneSnapshot
            await wanted.snapshot.load(self._sources[0])

    def _read_creation(self) -> None:
        """Read the options of the target to be made."""
        wanted, fmt = self._wanted, self._wanted.fmt
        assert fmt is not None
        target = wanted.names[-1]
        self._texts, kinds = read_options(self._program, fmt, target, wanted.options)
        self._texts["size"] = str(sum(source.length for source in self._sources))
        given = (
            ("backing_file", self._base, refusals.NoBackingFile),
            ("backing_fmt", wanted.given.get("F"), refusals.NoBackingFormat),
        )
        for name, value, refusal in given:
            if value is not None:
                if name not in kinds:
                    raise refusal(fmt)
                self._texts[name] = value

    def _check_backing(self) -> None:
        name = self._texts.get("backing_file")
        if name is not None:
            self._base = name
        if self._base is not None:
            if self._wanted.settings.reads_zero:
                raise refusals.ZeroWithBacking
            if len(self._sources) > 1:
                raise refusals.BackingForSeveral
        if name is not None and "backing_fmt" not in self._texts:
            raise refusals.BackingNeedsFormat

    def _check_compression(self) -> None:
        texts, fmt = self._texts, self._wanted.fmt
        if self._wanted.create:
            assert fmt is not None
            driver = self._program.emu.opener.drivers[fmt]
            if driver.pwrite_compressed is Node.pwrite_compressed:
                raise refusals.NoCompression
        if is_on(texts.get("encryption")) or "encrypt.format" in texts:
            raise refusals.CompressedEncrypted
        if texts.get("preallocation", "off") != "off":
            raise refusals.CompressedPreallocated

    def _check_bitmaps(self) -> None:
        from blockemu.programs.img.bitmaps import check_bitmaps  # start-up: seldom asked for

        if len(self._sources) > 1:
            raise refusals.BitmapsOfOne
        skip = "skip-broken-bitmaps" in self._wanted.flags
        check_bitmaps(self._program, self._sources[0].node, skip_broken=skip)

    async def _create(self) -> None:
        wanted = self._wanted
        target, fmt = wanted.names[-1], wanted.fmt
        assert fmt is not None
        try:
            await ImageCreator(self._program.emu.opener).create_by_text(fmt, target, self._texts)
        except QmpError as e:
            raise Failed(f"{target}: error while converting {fmt}", e, hint=e.hint) from e

    async def _open_target(self, secrets: dict[str, str]) -> Backend:
        wanted, program = self._wanted, self._program
        target, cache = wanted.names[-1], wanted.given.get("t", "unsafe")
        if cache not in CACHE_MODES:
            raise BadCache(cache)
        mode = Mode(
            write=True,
            unmap=bool(wanted.settings.sparse),
            resize=CACHE_MODES[cache].direct,  # to end where a block of the device does
            cache=CACHE_MODES[cache],
        )
        options: dict[str, Any] = dict(secrets)
        as_options = "target-image-opts" in wanted.flags
        image = await program.open(target, wanted.fmt, mode, image_opts=as_options, options=options)
        node = image.node
        if "bitmaps" in wanted.flags and not node.supports_bitmaps:
            raise refusals.NoBitmapSupport(node.driver)
        if wanted.settings.compressed and type(node).pwrite_compressed is Node.pwrite_compressed:
            raise refusals.NoCompression
        return image

    async def _prepare(self, target: Backend) -> Plan:
        """Work out how to copy, now that the target is known."""
        wanted, settings = self._wanted, self._wanted.settings
        node = target.node
        limits = node.limits
        settings.buffer = min(
            MOST_BUFFER, max(settings.buffer, limits.opt_transfer, limits.discard_alignment)
        )
        least = settings.sparse // SECTOR
        power = 1 << max(least.bit_length() - 1, 0)
        settings.alignment = max(power * SECTOR, limits.request_alignment)
        if not wanted.create and target.length < sum(source.length for source in self._sources):
            raise refusals.TargetTooSmall
        warn = self._warn if settings.salvage else None
        planner = Planner(top_only=self._base is not None, warn=warn)
        plan = await planner.plan(self._sources)
        settings.unknown = planner.unknown
        fresh = wanted.create and settings.sparse and self._base is None
        settings.reads_zero |= bool(fresh) and node.has_zero_init
        if self._base is not None and wanted.create and node.backing is not None:
            plan = plan.without_zeroes_from(node.backing.length)
        if settings.compressed:
            cluster = node.cluster_size or 0
            if not 0 < cluster <= settings.buffer:
                raise refusals.BadClusterSize
            settings.cluster = cluster
            plan = plan.in_clusters(cluster)
        return plan

    def _warn(self, text: str) -> None:
        if not self._program.quiet:
            self._program.warn(text)
