"""The life of a job: every pair of states, and every command in every state."""

import subprocess
import sys
from pathlib import Path

import pytest
from fakes import Machine

from blockemu.jobs.job import Job, VerbRefused
from blockemu.jobs.states import TRANSITIONS, VERBS
from blockemu.schema.jobs import JobStatus, JobType, JobVerb

# Rows: from; columns: to, in the order of JobStatus.  After JobSTT, job.c.
MOVES = """
undefined  . C . . . . . . . . .
created    . . R . . . . . A . N
running    . . . P Y . W . A . .
paused     . . R . . . . . . . .
ready      . . . . . S W . A . .
standby    . . . . Y . . . . . .
waiting    . . . . . . . D A . .
pending    . . . . . . . . A X .
aborting   . . . . . . . . A X .
concluded  . . . . . . . . . . N
null       . . . . . . . . . . .
"""
# Rows: command; columns: state.  After JobVerbTable, job.c.
ALLOWED = """
cancel     . + + + + + + + . . .
pause      . + + + + + . . . . .
resume     . + + + + + . . . . .
set-speed  . + + + + + . . . . .
complete   . . . . + + . . . . .
dismiss    . . . . . . . . . + .
finalize   . . . . . . . + . . .
"""


def rows(table: str) -> dict[str, list[bool]]:
    return {
        line.split()[0]: [cell != "." for cell in line.split()[1:]]
        for line in table.strip().splitlines()
    }


@pytest.mark.parametrize("start", JobStatus)
def test_a_state_leads_where_qemus_does(start: JobStatus) -> None:
    wanted = rows(MOVES)[start.value]
    assert [end in TRANSITIONS[start] for end in JobStatus] == wanted


@pytest.mark.parametrize("verb", JobVerb)
def test_a_command_is_for_the_states_that_qemu_says(verb: JobVerb) -> None:
    assert [state in VERBS[verb] for state in JobStatus] == rows(ALLOWED)[verb.value]


class Idle(Job):
    type = JobType.BACKUP


@pytest.mark.parametrize("verb", JobVerb)
@pytest.mark.parametrize("state", JobStatus)
async def test_a_refusal_names_job_state_and_command(state: JobStatus, verb: JobVerb) -> None:
    async with Machine() as machine:
        job = Idle(machine.emu.jobs, "j")
        job.status = state
        if state in VERBS[verb]:
            job.apply_verb(verb)
            return
        text = f"Job 'j' in state '{state.value}' cannot accept command verb '{verb.value}'"
        with pytest.raises(VerbRefused, match=f"^{text}$"):
            job.apply_verb(verb)


@pytest.mark.parametrize("start", JobStatus)
async def test_a_wrong_move_is_a_bug(start: JobStatus) -> None:
    async with Machine() as machine:
        for end in JobStatus:
            job = Idle(machine.emu.jobs, "j")
            job.status = start
            machine.news()
            if end in TRANSITIONS[start]:
                job.to(end)
                assert machine.news() == ([f"j {end.value}"] if end is not start else [])
            else:
                with pytest.raises(AssertionError):
                    job.to(end)


def test_the_drawing_is_of_these_tables() -> None:
    tool = Path(__file__).parents[2] / "tools" / "draw_job_states.py"
    done = subprocess.run(
        [sys.executable, str(tool), "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
