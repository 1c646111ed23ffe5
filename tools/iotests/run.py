"""Run QEMU's own tests on our programs.

python tools/iotests/run.py                    all, with all of our programs; writes the document
python tools/iotests/run.py -f raw -d 001 002  two, with what differs
python tools/iotests/run.py --real             all, QEMU's programs only: to compare with
python tools/iotests/run.py --check            what must pass; fails if one does not
python tools/iotests/run.py --update           add to that what passed so far; write the document
python tools/iotests/run.py --compare 40       40 of what must pass, real and ours: run times

Results of QEMU's programs are kept in the cache, those of ours in build/iotests.
"""

import argparse
import os
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import compare
import report
import suite
from report import Case
from sandbox import (
    PROGRAMS,
    ROOT,
    Result,
    Setup,
    all_tests,
    default_machine,
    launchers,
    run_test,
    together,
)

BUILD = ROOT / "build" / "iotests"  # two checkouts may be tested at once
FORMATS = ["qcow2", "raw", "raw@nbd", "luks"]
FORMAT_HELP = f"image format, with @PROTOCOL if it lies behind one ({', '.join(FORMATS)})"
PATIENCE = {True: 600, False: 120}  # seconds for a test: a check may not fail for want of time


def main() -> int:
    """Do what the command line says; return the exit status."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    args = arguments().parse_args()
    args.timeout = args.timeout or PATIENCE[args.check]
    try:
        folder = suite.find(args.suite)
    except suite.NoSuite as e:
        print(f"iotests: {e}", file=sys.stderr)
        return 2
    files = (suite.cache() / "results.json", BUILD / "results.json")
    known = report.load(*files)
    if args.update:
        report.add_passing(known)
        report.write_document(known, suite.VERSION)
        return 0
    if args.compare is not None:
        return run_pairs(args, folder, known)
    cases = report.passing() if args.check else chosen(args, folder, known)
    results: dict[Case, Result] = {}
    try:
        run_all(cases, folder, args, results)
        if args.check:
            again = [case for case in results if not report.passes(results, case)]
            run_all(again, folder, argparse.Namespace(**vars(args) | {"jobs": 1}), results)
    finally:  # what is known after an interruption is known
        known = report.load(*files) | results  # another run may have ended meanwhile
        for real, file in zip((True, False), files, strict=True):
            report.save(file, {case: known[case] for case in known if real != bool(case.ours)})
    if not args.check and not args.tests and not args.real:
        report.write_document(known, suite.VERSION)
    return conclude(cases, results, strict=args.check)


def arguments() -> argparse.ArgumentParser:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(description="Run QEMU's own tests on our programs.")
    parser.add_argument("tests", nargs="*", metavar="TEST", help="which (default: all)")
    parser.add_argument("-f", "--format", action="append", help=FORMAT_HELP)
    parser.add_argument(
        "-o",
        "--ours",
        action="append",
        help=f"programs joined by +: {', '.join(PROGRAMS)} (all)",
    )
    parser.add_argument("-j", "--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("-t", "--timeout", type=float, help="seconds for a test")
    parser.add_argument("--minutes", type=float, default=0, help="begin no test after that long")
    parser.add_argument("-d", "--diff", action="store_true", help="show what differs")
    parser.add_argument("--suite", type=Path, help="QEMU's source, if it is here already")
    parser.add_argument("--real", action="store_true", help="run QEMU's programs only")
    parser.add_argument(
        "-p", "--possible", action="store_true", help="skip what fails with QEMU's programs"
    )
    parser.add_argument("--check", action="store_true", help="run the list of what must pass")
    parser.add_argument(
        "--compare",
        nargs="?",
        type=int,
        const=0,
        metavar="N",
        help="tell how long tests of that list (N of them) or those named take, real and ours",
    )
    parser.add_argument(
        "--update", action="store_true", help="add to that list, write the document"
    )
    return parser


def chosen(args: argparse.Namespace, folder: Path, known: dict[Case, Result]) -> list[Case]:
    """Return the cases that were asked for."""
    tests = all_tests(folder)
    unknown = set(args.tests) - set(tests)
    if unknown:
        raise SystemExit(f"no such test: {' '.join(sorted(unknown))}")
    formats = args.format or FORMATS
    sets = [""] if args.real else [together(ours) for ours in args.ours or ["+".join(PROGRAMS)]]
    cases = [
        Case(ours, fmt, test) for fmt in formats for ours in sets for test in args.tests or tests
    ]
    return [case for case in cases if report.possible(known, case)] if args.possible else cases


def run_all(
    cases: list[Case], folder: Path, args: argparse.Namespace, results: dict[Case, Result]
) -> None:
    """Run cases, several at a time."""
    setups = {
        key: make_setup(*key, folder, args) for key in {(case.ours, case.fmt) for case in cases}
    }
    end = time.monotonic() + args.minutes * 60 if args.minutes else float("inf")

    def one(case: Case) -> None:
        if time.monotonic() > end:
            return
        setup = setups[case.ours, case.fmt]
        result = run_test(case.test, setup)
        if not setup.stopped.is_set():
            results[case] = result
            show(case, result, diff=args.diff)

    with ThreadPoolExecutor(args.jobs) as pool:
        running = [pool.submit(one, case) for case in cases]
        try:
            for future in running:
                future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for each in setups.values():
                each.stop()
            raise


def run_pairs(args: argparse.Namespace, folder: Path, known: dict[Case, Result]) -> int:
    """Run tests with QEMU's programs and with ours, one at a time, and tell how long they take."""
    cases = chosen(args, folder, known) if args.tests else report.passing()
    wanted = compare.pairs(cases, args.compare)
    setups = {
        key: make_setup(*key, folder, args)
        for key in {(case.ours, case.fmt) for pair in wanted for case in pair}
    }

    def run(case: Case) -> Result:
        return run_test(case.test, setups[case.ours, case.fmt])

    def tell(line: str) -> None:
        print(line, flush=True)

    return compare.compare(wanted, run, tell)


def make_setup(ours: str, fmt: str, folder: Path, args: argparse.Namespace) -> Setup:
    """Return what a test runs on."""
    programs = launchers(ours.split("+") if ours else [], BUILD / "bin" / (ours or "real"))
    machine = default_machine(programs["QEMU_PROG"])
    fmt, _, protocol = fmt.partition("@")
    return Setup(folder, programs, fmt, protocol or "file", machine, args.timeout)


def show(case: Case, result: Result, *, diff: bool) -> None:
    """Print how a test went."""
    idle = case.ours and result.status != "notrun" and not result.used
    why = report.shortened(result.why).strip("`")
    name = f"{case.ours or 'real':6} {case.fmt:6} {case.test:32}"
    line = f"{name} {result.status:6} {result.seconds:6.1f}  {why}"
    if idle:
        line += " (used none of ours)"
    shown = [line.rstrip(), *(result.diff if diff else ())]
    print("\n".join(shown), flush=True)


def conclude(cases: list[Case], results: dict[Case, Result], *, strict: bool) -> int:
    """Count; a list of what must pass fails if anything in it does not, or if nothing was run."""
    counts = {
        status: sum(result.status == status for result in results.values())
        for status in ("pass", "fail", "notrun")
    }
    counts["not begun in time"] = len(cases) - len(results)
    print(", ".join(f"{count} {status}" for status, count in counts.items()))
    if not strict:
        return 0
    lost = sorted(case for case in results if not report.passes(results, case))
    for case in lost:
        print(f"no longer passes: {case.ours} {case.fmt} {case.test}")
    return 1 if lost or not results else 0


if __name__ == "__main__":
    sys.exit(main())
