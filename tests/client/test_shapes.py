"""Calls with a time limit, without an answer, and many at once."""

import fcntl
import os
import signal
import termios
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import spawny
from spawny import CallCancelled, CallTimeout, StaleReference, batch, callback, oneway, ref, timeout
from spawny.client.proxy import reference_of
from spawny.client.scope import Scope
from tests.client.limits import limited
from tests.end_to_end.processes import Script, eventually, kill
from tests.interpreters import Interpreter

pytestmark = pytest.mark.one_supervisor

SCRIPT = """
import os, time, weakref
events = []
def note(x):
    events.append(x)
    return len(events)
def identity(x):
    return x
def sleep(seconds):
    time.sleep(seconds)
def spin():
    while True:
        pass
def stubborn(path):
    open(path + ".begun", "w").close()
    while not os.path.exists(path):
        try:
            time.sleep(0.01)
        except KeyboardInterrupt:
            pass
    return "done"
def touch_and_wait(path):
    open(path, "w").close()
    time.sleep(60)
def call(f):
    return f()
def call_and_sleep(f):
    f()
    time.sleep(60)
def fail(n):
    raise ValueError(n)
def hold_lock_then_spin(seconds):
    import ctypes
    ctypes.PyDLL(None).sleep(seconds)  # unlike CDLL, it keeps the interpreter's lock
    while True:
        pass
class Local:
    pass
def make():
    return Local()
def path_of(text):
    import pathlib
    return pathlib.PurePosixPath(text)
def pid():
    return os.getpid()
"""


@pytest.fixture
def m(home: Path) -> Iterator[Any]:
    module = spawny.run_script(SCRIPT)
    yield module
    module.terminate_daemon()


# --- timeout ---


@pytest.mark.parametrize("name", ["sleep", "spin"])
def test_a_call_that_takes_too_long(home: Path, interpreter: Interpreter, name: str) -> None:
    """It is interrupted there, in C code that sleeps as in pure Python; the daemon stays usable."""
    m = spawny.run_script(SCRIPT, interpreter.path)
    pid = m.pid()
    with pytest.raises(CallTimeout, match=rf"call {name}\(\)|a call"):
        limited(getattr(m, name), *[60] if name == "sleep" else [])
    assert m.pid() == pid
    m.terminate_daemon()


def test_in_time_is_in_time(m: Any) -> None:
    """Nothing is different where the limit is not reached."""
    with timeout(60):
        assert [m.identity(i) for i in range(10)] == list(range(10))
    assert m.identity(1) == 1


def test_a_limit_is_for_all_calls_together(m: Any) -> None:
    """Once the time is over, no further call begins."""
    with timeout(0.1):
        with pytest.raises(TimeoutError):
            m.sleep(60)
        with pytest.raises(CallTimeout, match="not begun"):
            m.note(1)
    assert m.events == []


def test_the_outer_limit_holds(m: Any) -> None:
    """An inner timeout does not extend an outer one."""
    with pytest.raises(CallTimeout), timeout(0.1), timeout(60):
        m.sleep(60)


def test_code_that_does_not_heed(m: Any, tmp_path: Path) -> None:
    """The wait is given up, with a word of why; later calls wait until that code ends."""
    path, stubborn = tmp_path / "go", m.stubborn
    with pytest.raises(CallTimeout, match="does not heed"):
        limited(stubborn, str(path))
    path.touch()
    assert m.identity(1) == 1


def test_a_call_that_waits_for_its_turn(m: Any, tmp_path: Path) -> None:
    """It is withdrawn, at once and for certain: it never runs."""
    path = tmp_path / "go"
    with ThreadPoolExecutor(1) as pool:
        busy = pool.submit(lambda: m.stubborn(str(path)))
        assert eventually(lambda: Path(f"{path}.begun").exists())
        with pytest.raises(CallTimeout, match="not begun in time"), timeout(0.1):
            m.note("late")
        path.touch()
        assert busy.result() == "done"
    assert m.events == []


def test_a_limit_during_a_callback(m: Any) -> None:
    """The call is interrupted once its callback has returned."""
    with pytest.raises(CallTimeout), timeout(0.05) as scope:

        def slow() -> None:
            while scope.remaining():
                pass

        m.call_and_sleep(callback(slow))
    assert m.identity(1) == 1


def test_a_callback_whose_time_is_over_may_go_on(m: Any, tmp_path: Path) -> None:
    """A call that is not begun costs nothing; one that does not end costs the call around it."""

    identity, stubborn, path = m.identity, m.stubborn, tmp_path / "go"

    def not_begun() -> str:
        with pytest.raises(CallTimeout, match="not begun"), timeout(0):
            identity(1)
        return "went on"

    def without_end() -> None:
        with pytest.raises(CallTimeout, match="does not heed"):
            limited(stubborn, str(path))

    assert m.call(callback(not_begun)) == "went on"
    with pytest.raises(CallCancelled, match="callback"):
        m.call(callback(without_end))
    path.touch()
    assert m.identity(1) == 1


@pytest.mark.parametrize("seconds", ["1", -1, True, float("nan")])
def test_what_is_no_time_is_refused(seconds: Any) -> None:
    with pytest.raises(spawny.InvalidRequest):
        timeout(seconds)


@pytest.mark.parametrize("seconds", [float("inf"), 1e300])
def test_a_limit_of_for_ever_is_none(m: Any, seconds: float) -> None:
    with timeout(seconds):
        assert m.identity(1) == 1


def test_an_interrupt_comes_after_code_that_keeps_the_lock(m: Any, tmp_path: Path) -> None:
    """C code that kept Python from running there is followed by the interrupt, though the client
    has given up its wait by then."""
    with pytest.raises(CallTimeout), timeout(0.1):
        m.hold_lock_then_spin(2)
    with timeout(30):
        assert m.identity(1) == 1


# --- cancellation ---


def test_cancelled_from_another_thread(m: Any, tmp_path: Path) -> None:
    """The call under way is interrupted, and says that it was cancelled."""
    scope = Scope()

    def run() -> None:
        with scope:
            m.touch_and_wait(str(tmp_path / "begun"))

    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(run)
        assert eventually((tmp_path / "begun").exists)
        scope.cancel()
        with pytest.raises(CallCancelled):
            future.result()
    assert m.identity(1) == 1


def test_cancelled_before_its_turn(m: Any, tmp_path: Path) -> None:
    """A call that waits for another client's is given up at once."""
    path = tmp_path / "go"
    scope = Scope()

    def late() -> None:
        with scope:
            m.note("late")

    with ThreadPoolExecutor(2) as pool:
        busy = pool.submit(lambda: m.stubborn(str(path)))
        assert eventually(lambda: Path(f"{path}.begun").exists())
        future = pool.submit(late)
        assert eventually(lambda: bool(scope._under_way))
        scope.cancel()
        with pytest.raises(CallCancelled):
            future.result()
        path.touch()
        busy.result()
    assert m.events == []


# --- one-way calls ---


def test_oneway_calls_come_in_order(m: Any) -> None:
    """Each is carried out once, before what the same thread asks for next."""
    for i in range(500):
        assert oneway(m.note)(i) is None
    assert m.events == list(range(500))
    oneway(m.events.append)("method")
    assert m.events[-1] == "method"


def test_oneway_returns_at_once(m: Any, tmp_path: Path) -> None:
    """Though the call goes on there."""
    path = tmp_path / "go"
    oneway(m.stubborn)(str(path))
    path.touch()
    assert m.identity(1) == 1


def test_oneway_of_several_threads(m: Any) -> None:
    """Each thread's come in its own order; none is lost."""

    def run(name: int) -> None:
        for i in range(100):
            oneway(m.note)((name, i))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(run, range(4)))
    assert eventually(lambda: len(m.events) == 400)
    events = spawny.value(m.events)
    for name in range(4):
        assert [i for who, i in events if who == name] == list(range(100))


def test_a_oneway_call_that_is_not_taken_in_time(m: Any, tmp_path: Path) -> None:
    """It is not made, though half of it was sent; what was sent before and comes after is."""
    begun = tmp_path / "begun"
    oneway(m.note)(1)
    note = m.note
    oneway(m.touch_and_wait)(str(begun))
    assert eventually(begun.exists)
    with pytest.raises(CallTimeout, match="not begun"), timeout(0.2):
        oneway(note)(b"x" * 10_000_000)
    with pytest.raises(CallTimeout, match="not begun"), timeout(0):
        oneway(note)(2)
    assert spawny.daemon(m).interrupt()
    assert note(3) == 2
    assert m.events == [1, 3]


def test_oneway_calls_come_before_what_follows_one_that_was_given_up(
    m: Any, tmp_path: Path
) -> None:
    """Though their connection was closed with that call, and the daemon looks at another first."""
    session: Any = reference_of(m).session
    note, events, identity, stubborn = m.note, m.events, m.identity, m.stubborn
    (first,) = session._pool.free
    session._pool.free += [session._new_channel() for _ in range(2)]
    path = tmp_path / "go"

    def is_asked() -> bool:
        unread = fcntl.ioctl(first.sock, termios.TIOCOUTQ, bytes(4))
        return unread != bytes(4) or len(session._pool.open()) == 3

    with ThreadPoolExecutor(2) as pool:
        running = pool.submit(stubborn, str(path))
        assert eventually(Path(f"{path}.begun").exists)
        for number in range(100):
            oneway(note)(number)
        with pytest.raises(CallTimeout, match="not begun"), timeout(0.05):
            identity(1)
        pool.submit(lambda: (eventually(is_asked), path.touch()))
        assert len(events) == 100
        assert running.result() == "done"
    assert events == list(range(100))


def test_objects_of_oneway_calls_outlive_their_proxies(m: Any) -> None:
    """They are released when the calls have been made, on whatever connection that happens."""
    go = threading.Event()
    identity, locals_ = m.identity, [m.make(), m.make()]
    note = m.note
    with ThreadPoolExecutor(1) as pool:
        oneway(m.call)(callback(lambda: go.wait(30)))  # those behind it wait
        oneway(locals_[0].__init__)()
        oneway(note)(locals_[1])
        locals_.clear()
        for n in range(50):  # by which references are released, too
            assert pool.submit(identity, n).result() == n
        go.set()
    assert len(m.events) == 1
    assert "failed" not in "".join(spawny.daemon(m).logs())


def test_oneway_calls_with_many_objects(m: Any) -> None:
    """They are made, and the objects released after that."""
    make, live = m.make, m.weakref.WeakSet()
    things = [make() for _ in range(2500)]
    add = oneway(live.add)
    for thing in things:
        add(thing)
    assert len(live) == 2500
    del thing
    things.clear()
    assert eventually(lambda: len(live) == 0)


def test_a_oneway_call_may_call_back(m: Any) -> None:
    """At once, on a thread of its own, since none waits for the call; also from a callback."""
    called = threading.Event()
    oneway(m.call)(callback(called.set))
    assert called.wait(30)
    seen: list[int] = []

    def nested() -> int:
        oneway(m.call)(callback(lambda: seen.append(m.identity(1))))
        return int(m.call(callback(lambda: m.identity(2))))

    assert m.call(callback(nested)) == 2
    assert seen == [1]


def test_a_failed_oneway_is_in_the_log(home: Path) -> None:
    """Its traceback is not lost, and costs nothing else."""
    m = spawny.run_script(SCRIPT, output="log")
    oneway(m.fail)("lost and found")
    assert m.identity(1) == 1
    assert any("lost and found" in line for line in spawny.daemon(m).logs())
    m.terminate_daemon()


def test_oneway_calls_survive_their_client(home: Path, tmp_path: Path) -> None:
    """What was sent is carried out, even if the client is killed right after."""
    path = tmp_path / "go"
    m = spawny.run_script(SCRIPT, name="survivor")
    script = """
        import sys, spawny
        m = spawny.attach("survivor")
        stubborn, note = spawny.oneway(m.stubborn), spawny.oneway(m.note)
        stubborn(sys.argv[1])
        for i in range(100):
            note(i)
        print("sent", flush=True)
        input()
    """
    with Script(script, str(path)) as client:
        client.until("sent")
        kill(client.process.pid)
    path.touch()
    assert eventually(lambda: len(m.events) == 100)
    m.terminate_daemon()


# --- batches ---


def test_a_batch_is_carried_out_in_order(home: Path, interpreter: Interpreter) -> None:
    """All futures are done when the block ends."""
    m = spawny.run_script(SCRIPT, interpreter.path)
    with batch() as b:
        futures = [b.call(m.note, i) for i in range(1000)]
        assert not futures[0].done()
    assert [each.result() for each in futures] == list(range(1, 1001))
    assert m.events == list(range(1000))
    m.terminate_daemon()


def test_a_failure_in_a_batch_is_its_own(m: Any) -> None:
    """The next ones are carried out all the same."""
    with batch() as b:
        first, second, third = b.call(m.note, 1), b.call(m.fail, 2), b.call(m.note, 3)
    assert (first.result(), third.result()) == (1, 2)
    assert isinstance(second.exception(), ValueError)


def test_what_is_done_of_a_batch_is_known(m: Any, tmp_path: Path) -> None:
    """While a call behind it takes long, though the answers to many quick ones are sent at once."""
    path = tmp_path / "go"
    with ThreadPoolExecutor(1) as pool, batch() as b:
        futures = [b.call(m.note, n) for n in range(100)]
        last = b.call(m.stubborn, str(path))
        pool.submit(lambda: (futures[-1].result(), path.touch()))
    assert last.result() == "done"


def test_output_of_a_batch_comes_before_its_end(
    home: Path, capfd: pytest.CaptureFixture[str], interpreter: Interpreter
) -> None:
    """In order, and whole."""
    m = spawny.run_script("def say(n):\n    print(n)\n", interpreter.path)
    with batch() as b:
        for n in range(200):
            b.call(m.say, n)
    said = [line for line in capfd.readouterr().out.splitlines() if line.isdigit()]
    assert said == [str(n) for n in range(200)]
    m.terminate_daemon()


def test_a_batch_of_thousands_of_objects(home: Path, interpreter: Interpreter) -> None:
    """The daemon keeps none of what has been loaded here, whatever there is of it."""
    m = spawny.run_script(SCRIPT, interpreter.path)
    with batch() as b:
        futures = [b.call(m.path_of, f"/{n}") for n in range(6000)]
    assert [os.fspath(each.result()) for each in futures] == [f"/{n}" for n in range(6000)]
    m.terminate_daemon()


def test_batches_of_large_things(m: Any) -> None:
    """Larger than the system's buffers, both ways."""
    with batch() as b:
        futures = [b.call(m.identity, bytes([i]) * 300_000) for i in range(30)]
    assert [each.result() for each in futures] == [bytes([i]) * 300_000 for i in range(30)]


def test_results_of_a_batch_are_values_or_proxies(m: Any) -> None:
    """As those of single calls."""
    with batch() as b:
        local, path, one = b.call(m.make), b.call(m.path_of, "/a"), b.call(m.identity, 1)
    assert isinstance(local.result(), spawny.ObjectProxy)
    assert os.fspath(path.result()) == "/a"
    assert one.result() == 1


def test_a_batch_may_call_back(m: Any) -> None:
    """And the callbacks may call, in the middle of it."""
    with batch() as b:
        futures = [b.call(m.call, callback(lambda i=i: m.note(i))) for i in range(50)]
    assert [each.result() for each in futures] == list(range(1, 51))
    assert m.events == list(range(50))


def test_a_batch_that_is_left_makes_no_call(m: Any) -> None:
    """An exception in the block comes before the calls."""
    with pytest.raises(RuntimeError), batch() as b:
        future = b.call(m.note, 1)
        raise RuntimeError
    assert future.cancelled()
    assert m.events == []


@pytest.mark.parametrize("count", [1, 100])
def test_a_batch_with_a_limit(m: Any, count: int) -> None:
    """What is done is done; the rest is told, and does not run."""
    with pytest.raises(CallTimeout), timeout(0.5), batch() as b:
        firsts = [b.call(m.note, n) for n in range(count)]
        second, third = b.call(m.sleep, 60), b.call(m.note, -1)
    assert [each.result() for each in firsts] == list(range(1, count + 1))
    for each in (second, third):
        assert isinstance(each.exception(), CallTimeout)
    assert m.events == list(range(count))


def test_a_batch_whose_daemon_dies(m: Any) -> None:
    """Everything that has no answer says so."""
    module = spawny.run_script(SCRIPT)
    with pytest.raises(spawny.DaemonDied), batch() as b:
        first = b.call(module.note, 1)
        last = b.call(module.os.kill, module.pid(), signal.SIGKILL)
    assert first.result() == 1
    assert isinstance(last.exception(), spawny.DaemonDied)


def test_a_batch_is_sent_once(m: Any) -> None:
    """It takes no calls when it is over, nor may its block be entered again."""
    with batch() as b:
        b.call(m.note, 1)
    with pytest.raises(spawny.InvalidRequest, match="is over"):
        b.call(m.note, 2)
    with pytest.raises(spawny.InvalidRequest, match="is over"), b:
        pass
    assert m.events == [1]


def test_a_result_wanted_within_the_batch(m: Any) -> None:
    """Says when there will be one, rather than wait for ever; another thread may wait."""
    with ThreadPoolExecutor(1) as pool, batch() as b:
        future = b.call(m.identity, 1)
        with pytest.raises(spawny.InvalidRequest, match="with"):
            future.result()
        elsewhere = pool.submit(future.result)
    assert elsewhere.result() == future.result() == 1


def test_a_call_of_a_batch_that_is_cancelled(m: Any) -> None:
    """It is not made; the others are."""
    with batch() as b:
        futures = [b.call(m.note, n) for n in range(3)]
        assert futures[1].cancel()
    assert [each.result() for each in futures if not each.cancelled()] == [1, 2]
    assert m.events == [0, 2]


def test_a_batch_for_a_daemon_that_was_started_anew(home: Path) -> None:
    """A call is made once there; one of an object of the run before is not made at all."""
    root = spawny.run_object([], name="anew", restart="always")
    thing = ref(root.__iter__)()
    kill(spawny.daemon(root).pid)
    with batch() as b:
        b.call(root.append, 1)
    assert root == [1]
    with pytest.raises(StaleReference), batch() as b:
        b.call(thing.__next__)
    with pytest.raises(StaleReference), batch() as b:
        future = b.call(root.append, 2)
        kill(spawny.daemon(root).pid)
        root.append(0)  # which attaches to the next one
    assert isinstance(future.exception(), StaleReference)
    assert root == [0]
    root.terminate_daemon()


def test_what_does_not_load_of_a_batch_whose_callbacks_call(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes as a proxy, though the references that the calls give back pass it on the way."""
    (tmp_path / "there.py").write_text("class There:\n    n = 7\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    m = spawny.run_script(SCRIPT + "from there import There\n")
    monkeypatch.undo()

    def release() -> None:
        m.make()
        released: Any = reference_of(m).session._references.released  # type: ignore[union-attr]
        released.append((10**9, 1))  # as of a collected proxy
        m.identity(1)

    with batch() as b:
        first = b.call(m.There)
        second = b.call(m.call, callback(release))
    assert first.result().n == 7
    assert second.result() is None
    m.terminate_daemon()


def test_a_batch_is_for_one_daemon(m: Any) -> None:
    other = spawny.run_script(SCRIPT)
    with pytest.raises(spawny.InvalidRequest, match="one daemon"), batch() as b:
        b.call(m.note, 1)
        b.call(other.note, 1)


def test_ctrl_c_gives_up_a_turn_at_once(home: Path, tmp_path: Path) -> None:
    """A call that waits for another client's is withdrawn, and does not wait any longer."""
    path = tmp_path / "go"
    m = spawny.run_script(SCRIPT, name="shared")
    note = m.note  # to be looked up while nobody is in the way
    with ThreadPoolExecutor(1) as pool:
        busy = pool.submit(lambda: m.stubborn(str(path)))
        assert eventually(lambda: Path(f"{path}.begun").exists())
        script = """
            import os, signal, threading, spawny
            from spawny.client.channel import Channel
            m = spawny.attach("shared")
            wait = Channel._wait
            def answer(self, *args):  # once it waits
                threading.Timer(0, os.kill, (os.getpid(), signal.SIGINT)).start()
                return wait(self, *args)
            Channel._wait = answer
            try:
                m.terminate
            except KeyboardInterrupt:
                print("given up", flush=True)
        """
        with Script(script) as client:
            assert client.until("given") == "given up"
        path.touch()
        assert busy.result() == "done"
    note(1)
    assert m.events == [1]
    m.terminate_daemon()


@pytest.mark.parametrize("count", [0, 100])
def test_ctrl_c_ends_a_batch(m: Any, tmp_path: Path, count: int) -> None:
    """The call under way is interrupted, the rest does not run."""
    begun = tmp_path / "begun"

    def press() -> None:
        assert eventually(begun.exists)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=press)
    thread.start()
    with pytest.raises(KeyboardInterrupt), batch() as b:
        for n in range(count):
            b.call(m.note, n)
        b.call(m.touch_and_wait, str(begun))
        b.call(m.note, -1)
    thread.join()
    assert m.events == list(range(count))
