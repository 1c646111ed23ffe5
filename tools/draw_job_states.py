"""Draw docs/job-states.md from the tables in blockemu.jobs.states; ``--check``: is it current?"""

import sys
from pathlib import Path

from blockemu.jobs.states import TRANSITIONS, VERBS

PAGE = Path(__file__).parent.parent / "docs" / "job-states.md"


def drawing() -> str:
    """Return the page."""
    lines = [
        "# States of jobs",
        "",
        "Drawn by `tools/draw_job_states.py` from `blockemu.jobs.states`.",
    ]
    lines += ["", "```mermaid", "stateDiagram-v2"]
    lines += [
        f"    {start.value} --> {end.value}"
        for start in TRANSITIONS
        for end in sorted(TRANSITIONS[start], key=list(TRANSITIONS).index)
        if end is not start
    ]
    lines += ["```", "", "What can be asked in which state:", ""]
    lines += ["| state | " + " | ".join(verb.value for verb in VERBS) + " |"]
    lines += ["| --- |" + " --- |" * len(VERBS)]
    for state in TRANSITIONS:
        cells = ["yes" if state in VERBS[verb] else "" for verb in VERBS]
        lines.append(f"| {state.value} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    if "--check" not in sys.argv:
        PAGE.write_text(drawing())
    elif PAGE.read_text() != drawing():
        sys.exit(f"{PAGE.name} is not current: run {Path(__file__).name}")
