"""Running the real command."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
COMMAND = (sys.executable, "-m", "spawny.cli")


@dataclass(frozen=True)
class Ended:
    """What a command did."""

    code: int
    out: str
    error: str


def environment(**changes: str) -> dict[str, str]:
    """This one, with the package importable from any directory."""
    return {**os.environ, "PYTHONPATH": str(REPOSITORY), **changes}


def spawny(*arguments: str, cwd: Path | None = None, **environ: str) -> Ended:
    """Run a command to its end."""
    done = subprocess.run(
        [*COMMAND, *arguments],
        cwd=cwd,
        env=environment(**environ),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return Ended(done.returncode, done.stdout, done.stderr)
