"""The life of a job as two tables (JobSTT and JobVerbTable, job.c)."""

from blockemu.schema.jobs import JobStatus, JobVerb

S, V = JobStatus, JobVerb

TRANSITIONS: dict[JobStatus, frozenset[JobStatus]] = {
    S.UNDEFINED: frozenset({S.CREATED}),
    S.CREATED: frozenset({S.RUNNING, S.ABORTING, S.NULL}),
    S.RUNNING: frozenset({S.PAUSED, S.READY, S.WAITING, S.ABORTING}),
    S.PAUSED: frozenset({S.RUNNING}),
    S.READY: frozenset({S.STANDBY, S.WAITING, S.ABORTING}),
    S.STANDBY: frozenset({S.READY}),
    S.WAITING: frozenset({S.PENDING, S.ABORTING}),
    S.PENDING: frozenset({S.ABORTING, S.CONCLUDED}),
    S.ABORTING: frozenset({S.ABORTING, S.CONCLUDED}),
    S.CONCLUDED: frozenset({S.NULL}),
    S.NULL: frozenset(),
}

_WORKING = frozenset({S.CREATED, S.RUNNING, S.PAUSED, S.READY, S.STANDBY})

VERBS: dict[JobVerb, frozenset[JobStatus]] = {
    V.CANCEL: _WORKING | {S.WAITING, S.PENDING},
    V.PAUSE: _WORKING,
    V.RESUME: _WORKING,
    V.SET_SPEED: _WORKING,
    V.COMPLETE: frozenset({S.READY, S.STANDBY}),
    V.FINALIZE: frozenset({S.PENDING}),
    V.DISMISS: frozenset({S.CONCLUDED}),
}
