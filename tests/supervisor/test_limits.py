"""What the core decides at limits: a daemon is started anew between calls, a long call is ended."""

from dataclasses import replace
from typing import Any

import pytest

from spawny import control
from spawny.settings import Settings
from spawny.supervisor import actions, events
from spawny.supervisor.journal import _content
from spawny.supervisor.lifecycle import State
from spawny.supervisor.limits import NEAR_SECONDS, PONG_SECONDS, RETRY_SECONDS
from spawny.supervisor.values import Busy
from tests.supervisor.world import PYTHON, Process, World, definition, refusal, sample


@pytest.fixture
def world() -> World:
    return World()


def ready(world: World, **limits: Any) -> Process:
    return world.ready(replace(definition(), **limits))


def order(world: World) -> actions.SendRecycle:
    """The one order to make room that was sent."""
    (sent,) = world.done_of(actions.SendRecycle)
    assert isinstance(sent, actions.SendRecycle)
    return sent


def end(world: World, process: Process, *, saved: bool = False) -> Process:
    """The daemon obeys; its successor's process."""
    assert process.link is not None
    life = world.record().life
    token = life.recycle if saved else ""
    ending = events.EndingAnnounced(process.link, life.recycle_reason, True, saved, token)
    world.tell(ending)
    world.exit(process, code=0)
    world.wait(0)
    return world.only_process()


def test_the_count_of_calls_sets_it_off(world: World) -> None:
    """Told by the daemon itself; no ping is needed."""
    process = ready(world, max_calls=100)
    world.tell(events.LimitReached(process.link or 0, 100))
    sent = order(world)
    assert (sent.link, sent.is_urgent) == (process.link, False)
    assert sent.reason == "max_calls: it has served 100 of 100"
    assert ("limit", "etl") in world.published
    assert world.status("etl").reason.startswith("to be started anew between calls: max_calls")


def test_a_pong_sets_it_off_as_well(world: World) -> None:
    """What was told while no supervisor ran is not lost."""
    process = ready(world, max_calls=7)
    world.pong(process.link)
    assert order(world).reason.startswith("max_calls")


def test_the_successor_comes_at_once(world: World) -> None:
    """No backoff, and no death is counted; `restarts` is, and its reason kept."""
    process = ready(world, max_calls=7)
    world.pong(process.link)
    before = world.now
    successor = end(world, process)
    assert world.now == before
    record = world.record()
    assert (record.restarts, record.failures, record.deaths) == (1, 0, ())
    assert record.restart_reason.startswith("max_calls")
    assert ("died", "etl") not in world.published
    world.tell(events.DefinitionLoaded(world.hello(successor)))
    assert world.status("etl").restart_reason.startswith("max_calls")


def test_its_reason_is_kept_whoever_waits_for_it(world: World) -> None:
    """A client looks for the next process while the one before ends."""
    process = ready(world, max_calls=7)
    world.pong(process.link)
    world.tell(events.EndingAnnounced(process.link or 0, "max_calls", recycled=True))
    caller = world.ask(control.FindDaemon("etl"))
    world.exit(process, code=0)
    world.wait(0)
    world.hello(world.only_process())
    assert isinstance(world.answer(caller), control.Started)
    assert world.record().restart_reason == "max_calls"


def test_a_busy_daemon_is_given_all_the_time(world: World) -> None:
    """Between the order and the end of the call nothing is done to it."""
    process = ready(world, max_age=10.0)
    for _ in range(100):
        world.wait(5)
        world.pong(process.link, Busy("fit()", 9, 300.0))
    assert order(world).reason == "max_age: it has been ready for 10 s"
    assert process.signals == []
    assert world.record().state is State.READY


def test_the_age_counts_from_when_it_was_ready(world: World) -> None:
    """To the second, whatever the health interval."""
    world.ask(replace(definition(), max_age=12.0))
    process = world.only_process()
    world.wait(3)
    link = world.hello(process)
    world.tell(events.DefinitionLoaded(link))
    world.wait(11.9)
    assert not world.done_of(actions.SendRecycle)
    world.wait(0.1)
    order(world)


def test_a_sample_over_max_rss_sets_it_off(world: World) -> None:
    """Not one at the limit."""
    ready(world, max_rss=30_000_000)
    world.tell(events.HealthSampled({"etl": sample()}))
    assert not world.done_of(actions.SendRecycle)
    world.tell(events.HealthSampled({"etl": replace(sample(), rss_bytes=30_000_001)}))
    assert order(world).reason == "max_rss: it has 30.0 MB of 30.0"


def test_near_the_limit_it_is_looked_at_every_second(world: World) -> None:
    """It alone, and only near the limit."""
    process = ready(world, max_rss=40_000_000)
    world.wait(2)
    assert not world.done_of(actions.SampleHealth)
    world.tell(events.HealthSampled({"etl": sample()}))
    world.done.clear()
    world.wait(3.5 * NEAR_SECONDS)
    looks = world.done_of(actions.SampleHealth)
    assert 3 <= len(looks) <= 5
    assert looks[0] == actions.SampleHealth((("etl", process.identity),))


def test_only_one_order_is_given(world: World) -> None:
    """However often the limit is seen to be passed."""
    process = ready(world, max_calls=7)
    for _ in range(3):
        world.pong(process.link)
    order(world)


@pytest.mark.parametrize("changes", [{"digest": ""}, {"max_calls": 8}])
def test_nothing_is_ordered_for_no_reason(world: World, changes: dict[str, Any]) -> None:
    """Below the limit, and where the definition is not known, it stays."""
    process = ready(world, max_calls=7)
    request = replace(world.record().request, **changes)
    world.core.fleet.put(world.record().changed(request=request))
    world.pong(process.link)
    assert not world.done_of(actions.SendRecycle)


def test_one_that_dies_meanwhile_has_died(world: World) -> None:
    """Its policy decides, not the order."""
    process = ready(world, max_calls=7)
    world.pong(process.link)
    world.exit(process, signal_name="SIGKILL")
    assert "etl" not in world.core.fleet.records


def test_a_stop_overrules_the_order(world: World) -> None:
    """It does not come back."""
    process = ready(world, max_calls=7)
    world.pong(process.link)
    caller = world.ask(control.StopDaemon("etl"))
    world.exit(process, code=0)
    assert isinstance(world.answer(caller), control.Done)
    assert not world.processes


def test_a_state_is_restored_under_the_token_that_it_was_saved_under(world: World) -> None:
    """A restart may be asked for while a limit has the state saved already."""
    process = ready(world, max_calls=100)
    world.tell(events.LimitReached(process.link or 0, 100))
    first = order(world)
    world.ask(control.RestartDaemon("etl"))
    ending = events.EndingAnnounced(
        process.link or 0, first.reason, recycled=True, saved=True, token=first.token
    )
    world.tell(ending)
    assert world.record().life.recycle != first.token
    assert world.record().restore == first.token


def test_an_end_for_another_reason_is_no_recycling(world: World) -> None:
    """Its last client left while it was to make room: it stays away."""
    process = ready(world, max_calls=7)
    world.pong(process.link)
    world.tell(events.EndingAnnounced(process.link or 0, "its last client left"))
    world.exit(process, code=0)
    world.wait(1)
    assert not world.processes


def test_a_state_that_cannot_be_saved_keeps_the_daemon(world: World) -> None:
    """It is told why, and the order is given again after a minute."""
    process = ready(world, max_calls=7)
    world.pong(process.link)
    first = order(world)
    world.tell(events.RecycleRefused(process.link or 0, first.token, "ValueError: no", "Trace"))
    status = world.status("etl")
    assert status.state == "ready"
    assert status.reason == "it was kept, since its state cannot be saved: ValueError: no"
    assert ("kept", "etl") in world.published
    world.pong(process.link)
    order(world)
    world.wait(RETRY_SECONDS)
    assert len({each.token for each in world.done_of(actions.SendRecycle)}) == 2  # type: ignore[attr-defined]


def test_a_refusal_of_another_order_is_not_heard(world: World) -> None:
    """Nor one from a link that is not known."""
    process = ready(world, max_calls=7)
    world.pong(process.link)
    world.tell(events.RecycleRefused(process.link or 0, "other", "no", ""))
    world.tell(events.RecycleRefused(4711, order(world).token, "no", ""))
    assert world.record().life.recycle


def test_reports_of_nobody_are_not_heard(world: World) -> None:
    """A link that is not known, and a call without a deadline."""
    process = ready(world)
    world.tell(events.LimitReached(4711, 1))
    world.tell(events.CallRunsLong(4711, 1, 1, "f()", 1.0))
    world.tell(events.CallRunsLong(process.link or 0, 1, 1, "f()", 1.0))
    world.wait(10)
    assert not world.done_of(actions.InterruptCall)


# --- the deadline of calls ------------------------------------------------------------------------


def long(world: World, process: Process, seconds: float = 1.0) -> None:
    world.tell(events.CallRunsLong(process.link or 0, 3, 8, "fit()", seconds))


def serve(world: World, process: Process, busy: Busy | None = None) -> None:
    """A minute goes by in which pings are answered."""
    for _ in range(12):
        world.wait(world.settings.health_interval_seconds)
        world.pong(process.link, busy)


def test_a_long_call_is_interrupted_at_its_deadline(world: World) -> None:
    """That very call, when it has run for as long as it may."""
    process = ready(world, call_deadline=2.0)
    long(world, process)
    world.wait(0.99)
    assert not world.done_of(actions.InterruptCall)
    world.wait(0.01)
    (sent,) = world.done_of(actions.InterruptCall)
    assert isinstance(sent, actions.InterruptCall)
    assert (sent.link, sent.connection, sent.call) == (process.link, 3, 8)
    assert "more than 2 s, its call_deadline" in sent.text


def test_a_call_that_is_told_late_is_interrupted_at_once(world: World) -> None:
    """It was in C code that kept the interpreter's lock, say."""
    process = ready(world, call_deadline=2.0)
    long(world, process, 3.0)
    assert world.done_of(actions.InterruptCall)


def test_a_call_that_was_over_is_forgotten(world: World) -> None:
    """The daemon says so, and nothing more is done."""
    process = ready(world, call_deadline=2.0)
    long(world, process, 2.0)
    world.tell(events.CallInterrupted(process.link or 0, 0, done=False))
    serve(world, process)
    assert process.signals == []


@pytest.mark.parametrize("busy", [None, Busy("other()", 9, 1.0, connection=3, call=9)])
def test_a_call_that_heeds_its_interrupt_is_forgotten(world: World, busy: Busy | None) -> None:
    """After the grace a ping shows that it runs no more."""
    process = ready(world, call_deadline=2.0)
    long(world, process, 2.0)
    world.tell(events.CallInterrupted(process.link or 0, 0, done=True))
    world.wait(world.settings.stop_grace_seconds)
    world.pong(process.link, busy)
    serve(world, process)
    assert process.signals == []


def test_a_call_that_does_not_ends_with_its_daemon(world: World) -> None:
    """By signals: what does not listen is not asked."""
    process = ready(world, call_deadline=2.0, restart="on-failure")
    long(world, process, 2.0)
    world.wait(world.settings.stop_grace_seconds)
    world.pong(process.link, Busy("fit()", 9, 7.0, connection=3, call=8))
    assert process.signals == ["SIGTERM"]
    world.wait(world.settings.term_grace_seconds)
    assert process.signals == ["SIGTERM", "SIGKILL"]
    world.exit(process, signal_name="SIGKILL")
    record = world.record()
    assert record.state is State.WAITING
    assert record.restart_reason == (
        "call_deadline: fit() took more than 2 s and ignored its interrupt"
    )


def test_one_that_cannot_even_answer_is_ended_as_well(world: World) -> None:
    """It is in C code that keeps the interpreter's lock."""
    process = ready(world, call_deadline=2.0)
    long(world, process, 2.0)
    world.wait(world.settings.stop_grace_seconds + PONG_SECONDS)
    assert process.signals == ["SIGTERM"]


def test_one_that_cannot_tell_of_its_call_is_ended_too(world: World) -> None:
    """C code keeps the interpreter's lock from the beginning: its pings are not answered."""
    process = ready(world, call_deadline=2.0)
    settings = world.settings
    world.wait(settings.health_interval_seconds + 2 + settings.stop_grace_seconds)
    assert process.signals == []
    world.wait(PONG_SECONDS)
    assert process.signals == ["SIGTERM"]
    assert "C code that keeps the interpreter's lock took more than 2 s" in (
        world.record().life.reason
    )


def test_a_grace_that_is_configured_anew_counts_at_once() -> None:
    """For what was awaited with the old one, too."""
    world = World(settings=Settings(stop_grace_seconds=1000.0))
    process = ready(world, call_deadline=2.0)
    world.wait(world.settings.health_interval_seconds)
    world.reload(settings=Settings(stop_grace_seconds=1.0))
    world.wait(3 + PONG_SECONDS)
    assert process.signals[0] == "SIGTERM"


def test_one_that_somebody_stopped_is_not(world: World) -> None:
    """It does not compute; and once it goes on it has time to answer."""
    process = ready(world, call_deadline=2.0)
    world.states["etl"] = "stopped"
    world.wait(60)
    assert process.signals == []
    world.states["etl"] = "other"
    world.tell(events.ProcessesSeen({"etl": "other"}))
    world.wait(0)
    world.pong(process.link, Busy("fit()", 9, 1.0, connection=3, call=8))
    world.wait(world.settings.stop_grace_seconds)
    assert process.signals == []


def test_without_a_link_nothing_is_due(world: World) -> None:
    """Limits count again when it has linked up."""
    process = ready(world, call_deadline=2.0, max_age=5.0)
    long(world, process)
    world.tell(events.LinkLost(process.link or 0))
    world.wait(60)
    assert not world.done_of(actions.InterruptCall)
    world.hello(process, "ready")
    world.wait(0)
    assert world.done_of(actions.InterruptCall) or world.done_of(actions.SendRecycle)


# --- restarts by request --------------------------------------------------------------------------


def test_a_restart_orders_it_at_once(world: World) -> None:
    """What runs is interrupted; the state is saved; the next process has it."""
    process = ready(world)
    caller = world.ask(control.RestartDaemon("etl"))
    sent = order(world)
    assert sent.is_urgent
    assert world.record().state is State.STOPPING
    successor = end(world, process, saved=True)
    world.tell(events.DefinitionLoaded(world.hello(successor)))
    assert isinstance(world.answer(caller), control.Started)
    (_, load) = world.done_of(actions.SendLoad)
    assert isinstance(load, actions.SendLoad)
    assert load.restore == sent.token


def test_what_was_restored_is_not_restored_again(world: World) -> None:
    """After a crash of the successor its own successor begins afresh."""
    process = ready(world, restart="always")
    world.ask(control.RestartDaemon("etl"))
    successor = end(world, process, saved=True)
    world.tell(events.DefinitionLoaded(world.hello(successor)))
    assert world.record().restore == ""
    world.exit(successor, signal_name="SIGSEGV")
    world.wait(1)
    world.hello(world.only_process())
    assert [each.restore for each in world.done_of(actions.SendLoad)][-1] == ""  # type: ignore[attr-defined]


def test_what_could_not_be_restored_is_tried_again(world: World) -> None:
    """A start that failed leaves the state for the next, by policy or by hand."""
    process = ready(world)
    world.ask(control.RestartDaemon("etl"))
    token = order(world).token
    successor = end(world, process, saved=True)
    link = world.hello(successor)
    world.tell(events.DefinitionFailed(link, "ValueError: old state"))
    world.exit(successor, code=1)
    world.ask(control.RestartDaemon("etl"))
    world.hello(world.only_process())
    assert [each.restore for each in world.done_of(actions.SendLoad)][1:] == [token, token]  # type: ignore[attr-defined]


def test_a_start_of_the_same_definition_tries_again_too(world: World) -> None:
    """Not one of another definition."""
    process = ready(world)
    world.ask(control.RestartDaemon("etl"))
    token = order(world).token
    successor = end(world, process, saved=True)
    world.tell(events.DefinitionFailed(world.hello(successor), "no"))
    world.exit(successor, code=1)
    world.ask(definition(token="t2"))
    assert world.record().restore == token


def test_a_restart_that_cannot_save_is_refused(world: World) -> None:
    """With the error, and the daemon serves on; whoever else waits is served by it."""
    process = ready(world)
    caller = world.ask(control.RestartDaemon("etl"))
    finder = world.ask(control.FindDaemon("etl"))
    world.tell(
        events.RecycleRefused(process.link or 0, order(world).token, "ValueError: no", "Trace")
    )
    said = refusal(world.answer(caller))
    assert "was not restarted" in said.message
    assert "ValueError: no" in said.message
    assert said.remote_traceback == "Trace"
    assert isinstance(world.answer(finder), control.Started)
    assert world.record().state is State.READY
    world.wait(60)
    assert process.signals == []


def test_saving_takes_as_long_as_it_takes(world: World) -> None:
    """Once the daemon says that it saves, the grace is over only when somebody stops it."""
    process = ready(world)
    world.ask(control.RestartDaemon("etl"))
    world.tell(events.SavingBegan(process.link or 0))
    world.wait(600)
    assert process.signals == []
    world.ask(control.StopDaemon("etl"))
    world.wait(world.settings.stop_grace_seconds)
    assert process.signals == ["SIGTERM"]


def test_one_that_dies_while_it_saves_its_state_is_told_of(world: World) -> None:
    """It is started anew as was asked, but whoever asked hears that the state is lost."""
    process = ready(world)
    caller = world.ask(control.RestartDaemon("etl"))
    finder = world.ask(control.FindDaemon("etl"))
    world.tell(events.SavingBegan(process.link or 0))
    world.exit(process, code=7)
    lost = "exited with code 7 while it saved its state, which is lost"
    assert refusal(world.answer(caller)).message == (
        f"daemon 'etl' is started anew without its state: it {lost}"
    )
    assert ("died", "etl") in world.published
    world.wait(0)
    world.hello(world.only_process())
    assert isinstance(world.answer(finder), control.Started)
    assert world.record().endings[0].reason == f"restart requested; {lost}"


def test_a_limit_whose_saving_is_a_death_is_told_of(world: World) -> None:
    """Nobody asked, and it is a death as any other."""
    process = ready(world, max_calls=7)
    world.pong(process.link)
    world.tell(events.SavingBegan(process.link or 0))
    world.exit(process, code=7)
    assert "while it saved its state" in world.status("etl").reason


def test_a_restart_of_one_that_does_not_react_goes_on_by_signals(world: World) -> None:
    """A call that ignores its interrupt leaves no chance to save."""
    process = ready(world)
    world.ask(control.RestartDaemon("etl"))
    world.wait(world.settings.stop_grace_seconds)
    assert process.signals == ["SIGTERM"]
    world.tell(events.SavingBegan(4711))


def test_a_successor_is_started_by_the_next_supervisor_too(world: World) -> None:
    """The one that gave the order died in between."""
    world.tell(
        events.JournalRead(
            request=definition(),
            interpreter=PYTHON,
            state="waiting",
            restarts=3,
            reason="max_calls",
            identity=None,
            age_seconds=0.0,
            crashed=False,
            restore="t",
        )
    )
    world.wait(0)
    world.hello(world.only_process())
    (load,) = world.done_of(actions.SendLoad)
    assert isinstance(load, actions.SendLoad)
    assert load.restore == "t"


def test_a_restart_while_a_limit_has_the_state_saved_joins_that(world: World) -> None:
    """The daemon is on its way already; it may still be kept, and then the restart is refused."""
    process = ready(world, max_calls=7)
    world.pong(process.link)
    world.tell(events.SavingBegan(process.link or 0))
    caller = world.ask(control.RestartDaemon("etl"))
    world.wait(100)
    assert process.signals == []
    world.tell(events.RecycleRefused(process.link or 0, order(world).token, "no", ""))
    assert "was not restarted" in refusal(world.answer(caller)).message


def test_what_was_saved_under_an_earlier_order_is_restored(world: World) -> None:
    """A restart was requested when a limit's order had been given."""
    process = ready(world, max_calls=7)
    world.pong(process.link)
    first = order(world).token
    world.ask(control.RestartDaemon("etl"))
    assert len(world.done_of(actions.SendRecycle)) == 2
    world.tell(events.EndingAnnounced(process.link or 0, "", True, saved=True, token=first))
    world.exit(process, code=0)
    world.hello(world.only_process())
    assert [each.restore for each in world.done_of(actions.SendLoad)][-1] == first  # type: ignore[attr-defined]


def test_a_second_restart_joins_the_first(world: World) -> None:
    """It neither hurries the saving nor ends the next process; both are told of that."""
    process = ready(world)
    callers = [world.ask(control.RestartDaemon("etl")) for _ in range(2)]
    assert not world.done_of(actions.SendStop)
    successor = end(world, process, saved=True)
    world.tell(events.DefinitionLoaded(world.hello(successor)))
    assert [type(world.answer(each)) for each in callers] == [control.Started] * 2
    assert world.only_process() is successor
    assert world.record().state is State.READY


def test_a_stop_ends_a_restart_under_way(world: World) -> None:
    """Who says it has seen the restart; whoever asked for that is told."""
    process = ready(world)
    restarter = world.ask(control.RestartDaemon("etl"))
    finder = world.ask(control.FindDaemon("etl"))
    stopper = world.ask(control.StopDaemon("etl"))
    said = world.answer(restarter)
    assert isinstance(said, control.Refused)
    assert said.message == ("daemon 'etl' was stopped by somebody else before it was started anew")
    world.exit(process, code=0)
    assert isinstance(world.answer(stopper), control.Done)
    assert isinstance(world.answer(finder), control.Refused)
    assert not world.processes


def test_an_order_ends_with_its_link(world: World) -> None:
    """The daemon forgets it, and is told of its limit again."""
    process = ready(world, max_calls=7)
    world.pong(process.link)
    world.tell(events.LinkLost(process.link or 0))
    world.hello(process, "ready")
    world.pong(process.link)
    assert len({each.token for each in world.done_of(actions.SendRecycle)}) == 2  # type: ignore[attr-defined]


# --- the supervisor dies meanwhile ----------------------------------------------------------------


def standing(world: World) -> str:
    """What the next supervisor would read in the journal."""
    written = world.done_of(actions.WriteJournal)[-1]
    assert isinstance(written, actions.WriteJournal)
    return str(_content(written.record)["state"])


def take_over(world: World, process: Process | None, restore: str = "") -> World:
    """The world of the next supervisor, with this process left in it."""
    next_world = World()
    if process is not None:
        next_world.processes[process.identity] = process
    next_world.tell(
        events.JournalRead(
            request=definition(),
            interpreter=PYTHON,
            state="waiting",
            restarts=0,
            reason="",
            identity=process.identity if process else None,
            age_seconds=5.0,
            crashed=False,
            restore=restore,
        )
    )
    return next_world


def test_a_restart_is_noted_until_the_next_process_is_there(world: World) -> None:
    """From the request on; what is saved is noted with it, and neither once it has begun anew."""
    process = ready(world)
    world.ask(control.RestartDaemon("etl"))
    assert standing(world) == "waiting"
    written = world.done_of(actions.WriteJournal)[-1]
    assert _content(written.record)["restore"] == order(world).token  # type: ignore[attr-defined]
    count = len(world.done_of(actions.WriteJournal))
    successor = end(world, process)
    later = world.done_of(actions.WriteJournal)[count:]
    standings = [_content(each.record)["state"] for each in later]  # type: ignore[attr-defined]
    assert standings == ["waiting", "waiting", "running"]
    assert successor.identity != process.identity


def test_so_is_one_of_a_daemon_that_is_still_starting(world: World) -> None:
    """It is ended and started anew, whoever sees to it."""
    world.ask(definition())
    world.ask(control.RestartDaemon("etl"))
    assert standing(world) == "waiting"


def test_so_is_a_limit_once_the_state_is_being_saved(world: World) -> None:
    """Before that nothing has happened; should it be kept, nothing will."""
    process = ready(world, max_calls=7)
    world.pong(process.link)
    assert standing(world) == "running"
    world.tell(events.SavingBegan(process.link or 0))
    assert standing(world) == "waiting"
    world.tell(events.RecycleRefused(process.link or 0, order(world).token, "no", ""))
    assert standing(world) == "running"


def test_saving_without_an_order_means_nothing(world: World) -> None:
    """An earlier supervisor gave it, and this one goes by what the daemon says at its end."""
    process = ready(world)
    world.tell(events.SavingBegan(process.link or 0))
    assert standing(world) == "running"


def test_a_stop_is_the_end_of_that(world: World) -> None:
    """Nobody finds it waiting."""
    process = ready(world, max_calls=7)
    world.pong(process.link)
    world.tell(events.SavingBegan(process.link or 0))
    world.ask(control.StopDaemon("etl"))
    world.exit(process, code=0)
    assert standing(world) == "ended"


def test_the_next_supervisor_goes_on_with_a_restart(world: World) -> None:
    """Of a daemon that lives: it is told again, and may be saving already."""
    process = ready(world)
    world = take_over(world, process)
    world.hello(process, "ready")
    sent = order(world)
    assert not sent.is_urgent
    world.tell(events.EndingAnnounced(process.link or 0, "", True, saved=True, token="earlier"))
    world.exit(process, code=0)
    world.wait(0)
    world.hello(world.only_process())
    (load,) = world.done_of(actions.SendLoad)
    assert isinstance(load, actions.SendLoad)
    assert load.restore == "earlier"


def test_the_next_supervisor_restarts_one_that_has_not_begun(world: World) -> None:
    """It is in its definition, which is not waited for."""
    process = ready(world)
    world = take_over(world, process)
    world.hello(process, "loading")
    assert world.done_of(actions.SendStop)
    world.exit(process, code=0)
    world.wait(0)
    assert world.only_process() is not process


def test_one_that_ends_before_it_is_in_touch_comes_back_as_well(world: World) -> None:
    """It was past all links when the next supervisor came."""
    process = ready(world)
    world = take_over(world, process, restore="t")
    world.exit(process, code=0)
    world.wait(0)
    world.hello(world.only_process())
    (load,) = world.done_of(actions.SendLoad)
    assert isinstance(load, actions.SendLoad)
    assert load.restore == "t"


def test_one_that_was_kept_meanwhile_is_asked_again(world: World) -> None:
    """And kept again, if that is how it is."""
    process = ready(world)
    world = take_over(world, process)
    world.hello(process, "ready")
    world.tell(events.RecycleRefused(process.link or 0, order(world).token, "no", ""))
    assert standing(world) == "running"
    world.tell(events.EndingAnnounced(process.link or 0, "its last client left"))
    world.exit(process, code=0)
    world.wait(1)
    assert not world.processes
