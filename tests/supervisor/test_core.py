"""What the core decides, told through a world of plain values."""

from dataclasses import replace

import pytest

from spawny import control
from spawny.errors import DaemonExists, DaemonStartError
from spawny.settings import Settings
from spawny.supervisor import actions, events
from spawny.supervisor.fleet import ENDED_KEPT
from spawny.supervisor.lifecycle import State
from spawny.supervisor.records import Stage
from spawny.supervisor.values import Busy, Caller, CallFigures, Ending, Identity
from tests.supervisor.world import (
    OTHER_PYTHON,
    PYTHON,
    World,
    definition,
    refusal,
    sample,
)


@pytest.fixture
def world() -> World:
    return World()


def journaled(world: World) -> State:
    """How a daemon stands in the journal."""
    written = world.done_of(actions.WriteJournal)[-1]
    assert isinstance(written, actions.WriteJournal)
    return written.record.state


def kept(request: control.StartDaemon) -> control.StartDaemon:
    """As the core has it once its definition is kept."""
    return replace(request, definition=b"")


# --- coming up ------------------------------------------------------------------------------------


def test_a_start_is_answered_when_the_definition_was_sent(world: World) -> None:
    """Spawn, hello, load, and only then `Started`."""
    caller = world.ask(definition())
    process = world.only_process()
    assert world.status("etl").state == "starting"
    assert not world.is_answered(caller)
    link = world.hello(process)
    assert actions.SendLoad(link, kept(definition())) in world.done
    assert world.answer(caller) == control.Started(
        "etl", process.identity.pid, PYTHON.executable, existing=False
    )
    assert world.status("etl").state == "loading"
    world.tell(events.DefinitionLoaded(link))
    status = world.status("etl")
    assert (status.state, status.version) == ("ready", "cpython 3.11.7")
    assert [kind for kind, _ in world.published] == ["started", "ready"]


def test_the_journal_is_written_with_the_process(world: World) -> None:
    """A supervisor that dies right after the spawn leaves a trace of it."""
    world.ask(definition())
    (written,) = world.done_of(actions.WriteJournal)
    assert isinstance(written, actions.WriteJournal)
    assert written.record.identity == world.only_process().identity


def test_an_equal_definition_attaches(world: World) -> None:
    """The second to ask finds the daemon there."""
    process = world.ready()
    second = world.ask(definition(token="t2"))
    started = world.answer(second)
    assert isinstance(started, control.Started)
    assert (started.pid, started.existing) == (process.identity.pid, True)


def test_whoever_asks_during_the_start_waits_for_it(world: World) -> None:
    """One process, and one outcome for both."""
    first, second = world.ask(definition()), world.ask(definition(token="t2"))
    assert not world.is_answered(second)
    world.hello(world.only_process())
    for caller, existing in ((first, False), (second, True)):
        started = world.answer(caller)
        assert isinstance(started, control.Started)
        assert started.existing is existing


def test_a_request_sent_again_starts_no_second_daemon(world: World) -> None:
    """The same token is the same request, even with if_exists='error'."""
    world.ready(definition(if_exists="error"))
    again = world.answer(world.ask(definition(if_exists="error")))
    assert isinstance(again, control.Started)
    assert not again.existing


def test_another_definition_is_refused(world: World) -> None:
    """The refusal says what differs."""
    world.ready()
    said = refusal(world.answer(world.ask(definition(token="t2", digest="d2"))))
    assert isinstance(said.exception(), DaemonExists)
    assert "script d1, not script d2" in said.message
    assert "interpreter" not in said.message


def test_another_interpreter_is_refused_where_one_was_asked_for(world: World) -> None:
    """Who does not care which Python runs it attaches to any."""
    world.ready()
    picky = definition(token="t2", python_is_default=False)
    said = refusal(world.answer(world.start(picky, OTHER_PYTHON)))
    assert f"{PYTHON.executable}, not {OTHER_PYTHON.executable}" in said.message
    assert isinstance(world.answer(world.start(picky, PYTHON)), control.Started)
    easy = definition(token="t3")
    assert isinstance(world.answer(world.start(easy, OTHER_PYTHON)), control.Started)


def test_error_refuses_even_an_equal_definition(world: World) -> None:
    """if_exists='error' wants a daemon of its own."""
    world.ready()
    said = refusal(world.answer(world.ask(definition(token="t2", if_exists="error"))))
    assert said.error == "DaemonExists"


def test_replace_stops_and_starts_anew(world: World) -> None:
    """The answer is about the new process, which comes when the old one is gone."""
    old = world.ready()
    caller = world.ask(definition(token="t2", digest="d2", if_exists="replace"))
    stop = actions.SendStop(old.link or 0, "replaced by a new definition", comes_back=True)
    assert stop in world.done
    assert list(world.processes.values()) == [old]
    world.exit(old, code=0)
    new = world.only_process()
    assert not world.is_answered(caller)
    world.hello(new)
    started = world.answer(caller)
    assert isinstance(started, control.Started)
    assert (started.pid, started.existing) == (new.identity.pid, False)


def test_a_start_during_the_end_waits_for_it(world: World) -> None:
    """A daemon of this name that is ending is none to attach to."""
    old = world.ready()
    world.ask(control.StopDaemon("etl"))
    caller = world.ask(definition(token="t2"))
    assert list(world.processes.values()) == [old]
    world.exit(old, code=0)
    world.hello(world.only_process())
    started = world.answer(caller)
    assert isinstance(started, control.Started)
    assert not started.existing


def test_finding_a_daemon_waits_until_it_can_be_reached(world: World) -> None:
    """At once where it runs, with its hello where it starts."""
    world.ask(definition())
    early = world.ask(control.FindDaemon("etl"))
    assert not world.is_answered(early)
    world.hello(world.only_process())
    late = world.ask(control.FindDaemon("etl"))
    for caller in (early, late):
        started = world.answer(caller)
        assert isinstance(started, control.Started)
        assert started.existing


def test_finding_a_daemon_does_not_hurry_its_restart(world: World) -> None:
    """It waits for the end, the backoff and the next hello; nobody has decided anything anew."""
    process = world.ready(definition(restart="always"))
    world.sweep_leaves = 1
    world.exit(process, code=1)
    during_the_end = world.ask(control.FindDaemon("etl"))
    world.tell(events.SessionSwept("etl", process.identity, 0))
    during_the_wait = world.ask(control.FindDaemon("etl"))
    assert world.record().state is State.WAITING
    world.wait(0.25)
    world.hello(world.only_process())
    for caller in (during_the_end, during_the_wait):
        assert isinstance(world.answer(caller), control.Started)


def test_finding_a_daemon_that_does_not_run(world: World) -> None:
    """Nothing is started: unknown, ended, and given up."""
    assert "none runs" in refusal(world.answer(world.ask(control.FindDaemon("etl")))).message
    world.exit(world.ready(), code=0)
    said = refusal(world.answer(world.ask(control.FindDaemon("etl"))))
    assert (said.error, "exited with code 0" in said.message) == ("DaemonNotFound", True)
    world.tell(journal(world, state="failed", lives=False))
    said = refusal(world.answer(world.ask(control.FindDaemon("etl"))))
    assert "does not run: died before" in said.message
    assert not world.processes


def test_an_interpreter_that_is_not_there_is_refused(world: World) -> None:
    """What the lookup found is said, and nothing is spawned."""
    said = refusal(world.answer(world.start(definition(), None)))
    assert (said.error, said.message) == ("InterpreterNotFound", "no such python")
    assert not world.processes


def test_a_process_that_cannot_be_spawned(world: World) -> None:
    """The reason is the operating system's, and no restart policy applies."""
    world.spawn_problem = "/usr/bin/python3.11 could not be executed: Permission denied"
    said = refusal(world.answer(world.ask(definition(restart="always"))))
    assert isinstance(said.exception(), DaemonStartError)
    assert world.spawn_problem in said.message
    assert world.status("etl").state == "ended"


def test_a_daemon_that_dies_before_its_hello(world: World) -> None:
    """The answer has the exit code, and the end of what this process wrote."""
    caller = world.ask(definition(restart="always"))
    world.exit(world.only_process(), code=7)
    said = refusal(world.answer(caller))
    assert (said.error, said.exit_code) == ("DaemonStartError", 7)
    assert "exited with code 7" in said.message
    (reply,) = (each for each in world.done_of(actions.Reply) if each.caller == caller)
    assert (reply.tail_of, reply.tail_offset) == ("etl", 4096)
    assert not world.processes


def test_a_daemon_that_is_not_ready_in_time(world: World) -> None:
    """start_timeout covers the interpreter; nothing stays behind."""
    caller = world.ask(definition(start_timeout=2.0))
    process = world.only_process()
    world.wait(1.9)
    assert not process.signals
    world.wait(0.2)
    assert process.signals == ["SIGTERM"]  # there is no link to ask over
    world.exit(process, signal_name="SIGTERM")
    assert "not ready within 2 s" in refusal(world.answer(caller)).message


def test_a_definition_that_takes_too_long(world: World) -> None:
    """start_timeout covers the definition too; the asker was answered, the reason is kept."""
    world.ask(definition(start_timeout=2.0))
    process = world.only_process()
    world.wait(1.0)
    link = world.hello(process)
    world.wait(1.1)
    assert actions.SendStop(link, "not ready within 2 s") in world.done
    world.exit(process, code=0)
    assert world.status("etl").reason == "not ready within 2 s; exited with code 0"


def test_a_definition_that_raises(world: World) -> None:
    """It ends by itself, is not restarted, and the reason is kept."""
    world.ask(definition(restart="always"))
    process = world.only_process()
    link = world.hello(process)
    world.tell(events.DefinitionFailed(link, "ValueError: x"))
    world.tell(events.DefinitionFailed(link, "ValueError: x"))
    world.tell(events.EndingAnnounced(link, "the definition failed"))
    assert world.status("etl").state == "stopping"
    world.wait(14)
    assert not process.signals
    world.exit(process, code=1)
    status = world.status("etl")
    assert (status.state, status.exit_code) == ("ended", 1)
    assert status.reason == "its definition raised ValueError: x; exited with code 1"


def test_stopping_one_whose_definition_raised_hurries_it(world: World) -> None:
    """It may wait for the client that asked for it; nobody who stops it has to."""
    world.ask(definition())
    process = world.only_process()
    link = world.hello(process)
    world.tell(events.DefinitionFailed(link, "ValueError: x"))
    world.ask(control.StopDaemon("etl"))
    assert actions.SendStop(link, "stop requested") in world.done
    world.wait(5.1)
    assert process.signals == ["SIGTERM"]


def test_a_hello_of_a_daemon_that_is_being_stopped(world: World) -> None:
    """Whoever waited for it is not told that it serves."""
    caller = world.ask(definition())
    process = world.only_process()
    world.ask(control.StopDaemon("etl"))
    link = world.hello(process)
    assert actions.SendStop(link, "stop requested") in world.done
    assert not world.done_of(actions.SendLoad)
    world.exit(process, signal_name="SIGTERM")
    assert "did not start: stop requested" in refusal(world.answer(caller)).message


def test_a_stray_child_is_killed(world: World) -> None:
    """A process that nobody waits for any more must not stay."""
    stray = world.process("gone")
    world.tell(events.ChildSpawned("gone", stray.identity, 0, "gone:t"))
    assert stray.signals == ["SIGKILL"]


def test_a_stop_that_overtakes_the_spawn(world: World) -> None:
    """A record that was told to stop before its process was there gets it stopped."""
    request = definition()
    world.core.step(events.StartRequested(Caller(b"c", 1), request, PYTHON), world.now)
    world.core.step(events.Requested(Caller(b"c", 2), control.StopDaemon("etl")), world.now)
    process = world.process()
    todo = world.core.step(events.ChildSpawned("etl", process.identity, 0, "etl:t1"), world.now)
    assert actions.SignalDaemon(process.identity, "SIGTERM", "etl:t1") in todo


def test_a_late_spawn_failure_is_none(world: World) -> None:
    """Only a record without a process can have failed to get one."""
    world.ready()
    world.tell(events.SpawnFailed("etl", "?"))
    world.tell(events.SpawnFailed("nobody", "?"))
    assert world.status("etl").state == "ready"


# --- links ----------------------------------------------------------------------------------------


def test_a_lost_link_is_not_a_lost_daemon(world: World) -> None:
    """It serves on, and phones home again."""
    process = world.ready()
    world.tell(events.LinkLost(process.link or 0))
    assert world.status("etl").state == "unlinked"
    assert isinstance(world.answer(world.ask(definition(token="t2"))), control.Started)
    world.hello(process, "ready")
    assert world.status("etl").state == "ready"
    assert world.published[-1] == ("adopted", "etl")


def test_a_link_lost_while_loading_keeps_the_deadline(world: World) -> None:
    """A daemon that neither links up again nor gets ready is ended all the same."""
    world.ask(definition(start_timeout=2.0))
    process = world.only_process()
    world.tell(events.LinkLost(world.hello(process)))
    assert world.record().state is State.UNLINKED
    world.hello(process, "loading")
    assert world.record().state is State.LOADING
    world.wait(2.1)
    assert world.record().state is State.STOPPING


def test_a_second_link_replaces_the_first(world: World) -> None:
    """The daemon has linked up anew before the old connection was seen to break."""
    process = world.ready()
    first = process.link or 0
    assert world.core.link_of("etl") == first
    second = world.hello(process, "ready")
    assert actions.CloseLink(first) in world.done
    world.tell(events.LinkLost(first))
    assert world.record().link == second


def test_the_same_hello_twice(world: World) -> None:
    """A daemon that repeats itself on one link keeps it."""
    process = world.ready()
    link = process.link or 0
    world.tell(
        events.DaemonHello(
            link, "etl", "t1", process.identity, PYTHON, "cpython 3.11.7", "ready", 1, 5
        )
    )
    assert actions.CloseLink(link) not in world.done
    assert world.record().life.clients == 1


@pytest.mark.parametrize("case", ["token", "identity", "state"])
def test_an_impostor_is_shown_the_door(world: World, case: str) -> None:
    """A hello must come from the process that was started, while it is thought to live."""
    process = world.ready(definition(restart="always"))
    before = process.link
    other = world.process(token="t1")
    if case == "token":
        other = process
        world.hello(other, token="t9")
    elif case == "identity":
        world.hello(other)
    else:
        world.exit(process, code=1)
        before = None
        assert world.record().state is State.WAITING
        world.hello(other)
    closed = [each for each in world.done_of(actions.CloseLink) if each.reason]
    assert len(closed) == 1
    assert world.record().link == before


@pytest.mark.parametrize("is_spawned", [True, False], ids=["spawned", "being forked"])
def test_a_process_of_the_same_request_is_taken_over(world: World, is_spawned: bool) -> None:
    """An earlier supervisor started it, and died before it wrote that down; the client has asked
    again. Its own process, which finds the place taken, goes."""
    older = world.process()
    if not is_spawned:
        world.forks_are_slow = True
    request = definition() if is_spawned else replace(definition(), preload=["json"])
    caller = world.start(request)
    own = [each for each in world.processes.values() if each is not older]
    world.hello(older)
    if not is_spawned:
        own = [world.process()]
        spawned = events.ChildSpawned("etl", own[0].identity, 0, request.mark, 1)
        world.tell(spawned)
    (process,) = own
    assert process.signals == ["SIGKILL"]
    watched = world.done.index(actions.WatchProcess("etl", older.identity))
    signalled = actions.SignalDaemon(process.identity, "SIGKILL", request.mark)
    assert watched < world.done.index(signalled)  # else it would be taken for the other's family
    world.exit(process, signal_name="SIGKILL")
    assert world.record().state is State.LOADING
    world.tell(events.DefinitionLoaded(older.link or 0))
    assert world.record().identity == older.identity
    started = world.answer(caller)
    assert isinstance(started, control.Started)
    assert started.pid == older.identity.pid


def test_what_came_out_of_a_start_is_not_taken_for_it(world: World) -> None:
    """An interpreter that starts a second one is no good."""
    world.start(definition())
    own = world.only_process()
    world.hello(world.process())
    (closed,) = [each for each in world.done_of(actions.CloseLink) if each.reason]
    assert "start a second one?" in closed.reason
    assert world.record().identity == own.identity


def test_a_hello_of_a_process_that_is_gone(world: World) -> None:
    """It closes its link by dying; nothing is made of it."""
    world.tell(events.DaemonHello(5, "x", "t", None, PYTHON, "", "ready", 0, 0))
    assert not world.core.fleet.records


def test_reports_on_an_unknown_link_mean_nothing(world: World) -> None:
    """A link whose daemon has just been closed may still speak."""
    world.ready()
    before = dict(world.core.fleet.records)
    for event in (
        events.LinkLost(99),
        events.DefinitionLoaded(99),
        events.DefinitionFailed(99, "x"),
        events.EndingAnnounced(99, "x"),
        events.ClientsChanged(99, 1),
        events.PongReceived(99, 0, 0, None),
        events.CallInterrupted(99, 1, done=True),
    ):
        assert world.tell(event) == []
    assert world.core.fleet.records == before


def test_a_daemon_that_is_ready_twice(world: World) -> None:
    """Ready is said once to watchers."""
    process = world.ready()
    world.tell(events.DefinitionLoaded(process.link or 0))
    assert world.published.count(("ready", "etl")) == 1


# --- endings --------------------------------------------------------------------------------------


def test_stop_escalates_step_by_step(world: World) -> None:
    """Asked, SIGTERM after 5 s, SIGKILL after 3 more; the snapshot comes before each first."""
    process = world.ready()
    link = process.link or 0
    caller = world.ask(control.StopDaemon("etl"))
    assert actions.SendStop(link, "stop requested") in world.done
    world.wait(4.9)
    assert process.signals == []
    world.wait(0.2)
    assert process.signals == ["SIGTERM"]
    world.wait(3.0)
    assert process.signals == ["SIGTERM", "SIGKILL"]
    order = [
        type(each)
        for each in world.done
        if isinstance(each, actions.SnapshotDescendants | actions.SendStop | actions.SignalDaemon)
    ]
    assert order[:2] == [actions.SnapshotDescendants, actions.SendStop]
    assert order[2:4] == [actions.SnapshotDescendants, actions.SignalDaemon]
    world.exit(process, signal_name="SIGKILL")
    done = world.answer(caller)
    assert isinstance(done, control.Done)
    assert done.detail == "daemon 'etl' ended by SIGKILL after 8.1 s"


def test_a_process_that_survives_sigkill(world: World) -> None:
    """The asker is told, the supervisor keeps at it, and the end is noticed when it comes."""
    process = world.ready()
    caller = world.ask(control.StopDaemon("etl"))
    world.wait(11.1)
    assert "does not end even on SIGKILL" in refusal(world.answer(caller)).message
    world.wait(30)
    assert process.signals.count("SIGKILL") > 2
    assert world.record().life.stage is Stage.SIGKILL_AGAIN
    world.exit(process, signal_name="SIGKILL")
    assert world.status("etl").state == "ended"


def without_process(world: World) -> Caller:
    """A daemon of which nobody has heard since it was to be spawned; who asked for it."""
    caller = Caller(b"client", 99)
    world.replies[caller] = []
    world.core.step(events.StartRequested(caller, definition(), PYTHON), world.now)
    return caller


def test_one_that_never_got_a_process_can_be_stopped(world: World) -> None:
    """There is nothing to send signals to: it is over at its deadline."""
    starter = without_process(world)
    caller = world.ask(control.StopDaemon("etl"))
    assert not world.is_answered(caller)
    world.wait(world.settings.term_grace_seconds)
    assert isinstance(world.answer(caller), control.Done)
    assert refusal(world.answer(starter)).error == "DaemonStartError"
    assert "etl" not in world.core.fleet.records


def test_one_that_never_got_a_process_can_be_restarted(world: World) -> None:
    """It gets one then."""
    without_process(world)
    caller = world.ask(control.RestartDaemon("etl"))
    world.wait(world.settings.term_grace_seconds)
    world.tell(events.DefinitionLoaded(world.hello(world.only_process())))
    assert isinstance(world.answer(caller), control.Started)


def test_two_who_stop_are_both_answered(world: World) -> None:
    """The second joins the ending that is under way."""
    process = world.ready()
    first, second = world.ask(control.StopDaemon("etl")), world.ask(control.StopDaemon("etl"))
    assert len(world.done_of(actions.SendStop)) == 2
    world.exit(process, code=0)
    assert isinstance(world.answer(first), control.Done)
    assert isinstance(world.answer(second), control.Done)


@pytest.mark.parametrize("is_named", [True, False])
def test_the_log_of_a_daemon_without_a_name_goes_with_it(world: World, is_named: bool) -> None:
    """When it ends as it should; one with a name can still be asked for."""
    process = world.ready(definition(is_named=is_named))
    world.tell(events.EndingAnnounced(process.link or 0, "its last client left"))
    world.exit(process, code=0)
    assert (actions.RemoveLog("etl") in world.done) is not is_named


def test_a_daemon_that_announces_its_end(world: World) -> None:
    """Idle, or ended by a client: it is not restarted, whatever the policy, and the reason kept."""
    process = world.ready(definition(restart="always"))
    world.tell(events.EndingAnnounced(process.link or 0, "its last client left"))
    assert world.status("etl").state == "stopping"
    world.exit(process, code=0)
    status = world.status("etl")
    assert status.state == "ended"
    assert status.reason == "its last client left; exited with code 0"
    assert journaled(world) is State.ENDED


def test_one_that_announces_its_end_and_stays_is_ended(world: World) -> None:
    """An atexit function that hangs has its grace, like after a stop."""
    process = world.ready()
    world.tell(events.EndingAnnounced(process.link or 0, "idle"))
    world.wait(5.1)
    assert process.signals == ["SIGTERM"]


def test_a_link_during_the_end_is_told_to_stop(world: World) -> None:
    """A daemon that was stopped while its link was down hears of it as soon as it links up."""
    process = world.ready()
    world.tell(events.LinkLost(process.link or 0))
    world.ask(control.StopDaemon("etl"))
    assert process.signals == ["SIGTERM"]
    link = world.hello(process, "ready")
    assert actions.SendStop(link, "stop requested") in world.done


def test_what_a_dead_daemon_left_is_swept(world: World) -> None:
    """The end is told only when its session is empty; SIGKILL follows SIGTERM."""
    process = world.ready()
    caller = world.ask(control.StopDaemon("etl"))
    world.sweep_leaves = 2
    world.exit(process, code=0)
    assert actions.SweepSession("etl", process.identity, "SIGTERM", "etl:t1") in world.done
    assert not world.is_answered(caller)
    assert world.record().state is State.SWEEPING
    late = world.ask(control.StopDaemon("etl"))
    world.wait(3.1)
    assert actions.SweepSession("etl", process.identity, "SIGKILL", "etl:t1") in world.done
    world.tell(events.SessionSwept("etl", process.identity, 0))
    assert isinstance(world.answer(caller), control.Done)
    assert isinstance(world.answer(late), control.Done)
    world.tell(events.SessionSwept("etl", process.identity, 0))


def test_what_cannot_be_swept_is_left(world: World) -> None:
    """Somebody's process in an uninterruptible wait does not keep a daemon from being over."""
    process = world.ready()
    caller = world.ask(control.StopDaemon("etl"))
    world.sweep_leaves = 1
    world.exit(process, code=0)
    world.wait(6.1)
    assert isinstance(world.answer(caller), control.Done)


def test_the_exit_of_another_process_means_nothing(world: World) -> None:
    """A report is about the process it names, not about whoever has that name now."""
    process = world.ready()
    for name in ("etl", "nobody"):
        world.tell(events.ProcessExited(name, Identity("boot", 1, 1), 0, None))
        world.tell(events.SessionSwept(name, process.identity, 0))
    assert world.status("etl").state == "ready"


def test_stopping_nobody(world: World) -> None:
    """The refusal names what runs, or how the one asked for has ended."""
    said = refusal(world.answer(world.ask(control.StopDaemon("nobody"))))
    assert (said.error, said.message) == (
        "DaemonNotFound",
        "no daemon 'nobody'; none runs at all",
    )
    process = world.ready()
    said = refusal(world.answer(world.ask(control.StopDaemon("nobody"))))
    assert said.message == "no daemon 'nobody'; these run: etl"
    world.exit(process, signal_name="SIGSEGV")
    said = refusal(world.answer(world.ask(control.StopDaemon("etl"))))
    assert "does not run: killed by SIGSEGV" in said.message
    assert "/logs/etl.log" in said.message


def test_the_call_that_ran_is_named(world: World) -> None:
    """A crash in a call says which call it was."""
    process = world.ready()
    world.pong(process.link, Busy("predict()", 4711, 2.0))
    world.exit(process, signal_name="SIGKILL")
    assert world.status("etl").reason == "killed by SIGKILL during call predict()"


def test_ended_daemons_are_forgotten_in_the_end(world: World) -> None:
    """The last fifty names are remembered, and only where they are asked for."""
    for number in range(ENDED_KEPT + 1):
        world.exit(world.ready(definition(f"d{number}")), code=0)
    assert "d0" not in world.core.fleet.ended
    assert world.status("d1").state == "ended"
    assert world.answer(world.ask(control.ListDaemons())) == control.Listing(())


# --- restarts -------------------------------------------------------------------------------------


def test_a_crash_is_followed_by_a_restart(world: World) -> None:
    """After the backoff, with its own definition; nobody needs to ask."""
    process = world.ready(definition(restart="on-failure"))
    world.exit(process, signal_name="SIGSEGV")
    assert world.status("etl").state == "waiting"
    world.wait(0.25)
    again = world.only_process()
    link = world.hello(again)
    assert actions.SendLoad(link, kept(definition(restart="on-failure"))) in world.done
    world.tell(events.DefinitionLoaded(link))
    status = world.status("etl")
    assert (status.state, status.restarts) == ("ready", 1)
    assert ("restarting", "etl") in world.published


def test_five_crashes_end_in_failed(world: World) -> None:
    """Given up, listed as failed, and kept in the journal; a start by hand begins anew."""
    process = world.ready(definition(restart="always"))
    for _ in range(4):
        world.exit(process, code=1)
        world.wait(3)
        process = world.only_process()
        world.hello(process, "ready")
    world.exit(process, code=1)
    listing = world.answer(world.ask(control.ListDaemons()))
    assert isinstance(listing, control.Listing)
    assert listing.daemons[0].state == "failed"
    assert "died 5 times" in listing.daemons[0].reason
    assert journaled(world) is State.FAILED
    world.wait(100)
    assert not world.processes
    caller = world.ask(control.RestartDaemon("etl"))
    world.tell(events.DefinitionLoaded(world.hello(world.only_process())))
    assert isinstance(world.answer(caller), control.Started)
    assert world.record().deaths == ()


def test_each_death_in_a_row_doubles_the_wait(world: World) -> None:
    """To the moment; a healthy stretch begins anew, and never gives up."""
    process = world.ready(definition(restart="always"))
    waits = []
    for healthy_seconds in (0, 0, 0, 30, 30, 30, 0):
        world.wait(healthy_seconds)
        world.exit(process, code=1)
        deadline = world.record().deadline
        assert deadline is not None
        waits.append(deadline - world.now)
        world.wait(waits[-1] - 0.01)
        assert not world.processes
        world.wait(0.01)
        process = world.only_process()
        world.hello(process, "ready")
    assert waits == pytest.approx([0.25, 0.5, 1.0, 0.25, 0.25, 0.25, 0.5])


def test_on_failure_leaves_an_end_without_one_alone(world: World) -> None:
    """Exit code 0 is no failure; `always` restarts that, too."""
    world.exit(world.ready(definition(restart="on-failure")), code=0)
    world.exit(world.ready(definition("web", restart="always")), code=0)
    world.wait(1)
    assert world.only_process().name == "web"


def test_a_failed_daemon_makes_room_for_another_definition(world: World) -> None:
    """It does not run, so that there is nothing to be in the way of."""
    process = world.ready(definition(restart="always"))
    for _ in range(4):
        world.exit(process, code=1)
        world.wait(3)
        process = world.only_process()
        world.hello(process, "ready")
    world.exit(process, code=1)
    caller = world.ask(definition(token="t2", digest="d2"))
    world.hello(world.only_process())
    assert isinstance(world.answer(caller), control.Started)


def test_a_failed_restart_counts_on(world: World) -> None:
    """A definition that raises in a restart by policy is tried again until given up."""
    world.exit(world.ready(definition(restart="on-failure")), code=1)
    for _ in range(4):
        world.wait(3)
        process = world.only_process()
        link = world.hello(process)
        world.tell(events.DefinitionFailed(link, "OSError: no network"))
        world.exit(process, code=0)
    status = world.status("etl")
    assert status.state == "failed"
    assert "its definition raised OSError: no network" in status.reason


def test_a_request_cuts_the_backoff_short(world: World) -> None:
    """Somebody wants it now; what did not run before the request is not `existing`."""
    world.exit(world.ready(definition(restart="always")), code=1)
    caller = world.ask(definition(token="t2", restart="always"))
    world.hello(world.only_process())
    started = world.answer(caller)
    assert isinstance(started, control.Started)
    assert not started.existing


def test_stopping_one_that_waits_for_its_restart(world: World) -> None:
    """It stays away."""
    world.exit(world.ready(definition(restart="always")), code=1)
    done = world.answer(world.ask(control.StopDaemon("etl")))
    assert isinstance(done, control.Done)
    assert "will not be restarted" in done.detail
    world.wait(60)
    assert not world.processes
    assert journaled(world) is State.ENDED


def test_restart_by_hand(world: World) -> None:
    """Stop, then start from its own definition; answered when the new one has it."""
    old = world.ready()
    caller = world.ask(control.RestartDaemon("etl"))
    world.exit(old, code=0)
    new = world.only_process()
    world.tell(events.DefinitionLoaded(world.hello(new)))
    started = world.answer(caller)
    assert isinstance(started, control.Started)
    assert started.pid == new.identity.pid


def test_restart_of_an_ended_daemon(world: World) -> None:
    """It is remembered with its definition."""
    world.exit(world.ready(), code=0)
    caller = world.ask(control.RestartDaemon("etl"))
    world.tell(events.DefinitionLoaded(world.hello(world.only_process())))
    assert isinstance(world.answer(caller), control.Started)


def test_a_restart_is_answered_when_the_definition_is_ready(world: World) -> None:
    """Who restarts does not attach, unlike who starts or looks for it."""
    world.exit(world.ready(), code=0)
    caller = world.ask(control.RestartDaemon("etl"))
    finder = world.ask(control.FindDaemon("etl"))
    link = world.hello(world.only_process())
    assert isinstance(world.answer(finder), control.Started)
    assert not world.is_answered(caller)
    world.tell(events.DefinitionLoaded(link))
    assert isinstance(world.answer(caller), control.Started)


def test_a_restart_whose_definition_raises_is_refused(world: World) -> None:
    """At once, with the traceback, although the daemon waits for clients to tell them."""
    world.exit(world.ready(), code=0)
    caller = world.ask(control.RestartDaemon("etl"))
    link = world.hello(world.only_process())
    world.tell(events.DefinitionFailed(link, "ValueError: x", "Trace"))
    said = refusal(world.answer(caller))
    assert (said.error, said.remote_traceback) == ("DaemonStartError", "Trace")
    assert said.message == "daemon 'etl' did not start: its definition raised ValueError: x"


def test_restart_of_nobody(world: World) -> None:
    """There is nothing to start it from."""
    caller = world.ask(control.RestartDaemon("nobody"))
    assert refusal(world.answer(caller)).error == "DaemonNotFound"
    assert world.core.link_of("nobody") is None


# --- listings and health --------------------------------------------------------------------------


def test_a_listing_waits_for_pongs(world: World) -> None:
    """What it shows is what the daemons say now."""
    first = world.ready(definition("a"))
    second = world.ready(definition("b"))
    caller = world.ask(control.ListDaemons())
    world.pong(first.link, Busy("fit()", 4711, 1.0))
    assert not world.is_answered(caller)
    world.pong(second.link)
    listing = world.answer(caller)
    assert isinstance(listing, control.Listing)
    busy, idle = listing.daemons
    assert (busy.name, busy.state, busy.busy_call, busy.busy_client_pid) == (
        "a",
        "busy",
        "fit()",
        4711,
    )
    assert (idle.name, idle.state, idle.clients, idle.calls) == ("b", "ready", 2, 7)


def test_a_daemon_without_clients_is_not_asked_again(world: World) -> None:
    """It has nothing new to say until one comes, which it tells by itself; unless it is asked for
    by its name."""
    process = world.ready()
    assert process.link is not None
    idle = events.PongReceived(process.link, clients=0, calls=7, busy=None)
    world.ask(control.ListDaemons())
    world.tell(idle)
    assert world.is_answered(world.ask(control.ListDaemons()))
    assert len(world.done_of(actions.PingDaemon)) == 1
    assert not world.is_answered(world.ask(control.ListDaemons("etl")))
    world.tell(idle)
    world.tell(events.ClientsChanged(process.link, 1))
    world.tell(events.ClientsChanged(process.link, 0))
    assert not world.is_answered(world.ask(control.ListDaemons()))


def test_a_silent_daemon_costs_a_quarter_of_a_second(world: World) -> None:
    """And the next listing, when it has been silent for a second, nothing."""
    world.ready()
    caller = world.ask(control.ListDaemons())
    world.wait(0.24)
    assert not world.is_answered(caller)
    world.wait(0.02)
    assert world.is_answered(caller)
    world.wait(1.0)
    assert world.is_answered(world.ask(control.ListDaemons()))


def test_a_listing_does_not_wait_for_a_link_that_broke(world: World) -> None:
    """Nobody will answer."""
    process = world.ready()
    caller = world.ask(control.ListDaemons())
    world.tell(events.LinkLost(process.link or 0))
    assert world.is_answered(caller)


def test_one_ping_at_a_time(world: World) -> None:
    """A daemon that does not read is not sent ping after ping."""
    world.ready()
    world.wait(60)
    assert len(world.done_of(actions.PingDaemon)) == 1
    status = world.status("etl")
    assert status.state == "unresponsive"
    assert status.reason == "has not answered for 55 s"


def test_health_is_looked_at_regularly(world: World) -> None:
    """Every five seconds while anything lives, with a ping and a look at the logs; afterwards only
    at the files of the supervisor's own."""
    process = world.ready()
    for _ in range(3):
        world.wait(5)
        world.pong(process.link)
    assert len(world.done_of(actions.PingDaemon)) == 3
    assert len(world.done_of(actions.SampleHealth)) == 3
    assert world.done_of(actions.RotateLogs) == [actions.RotateLogs(("etl",))] * 3
    world.exit(process, code=0)
    before = len(world.done)
    world.wait(60)
    assert world.done[before:] == [actions.LookAtFiles()] * 12


def test_samples_are_shown(world: World) -> None:
    """Memory and CPU, of processes that are still there."""
    process = world.ready()
    looks = {"etl": sample(cpu_percent=12.5), "nobody": sample()}
    world.tell(events.HealthSampled(looks))
    status = world.status("etl")
    assert (status.rss_bytes, status.cpu_percent) == (30_000_000, 12.5)
    world.exit(process, code=0)
    world.tell(events.HealthSampled(looks))
    assert world.status("etl").rss_bytes == 0


def test_a_log_that_grows_fast_is_looked_at_often(world: World) -> None:
    """As soon as it is over the limit again at this rate, though not all the time; once it grows
    slowly, at the regular looks only."""
    limit = world.settings.log_bytes
    world.ready()

    def looks() -> int:
        return len(world.done_of(actions.RotateLogs))

    world.wait(5)
    world.tell(events.LogsSeen({"etl": limit + 5 * limit}))
    assert looks() == 1
    world.wait(0.9)
    assert looks() == 1
    world.wait(0.1)
    assert looks() == 2
    world.tell(events.LogsSeen({"etl": 1000 * limit}))
    world.wait(0.09)
    assert looks() == 2
    world.wait(0.02)
    assert looks() == 3
    world.tell(events.LogsSeen({"etl": 1000}))
    world.wait(3.8)
    assert looks() == 3
    world.wait(0.2)
    assert looks() == 4


def test_the_age_of_a_log_is_no_growth(world: World) -> None:
    """One that was nearly full before its daemon began, and one that does not change."""
    world.ready()
    world.wait(5)
    for _ in range(2):
        world.tell(events.LogsSeen({"etl": world.settings.log_bytes - 1}))
        assert world.core.fleet.logs_due is None
    world.tell(events.LogsSeen({}))
    assert world.core.fleet.logs_due is None


def test_files_that_had_vanished_are_told_of(world: World) -> None:
    """Once where they cannot be made anew, and when they are."""
    for _ in range(2):
        world.tell(events.FilesLookedAt((), False, "no space left"))
    world.tell(events.FilesLookedAt(("link.sock",), False))
    assert world.published == [("files", "")] * 2
    assert [each.detail for each in world.done_of(actions.Publish)] == [  # type: ignore[attr-defined]
        "no space left",
        "had vanished, and are made anew: link.sock",
    ]


def test_a_journal_that_had_vanished_is_written_again(world: World) -> None:
    """Of daemons that have ended, too."""
    world.exit(world.ready(), code=1)
    world.ready(definition("other", "t2"))
    before = len(world.done_of(actions.WriteJournal))
    world.tell(events.FilesLookedAt((), False, has_lost_journal=True))
    written = world.done_of(actions.WriteJournal)[before:]
    assert [each.record.name for each in written] == ["etl", "other"]  # type: ignore[attr-defined]


def test_a_supervisor_in_whose_place_there_is_another_leaves(world: World) -> None:
    """It ends no daemon, and does nothing more."""
    process = world.ready()
    world.tell(events.FilesLookedAt((), True))
    assert isinstance(world.done[-1], actions.Exit)
    assert process.signals == []
    assert not world.done_of(actions.SendStop)


def test_what_is_seen_of_processes_that_have_ended_is_passed_over(world: World) -> None:
    """The look was under way when they did."""
    world.exit(world.ready(), code=0)
    world.tell(events.ProcessesSeen({"etl": "stopped", "nobody": "other"}))
    assert world.core.fleet.records == {}


def test_a_listing_within_a_second_looks_only_once(world: World) -> None:
    """Asked in a loop it stays cheap."""
    world.ready()
    world.ask(control.ListDaemons())
    world.tell(events.HealthSampled({"etl": sample()}))
    world.ask(control.ListDaemons())
    assert len(world.done_of(actions.SampleHealth)) == 1
    world.wait(1)
    world.ask(control.ListDaemons())
    assert len(world.done_of(actions.SampleHealth)) == 2


def test_client_counts_arrive_at_once(world: World) -> None:
    """A session that opens or closes is told by the daemon."""
    process = world.ready()
    world.tell(events.ClientsChanged(process.link or 0, 3))
    assert world.record().life.clients == 3


def test_listing_nobody(world: World) -> None:
    """An unknown name is refused, nobody at all is an empty list."""
    assert refusal(world.answer(world.ask(control.ListDaemons("x")))).error == "DaemonNotFound"
    assert world.answer(world.ask(control.ListDaemons())) == control.Listing(())


# --- interrupts -----------------------------------------------------------------------------------


def ask_interrupt(world: World) -> tuple[Caller, int]:
    caller = world.ask(control.InterruptDaemon("etl"))
    sent = world.done_of(actions.SendInterrupt)[-1]
    assert isinstance(sent, actions.SendInterrupt)
    return caller, sent.interrupt_id


@pytest.mark.parametrize(("done", "detail"), [(True, "the call was interrupted"), (False, "")])
def test_an_interrupt_is_answered_by_the_daemon(world: World, done: bool, detail: str) -> None:
    """It alone knows whether a call was running."""
    process = world.ready()
    caller, number = ask_interrupt(world)
    world.tell(events.CallInterrupted(process.link or 0, number, done))
    assert world.answer(caller) == control.Done(detail)
    world.tell(events.CallInterrupted(process.link or 0, number, done))  # once more means nothing


def test_another_daemon_cannot_answer(world: World) -> None:
    """Numbers are guessed easily."""
    world.ready()
    other = world.ready(definition("other"))
    caller, number = ask_interrupt(world)
    world.tell(events.CallInterrupted(other.link or 0, number, done=True))
    assert not world.is_answered(caller)


def test_an_interrupt_that_nobody_answers(world: World) -> None:
    """After 5 s it is said what that means."""
    world.ready()
    caller, _ = ask_interrupt(world)
    world.wait(4.9)
    later, _ = ask_interrupt(world)
    assert not world.is_answered(caller)
    world.wait(0.2)
    assert refusal(world.answer(caller)).error == "CallTimeout"
    assert not world.is_answered(later)


def test_an_interrupt_of_a_daemon_that_ends(world: World) -> None:
    """The asker is not left waiting, and neither is another daemon's."""
    process = world.ready()
    world.ready(definition("other"))
    caller, _ = ask_interrupt(world)
    other = world.ask(control.InterruptDaemon("other"))
    world.exit(process, code=0)
    assert refusal(world.answer(caller)).error == "DaemonDied"
    assert not world.is_answered(other)


def test_interrupting_nobody(world: World) -> None:
    """Unknown, and known but not in touch."""
    caller = world.ask(control.InterruptDaemon("etl"))
    assert refusal(world.answer(caller)).error == "DaemonNotFound"
    world.ask(definition())
    caller = world.ask(control.InterruptDaemon("etl"))
    assert "is starting" in refusal(world.answer(caller)).message


# --- clients --------------------------------------------------------------------------------------


def test_hello_says_who_this_is(world: World) -> None:
    """Version, pid, interpreter."""
    assert world.answer(world.ask(control.Hello("2"))) == control.Welcome("1", 1, "python", False)


def test_watchers_hear_of_everything_until_they_go(world: World) -> None:
    """From the acknowledgement on, to the one who asked."""
    watcher = world.ask(control.WatchEvents(), b"watcher")
    assert isinstance(world.answer(watcher), control.Done)
    world.ready()
    published = world.done_of(actions.Publish)
    assert all(each.watchers == (watcher,) for each in published)
    world.ask(control.UnwatchEvents(), b"watcher")
    assert not world.core.fleet.watchers
    world.ask(control.WatchEvents(), b"watcher")
    world.tell(events.ClientGone(b"watcher"))
    world.tell(events.ClientGone(b"unknown"))
    assert not world.core.fleet.watchers


def test_a_reply_is_no_request(world: World) -> None:
    """A client that sends one is told."""
    assert refusal(world.answer(world.ask(control.Done("?")))).error == "InvalidRequest"


# --- the end of the supervisor --------------------------------------------------------------------


def test_shutdown_ends_everything(world: World) -> None:
    """All at once, with a word for each, then `Done`, then the exit."""
    processes = [world.ready(definition(name)) for name in ("a", "b")]
    caller = world.ask(control.Shutdown())
    assert world.core.is_shutting_down
    assert len(world.done_of(actions.SendStop)) == 2
    world.exit(processes[0], code=0)
    assert [type(each) for each in world.replies[caller]] == [control.Progress]
    assert not world.done_of(actions.Exit)
    second = world.ask(control.Shutdown())
    world.exit(processes[1], code=0)
    assert isinstance(world.answer(caller), control.Done)
    assert isinstance(world.answer(second), control.Done)
    assert world.done_of(actions.Exit) == [actions.Exit("shutdown")]


def test_shutdown_of_nothing(world: World) -> None:
    """Done at once; a signal asks the same."""
    assert isinstance(world.answer(world.ask(control.Shutdown())), control.Done)
    assert world.done_of(actions.Exit)
    assert actions.Exit("shutdown") in World().tell(events.ShutdownSignalled())


def test_shutdown_ends_the_waiting_and_the_failed(world: World) -> None:
    """No restart follows, and no journal stays."""
    world.exit(world.ready(definition(restart="always")), code=1)
    caller = world.ask(control.Shutdown())
    assert isinstance(world.answer(caller), control.Done)
    assert journaled(world) is State.ENDED


def test_nothing_starts_during_shutdown(world: World) -> None:
    """New requests, and those that waited for an end, are refused."""
    process = world.ready()
    waiting = world.ask(definition(token="t2", if_exists="replace"))
    restart = world.ask(control.RestartDaemon("etl"))
    world.ask(control.Shutdown())
    late = world.ask(definition("late"))
    world.exit(process, code=0)
    for caller in (waiting, restart, late):
        assert refusal(world.answer(caller)).error == "SupervisorUnavailable"


def test_idle_exit(world: World) -> None:
    """With nothing to supervise and nobody asking for ten minutes it ends by itself."""
    world.wait(300)
    world.ask(control.Hello("1"))
    world.wait(599)
    assert not world.done_of(actions.Exit)
    world.wait(2)
    assert world.done_of(actions.Exit)
    assert world.core.next_deadline() is None


def test_what_is_looked_up_for_somebody_is_no_idleness(world: World) -> None:
    """The time begins anew, as with a request."""
    world.wait(300)
    world.core.touch(world.now)
    world.wait(599)
    assert not world.done_of(actions.Exit)


@pytest.mark.parametrize("reason", ["service", "daemon", "waiting", "watcher"])
def test_no_idle_exit(reason: str) -> None:
    """A service stays; so does one that somebody needs."""
    world = World(service=reason == "service", settings=Settings(backoff_base_seconds=1e6))
    if reason == "daemon":
        world.ready()
    if reason == "waiting":
        world = World(settings=Settings(backoff_base_seconds=1e6, backoff_cap_seconds=1e6))
        world.exit(world.ready(definition(restart="always")), code=1)
    if reason == "watcher":
        world.ask(control.WatchEvents())
    world.wait(3600)
    assert not world.done_of(actions.Exit)


# --- what a process does --------------------------------------------------------------------------


def test_a_stopped_daemon_is_listed_at_once(world: World) -> None:
    """As stopped, and its pong is not waited for; who has ended meanwhile is none of it."""
    world.ready()
    world.states = {"etl": "stopped", "gone": "other"}
    caller = world.ask(control.ListDaemons("etl"))
    listing = world.answer(caller)
    assert isinstance(listing, control.Listing)
    assert listing.daemons[0].state == "stopped"


def test_what_is_seen_of_one_that_has_gone_is_not_kept(world: World) -> None:
    """It ended between the look and the report, or has no process any more."""
    world.exit(world.ready(definition(restart="always")), code=1)
    before = world.record()
    world.tell(events.ProcessesSeen({"etl": "stopped", "nobody": "stopped"}))
    assert world.record() == before


def test_an_uninterruptible_wait_is_shown_when_it_lasts(world: World) -> None:
    """Not for a moment of reading a disk; and no longer when it is over."""
    world.ready()
    world.states = {"etl": "uninterruptible"}
    assert world.status("etl").state == "ready"
    world.wait(1.0)
    assert world.status("etl").state == "uninterruptible"
    world.states = {"etl": "other"}
    assert world.status("etl").state == "ready"


# --- why ------------------------------------------------------------------------------------------


def explained(world: World, name: str = "etl") -> control.Explanation:
    caller = world.ask(control.ExplainDaemon(name))
    world.wait(0.25)
    explanation = world.answer(caller)
    assert isinstance(explanation, control.Explanation), explanation
    return explanation


def test_every_state_is_explained(world: World) -> None:
    """In a sentence that has what is known of it."""
    world.start(definition(restart="always"))
    process = world.only_process()
    assert "has been coming up for 0.0 s; it has 60 s" in explained(world).why
    link = world.hello(process)
    assert "its definition has been running for" in explained(world).why
    world.tell(events.DefinitionLoaded(link))
    world.pong(link)
    assert "2 clients are attached" in explained(world).why
    assert explained(world).endings == ()
    caller = world.ask(control.ExplainDaemon("etl"))
    world.pong(link, Busy("fit()", 4711, 5.0))
    explanation = world.answer(caller)
    assert isinstance(explanation, control.Explanation)
    assert explanation.why == (
        "it has been running fit() for 5.0 s, called by the client with pid 4711"
    )
    for state, word in (("stopped", "SIGCONT"), ("zombie", "main thread has ended")):
        world.states = {"etl": state}
        assert word in explained(world).why
    world.states = {"etl": "uninterruptible"}
    explained(world)
    world.wait(1.0)
    assert "no signal ends" in explained(world).why
    world.states = {"etl": "other"}
    world.pong(link, Busy("its definition", None, 5.0))
    assert "its definition for" in explained(world).why
    world.tell(events.LinkLost(link))
    assert "tries again" in explained(world).why
    world.exit(process, signal_name="SIGSEGV")
    explanation = explained(world)
    assert "started again in 0.2 s, after 1 death: killed by SIGSEGV" in explanation.why
    assert [each.how for each in explanation.endings] == [
        "killed by SIGSEGV during call its definition"
    ]


def test_silence_is_explained(world: World) -> None:
    """By a lock that C code keeps, which computes or not."""
    process = world.ready()
    world.pong(process.link)
    world.wait(40)
    assert "spawny stacks etl has more" in explained(world).why
    world.tell(events.HealthSampled({"etl": sample(cpu_percent=99.0)}))
    assert "computes and answers nothing" in explained(world).why


def test_an_end_is_explained_with_who_asked(world: World) -> None:
    """While it lasts, and after it."""
    process = world.ready(replace(definition(), idle_timeout=60.0))
    assert "ends after 60 s without one" in explained(world).why
    world.ask(control.StopDaemon("etl", "enough", asked_by="pid 5 (python x.py)"))
    assert explained(world).why == "it is being ended (asked): enough"
    world.wait(5.1)
    assert "(SIGTERM)" in explained(world).why
    world.sweep_leaves = 1
    world.exit(process, code=1)
    assert "(what it left is)" in explained(world).why
    world.tell(events.SessionSwept("etl", process.identity, 0))
    explanation = explained(world)
    (ending,) = explanation.endings
    assert (ending.how, ending.asked_by) == ("enough; exited with code 1", "pid 5 (python x.py)")
    assert explanation.why == "enough; spawny restart etl starts it again"


def test_an_end_for_want_of_memory_is_explained(world: World) -> None:
    """Unless the SIGKILL was ours."""
    process = world.ready()
    del world.processes[process.identity]
    world.tell(events.ProcessExited("etl", process.identity, None, "SIGKILL", True))
    assert "most likely by the system for want of memory" in explained(world).endings[0].how
    process = world.ready(definition(token="t2"))
    world.ask(control.StopDaemon("etl"))
    world.wait(9)
    del world.processes[process.identity]
    world.tell(events.ProcessExited("etl", process.identity, None, "SIGKILL", True))
    first, second = explained(world).endings
    assert not first.is_out_of_memory
    assert second.is_out_of_memory


def test_a_start_that_failed_is_explained(world: World) -> None:
    """It had no process; what could not be explained is refused."""
    world.spawn_problem = "no such file"
    world.start(definition())
    (ending,) = explained(world).endings
    assert (ending.how, ending.pid) == ("no such file", None)
    assert refusal(world.answer(world.ask(control.ExplainDaemon("x")))).error == "DaemonNotFound"
    world.spawn_problem = None
    world.ready()
    late = world.ask(control.ExplainDaemon("etl"))
    del world.core.fleet.records["etl"]  # forgotten, with many others that have ended since
    world.tell(events.DeadlineReached())
    world.wait(0.25)
    assert refusal(world.answer(late)).error == "DaemonNotFound"


def test_one_that_is_given_up_is_explained(world: World) -> None:
    """With the count of its deaths."""
    world.tell(journal(world, state="failed", lives=False))
    assert explained(world).why == "died before; spawny restart etl starts it again"


def test_stacks_are_told(world: World) -> None:
    """Those of the daemon that was asked."""
    process = world.ready()
    other = world.ready(definition("other", token="t2"))
    caller = world.ask(control.DumpStacks("etl"))
    (sent,) = world.done_of(actions.SendStacks)
    assert isinstance(sent, actions.SendStacks)
    world.tell(events.StacksDumped(other.link or 0, sent.dump_id, "another's"))
    world.tell(events.StacksDumped(process.link or 0, sent.dump_id, "in fit"))
    world.tell(events.StacksDumped(process.link or 0, sent.dump_id, "again"))
    assert world.answer(caller) == control.Stacks("in fit")


def test_stacks_of_one_that_does_not_answer(world: World) -> None:
    """After 3 s the system is asked; at once where there is no link; of none that has gone."""
    process = world.ready()
    caller = world.ask(control.DumpStacks("etl"))
    world.tell(events.DeadlineReached())
    assert not world.done_of(actions.DescribeThreads)
    world.wait(3)
    (described,) = world.done_of(actions.DescribeThreads)
    assert isinstance(described, actions.DescribeThreads)
    assert (described.caller, described.identity) == (caller, process.identity)
    assert "has not answered within 3 s" in described.problem
    late = world.ask(control.DumpStacks("etl"))
    world.tell(events.LinkLost(process.link or 0))
    world.ask(control.DumpStacks("etl"))
    described = world.done_of(actions.DescribeThreads)[-1]
    assert isinstance(described, actions.DescribeThreads)
    assert "is unlinked" in described.problem
    world.exit(process, code=1)
    world.wait(3)
    assert refusal(world.answer(late)).error == "DaemonNotFound"
    assert refusal(world.answer(world.ask(control.DumpStacks("etl")))).error == "DaemonNotFound"


def test_a_journal_that_cannot_be_written_is_told_once(world: World) -> None:
    """It is tried again at each look, also when nothing runs, and then that is told."""
    world.ready()
    for _ in range(2):
        world.tell(events.JournalTried("etl", "disk full"))
    world.tell(events.JournalTried("etl", None))
    assert world.published.count(("journal", "etl")) == 1
    world.wait(5)
    assert world.done_of(actions.RetryJournal)
    world.tell(events.JournalTried("", None))
    world.tell(events.JournalTried("", None))
    assert world.published.count(("journal", "")) == 1


def test_a_definition_that_cannot_be_read(world: World) -> None:
    """The daemon is ended, and says why; one that has gone is not."""
    world.start(definition())
    link = world.hello(world.only_process())
    world.tell(events.DefinitionLost(link, "no such file"))
    world.tell(events.DefinitionLost(99, "no such file"))
    assert "its definition is lost (no such file)" in world.status("etl").reason


def test_one_that_ended_before_is_remembered(world: World) -> None:
    """How it ended, as the journal has it."""
    world.tell(journal(world, state="ended", lives=False))
    assert world.status("etl").state == "ended"
    last = Ending(900.0, 800.0, 7, "", 3, None, False, "", 0)
    ended = replace(journal(world, definition("b"), "ended", lives=False), endings=(last,))
    world.tell(ended)
    assert explained(world, "b").endings[0].how == "exited with code 3"
    assert world.status("b").exit_code == 3


# --- what an earlier supervisor left --------------------------------------------------------------


def journal(
    world: World,
    request: control.StartDaemon | None = None,
    state: str = "running",
    *,
    lives: bool = True,
    crashed: bool = False,
) -> events.JournalRead:
    return events.JournalRead(
        kept(request or definition()),
        PYTHON,
        state,
        restarts=3,
        reason="died before",
        identity=world.process().identity if lives else None,
        age_seconds=50.0,
        crashed=crashed,
    )


def test_a_living_daemon_is_adopted(world: World) -> None:
    """By its journal first, by its link then; its age and its count of restarts are kept."""
    world.tell(journal(world))
    process = world.only_process()
    assert actions.WatchProcess("etl", process.identity) in world.done
    assert world.record().state is State.UNLINKED
    world.hello(process, "ready")
    status = world.status("etl")
    assert (status.state, status.restarts, status.reason) == ("ready", 3, "")
    assert status.uptime_seconds == pytest.approx(50, abs=1)
    assert world.published == [("adopted", "etl")]
    assert not world.done_of(actions.SpawnChild)


def test_a_listing_waits_for_a_daemon_that_is_being_adopted(world: World) -> None:
    """It is pinged as soon as it has linked up."""
    world.tell(journal(world))
    caller = world.ask(control.ListDaemons())
    assert not world.is_answered(caller)
    process = world.only_process()
    world.hello(process, "ready")
    assert world.done_of(actions.PingDaemon)
    world.pong(process.link)
    listing = world.answer(caller)
    assert isinstance(listing, control.Listing)
    assert [(each.name, each.calls) for each in listing.daemons] == [("etl", 7)]


def test_an_adopted_daemon_that_never_got_its_definition(world: World) -> None:
    """The supervisor died between spawn and load; the next one sends it."""
    world.tell(journal(world))
    caller = world.ask(definition())
    assert not world.is_answered(caller)
    link = world.hello(world.only_process())
    assert actions.SendLoad(link, kept(definition())) in world.done
    started = world.answer(caller)
    assert isinstance(started, control.Started)
    assert not started.existing


def test_an_adopted_daemon_that_does_not_phone_home(world: World) -> None:
    """It lives: after 5 s whoever asks for it may try its call socket."""
    world.tell(journal(world))
    caller = world.ask(definition(token="t2"))
    world.wait(5.1)
    assert isinstance(world.answer(caller), control.Started)
    assert world.status("etl").state == "unlinked"
    assert isinstance(world.answer(world.ask(definition(token="t3"))), control.Started)


def test_an_adopted_daemon_whose_definition_had_raised(world: World) -> None:
    """It is ending; that it failed is known from its hello."""
    world.tell(journal(world))
    process = world.only_process()
    world.hello(process, "failed")
    assert world.record().state is State.STOPPING
    world.exit(process, code=None)
    assert world.status("etl").reason == "its definition raised"


@pytest.mark.parametrize(
    ("state", "crashed", "restart", "expected"),
    [
        ("running", True, "on-failure", "waiting"),
        ("running", True, "never", "ended"),
        ("running", False, "always", "ended"),
        ("failed", False, "always", "failed"),
    ],
)
def test_a_daemon_that_died_meanwhile(
    world: World, state: str, crashed: bool, restart: control.Restart, expected: str
) -> None:
    """A crash falls under its policy; one that ended as it should stays away."""
    world.tell(journal(world, definition(restart=restart), state, lives=False, crashed=crashed))
    assert world.core.fleet.find("etl").state.value == expected


def test_what_a_daemon_left_that_died_meanwhile_is_swept(world: World) -> None:
    """Before it is started anew."""
    left = world.process().identity
    world.sweep_leaves = 1
    died = replace(journal(world, definition(restart="always"), lives=False), crashed=True)
    world.tell(replace(died, left=left))
    assert actions.SweepSession("etl", left, "SIGTERM", "etl:t1") in world.done
    assert world.record().state is State.SWEEPING
    world.tell(events.SessionSwept("etl", left, 0))
    assert world.record().state is State.WAITING


def test_a_daemon_that_waited_for_its_restart(world: World) -> None:
    """It is started now: the backoff has run while no supervisor did."""
    world.tell(journal(world, definition(restart="always"), "waiting", lives=False))
    world.wait(0)
    assert world.only_process().name == "etl"


def test_a_daemon_without_a_journal_is_adopted(world: World) -> None:
    """It serves and can be listed and stopped; only started again it cannot be."""
    process = world.process("orphan")
    world.hello(process, "ready")
    assert actions.WatchProcess("orphan", process.identity) in world.done
    status = world.status("orphan")
    assert (status.state, status.restart) == ("ready", "never")
    assert "journal is lost" in status.summary
    caller = world.ask(control.RestartDaemon("orphan"))
    assert "cannot be restarted" in refusal(world.answer(caller)).message
    said = refusal(world.answer(world.ask(definition("orphan", token="t2"))))
    assert said.error == "DaemonExists"


def test_a_daemon_without_a_journal_that_wants_its_definition(world: World) -> None:
    """Nobody has it any more."""
    process = world.process("orphan")
    link = world.hello(process, "new")
    assert actions.SendStop(link, "its definition is lost") in world.done
    assert not world.done_of(actions.SendLoad)


# --- what watchers are told -----------------------------------------------------------------------


def test_an_end_that_nobody_asked_for_is_told_as_such(world: World) -> None:
    """Then what follows from it; one that was asked for is no death."""
    world.exit(world.ready(), 3)
    assert [kind for kind, _ in world.published] == ["started", "ready", "died", "ended"]
    died = [each for each in world.done_of(actions.Publish) if each.kind == "died"]  # type: ignore[attr-defined]
    assert [(each.detail, each.pid) for each in died] == [("exited with code 3", 101)]  # type: ignore[attr-defined]
    world.published.clear()
    process = world.ready(definition(token="t2"))
    world.ask(control.StopDaemon("etl"))
    world.exit(process, 0)
    assert [kind for kind, _ in world.published] == ["started", "ready", "stopping", "ended"]


def test_a_pong_brings_the_figures_of_calls(world: World) -> None:
    """A status has them as percentiles."""
    process = world.ready()
    figures = CallFigures(4, ((-39, 90), (1, 10)))
    assert process.link is not None
    world.tell(events.PongReceived(process.link, 1, 100, None, figures))
    status = world.status("etl")
    assert (status.calls, status.calls_failed) == (100, 4)
    assert (status.call_p50_seconds, status.call_p99_seconds) == (
        figures.seconds_of(0.5),
        figures.seconds_of(0.99),
    )
