"""A short run of what `make chaos` does for minutes."""

import pytest

from tests.chaos.faults import FAULTS
from tests.chaos.run import chaos

SEED = 1


@pytest.mark.timeout(600)
def test_every_fault_under_load() -> None:
    """After each nothing is lost, left over or done twice, and every error was one of ours."""
    summary = chaos(SEED, steps=len(FAULTS))
    assert all(each.__name__ in summary for each in FAULTS)
