"""Functions that run here and are called from a daemon."""

import gc
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import spawny
from spawny import CallCancelled, callback
from spawny.client.channel import Channel
from spawny.client.proxy import reference_of
from tests.end_to_end.processes import eventually
from tests.interpreters import Interpreter

pytestmark = pytest.mark.one_supervisor

SCRIPT = """
import atexit, gc, os, signal, threading, time

class Thing:
    def __init__(self, number):
        self.number = number

kept = []
def call(f, *args, **kwargs):
    return f(*args, **kwargs)
def keep(f):
    kept.append(f)
def forget():
    kept.clear()
def call_kept(*args):
    return [f(*args) for f in kept]
def same(a, b):
    return a is b
def give_thing(f):
    thing = Thing(5)
    return f(thing) is thing
def identity(x):
    return x
def down(f, n):
    return n if n == 0 else f(n - 1) + 1
def catch(f):
    try:
        f()
    except ValueError as error:
        return "caught %s" % error
    finally:
        kept.append("cleaned")
results = []
def between_calls(f, n):
    def run():
        for i in range(n):
            try:
                results.append(f(i))
            except Exception as error:
                results.append(repr(error))
    threading.Thread(target=run).start()
class Cycle:
    def __init__(self, f):
        self.f, self.me = f, self
    def __del__(self):
        self.f(1)
        self.f(2)
def make_cycle(f):
    Cycle(f)
def collect():
    gc.collect()
def attempt(f, path):
    try:
        f()
    except ReferenceError as error:
        text = str(error)
    with open(path, "w") as file:
        file.write(text)
def attempt_at_exit(f, path):
    atexit.register(attempt, f, path)
def attempt_on_control_thread(f, path):
    for thread in threading.enumerate():
        if thread.name == "spawny-control":
            thread.ask(attempt, f, path)
inside = []
def exclusively(with_alarm):
    inside.append(1)
    if with_alarm:
        os.kill(os.getpid(), signal.SIGALRM)
    time.sleep(0.01)
    count = len(inside)
    inside.pop()
    return count
def raise_alarm(number, frame):
    raise LookupError("alarm")
signal.signal(signal.SIGALRM, raise_alarm)
def thread_name():
    return threading.current_thread().name
"""


@pytest.fixture
def m(home: Path) -> Iterator[Any]:
    module = spawny.run_script(SCRIPT)
    yield module
    module.terminate_daemon()


def test_a_callback_runs_here(home: Path, interpreter: Interpreter) -> None:
    """Its arguments, keywords and result go over; it runs in the thread that made the call."""
    m = spawny.run_script(SCRIPT, interpreter.path)
    seen = []

    def local(*args: Any, **kwargs: Any) -> Any:
        seen.append((threading.get_ident(), args, kwargs))
        return {"answer": 42}

    assert m.call(callback(local), 1, [2], three=3) == {"answer": 42}
    assert seen == [(threading.get_ident(), (1, [2]), {"three": 3})]
    m.terminate_daemon()


def test_nested_calls_of_any_depth(home: Path, interpreter: Interpreter) -> None:
    """The callback calls the daemon, which calls back, and so on; all on the main thread there."""
    m = spawny.run_script(SCRIPT, interpreter.path)
    names = set()

    def down(n: int) -> Any:
        names.add(m.thread_name())
        return m.down(callback(down), n)

    assert down(40) == 40
    assert names == {"MainThread"}
    m.terminate_daemon()


def test_endless_recursion_over_both_processes(home: Path) -> None:
    """It is a RecursionError wherever it hits, and no answer is taken for that to another call."""
    m = spawny.run_script(SCRIPT)
    thing = m.Thing(1)
    for pad in range(20):

        def down(n: int, pad: int = pad) -> Any:
            if pad:
                return down(n, pad - 1)
            result = m.down(callback(down), n)
            assert type(result) is int
            return result

        with pytest.raises(RecursionError):
            down(10_000)
        assert m.identity(pad) == pad
    assert thing.number == 1
    m.terminate_daemon()


def test_a_signal_handler_there_raises_during_a_callback(
    home: Path, interpreter: Interpreter
) -> None:
    """Its exception is raised when the callback is over, whose calls have their own answers."""
    m = spawny.run_script(SCRIPT, interpreter.path)
    other = spawny.attach(spawny.daemon(m).name)
    got = []

    def nested() -> None:
        other.identity(1)  # so that it has begun to wait, for whatever comes
        os.kill(spawny.daemon(m).pid, signal.SIGALRM)
        got.append(m.identity("nested"))

    with pytest.raises(LookupError, match="alarm"):
        m.call(callback(nested))
    assert got == ["nested"]
    assert m.identity("after") == "after"
    m.terminate_daemon()


def test_a_signal_handler_there_raises_while_another_call_runs(m: Any) -> None:
    """It raises nothing in the other call, and there is still one at a time."""
    others = [spawny.attach(spawny.daemon(m).name) for _ in range(2)]

    def nested() -> list[int]:
        assert others[0].exclusively(True) == 1
        with ThreadPoolExecutor(2) as pool:
            return [n for each in pool.map(enter_often, others) for n in each]

    def enter_often(other: Any) -> list[int]:
        return [other.exclusively(False) for _ in range(20)]

    seen: list[int] = []
    with pytest.raises(LookupError, match="alarm"):
        m.call(callback(lambda: seen.extend(nested())))
    assert seen == [1] * 40


def test_what_it_raises_is_raised_there(m: Any) -> None:
    """As its own class, to be caught there; else it comes back through the call."""

    def bad() -> None:
        raise ValueError("oh")

    assert m.catch(callback(bad)) == "caught oh"
    with pytest.raises(ValueError, match="oh"):
        m.call(callback(bad))
    assert m.call(callback(lambda: 1)) == 1


def test_objects_of_the_daemon_come_as_proxies(m: Any) -> None:
    """What cannot be copied is a proxy here, and itself again when it goes back."""
    assert m.give_thing(callback(lambda thing: thing))
    assert m.call(callback(lambda thing: thing.number), m.Thing(7)) == 7


def test_what_a_client_cannot_load_comes_as_a_proxy(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An argument of a class that is only importable there."""
    (tmp_path / "only_there.py").write_text("class Only:\n    x = 3\n")
    script = f"import sys; sys.path.append({str(tmp_path)!r}); import only_there\n"
    m = spawny.run_script(script + "def call(f): return f(only_there.Only())")
    assert m.call(callback(lambda only: (isinstance(only, spawny.ObjectProxy), only.x))) == (
        True,
        3,
    )


def test_one_that_is_kept_is_the_same_one(m: Any) -> None:
    """It can be called in later calls, and compares by identity there."""
    seen: list[int] = []
    m.keep(callback(seen.append))
    m.call_kept(1)
    m.call_kept(2)
    assert seen == [1, 2]
    assert m.same(callback(seen.append), callback(seen.append))


def test_what_is_called_need_not_compare(m: Any) -> None:
    """Whether it is the same is no question for its own code, which could be in any daemon."""

    class Odd:
        def __call__(self) -> int:
            return 5

        def __eq__(self, other: object) -> bool:
            raise RuntimeError("do not ask")

        def __hash__(self) -> int:
            return 1

    one, two = callback(Odd()), callback(Odd())
    assert m.same(one, one)
    assert not m.same(one, two)
    assert m.call(one) == 5


def test_dropped_callbacks_are_let_go_here(m: Any) -> None:
    """Once the daemon has no use for it, nothing here keeps the function alive."""
    session: Any = reference_of(m).session
    m.keep(callback(lambda: 1))
    m.same(callback(print), callback(print))
    assert len(session.callbacks) >= 1
    m.forget()
    assert eventually(lambda: len(session.callbacks) == 0)


def test_one_that_is_sent_often_is_let_go(home: Path, interpreter: Interpreter) -> None:
    """Also where its last use there is not seen to be over at once, as under PyPy."""
    m = spawny.run_script(SCRIPT + "import gc", interpreter.path)
    callbacks = reference_of(m).session.callbacks
    function = callback(lambda: 1)
    for _ in range(1000):
        m.call(function)
    assert eventually(lambda: (m.gc.collect(), not len(callbacks))[1])
    m.terminate_daemon()


def test_callbacks_beside_what_travels_by_value_are_let_go(m: Any) -> None:
    """They are sent once, whatever else it takes to send the arguments; or not at all."""
    function = eval("lambda: 1", {"__name__": "__main__"})
    for _ in range(3):
        m.call(callback(lambda *args: None), function)
        with pytest.raises(spawny.SerializationError):
            m.call(callback(lambda *args: None), threading.Lock())
    callbacks = reference_of(m).session.callbacks
    assert eventually(lambda: m.identity(1) and not len(callbacks))


def test_from_the_finalizer_of_a_cycle(home: Path, interpreter: Interpreter) -> None:
    """It may be called there, although the collector knows by then that it goes, too."""
    m = spawny.run_script(SCRIPT, interpreter.path)
    seen: list[int] = []
    for _ in range(10):
        m.make_cycle(callback(seen.append))
        assert eventually(lambda: (m.collect(), seen == [1, 2])[1])
        seen.clear()
    assert eventually(lambda: (m.collect(), not len(reference_of(m).session.callbacks))[1])
    m.terminate_daemon()


def test_from_where_none_can_be_waited_for(m: Any, tmp_path: Path) -> None:
    """At the end of the daemon, and where the collector runs a finalizer on spawny's own thread."""
    never = callback(lambda: None)
    paths = [tmp_path / "control", tmp_path / "exit"]
    m.attempt_on_control_thread(never, str(paths[0]))
    assert eventually(lambda: paths[0].exists() and "own thread" in paths[0].read_text())
    m.attempt_at_exit(never, str(paths[1]))
    m.terminate_daemon()
    assert "is ending" in paths[1].read_text()


def test_from_a_thread_of_the_daemon(m: Any) -> None:
    """Between calls, too; the thread there waits for the result."""
    m.between_calls(callback(lambda i: i * i), 20)
    assert eventually(lambda: len(m.results) == 20)
    assert m.results == [i * i for i in range(20)]


def test_one_between_calls_may_call(m: Any) -> None:
    """What a thread of the daemon calls may itself use the daemon, while others do."""
    m.between_calls(callback(lambda i: m.identity(i) + 1), 20)
    assert [m.identity(i) for i in range(50)] == list(range(50))
    assert eventually(lambda: len(m.results) == 20)
    assert m.results == [i + 1 for i in range(20)]


def test_a_callback_may_wait_for_another_thread(m: Any) -> None:
    """Calls of other threads are carried out while one waits for its callback."""
    with ThreadPoolExecutor(4) as pool:

        def fan_out() -> Any:
            return sum(pool.map(m.identity, range(20)))

        assert m.call(callback(fan_out)) == sum(range(20))


def test_calls_that_wait_for_each_other_get_on(m: Any) -> None:
    """The first call can return though the second, begun later, waits for that in its callback."""
    begun, ended = threading.Event(), threading.Event()

    def second() -> Any:
        assert begun.wait(30)
        return m.call(callback(lambda: ended.wait(30)))

    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(second)
        started = threading.Event()

        def first() -> str:
            begun.set()
            m.identity(1)
            started.set()
            return "first"

        assert m.call(callback(first)) == "first"
        ended.set()
        assert future.result(30) is True


def test_another_clients_call_may_use_it(m: Any) -> None:
    """A callback of one session is called in a call of another."""
    seen: list[int] = []
    m.keep(callback(lambda i: seen.append(m.identity(i))))
    other = spawny.attach(spawny.daemon(m).name)
    other.call_kept(5)
    assert seen == [5]


def test_a_call_that_waits_for_another_client_holds_up_what_follows_it(m: Any) -> None:
    """Calls on one connection are made one after the other, and answered in that order."""
    other = spawny.attach(spawny.daemon(m).name)
    seen: list[int] = []

    def slow(n: int) -> None:
        for i in range(50):  # the daemon is free meanwhile
            other.identity(i)
        seen.append(n)

    other.keep(callback(slow))
    with spawny.batch() as calls:
        futures = []
        for n in range(600):  # more than is on its way at once
            futures.append(calls.call(m.identity, n))
            if n % 200 == 100:
                calls.call(m.call_kept, n)
    assert [future.result() for future in futures] == list(range(600))
    assert seen == [100, 300, 500]


def test_callbacks_of_an_attachment_that_was_lost(m: Any) -> None:
    """They are gone, and none of the next attachment is called in their place."""
    seen = []
    m.keep(callback(lambda: seen.append("before")))
    reference_of(m).session.ended("was lost", may_come_back=True)
    m.keep(callback(lambda: seen.append("after")))
    with pytest.raises(ReferenceError, match="has left"):
        m.call_kept()
    assert seen == []


def test_threads_hammer_with_nested_callbacks(m: Any) -> None:
    """Eight threads, three levels each way: every answer is right."""

    def chain(n: int, depth: int) -> Any:
        if depth == 0:
            return m.identity(n)
        return m.call(callback(lambda: chain(n, depth - 1) + 1))

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda n: chain(n, 3), range(200)))
    assert results == [n + 3 for n in range(200)]


def test_the_result_must_travel(m: Any) -> None:
    """A result that cannot is an error in the daemon, and in the call; the next call works."""
    with pytest.raises(TypeError, match="lock"):
        m.call(callback(threading.Lock))
    assert m.identity(1) == 1


def test_keyboard_interrupt_in_a_callback(m: Any) -> None:
    """It is raised there, and comes back."""

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        m.call(callback(stop))
    assert m.identity(1) == 1


def test_a_second_ctrl_c_in_a_callbacks_call(m: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """However badly that breaks off, the call around it does not take its answer."""
    identity = m.identity

    def broken(*args: Any) -> Any:
        raise KeyboardInterrupt  # the third

    def press() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(Channel, "answer", broken)
            patch.setattr(Channel, "_spin", broken)
            patch.setattr(Channel, "interrupt", broken)
            with pytest.raises(KeyboardInterrupt):
                identity("nested")

    with pytest.raises(CallCancelled, match="callback"):
        m.call(callback(lambda: m.call(callback(press))))
    assert m.call(callback(lambda: m.call(callback(lambda: "fine")))) == "fine"


def test_arguments_are_released(m: Any) -> None:
    """Objects passed to callbacks are proxies like any other."""
    for _ in range(100):
        m.call(callback(lambda thing: None), m.Thing(1))
    gc.collect()
    assert m.identity(1) == 1


def test_a_callback_that_the_daemon_lets_go(m: Any) -> None:
    """From then on it counts as never sent: submitted calls may be sent many at once again."""
    session: Any = reference_of(m).session
    assert not session.has_callbacks
    seen = []
    m.call(callback(lambda: seen.append(session.has_callbacks)))
    assert seen == [True]
    assert eventually(lambda: m.identity(1) == 1 and not session.has_callbacks)


def test_no_function_is_no_callback() -> None:
    with pytest.raises(spawny.InvalidRequest):
        callback(3)  # type: ignore[arg-type]
