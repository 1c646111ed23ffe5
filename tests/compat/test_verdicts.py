"""Good and bad input to every command: ours gives the real daemon's verdict, in its words."""

from collections.abc import Callable
from pathlib import Path

import pytest
from compat.daemon import Blockemu, Daemon
from compat.transcript import differences, text
from compat.verdicts import (
    bitmaps,
    chain_jobs,
    control,
    drawn,
    drivers,
    exports,
    filters,
    graph,
    hostile,
    iothreads,
    jobs,
    quorum,
    snapshots,
    transactions,
    writers,
)
from compat.verdicts.table import Group, Played, play

GROUPS = [
    group
    for module in (
        drivers,
        graph,
        bitmaps,
        jobs,
        control,
        hostile,
        snapshots,
        transactions,
        exports,
        filters,
        chain_jobs,
        iothreads,
        quorum,
        writers,
        drawn,
    )
    for group in module.GROUPS
]
CASES = [
    pytest.param(group, index, id=f"{group.name}-{index:02}-{case.command}")
    for group in GROUPS
    for index, case in enumerate(group.cases)
]

Verdicts = Callable[[Group, type[Daemon]], Played]


@pytest.fixture(scope="session")
def verdicts(tmp_path_factory: pytest.TempPathFactory, program: Callable[[str], str]) -> Verdicts:
    """Give ``verdicts(group, kind)``: what that daemon answered; each group is played once."""
    known: dict[tuple[str, type[Daemon]], Played] = {}

    def look(group: Group, kind: type[Daemon]) -> Played:
        for name in ("qemu-img", "qemu-io", group.oracle.kind):
            program(name)
        key = (group.name, kind)
        if key not in known:
            known[key] = play(group, kind, tmp_path_factory.mktemp("verdicts") / "folder")
        return known[key]

    return look


def reply(played: Played, index: int) -> str:
    """Return the reply to a case as text, or why there is none."""
    if index < len(played.replies):
        return text(played.replies[index])
    return f"no answer; {played.died}"


def test_the_table_is_large_enough_to_mean_something() -> None:
    good = sum(case.good for group in GROUPS for case in group.cases)
    assert good >= 50
    assert len(CASES) - good >= 150
    assert len({group.name for group in GROUPS}) == len(GROUPS)


@pytest.mark.parametrize(("group", "index"), CASES)
def test_verdict_is_the_real_daemons(group: Group, index: int, verdicts: Verdicts) -> None:
    case = group.cases[index]
    real = reply(verdicts(group, group.oracle), index)
    assert real.startswith('{"return"' if case.good else '{"error"'), f"the table is wrong: {case}"
    ours = reply(verdicts(group, Blockemu), index)
    assert ours == real, f"{case}\n" + "\n".join(differences(ours, real))


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.name)
def test_both_daemons_live_on_and_say_the_same(group: Group, verdicts: Verdicts) -> None:
    real, ours = verdicts(group, group.oracle), verdicts(group, Blockemu)
    assert not real.died
    assert not ours.died
    assert ours.events == real.events
    assert ours.printed == real.printed


UNTOUCHED = [group for group in GROUPS if group.untouched]


@pytest.mark.parametrize("group", UNTOUCHED, ids=lambda group: group.name)
def test_refused_input_changes_no_file(group: Group, verdicts: Verdicts, tmp_path: Path) -> None:
    assert group.files is not None
    group.files(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert verdicts(group, Blockemu).files == before
    assert verdicts(group, group.oracle).files == before
