"""blkdebug's rules: states, which requests fail, breakpoints, and how files spell them."""

from __future__ import annotations

import asyncio
import errno
from pathlib import Path

import pytest

from blockemu.drivers.blkdebug.config import read_rules, read_texts
from blockemu.drivers.blkdebug.rules import Breakpoint, InjectError, Rule, Rules, SetState
from blockemu.errors import QmpError


async def code(rules: Rules, iotype: str = "write", offset: int = 0, length: int = 512) -> int:
    try:
        await rules.check(iotype, offset, length)
    except OSError as e:
        return e.errno or 0
    return 0


def rules_of(*given: Rule) -> tuple[Rules, list[str]]:
    said: list[str] = []
    rules = Rules(said.append)
    for rule in given:
        rules.add(rule)
    return rules, said


async def test_a_request_fails_only_after_the_event() -> None:
    rules, _ = rules_of(InjectError("pwritev", code=errno.ENOSPC))
    assert await code(rules) == 0
    await rules.event("pwritev")
    assert await code(rules) == errno.ENOSPC
    assert await code(rules) == errno.ENOSPC


async def test_a_rule_for_once_is_used_up() -> None:
    rules, _ = rules_of(InjectError("pwritev", once=True))
    await rules.event("pwritev")
    assert [await code(rules), await code(rules)] == [errno.EIO, 0]
    await rules.event("pwritev")
    assert await code(rules) == 0
    assert not rules


async def test_the_oldest_rule_that_fits_decides() -> None:
    rules, _ = rules_of(
        InjectError("none", iotypes=frozenset({"read"}), code=1),
        InjectError("none", sector=2, code=2),
        InjectError("none", code=3),
    )
    await rules.event("none")
    assert await code(rules, "read") == 1
    assert await code(rules, "write", 512, 1024) == 2
    assert await code(rules, "write", 0, 1024) == 3
    assert await code(rules, "flush", 0, 0) == 3
    assert await code(rules, "block-status") == 0


async def test_errno_zero_lets_a_request_through() -> None:
    rules, _ = rules_of(InjectError("none", sector=0, code=0), InjectError("none"))
    await rules.event("none")
    assert await code(rules, "write", 0) == 0
    assert await code(rules, "write", 512) == errno.EIO


async def test_an_event_replaces_what_another_made_active() -> None:
    rules, _ = rules_of(InjectError("l2_load", code=1), InjectError("write_aio", code=2))
    await rules.event("l2_load")
    await rules.event("write_aio")
    assert await code(rules) == 2
    await rules.event("read_aio")
    assert await code(rules) == 2


async def test_a_state_holds_from_after_the_event_that_sets_it() -> None:
    rules, _ = rules_of(
        SetState("write_aio", state=1, new_state=2), InjectError("write_aio", state=2)
    )
    await rules.event("write_aio")
    assert (rules.state, await code(rules)) == (2, 0)
    await rules.event("write_aio")
    assert await code(rules) == errno.EIO


async def test_the_oldest_rule_sets_the_state() -> None:
    rules, _ = rules_of(SetState("none", new_state=5), SetState("none", new_state=6))
    await rules.event("none")
    assert rules.state == 5


async def test_a_breakpoint_holds_one_request_until_it_is_resumed() -> None:
    rules, said = rules_of(Breakpoint("write_aio", "A"))
    held = asyncio.ensure_future(rules.event("write_aio"))
    await rules.wait("A")
    assert not held.done()
    await rules.event("write_aio")  # it is used up
    assert rules.resume("A")
    await held
    assert not rules.resume("A")
    assert said == ["blkdebug: Suspended request 'A'\n", "blkdebug: Resuming request 'A'\n"]


async def test_removing_a_breakpoint_resumes_all_that_it_holds() -> None:
    rules, said = rules_of(
        Breakpoint("none", "A"), Breakpoint("none", "A"), Breakpoint("l2_load", "A")
    )
    held = asyncio.ensure_future(rules.event("none"))
    await rules.wait("A")
    assert rules.remove_breakpoints("A")
    await held
    await rules.event("l2_load")
    assert not rules.remove_breakpoints("A")
    assert said.count("blkdebug: Resuming request 'A'\n") == 2


def test_a_file_holds_rules(tmp_path: Path) -> None:
    path = tmp_path / "rules"
    path.write_text(
        '# comment\n\n[set-state "s"]\nevent = "none"\nnew_state = "0x2"\n'
        '[inject-error]\nevent = "l2_load"\nerrno = "28"\nonce = "on"\nsector = "-1"\n'
        '[inject-error]\nevent = "none"\niotype = "flush"\nimmediately = "off"\n'
    )
    first, second, third = read_rules(str(path))
    assert isinstance(first, InjectError)
    assert (first.event, first.code, first.once, first.sector) == ("l2_load", 28, True, -1)
    assert isinstance(second, InjectError)
    assert (second.iotypes, second.code, second.immediately) == ({"flush"}, errno.EIO, False)
    assert isinstance(third, SetState)
    assert (third.state, third.new_state) == (0, 2)


def test_two_sections_cannot_have_one_name(tmp_path: Path) -> None:
    path = tmp_path / "rules"
    path.write_text('[set-state "s"]\nevent = "none"\n' * 2)
    with pytest.raises(QmpError, match="Duplicate ID 's' for set-state"):
        read_rules(str(path))


def test_one_rule_among_text_options_needs_no_number() -> None:
    options = {"inject-error": {"event": "none", "errno": "5", "once": "on"}}
    read_texts(options)
    assert options == {"inject-error": [{"event": "none", "errno": 5, "once": True}]}


def test_an_unknown_option_of_a_rule_is_refused() -> None:
    with pytest.raises(QmpError, match=r"\[inject-error\] section doesn't support the option 'x'"):
        read_texts({"inject-error": [{"event": "none", "x": "1"}]})
