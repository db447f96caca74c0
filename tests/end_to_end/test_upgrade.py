"""A supervisor that becomes another version while it is used."""

import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import spawny
from spawny.cli import main
from spawny.errors import UpgradeFailed
from spawny.paths import locate
from tests import venvs
from tests.supervisor.site import Supervised

REPOSITORY = Path(__file__).parents[2]
WHEELS = sorted((REPOSITORY / "tests" / "wheels").glob("*.whl"))

SECONDS = 60
CLIENTS = 8
UPGRADES = 3


@pytest.fixture
def newer(tmp_path: Path) -> Path:
    """A place with a spawny of version 9.9."""
    shutil.copytree(REPOSITORY / "spawny", tmp_path / "spawny")
    init = tmp_path / "spawny" / "__init__.py"
    init.write_text(init.read_text().replace(spawny.__version__, "9.9"))
    return tmp_path


def upgrade_from(place: Path, home: Path) -> subprocess.CompletedProcess[str]:
    """`spawny supervisor upgrade` with the spawny of this place."""
    run = f"import sys; sys.path.insert(0, {str(place)!r}); from spawny.cli import main"
    return subprocess.run(
        [sys.executable, "-c", f"{run}; sys.exit(main(['supervisor', 'upgrade']))"],
        cwd="/",
        env=venvs.without_ours(home),
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )


def test_it_becomes_another_version_and_back(newer: Path, home: Path) -> None:
    """The process stays, and so do daemons, references and what is known of ended ones."""
    numbers = spawny.run_script("n = [1]", name="kept").n
    spawny.run_script("pass", name="over")
    supervisor = spawny.connect()
    supervisor.stop("over")
    before, status = supervisor.version(), supervisor.status("kept")
    done = upgrade_from(newer, home)
    assert done.returncode == 0, done.stderr
    assert done.stdout == (f"the supervisor is spawny 9.9, {sys.executable}, pid {before.pid}\n")
    assert supervisor.version().version == "9.9"
    numbers.append(2)
    assert spawny.attach("kept").n == [1, 2]
    assert supervisor.status("kept").pid == status.pid
    assert supervisor.status("over").state == "ended"
    after = supervisor.upgrade()
    assert (after.version, after.pid) == (spawny.__version__, before.pid)
    assert supervisor.restart("over").name == "over"
    supervisor.stop("over")
    supervisor.stop("kept")


def test_one_that_does_not_start_is_refused(newer: Path, home: Path) -> None:
    """Its traceback is in the error, and the old version serves on."""
    spawny.run_script("foo = 1", name="kept")
    supervisor = spawny.connect()
    before = supervisor.version()
    core = newer / "spawny" / "supervisor" / "core.py"
    core.write_text(core.read_text() + "\nraise RuntimeError('not today')\n")
    done = upgrade_from(newer, home)
    assert done.returncode == 1
    assert "RuntimeError: not today" in done.stderr
    assert supervisor.version() == before
    assert spawny.attach("kept").foo == 1
    supervisor.stop("kept")


def test_a_configuration_that_it_refuses(home: Path) -> None:
    """The trial reads it as the successor would."""
    supervisor = spawny.connect()
    config = locate().config_file
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text("[supervisor]\nlog_files = 'three'\n")
    with pytest.raises(UpgradeFailed, match="log_files must be a whole number"):
        supervisor.upgrade()
    assert supervisor.list() == []


LOAD = """
import itertools, os, sys, threading
import spawny
ending = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), ending.set()), daemon=True).start()
number = sys.argv[1]
shared = spawny.run_script("def add(a, b): return a + b", name="shared-" + number)
print("READY", flush=True)
rounds = 0
while not ending.is_set():
    name = "of-%s" % number
    made = spawny.run_script("def add(a, b): return a + b", name=name)
    assert made.add(rounds, 1) == rounds + 1
    with spawny.connect() as supervisor:
        assert name in [each.name for each in supervisor.list()]
        assert spawny.attach(name).add(1, 2) == 3
        assert shared.add(rounds, 2) == rounds + 2
        if rounds % 2:
            supervisor.restart(name)
            assert spawny.attach(name).add(1, 2) == 3
        supervisor.interrupt("shared-" + number)
        assert name in supervisor.stop(name)
        assert supervisor.status(name).state == "ended"
    rounds += 1
spawny.connect().stop("shared-" + number)
print(rounds)
"""


def test_nobody_notices_under_load(home: Path) -> None:
    """Eight clients start, call, list, attach, restart, interrupt and stop in a loop, each of
    which succeeds, and no call to any daemon fails."""
    supervisor = spawny.connect()
    pid = supervisor.version().pid
    clients = [
        subprocess.Popen(
            [sys.executable, "-c", LOAD, str(number)],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(CLIENTS)
    ]
    try:
        for client in clients:
            assert client.stdout is not None
            while client.stdout.readline() not in ("READY\n", ""):
                pass
        for _ in range(UPGRADES):
            assert supervisor.upgrade().pid == pid
        with ThreadPoolExecutor(CLIENTS) as threads:
            ends = list(threads.map(lambda each: each.communicate(timeout=SECONDS), clients))
    finally:
        for client in clients:
            client.kill()
            client.wait()
    assert "\n".join(said[1] for said in ends) == "\n" * (CLIENTS - 1)
    assert [each.returncode for each in clients] == [0] * CLIENTS
    assert all(int(said[0].splitlines()[-1]) > 0 for said in ends)
    assert supervisor.list() == []


def test_events_go_on(home: Path) -> None:
    """Who watches is told of the upgrade, then of what follows."""
    supervisor = spawny.connect()
    events = supervisor.events()
    supervisor.upgrade()
    assert next(events).kind == "upgrading"
    upgraded = next(events)
    assert (upgraded.kind, upgraded.name) == ("upgraded", "")
    assert spawny.__version__ in upgraded.detail
    spawny.run_script("pass", name="next")
    assert [(next(events).kind, "next") for _ in range(2)] == [
        ("started", "next"),
        ("ready", "next"),
    ]
    events.close()
    supervisor.stop("next")


SLOW_END = """
import atexit, time
atexit.register(time.sleep, 1.5)
"""


def test_a_stop_is_not_lost(home: Path) -> None:
    """It is under way when the upgrade begins, and both come to their end."""
    spawny.run_script(SLOW_END, name="slow")
    supervisor = spawny.connect()
    events = supervisor.events()
    said: list[str] = []
    stopper = threading.Thread(target=lambda: said.append(supervisor.stop("slow")))
    stopper.start()
    while next(events).kind != "stopping":
        pass
    events.close()
    supervisor.upgrade()
    stopper.join(SECONDS)
    assert len(said) == 1
    ended = re.fullmatch(r"daemon 'slow' ended after ([\d.]+) s", said[0])
    assert ended is not None
    assert float(ended[1]) >= 1


def test_the_end_of_a_daemon_is_told_over_an_upgrade(home: Path) -> None:
    """It is still a child of the supervisor: its exit code is known, and no zombie stays."""
    died = spawny.run_script("import os", name="dies")
    supervisor = spawny.connect()
    supervisor.upgrade()
    with pytest.raises(spawny.DaemonDied):
        died.os._exit(7)
    with pytest.raises(spawny.DaemonNotFound):
        supervisor.find("dies", SECONDS)
    status = supervisor.status("dies")
    assert (status.state, status.exit_code) == ("ended", 7)


@pytest.mark.parametrize("wheel", WHEELS, ids=lambda wheel: wheel.name.split("-")[1])
def test_from_an_older_release(
    pytestconfig: pytest.Config, wheel: Path, home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A call that is under way goes on; the daemon, its state and its restart policy stay."""
    old = venvs.released(pytestconfig, wheel)
    text = (
        "import spawny; spawny.run_script('import threading\\nn = [1]\\n"
        "gate = threading.Event()', name='kept', restart='always')"
    )
    subprocess.run([old, "-c", text], env=venvs.without_ours(home), check=True, cwd="/")
    supervisor = spawny.connect()
    before = supervisor.version()
    assert before.version != spawny.__version__
    kept = spawny.attach("kept")
    call = spawny.submit(kept.gate.wait, SECONDS)
    kept_pid = supervisor.status("kept").pid
    assert main(["version"]) == 0
    assert "spawny supervisor upgrade" in capfd.readouterr().out
    assert main(["supervisor", "upgrade"]) == 0
    assert f"the supervisor is spawny {spawny.__version__}, " in capfd.readouterr().out
    status = supervisor.status("kept")
    assert (status.pid, status.restart, status.state) == (kept_pid, "always", "busy")
    assert supervisor.interrupt("kept")
    with pytest.raises(KeyboardInterrupt):
        call.result(SECONDS)
    assert spawny.attach("kept").n == [1]
    supervisor.stop("kept")


def test_the_command_without_a_supervisor(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """There is nothing to do, and none is started for it."""
    assert main(["supervisor", "upgrade"]) == 0
    assert "no supervisor runs" in capsys.readouterr().out
    assert not locate().supervisor_socket.exists()


# --- under a service manager ----------------------------------------------------------------------


@pytest.fixture
def site(home: Path) -> Iterator[Supervised]:
    site = Supervised(home)
    yield site
    site.close()


def test_as_a_service_with_a_socket(site: Supervised) -> None:
    """The manager hears of a reload and its end, and its socket is served on and left in place."""
    site.paths.runtime.mkdir(mode=0o700, parents=True)
    with (
        socket.socket(socket.AF_UNIX) as listener,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager,
    ):
        listener.bind(str(site.paths.supervisor_socket))
        listener.listen()
        manager.bind(str(site.home / "notify"))
        manager.settimeout(SECONDS)
        told = iter(lambda: manager.recv(4096).decode(), None)
        variables = "LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=control"
        command = f'{variables} exec "$0" -m spawny.supervisor --service 3<&{listener.fileno()}'
        service = subprocess.Popen(
            ["/bin/bash", "-c", command, sys.executable],
            env=site.environ | {"NOTIFY_SOCKET": str(site.home / "notify")},
            pass_fds=(listener.fileno(),),
            stderr=subprocess.PIPE,
            text=True,
        )
        site.supervisors.append(service)
        assert next(told) == "READY=1\nSTATUS=serving"
        supervisor = spawny.connect(start=False)
        after = supervisor.upgrade()
        assert (after.pid, after.service) == (service.pid, True)
        assert next(told).startswith("RELOADING=1\nMONOTONIC_USEC=")
        assert next(told) == "READY=1\nSTATUS=serving"
        assert supervisor.upgrade().pid == service.pid
        supervisor.shutdown()
        assert service.wait(SECONDS) == 0
        assert site.paths.supervisor_socket.exists()
        listener.setblocking(False)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(site.paths.supervisor_socket))
            listener.accept()[0].close()
