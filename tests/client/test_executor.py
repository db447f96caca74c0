"""The executor's daemons: what travels, what dies, what is left."""

import gc
import operator
import os
import signal
import time
from concurrent.futures import BrokenExecutor
from pathlib import Path

import pytest

import spawny
from spawny import Executor
from tests.end_to_end.processes import Script, is_gone, kill
from tests.interpreters import Interpreter

pytestmark = [pytest.mark.usefixtures("home"), pytest.mark.one_supervisor]


def test_under_any_interpreter(interpreter: Interpreter) -> None:
    """Functions that the daemon can import need nothing there; results come back as values."""
    with Executor(2, python_exe=interpreter.path) as executor:
        assert list(executor.map(operator.add, range(5), range(5))) == [0, 2, 4, 6, 8]
        assert executor.submit(os.getpid).result() != os.getpid()
        assert list(executor.map(pow, range(7), range(7), chunksize=3)) == [
            pow(n, n) for n in range(7)
        ]


def test_code_of_the_script_travels() -> None:
    """A lambda goes by value to a daemon of the same version."""
    with Executor(1) as executor:
        assert executor.submit(lambda x, *, y: x * y, 6, y=7).result() == 42


def test_workers_are_processes_and_end_with_the_executor() -> None:
    """One daemon for each worker, at most; none is left after the shutdown."""
    with Executor(2) as executor:
        pids = set(executor.map(_pid_after, [0.01] * 10))
    assert 1 <= len(pids) <= 2
    assert all(is_gone(pid) for pid in pids)


def _pid_after(seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()


def test_an_executor_that_is_dropped_ends_its_daemons() -> None:
    """Without a shutdown, too."""
    executor = Executor(1)
    pid = executor.submit(os.getpid).result()
    del executor
    gc.collect()
    assert is_gone(pid)


def test_exceptions_have_their_remote_traceback() -> None:
    """The real class is raised, and says where it came from."""
    with Executor(1) as executor:
        error = executor.submit(operator.truediv, 1, 0).exception()
    assert isinstance(error, ZeroDivisionError)
    assert isinstance(error.__cause__, spawny.RemoteTraceback)


def test_what_cannot_be_copied_stays_there() -> None:
    """Its proxy keeps the daemon alive past the end of the executor."""
    with Executor(1) as executor:
        pid = executor.submit(os.getpid).result()
        lock = executor.submit(_make_lock).result()
    assert not lock.locked()
    del lock
    gc.collect()
    assert is_gone(pid)


def _make_lock() -> object:
    import threading

    return threading.Lock()


def test_a_daemon_that_dies_costs_its_call_alone() -> None:
    """That call raises DaemonDied, once; the worker's next call has a new daemon."""
    with Executor(1) as executor:
        pid = executor.submit(os.getpid).result()
        dead = executor.submit(os.kill, pid, signal.SIGKILL)
        after = executor.submit(os.getpid)
        with pytest.raises(spawny.DaemonDied):
            dead.result()
        assert after.result() != pid


def test_a_daemon_that_died_between_calls_is_replaced() -> None:
    """No call pays for that."""
    with Executor(1) as executor:
        pid = executor.submit(os.getpid).result()
        kill(pid)
        assert executor.submit(os.getpid).result() not in (pid, os.getpid())


def test_every_daemon_is_initialized() -> None:
    """The one that takes a dead one's place, too."""
    with Executor(1, initializer=os.putenv, initargs=("A", "b")) as executor:
        assert executor.submit(os.system, 'test "$A" = b').result() == 0
        kill(executor.submit(os.getpid).result())
        assert executor.submit(os.system, 'test "$A" = b').result() == 0


def test_an_initializer_that_fails_breaks_the_executor(caplog: pytest.LogCaptureFixture) -> None:
    """As that of any other executor."""
    with Executor(1, initializer=operator.truediv, initargs=(1, 0)) as executor:
        with pytest.raises(BrokenExecutor):
            executor.submit(os.getpid).result()
        with pytest.raises(BrokenExecutor):
            executor.submit(os.getpid)
    assert "division by zero" in caplog.text
    caplog.clear()  # the traceback in it has the daemon's proxy


def test_a_daemon_that_cannot_start_says_why() -> None:
    """Each call has the error of the start, with or without an initializer."""
    for options in ({}, {"initializer": os.getpid}):
        with Executor(1, python_exe="9.9", **options) as executor:
            future = executor.submit(os.getpid)
        with pytest.raises(spawny.InterpreterNotFound):
            future.result()


def test_options_of_the_daemons() -> None:
    """They are those of run_script, but for names and lives of their own."""
    with Executor(1, preload=("wave",), env={"SHOP": "open"}, cwd="/") as executor:
        assert executor.submit(eval, "'wave' in __import__('sys').modules").result()
        assert executor.submit(os.getenv, "SHOP").result() == "open"
        assert executor.submit(os.getcwd).result() == "/"
    with pytest.raises(spawny.InvalidRequest, match="'restart'"):
        Executor(1, restart="always")
    with pytest.raises(spawny.InvalidRequest, match="nmae"):
        Executor(1, nmae="x")  # type: ignore[call-arg]


def test_what_is_queued_can_be_cancelled(tmp_path: Path) -> None:
    """Also by the shutdown."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with Executor(1) as executor:
        running = executor.submit(Path.read_text, fifo)
        queued = executor.submit(os.getpid)
        assert queued.cancel()
        with fifo.open("w"):  # which waits until the call has opened the other end
            last = executor.submit(os.getpid)
            executor.shutdown(wait=False, cancel_futures=True)
            assert last.cancelled()
        assert running.result() == ""


def test_the_end_of_the_script_finishes_what_is_queued() -> None:
    """As that of a script with any other executor; no daemon stays."""
    with Script(
        """
        import os, spawny
        executor = spawny.Executor(1)
        print(executor.submit(os.getpid).result())
        for text in ("one", "two"):
            executor.submit(print, text, flush=True)
        """
    ) as script:
        pid = int(script.line())
        code, out, _ = script.end()
        assert (code, out) == (0, "one\ntwo\n")
        assert is_gone(pid)
