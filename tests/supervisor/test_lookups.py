"""What is looked up beside the loop, and the order in which it comes out."""

import select
import threading
from collections.abc import Iterator

import pytest

from spawny.supervisor.events import DeclaredDue, Event
from spawny.supervisor.lookups import Lookups

SECONDS = 30


@pytest.fixture
def lookups() -> Iterator[Lookups]:
    lookups = Lookups()
    yield lookups
    lookups.close()


class Slow:
    """A lookup that ends when it is told to."""

    def __init__(self, lookups: Lookups, name: str | None, found: str) -> None:
        self._may_end = threading.Event()
        self._event = DeclaredDue(found)
        lookups.begin(None if name is None else {name}, self._find, DeclaredDue)

    def _find(self) -> Event:
        assert self._may_end.wait(SECONDS)
        return self._event

    def end(self) -> None:
        self._may_end.set()


def taken(lookups: Lookups) -> list[str]:
    """What there is when there is something."""
    ready, _, _ = select.select([lookups.fileno()], [], [], SECONDS)
    assert ready
    return [event.name for event in lookups.take() if isinstance(event, DeclaredDue)]


def test_what_is_found_comes_out(lookups: Lookups) -> None:
    """Once; until then its daemon is in the line."""
    slow = Slow(lookups, "etl", "found")
    assert lookups.has("etl") and not lookups.has("web")
    assert lookups.take() == []
    slow.end()
    assert taken(lookups) == ["found"]
    assert lookups.take() == []
    assert not lookups.has("etl")


def test_nothing_overtakes_what_is_about_the_same_daemon(lookups: Lookups) -> None:
    """Looked up or not; what is about another does."""
    first = Slow(lookups, "etl", "first")
    second = Slow(lookups, "etl", "second")
    lookups.hold("etl", DeclaredDue("third"))
    other = Slow(lookups, "web", "other")
    other.end()
    assert taken(lookups) == ["other"]
    second.end()
    assert taken(lookups) == []
    first.end()
    assert taken(lookups) == ["first", "second", "third"]


def test_what_is_about_all_keeps_everybody_waiting(lookups: Lookups) -> None:
    """And waits for all that came earlier."""
    early = Slow(lookups, "etl", "early")
    reload = Slow(lookups, None, "all")
    late = Slow(lookups, "web", "late")
    assert lookups.has("any")
    late.end()
    assert taken(lookups) == []
    reload.end()
    assert taken(lookups) == []
    early.end()
    assert taken(lookups) == ["early", "all", "late"]


def test_a_slow_one_keeps_no_other_from_being_found(lookups: Lookups) -> None:
    """Several are looked up at once."""
    slow = [Slow(lookups, f"slow{number}", "slow") for number in range(3)]
    for number in range(20):
        Slow(lookups, f"fast{number}", "fast").end()
    found: list[str] = []
    while len(found) < 20:
        found += taken(lookups)
    assert set(found) == {"fast"}
    for each in slow:
        each.end()
    while len(found) < 23:
        found += taken(lookups)


def test_a_lookup_that_fails_is_told(lookups: Lookups) -> None:
    """And the thread goes on with the next."""

    def fail() -> Event:
        raise RuntimeError("broken")

    for name in ("etl", "web"):
        lookups.begin({name}, fail, DeclaredDue)
    found: list[str] = []
    while len(found) < 2:
        found += taken(lookups)
    assert set(found) == {"the supervisor failed: RuntimeError('broken'); its log has more"}


def test_what_is_found_after_the_end_harms_nobody() -> None:
    """A thread may be late."""
    lookups = Lookups()
    slow = Slow(lookups, "etl", "late")
    threads = [each for each in threading.enumerate() if each.name == "lookup"]
    assert all(each.daemon for each in threads)
    lookups.close()
    slow.end()
    for each in threads:
        each.join(SECONDS)
        assert not each.is_alive()


def test_without_a_thread_to_be_had_the_request_is_refused(
    lookups: Lookups, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the limit of processes; the next may do better."""

    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        Slow(lookups, "etl", "found")
    assert taken(lookups) == ["no thread can be started: can't start new thread"]
    Slow(lookups, "etl", "found").end()
    assert taken(lookups) == ["found"]
