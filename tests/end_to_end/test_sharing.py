"""One daemon, several users: threads, processes, forks, and all of them at the start at once."""

import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import spawny
from tests.end_to_end.processes import PATIENCE_SECONDS, Script, is_gone, kill, pause

pytestmark = [pytest.mark.usefixtures("home"), pytest.mark.one_supervisor]

ECHO = """
import os
def echo(*args):
    return args
def pid():
    return os.getpid()
class Counter:
    def __init__(self):
        self.n = 0
    def add(self, by):
        self.n += by
        return self.n
def make():
    return Counter()
"""


def test_threads() -> None:
    """Eight threads call at once; each gets its own answers."""
    echo = spawny.run_script(ECHO).echo

    def work(thread: int) -> bool:
        return all(echo(thread, n, "x" * n) == (thread, n, "x" * n) for n in range(300))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))


def test_threads_share_one_object() -> None:
    """Calls are carried out one at a time: no update is lost."""
    counter = spawny.run_script(ECHO).make()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: counter.add(1), range(400)))
    assert counter.n == 400


def test_processes() -> None:
    """Two processes call one named daemon at once; each gets its own answers."""
    keep = spawny.run_script(ECHO, name="shared")
    script = """
        import sys, spawny
        echo = spawny.attach("shared").echo
        assert all(echo(sys.argv[1], n) == (sys.argv[1], n) for n in range(1000))
        print("right", spawny.attach("shared").pid())
    """
    with Script(script, "a") as first, Script(script, "b") as second:
        assert first.line() == second.line() == f"right {keep.pid()}"
    keep.terminate_daemon()


def test_more_clients_than_the_daemons_queue_holds() -> None:
    """They wait their turn; none is told that nobody is there."""
    module = spawny.run_script(ECHO, name="sought")
    pid = module.pid()
    pause(pid)
    with ThreadPoolExecutor(200) as pool:
        attached = [pool.submit(lambda: spawny.attach("sought").pid()) for _ in range(200)]
        os.kill(pid, signal.SIGCONT)
        assert {each.result(PATIENCE_SECONDS) for each in attached} == {pid}
    module.terminate_daemon()


def test_forked_child() -> None:
    """A child of a fork calls through connections of its own, and its end ends nothing of ours."""
    module = spawny.run_script(ECHO)
    counter = module.make()
    read, write = os.pipe()
    child = os.fork()
    if not child:
        try:
            total = sum(module.echo(n)[0] for n in range(200))
            os.write(write, f"{total} {counter.add(1)}".encode())
        finally:
            os._exit(0)
    assert all(module.echo(n, "parent") == (n, "parent") for n in range(200))
    os.waitpid(child, 0)
    assert os.read(read, 100) == b"19900 1"
    assert counter.add(1) == 2
    os.close(read)
    os.close(write)


def test_fork_in_the_middle_of_a_call(tmp_path: Path) -> None:
    """A child forked while another thread waits for its answer neither hangs nor steals it."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    module = spawny.run_script(
        ECHO + f"def wait():\n    with open({str(fifo)!r}) as file:\n        return file.read()\n"
    )
    answers: list[str] = []
    caller = threading.Thread(target=lambda: answers.append(module.wait()))
    caller.start()
    with open(fifo, "w") as go:
        child = os.fork()
        if not child:
            # Its call waits behind the parent's, and for that the parent's must be let go.
            go.write("answer")
            go.close()
            os._exit(0 if module.echo("child") == ("child",) else 1)
        go.close()
        assert os.waitpid(child, 0)[1] == 0
    caller.join(PATIENCE_SECONDS)
    assert answers == ["answer"]


def test_forked_child_outlives_the_parents_proxies() -> None:
    """A child that has attached keeps the daemon when its parent lets go."""
    with Script(
        """
        import gc, os, spawny
        module = spawny.run_script("import os\\ndef pid():\\n    return os.getpid()")
        print("pid", module.pid(), flush=True)
        go_read, go_write = os.pipe()
        if os.fork():
            os.read(go_read, 1)
            os._exit(0)  # with its proxies
        module.pid()
        os.write(go_write, b"!")
        os.close(go_write)
        print("child", module.pid(), flush=True)
        """
    ) as client:
        pid = int(client.until("pid").split()[1])
        assert client.until("child") == f"child {pid}"
        client.end()
        assert is_gone(pid)


def test_forked_child_of_a_daemon_that_was_started_anew() -> None:
    """Its references are of the daemon before, and mean no object of the one that runs now."""
    module = spawny.run_script(ECHO, name="anew", restart="always")
    counter = module.make()
    go_read, go_write = os.pipe()
    read, write = os.pipe()
    child = os.fork()
    if not child:
        said = ""
        try:
            os.read(go_read, 1)
            try:
                said = f"{counter.add(1)}"
            except spawny.DaemonDied:
                said = f"died, then {module.make().add(1)}"
        finally:
            os.write(write, said.encode())
            os._exit(0)
    kill(spawny.daemon(module).pid)
    with pytest.raises(spawny.DaemonDied):
        counter.add(1)
    others = [module.make() for _ in range(5)]
    os.write(go_write, b"!")
    assert os.read(read, 100) == b"died, then 1"
    os.waitpid(child, 0)
    assert [each.add(1) for each in others] == [1] * 5
    module.terminate_daemon()
    for fd in (go_read, go_write, read, write):
        os.close(fd)


def test_daemon_that_forks_does_not_keep_its_clients_waiting() -> None:
    """A child of a daemon holds no connection: the daemon's death is seen at once."""
    module = spawny.run_script(
        """
import os, signal
def fork():
    child = os.fork()
    if child == 0:
        signal.pause()
        os._exit(0)
    return child
def die():
    os.kill(os.getpid(), signal.SIGKILL)
"""
    )
    child = module.fork()
    with pytest.raises(spawny.DaemonDied, match="SIGKILL"):
        module.die()
    assert is_gone(child)


@pytest.mark.own_supervisor
@pytest.mark.parametrize("round_", range(4))
def test_fifty_cold_starts(round_: int) -> None:
    """50 processes that start at the same moment get one supervisor and 50 right answers."""
    script = (
        "import sys, spawny\n"
        "sys.stdin.read()\n"
        "module = spawny.run_script('def double(n): return 2 * n', name='one')\n"
        "print(module.double(int(sys.argv[1])), spawny.daemon(module).pid,"
        " spawny.connect().version().pid)\n"
    )
    clients = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(n)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for n in range(50)
    ]
    for client in clients:
        assert client.stdin is not None
        client.stdin.close()
        client.stdin = None
    answers = [client.communicate(timeout=100) for client in clients]
    assert [error for _, error in answers if error] == []
    fields = [out.splitlines()[-1].split() for out, _ in answers]
    assert [int(answer) for answer, _, _ in fields] == [2 * n for n in range(50)]
    assert len({daemon for _, daemon, _ in fields}) == 1
    assert len({supervisor for _, _, supervisor in fields}) == 1
    spawny.attach("one").terminate_daemon()
