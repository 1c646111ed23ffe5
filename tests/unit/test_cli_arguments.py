"""The command line as the C library and QemuOpts read it."""

import pytest

from blockemu.arguments import Option, UsageError, scan
from blockemu.chardev_options import OPTIONS
from blockemu.errors import QmpError
from blockemu.optlist import HelpWanted, parse_options, size
from blockemu.programs.monitor_options import MonitorOptions
from blockemu.qmp_server.errors import ProtocolError

LONG = {"blockdev": True, "monitor": True, "mount": True, "help": False, "qmp": True}
SHORT = {"h": "help", "T": "monitor"}


def scanned(*argv):
    return list(scan(list(argv), LONG, SHORT, frozenset({"qmp"})))


@pytest.mark.parametrize(
    ("argv", "options"),
    [
        (["--blockdev", "x"], [Option("blockdev", "x", "--blockdev x")]),
        (["--blockdev=x=y"], [Option("blockdev", "x=y", "--blockdev=x=y")]),
        (["--b", "-x"], [Option("blockdev", "-x", "--b -x")]),
        (["-hTx"], [Option("help", "", "-hTx"), Option("monitor", "x", "-hTx")]),
        (["-T", "x"], [Option("monitor", "x", "-T x")]),
        (["a", "-"], [Option("", "a", "a"), Option("", "-", "-")]),
        (["--", "--help"], []),
    ],
)
def test_options_are_read_in_order(argv, options):
    assert scanned(*argv) == options


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["--nope"], "unrecognized option '--nope'"),
        (["--q=1"], "unrecognized option '--q'"),
        (["--mo"], "option '--mo' is ambiguous; possibilities: '--monitor' '--mount'"),
        (["--b"], "option '--blockdev' requires an argument"),
        (["--help=1"], "option '--help' doesn't allow an argument"),
        (["-hx"], "invalid option -- 'x'"),
        (["-T"], "option requires an argument -- 'T'"),
    ],
)
def test_what_is_no_option_is_named(argv, text):
    with pytest.raises(UsageError) as error:
        scanned(*argv)
    assert str(error.value) == text


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("", {}),
        ("socket,id=a,path=x", {"backend": "socket", "id": "a", "path": "x"}),
        ("backend=socket,path=a,,b", {"backend": "socket", "path": "a,b"}),
        ("null,path=1,path=2", {"backend": "null", "path": "2"}),
    ],
)
def test_the_first_option_may_omit_its_key(text, options):
    assert parse_options(text, "backend", OPTIONS, pytest.fail) == options


def test_bare_flags_are_on_or_off_and_warned_about():
    told = []
    options = parse_options("socket,server,nowait", "backend", OPTIONS, told.append)
    assert (options["server"], options["wait"]) == ("on", "off")
    assert [text.partition("\n")[2] for text in told] == [
        "Please use server=on instead",
        "Please use wait=off instead",
    ]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("null,x=1", "Invalid parameter 'x'"),
        ("null,server=2", "Parameter 'server' expects 'on' or 'off'"),
        ("null,to=x", "Parameter 'to' expects a number"),
        ("null,id=-", "Parameter 'id' expects an identifier"),
    ],
)
def test_options_that_do_not_fit_are_refused(text, error):
    with pytest.raises(QmpError) as caught:
        parse_options(text, "backend", OPTIONS, pytest.fail)
    assert str(caught.value) == error


def test_help_among_the_options_is_asked_for():
    with pytest.raises(HelpWanted):
        parse_options("socket,help", "backend", OPTIONS, pytest.fail)


@pytest.mark.parametrize(
    ("text", "value"),
    [("1k", 1024), ("0x10", 16), ("2T", 2 << 40), ("1x", None), ("", None), ("-1", None), ("16E", None)],
)  # fmt: skip
def test_sizes_have_suffixes(text, value):
    assert size(text) == value


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("a", MonitorOptions("a")),
        ("chardev=a,pretty=on", MonitorOptions("a", pretty=True)),
        ('{"chardev": "a", "pretty": true, "mode": "control", "id": "x"}', MonitorOptions("a", pretty=True)),
        ("a,mode=readline", MonitorOptions("a", hmp=True)),
    ],
)  # fmt: skip
def test_a_monitor_is_described_by_keys_or_json(text, options):
    assert MonitorOptions.parse(text) == options


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "Parameter 'chardev' is missing"),
        ("a,mode=x", "Parameter 'mode' does not accept value 'x'"),
        ("a,pretty=x", "Parameter 'pretty' expects 'on' or 'off'"),
        ("a,x=1", "Parameter 'x' is unexpected"),
        ('{"chardev": 1}', "Invalid parameter type for 'chardev', expected: string"),
        ('{"chardev": "a", "pretty": "on"}', "Invalid parameter type for 'pretty', expected: boolean"),
    ],
)  # fmt: skip
def test_a_monitor_that_cannot_be_is_refused(text, error):
    with pytest.raises(ProtocolError) as caught:
        MonitorOptions.parse(text)
    assert str(caught.value) == error
