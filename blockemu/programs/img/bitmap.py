"""``bitmap``: change the bitmaps that an image stores."""

from collections.abc import Awaitable, Callable
from typing import Any

from blockemu.commands.bitmaps import stage_add, stage_clear, stage_enabled, stage_remove
from blockemu.errors import QmpError
from blockemu.node import Node
from blockemu.programs.img.arguments import IMAGE, Syntax
from blockemu.programs.img.bitmaps import merge
from blockemu.programs.img.numbers import number
from blockemu.programs.img.program import Mode, Program
from blockemu.programs.img.refusals import Refusal
from blockemu.records import record
from blockemu.schema.bitmaps import BlockDirtyBitmapAdd
from blockemu.transaction import Transaction

SYNTAX = Syntax(
    "b:f:F:g:h",
    IMAGE
    | {
        "add": "",
        "remove": "",
        "clear": "",
        "enable": "",
        "disable": "",
        "merge": ":",
        "granularity": "g",
        "source-file": "b",
        "source-format": "F",
    },
)
ACTIONS = ("add", "remove", "clear", "enable", "disable", "merge")


class NothingToDo(Refusal):
    """There is no action."""

    template = "Need at least one of --add, --remove, --clear, --enable, --disable, or --merge"


class GranularityWithoutAdd(Refusal):
    """Bitmaps that exist have one."""

    template = "granularity only supported with --add"


class FormatWithoutSource(Refusal):
    """It would be the source's."""

    template = "-F only supported with -b"


class SourceWithoutMerge(Refusal):
    """Nothing is taken from it."""

    template = "Merge bitmap source file only supported with --merge"


class ImageAndBitmapExpected(Refusal):
    """Either is missing."""

    template = "Expecting filename and bitmap name"


class OperationFailed(Refusal):
    """(action, bitmap, why)."""

    template = "Operation {} on bitmap {} failed: {}"


async def run(program: Program, argv: list[str]) -> int:
    """Do what is asked for, in order, until something fails."""
    given: dict[str, str] = {}
    actions, words = [], []
    granularity = 0
    for name, value in program.options(SYNTAX, argv):
        if not name:
            words.append(value)
        elif name in ACTIONS:
            actions.append((name, value))
        elif name == "g":
            granularity = number("granularity", value, program.warn)
        else:
            given[name] = value
    done = {name for name, _ in actions}
    for broken, refusal in (
        (not actions, NothingToDo),
        (granularity and "add" not in done, GranularityWithoutAdd),
        ("F" in given and "b" not in given, FormatWithoutSource),
        ("b" in given and "merge" not in done, SourceWithoutMerge),
        (len(words) != 2, ImageAndBitmapExpected),
    ):
        if broken:
            raise refusal
    filename, bitmap = words
    mode = Mode(write=True, no_backing=True)
    image = await program.open(filename, given.get("f"), mode, image_opts="image-opts" in given)
    source = image
    if "b" in given:
        source = await program.open(given["b"], given.get("F"), Mode(no_backing=True))
    work = Work(program, image.node, source.node, bitmap, granularity)
    for action, value in actions:
        try:
            await work.do(action, value)
        except QmpError as e:
            raise OperationFailed(action, bitmap, e, hint=e.hint) from e
    return 0


@record(frozen=True)
class Work:
    """What the actions work on."""

    program: Program
    node: Node[Any]
    source: Node[Any]
    bitmap: str
    granularity: int

    async def do(self, action: str, value: str) -> None:
        """Do one of the actions; raises QmpError."""
        actions: dict[str, Callable[[Transaction], Awaitable[None]]] = {
            "add": self._add,
            "remove": self._remove,
            "clear": self._clear,
            "enable": lambda transaction: self._set(transaction, value=True),
            "disable": lambda transaction: self._set(transaction, value=False),
        }
        if action == "merge":
            merge(self.program.emu, self.node, self.bitmap, self.source, value)
            return
        with Transaction() as transaction:
            await actions[action](transaction)

    async def _add(self, transaction: Transaction) -> None:
        options = BlockDirtyBitmapAdd(
            node=self.node.name,
            name=self.bitmap,
            granularity=self.granularity or None,
            persistent=True,
        )
        stage_add(self.program.emu, options, transaction)

    async def _remove(self, transaction: Transaction) -> None:
        await stage_remove(self.program.emu, self.node.name, self.bitmap, transaction)

    async def _clear(self, transaction: Transaction) -> None:
        stage_clear(self.program.emu, self.node.name, self.bitmap, transaction)

    async def _set(self, transaction: Transaction, *, value: bool) -> None:
        stage_enabled(self.program.emu, self.node.name, self.bitmap, transaction, value=value)
