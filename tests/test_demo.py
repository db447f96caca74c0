"""`make demo` is the first thing that anybody runs: it works, and it leaves nothing."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

DEMO = Path(__file__).parents[1] / "examples" / "demo.py"


@contextmanager
def running(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """The demo with this folder for its temporary files, as a terminal's foreground job."""
    process = subprocess.Popen(
        [sys.executable, str(DEMO)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "TMPDIR": str(folder)},
        process_group=0,
    )
    with process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.terminate()


def test_the_demo_shows_what_it_promises(home: Path) -> None:
    """Every claim of it holds, under another Python where there is one; its folder is gone."""
    with running(home) as demo:
        output, _ = demo.communicate()
    assert demo.returncode == 0, output
    assert "No module named 'spawny'" in output
    assert "this was question 2" in output
    assert "module co2_model" in output  # spawny ps
    assert "no process of this demo is left" in output
    assert list(home.iterdir()) == []


@pytest.mark.parametrize(
    "moment",
    [
        pytest.param("Found: ", id="while pip installs"),
        pytest.param("$ python first.py", id="while a supervisor starts"),
        pytest.param("$ spawny ps", id="while a daemon runs"),
    ],
)
def test_an_interrupted_demo_leaves_nothing(home: Path, moment: str) -> None:
    """Ctrl-C, which every process of the job gets: the processes are the fixture's to look for."""
    with running(home) as demo:
        assert demo.stdout is not None
        seen = next((line for line in demo.stdout if moment in line), None)
        assert seen is not None, f"it ended before it said {moment!r}"
        os.killpg(demo.pid, signal.SIGINT)
        rest = demo.stdout.read()
    assert demo.returncode == 128 + signal.SIGINT, rest
    assert "Interrupted" in rest
    assert list(home.iterdir()) == []


def test_a_demo_that_is_terminated_leaves_nothing(home: Path) -> None:
    """SIGTERM to it alone, while pip installs: that is ended, too."""
    with running(home) as demo:
        assert demo.stdout is not None
        assert any("Found: " in line for line in demo.stdout)
        demo.terminate()
        demo.stdout.read()
    assert demo.returncode == 128 + signal.SIGTERM
    assert list(home.iterdir()) == []
