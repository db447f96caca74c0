"""State that goes from a daemon to its successor, in real processes."""

import os
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import spawny
from tests.end_to_end.processes import eventually, is_gone, kill
from tests.interpreters import Interpreter

SCRIPT = """
import os, time

class Point:
    def __init__(self, x):
        self.x = x

points = []
refuses = False
was_restored = False

def add(x):
    points.append(Point(x))
    return os.getpid()

def xs():
    return [each.x for each in points]

def refuse(yes):
    global refuses
    refuses = yes

def restored():
    return was_restored

def sleep(seconds):
    time.sleep(seconds)

def __spawny_save__():
    if refuses:
        raise ValueError("not now")
    if os.path.exists(os.environ["GATE"]):
        open(os.environ["GATE"] + ".reached", "w").close()
        with open(os.environ["GATE"]) as gate:  # until somebody opens its other end
            gate.read()
    return points

def __spawny_restore__(state):
    global was_restored
    if state and state[0].x == "poison" and os.path.exists(os.environ["POISON"]):
        raise LookupError("cannot take this")
    was_restored = True
    points.extend(state)
"""


@pytest.fixture
def run(home: Path, tmp_path: Path) -> Iterator[Any]:
    def start(python: str | None = None, **options: Any) -> spawny.ObjectProxy:
        env = {"POISON": str(tmp_path / "poison"), "GATE": str(tmp_path / "gate")}
        return spawny.run_script(SCRIPT, python, name="keeper", env=env, **options)

    yield start
    spawny.connect().stop("keeper")


def saved(home: Path) -> list[Path]:
    folder = home / "run" / "saved"
    return list(folder.iterdir()) if folder.exists() else []


def test_state_survives_a_restart(run: Any, home: Path, interpreter: Interpreter) -> None:
    """Whatever can be pickled, instances of the script's classes too; nothing is left behind."""
    root = run(interpreter.path)
    before = root.add(1)
    spawny.daemon(root).restart()
    assert root.xs() == [1]
    assert root.add(2) != before
    spawny.connect().restart("keeper")
    assert root.xs() == [1, 2]
    assert saved(home) == []


def test_state_survives_a_limit(run: Any, interpreter: Interpreter) -> None:
    """Each process takes over what the one before had, and no call is missing in it."""
    root = run(interpreter.path, max_calls=30)
    pids: list[int] = []
    while len(set(pids)) < 2:
        with suppress(spawny.StaleReference):  # too late for the one in which it was looked up
            pids.append(root.add(len(pids)))
    assert root.xs() == list(range(len(pids)))


def test_nothing_is_restored_after_a_crash(run: Any) -> None:
    """What was saved once is used once."""
    root = run(restart="on-failure")
    root.add(1)
    spawny.daemon(root).restart()
    assert root.restored() is True
    kill(spawny.connect().status("keeper").pid or 0)
    assert root.restored() is False
    assert root.xs() == []


def test_a_state_that_cannot_be_saved_keeps_the_daemon(run: Any, home: Path) -> None:
    """The restart is refused with the error; nothing is lost, and status tells why."""
    root = run()
    pid = root.add(1)
    root.refuse(True)
    with pytest.raises(spawny.SpawnyError, match=r"not restarted.*ValueError: not now"):
        spawny.daemon(root).restart()
    assert root.add(2) == pid
    now = spawny.daemon(root).status()
    assert "ValueError: not now" in now.reason
    assert now.state == "ready"
    assert saved(home) == []
    root.refuse(False)
    spawny.daemon(root).restart()
    assert root.xs() == [1, 2]


def test_a_limit_with_a_state_that_cannot_be_saved_keeps_it_too(run: Any) -> None:
    """Calls go on in the same process."""
    root = run(max_calls=20)
    root.refuse(True)
    pids = {root.add(n) for n in range(30)}
    assert eventually(lambda: "ValueError: not now" in spawny.daemon(root).status().reason)
    pids |= {root.add(n) for n in range(30, 40)}
    assert len(pids) == 1
    assert root.xs() == list(range(40))


def test_a_state_that_cannot_be_restored_is_kept(run: Any, home: Path, tmp_path: Path) -> None:
    """The start fails with the hook's error, of which who attaches is told, and names the file,
    which is for its owner alone; the next start tries again."""
    poison = tmp_path / "poison"
    root = run()
    root.add("poison")
    poison.touch()
    with pytest.raises(spawny.DaemonStartError, match="cannot take this"):
        spawny.daemon(root).restart()
    (file,) = saved(home)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    with pytest.raises(spawny.DaemonStartError, match="cannot take this"):
        spawny.attach("keeper")  # for which it has waited
    poison.unlink()
    assert eventually(lambda: spawny.connect().status("keeper").state == "ended")
    assert str(file) in spawny.connect().status("keeper").reason
    spawny.connect().restart("keeper")
    assert spawny.attach("keeper").xs() == ["poison"]
    assert saved(home) == []


def test_a_state_that_is_not_restored_ends_no_client(home: Path) -> None:
    """Whatever the hook raises: who attaches is told that the daemon did not start."""
    script = """
def __spawny_save__(): return 1
def __spawny_restore__(state): raise SystemExit
"""
    spawny.run_script(script, name="leaver")
    with pytest.raises(spawny.DaemonStartError, match="cannot be restored"):
        spawny.connect().restart("leaver")
    with pytest.raises(spawny.DaemonStartError, match="cannot be restored"):
        spawny.attach("leaver")


def test_a_restart_interrupts_what_runs_and_saves(run: Any) -> None:
    """The call ends, its client is told; what was there is there again."""
    root = run()
    root.add(1)
    future = spawny.submit(root.sleep, 60)
    assert eventually(lambda: spawny.daemon(root).status().state == "busy")
    spawny.connect().restart("keeper")
    with pytest.raises(spawny.DaemonDied, match="was ended while this ran"):
        future.result()
    assert root.xs() == [1]


def test_a_restart_while_the_state_is_being_saved(home: Path, tmp_path: Path) -> None:
    """What was saved for a limit is restored after a restart that was asked for meanwhile."""
    os.mkfifo(tmp_path / "go")
    script = f"""
count = 0
def add():
    global count
    count += 1
    return count
def __spawny_save__():
    open({os.fspath(tmp_path / "go")!r}).close()
    return count
def __spawny_restore__(state):
    global count
    count = state
"""
    root = spawny.run_script(script, name="slow", max_calls=2)
    root.add()
    supervisor = spawny.connect()
    assert eventually(lambda: supervisor.status("slow").busy_call == "saving its state")
    with ThreadPoolExecutor() as pool:
        restarted = pool.submit(spawny.connect().restart, "slow")
        supervisor.status("slow")  # answered by the daemon, after it has had the order
        open(tmp_path / "go", "w").close()
        restarted.result()
    assert spawny.attach("slow").add() == 2
    supervisor.stop("slow")


def test_a_daemon_that_dies_while_it_saves_its_state(home: Path) -> None:
    """It is started anew, and whoever restarts it hears that the state is lost."""
    script = """
import os
def __spawny_save__():
    os._exit(0)
def __spawny_restore__(state):
    pass
"""
    root = spawny.run_script(script, name="dying")
    before = spawny.daemon(root).pid
    supervisor = spawny.connect()
    lost = "exited with code 0 while it saved its state, which is lost"
    with pytest.raises(spawny.SpawnyError, match=lost):
        supervisor.restart("dying")
    assert spawny.daemon(spawny.attach("dying")).pid != before
    assert lost in str(supervisor.why("dying").endings[0])
    supervisor.stop("dying")


def release(gate: Path) -> None:
    """Have the hook return, once it is there."""
    with open(gate, "w"):
        pass
    gate.unlink()


def test_saving_may_take_longer_than_any_grace(
    run: Any, home: Path, tmp_path: Path, interpreter: Interpreter
) -> None:
    """Nothing is done to a daemon that saves, not even when another restart is requested; and
    calls wait."""
    (home / "config").mkdir()
    (home / "config" / "config.toml").write_text(
        "[supervisor]\nstop_grace_seconds = 0.2\nterm_grace_seconds = 0.2\n"
    )
    os.mkfifo(tmp_path / "gate")
    root = run(interpreter.path)
    before = root.add(1)
    with ThreadPoolExecutor() as pool:
        restarts = [pool.submit(spawny.connect().restart, "keeper") for _ in range(2)]
        assert eventually((tmp_path / "gate.reached").exists)
        call = pool.submit(lambda: root.add(2))
        other = spawny.run_script("import time\ndef sleep(seconds): time.sleep(seconds)")
        other.sleep(1)  # five times the grace
        assert spawny.connect().status("keeper").pid == before
        assert not call.done()
        release(tmp_path / "gate")
        for each in restarts:
            each.result()
        assert call.result() != before
    assert root.xs() == [1, 2]
    assert saved(home) == []


def test_a_restart_goes_on_when_the_supervisor_is_killed(
    run: Any, home: Path, tmp_path: Path, interpreter: Interpreter
) -> None:
    """While the daemon saves: it serves nobody else, and ends with no supervisor. The next one
    starts its successor, with the state."""
    os.mkfifo(tmp_path / "gate")
    root = run(interpreter.path)
    before = root.add(1)
    with ThreadPoolExecutor() as pool:
        restart = pool.submit(spawny.connect().restart, "keeper")
        assert eventually((tmp_path / "gate.reached").exists)
        end_supervisor()
        release(tmp_path / "gate")
        assert is_gone(before)
        with pytest.raises(spawny.SupervisorUnavailable):
            restart.result()
    assert eventually(lambda: spawny.connect().status("keeper").state == "ready")
    root = spawny.attach("keeper")
    assert root.add(2) != before
    assert root.xs() == [1, 2]
    assert saved(home) == []


def test_it_goes_on_in_the_next_supervisor_too(run: Any, home: Path, tmp_path: Path) -> None:
    """The daemon is still saving when that comes."""
    os.mkfifo(tmp_path / "gate")
    root = run()
    before = root.add(1)
    with ThreadPoolExecutor() as pool:
        restart = pool.submit(spawny.connect().restart, "keeper")
        assert eventually((tmp_path / "gate.reached").exists)
        end_supervisor()
        with pytest.raises(spawny.SupervisorUnavailable):
            restart.result()
        # Asking for it starts one.
        assert eventually(lambda: spawny.connect().status("keeper").state == "busy")
        release(tmp_path / "gate")
    assert is_gone(before)
    assert eventually(lambda: spawny.connect().status("keeper").state == "ready")
    assert spawny.attach("keeper").xs() == [1]
    assert saved(home) == []


def test_a_limit_waits_for_a_supervisor(run: Any, home: Path) -> None:
    """Without one nobody would start the next process: the daemon serves on, and is started anew
    when there is a supervisor again."""
    root = run(max_calls=20)
    before = root.add(0)
    end_supervisor()
    assert {root.add(n) for n in range(1, 50)} == {before}
    spawny.connect()
    assert eventually(lambda: spawny.connect().status("keeper").restarts == 1)
    root = spawny.attach("keeper")
    assert root.xs() == list(range(50))
    assert saved(home) == []


def end_supervisor() -> None:
    """SIGKILL it, and wait until it is gone."""
    kill(spawny.connect().version().pid)


def test_an_instance_has_methods_for_hooks(home: Path) -> None:
    """Of its class, however private their names look."""
    script = """
class Box:
    def __init__(self): self.content = None
    def put(self, content): self.content = content
    def get(self): return self.content
    def __spawny_save__(self): return self.content
    def __spawny_restore__(self, state): self.content = state
"""
    (home / "boxes_here.py").write_text(script)
    box = spawny.run_object(
        spawny.InstanceDefinition("boxes_here", "Box"), name="box", env={"PYTHONPATH": str(home)}
    )
    box.put([1, 2])
    spawny.daemon(box).restart()
    assert list(box.get()) == [1, 2]
    spawny.daemon(box).stop()
