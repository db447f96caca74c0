"""What the core decides when memory is scarce."""

from dataclasses import replace

import pytest

from spawny import control
from spawny.errors import DaemonStartError
from spawny.settings import Settings
from spawny.supervisor import actions, budget, events
from spawny.supervisor.lifecycle import State
from tests.supervisor.world import World, definition, refusal, sample

MB = 1_000_000


@pytest.fixture
def world() -> World:
    return World(settings=Settings(memory_reserve_bytes=50 * MB))


def test_a_start_that_fits_is_made(world: World) -> None:
    """To the byte."""
    world.free_bytes = 150 * MB
    world.ask(replace(definition(), max_rss=100 * MB))
    assert world.processes


def test_one_that_does_not_is_refused_in_words(world: World) -> None:
    """What is free, what is needed, what is kept back, and who has the most."""
    world.ready(definition("big"))
    world.tell(events.HealthSampled({"big": replace(sample(), rss_bytes=700 * MB)}))
    world.free_bytes = 149 * MB
    said = refusal(world.answer(world.ask(replace(definition(), max_rss=100 * MB))))
    assert isinstance(said.exception(), DaemonStartError)
    for part in ("149 MB are free", "needs 100 MB, its max_rss", "50 MB are kept", "big (700 MB)"):
        assert part in said.message
    assert "etl" not in world.core.fleet.records


def test_what_an_earlier_process_had_counts(world: World) -> None:
    """The largest that was seen of the same definition."""
    process = world.ready()
    for size in (300 * MB, 200 * MB):
        world.tell(events.HealthSampled({"etl": replace(sample(), rss_bytes=size)}))
    world.ask(control.StopDaemon("etl"))
    world.exit(process, code=0)
    world.free_bytes = 340 * MB
    said = refusal(world.answer(world.ask(definition(token="t2"))))
    assert "needs 300 MB, what one of its definition has had before" in said.message
    world.ask(definition("other", digest="d2"))
    assert len(world.processes) == 1


def test_what_is_not_known_is_not_held_against_it(world: World) -> None:
    """Neither an unknown need, down to the reserve, nor an unknown room."""
    world.free_bytes = 50 * MB
    world.ready(definition("first"))
    world.free_bytes = 49 * MB
    assert "50 MB are kept" in refusal(world.answer(world.ask(definition("second")))).message
    world.free_bytes = None
    world.ready(definition("third"))


def test_a_reserve_of_nothing_refuses_nothing() -> None:
    """The guard is off."""
    world = World(settings=Settings(memory_reserve_bytes=0))
    world.free_bytes = 1
    world.ready(replace(definition(), max_rss=100 * MB))


def test_an_automatic_restart_waits_until_it_fits(world: World) -> None:
    """With its backoff, for as long as it takes; that is no death, and says so."""
    process = world.ready(definition(restart="on-failure"))
    world.free_bytes = 10 * MB
    world.exit(process, signal_name="SIGKILL")
    world.wait(300)
    record = world.record()
    assert (record.state, record.restarts, len(record.deaths)) == (State.WAITING, 0, 1)
    assert "not enough memory" in world.status("etl").reason
    assert ("waiting", "etl") in world.published
    world.free_bytes = 1000 * MB
    world.wait(world.settings.backoff_cap_seconds)
    world.hello(world.only_process())
    assert world.record().restarts == 1


def test_one_that_is_gone_is_not_started(world: World) -> None:
    """The figure came for nobody, or twice."""
    world.ready()
    before = len(world.done_of(actions.SpawnChild))
    world.tell(events.MemoryMeasured("etl", None))
    world.tell(events.MemoryMeasured("nobody", None))
    assert len(world.done_of(actions.SpawnChild)) == before


def test_what_is_remembered_is_bounded(world: World) -> None:
    """The oldest definitions are forgotten; one that is not known is not remembered at all."""
    world.ready()
    record = world.record()
    for number in range(budget.DEFINITIONS_KEPT + 1):
        request = replace(record.request, digest=str(number))
        budget.learn(world.core.fleet, record.changed(request=request), 1)
    budget.learn(world.core.fleet, record.changed(request=replace(request, digest="")), 1)
    assert len(world.core.fleet.largest_rss) == budget.DEFINITIONS_KEPT
    assert "0" not in world.core.fleet.largest_rss
