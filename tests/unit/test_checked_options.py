"""Options that are looked at and do nothing: the command line knows which these are."""

from blockemu.machine.argv import LOOKED_AT, LOOKED_AT_LATER
from blockemu.machine.checked_options import AT_ONCE, LATER


def test_each_option_that_is_looked_at_has_a_check():
    assert AT_ONCE.keys() == LOOKED_AT
    assert LATER.keys() == LOOKED_AT_LATER
