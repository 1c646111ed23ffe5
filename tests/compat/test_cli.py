"""The command line, next to qemu-storage-daemon's."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from compat.daemon import DEADLINE

OURS = [sys.executable, "-m", "blockemu"]
REAL = ["qemu-storage-daemon"]
PROGRAMS = pytest.mark.parametrize("program_line", [REAL, OURS], ids=["real", "ours"])

REFUSED = """
--bogus
-x
--blockdev
--o
--daemonize=1
foo
--blockdev=
--blockdev foo
--blockdev driver=null-co
--blockdev null-co,node-name=a --blockdev null-co,node-name=a
--blockdev help
--blockdev driver=help
--blockdev null-co,help
--blockdev driver=null-co,node-name=a,x=1
--blockdev {"driver":"null-co","node-name":"a","x":1}
--blockdev {"driver":
--blockdev {"driver":"file"}
--blockdev file,filename=/nonexistent,node-name=a
--blockdev null-co,node-name=a,size=1x
--block x
--object secret
--object secret,id=a
--object nope,id=a
--object id=a
--object secret,id=a,data=x --object secret,id=a,data=x
--object secret,id=a,data=x,bogus=1
--object {"qom-type":"secret","id":"a"}
--object throttle-group,id=a,limits.iops-total=x
--object throttle-group,id=a,limits.iops-total=5,limits.iops-total-max=1
--object secret,id=1a,data=1
--object secret,id=a,data=x,keyid=b
--chardev stdio
--chardev nope,id=a
--chardev socket,id=a
--chardev socket,id=a,path=/nonexistent/x
--chardev socket,id=a,path=/nonexistent/x,server=on
--chardev null,id=a --chardev null,id=a
--chardev null,id=a,bogus=1
--chardev null,id=a,server=maybe
--chardev socket,id=a,fd=77
--chardev socket,id=a,fd=nope
--chardev socket,id=a,host=localhost
--chardev socket,id=a,host=localhost,port=1
--chardev socket,id=a,path=/tmp/x,reconnect=1,server=on
--chardev socket,id=a,path=/tmp/x,wait=on
--chardev socket,id=a,path=/tmp/x,reconnect=soon
--chardev socket,id=a,path=x,fd=3
--chardev socket,id=a,path=/tmp/x,delay=on,nodelay=on
--chardev stdio,id=a --chardev stdio,id=b
--chardev ringbuf,id=a,size=3
--chardev ringbuf,id=a,size=x
--chardev file,id=a
--chardev file,id=a,path=/nonexistent/x
--chardev pipe,id=a,path=/nonexistent
--chardev 1,id=b
--chardev socket,id=1b
--chardev id=a
--monitor x
--monitor chardev=x,mode=readline
--monitor x,mode=foo
--monitor mode=foo
--monitor mode=control
--monitor a,foo=1
--monitor {"chardev":1}
--monitor {"chardev":"a","pretty":"on"}
--chardev null,id=a --monitor a --monitor a
--chardev null,id=a --monitor a,pretty=foo
--chardev null,id=a --monitor a,mode=readline
--pidfile /nonexistent/x
--monitor x --bogus
""".strip().splitlines()  # fmt: skip


def run(line, arguments, **options):
    return subprocess.run(
        [*line, *arguments],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=DEADLINE, **options,
    )  # fmt: skip


@pytest.mark.parametrize("arguments", REFUSED)
def test_a_bad_command_line_is_refused_in_the_same_words(arguments, program):
    program("qemu-storage-daemon")
    real, ours = (run(line, arguments.split()) for line in (REAL, OURS))
    assert real.returncode == 1
    assert ours.stderr.replace("blockemu:", "qemu-storage-daemon:") == real.stderr
    assert (ours.returncode, ours.stdout) == (1, real.stdout)


@pytest.mark.parametrize(
    "options", ["--object secret,help", "--object throttle-group,help", "--object iothread,help"]
)
def test_help_on_an_object_lists_the_same_properties(options, program):
    program("qemu-storage-daemon")
    real, ours = (run(line, options.split()) for line in (REAL, OURS))
    assert (ours.stdout, ours.returncode) == (real.stdout, 0)


def test_short_form_options_get_the_same_warning(tmp_path, program):
    program("qemu-storage-daemon")
    options = ["--chardev", "socket,id=a,path=q.sock,server,nowait", "--pidfile", "/nonexistent/x"]
    real, ours = (run(line, options, cwd=tmp_path) for line in (REAL, OURS))
    assert "Please use server=on instead" in real.stderr
    assert ours.stderr.replace("blockemu:", "qemu-storage-daemon:") == real.stderr


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--compat", "3.1"], "--compat 3.1: unknown profile '3.1' (known: 4.2, 5.2, 6.2, 7.2, all)"),
        (["--log-level", "loud"], "--log-level loud: Parameter 'log-level' does not accept value 'loud'"),
        (["--log-format", "xml"], "--log-format xml: Parameter 'log-format' does not accept value 'xml'"),
        (["--qmp", "nowhere"], "--qmp nowhere: 'nowhere' is no address: unix:PATH, tcp:HOST:PORT, stdio or fd:N"),
        (["--comp", "4.2"], "unrecognized option '--comp'"),
    ],
)  # fmt: skip
def test_our_own_options_are_refused_likewise(options, text):
    done = run(OURS, options)
    assert (done.stderr, done.returncode) == (f"blockemu: {text}\n", 1)


def test_help_and_version_go_to_standard_output():
    assert run(OURS, ["--help"]).stdout.startswith("Usage: blockemu [options]\n")
    assert run(OURS, ["-V"]).stdout.startswith("blockemu version ")


# A program that runs


class Client:
    """A client on a socket that says what it gets, as text."""

    def __init__(self, sock):
        self.sock = sock
        self.sock.settimeout(DEADLINE)
        self.lines = sock.makefile("rb")

    def line(self):
        return self.lines.readline().decode()

    def ask(self, text):
        self.sock.sendall(text.encode())
        return self.line()

    def negotiate(self):
        assert '"QMP"' in self.line()
        assert self.ask('{"execute": "qmp_capabilities"}') == '{"return": {}}\r\n'
        return self

    def close(self):
        self.lines.close()
        self.sock.close()


@pytest.fixture
def start(tmp_path, program):
    """Give ``start(line, *options, pass_fds=())``: a running program; it is ended afterwards."""
    program("qemu-storage-daemon")
    running = []

    def begin(line, *options, pass_fds=()):
        process = subprocess.Popen(
            [*line, *options], cwd=tmp_path, pass_fds=pass_fds, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        running.append(process)
        return process

    yield begin
    for process in running:
        process.kill()
        process.communicate()


@pytest.fixture
def inherited(start):
    """Give ``inherited(line, *options)``: a program and a client on an inherited connection."""
    clients = []

    def begin(line, *options):
        ours, theirs = socket.socketpair()
        with theirs:
            fd = theirs.fileno()
            monitor = ["--chardev", f"socket,id=c,fd={fd}", "--monitor", "c"]
            process = start(line, *monitor, *options, pass_fds=[fd])
        clients.append(Client(ours))
        return process, clients[-1].negotiate()

    yield begin
    for client in clients:
        client.close()


def connect(path):
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(str(path))
    return Client(sock)


@PROGRAMS
def test_the_pid_file_is_there_while_the_program_runs(program_line, inherited, tmp_path):
    process, client = inherited(program_line, "--pidfile", "pid")
    assert (tmp_path / "pid").read_text() == f"{process.pid}\n"
    assert oct((tmp_path / "pid").stat().st_mode) == oct(0o100600)
    again = run(program_line, ["--pidfile", "pid"], cwd=tmp_path)
    reason = "cannot create PID file: Cannot lock pid file: Resource temporarily unavailable\n"
    assert again.stderr.endswith(reason)
    assert client.ask('{"execute": "quit"}') == '{"return": {}}\r\n'
    assert process.wait(DEADLINE) == 0
    assert not (tmp_path / "pid").exists()


@PROGRAMS
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_the_program_well(program_line, number, inherited, tmp_path):
    server = "socket,id=s,path=q.sock,server=on,wait=off"
    process, client = inherited(program_line, "--chardev", server, "--monitor", "s")
    assert (tmp_path / "q.sock").exists()
    process.send_signal(number)
    assert process.wait(DEADLINE) == 0
    assert client.line() == ""
    assert not (tmp_path / "q.sock").exists()


@PROGRAMS
def test_a_monitor_takes_one_client_after_another(program_line, inherited, tmp_path):
    server = "socket,id=s,path=q.sock,server=on,wait=off"
    _, first = inherited(program_line, "--chardev", server, "--monitor", "s")
    for _ in range(3):
        client = connect(tmp_path / "q.sock").negotiate()
        listed = first.ask('{"execute": "query-chardev"}')
        assert '"frontend-open": true, "filename": "unix:q.sock,server=on", "label": "s"' in listed
        client.close()
        while '"disconnected:unix:q.sock,server=on"' not in listed:
            listed = first.ask('{"execute": "query-chardev"}')


@PROGRAMS
def test_with_wait_the_program_says_so_and_waits(program_line, start, tmp_path):
    process = start(
        program_line, "--chardev", "socket,id=s,path=q.sock,server=on", "--monitor", "s"
    )
    told = process.stderr.readline().decode()
    assert told.endswith(
        "info: QEMU waiting for connection on: disconnected:unix:q.sock,server=on\n"
    )
    client = connect(tmp_path / "q.sock").negotiate()
    client.ask('{"execute": "quit"}')
    assert process.wait(DEADLINE) == 0
    client.close()


@PROGRAMS
def test_a_daemon_is_ready_when_its_parent_ends(program_line, start, tmp_path):
    path = tmp_path / "q.sock"
    server = f"socket,id=s,path={path},server=on,wait=off"
    options = ["--chardev", server, "--monitor", "s", "--pidfile", str(tmp_path / "pid")]
    parent = start(program_line, "--daemonize", *options)
    assert parent.wait(DEADLINE) == 0
    client = connect(path).negotiate()
    daemon = int((tmp_path / "pid").read_text())
    assert daemon != parent.pid
    assert Path(f"/proc/{daemon}/cwd").readlink() == Path("/")
    assert os.getsid(daemon) not in (daemon, os.getsid(0))
    client.ask('{"execute": "quit"}')
    assert client.line() == ""
    client.close()


@PROGRAMS
def test_a_daemon_that_cannot_start_says_so_in_the_foreground(program_line, start):
    parent = start(program_line, "--daemonize", "--monitor", "x")
    _, told = parent.communicate(timeout=DEADLINE)
    assert parent.returncode == 1
    assert told.decode().endswith('--monitor x: chardev "x" not found\n')


@PROGRAMS
def test_standard_input_may_be_a_file(program_line, tmp_path, program):
    program("qemu-storage-daemon")
    script = '{"execute": "qmp_capabilities"}{"execute": "query-chardev"}{"execute": "quit"}'
    (tmp_path / "in").write_text(script)
    with (tmp_path / "in").open() as commands:
        done = subprocess.run(
            [*program_line, "--chardev", "stdio,id=c", "--monitor", "c"],
            stdin=commands, capture_output=True, text=True, timeout=DEADLINE,
        )  # fmt: skip
    stdio = '{"return": [{"frontend-open": true, "filename": "stdio", "label": "c"}]}'
    assert done.stdout.splitlines()[1:] == ['{"return": {}}', stdio, '{"return": {}}']
    assert done.returncode == 0


def test_several_monitors_of_ours_hear_the_same_events(start, tmp_path):
    ours, theirs = socket.socketpair()
    with theirs:
        start(
            OURS,
            "--qmp",
            f"fd:{theirs.fileno()}",
            "--qmp",
            "unix:q.sock",
            pass_fds=[theirs.fileno()],
        )
    first = Client(ours).negotiate()
    first.ask('{"execute": "query-status"}')  # start-up is over: the other monitor listens
    second = connect(tmp_path / "q.sock").negotiate()
    assert '"STOP"' in first.ask('{"execute": "stop"}')
    assert '"STOP"' in second.line()
    first.close()
    second.close()


def test_a_line_is_logged_for_each_client_and_command(start):
    ours, theirs = socket.socketpair()
    log = ["--log-level", "debug", "--log-format", "json"]
    with theirs:
        process = start(OURS, "--qmp", f"fd:{theirs.fileno()}", *log, pass_fds=[theirs.fileno()])
    client = Client(ours).negotiate()
    client.ask('{"execute": "quit"}')
    client.close()
    _, told = process.communicate(timeout=DEADLINE)
    assert b'"event": "client connected"' in told
    assert b'"name": "quit", "event": "command"' in told
