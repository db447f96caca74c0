"""Pools: which daemons they consist of, which of them a call goes to, and what one's end means."""

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

import spawny
from spawny.paths import locate
from tests.end_to_end.processes import Script, eventually, kill
from tests.interpreters import Interpreter

SCRIPT = """
import os
from os import getpid

class model:
    @staticmethod
    def predict(x, scale=2):
        return x * scale

def hold(path):
    with open(path):
        return os.getpid()

def die(times):
    with open(times, "a") as file:
        file.write("x")
    os._exit(3)
"""


@pytest.fixture
def config(home: Path) -> Iterator[Path]:
    """The file, beside a script; what it declares is stopped after the test."""
    folder = locate().config
    folder.mkdir(parents=True)
    (folder / "worker.py").write_text(SCRIPT)
    yield folder / "config.toml"
    with spawny.connect() as supervisor:
        for each in supervisor.list():
            with suppress(spawny.DaemonNotFound):  # it has ended by itself meanwhile
                supervisor.stop(each.name)


@pytest.fixture
def two(config: Path) -> Path:
    declare(config, 2)
    return config


def declare(config: Path, count: int, more: str = "") -> None:
    config.write_text(f"[daemons.worker]\nscript = 'worker.py'\ncount = {count}\n{more}")


def pids() -> dict[str, int | None]:
    with spawny.connect() as supervisor:
        return {each.name: each.pid for each in supervisor.list()}


def is_busy(name: str) -> bool:
    with spawny.connect() as supervisor:
        return supervisor.status(name).busy_call is not None


def test_the_declared_ones(config: Path, interpreter: Interpreter) -> None:
    """All of them are started; calls name what is in them, and come back in order."""
    declare(config, 3, f"python = '{interpreter.path}'")
    with spawny.pool("worker") as pool:
        assert pool.names == ("worker-1", "worker-2", "worker-3")
        assert [*pids()] == [*pool.names]
        assert pool.call("model.predict", 2) == 4
        assert pool.submit("model.predict", 2, scale=5).result(60) == 10
        assert list(pool.map("model.predict", range(20), range(20))) == [i * i for i in range(20)]
        assert pool.call("getpid") in pids().values()
    assert [*pids()] == ["worker-1", "worker-2", "worker-3"]


def test_those_that_run(config: Path) -> None:
    """Also what nobody has declared, whatever its number; not what has another name."""
    roots = [
        spawny.run_script(SCRIPT, name=name)
        for name in ("worker-10", "worker-2", "worker", "worker-x", "worker-02")
    ]
    with spawny.pool("worker") as pool:
        assert pool.names == ("worker-2", "worker-10")
        assert pool.call("model.predict", 1) == 2
    del roots


def test_where_there_is_none(config: Path) -> None:
    """The error says how to have one."""
    with pytest.raises(spawny.DaemonNotFound, match=r"declare \[daemons.worker\] with a count"):
        spawny.pool("worker")
    with pytest.raises(spawny.InvalidRequest, match="cannot name a daemon"):
        spawny.pool("a/b")


def test_one_that_does_not_come_up(config: Path) -> None:
    """Without an interpreter there is no pool; where the definition raises, each call does."""
    declare(config, 2, "python = '/no/python'")
    with pytest.raises(spawny.InterpreterNotFound, match="/no/python"):
        spawny.pool("worker")
    declare(config, 2)
    (config.parent / "worker.py").write_text("1 / 0")
    with spawny.connect() as supervisor:
        supervisor.reload()
    with spawny.pool("worker") as pool:
        for _ in range(3):
            with pytest.raises(ZeroDivisionError):
                pool.call("getpid")


def test_they_load_at_the_same_time(config: Path, tmp_path: Path) -> None:
    """None waits until the one before it has loaded, and neither does the pool's maker."""
    os.mkfifo(tmp_path / "fifo")
    declare(config, 2)
    (config.parent / "worker.py").write_text(f"open({str(tmp_path / 'fifo')!r}); x = int")
    with spawny.pool("worker") as pool:
        with spawny.connect() as supervisor:
            assert [each.state for each in supervisor.list()] == ["loading", "loading"]
        calls = [pool.submit("x", "7") for _ in range(2)]
        fifo = os.open(tmp_path / "fifo", os.O_RDWR)  # whoever opens it to read goes on
        assert [each.result(60) for each in calls] == [7, 7]
        os.close(fifo)


def test_calls_go_to_idle_ones(two: Path, tmp_path: Path) -> None:
    """Around those that run a call of this program, and those that run one of another; and no
    call is kept waiting while one is idle."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with spawny.pool("worker") as pool:
        held = pool.submit("hold", fifo)
        assert eventually(lambda: is_busy("worker-1") or is_busy("worker-2"))
        here = {pool.call("getpid") for _ in range(5)}
        with Script("import spawny\nprint(spawny.pool('worker').call('getpid'))") as other:
            assert {int(other.line())} == here
        fifo.write_text("")
        assert {held.result(60)} | here == set(pids().values())


def test_a_dead_one_is_started_anew(two: Path) -> None:
    """By its declaration, when a call needs it."""
    with spawny.pool("worker") as pool:
        before = pids()
        for pid in before.values():
            assert pid is not None
            kill(pid)
        assert pool.call("model.predict", 1) == 2
        assert set(map(pool.call, ["getpid"] * 3)).isdisjoint(before.values())


def test_a_call_is_made_at_most_once(two: Path, tmp_path: Path) -> None:
    """One whose daemon dies raises DaemonDied; others go on."""
    times = tmp_path / "times"
    with spawny.pool("worker") as pool:
        with pytest.raises(spawny.DaemonDied):
            pool.submit("die", times).result(60)
        with pytest.raises(spawny.DaemonDied):
            pool.call("die", times)
        assert list(pool.map("model.predict", range(5))) == [0, 2, 4, 6, 8]
    assert times.read_text() == "xx"


def test_one_that_nobody_declared_is_not_started_anew(config: Path) -> None:
    """A call that would need it says so."""
    pid = spawny.daemon(spawny.run_script(SCRIPT, name="worker-1")).pid
    with spawny.pool("worker") as pool:
        assert pool.call("getpid") == pid
        kill(pid)
        assert eventually(lambda: not pids())
        with pytest.raises(spawny.DaemonNotFound, match="worker-1"):
            pool.call("getpid")


def test_errors_are_those_of_the_call(two: Path) -> None:
    """Also for what there is not in a daemon; the pool goes on."""
    with spawny.pool("worker") as pool:
        with pytest.raises(AttributeError, match="nothing"):
            pool.call("model.nothing")
        with pytest.raises(TypeError):
            pool.submit("model.predict").result(60)
        with pytest.raises(TypeError, match="attribute name must be a string"):
            pool.call(print)  # type: ignore[arg-type]
        assert list(pool.map("model.predict", [1, 2, 3])) == [2, 4, 6]


def test_a_timeout_holds_for_a_call(two: Path, tmp_path: Path) -> None:
    """As for any call, and also while it waits in the line for a daemon."""
    os.mkfifo(tmp_path / "fifo")
    with spawny.pool("worker") as pool:
        pool.call("getpid")  # has attached to the one that is first in turn
        with pytest.raises(spawny.CallTimeout), spawny.timeout(0.2):
            pool.call("hold", tmp_path / "fifo")
        held = [pool.submit("hold", tmp_path / "fifo") for _ in range(2)]
        with pytest.raises(spawny.CallTimeout, match="waited too long"), spawny.timeout(0.2):
            pool.call("getpid")
        fifo = os.open(tmp_path / "fifo", os.O_RDWR)  # whoever opens it to read goes on
        assert {each.result(60) for each in held} == set(pids().values())
        os.close(fifo)


def test_a_closed_pool(two: Path) -> None:
    """It takes no calls and holds no daemon."""
    pool = spawny.pool("worker")
    assert pool.call("model.predict", 1) == 2
    pool.shutdown()
    for use in (pool.call, pool.submit):
        with pytest.raises(RuntimeError):
            use("model.predict", 1)
    with spawny.connect() as supervisor:
        assert eventually(lambda: all(not each.clients for each in supervisor.list()))
    assert repr(pool) == "<spawny pool 'worker' of 2>"


def test_ctrl_c_interrupts_a_call(two: Path, tmp_path: Path) -> None:
    """In its daemon, too; others go on, and the pool with them."""
    os.mkfifo(tmp_path / "fifo")
    with Script(
        """
        import spawny, sys
        with spawny.pool("worker") as pool:
            pool.call("getpid")
            print(1)
            try:
                pool.call("hold", sys.argv[1])
            except KeyboardInterrupt:
                print(pool.call("model.predict", 21))
        """,
        str(tmp_path / "fifo"),
    ) as script:
        assert script.line() == "1"
        assert eventually(lambda: is_busy("worker-1") or is_busy("worker-2"))
        script.process.send_signal(signal.SIGINT)
        assert script.line() == "42"
        assert script.end()[0] == 0
    assert eventually(lambda: not is_busy("worker-1") and not is_busy("worker-2"))


def test_ctrl_c_while_they_load(config: Path, tmp_path: Path) -> None:
    """The program has it at once, however long they take; it ends when they have loaded."""
    os.mkfifo(tmp_path / "fifo")
    (config.parent / "worker.py").write_text(f"open({str(tmp_path / 'fifo')!r})")
    declare(config, 2)
    with Script(
        """
        import spawny
        try:
            spawny.pool("worker").call("x")
        except KeyboardInterrupt:
            print(1)
        """
    ) as script:
        with spawny.connect() as supervisor:
            assert eventually(lambda: any(each.clients for each in supervisor.list()))
        script.process.send_signal(signal.SIGINT)
        assert script.line() == "1"
        fifo = os.open(tmp_path / "fifo", os.O_RDWR)  # whoever opens it to read goes on
        assert script.end()[0] == 0
        os.close(fifo)
