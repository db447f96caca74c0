"""The supervisor's figures, in one frozen value that is read once at the edge and passed down.

`config.toml` in the config directory may set any of them in its `[supervisor]` table; those that
begin with `zygotes_`, without that, in `[zygotes]`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from .errors import InvalidRequest

# What is larger is a slip of the keyboard. Whole numbers have no end, and floats do: up to here all
# that is computed from them has a place in one.
MOST = 10**15


@dataclass(frozen=True, slots=True)
class Settings:
    """What a supervisor may be told. Every duration is in seconds."""

    # With nothing to supervise and nobody connected for so long, an auto-started supervisor ends.
    idle_exit_seconds: float = 600.0

    # One psutil pass over all daemons, and one ping to each. Seen is what `ps` shows, so that a
    # few seconds are fine; an idle daemon may wake at most once in 2 s.
    health_interval_seconds: float = 5.0

    # An idle daemon that leaves a ping unanswered for so long is shown as unresponsive.
    unresponsive_after_seconds: float = 15.0

    # Ending a daemon: so long for its own clean-up after the request, then again after SIGTERM.
    stop_grace_seconds: float = 5.0
    term_grace_seconds: float = 3.0

    # Restart after a failure: min(cap, base * 2^n) * U(0.5, 1), forgotten after a healthy stretch.
    backoff_base_seconds: float = 0.25
    backoff_cap_seconds: float = 30.0
    healthy_after_seconds: float = 30.0

    # So many deaths within the window and the supervisor gives up: FAILED, until a manual start.
    give_up_deaths: int = 5
    give_up_window_seconds: float = 60.0

    # A start is refused that would leave less memory free than this; 0: never. So much is needed by
    # whatever is to put things right where memory runs out, a shell first of all.
    memory_reserve_bytes: int = 64 * 1024 * 1024

    # A log file grows to this size before its head moves to NAME.log.1, and so on.
    log_bytes: int = 10 * 1024 * 1024
    log_files: int = 3

    # Interpreters that are kept warm to fork daemons from: so long without a daemon, so many.
    zygotes_enabled: bool = True
    zygotes_keep_seconds: float = 600.0
    zygotes_most: int = 8

    # A daemon of a journal that has not phoned home within this time of a supervisor's start,
    # though its process lives, is shown as unlinked rather than waited for.
    adoption_seconds: float = 5.0

    def __post_init__(self) -> None:
        for each in fields(self):
            given = getattr(self, each.name)
            if each.type == "bool":
                if not isinstance(given, bool):
                    raise InvalidRequest(f"{_key(each.name)} must be true or false, not {given!r}")
                continue
            whole = each.type == "int"
            if isinstance(given, bool) or not isinstance(given, int if whole else (int, float)):
                kind = "a whole number" if whole else "a number"
                raise InvalidRequest(f"{_key(each.name)} must be {kind}, not {given!r}")
            if each.name == "memory_reserve_bytes" and given == 0:
                continue
            if not given > 0:  # nor is NaN
                raise InvalidRequest(f"{_key(each.name)} must be positive, not {given!r}")
            if given > MOST:
                raise InvalidRequest(f"{_key(each.name)} must be {MOST:g} at most")


_ZYGOTES = "zygotes_"


def _key(name: str) -> str:
    """A figure as it is called in its table."""
    return name.removeprefix(_ZYGOTES)


def shown(name: str) -> str:
    """A figure with its table, for people."""
    return f"[{'zygotes' if name.startswith(_ZYGOTES) else 'supervisor'}] {_key(name)}"


def from_table(
    table: Mapping[str, Any], section: str = "supervisor", base: Settings | None = None
) -> Settings:
    """The settings of a parsed table of this name; unknown keys are refused by name.

    What it does not name is as in `base`.
    """
    names = [each.name for each in fields(Settings)]
    known = {_key(name): name for name in names if shown(name).startswith(f"[{section}]")}
    if unknown := sorted(set(table) - set(known)):
        raise InvalidRequest(
            f"[{section}] has no key {unknown[0]!r}; the keys are {', '.join(sorted(known))}"
        )
    return replace(base or Settings(), **{known[key]: value for key, value in table.items()})
