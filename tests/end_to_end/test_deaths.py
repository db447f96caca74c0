"""A client, the supervisor and a daemon, each killed at rest and in the middle of a call."""

import os
import signal
import threading
from pathlib import Path

import pytest

import spawny
from tests.end_to_end.processes import PATIENCE_SECONDS, Script, eventually, is_gone, kill, pause

pytestmark = [pytest.mark.usefixtures("home"), pytest.mark.one_supervisor]

WORKER = """
import os, signal, time
state = []
def remember(item):
    state.append(item)
    return len(state)
def wait_for(path):
    with open(path) as fifo:
        return fifo.read()
def pid():
    return os.getpid()
def die():
    os.kill(os.getpid(), signal.SIGKILL)
def leave(code):
    os._exit(code)
def child():
    return __import__("subprocess").Popen(["sleep", "1000"]).pid
def hide(**environ):
    # A daemon of the old kind: a session of its own, and no parent.
    import subprocess
    answer, tell = os.pipe()
    if os.fork() == 0:
        os.setsid()
        child = subprocess.Popen(["sleep", "1000"], env=environ or None)
        os.write(tell, str(child.pid).encode())
        os._exit(0)
    os.wait()
    return int(os.read(answer, 20))
def nest(name):
    import spawny
    return spawny.daemon(spawny.run_script("import os", name=name)).pid
"""


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    """Something to wait for: a reader blocks until the test writes."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    return path


def test_daemon_killed_in_a_call() -> None:
    """`DaemonDied` names the signal; what was done is not repeated."""
    worker = spawny.run_script(WORKER)
    with pytest.raises(spawny.DaemonDied, match=r"was killed by SIGKILL during .*logs") as caught:
        worker.die()
    assert caught.value.signal_name == "SIGKILL"


def test_daemon_that_exits_in_a_call() -> None:
    """`DaemonDied` tells the exit code, and the last output."""
    worker = spawny.run_script(WORKER + "print('last words')")
    with pytest.raises(spawny.DaemonDied, match="exited with code 3") as caught:
        worker.leave(3)
    assert caught.value.exit_code == 3
    assert "last words" in caught.value.output


def test_daemon_killed_at_rest() -> None:
    """The next call says so, the references are stale, and a new daemon takes the name."""
    worker = spawny.run_script(WORKER, name="worker")
    state = worker.state
    kill(spawny.daemon(worker).pid)
    with pytest.raises((spawny.DaemonDied, spawny.DaemonNotFound), match="SIGKILL"):
        worker.pid()
    with pytest.raises(spawny.StaleReference):
        state.append(1)
    again = spawny.run_script(WORKER, name="worker")
    assert again.remember("x") == 1
    again.terminate_daemon()


def test_restart_policy_brings_the_daemon_back() -> None:
    """With restart="on-failure" attach finds a new process; the root's proxy comes back by itself,
    but only after an error has told that the state is lost."""
    worker = spawny.run_script(WORKER, name="worker", restart="on-failure")
    first = worker.pid()
    worker.remember("x")
    with pytest.raises(spawny.DaemonDied):
        worker.die()
    again = spawny.attach("worker")
    assert again.pid() != first
    assert again.remember("y") == 1
    assert worker.remember("z") == 2
    assert spawny.daemon(again).status().restarts == 1
    again.terminate_daemon()


def test_the_death_of_another_daemon_is_not_ours() -> None:
    """A daemon whose code loses a daemon of its own passes the error on, and lives."""
    module = spawny.run_script(
        "class Thing: pass\nthing = Thing()\n"
        "def lose(script):\n    import spawny\n    spawny.run_script(script).die()\n"
    )
    thing = module.thing
    with pytest.raises(spawny.DaemonDied, match="SIGKILL"):
        module.lose(WORKER)
    thing.still = "there"
    assert thing.still == "there"


def test_children_of_a_killed_daemon_are_swept() -> None:
    """What a daemon started in its session does not outlive it."""
    worker = spawny.run_script(WORKER)
    child = worker.child()
    with pytest.raises(spawny.DaemonDied):
        worker.die()
    assert is_gone(child)


def test_hidden_children_of_a_killed_daemon_are_swept() -> None:
    """Those that took a session of their own and lost their parent, too."""
    worker = spawny.run_script(WORKER)
    hidden = worker.hide()
    with pytest.raises(spawny.DaemonDied):
        worker.die()
    assert is_gone(hidden)


def test_hidden_children_of_a_daemon_that_died_unseen_are_swept() -> None:
    """The next supervisor ends what a daemon left that died while none ran."""
    worker = spawny.run_script(WORKER, name="worker")
    hidden, pid = worker.hide(), worker.pid()
    kill(spawny.connect().version().pid)
    kill(pid)
    assert spawny.connect().list() == []
    assert is_gone(hidden)


def test_a_child_that_drops_the_mark_outlives_its_daemon() -> None:
    """That is what a program does that is to stay."""
    worker = spawny.run_script(WORKER)
    free = worker.hide(PATH=os.environ["PATH"])
    try:
        worker.terminate_daemon()
        assert spawny.connect().list() == []
        assert not is_gone(free, seconds=0)
    finally:
        kill(free)


def test_daemons_and_a_supervisor_started_by_a_daemon_outlive_it() -> None:
    """They are nobody's children."""
    worker = spawny.run_script(WORKER, name="worker")
    before = spawny.connect().version().pid
    kill(before)
    pid = worker.nest("nested")  # with it comes a supervisor
    with pytest.raises(spawny.DaemonDied):
        worker.die()
    supervisor = spawny.connect()
    assert eventually(lambda: [each.name for each in supervisor.list()] == ["nested"])
    assert supervisor.status("nested").pid == pid
    supervisor.stop("nested")


def test_supervisor_killed_at_rest() -> None:
    """Calls go on; the next request brings a supervisor that takes up what runs."""
    worker = spawny.run_script(WORKER, name="worker")
    worker.remember("x")
    before = spawny.connect().version().pid
    kill(before)
    assert worker.remember("y") == 2
    with spawny.connect() as supervisor:
        assert supervisor.version().pid != before
        (status,) = supervisor.list()
    assert (status.name, status.pid, status.state) == ("worker", worker.pid(), "ready")
    assert status.clients == 1
    worker.terminate_daemon()
    assert spawny.connect().list() == []


def test_supervisor_killed_in_a_call(fifo: Path) -> None:
    """A call under way neither fails nor notices."""
    worker = spawny.run_script(WORKER, name="worker")
    answers: list[str] = []
    caller = threading.Thread(target=lambda: answers.append(worker.wait_for(str(fifo))))
    caller.start()
    with open(fifo, "w") as go:
        kill(spawny.connect().version().pid)
        with spawny.connect() as supervisor:
            assert supervisor.status("worker").state == "busy"
        go.write("done")
    caller.join(PATIENCE_SECONDS)
    assert answers == ["done"]
    worker.terminate_daemon()


def test_killed_clients_unnamed_daemon_ends() -> None:
    """The system closes a killed client's connections, and the daemon ends with them."""
    with Script(
        f"""
        import spawny
        worker = spawny.run_script({WORKER!r})
        print("pid", worker.pid())
        input()
        """
    ) as client:
        pid = int(client.until("pid").split()[1])
        client.process.send_signal(signal.SIGKILL)
        assert is_gone(pid, seconds=1)


def test_killed_clients_unnamed_daemon_ends_in_a_call(fifo: Path) -> None:
    """Also while the call that it made still runs."""
    with Script(
        f"""
        import spawny
        worker = spawny.run_script({WORKER!r})
        print("pid", worker.pid())
        worker.wait_for({str(fifo)!r})
        """
    ) as client:
        pid = int(client.until("pid").split()[1])
        with open(fifo, "w"):  # returns when the daemon has opened it to read
            client.process.send_signal(signal.SIGKILL)
            assert is_gone(pid, seconds=1)


def test_killed_clients_references_are_released() -> None:
    """A named daemon lives on, but drops what only the killed client held."""
    ours = spawny.run_script(
        """
        import weakref
        class Thing: pass
        alive = weakref.WeakSet()
        def make():
            thing = Thing()
            alive.add(thing)
            return thing
        def count():
            return len(alive)
        """.replace("\n        ", "\n"),
        name="keeper",
    )
    with Script(
        """
        import spawny
        keeper = spawny.attach("keeper")
        things = [keeper.make() for _ in range(10)]
        print("holds", keeper.count())
        input()
        """
    ) as client:
        assert client.line() == "holds 10"
        assert ours.count() == 10
        client.process.send_signal(signal.SIGKILL)
        client.process.wait()
        # The lease ends with the process. The daemon learns of that on another connection than
        # ours, so a call of ours may be quicker.
        assert eventually(lambda: ours.count() == 0)
    ours.terminate_daemon()


def test_daemon_stopped_by_sigkill_while_loading() -> None:
    """A daemon that dies in its definition is a `DaemonStartError` that tells the signal."""
    with pytest.raises(spawny.DaemonStartError, match="SIGKILL"):
        spawny.run_script("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")


def test_a_stopped_supervisor_does_not_hold_up_the_error() -> None:
    """Without its word the error says less, but soon."""
    worker = spawny.run_script(WORKER)
    supervisor = spawny.connect().version().pid
    pause(supervisor)
    try:
        with pytest.raises(spawny.DaemonDied, match="closed the connection"):
            worker.die()
    finally:
        os.kill(supervisor, signal.SIGCONT)
