"""The runner of QEMU's tests, on a suite of four that are made here."""

import importlib
import os
import select
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

TOOLS = Path(__file__).resolve().parents[2] / "tools" / "iotests"
TESTS = {
    "001": ('echo "$IMGFMT $TEST_DIR" | sed "s#$TEST_DIR#DIR#"', "qcow2 DIR  \n"),
    "002": ("echo one; echo two", "one\nthree\n"),
    "003": ('echo "no such thing" > "$TEST_DIR/003.notrun"', ""),
    "004": (
        """setsid sh -c 'echo $$ > "$PIDS"; exec tail -f /dev/null' & exec tail -f /dev/null""",
        "",
    ),
    "005": ("exit 3", ""),
}


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(TOOLS))
    loaded = {
        name: importlib.import_module(name) for name in ("sandbox", "report", "suite", "compare")
    }
    yield SimpleNamespace(**loaded)
    for name in loaded:
        del sys.modules[name]


@pytest.fixture
def setup(runner, tmp_path: Path):
    for name, (script, output) in TESTS.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
        (tmp_path / f"{name}.out").write_text(output)
    (tmp_path / "tests").mkdir()
    return runner.sandbox.Setup(tmp_path, {}, "qcow2", timeout=60)


def test_the_suite_is_listed_in_order(runner, setup):
    assert runner.sandbox.all_tests(setup.suite) == sorted(TESTS)


@pytest.mark.parametrize(
    ("test", "status", "why"),
    [
        ("001", "pass", ""),
        ("002", "fail", "two"),
        ("003", "notrun", "no such thing"),
        ("005", "fail", "exit status 3"),
    ],
)
def test_a_test_is_judged_by_status_output_and_its_own_word(runner, setup, test, status, why):
    result = runner.sandbox.run_test(test, setup)
    assert (result.status, result.why) == (status, why)


def test_what_a_test_leaves_running_is_killed(runner, setup, tmp_path, monkeypatch):
    pids = tmp_path / "pids"
    os.mkfifo(pids)
    monkeypatch.setenv("PIDS", str(pids))
    left = []

    class TooSlow(subprocess.Popen):
        """A test whose time is over when it has left something running."""

        def wait(self, timeout=None):
            if timeout is None:
                return super().wait()
            left.append(os.pidfd_open(int(pids.read_text())))
            raise subprocess.TimeoutExpired(self.args, timeout)

    monkeypatch.setattr(subprocess, "Popen", TooSlow)
    result = runner.sandbox.run_test("004", setup)
    assert (result.status, result.why) == ("fail", "not done after 60 s")
    ended, _, _ = select.select(left, [], [], 60)
    os.close(left[0])
    assert ended


def test_a_format_may_have_an_output_of_its_own(runner, setup):
    (setup.suite / "002.out.qcow2").write_text("one\ntwo\n")
    assert runner.sandbox.run_test("002", setup).status == "pass"


def test_only_tests_that_ran_something_of_ours_are_listed(runner, tmp_path, monkeypatch):
    report, result = runner.report, runner.sandbox.Result
    monkeypatch.setattr(report, "PASSING", tmp_path / "passing.txt")
    case = report.Case
    report.add_passing(
        {
            case("io", "raw", "001"): result("pass", used=["qemu-io"]),
            case("io", "raw", "002"): result("pass"),
            case("io", "raw", "003"): result("fail", used=["qemu-io"]),
            case("", "raw", "001"): result("pass", used=["qemu-io"]),
        }
    )
    assert report.passing() == [case("io", "raw", "001")]


def test_the_document_counts_and_gives_reasons(runner, tmp_path, monkeypatch):
    report, result = runner.report, runner.sandbox.Result
    monkeypatch.setattr(report, "DOCUMENT", tmp_path / "compatibility.md")
    case = report.Case
    results = {
        case("io", "raw", "001"): result("pass", used=["qemu-io"]),
        case("io", "raw", "002"): result("fail", "a | b", used=["qemu-io"]),
        case("", "raw", "001"): result("pass"),
        case("", "raw", "002"): result("pass"),
    }
    report.write_document(results, "7.2")
    text = report.DOCUMENT.read_text()
    assert "| io | raw | 2 | 1 | 2 | 1 |" in text
    assert "| 002 | raw | io | fail | pass | `a \\| b` |" in text


@pytest.mark.parametrize(
    ("ours", "status", "used", "answer"),
    [
        ("io", "pass", ["qemu-io", "qemu-img"], True),
        ("io", "pass", ["qemu-img"], False),
        ("io", "fail", ["qemu-io"], False),
        ("qemu", "fail", ["qemu-system-x86_64"], True),
        ("qemu", "notrun", ["qemu-system-x86_64"], False),
        ("io+qemu", "fail", ["qemu-io", "qemu-system-x86_64"], True),
        ("io+qemu", "pass", ["qemu-io", "qemu-img"], False),
    ],
)
def test_only_what_may_pass_and_is_not_tried_already_is_possible(
    runner, ours, status, used, answer
):
    report = runner.report
    real = {report.Case("", "raw", "001"): runner.sandbox.Result(status, used=used)}
    assert report.possible(real, report.Case(ours, "raw", "001")) is answer
    assert report.possible({}, report.Case(ours, "raw", "001"))


def test_results_are_kept(runner, tmp_path):
    report, result = runner.report, runner.sandbox.Result
    kept = {report.Case("io", "raw", "001"): result("fail", "why", 1.5, ["qemu-io"])}
    report.save(tmp_path / "results.json", kept)
    assert report.load(tmp_path / "results.json") == kept


@pytest.mark.skipif(shutil.which("dpkg") is None, reason="versions are Debian's")
def test_the_newest_of_our_versions_is_taken(runner):
    shown = "Version: 1:7.2+dfsg-7\nVersion: 1:10.0+ds-1\nVersion: 1:7.2+dfsg-7+deb12u18\n"
    assert runner.suite.newest(shown) == "1:7.2+dfsg-7+deb12u18"
    with pytest.raises(runner.suite.NoSuite, match=r"none of apt's sources has qemu 7\.2"):
        runner.suite.newest("Version: 1:10.0+ds-1\n")


def test_the_list_is_compared_evenly(runner):
    compare, case = runner.compare, runner.report.Case
    cases = [case(compare.OURS, "qcow2", f"{i:03}") for i in range(10)] + [case("io", "raw", "9")]
    assert [ours.test for _, ours in compare.pairs(cases, 3)] == ["000", "003", "006"]
    assert compare.pairs(cases[:1]) == [(case("", "qcow2", "000"), cases[0])]
    assert len(compare.pairs(cases)) == 10


def test_run_times_are_compared_where_both_pass(runner):
    compare, case, result = runner.compare, runner.report.Case, runner.sandbox.Result
    seconds = {"001": (2.0, 1.0), "002": (9.0, 9.0), "003": (1.0, 3.0)}
    order, told = [], []

    def run(each):
        order.append((each.test, bool(each.ours)))
        status = "fail" if (each.test, each.ours) == ("002", "") else "pass"
        return result(status, seconds=seconds[each.test][bool(each.ours)])

    wanted = [(case("", "raw", test), case(compare.OURS, "raw", test)) for test in seconds]
    assert compare.compare(wanted, run, told.append) == 0
    assert [real for _, real in order] == [False, True, True, False, False, True]
    assert told[1].split()[:5] == ["001", "raw", "2.0", "1.0", "0.50"]
    assert told[2].endswith("real: fail, ours: pass")
    assert told[4] == "passed with both: 2 of 3"
    assert told[5].startswith("sum of seconds: real 3.0, ours 4.0, ratio 1.33; of processors: ")


def test_a_comparison_of_nothing_fails(runner):
    assert runner.compare.compare([], lambda case: None, lambda line: None) == 1


@pytest.mark.parametrize("lacks", [True, False])
def test_qemu_gets_another_accelerator_where_it_lacks_the_one_for_tests(
    runner, tmp_path, monkeypatch, lacks
):
    real = tmp_path / "real"
    known = "tcg" if lacks else "qtest"
    real.write_text(f'#!/bin/sh\n[ "$2" = help ] && echo {known} || printf "%s|" "$@"\n')
    real.chmod(0o755)
    monkeypatch.setattr(runner.sandbox.shutil, "which", lambda name: str(real))
    programs = runner.sandbox.launchers([], tmp_path / "bin")
    env = {"BLOCKEMU_USED": str(tmp_path / "used"), "PATH": "/usr/bin:/bin"}
    words = [programs["QEMU_PROG"], "-accel", "qtest", "-qtest", "a b", ""]
    done = subprocess.run(words, env=env, capture_output=True, text=True, check=True)
    accelerator = "tcg" if lacks else "qtest"
    assert done.stdout == f"-accel|{accelerator}|-qtest|a b||"
    assert (tmp_path / "used").read_text() == "qemu-system-x86_64\n"
