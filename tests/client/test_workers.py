"""Executors with a name: which daemon a call goes to, and what the next program finds."""

import operator
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

import spawny
from spawny import Executor
from tests.end_to_end.processes import Script, eventually, kill
from tests.interpreters import Interpreter

pytestmark = pytest.mark.one_supervisor


@pytest.fixture(autouse=True)
def stopped(home: Path) -> Iterator[None]:
    """The daemons of the test have names, and are stopped after it."""
    yield
    with spawny.connect() as supervisor:
        for each in supervisor.list():
            with suppress(spawny.DaemonNotFound):  # it has ended by itself meanwhile
                supervisor.stop(each.name)


def names() -> list[str]:
    """Of the daemons that run."""
    with spawny.connect() as supervisor:
        return [each.name for each in supervisor.list() if each.state in ("ready", "busy")]


class Held:
    """A call that runs until it is let go."""

    def __init__(self, executor: Executor, folder: Path) -> None:
        self._fifo = folder / f"fifo-{id(self)}"
        os.mkfifo(self._fifo)
        self.future = executor.submit(Path.write_text, self._fifo, "")

    def let_go(self) -> None:
        self._fifo.read_text()
        self.future.result(60)


def is_busy(name: str) -> bool:
    with spawny.connect() as supervisor:
        return supervisor.status(name).busy_call is not None


def test_the_next_program_finds_them_warm(interpreter: Interpreter) -> None:
    """They are named by the executor's name, outlive it, and need not be started again."""
    with Executor(2, name="workers", python_exe=interpreter.path) as executor:
        pid = executor.submit(os.getpid).result()
        assert list(executor.map(operator.add, range(9), range(9))) == list(range(0, 18, 2))
    assert names()[0] == "workers-1"
    with Executor(2, name="workers", python_exe=interpreter.path) as executor:
        assert executor.submit(os.getpid).result() == pid


def test_no_lease_is_left(home: Path) -> None:
    """With an idle_timeout they end after the last program that uses them."""
    with Executor(1, name="workers", idle_timeout=0.1) as executor:
        executor.submit(os.getpid).result()
    assert eventually(lambda: names() == [])
    executor = Executor(1, name="workers", idle_timeout=0.1)
    executor.submit(os.getpid).result()
    executor.shutdown(wait=False)
    assert eventually(lambda: names() == [])


def test_calls_go_to_the_idle_ones(tmp_path: Path) -> None:
    """Also around those that are busy with a call of another program."""
    with Script(
        """
        import spawny, sys
        from pathlib import Path
        with spawny.Executor(2, name="workers") as executor:
            calls = [executor.submit(Path.write_text, Path(sys.argv[1]), "")]
            input()
        """,
        str(tmp_path / "fifo"),
    ) as other:
        os.mkfifo(tmp_path / "fifo")
        assert eventually(lambda: names() == ["workers-1"] and is_busy("workers-1"))
        with Executor(2, name="workers") as executor:
            first = {executor.submit(os.getpid).result() for _ in range(5)}
            assert len(first) == 1
        assert names() == ["workers-1", "workers-2"]
        assert is_busy("workers-1")
        (tmp_path / "fifo").read_text()
        other.tell()
        assert other.end()[0] == 0


def test_where_all_are_busy(tmp_path: Path) -> None:
    """A call waits for one of them, and is carried out then."""
    with Executor(1, name="workers") as first, Executor(1, name="workers") as second:
        held = Held(first, tmp_path)
        assert eventually(lambda: "workers-1" in names() and is_busy("workers-1"))
        waiting = second.submit(os.getpid)
        assert eventually(lambda: _clients("workers-1") == 2)
        assert not waiting.done()
        held.let_go()
        assert waiting.result(60) == first.submit(os.getpid).result()


def _clients(name: str) -> int:
    with spawny.connect() as supervisor:
        return supervisor.status(name).clients


def test_a_dead_one_is_replaced() -> None:
    """The call whose daemon dies raises DaemonDied; the next has a new one, under the same name."""
    with Executor(1, name="workers") as executor:
        pid = executor.submit(os.getpid).result()
        with pytest.raises(spawny.DaemonDied):
            executor.submit(os.kill, pid, 9).result()
        assert executor.submit(os.getpid).result() != pid
        again = executor.submit(os.getpid).result()
        kill(again)
        assert executor.submit(os.getpid).result() not in (pid, again)
    assert names() == ["workers-1"]


def test_spares() -> None:
    """They are started in the background, take the place of one that dies, and are made anew."""
    with Executor(1, name="workers", spares=1) as executor:
        pid = executor.submit(os.getpid).result()
        assert eventually(lambda: names() == ["workers-1", "workers-2"])
        with spawny.connect() as supervisor:
            spare = supervisor.status("workers-2").pid
        kill(pid)
        assert eventually(lambda: "workers-1" not in names())
        assert executor.submit(os.getpid).result() == spare
        assert eventually(lambda: names() == ["workers-1", "workers-2"])


def test_each_is_initialized_once() -> None:
    """By whichever program comes first; one that was restarted is initialized again."""
    command = 'test "$A" = b && test -z "$TWICE"'
    for _ in range(2):
        with Executor(1, name="workers", initializer=_initialize, restart="always") as executor:
            assert executor.submit(os.system, command).result() == 0
    with Executor(1, name="workers", initializer=_initialize, restart="always") as executor:
        pid = executor.submit(os.getpid).result()
        kill(pid)
        with spawny.connect() as supervisor:
            assert eventually(
                lambda: (now := supervisor.status("workers-1")).state == "ready" and now.pid != pid
            )
        assert executor.submit(os.system, command).result() == 0


def _initialize() -> None:
    if "A" in os.environ:
        os.environ["TWICE"] = "1"
    os.environ["A"] = "b"


def test_a_name_that_is_taken() -> None:
    """By a daemon of something else: the calls say so, and it is left alone."""
    root = spawny.run_script("x = 1", name="workers-1")
    with Executor(1, name="workers") as executor:
        future = executor.submit(os.getpid)
    with pytest.raises(spawny.DaemonExists):
        future.result()
    assert root.x == 1


def test_options() -> None:
    """A name makes sense of some, and spares of none but with one."""
    for wrong, said in (
        ({"name": "a/b"}, "a/b"),
        ({"name": "n" * 64}, "64"),
        ({"spares": 1}, "spares"),
        ({"name": "n", "spares": -1}, "spares"),
        ({"name": "n", "if_exists": "replace"}, "if_exists"),
        ({"idle_timeout": 1}, "idle_timeout"),
    ):
        with pytest.raises(spawny.InvalidRequest, match=said):
            Executor(1, **wrong)  # type: ignore[arg-type]
