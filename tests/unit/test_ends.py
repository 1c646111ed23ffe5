"""A program of ours ends at once, and yet loses nothing."""

import os
import subprocess
import sys

PROGRAM = """
import atexit, os, sys, threading
from blockemu.programs.process import ends

class Watched:
    def __del__(self, write=os.write):
        write(1, b"taken apart\\n")

watched = Watched()
atexit.register(lambda: print("asked for before"))
main = threading.main_thread()
threading.Thread(target=lambda: (main.join(), print("the thread is through"))).start()
atexit.register(lambda: print("asked for later"))
sys.stdout.write("held back\\n")
sys.stderr.write("said\\n")
{last}
ends(3)
print("too late")
"""


def run(last: str, **options: object) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-c", PROGRAM.format(last=last)]
    env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return subprocess.run(argv, env=env, stderr=subprocess.PIPE, text=True, check=False, **options)


def test_what_was_asked_for_is_done_in_order_and_nothing_is_taken_apart():
    done = run("", stdout=subprocess.PIPE)
    assert done.returncode == 3
    first, *rest = done.stdout.splitlines()
    assert first == "held back"
    assert rest == ["the thread is through", "asked for later", "asked for before"]
    assert done.stderr == "said\n"


def test_output_that_nobody_takes_changes_no_status():
    with open("/dev/full", "w") as full:
        done = run("", stdout=full)
    assert done.returncode == 3
    done = run("sys.stdout = None; os.close(1)", stdout=subprocess.PIPE)
    assert done.returncode == 3


def test_who_watches_the_interpreter_sees_its_end():
    done = run("sys.setprofile(lambda *_: None)", stdout=subprocess.PIPE)
    assert done.returncode == 0
    assert "too late" in done.stdout
    assert "taken apart" in done.stdout
