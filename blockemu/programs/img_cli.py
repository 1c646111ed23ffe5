"""The command line of ``blockemu-img``: qemu-img's.

A command is a module of ``blockemu.programs.img``, imported when it is to run: a test suite starts
this program hundreds of times.
"""

import os
import sys
from collections.abc import Iterator, Mapping
from typing import Final

from blockemu import __version__
from blockemu.arguments import MissingArgument, UsageError, scan
from blockemu.programs.process import ends, prepare

COMMANDS: Final[Mapping[str, str]] = {
    "amend": "[--object objectdef] [--image-opts] [-p] [-q] [-f fmt] [-t cache] [--force] "
    "-o options filename",
    "bitmap": "(--merge SOURCE | --add | --remove | --clear | --enable | --disable)... "
    "[-b source_file [-F source_fmt]] [-g granularity] [--object objectdef] "
    "[--image-opts | -f fmt] filename bitmap",
    "check": "[--object objectdef] [--image-opts] [-q] [-f fmt] [--output=ofmt] "
    "[-r [leaks | all]] [-T src_cache] [-U] filename",
    "bench": "[-c count] [-d depth] [-f fmt] [--flush-interval=flush_interval] [-i aio] [-n] "
    "[--no-drain] [-o offset] [--pattern=pattern] [-q] [-s buffer_size] [-S step_size] [-t cache] "
    "[-w] [-U] [--image-opts] filename",
    "commit": "[--object objectdef] [--image-opts] [-q] [-f fmt] [-t cache] [-b base] "
    "[-r rate_limit] [-d] [-p] filename",
    "compare": "[--object objectdef] [--image-opts] [-f fmt] [-F fmt] [-T src_cache] [-p] [-q] "
    "[-s] [-U] filename1 filename2",
    "convert": "[--object objectdef] [--image-opts] [--target-image-opts] [--target-is-zero] "
    "[--bitmaps [--skip-broken-bitmaps]] [-U] [-C] [-c] [-p] [-q] [-n] [-f fmt] [-t cache] "
    "[-T src_cache] [-O output_fmt] [-B backing_file [-F backing_fmt]] [-o options] "
    "[-l snapshot_param] [-S sparse_size] [-r rate_limit] [-m num_coroutines] [-W] [--salvage] "
    "filename [filename2 [...]] output_filename",
    "create": "[--object objectdef] [-q] [-f fmt] [-b backing_file [-F backing_fmt]] [-u] "
    "[-o options] filename [size]",
    "dd": "[--image-opts] [-U] [-f fmt] [-O output_fmt] [bs=block_size] [count=blocks] "
    "[skip=blocks] if=input of=output",
    "info": "[--object objectdef] [--image-opts] [-f fmt] [--output=ofmt] [--backing-chain] [-U] "
    "filename",
    "map": "[--object objectdef] [--image-opts] [-f fmt] [--start-offset=offset] "
    "[--max-length=len] [--output=ofmt] [-U] filename",
    "measure": "[--output=ofmt] [-O output_fmt] [-o options] [--size N | [--object objectdef] "
    "[--image-opts] [-f fmt] [-l snapshot_param] filename]",
    "rebase": "[--object objectdef] [--image-opts] [-U] [-q] [-f fmt] [-t cache] "
    "[-T src_cache] [-p] [-u] -b backing_file [-F backing_fmt] filename",
    "resize": "[--object objectdef] [--image-opts] [-f fmt] [--preallocation=prealloc] [-q] "
    "[--shrink] filename [+ | -]size",
    "snapshot": "[--object objectdef] [--image-opts] [-U] [-q] "
    "[-l | -a snapshot | -c snapshot | -d snapshot] filename",
}
_LONG: Final = {"help": False, "version": False, "trace": True}
_SHORT: Final = {"h": "help", "V": "version", "T": "trace"}


def run(name: str, argv: list[str]) -> int:
    """Run the program; return its exit status."""
    if not argv:
        return refuse(name, "Not enough arguments")
    words = iter(argv)
    try:
        command = _own_options(name, words)
    except MissingArgument as e:
        return refuse(name, f"missing argument for option '{e.word}'")
    except UsageError as e:
        return refuse(name, f"unrecognized option '{e.last or name}'")
    if command is None:
        return 0
    if command not in COMMANDS:
        return refuse(name, f"Command not found: {command}")
    from blockemu.programs.img.program import Program  # start-up

    return Program(name, command).run(list(words))


def _own_options(name: str, words: Iterator[str]) -> str | None:
    """Read the options before the command; return the command, None if there is none."""
    for option in scan(words, _LONG, _SHORT, frozenset()):
        match option.name:
            case "help":
                print_help(name)
                return None
            case "version":
                sys.stdout.write(_version(name))
                return None
            case "trace":
                sys.stderr.write(f"{name}: warning: tracing is not supported\n")
            case _:
                return option.value
    return next(words, None)


def refuse(name: str, why: str) -> int:
    """Say that the command line is wrong, and where to learn more; return the exit status."""
    sys.stderr.write(f"{name}: {why}\nTry '{name} --help' for more information\n")
    return 1


def print_help(name: str) -> None:
    """Tell what there is."""
    from blockemu.drivers import load_drivers  # start-up

    commands = "".join(f"  {command} {usage}\n" for command, usage in COMMANDS.items())
    formats = " ".join(sorted(load_drivers()))
    sys.stdout.write(_version(name) + HELP.format(name=name, commands=commands, formats=formats))


def _version(name: str) -> str:
    from blockemu.qmp_server.profile import ALL  # start-up

    newest = ".".join(map(str, ALL.greeting_version))
    return (
        f"{name} version {__version__} (qemu-img of QEMU {newest})\n"
        "Copyright (c) 2026 The blockemu authors\n"
    )


def main() -> int:
    """Run the program; return its exit status."""
    prepare(tool=True)
    name = os.path.basename(sys.argv[0])  # noqa: PTH119
    if name in ("img_cli.py", "__main__.py", "-c"):
        name = "blockemu-img"
    return ends(run(name, sys.argv[1:]))


HELP: Final = """\
usage: {name} [standard options] command [command options]
Make, describe, change and copy disk images

    -h, --help           display this help and exit
    -V, --version        output version information and exit
    -T, --trace OPTIONS  accepted; there is no tracing

Commands:
{commands}
What the words stand for:
  filename       a file, or options as json:{{...}}, or with --image-opts key=value,...
  fmt            format of an image; it is guessed if it is not given
  cache          writeback, none, writethrough, directsync or unsafe
  size, offset   bytes, with a suffix k, M, G, T, P or E powers of 1024 of them
  options        key=value,... of the format; '-o help' lists what there is
  snapshot_param id or name of an internal snapshot, or snapshot.id=ID,snapshot.name=NAME
  ofmt           human or json
  -p             show progress
  -q             print errors only
  -U             open images that others write to

Supported formats: {formats}
"""


if __name__ == "__main__":
    sys.exit(main())
