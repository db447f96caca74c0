"""Whether there is memory for another daemon, and what is said where there is not.

One rule: only what is known is held against a start. Where the system does not tell what is free
nothing is refused, and a definition that never ran needs nothing but the reserve.
"""

from __future__ import annotations

from . import actions, endings, warmth
from .events import MemoryMeasured
from .fleet import Fleet
from .lifecycle import Input
from .policy import backoff_seconds
from .records import Record

# Of so many definitions the largest memory is remembered.
DEFINITIONS_KEPT = 1000

# So many daemons are named as those that use the most.
_NAMED = 3


def learn(fleet: Fleet, record: Record, rss_bytes: int) -> None:
    """Remember how large a process of this definition was."""
    digest, largest = record.request.digest, fleet.largest_rss
    if digest and rss_bytes > largest.get(digest, 0):
        largest.pop(digest, None)
        largest[digest] = rss_bytes
        if len(largest) > DEFINITIONS_KEPT:
            del largest[next(iter(largest))]


def on_measured(fleet: Fleet, event: MemoryMeasured, now: float) -> None:
    """Start the process that waits for this figure, or do not."""
    record = fleet.records.get(event.name)
    if record is None or record.identity is not None:
        return
    problem = _problem(fleet, record, event.free_bytes)
    if problem is None:
        warmth.launch(fleet, record, event.free_bytes, now)
        return
    warmth.end_all(fleet)
    if record.life.is_automatic and not fleet.shutting_down:
        # It has not died of anything: it waits, for as long as it takes.
        record = record.changed(failures=record.failures + 1).lived(reason=problem)
        wait = backoff_seconds(record.failures, fleet.jitter(), fleet.settings)
        record = record.moved(Input.RETRY, deadline=now + wait, restarts=record.restarts - 1)
        fleet.publish("waiting", fleet.put(record), f"{problem}; again in {wait:.1f} s")
        fleet.do(actions.WriteJournal(record))
    else:
        endings.close(fleet, record.lived(reason=problem), now)


def _problem(fleet: Fleet, record: Record, free_bytes: int | None) -> str | None:
    reserve = fleet.settings.memory_reserve_bytes
    if free_bytes is None or not reserve:
        return None
    limit = record.request.max_rss
    needed = limit or fleet.largest_rss.get(record.request.digest, 0)
    if needed + reserve <= free_bytes:
        return None
    why = "its max_rss" if limit else "what one of its definition has had before"
    needs = f"it needs {_size(needed)}, {why}, and" if needed else "it needs what it needs, and"
    return (
        f"there is not enough memory: {_size(free_bytes)} are free, {needs} {_size(reserve)} are"
        f" kept in reserve (memory_reserve_bytes){_users(fleet)}"
    )


def _users(fleet: Fleet) -> str:
    """Who has the most, in words."""
    samples = {each.name: each.life.sample for each in fleet.alive()}
    sizes = sorted(((s.rss_bytes, name) for name, s in samples.items() if s), reverse=True)
    named = ", ".join(f"{name} ({_size(size)})" for size, name in sizes[:_NAMED])
    return f"; daemons that use the most: {named}" if named else ""


def _size(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.0f} MB"
