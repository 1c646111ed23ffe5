"""Lines of the human monitor, and its qemu-io; what is expected was recorded from QEMU 7.2."""

from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest

from blockemu.backend import Backend
from blockemu.commands.hmp import run_line
from blockemu.commands.hmp_line import BadLine, Flag, Line, Rest, Word
from blockemu.commands.human import human_monitor_command
from blockemu.emulator import Emulator
from blockemu.errors import QmpError
from blockemu.perm import Perm

QEMU_IO = (Flag("qdev", "d"), Word("device", "block device name"), Word("command"))
TRY = 'Try "help qemu-io" for more information\n'


def parsed(text: str, declared: Any = QEMU_IO) -> Any:
    line = Line(text)
    return line.name(), line.arguments("qemu-io", declared)


@pytest.mark.parametrize(
    ("text", "qdev", "device", "command"),
    [
        ('qemu-io d "read 0 1"', False, "d", "read 0 1"),
        ("  qemu-io\td\tlength  ", False, "d", "length"),
        ('qemu-io -d /x "l"', True, "/x", "l"),
        ('qemu-io -dx"y l', True, 'x"y', "l"),
        (r'qemu-io "a b" "1\n2\r3\\4\'5\"6"', False, "a b", "1\n2\r3\\4'5\"6"),
        ('qemu-io d ""', False, "d", ""),
    ],
)
def test_words_are_read_off_a_line(text, qdev, device, command):
    assert parsed(text) == ("qemu-io", {"qdev": qdev, "device": device, "command": command})


@pytest.mark.parametrize(
    ("text", "error", "printed"),
    [
        ("qemu-io", "qemu-io: block device name expected\n", ""),
        ("qemu-io d", "qemu-io: string expected\n", ""),
        ('qemu-io d "read', "qemu-io: string expected\n", "unterminated string\n"),
        (r'qemu-io d "\"', "qemu-io: string expected\n", "unterminated string\n"),
        (r'qemu-io d "\q"', "qemu-io: string expected\n", "unsupported escape code: '\\q'\n"),
        ("qemu-io d read 0 1", "qemu-io: extraneous characters at the end of line\n", ""),
        ("qemu-io -x d l", "qemu-io: unsupported option -x\n", ""),
        ("qemu-io -", "qemu-io: unsupported option -", ""),
    ],
)
def test_a_line_that_does_not_parse_is_refused_in_qemus_words(text, error, printed):
    with pytest.raises(BadLine) as e:
        parsed(text)
    assert (str(e.value), e.value.printed) == (error, printed)


def test_the_rest_of_a_line_may_be_empty():
    assert parsed("help", (Rest("name"),)) == ("help", {})
    assert parsed("help a b", (Rest("name"),)) == ("help", {"name": "a b"})


class Monitor:
    """A human monitor on an emulator, and what is printed on standard output and error."""

    def __init__(self, emu: Emulator) -> None:
        self.emu = emu
        self.reasons: list[str] = []
        self.printed = ""
        emu.stdout = self._print
        emu.warnings = self._print

    def _print(self, text: str) -> None:
        self.printed += text

    async def __call__(self, line: str) -> str:
        """Run a line; return what it answers."""
        answer: list[str] = []
        context: Any = SimpleNamespace(emu=self.emu, shut_down=self.reasons.append)
        await run_line(context, line, answer.append)
        return "".join(answer)


@pytest.fixture
async def monitor() -> AsyncIterator[Monitor]:
    emu = Emulator()
    node = await emu.opener.open(
        {"driver": "null-co", "node-name": "n", "size": 1048576, "read-only": False}
    )
    node.monitor_owned = True
    yield Monitor(emu)
    await emu.close()


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("bogus x", "unknown command: 'bogus'\n"),
        ("  bogus x", "unknown command: '  bogus'\n"),
        ("bogus/x", "unknown command: 'bogus'\n"),
        ("", ""),
        ("   ", ""),
        ("  qemu-io", 'qemu-io: block device name expected\nTry "help   qemu-io" for more information\n'),
        ("qemu-io -", f"qemu-io: unsupported option -{TRY}"),
        ("quit now", 'quit|q: extraneous characters at the end of line\nTry "help quit" for more information\n'),
        ("help foo", "unknown command: 'foo'\n"),
        ("? quit", "quit|q  -- quit the emulator\n"),
        ('qemu-io x "l"', "Error: Cannot find device='' nor node-name='x'\n"),
        ('qemu-io -d x "l"', "Error: Device 'x' not found\n"),
        ('qemu-io n ""', ""),
        ('qemu-io n "truncate 1"', "Image format driver does not support resize\n"),
    ],
)  # fmt: skip
async def test_the_monitor_answers_in_qemus_words(monitor, line, answer):
    assert await monitor(line) == answer
    assert monitor.printed == ""


async def test_an_answer_has_the_line_ends_of_a_terminal(monitor):
    context: Any = SimpleNamespace(emu=monitor.emu)
    answer = await human_monitor_command.function(context, command_line="qemu-io n")
    assert answer == f"qemu-io: string expected\n{TRY}".replace("\n", "\r\n")


async def test_there_is_no_cpu(monitor):
    context: Any = SimpleNamespace(emu=monitor.emu)
    with pytest.raises(QmpError, match=r"^Parameter 'cpu-index' expects a CPU number$"):
        await human_monitor_command.function(context, command_line="", cpu_index=0)


async def test_quit_ends_the_program(monitor):
    assert await monitor("q") == ""
    assert monitor.reasons == ["host-qmp-quit"]


async def test_output_goes_to_standard_output_and_not_into_the_answer(monitor):
    assert await monitor('qemu-io n "length"') == ""
    assert monitor.printed == "1 MiB\n"


async def test_what_is_not_understood_goes_to_standard_error(monitor):
    assert await monitor('qemu-io n "bogus"') == ""
    assert monitor.printed == 'command "bogus" not found\n'
    assert await monitor('qemu-io n "') == f"qemu-io: string expected\n{TRY}"
    assert monitor.printed.endswith("unterminated string\n")


async def test_a_node_keeps_no_backend_after_the_command(monitor):
    await monitor('qemu-io n "write -q 0 1k"')
    await monitor('qemu-io n "aio_read 0 1k"')
    assert monitor.printed.startswith("read 1024/1024 bytes at offset 0\n")
    assert not monitor.emu.graph.find("n").parents
    assert not monitor.emu.tasks


async def test_a_node_that_may_not_be_read_consistently_is_read_all_the_same(monitor):
    node = monitor.emu.graph.find("n")
    other = Backend("other", shared=Perm.ALL & ~Perm.CONSISTENT_READ)
    monitor.emu.graph.insert(other, node)
    assert await monitor('qemu-io n "length"') == ""
    assert monitor.printed == "1 MiB\n"
    await monitor.emu.graph.remove(other)


async def test_a_drives_backend_is_used_itself(monitor):
    node = monitor.emu.graph.find("n")
    drive = Backend("drive", Perm.CONSISTENT_READ)
    drive.device_id = "disk0"
    monitor.emu.graph.insert(drive, node)
    monitor.emu.graph.backends["drive"] = drive
    await monitor('qemu-io drive "write -q 0 1"')
    assert drive.perm == Perm.CONSISTENT_READ | Perm.WRITE
    assert await monitor('qemu-io -d disk0 "read -q 0 1"') == ""
    assert drive.inserted is node
