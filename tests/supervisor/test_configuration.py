"""What is decided about a configuration and its changes."""

from dataclasses import replace

import pytest

from spawny import control
from spawny.settings import Settings
from spawny.supervisor import actions, events
from spawny.supervisor.lifecycle import State
from tests.supervisor.test_upgrade import draining, handovers
from tests.supervisor.world import PYTHON, World, definition, refusal


@pytest.fixture
def world() -> World:
    return World()


def declared(
    name: str = "web", digest: str = "d1", *, autostart: bool = False, **keys: object
) -> events.Declared:
    request = definition(name, token=f"token-{digest}", digest=digest)
    keys = {"script": "web.py", "autostart": autostart, **keys}
    return events.Declared(request, PYTHON, "", autostart, keys)


def lost(each: events.Declared) -> events.Declared:
    """Its interpreter is not there."""
    return replace(each, interpreter=None, problem="no python 2.7")


def up(world: World) -> None:
    """The only process gets ready."""
    world.tell(events.DefinitionLoaded(world.hello(world.only_process())))


# --- the start ------------------------------------------------------------------------------------


def test_what_is_to_start_with_the_supervisor_starts(world: World) -> None:
    """Others wait until they are wanted."""
    world.configure(declared("web", autostart=True), declared("idle"))
    assert [each.name for each in world.processes.values()] == ["web"]


def test_what_runs_already_is_left_alone(world: World) -> None:
    """It was taken up from the journal, say."""
    world.ready(definition("web"))
    world.configure(declared("web", autostart=True))
    assert len(world.processes) == 1


def test_a_successor_starts_nothing(world: World) -> None:
    """Somebody may have stopped it."""
    world.configure(declared("web", autostart=True), is_first=False)
    assert not world.processes


def test_one_that_does_not_come_up_is_restarted_by_its_policy(world: World) -> None:
    """Nobody waits who could be told."""
    one = declared("web", autostart=True)
    world.configure(replace(one, request=replace(one.request, restart="always")))
    assert world.record("web").restarts == 0
    world.exit(world.only_process(), 1)
    assert world.record("web").state is State.WAITING


def test_one_without_an_interpreter_is_told_of(world: World) -> None:
    """The supervisor starts all the same."""
    world.configure(lost(declared("web", autostart=True)), declared("other", autostart=True))
    assert [each.name for each in world.processes.values()] == ["other"]
    (published,) = world.done_of(actions.Publish)
    assert isinstance(published, actions.Publish)
    assert "daemon 'web' of the configuration: no python 2.7" in published.detail


# --- by name --------------------------------------------------------------------------------------


def test_whoever_looks_for_a_declared_one_gets_it(world: World) -> None:
    """It is started, and its address told when it can be reached."""
    world.configure(declared("web"))
    caller = world.ask(control.FindDaemon("web"))
    world.hello(world.only_process())
    started = world.answer(caller)
    assert isinstance(started, control.Started)
    assert (started.name, started.existing) == ("web", False)
    again = world.ask(control.FindDaemon("web"))
    assert isinstance(world.answer(again), control.Started)
    assert len(world.processes) == 1


def test_one_whose_interpreter_is_not_there(world: World) -> None:
    """The reason is in the refusal."""
    world.configure(lost(declared("web")))
    refused = refusal(world.answer(world.ask(control.FindDaemon("web"))))
    assert (refused.error, refused.message) == ("InterpreterNotFound", "no python 2.7")


def test_nothing_starts_during_a_shutdown(world: World) -> None:
    """Who looks for it is told that it does not run."""
    world.ready()
    world.configure(declared("web"))
    world.ask(control.Shutdown())
    refused = refusal(world.answer(world.ask(control.FindDaemon("web"))))
    assert refused.error == "DaemonNotFound"


def test_a_client_with_the_same_definition_attaches(world: World) -> None:
    """To it there is no difference between declared and started."""
    world.configure(declared("web", autostart=True))
    up(world)
    caller = world.start(definition("web", token="other"))
    started = world.answer(caller)
    assert isinstance(started, control.Started)
    assert started.existing


# --- changes --------------------------------------------------------------------------------------


def test_figures_count_at_once(world: World) -> None:
    """They are told with their old and new values."""
    changes = world.reload(settings=Settings(log_files=7, stop_grace_seconds=0.5))
    assert changes == [
        "[supervisor] stop_grace_seconds: 5.0 -> 0.5",
        "[supervisor] log_files: 3 -> 7",
    ]
    assert world.core.fleet.settings.log_files == 7
    assert world.done_of(actions.UseSettings)


def test_a_dry_run_changes_nothing(world: World) -> None:
    """It tells the same."""
    world.configure(declared("gone", autostart=True))
    up(world)
    new = declared("web", autostart=True)
    changes = world.reload(new, settings=Settings(log_files=7), dry_run=True)
    assert changes == [
        "[supervisor] log_files: 3 -> 7",
        "[daemons.gone] removed: stops",
        "[daemons.web] added: starts",
    ]
    assert world.core.fleet.settings == Settings()
    assert world.record("gone").state is State.READY
    assert "web" not in world.core.fleet.records
    assert world.reload(new, settings=Settings(log_files=7)) == changes


def test_nothing_has_changed(world: World) -> None:
    """Not even where the tokens of two readings differ."""
    one = declared("web")
    world.configure(one)
    other = replace(one, request=replace(one.request, token="another"))
    assert world.reload(other) == []
    assert ("reloaded", "") in world.published


def test_added_ones_start_with_autostart(world: World) -> None:
    """Others when somebody looks for them."""
    changes = world.reload(declared("a", autostart=True), declared("b"))
    assert changes == [
        "[daemons.a] added: starts",
        "[daemons.b] added: starts when it is attached to",
    ]
    assert [each.name for each in world.processes.values()] == ["a"]


def test_removed_ones_stop(world: World) -> None:
    """Where they run."""
    world.configure(declared("a", autostart=True), declared("b"))
    up(world)
    assert world.reload() == [
        "[daemons.a] removed: stops",
        "[daemons.b] removed: does not run",
    ]
    assert world.record("a").life.reason == "removed from the configuration"
    world.exit(world.only_process(), 0)
    refused = refusal(world.answer(world.ask(control.FindDaemon("a"))))
    assert "removed from the configuration" in refused.message


def test_one_of_the_same_name_that_a_client_started_is_left_alone(world: World) -> None:
    """It is another definition."""
    world.ready(definition("web", digest="other"))
    world.configure(declared("web"))
    assert world.reload() == ["[daemons.web] removed: does not run"]
    assert world.record("web").state is State.READY


def test_changed_ones_restart(world: World) -> None:
    """With what is declared now, when the one before is gone."""
    world.configure(declared("web", autostart=True))
    up(world)
    before = world.only_process()
    changes = world.reload(declared("web", autostart=True, env={"A": "1"}, digest="d2"))
    assert changes == ["[daemons.web] changed (env): restarts"]
    assert world.record("web").state is State.STOPPING
    world.exit(before, 0)
    assert world.record("web").state is State.STARTING
    assert world.record("web").request.digest == "d2"


def test_one_whose_options_change_keeps_its_state(world: World) -> None:
    """The same definition takes over what the process before has saved."""
    world.configure(declared("web", autostart=True))
    up(world)
    before = world.only_process()
    world.reload(declared("web", autostart=True, restart="always"))
    (order,) = world.done_of(actions.SendRecycle)
    assert isinstance(order, actions.SendRecycle)
    ending = events.EndingAnnounced(order.link, order.reason, True, True, order.token)
    world.tell(ending)
    world.exit(before, 0)
    world.hello(world.only_process())
    assert [each.restore for each in world.done_of(actions.SendLoad)] == ["", order.token]  # type: ignore[attr-defined]


def test_one_whose_state_cannot_be_saved_is_kept_as_it_is(world: World) -> None:
    """What has changed counts when it starts the next time."""
    world.configure(declared("web", autostart=True))
    up(world)
    before = world.only_process()
    world.reload(declared("web", autostart=True, restart="always"))
    (order,) = world.done_of(actions.SendRecycle)
    assert isinstance(order, actions.SendRecycle)
    world.tell(events.RecycleRefused(order.link, order.token, "ValueError: no", ""))
    assert world.record("web").state is State.READY
    assert world.only_process() is before


def test_a_changed_script_is_a_change(world: World) -> None:
    """Though the table is the same."""
    world.configure(declared("web"))
    assert world.reload(declared("web", digest="d2")) == [
        "[daemons.web] changed (the text of its script): does not run"
    ]
    assert not world.processes


def test_one_that_is_to_start_from_now_on(world: World) -> None:
    """It does so at once."""
    world.configure(declared("web"))
    assert world.reload(declared("web", autostart=True)) == [
        "[daemons.web] changed (autostart): starts"
    ]
    assert world.only_process().name == "web"


def test_one_that_is_removed_before_its_restart(world: World) -> None:
    """It stays ended."""
    world.configure(declared("web", autostart=True))
    up(world)
    world.reload(declared("web", env={}))
    world.reload()
    world.exit(world.only_process(), 0)
    assert not world.processes


def test_one_that_is_started_by_a_client_before_its_restart(world: World) -> None:
    """What runs is left alone."""
    world.configure(declared("web", autostart=True))
    up(world)
    world.start(definition("web", token="x", digest="other", if_exists="replace"))
    world.core.fleet.records["web"] = world.record("web").changed(
        deferred=(*world.record("web").deferred, events.DeclaredDue("web"))
    )
    world.exit(world.only_process(), 0)
    assert world.record("web").request.digest == "other"


def test_a_shutdown_ends_one_before_its_restart(world: World) -> None:
    """It does not start again."""
    world.configure(declared("web", autostart=True))
    up(world)
    world.reload(declared("web", env={}))
    world.ask(control.Shutdown())
    world.exit(world.only_process(), 0)
    assert not world.processes


def test_a_broken_file_changes_nothing(world: World) -> None:
    """Who asked is told why, or the log."""
    world.configure(declared("web", autostart=True))
    up(world)
    caller = world.ask(control.Hello("1"))
    world.replies[caller].clear()
    for whose in (caller, None):
        world.tell(events.ReloadRequested(whose, False, Settings(), {}, "config.toml:3: no"))
    refused = refusal(world.answer(caller))
    assert (refused.error, refused.message) == ("InvalidRequest", "config.toml:3: no")
    assert world.record("web").state is State.READY
    assert world.published[-1] == ("reloaded", "")


def test_a_signal_reloads_without_an_answer(world: World) -> None:
    """There is nobody to tell but the log."""
    web = declared("web", autostart=True)
    world.tell(events.ReloadRequested(None, False, Settings(), {"web": web}))
    assert world.only_process().name == "web"


def test_an_upgrade_waits_for_a_restart(world: World) -> None:
    """The successor would not know of it."""
    world.configure(declared("web", autostart=True))
    up(world)
    world.reload(declared("web", env={}))
    draining(world)
    assert not handovers(world)
    world.exit(world.only_process(), 0)
    assert handovers(world)


def test_a_declared_definition_is_kept_in_its_file(world: World) -> None:
    """As any other's: the record is without it, and the daemon is sent what was kept."""
    one = declared("web", autostart=True)
    world.configure(one)
    assert actions.KeepDefinition(one.request) in world.done
    assert world.record("web").request.definition == b""
