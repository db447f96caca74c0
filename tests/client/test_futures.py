"""Submitted calls: their order, their cancellation, and what the end of anything does to them."""

import concurrent.futures
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import spawny
from spawny import submit
from spawny.client.proxy import reference_of
from tests.end_to_end.processes import PATIENCE_SECONDS, Script, eventually, is_gone, kill
from tests.interpreters import Interpreter

pytestmark = [pytest.mark.usefixtures("home"), pytest.mark.one_supervisor]

SCRIPT = """
import asyncio, os, threading, time

calls = []
go = threading.Event()

def call(x):
    calls.append(x)
    return x

def fail():
    raise KeyError("no")

def wait(path=None):
    if path:
        open(path, "w").close()
    go.wait(60)
    return "went on"

def apply(function, *args):
    return function(*args)

def pid():
    return os.getpid()

def lock():
    return threading.Lock()

def interrupt():
    raise KeyboardInterrupt

async def add(a, b):
    await asyncio.sleep(0)
    return a + b

async def fail_later():
    await asyncio.sleep(0)
    raise KeyError("later")

async def apply_later(function, *args):
    await asyncio.sleep(0)
    return function(*args)

async def fork():
    child = os.fork()
    return os.waitpid(child, 0)[1] if child else None

async def leave_behind():
    asyncio.ensure_future(fail_later())

started, cleaned = [], []

async def forever():
    started.append(1)
    try:
        await asyncio.Event().wait()
    finally:
        cleaned.append(1)

def counts():
    return len(started), len(cleaned)
"""


@pytest.fixture
def module(home: Path) -> Iterator[Any]:
    module = spawny.run_script(SCRIPT)
    yield module
    module.terminate_daemon()  # pytest holds on to a fixture's value


def busy(wait: Any, path: Path) -> Any:
    """The future of a call that runs there by now, until it is interrupted."""
    os.mkfifo(path)
    future = submit(wait, str(path))
    path.open().close()  # until the call has opened the other end
    return future


def test_results_and_errors_under_any_interpreter(interpreter: Interpreter) -> None:
    """Of functions and methods; an exception has its remote traceback."""
    module = spawny.run_script(SCRIPT, python_exe=interpreter.path)
    assert submit(module.call, 1).result() == 1
    assert submit(module.calls.index, 1).result() == 0
    error = submit(module.fail).exception()
    assert type(error) is KeyError
    assert isinstance(error.__cause__, spawny.RemoteTraceback)
    assert submit(module.call, x=2).result() == 2


def test_a_coroutine_function_gives_its_awaited_result(interpreter: Interpreter) -> None:
    """While it waits there, other calls run; its error is raised here."""
    module = spawny.run_script(SCRIPT, python_exe=interpreter.path)
    waiting = submit(module.forever)
    assert submit(module.add, 1, 2).result() == 3
    assert submit(module.call, 5).result() == 5
    with pytest.raises(KeyError, match="later"):
        submit(module.fail_later).result()
    assert not waiting.done()
    assert waiting.running()
    assert waiting.cancel()
    assert eventually(lambda: module.counts() == (1, 1))


def test_thousands_in_flight(module: Any) -> None:
    """They are carried out in order, by one thread."""
    before = threading.active_count()
    futures = [submit(module.call, n) for n in range(2000)]
    assert threading.active_count() <= before + 1
    assert [each.result() for each in futures] == list(range(2000))
    assert spawny.value(module.calls) == list(range(2000))


def test_what_stays_there_comes_as_a_proxy(module: Any) -> None:
    """As the result of an ordinary call."""
    assert not submit(module.lock).result().locked()


def test_what_cannot_travel(module: Any) -> None:
    """The future has the error, and others go on."""
    assert isinstance(submit(module.call, threading.Lock()).exception(), spawny.SerializationError)
    assert submit(module.call, 1).result() == 1


def test_only_proxies_can_be_submitted() -> None:
    """There would be no daemon to submit it to."""
    with pytest.raises(spawny.InvalidRequest):
        submit(len, [])


def test_a_queued_call_is_cancelled_for_certain(module: Any, tmp_path: Path) -> None:
    """It never begins, and those in wait() hear of it."""
    call = module.call  # while the daemon is busy, looking it up would wait
    running = busy(module.wait, tmp_path / "fifo")
    queued, next_one = submit(call, "never"), submit(call, "next")
    assert not queued.running()
    assert queued.cancel() and queued.cancel()
    assert queued.cancelled()
    assert concurrent.futures.wait([queued, running], return_when="FIRST_COMPLETED").done == {
        queued
    }
    assert running.cancel()
    assert next_one.result() == "next"
    assert spawny.value(module.calls) == ["next"]


def test_a_running_call_is_interrupted(module: Any, tmp_path: Path) -> None:
    """At once cancelled here; the daemon goes on with the next call."""
    future = busy(module.wait, tmp_path / "fifo")
    assert future.running() and not future.done()
    assert future.cancel()
    assert future.cancelled() and not future.running()
    with pytest.raises(concurrent.futures.CancelledError):
        future.result()
    assert module.call(1) == 1


def test_a_call_that_is_over_cannot_be_cancelled(module: Any) -> None:
    """Its result stays."""
    future = submit(module.call, 1)
    assert future.result() == 1
    assert not future.cancel()
    assert not future.cancelled()


def test_a_deadline_holds_for_what_is_submitted_in_it(module: Any, tmp_path: Path) -> None:
    """Whether the call runs, waits in the line, or is awaited there."""
    call, forever, wait = module.call, module.forever, module.wait
    with spawny.timeout(2):
        awaited = submit(forever)
        # One that has not begun when it is cancelled has nothing to clean up.
        assert eventually(lambda: module.counts() == (1, 0))
        running = busy(wait, tmp_path / "fifo")
        queued = submit(call, "never")
    for future in (awaited, running, queued):
        assert isinstance(future.exception(PATIENCE_SECONDS), spawny.CallTimeout)
    assert eventually(lambda: module.counts() == (1, 1))
    assert spawny.value(module.calls) == []


def test_one_of_many_that_is_interrupted(module: Any) -> None:
    """Those that were sent along with it are carried out, each once, in order."""
    call, interrupt = module.call, module.interrupt
    futures = [submit(call, n) for n in range(500)]
    failed = submit(interrupt)
    futures += [submit(call, n) for n in range(500, 1000)]
    assert [each.result(PATIENCE_SECONDS) for each in futures] == list(range(1000))
    assert isinstance(failed.exception(), KeyboardInterrupt)
    assert spawny.value(module.calls) == list(range(1000))


def test_one_of_many_that_is_cancelled(module: Any, tmp_path: Path) -> None:
    """The one that runs, or one that was sent behind it: no other is."""
    call, wait, go = module.call, module.wait, module.go
    os.mkfifo(tmp_path / "fifo")
    before = [submit(call, n) for n in range(500)]
    running = submit(wait, str(tmp_path / "fifo"))
    behind = [submit(call, n) for n in range(500, 1000)]
    (tmp_path / "fifo").open().close()
    assert behind[3].cancel() and running.cancel()
    rest = behind[:3] + behind[4:]
    assert [each.result(PATIENCE_SECONDS) for each in before + rest] == [
        n for n in range(1000) if n != 503
    ]
    assert behind[3].cancelled() and running.cancelled()
    called = spawny.value(module.calls)
    assert [n for n in called if n != 503] == [n for n in range(1000) if n != 503]
    assert go.is_set() is False


def test_what_stays_there_of_many(module: Any) -> None:
    """It comes as a proxy; what does not pickle in one costs no other anything."""
    lock, call = module.lock, module.call
    futures = [submit(lock if n % 10 == 0 else call, *[n][: n % 10]) for n in range(500)]
    for n, future in enumerate(futures):
        result = future.result(PATIENCE_SECONDS)
        assert isinstance(result, spawny.ObjectProxy) if n % 10 == 0 else result == n


def test_many_arguments_that_cannot_travel(module: Any) -> None:
    """Each is the error of its own call."""
    call = module.call
    futures = [submit(call, n if n % 7 else threading.Lock()) for n in range(300)]
    for n, future in enumerate(futures):
        if n % 7:
            assert future.result(PATIENCE_SECONDS) == n
        else:
            assert isinstance(future.exception(PATIENCE_SECONDS), spawny.SerializationError)


def test_the_first_callback_comes_among_many(module: Any) -> None:
    """What it waits for is not behind the call that calls it."""
    call, apply = module.call, module.apply
    before = [submit(call, n) for n in range(500)]
    waits = submit(apply, spawny.callback(lambda: submit(call, "within").result(PATIENCE_SECONDS)))
    behind = [submit(call, n) for n in range(500)]
    assert waits.result(PATIENCE_SECONDS) == "within"
    for futures in (before, behind):
        assert [each.result(PATIENCE_SECONDS) for each in futures] == list(range(500))


def test_a_daemon_that_knows_of_no_followers(module: Any) -> None:
    """One that was started by an earlier version is sent one call after the other."""
    call = module.call
    del reference_of(module).session.started["takes_followed"]
    futures = [submit(call, n) for n in range(300)]
    assert [each.result(PATIENCE_SECONDS) for each in futures] == list(range(300))


def test_the_death_of_the_daemon_reaches_many(module: Any) -> None:
    """What was sent, and what was not: each is made once, or says so."""
    call = module.call
    before = [submit(call, n) for n in range(500)]
    end = submit(module.os.kill, module.pid(), signal.SIGKILL)
    behind = [submit(call, n) for n in range(500)]
    assert isinstance(end.exception(PATIENCE_SECONDS), spawny.DaemonDied)
    for n, future in enumerate(before):
        error = future.exception(PATIENCE_SECONDS)
        assert future.result() == n if error is None else isinstance(error, spawny.DaemonDied)
    for future in behind:
        assert isinstance(future.exception(PATIENCE_SECONDS), spawny.DaemonDied)


def test_a_callback_may_wait_for_what_it_submits(module: Any) -> None:
    """Another thread makes those calls while the first is in the callback, to any depth."""

    call, apply = module.call, module.apply

    def deeper(depth: int) -> int:
        if not depth:
            return submit(call, "deep").result() and 1
        return 1 + submit(apply, spawny.callback(deeper), depth - 1).result()

    future = submit(apply, spawny.callback(deeper), 3)
    assert future.result(PATIENCE_SECONDS) == 4
    assert submit(module.call, 1).result() == 1


def test_a_coroutine_may_call_back(interpreter: Interpreter) -> None:
    """The callback may call the daemon, though its loop stands still meanwhile."""
    module = spawny.run_script(SCRIPT, python_exe=interpreter.path)
    call = module.call
    back = spawny.callback(lambda x: submit(call, x + 1).result())
    assert submit(module.apply_later, back, 1).result(PATIENCE_SECONDS) == 2
    module.terminate_daemon()  # PyPy may long hold the callback, and that holds the proxy


def test_a_coroutine_may_fork(interpreter: Interpreter) -> None:
    """The child ends when its step does: it takes no part in the daemon."""
    module = spawny.run_script(SCRIPT, python_exe=interpreter.path)
    waiting = submit(module.forever)
    assert submit(module.fork).result(PATIENCE_SECONDS) == 0
    assert module.counts() == (1, 0)
    assert waiting.cancel()


def test_an_exception_that_nobody_fetches_is_logged(module: Any) -> None:
    """As asyncio does: here, of a task that a coroutine has started and left."""
    submit(module.leave_behind).result()
    assert eventually(lambda: "KeyError: 'later'" in list(spawny.daemon(module).logs()))


def test_a_future_keeps_its_daemon_alive() -> None:
    """As long as its call is not over."""
    module = spawny.run_script(SCRIPT)
    future = submit(module.pid)
    del module
    pid = future.result()
    assert is_gone(pid)


def test_a_dropped_future_is_made_all_the_same(module: Any) -> None:
    """Nobody may know whether it was read."""
    submit(module.call, 1)
    submit(module.call, 2)
    assert submit(module.call, 3).result() == 3
    assert spawny.value(module.calls) == [1, 2, 3]


def test_the_death_of_the_daemon_reaches_every_future(module: Any, tmp_path: Path) -> None:
    """The one that runs, those that wait, and those whose tasks run there."""
    call = module.call
    awaited = [submit(module.forever) for _ in range(3)]
    running = busy(module.wait, tmp_path / "fifo")
    queued = [submit(call, n) for n in range(3)]
    kill(spawny.daemon(module).pid)
    for future in (*awaited, running, *queued):
        error = future.exception(PATIENCE_SECONDS)
        assert isinstance(error, spawny.DaemonDied)
        assert error.signal_name == "SIGKILL"


def test_the_death_of_the_daemon_while_tasks_alone_wait(module: Any) -> None:
    """No request is under way that could notice; its connection tells."""
    futures = [submit(module.forever) for _ in range(3)]
    assert eventually(lambda: module.counts() == (3, 0))
    kill(spawny.daemon(module).pid)
    for future in futures:
        assert isinstance(future.exception(PATIENCE_SECONDS), spawny.DaemonDied)


def test_an_ended_daemon_tells_its_futures(module: Any) -> None:
    """Also where this very process has ended it."""
    future = submit(module.forever)
    assert eventually(lambda: module.counts() == (1, 0))
    module.terminate_daemon()
    with pytest.raises(spawny.DaemonDied, match="terminate_daemon"):
        future.result(PATIENCE_SECONDS)


def test_the_end_of_the_script_finishes_what_was_submitted(tmp_path: Path) -> None:
    """The line, and the tasks that run there; then the daemon ends."""
    with Script(
        """
        import sys, spawny
        module = spawny.run_script('''
        import asyncio, os
        async def later(path):
            await asyncio.sleep(0.1)
            open(path, "w").close()
        '''.replace("        ", "", 3).replace("            ", "    "))
        print("pid", spawny.daemon(module).pid)
        spawny.submit(module.later, sys.argv[1])
        for n in range(100):
            spawny.submit(module.os.getpid)
        """,
        str(tmp_path / "done"),
    ) as script:
        pid = int(script.until("pid").split()[1])
        assert script.end()[0] == 0
    assert (tmp_path / "done").exists()
    assert is_gone(pid)


def test_ctrl_c_while_the_end_of_the_script_waits() -> None:
    """It is waited for no longer, and the daemon ends with its client."""
    with Script(
        """
        import threading, spawny
        module = spawny.run_script("import os, time\\ndef wait():\\n time.sleep(60)")
        spawny.submit(module.os.getpid).result()
        # Done before what concurrent.futures has registered.
        threading._register_atexit(print, "ending")
        print("pid", spawny.daemon(module).pid)
        spawny.submit(module.wait)
        """
    ) as script:
        pid = int(script.until("pid").split()[1])
        script.until("ending")
        script.process.send_signal(signal.SIGINT)
        script.end()
        kill(pid)  # its call goes on to its end


def test_a_forked_child_begins_anew(module: Any) -> None:
    """It has no thread of its parent's, and submits by itself."""
    assert submit(module.call, "parent").result() == "parent"
    child = os.fork()
    if not child:
        code = 1
        try:
            code = int(submit(module.call, "child").result(PATIENCE_SECONDS) != "child")
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    assert submit(module.call, "parent").result() == "parent"


def test_the_end_of_the_script_comes_before_a_callback(tmp_path: Path) -> None:
    """Nobody can take the worker's place any more: it makes the others when its own is over."""
    fifo, second = tmp_path / "fifo", tmp_path / "second"
    os.mkfifo(fifo)
    with Script(
        """
        import concurrent.futures.thread as pool, os, spawny, sys, threading
        m = spawny.run_script("def call(path, f):\\n open(path).close()\\n return f()\\nimport os")
        mkdir = m.os.mkdir
        def release():
            while not pool._shutdown:
                os.sched_yield()
            open(sys.argv[1], "w").close()
        threading.Thread(target=release, daemon=True).start()
        called = spawny.submit(m.call, sys.argv[1], spawny.callback(lambda: "called"))
        called.add_done_callback(lambda future: print(future.result()))
        spawny.submit(mkdir, sys.argv[2])
        """,
        str(fifo),
        str(second),
    ) as script:
        script.until("called")
        assert script.end()[:2] == (0, "")
    assert second.exists()


def test_no_thread_can_be_started() -> None:
    """The error is told, and what is submitted later is made."""
    with Script(
        """
        import spawny, threading
        m = spawny.run_script("def identity(x): return x")
        start = threading.Thread.start
        def fail(thread):
            raise RuntimeError("can't start new thread")
        threading.Thread.start = fail
        try:
            spawny.submit(m.identity, 0)
        except RuntimeError as error:
            print(error)
        threading.Thread.start = start
        for number in range(4):
            print(spawny.submit(m.identity, number).result(60))
        """
    ) as script:
        script.until("can't start new thread")
        assert script.end()[:2] == (0, "0\n1\n2\n3\n")
