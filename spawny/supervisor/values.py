"""The small frozen values that events, actions and records share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Caller:
    """Who waits for an answer: a client, and which of its requests."""

    client: bytes
    request_id: int


@dataclass(frozen=True, slots=True)
class Identity:
    """One process, for ever: a bare pid is reused, this triple is not."""

    boot_id: str
    pid: int
    start_ticks: int


@dataclass(frozen=True, slots=True)
class Interpreter:
    """An executable that can run a daemon; equal keys are the same interpreter and packages."""

    executable: str
    key: str


@dataclass(frozen=True, slots=True)
class Busy:
    """What a daemon runs: a call, or its definition, which no client is named for."""

    what: str
    client_pid: int | None
    seconds: float


# What the system says that the main thread of a process does: `uninterruptible` is a wait in the
# kernel that no signal ends, for a disk or a dead network mount; a `zombie` that still lives has
# other threads.
ProcessState = Literal["stopped", "uninterruptible", "zombie", "other"]


@dataclass(frozen=True, slots=True)
class Sample:
    """One look at a process from outside. `cpu_percent` is of one core."""

    rss_bytes: int
    cpu_percent: float
    threads: int
    fds: int
    children: int
