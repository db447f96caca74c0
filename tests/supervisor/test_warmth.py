"""Which zygotes are started, used and ended."""

from dataclasses import replace

import pytest

from spawny import control
from spawny.settings import Settings
from spawny.supervisor import actions, events, warmth
from spawny.supervisor.values import Identity
from tests.supervisor.world import OTHER_PYTHON, PYTHON, Process, World, definition

SETTINGS = Settings(zygotes_keep_seconds=100, zygotes_most=2)


@pytest.fixture
def world() -> World:
    return World(settings=SETTINGS)


def numpy(name: str = "etl", **changes: object) -> control.StartDaemon:
    return plain(name, **{"preload": ["numpy"], **changes})


def plain(name: str = "etl", **changes: object) -> control.StartDaemon:
    return replace(definition(name, token=name), **changes)  # type: ignore[arg-type]


def started(world: World, request: control.StartDaemon) -> Process:
    """The process of a daemon that serves."""
    return world.ready(request)


def is_forked(world: World, name: str = "etl") -> bool:
    return world.record(name).life.zygote != 0


def listed(world: World) -> list[control.ZygoteStatus]:
    world.ask(control.ListZygotes())
    action = world.done_of(actions.ListZygotes)[-1]
    assert isinstance(action, actions.ListZygotes)
    return [*action.zygotes.values(), *action.unfit]


# --- starting -------------------------------------------------------------------------------------


def test_the_first_daemon_with_a_preload_is_forked(world: World) -> None:
    """Its zygote is started for it, and used by the next."""
    started(world, numpy("a"))
    started(world, numpy("b"))
    assert is_forked(world, "a")
    assert is_forked(world, "b")
    assert len(world.done_of(actions.StartZygote)) == 1
    assert not world.done_of(actions.SpawnChild)
    (found,) = listed(world)
    assert (found.state, found.pid, found.forks, found.daemons) == ("ready", 7, 2, 2)
    assert (found.python, found.preload) == (PYTHON.executable, ["numpy"])


def test_the_start_of_a_forked_daemon_is_answered_at_once(world: World) -> None:
    """Its socket is there before it; whoever restarts it waits until it is ready."""
    caller = world.ask(numpy("a"))
    process = world.only_process()
    assert isinstance(world.answer(caller), control.Started)
    assert world.record("a").state == "starting"
    world.tell(events.DefinitionLoaded(world.hello(process)))
    caller = world.ask(control.RestartDaemon("a"))
    world.exit(process, 0)
    assert is_forked(world, "a")
    world.hello(world.only_process())
    assert not world.is_answered(caller)


def test_without_a_preload_the_third_of_a_kind_is_forked(world: World) -> None:
    """The second start shows that there is use for a zygote; nobody waits for that."""
    for name in ("a", "b", "c"):
        started(world, plain(name))
    assert [is_forked(world, name) for name in ("a", "b", "c")] == [False, False, True]


def test_starts_that_are_far_apart_make_no_zygote(world: World) -> None:
    """One every few minutes need not be fast."""
    for name in ("a", "b", "c"):
        started(world, plain(name))
        world.wait(warmth.OFTEN_SECONDS + 1)
    assert not world.done_of(actions.StartZygote)


def test_of_many_kinds_the_oldest_are_forgotten(world: World) -> None:
    """However many environments there are."""
    for number in range(warmth.KINDS_KEPT + 1):
        started(world, plain(f"d{number}", environ={"N": str(number)}))
    assert len(world.core.fleet.plain_starts) == warmth.KINDS_KEPT


def test_a_zygote_that_is_not_ready_is_waited_for_only_with_a_preload(world: World) -> None:
    """To import nothing a new interpreter is as quick."""
    world.zygotes_start_slowly = True
    for name in ("a", "b", "c"):
        started(world, plain(name))
    assert len(world.done_of(actions.StartZygote)) == 1
    assert not world.done_of(actions.ForkDaemon)
    world.ask(numpy("d"))
    assert len(world.done_of(actions.ForkDaemon)) == 1
    assert "starting" in {each.state for each in listed(world)}


# --- kinds ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "is_same"),
    [
        ({"environ": {"TERM": "xterm", "SSH_TTY": "/dev/pts/1", "PWD": "/home"}}, True),
        ({"cwd": "/tmp"}, True),
        ({"environ": {"LANG": "C"}}, False),
        ({"preload": ["pandas"]}, False),
        ({"sys_path": ["/home/me"]}, False),
        ({"kernel": "/elsewhere/boot.py"}, False),
        ({"caller_python": "/other/python"}, False),
    ],
)
def test_what_makes_another_zygote(changes: dict[str, object], is_same: bool) -> None:
    """Whatever an import may depend on; but no terminal, session or directory."""
    one = warmth.kind_of(numpy(), PYTHON)
    other = warmth.kind_of(numpy("b", **changes), PYTHON)
    assert (one == other) == is_same
    assert warmth.kind_of(numpy(), OTHER_PYTHON) != one


def test_a_relative_pythonpath_makes_the_directory_count() -> None:
    """The interpreter makes it absolute when it starts."""
    for path, is_same in (("/lib", True), ("lib", False), ("/lib:", False), ("", True)):
        one = warmth.kind_of(plain(environ={"PYTHONPATH": path}, cwd="/a"), PYTHON)
        other = warmth.kind_of(plain(environ={"PYTHONPATH": path}, cwd="/b"), PYTHON)
        assert (one == other) == is_same


def test_source_directories_count_only_for_what_is_preloaded() -> None:
    """A bare zygote imports nothing of anybody's."""
    assert warmth.kind_of(plain(sys_path=["/a"]), PYTHON) == warmth.kind_of(plain(), PYTHON)


# --- what cannot be forked ------------------------------------------------------------------------


def test_what_cannot_be_forked_is_started_plainly(world: World) -> None:
    """The reason is announced, listed and remembered for a while."""
    world.zygotes_work = False
    started(world, numpy("a"))
    started(world, numpy("b"))
    assert not is_forked(world, "a")
    assert len(world.done_of(actions.StartZygote)) == 1
    assert ("zygote", "") in world.published
    assert [(each.state, each.reason) for each in listed(world)] == [("unfit", "threads run")]
    world.wait(SETTINGS.zygotes_keep_seconds + SETTINGS.health_interval_seconds)
    assert listed(world) == []
    assert not world.core.fleet.unfit
    started(world, numpy("c"))
    assert len(world.done_of(actions.StartZygote)) == 2


def test_a_zygote_that_died_is_missed_for_some_seconds(world: World) -> None:
    """Then another is tried."""
    started(world, numpy("a"))
    world.lose_zygote(1)
    started(world, numpy("b"))
    assert not is_forked(world, "b")
    world.wait(warmth.FAILED_SECONDS)
    started(world, numpy("c"))
    assert is_forked(world, "c")


def test_of_many_unfit_kinds_the_oldest_are_forgotten(world: World) -> None:
    """However many there are."""
    world.zygotes_work = False
    for number in range(warmth.KINDS_KEPT + 1):
        started(world, numpy(f"d{number}", environ={"N": str(number)}))
    assert len(world.core.fleet.unfit) == warmth.KINDS_KEPT


def test_a_stale_zygote_makes_way_for_a_new_one(world: World) -> None:
    """What it was asked for is started plainly."""
    started(world, numpy("a"))
    world.zygotes_are_stale = True
    started(world, numpy("b"))
    world.zygotes_are_stale = False
    started(world, numpy("c"))
    assert [is_forked(world, name) for name in ("a", "b", "c")] == [True, False, True]
    assert actions.EndZygote(1) in world.done
    assert len(world.done_of(actions.StartZygote)) == 2


@pytest.mark.parametrize(
    ("signal_name", "seconds", "is_blamed"),
    [("SIGSEGV", 1, True), ("SIGKILL", 1, False), (None, 1, False), ("SIGSEGV", 60, False)],
)
def test_a_crash_soon_after_the_fork_is_blamed_on_it(
    world: World, signal_name: str | None, seconds: float, is_blamed: bool
) -> None:
    """The next daemon of that kind is started plainly, the zygote ends."""
    process = started(world, numpy("a"))
    world.wait(seconds)
    world.exit(process, None if signal_name else 1, signal_name)
    started(world, numpy("b"))
    assert is_forked(world, "b") != is_blamed
    assert (actions.EndZygote(1) in world.done) == is_blamed


def test_a_crash_is_blamed_on_a_fork_whose_zygote_is_gone(world: World) -> None:
    """The next zygote of the kind would be no better."""
    process = started(world, numpy("a"))
    world.lose_zygote(1)
    world.exit(process, None, "SIGSEGV")
    assert "was killed by SIGSEGV" in listed(world)[0].reason


def test_a_crash_of_an_executed_daemon_is_nobodys_fault(world: World) -> None:
    """Nothing is known against forking that kind."""
    world.exit(started(world, plain("a")), None, "SIGSEGV")
    assert listed(world) == []


def test_one_that_is_not_ready_in_time_is_blamed_on_the_fork(world: World) -> None:
    """A library that does not survive a fork may as well hang."""
    world.ask(numpy("a", start_timeout=5.0))
    world.wait(5)
    assert "was not ready in time" in listed(world)[0].reason


# --- forks that come to nothing -------------------------------------------------------------------


def test_a_refused_fork_of_what_was_stopped_meanwhile_ends_it(world: World) -> None:
    """There is nothing to wait for."""
    world.forks_are_slow = True
    world.ask(numpy("a"))
    stopper = world.ask(control.StopDaemon("a"))
    world.tell(events.ForkRefused("a", 1, "no memory"))
    assert isinstance(world.answer(stopper), control.Done)
    assert "a" not in world.core.fleet.records


def test_a_late_refusal_means_nothing(world: World) -> None:
    """The daemon is known, or was started in another way."""
    started(world, numpy("a"))
    world.tell(events.ForkRefused("a", 1, "late"))
    world.tell(events.ForkRefused("unknown", 1, "late"))
    world.forks_are_slow = True
    world.ask(numpy("b"))
    world.tell(events.ForkRefused("b", 99, "of another"))
    assert not world.done_of(actions.SpawnChild)


def test_late_words_of_a_zygote_mean_nothing(world: World) -> None:
    """It was ended before they came."""
    for event in (events.ZygoteReady(9, 7, 0.1), events.ZygoteGone(9, "x")):
        world.tell(event)
    identity = Identity("boot", 1, 1)
    world.tell(events.ChildSpawned("unknown", identity, 0, "mark", 9))
    assert listed(world) == []


# --- ending ---------------------------------------------------------------------------------------


def test_a_zygote_is_kept_while_daemons_of_it_run_and_for_a_while(world: World) -> None:
    """Then it is ended."""
    process = started(world, numpy("a"))
    world.wait(500)
    assert listed(world)[0].idle_seconds == 0
    world.exit(process, 0)
    world.wait(90)
    assert listed(world)[0].idle_seconds == pytest.approx(90, abs=6)
    world.wait(20)
    assert listed(world) == []
    assert actions.EndZygote(1) in world.done


def test_beyond_the_limit_the_longest_unused_goes(world: World) -> None:
    """However many kinds there are."""
    for number in range(3):
        world.wait(1)
        started(world, numpy(f"d{number}", environ={"N": str(number)}))
    assert world.done_of(actions.EndZygote) == [actions.EndZygote(1)]
    assert len(listed(world)) == 2


def test_none_is_started_while_memory_is_short(world: World) -> None:
    """Its reserve is for daemons; and where not even one of them fits, zygotes go."""
    started(world, numpy("a"))
    world.free_bytes = 2 * SETTINGS.memory_reserve_bytes - 1
    started(world, numpy("b", environ={"N": "1"}))
    assert not is_forked(world, "b")
    world.free_bytes = 0
    world.ask(numpy("c"))
    assert actions.EndZygote(1) in world.done


def test_they_can_be_switched_off(world: World) -> None:
    """By the configuration; a reload ends them."""
    for number in range(2):
        started(world, numpy(f"d{number}", environ={"N": str(number)}))
    assert world.reload(settings=replace(SETTINGS, zygotes_most=1)) == ["[zygotes] most: 2 -> 1"]
    assert world.done_of(actions.EndZygote) == [actions.EndZygote(1)]
    world.reload(settings=replace(SETTINGS, zygotes_enabled=False))
    started(world, numpy("x"))
    assert not is_forked(world, "x")
    assert listed(world) == []


def test_none_outlives_a_shutdown(world: World) -> None:
    """They go at its beginning, and none comes."""
    process = started(world, numpy("a"))
    world.ask(control.Shutdown())
    assert actions.EndZygote(1) in world.done
    world.exit(process, 0)
    assert len(world.done_of(actions.StartZygote)) == 1


def test_an_upgrade_ends_them_and_waits_for_what_they_fork(world: World) -> None:
    """A fork whose process is not known yet would be lost."""
    world.forks_are_slow = True
    world.ask(numpy("a"))
    world.ask(control.Upgrade("python"))
    world.tell(events.SuccessorChecked("9", ""))
    assert actions.EndZygote(1) in world.done
    world.wait(1.5)
    assert not world.done_of(actions.HandOver)
    process = world.process("a", "a")
    world.tell(events.ChildSpawned("a", process.identity, 0, "a:a", 1))
    world.wait(1.5)
    assert world.done_of(actions.HandOver)


def test_why_tells_where_a_daemon_came_from(world: World) -> None:
    """Of one that was forked."""
    started(world, numpy("a"))
    caller = world.ask(control.ExplainDaemon("a"))
    world.wait(1)
    answer = world.answer(caller)
    assert isinstance(answer, control.Explanation)
    assert answer.why.endswith("; it was forked from a zygote")
