"""Wrong input, some thousands of times: a closed connection or a refusal, and nothing else.

`make fuzz` does the same for a million and more.
"""

import random
from pathlib import Path

import pytest

from tests.fuzz import parsers
from tests.fuzz.live import LiveSupervisor, daemon_target
from tests.interpreters import Interpreter

INPUTS = 5_000
LIVE_INPUTS = 300


@pytest.mark.parametrize("name", ["control", "link", "wire"])
def test_what_parses_raises_nothing_else(name: str) -> None:
    """Nor does what decides about whatever came through."""
    target = parsers.targets(random.Random(1))[name]
    for _ in range(INPUTS):
        target()


def test_a_supervisor_serves_on(home: Path) -> None:
    """Whatever comes on its sockets: it answers others, and grows neither in descriptors nor in
    memory."""
    supervisor = LiveSupervisor(random.Random(1))
    for _ in range(LIVE_INPUTS):
        supervisor.control()
        supervisor.greeting()
        supervisor.link()
    supervisor.close()


def test_a_daemon_serves_on(interpreter: Interpreter) -> None:
    """Whatever comes on its call socket: the same, and nobody stays attached."""
    with daemon_target(interpreter.path, random.Random(1)) as daemon:
        for _ in range(LIVE_INPUTS):
            daemon.first()
            daemon.request()
