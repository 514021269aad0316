from __future__ import annotations

import pytest

from evalpool_router.settings import RouterSettings
from evalpool_runtime.settings import InvalidSettings


def test_a_lease_outlasts_a_heartbeat_that_is_lost() -> None:
    assert RouterSettings.load(lease_seconds=11.0, heartbeat_seconds=5.0).lease_seconds == 11
    with pytest.raises(InvalidSettings) as refusal:
        RouterSettings.load(lease_seconds=10.0, heartbeat_seconds=5.0)
    assert "--heartbeat-seconds" in str(refusal.value)
    assert "less than half" in str(refusal.value)


def test_the_schedulers_rules_follow_the_settings() -> None:
    rules = RouterSettings.load(tries=7, losses=8, smallest_package=90, largest_package=9).rules()
    assert (rules.tries, rules.losses) == (7, 8)
    assert (rules.smallest_package, rules.largest_package) == (9, 9)
