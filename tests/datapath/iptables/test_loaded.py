"""What of the rules in the kernel is shown on which question."""

from __future__ import annotations

import contextlib

import pytest

from agent import desired, errors
from agent.datapath import tracing
from agent.datapath.iptables import commands, loaded


@pytest.mark.root
def test_rules_are_of_no_numbered_set_and_whoever_asks_for_those_of_one_is_not_shown_all() -> None:
    try:
        rules = loaded.LoadedRules(commands.Variant.NFT)
    except errors.NotSupported as missing:
        pytest.skip(str(missing))
    with contextlib.closing(rules), pytest.raises(errors.InvalidInput) as raised:
        next(rules.rows("", tracing.Wanted(policy_set=5), desired.DesiredState()))
    assert (raised.value.field, raised.value.value) == ("--set", 5)
