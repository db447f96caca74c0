"""Zygotes, and who waits with them for a request, when somebody ends."""

import os
import select
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

import spawny
from spawny.supervisor import proctable
from tests.end_to_end.processes import eventually, kill, pause
from tests.end_to_end.zygotes import is_forked, named, warm

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="zygotes need Linux")


def test_starts_survive_the_death_of_their_zygote(home: Path) -> None:
    """Killed again and again while daemons are asked for, it costs time and nothing else."""
    supervisor = spawny.connect()
    warm(sys.executable, ("json",))
    clients = [
        subprocess.Popen([sys.executable, "-c", STARTS], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    pids = []
    while any(each.poll() is None for each in clients):
        for zygote in supervisor.zygotes():
            if zygote.pid is not None:
                with suppress(ProcessLookupError):
                    os.kill(zygote.pid, signal.SIGKILL)
    for each in clients:
        pids += [int(line) for line in each.communicate()[0].split()]
        assert each.returncode == 0
    assert len(set(pids)) == len(pids) == 30


STARTS = """
import logging, os, sys, spawny
quiet = logging.Logger("quiet")
for _ in range(10):
    proxy = spawny.run_script("import os\\ndef pid(): return os.getpid()", preload=["json"],
                              logger=quiet)
    print(proxy.pid(), flush=True)
"""


@pytest.mark.parametrize("where", ["call_path", "renew"])
def test_a_supervisor_that_dies_in_a_start(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """Before it knows what was forked, or before it has sent the definition: the start succeeds
    under the next one, and there is one process of it."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    (tmp_path / "hesitant.py").write_text(f"""
import os, sys
zygote = sys.modules.get("_spawny_kernel.zygote")
if zygote:
    real = zygote.{where}
    def hesitant(*arguments):
        if os.path.exists({str(fifo)!r}):
            open({str(fifo)!r}).close()
        return real(*arguments)
    zygote.{where} = hesitant
""")
    monkeypatch.syspath_prepend(str(tmp_path))
    proxies: list[Any] = []
    start = threading.Thread(
        target=lambda: proxies.append(spawny.run_script("x = 1", name="a", preload=["hesitant"]))
    )
    start.start()
    assert eventually((home / "state" / "logs" / "a.log").exists)
    supervisor = spawny.connect().version().pid
    if where == "renew":
        assert eventually((home / "run" / "journal" / "a.json").exists)
        kill(supervisor)
    with fifo.open("w"):  # there is one who has the request
        if where == "call_path":
            pause(supervisor)
        fifo.unlink()
    if where == "call_path":
        assert eventually(lambda: len(marked(home, "a")) == 1)
        kill(supervisor)
    start.join()
    (proxy,) = proxies
    assert spawny.value(proxy.x) == 1
    assert marked(home, "a") == [spawny.daemon(proxy).pid]
    proxy.terminate_daemon()


def marked(home: Path, name: str) -> list[int]:
    """The processes that say that they are this daemon's."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            variables = path.read_bytes().split(b"\0")
            is_here = f"SPAWNY_HOME={home}".encode() in variables
            mark = f"SPAWNY_DAEMON={name}:".encode()
            if is_here and any(each.startswith(mark) for each in variables):
                found.append(int(path.parent.name))
    return found


def test_no_zygote_outlives_its_supervisor(home: Path) -> None:
    """However that dies; the daemons live on."""
    zygote = warm(sys.executable, ("json",))
    supervisor = spawny.connect()
    assert zygote.pid is not None
    with named("a", sys.executable, ("json",), "x = 1") as proxy:
        while len(pids := session(zygote.pid)) < 2:  # and the one that waits for the next request
            os.sched_yield()
        fds = [os.pidfd_open(pid) for pid in pids]
        os.kill(supervisor.version().pid, signal.SIGKILL)
        for fd in fds:
            assert select.select([fd], [], [], 20)[0]
            os.close(fd)
        assert spawny.value(proxy.x) == 1
        assert supervisor.status("a").state == "ready"


def test_a_killed_zygote_is_replaced(home: Path) -> None:
    """What waits for the next request ends with it, and no start fails."""
    zygote = warm(sys.executable, ("json",))
    assert zygote.pid is not None
    os.kill(zygote.pid, signal.SIGKILL)
    with named("a", sys.executable, ("json",), "x = 1") as proxy:
        assert spawny.value(proxy.x) == 1
    while session(zygote.pid):
        os.sched_yield()


def session(pid: int) -> list[int]:
    """Who runs in the session of this process."""
    return [each.pid for each in proctable.everything() if each.session == pid]


def test_an_upgrade_goes_on_without_the_zygotes(home: Path) -> None:
    """They end, daemons stay, and the next starts make new ones."""
    zygote = warm(sys.executable, ("json",))
    supervisor = spawny.connect()
    with named("a", sys.executable, ("json",), "x = 1") as proxy:
        assert zygote.pid is not None
        fd = os.pidfd_open(zygote.pid)
        supervisor.upgrade()
        assert select.select([fd], [], [], 20)[0]
        os.close(fd)
        assert supervisor.zygotes() == []
        assert eventually(lambda: zombies(supervisor.version().pid) == [])
        assert spawny.value(proxy.x) == 1
        with named("b", sys.executable, ("json",), "x = 1"):
            assert is_forked("b")


def zombies(parent: int) -> list[int]:
    """Its children that it has not waited for."""
    return [each.pid for each in psutil.Process(parent).children() if each.status() == "zombie"]
