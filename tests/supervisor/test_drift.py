"""What the core makes of a daemon that has drifted: it shows that, and has it renewed once."""

import pytest

from spawny import control
from spawny.errors import DaemonExists
from spawny.supervisor import actions, events
from tests.supervisor.world import Process, World, definition, refusal


@pytest.fixture
def world() -> World:
    return World()


def renewal(process: Process, **fields: object) -> control.RenewDaemon:
    return control.RenewDaemon("etl", pid=process.identity.pid, token="r1", **fields)  # type: ignore[arg-type]


def recycle(world: World, process: Process, *, saved: bool = False) -> None:
    """The daemon makes room for its successor, as it was ordered to."""
    ordered = world.done_of(actions.SendRecycle)[-1]
    assert isinstance(ordered, actions.SendRecycle)
    assert process.link is not None
    ending = events.EndingAnnounced(
        process.link, ordered.reason, recycled=True, saved=saved, token=ordered.token
    )
    world.tell(ending)
    world.exit(process, code=0)


def come_up(world: World) -> Process:
    process = world.only_process()
    world.tell(events.DefinitionLoaded(world.hello(process)))
    return process


# --- shown ----------------------------------------------------------------------------------------


def test_what_a_pong_tells_of_drift(world: World) -> None:
    """It is in the status and in the explanation, until the process has ended."""
    process = world.ready()
    assert world.status("etl").drift == []
    world.pong(process.link, drift=("numpy 1.26.4 -> 2.1.0", "module mine"))
    assert world.status("etl").drift == ["numpy 1.26.4 -> 2.1.0", "module mine"]
    caller = world.ask(control.ExplainDaemon("etl"))
    world.wait(0.25)
    answer = world.answer(caller)
    assert isinstance(answer, control.Explanation)
    assert answer.why.endswith(
        "; what has changed since it was loaded: numpy 1.26.4 -> 2.1.0, module mine"
    )
    world.exit(process, code=0)
    assert world.status("etl").drift == []


# --- renewed --------------------------------------------------------------------------------------


def test_a_renewal_waits_for_the_calls(world: World) -> None:
    """Unlike a restart it interrupts nothing; the state is kept, and the answer is the next one."""
    old = world.ready()
    caller = world.ask(renewal(old))
    (ordered,) = world.done_of(actions.SendRecycle)
    assert isinstance(ordered, actions.SendRecycle)
    assert not ordered.is_urgent
    assert world.status("etl").state == "ready"
    assert not world.is_answered(caller)
    recycle(world, old, saved=True)
    new = come_up(world)
    started = world.answer(caller)
    assert isinstance(started, control.Started)
    assert started.pid == new.identity.pid
    (_, load) = world.done_of(actions.SendLoad)
    assert isinstance(load, actions.SendLoad)
    assert load.restore == ordered.token


def test_of_two_renewals_one_is_made(world: World) -> None:
    """Whether the second comes before or after the restart: both are told of the same process."""
    old = world.ready()
    first, second = world.ask(renewal(old)), world.ask(renewal(old), b"other")
    recycle(world, old)
    third = world.ask(renewal(old), b"third")
    new = come_up(world)
    fourth = world.ask(renewal(old), b"fourth")
    for caller in (first, second, third, fourth):
        started = world.answer(caller)
        assert isinstance(started, control.Started)
        assert started.pid == new.identity.pid
    assert list(world.processes.values()) == [new]


def test_a_renewal_while_a_limit_has_it_recycled(world: World) -> None:
    """It has been ordered to make room; no second order is given, and nothing is interrupted."""
    request = definition()
    old = world.ready(control.StartDaemon(**{**_fields(request), "max_calls": 5}))
    world.tell(events.LimitReached(old.link or 0, 5))
    caller = world.ask(renewal(old))
    assert len(world.done_of(actions.SendRecycle)) == 1
    recycle(world, old)
    come_up(world)
    assert isinstance(world.answer(caller), control.Started)


def _fields(request: control.StartDaemon) -> dict[str, object]:
    return {name: getattr(request, name) for name in request.__dataclass_fields__}


def test_a_renewal_of_one_that_is_not_ready(world: World) -> None:
    """There is no call to wait for: it is ended as by any restart."""
    world.ask(definition())
    old = world.only_process()
    world.hello(old)
    caller = world.ask(renewal(old))
    assert world.status("etl").state == "stopping"
    world.exit(old, code=0)
    come_up(world)
    assert isinstance(world.answer(caller), control.Started)


def test_a_renewal_with_another_definition(world: World) -> None:
    """That is what runs from then on, with the options and the state of the one before."""
    old = world.ready()
    caller = world.ask(renewal(old, digest="d2", summary="script d2", definition=b"new"))
    recycle(world, old, saved=True)
    kept = world.done_of(actions.KeepDefinition)[-1]
    assert isinstance(kept, actions.KeepDefinition)
    assert (kept.request.token, kept.request.definition) == ("r1", b"new")
    new = world.only_process()
    assert new.token == "r1"
    come_up(world)
    assert isinstance(world.answer(caller), control.Started)
    record = world.record()
    assert (record.request.digest, record.request.summary) == ("d2", "script d2")
    assert record.request.definition == b""
    (_, load) = world.done_of(actions.SendLoad)
    assert isinstance(load, actions.SendLoad)
    assert load.restore


def test_a_renewal_of_one_that_has_ended(world: World) -> None:
    """It is started: whoever asks wants it to run."""
    old = world.ready()
    world.exit(old, code=0)
    caller = world.ask(renewal(old))
    come_up(world)
    assert isinstance(world.answer(caller), control.Started)


# --- replaced -------------------------------------------------------------------------------------


def test_a_replacement_of_one_process(world: World) -> None:
    """Where another one runs by then, with another definition still, that is left alone."""
    old = world.ready()
    request = definition(token="t2", digest="d2", if_exists="replace")
    meant = control.StartDaemon(**{**_fields(request), "replaces": old.identity.pid})
    world.ask(meant)
    world.exit(old, code=0)
    new = come_up(world)
    again = control.StartDaemon(**{**_fields(meant), "token": "t3"})
    found = world.answer(world.ask(again))
    assert isinstance(found, control.Started)
    assert (found.pid, found.existing) == (new.identity.pid, True)
    other = control.StartDaemon(**{**_fields(meant), "token": "t4", "digest": "d3"})
    said = refusal(world.answer(world.ask(other)))
    assert isinstance(said.exception(), DaemonExists)
