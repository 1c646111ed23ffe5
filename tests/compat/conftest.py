"""Fixtures that run one script on the real program and on ours."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from compat import transcript
from compat.daemon import Blockemu, Both, Daemon, Script, StorageDaemon


@pytest.fixture
def both(tmp_path: Path, program: Callable[[str], str]) -> Both:
    """Give ``both(script, *options, oracle=StorageDaemon, ours=Blockemu, prepare=None,
    racing=False)``.

    It runs *script* on the real program and on ours, each in its own folder which
    ``prepare(folder)`` filled, and fails where the transcripts differ.  With *racing*, where a
    job's own speed decides between which commands its events come, the order of events of each
    job and the order of replies are compared apart.
    """
    program("qemu-img")
    program("qemu-io")

    def run(
        script: Script,
        *options: str,
        oracle: type[Daemon] = StorageDaemon,
        ours: type[Daemon] = Blockemu,
        prepare: Callable[[Path], object] | None = None,
        racing: bool = False,
    ) -> tuple[Daemon, Daemon]:
        program(oracle.kind)
        real, own = (
            _play(kind, tmp_path / kind.kind, script, options, prepare) for kind in (oracle, ours)
        )
        mine, theirs = (transcript.conversation(each.transcript) for each in (own, real))
        assert mine == theirs, transcript.told(mine, theirs)
        if racing:
            by_job, of_real = (transcript.events_by_job(each.transcript) for each in (own, real))
            for job in of_real | by_job:
                mine, theirs = by_job.get(job, []), of_real.get(job, [])
                assert mine == theirs, transcript.told(mine, theirs)
        else:
            mine, theirs = (transcript.lines(each.transcript) for each in (own, real))
            assert mine == theirs, transcript.told(mine, theirs)
        return real, own

    return run


def _play(
    kind: type[Daemon],
    folder: Path,
    script: Script,
    options: tuple[str, ...],
    prepare: Callable[[Path], object] | None,
) -> Daemon:
    folder.mkdir()
    if prepare is not None:
        prepare(folder)
    with kind(folder, *options) as daemon:
        script(daemon)
        if daemon.process.poll() is None:
            daemon.stop()
        assert daemon.process.returncode == 0, f"{daemon.kind}: {daemon.errors()}"
    return daemon
