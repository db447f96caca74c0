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
    connection: int = 0
    call: int = 0


# What the system says that the main thread of a process does: `uninterruptible` is a wait in the
# kernel that no signal ends, for a disk or a dead network mount; a `zombie` that still lives has
# other threads.
ProcessState = Literal["stopped", "uninterruptible", "zombie", "other"]


@dataclass(frozen=True, slots=True)
class CallFigures:
    """How many calls raised, and how many took how long: (n, count) for those of 2^((n-1)/4) to
    2^(n/4) seconds."""

    failed: int = 0
    durations: tuple[tuple[int, int], ...] = ()

    def seconds_of(self, share: float) -> float | None:
        """The time that this share of the calls took at most; within 9 %, None without any."""
        total = sum(count for _, count in self.durations)
        seen = 0
        for bucket, count in sorted(self.durations):
            seen += count
            if seen >= share * total:
                # The geometric middle: 2^(1/8) = 1.09 from either end.
                return float(2.0 ** ((bucket - 0.5) / 4))
        return None


NO_CALLS = CallFigures()


@dataclass(frozen=True, slots=True)
class Sample:
    """One look at a process from outside. `cpu_percent` is of one core."""

    rss_bytes: int
    cpu_percent: float
    state: ProcessState = "other"


@dataclass(frozen=True, slots=True)
class Ending:
    """How one process ended; times are those of the core's `now`."""

    at: float
    began_at: float
    pid: int | None
    reason: str
    exit_code: int | None
    signal_name: str | None
    is_out_of_memory: bool
    asked_by: str
    log_offset: int
