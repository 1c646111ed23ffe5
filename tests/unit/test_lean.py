"""Imports that are executed late: who uses such a module finds all of it, whenever that is."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import blockemu
from blockemu import lean

SOURCES = Path(blockemu.__file__).parent


def run(code: str, **env: str) -> Any:
    """Run code in an interpreter with late imports; return what it leaves in ``result``."""
    lines = (
        "import json, sys",
        "from types import ModuleType",
        "from blockemu import lean",
        "lean.install()",
        "def executed(name): return type(sys.modules.get(name)) is ModuleType",
        code,
        "print(json.dumps(result))",
    )
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)],
        env=os.environ | env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_an_import_alone_executes_nothing_that_is_late() -> None:
    code = "import asyncio, numpy as np\nnp.zeros(1).sum(), np.diff(np.arange(9), append=1)\n"
    assert run(code + "result = [name for name in lean.LATE if executed(name)]") == []


@pytest.mark.parametrize("name", sorted(lean.LATE))
def test_a_module_is_executed_in_place_when_it_is_used(name: str) -> None:
    code = f"""
import importlib
late = importlib.import_module({name!r})
before = executed({name!r})
names = dir(late)
result = [before, executed({name!r}), sys.modules[{name!r}] is late, names]
"""
    plain = f"import json, {name}, sys; print(json.dumps(dir(sys.modules[{name!r}])))"
    names = subprocess.run([sys.executable, "-c", plain], capture_output=True, check=True).stdout
    *how, found = run(code)
    assert how == [False, True, True]
    # Submodules become names as they are imported, and those of late modules are not.
    absent = set(json.loads(names)) - set(found)
    assert not absent or name == "numpy.lib"


def test_tls_by_asyncio() -> None:
    code = """
import asyncio, socket
async def talk():
    loop, (here, there) = asyncio.get_running_loop(), socket.socketpair()
    before = executed("ssl"), executed("asyncio.sslproto")
    import ssl
    context = ssl.create_default_context()
    with there:
        connecting = asyncio.ensure_future(asyncio.open_connection(sock=here, ssl=context,
                                                                   server_hostname="x"))
        there.settimeout(10)
        hello = await loop.run_in_executor(None, there.recv, 1)
        there.close()
        try:
            await connecting
        except (ssl.SSLError, ConnectionError) as e:
            return [*before, hello[0], True]
result = asyncio.run(talk())
"""
    handshake = 22  # the type of a TLS record that begins one
    assert run(code) == [False, False, handshake, True]


def test_what_goes_wrong_is_told_with_the_lines_it_went_wrong_in(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text("def fail():\n    raise ValueError('so')  # this line\n")
    code = f"""
import asyncio, logging, io, traceback
sys.path.insert(0, {str(tmp_path)!r})
import program
out = io.StringIO()
logging.basicConfig(stream=out)
try:
    program.fail()
except ValueError:
    logging.exception("it failed")
result = out.getvalue()
"""
    assert "# this line" in run(code)


CHANGED = """
import numpy as np
lean_ones = {name: getattr(np, name) for name in NAMES}
before = executed("numpy")
np.linalg.det(np.eye(2))
result = [before, executed("numpy"), [n for n, v in lean_ones.items() if getattr(np, n) is not v]]
"""


def test_numpy_gives_out_what_it_has_when_it_is_executed() -> None:
    names = "NAMES = [*lean._NUMPY, *sys.modules['numpy._core'].__all__]"
    code = f"import numpy._core\n{names}{CHANGED}"
    assert run(code) == [False, True, []]


def test_numpy_is_complete_when_it_is_executed() -> None:
    code = "import json, numpy as np; print(json.dumps([sorted(np.__all__), sorted(vars(np))]))"
    plain = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout
    late = run(
        "import numpy as np\nnp.zeros(3), np.ravel([1])\nnp.fft\n"
        "result = [sorted(np.__all__), sorted(vars(np))]"
    )
    public, everything = json.loads(plain)
    assert late[0] == public
    assert set(everything) <= set(late[1])


def test_no_matrix_is_taken_for_an_array() -> None:
    code = """
import numpy as np
before = np.ravel(np.zeros((2, 2))).shape, executed("numpy")
result = [before, np.ravel(np.asmatrix([[1, 2]])).shape, type(np.matrix([1])) is np.matrix]
"""
    assert run(code) == [[[4], False], [2], True]


def test_a_version_of_numpy_that_nobody_has_looked_at_is_executed_at_once() -> None:
    code = "lean._NUMPY_VERSIONS = ()\nimport numpy as np\nnp.zeros(1)\nresult = executed('numpy')"
    assert run(code) is True


def test_a_module_without_its_other_half_is_none() -> None:
    code = """
lean._NEEDS["ssl"] = "_no_such_module"
import ssl
result = executed("ssl")
"""
    assert run(code) is True


def test_names_of_numpy_that_are_used_are_to_be_had_at_once() -> None:
    folders = (SOURCES, *(SOURCES / name for name in ("drivers", "images", "qmp_server")))
    used = {
        node.attr
        for folder in folders
        for path in folder.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "np"
    }
    assert "zeros" in used
    code = f"""
import numpy as np
for name in {sorted(used)}:
    getattr(np, name)
result = executed("numpy")
"""
    assert run(code) is False


MODULES = {
    "selfish.py": "import sys\nknown = getattr(sys.modules[__name__], 'later', 'not yet')\nlater = 1\n",
    "failing.py": "import sys\nsys.tries = getattr(sys, 'tries', 0) + 1\nif sys.tries < 2:\n    1 / 0\n",
    "slow.py": "import threading\nthreading.Event().wait(0)\nfirst = 1\nsecond = first + 1\n",
}


@pytest.fixture
def late(tmp_path: Path) -> str:
    for name, text in MODULES.items():
        (tmp_path / name).write_text(text)
    names = {name.removesuffix(".py") for name in MODULES}
    return f"sys.path.insert(0, {str(tmp_path)!r})\nlean.LATE |= {names}\n"


def test_a_module_that_looks_at_itself_sees_what_is_there_so_far(late: str) -> None:
    assert run(late + "import selfish\nresult = [selfish.known, selfish.later]") == ["not yet", 1]


def test_a_module_that_fails_does_so_where_it_is_used_and_may_be_tried_again(late: str) -> None:
    code = """
import failing
try:
    failing.missing
except ZeroDivisionError:
    pass
first = executed("failing")
failing.sys
result = [first, executed("failing")]
"""
    assert run(late + code) == [False, True]


def test_threads_that_use_a_module_at_once_all_see_the_whole(late: str) -> None:
    code = """
import slow, threading
together, seen = threading.Barrier(8), []
def use():
    together.wait()
    seen.append(slow.second)
threads = [threading.Thread(target=use) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
result = seen
"""
    assert run(late + code) == [2] * 8


def test_who_imports_the_package_keeps_their_imports() -> None:
    code = "import blockemu.emulator, blockemu.testing, sys; print(len(sys.meta_path))"
    plain = "import sys; print(len(sys.meta_path))"
    outputs = [
        subprocess.run([sys.executable, "-c", text], capture_output=True, check=True).stdout
        for text in (code, plain)
    ]
    assert outputs[0] == outputs[1]


TOOL = """
import atexit, json, sys
from importlib import import_module
from types import ModuleType

def tell():
    there = [name for name, module in sys.modules.items() if type(module) is ModuleType]
    print(json.dumps(there), file=sys.stderr)

cli, *argv = sys.argv[1:]
main = import_module(cli).main
sys.argv = ["tool", *argv]
atexit.register(tell)
sys.exit(main())
"""
# What a run must not execute, whatever it does with its image.
NEVER = lean.LATE - {"ctypes"} | {
    "cryptography",
    "structlog",
    "qemu",
    "zstandard",
    "zlib_ng",
    "blockemu.images.qcow2.compression",
    "numpy.lib._function_base_impl",
    "numpy.typing",
    "pathlib",
}
NO_ARRAYS = NEVER | {"numpy._core", "ctypes"}
RUNS = {
    "info": ("img_cli", ["info", "image.raw"], NO_ARRAYS),
    "create": ("img_cli", ["create", "-f", "raw", "new.raw", "1M"], NO_ARRAYS),
    "resize": ("img_cli", ["resize", "-f", "raw", "image.raw", "2M"], NO_ARRAYS),
    "read": ("io_cli", ["-f", "raw", "-c", "read 0 64k", "image.raw"], NO_ARRAYS),
    "write": ("io_cli", ["-f", "raw", "-c", "write 0 64k", "image.raw"], NO_ARRAYS),
    "version": ("img_cli", ["--version"], NO_ARRAYS),
    "create qcow2": ("img_cli", ["create", "-f", "qcow2", "new.qcow2", "1M"], NEVER),
    "info qcow2": ("img_cli", ["info", "image.qcow2"], NEVER),
    "map qcow2": ("img_cli", ["map", "image.qcow2"], NEVER),
    "map full qcow2": ("img_cli", ["map", "full.qcow2"], NEVER),
    "measure qcow2": ("img_cli", ["measure", "-O", "qcow2", "full.qcow2"], NEVER),
    "snapshot": ("img_cli", ["snapshot", "-c", "then", "full.qcow2"], NEVER),
    "check full qcow2": ("img_cli", ["check", "full.qcow2"], NEVER),
    "check qcow2": ("img_cli", ["check", "image.qcow2"], NEVER),
    "read qcow2": ("io_cli", ["-c", "read 0 64k", "image.qcow2"], NEVER),
    "write qcow2": ("io_cli", ["-c", "write 0 64k", "image.qcow2"], NEVER),
    "convert": ("img_cli", ["convert", "-O", "raw", "image.qcow2", "new.raw"], NEVER),
    "compare": ("img_cli", ["compare", "image.qcow2", "image.raw"], NEVER),
}


@pytest.mark.parametrize("name", RUNS)
def test_a_tool_imports_what_it_uses(name: str, tmp_path: Path) -> None:
    cli, argv, never = RUNS[name]
    (tmp_path / "image.raw").write_bytes(bytes(1 << 20))
    command = [sys.executable, "-c", TOOL]
    create = [*command, "blockemu.programs.img_cli", "create", "-f", "qcow2"]
    for image in (["image.qcow2"], ["-o", "preallocation=metadata", "full.qcow2"]):
        subprocess.run([*create, *image, "1M"], cwd=tmp_path, check=True, capture_output=True)
    done = subprocess.run(
        [*command, f"blockemu.programs.{cli}", *argv],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        stdin=subprocess.DEVNULL,
    )
    assert never & set(json.loads(done.stderr)) == set()


DAEMONS = {
    "blockemu": ("blockemu.__main__", ["--qmp", "stdio"]),
    "blockemu-qemu": (
        "blockemu.programs.qemu_main",
        ["-qmp", "stdio", "-machine", "none", "-nographic"],
    ),
}


@pytest.mark.parametrize("name", DAEMONS)
def test_a_daemon_imports_what_it_uses(name: str) -> None:
    cli, argv = DAEMONS[name]
    done = subprocess.run(
        [sys.executable, "-c", TOOL, cli, *argv],
        input='{"execute": "qmp_capabilities"} {"execute": "quit"}',
        capture_output=True,
        text=True,
        check=True,
    )
    assert NEVER & set(json.loads(done.stderr)) == set()
