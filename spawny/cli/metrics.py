"""`spawny metrics`: the figures of all daemons for a monitoring system, as OpenMetrics text."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from . import reach
from .exits import OK

if TYPE_CHECKING:
    from ..control import DaemonStatus

# Name, type, unit, help, value; None leaves the daemon out.
_FAMILIES: tuple[tuple[str, str, str, str, Callable[[DaemonStatus], float | None]], ...] = (
    ("uptime_seconds", "gauge", "seconds", "Age of its process.", lambda each: each.uptime_seconds),
    ("rss_bytes", "gauge", "bytes", "Resident memory.", lambda each: each.rss_bytes),
    (
        "cpu_ratio",
        "gauge",
        "ratio",
        "Use of CPU time since the last look; 1 for one core.",
        lambda each: each.cpu_percent / 100,
    ),
    ("clients", "gauge", "", "Clients that are attached.", lambda each: each.clients),
    ("calls", "counter", "", "Requests that its process has answered.", lambda each: each.calls),
    (
        "calls_failed",
        "counter",
        "",
        "Requests of its process that raised an exception.",
        lambda each: each.calls_failed,
    ),
    ("restarts", "counter", "", "Restarts by its policy.", lambda each: each.restarts),
    (
        "busy_seconds",
        "gauge",
        "seconds",
        "For how long it runs its present call.",
        lambda each: each.busy_seconds or 0.0,
    ),
)


def register(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "metrics",
        help="print the figures of all daemons for a monitoring system",
        description="Print the figures of all daemons as a page of OpenMetrics text, for the"
        " textfile collector of Prometheus's node exporter, say. Starts no supervisor.",
    )
    parser.set_defaults(perform=perform)


def perform(options: argparse.Namespace) -> int:
    """Print the page."""
    daemons = reach.supervisor().list() if reach.is_running() else []
    print(page(daemons, is_up=reach.is_running()), end="")
    return OK


def page(daemons: Sequence[DaemonStatus], *, is_up: bool) -> str:
    """An OpenMetrics page of these daemons."""
    lines = ["# TYPE spawny_up gauge", "# HELP spawny_up Whether a supervisor runs."]
    lines += [f"spawny_up {int(is_up)}", *_states(daemons)]
    for name, kind, unit, text, value_of in _FAMILIES:
        lines += _head(name, kind, text, unit)
        suffix = "_total" if kind == "counter" else ""
        for each in daemons:
            value = value_of(each)
            lines.append(f"spawny_daemon_{name}{suffix}{_labels(each)} {value}")
    return "\n".join([*lines, *_durations(daemons), "# EOF"]) + "\n"


def _head(name: str, kind: str, text: str, unit: str = "") -> list[str]:
    family = f"spawny_daemon_{name}"
    units = [f"# UNIT {family} {unit}"] if unit else []
    return [f"# TYPE {family} {kind}", *units, f"# HELP {family} {text}"]


def _states(daemons: Sequence[DaemonStatus]) -> Iterator[str]:
    yield from _head("state", "gauge", "1 under the label of its state.")
    for each in daemons:
        yield f"spawny_daemon_state{_labels(each, state=each.state)} 1"


def _durations(daemons: Sequence[DaemonStatus]) -> Iterator[str]:
    family = "call_seconds"
    text = "Time to carry out a request of its process, within 9 %."
    yield from _head(family, "summary", text, "seconds")
    for each in daemons:
        shares = (
            ("0.5", each.call_p50_seconds),
            ("0.9", each.call_p90_seconds),
            ("0.99", each.call_p99_seconds),
        )
        for share, seconds in shares:
            if seconds is not None:
                yield f"spawny_daemon_{family}{_labels(each, quantile=share)} {seconds:.3g}"
        yield f"spawny_daemon_{family}_count{_labels(each)} {each.calls}"


def _labels(daemon: DaemonStatus, **more: str) -> str:
    # Names and states have no character that would have to be escaped.
    labels = {"name": daemon.name, **more}
    return "{" + ",".join(f'{key}="{value}"' for key, value in labels.items()) + "}"
