"""What is decided about an upgrade, and about requests that must not be carried out twice."""

from dataclasses import replace

import pytest

from spawny import control
from spawny.supervisor import actions, events, fleet, upgrade
from spawny.supervisor.lifecycle import State
from spawny.supervisor.values import Caller
from tests.supervisor.world import World, definition, refusal

ASK = control.Upgrade("/new/bin/python", "/new")
GOOD = events.SuccessorChecked("9.9", "")
CHECK = actions.CheckSuccessor("/new/bin/python", "/new")


@pytest.fixture
def world() -> World:
    return World()


def ask(world: World) -> Caller:
    return world.ask(ASK, b"upgrader")


def handovers(world: World) -> list[actions.Action]:
    return world.done_of(actions.HandOver)


def draining(world: World) -> Caller:
    """An upgrade whose successor can take over."""
    caller = ask(world)
    world.tell(GOOD)
    return caller


def stopping(world: World) -> Caller:
    """A daemon that is being stopped, and who waits for that."""
    world.ready()
    return world.ask(control.StopDaemon("etl", token="stop-1"))


def handed_over(world: World) -> World:
    """The successor of this world."""
    (action,) = handovers(world)
    assert isinstance(action, actions.HandOver)
    after = World()
    after.now, after.processes = world.now, world.processes
    after.tell(events.HandedOver(action.records, action.answered))
    return after


# --- trying the successor -------------------------------------------------------------------------


def test_the_successor_is_tried_first(world: World) -> None:
    """Until it has been, nothing else changes: requests are served."""
    caller = ask(world)
    assert world.done_of(actions.CheckSuccessor) == [CHECK]
    assert not world.is_answered(caller)
    world.ready()
    world.ask(control.StopDaemon("etl"))
    assert world.record().state is State.STOPPING


def test_with_nothing_under_way_it_takes_over_at_once(world: World) -> None:
    """Watchers and the one who asked are told before."""
    watcher = world.ask(control.WatchEvents(), b"watcher")
    caller = draining(world)
    assert world.answer(caller) == control.Done("spawny 1 becomes 9.9")
    assert handovers(world) == [actions.HandOver("/new/bin/python", "/new", (), {})]
    (published,) = world.done_of(actions.Publish)
    assert published == actions.Publish((watcher,), "upgrading", "", "spawny 1 becomes 9.9", 1)
    assert world.core.next_deadline() == world.now + 5  # the regular look


def test_a_successor_that_fails_is_refused_with_what_it_said(world: World) -> None:
    """The supervisor serves on."""
    caller = ask(world)
    world.tell(events.SuccessorChecked("", "no module named zmq"))
    refused = refusal(world.answer(caller))
    assert refused.error == "UpgradeFailed"
    assert refused.message == "/new/bin/python cannot take over: no module named zmq"
    assert not handovers(world)
    world.ready()


def test_a_trial_that_takes_too_long_is_given_up(world: World) -> None:
    """What it says later is not heard."""
    caller = ask(world)
    world.wait(upgrade.CHECK_SECONDS)
    assert world.done_of(actions.AbandonCheck) == [actions.AbandonCheck()]
    assert "was not ready within 30 s" in refusal(world.answer(caller)).message
    world.tell(GOOD)
    assert not handovers(world)


def test_one_upgrade_at_a_time(world: World) -> None:
    """The second is refused, with the reason; so is one during a shutdown."""
    ask(world)
    assert "being upgraded already" in refusal(world.answer(ask(world))).message
    other = World()
    other.ready()
    other.ask(control.Shutdown())
    assert "is shutting down" in refusal(other.answer(ask(other))).message


def test_it_does_not_end_for_want_of_work_meanwhile(world: World) -> None:
    """Whoever asked for the upgrade is waiting."""
    world.now += 10_000
    world.core.fleet.touched_at = 0
    ask(world)
    world.wait(1)
    assert not world.done_of(actions.Exit)


# --- what is under way ----------------------------------------------------------------------------


def test_a_stop_is_waited_for(world: World) -> None:
    """The successor gets its answer, by the token of the request."""
    stopper = stopping(world)
    draining(world)
    world.tell(GOOD)  # once more means nothing
    assert not handovers(world)
    world.exit(world.only_process(), 0)
    done = world.answer(stopper)
    (action,) = handovers(world)
    assert isinstance(action, actions.HandOver)
    assert action.answered == {"stop-1": done}
    assert [(each.name, each.state) for each in action.records] == [("etl", State.ENDED)]


@pytest.mark.parametrize(
    "request_",
    [
        control.StopDaemon("web"),
        control.RestartDaemon("web"),
        control.InterruptDaemon("web"),
        control.Shutdown(),
        definition("new"),
    ],
    ids=lambda each: type(each).__name__,
)
def test_what_comes_meanwhile_is_held(world: World, request_: control.Message) -> None:
    """It is carried out when the upgrade is given up, and by the successor if asked again there."""
    stopping(world)
    world.ready(definition("web"))
    draining(world)
    before = len(world.done)
    held = world.ask(request_)
    assert len(world.done) == before
    world.wait(upgrade.HARD_SECONDS)
    assert len(world.done) > before
    assert not handovers(world)
    assert world.core.fleet.held == []
    assert world.core.fleet.upgrading is None
    assert held in world.replies


def test_questions_are_answered_meanwhile(world: World) -> None:
    """They change nothing, and may be asked twice."""
    stopping(world)
    draining(world)
    assert world.answer(world.ask(control.Hello("1"))) == world.core.fleet.welcome
    assert world.status("etl").state == "stopping"


def test_a_stop_that_does_not_end_keeps_the_supervisor(world: World) -> None:
    """The one who asked is told why and what to do."""
    stopping(world)
    caller = draining(world)
    world.wait(upgrade.HARD_SECONDS)
    refused = refusal(world.answer(caller))
    assert refused.error == "UpgradeFailed"
    assert "has not ended within 5 s" in refused.message


def test_a_restart_that_was_deferred_goes_on(world: World) -> None:
    """Its second half is no new request."""
    world.ready()
    restarted = world.ask(control.RestartDaemon("etl", token="again-1"))
    draining(world)
    world.exit(world.only_process(), 0)
    assert not handovers(world)
    world.tell(events.DefinitionLoaded(world.hello(world.only_process())))
    assert isinstance(world.answer(restarted), control.Started)
    assert handovers(world)


def test_a_start_is_waited_for_a_moment(world: World) -> None:
    """Its client asks again, which finds the one that was started."""
    world.start(definition())
    draining(world)
    world.wait(upgrade.SOFT_SECONDS / 2)
    assert not handovers(world)
    world.wait(upgrade.SOFT_SECONDS / 2)
    assert handovers(world)
    after = handed_over(world)
    assert after.record().state is State.STARTING
    again = after.start(definition())
    after.hello(after.only_process())
    assert isinstance(after.answer(again), control.Started)


def test_a_start_that_is_answered_is_waited_for_no_longer(world: World) -> None:
    """Nothing is lost then."""
    world.start(definition())
    draining(world)
    world.hello(world.only_process())
    assert handovers(world)


def test_a_listing_is_waited_for(world: World) -> None:
    """It takes a quarter of a second at most."""
    world.ready()
    listing = world.ask(control.ListDaemons())
    draining(world)
    assert not handovers(world)
    world.wait(0.25)
    assert isinstance(world.answer(listing), control.Listing)
    assert handovers(world)


def test_a_daemon_that_makes_room_for_its_successor_is_waited_for(world: World) -> None:
    """It ends once it has said so, and would be taken for one that has ended by itself."""
    process = world.ready(replace(definition(), max_calls=5))
    world.tell(events.LimitReached(process.link or 0, 5))
    draining(world)
    assert not handovers(world)
    world.tell(events.EndingAnnounced(process.link or 0, "max_calls", recycled=True))
    assert handovers(world)
    after = handed_over(world)
    after.exit(process, code=0)
    assert after.record().state is State.WAITING


def test_a_daemon_that_makes_room_after_a_long_call_is_not_waited_for(world: World) -> None:
    """That call may take for ever."""
    process = world.ready(replace(definition(), max_calls=5))
    world.tell(events.LimitReached(process.link or 0, 5))
    draining(world)
    world.wait(upgrade.SOFT_SECONDS)
    assert handovers(world)


def test_limits_are_left_to_the_successor(world: World) -> None:
    """A daemon that was told to make room would say so while nobody listens."""
    process = world.ready(replace(definition(), max_calls=5))
    stop = world.ready(definition("other"))
    world.ask(control.StopDaemon("other", token="stop-1"))
    draining(world)
    world.tell(events.LimitReached(process.link or 0, 5))
    assert not world.done_of(actions.SendRecycle)
    world.exit(stop, code=0)
    world.wait(upgrade.SOFT_SECONDS)
    assert handovers(world)


def test_whoever_waits_for_a_backoff_is_not_waited_for(world: World) -> None:
    """That may take half a minute."""
    process = world.ready(definition(restart="always"))
    world.exit(process, 1)
    assert world.record().state is State.WAITING
    world.ask(control.FindDaemon("etl"))
    draining(world)
    assert handovers(world)


def test_a_successor_that_cannot_be_executed(world: World) -> None:
    """What was held is carried out, and the watchers know."""
    world.ready()
    draining(world)
    stop = world.ask(control.StopDaemon("etl"))
    assert world.record().state is State.READY
    world.tell(events.SuccessionFailed("gone"))
    assert world.record().state is State.STOPPING
    assert ("upgraded", "") in world.published
    world.exit(world.only_process(), 0)
    assert isinstance(world.answer(stop), control.Done)


# --- the successor --------------------------------------------------------------------------------


def test_a_ready_daemon_is_expected_to_link_up(world: World) -> None:
    """It is watched, and everything that was known of it still is."""
    process = world.ready(definition(restart="always"))
    before = world.record()
    draining(world)
    after = handed_over(world)
    record = after.record()
    assert (record.state, record.link) == (State.UNLINKED, None)
    assert record.is_being_adopted
    assert (record.life.ready_at, record.failures) == (before.life.ready_at, before.failures)
    assert after.done_of(actions.WatchProcess) == [actions.WatchProcess("etl", process.identity)]
    after.hello(process, "ready")
    assert after.record().state is State.READY


def test_an_interrupt_waits_for_the_link(world: World) -> None:
    """It is sent to the daemon that it is meant for, as soon as that has phoned home."""
    process = world.ready()
    other = world.ready(definition("web"))
    draining(world)
    after = handed_over(world)
    interrupt = after.ask(control.InterruptDaemon("etl"))
    assert not after.done_of(actions.SendInterrupt)
    after.hello(other, "ready")
    assert not after.done_of(actions.SendInterrupt)
    link = after.hello(process, "ready")
    (sent,) = after.done_of(actions.SendInterrupt)
    assert isinstance(sent, actions.SendInterrupt)
    assert sent.link == link
    after.tell(events.CallInterrupted(link, sent.interrupt_id, done=True))
    assert after.answer(interrupt) == control.Done("the call was interrupted")


def test_deaths_are_counted_on(world: World) -> None:
    """Five in a minute are too many, whoever supervises."""
    process = world.ready(definition(restart="always"))
    for _ in range(world.settings.give_up_deaths - 1):
        world.exit(process, 1)
        world.wait(8)
        process = world.only_process()
        world.tell(events.DefinitionLoaded(world.hello(process)))
    draining(world)
    after = handed_over(world)
    after.hello(process, "ready")
    after.exit(process, 1)
    assert after.record().state is State.FAILED


def test_one_that_waits_is_restarted_when_it_is_time(world: World) -> None:
    """Not earlier: the backoff goes on."""
    process = world.ready(definition(restart="always"))
    world.exit(process, 1)
    deadline = world.record().deadline
    draining(world)
    after = handed_over(world)
    assert after.record().deadline == deadline
    after.wait(1)
    assert after.record().state is State.STARTING


def test_what_one_has_left_is_swept_on(world: World) -> None:
    """And whoever stopped it may ask again what came of it."""
    world.sweep_leaves = 1
    process = world.ready()
    world.exit(process, 1)
    assert world.record().state is State.SWEEPING
    draining(world)
    after = handed_over(world)
    assert after.done_of(actions.SweepSession)
    assert after.status("etl").state == "ended"


def test_an_ended_one_is_remembered(world: World) -> None:
    """Its reason is not in the journal."""
    process = world.ready()
    world.exit(process, 3)
    draining(world)
    assert handed_over(world).status("etl").exit_code == 3


def test_one_without_a_process_yet_is_kept(world: World) -> None:
    """It is only just being spawned, which the records of this moment do not show elsewhere."""
    world.ready()
    record = replace(world.record(), identity=None, state=State.STARTING)
    world.tell(events.HandedOver((record,), {}))
    assert world.record() == record


def test_a_definition_that_the_one_before_held_is_kept(world: World) -> None:
    """In its file: an earlier version had it in memory."""
    world.ready()
    request = replace(world.record().request, definition=b"payload")
    world.tell(events.HandedOver((world.record().changed(request=request),), {}))
    assert actions.KeepDefinition(request) in world.done
    assert world.record().request.definition == b""


# --- requests that must not be carried out twice --------------------------------------------------


def test_a_request_that_is_asked_again_gets_its_answer(world: World) -> None:
    """The daemon is not stopped a second time, though it runs again by now."""
    stopper = stopping(world)
    world.exit(world.only_process(), 0)
    done = world.answer(stopper)
    world.ready(definition(token="t2"))
    again = world.ask(control.StopDaemon("etl", token="stop-1", again=True))
    assert world.answer(again) == done
    assert world.record().state is State.READY


def test_a_request_that_was_lost_with_a_supervisor_is_refused(world: World) -> None:
    """A supervisor that began with the journal cannot know whether it was carried out."""
    world.ready()
    again = world.ask(control.StopDaemon("etl", token="x", again=True))
    assert refusal(world.answer(again)).error == "SupervisorUnavailable"
    assert world.record().state is State.READY


def test_a_request_that_is_under_way_is_not_begun_again(world: World) -> None:
    """Its first asker gets the answer."""
    stopper = stopping(world)
    again = world.ask(control.StopDaemon("etl", token="stop-1", again=True))
    assert refusal(world.answer(again)).error == "SupervisorUnavailable"
    world.exit(world.only_process(), 0)
    assert isinstance(world.answer(stopper), control.Done)


def test_a_request_that_the_one_before_never_took_is_carried_out(world: World) -> None:
    """The successor knows all that was: this is new."""
    process = world.ready()
    draining(world)
    after = handed_over(world)
    after.hello(process, "ready")
    again = after.ask(control.StopDaemon("etl", token="held", again=True))
    after.exit(process, 0)
    assert isinstance(after.answer(again), control.Done)


def test_answers_are_forgotten_in_the_end(world: World) -> None:
    """A client asks again at once, or never."""
    for number in range(fleet.ANSWERS_KEPT + 1):
        world.ask(control.StopDaemon("nobody", token=str(number)))
    assert len(world.core.fleet.answered) == fleet.ANSWERS_KEPT
    assert "0" not in world.core.fleet.answered


def test_progress_is_no_answer(world: World) -> None:
    """Nor is anything kept for a request without a token, which an older client makes."""
    process = world.ready()
    caller = world.ask(control.Shutdown())
    world.exit(process, 0)
    assert world.answer(caller) == control.Done("the supervisor has ended")
    assert world.core.fleet.answered == {}
    assert world.core.fleet.awaited == {}
