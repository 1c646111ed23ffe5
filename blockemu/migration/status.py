"""The statuses of a migration as sets of them (migration/migration.c)."""

from typing import Final

from blockemu.schema.migration import MigrationStatus as S

# One that may still fail, be cancelled, or come to its end.
RUNNING: Final = frozenset(
    {
        S.ACTIVE,
        S.POSTCOPY_ACTIVE,
        S.POSTCOPY_PAUSED,
        S.POSTCOPY_RECOVER,
        S.SETUP,
        S.PRE_SWITCHOVER,
        S.DEVICE,
        S.WAIT_UNPLUG,
        S.CANCELLING,
    }
)
# The machine's images may be the other side's already.
POSTCOPY: Final = frozenset({S.POSTCOPY_ACTIVE, S.POSTCOPY_PAUSED, S.POSTCOPY_RECOVER})
# What queries tell numbers of.
TIMED: Final = (RUNNING - {S.SETUP, S.WAIT_UNPLUG}) | {S.COMPLETED}

# Where a migration may go from where it is; whoever moves it says from where, and is not heard if
# it has gone elsewhere meanwhile.
MOVES: Final = {
    S.NONE: frozenset({S.SETUP, S.ACTIVE}),
    S.SETUP: frozenset({S.ACTIVE, S.CANCELLING, S.COMPLETED, S.FAILED}),  # COMPLETED: a snapshot
    S.ACTIVE: frozenset(
        {
            S.PRE_SWITCHOVER,
            S.POSTCOPY_ACTIVE,
            S.CANCELLING,
            S.COMPLETED,
            S.FAILED,
        }
    ),
    S.PRE_SWITCHOVER: frozenset({S.DEVICE, S.POSTCOPY_ACTIVE, S.CANCELLING}),
    S.DEVICE: frozenset({S.CANCELLING, S.COMPLETED, S.FAILED}),
    S.POSTCOPY_ACTIVE: frozenset({S.POSTCOPY_PAUSED, S.CANCELLING, S.COMPLETED, S.FAILED}),
    S.POSTCOPY_PAUSED: frozenset({S.POSTCOPY_RECOVER, S.CANCELLING, S.FAILED}),
    S.POSTCOPY_RECOVER: frozenset({S.POSTCOPY_ACTIVE, S.POSTCOPY_PAUSED, S.CANCELLING, S.FAILED}),
    S.CANCELLING: frozenset({S.CANCELLED}),
    S.CANCELLED: frozenset({S.SETUP}),
    S.COMPLETED: frozenset({S.SETUP}),
    S.FAILED: frozenset({S.SETUP}),
}
