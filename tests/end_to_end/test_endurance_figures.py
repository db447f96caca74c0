"""What `make endurance` judges, small: kills of the supervisor, daemons in a row, a crowd."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ENDURANCE = Path(__file__).parents[2] / "benchmarks" / "endurance.py"


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("home")
def test_nothing_is_lost_and_nothing_grows() -> None:
    """No call fails and no daemon is lost by 20 kills; a hundred daemons leave nothing behind, nor
    the supervisor larger; thirty at once are all ready."""
    run = subprocess.run(
        [
            *(sys.executable, str(ENDURANCE), "--outcome"),
            *("--kills", "20", "--cycles", "100", "--daemons", "30"),
        ],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ENDURANCE.parents[1])},
    )
    assert run.returncode == 0, run.stdout + run.stderr
